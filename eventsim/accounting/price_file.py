"""Prices as TOML: what may stand in a file, read into an energy model.

docs/energy.md shows how to write one.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from eventsim.accounting.energy_model import GRADED, MEMORY_OF, Access, EnergyModel, OfRole, Points, parts_in
from eventsim.errors import InputError
from eventsim.facts import ROLES
from eventsim.operations import OPERATIONS

LARGEST_FILE = 1 << 20
MOST_DOTS = 1 << 10
LARGEST_PRICE = 1e12
"""A joule: no price is larger, and no sum of priced counts leaves the range of floats."""

_REQUIRED = ("name", "source", "unit", "graded")
_OPTIONAL = ("note", "sum_bits", "included", "compute", "memory", "words", "tables", "roles")
_NAME = r"[\w.-]+"
_AN_OPERATION = "an operation of eventsim.operations"
_Read = TypeVar("_Read")


def load_prices(path: str | Path) -> EnergyModel:
    """Read a price file.

    Parameters
    ----------
    path : str or Path
        TOML; prices are in picojoules.

    Returns
    -------
    EnergyModel

    Raises
    ------
    InputError
        If the file cannot be read, is no TOML, or holds anything but prices of operations that there are; one line.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return parse_prices(str(path), content)


def parse_prices(path: str, content: bytes) -> EnergyModel:
    """Read the content of a price file; `path` is what errors call it.

    Raises
    ------
    InputError
        As `load_prices`.
    """
    if len(content) > LARGEST_FILE:
        raise InputError(f"{path}: more than {LARGEST_FILE:,} bytes found; expected a price file")
    if (dots := max((line.count(b".") for line in content.splitlines()), default=0)) > MOST_DOTS:
        # keys within keys, which take hours to read
        raise InputError(f"{path}: a line with {dots:,} dots found; expected a price file")
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad TOML, numbers or nesting without end
        said = str(error).split("\n", 1)[0][:120]
        raise InputError(f"{path}: no TOML ({said}); expected a price file") from None
    return read_prices(path, document)


def read_prices(path: str, document: Mapping[str, Any]) -> EnergyModel:
    """Read the tables of a price file.

    Raises
    ------
    InputError
        As `load_prices`.
    """
    return _PriceFile(path, document).model()


class _PriceFile:
    """A document and the name of its file, for errors."""

    def __init__(self, path: str, document: Mapping[str, Any]) -> None:
        self.path = path
        self.document = document

    def refuse(self, where: str, found: object, expected: str) -> NoReturn:
        """Raise what is wrong at a key; values of any kind and length are shortened."""
        raise InputError(f"{self.path}: {where}{': ' if where else ''}{str(found)[:60]!r} found; expected {expected}")

    def model(self) -> EnergyModel:
        for key in self.document:
            if key not in (*_REQUIRED, *_OPTIONAL):
                self.refuse("", key, f"one of {', '.join((*_REQUIRED, *_OPTIONAL))}")
        name, source, unit, graded = (self.text(key) for key in _REQUIRED)
        if not re.fullmatch(_NAME, name, re.ASCII):
            self.refuse("name", name, "letters, digits, '_', '.' and '-'")
        if unit != "pJ":
            self.refuse("unit", unit, "'pJ'")
        if graded not in GRADED:
            self.refuse("graded", graded, " or ".join(map(repr, GRADED)))
        compute, memory = self.prices("compute", self.document), self.prices("memory", self.document)
        words = self.words()
        included = self.included("included", self.document.get("included", []))
        roles = self.by_name("roles", self.document, ROLES, self.role)
        note, bits = self.text("note", "").strip(), self.sum_bits()
        model = EnergyModel(name, source, graded, note, compute, memory, words, included, roles, bits)
        self.check(model)
        return model

    def check(self, model: EnergyModel) -> None:
        """Refuse prices that charge the same work twice, anywhere."""
        other = GRADED["mac" if model.graded == "unary" else "unary"]
        for role in ROLES:
            for part in ("compute", "memory"):
                prices = model.section(part, role)
                where = f"roles.{role}.{part}" if role in model.roles else part
                if other in prices:
                    self.refuse(where, other, f"{GRADED[model.graded]}, as graded = {model.graded!r} says")
                try:
                    parts_in(prices)
                except InputError as error:
                    raise InputError(f"{self.path}: {where}: {error}") from None
        priced = model.compute.keys() | model.memory.keys() | model.words.keys()
        if twice := sorted(priced & model.included):
            self.refuse("included", twice[0], "operations without a price of their own")
        for name, own in model.roles.items():
            if twice := sorted((own.compute.keys() | own.memory.keys()) & own.included):
                self.refuse(f"roles.{name}.included", twice[0], "operations without a price of their own there")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.document.get(key, default)
        if value is None:
            expected = "'pJ'" if key == "unit" else "a text"
            raise InputError(f"{self.path}: no {key} found; expected {key} = {expected}")
        if not isinstance(value, str) or (key in _REQUIRED and not value.strip()):
            self.refuse(key, value, "a text")
        return value

    def sum_bits(self) -> int | None:
        value = self.document.get("sum_bits")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1024):
            self.refuse("sum_bits", value, "bits of the widest integer sum that is priced, or 0 of prices in float")
        return value

    def table(self, key: str, parent: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        value = parent.get(key, {})
        if not isinstance(value, dict):
            self.refuse(where, value, "a table")
        return value

    def by_name(
        self, where: str, parent: Mapping[str, Any], known: Collection[str], read: Callable[[str, Any], _Read]
    ) -> dict[str, _Read]:
        """Read every entry of a table whose keys are known names; `where` ends with the key of the table."""
        entries = self.table(where.rpartition(".")[2], parent, where)
        for name in entries:
            if name not in known:
                listed = _AN_OPERATION if len(known) == len(OPERATIONS) else f"one of {', '.join(known)}"
                self.refuse(where, name, listed)
        return {name: read(f"{where}.{name}", value) for name, value in entries.items()}

    def prices(self, where: str, parent: Mapping[str, Any]) -> dict[str, float]:
        """Read prices by operation."""
        found = self.by_name(where, parent, OPERATIONS, self.number)
        for name in found:
            if OPERATIONS[name].group in ("input", "alternative"):
                self.refuse(where, name, "work; that is what is offered, or what another machine would do")
        return found

    def number(self, where: str, value: Any) -> float:
        price = self.real(where, value)
        if not 0 <= price <= LARGEST_PRICE:
            self.refuse(where, value, f"picojoules from 0 to {LARGEST_PRICE:g}")
        return price

    def real(self, where: str, value: Any) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError
            if not math.isfinite(real := float(value)):
                raise OverflowError
        except TypeError:
            self.refuse(where, value, "a number")
        except OverflowError:
            self.refuse(where, value, "a finite number")
        return real

    def included(self, where: str, value: Any) -> frozenset[str]:
        if not isinstance(value, list):
            self.refuse(where, value, "a list of operations")
        for name in value:
            if not isinstance(name, str) or name not in OPERATIONS:
                self.refuse(where, name, _AN_OPERATION)
        return frozenset(value)

    def role(self, where: str, value: Any) -> OfRole:
        if not isinstance(value, dict):
            self.refuse(where, value, "a table")
        for key in value:
            if key not in ("compute", "memory", "included"):
                self.refuse(where, key, "compute, memory or included")
        return OfRole(
            self.prices(f"{where}.compute", value),
            self.prices(f"{where}.memory", value),
            self.included(f"{where}.included", value.get("included", [])),
        )

    def words(self) -> dict[str, Access]:
        tables = self.table("tables", self.document, "tables")
        for name in tables:
            if not re.fullmatch(_NAME, name, re.ASCII):
                self.refuse("tables", name, "letters, digits, '_', '.' and '-'")
        read = {name: self.access(f"tables.{name}", value) for name, value in tables.items()}

        def named(where: str, value: Any) -> tuple[str, Access]:
            return self.word(where, value, read)

        entries = self.by_name("words", self.document, MEMORY_OF, named)
        used = {name for name, _ in entries.values()}
        if unused := sorted(read.keys() - used):
            self.refuse("tables", unused[0], "a table that an operation under words names")
        return {operation: access for operation, (_, access) in entries.items()}

    def word(self, where: str, value: Any, tables: Mapping[str, Access]) -> tuple[str, Access]:
        """Read the table that an operation names, with or without a size of the memory."""
        size = None
        if isinstance(value, dict):
            for key in value:
                if key not in ("table", "bytes"):
                    self.refuse(where, key, "table and bytes")
            if not 0 <= (given := self.real(f"{where}.bytes", value.get("bytes"))) < 1 << 62 or given != int(given):
                self.refuse(f"{where}.bytes", value["bytes"], "a whole number of bytes")
            size, value = int(given), value.get("table")
        if not isinstance(value, str) or value not in tables:
            self.refuse(where, value, f"a table under tables: {', '.join(tables)[:200] or 'there is none'}")
        return value, Access(tables[value].points, tables[value].per_bit, size)

    def access(self, where: str, value: Any) -> Access:
        """Read a table of words: points by bits of an access, or a price per bit."""
        if not isinstance(value, dict) or not value:
            self.refuse(where, value, "per_bit, or points by bits of an access")
        if "per_bit" in value:
            if len(value) > 1:
                self.refuse(where, ", ".join(value), "per_bit alone")
            return Access(per_bit=self.number(f"{where}.per_bit", value["per_bit"]))
        for width in value:
            if not re.fullmatch(r"[1-9]\d{0,3}", width, re.ASCII):
                self.refuse(where, width, "bits of an access, or per_bit")
        return Access({int(width): self.points(f"{where}.{width}", points) for width, points in value.items()})

    def points(self, where: str, value: Any) -> Points:
        if not isinstance(value, list) or not value:
            self.refuse(where, value, "a list of [bytes, picojoules]")
        points: list[tuple[float, float]] = []
        for point in value:
            if not isinstance(point, list) or len(point) != 2:
                self.refuse(where, point, "[bytes, picojoules]")
            size, price = self.real(where, point[0]), self.number(where, point[1])
            if size < 0 or size != int(size) or (points and (size <= points[-1][0] or price < points[-1][1])):
                self.refuse(where, point, "whole bytes from 0 on that ascend, and prices that do not fall")
            points.append((size, price))
        return tuple(points)
