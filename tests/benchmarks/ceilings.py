"""What this machine can do at best, and how much of it the kernels do.

An event adds a row of weights to sums in registers, so that the limit is how fast values can be loaded from the cache
that holds the weights, and added. A neuron cannot but read its input and its potential, and write that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import fire
import numba
import numpy as np
from llvmlite import ir
from machine import described
from numba import types
from numba.extending import intrinsic

from eventsim.kernels.processor import FEATURES

LANES = 16 if "avx512f" in FEATURES else 8
SUMS = 12
REPETITIONS = 15
LEAST_VALUES = 1 << 22
NEURONS = (64, 384)
RATES = (0.01, 0.05, 0.12)


@intrinsic
def _sum(typing: Any, address: Any, blocks: Any) -> Any:
    """Add up blocks of SUMS vectors, each vector of a block into a sum of its own; return a value that needs all."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, blocks = arguments
        long, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), LANES)
        base = builder.inttoptr(address, vector.as_pointer())
        before, loop, done = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        block, sums = builder.phi(long), [builder.phi(vector) for _ in range(SUMS)]
        first = builder.mul(block, ir.Constant(long, SUMS))
        added = []
        for number, total in enumerate(sums):
            place = builder.gep(base, [builder.add(first, ir.Constant(long, number))])
            added.append(builder.fadd(total, builder.load(place, align=4)))
            total.add_incoming(ir.Constant(vector, [0.0] * LANES), before)
            total.add_incoming(added[-1], loop)
        following = builder.add(block, ir.Constant(long, 1))
        block.add_incoming(ir.Constant(long, 0), before)
        block.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, blocks), loop, done)
        builder.position_at_end(done)
        whole = added[0]
        for other in added[1:]:
            whole = builder.fadd(whole, other)
        return builder.extract_element(whole, ir.Constant(ir.IntType(32), 0))

    return types.float32(types.uintp, types.int64), generate


@numba.njit
def load_and_add(table: np.ndarray, times: int) -> np.float32:
    """Add up a table over and over, in so many sums that no addition waits for another."""
    total = np.float32(0)
    for _ in range(times):
        total += _sum(table.ctypes.data, len(table) // (SUMS * LANES))
    return total


@numba.njit
def read_add_write(current: np.ndarray, potential: np.ndarray, times: int) -> None:
    for _ in range(times):
        for i in range(len(potential)):
            potential[i] = potential[i] + current[i]


def per_nanosecond(function: Callable[[int], Any], values: int) -> dict[str, float]:
    """Return how many values a function of a number of repetitions takes in a nanosecond: median and best of many."""
    times = max(LEAST_VALUES // values, 1)
    function(1)
    rates = []
    for _ in range(REPETITIONS):
        begin = time.process_time_ns()
        function(times)
        rates.append(values * times / (time.process_time_ns() - begin))
    return {"median": statistics.median(rates), "best": max(rates), "n": len(rates)}


def section(quick: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a line, a name and numbers for each measurement."""
    caches = described()["cache_bytes"]
    first, second = caches.get("L1", 0) or 32 << 10, caches.get("L2", 0) or 512 << 10
    random = np.random.default_rng(0)
    block = SUMS * LANES
    for level, size in (("L1", first // 2), ("L2", second // 2), ("beyond L2", 4 * second)):
        values = size // 4 // block * block
        table = random.random(values + LANES, np.float32)
        table = table[-table.ctypes.data // 4 % LANES :][:values]  # from the beginning of a cache line
        found = per_nanosecond(lambda times, table=table: load_and_add(table, times), values)
        line = (
            f"load and add, {level}, {size >> 10} KiB: {found['median']:.1f} G additions/s (best {found['best']:.1f})"
        )
        yield line, f"load and add {level}", found
    for level, size in (("L1", first // 2), ("L2", second // 2)):
        current, potential = random.random(size // 8, np.float32), np.zeros(size // 8, np.float32)
        pair = current, potential
        found = per_nanosecond(lambda times, pair=pair: read_add_write(*pair, times), len(potential))
        line = f"read, add, write, {level}: {1 / found['median']:.3f} ns a neuron (best {1 / found['best']:.3f})"
        yield line, f"read add write {level}", found
    for rate in RATES[1:2] if quick else RATES:
        case = fire.Case(NEURONS, rate, fire.CHARGES["v + (x - v) / 2"], "zero", fire.STEPS, "")
        pairs = list(case.pairs())
        ratio = statistics.median(ours / bound for ours, bound in pairs)
        line = (
            f"firing at {case.rate:.0%}, {fire.STEPS} steps in a chunk: {ratio:.2f} times the time of read, add, write"
        )
        yield line, f"fire at {rate:.0%}", {"over_floor": ratio, "n": len(pairs)}
