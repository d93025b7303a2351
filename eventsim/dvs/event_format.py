"""The protocol of an event-file format: what one file of `eventsim.dvs.formats`, or a plug-in, exports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from eventsim.dvs.recording import Recording
from eventsim.errors import InputError

Recognises: TypeAlias = Callable[[Path, bytes], bool]


@dataclass(frozen=True)
class EventFormat:
    """One event-file format: how it is recognised, and how it is opened.

    A format's name stands beside it: for ours that of its file in `eventsim.dvs.formats`, which exports the object as
    ``FORMAT``; for another package's that of its entry point in the group ``eventsim.events``. Recordings say the same
    name as `Recording.format`. `eventsim.testing.event_formats.check_event_format` checks all that is said here.

    Parameters
    ----------
    title : str
        What people call it, for messages such as "only for AEDAT 2.0 files".
    description : str
        One line for lists: the format, who writes it, known data sets in it.
    extensions : tuple of str
        Usual extensions of its files, in lower case and with the dot.
    recognises : callable or None
        ``recognises(path, head)`` tells by the first bytes of a file whether it is of this format. `head` holds the
        first 4096 bytes, or all of a shorter file, at least one; the file is not to be opened again for it. A file that
        two formats recognise is refused, so it answers True only for what no other format can be; for a damaged or
        outdated file of this format True is right, and `open` says what is wrong with it. None for a format without a
        magic number: a file with one of the `extensions` is opened so where no format recognises its content.
    open : callable
        ``open(path, *, sensor_size, orientation, **options)`` returns a `Recording`, usually the reader's class itself.
        `path` is a str or path, and begins with ``file = readable_file(path)`` (of `eventsim.dvs.readable_file`), which
        checks a path that was not checked before and does nothing to one that was. `sensor_size` is (height, width) or
        None for what the file says, `orientation` an `Orientation`. Every complaint about the file is an `InputError`
        in one line that begins with the path; memory does not grow with what a damaged file claims to hold.
    options : frozenset of str
        Names of the further keyword arguments that `open` takes, all optional. Any other is refused before `open`. With
        ``"salvage"`` among them, `open` gets ``salvage=True`` where a file is to be read up to its damage: it then
        leaves a complaint about what lies behind the header to the reading, which raises it after the events before.
        A format that does not name it is salvaged as far as its reading comes.
    forward : bool
        Whether `open` also takes what comes by a pipe. The file is then looked at through `ReadableFile.beginning` and
        read through `ReadableFile.opened`, by one pass forwards, and its size through `ReadableFile.left_over` alone.

    Raises
    ------
    InputError
        A field is not as described.

    Examples
    --------
    A package ``my_package`` with a file ``prophesee_dat.py`` that ends in ::

        FORMAT = EventFormat(
            title="Prophesee DAT",
            description="CD events of Prophesee cameras, version 2: N-CARS",
            extensions=(".dat",),
            recognises=lambda path, head: head.startswith(b"% Data file containing CD events"),
            open=DatRecording,
        )

    names it in its ``pyproject.toml``::

        [project.entry-points."eventsim.events"]
        prophesee_dat = "my_package.prophesee_dat:FORMAT"
    """

    title: str
    description: str
    extensions: tuple[str, ...]
    recognises: Recognises | None
    open: Callable[..., Recording]
    options: frozenset[str] = frozenset()
    forward: bool = False

    def __post_init__(self) -> None:
        for name in ("title", "description"):
            text = getattr(self, name)
            _expect(isinstance(text, str) and text.strip() != "" and "\n" not in text, name, text, "a line of text")
        dotted = isinstance(self.extensions, tuple) and all(
            isinstance(extension, str) and extension.startswith(".") and extension == extension.lower()
            for extension in self.extensions
        )
        _expect(dotted, "extensions", self.extensions, "a tuple such as ('.dat',)")
        if self.recognises is None:
            _expect(self.extensions != (), "recognises", None, "a function, since there are no extensions")
        else:
            _expect(callable(self.recognises), "recognises", self.recognises, "a function of path and head, or None")
        _expect(callable(self.open), "open", self.open, "a function or class that returns a Recording")
        names = isinstance(self.options, frozenset) and all(isinstance(option, str) for option in self.options)
        _expect(names, "options", self.options, "a frozenset of names")
        _expect(isinstance(self.forward, bool), "forward", self.forward, "True or False")


def _expect(right: bool, name: str, value: object, expected: str) -> None:
    if not right:
        raise InputError(f"event format with {name} = {value!r}; expected {expected}")
