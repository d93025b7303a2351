"""The loop between bytes and blocks of events: wherever a read or a block ends, the events are the same."""

from __future__ import annotations

import struct
from pathlib import Path

import event_files
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_dvs_formats import FILES
from test_dvs_readers import AEDAT3, GOOD_EVENTS, as_array, npy, packet

from eventsim.dvs import EVENT_DTYPE, Orientation, decoding, open_recording, packing
from eventsim.dvs.columns import Packed
from eventsim.dvs.fitting import PixelMap
from eventsim.dvs.packing import check
from eventsim.errors import InputError

# a step in time, a marker or a vector may end with a read in every way
MANY = [(i % 34, i * 7 % 30, i // 3 * 50, i % 4 == 0) for i in range(2000)]
NEIGHBOURS = [(x, i % 30, 50 * i, i % 4 == 0) for i in range(140) for x in range(i % 9, i % 9 + 14)]
DECODED = {
    **{name: data for kind in ("aedat2", "aedat3", "aedat4", "nmnist") for name, data in FILES[kind].items()},
    "many.dat": event_files.dat(MANY),
    "many.es": event_files.es(MANY, 128, 128),
    "many2.raw": event_files.evt2(MANY),
    "many3.raw": event_files.evt3(sorted(MANY, key=lambda event: event[2])),
    "neighbours.raw": event_files.evt3(NEIGHBOURS),
    "many.bs2": event_files.slayer(MANY),
    "many.aedat": AEDAT3
    + b"".join(packet(MANY[at : at + 77]) + packet(MANY[:at], kind=2) for at in range(0, 2000, 77)),
}


def read(path: Path, chunk: int = 65536) -> np.ndarray:
    return np.concatenate([np.empty(0, as_array(MANY).dtype), *open_recording(path).chunks(chunk)])


@pytest.mark.kernels
@pytest.mark.nojit
@pytest.mark.parametrize("name", DECODED)
def test_a_read_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(DECODED[name])
    expected = read(tmp_path / name)
    written = {"many": MANY, "neighbours": NEIGHBOURS}.get(name.split(".", maxsplit=1)[0].rstrip("23"))
    if written is not None:
        assert_array_equal(np.sort(expected), np.sort(as_array(written)))
    for size, chunk in ((1, 65536), (3, 7), (64, 1), (100, 12), (997, 65536)):
        monkeypatch.setattr(decoding, "READ_BYTES", size)
        assert_array_equal(read(tmp_path / name, chunk), expected)


@pytest.mark.kernels
@pytest.mark.nojit
def test_vectors_without_end_do_not_come_round(tmp_path: Path) -> None:
    """6,000 of them lead beyond what 16 bits hold, where an event of the first column would be."""
    words = [0x8000, 0x6000, 0x3000, *[0x4000] * 5462, 0x4FFF]
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% geometry 40x30\n% end\n" + struct.pack(f"<{len(words)}H", *words))
    with pytest.raises(InputError, match="event 0 has x = 65000, outside of the sensor"):
        read(path)


@pytest.mark.kernels
@pytest.mark.nojit
def test_sources_of_negative_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(AEDAT3 + packet(GOOD_EVENTS[:5], source=-1) + packet(GOOD_EVENTS[5:], source=-1))
    assert_array_equal(read(path), as_array(GOOD_EVENTS))
    path.write_bytes(AEDAT3 + packet(GOOD_EVENTS[:5], source=-1) + packet(GOOD_EVENTS[5:], source=2))
    with pytest.raises(InputError, match="pass stream=-1 or stream=2"):
        read(path)
    chosen = [*open_recording(path, stream=-1).chunks()]
    assert_array_equal(np.concatenate(chosen), as_array(GOOD_EVENTS[:5]))


LIMIT = 2**62
PIXELS = st.sampled_from([0, 1, 32, 33, 34, 255, 32766, 32767, 32768, 65535])
TIMES = st.sampled_from([-LIMIT - 1, -LIMIT, -1, 0, 1, 2, LIMIT - 1, LIMIT, 2**63 - 1])


@pytest.mark.kernels
@given(
    st.lists(st.tuples(PIXELS, PIXELS, TIMES), max_size=6),
    st.sampled_from(["<i2", "<u2"]),
    st.sampled_from([33, 34, 32767]),
    st.sampled_from([-(2**63), -LIMIT, 0, 1]),
    st.booleans(),
)
@example([(0, 0, 5), (0, 0, LIMIT)], "<i2", 33, 0, True)
@example([(0, 0, -LIMIT - 1), (0, 0, 5)], "<i2", 33, -(2**63), True)
def test_packed_events_are_checked(
    events: list[tuple[int, int, int]], stored: str, side: int, latest: int, by_time: bool
) -> None:
    """Against the definition: within the sensor and all time; and never earlier than the one before."""
    if by_time:
        events = sorted(events, key=lambda event: event[2])
    packed = Packed(np.zeros(len(events), EVENT_DTYPE), np.dtype(stored))
    packed.x[:] = np.array([x for x, _, _ in events], "<u2").view(stored)
    packed.y[:] = np.array([y for _, y, _ in events], "<u2").view(stored)
    packed.t[:] = [t for _, _, t in events]
    sound = all(x < side and y < 34 and -LIMIT <= t < LIMIT for x, y, t in events)
    times = [latest, *(t for _, _, t in events)]
    found = check(packed.events, stored[1] == "i", 34, side, LIMIT, latest)
    assert found[0] == sound
    assert not sound or found[1] == (times == sorted(times))


def test_stored_polarities_that_are_neither_0_nor_1(tmp_path: Path) -> None:
    data = bytearray(npy(as_array(GOOD_EVENTS)))
    last = np.frombuffer(data, np.uint8)[-1]
    data[-1] = 7
    (tmp_path / "a.npy").write_bytes(data)
    found = read(tmp_path / "a.npy")["p"].view(np.uint8)
    assert (last, found[-1], found.max()) == (GOOD_EVENTS[-1][3], 1, 1)


@pytest.mark.parametrize("turned", [False, True])
def test_one_event_needs_no_other_loop_than_many(turned: bool) -> None:
    """Compiling takes longer than a bin of a camera lasts."""
    network_frame = np.zeros((2, 34, 34), np.int32)
    everything = as_array(GOOD_EVENTS)
    loops = (packing.pack, packing.check, packing.in_order, packing.count_pixels)
    pixels = PixelMap(34, 34, np.arange(34), np.arange(34))
    found = []
    for count in (len(everything), 1):
        recording = open_recording(everything[:count], sensor_size=(34, 34), orientation=Orientation(flip_x=turned))
        for events in recording.chunks():
            pixels.add(events, network_frame)
        for events in recording.chunks(disorder="sort", lag_us=10):
            pixels.add(events, network_frame)
        found.append([len(loop.signatures) for loop in loops])
    assert network_frame.sum() == 2 * len(everything) + 2
    assert found[0] == found[1]
