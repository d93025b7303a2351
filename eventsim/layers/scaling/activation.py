"""Activation functions of networks that are not spiking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role
from eventsim.kernels.values_of_channels import limit
from eventsim.kernels.values_of_rows import limit_rows
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel, room_for
from eventsim.layers.sigmoid import sigmoid
from eventsim.signals import Dense, FloatArray, Rows, SignalType

FUNCTIONS = ("relu", "clamp", "sigmoid", "softmax")


@dataclass(frozen=True, eq=False, repr=False)
class Activation(Layer):
    r"""ReLU, limits or sigmoid of every value, or softmax over the channels of each position, in float32.

    A real-valued gate has one, such as that of squeeze and excitation. A value that is compared with a limit is a
    comparison for each of them, in rows those that are not zero where 0 lies within the limits; sigmoid and softmax
    take an exponential and a division for each value.

    Parameters
    ----------
    function : {"relu", "clamp", "sigmoid", "softmax"}
        ``clamp`` is ``min(max(x, least), most)``: ReLU6 with 0 and 6, hardtanh with -1 and 1.
    least, most : float, optional
        Limits of ``clamp``, one at least.
    """

    function: Literal["relu", "clamp", "sigmoid", "softmax"]
    least: float | None = None
    most: float | None = None

    role: ClassVar[Role] = "scaling"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the input for ReLU and for whole limits of integers, else real values."""
        (source,) = inputs
        if self.function not in FUNCTIONS:
            raise LayerError(f"function {self.function!r} found; expected one of {FUNCTIONS}")
        limits = [limit for limit in (self.least, self.most) if limit is not None]
        if bool(limits) != (self.function == "clamp"):
            raise LayerError(f"limits {self.least} and {self.most} found; expected one or two for clamp, else none")
        if self.function == "relu":
            return source
        if self.function != "clamp":
            return replace(source, kind="real", dense=True)
        if not np.isfinite(limits).all() or limits[0] > limits[-1]:
            raise LayerError(f"limits {self.least} and {self.most} found; expected finite ones in their order")
        return self._clamped(source)

    def _clamped(self, source: SignalType) -> SignalType:
        least = -np.inf if self.least is None else self.least
        most = np.inf if self.most is None else self.most
        if source.kind == "binary" and least <= 0 and most >= 1:
            return source
        whole = all(float(limit).is_integer() for limit in (self.least, self.most) if limit is not None)
        if source.kind != "real" and whole and least <= 0 <= most:
            return replace(source, kind="graded")
        return replace(source, kind="real", dense=source.dense or not least <= 0 <= most)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the function of every value; sigmoid and softmax in float64."""
        (x,) = inputs
        if self.function == "relu":
            return np.maximum(x, np.float32(0))
        if self.function == "clamp":
            x = x if self.least is None else np.maximum(x, np.float32(self.least))
            return x if self.most is None else np.minimum(x, np.float32(self.most))
        rows = tokens(x).astype(np.float64)
        if self.function == "sigmoid":
            return in_shape(sigmoid(rows), x.shape[1:])
        powers = np.exp(rows - rows.max(axis=2, keepdims=True))
        return in_shape(powers / powers.sum(axis=2, keepdims=True), x.shape[1:])

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return the output times one and the largest exponent, as an exponential shows its rounding relatively."""
        (x,) = inputs
        if self.function in ("relu", "clamp"):
            return np.abs(output)
        largest = np.abs(tokens(x)).max(axis=2, keepdims=True, initial=0)
        return in_shape(tokens(output) * (1 + 2 * largest), x.shape[1:])

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the division that goes with an exponential."""
        return {"exponentials": {"divisions": 1}}

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        least, most = (0.0, None) if self.function == "relu" else (self.least, self.most)
        return ActivationOp(self.output_type(*inputs), self.function, least, most)


class ActivationOp(Op):
    """Applies the function step by step: equal shapes for every chunk size, so equal results."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType, function: str, least: float | None, most: float | None) -> None:
        self.output = output
        self.function = function
        self.kernel = function
        self.comparisons = (least is not None) + (most is not None)
        self.least = np.float32(-np.inf if least is None else least)
        self.most = np.float32(np.inf if most is None else most)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Transform one chunk."""
        signal, output = inputs[0], self.output
        if self.function in ("relu", "clamp"):
            return self._limited(signal, context)
        apply = _write_sigmoid if self.function == "sigmoid" else _write_softmax
        context.rows.add("exponentials", output.size)
        data = context.buffers.floats(signal.steps * output.size).reshape(-1, output.positions, output.channels)
        for x, y in zip(every_channel(signal, context).reshape(data.shape), data, strict=True):
            context.call(apply, x, y)
        return Dense(output, signal.steps, data.reshape(-1, output.channels))

    def _limited(self, signal: Rows | Dense, context: Context) -> Rows | Dense:
        """Return values within the limits."""
        output = self.output
        if output.dense:
            context.rows.add("comparisons", self.comparisons * output.size)
            data = context.buffers.floats(signal.steps * output.size).reshape(-1, output.channels)
            context.call(limit, every_channel(signal, context), self.least, self.most, data)
            return Dense(output, signal.steps, data)
        assert isinstance(signal, Rows)
        context.rows.add("comparisons", context.by_step(signal), self.comparisons)
        if output.kind == "binary":
            return Rows.within(output, signal.steps, *signal.whole)
        limited = room_for(output, signal.steps, context)
        context.call(limit_rows, signal.whole, self.least, self.most, limited)
        return Rows.within(output, signal.steps, *limited)


def _write_sigmoid(x: FloatArray, out: FloatArray) -> None:
    out[:] = sigmoid(x)


def _write_softmax(x: FloatArray, out: FloatArray) -> None:
    """Write the softmax of each row."""
    powers: FloatArray = np.exp(x - x.max(axis=1, keepdims=True))
    np.divide(powers, powers.sum(axis=1, keepdims=True), out)
