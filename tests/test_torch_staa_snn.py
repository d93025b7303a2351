"""STAA-SNN as a module and as a state dict: one network, in every reading of the paper, and one trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from staa_snn_torch import (
    EXACT,
    FIXED,
    PAIRS,
    READINGS,
    REAL,
    Seen,
    T,
    awake,
    build,
    definition,
    frames_for,
    imported,
    make_dyadic,
    make_lively,
    reading_of,
    torch,
)

from eventsim import InputError, Network, Simulator, from_torch, import_checkpoint
from eventsim.layers import AdaptiveLIF, GlobalContext
from eventsim_importers.torch_program.written import adaptive, gates

WRAPPED = (".pool", ".bn", ".conv")
"""What a wrapper calls the layer that it applies to each step; the importer of state dicts leaves it out."""


def named(network: Network) -> dict[str, str]:
    """Return names of layers as the importer has them, without those of wrappers."""
    return {
        name: next((name.removesuffix(end) for end in WRAPPED if name.endswith(end)), name) for name in network.layers
    }


def check_one_network(network: Network, known: Network, frames: np.ndarray, seen: Seen, exact: bool = True) -> None:
    """Compare logits, spikes, kinds and counts of every layer, by name; with what PyTorch did where sums are exact."""
    names = named(network)
    kinds = {names[name]: type(layer) for name, layer in network.layers.items()}
    assert kinds == {name: type(layer) for name, layer in known.layers.items()}
    found, expected = (Simulator(each, record=seen.spikes).run(frames) for each in (network, known))
    assert_array_equal(found.logits, expected.logits)
    for layer, spikes in seen.spikes.items():
        assert_array_equal(found.recorded[layer], expected.recorded[layer], err_msg=layer)
        if exact:
            assert_array_equal(found.recorded[layer], spikes, err_msg=layer)
    if exact:
        assert_array_equal(found.logits, seen.logits)
    ours = {names[layer.name]: layer.counts for layer in found.profile}
    theirs = {layer.name: layer.counts for layer in expected.profile}
    assert ours == theirs
    again = Simulator(network, chunk=1).run(frames)
    assert_array_equal(again.logits, found.logits)
    assert again.totals == found.totals


def as_module(model: Any, frames: np.ndarray, **options: Any) -> Network:
    return from_torch(model, torch.from_numpy(frames)[:, None], **options)


@pytest.mark.parametrize(("backbone", "name"), EXACT)
def test_every_reading_bit_for_bit(tmp_path: Path, backbone: str, name: str) -> None:
    model = build(backbone, {"gc_layer_norm": False, **READINGS[name]})
    frames = frames_for(model)
    awake(make_dyadic, model, frames, seed=1)
    for fold_bn in (True, False) if name == "proposed" else (True,):
        network = as_module(model, frames, fold_bn=fold_bn)
        known = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
        for seed in (0, 1):  # the second was never seen
            given = frames_for(model, seed)
            check_one_network(network, known, given, Seen(model, given))


@pytest.mark.parametrize(("backbone", "name"), REAL)
def test_real_weights(tmp_path: Path, backbone: str, name: str) -> None:
    """Whatever was read from operations are the very numbers of the state dict, so sums round alike."""
    model = build(backbone, (READINGS | FIXED)[name], size=(22, 17))
    frames = frames_for(model, seed=3)
    seen = awake(make_lively, model, frames, seed=2)
    check_one_network(as_module(model, frames), imported(model, tmp_path), frames, seen, exact=False)


@pytest.mark.parametrize(("first", "second"), PAIRS[::6])  # each by itself is above
def test_readings_in_pairs(tmp_path: Path, first: str, second: str) -> None:
    """A reading in which the second change has nothing to act on is the reading without it, and read as that."""
    model = build("one", {"gc_layer_norm": False, **reading_of(first, second)}, widths=(4, 8), blocks=(1, 1))
    frames = frames_for(model)
    fixed = "pe" in model.reading.modules and model.reading.pe_fixed != "none"
    seen = awake(make_lively if fixed else make_dyadic, model, frames, seed=1)
    known = imported(model, tmp_path, bn_eps=1e-5 if fixed else 0.0)
    check_one_network(as_module(model, frames), known, frames, seen, exact=not fixed)


@pytest.mark.parametrize("name", ["proposed", "P for all", "plain neurons", "fixed encoding of both"])
def test_images_are_shown_in_every_step(tmp_path: Path, name: str) -> None:
    model = build("three", {"gc_layer_norm": False, **(READINGS | FIXED)[name]}, in_channels=3)
    image = frames_for(model)[:1]
    frames = np.repeat(image, T, axis=0)
    seen = awake(make_lively, model, frames, seed=1)
    network = from_torch(model, torch.from_numpy(image))
    assert network.time_steps == T
    check_one_network(network, imported(model, tmp_path), frames, seen, exact=False)


def test_the_trained_network(tmp_path: Path) -> None:
    """The weights that were trained on N-MNIST, in float32 as they are, on frames like theirs."""
    model = definition.nmnist_model().eval()
    path = Path(definition.__file__).parent / "weights" / "nmnist_staa_snn.safetensors"
    known = import_checkpoint(path)
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))
    frames = frames_for(model, steps=5)
    network = as_module(model, frames)
    seen = Seen(model, frames)
    assert sorted(named(network).values()) == sorted(known.layers)
    found, expected = (Simulator(each, record=seen.spikes).run(frames) for each in (network, known))
    assert_array_equal(found.logits, expected.logits)
    assert_allclose(found.logits, seen.logits, atol=1e-4)
    assert network.parameters == known.parameters


def test_arrays_are_those_of_the_state_dict(tmp_path: Path) -> None:
    """Not only what a run shows: every array of contexts and neurons is the same."""
    model = build("three", {"mn_axes": ("channel", "height"), "pe_at": "both", "pe_axes": ("time", "channel")})
    frames = frames_for(model, seed=3)
    awake(make_lively, model, frames, seed=2)
    network, known = as_module(model, frames), imported(model, tmp_path)
    for name, short in named(network).items():
        ours, theirs = network.layers[name], known.layers[short]
        for field in fields(ours):
            one, other = getattr(ours, field.name), getattr(theirs, field.name)
            if isinstance(one, np.ndarray) and isinstance(ours, AdaptiveLIF | GlobalContext):
                one, other = np.broadcast_arrays(one, other)
            if field.name == "past_encoding" and one is not None:  # before the first step M P_H is a rounded constant
                assert_allclose(one[0], other[0], rtol=1e-6)
                one, other = one[1:], other[1:]
            assert np.array_equal(one, other), (name, field.name)


# --- what is no step attention


def wrong_pool(self: Any, past: Any, present: Any, before: Any, now: Any) -> Any:
    means = torch.cat((present.mean((2, 3), keepdim=True), now.mean((2, 3), keepdim=True)), 1)
    gates = self.scale * self.expand(torch.relu(self.reduce(means))).sigmoid()
    a, b = gates.chunk(2, 1)
    return a * past + b * present


def wrong_order(self: Any, past: Any, present: Any, before: Any, now: Any) -> Any:
    means = torch.cat((past.mean((2, 3), keepdim=True), present.mean((2, 3), keepdim=True)), 1)
    gates = self.scale * self.expand(torch.relu(self.reduce(means))).sigmoid()
    a, b = gates.chunk(2, 1)
    return b * past + a * present


def wrong_activation(self: Any, past: Any, present: Any, before: Any, now: Any) -> Any:
    means = torch.cat((past.mean((2, 3), keepdim=True), present.mean((2, 3), keepdim=True)), 1)
    gates = self.scale * self.expand(torch.tanh(self.reduce(means))).sigmoid()
    a, b = gates.chunk(2, 1)
    return a * past + b * present


def half_gated(self: Any, past: Any, present: Any, before: Any, now: Any) -> Any:
    means = torch.cat((past.mean((2, 3), keepdim=True), present.mean((2, 3), keepdim=True)), 1)
    gates = self.scale * self.expand(torch.relu(self.reduce(means))).sigmoid()
    return gates.chunk(2, 1)[0] * past + present


OTHERWISE: dict[str, tuple[Callable[..., Any], str]] = {
    "means of something else": (wrong_pool, r"gates made of something else than the means of both terms, .*"),
    "halves in another order": (wrong_order, r"gates that are no halves of one result, the first for what is left,"),
    "another activation": (wrong_activation, r"gates made by tanh, not relu,"),
    "one term alone": (half_gated, r"a potential times a signal, and no gate of what arrives.*"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_other_gates_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, words = OTHERWISE[name]
    model = build("one", {"gc_layer_norm": False}, widths=(4, 8), blocks=(1, 1))
    monkeypatch.setattr(definition.StepAttention, "forward", forward)
    frames = frames_for(model)
    with pytest.raises(InputError, match=rf"^module \S+: {words} found(, in time step 3)?; expected neurons as .*"):
        as_module(model, frames)


FAULTS: dict[str, tuple[type, str, Callable[[Any], Any]]] = {
    "a gate": (gates.StepAttention, "expand_bias", lambda bias: bias + np.float32(0.05)),
    "M": (adaptive.Adaptive, "retention", lambda steps: tuple(each * 1.01 for each in steps)),
    "P": (adaptive.Adaptive, "potential", lambda steps: tuple(each + 0.01 for each in steps)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_that_a_fault_in_reading_neurons_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spikes that rounding does not explain are refused, though the margin of gates is wider than that of a sum."""
    cls, field, change = FAULTS[name]
    model = build("one", {"pe_at": "potential"}, widths=(4, 8), blocks=(1, 1))
    frames = frames_for(model)
    awake(make_lively, model, frames, seed=1)
    as_module(model, frames)
    before = cls.__init__

    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        before(self, *arguments, **keywords)
        object.__setattr__(self, field, change(getattr(self, field)))

    monkeypatch.setattr(cls, "__init__", init)
    with pytest.raises(InputError, match=r"^layer \S+: \d+ of its outputs differ from the module's by more than"):
        as_module(model, frames)


def test_the_module_comes_back_as_it_was() -> None:
    """Reading a module neither changes its weights nor leaves a state."""
    model = build("three", READINGS["proposed"])
    frames = frames_for(model, seed=3)
    awake(make_lively, model, frames, seed=2)
    before, attributes = copy.deepcopy(model.state_dict()), {each: set(vars(each)) for each in model.modules()}
    as_module(model, frames)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert attributes == {each: set(vars(each)) for each in model.modules()}
