"""The contract of an event-file format as a test, for formats here and in other packages."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from eventsim.dvs import (
    EVENT_DTYPE,
    Defects,
    EventFormat,
    Orientation,
    Recording,
    RecordingSummary,
    event_formats,
    open_recording,
    readable_file,
)
from eventsim.dvs.arriving import arriving_file
from eventsim.dvs.columns import EventArray
from eventsim.dvs.opening import SALVAGE, open_as_one_of
from eventsim.dvs.order import Disorder
from eventsim.errors import InputError
from eventsim.testing.pipes import Trickle

OPENED_WITH = ("sensor_size", "orientation")
MAX_PICKLE_BYTES = 16 << 10
MANY_EVENTS = 10_000


def check_event_format(
    format: EventFormat,
    files: Iterable[str | os.PathLike[str]],
    *,
    options: Mapping[str, Any] | None = None,
    damaged_copies: int = 100,
    seed: int = 0,
    memory_bytes: int = 64 << 20,
    seconds: float = 10.0,
) -> None:
    """Check an event-file format against everything that `EventFormat` and `Recording` promise.

    Each file must be recognised as this format and as no other that is installed; chunks of every size must concatenate
    to the same events, read twice, in turns and from a pickled recording; events must be of `EVENT_DTYPE`, inside of
    the sensor and in order of time; each `Orientation` must turn the picture as it says; the summary must agree with
    the events. Copies cut anywhere must read the first of the events or be refused, and no fewer when they are
    salvaged; copies with changed bytes must read valid events or be refused, within the given memory and time. Of a
    format that is read forwards, what comes by a pipe in pieces of any size must be the same events. Missing, empty and
    unknown things must be refused. A refusal is an `InputError` in one line that begins with the path.

    What it cannot know is whether the events are the right ones: compare those with an independent reader beside it.

    Parameters
    ----------
    format : EventFormat
        The format; it need not be installed as a plug-in.
    files : iterable of str or path
        Undamaged recordings, one of them with at least two events. Small ones, since each is read some hundred times.
    options : mapping, optional
        Keyword arguments with which the files are opened, such as ``{"sensor_size": (180, 240)}``.
    damaged_copies : int
        How many copies of each file are cut, and how many get changed bytes.
    seed : int
        Of the damage.
    memory_bytes : int
        What reading one damaged copy may allocate beside its events, as `tracemalloc` sees it.
    seconds : float
        How long reading one damaged copy may take.

    Raises
    ------
    AssertionError
        The format breaks its contract; the message names the file and what was found and expected.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from eventsim.dvs import event_formats
    >>> from eventsim.testing.event_formats import check_event_format
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "two_events.bin")
    ...     _ = file.write_bytes(bytes([3, 4, 0x80, 0, 5, 6, 7, 0, 0, 9]))
    ...     check_event_format(event_formats()["nmnist"], [file])
    """
    cases = [_Case.of(format, Path(path), dict(options or {})) for path in files]
    most = max((len(case.events) for case in cases), default=0)
    _expect(most >= 2, f"{len(cases)} files with at most {most} events found; expected one with two events or more")
    for case in cases:
        _check_recognition(case)
        _check_chunks(case)
        _check_orientations(case)
        _check_summary(case)
        _check_pickling(case)
        _check_damage(case, damaged_copies, random.Random(seed), memory_bytes, seconds)
    _check_refused_paths(cases[0])
    _check_options(cases[0])
    for case in cases:
        _check_strangers(case)
        _check_forward(case)


STRANGE_HEADS = {
    b"#!AER-DAT2.0\r\n# This is a raw AE data file": "aedat2",
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n": "aedat3",
    b"#!AER-DAT4.0\r\n": "aedat4",
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}": "npy",
    b"% evt 2.0\n% geometry 40x30\n": "evt2",
    b"% evt 3.0\n% format EVT3\n": "evt3",
    b"% Data file containing CD events.\n": "dat",
    b"Event Stream\x02\x00\x00\x01": "es",
    b"\x89HDF\r\n\x1a\n" + bytes(24): "hdf5",
    b"MATLAB 5.0 MAT-file, Platform: GLNXA64": "matlab",
    b"PK\x03\x04" + bytes(28): "npz",
    b"x y t p\n1 2 3 0\n": "text",
    bytes(64): "",
    bytes(range(255, 191, -1)): "",
}
"""How files of other kinds begin, and our name of each kind."""


@dataclass(frozen=True)
class _Case:
    """One file, what is known about it, and the doors to it."""

    format: EventFormat
    name: str
    known: dict[str, EventFormat]
    path: Path
    options: dict[str, Any]
    recording: Recording
    events: EventArray

    @classmethod
    def of(cls, format: EventFormat, path: Path, options: dict[str, Any]) -> _Case:
        recording = format.open(path, **{"sensor_size": None, "orientation": Orientation(), **options})
        installed = event_formats()
        names = [name for name, entry in installed.items() if entry == format]
        name = names[0] if names else recording.format
        _expect(
            recording.format == name,
            f"{path}: Recording.format {recording.format!r} found; expected {name!r}, the name of the format",
        )
        taken = name in installed and not names
        _expect(not taken, f"format {name!r} found; expected a name that no installed format has")
        _expect(
            recording.path == str(path), f"{path}: Recording.path {recording.path!r} found; expected the path given"
        )
        return cls(format, name, {**installed, name: format}, path, options, recording, _read(recording))

    def open(self, path: Path | None = None, **options: Any) -> Recording:
        """Call the format's own opener."""
        return self.format.open(
            self.path if path is None else path,
            **{"sensor_size": None, "orientation": Orientation(), **self.options, **options},
        )

    def open_recognised(self, path: Path | None = None, **options: Any) -> Recording:
        """Go through the door of `open_recording`, also where the format is not installed."""
        return open_as_one_of(self.known, self.path if path is None else path, **{**self.options, **options})


def _expect(right: bool, message: str) -> None:
    if not right:
        raise AssertionError(message)


def _read(recording: Recording, max_events: int = 65536) -> EventArray:
    chunks = list(recording.chunks(max_events))
    return np.concatenate(chunks) if chunks else np.empty(0, EVENT_DTYPE)


def _expect_same(found: EventArray, expected: EventArray, what: str) -> None:
    same = found.dtype == expected.dtype and np.array_equal(found, expected)
    _expect(same, f"{what}: {len(found)} events found; expected the same {len(expected)} events as in one read")


def _check_recognition(case: _Case) -> None:
    """Ask every format; the head alone must tell, and one format only says yes."""
    file = readable_file(case.path)
    # no file lies there: who opens it fails
    elsewhere = Path(tempfile.gettempdir(), "eventsim-no-such-folder", case.path.name)
    claimed = [
        name for name, entry in case.known.items() if entry.recognises and entry.recognises(file.path, file.head)
    ]
    if case.format.recognises is None:
        same = [
            name
            for name, entry in case.known.items()
            if entry.recognises is None and case.path.suffix.lower() in entry.extensions
        ]
        _expect(
            not claimed and same == [case.name],
            f"{case.path}: recognised as {claimed} by content and {same} by extension; expected only {case.name}, by "
            "extension",
        )
    else:
        _expect(claimed == [case.name], f"{case.path}: recognised as {claimed}; expected {case.name} and no other")
        _expect(case.format.recognises(elsewhere, file.head), f"{case.path}: not recognised by its first bytes alone")
        for length in range(1, min(len(file.head), 64)):
            case.format.recognises(elsewhere, file.head[:length])
    _expect(case.open_recognised().format == case.name, f"{case.path}: open_recording does not open it as {case.name}")


def _check_strangers(case: _Case) -> None:
    """Show how files of other kinds begin; whoever takes them takes files from their readers."""
    own = readable_file(case.path).head[:4]
    for head, kind in STRANGE_HEADS.items():
        if case.format.recognises is not None and head[:4] != own and kind != case.name:
            taken = case.format.recognises(Path("stranger"), head)
            _expect(not taken, f"recognises a file that begins with {head[:16]!r}; expected only its own")


def _check_chunks(case: _Case) -> None:
    """However it is read, the events are the same and valid; what is sorted already stays as it is."""
    _check_valid(case.events, case.recording, str(case.path))
    count = len(case.events)
    sizes = {1000, 65536, 65537, max(count - 1, 1), max(count, 1), count + 1}
    # one event at a time takes a while
    sizes |= {1, 2, 3, 7} if count <= MANY_EVENTS else set()
    for size in sorted(sizes):
        chunks = list(case.recording.chunks(size))
        lengths = [len(chunk) for chunk in chunks]
        full = [size] * (count // size) + [count % size] * (count % size > 0)
        _expect(
            lengths == full, f"{case.path}: chunks({size}) of other lengths than {size} and a last one with the rest"
        )
        found = np.concatenate(chunks) if chunks else np.empty(0, EVENT_DTYPE)
        _expect_same(found, case.events, f"{case.path}: chunks({size})")
    _expect_same(_read(case.open_recognised()), case.events, f"{case.path}: opened again")
    defects = Defects()
    for disorder in get_args(Disorder):
        ordered = [*case.recording.chunks(1000, disorder=disorder, lag_us=5, defects=defects)]
        joined = np.concatenate(ordered) if ordered else np.empty(0, EVENT_DTYPE)
        _expect_same(joined, case.events, f"{case.path}: chunks with disorder={disorder!r}")
    _expect(
        (defects.out_of_order, defects.dropped, defects.damage) == (0, 0, None),
        f"{case.path}: {defects} found; expected none in a file that is not damaged",
    )
    # a reader that keeps its place in itself instead of in the iterator mixes these up
    first, second = case.recording.chunks(count // 9 + 1), case.recording.chunks(count // 7 + 1)
    turns = [chunk for pair in itertools.zip_longest(first, second) for chunk in pair[:1] if chunk is not None]
    found = np.concatenate(turns) if turns else np.empty(0, EVENT_DTYPE)
    _expect_same(found, case.events, f"{case.path}: two reads in turns")
    message = _refusal(f"{case.path}: chunks(0)", _read, case.recording, 0)
    _expect(message.startswith(f"{case.path}: "), f"{case.path}: chunks(0) is refused with {message!r}")


def _check_valid(events: EventArray, recording: Recording, what: str) -> None:
    _expect(events.dtype == EVENT_DTYPE, f"{what}: events of type {events.dtype} found; expected {EVENT_DTYPE}")
    for axis, side in (("x", recording.width), ("y", recording.height)):
        inside = bool(((events[axis] >= 0) & (events[axis] < side)).all())
        _expect(inside, f"{what}: {axis} outside of 0 to {side - 1} found")
    _expect(bool((np.diff(events["t"]) >= 0).all()), f"{what}: times that decrease found")


def _check_orientations(case: _Case) -> None:
    """Turn a picture of numbered pixels: below each turned event lies the number of its pixel."""
    plain, width, height = case.events, case.recording.width, case.recording.height
    # nothing is mirrored by a guess
    told: dict[str, Any] = {"sensor_size": (height, width)} if case.recording.size_source == "guessed" else {}
    numbers = np.arange(width * height).reshape(height, width)
    for transpose, flip_x, flip_y, flip_polarity in itertools.product((False, True), repeat=4):
        orientation = Orientation(transpose, flip_x, flip_y, flip_polarity)
        picture = numbers.T if transpose else numbers
        picture = np.fliplr(picture) if flip_x else picture
        picture = np.flipud(picture) if flip_y else picture
        turned = case.open(orientation=orientation, **told)
        what = f"{case.path}: {orientation}"
        size = (turned.height, turned.width)
        _expect(size == picture.shape, f"{what}: size (height, width) = {size} found; expected {picture.shape}")
        events = _read(turned)
        _check_valid(events, turned, what)
        _expect(np.array_equal(events["t"], plain["t"]), f"{what}: other times than without it")
        _expect(
            np.array_equal(picture[events["y"], events["x"]], numbers[plain["y"], plain["x"]]),
            f"{what}: events at other pixels than in the turned picture",
        )
        _expect(
            np.array_equal(events["p"] != plain["p"], np.full(len(plain), flip_polarity)),
            f"{what}: polarities that are {'the same' if flip_polarity else 'others'} than without it",
        )


def _check_summary(case: _Case) -> None:
    events = case.events
    on = sum(events["p"].tolist())
    first, last = (int(events["t"].min()), int(events["t"].max())) if len(events) else (None, None)
    ranges = [(int(events[axis].min()), int(events[axis].max())) if len(events) else None for axis in "xy"]
    expected = RecordingSummary(
        events=len(events),
        on_events=on,
        off_events=len(events) - on,
        first_us=first,
        last_us=last,
        duration_us=0 if first is None or last is None else last - first,
        width=case.recording.width,
        height=case.recording.height,
        x_range=ranges[0],
        y_range=ranges[1],
    )
    found = case.recording.summary()
    expected = replace(expected, wraps=max(found.wraps, 0))
    _expect(found == expected, f"{case.path}: {found} found; expected {expected}")


def _check_pickling(case: _Case) -> None:
    """Send it as to another process: as its path and options, not as its events."""
    turned = case.open(orientation=Orientation(transpose=True))
    pickled = pickle.dumps(turned)
    _expect(
        len(pickled) <= MAX_PICKLE_BYTES,
        f"{case.path}: pickled to {len(pickled)} bytes; expected at most {MAX_PICKLE_BYTES}, without its events",
    )
    again = pickle.loads(pickled)
    size = (turned.height, turned.width)
    _expect((again.height, again.width) == size, f"{case.path}: pickled with another sensor size")
    _expect_same(_read(again), _read(turned), f"{case.path}: pickled")


def _check_forward(case: _Case) -> None:
    """Let it come by a pipe, whole and cut."""
    if not case.format.forward:
        return
    data = case.path.read_bytes()
    # no file lies there: who opens it, in place of reading what comes, fails
    name = Path(tempfile.gettempdir(), "eventsim-no-such-folder", case.path.name)
    # a pipe is not read twice to guess it
    size = {"sensor_size": (case.recording.height, case.recording.width)}

    def through(part: bytes, most: int, **more: Any) -> EventArray:
        arriving = arriving_file(Trickle(part, most), str(name))
        opened = open_as_one_of(case.known, arriving, format=case.name, **{**size, **case.options, **more})
        blocks = list(opened.blocks(disorder="keep"))
        return np.concatenate(blocks) if blocks else np.empty(0, EVENT_DTYPE)

    for most in (1 << 20, 4099, 7, 1):
        if most > 7 or len(case.events) <= MANY_EVENTS:
            what = f"{case.path}: by a pipe, {most} bytes at a time"
            try:
                events = through(data, most)
            except InputError as error:
                raise AssertionError(f"{what}: refused ({error}); expected the events, read forwards") from error
            _expect_same(events, case.events, what)
    for cut in range(1, min(9, len(data))):
        what = f"{case.path}: by a pipe that ends {cut} bytes early"
        try:
            events = through(data[:-cut], 4099)
        except InputError as error:
            _expect_one_line(str(error), name, what)
            events = through(data[:-cut], 4099, salvage=True)
        _expect_same(events, case.events[: len(events)], what)


def _check_damage(case: _Case, copies: int, rng: random.Random, memory_bytes: int, seconds: float) -> None:
    """Cut and change copies of the file."""
    data = case.path.read_bytes()
    cuts = [0, 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(copies))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, case.path.name)
        tracing = tracemalloc.is_tracing()
        tracemalloc.start()
        try:
            for index, cut in enumerate(cuts[: copies + 3]):
                copy.write_bytes(data[:cut])
                what = f"{case.path} cut to {cut} bytes"
                events = _read_damaged(case, copy, what, index, memory_bytes, seconds)
                if events is not None:
                    _expect_same(events, case.events[: len(events)], what)
                _check_salvage(case, copy, what, 0 if events is None else len(events))
            for index in range(copies):
                # half of the damage in the header
                changes = {
                    rng.randrange(min(len(data), 256) if index % 2 else len(data)): rng.randrange(256)
                    for _ in range(rng.choice((1, 2, 8)))
                }
                damaged = bytearray(data)
                for at, byte in changes.items():
                    damaged[at] = byte
                copy.write_bytes(damaged)
                what = f"{case.path} with the bytes {changes}"
                _read_damaged(case, copy, what, index // 2, memory_bytes, seconds)
        finally:
            if not tracing:
                tracemalloc.stop()


def _read_damaged(
    case: _Case, copy: Path, what: str, index: int, memory_bytes: int, seconds: float
) -> EventArray | None:
    """Read a damaged copy; None where it is refused as it should be."""
    door = case.open if index % 2 else case.open_recognised
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    started = time.perf_counter()
    try:
        recording = door(copy)
        if case.format.recognises is not None:
            case.format.recognises(copy, readable_file(copy).head)
        events = _read(recording)
    except InputError as error:
        _expect_one_line(str(error), copy, what)
        events = None
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} found ({error}); expected an InputError") from error
    took = time.perf_counter() - started
    used = tracemalloc.get_traced_memory()[1] - before
    _expect(took <= seconds, f"{what}: read for {took:.1f} s; expected at most {seconds} s")
    # the events are held twice while they are joined
    allowed = memory_bytes + 4 * case.events.nbytes
    _expect(used <= allowed, f"{what}: {used} bytes allocated; expected at most {allowed}")
    if events is not None:
        _check_valid(events, recording, what)
    return events


def _check_salvage(case: _Case, copy: Path, what: str, least: int) -> None:
    """Read what a cut copy holds: the first of the events, and no fewer than without salvage."""
    try:
        recording = case.open_recognised(copy, salvage=True)
    except InputError as error:
        _expect_one_line(str(error), copy, what)
        return
    defects = Defects()
    chunks = list(recording.chunks(defects=defects))
    events = np.concatenate(chunks) if chunks else np.empty(0, EVENT_DTYPE)
    _expect_same(events, case.events[: len(events)], f"{what}, salvaged")
    _expect(len(events) >= least, f"{what}, salvaged: {len(events)} events found; expected the {least} without salvage")
    whole = defects.damage is not None or len(events) == len(case.events) or len(events) == least
    _expect(whole, f"{what}, salvaged: {len(events)} events and no damage found; expected Defects.damage to say it")


def _refusal(what: str, act: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """Return the message of the InputError that must come."""
    try:
        act(*arguments, **options)
    except InputError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} found ({error}); expected an InputError") from error
    raise AssertionError(f"{what}: accepted; expected an InputError")


def _expect_one_line(message: str, path: Path, what: str) -> None:
    right = message.startswith(f"{path}: ") and "\n" not in message
    _expect(right, f"{what}: refused with {message!r}; expected one line that begins with {path}: ")


def _check_refused_paths(case: _Case) -> None:
    """Refuse what is no file, by the reader itself and by `open_recording`."""
    with tempfile.TemporaryDirectory() as folder:
        suffix = case.path.suffix
        missing, empty, directory = (Path(folder, name + suffix) for name in ("missing", "empty", "folder"))
        empty.touch()
        directory.mkdir()
        for path in (missing, empty, directory):
            for door in (case.open, case.open_recognised):
                what = f"{case.name}: {path.stem} path"
                _expect_one_line(_refusal(what, door, path), path, what)


def _check_options(case: _Case) -> None:
    """Compare the options that are declared with those that are taken."""
    parameters = inspect.signature(case.format.open).parameters.values()
    keywords = {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        expected = {*OPENED_WITH, *case.format.options}
        _expect(
            keywords == expected,
            f"{case.name}: open takes {sorted(keywords)} by keyword; expected {sorted(expected)}, as declared",
        )
    # any format is salvaged, as far as it can be
    others = {name for entry in case.known.values() for name in entry.options} - case.format.options - {SALVAGE}
    for name in sorted({*others, "no_such_option"}):
        what = f"{case.name}: option {name}, which it does not take"
        message = _refusal(what, case.open_recognised, None, **{name: "x"})
        _expect_one_line(message, case.path, what)
        _expect(name in message, f"{what}: refused with {message!r}; expected its name in it")
    if case.known == event_formats():
        _expect(
            open_recording(case.path, format=case.name, **case.options).format == case.name,
            f"{case.path}: not opened with format={case.name!r}",
        )
