"""Tables of labels: several samples of one recording, and recordings in a folder."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import InputError, NetworkBuilder, Simulator, load, save
from eventsim.cli import main
from eventsim.datasets import Sample, evaluate, labelled_by, labelled_parts, open_sample
from eventsim.dvs import EVENT_DTYPE, RecordingPart, frames_by_count, open_recording
from eventsim.layers import Flatten, Input, Linear, MeanOverTime, Readout
from eventsim.preparation import Preparation
from eventsim.settings import Setting

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cases" / "dvs"
HEAD = "class,startTime_usec,endTime_usec\n"


@pytest.fixture
def gestures(tmp_path: Path) -> Path:
    """Thirty events 10 us apart: ten at each of three pixels, one pixel a gesture."""
    events = np.zeros(30, EVENT_DTYPE)
    events["t"], events["x"], events["p"] = 10 * np.arange(30), np.arange(30) // 10, True
    np.save(tmp_path / "user01_led.npy", events)
    return tmp_path / "user01_led.npy"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of 3 pixels and 3 classes: which pixel fired most."""
    build = NetworkBuilder("sees")
    source = build.add("flatten", Flatten(), build.add("input", Input((2, 1, 3))))
    source = build.add("copy", Linear(np.hstack([np.zeros((3, 3)), np.eye(3)]).astype(np.float32)), source)
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), source))
    save(build.build(time_steps=2), tmp_path / "m.h5")
    return tmp_path / "m.h5"


def table(folder: Path, text: str, name: str = "user01_led_labels.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_parts_of_a_recording(tmp_path: Path, gestures: Path, model: Path, capsys: Any) -> None:
    labels = table(tmp_path, HEAD + "1,0,100\n2,100,200\n3,200,295\n2,200,295\n")
    samples = labelled_parts(gestures, labels)
    assert samples[1] == Sample(f"{gestures}[1]", 1, RecordingPart(str(gestures), 100, 200), 1)
    assert [sample.label for sample in samples] == [0, 1, 2, 1]
    assert open_sample(samples[1]) == samples[1].reference
    code = main(
        ["evaluate", str(model), str(gestures), "--labels", str(labels), "--sensor", "3x1", "--json", "--threads", "2"]
    )
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (document["accuracy"], document["samples"]) == (0.75, 4)
    assert [each["prediction"] for each in document["predictions"]] == [0, 1, 2, 2]
    assert document["provenance"]["options"]["labels"] == str(labels)


def test_a_part_is_what_lies_between_its_times(gestures: Path, model: Path) -> None:
    network = load(model)
    frames = Preparation(sensor_size=(1, 3)).frames(RecordingPart(str(gestures), 50, 200), network)
    recording = open_recording(gestures, sensor_size=(1, 3), start_us=50, end_us=200)
    assert_array_equal(frames, frames_by_count(recording, 2))
    assert frames.sum() == 15
    with pytest.raises(InputError, match="start and end found beside those of a list of labels"):
        Preparation(sensor_size=(1, 3), start_us=5).frames(RecordingPart(str(gestures), 50, 200), network)
    (outcome,) = evaluate(
        Simulator(network), [Sample("s", 0, RecordingPart(str(gestures), 900, 990))], Preparation(sensor_size=(1, 3))
    )
    assert (
        outcome.error
        == f"{gestures}: holds no events from 900 us up to 990 us, expected some to make frames of; "
        + ("check the file")
    )


def test_recordings_of_a_folder(tmp_path: Path, gestures: Path) -> None:
    labels = table(tmp_path, "File, Label\nuser01_led.npy, 2\n\nother.bin,0\n", "list.csv")
    found = labelled_parts(tmp_path, labels)
    other = str(tmp_path / "other.bin")
    assert found == [Sample(str(gestures), 2, str(gestures)), Sample(other, 0, other, 1)]
    labels = table(tmp_path, "file,label,start_us,end_us\nuser01_led.npy,2,-5,10\n", "list.csv")
    assert labelled_parts(tmp_path, labels) == [Sample(f"{gestures}[0]", 2, RecordingPart(str(gestures), -5, 10))]


def test_tables_beside_their_recordings(tmp_path: Path, gestures: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    table(lists, HEAD + "1,0,100\n")
    assert [sample.name for sample in labelled_parts(tmp_path, lists)] == [f"{gestures}[0]"]
    table(lists, HEAD + "1,0,100\n", "user02_led_labels.csv")
    with pytest.raises(InputError, match=r"user02_led_labels.csv: 0 recordings .*user02_led\.\* found; expected one"):
        labelled_parts(tmp_path, lists)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no tables NAME_labels\.csv found"):
        labelled_parts(tmp_path, tmp_path / "none")


def test_names_are_numbered_over_all_tables(tmp_path: Path, gestures: Path) -> None:
    """Samples, too: a place in the data set, not in the table."""
    (tmp_path / "user02_led.npy").write_bytes(gestures.read_bytes())
    table(tmp_path, "label,start_us,end_us\nwave,0,100\nclap,100,200\n")
    table(tmp_path, "label,start_us,end_us\ndrum,0,100\nwave,100,200\n", "user02_led_labels.csv")
    found = labelled_by(tmp_path, tmp_path)
    assert [(sample.index, sample.label) for sample in found] == [(0, 2), (1, 0), (2, 1), (3, 2)]
    other = str(tmp_path / "user02_led.npy")
    assert found[2] == Sample(f"{other}[0]", 1, RecordingPart(other, 0, 100), 2, "drum")
    assert labelled_by(str(gestures), tmp_path / "user01_led_labels.csv")[0].label == 1


def test_times_are_said_by_the_table_or_by_options(
    tmp_path: Path, gestures: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = table(tmp_path, f"{gestures.name},0\n", "list.csv")
    given = ["evaluate", str(model), str(tmp_path), "--labels", str(labels), "--sensor", "3x1", "--json"]
    assert main([*given, "--start", "150", "--end", "295"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recordings"]["events"] == 15
    assert document["predictions"][0]["prediction"] == 2


def test_other_times_are_another_run(
    tmp_path: Path, gestures: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["--sensor", "3x1", "--rows", str(tmp_path / "rows.csv"), "--resume"]
    labels = table(tmp_path, HEAD + "1,0,100\n")
    given = ["evaluate", str(model), str(gestures), "--labels", str(labels), *rows]
    assert main(given) == main(given) == 0
    capsys.readouterr()
    table(tmp_path, HEAD + "1,0,110\n")
    assert main(given) == 2
    assert "rows of another run: samples_sha256 " in capsys.readouterr().err


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each name is looked at from now on: a file's by its stat, a folder's by its listing."""
    looked: Counter[str] = Counter()

    def counted(of: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Any = ".", *rest: Any, **more: Any) -> Any:
            if not isinstance(path, int):
                looked[os.fspath(path)] += 1
            return of(path, *rest, **more)

        return look

    for name in ("stat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return looked


def test_a_list_for_another_folder(
    tmp_path: Path, model: Path, looked_at: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of none of its recordings being there is said once, and each is looked for once; of a part, no others are."""
    labels = table(tmp_path, "file,label\n" + "".join(f"{number}.bin,0\n" for number in range(50)), "list.csv")
    rows = tmp_path / "rows.csv"
    given = ["evaluate", str(model), str(tmp_path), "--labels", str(labels), "--rows", str(rows)]
    for flags, places in ([], range(50)), (["--limit", "2"], (0, 25)), (["--shard", "2/25", "--resume"], (1, 26)):
        looked_at.clear()
        assert main([*given, *flags]) == 2
        first = tmp_path / f"{places[0]}.bin"
        assert capsys.readouterr().err.splitlines() == [
            f"eventsim: {labels}: none of {len(places)} recordings is there, the first is {first}; expected them in "
            "the folder of the data set: name the folder that the names in the table begin from"
        ]
        times = [looked_at[str(tmp_path / f"{number}.bin")] for number in range(50)]
        assert times == [int(number in places) for number in range(50)]
        assert not rows.exists()


def test_one_recording_of_a_list_is_there(tmp_path: Path, gestures: Path, model: Path, capsys: Any) -> None:
    labels = table(tmp_path, f"file,label\na.bin,0\n{gestures.name},0\nb.bin,1\n", "list.csv")
    given = ["evaluate", str(model), str(tmp_path), "--labels", str(labels), "--sensor", "3x1", "--json"]
    assert main(given) == 1
    document = json.loads(capsys.readouterr().out)
    assert [each["input"] for each in document["failed"]] == [str(tmp_path / "a.bin"), str(tmp_path / "b.bin")]
    assert document["samples"] == 1


def test_a_recording_is_looked_at_once_whatever_the_model_says(
    tmp_path: Path, model: Path, looked_at: Counter[str]
) -> None:
    """What the model says of sensor and camera is tried where the file says nothing, on the file that was opened."""
    network = load(model).with_settings(
        Setting("sensor", "3x1", "option", "so"), Setting("camera", "dvs128", "option", "so")
    )
    absent = tmp_path / "absent.aedat"
    with pytest.raises(InputError, match="no such file"):
        Preparation().frames(absent, network)
    assert looked_at[str(absent)] == 1


def test_class_folders_are_listed_without_a_look_at_each_file(
    tmp_path: Path, gestures: Path, model: Path, looked_at: Counter[str], capsys: Any
) -> None:
    """Links apart, which may lead nowhere, or round."""
    for label in "01":
        (tmp_path / "data" / label / "a_folder").mkdir(parents=True)
        for number in range(20):
            (tmp_path / "data" / label / f"{number:02}.npy").write_bytes(gestures.read_bytes())
        (tmp_path / "data" / label / "98.npy").symlink_to(gestures)
        (tmp_path / "data" / label / "97.npy").symlink_to(tmp_path / "nowhere")
        (tmp_path / "data" / label / "99.npy").symlink_to("99.npy")
    (tmp_path / "data" / "2").symlink_to(tmp_path / "data" / "1")
    looked_at.clear()
    assert main(["evaluate", str(model), str(tmp_path / "data"), "--limit", "3", "--sensor", "3x1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [str(tmp_path / "data" / label / "00.npy") for label in "012"]  # 3 of 63: every 21st
    assert [each["input"] for each in document["predictions"]] == names
    others = [name for name in looked_at if name.endswith(".npy") and name not in names and not Path(name).is_symlink()]
    assert others == []


def test_a_folder_is_listed_once_for_all_tables(tmp_path: Path, gestures: Path, looked_at: Counter[str]) -> None:
    """Names are no patterns, and those that begin alike are of others."""
    lists, recordings = tmp_path / "lists", tmp_path / "recordings"
    lists.mkdir()
    recordings.mkdir()
    for name in ("a", "a[b]", "a.b", "ab"):
        (recordings / f"{name}x.npy").write_bytes(b"")
        if name != "a":  # a.b.npy is of a.*, too
            (recordings / f"{name}.npy").write_bytes(gestures.read_bytes())
            table(lists, HEAD + "1,0,100\n", f"{name}_labels.csv")
    found = labelled_parts(recordings, lists)
    assert [each.name for each in found] == [f"{recordings / name}.npy[0]" for name in ("a.b", "a[b]", "ab")]
    assert looked_at[str(recordings)] == 1
    table(lists, HEAD + "1,0,100\n", "a_labels.csv")
    (recordings / "a.npy").write_bytes(gestures.read_bytes())
    with pytest.raises(InputError, match=r"a_labels.csv: 3 recordings .*a\.\* found; expected one"):
        labelled_parts(recordings, lists)
    with pytest.raises(InputError, match=r"nowhere: cannot be listed \(.*\), expected a folder of recordings$"):
        labelled_parts(tmp_path / "nowhere", lists)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"the file is empty"),
        ("\n\n", "columns none found; expected 'label'"),
        (HEAD, "no lines below the names"),
        ("startTime_usec,endTime_usec\n0,1\n", "columns starttime_usec, endtime_usec found; expected 'label'"),
        ("class,label\n1,0\n", "columns class, label found"),
        ("class,startTime_usec\n1,0\n", "one of startTime_usec and endTime_usec found"),
        ("class,start_us,startTime_usec,end_us\n1,0,0,1\n", "2 columns starttime_usec or start_us found; expected one"),
        ("class,file\n1,a\n", "a column 'file' with .* found; expected one with a folder"),
        (HEAD + "1,0\n", "line 1 below the names has 2 values; expected 3, one"),
        (HEAD + "1,0,5\n0,5,9\n", "line 2 below the names has class 0; expected 1 or more"),
        (HEAD + "1,0,5,9\n", "line 1 below the names has 4 values; expected 3, one"),
        ("label,target,start_us,end_us\n1,1,0,5\n", "2 columns label or target found; expected one"),
        (HEAD + "1,0,x\n", "line 1 below the names has end 'x'; expected a whole number"),
        (HEAD + "1,7,7\n", "is from 7 us to 7 us; expected an end behind the start"),
        ("label,start_us,end_us\n-1,0,5\n", "has label -1; expected 0 or more"),
    ],
)
def test_tables_that_make_no_sense(tmp_path: Path, gestures: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        labelled_parts(gestures, table(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "user01_led_labels.csv"))


def test_flags_that_do_not_go_together(tmp_path: Path, gestures: Path, model: Path, capsys: Any) -> None:
    labels = str(table(tmp_path, HEAD + "1,0,100\n"))
    (tmp_path / "bytes.csv").write_bytes(b"class\n\xff\xfe\n")
    for arguments, said in (
        ([str(gestures), "--labels", labels, "--start", "5"], "with --start or --end found"),
        (["tonic:NMNIST", "--labels", labels], "with a tonic data set found"),
        ([str(tmp_path), "--labels", labels], "no column 'file' with"),
        ([str(gestures), "--labels", str(tmp_path / "bytes.csv")], "not a table in csv"),
        ([str(gestures), "--labels", str(tmp_path / "none.csv")], "no such file"),
    ):
        capsys.readouterr()
        assert main(["evaluate", str(model), *arguments]) == 2
        assert said in capsys.readouterr().err


def test_what_was_met_in_a_data_set_is_summed(tmp_path: Path, gestures: Path, model: Path, capsys: Any) -> None:
    late = np.load(gestures)
    late["t"][[5, 17]] -= 25
    later = np.load(gestures)
    later["t"][20] -= 125
    for name, events in (("a.npy", np.load(gestures)), ("b.npy", late), ("c.npy", later)):
        np.save(tmp_path / name, events)
    labels = str(table(tmp_path, "file,label\na.npy,0\nb.npy,0\nc.npy,0\n", "list.csv"))

    def ran(*flags: str) -> tuple[int, dict[str, Any], list[str]]:
        capsys.readouterr()
        code = main(["evaluate", str(model), str(tmp_path), "--labels", labels, "--sensor", "3x1", "--json", *flags])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err.splitlines()

    code, document, said = ran("--window", "time", "--disorder", "drop")
    assert code == 0
    assert said == ["eventsim: 2 of 3 recordings with events out of order, 3 of 90, up to 115 us late: left out"]
    assert document["recordings"] == {
        "recordings": 3,
        "disordered": 2,
        "events": 87,
        "out_of_order": 3,
        "dropped": 3,
        "largest_lag_us": 115,
        "wraps": 0,
        "wrapped": 0,
        "disorder": "drop",
        "damaged": [],
        "resized": [],
    }
    code, document, said = ran("--window", "time", "--salvage")
    assert code == 0
    assert [each["input"] for each in document["recordings"]["damaged"]] == [f"{tmp_path}/b.npy", f"{tmp_path}/c.npy"]
    assert said == [
        f"eventsim: 2 of 3 recordings read up to their damage; the first is {tmp_path}/b.npy: event 5 has t = 25 us "
        "after 40 us, expected times that never decrease"
    ]
    code, document, said = ran("--window", "time", "--rows", str(tmp_path / "rows.csv"))
    assert code == 1
    assert "--disorder sort, --disorder drop" in (tmp_path / "rows.csv").read_text()
    assert "(--disorder sort, --disorder drop)" in document["failed"][0]["error"]


@pytest.mark.skipif(not DATA.is_dir(), reason="recordings (../shared/data) are not on this machine")
def test_the_gestures_of_a_user() -> None:
    parts = labelled_parts(DATA / "user01_led.aedat", DATA / "user01_led_labels.csv")
    assert [part.label for part in parts] == [0, 3, 10]
    counts = []
    for part in parts:
        at = part.reference
        assert isinstance(at, RecordingPart)
        counts.append(open_recording(at.path, start_us=at.start_us, end_us=at.end_us).summary().events)
    assert counts == [1200, 1900, 1800]
