"""Formats that hold columns - archives, text, HDF5, MATLAB, arrays: what names the columns, and what is refused."""

import io
import subprocess
import sys
import tracemalloc
import zipfile

import event_files
import hdf5plugin
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from test_dvs_prophesee import FEW, put
from test_dvs_readers import CHUNKS, ONE_FOLDER, as_array, event_lists, npy, read

from eventsim.cli.words import in_flags
from eventsim.dvs import open_recording
from eventsim.errors import InputError

EVENTS = event_lists(40, 30, 10**6)


@ONE_FOLDER
@given(events=EVENTS, chunk=CHUNKS, save=st.sampled_from([np.savez, np.savez_compressed]))
def test_archives(tmp_path, events, chunk, save):
    path = put(tmp_path, "a.npz", event_files.npz(events, save, names="pxyt", extra=np.zeros(3)))
    np.testing.assert_array_equal(read(path, chunk), as_array(events))
    recording = open_recording(path)
    assert (recording.width, recording.height) == (max(e[0] for e in events) + 1, max(e[1] for e in events) + 1)
    assert recording.untold == {"sensor_size"}
    assert open_recording(path, sensor_size=(30, 40)).untold == frozenset()


LINES = {
    "{s:.9f} {x} {y} {p}": ("", {}),
    "{s:.6f}\t{x}\t{y}\t{p}": ("40 30\n", {}),
    "{s:.18e}, {x}.0, {y}.00, {p}.000": ("# time (s), x, y, polarity (0=off, 1=on)\n", {}),
    "{x},{y},{p},{t}": ("%geometry:40,30\n", {}),
    "{p};{t};{y};{x}": ("pol;timestamp;y;x\n", {}),
    "{word} {x} {y} {t}": ("On X Y TS\n", {}),
    "7 {t} {x} {y} -1.5e9 {p}": ("", {"columns": "_,t,x,y,_,p"}),
    "{t} nan {y} {x} {p} ": ("", {"columns": "t_yxp"}),
    "{t} {x} {y} {p}\r": ("# timestamp (us) x y polarity\r\n", {}),
}


@ONE_FOLDER
@given(events=EVENTS, chunk=CHUNKS, line=st.sampled_from(list(LINES)), end=st.sampled_from(["", "\n\n  \n"]))
def test_text_in_every_usual_form(tmp_path, events, chunk, line, end):
    first, options = LINES[line]
    path = put(tmp_path, "a.txt", event_files.text(events, line, first) + end.encode())
    np.testing.assert_array_equal(read(path, chunk, **options), as_array(events))
    recording = open_recording(path, **options)
    told = "40" in first
    assert recording.untold == (frozenset() if told else {"sensor_size"})
    assert not told or (recording.width, recording.height) == (40, 30)


@pytest.mark.parametrize(
    ("unit", "number", "t"),
    [
        ("s", "0.0000015", 2),
        ("s", "-0.0000015", -2),
        ("s", "1.23456749e1", 12345675),
        ("ms", "2.0004999", 2000),
        ("ns", "1500", 2),
        ("us", "4611686018427387.9e2", 461168601842738790),
        ("s", "1e-30", 0),
        ("us", "000000000000000000000123", 123),
        ("us", "123.4999999999999999999999", 123),
    ],
)
def test_times_of_text_are_rounded_exactly(tmp_path, unit, number, t):
    path = put(tmp_path, "a.txt", f"{number} 1 2 0\n".encode())
    assert read(path, columns="txyp", time_unit=unit).tolist() == [(1, 2, t, False)]


def test_text_longer_than_a_read(tmp_path):
    events = [(i % 40, i % 30, 90 * i, i % 2 == 0) for i in range(150_000)]
    path = put(tmp_path, "a.csv", event_files.text(events, "{x},{y},{p},{t}"))
    assert path.stat().st_size > 2 << 20
    np.testing.assert_array_equal(read(path), as_array(events))


@pytest.mark.parametrize(
    "options", [{}, {"chunks": True, "compression": "gzip"}, {"chunks": True, **hdf5plugin.Blosc()}]
)
def test_layouts_of_hdf5(tmp_path, options):
    events = [(i % 40, i % 30, 3 * i, i % 3 == 0) for i in range(70_000)]
    path = put(tmp_path, "dsec.h5", event_files.dsec(events, 10**12, **options))
    np.testing.assert_array_equal(read(path), as_array([(x, y, t + 10**12, p) for x, y, t, p in events]))
    np.testing.assert_array_equal(
        read(put(tmp_path, "v2e.h5", event_files.v2e_hdf5(events, **options))), as_array(events)
    )
    cd = open_recording(put(tmp_path, "cd.hdf5", event_files.metavision_hdf5(events, "640x480", **options)))
    assert (cd.width, cd.height, cd.untold) == (640, 480, frozenset())
    np.testing.assert_array_equal(np.concatenate(list(cd.chunks(999))), as_array(events))


def test_hdf5_of_two_cameras_and_of_seconds(tmp_path):
    def build(file):
        for side in ("left", "right"):
            for name, values in zip(("xs", "ys", "ts", "ps"), zip(*FEW, strict=True), strict=True):
                file[f"{side}/{name}"] = np.array(values, "f8") / (1e6 if name == "ts" else 1)

    path = put(tmp_path, "a.h5", event_files.hdf5(build))
    with pytest.raises(InputError, match="holds events in left and right, expected one recording; pass group"):
        open_recording(path)
    with pytest.raises(InputError, match="pass time_unit"):
        open_recording(path, group="left")
    np.testing.assert_array_equal(read(path, group="/right", time_unit="s"), as_array(FEW))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_matlab_conventions(tmp_path, packed, first):
    path = put(tmp_path, "a.mat", event_files.mat(FEW, first, do_compression=packed))
    np.testing.assert_array_equal(read(path), as_array(FEW))
    np.testing.assert_array_equal(read(put(tmp_path, "b.mat", event_files.mat73(FEW))), as_array(FEW))
    buffer = io.BytesIO()
    loose = {name: event_files.table(FEW)[name] for name in "xytp"}
    scipy.io.savemat(buffer, {**loose, "note": "hello", "cells": np.array(["a", 1.0], object)})
    np.testing.assert_array_equal(read(put(tmp_path, "c.mat", buffer.getvalue())), as_array(FEW))


@pytest.mark.parametrize("off", [0, -1])
def test_matlab_polarities_that_are_no_indices_do_not_tell_where_pixels_begin(tmp_path, off):
    table = event_files.table(FEW)
    buffer = io.BytesIO()
    polarities = np.where(table["p"], 1, off)
    scipy.io.savemat(buffer, {"x": table["x"] + 1, "y": table["y"] + 1, "t": table["t"], "p": polarities})
    path = put(tmp_path, "a.mat", buffer.getvalue())
    with pytest.raises(InputError, match=f"polarities from {off} to 1 and no coordinate 0, so nothing tells"):
        open_recording(path)
    np.testing.assert_array_equal(read(path, first_pixel=1), as_array(FEW))


def test_matlab_that_does_not_tell_its_convention(tmp_path):
    on = [(3, 4, 1, True), (5, 6, 2, True)]
    path = put(tmp_path, "a.mat", event_files.mat(on, 0))
    with pytest.raises(InputError, match="nothing tells whether pixels count from 0 or 1; pass first_pixel"):
        open_recording(path)
    np.testing.assert_array_equal(read(path, first_pixel=0), as_array(on))
    np.testing.assert_array_equal(read(path, first_pixel=1), as_array([(2, 3, 1, False), (4, 5, 2, False)]))


FIELDS = {
    "dv_processing": [("timestamp", "<i8"), ("x", "<i2"), ("y", "<i2"), ("polarity", "i1")],
    "aedat": [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), (("p", "on"), "?")],
    "faery": [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")],
    "whole": [("x", "f4"), ("y", "f8"), ("t", "i8"), ("p", "u1"), ("extra", "S3")],
}


@pytest.mark.parametrize("fields", FIELDS)
@ONE_FOLDER
@given(events=EVENTS, chunk=CHUNKS)
def test_arrays_of_other_packages(tmp_path, events, chunk, fields):
    dtype = np.dtype(FIELDS[fields])
    array = np.zeros(len(events), dtype)
    for name in dtype.names:
        column = {"timestamp": "t", "polarity": "p", "on": "p"}.get(name, name)
        if column != "extra":
            array[name] = event_files.table(events)[column]
    np.testing.assert_array_equal(read(array, chunk), as_array(events))
    np.testing.assert_array_equal(read(put(tmp_path, "a.npy", npy(array)), chunk), as_array(events))


@pytest.mark.parametrize("columns", ["xytp", "t x y p", "p,t,_,y,x"])
def test_event_lists_are_asked_for(tmp_path, columns):
    order = [name for name in columns if name in "xytp_"]
    table = event_files.table(FEW)
    array = np.stack([table["x"] * 0 - 7 if name == "_" else table[name].astype("i8") for name in order], 1)
    for source in (array, put(tmp_path, "a.npy", npy(array))):
        np.testing.assert_array_equal(read(source, columns=columns), as_array(FEW))
        with pytest.raises(InputError, match="columns" if len(order) == 4 else "structured"):
            open_recording(source)
        with pytest.raises(InputError, match="expected x, y, t and p once each"):
            open_recording(source, columns="xyt")
    seconds = array.astype("f8")
    seconds[:, order.index("t")] /= 1e6
    with pytest.raises(InputError, match="pass time_unit"):
        open_recording(seconds, columns=columns)
    np.testing.assert_array_equal(read(seconds, columns=columns, time_unit="s"), as_array(FEW))


def structured(value, **types):
    fields = {"x": "i4", "y": "i4", "t": "i8", "p": "i4", **types}
    return npy(np.array([tuple(value.get(name, 0) for name in fields)], list(fields.items())))


def bomb(values=1 << 27):
    """Write an archive of a few hundred kilobytes that unpacks to a gigabyte."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "xytp":
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "<i8", "fortran_order": False, "shape": (values,)})
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(head.getvalue())
                for _ in range(values >> 17 if name == "t" else 0):
                    member.write(bytes(1 << 20))
    return buffer.getvalue()


def heap_without_end():
    """Write a heap of strings whose free space counts 0 bytes, in which HDF5's library never ends."""
    data = bytearray(event_files.metavision_hdf5(FEW))
    # behind the headers of heap and object, and the 8 bytes of the object
    free = data.index(b"GCOL") + 16 + 16 + 8
    assert data[free : free + 2] == b"\0\0"
    data[free + 8 : free + 16] = bytes(8)
    return bytes(data)


REFUSED = {
    "three.npz": (event_files.npz(FEW, names="xyt"), {}, "expected arrays x, y, t and p"),
    "lengths.npz": (event_files.npz(FEW, names="xyt", p=np.zeros(3, "i8")), {}, "arrays of lengths"),
    "seconds.npz": (
        event_files.npz(FEW, names="xyp", t=np.zeros(4)),
        {},
        "times of type float64, which may be seconds or microseconds; pass time_unit='s' or 'us'",
    ),
    "object.npz": (event_files.npz(FEW, names="xyt", p=np.array([None] * 4)), {}, "not unpickled"),
    "cut.npz": (event_files.npz(FEW)[:-30], {}, "cannot be read as .npz"),
    "flip.npz": (
        event_files.npz(FEW).replace(b"\x0a\x00\x00\x00\x00\x00\x00\x00\x0a", b"\x0a\0\0\0\0\0\0\0\x0b"),
        {},
        "CRC",
    ),
    "frames.npz": (event_files.npz(FEW, names="", frames=np.zeros((2, 2, 3, 3))), {}, "give them to the run command"),
    "words.txt": (b"one two three four\n", {}, "expected events as lines of numbers"),
    "unnamed.txt": (b"1 2 3 0\n", {}, "pass columns='txyp' or another order"),
    "damaged.csv": (b"x,y,p,t\n1,2,0,9\n1,a,0,9\n", {}, "pass columns='txyp' or another order"),
    "swapped.csv": (b"1000,5,6,1\n", {}, "pass columns"),
    "five.csv": (b"x,y,p,t\n1,2,0,9,4\n", {}, "pass columns"),
    "fewer.csv": (b"x,y,p,t\n1,2,0,9\n1,2,0\n", {}, "the line after event 1 is '1,2,0', fewer"),
    "more.csv": (b"x,y,p,t\n1,2,0,9\n1,2,0,9,9\n", {}, "the line after event 1 is '1,2,0,9,9', more"),
    "nan.csv": (b"x,y,p,t\n1,2,0,9\n1,2,0,nan\n", {}, "no number in column 4"),
    "half.csv": (b"x,y,p,t\n1,2,0,9\n1.5,2,0,9\n", {}, "no whole number in column 1"),
    "large.csv": (b"x,y,p,t\n1,2,0,9\n1,2,0,9e99\n", {}, "too large a number in column 4"),
    "three.csv": (b"x,y,p,t\n1,2,3,9\n", {}, "a polarity of 3"),
    "cut.csv": (b"x,y,p,t\n1,2,0,9\n1,2,0,1", {}, "does not end, so its last number may be cut"),
    "two.txt": (b"1 2 3 0\n", {"columns": "xytpp"}, "x, y, t and p once each"),
    "width.txt": (b"1 2 3 0\n", {"columns": "xytp_"}, "a name for each of 4 numbers"),
    "unit.txt": (b"1 2 3 0\n", {"columns": "xytp", "time_unit": "h"}, "one of s, ms, us, ns"),
    "columns.npy": (structured({}), {"columns": "xytp"}, "expected none for named fields"),
    "half.npy": (structured({"x": 0.5}, x="f4"), {}, "expected whole pixels"),
    "nan.npy": (structured({"y": np.nan}, y="f4"), {}, "expected whole pixels"),
    "seconds.npy": (structured({}, t="f8"), {}, "pass time_unit='s' or 'us'"),
    "late.npy": (structured({"t": 2**61}), {"time_unit": "s"}, "expected less than 2^62"),
    "never.npy": (structured({"t": np.inf}, t="f8"), {"time_unit": "s"}, "expected less than 2^62"),
    "p.npy": (structured({}, p="f4"), {}, "expected booleans or integers"),
    "model.h5": (event_files.hdf5(lambda f: f.create_dataset("weights", data=np.ones(3))), {}, "no events but weights"),
    "float.h5": (
        event_files.dsec(FEW).replace(b"nothing", b""),
        {"group": "ms_to_idx"},
        "expected a group or data set",
    ),
    "heap.h5": (heap_without_end(), {}, "the heap at byte"),
    "cut.h5": (event_files.dsec(FEW)[:-100], {}, "cannot be read as HDF5"),
    "cut.mat": (event_files.mat(FEW)[:-9], {}, "cannot be read as a MATLAB file"),
    "packed.mat": (event_files.mat(FEW, do_compression=True)[:-9], {}, "cannot be read as a MATLAB file"),
    "order.mat": (event_files.mat(FEW).replace(b"IM", b"XX", 1), {}, "no byte order"),
    "pixel.mat": (event_files.mat(FEW), {"first_pixel": 2}, "expected 0 or 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path, name):
    data, options, part = REFUSED[name]
    path = put(tmp_path, name, data)
    with pytest.raises(InputError) as caught:
        open_recording(path, **options).summary()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and part in message and "\n" not in message
    assert (
        "pass --" in in_flags(message) or "pass " not in message
    )  # an option with a value, so that a flag can be named


def test_what_unpacks_to_a_gigabyte_takes_a_few_megabytes(tmp_path):
    path = put(tmp_path, "a.npz", bomb())
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"cannot be read as \.npz"):
            open_recording(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_compression_that_is_not_installed_is_named(tmp_path):
    path = put(tmp_path, "a.h5", event_files.dsec(FEW, chunks=True, **hdf5plugin.Blosc()))
    code = (
        "import sys; sys.modules['hdf5plugin'] = None\n"
        "from eventsim import InputError, open_recording\n"
        "try: open_recording(sys.argv[1])\n"
        "except InputError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert shown.stdout == (
        f"{path}: data set events/x is compressed with Blosc, which is not here; pip install 'eventsim[hdf5]'\n"
    )
    assert shown.stderr == ""
