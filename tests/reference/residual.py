"""Joining two branches of one shape."""

import numpy as np
from numpy.typing import NDArray


def residual(a: NDArray[np.float32], b: NDArray[np.float32], op: str) -> NDArray[np.float32]:
    """Op "add": a + b; "iand": a * (1 - b); "and": a * b."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape}")
    if op == "add":
        return a + b
    if op == "iand":
        return a * (np.float32(1) - b)
    if op == "and":
        return a * b
    raise ValueError(f"op {op!r}; one of add, iand, and")
