"""Arithmetic of time steps: parts of a signal's time, put together, shifted, scaled and added.

All of it is linear, so that what is made is told by how much of each time step of a layer is in each step of the
result: arrays (steps, time steps, 1 or channels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eventsim_importers.torch_program.axes import AxesError
from eventsim_importers.torch_program.values import Factors

Terms = dict[str, Factors]


def identity(steps: int) -> Factors:
    """Return the factors of a signal as it is."""
    return np.eye(steps)[:, :, None]


def added(one: Terms, other: Terms) -> Terms:
    """Return the sum, of as many steps."""
    found = dict(one)
    for layer, factors in other.items():
        found[layer] = found[layer] + factors if layer in found else factors
    return found


def joined_steps(parts: Sequence[Terms | int], steps: int) -> Terms:
    """Return parts one behind the other; a number is of so many steps of zeros."""
    layers = list(dict.fromkeys(layer for part in parts if not isinstance(part, int) for layer in part))
    widths = {
        layer: max(part[layer].shape[2] for part in parts if not isinstance(part, int) and layer in part)
        for layer in layers
    }
    found = {}
    for layer in layers:
        rows = []
        for part in parts:
            length = part if isinstance(part, int) else len(next(iter(part.values())))
            factors = np.zeros((length, steps, 1)) if isinstance(part, int) or layer not in part else part[layer]
            rows.append(np.broadcast_to(factors, (length, steps, widths[layer])))
        found[layer] = np.concatenate(rows)
    return found


def mixed(matrix: Factors, terms: Terms) -> Terms:
    """Return steps of which each is a sum of steps, by a matrix (steps, steps before)."""
    return {layer: np.einsum("st,tuc->suc", matrix, factors) for layer, factors in terms.items()}


def is_identity(terms: Terms) -> bool:
    """Tell whether there is one signal, as it is."""
    (factors, *more) = terms.values()
    return not more and factors.shape[0] == factors.shape[1] and bool((factors == identity(len(factors))).all())


def by_age(terms: Mapping[str, Factors]) -> dict[tuple[str, int], Factors]:
    """Return the factor (1 or channels) of what each layer emitted so many steps ago, where it is not 0.

    Raises
    ------
    AxesError
        If a later step is heard, or one step adds up others than another step does.
    """
    found = {}
    for layer, factors in terms.items():
        steps, heard = np.nonzero(factors.any(axis=2))
        if (late := heard > steps).any():
            raise AxesError(
                f"time step {heard[late][0]} in the place of step {steps[late][0]} found; expected each step made of "
                "itself and earlier ones, with zeros before the first"
            )
        for age in range(len(factors)):
            diagonal = np.stack([factors[step, step - age] for step in range(age, len(factors))])
            if (apart := (diagonal != diagonal[0]).any(axis=1)).any():
                step = age + int(np.flatnonzero(apart)[0])
                raise AxesError(
                    f"other earlier steps in time step {step} than in step {age} found; expected the same constants in "
                    "every step, with zeros before the first"
                )
            if diagonal[0].any():
                found[layer, age] = diagonal[0]
    return found
