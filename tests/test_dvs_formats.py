"""Every shipped format keeps the contract, formats of other packages are found, and a path is looked at once."""

import dataclasses
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import event_files
import numpy as np
import pytest
from test_dvs_aedat4 import PACKERS, compressed, packed, packets
from test_dvs_readers import AEDAT2, AEDAT3, GOOD, GOOD_EVENTS, aedat2_word, aedat4, as_array, npy, packet
from test_dvs_small_packets import streamed, table

from eventsim import plugins, save
from eventsim.cli import main
from eventsim.dvs import (
    AS_RECORDED,
    Columns,
    EventFormat,
    NmnistRecording,
    NpyRecording,
    Orientation,
    event_formats,
    open_recording,
)
from eventsim.errors import InputError
from eventsim.testing.event_formats import check_event_format

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
LATE = [(x, y, t + 2**32 - 100, p) for x, y, t, p in GOOD_EVENTS]
FILES = {
    "aedat2": {"a.aedat": GOOD["a2.aedat"], "wraps.aedat2": AEDAT2 + b"".join(aedat2_word(*e) for e in LATE)},
    "aedat3": {"a.aedat": GOOD["a3.aedat"], "none.aedat": AEDAT3 + packet([], kind=2, size=36)},
    "aedat4": {
        "a.aedat4": GOOD["a4.aedat4"],
        "one_packet.aedat4": aedat4(GOOD_EVENTS),
        **{
            f"{kind.partition(',')[0]}.aedat4": packed(*PACKERS[kind], GOOD_EVENTS)
            for kind in ("lz4, sized", "zstd, streamed")
        },
        "small.aedat4": compressed(1)
        + packets(*(streamed(table(GOOD_EVENTS[at : at + 5])) for at in range(0, len(GOOD_EVENTS), 5))),
    },
    "nmnist": {"a.bin": GOOD["a.bin"], "marker.BIN": bytes([1, 240, 0, 0, 0]) + GOOD["a.bin"]},
    "bs2": {"a.bs2": event_files.slayer(GOOD_EVENTS)},
    "dat": {"a.dat": event_files.dat(GOOD_EVENTS), "wraps.dat": event_files.dat(LATE, 1, 0)},
    "es": {"a.es": event_files.es(GOOD_EVENTS, 128, 128)},
    "evt2": {
        "a.raw": event_files.evt2(GOOD_EVENTS),
        "wraps.raw": event_files.evt2(LATE, b"% evt 2.0\n% geometry 64x64\n"),
    },
    "evt3": {"a.raw": event_files.evt3(GOOD_EVENTS), "wraps.raw": event_files.evt3(LATE, vectors=False)},
    "hdf5": {
        "dsec.h5": event_files.dsec(GOOD_EVENTS, 10**9),
        "v2e.h5": event_files.v2e_hdf5(GOOD_EVENTS, chunks=(7, 4), compression="gzip"),
        "cd.hdf5": event_files.metavision_hdf5(GOOD_EVENTS, chunks=(16,), shuffle=True),
    },
    "matlab": {
        "a.mat": event_files.mat(GOOD_EVENTS),
        "packed.mat": event_files.mat(GOOD_EVENTS, 0, do_compression=True),
        "v73.mat": event_files.mat73(GOOD_EVENTS),
    },
    "npz": {"a.npz": event_files.npz(GOOD_EVENTS), "packed.npz": event_files.npz(GOOD_EVENTS, np.savez_compressed)},
    "text": {
        "rpg.txt": event_files.text(GOOD_EVENTS, "{s:.9f} {x} {y} {p}", "240 180\n"),
        "metavision.csv": event_files.text(GOOD_EVENTS, "{x},{y},{p},{t}"),
        "named.csv": event_files.text(GOOD_EVENTS, "{word},{t},{y},{x}", "polarity,timestamp,y,x\n"),
    },
    "npy": {"a.npy": GOOD["a.npy"], "other.npy": npy(as_array(GOOD_EVENTS).astype([(n, ">i4") for n in "xytp"]))},
}
OTHER_PACKAGE = """
    import numpy as np
    from eventsim.dvs import AS_RECORDED, Columns, EventFormat, Recording, readable_file
    from eventsim.errors import InputError

    class FakeRecording(Recording):
        format = "fake"

        def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED, gain=1):
            self._file = readable_file(path)
            if not self._file.head.startswith(b"FAKE") or self._file.size % 4:
                raise InputError(f"{path}: no whole number of fake events; copy it again")
            super().__init__(str(path), sensor_size or (256, 256), orientation)

        def _decode(self, block_events):
            with self._file.path.open("rb") as file:
                file.seek(4)
                while data := file.read(4 * block_events):
                    x, y, t, p = np.frombuffer(data, "u1").reshape(-1, 4).T
                    yield Columns(x, y, t.astype(np.int64), p > 127)

    def fails(path, head):
        raise RuntimeError("of the other\\npackage")

    def pieces(**changes):
        fields = {"title": "Fake", "description": "fake events", "extensions": (".fake",), "open": FakeRecording,
                  "recognises": lambda path, head: head.startswith(b"FAKE"), "options": frozenset({"gain"})}
        return EventFormat(**{**fields, **changes})

    FORMAT = pieces()
    FAILS = pieces(recognises=fails)
    CLAIMS_NPY = pieces(recognises=lambda path, head: head.startswith(b"\\x93NUMPY"))
    BY_EXTENSION = pieces(recognises=None, extensions=(".bin",))
    GREEDY = pieces(recognises=lambda path, head: True)
    NO_FORMAT = object()

    class Failing(FakeRecording):
        def _decode(self, block_events):
            raise OverflowError("too large\\nby far")

    class Floating(FakeRecording):
        def _decode(self, block_events):
            for columns in super()._decode(block_events):
                yield columns._replace(x=columns.x + 0.5)

    FAILS_LATE = pieces(open=Failing)
    FLOATS = pieces(open=Floating)
"""
FAKE = b"FAKE" + bytes([1, 2, 3, 0, 4, 5, 6, 255, 7, 8, 6, 1])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package whose ``pyproject.toml`` named event formats: what pip leaves of it is enough."""
    (tmp_path / "other_package.py").write_text(textwrap.dedent(OTHER_PACKAGE))
    monkeypatch.syspath_prepend(tmp_path)

    def write(**entries):
        info = tmp_path / "other_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
        lines = [f"{name} = other_package:{value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[eventsim.events]", *lines]))
        plugins._load.cache_clear()

    yield write
    plugins._load.cache_clear()
    sys.modules.pop("other_package", None)


def written(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


@pytest.mark.parametrize("name", event_formats())
def test_every_format_keeps_the_contract(tmp_path, name):
    check_event_format(event_formats()[name], written(tmp_path, FILES[name]))


@pytest.mark.parametrize("name", FILES)
def test_contract_with_options(tmp_path, name):
    options = {"sensor_size": (131, 140), "camera": "dvs128" if name == "aedat2" else None}
    options = {option: value for option, value in options.items() if value is not None}
    paths = written(tmp_path, FILES[name])
    check_event_format(event_formats()[name], paths, options=options, damaged_copies=10, seed=1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="recordings (../shared/data) are not on this machine")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("aedat2", "cases/dvs/a2_wrap32.aedat"),
        ("aedat2", "cases/dvs/a2_davis346_mixed.aedat"),
        ("aedat3", "cases/dvs/a3_mixed.aedat"),
        ("aedat3", "cases/dvs/a3_tsoverflow.aedat"),
        ("aedat4", "cases/dvs/a4_none.aedat4"),
        ("aedat4", "cases/dvs/a4_lz4.aedat4"),
        ("aedat4", "cases/dvs/a4_zstd.aedat4"),
        ("aedat4", "cases/dvs/a4_multi.aedat4"),
        ("nmnist", "cases/dvs/nm_overflow.bin"),
        ("npy", "cases/dvs/np_be.npy"),
        ("npy", "cases/dvs/np_aedat_real.npy"),
        ("npy", "cases/dvs/np_dv_real.npy"),
        ("npy", "cases/dvs/np_faery_on.npy"),
        ("npz", "cases/dvs/sj_events.npz"),
        ("hdf5", "cases/dvs/dsec_events.h5"),
        ("hdf5", "cases/dvs/v2e_events.h5"),
        ("hdf5", "cases/dvs/prophesee_cd.hdf5"),
        ("text", "cases/dvs/rpg_events.txt"),
        ("text", "cases/dvs/v2e_events.txt"),
        ("text", "cases/dvs/metavision.csv"),
        ("matlab", "cases/dvs/td.mat"),
        ("dat", "formats/ncars_sample.dat"),
        ("aedat2", "formats/dvs128_walking.aedat2.aedat"),
        ("aedat4", "formats/davis320x240.aedat4"),
        ("nmnist", "formats/nmnist_sample.bin"),
    ],
)
def test_real_recordings_keep_the_contract(name, file):
    path = SHARED / file
    check_event_format(event_formats()[name], [path], damaged_copies=30 if path.stat().st_size < 100_000 else 3)


class Nmnist(NmnistRecording):
    """A copy of a format in which a test breaks one thing."""

    format = "broken"


class SidesKept(Nmnist):
    def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED):
        super().__init__(path, sensor_size=(34, 40), orientation=orientation)
        self.height, self.width = 34, 40


class FlipsExchanged(Nmnist):
    def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED):
        turn = dataclasses.replace(orientation, flip_x=orientation.flip_y, flip_y=orientation.flip_x)
        super().__init__(path, sensor_size=sensor_size, orientation=turn)


class Consumed(Nmnist):
    def _decode(self, block_events):
        self._left = getattr(self, "_left", None) or super()._decode(block_events)
        yield from self._left


class HoldsEvents(Nmnist):
    def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED):
        super().__init__(path, sensor_size=sensor_size, orientation=orientation)
        self._all = bytes(20_000)


class Untidy(Nmnist):
    def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED):
        if Path(path).stat().st_size % 5:
            raise ValueError("odd length")
        super().__init__(path, sensor_size=sensor_size, orientation=orientation)


class Invents(Nmnist):
    def _decode(self, block_events):
        for columns in super()._decode(block_events):
            short = Path(self.path).stat().st_size < len(GOOD["a.bin"])
            yield Columns(columns.x, columns.y, columns.t, ~columns.p) if short else columns


class Greedy(Nmnist):
    def _decode(self, block_events):
        reserved = bytes(65 << 20 if Path(self.path).stat().st_size < len(GOOD["a.bin"]) else 1)
        yield from super()._decode(len(reserved) and block_events)


class TakesMore(Nmnist):
    def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED, speed=1):
        super().__init__(path, sensor_size=sensor_size, orientation=orientation)


class NoSummary(Nmnist):
    def summary(self):
        return dataclasses.replace(super().summary(), last_us=0)


class OtherLines(Nmnist):
    def __init__(self, path, *, sensor_size=None, orientation=AS_RECORDED):
        try:
            super().__init__(path, sensor_size=sensor_size, orientation=orientation)
        except InputError:
            raise InputError("not readable") from None


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (FlipsExchanged, "other pixels than in the turned picture"),
        (SidesKept, r"size \(height, width\) = \(34, 40\) found; expected \(40, 34\)"),
        (Consumed, r"chunks\(1\) of other lengths"),
        (HoldsEvents, "pickled to 20"),
        (Untidy, "ValueError found"),
        (Invents, "expected the same"),
        (Greedy, "bytes allocated"),
        (TakesMore, "as declared"),
        (NoSummary, "last_us=0"),
        (OtherLines, "one line that begins with"),
        (NmnistRecording, "expected a name that no installed format has"),
    ],
)
def test_the_contract_refuses_a_broken_reader(tmp_path, reader, message):
    broken = dataclasses.replace(
        event_formats()["nmnist"], recognises=lambda path, head: path.suffix == ".broken", open=reader
    )
    (path,) = written(tmp_path, {"a.broken": GOOD["a.bin"]})
    with pytest.raises(AssertionError, match=message):
        check_event_format(broken, [path])
    check_event_format(dataclasses.replace(broken, open=Nmnist), [path], damaged_copies=5)


@pytest.mark.parametrize(
    ("recognises", "name"),
    [
        (lambda path, head: True, "a.npy"),
        (lambda path, head: False, "a.broken"),
        (lambda path, head: path.read_bytes() != b"", "a.broken"),
        (lambda path, head: head[2] == 0, "a.broken"),
        (None, "a.bin"),
    ],
)
def test_the_contract_refuses_a_recognition_that_is_not_its_own(tmp_path, recognises, name):
    reader = Nmnist if name != "a.npy" else type("Npy", (NpyRecording,), {"format": "broken"})
    broken = EventFormat("Broken", "broken", (".bin",), recognises, reader)
    (path,) = written(tmp_path, {name: GOOD["a.npy" if name == "a.npy" else "a.bin"]})
    with pytest.raises((AssertionError, FileNotFoundError, IndexError)):
        check_event_format(broken, [path])


def test_the_contract_wants_events(tmp_path):
    paths = written(tmp_path, {"none.aedat": FILES["aedat3"]["none.aedat"]})
    with pytest.raises(AssertionError, match="two events or more"):
        check_event_format(event_formats()["aedat3"], paths)


def test_formats_of_another_package_are_found(tmp_path, install, capsys):
    install(fake="FORMAT")
    (path,) = written(tmp_path, {"a.fake": FAKE})
    assert list(event_formats()) == [*sorted(FILES), "fake"]
    recording = open_recording(path, gain=3)
    assert recording.format == "fake" and recording.summary().events == 3
    check_event_format(event_formats()["fake"], [path])
    assert main(["formats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"]["fake"] == "fake events (.fake)"
    (other,) = written(tmp_path, {"a.npy": GOOD["a.npy"]})
    with pytest.raises(InputError, match=r"a.npy: gain=3 was given, expected only for Fake files; leave it out"):
        open_recording(other, gain=3)


def test_the_contract_takes_a_format_that_is_not_installed(tmp_path, install):
    import other_package

    check_event_format(other_package.FORMAT, written(tmp_path, {"a.fake": FAKE}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"fake": "NO_FORMAT"}, "expected an eventsim.dvs.EventFormat"),
        ({"fake": "ABSENT"}, "AttributeError"),
        ({"npy": "FORMAT"}, "the name npy is taken"),
        ({"array": "FORMAT"}, "the name array is taken"),
    ],
)
def test_a_broken_plug_in_is_reported_and_stops_nothing_else(tmp_path, install, entries, message):
    install(**entries, good="FORMAT")
    with pytest.warns(plugins.PluginWarning, match=message):
        assert list(event_formats()) == [*sorted(FILES), "good"]
    for path in written(tmp_path, GOOD):
        assert open_recording(path, sensor_size=(128, 128)).summary().events == len(GOOD_EVENTS)


def test_a_recognition_that_fails_is_reported_and_stops_nothing_else(tmp_path, install):
    install(fails="FAILS", fake="FORMAT")
    for path in written(tmp_path, {**GOOD, "a.fake": FAKE}):
        with pytest.warns(plugins.PluginWarning, match="event format fails .* left out: RuntimeError: of the other$"):
            assert open_recording(path, sensor_size=(128, 128)).summary().events > 0


def test_a_file_of_two_formats_is_refused_with_both_names(tmp_path, install):
    install(fake="CLAIMS_NPY", second="BY_EXTENSION")
    npy_file, bin_file = written(tmp_path, {"a.npy": GOOD["a.npy"], "a.bin": GOOD["a.bin"]})
    with pytest.raises(InputError, match=r"a.npy: could be npy or fake, expected a file of one format; pass format="):
        open_recording(npy_file)
    with pytest.raises(InputError, match=r"a.bin: could be nmnist or second, "):
        open_recording(bin_file)
    assert open_recording(npy_file, format="npy").format == "npy"
    assert open_recording(bin_file, format="nmnist").summary().events == len(GOOD_EVENTS)
    with pytest.raises(InputError, match=r"a.npy: format 'evt9' was given, expected one of aedat2, "):
        open_recording(npy_file, format="evt9")
    with pytest.raises(InputError, match=r"a.npy: format 'nmist' was given, .*; did you mean nmnist\?$"):
        open_recording(npy_file, format="nmist")


@pytest.mark.parametrize(("name", "format"), [("a2.aedat", "aedat2"), ("a3.aedat", "aedat3"), ("a.npy", "npy")])
def test_the_extension_decides_only_where_no_content_does(tmp_path, name, format):
    (path,) = written(tmp_path, {"wrong.bin": GOOD[name]})
    assert open_recording(path).format == format


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("description", "two\nlines"),
        ("extensions", ".bin"),
        ("extensions", (".BIN",)),
        ("extensions", ()),
        ("recognises", "magic"),
        ("open", None),
        ("options", {"camera"}),
        ("options", frozenset({1})),
    ],
)
def test_a_format_with_a_wrong_field_is_refused(field, value):
    with pytest.raises(InputError, match=f"event format with .*{'recognises' if value == () else field}"):
        dataclasses.replace(event_formats()["nmnist"], **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("title", 3, "title = 3; expected a line of text"),
        ("extensions", (".bin", "b"), "extensions = ('.bin', 'b'); expected a tuple such as ('.dat',)"),
        ("extensions", (), "recognises = None; expected a function, since there are no extensions"),
        ("recognises", 3, "recognises = 3; expected a function of path and head, or None"),
        ("open", 3, "open = 3; expected a function or class that returns a Recording"),
        ("options", ("camera",), "options = ('camera',); expected a frozenset of names"),
    ],
)
def test_a_wrong_field_is_told_with_what_was_expected(field, value, words):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(event_formats()["nmnist"], **{field: value})
    assert str(caught.value) == f"event format with {words}"


def test_options_that_no_format_takes():
    with pytest.raises(InputError, match=r"array: camera='davis' was given, expected only for AEDAT 2\.0 files"):
        open_recording(as_array(GOOD_EVENTS), camera="davis")
    with pytest.raises(
        InputError, match=r"array: colour=1 was given, expected an option of some format \(camera, columns"
    ):
        open_recording(as_array(GOOD_EVENTS), colour=1)
    assert open_recording(as_array(GOOD_EVENTS), camera=None).format == "array"


# hooks cannot be removed, so there is one, and a list that is None while nobody counts
visits = None


def count_opens(event, arguments):
    if visits is not None and event == "open":
        visits.append(os.fspath(arguments[0]) if isinstance(arguments[0], (str, os.PathLike)) else arguments[0])


sys.addaudithook(count_opens)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("door", ["open_recording", "reader"])
def test_a_path_is_looked_at_once(tmp_path, monkeypatch, name, door):
    global visits  # noqa: PLW0603 - the hook's
    (path,) = written(tmp_path, {name: GOOD[name]})
    by_name = event_formats()
    reader = by_name[open_recording(path).format].open
    stats = []
    original = os.stat
    monkeypatch.setattr(os, "stat", lambda file, **options: stats.append(file) or original(file, **options))
    visits = []
    try:
        recording = open_recording(path) if door == "open_recording" else reader(path)
    finally:
        opened, visits = visits, None
    # once for the head, once by the reader for what it needs beyond
    assert 1 <= opened.count(str(path)) <= 2
    assert [os.fspath(file) for file in stats if not isinstance(file, int)].count(str(path)) == 1
    assert recording.summary().events == len(GOOD_EVENTS)


def test_special_files_are_refused_without_waiting(tmp_path):
    pipe, loop = tmp_path / "a.bin", tmp_path / "b.bin"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="is not a regular file"):
        open_recording(pipe)
    for path in (loop, "a\0b"):
        with pytest.raises(InputError, match="cannot be opened"):
            open_recording(path)
    with pytest.raises(InputError, match="no such file"):
        open_recording(written(tmp_path, {"c.bin": b"12345"})[0] / "d.bin")


def test_importing_eventsim_looks_for_no_plug_ins():
    code = (
        "import sys, eventsim; from eventsim.plugins import _load; assert _load.cache_info().currsize == 0\n"
        "assert not {'tonic', 'torch', 'eventsim.testing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pickled_npy_recording_opens_its_file_again(tmp_path):
    events = np.concatenate([as_array(GOOD_EVENTS)] * 5000)
    events["t"] = np.arange(len(events))
    np.save(tmp_path / "a.npy", events)
    recording = open_recording(tmp_path / "a.npy", sensor_size=(30, 34), orientation=Orientation(True, False, True))
    pickled = pickle.dumps(recording)
    assert len(pickled) < 1000
    for ours, theirs in zip(recording.chunks(), pickle.loads(pickled).chunks(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_npy_header_that_claims_gigabytes_reserves_none(tmp_path):
    (path,) = written(tmp_path, {"a.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + GOOD["a.npy"][10:]})
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"cannot be read as \.npy"):
            open_recording(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_and_order_of_npy(tmp_path, version):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, as_array(GOOD_EVENTS), version)
    (path,) = written(tmp_path, {"a.npy": buffer.getvalue()})
    np.testing.assert_array_equal(np.concatenate(list(open_recording(path).chunks())), as_array(GOOD_EVENTS))
    np.save(tmp_path / "objects.npy", np.array([None, 1], object))
    with pytest.raises(InputError, match="Python objects"):
        open_recording(tmp_path / "objects.npy")


def test_a_greedy_recognition_is_caught(tmp_path, install):
    import other_package

    with pytest.raises(AssertionError, match=r"recognises a file that begins with b'#!AER-DAT2"):
        check_event_format(other_package.GREEDY, written(tmp_path, {"a.fake": FAKE}))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("FAILS_LATE", "Failing of other_package failed (OverflowError: too large); the file or it is damaged"),
        ("FLOATS", "Floating of other_package failed (TypeError: columns of kinds"),
    ],
)
def test_a_reader_that_fails_leaves_the_other_inputs(tmp_path, install, capsys, small_network, entry, message):
    install(fake=entry)
    fake, good = written(tmp_path, {"a.fake": FAKE, "a.npy": GOOD["a.npy"]})
    with pytest.raises(InputError) as caught:
        open_recording(fake).summary()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    save(small_network, tmp_path / "m.h5")
    capsys.readouterr()
    code = main(["run", str(tmp_path / "m.h5"), str(fake), str(good), "--fit", "crop", "--sensor", "128x128", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == 2
    assert [failure["input"] for failure in document["failed"]] == [str(fake)]
    assert message in document["failed"][0]["error"]
    assert [sample["input"] for sample in document["samples"]] == [str(good)]
