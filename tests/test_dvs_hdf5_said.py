"""What an HDF5 recording says beside its events: when they begin, and how large the sensor is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import event_files
import h5py
import numpy as np
import pytest

from eventsim.dvs import open_recording
from eventsim.errors import InputError

EVENTS = [(1, 2, 100, 1), (3, 4, 200, 0)]


def with_offset(path: Path, offset: Any) -> Path:
    path.write_bytes(event_files.dsec(EVENTS))
    with h5py.File(path, "r+") as file:
        del file["t_offset"]
        if isinstance(offset, str) and offset == "group":
            file.create_group("t_offset")
        else:
            file["t_offset"] = offset
    return path


@pytest.mark.parametrize(
    "offset", [np.int64(1000), np.uint16(1000), np.float64(1000), np.float32(1000), np.array([1000]), np.array([1e3])]
)
def test_whole_offsets_of_any_type_are_added(tmp_path: Path, offset: Any) -> None:
    recording = open_recording(with_offset(tmp_path / "a.h5", offset))
    assert (recording.summary().first_us, recording.summary().last_us) == (1100, 1200)


@pytest.mark.parametrize(
    ("offset", "found"),
    [
        (np.float64(1000.5), "t_offset 1000.5 found"),
        (np.float32("nan"), "t_offset nan found"),
        (np.float64("inf"), "t_offset inf found"),
        (np.array([5, 6]), "t_offset of type int64 and shape (2,) found"),
        (np.zeros((1, 1), "i8"), "t_offset of type int64 and shape (1, 1) found"),
        ("1000", "t_offset of type text and shape () found"),
        (np.bytes_(b"1000"), "t_offset of type text and shape () found"),
        (h5py.Empty("i8"), "t_offset of type int64 and shape None found"),
        (np.bool_(True), "t_offset of type bool and shape () found"),
        ("group", "t_offset that is a group found"),
    ],
)
def test_other_offsets_are_refused(tmp_path: Path, offset: Any, found: str) -> None:
    path = with_offset(tmp_path / "a.h5", offset)
    with pytest.raises(InputError) as caught:
        open_recording(path)
    assert str(caught.value) == (
        f"{path}: {found}, expected one whole number of microseconds; correct it, or leave it out"
    )


@pytest.mark.parametrize(
    ("geometry", "found"),
    [
        ("40 x 30", "'40 x 30'"),
        ("", "''"),
        (b"40x30x2", "'40x30x2'"),
        (np.int64(40), "40"),
        (np.array([40, 30]), "[40 30]"),
        (["40x30", "40x30"], "['40x30' '40x30']"),
        (h5py.Empty("f4"), ""),
    ],
)
def test_a_geometry_that_cannot_be_read_is_told_and_another_may_be_given(
    tmp_path: Path, geometry: Any, found: str
) -> None:
    path = tmp_path / "a.hdf5"
    path.write_bytes(event_files.metavision_hdf5(EVENTS))
    with h5py.File(path, "r+") as file:
        holder = next(name for name in ("CD/events", "CD", "/") if "geometry" in file[name].attrs)
        del file[holder].attrs["geometry"]
        file[holder].attrs["geometry"] = geometry
    said = re.escape(f"attribute geometry {found}")
    with pytest.raises(InputError, match=rf"{said}.*, expected the sensor's WIDTHxHEIGHT as text; pass sensor_size=\("):
        open_recording(path)
    assert open_recording(path, sensor_size=(30, 40)).count() == 2


def test_lists_of_any_length_are_not_read_for_a_geometry(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("events", data=np.array([(100, 1, 2, 1), (200, 3, 4, 0)]))
        lists = np.empty(1, object)
        lists[0] = np.ones(3)
        file.attrs.create("geometry", lists, dtype=h5py.vlen_dtype(np.float64))
    with pytest.raises(InputError, match="attribute geometry object found, expected the sensor's"):
        open_recording(path)
