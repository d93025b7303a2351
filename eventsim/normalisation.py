"""What becomes of pixels in 0..1: mean and standard deviation of each channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.signals import FLOAT32_MAX


def normalised(
    values: npt.NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...], name: str
) -> npt.NDArray[np.float32]:
    """Subtract the mean of each channel and divide by its standard deviation.

    Parameters
    ----------
    values : ndarray of float32, shape (..., C, H, W)
    mean, std : tuple of float
        One number for each channel.
    name : str
        For messages.

    Raises
    ------
    InputError
        Mean or standard deviation make no sense.
    """
    try:
        check_normalisation(mean, std, values.shape[-3])
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    centred = values - np.asarray(mean, np.float32)[:, None, None]
    return np.ascontiguousarray(centred / np.asarray(std, np.float32)[:, None, None], np.float32)


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Check mean and standard deviation of images.

    Raises
    ------
    ValueError
        Says what was found and expected.
    """
    for name, values in (("mean", mean), ("std", std)):
        said = ", ".join(map(str, values))
        if len(values) != channels:
            raise ValueError(f"{name} of {len(values)} values found; the model takes {channels} channels")
        if any(not abs(value) < FLOAT32_MAX for value in values):
            raise ValueError(f"{name} of {said} found; expected finite numbers")
        if name == "std" and min(values) <= 0:
            raise ValueError(f"std of {said} found; expected numbers above 0")
