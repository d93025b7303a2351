"""From weights and batch normalisation to layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.layers import Affine, Conv2d, Layer, Linear, SparseLinear
from eventsim.network import NetworkBuilder
from eventsim.signals import FloatArray
from eventsim_importers.reading.checkpoint import BatchNorm, Checkpoint


def fold(weight: FloatArray, bias: FloatArray | None, norm: BatchNorm, eps: float) -> tuple[FloatArray, FloatArray]:
    """Fold a batch normalisation into the weights before it, in float64.

    ``W' = W g``, ``b' = beta + (b - mean) g`` with ``g = gamma / sqrt(variance + eps)``; output channels come first
    in `weight`.
    """
    gain = gain_of(norm, eps)
    offset = (0.0 if bias is None else bias.astype(np.float64)) - norm.mean
    folded = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), (norm.bias + offset * gain).astype(np.float32)


def gain_of(norm: BatchNorm, eps: float) -> npt.NDArray[np.float64]:
    """Return what a normalisation multiplies each channel by, in float64."""
    gain: npt.NDArray[np.float64] = norm.weight.astype(np.float64) / np.sqrt(norm.variance.astype(np.float64) + eps)
    return gain


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
    """Adds convolutions and linear layers, with the batch normalisation behind them, to a network.

    Parameters
    ----------
    checkpoint : Checkpoint
        Holds the normalisations.
    build : NetworkBuilder
    fold_bn : bool
        Fold the normalisation into the weights, or keep it as a layer of its own (`Affine`).
    eps : float
    """

    def __init__(self, checkpoint: Checkpoint, build: NetworkBuilder, fold_bn: bool, eps: float) -> None:
        self.checkpoint = checkpoint
        self.build = build
        self.fold_bn = fold_bn
        self.eps = eps

    def add(
        self,
        name: str,
        weight: FloatArray,
        bias: FloatArray | None,
        source: str,
        make: Callable[[FloatArray, FloatArray | None], Layer],
        *,
        norm: str,
        norm_tensors: str | None = None,
        arrays: BatchNorm | None = None,
    ) -> str:
        """Add the layer that `make` makes of weight and bias, and its normalisation; return the last layer's name.

        Parameters
        ----------
        name, weight, bias, source, make
        norm : str
            Name of the normalisation's layer, and of its tensors unless `norm_tensors` is given.
        norm_tensors : str, optional
        arrays : BatchNorm, optional
            The normalisation, where it is a part of one that was taken.

        Raises
        ------
        InputError
            If a tensor does not fit, or the normalisation leaves no finite numbers.
        """
        if arrays is None:
            arrays = self.checkpoint.take_batch_norm(norm_tensors or norm, len(weight))
        least = float(arrays.variance.min(initial=np.inf)) + self.eps
        if not least > 0:
            raise InputError(f"layer {norm}: variance plus bn_eps of {least:g} found; expected more than 0")
        if self.fold_bn:
            return self.build.add(name, make(*self._fold(norm, weight, bias, arrays)), source)
        return self.build.add(norm, normalisation(arrays, self.eps), self.build.add(name, make(weight, bias), source))

    def conv2d(
        self,
        name: str,
        weight: FloatArray,
        source: str,
        *,
        norm: str,
        norm_tensors: str | None = None,
        bias: FloatArray | None = None,
        padding: int = 0,
        stride: int = 1,
    ) -> str:
        """Add a convolution that strides and pads alike both ways; otherwise as `add`."""
        make = partial(Conv2d, stride=(stride, stride), padding=(padding, padding))
        return self.add(name, weight, bias, source, make, norm=norm, norm_tensors=norm_tensors)

    def _fold(
        self, norm: str, weight: FloatArray, bias: FloatArray | None, arrays: BatchNorm
    ) -> tuple[FloatArray, FloatArray]:
        self.checkpoint.folded += (2 if bias is not None else 1) * len(weight)
        with np.errstate(over="ignore", invalid="ignore"):
            folded = fold(weight, bias, arrays, self.eps)
        if not all(np.isfinite(array).all() for array in folded):
            raise InputError(f"layer {norm}: folded weights beyond float32 found; expected trained weights")
        return folded
