"""Recordings as cameras make them: out of order, with counters that are full, cut, or of several streams."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_dvs_readers import AEDAT2, AEDAT3, GOOD, GOOD_EVENTS, aedat2_word, aedat4, as_array, packet

from eventsim import NetworkBuilder, save
from eventsim.cli import main
from eventsim.dvs import (
    EVENT_DTYPE,
    Defects,
    Fit,
    Orientation,
    Reading,
    frames_by_count,
    frames_by_duration,
    frames_by_time,
    frames_from_events,
    open_recording,
    order,
)
from eventsim.dvs.counters import rounds
from eventsim.errors import InputError
from eventsim.layers import Flatten, Input, Linear, MeanOverTime, Readout

ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def events_at(times: list[int]) -> Any:
    """One event for each time, whose place tells which it is."""
    events = np.zeros(len(times), EVENT_DTYPE)
    events["t"], events["x"] = times, np.arange(len(times)) % 30_000
    return events


def read(recording: Any, max_events: int = 65536, **taken: Any) -> tuple[Any, Defects]:
    defects = Defects()
    chunks = list(recording.chunks(max_events, defects=defects, **taken))
    assert all(len(chunk) == max_events for chunk in chunks[:-1])
    return np.concatenate(chunks) if chunks else np.empty(0, EVENT_DTYPE), defects


jittered = st.lists(st.tuples(st.integers(0, 20), st.integers(-30, 0)), min_size=1, max_size=80).map(
    lambda steps: [int(t) + late for t, (_, late) in zip(np.cumsum([step for step, _ in steps]), steps, strict=True)]
)


@given(times=jittered, chunk=st.sampled_from([1, 2, 5, 7, 64]), lag=st.integers(0, 60))
def test_sorted_within_a_lag_or_refused(times: list[int], chunk: int, lag: int) -> None:
    events = events_at(times)
    recording = open_recording(events, sensor_size=(1, 30_000))
    lags = [max(times[: index + 1]) - t for index, t in enumerate(times)]
    if max(lags) > lag:
        first = next(index for index, each in enumerate(lags) if each > lag)
        with pytest.raises(InputError, match=rf"event {first} has t = .* us after .*pass lag_us={lags[first]} or more"):
            read(recording, chunk, disorder="sort", lag_us=lag)
        return
    found, defects = read(recording, chunk, disorder="sort", lag_us=lag)
    assert_array_equal(found, events[np.argsort(times, kind="stable")])
    back = sum(later < earlier for earlier, later in itertools.pairwise(times))
    late = sum(each > 0 for each in lags)
    assert defects == Defects(len(times), late, back, max(lags), 0, 0, "sort", None)


@given(times=jittered, chunk=st.sampled_from([1, 2, 5, 64]))
def test_dropped_kept_or_refused(times: list[int], chunk: int) -> None:
    events = events_at(times)
    recording = open_recording(events, sensor_size=(1, 30_000))
    late = np.array([t < max(times[: index + 1]) for index, t in enumerate(times)])
    found, defects = read(recording, chunk, disorder="drop")
    assert_array_equal(found, events[~late])
    assert (defects.events, defects.dropped, defects.out_of_order) == ((~late).sum(), late.sum(), late.sum())
    found, defects = read(recording, chunk, disorder="keep")
    assert_array_equal(found, events)
    assert (defects.dropped, defects.out_of_order) == (0, late.sum())
    summary = recording.summary()
    assert (summary.first_us, summary.last_us, summary.out_of_order) == (min(times), max(times), late.sum())
    if late.any():
        at = int(np.argmax(late))
        with pytest.raises(InputError, match=f"event {at} has t = {times[at]} us after {max(times[:at])} us"):
            read(recording, chunk)
        recording.salvage = True
        found, defects = read(recording, chunk)
        assert_array_equal(found, events[:at])
        assert defects.damage is not None
        assert f"event {at} has t" in defects.damage


def test_so_many_events_of_one_time_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "MOST_HELD", 50)
    recording = open_recording(events_at([*range(40), 5] * 2), sensor_size=(1, 30_000))
    with pytest.raises(InputError, match="events within 60 us found, expected at most 50"):
        read(recording, 10, disorder="sort", lag_us=60)


def test_windows_of_events_out_of_order() -> None:
    times = [0, 10, 5, 30, 20, 40]
    recording = open_recording(events_at(times), sensor_size=(1, 6))
    kept = frames_by_count(recording, 3)
    assert kept[:, 0, 0].tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    moved = frames_by_count(recording, 3, reading=Reading("sort"))
    assert moved[:, 0, 0].tolist() == [[1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 1]]
    for windows in (
        lambda reading: frames_by_time(recording, 2, reading=reading),
        lambda reading: np.stack(list(frames_by_duration(recording, 20, reading=reading))),
        lambda reading: np.stack(list(frames_from_events(recording, 19, reading=reading))),
    ):
        with pytest.raises(InputError, match="event 2 has t = 5 us after 10 us"):
            windows(Reading())
        with pytest.raises(InputError, match="disorder='keep' with windows of time found"):
            windows(Reading("keep"))
        defects = Defects()
        assert windows(Reading("sort", 10, defects))[:, 0, 0].sum(axis=0).tolist() == [1] * 6
        assert (defects.events, defects.out_of_order, defects.largest_lag_us) == (6, 2, 10)
        assert windows(Reading("drop"))[:, 0, 0].sum(axis=0).tolist() == [1, 1, 0, 1, 0, 1]
    with pytest.raises(InputError, match="disorder='shuffle' found"):
        Reading("shuffle")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="lag_us=-1 found"):
        Reading("sort", -1)


@given(
    times=st.lists(st.integers(-100, 100), min_size=1, max_size=40),
    start=st.none() | st.integers(-120, 120),
    end=st.none() | st.integers(-120, 120),
    chunk=st.sampled_from([1, 3, 64]),
)
def test_start_and_end_select_before_anything_else(times: list[int], start: Any, end: Any, chunk: int) -> None:
    events = events_at(times)
    if start is not None and end is not None and start >= end:
        with pytest.raises(InputError, match="expected an end behind the start"):
            open_recording(events, sensor_size=(1, 40), start_us=start, end_us=end)
        return
    recording = open_recording(events, sensor_size=(1, 40), start_us=start, end_us=end)
    inside = [(start is None or t >= start) and (end is None or t < end) for t in times]
    found, defects = read(recording, chunk, disorder="keep")
    assert_array_equal(found, events[inside])
    selected = [t for t, chosen in zip(times, inside, strict=True) if chosen]
    assert defects.out_of_order == sum(t < max(selected[: index + 1]) for index, t in enumerate(selected))
    try:
        read(recording, chunk)
    except InputError as error:
        # named by its place in the file
        number = int(str(error).split("event ")[1].split(" ")[0])
        earlier = [t for t, chosen in zip(times[:number], inside, strict=False) if chosen]
        assert inside[number]
        assert times[number] < max(earlier)


def test_an_event_is_named_by_its_place_in_the_file() -> None:
    recording = open_recording(events_at([5, 0, 10, 20, 15, 30]), sensor_size=(1, 40), start_us=5)
    with pytest.raises(InputError, match="event 4 has t = 15 us after 20 us"):
        read(recording)


def test_events_of_one_time_stay_as_they_came() -> None:
    times = np.random.default_rng(0).integers(0, 9, 5000)
    events = events_at(times.tolist())
    found, _ = read(open_recording(events, sensor_size=(1, 30_000)), 999, disorder="sort", lag_us=9)
    assert_array_equal(found, events[np.argsort(times, kind="stable")])


@given(
    steps=st.lists(st.integers(0, 120), min_size=1, max_size=60),
    late=st.lists(st.integers(0, 59), max_size=3),
)
def test_a_counter_that_is_full_again_and_again(steps: list[int], late: list[int]) -> None:
    times = 4096 + np.cumsum(steps)  # the counter of 13 bits: half of its range is 4096, 1/4096 of it 2
    for index in late:
        if 0 < index < len(times):
            times[index] = times[index - 1] - 1
    stamps = times % 8192
    full = np.cumsum([0, *(rounds(step, 8192) for step in np.diff(stamps))])
    assert_array_equal(stamps + 8192 * full, times - times[0] // 8192 * 8192)


def test_full_counters_of_files_are_counted(tmp_path: Path) -> None:
    stamps = [2**23 - 20, 2**23 - 1, 5, 4, 2**23 - 2**20, 3]
    (tmp_path / "a.bin").write_bytes(b"".join(bytes([1, 2]) + stamp.to_bytes(3, "big") for stamp in stamps))
    found, defects = read(open_recording(tmp_path / "a.bin"), 2, disorder="keep")
    later = 2**23
    assert found["t"].tolist() == [later - 20, later - 1, later + 5, later + 4, 2 * later - 2**20, 2 * later + 3]
    assert (defects.wraps, defects.out_of_order) == (2, 1)
    assert defects.sentences("a.bin") == [
        "a.bin: 1 of 6 events out of order, up to 1 us late, 1 step back in time: taken as they come",
        "a.bin: the counter of the time was full 2 times; the time goes on behind it",
    ]
    stamps = [2**32 - 3, 1, 2**32 - 1, 2]  # an event from before the counter was full comes behind one after it
    (tmp_path / "a.aedat").write_bytes(AEDAT2 + b"".join(aedat2_word(0, 0, stamp, 1) for stamp in stamps))
    found, defects = read(open_recording(tmp_path / "a.aedat"), 1, disorder="sort")
    assert found["t"].tolist() == [2**32 - 3, 2**32 - 1, 2**32 + 1, 2**32 + 2]
    assert defects.out_of_order == 1


SALVAGED = {
    "cut.bin": (GOOD["a.bin"][:-2], 39, "3 bytes are left over at event 39"),
    "cut2.aedat": (GOOD["a2.aedat"][:-3], 39, "5 bytes are left over at event 39"),
    "cut3.aedat": (GOOD["a3.aedat"][:-3], 39, "a packet of 15 events ends after event 39"),
    "cutheader3.aedat": (GOOD["a3.aedat"] + b"\1\0", 40, "2 bytes are left over after event 40"),
    "cut4.aedat4": (GOOD["a4.aedat4"][:-3], 25, "packet 1 at byte"),
    "pixel.aedat": (AEDAT3 + packet([*GOOD_EVENTS[:7], (128, 1, 70, 1)]), 7, "event 7 has x = 128"),
    "stamp.aedat": (AEDAT3 + packet([*GOOD_EVENTS[:7], (1, 1, -5, 1)]), 7, "event 7 has the negative time -5"),
    "bits.aedat": (GOOD["a2.aedat"] + struct.pack(">II", 0x10000, 1), 40, "has bits that a DVS128 does not set"),
    "back.aedat": (GOOD["a3.aedat"] + packet(GOOD_EVENTS[:1]), 40, "event 40 has t = 0 us after 390 us"),
    "type.aedat": (GOOD["a3.aedat"] + packet([], kind=-1), 40, "packet header at byte"),
}


@pytest.mark.parametrize("name", SALVAGED)
@pytest.mark.parametrize("chunk", [3, 65536])
def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path, name: str, chunk: int) -> None:
    data, count, words = SALVAGED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError):
        read(open_recording(tmp_path / name), chunk)
    found, defects = read(open_recording(tmp_path / name, salvage=True), chunk)
    assert_array_equal(found, as_array(GOOD_EVENTS)[:count])
    assert defects.damage is not None
    assert words in defects.damage
    assert defects.damage.startswith(f"{tmp_path / name}: ")
    (sentence,) = defects.sentences(str(tmp_path / name))
    assert sentence.startswith(f"{tmp_path / name}: {count} events read, up to the damage: ")
    assert sentence.count(str(tmp_path)) == 1


def test_a_file_that_is_whole_is_salvaged_as_it_is(tmp_path: Path) -> None:
    for name, data in GOOD.items():
        (tmp_path / name).write_bytes(data)
        found, defects = read(open_recording(tmp_path / name, salvage=True))
        assert_array_equal(found, as_array(GOOD_EVENTS))
        assert defects == Defects(40)


def test_streams_are_chosen(tmp_path: Path) -> None:
    two = AEDAT3 + packet(GOOD_EVENTS[:10]) + packet(GOOD_EVENTS[10:], source=2)
    (tmp_path / "a.aedat").write_bytes(two)
    for stream, events in ((1, GOOD_EVENTS[:10]), (2, GOOD_EVENTS[10:])):
        assert_array_equal(read(open_recording(tmp_path / "a.aedat", stream=stream))[0], as_array(events))
    with pytest.raises(InputError, match="no polarity events of source 3 found"):
        read(open_recording(tmp_path / "a.aedat", stream=3))
    (tmp_path / "b.aedat4").write_bytes(two_streams())
    with pytest.raises(InputError, match=r"holds 2 event streams, 0 \(346 x 260\), 1 \(34 x 30\), .*pass stream=0"):
        open_recording(tmp_path / "b.aedat4")
    for stream, events, size in ((0, GOOD_EVENTS[:10], (346, 260)), (1, GOOD_EVENTS[10:], (34, 30))):
        recording = open_recording(tmp_path / "b.aedat4", stream=stream)
        assert (recording.width, recording.height) == size
        assert_array_equal(read(recording)[0], as_array(events))
    with pytest.raises(InputError, match="stream=7 was given, expected one of its event streams, 0"):
        open_recording(tmp_path / "b.aedat4", stream=7)


def two_streams() -> bytes:
    """Describe a second stream of events in an AEDAT 4.0 file, and give its packet that number."""
    data = aedat4(GOOD_EVENTS[:10], GOOD_EVENTS[10:])
    begin = data.index(b'<node name="0"')
    end = data.index(b"</node></node></node></dv>") + len(b"</node></node>")
    node = data[begin:end]
    second = node.replace(b'"0"', b'"1"').replace(b"/0/", b"/1/").replace(b">346<", b">34<").replace(b">260<", b">30<")
    longer = bytearray(data[:end] + second + data[end:])
    for at in (14, data.index(b"<dv") - 4):  # the sizes of the header and of the text in it
        (size,) = struct.unpack_from("<i", longer, at)
        struct.pack_into("<i", longer, at, size + len(second))
    first_packet = longer.index(b"</dv>") + 6
    (first_size,) = struct.unpack_from("<i", longer, first_packet + 4)
    struct.pack_into("<i", longer, first_packet + 8 + first_size, 1)
    return bytes(longer)


def test_aedat3_without_its_last_line_of_header(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(GOOD["a3.aedat"].replace(b"#!END-HEADER\r\n", b""))
    assert_array_equal(read(open_recording(path))[0], as_array(GOOD_EVENTS))
    path.write_bytes(GOOD["a3.aedat"].replace(b"#Format: RAW\r\n", b""))
    with pytest.raises(InputError, match="no line '#Format:' in the header, expected '#Format: RAW'"):
        open_recording(path)


def test_v2e_is_known_by_its_header(tmp_path: Path) -> None:
    word = struct.pack(">II", (345 - 7) << 12 | 250 << 22 | 1 << 11, 9)
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n# created by AEDat2Output in v2e (see ...)\r\n" + word)
    recording = open_recording(tmp_path / "a.aedat")
    assert (recording.width, recording.height, recording.size_source) == (346, 260, "format")
    assert read(recording)[0].tolist() == [(7, 250, 9, True)]


def test_what_is_damaged_from_the_beginning_is_refused_with_its_damage(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes([179, 5, 0, 0, 0]) * 3)
    recording = open_recording(tmp_path / "a.bin", salvage=True)
    for cut in (
        lambda: frames_by_count(recording, 2),
        lambda: frames_by_time(recording, 2),
        lambda: list(frames_by_duration(recording, 2)),
        lambda: list(frames_from_events(recording, 2)),
    ):
        with pytest.raises(InputError, match=r"holds no events before its damage \(event 0 has x = 179, outside"):
            cut()


# --- sizes that were guessed


@pytest.mark.parametrize("mode", ["crop", "pad", "downscale"])
def test_no_pixel_is_moved_by_a_guess(mode: Any) -> None:
    events = as_array(GOOD_EVENTS)
    guessed, given_size = open_recording(events), open_recording(events, sensor_size=(30, 34))
    assert (guessed.size_source, given_size.size_source) == ("guessed", "given")
    size = (40, 40) if mode == "pad" else (20, 20)
    for fit in (Fit(size, mode), Fit((30, 34), mode), Fit(size)):
        with pytest.raises(InputError, match=r"events reach 34 x 30 pixels .*pass sensor_size=\(height, width\)"):
            frames_by_count(guessed, 2, fit=fit)
    assert frames_by_count(given_size, 2, fit=Fit(size, mode)).shape[2:] == size
    assert_array_equal(frames_by_count(guessed, 2, fit=Fit((30, 34))), frames_by_count(given_size, 2))
    mirrored = open_recording(events, orientation=Orientation(flip_x=True))
    with pytest.raises(InputError, match="to fit or mirror pixels by"):
        frames_by_count(mirrored, 2)
    assert frames_by_count(mirrored, 2, fit=Fit((30, 34))).sum() == 40


@pytest.mark.parametrize(("axis", "far"), [("y", 12345), ("x", 300), ("x", 40_000)])
def test_an_outlier_is_named(axis: str, far: int) -> None:
    events = np.zeros(500, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")])
    events["x"], events["y"] = np.arange(500) % 34, np.arange(500) % 30
    events[axis][123] = far
    reach = {"x": 33, "y": 29}[axis]
    with pytest.raises(
        InputError, match=rf"event 123 has {axis} = {far} and the others reach {reach} \(1 of 500 events"
    ):
        open_recording(events)
    events[axis][123] = 90  # not far enough, or too many
    assert open_recording(events).size_source == "guessed"
    events[axis][123:150] = 300
    assert open_recording(events).size_source == "guessed"
    found, defects = read(open_recording(events, sensor_size=(34, 34), salvage=True))
    assert (len(found), defects.damage is None) == (123, False)


# --- the command line


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of 34 x 30 pixels that counts its input."""
    build = NetworkBuilder("sees")
    source = build.add("flatten", Flatten(), build.add("input", Input((2, 30, 34))))
    source = build.add("sum", Linear(np.ones((2, 2040), np.float32)), source)
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), source))
    save(build.build(time_steps=2), tmp_path / "m.h5")
    return tmp_path / "m.h5"


def ran(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, dict[str, Any], list[str]]:
    capsys.readouterr()
    code = main([*map(str, arguments), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err.splitlines()


def test_what_was_done_is_said_with_numbers(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = as_array(GOOD_EVENTS)
    events["t"][20] -= 15
    np.save(tmp_path / "a.npy", events)
    path = tmp_path / "a.npy"
    late = f"eventsim: {path}: 1 of 40 events out of order, up to 5 us late, 1 step back in time:"
    for flags, count, done, dropped in (
        ([], 20, "taken as they come", 0),
        (["--window", "time", "--disorder", "sort"], 20, "sorted", 0),
        (["--bin-us", "200", "--disorder", "sort", "--lag", "5"], 20, "sorted", 0),
        (["--window", "time", "--disorder", "drop"], 19.5, "left out", 1),
        (["--disorder", "drop"], 19.5, "left out", 1),
    ):
        code, document, said = ran(capsys, "run", model, path, *flags)
        assert (code, said) == (0, [f"{late} {done}"] + ["eventsim: "] * 0)
        assert document["samples"][0]["logits"] == [count, count]
        recording = document["samples"][0]["recording"]
        assert (recording["out_of_order"], recording["largest_lag_us"], recording["dropped"]) == (1, 5, dropped)
    code, document, said = ran(capsys, "run", model, path, "--window", "time")
    assert code == 2
    (line,) = said
    assert "event 20 has t = 185 us after 190 us" in line
    assert "(--disorder sort, --disorder drop), read up to it (--salvage)" in line
    assert document["failed"][0]["error"] == line.removeprefix("eventsim: ")
    for flags in (["--disorder", "refuse"], ["--window", "time"]):
        code, _, said = ran(capsys, "run", model, path, *flags)
        assert code == 2 and "in windows of equally many events (--window count without --disorder refuse)" in said[0]
    code, _, said = ran(capsys, "run", model, path, "--window", "time", "--disorder", "sort", "--lag", "4")
    assert code == 2 and "by more than --lag 4; pass --lag 5 or more, or --disorder drop" in said[0]
    code, document, said = ran(capsys, "run", model, path, "--window", "time", "--salvage")
    assert code == 0 and "20 events read, up to the damage: event 20 has t = 185 us" in said[0]
    assert document["samples"][0]["recording"]["damage"].startswith(f"{path}: event 20 has t = 185 us after 190 us")
    code, document, _ = ran(capsys, "events", path)
    assert (code, document["out_of_order"], document["steps_back"], document["largest_lag_us"]) == (0, 1, 1, 5)


def test_flags_of_a_recording(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.aedat").write_bytes(AEDAT3 + packet(GOOD_EVENTS[:10]) + packet(GOOD_EVENTS[10:], source=2))
    path = tmp_path / "a.aedat"
    code, document, _ = ran(capsys, "events", path)
    assert code == 2 and "pass --stream 1 or --stream 2" in document["error"]
    code, document, _ = ran(capsys, "events", path, "--stream", "2", "--start", "200", "--end", "300")
    assert (code, document["events"], document["first_us"], document["last_us"]) == (0, 10, 200, 290)
    code, document, _ = ran(capsys, "events", path, "--start", "5", "--end", "5")
    assert code == 2 and "--start 5 and --end 5 found" in document["error"]
    flags = ["--stream", "2", "--start", "200", "--sensor", "34x30"]
    code, document, said = ran(capsys, "run", model, path, *flags)
    told = f"eventsim: {path}: --sensor 34x30 given, the file says 128 x 128 pixels: taken as given"
    assert (code, said, document["samples"][0]["logits"]) == (0, [told], [10, 10])
    code, document, said = ran(capsys, "run", model, path, *flags, "--end", "201")
    assert code == 2 and "holds 1 events, expected at least one for each of 2 time steps" in said[0]
    code, document, said = ran(capsys, "run", model, path, "--stream", "2", "--start", "500")
    assert code == 2 and "sensor 128 x 128 and frames 34 x 30 (width x height) do not fit with --fit none" in said[0]
    code, document, said = ran(capsys, "run", model, path, "--stream", "2", "--start", "500", "--sensor", "34x30")
    assert code == 2 and "holds no events from 500 us" in said[0]


def test_a_guess_is_asked_for_in_flags(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", as_array(GOOD_EVENTS)[:20])
    code, document, _ = ran(capsys, "run", model, tmp_path / "a.npy", "--fit", "pad")
    assert code == 2 and document["failed"][0]["error"].endswith("pass --sensor WIDTHxHEIGHT")
    (tmp_path / "a.bin").write_bytes(bytes([179, 5, 0, 0, 0]) * 3)
    code, document, _ = ran(capsys, "events", tmp_path / "a.bin")
    assert code == 2
    assert (
        "x = 179, outside of the sensor (width 34, height 34); pass the camera's --sensor WIDTHxHEIGHT"
        in document["error"]
    )


# --- the cases


CASES = {
    "a2_jitter1us.aedat": ({}, 3000),
    "a4_overlap.aedat4": ({}, 6000),
    "a2_reset.aedat": ({}, 3000),
    "a3_tsreset.aedat": ({}, 4000),
    "np_unsorted.npy": ({}, 3000),
    "a2_v2e_davis346.aedat": ({}, 3000),
    "a3_noend.aedat": ({}, 500),
    "a2_trunc.aedat": ({"salvage": True}, 2999),
    "a3_trunc.aedat": ({"salvage": True}, 3987),
    "a4_multi_cut.aedat4": ({"salvage": True}, 3000),
    "a2_trunc.aedat ": ({}, "salvage=True"),
    "a4_multi_cut.aedat4 ": ({}, "salvage=True"),
    "a3_noformat.aedat": ({}, "no line '#Format:'"),
    "np_outlier.npy": ({}, "event 1500 has y = 12345 and the others reach 33"),
    "nc101.bin": ({}, "pass the camera's sensor_size"),
    "nc101.bin ": ({"sensor_size": (180, 240)}, 3000),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="recordings (../shared/data) are not on this machine")
@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    options, expected = CASES[name]
    path = DATA / "cases" / "dvs" / name.strip()
    if isinstance(expected, int):
        assert open_recording(path, **options).summary().events == expected
        return
    with pytest.raises(InputError, match=expected):
        open_recording(path, **options).summary()
