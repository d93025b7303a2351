"""From float32 weights, biases and thresholds to integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError, LayerError
from eventsim.kernels.fire_integer import LARGEST_CURRENT, LARGEST_POTENTIAL, LEAK_BITS
from eventsim.layers import (
    Conv3d,
    IntegerConv2d,
    IntegerConv3d,
    IntegerLIF,
    IntegerLinear,
    IntegerResidual,
    IntegerWindowedLinear,
    Layer,
    WindowedLinear,
)
from eventsim.layers.synapses.integer_weights import LARGEST_SUM, LARGEST_WEIGHT
from eventsim.quantising.choosing import leak_share

Scales: TypeAlias = Literal["exact", "power_of_two"]
Reals = npt.NDArray[np.float64]

REACH = 2.0**-16
"""A scale is at least this share of the threshold behind it and of the bias, so that both fit their bits."""
OPEN_SUM = 2**21
"""What sums may reach where nothing bounds the input: it is bounded by what leaves 8 bits behind the point."""


@dataclass(frozen=True)
class Sums:
    """What arrives at integer neurons.

    Attributes
    ----------
    scale : float64 array (channels,)
        What a unit is worth.
    bias : float64 array (channels,) or None
        To be added to the sum times its scale.
    largest : int
        Largest magnitude, in units.
    """

    scale: Reals
    bias: Reals | None
    largest: int


def unit_of(layer: Any, least: Reals, scales: Scales) -> Reals:
    """Return the finest unit of the sums of synapses, of each output channel, as float32 holds it.

    It is the scale of the weights, over a window less what is amplified in it. The largest weight is 127 of the scale,
    rounded up to a power of two if asked, and the unit is at least so large that thresholds and biases behind it, which
    ask for `least`, keep to their bits.
    """
    weight = np.asarray(layer.weight, np.float64)
    unit = np.maximum(np.abs(weight.reshape(len(weight), -1)).max(1) / LARGEST_WEIGHT / _amplified(layer), least)
    if layer.bias is not None:
        unit = np.maximum(unit, np.abs(np.asarray(layer.bias, np.float64)) * REACH)
    if scales == "power_of_two":
        unit = 2.0 ** np.ceil(np.log2(unit))
    return np.asarray(unit.astype(np.float32), np.float64)


def _amplified(layer: Any) -> Reals | float:
    """Return how many units of the sums of a layer, of each channel, a unit of its products is."""
    if not isinstance(layer, WindowedLinear):
        return 1.0
    nothing = np.zeros(np.shape(layer.weight), np.int8)
    return np.asarray(_windowed(nothing, np.ones(len(nothing)), 1, layer).amplified[0], np.float64)


def _windowed(integers: Any, scale: Any, largest_input: int, layer: WindowedLinear) -> IntegerWindowedLinear:
    over = layer.window, layer.exponent, layer.decay, layer.form
    return IntegerWindowedLinear(integers, scale, largest_input, *over)


def common_unit(units: Sequence[Reals], beside_spikes: bool) -> Reals:
    """Return the unit of sums that are added to each other: the coarsest; a spike beside them has a whole number."""
    unit: Reals = np.max(units, axis=0)
    if beside_spikes:
        unit = 1 / np.maximum(np.floor(1 / unit), 1)
    return np.asarray(unit.astype(np.float32), np.float64)


def integer_synapses(layer: Any, unit: Reals, largest_input: int | None) -> tuple[Layer, Sums]:
    """Return synapses with int8 weights, and what they emit.

    Parameters
    ----------
    layer : Conv2d, Conv3d, Linear or WindowedLinear
    unit : float64 array (channels,)
        What a unit of the sums is to be worth, at least `unit_of`.
    largest_input : int or None
        None where nothing bounds the input: then the layer refuses inputs that its width was not proven for.

    Raises
    ------
    LayerError
        If the sums fit no width.
    """
    weight = np.asarray(layer.weight, np.float64)
    scale = (unit * _amplified(layer)).astype(np.float32)  # what is kept is what is divided by
    rounded = np.rint(weight.reshape(len(weight), -1) / scale[:, None].astype(np.float64))
    integers = np.clip(rounded, -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8).reshape(weight.shape)
    made: Any = _synapses(layer, integers, scale, largest_input or 1)
    if largest_input is None:
        most = max(1, OPEN_SUM // max(made.width.largest, 1))
        made = _synapses(layer, integers, scale, most)
    bias = None if layer.bias is None else np.asarray(layer.bias, np.float64)
    return made, Sums(unit, bias, made.width.largest)


def _synapses(layer: Any, integers: Any, scale: Any, largest_input: int) -> Layer:
    if isinstance(layer, WindowedLinear):
        return _windowed(integers, scale, largest_input, layer)
    if integers.ndim == 2:
        return IntegerLinear(integers, scale, largest_input)
    place = {name: getattr(layer, name) for name in ("stride", "padding", "groups")}
    if isinstance(layer, Conv3d):
        return IntegerConv3d(integers, scale, largest_input, **place, time_padding=layer.time_padding)
    return IntegerConv2d(integers, scale, largest_input, **place, dilation=layer.dilation)


def integer_join(layer: Layer, joined: Sequence[Sums | int]) -> tuple[Layer, Sums]:
    """Return a residual join of sums of one unit, and what it emits.

    Parameters
    ----------
    layer : Residual
    joined : sequence of Sums or int
        Sums of integers, or the largest of spikes or graded values, each of which is worth whole units.

    Raises
    ------
    LayerError
        If the sums are larger than a float32 holds exactly.
    """
    sums = [each for each in joined if isinstance(each, Sums)]
    unit, biases = sums[0].scale, [each.bias for each in sums if each.bias is not None]
    worth = np.rint(1 / unit).astype(np.int32)
    largest = sum(each.largest if isinstance(each, Sums) else each * int(worth.max()) for each in joined)
    if largest > LARGEST_SUM:
        raise LayerError(f"sums up to {largest} found; expected at most {LARGEST_SUM}, leave the layer in float32")
    if len(sums) < len(joined):
        layer = IntegerResidual(np.stack([worth if isinstance(each, int) else np.ones_like(worth) for each in joined]))
    return layer, Sums(unit, np.sum(biases, axis=0) if biases else None, largest)


def integer_attention(layer: Any, channels: int, largest: int) -> tuple[Layer, Sums]:
    """Return an attention that leaves its scale to the neurons behind it, and what it emits."""
    scale = float(np.float32(layer.scale))
    return replace(layer, scale=1.0), Sums(np.full(channels, scale), None, largest)


def asked_by(layer: Any, shape: tuple[int, ...]) -> Reals:
    """Return the least scale of each channel that neurons of a per-step shape allow."""
    threshold = np.asarray(layer.v_threshold, np.float64)
    channels = shape[0] if len(shape) == 3 else shape[-1]
    if threshold.size == 1 or threshold.shape == (channels,):
        return np.broadcast_to(threshold.reshape(-1), (channels,)) * REACH
    largest: Reals = threshold.reshape(channels, -1).max(1) if len(shape) == 3 else threshold.max(0)
    return largest * REACH


def integer_neurons(layer: Any, sums: Sums, fraction: int) -> Layer:
    """Return neurons in fixed point, with as many bits behind the point as fit, at most `fraction`."""
    threshold = np.asarray(layer.v_threshold, np.float64)
    spread = sums.scale[:, None, None] if threshold.ndim == 3 else sums.scale
    limit, bias = threshold / spread, 0.0 if sums.bias is None else sums.bias / sums.scale
    for bits in range(fraction, -1, -1):
        rounded = np.rint(np.asarray(bias) * 2.0**bits)
        most = int(np.abs(rounded).max())
        if (sums.largest << bits) + most <= LARGEST_CURRENT and (limit * 2.0**bits).max() <= LARGEST_POTENTIAL:
            return IntegerLIF(
                np.maximum(np.rint(limit * 2.0**bits), 1).astype(np.int32),
                sums.largest,
                sums.scale.astype(np.float32),
                None if sums.bias is None else rounded.astype(np.int32),
                _plain(np.rint(leak_share(layer) * (1 << LEAK_BITS)).astype(np.int32)),
                getattr(layer, "decay_input", False),
                bits,
                layer.reset,
                layer.strict,
            )
    raise LayerError(
        f"sums up to {sums.largest}, biases up to {np.abs(bias).max():.3g}, thresholds up to {limit.max():.3g} found; "
        f"expected at most {LARGEST_CURRENT} and {LARGEST_POTENTIAL}"
    )


def _plain(value: npt.NDArray[np.int32]) -> Any:
    return int(value) if value.ndim == 0 else value


def check_options(scales: str, fraction: int) -> None:
    """Refuse options that there are not.

    Raises
    ------
    InputError
    """
    if scales not in ("exact", "power_of_two"):
        raise InputError(f"scales {scales!r} found; expected 'exact' or 'power_of_two'")
    if not isinstance(fraction, int) or isinstance(fraction, bool) or not 0 <= fraction <= 16:
        raise InputError(f"fraction {fraction!r} found; expected 0 to 16 bits")
