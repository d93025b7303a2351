"""Other frameworks read what is exported, and fire the same spikes: each test needs its own (``nox -s peers``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from eventsim import Network, NetworkBuilder, Simulator, to_nir
from eventsim.layers import IF, LIF, DecayLIF, Input, Layer, Linear, Readout

F = np.float32
STEPS = 30

# the frameworks warn of their own dependencies
pytestmark = pytest.mark.filterwarnings("ignore")


def network(neuron: Layer) -> Network:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("exported")
    x = build.add("input", Input((7,)))
    for index, (inputs, outputs) in enumerate([(7, 9), (9, 5)]):
        weight = rng.integers(-8, 9, (outputs, inputs)).astype(F) / 8
        x = build.add(f"fc{index}", Linear(weight, rng.integers(-8, 9, outputs).astype(F) / 16), x)
        x = build.add(f"neuron{index}", neuron, x)
    build.add("output", Readout("sum"), x)
    return build.build()


def exported(folder: Path, neuron: Layer) -> tuple[Any, np.ndarray, np.ndarray]:
    """The graph as the package nir reads it, frames, and the spikes of the last layer."""
    to_nir(network(neuron), folder / "graph.nir")
    frames = np.random.default_rng(1).integers(0, 3, (STEPS, 7)).astype(F)
    spikes = Simulator(network(neuron), record=["neuron1"]).run(frames).recorded["neuron1"]
    assert 0.02 < (spikes > 0).mean() < 0.98
    return nir.read(folder / "graph.nir"), frames, spikes


def test_snntorch_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("nirtorch.nir_interpreter", reason="a newer nirtorch")
    reading = pytest.importorskip("snntorch.import_nir")
    torch = pytest.importorskip("torch")
    graph, frames, spikes = exported(tmp_path, DecayLIF(decay=0.75, strict=True))
    module = reading.import_from_nir(graph)
    seen, state = [], None
    for frame in torch.tensor(frames):
        output, state = module(frame[None], state)
        seen.append(output[0].detach().numpy())
    np.testing.assert_array_equal(np.array(seen), spikes)


def test_norse_reads_it(tmp_path: Path) -> None:
    norse = pytest.importorskip("norse.torch")
    torch = pytest.importorskip("torch")
    graph, frames, spikes = exported(tmp_path, LIF(0.25, tau=4.0, strict=True))
    module = norse.from_nir(graph, dt=1e-4)
    seen, state = [], None
    for frame in torch.tensor(frames):
        output, state = module(frame[None], state)
        seen.append(output[0].detach().numpy())
    np.testing.assert_array_equal(np.array(seen), spikes)


def test_sinabs_reads_it(tmp_path: Path) -> None:
    reading = pytest.importorskip("sinabs.nir")
    torch = pytest.importorskip("torch")
    neuron = IF(1.5, "subtract", multiple_spikes=True, v_min=-1.5)
    graph, frames, spikes = exported(tmp_path, neuron)
    module = reading.from_nir(graph, batch_size=1)
    output, _ = module(torch.tensor(frames))
    np.testing.assert_array_equal(output.detach().numpy().reshape(STEPS, -1), spikes)
