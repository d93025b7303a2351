"""Event files that come by a pipe: read forwards, as they come, and no further ahead than a piece."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import threading

import event_files
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import InputError, open_recording
from eventsim.dvs import EventFormat, NmnistRecording, event_formats, frames_by_count
from eventsim.dvs.arriving import PIECE_BYTES, arriving_file
from eventsim.testing.event_formats import check_event_format

EVENTS = [(3, 4, 100, 0), (5, 6, 250, 1), (39, 29, 90_000, 1), (0, 0, 90_001, 0)]
TEXT = b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % (t, x, y, p) for x, y, t, p in EVENTS)
PACKETS = b"".join(
    # one of another kind before each
    struct.pack("<hhiiiiii", 2, 1, 5, 0, 0, 3, 3, 3)
    + bytes(15)
    + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 1, 1, 1)
    + struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t)
    for x, y, t, p in EVENTS
)
AEDAT3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n" + PACKETS
WRITTEN = {
    "aedat3": AEDAT3,
    "dat": event_files.dat(EVENTS),
    "evt2": event_files.evt2(EVENTS),
    "evt3": event_files.evt3(EVENTS),
    "es": event_files.es(EVENTS),
    "text": TEXT,
    "nmnist": event_files.slayer(EVENTS),
    "bs2": event_files.slayer(EVENTS),
    "aedat2": b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n#End Of ASCII Header\r\n"
    + b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for x, y, t, p in EVENTS),
}
TOLD = ("nmnist", "bs2")
"""Formats that no byte tells."""


class Dripping(io.RawIOBase):
    """So many bytes at a time; says how many were taken, and fails where more is asked for than there is."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__()
        self._data, self._most, self.taken = data, most, 0

    def read(self, size: int = -1, /) -> bytes:
        if self.taken == len(self._data):
            raise AssertionError("more was asked for than is needed")
        part = self._data[self.taken : self.taken + min(size, self._most)]
        self.taken += len(part)
        return part


class Broken(io.RawIOBase):
    """A connection that ends as some do."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        raise ConnectionResetError("connection reset")


def test_every_format_that_is_read_forwards_is_tried_here() -> None:
    assert {name for name, entry in event_formats().items() if entry.forward} == set(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("most", [1, 5, 10**6])
def test_what_comes_is_what_lies_there(name, most, tmp_path) -> None:
    path = (
        tmp_path
        / f"file.{'txt' if name == 'text' else {'nmnist': 'bin', 'aedat2': 'aedat', 'aedat3': 'aedat'}.get(name, name)}"
    )
    path.write_bytes(WRITTEN[name])
    options = {"sensor_size": (128, 128)}
    expected = np.concatenate(list(open_recording(path, **options).chunks(disorder="keep")))

    class Ending(Dripping):
        def read(self, size: int = -1, /) -> bytes:
            return b"" if self.taken == len(self._data) else super().read(size)

    recording = open_recording(Ending(WRITTEN[name], most), format=name if name in TOLD else None, **options)
    assert recording.format == name
    assert_array_equal(np.concatenate(list(recording.blocks(disorder="keep"))), expected)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in (*TOLD, "text", "aedat2")])
def test_a_beginning_waits_for_nothing_that_it_does_not_need(name) -> None:
    """A file is opened from a pipe that does not end, with its header and some events."""
    events = [(t % 30, t % 20, 100 * t, 0) for t in range(20)]
    data = AEDAT3 if name == "aedat3" else getattr(event_files, name)(events)
    file = arriving_file(Dripping(data, 1))
    assert open_recording(file).format == name
    assert len(file.pipe.held) < len(data) - 8


def test_a_table_is_opened_with_its_second_line() -> None:
    source = Dripping(TEXT, 1)
    recording = open_recording(source, sensor_size=(30, 40))
    assert source.taken == TEXT.index(b"\n", TEXT.index(b"\n") + 1) + 1
    first = next(recording.blocks())
    assert first["t"].tolist() == [100]


@pytest.mark.parametrize("name", WRITTEN)
def test_no_event_waits_for_what_is_behind_it(name) -> None:
    """Whatever has come is handed on before more is asked for, which fails here."""
    events = [(t % 30, t % 20, 100 * t, 0) for t in range(20)]
    writer = {"nmnist": "slayer", "bs2": "slayer"}.get(name, name)
    data = WRITTEN[name] if name in ("text", "aedat2", "aedat3") else getattr(event_files, writer)(events)
    recording = open_recording(Dripping(data, 10**6), format=name, sensor_size=(128, 128))
    blocks, taken = recording.blocks(disorder="keep"), 0
    while taken < (len(EVENTS) if data == WRITTEN[name] else len(events)):
        taken += len(next(blocks))
    with pytest.raises((AssertionError, InputError), match="more was asked for"):
        next(blocks)


def test_events_are_there_before_the_next_ones_have_come() -> None:
    """By a real pipe, whose writer waits for each event to be read."""
    reader, writer = os.pipe()
    read = threading.Semaphore(0)

    def write() -> None:
        with open(writer, "wb", buffering=0) as pipe:
            pipe.write(TEXT[: TEXT.index(b"250")])
            for line in TEXT[TEXT.index(b"250") :].splitlines(keepends=True):
                assert read.acquire(timeout=20), "the event before was not read"
                pipe.write(line)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    times: list[int] = []
    with open(reader, "rb") as pipe:
        # the second line of numbers is what tells that the first is whole
        read.release()
        for block in open_recording(pipe, sensor_size=(30, 40)).blocks():
            times += block["t"].tolist()
            read.release()
    thread.join(20)
    assert times == [t for _, _, t, _ in EVENTS]


def test_no_more_than_a_piece_is_read_ahead() -> None:
    data = event_files.slayer([(1, 2, t, 0) for t in range(100_000)])
    source = Dripping(data, 10**6)
    recording = open_recording(source, format="nmnist")
    used = 0
    for block in recording.blocks():
        used += 5 * len(block)
        assert source.taken - used <= PIECE_BYTES + 5
        if source.taken == len(data):
            break
    assert used > len(data) / 2


def test_waiting_is_measured() -> None:
    import time

    class Slow(Dripping):
        def read(self, size: int = -1, /) -> bytes:
            time.sleep(0.05)
            return b"" if self.taken == len(self._data) else super().read(size)

    recording = open_recording(Slow(WRITTEN["es"], 10**6))
    assert sum(map(len, recording.blocks())) == 4
    assert recording.waiting is not None and recording.waiting.seconds >= 0.1


def test_it_is_read_once() -> None:
    recording = open_recording(io.BytesIO(WRITTEN["es"]))
    with pytest.raises(InputError, match=r"-: comes by a pipe and was read before.*save it to a file"):
        frames_by_count(recording, 2)


def test_how_many_events_will_come_is_not_known() -> None:
    source = io.BufferedReader(io.BytesIO(event_files.dat([(1, 2, t, 0) for t in range(9_000)])))
    recording = open_recording(source)
    assert recording.known_count() is None
    assert recording.count() == 9_000


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", {}, "-: ended without a byte, expected events"),
        (b"#!AER-DAT4.0\r\n" + bytes(60), {}, "-: AEDAT 4.0 comes by a pipe, expected a format that is read forwards"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), {}, "-: HDF5 comes by a pipe"),
        (bytes(64), {}, r"-: begins with b'\\x00.*pass format='bs2' or format='nmnist' or format='text'"),
        (bytes(64), {"format": "npy"}, "-: .*NumPy.* comes by a pipe"),
        (TEXT, {}, r"does not tell the size of the sensor.*pass sensor_size=\(height, width\)"),
        (b"1 2 3 0\n1 2 3 0\n", {}, "nothing names the columns of '1 2 3 0'"),
        (b"1 2 3 0\n", {}, "nothing names the columns of '1 2 3 0'"),
        (b"words", {}, "holds 'words', expected events as lines of numbers"),
    ],
)
def test_what_cannot_be_read_forwards_is_refused(data, options, message) -> None:
    with pytest.raises(InputError, match=message) as raised:
        open_recording(io.BytesIO(data), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        (
            "dat",
            3,
            r"5 bytes are left over at event 3, expected 8 bytes per event; its writer stopped there: salvage=T",
        ),
        ("evt2", 1, r"3 bytes are left over at word \d, expected words of 4 bytes; its writer stopped there"),
        ("evt3", 1, r"1 byte is left over at word \d+, expected words of 2 bytes; its writer stopped there"),
        ("es", 2, r"3 bytes are left over after event 3, expected 5 bytes per event; its writer stopped there"),
        ("nmnist", 1, r"4 bytes are left over at event 3, expected 5 bytes"),
        ("aedat2", 7, r"1 byte is left over at event 3"),
        ("aedat3", 3, r"a packet of 1 events ends after event 3 with the file; its writer stopped there"),
        ("aedat3", 38, r"ends 2 bytes before the end of a packet that holds no events; its writer stopped there"),
        ("aedat3", 70, r"9 bytes are left over after event 3, expected a packet header.*its writer stopped there"),
    ],
)
def test_a_writer_that_stops_within_an_event_is_told(name, cut, message) -> None:
    options = {"format": name, "sensor_size": (128, 128)}
    with pytest.raises(InputError, match=message):
        list(open_recording(io.BytesIO(WRITTEN[name][:-cut]), **options).blocks(disorder="keep"))
    recording = open_recording(io.BytesIO(WRITTEN[name][:-cut]), salvage=True, **options)
    assert sum(map(len, recording.blocks(disorder="keep"))) == 3


def test_a_text_that_stops_within_a_time_is_told() -> None:
    data = b"x y p t\n1 2 0 100\n1 2 0 20"
    with pytest.raises(InputError, match=r"last line '1 2 0 20' does not end.*its writer stopped there"):
        list(open_recording(io.BytesIO(data), sensor_size=(5, 5)).blocks())


def test_what_cannot_be_waited_for_is_refused() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with open(reader, "rb", buffering=0) as pipe, pytest.raises(InputError, match=r"-: does not wait for what comes"):
        open_recording(pipe)
    os.close(writer)
    with pytest.raises(InputError, match=r"-: cannot be read \(.*closed"):
        open_recording(pipe)
    with pytest.raises(InputError, match=r"-: cannot be read \(.*reset"):
        open_recording(io.BufferedReader(Broken()))


def test_other_things_are_no_recordings() -> None:
    for source in (17, ["a"], io.StringIO("text")):
        with pytest.raises(InputError, match=r"found as a recording; expected a path, an array of events, or a binary"):
            open_recording(source)
    with pytest.raises(InputError, match="format='dat' was given, expected it for files alone"):
        open_recording(np.zeros(3, "i4"), format="dat")


class ByPath(NmnistRecording):
    format = "broken"

    def _decode(self, block_events):
        with open(self.path, "rb"):
            yield from super()._decode(block_events)


class Whole(NmnistRecording):
    format = "broken"


def test_the_contract_refuses_a_format_that_only_says_it_reads_forwards(tmp_path) -> None:
    options = frozenset({"salvage"})
    broken = EventFormat(
        "Broken", "broken", (".broken",), lambda path, _: path.suffix == ".broken", Whole, options, True
    )
    path = tmp_path / "a.broken"
    path.write_bytes(WRITTEN["nmnist"][:10])
    check_event_format(broken, [path], damaged_copies=3)
    with pytest.raises(AssertionError, match=r"by a pipe, 1048576 bytes at a time: refused .*read forwards"):
        check_event_format(dataclasses.replace(broken, open=ByPath), [path], damaged_copies=3)
    with pytest.raises(InputError, match="forward = 1; expected True or False"):
        dataclasses.replace(broken, forward=1)
