"""Events as text, one a line: what v2e, the rpg data sets, Metavision and pandas users write.

Numbers stand between blanks, tabs, commas or semicolons. Which column is which is said, in this order of preference, by

* the option `columns`, such as ``"txyp"``;
* a first line of names, such as ``x,y,p,t`` or ``timestamp x y polarity``;
* a comment (a line that begins with ``#`` or ``%``) that names the four in order, as v2e writes it;
* a first line of two numbers, width and height, as E2VID wants it, or a number with a decimal point and three whole
  ones, the last one 0 or 1, between blanks: ``t x y p`` with seconds, as in the Event Camera Dataset of the rpg group;
* four whole numbers between commas, the third one 0 or 1: ``x,y,p,t`` with microseconds, as Metavision's
  ``metavision_file_to_csv`` writes it, which names none.

Otherwise the file is refused, since nothing tells. The unit of the times is what `time_unit` says, or a name
(``t_us``, ``t [ms]``) or the comment. Else times with parts are seconds and whole ones microseconds; whole ones with a
decimal point may be either, and are refused. Numbers are read exactly, times rounded to a microsecond.
Sources: https://github.com/SensorsINI/v2e, https://rpg.ifi.uzh.ch/davis_data.html,
https://docs.prophesee.ai/stable/samples/modules/stream/file_to_csv.html

Coordinates as stored: x to the right, y downwards. The sensor's size is that of the first line, of Metavision's
comment ``%geometry:WIDTH,HEIGHT``, or else guessed in one pass.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import guessed_sensor
from eventsim.dvs.columns import Columns
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.event_values import column_named, column_order, polarities, time_scale
from eventsim.dvs.numbers_of_text import NO_NUMBER, NO_REFUSAL, NOT_WHOLE, TOO_FEW, TOO_LARGE, TOO_MANY, parse_rows
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError
from eventsim.untrusted import printable

READ_BYTES = 256 << 10
MAX_LINE_BYTES = 1 << 20
COMMENTS = (b"#", b"%")
# with which spreadsheets begin UTF-8
MARK = b"\xef\xbb\xbf"
# the micro sign as bytes of latin-1 and UTF-8, and the Greek letter
UNITS = "s|ms|us|ns|(?:\xc2)?\xb5s|\xce\xbcs"
SEPARATORS = r"[\s,;]+"
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
REFUSALS = {
    TOO_FEW: "fewer",
    TOO_MANY: "more",
    NO_NUMBER: "no number in column {column}",
    NOT_WHOLE: "no whole number in column {column}",
    TOO_LARGE: "too large a number in column {column}",
}


@dataclass(frozen=True)
class _Layout:
    """What the beginning of a file, or the options, say about its lines."""

    order: tuple[str | None, ...]
    scale: int
    data_start: int
    sensor_size: SensorSize | None


class TextRecording(Recording):
    """Events as text; see the module for what tells its columns.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; what the file says, or the largest coordinates plus 1, when not given.
    orientation : Orientation
        How to turn the picture.
    columns : str, optional
        Order of the columns: x, y, t and p once each and ``_`` for one to ignore, such as ``"txyp"``.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times.
    salvage : bool
        Whether the sensor is guessed by the events before the damage.

    Raises
    ------
    InputError
        The file is missing or empty, nothing tells its columns, or an option is wrong. While reading: a line that does
        not hold as many numbers, coordinates that are not whole, polarities beside 0, 1 and -1.
    """

    format = "text"
    slow = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        columns: str | None = None,
        time_unit: str | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        # for messages, before the sensor is known
        self.path = str(file)
        self._file = file
        self._layout = _layout(file, columns, time_unit)
        said = self._layout.sensor_size
        if file.arrives and sensor_size is None and said is None:
            raise InputError(
                f"{file}: comes by a pipe and does not tell the size of the sensor, which is not to be guessed before "
                "all events have come; pass sensor_size=(height, width)"
            )
        size = sensor_size or said or guessed_sensor(self.path, self._decode, salvage)
        super().__init__(str(file), size, orientation)
        self.size_given = sensor_size is not None
        self.told_size = said
        if sensor_size is None and said is None:
            self.untold = frozenset({"sensor_size"})

    def _decode(self, block_events: int) -> Iterator[Columns]:
        layout = self._layout
        column_of = np.array([-1 if name is None else "xytp".index(name) for name in layout.order], np.int64)
        decoded = 0
        rest = b""
        with self._file.opened(layout.data_start) as file:
            while data := file.read(READ_BYTES):
                data = rest + data
                end = data.rfind(b"\n") + 1
                data, rest = data[:end], data[end:]
                if len(rest) > MAX_LINE_BYTES:
                    raise InputError(f"{self.path}: a line of more than {MAX_LINE_BYTES} bytes; the file is no text")
                for block in self._rows(data, column_of, decoded, block_events):
                    yield block
                    decoded += len(block.t)
            # a number may be cut there, while a polarity has one digit
            if rest.strip() and layout.order[-1] in ("x", "y", "t"):
                raise InputError(
                    f"{self.path}: the last line {printable(rest[:60].decode('latin-1'))!r} does not end, so its last "
                    f"number may be cut; {self._file.cut}: add a line feed if not, or pass salvage=True"
                )
            yield from self._rows(rest + b"\n", column_of, decoded, block_events)

    def _rows(
        self, data: bytes, column_of: npt.NDArray[np.int64], decoded: int, block_events: int
    ) -> Iterator[Columns]:
        """Parse whole lines."""
        if b"e" in data:  # as pandas writes polarities
            data = data.replace(b"True", b"1").replace(b"False", b"0")
        text = np.frombuffer(data, np.uint8)
        taken = 0
        while taken < len(text):
            rows = np.empty((4, block_events), np.int64)
            count, used, refusal, column = parse_rows(text[taken:], column_of, self._layout.scale, rows)
            taken += used
            decoded += count
            if count:
                x, y, t, p = rows[:, :count]
                yield Columns(x, y, t, polarities(self.path, p))
            if refusal != NO_REFUSAL:
                line = printable(data[taken:].split(b"\n", 1)[0][:60].decode("latin-1"))
                found = REFUSALS[refusal].format(column=column + 1)
                raise InputError(
                    f"{self.path}: the line after event {decoded} is {line!r}, {found}; expected {len(column_of)} "
                    f"numbers a line ({' '.join(name or '_' for name in self._layout.order)}); pass "
                    "columns='txyp' or another order, or the file is damaged: salvage=True reads up to there"
                )


def _layout(file: ReadableFile, columns: str | None, time_unit: str | None) -> _Layout:
    """Find out what the columns are, where the events begin, and what else the first lines say."""
    if b"\r" in file.head and b"\n" not in file.head:
        raise InputError(f"{file}: lines that end by carriage returns alone found, expected line feeds; convert them")
    comments, lines, data_start = _first_lines(file.head)
    size = next((size for comment in comments if (size := _geometry(comment)) is not None), None)
    order = None if columns is None else column_order(str(file), columns)
    unit = time_unit
    # forms of which whoever writes them has seconds
    of_seconds = False
    if lines and (named := _names(lines[0].text, order)) is not None:
        _refuse_otherwise(file, columns, order, *named, time_unit)
        order, unit = named[0], unit or named[1]
        data_start, lines = data_start + lines[0].length, lines[1:]
    elif lines and (pair := re.fullmatch(rf"(\d{{1,5}}){SEPARATORS}(\d{{1,5}})", lines[0].text)):
        size, of_seconds = (int(pair[2]), int(pair[1])), True
        order, data_start, lines = order or ("t", "x", "y", "p"), data_start + lines[0].length, lines[1:]
    elif lines and columns is not None and not any(map(_is_value, _fields(lines[0].text))):
        # names that say nothing here
        data_start, lines = data_start + lines[0].length, lines[1:]
    for comment in comments:
        if order is None and (said := _named_in(comment)) is not None:
            order, unit = said[0], unit or said[1]
    numbers = _fields(lines[0].text) if lines else []
    if lines and order is None and len({column_named(field) for field in numbers} - {None}) > 1:
        raise InputError(
            f"{file}: its first line is {printable(lines[0].text[:60])!r}, expected one name each of x, y, t and p; "
            "pass columns='txyp' or another order, with _ for those to ignore"
        )
    if not lines or (order is None and not all(re.fullmatch(NUMBER, number) for number in numbers)):
        if not lines and order is not None:
            raise InputError(f"{file}: holds names of columns and no events, expected at least one")
        found = repr(printable(lines[0].text[:60])) if lines else "no line of numbers"
        raise InputError(f"{file}: holds {found}, expected events as lines of numbers; it is of another format")
    if order is None and re.fullmatch(r"\d+,\d+,[01],\d+", lines[0].text):
        order = ("x", "y", "p", "t")
    if order is None and re.fullmatch(r"\d+\.\d+\s+\d+\s+\d+\s+[01]", lines[0].text):
        order, of_seconds = ("t", "x", "y", "p"), True
    if order is None or (columns is None and len(order) != len(numbers)):
        raise InputError(
            f"{file}: nothing names the columns of {printable(lines[0].text[:60])!r}, expected a first line of names "
            "(x,y,p,t); pass columns='txyp' or another order"
        )
    if len(order) != len(numbers):
        raise InputError(
            f"{file}: columns={columns!r} was given for lines such as {printable(lines[0].text[:60])!r}, expected a "
            f"name for each of {len(numbers)} numbers; use _ for those to ignore"
        )
    if unit is None:
        rows = [fields for line in lines if len(fields := _fields(line.text)) == len(order)]
        unit = _unit_of(str(file), [fields[order.index("t")] for fields in rows], of_seconds)
    return _Layout(order, time_scale(str(file), unit), data_start, size)


def _refuse_otherwise(
    file: ReadableFile,
    columns: str | None,
    given: tuple[str | None, ...] | None,
    named: tuple[str | None, ...],
    unit: str | None,
    time_unit: str | None,
) -> None:
    """Refuse options that say otherwise than a line of names."""
    if given is not None and given != named:
        raise InputError(
            f"{file}: columns={columns!r} was given, but its first line names "
            f"{' '.join(column or '_' for column in named)}; leave the option out, or the line if it is wrong"
        )
    if None not in (unit, time_unit) and unit != time_unit:
        raise InputError(
            f"{file}: time_unit={time_unit!r} was given, but its first line names times in {unit}; leave the option "
            "out, or the line if it is wrong"
        )


def _unit_of(path: str, times: list[str], of_seconds: bool) -> str:
    """Tell seconds, which have parts, from microseconds, which have none; refuse numbers that may be either."""
    read = [time for time in times if re.fullmatch(NUMBER, time)]  # what is none is refused with its line
    # whole seconds, if they are written to the microsecond; or the first events, all at 0
    if read and (of_seconds or not any(map(float, read))) and re.fullmatch(r"\d+\.\d{6,}", read[0]):
        return "s"
    if any(math.isfinite(number) and number % 1 for number in map(float, read)):
        return "s"
    if not read or re.fullmatch(r"[-+]?\d+", read[0]):
        return "us"
    raise InputError(
        f"{path}: times such as {printable(read[0][:30])}, with a decimal point but no parts, which may be seconds or "
        "microseconds; pass time_unit='s' or 'us'"
    )


@dataclass(frozen=True)
class _Line:
    text: str
    length: int


def _first_lines(head: bytes) -> tuple[list[str], list[_Line], int]:
    """Split the beginning of a file: comments, the lines after them, and the byte where those begin."""
    comments: list[str] = []
    start = len(MARK) if head.startswith(MARK) else 0
    while (newline := head.find(b"\n", start)) >= 0:
        line = head[start:newline].strip()
        if line and line[:1] not in COMMENTS:
            break
        comments.append(line.decode("latin-1").lstrip("#%").strip())
        start = newline + 1
    raw_lines = head[start:].splitlines(keepends=True)
    if len(raw_lines) > 1 and not raw_lines[-1].endswith(b"\n"):
        raw_lines.pop()  # it may be cut
    lines = [_Line(raw.decode("latin-1").strip().rstrip(",;"), len(raw)) for raw in raw_lines]
    return comments, [line for line in lines if line.text], start


def _fields(text: str) -> list[str]:
    return re.split(SEPARATORS, text.strip(",;"))


def _is_value(field: str) -> bool:
    return re.fullmatch(rf"{NUMBER}|nan|inf|true|false", field.lower()) is not None


def _names(line: str, given: tuple[str | None, ...] | None = None) -> tuple[tuple[str | None, ...], str | None] | None:
    """Read a line of names, and the unit of the time that they tell; None where it names no x, y, t and p.

    Of several names of a column, an order that was given says which is meant, or else its letter is.
    """
    # pandas leaves the first name out, that of the index
    names = [name.strip("\"'") for name in re.split(SEPARATORS, _without_brackets(line)[0].strip().rstrip(",;"))]
    read = [_column_and_unit(name) for name in names]
    meant = tuple(column for column, _ in read)
    letters = {name.lower() for name in names} & set("xytp")
    order = tuple(
        None if column in letters and name.lower() != column else column
        for name, column in zip(names, meant, strict=True)
    )
    if given is not None and len(given) == len(meant) and all(map(_may_be, given, meant)):
        order = given
    if sorted(column for column in order if column) != ["p", "t", "x", "y"]:
        return None
    time = order.index("t")
    # what stands in brackets may be of another time
    behind = "" if meant.count("t") == 1 else rf"(?i:\b{re.escape(names[time])}\b)[\"']?\s*"
    return order, _without_brackets(line, behind)[1] or read[time][1]


def _may_be(given: str | None, meant: str | None) -> bool:
    return given in (None, meant)


def _named_in(comment: str) -> tuple[tuple[str | None, ...], str | None] | None:
    """Find the four names in a sentence, in their order; what stands in brackets explains one."""
    plain, unit = _without_brackets(comment)
    read = [_column_and_unit(word) for word in re.findall(r"[A-Za-z_]+", plain)]
    order = tuple(dict.fromkeys(column for column, _ in read if column is not None))
    if sorted(order) != ["p", "t", "x", "y"]:
        return None
    return order, unit or next((unit for column, unit in read if column == "t"), None)


def _without_brackets(text: str, behind: str = "") -> tuple[str, str | None]:
    """Return a line of names without what stands in brackets, and the unit of time that does, or does `behind` one."""
    unit = re.search(rf"{behind}[(\[]\s*(?:\w+ )?({UNITS})\s*[)\]]", text)
    return re.sub(r"\([^)]*\)|\[[^\]]*\]", " ", text), _plain(unit[1]) if unit else None


def _column_and_unit(name: str) -> tuple[str | None, str | None]:
    """Return what a name means, and the unit that it ends with if it means the time."""
    parts = re.fullmatch(rf"(.+)_({UNITS})", name.strip("\"'").lower())
    if parts and column_named(parts[1]) == "t":
        return "t", _plain(parts[2])
    return column_named(name), None


def _plain(unit: str) -> str:
    return unit if unit in ("s", "ms", "us", "ns") else "us"


def _geometry(comment: str) -> SensorSize | None:
    said = re.match(r"geometry[: ]\s*(\d{1,5})\s*[,x]\s*(\d{1,5})", comment)
    return (int(said[2]), int(said[1])) if said else None


FORMAT = EventFormat(
    title="text",
    description="text, one event a line: v2e, rpg (t x y p), Metavision (x,y,p,t), csv with names",
    extensions=(".txt", ".csv"),
    recognises=None,
    open=TextRecording,
    options=frozenset({"columns", "time_unit", "salvage"}),
    forward=True,
)
