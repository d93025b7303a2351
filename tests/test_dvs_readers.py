"""Every reader against files that the tests write byte by byte; every malformed file is an InputError."""

import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventsim.dvs import EVENT_DTYPE, Aedat3Recording, Orientation, event_formats, open_recording
from eventsim.errors import InputError

# every example writes its file anew, so the folder may be shared
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
AEDAT2 = b"#!AER-DAT2.0\r\n# comment\r\n"
AEDAT3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
CHUNKS = st.sampled_from([1, 2, 3, 7, 65536])


@st.composite
def event_lists(draw, width, height, longest_step=5000, earliest=0, latest=0):
    """Random events in time order."""
    count = draw(st.integers(1, 30))
    t = draw(st.integers(earliest, latest))
    events = []
    for _ in range(count):
        events.append((draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1)), t, draw(st.booleans())))
        t += draw(st.integers(0, longest_step))
    return events


def as_array(events):
    return np.array(events, EVENT_DTYPE)


def read(path, max_events=65536, **options):
    chunks = list(open_recording(path, **options).chunks(max_events))
    assert all(len(chunk) == max_events for chunk in chunks[:-1])
    return np.concatenate(chunks) if chunks else np.empty(0, EVENT_DTYPE)


def aedat2_word(x, y, t, p):
    """DVS128 as jAER stores it: x mirrored, polarity bit inverted."""
    return struct.pack(">II", ((127 - x) << 1) | (y << 8) | (not p), t % 2**32)


def packet(events, overflow=0, kind=1, source=1, size=8, number=None, capacity=None, valid=None):
    """AEDAT 3.1 packet; events are (x, y, t, p) or, with a fifth item False, invalid."""
    number = len(events) if number is None else number
    body = b"".join(
        struct.pack("<Ii", (e[0] << 17) | (e[1] << 2) | (e[3] << 1) | (e[4] if len(e) > 4 else 1), e[2]) for e in events
    )
    capacity = number if capacity is None else capacity
    return struct.pack("<hhiiiiii", kind, source, size, 4, overflow, capacity, number, valid or 0) + body


def aedat4(*packets, width=346, height=260):
    """AEDAT 4.0 without compression and data table: FlatBuffers by hand, one packet for each list of events."""
    text = (
        '<dv version="2.0"><node name="outInfo" path="/outInfo/"><node name="0" path="/outInfo/0/">'
        '<attr key="compression" type="string">NONE</attr><attr key="originalModuleName" type="string">test</attr>'
        '<attr key="originalOutputName" type="string">events</attr><attr key="typeIdentifier" type="string">EVTS</attr>'
        f'<node name="info" path="/outInfo/0/info/"><attr key="sizeX" type="int">{width}</attr>'
        f'<attr key="sizeY" type="int">{height}</attr><attr key="source" type="string">test</attr></node></node></node>'
        "</dv>"
    ).encode()
    # root table at byte 24, its vtable at 14: compression at +4, position of the data table at +12, description at +8
    header = struct.pack("<I4s6x5H", 24, b"IOHE", 10, 24, 4, 12, 8) + struct.pack("<iiIq4x", 10, 0, 16, -1)
    header += struct.pack("<I", len(text)) + text + bytes(1)
    data = b"#!AER-DAT4.0\r\n" + struct.pack("<i", len(header)) + header
    for events in packets:
        table = struct.pack("<I4s2x3HiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(events))
        table += b"".join(struct.pack("<qhh?3x", t, x, y, p) for x, y, t, p in events)
        data += struct.pack("<iiI", 0, len(table) + 4, len(table)) + table
    return data


@ONE_FOLDER
@given(events=event_lists(346, 260, earliest=0, latest=2**50), chunk=CHUNKS, cut=st.integers(0, 30))
def test_aedat4_packets(tmp_path, events, chunk, cut):
    path = tmp_path / "a.aedat4"
    path.write_bytes(aedat4(*(part for part in (events[:cut], events[cut:]) if part)))
    recording = open_recording(path)
    assert (recording.width, recording.height) == (346, 260)
    np.testing.assert_array_equal(read(path, chunk), as_array(events))


@ONE_FOLDER
@given(events=event_lists(34, 34, 3 * 2**13, 0, 3 * 2**13), chunk=CHUNKS)
def test_nmnist_with_overflow_markers(tmp_path, events, chunk):
    data, base = b"", 0
    for x, y, t, p in events:
        while t - base >= 2**13:
            base += 2**13
            data += bytes([1, 240, 0, 0, 0])
        word = (p << 23) | (t - base)
        data += bytes([x, y]) + word.to_bytes(3, "big")
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path, chunk), as_array(events))


@ONE_FOLDER
@given(events=event_lists(128, 128, 2**30, 2**32 - 5000, 2**32 - 1), chunk=CHUNKS, special=st.booleans())
def test_aedat2_dvs128_with_wraps_and_special_events(tmp_path, events, chunk, special):
    between = struct.pack(">II", 0x8000, 0) + struct.pack(">II", 0x80000001, 7) if special else b""
    path = tmp_path / "a.aedat"
    path.write_bytes(AEDAT2 + b"".join(between + aedat2_word(*event) for event in events))
    np.testing.assert_array_equal(read(path, chunk), as_array(events))


@pytest.mark.parametrize("chunk", [1, 3, 4, 65536])
def test_aedat2_time_wraps_more_than_once(tmp_path, chunk):
    events = [(1, 2, 2**30 * i + 17, True) for i in range(14)]
    path = tmp_path / "a.aedat"
    path.write_bytes(AEDAT2 + b"".join(aedat2_word(*event) for event in events))
    np.testing.assert_array_equal(read(path, chunk), as_array(events))


@ONE_FOLDER
@given(events=event_lists(346, 260), chunk=CHUNKS)
def test_aedat2_davis_skips_frames_imu_and_external_events(tmp_path, events, chunk):
    other = b"".join(struct.pack(">II", address, 2**31) for address in (0x80000000, 0x80000C00, 0x400, 0xFFFFFFFF))
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n#End Of ASCII Header\r\n"
    words = [struct.pack(">II", ((345 - x) << 12) | (y << 22) | (p << 11), t) + other for x, y, t, p in events]
    path = tmp_path / "a.aedat"
    path.write_bytes(header + b"".join(words))
    recording = open_recording(path)
    assert (recording.width, recording.height) == (346, 260)
    np.testing.assert_array_equal(read(path, chunk), as_array(events))


def test_aedat2_first_event_that_begins_like_a_header_line(tmp_path):
    address = (140 << 22) | (3 << 12) | 0x800
    assert address.to_bytes(4, "big")[:1] == b"#"
    path = tmp_path / "a.aedat"
    path.write_bytes(b"#!AER-DAT2.0\r\n# AEChip: DAVIS240C\r\n" + struct.pack(">II", address, 0x0A0A) * 2)
    np.testing.assert_array_equal(read(path), as_array([(239 - 3, 140, 0x0A0A, True)] * 2))


@ONE_FOLDER
@given(events=event_lists(128, 128), chunk=CHUNKS, cut=st.integers(0, 30), overflow=st.integers(0, 3))
def test_aedat3_packets_overflow_invalid_events_and_other_types(tmp_path, events, chunk, cut, overflow):
    invalid = (0, 0, 0, True, 0)
    data = packet([(0, 0, 0, 0)], kind=0) + packet([*events[:cut], invalid]) + packet([], kind=3, size=36)
    data += packet([invalid]) + packet(events[cut:], overflow)
    path = tmp_path / "a.aedat"
    path.write_bytes(AEDAT3 + data)
    late = [(x, y, t + (overflow << 31), p) for x, y, t, p in events[cut:]]
    np.testing.assert_array_equal(read(path, chunk), as_array(events[:cut] + late))


@ONE_FOLDER
@given(events=event_lists(20, 10, 5000, -(2**40), 2**40), chunk=CHUNKS)
def test_arrays_of_any_field_order_and_type(tmp_path, events, chunk):
    dtype = np.dtype([("p", "<i8"), ("t", ">i8"), ("extra", "f4"), ("y", "u1"), ("x", ">u2")])
    array = np.zeros(len(events), dtype)
    for name, values in zip("xytp", zip(*events, strict=True), strict=True):
        array[name] = values
    expected = as_array(events)
    np.testing.assert_array_equal(read(array, chunk), expected)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read(tmp_path / "a.npy", chunk), expected)
    recording = open_recording(array)
    assert (recording.width, recording.height) == (expected["x"].max() + 1, expected["y"].max() + 1)


@ONE_FOLDER
@given(events=event_lists(20, 10), turn=st.tuples(*[st.booleans()] * 4))
def test_orientation_transposes_first_and_then_flips(events, turn):
    transpose, flip_x, flip_y, flip_polarity = turn
    orientation = Orientation(*turn)
    recording = open_recording(as_array(events), sensor_size=(10, 20), orientation=orientation)
    picture = np.zeros((10, 20), int)
    expected = []
    for x, y, t, p in events:
        picture[:] = 0
        picture[y, x] = 1
        turned = picture.T if transpose else picture
        turned = turned[:, ::-1] if flip_x else turned
        turned = turned[::-1] if flip_y else turned
        ((row, column),) = np.argwhere(turned)
        assert turned.shape == (recording.height, recording.width)
        expected.append((column, row, t, p != flip_polarity))
    np.testing.assert_array_equal(np.concatenate(list(recording.chunks())), as_array(expected))


def test_orientations_that_reproduce_spikingjelly_and_tonic(tmp_path):
    words = np.array([0x7F01, 0x00FE, 0x1235, 0x0003], ">u4")
    path = tmp_path / "a.aedat"
    path.write_bytes(AEDAT2 + np.stack([words, np.arange(4)], 1).astype(">u4").tobytes())
    x, y, p = (words >> 1) & 0x7F, (words >> 8) & 0x7F, words & 1
    spikingjelly = read(path, orientation=Orientation(transpose=True, flip_x=True))
    np.testing.assert_array_equal(spikingjelly["x"], 127 - y)
    np.testing.assert_array_equal(spikingjelly["y"], 127 - x)
    np.testing.assert_array_equal(spikingjelly["p"], 1 - p)
    tonic = read(path, orientation=Orientation(transpose=True, flip_y=True, flip_polarity=True))
    np.testing.assert_array_equal(tonic["x"], y)
    np.testing.assert_array_equal(tonic["y"], x)
    np.testing.assert_array_equal(tonic["p"], p)


@pytest.mark.parametrize("instead", ["(3)[0]    ", "f(1)      ", "name      ", "1 + name  "])
def test_what_numpy_says_of_a_header_holds_no_address(tmp_path, instead):
    data = npy(np.zeros(3, EVENT_DTYPE)).replace(b"'shape': (3,)", b"'shape': " + instead.encode())
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("t.npy", data)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError) as refused:
            open_recording(tmp_path / name)
        assert " at 0x" not in str(refused.value) and "<" not in str(refused.value)


def npy(array):
    descr = np.lib.format.dtype_to_descr(array.dtype)
    header = repr({"descr": descr, "fortran_order": False, "shape": array.shape})
    padded = header + " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode() + array.tobytes()


GOOD_EVENTS = [(i % 34, i % 30, 10 * i, i % 3 == 0) for i in range(40)]
GOOD = {
    "a.bin": b"".join(bytes([x, y]) + ((p << 23) | t).to_bytes(3, "big") for x, y, t, p in GOOD_EVENTS),
    "a2.aedat": AEDAT2 + b"".join(aedat2_word(*event) for event in GOOD_EVENTS),
    "a3.aedat": AEDAT3 + packet(GOOD_EVENTS[:25]) + packet([], kind=2, size=36) + packet(GOOD_EVENTS[25:]),
    "a4.aedat4": aedat4(GOOD_EVENTS[:25], GOOD_EVENTS[25:], width=34, height=30),
    "a.npy": npy(as_array(GOOD_EVENTS)),
}

MALFORMED = {
    "empty.aedat": (b"", "empty"),
    "text.txt": (b"hello, this is text", "expected events as lines of numbers"),
    "prophesee.raw": (b"% evt 3.0\n", "sensor_size"),
    "other.doc": (b"\xd0\xcf\x11\xe0", "no readable format"),
    "cut.bin": (GOOD["a.bin"][:-2], "3 bytes are left over at event 39"),
    "cut2.aedat": (GOOD["a2.aedat"][:-3], "5 bytes are left over at event 39"),
    "cut3.aedat": (GOOD["a3.aedat"][:-3], "truncated"),
    "cutheader3.aedat": (GOOD["a3.aedat"] + b"\x01\x00\x00", "3 bytes are left over after event 40"),
    "one.aedat": (b"#!AER-DAT1.0\r\n" + bytes(8), "AEDAT 2.0 or later"),
    "noversion.aedat": (b"# created 2008\r\n" + bytes(8), "AEDAT 1.0"),
    "two3.aedat": (b"#!AER-DAT3.0\r\n" + bytes(8), "#!AER-DAT3.1"),
    "endless.aedat": (b"#!AER-DAT3.1\r\n#Format: RAW\r\n" + bytes(100), "#!END-HEADER"),
    "compressed.aedat": (AEDAT3.replace(b"RAW", b"SerializedTS"), "Format"),
    "source.aedat": (AEDAT3.replace(b"DVS128", b"DYNAPSE") + packet(GOOD_EVENTS), "sensor_size"),
    "twosources.aedat": (
        AEDAT3 + packet(GOOD_EVENTS[:1]) + packet(GOOD_EVENTS[1:], source=2),
        "pass stream=1 or stream=2",
    ),
    "size.aedat": (AEDAT3 + packet(GOOD_EVENTS, size=16), "8 bytes"),
    "zerosize.aedat": (AEDAT3 + packet([], kind=3, size=0, number=5), "packet header"),
    "negative.aedat": (AEDAT3 + packet(GOOD_EVENTS, number=-1), "packet header"),
    "capacity.aedat": (AEDAT3 + packet(GOOD_EVENTS, capacity=3), "capacity"),
    "huge.aedat": (AEDAT3 + packet(GOOD_EVENTS, number=2**31 - 1), "truncated"),
    "hugeother.aedat": (AEDAT3 + packet([], kind=2, size=2**31 - 1, number=2**31 - 1), "truncated"),
    "overflow.aedat": (AEDAT3 + packet(GOOD_EVENTS, overflow=-1), "packet header"),
    "stamp.aedat": (AEDAT3 + packet([(1, 1, -5, True)]), "negative time"),
    "pixel.aedat": (AEDAT3 + packet([(1, 1, 5, True), (128, 1, 5, True)]), "event 1 has x = 128"),
    "backwards.aedat": (AEDAT3 + packet(GOOD_EVENTS) + packet(GOOD_EVENTS[:1]), "event 40 has t = 0 us after 390 us"),
    "backwards2.aedat": (AEDAT2 + aedat2_word(1, 1, 9, 1) + aedat2_word(1, 1, 8, 1), "event 1 has t = 8"),
    "backwards31.aedat": (AEDAT2 + aedat2_word(1, 1, 2**31 + 5, 1) + aedat2_word(1, 1, 5, 1), "event 1 has t = 5 us"),
    "davis.aedat": (AEDAT2 + struct.pack(">II", 0x00401800, 0), "camera='davis'"),
    "camera.aedat": (b"#!AER-DAT2.0\r\n# AEChip: some.chip.Other\r\n", "some.chip.Other"),
    "caltech.bin": (bytes([200, 30, 0, 0, 0]), "sensor_size"),
    "frames.npy": (npy(np.zeros(3, np.float32)), "structured"),
    "cut.npy": (GOOD["a.npy"][:-1], "truncated"),
    "none.npy": (npy(np.zeros(0, EVENT_DTYPE)), "sensor_size"),
    "polarity.npy": (npy(np.array([(0, 0, 0, 2)], [(n, "i4") for n in "xytp"])), "a polarity of 2"),
    "late.npy": (npy(np.array([(0, 0, 2**64 - 1, 0)], [(n, "u8") for n in "xytp"])), "2^62"),
    "minus.npy": (npy(np.array([(-1, 0, 0, 0)], [(n, "i4") for n in "xytp"])), "x = -1"),
    "dv.aedat4": (b"#!AER-DAT4.0\r\n" + struct.pack("<i", 2**31 - 1) + bytes(99), "header of 2147483647 bytes"),
    "dv0.aedat4": (b"#!AER-DAT4.0\r\n" + struct.pack("<i", 64) + bytes(64), "header"),
    "dvcut.aedat4": (b"#!AER-DAT4.0\r\n", "header"),
    "dv5.aedat4": (b"#!AER-DAT4.1\r\n", "#!AER-DAT4.0"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_one_line_naming_the_file(tmp_path, name):
    data, part = MALFORMED[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        list(open_recording(path).chunks())
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and part in message and "\n" not in message


@pytest.mark.parametrize("name", GOOD)
def test_good_file_of_the_fuzz_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(GOOD[name])
    np.testing.assert_array_equal(read(tmp_path / name, sensor_size=(128, 128)), as_array(GOOD_EVENTS))


@settings(ONE_FOLDER, max_examples=300)
@given(
    name=st.sampled_from(list(GOOD)),
    cut=st.none() | st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    early=st.booleans(),
)
def test_fuzzed_file_is_read_or_refused(tmp_path, name, cut, flips, early):
    data = bytearray(GOOD[name])
    for where, value in flips:
        data[int(where * (min(len(data), 140) if early else len(data)))] = value
    if cut is not None:
        data = data[: int(cut * len(data))]
    path = tmp_path / name
    path.write_bytes(data)
    try:
        summary = open_recording(path).summary()
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert 0 <= summary.events <= len(data)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_recording(tmp_path / "absent.bin")
    with pytest.raises(InputError, match="is a folder"):
        open_recording(tmp_path)


def test_options_that_do_not_fit(tmp_path):
    (tmp_path / "a.bin").write_bytes(GOOD["a.bin"])
    with pytest.raises(InputError, match=r"only for AEDAT 2\.0"):
        open_recording(tmp_path / "a.bin", camera="davis")
    with pytest.raises(InputError, match="sensor_size"):
        open_recording(tmp_path / "a.bin", sensor_size=(0, 34))
    with pytest.raises(InputError, match="at most 240"):
        open_recording(tmp_path / "a.bin", sensor_size=(241, 34))
    with pytest.raises(InputError, match="max_events"):
        open_recording(tmp_path / "a.bin").chunks(0)
    (tmp_path / "a.aedat").write_bytes(GOOD["a2.aedat"])
    with pytest.raises(InputError, match="which DAVIS"):
        open_recording(tmp_path / "a.aedat", camera="davis")
    with pytest.raises(InputError, match="expected 'dvs128' or 'davis'"):
        open_recording(tmp_path / "a.aedat", camera="evk4")


def test_a_huge_packet_is_read_in_pieces(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(AEDAT3 + packet(GOOD_EVENTS))
    blocks = [len(columns.t) for columns in Aedat3Recording(path)._decode(16)]
    assert blocks == [16, 16, 8]


def test_formats_name_every_reader():
    prophesee, arrays = ["dat", "evt2", "evt3"], ["hdf5", "matlab", "npy", "npz"]
    assert sorted(event_formats()) == sorted(
        ["aedat2", "aedat3", "aedat4", "bs2", "es", "nmnist", "text", *prophesee, *arrays]
    )


def test_aedat4_compression_beyond_the_header_is_refused_before_the_decoder_panics(tmp_path, capfd):
    data = bytearray(GOOD["a4.aedat4"])
    # 18 bytes before the header, whose table of fields begins at 14
    assert struct.unpack_from("<3H", data, 18 + 14) == (10, 24, 4)
    data[18 + 18 : 18 + 20] = struct.pack("<H", 6000)
    (tmp_path / "a.aedat4").write_bytes(data)
    with pytest.raises(InputError, match=r"the header is not AEDAT 4\.0's"):
        open_recording(tmp_path / "a.aedat4")
    assert capfd.readouterr().err == ""
