"""`verify` takes a sample in pieces that fit, and refuses before it begins what does not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_verification import around, frames_for

import eventsim
from eventsim import InputError, Network, available, verify
from eventsim.layers import Conv3d
from eventsim.plan import plan
from eventsim.signals import SignalType
from eventsim.verification import needed_bytes

F = np.float32
ROOT = Path(__file__).resolve().parents[1]


def test_the_sample_is_taken_in_pieces_that_fit(monkeypatch: pytest.MonkeyPatch, small_network: Network) -> None:
    seen: list[int] = []
    original = eventsim.Simulator.run

    def watched(self: Any, *arguments: Any) -> Any:
        seen.append(self.chunk)
        return original(self, *arguments)

    monkeypatch.setattr(eventsim.Simulator, "run", watched)
    frames = frames_for(small_network, 20)
    whole = verify(small_network, frames)
    monkeypatch.setattr("eventsim.verification.PIECE_BYTES", 50_000)
    pieces = verify(small_network, frames)
    monkeypatch.setattr("eventsim.verification.PIECE_BYTES", 1)
    single = verify(small_network, iter(frames))
    assert seen[0] == 20 > seen[1] > seen[2] == 1
    assert whole.rows() == pieces.rows() == single.rows()


def test_what_does_not_fit_is_refused_by_layer_and_bytes(
    monkeypatch: pytest.MonkeyPatch, small_network: Network
) -> None:
    monkeypatch.setattr("eventsim.verification.available_bytes", lambda: 20_000)
    with pytest.raises(
        InputError, match=r"^r\.bin: layer lif: \d+ bytes for the dense form of 4 time steps at once; .*the 20000 bytes"
    ):
        verify(small_network, frames_for(small_network), name="r.bin")
    monkeypatch.setattr("eventsim.verification.available_bytes", lambda: 80_000)
    ahead = around(Conv3d(np.ones((2, 2, 3, 1, 1), F)), SignalType("binary", 2, (4, 4)))
    with pytest.raises(InputError, match=r"dense form of all 50 time steps at once, as a layer looks ahead; expected"):
        verify(ahead, frames_for(ahead, 50))
    assert verify(ahead, frames_for(ahead, 3)).equal
    monkeypatch.setattr("eventsim.verification.available_bytes", lambda: None)
    assert verify(ahead, frames_for(ahead, 50)).equal


def test_available_memory_is_that_of_the_machine_or_of_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(available, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(available, "GROUP", tmp_path)
    assert available.available_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal:       100 kB\nMemAvailable:   64 kB\n")
    assert available.available_bytes() == 64 * 1024
    for name, text in (("max", "4000\n"), ("current", "3000\n"), ("stat", "anon 5\ninactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert available.available_bytes() == 1500
    (tmp_path / "memory.max").write_text("max\n")
    assert available.available_bytes() == 64 * 1024


@pytest.mark.parametrize("name", ["spikformer", "spikeformer", "staa_snn"])
def test_the_bytes_computed_are_those_that_are_used(name: str) -> None:
    network = eventsim.import_checkpoint(ROOT / "examples" / "weights" / f"nmnist_{name}.safetensors")
    frames = eventsim.Preparation().frames(min((ROOT / "eventsim" / "demo").glob("digit_*.bin")), network)
    each, fixed, _ = needed_bytes(plan(network), network)
    verify(network, frames)  # compiles
    tracemalloc.start()
    verify(network, frames)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.25 < used / (each * len(frames) + fixed) < 1.1
