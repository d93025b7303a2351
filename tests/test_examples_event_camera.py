"""The simulated event camera: events that tell how the brightness changed, and a file that says the same."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from eventsim.dvs import EVENT_DTYPE, open_recording

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[1] / "examples")
    event_camera = importlib.import_module("event_camera")

PICTURE = np.random.default_rng(0).random((8, 8))
CAMERA = event_camera.EventCamera()
IDEAL = event_camera.EventCamera(mismatch=0, noise_hz=0)


def test_the_seeds_decide_everything() -> None:
    events = CAMERA.record(PICTURE, seed=1)
    assert_array_equal(CAMERA.record(PICTURE, seed=1), events)
    assert not np.array_equal(CAMERA.record(PICTURE, seed=2), events)
    assert not np.array_equal(replace(CAMERA, seed=1).record(PICTURE, seed=1), events)


def test_events_are_in_order_and_on_the_sensor() -> None:
    events = CAMERA.record(PICTURE, seed=1)
    assert events.dtype == EVENT_DTYPE
    assert len(events) > 1000
    assert (np.diff(events["t"]) >= 0).all()
    assert 0 <= events["t"].min() < events["t"].max() < 300_000
    for axis in "xy":
        assert 0 <= events[axis].min() < events[axis].max() < 34


@pytest.mark.parametrize("until_us", [50_000, 76_000, 150_000, 300_000])
def test_events_add_up_to_the_change_of_the_logarithm(until_us: int) -> None:
    events = IDEAL.record(PICTURE, seed=1)
    events = events[events["t"] < until_us]
    steps = np.zeros((34, 34))
    np.add.at(steps, (events["y"], events["x"]), np.where(events["p"], IDEAL.threshold, -IDEAL.threshold))
    change = logarithm(until_us) - logarithm(0)
    # a pixel is at most one threshold from what it remembers, at the beginning and at the end
    assert_allclose(steps, change, atol=2 * IDEAL.threshold + 0.01)
    assert abs(change).max() > 4 * IDEAL.threshold or until_us == 300_000


def logarithm(t_us: int) -> np.ndarray:
    """The picture at its place, bilinearly enlarged threefold, pixel by pixel."""
    centre_x, centre_y = event_camera.position(t_us)
    seen = np.zeros((34, 34))
    for row in range(34):
        for column in range(34):
            y, x = (row - 16.5 - centre_y) / 3 + 3.5, (column - 16.5 - centre_x) / 3 + 3.5
            for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= j < 8 and 0 <= i < 8:
                        seen[row, column] += PICTURE[j, i] * (1 - abs(y - j)) * (1 - abs(x - i))
    return np.log(0.1 + 0.9 * seen)


def test_finer_rendering_changes_little() -> None:
    coarse, fine = (replace(IDEAL, step_us=step).record(PICTURE, seed=1) for step in (2000, 500))
    assert abs(len(coarse) - len(fine)) < 0.01 * len(fine)
    differences = []
    for y, x in np.ndindex(34, 34):
        times = [events["t"][(events["x"] == x) & (events["y"] == y)] for events in (coarse, fine)]
        if len(times[0]) == len(times[1]):
            differences.append(times[0] - times[1])
    assert len(differences) > 0.95 * 34 * 34
    assert np.mean(abs(np.concatenate(differences)) < 200) > 0.95


def test_the_picture_makes_three_saccades_and_returns() -> None:
    positions = np.array([event_camera.position(t) for t in range(0, 300_001, 1000)])
    assert_array_equal(positions[0], positions[-1])
    velocity = np.diff(positions, axis=0)
    assert_array_equal(np.sign(velocity[50:51]), [[1, 1]])  # down to the right
    assert_array_equal(np.sign(velocity[150:151]), [[1, -1]])  # up to the right
    assert velocity[250, 0] < 0
    assert abs(velocity).max() < 0.12
    assert abs(velocity[[0, 99, 100, 199, 200, 299]]).max() < 0.01


def test_noise_and_mismatch_have_the_strength_asked_for() -> None:
    dark = np.zeros((8, 8))
    assert len(IDEAL.record(dark, seed=1)) == 0
    noise = replace(IDEAL, noise_hz=5).record(dark, seed=1)
    assert_allclose(len(noise), 5 * 34 * 34 * 0.3, rtol=0.1)
    assert_allclose(noise["p"].mean(), 0.5, atol=0.05)


def test_a_file_says_the_same(tmp_path: Path) -> None:
    events = CAMERA.record(PICTURE, seed=1)
    event_camera.write_nmnist(tmp_path / "a.bin", events)
    assert (tmp_path / "a.bin").stat().st_size == 5 * len(events)
    assert_array_equal(np.concatenate(list(open_recording(tmp_path / "a.bin").chunks())), events)


@pytest.mark.parametrize("t", [-1, 2**23])
def test_a_time_that_does_not_fit_is_refused(t: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"a\.bin: times from {t} to {t} us found; expected 0 to 8388607"):
        event_camera.write_nmnist(tmp_path / "a.bin", np.array([(1, 2, t, True)], EVENT_DTYPE))


def test_a_network_follows_the_camera_in_real_time(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "examples")
        live_camera = importlib.import_module("live_camera")
    live_camera.main(digits=3)
    *lines, dropped = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["0.30 s", "0.60 s", "0.90 s"]
    assert sum("saw {0}, says {0}".format(line.split("saw ")[1][0]) in line for line in lines) >= 2
    assert dropped == "0 batches dropped"
