"""Leaky neuron with learned coefficients, and step attention between its past and its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, merged
from eventsim.kernels.bits import words
from eventsim.kernels.dynamics import INTEGRATE, aligned
from eventsim.kernels.filling import fill
from eventsim.kernels.fire_adaptive import Rules, fire_adaptively, stretch_of
from eventsim.layers.dense import Memory, Reals, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel, list_spikes
from eventsim.layers.neurons.spiking import DenseStep, Flags, stepped, updating
from eventsim.layers.sigmoid import sigmoid
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.layers.synapses.weights import BIAS
from eventsim.signals import NO_VALUES, Dense, FloatArray, Rows, SignalType

GATE_INPUTS = ("terms", "features")
RESETS = ("zero", "subtract")
NO_GATES = (np.empty((0, 0, 0), np.float32), np.empty((0, 0), np.float32)) * 2


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveLIF(Layer):
    r"""Leaky integrate-and-fire neuron ``V[t] = SA(M * H[t-1], N * X[t])``.

    H is what the last step left behind, X the input. The neuron fires, ``S = 1``, where ``V >= v_threshold`` (``V >
    v_threshold`` if strict), and then ``H[t] = V[t] (1 - S[t])`` for the reset ``"zero"``, ``H[t] = V[t] - S[t]
    v_threshold`` for ``"subtract"``; H starts every sample at 0. M and N are learned coefficients, element by element.

    Without step attention SA is the sum of its terms :math:`a = M \odot H[t-1]` and :math:`b = N \odot X[t]`. With it

    .. math::
        g = scale \cdot \sigma(E_t\, \mathrm{ReLU}(R_t\, [\bar a; \bar b] + r_t) + e_t), \qquad
        V[t] = g_a \odot a + g_b \odot b \quad\text{or}\quad V[t] = g \odot (a + b)

    where the bar is the mean over positions and g has one gate per channel and term (its first half for a), or one per
    channel: what E has room for. Scalar gates are one number per term, or one: a gate for a whole map. R, E and their
    biases are the same in all time steps, or each step has its own.

    Encodings P are learned or given arrays: :math:`a = M \odot (H[t-1] + P^H[t])`, and :math:`P^V[t]` is added to V.

    Zhang et al., "STAA-SNN: Spatial-Temporal Attention Aggregator for Spiking Neural Networks" (CVPR 2025), eqs. 6
    and 12-14. The paper calls the arguments of the mean the aggregated features at t-1 and t: by eq. 13 these are
    the two terms (`gate_inputs` "terms"); "features" takes the means of X[t-1] and X[t], with X[-1] = 0.

    Every step is dense: element-wise products and both matrix products are counted as multiply-accumulates, means and
    encodings as additions; the dense multiply-accumulates, those of networks as papers count them, are the matrix
    products alone.

    Parameters
    ----------
    retention, gain : float32 array (T or 1, channels or 1, positions or 1)
        M and N. An axis of size 1 is repeated. A sample may have fewer than T time steps, not more.
    reduce_weight : float32 array (T or 1, hidden, 2 * channels), optional
        R; without it there is no step attention.
    reduce_bias : float32 array (T or 1, hidden), optional
    expand_weight : float32 array (T or 1, gates, hidden), optional
        E; gates are 2 * channels or channels, and 2 or 1 if they are scalar.
    expand_bias : float32 array (T or 1, gates), optional
    v_threshold : float
    gate_scale : float
    gate_inputs : {"terms", "features"}
    reset : {"zero", "subtract"}
    strict : bool
        Fire above the threshold only.
    scalar_gates : bool
    past_encoding, potential_encoding : float32 array (T or 1, channels or 1, positions or 1), optional
        The encodings of H and of V.
    """

    retention: FloatArray
    gain: FloatArray
    reduce_weight: FloatArray | None = None
    reduce_bias: FloatArray | None = None
    expand_weight: FloatArray | None = None
    expand_bias: FloatArray | None = None
    v_threshold: float = 1.0
    gate_scale: float = 2.0
    gate_inputs: Literal["terms", "features"] = "terms"
    reset: Literal["zero", "subtract"] = "zero"
    strict: bool = False
    scalar_gates: bool = False
    past_encoding: FloatArray | None = None
    potential_encoding: FloatArray | None = None

    role: ClassVar[Role] = "neurons"

    @property
    def gates(self) -> StepAttention | None:
        """The step attention, if there is one."""
        reduce, expand = (self.reduce_weight, self.reduce_bias), (self.expand_weight, self.expand_bias)
        if all(array is None for array in (*reduce, *expand)):
            return None
        if reduce[0] is None or reduce[1] is None or expand[0] is None or expand[1] is None:
            raise LayerError("only some arrays of the step attention found; expected both weights and both biases")
        scale = np.float32(self.gate_scale)
        return StepAttention(reduce[0], reduce[1], expand[0], expand[1], scale, self.scalar_gates)

    @property
    def time_steps(self) -> int | None:
        """Time steps that the arrays are made for, None if for any number."""
        lengths = sorted({len(array) for array in self.arrays().values()} - {1})
        if len(lengths) > 1:
            raise LayerError(f"arrays for {lengths} time steps found; expected equal numbers, or one for all steps")
        return lengths[0] if lengths else None

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return spikes at the same positions."""
        (source,) = inputs
        if self.gate_inputs not in GATE_INPUTS:
            raise LayerError(f"gate_inputs {self.gate_inputs!r} found; expected one of {GATE_INPUTS}")
        if self.reset not in RESETS:
            raise LayerError(f"reset {self.reset!r} found; expected one of {RESETS}")
        for name in ("retention", "gain", "past_encoding", "potential_encoding"):
            array = getattr(self, name)
            if array is not None and (
                array.ndim != 3
                or array.shape[1] not in (1, source.channels)
                or array.shape[2] not in (1, source.positions)
            ):
                raise LayerError(
                    f"{name} of shape {array.shape} found; expected (time steps or 1, {source.channels} channels or 1, "
                    f"{source.positions} positions or 1)"
                )
        if gates := self.gates:
            gates.check(source.channels)
        if self.time_steps == 0:
            raise LayerError("an array for 0 time steps found; expected at least 1")
        return replace(source, kind="binary", dense=False)

    def neurons(self, *inputs: SignalType) -> int:
        """Return one neuron per value of the input."""
        return inputs[0].size

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the two matrix products of the step attention."""
        gates = self.gates
        return gates.macs if gates else 0

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one potential for each neuron, every coefficient, and the sums of the gates: means and products."""
        gates, words = self.gates, {"potential": Words(inputs[0].size), "weight": Words(self.parameters)}
        if gates is None:
            return words
        biases = gates.reduce_bias.size + gates.expand_bias.size
        sums = 2 * inputs[0].channels + gates.reduce_bias.shape[1] + gates.expand_bias.shape[1]
        return {**words, "weight": Words(self.parameters - biases), "bias": Words(biases), "sum": Words(sums)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sum of both terms, the comparison and the reset, and what a bias reads and writes.

        There is no leak but the coefficients, whose products are multiply-accumulates.
        """
        return merged(updating(INTEGRATE, 1, inputs[0], self.output_type(*inputs)), {"bias_additions": BIAS})

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the spikes, step by step: element by element in float32, means and gates in float64."""
        out = np.empty_like(inputs[0])
        for index, (step, _) in enumerate(stepped(self, inputs[0], memory)):
            out[index] = step.spikes
        return out

    def rest(self, shape: tuple[int, ...]) -> FloatArray:
        """Return the potential at the beginning of a sample, for neurons of the per-step shape."""
        return np.zeros(shape, np.float32)

    def step(self, v: FloatArray, x: FloatArray, memory: Memory) -> DenseStep:
        """Return what the next time step makes of the potential and the input, in the per-step shape."""
        index = memory.kept.get("step", 0)
        memory.kept["step"] = index + 1
        if self.time_steps is not None and index >= self.time_steps:
            raise LayerError(f"{index + 1} time steps found; expected at most {self.time_steps}")
        past, present = tokens(v[None])[0], tokens(x[None])[0]
        given = present
        if self.past_encoding is not None:
            past = past + _at(self.past_encoding, index).T
        past, present = past * _at(self.retention, index).T, present * _at(self.gain, index).T
        weight: Reals = np.ones(())
        if (attend := self.gates) is not None:
            means = [part.mean(axis=0, dtype=np.float64) for part in (past, present)]
            if self.gate_inputs == "features":
                means = [memory.kept.get("mean", np.zeros(len(means[0]))), given.mean(axis=0, dtype=np.float64)]
                memory.kept["mean"] = means[1]
            gates = attend.dense(index, np.concatenate(means))
            sizes = np.abs(np.concatenate([np.abs(past).mean(axis=0), np.abs(present).mean(axis=0)]))
            weight = 1 + attend.terms(index, np.maximum(sizes, np.abs(np.concatenate(means)))).max(initial=0)
            per_term = attend.per_term(present.shape[1])
            if len(gates) == per_term:
                past, present = np.float32(0), (past + present) * gates
            else:
                past, present = past * gates[:per_term], present * gates[per_term:]
        terms = np.abs(past) + np.abs(present)
        charged = past + present
        if self.potential_encoding is not None:
            encoding = _at(self.potential_encoding, index).T
            charged, terms = charged + encoding, terms + np.abs(encoding)
        shape = x.shape
        charged, terms = in_shape(charged[None], shape)[0], in_shape(terms[None] * weight, shape)[0]
        above = charged > np.float32(self.v_threshold) if self.strict else charged >= np.float32(self.v_threshold)
        return DenseStep(charged, np.zeros(shape, np.bool_), np.asarray(above, np.float32), terms)

    def after(self, charged: FloatArray, late: Flags, spikes: FloatArray) -> FloatArray:
        """Return the potential that a step leaves in which these neurons spiked."""
        if self.reset == "zero":
            return np.where(spikes != 0, np.float32(0), charged)
        return charged - spikes * np.float32(self.v_threshold)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return AdaptiveLIFOp(self, self.output_type(*inputs))


@dataclass(frozen=True, eq=False, repr=False)
class StepAttention:
    """The gates of `AdaptiveLIF`; arrays as there."""

    reduce_weight: FloatArray
    reduce_bias: FloatArray
    expand_weight: FloatArray
    expand_bias: FloatArray
    scale: np.float32
    scalar: bool = False

    def check(self, channels: int) -> None:
        """Refuse arrays that do not fit `channels`."""
        hidden = self.reduce_weight.shape[1] if self.reduce_weight.ndim == 3 else -1
        gates = self.expand_weight.shape[1] if self.expand_weight.ndim == 3 else -1
        per_term = self.per_term(channels)
        if hidden < 1 or self.reduce_weight.shape[2] != 2 * channels:
            raise LayerError(
                f"reduce_weight of shape {self.reduce_weight.shape} found; expected (T or 1, hidden, {2 * channels})"
            )
        if gates not in (per_term, 2 * per_term) or self.expand_weight.shape[2] != hidden:
            raise LayerError(
                f"expand_weight of shape {self.expand_weight.shape} found; "
                f"expected (T or 1, {2 * per_term} or {per_term}, {hidden})"
            )
        for name, array, size in (("reduce", self.reduce_bias, hidden), ("expand", self.expand_bias, gates)):
            if array.ndim != 2 or array.shape[1] != size:
                raise LayerError(f"{name}_bias of shape {array.shape} found; expected (T or 1, {size})")

    def per_term(self, channels: int) -> int:
        """Return the gates of one term."""
        return 1 if self.scalar else channels

    @property
    def arrays(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Both weights and biases, as the kernel takes them."""
        given = self.reduce_weight, self.reduce_bias, self.expand_weight, self.expand_bias
        first, second, third, fourth = (np.ascontiguousarray(array, np.float32) for array in given)
        return first, second, third, fourth

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the two matrix products in one time step."""
        return int(self.reduce_weight[0].size + self.expand_weight[0].size)

    def dense(self, step: int, means: Reals) -> FloatArray:
        """Return the gates of time step `step` for the means ``(2 * channels,)``, computed in float64."""
        hidden = _at(self.reduce_weight, step).astype(np.float64) @ means + _at(self.reduce_bias, step)
        logits = _at(self.expand_weight, step).astype(np.float64) @ np.maximum(hidden, 0) + _at(self.expand_bias, step)
        return np.asarray(self.scale * sigmoid(logits), np.float32)

    def terms(self, step: int, means: Reals) -> Reals:
        """Return the sums of the absolute terms of the logits, for absolute means."""
        hidden = np.abs(_at(self.reduce_weight, step)) @ means + np.abs(_at(self.reduce_bias, step))
        return np.abs(_at(self.expand_weight, step)) @ hidden + np.abs(_at(self.expand_bias, step))


def _at(array: FloatArray, step: int) -> FloatArray:
    """Return what holds in time step `step`; one entry holds in all."""
    entry: FloatArray = array[step if len(array) > 1 else 0]
    return entry


def _laid_out(array: FloatArray | None, output: SignalType, stretch: int) -> tuple[FloatArray, tuple[int, int]]:
    """Return a coefficient and its place as the kernel reads it; empty if there is none."""
    if array is None:
        return NO_VALUES, (0, 0)
    steps, each = len(array), int(array.shape[2] > 1)
    rows = np.broadcast_to(array.swapaxes(1, 2), (steps, array.shape[2], output.channels)).reshape(steps, -1)
    rows = np.ascontiguousarray(rows if each else np.tile(rows, stretch // output.channels), np.float32)
    return rows.reshape(-1), (rows.shape[1] if steps > 1 else 0, each)


class AdaptiveLIFOp(Op):
    """Holds the membrane potential, the index of the next time step, and the mean of the last input."""

    kernel = "fire"
    state_names = ("potential", "step", "past")
    looks_ahead = False
    once_if_static = False
    plays = True

    def __init__(self, layer: AdaptiveLIF, output: SignalType) -> None:
        self.output = output
        stretch = stretch_of(output.channels)
        arrays = layer.retention, layer.gain, layer.past_encoding, layer.potential_encoding
        retention, gain, past, potential = (_laid_out(array, output, stretch) for array in arrays)
        self.coefficients = retention[0], gain[0], past[0], potential[0]
        self.encodings = sum(array is not None for array in arrays[2:])
        self.gates = layer.gates
        self.time_steps = layer.time_steps
        self.rules = Rules(
            output.channels,
            stretch,
            layer.gate_inputs == "terms",
            self.gates is not None and self.gates.expand_weight.shape[1] == self.gates.per_term(output.channels),
            layer.scalar_gates,
            layer.strict,
            layer.reset == "subtract",
            np.float32(layer.v_threshold),
            np.float32(layer.gate_scale),
            (retention[1], gain[1], past[1], potential[1]),
        )
        self.arrays = self.gates.arrays if self.gates else NO_GATES
        self.executed = self._of_each_step()
        self.reset()

    def reset(self) -> None:
        """Set every membrane potential to 0 and begin at the first time step."""
        self.potential = aligned(self.output.size).reshape(self.output.positions, self.output.channels)
        self.step = 0
        self.past = np.zeros(self.output.channels, np.float32)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows:
        """Charge, fire and reset in every step of one chunk."""
        signal, rows = inputs[0], context.rows
        steps = signal.steps
        if self.time_steps is not None and self.step + steps > self.time_steps:
            found = f"{self.step + steps} time steps found"
            raise LayerError(f"{found}; expected at most {self.time_steps}, which the coefficients are for")
        size = self.output.size
        x = every_channel(signal, context).reshape(steps, size)
        fired = context.buffers.bits(steps, words(size))
        changed, held = context.counts(steps), self.potential.reshape(-1)
        if self.step == 0:
            context.call(fill, held, np.float32(0))
            context.call(fill, self.past, np.float32(0))
        given = x, held, self.coefficients, self.arrays, self.rules, self.step, self.past, (fired, changed)
        context.call(fire_adaptively, *given)
        self.step += steps
        indptr = np.zeros(steps * self.output.positions + 1, np.int64)
        indices = context.buffers.indices(steps * size)
        list_spikes(fired, self.output, indptr, indices, context)
        spikes = Rows.within(self.output, steps, indptr, indices, NO_VALUES, fired)
        report_inputs(signal, context)
        rows.add("spikes", context.by_step(spikes))
        rows.add("updates_with_input", context.by_step(signal))
        rows.add("updates_with_change", changed)
        for operation, executed in self.executed.items():
            rows.add(operation, executed)
        return spikes

    def _of_each_step(self) -> dict[str, int]:
        """Return what is executed in every time step: products, sums, what they read, and the gates."""
        size, encodings = self.output.size, self.encodings * self.output.size
        alike = {"neuron_updates": size, "macs": 2 * size, "additions": encodings, "weight_reads": 2 * size + encodings}
        if self.gates is None:
            return alike
        hidden, gates = self.gates.reduce_weight.shape[1], self.gates.expand_weight.shape[1]
        means = 2 if self.rules.of_terms else 1
        return {
            "neuron_updates": size,
            "macs": 2 * size + self.gates.macs + (size if self.rules.joined else 2 * size),
            "additions": encodings + means * size,
            "weight_reads": 2 * size + encodings + self.gates.macs,
            "bias_additions": hidden + gates,
            "sum_reads": self.gates.macs + means * size,
            "sum_writes": self.gates.macs + means * size,
            "exponentials": gates,
            "divisions": gates + means * self.output.channels,
        }
