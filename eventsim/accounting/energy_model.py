"""What a run costs by one table of prices: its energy, layer by layer and operation by operation.

An energy model knows facts of a layer (`eventsim.facts`) and its counts, and no layer class. What was executed and has
no price is told beside the energy, never left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal, Protocol, TypeAlias

from eventsim.errors import InputError
from eventsim.facts import Facts
from eventsim.ledger import Counts
from eventsim.operations import OPERATIONS
from eventsim.signals import SignalType

Graded: TypeAlias = Literal["unary", "mac"]
GRADED: dict[Graded, str] = {"unary": "graded_acs", "mac": "graded_macs"}
"""The one of two operations that says the same work, by how a model reads it."""

MEMORY_OF = {
    "weight_reads": "weight",
    "bias_reads": "bias",
    "sum_reads": "sum",
    "sum_writes": "sum",
    "potential_reads": "potential",
    "potential_writes": "potential",
    "table_reads": "table",
    "index_reads": "inputs",
    "index_writes": "output",
    "value_reads": "inputs",
    "value_writes": "output",
}
"""The memory that an operation reads or writes: one of `Facts.words`, or one that holds the signals of a time step."""

SIGNAL_BITS = 32
"""Of an address or a value between layers."""

Prices: TypeAlias = Mapping[str, float]
Sizes: TypeAlias = tuple[tuple[str, int, int], ...]
_Executed: TypeAlias = tuple[str, str, Sizes, dict[str, int]]
Points: TypeAlias = tuple[tuple[float, float], ...]


class Accounted(Protocol):
    """A layer whose work is priced: `LayerProfile` and `LayerSum` are two."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def facts(self) -> Facts: ...  # noqa: D102
    @property
    def counts(self) -> Counts: ...  # noqa: D102


@dataclass(frozen=True)
class Access:
    """What one word read or written costs, by the size of its memory.

    Attributes
    ----------
    points : mapping of int to tuple of (float, float)
        By bits of an access: bytes of the memory and picojoules of one access, bytes ascending. Between two points the
        price is linear, before the first it is the first one's, behind the last the last two points go on.
    per_bit : float
        Picojoules per bit, whatever the size, in place of points.
    size : int, optional
        Bytes of a memory that has the same size in every layer.
    """

    points: Mapping[int, Points] = field(default_factory=dict)
    per_bit: float = 0.0
    size: int | None = None

    def picojoules(self, size: int, bits: int) -> float:
        """Return the price of one word of some bits in a memory of some bytes.

        The narrowest access that takes the word at once serves it, else as many of the widest as it needs.
        """
        if not self.points:
            return self.per_bit * bits
        width = min((width for width in self.points if width >= bits), default=max(self.points))
        return -(-bits // width) * _on_line(self.points[width], size if self.size is None else self.size)


def _on_line(points: Points, at: float) -> float:
    if at <= points[0][0] or len(points) == 1:
        return points[0][1]
    behind = next((index for index, (size, _) in enumerate(points) if size >= at), len(points) - 1)
    (x0, y0), (x1, y1) = points[behind - 1 : behind + 1]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


@dataclass(frozen=True)
class Energy:
    """Energy of a run by one model, in millijoules.

    Attributes
    ----------
    model : str
    compute, memory : mapping of str to mapping of str to float
        By layer and operation; layers and operations that cost nothing are left out.
    unpriced : mapping of str to int
        Operations that were executed and have no price in the model, and how many they were.
    """

    model: str
    compute: Mapping[str, Mapping[str, float]]
    memory: Mapping[str, Mapping[str, float]]
    unpriced: Mapping[str, int]

    @cached_property
    def compute_mj(self) -> float:
        """Energy of arithmetic; of measured chips, all that a measured operation takes."""
        return sum(sum(by_operation.values()) for by_operation in self.compute.values())

    @cached_property
    def memory_mj(self) -> float:
        """Energy of reading, writing, addressing and moving data."""
        return sum(sum(by_operation.values()) for by_operation in self.memory.values())

    @property
    def total_mj(self) -> float:
        """Both together."""
        return self.compute_mj + self.memory_mj

    @property
    def by_layer(self) -> dict[str, float]:
        """Energy of each layer that took some."""
        layers: dict[str, float] = {}
        for part in (self.compute, self.memory):
            for layer, by_operation in part.items():
                layers[layer] = layers.get(layer, 0.0) + sum(by_operation.values())
        return layers

    @property
    def by_operation(self) -> dict[str, float]:
        """Energy of each operation that took some, in the order of the table of operations."""
        sums: dict[str, float] = {}
        for part in (self.compute, self.memory):
            for by_operation in part.values():
                for operation, energy in by_operation.items():
                    sums[operation] = sums.get(operation, 0.0) + energy
        return {operation: sums[operation] for operation in OPERATIONS if operation in sums}

    def __add__(self, other: Energy) -> Energy:
        if self.model != other.model:
            raise InputError(f"energies by {self.model} and {other.model} found; expected those of one model to add")
        unpriced = {**self.unpriced}
        for operation, executed in other.unpriced.items():
            unpriced[operation] = unpriced.get(operation, 0) + executed
        compute, memory = _added(self.compute, other.compute), _added(self.memory, other.memory)
        return Energy(self.model, compute, memory, unpriced)


def _added(one: Mapping[str, Prices], other: Mapping[str, Prices]) -> dict[str, dict[str, float]]:
    sums = {layer: dict(by_operation) for layer, by_operation in one.items()}
    for layer, by_operation in other.items():
        known = sums.setdefault(layer, {})
        for operation, energy in by_operation.items():
            known[operation] = known.get(operation, 0.0) + energy
    return sums


@dataclass(frozen=True)
class OfRole:
    """What is different in layers of one role.

    Attributes
    ----------
    compute, memory : mapping of str to float
        In place of the prices that other layers have.
    included : frozenset of str
        Operations that have no price of their own in these layers, as prices of others hold them.
    """

    compute: Prices = field(default_factory=dict)
    memory: Prices = field(default_factory=dict)
    included: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class EnergyModel:
    """Prices of operations, in picojoules.

    The energy of a layer is the sum over its operations of executed times price. An operation may have a price as
    arithmetic, one as memory, and one for the word that it reads or writes; they add up. Where an operation and a part
    of it both have one (all neuron updates, and those that change a potential), the part's is in place of the whole's.

    Attributes
    ----------
    name, source, note : str
    graded : {"unary", "mac"}
        Whether graded inputs are priced as unary accumulates (`graded_acs`), else as `graded_macs`.
    compute, memory : mapping of str to float
        Picojoules by operation.
    words : mapping of str to Access
        Price of a word by operation, one of `MEMORY_OF`.
    included : frozenset of str
        Operations that the prices of others hold already, such as the memory in a measured synaptic operation.
    roles : mapping of str to OfRole
        What is different in layers of a role.
    sum_bits : int, optional
        Bits of the widest integer sums that the prices of arithmetic are for, 0 where they are for floating-point
        numbers. Where given, layers of integers whose sums are wider have no price for it.
    """

    name: str
    source: str
    graded: Graded
    note: str = ""
    compute: Prices = field(default_factory=dict)
    memory: Prices = field(default_factory=dict)
    words: Mapping[str, Access] = field(default_factory=dict)
    included: frozenset[str] = frozenset()
    roles: Mapping[str, OfRole] = field(default_factory=dict)
    sum_bits: int | None = None

    def of(self, layers: Iterable[Accounted]) -> Energy:
        """Return the energy of a run.

        Parameters
        ----------
        layers : iterable of LayerProfile or LayerSum
            `Result.profile`, or sums over a data set.

        Returns
        -------
        Energy
        """
        return energies(layers, {self.name: self})[self.name]

    def prices_integers(self, facts: Facts) -> bool:
        """Return whether the prices of arithmetic are for what a layer adds up, if that is integers."""
        return self._holds({kind: words.bits for kind, words in facts.words.items()})

    def _holds(self, bits: Mapping[str, int]) -> bool:
        integers = bits.get("weight", SIGNAL_BITS) < SIGNAL_BITS
        return self.sum_bits is None or not integers or bits.get("sum", SIGNAL_BITS) <= self.sum_bits

    def section(self, part: Literal["compute", "memory"], role: str) -> dict[str, float]:
        """Return the prices of arithmetic, or those of memory without words, in layers of a role."""
        own = self.roles.get(role, OfRole())
        prices = {**self.compute, **own.compute} if part == "compute" else {**self.memory, **own.memory}
        return {operation: price for operation, price in prices.items() if operation not in own.included}

    def millijoules(self, counts: Counts) -> float:
        """Return the energy of counts of which no layer is known.

        Raises
        ------
        InputError
            If prices of the model depend on the layer.
        """
        if self.words or self.roles:
            raise InputError(f"energy model {self.name}: prices by layer found; expected layers, as `of` takes them")
        return self.of([_Bare(counts)]).total_mj


_NO_FACTS = Facts("other", (), SignalType("real", 0))


@dataclass(frozen=True)
class _Bare:
    """Counts without a layer."""

    counts: Counts
    name: str = ""
    facts: Facts = _NO_FACTS


def energies(layers: Iterable[Accounted], models: Mapping[str, EnergyModel]) -> dict[str, Energy]:
    """Return the energy of a run by each of some models."""
    executed: list[_Executed] = [
        (layer.name, layer.facts.role, _sizes(layer.facts), {name: n for name, n in layer.counts.items() if n})
        for layer in layers
    ]
    return {name: _energy(model, executed) for name, model in models.items()}


def _energy(model: EnergyModel, layers: list[_Executed]) -> Energy:
    parts: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
    unpriced: dict[str, int] = {}
    for name, role, sizes, counts in layers:
        rates = _rates(model, role, sizes, len(OPERATIONS))
        for part, prices, taken_out in zip(parts, rates.prices, rates.taken_out, strict=True):
            costs = {
                operation: 1e-9 * prices[operation] * (executed - counts.get(taken_out.get(operation, ""), 0))
                for operation, executed in counts.items()
                if operation in prices
            }
            if costs := {operation: cost for operation, cost in costs.items() if cost}:
                part[name] = costs
        for operation, executed in counts.items():
            if operation not in rates.told:
                rest = executed - counts.get(rates.told_in_part.get(operation, ""), 0)
                if rest:
                    unpriced[operation] = unpriced.get(operation, 0) + rest
    return Energy(model.name, *parts, {name: unpriced[name] for name in OPERATIONS if name in unpriced})


@dataclass(frozen=True)
class _Rates:
    """Prices of one layer.

    As arithmetic and as memory; the parts that have a price in place of their wholes'; what is not to be told as
    unpriced, and of what a part is not.
    """

    prices: tuple[Prices, Prices]
    taken_out: tuple[Mapping[str, str], Mapping[str, str]]
    told: frozenset[str]
    told_in_part: Mapping[str, str]


@lru_cache(maxsize=1 << 14)
def _rates(model: EnergyModel, role: str, sizes: Sizes, _: int) -> _Rates:
    """Return the prices of layers of a role with memories of some sizes; the last number is that of operations."""
    compute, memory = model.section("compute", role), model.section("memory", role)
    included = model.included | model.roles.get(role, OfRole()).included
    by_kind = {kind: (size, bits) for kind, size, bits in sizes}
    if not model._holds({kind: bits for kind, _, bits in sizes}):
        compute = {}
    for operation, access in model.words.items():
        if operation not in included and (held := by_kind.get(MEMORY_OF[operation])) is not None:
            memory[operation] = memory.get(operation, 0.0) + access.picojoules(*held)
    priced = compute.keys() | memory.keys()
    told = priced | included | {GRADED["mac" if model.graded == "unary" else "unary"]}
    told_in_part: dict[str, str] = {}
    opened: set[str] = set()
    for name in sorted(priced):
        for whole in OPERATIONS[name].part_of:
            if whole in told:
                continue
            if OPERATIONS[name].unit != OPERATIONS[whole].unit:  # an update, of which the steps have prices
                opened.add(whole)
            elif len(OPERATIONS[name].part_of) == 1:
                told_in_part[whole] = name
    silent, partial = _without_a_price(len(OPERATIONS))
    unopened = {name for name, wholes in partial.items() if opened.isdisjoint(wholes)}
    taken_out = (parts_in(compute), parts_in(memory))
    return _Rates((compute, memory), taken_out, frozenset(told | silent | unopened | opened), told_in_part)


@lru_cache(maxsize=1)
def _without_a_price(_: int) -> tuple[frozenset[str], Mapping[str, tuple[str, ...]]]:
    """Return what needs no price: what is told beside, and parts, with the wholes that, if opened, are told by them.

    The number is that of operations, of which there may be more later.
    """
    beside = frozenset(name for name, each in OPERATIONS.items() if each.group in ("input", "alternative"))
    partial = {
        name: tuple(whole for whole in part.part_of if OPERATIONS[whole].unit != part.unit)
        for name, part in OPERATIONS.items()
        if part.part_of
    }
    return beside, partial


def parts_in(prices: Prices) -> dict[str, str]:
    """Return the part that has a price in place of its whole's, for every whole that has one too.

    Raises
    ------
    InputError
        If the same work would be charged twice.
    """
    parts: dict[str, str] = {}
    for name in prices:
        wholes = OPERATIONS[name].part_of
        for whole in (whole for whole in wholes if whole in prices):
            if len(wholes) > 1 or OPERATIONS[name].unit != OPERATIONS[whole].unit or whole in parts:
                charged = f"{whole}, {parts[whole]} and {name}" if whole in parts else f"{whole} and {name}"
                raise InputError(f"prices of {charged} found; expected one of them, as the work is the same")
            parts[whole] = name
    return parts


def _sizes(facts: Facts) -> Sizes:
    """Return kind, bytes and bits of a word of every memory that a layer reads or writes."""
    sizes = {kind: (words.bytes, words.bits) for kind, words in facts.words.items()}
    if "bias" not in sizes and "weight" in sizes:
        sizes["bias"] = sizes["weight"]  # a layer that does not tell them apart holds all parameters in one
    given = sum(source.size for source in facts.inputs)
    sizes["inputs"] = (given * SIGNAL_BITS // 8, SIGNAL_BITS)
    sizes["output"] = (facts.output.size * SIGNAL_BITS // 8, SIGNAL_BITS)
    return tuple((kind, *size) for kind, size in sizes.items())
