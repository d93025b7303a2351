"""Files of labels: classes of recordings, of parts of recordings, and of the entries of an array.

The DVS128 Gesture data set comes as recordings of several gestures, ``user01_led.aedat``, each beside its list,
``user01_led_labels.csv``, with the columns ``class``, ``startTime_usec`` and ``endTime_usec``: classes from 1 on, times
as in the recording, the end excluded (as SpikingJelly splits them). https://research.ibm.com/interactive/dvsgesture/
"""

from __future__ import annotations

import csv
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from eventsim.datasets.samples import ArrayReference, Reference, Sample, class_name, labelled_arrays, numbered
from eventsim.dvs import RecordingPart
from eventsim.dvs.readable_file import readable_file
from eventsim.errors import InputError
from eventsim.untrusted import first_line, printable

SPELT = {
    "start": ("starttime_usec", "start_us"),
    "end": ("endtime_usec", "end_us"),
    "file": ("file", "filename", "path"),
    "label": ("label", "target"),
    "class": ("class",),
}
"""Columns and their names. Others, such as ``class_id``, count classes from 0 in one data set and from 1 in another."""
KNOWN = {name for names in SPELT.values() for name in names}
FIRST_CLASS = 1
"""Of the column ``class``, as DVS128 Gesture counts; ``label`` counts from 0."""
SUFFIX = "_labels.csv"
LONGEST_LIST = 64 << 20


@dataclass(frozen=True)
class _Line:
    """A line of a table: where it stands, what it is of, and its class as written, from 0 on where it is a number."""

    where: str
    name: str
    reference: Reference
    label: str


def labelled_by(dataset: str | Path, labels: str | Path) -> list[Sample]:
    """List the samples of which a file tells the classes: `labelled_arrays` of an ``.npy``, else `labelled_parts`.

    Parameters
    ----------
    dataset : path
        An array of frames in ``.npy`` for the first; a recording, or a folder of them, for the second.
    labels : path

    Raises
    ------
    InputError
        As they do.
    """
    if Path(labels).suffix.lower() != ".npy":
        return labelled_parts(dataset, labels)
    if Path(dataset).suffix.lower() != ".npy":
        raise InputError(f"{labels}: with {dataset} found; expected FRAMES.npy with labels in .npy, or a table in csv")
    return labelled_arrays(str(dataset), labels)


def labelled_parts(dataset: str | Path, labels: str | Path) -> list[Sample]:
    """List the parts of recordings that tables name, or whole recordings where they name no times.

    Parameters
    ----------
    dataset : path
        One recording, of which the table names parts; or the folder in which recordings are looked for.
    labels : path
        A table in csv, with a line of names: ``label`` or ``target`` (classes from 0 on, or names, which are numbered
        in sorted order) or ``class`` (from 1 on, as DVS128 Gesture has them); ``startTime_usec`` and
        ``endTime_usec``, microseconds; ``file``, ``filename`` or ``path``, where `dataset` is a folder. Without a line
        of names: two columns, files and classes from 0 on, all of them numbers. Or a folder of ``NAME_labels.csv``,
        each the table of the recording ``NAME`` with some extension.

    Returns
    -------
    list of Sample
        In the order of the tables. A part is called ``FILE[i]``, with i counting the lines of its table from 0.

    Raises
    ------
    InputError
        A table cannot be read or is empty, a column lacks or has a name that is not known, a line has another number
        of values than the first, a value makes no sense, a whole recording occurs twice, or a recording is not there.
    """
    dataset, labels = Path(dataset), Path(labels)
    if not labels.is_dir():
        return _samples(_of_table(dataset, labels))
    tables = sorted(table for table in labels.iterdir() if table.name.lower().endswith(SUFFIX))
    if not tables:
        raise InputError(f"{labels}: no tables NAME{SUFFIX} found; expected one for each recording")
    try:
        names = sorted(os.listdir(dataset))
    except OSError as error:
        raise InputError(
            f"{dataset}: cannot be listed ({first_line(error)}), expected a folder of recordings"
        ) from None
    return _samples([line for table in tables for line in _of_table(_recording_of(dataset, names, table), table)])


def refuse_absent(samples: Iterable[Sample], labels: str | Path) -> None:
    """Refuse samples of which no recording is there: they were listed for another folder.

    Up to the first recording that is there, each is looked for once.

    Parameters
    ----------
    samples : iterable of Sample
        As `labelled_parts` lists them; others are taken to be there.
    labels : path
        The table, for the message.

    Raises
    ------
    InputError
        All are absent.
    """
    absent: dict[str, None] = {}
    for sample in samples:
        path = getattr(sample.reference, "path", sample.reference)
        if isinstance(sample.reference, ArrayReference) or not isinstance(path, str):
            return
        if path in absent:
            continue
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            absent[path] = None
            continue
        except (OSError, ValueError):
            pass  # opening it says more
        return
    if absent:
        raise InputError(
            f"{labels}: none of {len(absent):,} recordings is there, the first is {next(iter(absent))}; expected them "
            "in the folder of the data set: name the folder that the names in the table begin from"
        )


def _samples(lines: Sequence[_Line]) -> list[Sample]:
    """Return samples whose classes are numbered over all tables together."""
    try:
        numbers = {line.label: int(line.label) for line in lines}
    except ValueError:
        numbers = numbered(line.label for line in lines)
    for line in lines:
        if numbers[line.label] < 0:
            raise InputError(f"{line.where} has label {line.label}; expected 0 or more")
    return [
        Sample(line.name, numbers[line.label], line.reference, index, class_name(line.label, numbers))
        for index, line in enumerate(lines)
    ]


def _recording_of(folder: Path, names: Sequence[str], table: Path) -> Path:
    """Return the one file of a folder that a table is of; `names` are those in it, sorted."""
    name = table.name[: -len(SUFFIX)]
    begin = bisect_left(names, f"{name}.")
    alike = takewhile(lambda each: each.startswith(f"{name}."), islice(names, begin, None))
    found = [folder / each for each in alike if (folder / each).is_file()]
    if len(found) != 1:
        raise InputError(f"{table}: {len(found)} recordings {folder / name}.* found; expected one")
    return found[0]


def _of_table(dataset: Path, table: Path) -> list[_Line]:
    file = readable_file(table)
    if file.size > LONGEST_LIST:
        raise InputError(f"{table}: {file.size} bytes found; expected a table of at most {LONGEST_LIST}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as opened:
            read = csv.reader(opened, strict=True)
            lines = [[cell.strip() for cell in line] for line in read if any(map(str.strip, line))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a table in csv ({first_line(error)})") from None
    names = [name.lower() for name in lines[0]] if lines else []
    named = not dataset.is_dir() or len(names) != 2 or bool(KNOWN & set(names))
    columns = _columns(dataset, table, names) if named else {"file": 0, "label": 1}
    lines, below = (lines[1:], " below the names") if named else (lines, "")
    if not lines:
        raise InputError(f"{table}: no lines below the names of the columns found; expected one for each sample")
    wheres = (f"{table}: line {number}{below}" for number in range(1, len(lines) + 1))
    found = [
        _line(dataset, where, index, line, columns, len(names))
        for index, (where, line) in enumerate(zip(wheres, lines, strict=True))
    ]
    if not named:
        _numbers(found, lines)
    if "start" not in columns:
        _once(found)
    return found


def _numbers(found: Iterable[_Line], lines: Iterable[Sequence[str]]) -> None:
    """Refuse labels that are no numbers where no line names columns: the first may be names that are not known."""
    for each, line in zip(found, lines, strict=True):
        try:
            int(each.label)
        except ValueError:
            raise InputError(
                f"{each.where} is '{printable(','.join(line))}'; expected a file and the number of its class, or in "
                "line 1 the names of the columns: 'file' (or filename, path), and 'label' (or target; classes from 0 "
                "on, or their names) or 'class' (from 1 on)"
            ) from None


def _once(lines: Iterable[_Line]) -> None:
    """Refuse a whole recording that has two lines."""
    seen: set[str] = set()
    for line in lines:
        if line.name in seen:
            raise InputError(f"{line.where} has {line.name} again; expected each file once, or times of its parts")
        seen.add(line.name)


def _columns(dataset: Path, table: Path, names: Sequence[str]) -> dict[str, int]:
    """Find each column that is needed; `class` and `label` under their own names."""
    found: dict[str, int] = {}
    for role, spellings in SPELT.items():
        places = [index for index, name in enumerate(names) if name in spellings]
        if len(places) > 1:
            raise InputError(f"{table}: {len(places)} columns {' or '.join(spellings)} found; expected one")
        if places:
            found[role] = places[0]
    if ("class" in found) == ("label" in found):
        raise InputError(
            f"{table}: columns {', '.join(names) or 'none'} found; expected 'label', with classes from 0 on, or "
            "'class', with classes from 1 on as DVS128 Gesture has them"
        )
    unknown = [name for name in names if name not in KNOWN]
    if unknown and not {"start", "end"} & set(found):  # it may be meant as a time
        raise InputError(
            f"{table}: column {unknown[0]!r} found; expected file, label and no others without times, which are "
            "start_us and end_us or startTime_usec and endTime_usec"
        )
    if ("start" in found) != ("end" in found):
        raise InputError(f"{table}: one of startTime_usec and endTime_usec found; expected both columns, or neither")
    if dataset.is_dir() != ("file" in found):
        raise InputError(
            f"{table}: {'a' if 'file' in found else 'no'} column 'file' with {dataset} found; expected one with a "
            "folder of recordings, and none with a single recording"
        )
    return found


def _line(dataset: Path, where: str, index: int, line: Sequence[str], columns: Mapping[str, int], width: int) -> _Line:
    if len(line) != width:
        raise InputError(
            f"{where} has {len(line)} values; expected {width}, one for each column of line 1: a comma within a value "
            "needs quotes around it"
        )

    def number(column: str) -> int:
        text = line[columns[column]]
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{where} has {column} '{printable(text)}'; expected a whole number") from None

    path = str(dataset / line[columns["file"]]) if "file" in columns else str(dataset)
    if "label" in columns:
        label = line[columns["label"]]
        if not label:
            raise InputError(f"{where} has no label; expected one")
    else:
        if number("class") < FIRST_CLASS:
            raise InputError(f"{where} has class {number('class')}; expected {FIRST_CLASS} or more")
        label = str(number("class") - FIRST_CLASS)
    if "start" not in columns:
        return _Line(where, path, path, label)
    start_us, end_us = number("start"), number("end")
    if start_us >= end_us:
        raise InputError(f"{where} is from {start_us} us to {end_us} us; expected an end behind the start")
    return _Line(where, f"{path}[{index}]", RecordingPart(path, start_us, end_us), label)
