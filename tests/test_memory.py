"""What is held in memory: one copy of every packed weight, and nothing that grows with a stream."""

from __future__ import annotations

import gc
import pickle
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import Network, NetworkBuilder, Simulator, load, save
from eventsim.layers import (
    IF,
    Conv2d,
    Conv3d,
    Flatten,
    Input,
    Layer,
    Linear,
    MeanOverPositions,
    Readout,
    WindowedLinear,
)

F = np.float32


@contextmanager
def traced() -> Iterator[Any]:
    """Give a function that says how many bytes are held beyond those at the beginning, and the most that were."""

    # Python's cache of attributes holds up to 4,096 of the names by which compiled functions ask for them.
    forget_names = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache  # the first since 3.13

    def held() -> tuple[int, ...]:
        forget_names()
        gc.collect()  # cycles that wait for the collector are not held
        return tuple(size - begin for size in tracemalloc.get_traced_memory())

    tracemalloc.start()
    begin = tracemalloc.get_traced_memory()[0]
    try:
        yield held
    finally:
        tracemalloc.stop()


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(F)


LAYERS: dict[str, tuple[tuple[int, ...], str, Layer]] = {
    "convolution of events": ((64, 4, 4), "graded", Conv2d(random(256, 64, 3, 3), padding=(1, 1))),
    "convolution of pixels": ((64, 4, 4), "real", Conv2d(random(256, 64, 3, 3), padding=(1, 1))),
    "convolution in groups": ((64, 4, 4), "graded", Conv2d(random(512, 32, 3, 3), padding=(1, 1), groups=2)),
    "convolution over time": ((64, 4, 4), "graded", Conv3d(random(100, 64, 3, 3, 3), time_padding="causal")),
    "matrix": ((512,), "graded", Linear(random(333, 512))),
    "matrix over a window": ((512,), "graded", WindowedLinear(random(333, 512), window=3)),
}
each = pytest.mark.parametrize(("shape", "kind", "layer"), LAYERS.values(), ids=LAYERS)


def network_of(shape: tuple[int, ...], kind: str, layer: Layer) -> Network:
    build = NetworkBuilder("one layer")
    x = build.add("input", Input(shape, kind))
    x = build.add("layer", layer, x)
    if build.types[x].grid:
        x = build.add("flatten", Flatten(), x)
    build.add("readout", Readout(), x)
    return build.build(time_steps=2)


@each
def test_a_packed_weight_is_the_only_copy(shape: tuple[int, ...], kind: str, layer: Layer, tmp_path: Path) -> None:
    """Also while the network that was loaded is still at hand, and for a second simulator of it."""
    path = tmp_path / "m.h5"
    save(network_of(shape, kind, layer), path)
    frames = np.ones((2, *shape), F)
    Simulator(load(path)).run(frames)  # compiles, and fills the caches of the libraries
    size = layer.weight.nbytes
    with traced() as held:
        network = load(path)
        simulator, second = Simulator(network), Simulator(network, chunk=1)
        assert size <= held()[0] < 1.25 * size
        simulator.run(frames)
        second.run(frames)
        assert held()[0] < 1.25 * size + 40 * 4 * network.types["layer"].size


@each
def test_the_weight_is_read_back_as_it_was(shape: tuple[int, ...], kind: str, layer: Layer, tmp_path: Path) -> None:
    network = network_of(shape, kind, layer)
    before = layer.weight.copy()
    frames = np.random.default_rng(0).integers(0, 2, (3, *shape))
    result = Simulator(network).run(frames)
    assert_array_equal(layer.weight, before)
    assert layer.weight.dtype == np.float32
    assert layer.parameters == before.size
    save(network, tmp_path / "again.h5")
    assert_array_equal(load(tmp_path / "again.h5").layers["layer"].weight, before)
    unpickled = pickle.loads(pickle.dumps(Simulator(network)))
    assert_array_equal(unpickled.network.layers["layer"].weight, before)
    assert_array_equal(unpickled.run(frames).logits, result.logits)


def test_one_layer_may_serve_rows_and_dense_values() -> None:
    """The weight is arranged anew for the other kind of input; both simulators go on."""
    layer = Linear(random(33, 20))
    frames = np.random.default_rng(0).integers(0, 2, (3, 20))
    of_events, of_values = (Simulator(network_of((20,), kind, layer)) for kind in ("graded", "real"))
    expected = frames[-1].astype(F) @ layer.weight.T
    for simulator in (of_events, of_values, of_events):
        np.testing.assert_allclose(simulator.run(frames).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_stream_holds_no_more_after_many_steps(small_network: Network) -> None:
    simulator = Simulator(small_network, record=["lif", "conv"])
    frame = np.ones((2, 6, 6), F)
    with traced() as held:
        sizes = []
        for _ in range(4):
            for _ in range(300):
                simulator.step(frame)
            sizes.append(held()[0])
        grown = np.diff(sizes)
        assert grown.min() < 300, f"{grown} bytes in 300 steps each; what is kept once is in one of them"


def test_layers_share_the_memory_for_what_they_emit() -> None:
    """What one more layer adds is its weight and the potentials, not its currents and spikes of all time steps."""
    steps, tokens, channels = 16, 64, 64
    peaks = {}
    for depth in (4, 12):
        build = NetworkBuilder("deep")
        x = build.add("input", Input((tokens, channels), "binary"))
        for index in range(depth):
            x = build.add(f"linear{index}", Linear(np.eye(channels, dtype=F)), x)
            x = build.add(f"if{index}", IF(), x)
        x = build.add("mean", MeanOverPositions(), x)
        build.add("readout", Readout(), x)
        network = build.build()
        frames = np.ones((steps, tokens, channels), F)
        Simulator(network).run(frames)  # compiles
        simulator = Simulator(network)
        with traced() as held:
            simulator.run(frames)
            peaks[depth] = held()[1]
    emitted = 4 * steps * tokens * channels
    assert (peaks[12] - peaks[4]) / 8 < emitted / 4, "a layer holds what it emitted"


def test_a_recording_of_any_length_runs_in_bounded_memory(small_network: Network) -> None:
    simulator = Simulator(small_network, chunk=8)
    frame = np.ones((2, 6, 6), F)
    simulator.run(frame for _ in range(16))  # compiles, which would be the most that is ever held
    with traced() as held:
        simulator.run(frame for _ in range(1_500))
        first = held()[1]
        simulator.run(frame for _ in range(6_000))
        assert held()[1] < first + 90_000, "20 bytes a step; a ledger of all steps would take 50 times that"
