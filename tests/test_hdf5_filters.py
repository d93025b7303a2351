"""What unpacks HDF5: filters that are let through, and chunks and parameters that would end the process or print."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import event_files
import h5py
import hdf5plugin
import mutants
import numpy as np
import pytest

from eventsim import Network, save
from eventsim.dvs import open_recording
from eventsim.errors import InputError
from eventsim.hdf5_filters import check_chunks, check_filters, chunks_unchecked
from eventsim.importing import import_checkpoint
from eventsim.modelfile import load, seal

EVENTS = [(index % 30, index % 20, 50 * index, index % 2) for index in range(500)]
VALUES = np.cumsum(np.arange(5003) % 50)
PACKINGS = mutants.packings()
READ_ALONE = """
import sys
from eventsim.dvs import open_recording
from eventsim.errors import InputError
try:
    open_recording(sys.argv[1], sensor_size=(300, 300)).summary()
    print("read")
except InputError as error:
    print(str(error).removeprefix(sys.argv[1]))
"""


def refilter(data: bytes, old: int, new: int) -> bytes:
    """Change the number of a filter where a file has it once or more."""
    assert struct.pack("<HH", old, 0)[:2] in data
    return data.replace(struct.pack("<H", old), struct.pack("<H", new))


def alone(path: Path) -> str:
    """Read a recording in a process of its own, which must end well and print nothing by itself."""
    done = subprocess.run([sys.executable, "-c", READ_ALONE, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr[-500:])
    assert done.stdout.count("\n") == 1, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("number", "name"),
    [(32017, " (SZ)"), (32024, " (SZ3)"), (32028, " (SPERR)"), (32018, " (JPEG-LS)"), (32013, " (ZFP)"), (777, "")],
)
def test_filters_that_are_not_known_are_refused_before_they_run(tmp_path: Path, number: int, name: str) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(refilter(event_files.dsec(EVENTS, chunks=(77,), **hdf5plugin.Blosc()), 32001, number))
    said = alone(path)
    assert said.startswith(f": dataset events/x is packed by HDF5 filter {number}{name}, expected none, or one of ")
    assert "repack it with h5repack" in said


@pytest.mark.parametrize("scaled", [{"scaleoffset": 0}])
def test_filters_that_trust_their_parameters_are_refused(tmp_path: Path, scaled: dict[str, int]) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(event_files.dsec(EVENTS, chunks=(77,), **scaled))
    with pytest.raises(InputError, match=r"HDF5 filter 6 \(scaleoffset\), expected"):
        open_recording(path)


def test_checkpoints_models_and_matlab_pass_there_too(tmp_path: Path, small_network: Network) -> None:
    packed = {"chunks": (7,), **hdf5plugin.Blosc()}
    for number in (32017, 6):
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file.create_dataset("weight", data=np.ones(70, np.float32), **packed)
        (tmp_path / "c.h5").write_bytes(refilter((tmp_path / "c.h5").read_bytes(), 32001, number))
        with pytest.raises(InputError, match=f"dataset weight is packed by HDF5 filter {number} "):
            import_checkpoint(tmp_path / "c.h5")
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file.create_dataset("name", data=np.array([b"text"] * 70), **packed)
        (tmp_path / "c.h5").write_bytes(refilter((tmp_path / "c.h5").read_bytes(), 32001, number))
        with pytest.raises(InputError, match=f"dataset name is packed by HDF5 filter {number} "):
            import_checkpoint(tmp_path / "c.h5")
        data = refilter(
            event_files.hdf5(
                lambda f: [f.create_dataset(f"TD/{n}", data=np.ones(70), **packed) for n in ("x", "y", "p", "ts")]
            ),
            32001,
            number,
        )
        (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + data)
        with pytest.raises(InputError, match=f"is packed by HDF5 filter {number} "):
            open_recording(tmp_path / "a.mat")
        save(small_network, tmp_path / "m.h5")
        with h5py.File(tmp_path / "m.h5", "r+") as file:
            group = next(group for group in file["layers"].values() if len(group))
            field = next(iter(group))
            values = group[field][()].ravel()
            del group[field]
            group.create_dataset(field, data=values, chunks=(1,), **hdf5plugin.Blosc())
        (tmp_path / "m.h5").write_bytes(refilter((tmp_path / "m.h5").read_bytes(), 32001, number))
        seal(tmp_path / "m.h5")
        with pytest.raises(InputError, match=f"is packed by HDF5 filter {number} "):
            load(tmp_path / "m.h5")


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_whole_is_let_through(tmp_path: Path, packing: str) -> None:
    """Values that fill no last block, and rows of several columns in chunks of their own."""
    with h5py.File(io.BytesIO(), "w") as file:
        for name, values, chunks in (("a", VALUES, (1003,)), ("b", VALUES[:5000].reshape(-1, 4), (99, 3))):
            file.create_dataset(name, data=values, chunks=chunks, **PACKINGS[packing])
            check_filters("f", name, file[name])
            assert check_chunks("f", name, file[name]) >= len(values)
    path = tmp_path / "a.h5"
    path.write_bytes(event_files.dsec(EVENTS, chunks=(77,), **PACKINGS[packing]))
    assert open_recording(path).count() == len(EVENTS)


@pytest.mark.parametrize(
    ("packing", "place", "value"),
    [
        ("blosc", 4, b"\xff\xff\xff\x7f"),  # reserves 2 GiB
        ("blosc2", 58, b"\x70\0\0\0"),  # reserves 2 GB
        ("blosc2", 30, b"\0\0\0\0\x70\0\0\0"),
        ("blosc2", 0x61 + 31, b"\x46"),  # values that were never written: whatever the memory holds
        ("zstd", 5, b"\xff"),
        ("zstd", 6, b"\xff\xff"),  # its filter passes over what the decoder says, and leaves memory as it was
        ("lzf", 0, b"\x1f"),
        ("lzf", 4, b"\xff\xff\xff"),
        ("lz4", 7, b"\xff"),
        ("lz4", 16, b"\xff\xff\xff"),  # its decoder prints
        ("bitshuffle_lz4", 5, b"\x10"),  # its decoder reads what is not there
        ("bitshuffle_lz4", 12, b"\xff\xff"),
        ("bitshuffle_lz4", 20, b"\xff\xff\xff"),
        ("bitshuffle_zstd", 5, b"\x10"),
    ],
)
def test_damaged_chunks_are_refused_before_their_filter_sees_them(
    tmp_path: Path, packing: str, place: int, value: bytes
) -> None:
    data = bytearray(event_files.dsec(EVENTS, chunks=(77,), **PACKINGS[packing]))
    # polarities become smaller by any; so few bytes are not packed by Blosc
    column, size = ("t", 308) if "blosc" in packing else ("p", 77)
    with h5py.File(io.BytesIO(data)) as file:
        begin = file[f"events/{column}"].id.get_chunk_info(1).byte_offset + place
    data[begin : begin + len(value)] = value
    (tmp_path / "a.h5").write_bytes(data)
    said = alone(tmp_path / "a.h5")
    assert said.startswith(f": dataset events/{column} has a chunk at 77 that "), said
    assert said.endswith(f"does not unpack to {size} bytes; the file is damaged\n")


@pytest.mark.parametrize("packing", ["zstd", "lzf"])
def test_chunks_that_unpack_to_less_are_refused(tmp_path: Path, packing: str) -> None:
    """What their filters leave then is whatever the memory held: every damage of a byte, with two kinds of old memory.

    So a read is the same twice, or refused.
    """
    file = tmp_path / "a.h5"
    data = event_files.dsec(EVENTS, chunks=(77,), **PACKINGS[packing])
    with h5py.File(io.BytesIO(data)) as whole:
        chunk = whole["events/t"].id.get_chunk_info(1)
    refused = 0
    for place in range(chunk.size):
        damaged = bytearray(data)
        damaged[chunk.byte_offset + place] ^= 1 << place % 8
        file.write_bytes(damaged)
        found = [read_over(file, old) for old in (b"\x11", b"\xee")]
        assert found[0] == found[1], f"byte {place}"
        refused += found[0] is None
    assert refused > chunk.size // 8


def read_over(path: Path, old: bytes) -> bytes | None:
    """Read a column in memory that held other bytes; None where it is refused."""
    with h5py.File(path) as file:
        times = file["events/t"]
        size = 77 * times.dtype.itemsize
        for count in range(2, 40):  # what is freed is what a filter is given
            blocks = [old * (size + extra) for extra in range(-33, count)]
            del blocks
        try:
            check_chunks(path, "t", times)
            return bytes(times[()].tobytes())
        except (InputError, OSError):
            return None


@pytest.mark.parametrize(
    ("packing", "number", "index", "value"),
    [("blosc", 32001, 3, 5), ("bitshuffle", 32008, 2, 0), ("bitshuffle_lz4", 32008, 2, 4), ("lzf", 32000, 2, 1 << 31)],
)
def test_parameters_of_another_data_set_are_refused(
    tmp_path: Path, packing: str, number: int, index: int, value: int
) -> None:
    data = event_files.hdf5(
        lambda f: f.create_dataset("events", data=np.ones((500, 4), "i8"), chunks=(77, 4), **PACKINGS[packing])
    )
    with h5py.File(io.BytesIO(data)) as file:
        plist = file["events"].id.get_create_plist()
        told = next(plist.get_filter(at)[2] for at in range(plist.get_nfilters()) if plist.get_filter(at)[0] == number)
    changed = [*told[:index], value, *told[index + 1 :]]
    old, new = (struct.pack(f"<{len(told)}I", *values) for values in (told, changed))
    assert data.count(old) == 1
    (tmp_path / "a.h5").write_bytes(data.replace(old, new))
    assert alone(tmp_path / "a.h5").startswith(": dataset events has the parameters (")


def test_no_filter_of_those_that_crash_without_parameters_gets_none(tmp_path: Path) -> None:
    """Their number stands behind that of the filter, the length of its name, and its flags."""
    data = event_files.v2e_hdf5(EVENTS, chunks=(77, 4), **hdf5plugin.Blosc())
    at = data.index(struct.pack("<H", 32001)) + 6
    assert data[at : at + 2] == b"\7\0"
    (tmp_path / "a.h5").write_bytes(data[:at] + b"\0" + data[at + 1 :])
    assert alone(tmp_path / "a.h5").startswith(": dataset events has the parameters () of Blosc")


def test_a_frame_of_half_a_gigabyte_in_a_small_chunk_is_refused(tmp_path: Path) -> None:
    """Of 172 bytes."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        large = file.create_dataset("large", (1 << 29,), "u1", chunks=(1 << 29,), **hdf5plugin.Blosc2())
        large[:1] = 0
        frame = large.id.read_direct_chunk((0,))[1]
        assert len(frame) < 200
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("events", (1000, 4), "i8", chunks=(1000, 4), **hdf5plugin.Blosc2())
        made.id.write_direct_chunk((0, 0), frame)
    assert "has a chunk at 0, 0 that Blosc2 does not unpack to 32000 bytes" in alone(tmp_path / "a.h5")


def test_a_stream_that_goes_on_behind_its_chunk_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    """Of gzip, whose filter unpacks to the end: one megabyte would become one gigabyte."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("events", (1000, 4), "i8", chunks=(1000, 4), compression="gzip")
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(400 << 20), 9))
        assert chunks_unchecked("f", "events", made)
    assert "has a chunk at 0, 0 that gzip does not unpack to 32000 bytes" in alone(tmp_path / "a.h5")


def test_a_chunk_of_more_bytes_than_the_file_is_refused(tmp_path: Path) -> None:
    """The library, and h5py, reserve what the index of the chunks says."""
    data = event_files.dsec(EVENTS, chunks=(77,), **PACKINGS["zstd"])
    with h5py.File(io.BytesIO(data)) as file:
        told = file["events/t"].id.get_chunk_info(1)
    # size, filters left out, and where in the data set
    entry = struct.pack("<IIQ", told.size, 0, 77)
    assert data.count(entry + bytes(8) + struct.pack("<Q", told.byte_offset)) == 1
    at = data.index(entry + bytes(8) + struct.pack("<Q", told.byte_offset))
    (tmp_path / "a.h5").write_bytes(data[:at] + struct.pack("<I", 0xF0000000) + data[at + 4 :])
    assert "events/t has a chunk of 4026531840 bytes in a file of " in alone(tmp_path / "a.h5")


def test_two_compressions_are_refused(tmp_path: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((77, 4))
    properties.set_deflate(4)
    properties.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((500, 4))
        events = h5py.h5d.create(file.id, b"events", h5py.h5t.NATIVE_INT64, space, properties)
        h5py.Dataset(events)[...] = np.ones((500, 4))
    with pytest.raises(InputError, match="by the HDF5 filters 1, 32000, expected shuffle before one compression"):
        open_recording(tmp_path / "a.h5")


@pytest.mark.parametrize("packing", ["gzip", "blosc_zstd", "zstd"])
def test_polarities_that_are_all_on_are_read(tmp_path: Path, packing: str) -> None:
    """They become far smaller than a thousandth, which is judged with the other columns."""
    rng = np.random.default_rng(3)
    count = 300_000
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, values in (("x", rng.integers(0, 300, count)), ("y", rng.integers(0, 200, count))):
            file.create_dataset(f"events/{name}", data=values.astype("u2"), compression="gzip")
        file.create_dataset("events/t", data=np.sort(rng.integers(0, 1 << 24, count)), compression="gzip")
        options = {"compression": "gzip"} if packing == "gzip" else PACKINGS[packing]
        p = file.create_dataset("events/p", data=np.ones(count, np.uint8), chunks=(count,), **options)
        assert p.id.get_storage_size() < count // 950
    recording = open_recording(path)
    assert recording.count() == count
    assert recording.summary().on_events == count


def test_events_without_end_in_chunks_of_zeros_are_refused_at_once(tmp_path: Path) -> None:
    """Columns of a recording that claims 10^12 events, and one that claims all that is there, in a small file."""
    for name, events in (("a.h5", 10**12), ("b.h5", 300 << 16)):
        with h5py.File(tmp_path / name, "w") as file:
            for column, kind in (("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "u1")):
                made = file.create_dataset(f"events/{column}", (events,), kind, chunks=(1 << 16,), **hdf5plugin.Zstd())
                file[f"events/{column}"][: 1 << 16] = 0
                data = made.id.read_direct_chunk((0,))[1]
                for index in range(300):
                    made.id.write_direct_chunk((index << 16,), data)
        started = time.process_time()
        with pytest.raises(InputError, match=r"group events declares \d+ bytes and stores \d+; expected the data"):
            open_recording(tmp_path / name)
        assert time.process_time() - started < 2


def test_a_pickled_recording_finds_its_filters_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(event_files.dsec(EVENTS, chunks=(77,), **PACKINGS["blosc"]))
    (tmp_path / "a.pickle").write_bytes(pickle.dumps(open_recording(tmp_path / "a.h5")))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).summary().events)"
    command = [sys.executable, "-c", code, str(tmp_path / "a.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "500\n"), done.stderr[-500:]


def test_a_data_set_stays_open_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is closed forgets the chunk that it has unpacked, so each of 64 reads of one chunk would unpack it anew."""
    count = 1 << 12
    values = np.column_stack([np.arange(count), np.arange(count) % 7, np.arange(count) % 5, np.ones(count, int)])
    (tmp_path / "a.h5").write_bytes(
        event_files.hdf5(lambda f: f.create_dataset("events", data=values, chunks=(count, 4), compression="gzip"))
    )
    recording = open_recording(tmp_path / "a.h5", sensor_size=(7, 7))
    opened: list[str] = []
    get = h5py.Group.__getitem__

    def counted(group: h5py.Group, name: str) -> object:
        opened.append(name)
        return get(group, name)

    monkeypatch.setattr(h5py.Group, "__getitem__", counted)
    monkeypatch.setattr("eventsim.dvs.formats.hdf5.READ_EVENTS", count // 64)
    assert sum(len(block.t) for block in recording._decode(count)) == count
    assert opened.count("events") == 2  # once for its filters
