"""DS2TA from its PyTorch definition, by what its tensors do: in every layer as the importer of its state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle as oracle
from numpy.testing import assert_array_equal
from test_ds2ta import PAIRED, READINGS, REFUSED_PAIRS, T, definition, dyadic, imported, trained

from eventsim import InputError, Network, Simulator, from_torch, import_checkpoint
from eventsim.layers import Affine, Linear, TableAttention, WindowedLinear

torch = oracle.torch
LATER: dict[str, dict[str, Any]] = {
    "exponent 0 of products": {"exponent": 0, "tasa_output": "product"},
    "exponent 0 of values": {"exponent": 0, "tasa_output": "values"},
    "window 1 of each head": {"window": (1, 1), "tasa_output": "values"},
    "constant decay of each head": {"window": 4, "exponent": (1, 3), "tasa_output": "values", "tasa_decay": "constant"},
    "two steps of each head": {"window": 2, "exponent": (1, 3), "tasa_output": "none", "tasa_decay": "constant"},
}


def compare(found: Network, known: Network, frames: np.ndarray, model: Any) -> None:
    """Compare names, what layers are, logits, every spike and every count."""
    neurons = oracle.neurons_of(model)
    assert found.layers.keys() == known.layers.keys()
    for name in found.layers:
        one, other = found.layers[name], known.layers[name]
        if name not in neurons:  # whose classes may say the same in two ways
            assert type(one) is type(other), name
        assert one.arrays().keys() == other.arrays().keys(), name
        for field, array in one.arrays().items():
            if not isinstance(one, Affine) or "attenuate" in name:  # normalisations are one array, or two
                assert_array_equal(array, other.arrays()[field], err_msg=f"{name}.{field}")
    results = [Simulator(network, record=neurons).run(frames) for network in (found, known)]
    for layer in neurons:
        assert_array_equal(*(result.recorded[layer] for result in results), err_msg=layer)
    assert_array_equal(*(result.logits for result in results))
    counts = [{layer.name: layer.counts for layer in result.profile} for result in results]
    for layer in found.layers:
        assert counts[0][layer] == counts[1][layer], layer
    assert results[0].totals == results[1].totals


def read(model: Any, frames: np.ndarray, **options: Any) -> Network:
    return from_torch(model, torch.from_numpy(frames[:, None]), **options)


@pytest.mark.parametrize(("variant", "fold_bn"), [("cifar", True), ("dvs", False)])
@pytest.mark.parametrize("name", READINGS | LATER)
def test_every_reading_equals_the_importer(tmp_path: Path, name: str, variant: str, fold_bn: bool) -> None:
    """Logits and every spike are also PyTorch's own."""
    model = dyadic((READINGS | LATER)[name], seed=14, variant=variant, size=8 if variant == "cifar" else 32)
    frames = oracle.frames_for(model)
    known = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    network = read(model, frames, fold_bn=fold_bn)
    compare(network, known, frames, model)
    logits, seen = oracle.run(model, frames)
    result = Simulator(network, record=oracle.neurons_of(model)).run(frames)
    oracle.check_equal(result, seen, model)
    assert_array_equal(result.logits, logits)
    layer, reading = model.variant.layer, model.reading
    windowed = reading.tasa and np.max(reading.window) > 1
    assert type(network.layers[f"block.0.attn.q_{layer}"]) is (WindowedLinear if windowed else Linear)
    if reading.nsad:
        attention = network.layers["block.0.attn"]
        assert isinstance(attention, TableAttention)
        assert not np.array_equal(attention.table[0], np.arange(attention.table.shape[1]))


TOGETHER = [
    name for name in PAIRED if name.endswith((" alone", "attention", "values", "product", "decay", "each head"))
]
"""What changes which layers there are."""


@pytest.mark.parametrize("first", TOGETHER)
def test_every_pair_of_options_equals_the_importer(tmp_path: Path, first: str) -> None:
    for second in TOGETHER[TOGETHER.index(first) + 1 :]:
        if PAIRED[first].keys() == PAIRED[second].keys() or frozenset({first, second}) in REFUSED_PAIRS:
            continue
        model = dyadic(PAIRED[first] | PAIRED[second])
        frames = oracle.frames_for(model)
        compare(read(model, frames), imported(model, tmp_path, bn_eps=0.0), frames, model)


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = dyadic(in_channels=3)
    image = oracle.frames_for(model, steps=1)
    network = from_torch(model, torch.from_numpy(image))
    assert network.time_steps == T
    compare(network, imported(model, tmp_path, bn_eps=0.0), np.repeat(image, T, axis=0), model)


def test_a_window_is_as_long_as_the_example_shows(tmp_path: Path) -> None:
    """Of a window of 6, four steps are seen in 4 frames, and all in 7."""
    model = dyadic({"window": 6, "exponent": 0})
    for steps, window in ((4, 4), (7, 6)):
        frames = oracle.frames_for(model, steps=steps)
        network = read(model, frames)
        layer = network.layers["block.1.attn.proj_linear"]
        assert isinstance(layer, WindowedLinear)
        assert layer.window == window
        known = imported(model, tmp_path, bn_eps=0.0, time_steps=steps)
        assert_array_equal(Simulator(network).run(frames).logits, Simulator(known).run(frames).logits)


def test_the_trained_model_equals_the_importer() -> None:
    path, model = trained()
    frames = np.random.default_rng(0).poisson(0.5, (5, 2, 34, 34)).astype(np.float32)
    network = read(model, frames)
    compare(network, import_checkpoint(path), frames, model)
    (verified,) = (setting for setting in network.settings if setting.option == "verified")
    assert str(verified.value).endswith("0 that rounding moved")


def test_that_a_table_that_lets_silence_speak_is_refused() -> None:
    """As the importer refuses it."""
    model = dyadic()
    model.block[1].attn.nsad.table[1, 0] = 3
    with pytest.raises(InputError, match=r"layer block\.1\.attn: table entry 3 for score 0 found; expected 0"):
        read(model, oracle.frames_for(model))


def test_that_no_class_of_the_definition_is_known() -> None:
    """What is read are operations: nothing in the importer names what the definition is made of."""
    folder = Path(definition.__file__).parents[1] / "importers" / "eventsim_importers" / "torch_program"
    words = "".join(file.read_text() for file in folder.rglob("*.py")).lower()
    assert not {"ds2ta", "tasa", "nsad"} & set(words.replace("_", " ").replace(".", " ").split())
