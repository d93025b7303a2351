"""Time of firing as a multiple of the memory floor: read the input, add it to the potential, write that.

Run: ``python tests/benchmarks/fire.py``. Populations of several shapes, charges, resets and firing rates, all steps in
one call and one call for each. Both are measured in turn in one process; printed are the medians of CPU time by neuron
and step, and of the ratios. The floor does nothing but what cannot be left out, in one loop that the compiler
makes vectors of; firing also counts inputs and changes and writes the lists of spikes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numba
import numpy as np

from eventsim.kernels.bits import words
from eventsim.kernels.dynamics import Dynamics, aligned, faster, repeated
from eventsim.kernels.fire import fire
from eventsim.tape import Call, Stretch, Tally
from eventsim.workers import ALONE

STEPS = 4
REPETITIONS = 61
RATES = (0.01, 0.05, 0.12)
SHAPES = ((1024, 48), (256, 192), (64, 384), (64, 1536), (256, 10))
CHARGES = {
    "v + x": (0, 1.0),
    "v + (x - v) k": (1, 0.3),
    "v + (x - v) / 3": (2, 3.0),
    "v + (x - v) / 2": (2, 2.0),
    "v - v / 3 + x": (3, 3.0),
    "v - v / 2 + x": (3, 2.0),
    "v k + x": (4, 0.7),
}
RESETS = ("zero", "subtract", "subtract_late", "subtract_once", "zero_late")


@numba.njit
def read_add_write(current: np.ndarray, potential: np.ndarray) -> None:
    for step in range(len(current)):
        for i in range(len(potential)):
            potential[i] = potential[i] + current[step, i]


class Case:
    """A population and inputs, with a threshold that makes it fire at a rate."""

    def __init__(
        self, shape: tuple[int, int], rate: float, charge: tuple[int, float], reset: str, chunk: int, options: str
    ) -> None:
        self.positions, self.channels = shape
        self.chunk, self.rows = chunk, chunk * shape[0]
        size = shape[0] * shape[1]
        self.current = aligned(STEPS * size).reshape(-1, shape[1])
        self.current[:] = np.random.default_rng(0).normal(size=self.current.shape)
        self.potential, self.floor = aligned(size).reshape(shape), aligned(size)
        number, self.constant = faster(charge[0], np.full((1, shape[1]), charge[1], np.float32))
        multiple = "multiple" in options
        self.dynamics = Dynamics(number, RESETS.index(reset), "strict" in options, multiple)
        self.low = np.full((int("v_min" in options), shape[1]), -0.5, np.float32)
        self.indptr = np.zeros(STEPS * shape[0] + 1, np.int64)
        self.indices = np.empty(STEPS * size, np.int32)
        self.values = np.empty(len(self.indices) if multiple else 0, np.float32)
        self.active = np.zeros((STEPS, 2), np.int64)
        self.fired = np.empty((1 if multiple else self.chunk, words(size)), np.uint32)
        self.unkept = np.empty((0, shape[1]), np.float32)
        low, high = 0.01, 20.0
        for _ in range(14):
            threshold = np.full((1, shape[1]), (low + high) / 2, np.float32)
            self.constants = tuple(repeated(c, shape[0]) for c in (self.constant, threshold, self.low, self.low[:0]))
            self.fire()
            low, high = (threshold[0, 0], high) if self.rate > rate else (low, threshold[0, 0])

    @property
    def rate(self) -> float:
        return float(self.indptr[-1]) / self.current.size

    def of_fire(self) -> Iterator[tuple[Any, ...]]:
        """What firing is called with, chunk by chunk."""
        for begin in range(0, STEPS, self.chunk):
            rows = slice(begin * self.positions, begin * self.positions + self.rows)
            listed = self.indptr[rows.start : rows.stop + 1], self.indices, self.values
            active = self.active[begin : begin + self.chunk]
            given = self.current[rows], self.potential, self.constants, self.dynamics, listed, self.fired
            yield *given, self.unkept, active

    def fire(self) -> None:
        self.potential[:] = 0
        for arguments in self.of_fire():
            fire(*arguments)

    def of_bound(self) -> Iterator[tuple[Any, ...]]:
        """What the floor is called with."""
        for begin in range(0, STEPS, self.chunk):
            rows = slice(begin * self.positions, begin * self.positions + self.rows)
            yield self.current[rows].reshape(self.chunk, -1), self.floor

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Measure firing and its floor in turn: nanoseconds, of calls that are made as a network makes them."""
        ours, bound = played(fire, self.of_fire()), played(read_add_write, self.of_bound())
        for _ in range(REPETITIONS):
            self.potential[:] = 0
            self.floor[:] = 0
            yield nanoseconds(ours), nanoseconds(bound)


def played(kernel: Any, calls: Iterable[tuple[Any, ...]]) -> Callable[[], object]:
    """Return what makes calls of a kernel without the interpreter between them."""
    written = []
    for arguments in calls:
        kernel(*arguments)
        written.append(Call("", kernel, arguments, None, 0, 0.0))
    stretch = Stretch(written, Tally(), ALONE)
    return stretch.play


def nanoseconds(function: Callable[[], object]) -> int:
    begin = time.process_time_ns()
    function()
    return time.process_time_ns() - begin


def measure(name: str, case: Case) -> None:
    pairs = list(case.pairs())
    ours, bound = (statistics.median(column) / case.current.size for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    shape = f"{case.positions} x {case.channels}"
    print(f"{name:<24} {shape:>10} {case.chunk:5} {case.rate:7.1%} {ours:7.3f} {bound:7.3f} {ratio:7.2f}", flush=True)


def main() -> None:
    print(f"{'population':<24} {'shape':>10} {'chunk':>5} {'firing':>7} {'ns':>7} {'floor':>7} {'ratio':>7}")
    usual = CHARGES["v + (x - v) / 2"]
    for chunk in (STEPS, 1):
        for shape in SHAPES:
            for rate in RATES:
                measure("v + (x - v) / 2, zero", Case(shape, rate, usual, "zero", chunk, ""))
        for name, charge in CHARGES.items():
            measure(f"{name}, zero", Case((64, 384), 0.05, charge, "zero", chunk, ""))
        for reset in RESETS[1:]:
            measure(f"v k + x, {reset}", Case((64, 384), 0.05, CHARGES["v k + x"], reset, chunk, ""))
        for options in ("strict", "multiple", "v_min"):
            measure(f"v k + x, {options}", Case((64, 384), 0.05, CHARGES["v k + x"], "subtract", chunk, options))


if __name__ == "__main__":
    main()
