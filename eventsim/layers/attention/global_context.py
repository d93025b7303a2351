"""Global context: attention over the positions of a time step, summed up in one vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.global_context import attend_globally
from eventsim.layers.dense import Memory, Reals, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.sigmoid import sigmoid
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.layers.synapses.weights import BIAS
from eventsim.signals import NO_VALUES, Dense, FloatArray, Rows, SignalType

NORMALISATIONS = ("softmax", "sigmoid")
COMBINATIONS = ("additive", "gated")


@dataclass(frozen=True, eq=False, repr=False)
class GlobalContext(Layer):
    r"""Weigh the positions, average the channels with these weights, and give every position the outcome.

    In every time step, for the values :math:`x_p` (channels) at position p:

    .. math::
        a_p &= k^\top x_p + b_k, \qquad \alpha = \mathrm{softmax}(a) \text{ or } \sigma(a), \qquad
        c = \sum_p \alpha_p x_p

        g &= Q\, \mathrm{ReLU}(\mathrm{LN}(V c + b_V)) + b_Q, \qquad
        y_p = x_p + g \quad\text{(additive) or}\quad y_p = x_p \odot \sigma(g) \quad\text{(gated)}

    Cao et al., "GCNet: Non-local networks meet squeeze-excitation networks and beyond" (ICCV Workshops 2019). Real
    arithmetic, dense, in float32. Dense multiply-accumulates, as papers count them, are those of the matrix products:
    k, the sum over positions, V and Q. Executed are also the products of LN and of a gated combination. A weight of a
    position, a gate and a norm are divided; means and sums of LN and of the softmax are not counted.

    Parameters
    ----------
    key_weight : float32 array (channels,)
    key_bias : float32 array (1,)
    value_weight : float32 array (hidden, channels)
    value_bias : float32 array (hidden,)
    query_weight : float32 array (channels, hidden)
    query_bias : float32 array (channels,)
    norm_weight, norm_bias : float32 arrays (hidden,), optional
        Layer normalisation LN; without them there is none.
    normalisation : {"softmax", "sigmoid"}
    combination : {"additive", "gated"}
    eps : float
        Added to the variance by LN.
    """

    key_weight: FloatArray
    key_bias: FloatArray
    value_weight: FloatArray
    value_bias: FloatArray
    query_weight: FloatArray
    query_bias: FloatArray
    norm_weight: FloatArray | None = None
    norm_bias: FloatArray | None = None
    normalisation: Literal["softmax", "sigmoid"] = "softmax"
    combination: Literal["additive", "gated"] = "additive"
    eps: float = 1e-5

    role: ClassVar[Role] = "attention"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return dense real values at the same positions."""
        (source,) = inputs
        if self.normalisation not in NORMALISATIONS:
            raise LayerError(f"normalisation {self.normalisation!r} found; expected one of {NORMALISATIONS}")
        if self.combination not in COMBINATIONS:
            raise LayerError(f"combination {self.combination!r} found; expected one of {COMBINATIONS}")
        channels, hidden = source.channels, len(self.value_weight)
        shapes = {
            "key_weight": (channels,),
            "key_bias": (1,),
            "value_weight": (hidden, channels),
            "value_bias": (hidden,),
            "query_weight": (channels, hidden),
            "query_bias": (channels,),
            "norm_weight": (hidden,),
            "norm_bias": (hidden,),
        }
        for name, array in self.arrays().items():
            if array.shape != shapes[name]:
                raise LayerError(f"{name} of shape {array.shape} found; expected {shapes[name]}")
        if (self.norm_weight is None) != (self.norm_bias is None):
            raise LayerError("only one of norm_weight and norm_bias found; expected both or neither")
        return replace(source, kind="real", dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the products of k and of the sum over positions, V and Q."""
        return 2 * inputs[0].size + 2 * int(self.value_weight.size)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return every value with its gain, in float64."""
        x = tokens(inputs[0]).astype(np.float64)
        weights = self._shares(x)
        hidden = np.einsum("tn,tnc->tc", weights, x) @ self.value_weight.T.astype(np.float64) + self.value_bias
        if self.norm_weight is not None:
            centred = hidden - hidden.mean(axis=1, keepdims=True)
            deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(self.eps))
            hidden = centred / deviation * self.norm_weight + self.norm_bias
        gain = (np.maximum(hidden, 0) @ self.query_weight.T.astype(np.float64) + self.query_bias)[:, None]
        return in_shape(x * sigmoid(gain) if self.combination == "gated" else x + gain, inputs[0].shape[1:])

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return the sums of absolute terms on the way to every value, rounding carried on from step to step."""
        x = tokens(inputs[0]).astype(np.float64)
        size = np.abs(x)
        weights = self._shares(x)
        largest = (size @ np.abs(self.key_weight) + np.abs(self.key_bias)).max(axis=1, keepdims=True)
        context = np.einsum("tn,tnc->tc", weights, size) * (1 + 2 * largest)
        hidden = context @ np.abs(self.value_weight).T.astype(np.float64) + np.abs(self.value_bias)
        if self.norm_weight is not None and self.norm_bias is not None:
            exact = np.einsum("tn,tnc->tc", weights, x) @ self.value_weight.T.astype(np.float64) + self.value_bias
            deviation = np.sqrt(exact.var(axis=1, keepdims=True) + np.float32(self.eps))
            mean = hidden.mean(axis=1, keepdims=True)
            hidden = (hidden + mean) / deviation * (1 + mean / deviation)
            hidden = hidden * np.abs(self.norm_weight) + np.abs(self.norm_bias)
        gain = (hidden @ np.abs(self.query_weight).T.astype(np.float64) + np.abs(self.query_bias))[:, None]
        return in_shape(size * (1 + gain) if self.combination == "gated" else size + gain, inputs[0].shape[1:])

    def _shares(self, x: Reals) -> Reals:
        """Return the weight of every position ``(T, positions)``."""
        logits = x @ self.key_weight.astype(np.float64) + self.key_bias
        if self.normalisation == "sigmoid":
            return np.asarray(sigmoid(logits), np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases, and the sums: logits, the weighted vector, the hidden layer and g."""
        kept = {
            kind: [a.size for name, a in self.arrays().items() if name.endswith(kind)] for kind in ("weight", "bias")
        }
        sums = inputs[0].positions + 2 * inputs[0].channels + len(self.value_weight)
        return {**{kind: Words(sum(sizes)) for kind, sizes in kept.items()}, "sum": Words(sums)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return what a bias reads and writes, and the input that is read."""
        return merged(arriving(*inputs), {"bias_additions": BIAS})

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return GlobalContextOp(self, self.output_type(*inputs), self.dense_macs(*inputs))


def _pair(weight: FloatArray | None, bias: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Return weight and bias as the kernel reads them, empty where there are none."""
    if weight is None or bias is None:
        return NO_VALUES, NO_VALUES
    return np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32)


class GlobalContextOp(Op):
    """Attends within each time step."""

    kernel = "attend_globally"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, layer: GlobalContext, output: SignalType, dense_macs: int) -> None:
        self.output = output
        gated = layer.combination == "gated"
        self.arrays = (
            _pair(layer.key_weight, layer.key_bias),
            _pair(layer.value_weight, layer.value_bias),
            _pair(layer.query_weight, layer.query_bias),
            _pair(layer.norm_weight, layer.norm_bias),
        )
        self.eps = np.float32(layer.eps)
        self.kind = layer.normalisation == "softmax", gated
        macs = dense_macs
        if layer.norm_weight is not None:
            macs += 2 * layer.norm_weight.size
        if gated:
            macs += output.size
        hidden, gates = len(layer.value_weight), output.channels if gated else 0
        normed = hidden if layer.norm_weight is not None else 0
        self.executed = {
            "macs": macs,
            "additions": 0 if gated else output.size,
            "exponentials": output.positions + gates,
            "divisions": output.positions + gates + (normed + 2 if normed else 0),
            "square_roots": int(normed > 0),
            "bias_additions": output.positions + hidden + output.channels,
            "weight_reads": output.size + 2 * layer.value_weight.size + normed,
            "bias_reads": normed,
            "sum_reads": dense_macs + normed,  # products of matrices, and the squares of the norm
            "sum_writes": dense_macs + normed,
        }

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Transform one chunk."""
        signal = inputs[0]
        shape = signal.steps, self.output.positions, self.output.channels
        maps = every_channel(signal, context).reshape(shape)
        out = context.buffers.floats(maps.size).reshape(shape)
        key, value, query, norm = self.arrays
        context.call(attend_globally, maps, key, value, query, norm, self.eps, self.kind, out)
        report_inputs(signal, context)
        for operation, executed in self.executed.items():
            if executed:
                context.rows.add(operation, executed)
        return Dense(self.output, signal.steps, out.reshape(-1, self.output.channels))
