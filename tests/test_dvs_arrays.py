"""Arrays of NumPy that are not one array of events: more behind it, and fields of several numbers."""

from __future__ import annotations

import io
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from eventsim import Network, save
from eventsim.cli import main
from eventsim.dvs import ArrayRecording, open_recording
from eventsim.errors import InputError

EVENTS = np.zeros(250, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
EVENTS["x"], EVENTS["t"] = np.arange(250) % 30, 50 * np.arange(250)


def saved(*arrays: np.ndarray, behind: bytes = b"") -> bytes:
    """Return what a file holds into which arrays were saved one after the other."""
    file = io.BytesIO()
    for array in arrays:
        np.save(file, array)
    return file.getvalue() + behind


def test_an_array_behind_the_events_is_not_lost_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(saved(EVENTS, EVENTS))
    rest = (tmp_path / "a.npy").stat().st_size // 2
    with pytest.raises(InputError) as caught:
        open_recording(tmp_path / "a.npy")
    assert str(caught.value) == (
        f"{tmp_path / 'a.npy'}: {rest:,} bytes are left over behind 250 rows of .npy, expected the end of the file; "
        "another array begins there: save each to a file of its own, or pass salvage=True"
    )
    salvaged = open_recording(tmp_path / "a.npy", salvage=True).summary()
    assert salvaged.events == 250
    assert f"{rest:,} bytes are left over" in str(salvaged.damage)
    (tmp_path / "a.npy").write_bytes(saved(EVENTS, behind=b"\0"))
    with pytest.raises(InputError, match=r"1 bytes are left over behind 250 rows of \.npy, .*; save it again, or"):
        open_recording(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(saved(EVENTS))
    assert open_recording(tmp_path / "a.npy").count() == 250


def test_an_array_behind_the_frames_is_not_lost_in_silence(
    tmp_path: Path, small_network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    save(small_network, tmp_path / "m.h5")
    frames = np.zeros((3, 2, 6, 6), np.int32)
    (tmp_path / "a.npy").write_bytes(saved(frames, frames))
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "a.npy")]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path / 'a.npy'}: 992 bytes are left over behind 3 rows of .npy, expected the end of the file;" in err


@pytest.mark.parametrize("field", ["x", "y", "t", "p"])
@pytest.mark.parametrize("shape", [(1,), (2,), (2, 2)])
def test_fields_of_several_numbers_are_refused_by_every_door(
    tmp_path: Path, field: str, shape: tuple[int, ...]
) -> None:
    kinds = [(name, "<i8", *([shape] if name == field else [])) for name in ("t", "x", "y", "p")]
    events = np.zeros(20, kinds)
    said = f"{field} is an array of shape {re.escape(str(shape))} in each event, expected one number; convert it"
    with pytest.raises(InputError, match="^array: " + said):
        ArrayRecording(events)
    np.save(tmp_path / "a.npy", events)
    with pytest.raises(InputError, match=rf"a\.npy: {said}"):
        open_recording(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", **{name: events[name] for name in events.dtype.names})
    with pytest.raises(InputError, match=rf"array {field} has shape \(20, {shape[0]}.* expected one dimension of numb"):
        open_recording(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events"] = events
    with pytest.raises(InputError, match=rf"data set events has {field} of type .*, expected"):
        open_recording(tmp_path / "a.h5")
