"""AEDAT 4.0 packet by packet: compressed, of other streams, longer than what is read at once, and hostile ones."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
import zstandard
from numpy.testing import assert_array_equal
from test_dvs_readers import GOOD_EVENTS, aedat4, as_array

from eventsim.dvs import Recording, open_recording
from eventsim.dvs.aedat4_header import parsed_aedat4_header
from eventsim.errors import InputError

pytestmark = [pytest.mark.kernels, pytest.mark.nojit]
EMPTY = aedat4(width=34, height=30)
# what lies before the vector of events in a packet of `aedat4`: the size, the table, and its one field
TABLE = struct.Struct("<II4s2x3HiI")


def table(root: int = 16, name: bytes = b"EVTS", entry: int = 4, back: int = 6, field: int = 4, size: int = 6) -> bytes:
    return TABLE.pack(0, root, name, size, 8, entry, back, field)


def body(events: list[Any], number: int | None = None, **fields: Any) -> bytes:
    vector = b"".join(struct.pack("<qhh?3x", t, x, y, p) for x, y, t, p in events)
    return table(**fields) + struct.pack("<I", len(events) if number is None else number) + vector


def packets(*bodies: bytes, stream: int = 0) -> bytes:
    return b"".join(struct.pack("<ii", stream, len(data)) + data for data in bodies)


def compressed(number: int) -> bytes:
    """Return the beginning of a file whose header names a compression."""
    header = bytearray(EMPTY)
    header[18 + 28 : 18 + 32] = struct.pack("<i", number)
    assert parsed_aedat4_header(bytes(header[18:])).compression == number
    return bytes(header)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "a.aedat4"
    path.write_bytes(data)
    return path


def read(recording: Recording, **options: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, as_array(GOOD_EVENTS).dtype), *recording.chunks(**options)])


def lz4_sized(data: bytes) -> bytes:
    return lz4.frame.compress(data, store_size=True, content_checksum=True)


def lz4_linked(data: bytes) -> bytes:
    return lz4.frame.compress(data, block_linked=True, store_size=False)


def zstd_streamed(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


PACKERS = {
    "lz4, sized": (1, lz4_sized),
    "lz4, linked blocks": (2, lz4_linked),
    "zstd": (3, zstandard.ZstdCompressor().compress),
    "zstd, streamed": (4, zstd_streamed),
}


def packed(number: int, pack: Callable[[bytes], bytes], events: list[Any]) -> bytes:
    """Return a file of two packets."""
    return compressed(number) + packets(pack(body(events[:25])), pack(body(events[25:])))


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("chunk", [7, 65536])
def test_compressed_packets(tmp_path: Path, kind: str, chunk: int) -> None:
    """Large ones, small ones, and those of another stream, of which nothing is unpacked."""
    number, pack = PACKERS[kind]
    events = [(i % 34, i % 30, 3 * i, i % 5 == 0) for i in range(20_000)]
    parts = [events[:15_000], *(events[start : start + 50] for start in range(15_000, 20_000, 50))]
    data = packets(*(pack(body(part)) for part in parts[:40]))
    data += packets(b"no frame", stream=7) + packets(*(pack(body(part)) for part in parts[40:]))
    assert_array_equal(
        read(open_recording(written(tmp_path, compressed(number) + data)), max_events=chunk), as_array(events)
    )


@pytest.mark.parametrize("kind", PACKERS)
def test_the_last_packet_of_the_stream_tells_its_end(tmp_path: Path, kind: str) -> None:
    number, pack = PACKERS[kind]
    file = packed(number, pack, GOOD_EVENTS) + packets(b"no frame", pack(body([(1, 1, 10**9, True)])), stream=7)
    recording = open_recording(written(tmp_path, file))
    assert recording.likely_last_us() == GOOD_EVENTS[-1][2]
    assert open_recording(written(tmp_path, file + packets(pack(body([]))))).likely_last_us() is None
    assert open_recording(written(tmp_path, file + packets(b"no frame"))).likely_last_us() is None
    far = packets(pack(body([(1, 1, 2**63 - 1, True)])))
    assert open_recording(written(tmp_path, file + far)).likely_last_us() is None


@pytest.mark.parametrize("kind", PACKERS)
def test_a_damaged_frame_is_refused_behind_the_events_before_it(tmp_path: Path, kind: str) -> None:
    number, pack = PACKERS[kind]
    frame = pack(body(GOOD_EVENTS))
    path = written(tmp_path, compressed(number) + packets(frame, frame[: len(frame) // 2]))
    with pytest.raises(InputError, match=r"cannot be decoded as AEDAT 4\.0 \(.*\); the file is truncated or corrupt"):
        read(open_recording(path))
    assert_array_equal(read(open_recording(path, salvage=True)), as_array(GOOD_EVENTS))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_frame_that_unpacks_to_more_than_a_packet_may_hold(tmp_path: Path, kind: str) -> None:
    number, pack = PACKERS[kind]
    frame = pack(bytes(200 << 20))
    path = written(tmp_path, compressed(number) + packets(frame))
    recording = open_recording(path)
    tracemalloc.start()
    with pytest.raises(InputError, match="a packet of more than 128 MiB"):
        read(recording)
    assert tracemalloc.get_traced_memory()[1] < 300 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [2**33, 2**62, 2**64 - 1])
def test_a_size_that_a_frame_only_claims_is_not_reserved(tmp_path: Path, size: int) -> None:
    frame = bytearray(lz4_sized(body(GOOD_EVENTS)))
    frame[6:14] = struct.pack("<Q", size)
    with pytest.raises(InputError, match="a packet of more than 128 MiB"):
        read(open_recording(written(tmp_path, compressed(1) + packets(bytes(frame)))))


@pytest.mark.parametrize(
    "bad",
    {
        "no identifier": body([], name=b"FRME"),
        "cut table": body([])[:11],
        "table behind the packet": body([], root=2**32 - 1),
        "fields before the packet": body([], back=100),
        "fields behind the packet": body([], back=-(2**20)),
        "field behind the packet": body([], entry=65535),
        "vector behind the packet": body([], field=2**32 - 1),
        "one event too many": body(GOOD_EVENTS, number=41),
        "events without end": body(GOOD_EVENTS, number=2**32 - 1),
    }.items(),
    ids=lambda bad: bad[0],
)
def test_a_list_of_events_that_cannot_be(tmp_path: Path, bad: tuple[str, bytes]) -> None:
    path = written(tmp_path, EMPTY + packets(body(GOOD_EVENTS[:30]), bad[1], body(GOOD_EVENTS[30:])))
    with pytest.raises(InputError, match=r"no list of events in a packet after event 30\); the file is truncated"):
        read(open_recording(path))
    assert_array_equal(read(open_recording(path, salvage=True)), as_array(GOOD_EVENTS[:30]))


def test_what_a_packet_need_not_have(tmp_path: Path) -> None:
    """A vector, fewer fields than it could, and bytes behind its events."""
    bodies = (body([], entry=0), body([], size=4), body(GOOD_EVENTS) + bytes(300_000))
    assert_array_equal(read(open_recording(written(tmp_path, EMPTY + packets(*bodies)))), as_array(GOOD_EVENTS))


def test_a_time_with_a_sign_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, EMPTY + packets(body([*GOOD_EVENTS[:5], (1, 1, -1, True)])))
    with pytest.raises(InputError, match=f"a time of {2**64 - 1} us, expected 63 bits"):
        read(open_recording(path))
    assert_array_equal(read(open_recording(path, salvage=True)), as_array(GOOD_EVENTS[:5]))


def test_packets_of_other_streams_are_stepped_over(tmp_path: Path) -> None:
    other = packets(bytes(1_000_000), bytes(3), stream=5)
    data = EMPTY + other + packets(body(GOOD_EVENTS[:9])) + other + packets(body(GOOD_EVENTS[9:])) + other
    for chunk in (1, 65536):
        assert_array_equal(read(open_recording(written(tmp_path, data)), max_events=chunk), as_array(GOOD_EVENTS))


def test_a_table_far_behind_the_beginning_of_its_packet(tmp_path: Path) -> None:
    """Further than what is read at once."""
    far = 500_000
    front = struct.pack("<II4s", 0, far, b"EVTS").ljust(4 + far - 6, b"\0")
    moved = front + body(GOOD_EVENTS)[14:]
    for whole in (packets(moved, moved), packets(body(GOOD_EVENTS[:1]), moved)):
        found = read(open_recording(written(tmp_path, EMPTY + whole)), disorder="keep")
        assert_array_equal(found[-40:], as_array(GOOD_EVENTS))
        assert len(found) in (80, 41)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"<dv version", b'<!DOCTYPE dv [<!ENTITY a "aaaa">]><dv version', "declares a type of document"),
        (b'<node name="0"', b'<node name="x"', "a stream is called 'x', expected a number"),
        (b"</dv>", b"</dw>", "mismatched tag"),
        (b">34<", b">-4<", "stream 0 says no size of the sensor; pass sensor_size"),
        (b"EVTS<", b"FRME<", "holds 0 event streams"),
    ],
)
def test_descriptions_that_are_refused(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    data = bytearray(EMPTY)
    assert data.count(old) == 1
    data = data.replace(old, new)
    for at in (14, data.index(b"<") - 4):  # the sizes of the header and of the text in it
        (size,) = struct.unpack_from("<i", data, at)
        struct.pack_into("<i", data, at, size + len(new) - len(old))
    with pytest.raises(InputError, match=words):
        open_recording(written(tmp_path, bytes(data)))


def test_a_size_that_is_given_need_not_be_said(tmp_path: Path) -> None:
    path = written(tmp_path, EMPTY.replace(b"sizeX", b"sizeQ") + packets(body(GOOD_EVENTS)))
    assert_array_equal(read(open_recording(path, sensor_size=(30, 34))), as_array(GOOD_EVENTS))


def test_a_compression_of_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compression 9, expected 0 to 4"):
        open_recording(written(tmp_path, compressed(9) + packets(body(GOOD_EVENTS))))


def test_fields_listed_far_behind_their_table(tmp_path: Path) -> None:
    events, far = body(GOOD_EVENTS)[32:], 500_000
    data = struct.pack("<II4siII", 0, 8, b"EVTS", 12 - far, 4, 40) + events
    data = data.ljust(far, b"\0") + struct.pack("<3H", 6, 8, 4)
    assert_array_equal(read(open_recording(written(tmp_path, EMPTY + packets(data)))), as_array(GOOD_EVENTS))
