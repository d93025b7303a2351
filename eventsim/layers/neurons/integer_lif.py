"""Neurons whose potentials are fixed-point numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from eventsim.banded import Band, Banded
from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, merged
from eventsim.kernels.bits import words
from eventsim.kernels.dynamics import INTEGRATE, LEAK_MULTIPLY
from eventsim.kernels.fire import add_up
from eventsim.kernels.fire_integer import INTEGRATE as WITHOUT_LEAK
from eventsim.kernels.fire_integer import (
    LARGEST_CURRENT,
    LARGEST_POTENTIAL,
    LEAK_BITS,
    MULTIPLY,
    MULTIPLY_LEAK,
    SHIFT,
    SHIFT_LEAK,
    Fixed,
    advance_integer,
    are_within,
    fire_integer,
    repeated_integers,
    stretch_of_integers,
)
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import list_spikes
from eventsim.layers.neurons.spiking import updating
from eventsim.signals import NO_VALUES, BitArray, CountArray, Dense, FloatArray, IntArray, Rows, SignalType

Whole = int | IntArray
"""One integer for all, or an array ``(channels,)`` or of the whole per-step shape."""
_Longs = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class IntegerLIF(Layer):
    r"""LIF, IF and PLIF neurons in integers, behind integer synapses, attention or tables.

    A potential v counts units of :math:`scale \cdot 2^{-fraction}`, and so do thresholds and biases. What arrives, S,
    is rounded to an integer, which sums of integer layers are:

    .. math::
        x &= 2^{fraction} S + bias \\
        h &= v + R\big((x - v)\, leak\big) \quad\text{(input\_leaks)} \qquad\text{or}\qquad h = v + R(-v\, leak) + x

    with :math:`R(y) = \lfloor y / 2^{15} + 1/2 \rfloor`: a share of leak / 32768 leaks, rounded to the nearest integer,
    halves up. Where no neuron leaks, ``h = v + x``. A neuron fires where ``h >= v_threshold`` (above it if strict), and
    resets to 0 or by the threshold. A potential stays between -2^30 and 2^30. Nothing overflows: a sum beyond
    `largest_input` is refused, and thresholds beyond 2^30, or shifted sums and biases beyond 2^29, are, too.

    Parameters
    ----------
    v_threshold : int or int32 array
        From 0 to 2^30.
    largest_input : int
        Largest magnitude of a sum that arrives, as proven of the layers before.
    scale : float or float32 array
        What a unit of the sums is worth; nothing is multiplied by it.
    bias : int32 array (channels,) or of the per-step shape, optional
        Added in every time step.
    leak : int or int32 array
        From 0 to 32768.
    input_leaks : bool
        Whether the input leaks with the potential, as ``decay_input`` of `eventsim.layers.LIF` says.
    fraction : int
        Bits behind the point, 0 to 24.
    reset : {"zero", "subtract"}
    strict : bool
        Fire above the threshold only.
    """

    v_threshold: Whole
    largest_input: int
    scale: float | FloatArray = 1.0
    bias: IntArray | None = None
    leak: Whole = 0
    input_leaks: bool = True
    fraction: int = 12
    reset: Literal["zero", "subtract"] = "zero"
    strict: bool = False

    role: ClassVar[Role] = "neurons"

    @property
    def parameters(self) -> int:
        """Number of biases, which are weights of the layer before: thresholds and leaks are none."""
        return 0 if self.bias is None else int(self.bias.size)

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return spikes at the same positions."""
        (source,) = inputs
        if self.reset not in ("zero", "subtract"):
            raise LayerError(f"reset {self.reset!r} found; expected 'zero' or 'subtract'")
        if not 0 <= self.fraction <= 24:
            raise LayerError(f"fraction {self.fraction} found; expected 0 to 24 bits")
        whole_rows(self.v_threshold, "v_threshold", source, (0, LARGEST_POTENTIAL))
        whole_rows(self.leak, "leak", source, (0, 1 << LEAK_BITS))
        most = 0
        if self.bias is not None:
            most = int(np.abs(whole_rows(self.bias, "bias", source, (-LARGEST_CURRENT, LARGEST_CURRENT))).max())
        if self.largest_input < 0 or (self.largest_input << self.fraction) + most > LARGEST_CURRENT:
            raise LayerError(
                f"sums up to {self.largest_input} with {self.fraction} bits behind the point and biases up to {most} "
                f"found; expected at most {LARGEST_CURRENT} in all, take fewer bits"
            )
        return replace(source, kind="binary", dense=False)

    def neurons(self, *inputs: SignalType) -> int:
        """Return one neuron per value of the input."""
        return inputs[0].size

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one potential for each neuron, and the biases, of 32 bits."""
        held = {"potential": Words(inputs[0].size, 32)}
        return held if self.bias is None else {**held, "bias": Words(self.bias.size, 32)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return what the charge consists of, a comparison with the threshold, and a reset by spike."""
        charge = LEAK_MULTIPLY if np.any(self.leak) else INTEGRATE
        update = updating(charge, 1, inputs[0], self.output_type(*inputs))
        return update if self.bias is None else merged(update, {"bias_additions": {"bias_reads": 1}})

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the spikes, step by step, in 64-bit integers."""
        (given,) = inputs
        shape = given.shape[1:]
        threshold, leak, bias = (
            _spread(value, shape) for value in (self.v_threshold, self.leak, 0 if self.bias is None else self.bias)
        )
        v = memory.kept.get("potential", np.zeros(shape, np.int64))
        out = np.empty_like(given)
        for step, sums in enumerate(given):
            x = (np.rint(sums).astype(np.int64) << self.fraction) + bias
            product = ((x if self.input_leaks else 0) - v) * leak
            leaked = (product + (1 << (LEAK_BITS - 1))) >> LEAK_BITS
            h = v + leaked + (0 if self.input_leaks else x) if leak.any() else v + x
            fired = h > threshold if self.strict else h >= threshold
            v = np.where(fired, h - threshold if self.reset == "subtract" else 0, h)
            v = np.clip(v, -LARGEST_POTENTIAL, LARGEST_POTENTIAL)
            out[step] = fired
        memory.kept["potential"] = v
        return out

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return IntegerNeuronOp(self, inputs[0], self.output_type(*inputs))


def whole_rows(value: Whole, name: str, source: SignalType, within: tuple[int, int]) -> IntArray:
    """Spread a constant over the channels: ``(1, channels)``, or ``(positions, channels)`` if it varies by position.

    Raises
    ------
    LayerError
        If the array has neither one value per channel nor one per neuron, or holds what is no integer within bounds.
    """
    array, (low, high) = np.asarray(value), within
    if array.dtype.kind != "i" or array.min(initial=high) < low or array.max(initial=low) > high:
        raise LayerError(f"{name} of {array.dtype} with other values found; expected integers from {low} to {high}")
    array = array.astype(np.int32)
    if array.shape == source.shape and len(source.grid) == 2:
        return np.ascontiguousarray(array.reshape(source.channels, -1).T)
    if array.shape == source.shape and source.grid:
        return np.ascontiguousarray(array)
    if array.size == 1 or array.shape == (source.channels,):
        return np.ascontiguousarray(np.broadcast_to(array.reshape(1, -1), (1, source.channels)))
    raise LayerError(
        f"{name} of shape {array.shape} found; expected one number, ({source.channels},) or {source.shape}"
    )


def _spread(value: Whole, shape: tuple[int, ...]) -> _Longs:
    """Return a constant such that it broadcasts to a time step."""
    array = np.asarray(value, np.int64)
    return array.reshape(-1, 1, 1) if len(shape) == 3 and array.ndim == 1 else array


class IntegerNeuronOp(Op):
    """Holds the potentials, charges them and fires, step by step."""

    state_names = ("potential",)
    looks_ahead = False
    once_if_static = False

    def __init__(self, layer: IntegerLIF, source: SignalType, output: SignalType) -> None:
        self.output = output
        self.plays = source.dense
        self.kernel, self.hears_bands = "fire_integer", True
        self.largest_input = layer.largest_input
        self.biased = layer.bias is not None
        leak = whole_rows(layer.leak, "leak", source, (0, 1 << LEAK_BITS))
        threshold = whole_rows(layer.v_threshold, "v_threshold", source, (0, LARGEST_POTENTIAL))
        bias: Whole = 0 if layer.bias is None else layer.bias
        given = (
            whole_rows(bias, "bias", source, (-LARGEST_CURRENT, LARGEST_CURRENT)),
            leak,
            threshold + np.int32(layer.strict),
            threshold,
        )
        rows = max(len(constant) for constant in given)
        spread: Any = (np.broadcast_to(constant, (rows, output.channels)) for constant in given)
        self.constants: Any = tuple(repeated_integers(constant, output.positions) for constant in spread)
        self.fixed = _fixed(layer, leak)
        self.own()

    def own(self) -> None:
        """Begin with a potential of its own."""
        self._room = np.empty((self.output.positions, self.output.channels), np.int32)
        self._begun = False

    def reset(self) -> None:
        """Let every potential begin at 0: what the sample before left is not read, as to clear it takes as long."""
        self._begun = False

    @property
    def potential(self) -> IntArray:
        """The potentials, ``(positions, channels)``."""
        if not self._begun:
            self._room[:] = 0
            self._begun = True
        return self._room

    @potential.setter
    def potential(self, potential: IntArray) -> None:
        self._room, self._begun = potential, True

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows:
        """Charge, fire and reset in every step of one chunk."""
        (signal,), rows = inputs, context.rows
        indices = context.buffers.indices(signal.steps * self.output.size if self.lists_channels else 0)
        indptr = np.empty(signal.steps * self.output.positions + 1, np.int64)
        indptr[0] = 0
        active = context.counts((signal.steps, 3))
        fired = context.buffers.bits(signal.steps, words(self.output.size))
        held = self._room, self.constants, self.fixed._replace(fresh=not self._begun)
        self._begun |= signal.steps > 0
        shared = isinstance(signal, Banded) or context.worth(signal.steps * self.output.size)  # about 1 ns for each
        if shared:
            context.call(add_up, self._fired_together(signal, held, fired, active.shape, context), active)
            list_spikes(fired, self.output, indptr, indices, context)
            fine = context.call(are_within, active, holds=bool)
        else:
            fine = context.call(fire_integer, signal.to_array(), *held, indptr, indices, fired, active, holds=bool)
        if not fine:
            raise LayerError(
                f"sum {np.abs(signal.to_array()).max():g} found; expected at most {self.largest_input}, as proven of "
                "the layers before"
            )
        spikes = Rows.within(self.output, signal.steps, indptr, indices, NO_VALUES, fired)
        rows.add("spikes", context.by_step(spikes))
        rows.add("neuron_updates", self.output.size)
        rows.add("updates_with_input", active[:, 0])
        rows.add("updates_with_change", active[:, 1])
        if self.biased:
            rows.add("bias_additions", self.output.size)
        return spikes

    def _fired_together(
        self,
        signal: Rows | Dense,
        held: tuple[Any, ...],
        fired: BitArray,
        counts: tuple[int, int],
        context: Context,
    ) -> CountArray:
        """Advance neurons in bands, or divided among threads; return the counts of each part."""
        size = self.output.size
        if isinstance(signal, Banded):

            def given(band: Band, counted: CountArray) -> tuple[Any, ...]:
                return band.sums, *held, fired, counted, band.first, band.last

            return signal.share(advance_integer, given, counts, context)
        parts = context.workers.ranges(size, stretch_of_integers(len(self.constants[0]), size))
        counted = np.empty((len(parts), *counts), np.int64)
        current = signal.to_array()
        shared = [(current, *held, fired, each, *part) for each, part in zip(counted, parts, strict=True)]
        context.share(advance_integer, shared)
        return counted


def _fixed(layer: IntegerLIF, leak: IntArray) -> Fixed:
    """Return what the kernel is told: a shift, where the leak of all is the same power of two."""
    share = int(leak.flat[0])
    alike = bool((leak == share).all())
    way, shift = (MULTIPLY if layer.input_leaks else MULTIPLY_LEAK), 0
    if alike and share == 0:
        way = WITHOUT_LEAK
    elif alike and share & (share - 1) == 0:
        way, shift = (SHIFT if layer.input_leaks else SHIFT_LEAK), LEAK_BITS - share.bit_length() + 1
    return Fixed(way, shift, layer.fraction, layer.reset == "subtract", layer.largest_input)
