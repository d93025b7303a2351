"""Windows as SpikingJelly and Tonic cut them, against their own code, and through `Preparation` by name."""

from __future__ import annotations

import ast
import importlib.util
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import windowing as reference
from test_dvs_windowing import DATA, HEIGHT, WIDTH, event_arrays, recording_of

from eventsim import NetworkBuilder, save
from eventsim.cli import main
from eventsim.dvs import (
    EVENT_DTYPE,
    frames_by_count,
    frames_by_duration,
    frames_by_time,
    frames_from_events,
    frames_of_slices,
    open_recording,
)
from eventsim.errors import InputError
from eventsim.layers import Flatten, Input, Linear, MeanOverTime, Readout
from eventsim.preparation import Preparation
from eventsim.preparation_options import BINS

FUNCTIONS = (
    "integrate_events_segment_to_frame",
    "cal_fixed_frames_number_segment_index",
    "integrate_events_by_fixed_frames_number",
    "integrate_events_by_fixed_duration",
)


@pytest.fixture(scope="session")
def spikingjelly() -> Any:
    """SpikingJelly's own functions; their module imports torchvision, which need not be there."""
    found = importlib.util.find_spec("spikingjelly")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs SpikingJelly")
    source = Path(next(iter(found.submodule_search_locations)), "datasets", "__init__.py").read_text()
    with warnings.catch_warnings(action="ignore"):  # of escapes in its docstrings
        tree = ast.parse(source)
    body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS]
    assert len(body) == len(FUNCTIONS)
    for node in body:
        node.body = node.body[1:] if isinstance(node.body[0], ast.Expr) else node.body
        node.args.args = [ast.arg(each.arg) for each in node.args.args]
        node.returns = None
    names: dict[str, Any] = {"np": np}
    exec(compile(ast.fix_missing_locations(ast.Module(body, [])), "spikingjelly", "exec"), names)
    return SimpleNamespace(**{name: names[name] for name in FUNCTIONS})


def as_dict(events: Any) -> dict[str, Any]:
    return {name: events[name].astype(np.int64) for name in "txyp"}


@given(events=event_arrays(), steps=st.integers(1, 12), chunk=st.integers(1, 70))
def test_the_remainder_is_dropped_as_tonic_does(events: Any, steps: int, chunk: int) -> None:
    recording = recording_of(events, chunk)
    for cut, windows in (
        (frames_by_count, reference.windows_of_tonic_by_number),
        (frames_by_time, reference.windows_of_tonic_by_time),
    ):
        try:
            found = cut(recording, steps, remainder="drop")
        except InputError:
            assert steps > len(events) or events["t"][-1] - events["t"][0] < steps
            continue
        assert_array_equal(found, reference.frames(events, windows(events, steps), steps, HEIGHT, WIDTH))


@given(events=event_arrays(), bin_us=st.integers(1, 200), chunk=st.integers(1, 70))
def test_bins_that_begin_with_an_event(events: Any, bin_us: int, chunk: int) -> None:
    windows = reference.windows_from_events(events, bin_us)
    found = list(frames_from_events(recording_of(events, chunk), bin_us))
    assert_array_equal(found, reference.frames(events, windows, windows[-1] + 1, HEIGHT, WIDTH))
    clipped = list(frames_from_events(recording_of(events, chunk), bin_us, binary=True))
    assert_array_equal(clipped, np.minimum(found, 1))


def random_events(seed: int) -> Any:
    random = np.random.default_rng(seed)
    events = np.empty(997, EVENT_DTYPE)
    # several events of one time, and events on the borders of windows
    events["t"] = np.sort(random.integers(0, 300, 997)) * 10 + 5_000
    events["x"], events["y"] = random.integers(0, WIDTH, 997), random.integers(0, HEIGHT, 997)
    events["p"] = random.integers(0, 2, 997)
    return events


def recordings() -> list[Any]:
    files = sorted(DATA.glob("dvsgesture/*.aedat"))[:1] + sorted(DATA.glob("nmnist/Test/*/*.bin"))[:2]
    return [recording_of(random_events(seed)) for seed in range(4)] + [open_recording(path) for path in files]


def test_frames_of_spikingjelly(spikingjelly: Any) -> None:
    for recording in recordings():
        events = as_dict(np.concatenate(list(recording.chunks())))
        size = recording.height, recording.width
        span = int(events["t"][-1] - events["t"][0])
        for steps in (1, 4, 7, 16):
            by = spikingjelly.integrate_events_by_fixed_frames_number
            assert_array_equal(frames_by_count(recording, steps), by(events, "number", steps, *size))
            assert_array_equal(frames_by_time(recording, steps), by(events, "time", steps, *size))
        for bin_us in (span // 23 + 1, span // 10, span // 2, span, 2 * span):
            theirs = spikingjelly.integrate_events_by_fixed_duration(events, bin_us, *size)
            assert_array_equal(list(frames_from_events(recording, bin_us)), theirs)


def test_events_out_of_order_are_counted_as_spikingjelly_does(spikingjelly: Any) -> None:
    events = random_events(9)
    np.random.default_rng(0).shuffle(events["t"])
    by = spikingjelly.integrate_events_by_fixed_frames_number
    assert_array_equal(frames_by_count(recording_of(events), 7), by(as_dict(events), "number", 7, HEIGHT, WIDTH))


def test_frames_of_tonic() -> None:
    transforms = pytest.importorskip("tonic.transforms")
    for recording in recordings():
        events = np.concatenate(list(recording.chunks()))
        sensor = (recording.width, recording.height, 2)
        span = int(events["t"][-1] - events["t"][0])
        for steps in (1, 4, 7, 16):
            theirs = transforms.ToFrame(sensor, n_event_bins=steps)(events)
            assert_array_equal(frames_by_count(recording, steps, remainder="drop"), theirs)
            theirs = transforms.ToFrame(sensor, n_time_bins=steps)(events)
            assert_array_equal(frames_by_time(recording, steps, remainder="drop"), theirs)
        # also where the recording is exactly so many bins long, and where it is shorter than one
        for bin_us in (span // 23 + 1, span // 10, span, span + 1, 2 * span):
            theirs = transforms.ToFrame(sensor, time_window=bin_us)(events)
            assert_array_equal(list(frames_by_duration(recording, bin_us, include_incomplete="alone")), theirs)


def test_every_convention_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = NetworkBuilder("sees")
    source = build.add("flatten", Flatten(), build.add("input", Input((2, HEIGHT, WIDTH))))
    source = build.add("sum", Linear(np.ones((2, 2 * HEIGHT * WIDTH), np.float32)), source)
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), source))
    network = build.build(time_steps=4)
    save(network, tmp_path / "m.h5")
    events = random_events(5)
    np.save(tmp_path / "a.npy", events)
    recording = recording_of(events)
    expected = {
        "count": frames_by_count(recording, 4),
        "time": frames_by_time(recording, 4),
        "duration": list(frames_by_duration(recording, 700)),
        "tonic-count": frames_by_count(recording, 4, remainder="drop"),
        "tonic-time": frames_by_time(recording, 4, remainder="drop"),
        "tonic-duration": list(frames_by_duration(recording, 700, include_incomplete=False)),
        "tonic-event-count": list(frames_of_slices(recording, events=90)),
        "spikingjelly-duration": list(frames_from_events(recording, 700)),
    }
    assert len({np.asarray(frames).tobytes() for frames in expected.values()}) == 8
    for window, frames in expected.items():
        bin_us = 700 if window in BINS else None
        bin_events = 90 if window == "tonic-event-count" else None
        preparation = Preparation(
            window=window,  # type: ignore[arg-type]
            bin_us=bin_us,
            bin_events=bin_events,
            sensor_size=(HEIGHT, WIDTH),
        )
        found = preparation.frames(tmp_path / "a.npy", network)
        assert_array_equal(list(found), frames)
        flags = ["--window", window, "--sensor", f"{WIDTH}x{HEIGHT}", *(["--bin-us", "700"] if bin_us else [])]
        flags += ["--bin-events", "90"] if bin_events else []
        capsys.readouterr()
        assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "a.npy"), "--json", *flags]) == 0
        (sample,) = json.loads(capsys.readouterr().out)["samples"]
        assert sample["time_steps"] == len(frames)
        assert sample["logits"][0] == pytest.approx(np.sum(frames) / len(frames))
    with pytest.raises(InputError, match=r"window='tonic-count' with bin_us=5 found"):
        Preparation(window="tonic-count", bin_us=5)
    with pytest.raises(InputError, match="window='frames' found; expected one of count, time, duration, tonic-count"):
        Preparation(window="frames")  # type: ignore[arg-type]


@given(events=event_arrays(), size=st.integers(1, 60), overlap=st.integers(0, 59), chunk=st.integers(1, 70))
def test_slices_that_overlap(events: Any, size: int, overlap: int, chunk: int) -> None:
    overlap = min(overlap, size - 1)
    recording = recording_of(events, chunk)
    numbers = list(range(len(events)))
    slices = reference.slices_of_tonic(numbers, size, overlap, len(events))
    expected = reference.frames_of_slices(events, numbers, slices, HEIGHT, WIDTH)
    assert_array_equal(list(frames_of_slices(recording, events=size, overlap=overlap)), expected)
    times = [int(t) for t in events["t"]]
    slices = reference.slices_of_tonic(times, size, overlap, times[-1])
    expected = reference.frames_of_slices(events, times, slices, HEIGHT, WIDTH)
    assert_array_equal(list(frames_of_slices(recording, duration_us=size, overlap=overlap)), expected)
    clipped = list(frames_of_slices(recording, duration_us=size, overlap=overlap, binary=True))
    assert_array_equal(clipped, np.minimum(expected, 1))


def test_slices_of_tonic() -> None:
    transforms = pytest.importorskip("tonic.transforms")
    compared = 0
    for recording in recordings():
        events = np.concatenate(list(recording.chunks()))
        sensor = (recording.width, recording.height, 2)
        count, span = len(events), int(events["t"][-1] - events["t"][0])
        for size in (count // 19, count // 7, count // 2, count, count + 1, 3 * count):
            for overlap in (0, size // 3, size // 2, size - size // 9 - 1):
                theirs = transforms.ToFrame(sensor, event_count=size, overlap=overlap)(events)
                assert_array_equal(list(frames_of_slices(recording, events=size, overlap=overlap)), theirs)
                compared += 1
        for size in (span // 23 + 1, span // 10, span // 2, span, span + 1, 2 * span):
            for overlap in (0, size // 3, size // 2, size - size // 9 - 1):
                theirs = transforms.ToFrame(sensor, time_window=size, overlap=overlap)(events)
                assert_array_equal(list(frames_of_slices(recording, duration_us=size, overlap=overlap)), theirs)
                compared += 1
    assert compared == 48 * len(recordings())


def test_overlaps_are_those_of_the_windows_that_have_them() -> None:
    build = NetworkBuilder("sees")
    source = build.add("flatten", Flatten(), build.add("input", Input((2, HEIGHT, WIDTH))))
    build.add("readout", Readout(), source)
    network = build.build(time_steps=4)
    recording = recording_of(random_events(6))
    found = Preparation(bin_events=90, overlap=30).frames(recording, network)
    assert_array_equal(list(found), list(frames_of_slices(recording, events=90, overlap=30)))
    found = Preparation(window="tonic-duration", bin_us=700, overlap=300).frames(recording, network)
    assert_array_equal(list(found), list(frames_of_slices(recording, duration_us=700, overlap=300)))
    overlaps: list[dict[str, Any]] = [
        {"bin_us": 700, "overlap": 1},
        {"window": "count", "overlap": 1},
        {"window": "tonic-count", "overlap": 1},
        {"bin_events": 90, "overlap": 90},
        {"bin_events": 90, "overlap": -1},
        {"window": "tonic-duration", "bin_us": 700, "overlap": 700},
    ]
    for wrong in overlaps:
        with pytest.raises(
            InputError, match=r"with overlap=-?\d+ found; expected overlap=N with window='tonic-duration'"
        ):
            Preparation(**wrong)
    bins: list[dict[str, Any]] = [
        {"window": "count", "bin_events": 9},
        {"bin_events": 0},
        {"bin_us": 5, "bin_events": 9},
    ]
    for wrong in bins:
        with pytest.raises(InputError, match=r"with bin_events=[09] found; expected bin_events=N with window='t"):
            Preparation(**wrong)
    with pytest.raises(InputError, match="window='count' with overlap=5 found"):
        Preparation(overlap=5).frames(recording, network)
    with pytest.raises(InputError, match="bins of 9 events and 3 time steps asked for"):
        Preparation(bin_events=9, time_steps=3).frames(recording, network)
    with pytest.raises(InputError, match="window='tonic-event-count' found; expected bin_events=N with it"):
        Preparation(window="tonic-event-count").frames(recording, network)
    for window in ("duration", "tonic-duration", "spikingjelly-duration"):
        with pytest.raises(InputError, match=f"window='{window}' found; expected bin_us=N with it"):
            Preparation(window=window).frames(recording, network)


def test_slices_that_make_no_sense() -> None:
    recording = recording_of(random_events(1))
    options: list[dict[str, Any]] = [
        {},
        {"events": 5, "duration_us": 5},
        {"events": 5, "overlap": 5},
        {"events": 0},
        {"duration_us": -1},
    ]
    for wrong in options:
        with pytest.raises(InputError):
            frames_of_slices(recording, **wrong)
    with pytest.raises(InputError, match="frames of 2 x"):
        frames_of_slices(recording, events=2**31, overlap=2**31 - 1)
    far = random_events(1)
    far["t"][-1] = 2**61
    with pytest.raises(InputError, match="expected at most 1000000; the times are corrupt"):
        list(frames_of_slices(recording_of(far), duration_us=5))
    with pytest.raises(InputError, match="holds no events"):
        list(frames_of_slices(open_recording(np.zeros(0, EVENT_DTYPE), sensor_size=(5, 5)), events=5))
