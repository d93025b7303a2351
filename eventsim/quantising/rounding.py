"""From float32 weights, biases and thresholds to integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError, LayerError
from eventsim.kernels.fire_integer import LARGEST_CURRENT, LARGEST_POTENTIAL, LEAK_BITS
from eventsim.layers import IntegerConv2d, IntegerLIF, IntegerLinear, Layer
from eventsim.layers.synapses.integer_weights import LARGEST_WEIGHT, width_of
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


def integer_synapses(layer: Any, least: Reals, largest_input: int | None, scales: Scales) -> tuple[Layer, Sums]:
    """Return a convolution or linear layer with int8 weights, and what it emits.

    Every output channel has a scale: its largest weight is 127 of it, rounded up to a power of two if asked, and it is
    at least so large that thresholds and biases behind it keep to their bits.

    Parameters
    ----------
    layer : Conv2d or Linear
    least : float64 array (channels,)
        What the neurons behind it ask of the scale.
    largest_input : int or None
        None where nothing bounds the input: then the layer refuses inputs that its width was not proven for.
    scales : {"exact", "power_of_two"}

    Raises
    ------
    LayerError
        If the sums fit no width.
    """
    weight = np.asarray(layer.weight, np.float64)
    flat = weight.reshape(len(weight), -1)
    bias = None if layer.bias is None else np.asarray(layer.bias, np.float64)
    scale = np.maximum(np.abs(flat).max(1) / LARGEST_WEIGHT, least)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) * REACH)
    if scales == "power_of_two":
        scale = 2.0 ** np.ceil(np.log2(scale))
    scale = scale.astype(np.float32)  # what is kept is what is divided by
    rounded = np.rint(flat / scale[:, None].astype(np.float64))
    integers = np.clip(rounded, -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8).reshape(weight.shape)
    if largest_input is None:
        total = width_of(integers, 1, getattr(layer, "groups", 1)).largest
        largest_input = max(1, OPEN_SUM // max(total, 1))
    if weight.ndim == 2:
        made: Any = IntegerLinear(integers, scale, largest_input)
    else:
        place = {name: getattr(layer, name) for name in ("stride", "padding", "groups", "dilation")}
        made = IntegerConv2d(integers, scale, largest_input, **place)
    return made, Sums(scale.astype(np.float64), bias, made.width.largest)


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
