"""Weights in memory: one copy, in the form that its kernel reads.

A convolution of a large network has millions of weights. Once an op has arranged them for its kernel, the array that
they came from is let go, and arranged back when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, overload

import numpy as np

from eventsim.facts import Entailed, Words, arriving, merged
from eventsim.kernels.packing import pack, unpack
from eventsim.signals import CountArray, FloatArray, SignalType

Arrange = Callable[[FloatArray], FloatArray]

PRODUCT = {"weight_reads": 1, "sum_reads": 1, "sum_writes": 1}
BIAS = {"bias_reads": 1, "sum_reads": 1, "sum_writes": 1}


class Packed:
    """A weight as a kernel reads it.

    Parameters
    ----------
    array : float32 array
        The weight; not kept.
    taps : callable
        Arranges it as ``(taps, inputs, outputs)``.
    back : callable
        Arranges ``(taps, inputs, outputs)`` as it was.
    tiled : bool
        Whether it is packed for `eventsim.kernels.gather.gather`; else it stays taps in memory order.
    count : int
        Packed in so many parts of equally many taps.
    groups : int
        Of channels that do not see each other.

    Attributes
    ----------
    parts : list of float32 array
    shape : tuple of int
        Of the weight as it was given.
    zeros : int
        Values in it that are exactly 0.
    fans : list of int64 array (taps, inputs), or of None
        Of a pruned weight, for each part: how many outputs each input reaches through each tap.
    """

    def __init__(
        self, array: FloatArray, taps: Arrange, back: Arrange, tiled: bool, count: int = 1, groups: int = 1
    ) -> None:
        arranged = np.split(np.ascontiguousarray(taps(array), np.float32), count)
        pruned = is_pruned(array)
        self.fans = [fan_of(part) if pruned else None for part in arranged]
        self.shape = array.shape
        self.zeros = array.size - int(np.count_nonzero(array))
        self.tiled = tiled
        self.parts = [pack(part, groups) for part in arranged] if tiled else arranged
        count_taps, inputs, outputs = arranged[0].shape
        self._taps = count_taps, inputs, outputs, groups
        self._back = back

    def unpack(self) -> FloatArray:
        """Return the weight as it was given; a new array."""
        parts = [unpack(part, *self._taps) for part in self.parts] if self.tiled else self.parts
        return np.array(self._back(np.concatenate(parts)), np.float32, order="C").reshape(self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return np.asarray, (self.unpack(),)  # a pickle holds plain arrays; alignment would be lost


class Weight:
    """Field of a layer that holds a weight, packed or not; reading it gives the array either way."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._held = f"_{name}"

    @overload
    def __get__(self, layer: None, owner: type) -> Weight: ...
    @overload
    def __get__(self, layer: object, owner: type) -> FloatArray: ...
    def __get__(self, layer: object | None, owner: type) -> Weight | FloatArray:
        if layer is None:
            raise AttributeError(self._held)  # so that the dataclass sees a field without a default
        held = vars(layer)[self._held]
        return held.unpack() if isinstance(held, Packed) else held

    def __set__(self, layer: object, value: FloatArray) -> None:
        vars(layer)[self._held] = value


def shape_of(layer: object) -> tuple[int, ...]:
    """Return the shape of a layer's field ``weight`` without unpacking it."""
    shape: tuple[int, ...] = vars(layer)["_weight"].shape
    return shape


def zeros_of(layer: object) -> int:
    """Return how many values of a layer's field ``weight`` are exactly 0, without unpacking it; 0 without one."""
    held = vars(layer).get("_weight")
    if held is None:
        return 0
    return held.zeros if isinstance(held, Packed) else int(np.size(held) - np.count_nonzero(held))


def serving(source: SignalType, *, biased: bool) -> Entailed:
    """Return what synapses entail: a product reads its weight and adds to a partial sum, and so does a bias.

    Where there are biases, there is one for each value of the output, and so many values are written.
    """
    products = dict.fromkeys(("acs", "graded_macs", "macs"), PRODUCT)
    biases = {"bias_additions": {**BIAS, "value_writes": 1}} if biased else {}
    return merged(products, biases, arriving(source))


def words_of(layer: Any, outputs: int) -> Mapping[str, Words]:
    """Return the memory of a layer with the fields ``weight`` and ``bias`` and so many outputs a time step."""
    words = {"weight": Words(prod(shape_of(layer))), "sum": Words(outputs)}
    return words if layer.bias is None else {**words, "bias": Words(layer.bias.size)}


def is_pruned(weight: FloatArray) -> bool:
    """Return whether more than half of the weights are zero; a weight of zero is no synapse then."""
    return bool(2 * np.count_nonzero(weight) < weight.size)


def fan_of(taps: FloatArray) -> CountArray:
    """Return how many weights ``(taps, inputs, outputs)`` of each tap and input are not zero."""
    return np.asarray(np.count_nonzero(taps, axis=2), np.int64)


def packed(layer: object, taps: Arrange, back: Arrange, tiled: bool, count: int = 1, groups: int = 1) -> Packed:
    """Return a layer's field ``weight`` as a kernel reads it, and let go of any other form.

    Parameters are those of `Packed`.
    """
    held = vars(layer)["_weight"]
    if not isinstance(held, Packed) or held.tiled != tiled:
        array = held.unpack() if isinstance(held, Packed) else held
        vars(layer)["_weight"] = held = Packed(array, taps, back, tiled, count, groups)
    return held
