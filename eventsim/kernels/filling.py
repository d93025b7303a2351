"""What NumPy does as fast, in kernels: between others, a call of one more costs less than the way back to NumPy."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from eventsim.kernels.jit import kernel


@kernel
def fill(array: npt.NDArray[Any], value: float) -> None:
    """Set every element of a contiguous array to a value."""
    elements = array.reshape(-1)
    for index in range(len(elements)):
        elements[index] = value


@kernel
def copy(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy a contiguous array into another one of as many elements."""
    given, elements = source.reshape(-1), target.reshape(-1)
    for index in range(len(elements)):
        elements[index] = given[index]


@kernel
def repeat(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy a contiguous array into another one of several times as many elements, again and again."""
    given, elements = source.reshape(-1), target.reshape(-1)
    for first in range(0, len(elements), max(len(given), 1)):
        part = elements[first : first + len(given)]
        for index in range(len(part)):
            part[index] = given[index]


@kernel
def increase(sums: npt.NDArray[Any], term: npt.NDArray[Any]) -> None:
    """Add a contiguous array to another one; if it has fewer elements, it is repeated."""
    terms, elements = term.reshape(-1), sums.reshape(-1)
    for first in range(0, len(elements), max(len(terms), 1)):
        part = elements[first : first + len(terms)]
        for index in range(len(part)):
            part[index] += terms[index]


@kernel
def divide(array: npt.NDArray[Any], divisor: float) -> None:
    """Divide every element of a contiguous array."""
    elements = array.reshape(-1)
    for index in range(len(elements)):
        elements[index] /= divisor
