"""The logistic function, for the layers that gate."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def sigmoid(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``1 / (1 + exp(-x))``, of the shape and the type of the floats `x`."""
    from scipy.special import expit  # noqa: PLC0415 - takes half as long to import as Numba, and few networks gate

    result: npt.NDArray[Any] = expit(x)
    return result
