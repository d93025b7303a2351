"""From a recording to what a network sees, through the command line; every expected number is worked out by hand.

The network of these tests computes nothing: its logits are the mean over time of the counts at each polarity and pixel,
or with ``--binary`` the share of time steps in which there was an event. The pictures are written as they are seen:
row 0 at the top, column 0 at the left.
"""

import hashlib
import json
import struct

import numpy as np
import pytest
from test_dvs_readers import AEDAT2, AEDAT3, GOOD, aedat4, packet

import eventsim
from eventsim import NetworkBuilder, save
from eventsim.cli import main
from eventsim.layers import Flatten, Input, Linear, MeanOverTime, Readout

EVENT = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
# a sensor of 5 x 3 pixels; how often each pixel fired
ON = """1 0 0 0 0
        0 0 0 0 5
        3 0 0 0 0"""
OFF = """0 0 0 0 2
         0 0 0 4 0
         0 0 0 0 0"""


def picture(text):
    return [[float(value) for value in line.split()] for line in text.splitlines()]


@pytest.fixture
def asymmetric(tmp_path):
    """The recording of `ON` and `OFF`."""
    pixels = [(0, 0, 1)] + 5 * [(4, 1, 1)] + 3 * [(0, 2, 1)] + 2 * [(4, 0, 0)] + 4 * [(3, 1, 0)]
    np.save(tmp_path / "a.npy", np.array([(x, y, 10 * t, p) for t, (x, y, p) in enumerate(pixels)], EVENT))
    return tmp_path / "a.npy"


@pytest.fixture
def seen(tmp_path, capsys):
    """Run a recording through a network of a given input; return [OFF, ON] pictures and the number of time steps."""

    def run(file, *options, height, width):
        size = 2 * height * width
        build = NetworkBuilder("sees")
        source = build.add("input", Input((2, height, width)))
        source = build.add("flatten", Flatten(), source)
        source = build.add("copy", Linear(np.eye(size, dtype=np.float32)), source)
        build.add("readout", Readout(), build.add("mean", MeanOverTime(), source))
        save(build.build(time_steps=1), tmp_path / "sees.h5")
        capsys.readouterr()
        assert main(["run", str(tmp_path / "sees.h5"), str(file), "--json", *options]) == 0
        (sample,) = json.loads(capsys.readouterr().out)["samples"]
        return np.reshape(sample["logits"], (2, height, width)).tolist(), sample["time_steps"]

    return run


def events_document(capsys, *arguments):
    capsys.readouterr()
    assert main(["events", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flags", "on", "off"),
    [
        ([], ON, OFF),
        (["--flip-polarity"], OFF, ON),
        (
            ["--flip-x"],
            """0 0 0 0 1
               5 0 0 0 0
               0 0 0 0 3""",
            """2 0 0 0 0
               0 4 0 0 0
               0 0 0 0 0""",
        ),
        (
            ["--flip-y"],
            """3 0 0 0 0
               0 0 0 0 5
               1 0 0 0 0""",
            """0 0 0 0 0
               0 0 0 4 0
               0 0 0 0 2""",
        ),
        (
            ["--transpose"],
            """1 0 3
               0 0 0
               0 0 0
               0 0 0
               0 5 0""",
            """0 0 0
               0 0 0
               0 0 0
               0 4 0
               2 0 0""",
        ),
        (
            ["--transpose", "--flip-x", "--flip-polarity"],
            """0 0 0
               0 0 0
               0 0 0
               0 4 0
               0 0 2""",
            """3 0 1
               0 0 0
               0 0 0
               0 0 0
               0 5 0""",
        ),
        (
            ["--transpose", "--flip-y"],
            """0 5 0
               0 0 0
               0 0 0
               0 0 0
               1 0 3""",
            """2 0 0
               0 4 0
               0 0 0
               0 0 0
               0 0 0""",
        ),
    ],
)
def test_orientation(seen, asymmetric, flags, on, off):
    height, width = (5, 3) if "--transpose" in flags else (3, 5)
    counts, _ = seen(asymmetric, "--sensor", "5x3", *flags, height=height, width=width)
    assert counts == [picture(off), picture(on)]


def test_orientation_of_what_events_tells(capsys, asymmetric):
    def told(*flags):
        document = events_document(capsys, asymmetric, "--sensor", "6x4", *flags)
        return tuple(document[key] for key in ("width", "height", "x_range", "y_range", "on_events", "off_events"))

    assert told() == (6, 4, [0, 4], [0, 2], 9, 6)
    assert told("--flip-x") == (6, 4, [1, 5], [0, 2], 9, 6)
    assert told("--flip-y") == (6, 4, [0, 4], [1, 3], 9, 6)
    assert told("--transpose") == (4, 6, [0, 2], [0, 4], 9, 6)
    assert told("--transpose", "--flip-x") == (4, 6, [1, 3], [0, 4], 9, 6)
    assert told("--flip-polarity") == (6, 4, [0, 4], [0, 2], 6, 9)


@pytest.mark.parametrize(
    ("name", "format", "width", "height", "sensor"),
    [
        ("a.bin", "nmnist", 34, 34, "format"),
        ("a2.aedat", "aedat2", 128, 128, "format"),
        ("a3.aedat", "aedat3", 128, 128, "file"),
        ("a4.aedat4", "aedat4", 34, 30, "file"),
        ("a.npy", "npy", 34, 30, "guessed"),
    ],
)
def test_what_events_tells_of_every_format(capsys, tmp_path, name, format, width, height, sensor):
    # 40 events every 10 us, pixels (i mod 34, i mod 30), every third one ON
    (tmp_path / name).write_bytes(GOOD[name])
    document = events_document(capsys, tmp_path / name)
    assert document.pop("file") == str(tmp_path / name) and document.pop("schema")
    assert document.pop("file_sha256") == hashlib.sha256(GOOD[name]).hexdigest()
    assert document.pop("provenance")["eventsim"] == eventsim.__version__
    assert document == {
        "format": format,
        "events": 40,
        "on_events": 14,
        "off_events": 26,
        "first_us": 0,
        "last_us": 390,
        "duration_us": 390,
        "width": width,
        "height": height,
        "x_range": [0, 33],
        "y_range": [0, 29],
        "sensor": sensor,
        "out_of_order": 0,
        "steps_back": 0,
        "largest_lag_us": 0,
        "wraps": 0,
        "damage": None,
    }
    assert events_document(capsys, tmp_path / name, "--sensor", "150x140")["sensor"] == "given"


@pytest.mark.parametrize(
    ("name", "data", "flags", "width", "height"),
    [
        ("a.bin", GOOD["a.bin"], ["--sensor", "100x50"], 100, 50),
        ("a.npy", GOOD["a.npy"], ["--sensor", "100x50"], 100, 50),
        ("a.aedat", GOOD["a2.aedat"], ["--sensor", "140x50"], 140, 50),
        ("a.aedat", b"#!AER-DAT2.0\r\n# AEChip: DAVIS240C\r\n" + struct.pack(">II", 1 << 22, 5), [], 240, 180),
        ("a.aedat", AEDAT3.replace(b"DVS128", b"DAVIS346") + packet([(345, 259, 0, 1)]), [], 346, 260),
        ("a.aedat4", aedat4([(345, 259, 0, 1)]), [], 346, 260),
    ],
)
def test_width_and_height_of_sensors(capsys, tmp_path, name, data, flags, width, height):
    (tmp_path / name).write_bytes(data)
    document = events_document(capsys, tmp_path / name, *flags)
    assert (document["width"], document["height"]) == (width, height)


def test_pixels_of_a_dvs128_as_jaer_shows_them(seen, tmp_path):
    # stored x = 65, y = 63, bit 0: column 127 - 65, row 63, ON; stored x = y = 62, bit 1: column 65, row 62, OFF
    words = struct.pack(">4I", 65 << 1 | 63 << 8, 0, 62 << 1 | 62 << 8 | 1, 1)
    (tmp_path / "a.aedat").write_bytes(AEDAT2 + words)
    # the centre begins at 62
    (off, on), _ = seen(tmp_path / "a.aedat", "--fit", "crop", height=3, width=4)
    assert on == picture("0 0 0 0 \n 1 0 0 0 \n 0 0 0 0")
    assert off == picture("0 0 0 1 \n 0 0 0 0 \n 0 0 0 0")


def test_microseconds_of_aedat2_wrap(capsys, seen, tmp_path):
    # 16 us before the 32-bit time ends, at its end, 16 us after, and once around
    stamps = (2**32 - 16, 2**32 - 1, 16, 2**31 + 16, 0)
    (tmp_path / "a.aedat").write_bytes(
        AEDAT2 + b"".join(struct.pack(">II", 64 << 1 | 63 << 8, stamp) for stamp in stamps)
    )
    document = events_document(capsys, tmp_path / "a.aedat")
    assert (document["first_us"], document["last_us"]) == (4_294_967_280, 8_589_934_592)
    assert document["duration_us"] == 4_294_967_312
    # halves of 2^31 + 8 us: three events in the first, those 2^31 us and 2^32 us after the wrap in the second
    flags = ["--fit", "crop", "--window", "time", "--time-steps", "2"]
    (_, on), steps = seen(tmp_path / "a.aedat", *flags, height=2, width=2)
    assert steps == 2 and on == [[2.5, 0], [0, 0]]
    (_, on), _ = seen(tmp_path / "a.aedat", *flags, "--binary", height=2, width=2)
    assert on == [[1, 0], [0, 0]]


def line_of(tmp_path, letters, times):
    """A sensor of one row and two pixels, A and B; one ON event for each letter."""
    np.save(
        tmp_path / "ab.npy", np.array([("AB".index(a), 0, t, 1) for a, t in zip(letters, times, strict=True)], EVENT)
    )
    return tmp_path / "ab.npy"


@pytest.mark.parametrize(
    ("letters", "steps", "a", "b"),
    [
        # windows AA | BBA: a window longer or shorter by one has B in both, without the rest A is in the first only
        ("AABBA", 2, 1, 1 / 2),
        # AB | AB | AAAB: the rest of two belongs to the last; without it B is in two of three
        ("ABABAAAB", 3, 1, 1),
        # A | B | A | B
        ("ABAB", 4, 1 / 2, 1 / 2),
        # ABB | BBB: no rest
        ("ABBBBB", 2, 1 / 2, 1),
        # BBA | AAA
        ("BBAAAA", 2, 1, 1 / 2),
    ],
)
def test_windows_of_equally_many_events(seen, tmp_path, letters, steps, a, b):
    file = line_of(tmp_path, letters, range(len(letters)))
    flags = ["--sensor", "2x1", "--time-steps", str(steps), "--binary"]
    (off, on), taken = seen(file, *flags, height=1, width=2)
    assert (off, taken) == ([[0, 0]], steps) and on == [[pytest.approx(a), pytest.approx(b)]]


@pytest.mark.parametrize(
    ("letters", "times", "steps", "a", "b"),
    [
        # two windows of 10 us from 100 us on; the event at 110 us begins the second, which holds the rest of 1 us too
        ("AABAB", (100, 109, 110, 120, 121), 2, 1, 1 / 2),
        ("BAAB", (100, 109, 110, 121), 2, 1, 1),
        # the last event of all falls on the end of the last window, and is in it
        ("AAB", (0, 5, 20), 2, 1 / 2, 1 / 2),
        # an empty window counts as a time step
        ("AB", (0, 30), 3, 1 / 3, 1 / 3),
    ],
)
def test_windows_of_equal_time(seen, tmp_path, letters, times, steps, a, b):
    file = line_of(tmp_path, letters, times)
    flags = ["--sensor", "2x1", "--window", "time", "--time-steps", str(steps), "--binary"]
    (off, on), taken = seen(file, *flags, height=1, width=2)
    assert (off, taken) == ([[0, 0]], steps) and on == [[pytest.approx(a), pytest.approx(b)]]


@pytest.mark.parametrize(
    ("letters", "times", "steps", "a", "b"),
    [
        # bins AB | B | A: the event at 120 us makes a third one
        ("ABBA", (100, 109, 110, 120), 3, 2 / 3, 2 / 3),
        # bins AA | B: the one that is not full is kept
        ("AAB", (100, 109, 110), 2, 1 / 2, 1 / 2),
    ],
)
def test_bins_of_fixed_duration(seen, tmp_path, letters, times, steps, a, b):
    file = line_of(tmp_path, letters, times)
    (_, on), taken = seen(file, "--sensor", "2x1", "--bin-us", "10", "--binary", height=1, width=2)
    assert taken == steps and on == [[pytest.approx(a), pytest.approx(b)]]


def every_pixel(tmp_path, width, height):
    """One ON event at each pixel, and x + 10 y more, so that each count names its pixel."""
    pixels = [(x, y) for y in range(height) for x in range(width) for _ in range(1 + x + 10 * y)]
    np.save(tmp_path / "all.npy", np.array([(x, y, t, 1) for t, (x, y) in enumerate(pixels)], EVENT))
    return tmp_path / "all.npy"


@pytest.mark.parametrize(
    ("fit", "sensor", "size", "expected"),
    [
        # 5 - 2 columns and 4 - 1 rows are too many: 1 goes on the left and at the top, 2 on the right and at the bottom
        ("crop", (5, 4), (2, 1), "12 13"),
        ("crop", (5, 4), (4, 3), "1 2 3 4 \n 11 12 13 14 \n 21 22 23 24"),
        # 5 - 2 columns and 4 - 1 rows are missing: the same
        ("pad", (2, 1), (5, 4), "0 0 0 0 0 \n 0 1 2 0 0 \n 0 0 0 0 0 \n 0 0 0 0 0"),
        # columns 0 1 2 | 3 4 | 5 6 of 7 become 3, rows 0 1 2 | 3 4 of 5 become 2
        ("downscale", (7, 5), (3, 2), "108 87 99 \n 222 158 166"),
        ("downscale", (4, 2), (2, 1), "26 34"),
        ("none", (3, 2), (3, 2), "1 2 3 \n 11 12 13"),
    ],
)
def test_fitting_pixels(seen, tmp_path, fit, sensor, size, expected):
    file = every_pixel(tmp_path, *sensor)
    flags = ["--sensor", f"{sensor[0]}x{sensor[1]}", "--fit", fit]
    (off, on), _ = seen(file, *flags, height=size[1], width=size[0])
    assert np.sum(off) == 0 and on == picture(expected)


def test_sensor_and_model_of_exchanged_sides_are_refused(capsys, seen, tmp_path, asymmetric):
    with pytest.raises(AssertionError):
        seen(asymmetric, "--sensor", "5x3", height=5, width=3)
    assert "sensor 5 x 3 and frames 3 x 5 (width x height) do not fit" in capsys.readouterr().err


def test_a_wrong_option_is_one_line_on_stderr(capsys, tmp_path, asymmetric):
    assert main(["events", str(asymmetric), "--camera", "davis"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == (
        f"eventsim: {asymmetric}: --camera davis was given, expected only for AEDAT 2.0 files; leave it out\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        # the options say what the header does not
        (["--camera", "davis", "--sensor", "346x260"], (346, 260)),
        (["--camera", "dvs128"], (128, 128)),
        (["--camera", "dvs128", "--sensor", "140x50"], (140, 50)),
        (["--camera", "davis"], "the header names the camera 'Unheard', expected a DVS128 or DAVIS"),
        (["--sensor", "346x260"], "the header names the camera 'Unheard', expected a DVS128 or DAVIS"),
        ([], "the header names the camera 'Unheard', expected a DVS128 or DAVIS"),
    ],
)
def test_a_camera_that_is_not_known(capsys, tmp_path, options, words):
    file = tmp_path / "a.aedat"
    # row 0 and column 0 or 127, OFF or ON, as the layout has it
    file.write_bytes(b"#!AER-DAT2.0\r\n# AEChip: Unheard\r\n" + struct.pack(">II", 0, 5))
    capsys.readouterr()
    code = main(["events", str(file), "--json", *options])
    document = json.loads(capsys.readouterr().out)
    if isinstance(words, str):
        assert code == 2 and words in document["error"]
    else:
        assert code == 0 and (document["width"], document["height"], document["events"]) == (*words, 1)
