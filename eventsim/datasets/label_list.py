"""Lists of labels: which parts of which recordings are of which class, as tables in csv.

The DVS128 Gesture data set comes as recordings of several gestures, ``user01_led.aedat``, each beside its list,
``user01_led_labels.csv``, with the columns ``class``, ``startTime_usec`` and ``endTime_usec``: classes from 1 on, times
as in the recording, the end excluded (as SpikingJelly splits them). https://research.ibm.com/interactive/dvsgesture/
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from eventsim.datasets.samples import Sample
from eventsim.dvs import RecordingPart
from eventsim.dvs.readable_file import readable_file
from eventsim.errors import InputError

CLASS = {"label": 0, "class": 1}
"""Columns of the class, and the number of the first one: ``class`` counts from 1, as DVS128 Gesture does."""
START, END, FILE = ("starttime_usec", "start_us"), ("endtime_usec", "end_us"), "file"
SUFFIX = "_labels.csv"
LONGEST_LIST = 64 << 20


def labelled_parts(dataset: str | Path, labels: str | Path) -> list[Sample]:
    """List the parts of recordings that tables name, or whole recordings where they name no times.

    Parameters
    ----------
    dataset : path
        One recording, of which the table names parts; or the folder in which recordings are looked for.
    labels : path
        A table in csv, with a line of names: ``label`` (classes from 0 on) or ``class`` (from 1 on, as DVS128 Gesture
        has them); ``startTime_usec`` and ``endTime_usec``, microseconds; ``file``, where `dataset` is a folder. Or a
        folder of ``NAME_labels.csv``, each the table of the recording ``NAME`` with some extension.

    Returns
    -------
    list of Sample
        In the order of the tables. A part is called ``FILE[i]``, with i counting the lines of its table from 0.

    Raises
    ------
    InputError
        A table cannot be read or is empty, a column lacks, a value makes no sense, or a recording is not there.
    """
    dataset, labels = Path(dataset), Path(labels)
    if labels.is_dir():
        tables = sorted(labels.glob(f"*{SUFFIX}"))
        if not tables:
            raise InputError(f"{labels}: no tables NAME{SUFFIX} found; expected one for each recording")
        return [sample for table in tables for sample in _of_table(_recording_of(dataset, table), table)]
    return _of_table(dataset, labels)


def _recording_of(folder: Path, table: Path) -> Path:
    name = table.name.removesuffix(SUFFIX)
    found = sorted(path for path in folder.glob(f"{name}.*") if path.is_file())
    if len(found) != 1:
        raise InputError(f"{table}: {len(found)} recordings {folder / name}.* found; expected one")
    return found[0]


def _of_table(dataset: Path, table: Path) -> list[Sample]:
    file = readable_file(table)
    if file.size > LONGEST_LIST:
        raise InputError(f"{table}: {file.size} bytes found; expected a table of at most {LONGEST_LIST}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as opened:
            lines = [[cell.strip() for cell in line] for line in csv.reader(opened) if any(map(str.strip, line))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a table in csv ({error})") from None
    names = [name.lower() for name in lines[0]] if lines else []
    columns = _columns(dataset, table, names)
    if len(lines) < 2:
        raise InputError(f"{table}: no lines below the names of the columns found; expected one for each sample")
    return [_sample(dataset, table, index, line, columns) for index, line in enumerate(lines[1:])]


def _columns(dataset: Path, table: Path, names: Sequence[str]) -> dict[str, int]:
    """Find each column that is needed; `class` and `label` under their own names."""
    found: dict[str, int] = {}
    spelt = {"start": START, "end": END, FILE: (FILE,), **{name: (name,) for name in CLASS}}
    for role, spellings in spelt.items():
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
    if ("start" in found) != ("end" in found):
        raise InputError(f"{table}: one of startTime_usec and endTime_usec found; expected both columns, or neither")
    if dataset.is_dir() != (FILE in found):
        raise InputError(
            f"{table}: {'a' if FILE in found else 'no'} column 'file' with {dataset} found; expected one with a folder "
            "of recordings, and none with a single recording"
        )
    return found


def _sample(dataset: Path, table: Path, index: int, line: Sequence[str], columns: Mapping[str, int]) -> Sample:
    where = f"{table}: line {index + 1} below the names"
    if len(line) <= max(columns.values()):
        raise InputError(f"{where} has {len(line)} values; expected {max(columns.values()) + 1} or more")

    def number(column: str) -> int:
        text = line[columns[column]]
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{where} has {column} {text!r}; expected a whole number") from None

    path = str(dataset / line[columns[FILE]]) if FILE in columns else str(dataset)
    column = "class" if "class" in columns else "label"
    label = number(column) - CLASS[column]
    if label < 0:
        raise InputError(f"{where} has {column} {number(column)}; expected {CLASS[column]} or more")
    if "start" not in columns:
        return Sample(path, label, path)
    start_us, end_us = number("start"), number("end")
    if start_us >= end_us:
        raise InputError(f"{where} is from {start_us} us to {end_us} us; expected an end behind the start")
    return Sample(f"{path}[{index}]", label, RecordingPart(path, start_us, end_us))
