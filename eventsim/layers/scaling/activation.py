"""Activation functions of networks that are not spiking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from scipy.special import expit

from eventsim.context import Context
from eventsim.facts import Entailed, Role
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import without_zeros
from eventsim.signals import Dense, FloatArray, Rows, SignalType

FUNCTIONS = ("relu", "sigmoid", "softmax")


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer):
    r"""ReLU or sigmoid of every value, or softmax over the channels of each position, in float32.

    A real-valued gate has one, such as that of squeeze and excitation. A value that ReLU looks at is a comparison, in
    rows those that are not zero; sigmoid and softmax take an exponential and a division for each value.

    Parameters
    ----------
    function : {"relu", "sigmoid", "softmax"}
    """

    function: Literal["relu", "sigmoid", "softmax"]

    role: ClassVar[Role] = "scaling"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the input for ReLU, else dense real values."""
        (source,) = inputs
        if self.function not in FUNCTIONS:
            raise LayerError(f"function {self.function!r} found; expected one of {FUNCTIONS}")
        return source if self.function == "relu" else replace(source, kind="real", dense=True)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the function of every value; sigmoid and softmax in float64."""
        (x,) = inputs
        if self.function == "relu":
            return np.maximum(x, np.float32(0))
        rows = tokens(x).astype(np.float64)
        if self.function == "sigmoid":
            return in_shape(expit(rows), x.shape[1:])
        powers = np.exp(rows - rows.max(axis=2, keepdims=True))
        return in_shape(powers / powers.sum(axis=2, keepdims=True), x.shape[1:])

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return the output times one and the largest exponent, as an exponential shows its rounding relatively."""
        (x,) = inputs
        if self.function == "relu":
            return np.abs(output)
        largest = np.abs(tokens(x)).max(axis=2, keepdims=True, initial=0)
        return in_shape(tokens(output) * (1 + 2 * largest), x.shape[1:])

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the division that goes with an exponential."""
        return {"exponentials": {"divisions": 1}}

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return ActivationOp(self.output_type(*inputs), self.function)


class ActivationOp(Op):
    """Applies the function step by step: equal shapes for every chunk size, so equal results."""

    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, output: SignalType, function: str) -> None:
        self.output = output
        self.function = function
        self.kernel = function

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Transform one chunk."""
        signal, output = inputs[0], self.output
        if self.function == "relu":
            dense = isinstance(signal, Dense)
            context.rows.add("comparisons", output.size if dense else signal.nonzeros_by_step)
            if isinstance(signal, Dense):
                return Dense(output, signal.steps, np.maximum(signal.data, np.float32(0)))
            if signal.values is None:
                return signal
            return without_zeros(replace(signal, values=np.maximum(signal.values, np.float32(0))))
        apply = expit if self.function == "sigmoid" else _softmax
        context.rows.add("exponentials", output.size)
        data = np.empty((signal.steps, output.positions, output.channels), np.float32)
        for x, y in zip(signal.to_array().reshape(data.shape), data, strict=True):
            y[:] = apply(x)
        return Dense(output, signal.steps, data.reshape(-1, output.channels))


def _softmax(x: FloatArray) -> FloatArray:
    """Return the softmax of each row."""
    powers: FloatArray = np.exp(x - x.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers
