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
def add(array: npt.NDArray[Any], term: npt.NDArray[Any], sums: npt.NDArray[Any]) -> None:
    """Add two contiguous arrays into a third, of which the second, if it has fewer elements, is repeated."""
    given, terms, elements = array.reshape(-1), term.reshape(-1), sums.reshape(-1)
    for first in range(0, len(elements), max(len(terms), 1)):
        read, part = given[first : first + len(terms)], elements[first : first + len(terms)]
        for index in range(len(part)):
            part[index] = read[index] + terms[index]


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


@kernel
def divide_by_row(array: npt.NDArray[Any], divisors: npt.NDArray[Any]) -> None:
    """Divide row after row by a divisor of its own; if there are fewer divisors than rows, they begin again."""
    for row in range(len(array)):
        elements, divisor = array[row], divisors[row % len(divisors)]
        for index in range(len(elements)):
            elements[index] /= divisor
