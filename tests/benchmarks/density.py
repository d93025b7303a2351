"""Time of one layer by input density, beside PyTorch's dense kernel on the same input in the same run.

Run: ``python tests/benchmarks/density.py``. Each row is the median over repetitions that alternate between the two, one
thread each. The limit of the event-driven kernel is the load of one slice of a weight row per event (see
eventsim/kernels/gather.py), so its time should grow with the events and vanish without them; the dense kernel's should
not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from eventsim import NetworkBuilder, Simulator
from eventsim.layers import Conv2d, Flatten, Input, Linear, Readout
from eventsim.result import Result

DENSITIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REPETITIONS = 15
STEPS = 4


def convolution(channels: int, side: int) -> tuple[Simulator, torch.nn.Module]:
    """Return a 3x3 convolution twice; the simulator's readout looks at one pixel, which costs nothing."""
    weight = np.random.default_rng(0).normal(size=(channels, channels, 3, 3)).astype(np.float32)
    module = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    module.weight.data = torch.from_numpy(weight)
    return simulate(Conv2d(weight, padding=(1, 1)), (channels, side, side)), module


def matrix(channels: int, tokens: int) -> tuple[Simulator, torch.nn.Module]:
    """Return a linear layer over tokens twice."""
    weight = np.random.default_rng(0).normal(size=(channels, channels)).astype(np.float32)
    module = torch.nn.Linear(channels, channels, bias=False)
    module.weight.data = torch.from_numpy(weight)
    return simulate(Linear(weight), (tokens, channels)), module


def simulate(layer: Conv2d | Linear, shape: tuple[int, ...]) -> Simulator:
    build = NetworkBuilder("layer")
    x = build.add("layer", layer, build.add("input", Input(shape, "binary")))
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    return Simulator(build.build())


def median_ms(functions: tuple[Callable[[], float], ...]) -> list[float]:
    """Call each in turn, over and over; return the medians of the seconds they report, in ms."""
    times = [[function() for function in functions] for _ in range(REPETITIONS)]
    return [1e3 * statistics.median(column) for column in zip(*times, strict=True)]


def measure(name: str, simulator: Simulator, module: torch.nn.Module) -> None:
    shape = simulator.network.input.shape
    rng = np.random.default_rng(1)
    dense_macs = STEPS * simulator.network.layers["layer"].dense_macs(simulator.network.types["input"])
    print(f"\n{name}, {STEPS} time steps, {dense_macs / 1e6:,.1f} M dense MACs")
    print(f"{'density':>8} {'M ACs':>8} {'eventsim ms':>12} {'GSOP/s':>7} {'PyTorch ms':>11} {'ratio':>6}")
    for density in DENSITIES:
        frames = (rng.random((STEPS, *shape)) < density).astype(np.float32)
        given = torch.from_numpy(frames)
        results: list[Result] = []

        def event_driven(frames: np.ndarray = frames, results: list[Result] = results) -> float:
            results.append(simulator.run(frames))
            return next(layer.seconds for layer in results[-1].profile if layer.name == "layer")

        def dense(given: torch.Tensor = given) -> float:
            start = time.perf_counter()
            with torch.inference_mode():
                module(given)
            return time.perf_counter() - start

        ours, theirs = median_ms((event_driven, dense))
        acs = results[-1].totals.acs
        print(
            f"{density:8.0%} {acs / 1e6:8.1f} {ours:12.3f} {acs / ours / 1e6:7.1f} {theirs:11.3f} {theirs / ours:6.1f}"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    measure("Conv2d 3x3, 192 -> 192 channels, 16 x 16", *convolution(192, 16))
    measure("Linear 384 -> 384, 64 tokens", *matrix(384, 64))
