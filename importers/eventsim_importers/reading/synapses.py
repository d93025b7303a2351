"""From weights and batch normalisation to layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import Affine, Conv2d, Layer, Linear, SparseLinear
from eventsim.network import NetworkBuilder
from eventsim.signals import FloatArray
from eventsim_importers.reading.checkpoint import BatchNorm


def fold(weight: FloatArray, bias: FloatArray | None, norm: BatchNorm, eps: float) -> tuple[FloatArray, FloatArray]:
    """Fold a batch normalisation into the weights before it, in float64.

    ``W' = W g``, ``b' = beta + (b - mean) g`` with ``g = gamma / sqrt(variance + eps)``; output channels come first
    in `weight`.
    """
    gain = norm.weight.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + eps)
    offset = (0.0 if bias is None else bias.astype(np.float64)) - norm.mean
    folded = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), (norm.bias + offset * gain).astype(np.float32)


def normalisation(norm: BatchNorm, eps: float) -> Affine:
    """Return a batch normalisation that stays a layer, rounded as PyTorch's CPU kernel rounds it."""
    scale = norm.weight * (np.float32(1) / np.sqrt(norm.variance + np.float32(eps)))
    return Affine(scale, norm.bias - norm.mean * scale)


def linear(weight: FloatArray, bias: FloatArray | None) -> Layer:
    """Return a linear layer: sparse if more than half of its synapses are zero."""
    if np.count_nonzero(weight) < weight.size / 2:
        return SparseLinear.from_matrix(weight, bias)
    return Linear(weight, bias)


class SynapseBuilder:
    """Adds a convolution or linear layer together with its batch normalisation.

    Parameters
    ----------
    build : NetworkBuilder
    fold_bn : bool
        Fold the normalisation into the weights, or keep it as a layer of its own (`Affine`).
    eps : float
    """

    def __init__(self, build: NetworkBuilder, fold_bn: bool, eps: float) -> None:
        self.build = build
        self.fold_bn = fold_bn
        self.eps = eps

    def conv2d(
        self,
        name: str,
        weight: FloatArray,
        bias: FloatArray | None,
        norm: tuple[str, BatchNorm],
        source: str,
        padding: int = 0,
        stride: int = 1,
    ) -> str:
        """Add a convolution and the normalisation ``(name, arrays)`` behind it; return the last layer's name."""
        weight, bias = self.fold(weight, bias, norm)
        layer = Conv2d(weight, bias, (stride, stride), (padding, padding))
        return self.normalise(self.build.add(name, layer, source), norm)

    def linear(
        self,
        name: str,
        weight: FloatArray,
        bias: FloatArray | None,
        norm: tuple[str, BatchNorm],
        source: str,
        make: Callable[[FloatArray, FloatArray | None], Layer] = linear,
    ) -> str:
        """Add a linear layer and the normalisation ``(name, arrays)`` behind it; return the last layer's name."""
        weight, bias = self.fold(weight, bias, norm)
        return self.normalise(self.build.add(name, make(weight, bias), source), norm)

    def fold(
        self, weight: FloatArray, bias: FloatArray | None, norm: tuple[str, BatchNorm]
    ) -> tuple[FloatArray, FloatArray | None]:
        """Fold if asked to, and refuse a normalisation that leaves no finite numbers."""
        name, arrays = norm
        least = float(arrays.variance.min(initial=np.inf)) + self.eps
        if not least > 0:
            raise InputError(f"layer {name}: variance plus bn_eps of {least:g} found; expected more than 0")
        if not self.fold_bn:
            return weight, bias
        with np.errstate(over="ignore", invalid="ignore"):
            folded = fold(weight, bias, arrays, self.eps)
        if not all(np.isfinite(array).all() for array in folded):
            raise InputError(f"layer {name}: folded weights beyond float32 found; expected trained weights")
        return folded

    def normalise(self, name: str, norm: tuple[str, BatchNorm]) -> str:
        """Add the normalisation behind a layer where it is not folded; return the last layer's name."""
        return name if self.fold_bn else self.build.add(norm[0], normalisation(norm[1], self.eps), name)
