"""What a layer is, whatever runs through it: sizes and widths, and what each operation of it entails.

Accounting needs no more of a layer than its facts and its columns of the ledger; nothing there asks for its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from eventsim.errors import LayerError
from eventsim.operations import OPERATIONS
from eventsim.signals import CountArray, SignalType

Role: TypeAlias = Literal[
    "input", "convolution", "linear", "neurons", "attention", "pool", "join", "scaling", "routing", "readout", "other"
]
ROLES = (
    "input", "convolution", "linear", "neurons", "attention", "pool", "join", "scaling", "routing", "readout", "other"
)  # fmt: skip
MEMORIES = ("weight", "bias", "potential", "sum", "table")
"""Kinds of memory that a layer may own."""
Entailed: TypeAlias = Mapping[str, Mapping[str, int]]
UNCOUNTED = ("input", "routing", "readout")
"""Roles of layers that hand on what they are given; those behind them read it."""
READING: Entailed = {"messages": {"index_reads": 1}}
"""What holds of every layer: a message is an address that is read."""


@dataclass(frozen=True)
class Words:
    """A kind of memory that a layer owns: so many words of so many bits."""

    number: int
    bits: int = 32

    @property
    def bytes(self) -> int:
        """Size in bytes, rounded up."""
        return -(-self.number * self.bits // 8)


@dataclass(frozen=True)
class Facts:
    """What is known of a layer before anything runs; all sizes are those of one time step.

    Attributes
    ----------
    role : str
        What kind of layer it is, one of `ROLES`. A ``"routing"`` layer renames or delays values and computes nothing.
    inputs : tuple of SignalType
    output : SignalType
    dense_macs : int
        Multiply-accumulates if nothing were sparse.
    neurons : int
        Neurons that hold a membrane potential.
    biased : int
        Outputs that receive a bias.
    heads : int
        Of an attention; 0 elsewhere.
    order : str
        Of an attention without a softmax: ``"scores_first"`` or ``"context_first"``; empty elsewhere.
    inner_macs : int
        Those of `dense_macs` that read inside of the map, not in its padding.
    zero_weights : int
        Weights that are exactly 0.
    words : mapping of str to Words
        Memory that the layer owns, by the kinds of `MEMORIES`.
    entailed : mapping of str to mapping of str to int
        For each operation that the layer reports, how many of which others go with one of it. What it entails does not
        entail more.

    Raises
    ------
    LayerError
        If a role, a kind of memory or an operation is not known, or numbers are not whole ones of 0 or more.
    """

    role: Role
    inputs: tuple[SignalType, ...]
    output: SignalType
    dense_macs: int = 0
    neurons: int = 0
    biased: int = 0
    heads: int = 0
    order: str = ""
    inner_macs: int = 0
    zero_weights: int = 0
    words: Mapping[str, Words] = field(default_factory=dict)
    entailed: Entailed = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise LayerError(f"role {self.role!r} found; expected one of {', '.join(ROLES)}")
        for kind, words in self.words.items():
            if kind not in MEMORIES:
                raise LayerError(f"words of {kind!r} found; expected one of {', '.join(MEMORIES)}")
            if not isinstance(words, Words) or words.number < 0 or words.bits < 1:
                raise LayerError(f"{kind} words {words!r} found; expected eventsim.facts.Words, 0 or more")
        for executed, follows in self.entailed.items():
            for operation in (executed, *follows):
                if operation not in OPERATIONS:
                    raise LayerError(
                        f"operation {operation!r} among what is entailed found; expected one registered in "
                        "eventsim.operations"
                    )
            for operation, times in follows.items():
                if not isinstance(times, int) or times < 0:
                    raise LayerError(f"{times!r} {operation} for each of {executed} found; expected a whole number")

    @cached_property
    def reads(self) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Of each input that is not counted otherwise: its place, and the operations that its values are."""
        if self.role in UNCOUNTED:
            return ()
        of_rows = ("messages", "value_reads")
        told = [
            ("value_reads",) if source.dense else of_rows[: 1 if source.kind == "binary" else 2]
            for source in self.inputs
        ]
        return tuple((place, own) for place, all_ in enumerate(told) if (own := self._not_derived(all_)))

    @cached_property
    def writes(self) -> tuple[str, ...]:
        """The operations that the values of the output are, those that are not counted otherwise."""
        if self.role in UNCOUNTED:
            return ()
        of_rows = ("index_writes", "value_writes")
        return self._not_derived(
            ("value_writes",) if self.output.dense else of_rows[: 1 if self.output.kind == "binary" else 2]
        )

    def _not_derived(self, operations: tuple[str, ...]) -> tuple[str, ...]:
        derived = {operation for follows in self.entailed.values() for operation in follows}
        return tuple(operation for operation in operations if operation not in derived)

    def derived(self, columns: Mapping[str, CountArray]) -> dict[str, CountArray]:
        """Return the operations that those executed entail: executed times facts.

        Parameters
        ----------
        columns : mapping of str to int64 array
            What the layer's op reported.
        """
        sums: dict[str, CountArray] = {}
        for executed, follows in self.entailed.items():
            if executed in columns:
                for operation, times in follows.items():
                    more = columns[executed] * np.int64(times)
                    sums[operation] = sums[operation] + more if operation in sums else more
        return sums


def arriving(*inputs: SignalType) -> Entailed:
    """Return what the inputs that a layer reports (`inputs`, `nonzero_inputs`) bring: messages, or dense values.

    Nothing of inputs of which some are rows and some dense, or some have values and some not: those are reported.
    """
    if all(source.dense for source in inputs):
        return {"inputs": {"value_reads": 1}}
    if any(source.dense for source in inputs):
        return {}
    valued = {source.kind != "binary" for source in inputs}
    message = {"messages": 1, "index_reads": 1}
    if valued == {True, False}:
        return {"nonzero_inputs": message}
    return {"nonzero_inputs": {**message, "value_reads": 1} if True in valued else message}


def merged(*entailed: Entailed) -> dict[str, dict[str, int]]:
    """Return several declarations as one; what two say of one operation adds up."""
    result: dict[str, dict[str, int]] = {}
    for some in entailed:
        for executed, follows in some.items():
            known = result.setdefault(executed, {})
            for operation, times in follows.items():
                known[operation] = known.get(operation, 0) + times
    return result
