"""The size of the sensor, where the file and the caller both say it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_dvs_formats import FILES

from eventsim import Network, save
from eventsim.cli import main
from eventsim.dvs import Orientation, open_recording

EVERY = [(name, data) for kind in FILES.values() for name, data in kind.items()]
SAYS = {"a.aedat4", "one_packet.aedat4", "cd.hdf5", "rpg.txt", "a.es", "none.aedat"}
"""Some that say the size themselves."""


@pytest.mark.parametrize(("name", "data"), EVERY, ids=[name for name, _ in EVERY])
def test_a_size_that_the_file_says_otherwise_is_told(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    alone = open_recording(path)
    says = alone.size_source == "file"
    assert says or name not in SAYS
    assert alone.overruled_size is None
    height, width = alone.height, alone.width
    assert alone.told_size == ((height, width) if says else None)
    assert open_recording(path, sensor_size=(height, width)).overruled_size is None
    found = open_recording(path, sensor_size=(height + 1, width + 2)).overruled_size
    words = f"sensor_size=({height + 1}, {width + 2}) given, the file says {width} x {height} pixels: taken as given"
    assert found == (words if says else None)


def test_the_camera_of_a_header_says_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n" + bytes(8))
    assert "the file says 240 x 180 pixels" in (open_recording(path, sensor_size=(260, 346)).overruled_size or "")


@pytest.fixture
def place(tmp_path: Path, small_network: Network, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(small_network, "m.h5")
    Path("a.csv").write_bytes(b"%geometry:5,6\n" + b"".join(b"1,1,1,%d\n" % t for t in range(8)))
    return tmp_path


@pytest.mark.parametrize("command", ["run", "profile", "verify", "events", "quantise", "evaluate"])
def test_every_command_says_both_sizes(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {
        "events": ["a.csv"],
        "quantise": ["m.h5", "--calibrate", "a.csv", "-o", "q.h5"],
        "evaluate": ["m.h5", "data"],
    }.get(command, ["m.h5", "a.csv"])
    Path("data/1").mkdir(parents=True)
    for name in ("a.csv", "b.csv"):
        shutil.copy("a.csv", Path("data/1", name))
    code = main([command, *arguments, "--sensor", "6x6", "--json"])
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "--sensor 6x6 given, the file says 5 x 6 pixels: taken as given" in err
    document = json.loads(out)
    if command == "evaluate":
        assert err.startswith("eventsim: 2 of 2 recordings say another size of the sensor; the first is data/1/a.csv: ")
        assert [each["input"] for each in document["recordings"]["resized"]] == ["data/1/a.csv", "data/1/b.csv"]
    elif command in ("run", "profile", "verify"):
        assert "5 x 6" in document["samples"][0]["recording"]["sensor"]
    assert code == 0


@pytest.mark.parametrize(("name", "data"), EVERY, ids=[name for name, _ in EVERY])
def test_what_is_told_later_is_as_told_at_once(name: str, data: bytes, tmp_path: Path) -> None:
    """Of every format: a reader that works something out by the size when it is opened would keep the old one."""
    path = tmp_path / name
    path.write_bytes(data)
    recording, turn = open_recording(path), Orientation(transpose=True, flip_x=True, flip_polarity=True)
    before = recording.summary()
    size = (recording.height + 1, recording.width + 2)
    told = {} if recording.size_source == "file" else {"sensor_size": size}
    later, once = recording.retold(orientation=turn, **told), open_recording(path, orientation=turn, **told)
    assert (later.height, later.width, later.size_source) == (once.height, once.width, once.size_source)
    assert (later.untold, later.told_size, later.overruled_size) == (once.untold, once.told_size, once.overruled_size)
    found, expected = (list(each.chunks(disorder="keep")) for each in (later, once))
    assert bool(expected) == bool(found) == bool(before.events)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert recording.summary() == before
