"""Several names of one column, units of times, and shapes of arrays: what is taken, and what is refused by its name."""

import io
from pathlib import Path
from typing import Any

import event_files
import numpy as np
import pytest
import scipy.io
from test_dvs_prophesee import FEW, put
from test_dvs_readers import as_array, npy, read

from eventsim.dvs import open_recording
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
