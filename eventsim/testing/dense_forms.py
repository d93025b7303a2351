"""The contract of a layer's dense form."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from eventsim.layers import Layer
from eventsim.layers.dense import Memory
from eventsim.margin import Differences, allowed_by
from eventsim.signals import FloatArray, Signal, SignalType, to_frames


def check_has_dense_form(layer: Layer) -> None:
    """Check that a layer says what it computes.

    Raises
    ------
    AssertionError
        If it does not.
    """
    if type(layer).dense is Layer.dense:
        raise AssertionError(
            f"{type(layer).__name__}: has no dense form; expected a method `dense`, as "
            "docs/contributing/add-a-layer.md describes it"
        )


def check_dense_form(
    layer: Layer, sources: Sequence[SignalType], sample: tuple[Signal, ...], emitted: FloatArray
) -> None:
    """Check that the dense form computes what the op emitted, also step by step: exactly, or as rounding explains.

    Parameters
    ----------
    layer : Layer
    sources : sequence of SignalType
    sample : tuple of Signal
        What it hears.
    emitted : float32 array (T, C, H, W), (T, N, C) or (T, C)
        What its op emitted for it.

    Raises
    ------
    AssertionError
        Says what is not as promised.
    """
    _DenseForm(layer, sources, sample[0].steps).check(tuple(to_frames(signal).copy() for signal in sample), emitted)


class _DenseForm:
    """The dense form of one layer under test."""

    def __init__(self, layer: Layer, sources: Sequence[SignalType], steps: int) -> None:
        self.layer, self.steps = layer, steps
        self.kind = layer.output_type(*sources)
        self.looks_ahead = layer.op(*sources).looks_ahead
        self.allowed = allowed_by(layer, sources, self.kind, steps)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise AssertionError(f"{type(self.layer).__name__}: its {message}")

    def check(self, given: tuple[FloatArray, ...], emitted: FloatArray) -> None:
        kept = copy.deepcopy(given)
        dense, terms = self.run(given, Memory(), Memory())
        self.require(all(map(np.array_equal, given, kept)), "dense form writes into its input")
        self.compare(dense, emitted, terms, "differs from its op")
        if self.layer.absolute() is not None:
            fits = bool((np.abs(dense) <= terms * (1 + 1e-5)).all())
            self.require(fits, "absolute layer emits less than the absolute values; expected the sum of all terms")
        if self.looks_ahead:
            return
        memory, terms_memory, pieces = Memory(final=False), Memory(final=False), []
        for step in range(self.steps):
            memory.final = terms_memory.final = step == self.steps - 1
            pieces.append(self.run(tuple(array[step : step + 1] for array in given), memory, terms_memory))
        by_step, terms_by_step = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        self.compare(by_step, dense, terms, "differs step by step")
        self.compare(terms_by_step, terms, terms, "has other terms step by step")
        nothing = self.layer.dense(tuple(array[:0] for array in given), Memory(final=False))
        self.require(len(nothing) == 0, f"dense form emits {len(nothing)} time steps for none")

    def run(self, given: tuple[FloatArray, ...], memory: Memory, terms_memory: Memory) -> tuple[FloatArray, FloatArray]:
        """Return the dense output, and the terms that it is the sum of."""
        dense = self.layer.dense(given, memory)
        absolute = self.layer.absolute()
        if absolute is None:
            return dense, self.layer.terms(given, dense, terms_memory)
        return dense, absolute.dense(tuple(np.abs(array) for array in given), terms_memory)

    def compare(self, dense: FloatArray, other: FloatArray, terms: FloatArray, what: str) -> None:
        self.require(
            dense.dtype == np.float32 and dense.shape == other.shape,
            f"dense form emits {dense.dtype} {dense.shape}; expected float32 {other.shape}",
        )
        found = Differences(allowed=self.allowed)
        found.take_values(dense, other, terms if self.kind.kind == "real" else None)
        self.require(
            not found.outside,
            f"dense form {what}, in {found.outside} of {found.compared} values, by up to "
            f"{found.largest_difference:.3g}",
        )
