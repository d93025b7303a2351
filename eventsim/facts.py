"""What a layer is, whatever runs through it: sizes and widths, and what each operation of it entails.

Accounting needs no more of a layer than its facts and its columns of the ledger; nothing there asks for its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from eventsim.signals import CountArray, SignalType

Role: TypeAlias = Literal[
    "input", "convolution", "linear", "neurons", "attention", "pool", "join", "scaling", "routing", "readout", "other"
]
ROLES = (
    "input", "convolution", "linear", "neurons", "attention", "pool", "join", "scaling", "routing", "readout", "other"
)  # fmt: skip
Entailed: TypeAlias = Mapping[str, Mapping[str, int]]


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
        Memory that the layer owns: ``"weight"``, ``"bias"``, ``"potential"``, ``"sum"``, ``"table"``.
    entailed : mapping of str to mapping of str to int
        For each operation that the layer reports, how many of which others go with one of it.
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


def merged(*entailed: Entailed) -> dict[str, dict[str, int]]:
    """Return several declarations as one; what two say of one operation adds up."""
    result: dict[str, dict[str, int]] = {}
    for some in entailed:
        for executed, follows in some.items():
            known = result.setdefault(executed, {})
            for operation, times in follows.items():
                known[operation] = known.get(operation, 0) + times
    return result
