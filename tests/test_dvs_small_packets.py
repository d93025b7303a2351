"""Small packets of AEDAT 4.0 with LZ4, of which many are unpacked by one call: as if each were alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_dvs_aedat4 import compressed, lz4_linked, lz4_sized, packets
from test_dvs_readers import as_array

from eventsim.dvs import aedat4_packets, open_recording
from eventsim.errors import InputError

pytestmark = [pytest.mark.kernels, pytest.mark.nojit]
EVENTS = [(i * 11 % 34, i * 7 % 30, 50 * i + i % 3, i % 5 == 0) for i in range(600)]
LAST = (33, 29, 0x123456789ABCDE, True)


def table(events: list[Any], beyond: int = 0, behind: bytes = b"") -> bytes:
    """Return the data of a packet, with the size of the table before it, or some bytes more or less than that."""
    vector = b"".join(struct.pack("<qhh?3x", t, x, y, p) for x, y, t, p in events)
    data = struct.pack("<I4s2x3HiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(events)) + vector
    return struct.pack("<I", max(len(data) + beyond, 0)) + data + behind


def unlinked(data: bytes, **options: Any) -> bytes:
    return lz4.frame.compress(data, block_linked=False, store_size=False, **options)


def streamed(data: bytes) -> bytes:
    """Return a frame as dv_processing writes it: of linked blocks, though it is one."""
    context = lz4.frame.create_compression_context()
    begin = lz4.frame.compress_begin(context, block_linked=True)
    return begin + lz4.frame.compress_chunk(context, data) + lz4.frame.compress_flush(context)


def in_packets(size: int = 10) -> list[list[Any]]:
    return [EVENTS[at : at + size] for at in range(0, len(EVENTS), size)]


def outcome(path: Path) -> tuple[list[Any], str]:
    """Return the events of a file, and what ended them."""
    found: list[Any] = []
    try:
        for chunk in open_recording(path).chunks(7, disorder="keep"):
            found += chunk.tolist()
    except InputError as error:
        return found, str(error)
    return found, ""


def alone(path: Path) -> tuple[list[Any], str]:
    """Return the same of packets that are unpacked one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aedat4_packets, "PATIENCE", 0)
        return outcome(path)


def test_one_call_unpacks_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of either kind, blocks that are stored, packets of other streams between them and packets of no events."""
    kinds = (streamed, unlinked, lz4_linked)
    assert len({kind(table(EVENTS[:10]))[:7] for kind in kinds}) == 2
    data = packets(b"x", stream=1)
    for index, events in enumerate([[], *in_packets()]):
        data += packets(kinds[index % 3](table(events)))
        data += packets(bytes(1 + index * 7), stream=1) * (index % 4)
    stored = unlinked(table([LAST]))
    assert stored[10] & 0x80
    path = tmp_path / "a.aedat4"
    path.write_bytes(compressed(1) + data + packets(stored))
    expected = alone(path)
    assert (expected[0], expected[1]) == ([*EVENTS, LAST], "")
    calls = dict.fromkeys(("decompress", "decompress_chunk"), 0)

    def counted(name: str, of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            calls[name] += 1
            return of(*given, **more)

        return call

    for name in calls:
        monkeypatch.setattr(lz4.frame, name, counted(name, getattr(lz4.frame, name)))
    assert outcome(path) == expected
    assert calls == {"decompress": 0, "decompress_chunk": 1}


NOT_AS_OTHERS = {
    "sized, with a check sum": lz4_sized(table(EVENTS[50:60])),
    "refused, a wrong check sum": lz4_sized(table(EVENTS[50:60]))[:-1] + b"x",
    "refused, a wrong check sum of the header": unlinked(table(EVENTS[50:60])).replace(
        b"\x60\x40\x82", b"\x60\x40\x83"
    ),
    "check sums of blocks": unlinked(table(EVENTS[50:60]), block_checksum=True),
    "larger blocks": unlinked(table(EVENTS[50:60]), block_size=lz4.frame.BLOCKSIZE_MAX1MB),
    "two blocks": unlinked(table(EVENTS[50:60]) + b"\0" * 100_000),
    "two linked blocks": lz4_linked(table(EVENTS[50:60]) + b"\0" * 100_000),
    "refused, no block": unlinked(b""),
    "a size that is too small": unlinked(table(EVENTS[50:60], -3)),
    "a size that is too large": unlinked(table(EVENTS[50:60], 2**31)),
    "bytes behind the table": unlinked(table(EVENTS[50:60], behind=b"12345")),
    "bytes behind the frame": unlinked(table(EVENTS[50:60])) + b"12345",
    "refused, no end": unlinked(table(EVENTS[50:60]))[:-4],
    "refused, one more block in place of the end": unlinked(table(EVENTS[50:60]))[:-4] + b"\1\0\0\0",
    "refused, no list of events": unlinked(table([]).replace(b"EVTS", b"FRME")),
    "refused, a list that ends behind its packet": unlinked(table(EVENTS[50:60], -3)[:-3]),
    "refused, nothing of a block": unlinked(table(EVENTS[50:60]))[:11],
    "refused, less than a frame": b"123",
}


@pytest.mark.parametrize("together", [400, 64 << 10])
@pytest.mark.parametrize("kind", NOT_AS_OTHERS)
def test_a_packet_that_is_not_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, together: int
) -> None:
    """It is taken or refused as if it were alone, in whatever place of those that are unpacked together it is."""
    monkeypatch.setattr(aedat4_packets, "TOGETHER_BYTES", together)
    path = tmp_path / "a.aedat4"
    parts = [packets(streamed(table(events))) for events in in_packets()]
    for place in (0, 1, 5, 30):
        whole = [*parts[:place], packets(NOT_AS_OTHERS[kind]), *parts[place + (place == 5) :]]
        path.write_bytes(compressed(1) + b"".join(whole))
        found = outcome(path)
        assert found == alone(path)
        assert bool(found[1]) == kind.startswith("refused")


def test_a_size_that_leads_into_the_next_packet(tmp_path: Path) -> None:
    """There lies what looks like a packet, and ends where one does."""
    second = table(EVENTS[10:20])
    first = table(EVENTS[:10], beyond=8 + len(second))
    data = packets(unlinked(first), unlinked(second + bytes(8) + table(EVENTS[20:30])))
    path = tmp_path / "a.aedat4"
    path.write_bytes(compressed(1) + data)
    assert outcome(path) == alone(path) == (EVENTS[:20], "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_refused_as_in_packets_that_are_alone(tmp_path: Path, data: st.DataObject) -> None:
    good = b"".join(packets(streamed(table(events))) for events in in_packets(20)[:12])
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.aedat4"
    path.write_bytes(compressed(1) + damaged)
    assert outcome(path) == alone(path)


def test_packets_that_become_very_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some megabytes of a few kilobytes: no more than one is unpacked together."""
    events = [EVENTS[0]] * 4000
    path = tmp_path / "a.aedat4"
    path.write_bytes(compressed(1) + packets(*[streamed(table(events))] * 40))
    reserved = []

    def unpack(*given: Any, max_length: int, of: Any = lz4.frame.decompress_chunk, **more: Any) -> Any:
        reserved.append(max_length)
        return of(*given, max_length=max_length, **more)

    monkeypatch.setattr(lz4.frame, "decompress_chunk", unpack)
    found = np.concatenate([*open_recording(path).chunks()])
    assert_array_equal(found, as_array(events * 40))
    assert reserved and max(reserved) <= 1 << 20
