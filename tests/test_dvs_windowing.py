"""Windowing against the plain reference, and against Tonic's ToFrame."""

from pathlib import Path

import event_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import windowing as reference
from test_dvs_readers import GOOD_EVENTS, npy

from eventsim.dvs import (
    EVENT_DTYPE,
    Defects,
    Fit,
    Reading,
    frames_by_count,
    frames_by_duration,
    frames_by_time,
    open_recording,
    windowing,
)
from eventsim.errors import InputError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
WIDTH, HEIGHT = 7, 5


@st.composite
def event_arrays(draw, longest_gap=40):
    steps = draw(st.lists(st.integers(0, longest_gap), min_size=1, max_size=60))
    seed = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    events = np.empty(len(steps), EVENT_DTYPE)
    events["t"] = np.cumsum(steps) + draw(st.integers(-100, 10**15))
    events["x"] = seed.integers(0, WIDTH, len(steps))
    events["y"] = seed.integers(0, HEIGHT, len(steps))
    events["p"] = seed.integers(0, 2, len(steps))
    return events


def recording_of(events, chunk=None):
    recording = open_recording(events, sensor_size=(HEIGHT, WIDTH))
    if chunk is not None:
        stream = recording.chunks
        recording.chunks = lambda **taken: stream(chunk, **taken)
    return recording


@given(events=event_arrays(), steps=st.integers(1, 12), chunk=st.integers(1, 70))
def test_by_count(events, steps, chunk):
    recording = recording_of(events, chunk)
    if steps > len(events):
        with pytest.raises(InputError, match="lower the number of time steps"):
            frames_by_count(recording, steps)
        return
    expected = reference.frames(events, reference.windows_by_number(events, steps), steps, HEIGHT, WIDTH)
    frames = frames_by_count(recording, steps)
    assert frames.dtype == np.int32 and frames.sum() == len(events)
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_array_equal(frames_by_count(recording, steps, binary=True), np.minimum(expected, 1))


@given(events=event_arrays(), steps=st.integers(1, 12), chunk=st.integers(1, 70))
def test_by_time(events, steps, chunk):
    recording = recording_of(events, chunk)
    if events["t"][-1] - events["t"][0] < steps:
        with pytest.raises(InputError, match="at least 1 us"):
            frames_by_time(recording, steps)
        return
    expected = reference.frames(events, reference.windows_by_time(events, steps), steps, HEIGHT, WIDTH)
    np.testing.assert_array_equal(frames_by_time(recording, steps), expected)


@given(
    events=event_arrays(),
    bin_us=st.integers(1, 200),
    chunk=st.integers(1, 70),
    start=st.none() | st.integers(-300, 300),
)
def test_by_duration(events, bin_us, chunk, start):
    start_us = None if start is None else int(events["t"][0]) + start
    recording = recording_of(events, chunk)
    windows = reference.windows_by_duration(events, bin_us, start_us)
    stream = frames_by_duration(recording, bin_us, start_us=start_us)
    if windows[-1] < 0:
        with pytest.raises(InputError, match="no events from"):
            list(stream)
        return
    expected = reference.frames(events, windows, windows[-1] + 1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(list(stream), expected)
    complete = frames_by_duration(recording, bin_us, start_us=start_us, include_incomplete=False, binary=True)
    if windows[-1] == 0:
        with pytest.raises(InputError, match="shorter than one bin"):
            list(complete)
    else:
        np.testing.assert_array_equal(list(complete), np.minimum(expected[:-1], 1))


@given(
    events=event_arrays(),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    mode=st.sampled_from(["none", "crop", "pad", "downscale"]),
)
def test_fit(events, size, mode):
    height, width = size
    smaller = height <= HEIGHT and width <= WIDTH
    larger = height >= HEIGHT and width >= WIDTH
    allowed = {"none": smaller and larger, "crop": smaller, "downscale": smaller, "pad": larger}[mode]
    fit = Fit(size, mode)
    if not allowed:
        with pytest.raises(InputError, match=f"sensor 7 x 5 and frames {width} x {height}.*'crop'.*'downscale'.*'pad'"):
            frames_by_count(recording_of(events), 1, fit=fit)
        return

    def move(x, y):
        if mode == "downscale":
            return x * width // WIDTH, y * height // HEIGHT
        if mode == "pad":
            return x + (width - WIDTH) // 2, y + (height - HEIGHT) // 2
        x, y = x - (WIDTH - width) // 2, y - (HEIGHT - height) // 2
        return (x, y) if 0 <= x < width and 0 <= y < height else None

    expected = reference.frames(events, [0] * len(events), 1, height, width, move)
    np.testing.assert_array_equal(frames_by_count(recording_of(events), 1, fit=fit), expected)
    (frame,) = frames_by_duration(recording_of(events), 10**6, fit=fit)
    np.testing.assert_array_equal(frame, expected[0])


@pytest.mark.parametrize("seed", range(5))
def test_tonic_on_random_events(seed):
    random = np.random.default_rng(seed)
    events = np.empty(997, EVENT_DTYPE)
    events["t"] = np.sort(random.integers(0, 10_000, 997))
    events["x"], events["y"] = random.integers(0, WIDTH, 997), random.integers(0, HEIGHT, 997)
    events["p"] = random.integers(0, 2, 997)
    compare_with_tonic(events, recording_of(events))


@pytest.mark.skipif(not DATA.is_dir(), reason="recordings (../shared/data) are not on this machine")
@pytest.mark.parametrize("clip", ["clip01_label0", "clip02_label1"])
def test_tonic_on_gestures(clip):
    recording = open_recording(DATA / "dvsgesture" / f"{clip}.aedat")
    compare_with_tonic(np.concatenate(list(recording.chunks())), recording)


def compare_with_tonic(events, recording):
    transforms = pytest.importorskip("tonic.transforms")
    sensor = (recording.width, recording.height, 2)
    for steps in (1, 7, 16):
        # Tonic drops the remainder, which is in the last frame here: leave it out of the events
        per_frame = len(events) // steps
        ours = frames_by_count(recording, steps)
        theirs = transforms.ToFrame(sensor, n_event_bins=steps)(events)
        np.testing.assert_array_equal(ours[:-1], theirs[:-1])
        rest = transforms.ToFrame(sensor, event_count=len(events))(events[per_frame * (steps - 1) :])
        np.testing.assert_array_equal(ours[-1:], rest)

        by_time = frames_by_time(recording, steps)
        window = (events["t"][-1] - events["t"][0]) // steps
        kept = events["t"] < events["t"][0] + steps * window
        theirs = transforms.ToFrame(sensor, n_time_bins=steps)(events)
        np.testing.assert_array_equal(by_time[:-1], theirs[:-1])
        assert by_time[-1].sum() - theirs[-1].sum() == np.count_nonzero(~kept) > 0
    span = int(events["t"][-1] - events["t"][0])
    for bin_us in (span // 23 + 1, span // 2):
        theirs = transforms.ToFrame(sensor, time_window=bin_us)(events)
        ours = list(frames_by_duration(recording, bin_us, include_incomplete=False))
        np.testing.assert_array_equal(ours, theirs)
    theirs = transforms.ToFrame(sensor, time_window=span // 23 + 1, include_incomplete=True)(events)
    np.testing.assert_array_equal(list(frames_by_duration(recording, span // 23 + 1)), theirs)


def test_a_gap_of_hours_is_streamed_or_refused():
    events = np.zeros(2, EVENT_DTYPE)
    events["t"] = [0, 2**60]
    with pytest.raises(InputError, match=r"at most 1,000,000 of them; .* longer ones, bin_us=\d+ or more"):
        next(frames_by_duration(recording_of(events), 1000))
    events["t"] = [0, 3_600_000_000]
    stream = frames_by_duration(recording_of(events), 1000, max_bins=4_000_000)
    assert [next(stream).sum() for _ in range(3)] == [1, 0, 0]


def test_wrong_options():
    recording = recording_of(np.zeros(3, EVENT_DTYPE))
    for steps in (0, -1, 2.0):
        with pytest.raises(InputError, match="time_steps"):
            frames_by_count(recording, steps)
    with pytest.raises(InputError, match="bin_us"):
        frames_by_duration(recording, 0)
    with pytest.raises(InputError, match="start_us"):
        frames_by_duration(recording, 1, start_us=2**63)
    with pytest.raises(InputError, match="fit mode"):
        frames_by_count(recording, 1, fit=Fit(None, "stretch"))
    with pytest.raises(InputError, match="expected at most"):
        frames_by_count(open_recording(np.zeros(3, EVENT_DTYPE), sensor_size=(32767, 32767)), 1)
    with pytest.raises(InputError, match="holds no events"):
        next(frames_by_duration(open_recording(np.zeros(0, EVENT_DTYPE), sensor_size=(5, 5)), 5))


@pytest.mark.parametrize("held", [40, 38])
@pytest.mark.parametrize("disorder", [None, "sort", "drop"])
@pytest.mark.parametrize("name", ["a.csv", "a.bin", "a.npy"])
def test_a_slow_recording_is_decoded_once_where_it_can_be_held(tmp_path, monkeypatch, name, disorder, held):
    """With the same frames and counts of defects, however often it is decoded."""
    monkeypatch.setattr(windowing, "HELD_EVENTS", held)
    events = [(x, y, t - 25 * (t == 200 and disorder is not None), p) for x, y, t, p in GOOD_EVENTS]
    arrays = np.array(events, EVENT_DTYPE)
    texts = "".join(f"{x},{y},{int(p)},{t}\n" for x, y, t, p in events)
    files = {"a.csv": texts.encode(), "a.bin": event_files.slayer(events), "a.npy": npy(arrays)}
    (tmp_path / name).write_bytes(files[name])
    recording = open_recording(tmp_path / name, sensor_size=(34, 34))
    decode, passes = recording._decode, []
    monkeypatch.setattr(recording, "_decode", lambda block_events: passes.append(block_events) or decode(block_events))
    once = {"a.csv": 1 if held == 40 else 2, "a.bin": 2, "a.npy": 2}[name]
    for make in (frames_by_count, frames_by_time):
        passes.clear()
        defects, expected = Defects(), Defects()
        frames = make(recording, 4, reading=Reading(disorder, 100, defects))
        # the number of a stored array's events is known, and its last one, unless some are left out
        known = name == "a.npy" and disorder != "drop"
        assert len(passes) == (1 if known else once)
        assert_array_equal(
            frames, make(open_recording(arrays, sensor_size=(34, 34)), 4, reading=Reading(disorder, 100))
        )
        list(recording.chunks(disorder=disorder or "keep", lag_us=100, defects=expected))
        assert (defects.events, defects.out_of_order) == (expected.events, expected.out_of_order)
