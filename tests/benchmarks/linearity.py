"""How the time of eventsim grows with spikes, time steps, depth and batch; every row is measured in the same rounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import engine_eventsim
import networks
import numpy as np
import torch
from calibrate import calibrate, uniform
from measure import Array, Job, in_turn, summary, timed
from w0_layers import matrix, workload
from w1_cifar import RATE, smooth_images

from eventsim import Network, Simulator
from eventsim.operations import synaptic_operations

SIZES = {"width": 128, "heads": 4, "classes": 10, "in_channels": 3, "size": 32, "time_steps": 4}
DENSITIES, STEPS, DEPTHS, BATCHES = (0.025, 0.05, 0.1, 0.2, 0.4), (4, 8, 16, 32), (1, 2, 4, 8), (1, 4, 16)
ROUNDS, QUICK = 15, 3
Point: TypeAlias = tuple[float, Job, float]
"""How much there is of what grows, what to time, and millions of operations executed."""


def _spikes() -> Iterator[Point]:
    """Yield one linear layer at several densities: its own time."""
    for density in DENSITIES:
        layer = workload(matrix(384, 64), density)
        (job,) = engine_eventsim.float32(layer, [[0]])
        yield 100 * density, job, engine_eventsim.facts(layer)["executed_mops"]


def _spikformer(depth: int) -> tuple[Network, Array]:
    spikformer = networks.definition("spikformer")
    torch.manual_seed(0)
    model = spikformer.Spikformer("cifar", depth=depth, **SIZES)
    (image,) = smooth_images(1, 32)
    calibrate(model, torch.from_numpy(image[None]), uniform(model, RATE))
    return networks.imported(model, spikformer.metadata(model)), image


def _point(value: float, network: Network, images: list[Array], steps: int | None = None) -> Point:
    simulator = Simulator(network)
    simulator.warm_up()
    executed = sum(synaptic_operations(simulator.run(image, steps).totals) for image in images)
    return value, timed(lambda: np.stack([simulator.run(image, steps).logits for image in images])), executed / 1e6


def section(quick: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a line, a name and numbers for each point, grouped by what grows."""
    rounds = QUICK if quick else ROUNDS
    network, image = _spikformer(1)
    for name, unit, points in (
        ("spikes", "% of inputs", list(_spikes())),
        ("time", "steps", [_point(steps, network, [image], steps) for steps in STEPS]),
        ("depth", "blocks", [_point(depth, *_of(_spikformer(depth))) for depth in DEPTHS]),
        ("batch", "samples", [_point(batch, network, [image] * batch) for batch in BATCHES]),
    ):
        times = in_turn({str(value): [job] for value, job, _ in points}, rounds)
        for value, _, executed in points:
            found = summary(times[str(value)].seconds) | {"executed_mops": executed}
            line = (
                f"{name:>7} {value:>6g} {unit:<12} {found['median_ms']:9.3f} ms{found['median_ms'] / value:9.4f} a unit"
                f"{executed:10.2f} M operations {1e3 * found['median_ms'] / executed:9.1f} ns each thousand"
            )
            yield line, f"{name} {value:g}", found


def _of(made: tuple[Network, Array]) -> tuple[Network, list[Array]]:
    network, image = made
    return network, [image]
