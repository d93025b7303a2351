"""Readers on real recordings: facts of the files, and Tonic's readers as the judge."""

import random
from pathlib import Path

import numpy as np
import pytest

from eventsim.dvs import Orientation, frames_by_count, open_recording
from eventsim.errors import InputError

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="recordings (../shared/data) are not on this machine")


def events_of(path, **options):
    return np.concatenate(list(open_recording(path, **options).chunks()))


def test_nmnist_equals_tonic():
    tonic_io = pytest.importorskip("tonic.io")
    dtype = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
    for path in [*sorted(DATA.glob("nmnist/Test/*/*.bin")), DATA / "formats/nmnist_sample.bin"]:
        ours, theirs = events_of(path), tonic_io.read_mnist_file(str(path), dtype)
        for name in "xytp":
            np.testing.assert_array_equal(ours[name], theirs[name])
    summary = open_recording(DATA / "formats/nmnist_sample.bin").summary()
    assert (summary.events, summary.width, summary.height) == (4325, 34, 34)


def test_nmnist_overflow_markers_equal_tonic(tmp_path):
    tonic_io = pytest.importorskip("tonic.io")
    data = bytearray((DATA / "formats/nmnist_sample.bin").read_bytes())
    for event in (100, 2000, 2001):
        data[5 * event + 1] = 240
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    theirs = tonic_io.read_mnist_file(str(path), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    ours = np.concatenate(list(open_recording(path).chunks(97)))
    for name in "xytp":
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_gestures():
    counts = []
    for path in sorted(DATA.glob("dvsgesture/*.aedat")):
        summary = open_recording(path).summary()
        counts.append(summary.events)
        assert (summary.width, summary.height, summary.x_range[1], summary.y_range[1]) == (128, 128, 127, 127)
        assert 1_440_000 < summary.duration_us < 1_450_000
    assert counts == [63471, 84260, 113063, 151879, 181179]


def test_mnist_dvs():
    for path in DATA.glob("mnistdvs/*.aedat"):
        summary = open_recording(path).summary()
        assert 12_000 < summary.events < 18_000
        assert 2_000_000 < summary.duration_us < 2_400_000
        assert (summary.width, summary.height) == (128, 128)


def test_dvs128_orientations_of_spikingjelly():
    path = next(iter(sorted(DATA.glob("mnistdvs/*.aedat"))))
    data = path.read_bytes()
    address = np.frombuffer(data[216:], ">u4")[::2].astype(int)
    events = events_of(path, orientation=Orientation(transpose=True, flip_x=True))
    np.testing.assert_array_equal(events["x"], 127 - ((address & 0x7F00) >> 8))
    np.testing.assert_array_equal(events["y"], 127 - ((address & 0xFE) >> 1))
    np.testing.assert_array_equal(events["p"], 1 - (address & 1))


def test_walking_and_header_only():
    summary = open_recording(DATA / "formats/dvs128_walking.aedat2.aedat").summary()
    assert (summary.events, summary.first_us, summary.last_us) == (125028, 262847757, 270891631)
    empty = open_recording(DATA / "formats/aedat2_header_only.aedat")
    summary = empty.summary()
    assert (summary.events, summary.first_us, summary.x_range, summary.duration_us) == (0, None, None, 0)
    assert (summary.width, summary.height) == (346, 260)
    with pytest.raises(InputError, match="holds no events"):
        frames_by_count(empty, 4)


def test_aedat4():
    tonic_io = pytest.importorskip("tonic.io")
    path = DATA / "formats/davis320x240.aedat4"
    recording = open_recording(path)
    summary = recording.summary()
    assert (summary.events, summary.duration_us, summary.width, summary.height) == (111954, 589917, 320, 240)
    theirs = tonic_io.read_aedat4(str(path))
    ours = np.concatenate(list(recording.chunks(1000)))
    for name in "xyt":
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(ours["p"], theirs["on"])


def test_fuzzed_aedat4_is_read_or_refused(tmp_path):
    data = (DATA / "formats/davis320x240.aedat4").read_bytes()
    random_bytes = random.Random(1)
    refused = 0
    for case in range(60):
        broken = bytearray(data[: random_bytes.randrange(len(data))] if case % 3 == 0 else data)
        for _ in range(random_bytes.choice([1, 3, 10]) if case % 3 else 0):
            broken[random_bytes.randrange(2400 if case % 3 == 1 else len(broken))] = random_bytes.randrange(256)
        path = tmp_path / "a.aedat4"
        path.write_bytes(broken)
        try:
            open_recording(path).summary()
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 20


def test_aedat4_description_that_is_not_utf8_is_refused_before_the_decoder_ends_the_process(tmp_path):
    data = bytearray((DATA / "formats/davis320x240.aedat4").read_bytes())
    data[502] = 0xE2
    path = tmp_path / "a.aedat4"
    path.write_bytes(data)
    with pytest.raises(InputError, match="utf-8"):
        open_recording(path)
