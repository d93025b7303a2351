"""Layer normalisation of rows, each in one go while it is in the first-level cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import normalise_row


@kernel
def normalise(
    x: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    eps: np.float32,
    out: npt.NDArray[np.float32],
) -> None:
    """Write ``(x - mean) / sqrt(variance + eps) * weight + bias`` of each row (rows, channels) to `out`."""
    for row in range(len(x)):
        normalise_row(x[row], weight, bias, eps, out[row])
