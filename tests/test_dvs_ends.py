"""Windows of equal time in one pass, where the end of a file tells when it ends; and in two where that is not so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_files
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_dvs_readers import AEDAT2, AEDAT3, aedat2_word, aedat4, as_array, npy, packet

from eventsim.dvs import Defects, Reading, Recording, decoding, frames_by_time, open_recording
from eventsim.errors import InputError

SIDE = 20


def nmnist(events: list[Any]) -> bytes:
    words = ((x, y, p << 7 | t >> 16 & 0x7F, t >> 8 & 0xFF, t & 0xFF) for x, y, t, p in events)
    return b"".join(map(bytes, words))


def npz(events: list[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: as_array(events)[name] for name in "xytp"})
    return buffer.getvalue()


WRITTEN = {
    "a.dat": event_files.dat,
    "a.raw": event_files.evt2,
    "b.raw": event_files.evt3,
    "a.aedat": lambda events: AEDAT2 + b"".join(aedat2_word(*event) for event in events),
    "a3.aedat": lambda events: AEDAT3 + packet(events[:70]) + packet(events[70:]) + packet([], kind=3, size=36),
    "a.aedat4": lambda events: aedat4(events[:70], events[70:], width=SIDE, height=SIDE),
    "a.bin": nmnist,
    "a.npy": lambda events: npy(as_array(events)),
    "a.npz": npz,
    "dsec.h5": lambda events: event_files.dsec([(x, y, t + 500, p) for x, y, t, p in events], -500),
    "v2e.h5": event_files.v2e_hdf5,
    "cd.hdf5": event_files.metavision_hdf5,
}
COUNTERS = {"a.dat": 32, "a.aedat": 32, "a.bin": 23}


@pytest.fixture(autouse=True)
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a recording is decoded; and a few bytes are the end of a small file."""
    monkeypatch.setattr(decoding, "END_BYTES", 80)
    monkeypatch.setattr(decoding, "LEAST_BYTES", 160)
    found = [0]
    decoded = Recording._decoded

    def counted(self: Recording, block_events: int) -> Iterator[Any]:
        found[0] += 1
        return decoded(self, block_events)

    monkeypatch.setattr(Recording, "_decoded", counted)
    return found


def events_of(times: Any) -> list[Any]:
    return [(index * 7 % SIDE, index * 3 % SIDE, int(t), index % 3 == 0) for index, t in enumerate(times)]


def opened(folder: Path, name: str, events: list[Any]) -> Recording:
    (folder / name).write_bytes(WRITTEN[name](events))
    return open_recording(folder / name, sensor_size=(SIDE, SIDE) if name != "a.aedat" else None)


def expected(recording: Recording, events: list[Any], steps: int) -> np.ndarray:
    """Return frames by the definition."""
    events = sorted(events, key=lambda event: event[2])
    first, last = events[0][2], events[-1][2]
    frames = np.zeros((steps, 2, recording.height, recording.width), np.int32)
    for x, y, t, p in events:
        frames[min((t - first) // ((last - first) // steps), steps - 1), int(p), y, x] += 1
    return frames


@pytest.mark.parametrize("name", WRITTEN)
def test_one_pass_where_the_end_is_as_the_file_says(tmp_path: Path, passes: list[int], name: str) -> None:
    events = events_of(1000 + 37 * np.arange(200))
    recording = opened(tmp_path, name, events)
    assert recording.likely_last_us() == events[-1][2]
    defects = Defects()
    assert_array_equal(frames_by_time(recording, 7, reading=Reading(defects=defects)), expected(recording, events, 7))
    assert (passes[0], defects.events) == (1, 200)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("late", ["last", "first of the end"])
def test_two_passes_where_it_is_not(tmp_path: Path, passes: list[int], name: str, late: str) -> None:
    """The last event is a late one, which is sorted; or the latest stands before the end."""
    times = 1000 + 37 * np.arange(200)
    times[-1 if late == "last" else 150] += -900 if late == "last" else 5000
    events = events_of(times)
    recording = opened(tmp_path, name, events)
    frames = frames_by_time(recording, 7, reading=Reading("sort", 10_000))
    assert_array_equal(frames, expected(recording, events, 7))
    assert passes[0] == 2


def test_what_was_counted_in_windows_that_turn_out_to_be_others_is_forgotten(tmp_path: Path) -> None:
    """A block of events, before one that is later than the end."""
    times = 1000 + 3 * np.arange(20_000)
    times[18_000] += 9000
    events = events_of(times)
    recording = opened(tmp_path, "a.npy", events)
    frames = frames_by_time(recording, 7, reading=Reading("sort", 10_000))
    assert_array_equal(frames, expected(recording, events, 7))


@pytest.mark.parametrize("name", COUNTERS)
def test_two_passes_where_the_counter_was_full(tmp_path: Path, passes: list[int], name: str) -> None:
    full = 1 << COUNTERS[name]
    events = events_of(full - 3000 + 37 * np.arange(200))
    written = [(x, y, t % full, p) for x, y, t, p in events]
    recording = opened(tmp_path, name, written)
    assert_array_equal(frames_by_time(recording, 7), expected(recording, events, 7))
    assert passes[0] == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_frames_are_those_of_the_definition(tmp_path: Path, data: st.DataObject) -> None:
    times = np.cumsum(data.draw(st.lists(st.integers(0, 40), min_size=60, max_size=90)))
    for _ in range(data.draw(st.integers(0, 3))):
        times[data.draw(st.integers(0, len(times) - 1))] += data.draw(st.integers(0, 300))
    events, steps = events_of(times), data.draw(st.integers(1, 12))
    recording = opened(tmp_path, data.draw(st.sampled_from(list(WRITTEN))), events)
    if max(times) - min(times) >= steps:
        frames = frames_by_time(recording, steps, reading=Reading("sort", 10_000))
        assert_array_equal(frames, expected(recording, events, steps))


def test_what_is_asked_for_a_part_or_comes_by_a_pipe_is_not_known(tmp_path: Path) -> None:
    events = events_of(1000 + 37 * np.arange(200))
    recording = opened(tmp_path, "a.dat", events)
    assert recording.likely_last_us("drop") is None
    recording.end_us = 5000
    assert recording.likely_last_us() is None
    assert_array_equal(frames_by_time(recording, 3), expected(recording, [e for e in events if e[2] < 5000], 3))
    with (tmp_path / "a.dat").open("rb") as pipe:
        assert open_recording(pipe, sensor_size=(SIDE, SIDE)).likely_last_us() is None
    (tmp_path / "b.npy").write_bytes(npy(as_array([])))
    assert open_recording(tmp_path / "b.npy", sensor_size=(SIDE, SIDE)).likely_last_us() is None


def test_an_error_is_that_of_the_reading(tmp_path: Path) -> None:
    """A pixel that cannot be, before an end that can be read."""
    events = events_of(1000 + 37 * np.arange(200))
    events[3] = (SIDE, 0, events[3][2], True)
    with pytest.raises(InputError, match=r"event 3 has x = 20, outside of the sensor"):
        frames_by_time(opened(tmp_path, "a.npy", events), 7)


def test_the_last_valid_event_of_the_source_ends_aedat3(tmp_path: Path) -> None:
    """Behind it: one that is not valid, a packet of other things, and one of another camera; bits 31 on count."""
    events = events_of([5, 9, 12])
    invalid = (0, 0, 99, True, 0)
    whole = AEDAT3 + packet(events[:1]) + packet([*events[1:], invalid], 3) + packet([(0, 0, 88, True)], kind=0)
    (tmp_path / "a.aedat").write_bytes(whole)
    assert open_recording(tmp_path / "a.aedat").likely_last_us() == 12 + (3 << 31)
    other = bytearray(packet([(0, 0, 77, True)]))
    other[2] += 1
    for stream, last in ((None, 77), (1, 12 + (3 << 31)), (2, 77)):
        (tmp_path / "a.aedat").write_bytes(whole + other)
        assert open_recording(tmp_path / "a.aedat", stream=stream).likely_last_us() == last
    for behind in (packet([invalid]), b"\1" * 28, bytes(5)):  # none is valid; no packet; no whole header
        (tmp_path / "a.aedat").write_bytes(whole + behind)
        expected = None if behind == packet([invalid]) else 12 + (3 << 31)
        assert open_recording(tmp_path / "a.aedat").likely_last_us() == expected
    (tmp_path / "a.aedat").write_bytes(AEDAT3)
    assert open_recording(tmp_path / "a.aedat").likely_last_us() is None
