"""Convolutions without neurons between them as one: behind each other, beside each other, with their normalisations.

All is linear, so it is done once, in float64; the layer holds what comes out of it. Beside each number stands the sum
of the absolute values of the terms that it was made of, which bounds how PyTorch rounds where it takes one step after
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import numpy.typing as npt

from eventsim.layers import Affine, Conv2d, Layer
from eventsim.signals import FloatArray
from eventsim_importers.reading.checkpoint import BatchNorm
from eventsim_importers.reading.synapses import gain_of

Reals = npt.NDArray[np.float64]
Pair = tuple[int, int]
ROUNDED = 16 * float(np.finfo(np.float32).eps)
"""How far a border that PyTorch computed in float32 may be from the value of zero, as a share of its terms."""


@dataclass(frozen=True)
class Kernel:
    """A convolution over a map in float64.

    Attributes
    ----------
    weight : float64 array (C_out, C_in / groups, height, width)
    bias : float64 array (C_out,)
    terms, bias_terms : float64 arrays
        Of the same shapes: sums of the absolute values that weight and bias are sums of.
    biased : bool
        Whether there is one, be it of zeros.
    stride, padding, dilation : (int, int)
    groups : int
    """

    weight: Reals
    bias: Reals
    terms: Reals
    bias_terms: Reals
    biased: bool
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether each pixel is made of one."""
        return self.weight.shape[2:] == (1, 1)

    def layer(self) -> Conv2d:
        """Return it as a layer."""
        bias = self.bias.astype(np.float32) if self.biased else None
        weight = np.ascontiguousarray(self.weight, np.float32)
        return Conv2d(weight, bias, self.stride, self.padding, self.groups, self.dilation)

    def absolute(self) -> dict[str, FloatArray]:
        """Return the terms of the layer's fields."""
        return {"weight": self.terms.astype(np.float32), "bias": self.bias_terms.astype(np.float32)}

    def normalised(self, norm: BatchNorm, eps: float) -> Kernel:
        """Return it with a normalisation behind it."""
        gain = gain_of(norm, eps)
        along = gain.reshape(-1, 1, 1, 1)
        return replace(
            self,
            weight=self.weight * along,
            bias=norm.bias + (self.bias - norm.mean) * gain,
            terms=self.terms * np.abs(along),
            bias_terms=np.abs(norm.bias) + (np.abs(norm.mean) + self.bias_terms) * np.abs(gain),
            biased=True,
        )

    def bordered(self, border: Reals, padding: Pair) -> Kernel | None:
        """Return it with a border of what it makes of zeros; None where `border` is another."""
        if not self.pointwise or np.any(np.abs(border - self.bias) > ROUNDED * self.bias_terms):
            return None
        stride = self.stride
        more = (self.padding[0] + stride[0] * padding[0], self.padding[1] + stride[1] * padding[1])
        return replace(self, padding=more)


def kernel_of(layer: Layer) -> Kernel | None:
    """Return a convolution, or a scale and shift of each channel, as a kernel; None for anything else."""
    if isinstance(layer, Affine) and layer.scale.ndim == 1 and (layer.shift is None or layer.shift.ndim == 1):
        weight, bias, geometry = (
            layer.scale.reshape(-1, 1, 1, 1),
            layer.shift,
            ((1, 1), (0, 0), (1, 1), len(layer.scale)),
        )
    elif isinstance(layer, Conv2d):
        weight, bias = layer.weight, layer.bias
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    else:
        return None
    exact = weight.astype(np.float64)
    offset = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    return Kernel(exact, offset, np.abs(exact), np.abs(offset), bias is not None, *geometry)


def behind(first: Kernel, second: Kernel) -> Kernel | None:
    """Return one kernel that does what one does behind the other; None where zeros around the first's output differ.

    A tap ``k`` of the second sees the first ``stride`` times farther apart, so the two reach ``d1 k1 + s1 d2 k2``.
    """
    if any(second.padding) and (not first.pointwise or np.any(first.bias)):
        return None
    groups = gcd(first.groups, second.groups)
    steps = [s * d for s, d in zip(first.stride, second.dilation, strict=True)]
    one, other = _blocks(first.weight, first.groups, groups), _blocks(second.weight, second.groups, groups)
    one_terms, other_terms = _blocks(first.terms, first.groups, groups), _blocks(second.terms, second.groups, groups)
    weight = _composed(one, other, first.dilation, steps)
    terms = _composed(one_terms, other_terms, first.dilation, steps)
    padding = [p + s * q for p, s, q in zip(first.padding, first.stride, second.padding, strict=True)]
    stride = [a * b for a, b in zip(first.stride, second.stride, strict=True)]

    def through(blocks: Reals, bias: Reals) -> Reals:
        return np.asarray((blocks.sum((3, 4)) @ bias.reshape(groups, -1, 1)).reshape(-1), np.float64)

    return Kernel(
        weight.reshape(-1, *weight.shape[2:]),
        second.bias + through(other, first.bias),
        terms.reshape(-1, *terms.shape[2:]),
        second.bias_terms + through(other_terms, first.bias_terms),
        first.biased or second.biased,
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        groups=groups,
    )


def beside(one: Kernel, other: Kernel) -> Kernel | None:
    """Return one kernel that makes the sum of two of the same map; None where they stride differently."""
    if one.stride != other.stride:
        return None
    groups = gcd(one.groups, other.groups)
    padding = [max(pair) for pair in zip(one.padding, other.padding, strict=True)]
    reach = [
        max(each.dilation[axis] * (each.weight.shape[2 + axis] - 1) - each.padding[axis] for each in (one, other))
        for axis in (0, 1)
    ]
    size = [p + r + 1 for p, r in zip(padding, reach, strict=True)]
    sums = []
    for field in ("weight", "terms"):
        total: Reals | None = None
        for each in (one, other):
            blocks = _blocks(getattr(each, field), each.groups, groups)
            placed = np.zeros((*blocks.shape[:3], *size))
            begin = [p - q for p, q in zip(padding, each.padding, strict=True)]
            rows, columns = (
                begin[axis] + each.dilation[axis] * np.arange(each.weight.shape[2 + axis]) for axis in (0, 1)
            )
            placed[..., rows[:, None], columns] = blocks
            total = placed if total is None else total + placed
        assert total is not None
        sums.append(total.reshape(-1, *total.shape[2:]))
    return Kernel(
        sums[0],
        one.bias + other.bias,
        sums[1],
        one.bias_terms + other.bias_terms,
        one.biased or other.biased,
        one.stride,
        (padding[0], padding[1]),
        groups=groups,
    )


def _blocks(weight: Reals, groups: int, wanted: int) -> Reals:
    """Return a weight (C_out, C_in / groups, ...) as (wanted, C_out / wanted, C_in / wanted, ...), with its zeros."""
    inner = groups // wanted
    outputs, inputs = len(weight) // groups, weight.shape[1]
    blocks = np.zeros((wanted, inner, outputs, inner, inputs, *weight.shape[2:]))
    given = weight.reshape(wanted, inner, outputs, inputs, *weight.shape[2:])
    for each in range(inner):
        blocks[:, each, :, each] = given[:, each]
    return blocks.reshape(wanted, inner * outputs, inner * inputs, *weight.shape[2:])


def _composed(one: Reals, other: Reals, dilation: Sequence[int], steps: Sequence[int]) -> Reals:
    """Return the taps of `other` behind those of `one`, both in blocks."""
    size = [
        d * (a - 1) + s * (b - 1) + 1
        for d, s, a, b in zip(dilation, steps, one.shape[3:], other.shape[3:], strict=True)
    ]
    taps = np.zeros((*size, len(one), other.shape[1], one.shape[2]))
    before, after = (np.ascontiguousarray(np.moveaxis(each, (3, 4), (0, 1))) for each in (one, other))
    for y, x in np.ndindex(*one.shape[3:]):
        for v, u in np.ndindex(*other.shape[3:]):
            taps[y * dilation[0] + v * steps[0], x * dilation[1] + u * steps[1]] += after[v, u] @ before[y, x]
    return np.moveaxis(taps, (0, 1), (3, 4))
