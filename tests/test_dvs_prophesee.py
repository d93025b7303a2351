"""DAT, EVT 2.0, EVT 3.0 and Event Stream against files written by their specifications, and refusals in one line."""

import struct
from pathlib import Path

import event_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dvs_readers import CHUNKS, ONE_FOLDER, as_array, event_lists, read

from eventsim.dvs import open_recording
from eventsim.errors import InputError

FORMATS = Path(__file__).resolve().parents[2] / "shared" / "data" / "formats"
FEW = [(3, 4, 10, True), (4, 4, 10, True), (39, 29, 4095, False), (0, 0, 4096, True)]


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


@ONE_FOLDER
@given(
    events=event_lists(40, 30, 2**30, 0, 2**33),
    chunk=CHUNKS,
    version=st.sampled_from([1, 2]),
    kind=st.sampled_from([0, 12]),
)
def test_dat_of_both_versions_with_wraps(tmp_path, events, chunk, version, kind):
    path = put(tmp_path, "a.dat", event_files.dat(events, version, kind))
    start = events[0][2] // 2**32 * 2**32
    expected = as_array([(x, y, t - start, p) for x, y, t, p in events])
    assert (open_recording(path).width, open_recording(path).height) == (40, 30)
    np.testing.assert_array_equal(read(path, chunk), expected)


@ONE_FOLDER
@given(
    events=event_lists(40, 30, 2**32, 0, 2**33),
    chunk=CHUNKS,
    between=st.lists(st.sampled_from([0xA0000000, 0xE1234567, 0xFFFFFFFF]), max_size=2),
)
def test_evt2_with_other_words_and_wraps(tmp_path, events, chunk, between):
    path = put(tmp_path, "a.raw", event_files.evt2(events, between=between))
    start = events[0][2] // 2**34 * 2**34
    np.testing.assert_array_equal(read(path, chunk), as_array([(x, y, t - start, p) for x, y, t, p in events]))


@st.composite
def rows_of_neighbours(draw):
    """Events as a camera of the fourth generation sends them: several of one row at one time."""
    events, t = [], draw(st.integers(0, 2**23))
    for _ in range(draw(st.integers(1, 8))):
        y, p = draw(st.integers(0, 29)), draw(st.booleans())
        events += [(x, y, t, p) for x in sorted(draw(st.sets(st.integers(0, 39), min_size=1, max_size=30)))]
        t += draw(st.sampled_from([0, 1, 4000, 4096, 2**22]))
    return events


@ONE_FOLDER
@given(
    events=rows_of_neighbours(),
    chunk=CHUNKS,
    between=st.lists(st.sampled_from([0x7123, 0xA001, 0xE000, 0xF555]), max_size=2),
    vectors=st.booleans(),
)
def test_evt3_with_vectors_other_words_and_wraps(tmp_path, events, chunk, between, vectors):
    path = put(tmp_path, "a.raw", event_files.evt3(events, between=between, vectors=vectors))
    start = events[0][2] // 2**24 * 2**24
    np.testing.assert_array_equal(read(path, chunk), as_array([(x, y, t - start, p) for x, y, t, p in events]))


def test_evt3_time_words_set_their_own_bits_alone(tmp_path):
    words = [0x8001, 0x6FFF, 0x0003, 0x2005, 0x8002, 0x2006, 0x6000, 0x2807]
    header = b"% format EVT3;height=30;width=40\n% end\n"
    path = put(tmp_path, "a.raw", header + struct.pack("<8H", *words))
    with pytest.raises(InputError, match=r"event 2 has t = 8192 us after 12287 us"):
        read(path)
    path = put(tmp_path, "b.raw", header + struct.pack("<6H", *words[:6]))
    assert read(path).tolist() == [(5, 3, 0x1FFF, False), (6, 3, 0x2FFF, False)]


@ONE_FOLDER
@given(events=event_lists(40, 30, 1000), chunk=CHUNKS, version=st.sampled_from([1, 2]))
def test_event_stream_with_overflows(tmp_path, events, chunk, version):
    path = put(tmp_path, "a.es", event_files.es(events, version=version))
    assert (open_recording(path).width, open_recording(path).height) == (40, 30)
    np.testing.assert_array_equal(read(path, chunk), as_array(events))


def test_event_stream_longer_than_a_read(tmp_path):
    events = [(i % 40, i % 30, 90 * i, i % 2 == 0) for i in range(150_000)]
    np.testing.assert_array_equal(read(put(tmp_path, "a.es", event_files.es(events))), as_array(events))


@pytest.mark.parametrize("write", [event_files.evt2, event_files.evt3])
def test_raw_events_before_the_first_time_word_are_skipped(tmp_path, write):
    header = b"% evt 2.0\n% geometry 40x30\n" if write is event_files.evt2 else b"% evt 3.0\n% geometry 40x30\n"
    early = struct.pack("<I", 1 << 28) if write is event_files.evt2 else struct.pack("<3H", 5, 0x3000, 0x4FFF)
    path = put(tmp_path, "a.raw", write(FEW, header + early))
    np.testing.assert_array_equal(read(path), as_array(FEW))


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (b"% geometry 40x30\n", (40, 30)),
        (b"% format EVT2;height=31;width=41\n", (41, 31)),
        (b"% plugin_name hal_plugin_gen31_fx3\n", (640, 480)),
        (b"% plugin_name hal_plugin_gen41_evk3\n% end\n", (1280, 720)),
        (b"% plugin_name hal_plugin_imx636_evk4\n", (1280, 720)),
        (b"% Height 30\n% Width 40\n", (40, 30)),
    ],
)
def test_what_headers_say_of_the_sensor(tmp_path, lines, size):
    recording = open_recording(put(tmp_path, "a.raw", event_files.evt2(FEW, b"% evt 2.0\n" + lines)))
    assert (recording.width, recording.height) == size
    np.testing.assert_array_equal(np.concatenate(list(recording.chunks())), as_array(FEW))


HEADER2, HEADER3 = b"% evt 2.0\n% geometry 40x30\n", b"% evt 3.0\n% geometry 40x30\n"
REFUSED = {
    "cut.dat": (event_files.dat(FEW)[:-3], "5 bytes are left over at event 3"),
    "trigger.dat": (event_files.dat(FEW, kind=14), "type and size [14, 8]"),
    "version.dat": (b"% Version 3\n\x0c\x08", "DAT version '3'"),
    "headless.dat": (event_files.dat([]).replace(b"\x0c\x08", b""), "type and size []"),
    "cut2.raw": (event_files.evt2(FEW)[:-1], "3 bytes are left over at word"),
    "cut3.raw": (event_files.evt3(FEW)[:-1], "1 byte is left over at word"),
    "type2.raw": (event_files.evt2(FEW) + struct.pack("<I", 0x50000000), "word 0x50000000 after event 4 is of type 5"),
    "type3.raw": (event_files.evt3(FEW) + struct.pack("<H", 0x9000), "word 0x9000 after event 4 is of type 9"),
    "vector.raw": (HEADER3 + struct.pack("<4H", 0x8000, 0x0001, 0x3024, 0x4FFF), "event 4 has x = 40"),
    "newer.raw": (b"% evt 2.1\n% geometry 40x30\n" + bytes(8), "EVT 2.1, expected 2.0 or 3.0"),
    "newest.raw": (b"% format EVT4\n" + bytes(8), "EVT 4.0, expected 2.0 or 3.0"),
    "unknown2.raw": (event_files.evt2(FEW, b"% evt 2.0\n% plugin_name other\n"), "camera 'other'"),
    "cut.es": (event_files.es(FEW)[:-1], "4 bytes are left over after event 3"),
    "atis.es": (event_files.es(FEW, kind=2), "events of an ATIS"),
    "old.es": (event_files.es(FEW, version=3), "version 3.0.0"),
    "short.es": (event_files.es(FEW)[:17], "17 bytes of header"),
    "cut.bs2": (event_files.slayer(FEW)[:-2], "3 bytes are left over at event 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path, name):
    data, part = REFUSED[name]
    path = put(tmp_path, name, data)
    with pytest.raises(InputError) as caught:
        open_recording(path).summary()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and part in message and "\n" not in message


def test_slayer_has_no_overflow_row(tmp_path):
    events = [(1, 240, 7, True), (2, 250, 2**22, False)]
    path = put(tmp_path, "a.bs2", event_files.slayer(events))
    np.testing.assert_array_equal(read(path, sensor_size=(256, 256)), as_array(events))
    assert open_recording(put(tmp_path, "b.bs2", event_files.slayer(FEW[:2]))).untold == {"sensor_size"}


# sums of x, y, t and p, from the packages expelliarmus 1.1.12, evt3 0.4.1 and event_stream 1.6.3
SUMS = {
    "ncars_sample.dat": (93457, 40463, 98196680, 1350),
    "gen3_evt2.raw": (128979953, 216346680, 476298094656969, 185861),
    "gen41_evt3.raw": (159113225, 85638051, 2574324900467, 115532),
    "dvs.es": (72946016, 57092979, 200862071000, 270001),
}
REAL = {
    "ncars_sample.dat": (2009, None),
    "gen3_evt2.raw": (521_252, (640, 480)),
    "gen41_evt3.raw": (219_596, (1280, 720)),
    "dvs.es": (473_225, (320, 240)),
}


@pytest.mark.skipif(not FORMATS.is_dir(), reason="recordings (../shared/data/formats) are not on this machine")
@pytest.mark.parametrize("name", REAL)
def test_real_recordings(name):
    recording = open_recording(FORMATS / name)
    events = np.concatenate(list(recording.chunks()))
    count, size = REAL[name]
    assert len(events) == count
    assert size in (None, (recording.width, recording.height))
    assert tuple(int(events[field].astype("i8").sum()) for field in "xytp") == SUMS[name]


EVT21 = struct.pack("<3Q", 8 << 60 | 123, 1 << 60 | 5 << 54 | 32 << 43 | 7 << 32 | 5, 1 << 60 | 6 << 54 | 9)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("% evt 2.1\n% geometry 640x480\n", "2.1"),
        ("% evt 2.1\n% format EVT21;height=320;width=320\n% end\n", "2.1"),
        ("% format EVT21;endianness=little;height=720;width=1280\n% end\n", "2.1"),
        ("% evt 4.0\n% geometry 640x480\n% end\n", "4.0"),
        ("% format EVT4;height=720;width=1280\n% end\n", "4.0"),
        ("% evt 3.0\n% format EVT21;height=720;width=1280\n% end\n", "2.1"),
    ],
)
def test_other_encodings_are_refused_by_name_and_what_converts_them(tmp_path, header, encoding):
    path = tmp_path / "a.raw"
    path.write_bytes(header.encode() + EVT21)
    with pytest.raises(InputError) as refused:
        open_recording(path, salvage=True)
    assert str(refused.value) == (
        f"{path}: raw events of EVT {encoding}, expected 2.0 or 3.0; convert it with Metavision's "
        "metavision_file_to_csv or metavision_file_to_dat"
    )


def test_ecf_is_refused_by_name_and_what_converts_it(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.hdf5"
    kind = np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1000,))
        properties.set_filter(0x8ECF, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1000,), (h5py.h5s.UNLIMITED,))
        group = file.create_group("CD")
        events = h5py.h5d.create(group.id, b"events", h5py.h5t.py_create(kind), space, properties)
        h5py.Dataset(events).id.write_direct_chunk((0,), bytes(3000))
        file.attrs["geometry"] = "1280x720"
    with pytest.raises(InputError, match=r"CD/events is compressed with ECF, which is not here; install .* or convert"):
        open_recording(path)
