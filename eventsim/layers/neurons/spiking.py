"""Spiking neurons: charge, fire, reset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from eventsim.banded import Banded
from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.dynamics import DECAY, INTEGRATE, LEAK_DIVIDE, LEAK_FREE_INPUT, LEAK_MULTIPLY, Dynamics
from eventsim.kernels.filling import copy
from eventsim.layers.dense import Memory, spread
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.neurons.membrane import NOT_KEPT, Membrane
from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, FloatArray, Rows, SignalType

PerNeuron = float | FloatArray
"""One number for all, or an array ``(channels,)`` or of the whole per-step shape."""

RESETS = ("zero", "subtract", "subtract_late", "subtract_once", "zero_late")
"""In the order of the numbers that the kernel knows them by."""
EMITTED = ("spikes", "charge", "potential")

CHARGING = {INTEGRATE: (0, 1), LEAK_MULTIPLY: (1, 2), LEAK_DIVIDE: (1, 2), LEAK_FREE_INPUT: (1, 2), DECAY: (1, 1)}
"""Leak multiplications and additions of each charge equation."""

LATE = RESETS[2:]
"""Resets of which the step after a spike learns."""

Flags = npt.NDArray[np.bool_]


class DenseStep(NamedTuple):
    """What one time step makes of neurons; arrays of the per-step shape.

    Attributes
    ----------
    charged : float32 array
        The potential that is compared with the threshold.
    late : bool array
        Where the potential was above the threshold when the step began, for the resets that ask.
    spikes : float32 array
    terms : float32 array, optional
        Sum of the absolute terms of the charge, where that is no sum of inputs; those of the inputs come on top.
    """

    charged: FloatArray
    late: Flags
    spikes: FloatArray
    terms: FloatArray | None = None


class Stepping(Protocol):
    """Neurons in dense form: what `stepped` asks of them."""

    def rest(self, shape: tuple[int, ...]) -> FloatArray:
        """Return the potential at the beginning of a sample, for neurons of the per-step shape."""

    def step(self, v: FloatArray, x: FloatArray, memory: Memory) -> DenseStep:
        """Return what the next time step makes of the potential and the input."""

    def after(self, charged: FloatArray, late: Flags, spikes: FloatArray) -> FloatArray:
        """Return the potential that a step leaves in which these neurons spiked."""


def stepped(neurons: Stepping, x: FloatArray, memory: Memory) -> Iterator[tuple[DenseStep, FloatArray]]:
    """Yield what each time step makes of neurons, and the potential that it leaves, from which the next goes on."""
    v = memory.kept["potential"] if memory.kept else neurons.rest(x.shape[1:])
    for current in x:
        step = neurons.step(v, current, memory)
        v = neurons.after(step.charged, step.late, step.spikes)
        yield step, v
    memory.kept["potential"] = v


@dataclass(frozen=True, eq=False, repr=False)
class Neuron(Layer):
    r"""What every neuron shares: threshold and reset.

    After the charge ``h`` a neuron fires, ``s = 1``, where ``h >= v_threshold`` (``h > v_threshold`` if strict), and
    resets: ``v = h (1 - s)`` for ``"zero"``, ``v = h - s v_threshold`` for ``"subtract"``. All arithmetic is float32,
    in the order written.

    Three more resets are those of snnTorch. The neuron is ``late``, 1 or 0, where v is above the threshold when a step
    begins, and

    ``"subtract_late"``
        the reset comes one step later: h is the charge less ``late v_threshold``, and ``v = h``
    ``"subtract_once"``
        the same h, and ``v = h - (s - late) v_threshold``: at once, but not twice in succession
    ``"zero_late"``
        ``h = 0`` where late, so that the step after a spike is lost; ``v = h``

    Parameters
    ----------
    v_threshold : float or float32 array
    reset : {"zero", "subtract", "subtract_late", "subtract_once", "zero_late"}
    strict : bool
        Fire above the threshold only.
    multiple_spikes : bool
        As many spikes in a step as the threshold, which must be positive, goes into h: ``s = trunc(h / v_threshold)``
        where it fires. What is emitted is graded then. With ``"zero"`` and ``"subtract"`` only, and not strict.
    start : float or float32 array
        The membrane potential at the beginning of every sample.
    v_min : float or float32 array, optional
        ``v = max(v, v_min)`` at the end of a step.
    emits : {"spikes", "charge", "potential"}
        What other layers hear: s, or, as a readout of potentials does, h or the v that a step leaves. Then a spike
        resets the potential and goes nowhere: none is counted.
    """

    v_threshold: PerNeuron = 1.0
    reset: Literal["zero", "subtract", "subtract_late", "subtract_once", "zero_late"] = "zero"
    strict: bool = False
    multiple_spikes: bool = field(default=False, kw_only=True)
    start: PerNeuron = field(default=0.0, kw_only=True)
    v_min: PerNeuron | None = field(default=None, kw_only=True)
    emits: Literal["spikes", "charge", "potential"] = field(default="spikes", kw_only=True)

    charge: ClassVar[int] = INTEGRATE
    role: ClassVar[Role] = "neurons"

    @property
    def constant(self) -> PerNeuron:
        """The constant of the charge equation."""
        return 1.0

    @property
    def parameters(self) -> int:
        """Return 0: thresholds and time constants are not weights."""
        return 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return spikes at the same positions, graded where there may be several in a step; or real values."""
        (source,) = inputs
        if self.emits not in EMITTED:
            raise LayerError(f"emits {self.emits!r} found; expected one of {', '.join(map(repr, EMITTED))}")
        if self.reset not in RESETS:
            others = ", ".join(map(repr, RESETS[2:]))
            raise LayerError(f"reset {self.reset!r} found; expected 'zero' or 'subtract', or one of {others}")
        if self.multiple_spikes and self.reset not in ("zero", "subtract"):
            raise LayerError(f"several spikes in a step with reset {self.reset!r} found; expected 'zero' or 'subtract'")
        if self.multiple_spikes and self.strict:
            raise LayerError("several spikes in a step and strict found; expected a neuron that fires at the threshold")
        if self.multiple_spikes and (np.asarray(self.v_threshold) <= 0).any():
            raise LayerError(
                f"several spikes in a step, v_threshold {np.min(self.v_threshold)} found; expected above 0"
            )
        rows_of(self.v_threshold, "v_threshold", source)
        rows_of(self.constant, "time constant", source)
        rows_of(self.start, "start", source)
        if self.v_min is not None:
            rows_of(self.v_min, "v_min", source)
        if self.emits != "spikes":
            return replace(source, kind="real", dense=True)
        return replace(source, kind="graded" if self.multiple_spikes else "binary", dense=False)

    def neurons(self, *inputs: SignalType) -> int:
        """Return one neuron per value of the input."""
        return inputs[0].size

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one potential for each neuron."""
        return {"potential": Words(inputs[0].size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return what the charge consists of, a comparison with the threshold and the floor, and a reset by spike."""
        return updating(self.op_charge, 1 + (self.v_min is not None), inputs[0], self.output_type(*inputs))

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the spikes, or the potentials that are emitted in their place, step by step, in float32."""
        out = np.empty_like(inputs[0])
        for index, (step, left) in enumerate(stepped(self, inputs[0], memory)):
            out[index] = {"spikes": step.spikes, "charge": step.charged}.get(self.emits, left)
        return out

    def rest(self, shape: tuple[int, ...]) -> FloatArray:
        """Return the potential at the beginning of a sample, for neurons of the per-step shape."""
        return np.array(np.broadcast_to(spread(self.start, shape), shape))

    def charged(self, v: FloatArray, x: FloatArray) -> FloatArray:
        """Return the potential v charged with the input x, in float32 and in the order of the equation."""
        return v + x

    def step(self, v: FloatArray, x: FloatArray, memory: Memory) -> DenseStep:
        """Return what one time step makes of the potential and the input, in the per-step shape."""
        threshold = spread(self.v_threshold, x.shape)
        above = np.greater if self.strict else np.greater_equal
        charged, late = self.charged(v, x), np.zeros(x.shape, np.bool_)
        if self.reset in LATE:
            late = above(v, threshold)
            lost = np.asarray(np.where(late, np.float32(0), charged), np.float32)
            charged = lost if self.reset == "zero_late" else charged - late.astype(np.float32) * threshold
        fired = np.asarray(above(charged, threshold), np.float32)
        return DenseStep(charged, late, fired * np.trunc(charged / threshold) if self.multiple_spikes else fired)

    def after(self, charged: FloatArray, late: Flags, spikes: FloatArray) -> FloatArray:
        """Return the potential that a step leaves in which these neurons spiked."""
        threshold = spread(self.v_threshold, charged.shape)
        if self.reset == "zero":
            charged = np.asarray(np.where(spikes != 0, np.float32(0), charged), np.float32)
        elif self.reset == "subtract":
            charged = charged - spikes * threshold
        elif self.reset == "subtract_once":
            charged = charged - (spikes - late) * threshold
        return charged if self.v_min is None else np.maximum(charged, spread(self.v_min, charged.shape))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        membrane = self.membrane(source, self.output_type(source))
        if self.emits != "spikes":
            return PotentialOp(membrane, self.emits == "charge")
        return NeuronOp(membrane)

    def membrane(self, source: SignalType, output: SignalType) -> Membrane:
        """Return the membrane potentials of these neurons, with every constant spread over the channels."""
        return Membrane(
            output,
            rows_of(self.constant, "time constant", source),
            rows_of(self.v_threshold, "v_threshold", source),
            Dynamics(self.op_charge, RESETS.index(self.reset), self.strict, self.multiple_spikes),
            rows_of(self.start, "start", source),
            None if self.v_min is None else rows_of(self.v_min, "v_min", source),
        )

    @property
    def op_charge(self) -> int:
        """The charge equation that the kernel runs."""
        return self.charge


@dataclass(frozen=True, eq=False, repr=False)
class IF(Neuron):
    """Integrate-and-fire neuron: ``h = v + x``."""


@dataclass(frozen=True, eq=False, repr=False)
class LIF(Neuron):
    r"""Leaky integrate-and-fire neuron, as SpikingJelly's ``LIFNode`` defines it.

    .. math:: h = v + (x - v) / \tau \quad\text{(decay\_input)} \qquad\text{or}\qquad h = v - v / \tau + x

    Parameters
    ----------
    tau : float or float32 array
        Membrane time constant in time steps, at least 1.
    decay_input : bool
        Whether the input is divided by tau too.
    """

    tau: PerNeuron = 2.0
    decay_input: bool = True

    def charged(self, v: FloatArray, x: FloatArray) -> FloatArray:
        """Return the charge, divided by tau."""
        tau = spread(self.tau, x.shape)
        return v + (x - v) / tau if self.decay_input else v - v / tau + x

    @property
    def constant(self) -> PerNeuron:
        """Tau, or its inverse where that gives the same result (powers of two)."""
        return np.asarray(1 / np.asarray(self.tau), np.float32) if self.op_charge == LEAK_MULTIPLY else self.tau

    @property
    def op_charge(self) -> int:
        """Multiply by 1 / tau where that is exact, else divide."""
        if (np.asarray(self.tau) < 1).any():
            raise LayerError(f"tau {np.min(self.tau)} found; expected at least 1 time step")
        if not self.decay_input:
            return LEAK_FREE_INPUT
        mantissa, _ = np.frexp(np.asarray(self.tau, np.float32))
        return LEAK_MULTIPLY if (mantissa == 0.5).all() else LEAK_DIVIDE


@dataclass(frozen=True, eq=False, repr=False)
class PLIF(Neuron):
    r"""LIF neuron with a learned time constant, as SpikingJelly's ``ParametricLIFNode`` defines it.

    .. math::
        h = v + (x - v)\, \sigma(w) \quad\text{(decay\_input)} \qquad\text{or}\qquad h = v\, (1 - \sigma(w)) + x

    Parameters
    ----------
    w : float or float32 array
        Learned; ``tau = 1 / sigmoid(w)``.
    decay_input : bool
        Whether the input is multiplied by sigmoid(w) too.
    """

    w: PerNeuron = 0.0
    decay_input: bool = True

    @property
    def share(self) -> FloatArray:
        """The factor sigmoid(w), rounded once to float32."""
        return np.asarray(1 / (1 + np.exp(-np.asarray(self.w, np.float64))), np.float32)

    def charged(self, v: FloatArray, x: FloatArray) -> FloatArray:
        """Return the charge, multiplied by sigmoid(w)."""
        share = spread(self.share, x.shape)
        return v + (x - v) * share if self.decay_input else v * (np.float32(1) - share) + x

    @property
    def constant(self) -> PerNeuron:
        """Sigmoid(w), or what it leaves of 1."""
        return self.share if self.decay_input else np.asarray(np.float32(1) - self.share, np.float32)

    @property
    def op_charge(self) -> int:
        """Leak and input together, or the leak alone."""
        return LEAK_MULTIPLY if self.decay_input else DECAY


def rows_of(value: PerNeuron, name: str, source: SignalType) -> FloatArray:
    """Spread a constant over the channels: ``(1, channels)``, or ``(positions, channels)`` if it varies by position.

    Raises
    ------
    LayerError
        If the array has neither one value per channel nor one per neuron, or holds NaN or infinity.
    """
    with np.errstate(over="ignore"):
        array = np.asarray(value, np.float32)
    if not np.isfinite(array).all():
        raise LayerError(f"{name} that is NaN or infinite found; expected finite values")
    if array.shape == source.shape and len(source.grid) == 2:
        return np.ascontiguousarray(array.reshape(source.channels, -1).T)
    if array.shape == source.shape and source.grid:
        return np.ascontiguousarray(array)
    if array.size == 1 or array.shape == (source.channels,):
        return np.ascontiguousarray(np.broadcast_to(array.reshape(1, -1), (1, source.channels)))
    raise LayerError(
        f"{name} of shape {array.shape} found; expected one number, ({source.channels},) or {source.shape}"
    )


def updating(charge: int, comparisons: int, source: SignalType, output: SignalType) -> Entailed:
    """Return what one update of a potential entails, and what an update that fires.

    An update reads the potential, charges it, compares it so many times, and writes it; of a dense input it reads the
    value, of a dense output it writes it. Where the output is spikes, those that are counted tell the updates that
    fired; else the op reports these.
    """
    leaks, additions = CHARGING[charge]
    update = {
        "leak_multiplications": leaks,
        "membrane_additions": additions,
        "membrane_comparisons": comparisons,
        "potential_reads": 1,
        "potential_writes": 1,
        **({"value_reads": 1} if source.dense else {}),
        **({"value_writes": 1} if output.dense else {}),
    }
    if output.kind == "binary":
        return {"neuron_updates": update, "spikes": {"updates_with_spike": 1, "resets": 1, "index_writes": 1}}
    emitted = {"index_writes": 1, "value_writes": 1} if output.kind == "graded" else {}
    return {"neuron_updates": update, "updates_with_spike": {"resets": 1, **emitted}}


class MembraneOp(Op):
    """Holds the potential of a membrane from step to step."""

    state_names = ("potential",)
    looks_ahead = False
    once_if_static = False

    def __init__(self, membrane: Membrane) -> None:
        self.membrane = membrane
        self.own()

    def own(self) -> None:
        """Take buffers of its own, and a potential once it is asked for."""
        self.membrane = self.membrane.own()
        self._room: FloatArray | None = None
        self._begun = False

    def reset(self) -> None:
        """Let every potential begin at its start."""
        self._begun = False

    @property
    def potential(self) -> FloatArray:
        """The potentials, ``(positions, channels)``."""
        if not self._begun:
            self.potential = self.membrane.at_rest()
        assert self._room is not None  # as the sample has begun
        return self._room

    @potential.setter
    def potential(self, potential: FloatArray) -> None:
        self._room, self._begun = potential, True

    def fire(self, start: int, current: FloatArray, context: Context, charged: FloatArray = NOT_KEPT) -> None:
        """Charge, fire and reset in one step or several; see `Membrane.fire`.

        The memory of the sample before is used again, and what is in it is not: to set it to the start takes as long as
        a step, and fresh memory longer.
        """
        self.membrane.fire(start, current, self._held(), charged, not self._begun, context)
        self._begun |= len(current) > 0

    def _held(self) -> FloatArray:
        """Return the potentials, whatever is in them before the sample begins."""
        if self._room is None:
            self._room = self.membrane.at_rest()
        return self._room

    def report(self, rows: LedgerRows) -> None:
        """Report the updates of one chunk: all, those with an input, and those with a change."""
        rows.add("neuron_updates", self.membrane.output.size)
        active = self.membrane.active
        rows.add("updates_with_input", active[:, 0])
        rows.add("updates_with_change", active[:, 1])


class NeuronOp(MembraneOp):
    """Charges the membrane and fires, step by step."""

    kernel = "fire"
    plays = True

    def __init__(self, membrane: Membrane) -> None:
        super().__init__(membrane)
        self.hears_bands = not membrane.dynamics.multiple

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows:
        """Charge, fire and reset in every step of one chunk."""
        signal = inputs[0]
        self.membrane.begin(signal.steps, context, self.lists_channels or self.membrane.dynamics.multiple)
        if isinstance(signal, Banded):
            self.membrane.fire_in_bands(signal, self._held(), not self._begun, context)
            self._begun |= signal.steps > 0
        else:
            self.fire(0, every_channel(signal, context), context)
        spikes = self.membrane.spikes(signal.steps)
        context.rows.add("spikes", self.membrane.spikes_by_step(spikes, context))
        if spikes.values is not None:
            context.rows.add("updates_with_spike", context.by_step(spikes))
        self.report(context.rows)
        return spikes


class PotentialOp(MembraneOp):
    """Does what a `NeuronOp` does, and passes on the potential instead of the spikes."""

    kernel = "fire"
    plays = True

    def __init__(self, membrane: Membrane, charged: bool) -> None:
        super().__init__(membrane)
        self.charged = charged

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Charge, fire and reset in every step of one chunk."""
        (signal,) = inputs
        current = every_channel(signal, context)
        emitted = context.buffers.floats(current.size).reshape(current.shape)
        self.membrane.begin(signal.steps, context)
        if self.charged:
            self.fire(0, current, context, emitted)
        else:
            positions = signal.type.positions
            for step in range(signal.steps):
                rows = slice(step * positions, (step + 1) * positions)
                self.fire(step, current[rows], context)
                context.call(copy, self.potential, emitted[rows])
        context.rows.add("updates_with_spike", context.by_step(self.membrane.spikes(signal.steps)))
        self.report(context.rows)
        return Dense(self.membrane.output, signal.steps, emitted)
