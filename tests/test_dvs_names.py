"""Several names of one column, units of times, and shapes of arrays: what is taken, and what is refused by its name."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from pathlib import Path
from typing import Any

import event_files
import numpy as np
import pytest
import scipy.io
from test_dvs_prophesee import FEW, put
from test_dvs_readers import as_array, npy, packet, read

from eventsim import Preparation
from eventsim.datasets.samples import labelled_files
from eventsim.dvs import frames_by_count, frames_by_time, open_recording
from eventsim.dvs.order import Reading
from eventsim.errors import InputError

COLUMNS = event_files.table(FEW)


def held(kind: str, columns: dict[str, Any]) -> bytes:
    """Write named columns as a file of a kind."""
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez(buffer, **columns)
    elif kind == "mat":
        scipy.io.savemat(buffer, {"TD": columns})
    elif kind == "h5":
        return event_files.hdf5(lambda file: [file.create_dataset(f"e/{key}", data=columns[key]) for key in columns])
    elif kind == "npy":
        table = np.zeros(len(FEW), [(name, np.asarray(values).dtype) for name, values in columns.items()])
        for name, values in columns.items():
            table[name] = values
        return npy(table)
    else:
        rows = [",".join(str(values[i]) for values in columns.values()) for i in range(len(FEW))]
        return "\n".join([",".join(columns), *rows, ""]).encode()
    return buffer.getvalue()


def plain(**more: Any) -> dict[str, Any]:
    return {**{name: COLUMNS[name].astype("i8") for name in "xytp"}, **more}


@pytest.mark.parametrize("kind", ["npz", "mat", "h5", "npy"])
def test_a_letter_comes_before_other_names_and_two_of_those_are_refused(tmp_path: Path, kind: str) -> None:
    other = np.arange(len(FEW))[::-1] + 5
    for first in (True, False):  # in either order
        columns = plain() if first else {"timestamps": other, **plain()}
        path = put(tmp_path, f"a.{kind}", held(kind, {**columns, "timestamps": other, "row": other, "on": other % 2}))
        np.testing.assert_array_equal(read(path), as_array(FEW))
    columns = {name: values for name, values in plain(ts=other, timestamp=other).items() if name != "t"}
    path = put(tmp_path, f"b.{kind}", held(kind, columns))
    with pytest.raises(InputError, match=r"holds (ts and timestamp|timestamp and ts), expected one name of t"):
        open_recording(path)


@pytest.mark.parametrize("kind", ["npz", "mat", "h5", "npy"])
@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("us", 1.0), ("ns", 1e3)])
def test_times_with_parts_are_refused_until_their_unit_is_said(
    tmp_path: Path, kind: str, unit: Any, factor: float
) -> None:
    path = put(tmp_path, f"a.{kind}", held(kind, plain(t=COLUMNS["t"] * factor + (0.25 if factor == 1 else 0))))
    if kind != "mat" or factor <= 1:  # MATLAB's numbers are floating-point ones; whole they are microseconds
        with pytest.raises(InputError, match=r"pass time_unit='s' or 'us'"):
            open_recording(path).summary()
    np.testing.assert_array_equal(read(path, time_unit=unit), as_array(FEW))


def test_first_pixel_of_matlab_is_said_whatever_the_polarities_are(tmp_path: Path) -> None:
    for polarities in (COLUMNS["p"] * 1, COLUMNS["p"] * 2 - 1, COLUMNS["p"] + 1):
        columns = plain(x=COLUMNS["x"] + 1, y=COLUMNS["y"] + 1, p=polarities)
        path = put(tmp_path, "a.mat", held("mat", columns))
        np.testing.assert_array_equal(read(path, first_pixel=1), as_array(FEW))


@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
def test_events_of_another_shape_are_told_from_other_arrays(tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"an array of events of shape .*, expected one dimension; save its ravel\(\)"):
        open_recording(put(tmp_path, "a.npy", npy(COLUMNS.reshape(shape))))
    with pytest.raises(InputError, match="an array of the fields x, y, t, expected x, y, t and p; rename them"):
        open_recording(COLUMNS[["x", "y", "t"]])


@pytest.mark.parametrize("kind", ["csv", "npy", "list"])
def test_a_cut_file_is_salvaged_where_its_sensor_is_guessed(tmp_path: Path, kind: str) -> None:
    events = [(i % 40, i % 30, 7 * i, i % 3 == 0) for i in range(5000)]
    options = {"columns": "xytp"} if kind == "list" else {}
    if kind == "csv":
        data, count = event_files.text(events, "{x},{y},{p},{t}")[:-3], 4999
    elif kind == "npy":
        data, count = npy(as_array(events))[:-700], 5000 - 54  # 13 bytes each
    else:
        data, count = npy(np.array([tuple(map(int, event)) for event in events]))[:-33], 4998
    path = put(tmp_path, f"a.{'csv' if kind == 'csv' else 'npy'}", data)
    with pytest.raises(InputError, match="salvage=True"):
        open_recording(path, **options)
    recording = open_recording(path, salvage=True, **options)
    for opened in (recording, pickle.loads(pickle.dumps(recording))):
        found = np.concatenate(list(opened.chunks(999)))
        np.testing.assert_array_equal(found, as_array(events[:count]))
        assert opened.summary().damage is not None
    assert (recording.width, recording.height, recording.size_source) == (40, 30, "guessed")


def test_what_is_cut_before_its_first_event_is_refused_all_the_same(tmp_path: Path) -> None:
    for cut, words in ((-len(FEW) * 13 + 5, "0 of 4 rows"), (30, "cannot be read")):
        path = put(tmp_path, "a.npy", npy(as_array(FEW))[:cut])
        with pytest.raises(InputError, match=words):
            open_recording(path, salvage=True)
    with pytest.raises(InputError, match="does not end, so its last number may be cut"):
        open_recording(put(tmp_path, "a.csv", b"1,2,1,5"), salvage=True)
    with pytest.raises(InputError, match="never unpickled; save the arrays themselves"):
        open_recording(put(tmp_path, "b.npy", npy(np.array([{"x": 1}], object))))


def test_an_outlier_ends_what_is_salvaged(tmp_path: Path) -> None:
    events = as_array([(i % 40, i % 30, 7 * i, i % 3 == 0) for i in range(500)])
    events["y"][321] = 12345
    path = put(tmp_path, "a.npy", npy(events))
    with pytest.raises(InputError, match=r"event 321 has y = 12345.*salvage=True reads up to there"):
        open_recording(path)
    recording = open_recording(path, salvage=True)
    assert (recording.width, recording.height) == (40, 30)
    assert (recording.summary().events, recording.size_source) == (321, "guessed")


def test_columns_of_another_order_are_told_by_coordinates_that_no_sensor_has() -> None:
    lists = np.array([(i % 40, i % 30, 70 * i, i % 2) for i in range(1000)])
    with pytest.raises(InputError, match=r"event 469 has y = 32830, expected less than 32767; the columns are of"):
        open_recording(lists, columns="txyp")


def tell(first: str, line: str = "{t},{x},{y},{p}", **more: float) -> bytes:
    rows = [line.format(x=x, y=y, t=t, f=t * more.get("factor", 1), p=int(p)) for x, y, t, p in FEW]
    return "\n".join([first, *rows, ""] if first else [*rows, ""]).encode()


@pytest.mark.parametrize(
    ("first", "factor"),
    [
        ("t_us,x,y,p", 1),
        ("TIME_MS,x,y,p", 1e-3),
        ("timestamp_s,x,y,p", 1e-6),
        ("ts_ns,x,y,pol", 1e3),
        ("t [us],x [px],y [px],p", 1),
        ("t (ms),x,y,p", 1e-3),
        ("timestamp(\xb5s), x, y, polarity (0/1)", 1),
        ("# t_us x y p", 1),
        ("# time [ms], x, y, polarity", 1e-3),
        ("\ufefft_us,x,y,p", 1),
    ],
)
def test_names_of_text_say_the_unit_of_the_times(tmp_path: Path, first: str, factor: float) -> None:
    for form in ("{f:.0f}", "{f:.1f}", "{f:.7f}", "{f:.12e}"):
        if factor < 1 and form in ("{f:.0f}", "{f:.1f}"):
            continue
        path = put(tmp_path, "a.csv", tell(first, form + ",{x},{y},{p}", factor=factor))
        np.testing.assert_array_equal(read(path), as_array(FEW))


@pytest.mark.parametrize(
    "first",
    [
        "t,x,timestamp,y,p,on",
        "timestamp,x,t,y,p,on",
        'ts_ms,x,"T",y,on,P',
        "time [ms],x,t,y,p,on",
        "t_ns,x,t [us],y,p,on",
        "t (us),x,time (s),y,p,on",
        "row,x,t,y,p,column",
    ],
)
def test_a_letter_comes_before_other_names_of_text(tmp_path: Path, first: str) -> None:
    names = [name.strip('"').lower() for name in first.replace(" [us]", "").replace(" (us)", "").split(",")]
    rows = [",".join(str(int(row[name])) if name in "xytp" else "0" for name in names) for row in COLUMNS]
    path = put(tmp_path, "a.csv", "\n".join([first, *rows, ""]).encode())
    np.testing.assert_array_equal(read(path), as_array(FEW))
    with pytest.raises(InputError, match=r"columns='x,t,p,y,_,_' was given, but its first line names"):
        open_recording(path, columns="x,t,p,y,_,_")


def test_columns_say_which_of_two_names_of_text_is_meant(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b"t [s],timestamp_ms,x,y,p\n1,7,2,3,1\n2,8,4,3,0\n")
    assert read(path)["t"].tolist() == [1_000_000, 2_000_000]
    assert read(path, columns="_,t,x,y,p")["t"].tolist() == [7_000, 8_000]
    path = put(tmp_path, "b.csv", b"ts,timestamp,x,y,p\n1,7,2,3,1\n2,8,4,3,0\n")
    with pytest.raises(InputError, match="expected one name each of x, y, t and p; pass columns"):
        open_recording(path)
    assert read(path, columns="_,t,x,y,p")["t"].tolist() == [7, 8]


def test_whole_times_with_a_point_are_refused_until_their_unit_is_said(tmp_path: Path) -> None:
    for form in ("{t}.0", "{t}.000000", "{t:e}"):
        for first, options in (("t,x,y,p", {}), ("", {"columns": "txyp"}), ("# t x y p", {})):
            path = put(tmp_path, "a.csv", tell(first, form + ",{x},{y},{p}"))
            with pytest.raises(InputError, match=r"with a decimal point but no parts.*pass time_unit='s' or 'us'"):
                open_recording(path, **options)
            expected = as_array([(x, y, t if form != "{t:e}" else float(f"{t:e}"), p) for x, y, t, p in FEW])
            np.testing.assert_array_equal(read(path, time_unit="us", **options), expected)
    # parts of which some are there
    path = put(tmp_path, "a.csv", b"t,x,y,p\n0,1,2,1\n1.0,1,2,0\n1.5,1,2,0\n")
    assert read(path)["t"].tolist() == [0, 1_000_000, 1_500_000]
    # a stream that begins at 0
    assert read(put(tmp_path, "a.csv", b"t,x,y,p\n0.000000,1,2,1\n"))["t"].tolist() == [0]
    # as the rpg group and E2VID write seconds
    assert read(put(tmp_path, "a.txt", b"1.000000 1 2 1\n2.000000 1 2 0\n"))["t"].tolist() == [1_000_000, 2_000_000]
    with pytest.raises(InputError, match="no parts"):
        open_recording(put(tmp_path, "a.txt", b"1134.0 1 2 1\n"))


def test_first_lines_as_spreadsheets_and_pandas_write_them(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{x},{y},{int(p)},{t}" for i, (x, y, t, p) in enumerate(FEW)) + "\n"
    for first in (",x,y,p,t\n", "\r\n\n,x,y,p,t\r\n", "\ufeffindex,x,y,p,t\n"):
        np.testing.assert_array_equal(read(put(tmp_path, "a.csv", (first + rows).encode())), as_array(FEW))
    for first in ("n,a,b,c,d\n", "index,x,y,p,stamp\n"):
        path = put(tmp_path, "a.csv", (first + rows).encode())
        with pytest.raises(InputError, match=r"its first line is .* pass columns|expected events as lines of numbers"):
            open_recording(path)
        np.testing.assert_array_equal(read(path, columns="_,x,y,p,t"), as_array(FEW))
    with pytest.raises(InputError, match=r"its first line is 'x,y,p,t,t', expected one name each of x, y, t and p"):
        open_recording(put(tmp_path, "b.csv", b"x,y,p,t,t\n1,2,1,5,6\n"))


@pytest.mark.parametrize("stream", [1, 2])
def test_the_stream_of_a_header_of_several_cameras_has_the_size_of_its_own(tmp_path: Path, stream: int) -> None:
    header = b"#!AER-DAT3.1\r\n#Source 2: DAVIS240C\r\n#Format: raw\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    path = put(tmp_path, "a.aedat", header + packet(FEW[:2], source=1) + packet(FEW[2:], source=2))
    with pytest.raises(InputError, match="pass stream=2 or stream=1, or sensor_size="):
        open_recording(path)
    recording = open_recording(path, stream=stream)
    assert (recording.width, recording.height) == {1: (128, 128), 2: (240, 180)}[stream]
    assert (recording.size_source, recording.summary().events) == ("file", 2)
    with pytest.raises(InputError, match="pass stream=2 or stream=1"):
        open_recording(path, stream=3)


def test_lists_and_frames_say_what_to_name(tmp_path: Path) -> None:
    lists = np.stack([COLUMNS[name].astype("f4") for name in "xypt"], 1)
    with pytest.raises(InputError, match=r"pass columns='xytp' or another order, and time_unit='s' or 'us'$"):
        open_recording(lists)
    with pytest.raises(InputError, match=r"another order$"):
        open_recording(lists.astype("i8"))
    with pytest.raises(InputError, match="transpose the array"):
        open_recording(np.ones((4, 9), int), columns="xytp")
    with pytest.raises(InputError, match=r"shape \(6, 2, 3, 3\), expected a list .*; leave it out for frames"):
        open_recording(put(tmp_path, "a.npy", npy(np.ones((6, 2, 3, 3)))), columns="xytp")


@pytest.mark.parametrize("name", ["zip", "gz", "bz2", "xz"])
def test_a_packed_recording_is_told(tmp_path: Path, name: str) -> None:
    data = b"#!AER-DAT2.0\r\n" + bytes(80)
    if name == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.aedat", data)
    else:
        packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[name](data)
        put(tmp_path, f"a.{name}", packed)
    with pytest.raises(InputError, match=r"an? \w+ (archive|file) found, expected a recording; unpack it"):
        open_recording(tmp_path / f"a.{name}")


def test_what_was_left_out_is_said_where_no_windows_are_left() -> None:
    events = as_array([(1, 2, 9 - i, True) for i in range(9)])
    with pytest.raises(InputError, match="span 0 us without 8 that were out of order"):
        frames_by_time(open_recording(events), 2, reading=Reading("drop"))
    with pytest.raises(InputError, match="holds 1 events without 8 that were out of order"):
        frames_by_count(open_recording(events), 2, reading=Reading("drop"))


@pytest.mark.parametrize("name", ["events", "events.tsv", "events.log"])
def test_text_under_another_name_is_told(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, b"x\ty\tp\tt\n1\t2\t1\t5\n")
    with pytest.raises(
        InputError, match=r"text found, expected a name that ends in \.txt or \.csv; pass format='text'"
    ):
        open_recording(path)
    assert read(path, format="text").tolist() == [(1, 2, 5, True)]


@pytest.mark.parametrize("options", [{"time_steps": 0}, {"time_steps": -3}, {"fit": "stretch"}])
def test_a_preparation_refuses_at_once_what_it_does_not_know(options: Any) -> None:
    (name,) = options
    with pytest.raises(InputError, match=rf"^{name}=.* found; expected"):
        Preparation(**options)


def test_one_recording_is_no_data_set_without_labels(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b"x,y,p,t\n1,2,1,5\n")
    with pytest.raises(InputError, match=r"a\.csv: a file found; expected a data set .* with --labels FILE"):
        labelled_files(path)


@pytest.mark.parametrize("order", ["xytp", "ptyx", "t_xyp"])
def test_lists_in_hdf5_of_another_order_than_that_of_v2e(tmp_path: Path, order: str) -> None:
    table = np.stack([COLUMNS[name].astype("i8") if name != "_" else COLUMNS["t"] * 0 for name in order], 1)
    path = put(tmp_path, "a.h5", event_files.hdf5(lambda file: file.create_dataset("left/events", data=table)))
    np.testing.assert_array_equal(read(path, columns=order), as_array(FEW))
    np.testing.assert_array_equal(read(path, columns=order, group="left/events"), as_array(FEW))
    if order == "xytp":
        with pytest.raises(InputError, match=r"left/events has four columns .* the first is not in order, .* columns="):
            open_recording(path)
    with pytest.raises(InputError, match=r"columns='xytp' was given, expected none for data sets or fields with names"):
        open_recording(put(tmp_path, "b.h5", event_files.dsec(FEW)), columns="xytp")
    with pytest.raises(InputError, match=r"expected x, y, t and p once each"):
        open_recording(path, columns="xyt")


@pytest.mark.parametrize("kind", ["npz", "mat", "h5", "npy"])
def test_polarities_of_two_conventions_are_refused(tmp_path: Path, kind: str) -> None:
    polarities = np.resize([-1, 0, 1], len(COLUMNS))
    with pytest.raises(InputError, match="polarities of -1 and 0 found, expected booleans, 0 and 1, or -1 and 1"):
        open_recording(put(tmp_path, f"a.{kind}", held(kind, plain(p=polarities)))).summary()


def test_coordinates_of_16_bits_are_numbers(tmp_path: Path) -> None:
    columns = plain(x=COLUMNS["x"].astype(np.float16), y=COLUMNS["y"].astype(np.float16))
    np.testing.assert_array_equal(read(put(tmp_path, "a.npz", held("npz", columns))), as_array(FEW))


def text_file(folder: Path, names: str, separator: str = "\n") -> Path:
    lines = [names, *(f"{x},{y},{int(p)},{t}" for x, y, t, p in FEW), ""]
    return put(folder, "a.csv", separator.join(lines).encode())


def test_options_that_say_otherwise_than_the_first_line_are_refused(tmp_path: Path) -> None:
    path = text_file(tmp_path, "x,y,p,t_us")
    np.testing.assert_array_equal(read(path, columns="xypt", time_unit="us"), as_array(FEW))
    with pytest.raises(
        InputError, match="columns='yxpt' was given, but its first line names x y p t; leave the option"
    ):
        open_recording(path, columns="yxpt")
    with pytest.raises(InputError, match="time_unit='ms' was given, but its first line names times in us; leave the"):
        open_recording(path, time_unit="ms")


def test_text_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lines that end by carriage returns alone found, expected line feeds"):
        open_recording(text_file(tmp_path, "x,y,p,t", "\r"))
    with pytest.raises(InputError, match="holds names of columns and no events, expected at least one"):
        open_recording(put(tmp_path, "b.csv", b"x,y,p,t\n"))
