"""Pruned or irregular connectivity: only the synapses that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.fan_out import gather_synapses
from eventsim.kernels.filling import repeat
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel, listed
from eventsim.layers.synapses.gathering import report_inputs, report_products
from eventsim.layers.synapses.weights import serving
from eventsim.signals import CountArray, Dense, FloatArray, IntArray, Rows, SignalType

if TYPE_CHECKING:
    import scipy.sparse


@dataclass(frozen=True, eq=False, repr=False)
class SparseLinear(Layer):
    r"""Linear map of each pixel or token whose zero synapses are neither stored, touched nor counted.

    .. math:: I_o = b_o + \sum_{i \,:\, (i,o) \in E} w_{i,o}\, s_i

    Parameters
    ----------
    indptr : int64 array (C_in + 1,)
        Where the fan-out list of each input channel begins and ends.
    targets : int32 array (synapses,)
        Output channels, ascending within a list.
    weights : float32 array (synapses,)
    outputs : int
        C_out.
    bias : float32 array (C_out,), optional
    """

    indptr: CountArray
    targets: IntArray
    weights: FloatArray
    outputs: int
    bias: FloatArray | None = None

    role: ClassVar[Role] = "linear"

    @classmethod
    def from_matrix(
        cls, matrix: scipy.sparse.csr_array[Any] | FloatArray, bias: FloatArray | None = None
    ) -> SparseLinear:
        """Take the non-zero entries of a matrix ``(C_out, C_in)``."""
        import scipy.sparse  # noqa: PLC0415 - takes long to import; an op needs no matrix

        fan_out: Any = scipy.sparse.csr_array(matrix).astype(np.float32).T.tocsr()
        fan_out.sum_duplicates()  # sorts, too
        fan_out.eliminate_zeros()
        return cls(
            fan_out.indptr.astype(np.int64),
            fan_out.indices.astype(np.int32),
            fan_out.data,
            int(fan_out.shape[1]),
            bias,
        )

    @property
    def parameters(self) -> int:
        """Number of weights and biases; where they are is no parameter."""
        return self.weights.size + (0 if self.bias is None else self.bias.size)

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        (source,) = inputs
        if self.indptr.shape != (source.channels + 1,):
            raise LayerError(f"{len(self.indptr) - 1} fan-out lists found; expected {source.channels}")
        if self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any() or self.indptr[-1] != len(self.targets):
            raise LayerError(f"fan-out lists do not cover the {len(self.targets)} synapses; expected rising bounds")
        if self.weights.shape != self.targets.shape:
            raise LayerError(
                f"{len(self.weights)} weights found; expected one for each of {len(self.targets)} synapses"
            )
        if len(self.targets) and not 0 <= self.targets.min() <= self.targets.max() < self.outputs:
            raise LayerError(f"a synapse onto a channel outside 0..{self.outputs - 1} found")
        if self.bias is not None and self.bias.shape != (self.outputs,):
            raise LayerError(f"bias of shape {self.bias.shape} found; expected ({self.outputs},)")
        return replace(source, kind="real", channels=self.outputs, dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix, zero synapses included, at every position."""
        return inputs[0].size * self.outputs

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases and partial sums."""
        words = {"weight": Words(self.weights.size), "sum": Words(self.output_type(*inputs).size)}
        return words if self.bias is None else {**words, "bias": Words(self.bias.size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product and a bias read and write, and the input that is read."""
        return serving(inputs[0], biased=self.bias is not None)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the product with the matrix of these synapses, in float64."""
        import scipy.sparse  # noqa: PLC0415 - as above

        (x,) = inputs
        rows = tokens(x)
        fan_out: Any = scipy.sparse.csr_array(
            (self.weights.astype(np.float64), self.targets, self.indptr), shape=(rows.shape[2], self.outputs)
        )
        product = (fan_out.T @ rows.reshape(-1, rows.shape[2]).T.astype(np.float64)).T
        if self.bias is not None:
            product = product + self.bias
        return in_shape(product.reshape(*rows.shape[:2], self.outputs), x.shape[1:])

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weights=np.abs(self.weights), bias=None if self.bias is None else np.abs(self.bias))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return SparseLinearOp(self, self.output_type(*inputs))


class SparseLinearOp(Op):
    """Serves fan-out lists."""

    kernel = "gather_synapses"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, layer: SparseLinear, output: SignalType) -> None:
        self.synapses = (layer.indptr, layer.targets, layer.weights)
        self.biased = layer.bias is not None
        self.bias = np.zeros(output.channels, np.float32) if layer.bias is None else layer.bias
        self.output = output

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Serve one chunk."""
        signal = inputs[0]
        report_inputs(signal, context)
        if isinstance(signal, Dense):
            signal = listed(signal.type, signal.steps, every_channel(signal, context), context)
        size = signal.steps * self.output.positions
        out = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        context.call(repeat, self.bias, out)
        products, units = context.counts((2, signal.steps))
        context.call(gather_synapses, signal.whole, *self.synapses, out, products, units)
        report_products(signal.type, products, units, context.rows)
        if self.biased:
            context.rows.add("bias_additions", self.output.size)
        return Dense(self.output, signal.steps, out)
