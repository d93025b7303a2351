"""Products a second of the gather, layer by layer in the order of a network, beside what the second-level cache allows.

Run: ``python tests/benchmarks/gather.py [MODEL IMAGES.npz]``. With a model file and images (``x``, bytes of N x H x W x
C), the activity is what the model's layers receive; without, it is drawn, with the shapes and densities of a
Spikformer-4-384 trained on CIFAR-10. Weights are as far away as in a run, since all other layers come between. Printed
is the best CPU time of several rounds. The ceiling is the same sum with long lists and a table of weights that has long
been in the cache.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import eventsim
from eventsim.kernels.dynamics import aligned
from eventsim.kernels.gather import gather, tiles_of
from eventsim.kernels.packing import pack
from eventsim.kernels.products import count_products
from eventsim.kernels.window import Window
from eventsim.signals import NO_VALUES, Rows

STEPS, ROUNDS, IMAGES = 4, 9, 4
MAPS = {"conv1": (32, 48, 96, 0.105), "conv2": (32, 96, 192, 0.057), "conv3": (16, 192, 384, 0.121)}
BLOCKS = {
    "q, k, v": (384, 384, 0.18, 9),
    "proj": (384, 384, 0.06, 1),
    "fc1": (384, 1536, 0.22, 9),
    "fc2": (1536, 384, 0.04, 1),
}
OTHERS = {  # side, inputs, outputs, groups, kernel, density
    "depthwise 3x3": (16, 384, 384, 384, (3, 3), 0.1),
    "depthwise 3x3, sparse": (16, 384, 384, 384, (3, 3), 0.01),
    "depthwise 3x3, dense": (16, 384, 384, 384, (3, 3), 0.5),
    "two for each, 3x3": (16, 192, 384, 192, (3, 3), 0.1),
    "8 groups, 3x3": (16, 256, 256, 8, (3, 3), 0.1),
    "2 groups, 3x3": (16, 256, 256, 2, (3, 3), 0.1),
    "10 outputs": (16, 384, 10, 1, (1, 1), 0.1),
}


@dataclass
class Work:
    """What one layer is given."""

    name: str
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    window: Window
    weight: np.ndarray
    bias: np.ndarray
    groups: int = 1
    out: np.ndarray | None = None

    def __post_init__(self) -> None:
        w = self.window
        steps = (len(self.rows[0]) - 1) // (w.height * w.width)
        fan = len(self.bias) // self.groups
        if self.out is None:
            self.out = aligned(steps * w.out_height * w.out_width * len(self.bias)).reshape(-1, len(self.bias))
        self.part = 0, tiles_of(fan), 0, len(self.out)
        products, units = np.empty(steps, np.int64), np.empty(steps)
        count_products(self.rows, w, fan, products, units)
        self.products = int(products.sum())

    def run(self) -> None:
        gather(self.rows, self.weight, self.bias, self.out, self.window, self.groups, self.part)


def drawn(
    name: str, shape: tuple[int, int, int], window: Window, density: float, largest: int = 1, groups: int = 1
) -> Work:
    """A layer of (taps, inputs, outputs) with activity at random; values up to `largest`."""
    taps, inputs, outputs = shape
    rng = np.random.default_rng(inputs + outputs)
    weight = rng.normal(size=(taps, inputs, outputs // groups)).astype(np.float32)
    active = rng.random((STEPS * window.height * window.width, inputs)) < density
    indptr = np.append(0, np.cumsum(active.sum(1)))
    indices = np.nonzero(active)[1].astype(np.int32)
    values = rng.integers(1, largest + 1, len(indices)).astype(np.float32) if largest > 1 else NO_VALUES
    return Work(name, (indptr, indices, values), window, pack(weight, groups), np.zeros(outputs, np.float32), groups)


def map_window(side: int, kernel: tuple[int, int] = (3, 3)) -> Window:
    return Window(side, side, side, side, *kernel, 1, 1, kernel[0] // 2, kernel[1] // 2)


def drawn_network() -> list[list[Work]]:
    tokens = Window(1, 64, 1, 64, 1, 1, 1, 1, 0, 0)
    works = [drawn(n, (9, i, o), map_window(side), d) for n, (side, i, o, d) in MAPS.items()]
    works.append(drawn("rpe", (9, 384, 384), map_window(8), 0.059))
    for _ in range(4):
        for name, (inputs, outputs, density, largest) in BLOCKS.items():
            times = 3 if name == "q, k, v" else 1
            works += [drawn(name, (1, inputs, outputs), tokens, density, largest) for _ in range(times)]
    return [works]


class Recorded:
    """What the layers of synapses are given; an observer."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def on_layer(self, node: Any, inputs: Any, output: Any, rows: Any) -> None:
        if node.op.kernel != "gather" or not isinstance(inputs[0], Rows):
            return
        op, lists = node.op, tuple(np.array(array) for array in inputs[0].triple)
        name = node.name.split(".")[-1]  # the output is where the op writes it, for every image
        self.works.append(Work(name, lists, op.window, op.weight, op.bias, op.groups, output.data))


def recorded_network(model: Path, images: Path) -> list[list[Work]]:
    network = eventsim.load(model)
    pixels = np.moveaxis(np.load(images)["x"], -1, 1)
    recorded, observer = [], Recorded()
    simulator = eventsim.Simulator(network, observers=[observer])
    for index in np.linspace(0, len(pixels) - 1, IMAGES).astype(int):
        observer.works = []
        simulator.run(eventsim.Preparation().frames(pixels[index], network))
        recorded.append(observer.works)
    return recorded


def nanoseconds(function: Callable[[], None]) -> int:
    begin = time.process_time_ns()
    function()
    return time.process_time_ns() - begin


def table(recorded: list[list[Work]]) -> None:
    """Print the best time of each layer, in the order of the network, and summed by name."""
    best = np.min([[[nanoseconds(work.run) for work in works] for works in recorded] for _ in range(ROUNDS)], axis=0)
    products = np.array([[work.products for work in works] for works in recorded])
    names = [work.name for work in recorded[0]]
    for name in dict.fromkeys(names):
        of_name = [n == name for n in names]
        line(name, products[:, of_name].sum() / len(recorded), best[:, of_name].sum() / len(recorded))
    line("all", products.sum() / len(recorded), best.sum() / len(recorded))


def line(name: str, products: float, ns: float) -> None:
    print(f"{name:<24} {products / 1e6:10.1f} {ns / 1e3:10.0f} {products / ns:8.1f}", flush=True)


def ceilings() -> None:
    """Print what long lists reach, with a table of weights in each cache, of spikes and of values."""
    for kib in (24, 400, 1500, 8192):
        inputs = kib * 1024 // (96 * 4)
        for largest in (1, 9):
            window = Window(1, 50, 1, 50, 1, 1, 1, 1, 0, 0)
            rng = np.random.default_rng(0)
            work = drawn("", (1, inputs, 96), window, 0.0)
            indices = rng.integers(0, inputs, 200_000).astype(np.int32)
            values = NO_VALUES if largest == 1 else np.full(len(indices), 3, np.float32)
            work.rows = np.arange(STEPS * 50 + 1) * 1000, indices, values
            ns = min(nanoseconds(work.run) for _ in range(ROUNDS))
            line(f"{kib} KiB, {'values' if largest > 1 else 'spikes'}", len(indices) * 96, ns)


def main() -> None:
    print(f"{'':<24} {'M products':>10} {'us':>10} {'GSOP/s':>8}\nceilings")
    ceilings()
    print("layers of a network, in its order")
    paths = [Path(argument) for argument in sys.argv[1:]]
    table(recorded_network(*paths) if paths else drawn_network())
    print("others, one after the other")
    table(
        [
            [
                drawn(name, (k[0] * k[1], inputs, outputs), map_window(side, k), density, 1, groups)
                for name, (side, inputs, outputs, groups, k, density) in OTHERS.items()
            ]
        ]
    )


if __name__ == "__main__":
    main()
