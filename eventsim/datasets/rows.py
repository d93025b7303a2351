"""Outcomes in a file, one row a sample, appended as they come, and read again to go on where somebody stopped.

A row is complete or is not there: a line that was cut as it was written is left out when the file is read. Every row
says which run it is of, so that rows of several shards can be put together in one file.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from eventsim.datasets.outcome import Outcome, Row, outcome_of
from eventsim.datasets.samples import Sample
from eventsim.errors import InputError
from eventsim.hashes import sha256
from eventsim.operations import OPERATIONS
from eventsim.plan import Schedule
from eventsim.untrusted import first_line
from eventsim.whole_file import whole_file

Plain: TypeAlias = Mapping[str, Any]
SUFFIXES = (".csv", ".jsonl", ".parquet")
WHOLE, REAL, TEXT, YES_OR_NO, OBJECT = "int64", "float64", "string", "bool", "JSON"
COLUMNS = {
    "index": WHOLE, "input": TEXT, "label": WHOLE, "prediction": WHOLE, "error": TEXT, "time_steps": WHOLE,
    "margin": REAL, "label_margin": REAL, "finite": YES_OR_NO, "step_predictions": OBJECT, "binning_s": REAL,
    "reading_s": REAL, "latency_s": REAL, "latency_comparable": YES_OR_NO, "input_sha256": TEXT, "recording": OBJECT,
    "dense_macs": WHOLE, "totals": WHOLE, "energy_mj": REAL, "conventions": OBJECT, "layers": OBJECT, "run": OBJECT,
}  # fmt: skip
"""Of tables; `totals` and `energy_mj` stand for a column for each operation and each energy model."""
ENERGY = "energy_mj."


class RowsFile:
    """Where the outcomes of a run go.

    Parameters
    ----------
    path : Path
        Ends in ``.csv``, ``.jsonl`` or ``.parquet``; rows for the last are appended to ``FILE.parquet.jsonl``, of which
        `finish` makes the file.
    run : mapping
        What the run is of: model, data set, options; plain data.
    energies : sequence of str
        Names of energy models.
    resume : bool
        Whether to go on with a file that is there.

    Raises
    ------
    InputError
        If the name ends in something else, the file is there and nobody said to go on with it, what makes Parquet of
        rows is not installed, or the file cannot be opened.
    """

    def __init__(self, path: Path, run: Plain, energies: Sequence[str], *, resume: bool) -> None:
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise InputError(
                f"{path}: rows in a file of no known kind; expected a name that ends in {', '.join(SUFFIXES)}"
            )
        self.path = path
        self.run: dict[str, Any] = json.loads(json.dumps(run))
        self.energies = tuple(energies)
        self._parquet = suffix == ".parquet"
        self._growing = Path(f"{path}.jsonl") if self._parquet else path
        self._as_csv = suffix == ".csv"
        if self._parquet:
            _pyarrow(path)
        there = [each for each in dict.fromkeys((self._growing, path)) if each.exists() and each.stat().st_size]
        if there and not resume:
            raise InputError(f"{there[0]}: is there; expected --resume to go on with its rows, or another name")
        self.rows = self._read() if there else []
        self._file: io.FileIO | None = None
        self._full = False
        try:
            self._growing.open("ab").close()  # where nothing can be written, nothing needs to be simulated
        except OSError as error:
            raise self._unwritable(error) from None

    def outcomes(self, samples: Iterable[Sample], schedule: Schedule) -> list[Outcome]:
        """Return what the rows that were there tell.

        Parameters
        ----------
        samples : iterable of Sample
            All that the run is about.
        schedule : Schedule
            Of its network.

        Raises
        ------
        InputError
            If a row is of another run or of none of the samples, one sample has two, or a sample's file has another
            content than its row was made of. Files that are not here are taken to be as they were.
        """
        asked = {sample.index: sample for sample in samples}
        found: dict[int, Outcome] = {}
        places: dict[int, int] = {}
        rows, self.rows = self.rows, []  # they are large, and needed once
        for number, row in enumerate(rows, 1):
            at = f"{self.path}: row {number}"
            try:
                self._check_run(row["run"])
                sample = asked.get(row["index"])
                if sample is None or (sample.name, sample.label) != (row["input"], row["label"]):
                    raise InputError(
                        f"{at}: sample {row['index']}, {row['input']} of class {row['label']} found; expected one of "
                        "those asked for: take another name for the rows, or the same data set and part of it"
                    )
                if sample.index in found:
                    raise InputError(f"{at}: sample {sample.index} found again; expected each once")
                found[sample.index] = outcome_of(row, sample, schedule)
                places[sample.index] = number
            except InputError:
                raise
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{at}: no row of evaluate ({first_line(error)}); take another name") from None
        self._check_files(found, places)
        return list(found.values())

    def append(self, outcome: Outcome) -> None:
        """Write one row, at once; what does not fit is taken back, and leaves the rows before it.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        self._write(self._line_of(outcome.row() | {"run": self.run}))

    def finish(self, *, complete: bool) -> None:
        """Close the file, and make Parquet of the rows where that was asked for; only a complete one takes their place.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        if self._file is not None:
            self._file.close()
        if not self._growing.stat().st_size:
            self._growing.unlink()
        elif self._parquet and not self._full:
            self._write_parquet()
            if complete:
                self._growing.unlink()

    def _line_of(self, row: Row) -> str:
        if not self._as_csv:
            return _json(row) + "\n"
        flat = self._flat(row)
        return _line(flat[name] for name in self._columns())

    def _write(self, line: str) -> None:
        try:
            if self._file is None:
                self._file = self._growing.open("ab", buffering=0)
            before = os.fstat(self._file.fileno()).st_size
            if self._as_csv and not before:
                line = _line(self._columns()) + line
            rest = memoryview(line.encode("utf-8", "surrogateescape"))
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._full = True
                with suppress(OSError):
                    self._file.truncate(before)
                raise
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: Exception) -> InputError:
        there = self._parquet and self._growing.exists() and self._growing.stat().st_size
        kept = f"; its rows are in {self._growing}, and --resume goes on with them" if there else ""
        return InputError(f"{self.path}: cannot be written ({first_line(error)}){kept}")

    def _columns(self) -> list[str]:
        more = {"totals": list(OPERATIONS), "energy_mj": [ENERGY + name for name in self.energies]}
        return [name for column in COLUMNS for name in more.get(column, [column])]

    def _flat(self, row: Row) -> dict[str, Any]:
        """Return a row as one of a table: what has no column of its own is JSON."""
        flat: dict[str, Any] = {
            name: _json(row[name]) if kind == OBJECT else row[name] for name, kind in COLUMNS.items()
        }
        totals, energy = flat.pop("totals"), flat.pop("energy_mj")
        flat |= {name: totals.get(name) for name in OPERATIONS}
        return flat | {ENERGY + name: energy.get(name) for name in self.energies}

    def _check_run(self, found: Plain) -> None:
        """Refuse rows of another run, by what differs."""
        differing = list(_differences(found, self.run))
        if differing:
            raise InputError(
                f"{self.path}: rows of another run: {'; '.join(differing)}; take another name for the rows"
            )

    def _check_files(self, found: Mapping[int, Outcome], places: Mapping[int, int]) -> None:
        """Refuse rows of files that have another content now; what is hashed takes less than simulating it did."""
        changed: list[int] = []
        for index, outcome in found.items():
            file = outcome.sample.reference
            if isinstance(file, str) and outcome.input_sha256 is not None:
                now = sha256(file)
                if now is not None and now != outcome.input_sha256:
                    changed.append(index)
        if changed:
            files, them = ("1 file", "it") if len(changed) == 1 else (f"{len(changed):,} files", "them")
            raise InputError(
                f"{self.path}: {files} found that changed since their rows were written, the first is "
                f"{found[changed[0]].sample.name} (row {places[changed[0]]}); expected {them} as before: put {them} "
                "back, or take another name for the rows"
            )

    def _read(self) -> list[Row]:
        """Return the complete rows of a file, and take away what was cut while it was written."""
        try:
            if not self._growing.exists():  # Parquet that was complete: its rows grow again
                rows = _parquet_rows(self.path)
                self._replace(rows)
                return rows
            text = self._growing.read_bytes().decode("utf-8", "surrogateescape")
            rows, whole = self._rows_of_csv(text) if self._as_csv else self._rows_of_json(text)
            if not whole:
                self._replace(rows)
            return rows
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read or replaced ({first_line(error)})") from None

    def _replace(self, rows: Iterable[Row]) -> None:
        lines = [_line(self._columns())] if self._as_csv else []
        lines += [self._line_of(row) for row in rows]
        with whole_file(self._growing) as partial:
            partial.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))

    def _rows_of_json(self, text: str) -> tuple[list[Row], bool]:
        *lines, rest = text.split("\n")
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self.path}: line {number}: no JSON ({first_line(error)}); expected a row") from None
        return rows, not rest

    def _rows_of_csv(self, text: str) -> tuple[list[Row], bool]:
        lines = list(io.StringIO(text, newline=""))
        reader = csv.reader(lines, strict=True)
        rows: list[Row] = []
        header: list[str] = []
        before = csv.field_size_limit(1 << 30)
        try:
            header = next(reader, [])
            if _line(self._columns()).startswith(text):  # or the beginning of it, of a run that was stopped there
                return [], not text
            self._check_header(header)
            for cells in reader:
                if reader.line_num == len(lines) and not text.endswith("\n"):
                    return rows, False
                if cells[:1] == header[:1]:  # of the next file, put below this one
                    self._check_header(cells)
                    continue
                rows.append(_nested(dict(zip(header, cells, strict=True))))
        except csv.Error as error:
            if header and reader.line_num == len(lines):  # cut within quotes
                return rows, False
            raise InputError(f"{self.path}: line {reader.line_num}: no CSV ({first_line(error)})") from None
        except InputError:
            raise
        except (ValueError, KeyError, RecursionError) as error:
            raise InputError(f"{self.path}: line {reader.line_num}: {first_line(error)}; expected a row") from None
        finally:
            csv.field_size_limit(before)
        return rows, True

    def _check_header(self, header: list[str]) -> None:
        if header != self._columns():
            differing = sorted(set(header) ^ set(self._columns()))
            raise InputError(
                f"{self.path}: columns of another run found, {', '.join(differing[:3]) or 'in another order'}; "
                "take another name for the rows"
            )

    def _write_parquet(self) -> None:
        pa, parquet = _pyarrow(self.path)
        kinds = {WHOLE: pa.int64(), REAL: pa.float64(), TEXT: pa.string(), YES_OR_NO: pa.bool_(), OBJECT: pa.string()}
        schema = pa.schema([(name, kinds[_kind(name)]) for name in self._columns()])
        with whole_file(self.path) as partial:
            try:
                with parquet.ParquetWriter(partial, schema) as writer, self._growing.open(encoding="utf-8") as file:
                    while lines := file.readlines(1 << 24):
                        flat = [_utf8(self._flat(json.loads(line))) for line in lines]
                        writer.write_table(pa.Table.from_pylist(flat, schema))
            except OSError as error:
                raise self._unwritable(error) from None


def _kind(column: str) -> str:
    return COLUMNS.get(column, REAL if column.startswith(ENERGY) else WHOLE)


def _nested(flat: Plain) -> Row:
    """Return the row of which `RowsFile._flat` made one of a table."""
    row: Row = {name: _value(flat[name], kind) for name, kind in COLUMNS.items() if name in flat}
    row["totals"] = {name: int(flat[name]) for name in OPERATIONS if flat[name] not in ("", None)}
    energies = {name.removeprefix(ENERGY): value for name, value in flat.items() if name.startswith(ENERGY)}
    row["energy_mj"] = {name: float(value) for name, value in energies.items() if value not in ("", None)}
    return row


def _value(cell: Any, kind: str) -> Any:
    if cell == "" or cell is None:
        return None
    if kind == OBJECT:
        return json.loads(cell)
    if kind == YES_OR_NO:
        return cell in (True, "True")
    return {WHOLE: int, REAL: float, TEXT: str}[kind](cell)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(list(cells))
    return text.getvalue()


def _utf8(flat: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose names are text, as Parquet wants it, whatever bytes a file is named by."""
    for name in ("input", "error"):
        if flat[name] is not None:
            flat[name] = flat[name].encode("utf-8", "backslashreplace").decode()
    return flat


def _differences(found: Plain, expected: Plain, at: str = "") -> Iterator[str]:
    """Yield what differs in one of two objects, down to the single value."""
    for name in dict.fromkeys((*expected, *found)):
        theirs, ours = found.get(name), expected.get(name)
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            yield from _differences(theirs, ours, f"{at}{name}.")
        elif theirs != ours:
            yield f"{at}{name} {_shown(theirs)} found, {_shown(ours)} expected"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - for Parquet alone
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise InputError(
            f"{path}: pyarrow not found; expected it for Parquet: pip install 'eventsim[parquet]'"
        ) from None
    return pa, parquet


def _parquet_rows(path: Path) -> list[Row]:
    pa, parquet = _pyarrow(path)
    try:
        return [_nested(row) for row in parquet.read_table(path).to_pylist()]
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as rows of evaluate ({first_line(error)})") from None
