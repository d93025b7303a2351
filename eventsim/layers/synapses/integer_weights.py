"""Integer synapses: int8 weights, and the proof that their sums fit.

Inputs are not negative. So whatever is active, and in whatever order it is added, no sum of a channel exceeds that of
its positive weights times the largest input, or falls below that of its negative ones. From these bounds follow the
width of the sums, and how much `eventsim.kernels.gather_integer` takes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.facts import Words
from eventsim.kernels.gather_quads import LARGEST_VALUE, SERVED, pack_quads, unpack_quads
from eventsim.kernels.integer_tiles import pack_integers, unpack_integers
from eventsim.kernels.packing import pack, unpack
from eventsim.layers.layer import LayerError
from eventsim.layers.synapses.conv2d import taps_of, weight_of
from eventsim.layers.synapses.weights import Packed, Weight, fan_of, is_pruned, shape_of
from eventsim.signals import SignalType

ByteArray = npt.NDArray[np.int8]

LARGEST_WEIGHT = 127
"""Weights are symmetric, so that no channel has one more of one sign."""
LARGEST_SUM = 2**24
"""Between layers values are float32, in which integers are exact up to here."""
NARROW_SUM = 2**15 - 1
FEW_INPUTS = 16
"""Input channels up to which a convolution is served by the kernel of float32: it is faster where events are few."""


class Width(NamedTuple):
    """What is proven of the sums of a layer.

    Attributes
    ----------
    largest : int
        No sum has a larger magnitude.
    lane : int
        Bits of the sums of as much as there is room for.
    room : int
        What the values of events may add up to for their sums to fit the lane, whichever they are: all, where every sum
        fits it, else what the largest weight allows.
    """

    largest: int
    lane: int
    room: int

    @property
    def bits(self) -> int:
        """Bits of a whole sum: those of the lane, or 32 where the sums of several are added up."""
        return self.lane if self.largest < 1 << (self.lane - 1) else 32


def width_of(weight: ByteArray, largest_input: int, groups: int = 1) -> Width:
    """Prove a width from a weight ``(C_out, C_in / groups, ...)`` and the largest input.

    Sums take 16 bits where these hold every product; they take 32 where a single one needs them, or an input is more
    than a byte, and in groups, which are served in float32.

    Raises
    ------
    LayerError
        If the sums fit no width.
    """
    flat = weight.reshape(len(weight), -1)
    highest, lowest = (part.sum(1, dtype=np.int64) for part in (np.maximum(flat, 0), np.minimum(flat, 0)))
    largest = int(max(highest.max(initial=0), -lowest.min(initial=0))) * largest_input
    if largest > LARGEST_SUM:
        raise LayerError(
            f"sums up to {largest} found (weights times inputs up to {largest_input}); expected at most {LARGEST_SUM}, "
            "leave the layer in float32"
        )
    heaviest = int(max(flat.max(initial=0), -int(flat.min(initial=0))))
    if groups > 1 or heaviest * largest_input > NARROW_SUM or largest_input > LARGEST_VALUE:
        return Width(largest, 32, LARGEST_SUM)
    fits = largest <= NARROW_SUM or heaviest == 0
    return Width(largest, 16, LARGEST_SUM if fits else NARROW_SUM // heaviest)


def check_integers(layer: Any, source: SignalType) -> None:
    """Refuse what integer synapses cannot be made of: of the fields ``weight``, ``scale`` and ``largest_input``.

    Raises
    ------
    LayerError
        If the weights are no int8 from -127 to 127, the scales do not fit them, or the input has values that are not
        counted in units.
    """
    weight, scale, largest_input = vars(layer)["_weight"], layer.scale, layer.largest_input
    packed = isinstance(weight, Packed)  # and has been checked
    if not packed and (weight.dtype != np.int8 or (weight.size and weight.min() < -LARGEST_WEIGHT)):
        raise LayerError(f"weight of {weight.dtype} from {weight.min()} on found; expected int8 from -127 to 127")
    if scale.shape != weight.shape[:1] or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise LayerError(f"scale of shape {scale.shape} found; expected {weight.shape[:1]} finite numbers above 0")
    if source.kind == "real":
        raise LayerError(f"input {source} found; expected spikes or graded values")
    if not 1 <= largest_input <= LARGEST_SUM or (source.kind == "binary" and largest_input != 1):
        raise LayerError(
            f"largest input {largest_input} of {source} found; expected 1 for spikes, else 1 to {LARGEST_SUM}"
        )


def words_of_integers(layer: Any, outputs: int) -> Mapping[str, Words]:
    """Return the memory of integer synapses of so many outputs a time step."""
    return {"weight": Words(prod(shape_of(layer)), 8), "sum": Words(outputs, layer.width.bits)}


class ByteWeight(Weight):
    """Field of a layer that holds int8 weights, packed or not."""

    def __get__(self, layer: object | None, owner: type) -> Any:
        return super().__get__(layer, owner)


class PackedBytes(Packed):
    """Int8 weights as a kernel reads them.

    Parameters
    ----------
    array : int8 array (C_out, C_in / groups[, kT][, kH, kW])
        The weight; not kept.
    form : {"quads", "plain", "floats"}
        For `eventsim.kernels.gather_quads`, `eventsim.kernels.gather_integer`, or that of float32.
    largest_input : int
    groups : int

    Attributes
    ----------
    parts : list of arrays
        One for each time step of the kernel.
    widths : list of Width
        What is proven of the sums of each.
    """

    def __init__(self, array: ByteArray, form: str, largest_input: int, groups: int) -> None:
        slices = [array[:, :, t] for t in range(array.shape[2])] if array.ndim == 5 else [array]
        arranged = [integer_taps(part, groups) for part in slices]
        self.widths = [width_of(part, largest_input, groups) for part in slices]
        self.fans = [fan_of(part) if is_pruned(array) else None for part in arranged]  # type: ignore[arg-type]
        self.shape, self.zeros = array.shape, array.size - int(np.count_nonzero(array))
        self.form, self.tiled = form, True
        self._taps = *arranged[0].shape, groups
        self.parts = [
            PACKINGS[form][0](part, groups, width.lane) for part, width in zip(arranged, self.widths, strict=True)
        ]

    def unpack(self) -> Any:
        """Return the weight as it was given; a new array."""
        taps = [
            np.asarray(PACKINGS[self.form][1](part, *self._taps, width.lane), np.int8)
            for part, width in zip(self.parts, self.widths, strict=True)
        ]
        if len(self.shape) == 2:
            return np.ascontiguousarray(taps[0][0].T)
        maps = [weight_of(part, (*self.shape[:2], *self.shape[-2:]), self._taps[-1]) for part in taps]  # type: ignore[arg-type]
        whole = np.stack(maps, axis=2) if len(self.shape) == 5 else maps[0]
        return np.array(whole, np.int8, order="C").reshape(self.shape)


PACKINGS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "quads": (lambda taps, *_: pack_quads(taps), lambda packed, *taps: unpack_quads(packed, *taps[:3])),
    "plain": (
        lambda taps, _, lane: pack_integers(taps, lane),
        lambda packed, taps, inputs, outputs, _, lane: unpack_integers(packed, taps, inputs, outputs, lane),
    ),
    "floats": (
        lambda taps, groups, _: pack(taps.astype(np.float32), groups),
        lambda packed, *taps: unpack(packed, *taps[:-1]),
    ),
}


def packed_bytes(layer: Any, groups: int = 1) -> PackedBytes:
    """Return the field ``weight`` of a layer as a kernel reads it, and let go of any other form."""
    held = vars(layer)["_weight"]
    in_floats = groups > 1 or (len(held.shape) > 2 and held.shape[1] <= FEW_INPUTS)
    form = "floats" if in_floats else "quads" if SERVED and layer.largest_input <= LARGEST_VALUE else "plain"
    if not isinstance(held, PackedBytes) or held.form != form:
        held = PackedBytes(layer.weight, form, layer.largest_input, groups)
        vars(layer)["_weight"] = held
    return held


def integer_taps(weight: ByteArray, groups: int = 1) -> ByteArray:
    """Return a weight ``(C_out, C_in / groups[, kT][, kH, kW])`` as ``(taps, C_in, C_out / groups)``, time outside."""
    if weight.ndim == 5:
        return np.concatenate([integer_taps(weight[:, :, t], groups) for t in range(weight.shape[2])])
    maps: Any = weight if weight.ndim == 4 else weight[:, :, None, None]
    return np.ascontiguousarray(taps_of(maps, groups), np.int8)
