"""DS2TA: the import against the PyTorch definition, spikes and counts; its tables, and what they are refused for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from reference.counts import attention_counts, linear_counts
from reference.table_attention import table_attention_counts
from reference.windowed_linear import window_products
from safetensors.numpy import load_file, save_file
from state_dicts import spikformer_state

from eventsim import InputError, Network, Result, Simulator, import_checkpoint, save
from eventsim.cli import main
from eventsim.datasets import labelled_files
from eventsim.layers import Linear, TableAttention, WindowedLinear
from eventsim_importers import ds2ta as importer

torch = oracle.torch
definition = oracle.example("ds2ta")
tables = oracle.example("ds2ta_tables")

F = np.float32
NEURONS = {"bn_eps", "tau", "decay_input", "v_threshold", "attn_threshold", "reset", "v_reset", "strict"}
"""Of every spiking transformer."""
T = 4
READINGS: dict[str, dict[str, Any]] = {
    "proposed": {},
    "NSAD alone": {"tasa": False},
    "TASA alone": {"nsad": False},
    "constant decay": {"tasa_decay": "constant"},
    "no window behind the attention": {"tasa_output": "none"},
    "values": {"tasa_output": "values"},
    "product": {"tasa_output": "product"},
    "threshold inclusive": {"threshold_inclusive": True},
    "entries from 1": {"table_scores": "1..d"},
    "entries to d - 1": {"table_scores": "0..d-1"},
    "undecayed input": {"decay_input": False},
    "soft reset": {"reset": "subtract"},
    "learned time constant": {"learned_tau": True},
    "biases": {"qkv_bias": True},
    "no biases": {"qkv_bias": False},
    "window 2": {"window": 2, "exponent": 1},
    "window longer than the sample": {"window": 6, "exponent": 0},
    "window 1": {"window": 1},
    "window of each head": {"window": (1, 3), "tasa_output": "none"},
    "exponent of each head": {"exponent": (2, 0), "tasa_output": "product"},
    "both of each head": {"window": (4, 2), "exponent": (1, 0), "tasa_output": "values"},
}
"""Every option of the paper alone."""
PAIRED = {name: reading for name, reading in READINGS.items() if len(reading) == 1} | {
    "window of each head": {"window": (1, 3)},
    "exponent of each head": {"exponent": (2, 0)},
}
PER_HEAD = "window or exponent per head with tasa_output 'proj' found; expected"
WITHOUT_PROJ = {"NSAD alone", "no window behind the attention", "values", "product"}
REFUSED_PAIRS = {
    frozenset({"NSAD alone", "TASA alone"}): "nsad False and tasa False found; expected one of them",
    **{
        frozenset({each, other}): PER_HEAD
        for each in ("window of each head", "exponent of each head")
        for other in PAIRED.keys() - WITHOUT_PROJ - {each}
    },
}
"""Every other pair of options runs, and equals PyTorch."""
NSAD = ("u", "a1", "c1", "a2", "b2", "a3", "k3", "b3")


def build(reading: dict[str, Any] | None = None, variant: str = "cifar", **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks, 4 tokens; everything that is averaged is a power of two."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 8, "time_steps": T}
    torch.manual_seed(0)
    return definition.DS2TA(variant, **settings | sizes, reading=definition.Reading(**reading or {})).eval()


@torch.no_grad()
def denoise(model: Any, seed: int) -> Any:
    """Draw the parameters of the tables, each head its own, so that entries have both signs; and the exponents."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, definition.NSAD):
            heads = len(module.u)
            drawn = {
                "u": rng.choice([1, 1.5, 2], heads),
                "a1": rng.choice([0.5, 1, 2], heads),
                "c1": rng.choice([0, 2, -1.25], heads),
                "a2": rng.choice([0, 0.5, -0.25], heads),
                "b2": rng.choice([0, 3], heads),
                "a3": rng.normal(0, 3, heads),
                "k3": rng.choice([1, -2], heads),
                "b3": rng.choice([1, 4], heads),
            }
            for name, values in drawn.items():
                getattr(module, name).copy_(torch.from_numpy(values))
        elif isinstance(module, definition.TASA):
            module.exponent.copy_(module.exponent + rng.choice([-0.4, 0.0, 1.3]))
    return model.train().eval()  # writes the integers


def dyadic(reading: dict[str, Any] | None = None, seed: int = 2, **sizes: Any) -> Any:
    return denoise(oracle.make_dyadic(build(reading, **sizes), seed), seed)


def export(model: Any, folder: Path) -> Path:
    return oracle.export(model, folder, definition.metadata(model))


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


# --- against PyTorch


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("variant", ["cifar", "dvs"])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, variant: str, fold_bn: bool) -> None:
    model = dyadic(READINGS[name], seed=14, variant=variant, size=8 if variant == "cifar" else 32)
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    forms = ("accumulate_once", "reaccumulate") if model.reading.tasa else (None,)
    record = oracle.neurons_of(model)
    for form in forms:
        network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0, tasa_form=form)
        assert of_the_network(network) == ()
        chunks = range(1, T + 1) if form == forms[0] else (1, T)
        results = [Simulator(network, chunk=chunk, record=record).run(frames) for chunk in chunks]
        for result in results:
            oracle.check_equal(result, seen, model)
            assert_array_equal(result.logits, logits)
            assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]
        check_counts(results[0], seen, model, once=form != "reaccumulate")


@pytest.mark.parametrize("first", PAIRED)
def test_every_pair_of_options_equals_pytorch_or_is_refused(tmp_path: Path, first: str) -> None:
    for second in list(PAIRED)[list(PAIRED).index(first) + 1 :]:
        if PAIRED[first].keys() == PAIRED[second].keys():
            continue
        reading, pair = PAIRED[first] | PAIRED[second], frozenset({first, second})
        if pair in REFUSED_PAIRS:
            with pytest.raises(ValueError, match=REFUSED_PAIRS[pair]):
                definition.Reading(**reading)
            continue
        model = dyadic(reading)
        frames = oracle.frames_for(model)
        logits, seen = oracle.run(model, frames)
        network = imported(model, tmp_path, bn_eps=0.0)
        assert of_the_network(network) == (), pair
        result = Simulator(network, chunk=3, record=oracle.neurons_of(model)).run(frames)
        for name in oracle.neurons_of(model):
            assert_array_equal(result.recorded[name], oracle.as_recorded(seen[name][1]), err_msg=f"{pair}: {name}")
        assert_array_equal(result.logits, logits, err_msg=str(pair))


def test_an_input_that_does_not_decay_equals_spikingjelly(tmp_path: Path) -> None:
    """With time constants that are learned, as with those that are not."""
    model = dyadic({"learned_tau": True})
    learning = [module for module in model.modules() if hasattr(module, "decay_input")]
    assert all(isinstance(module, oracle.neuron.ParametricLIFNode) for module in learning)
    for module in learning:
        module.decay_input = False
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    assert (logits != Simulator(imported(model, tmp_path, bn_eps=0.0)).run(frames).logits).any()
    network = imported(model, tmp_path, bn_eps=0.0, decay_input=False)
    result = Simulator(network, record=oracle.neurons_of(model)).run(frames)
    oracle.check_equal(result, seen, model)
    assert_array_equal(result.logits, logits)


def check_counts(result: Result, seen: oracle.Seen, model: Any, once: bool) -> None:
    profile = {layer.name: layer.counts for layer in result.profile}
    layer, reading = model.variant.layer, model.reading
    windows = np.broadcast_to(reading.window, model.heads).tolist() if reading.tasa else [1] * model.heads
    outputs = model.head.in_features
    for index, block in enumerate(model.block):
        attn = f"block.{index}.attn"
        q, k, v = (oracle.as_tokens(seen[f"{attn}.{part}_lif"][1]) for part in "qkv")
        heard = {attn: v}
        if reading.tasa and reading.tasa_output == "values":
            heard |= {
                f"{attn}.ago{age}": np.concatenate([np.zeros_like(v[:age]), v[:-age]])[: len(v)]
                for age in range(1, max(windows))
            }
        for name, values in heard.items():
            if reading.nsad:
                expected = table_attention_counts(q, k, values, whole_table(block.attn.nsad))
                assert expected["kept_scores"] > 0
            else:
                expected = attention_counts(q, k, values, model.heads, "qk_v")
            assert {key: getattr(profile[name], key) for key in expected} == expected, name
        for stage in ("q", "k", "v", "proj"):
            of_heads = windows if stage != "proj" or reading.tasa_output == "proj" else [1] * model.heads
            x = oracle.as_tokens(seen[f"{attn}.attn_lif"][1] if stage == "proj" else seen[attn][0])
            expected = {}
            for window in of_heads:
                served = x if once else np.concatenate([x[max(0, t - window + 1) : t + 1] for t in range(len(x))])
                kind = "binary" if stage == "proj" else "graded"
                for key, value in linear_counts(served, (outputs // model.heads, outputs), kind).items():
                    expected[key] = expected.get(key, 0) + value
            found = profile[f"{attn}.{stage}_{layer}"]
            assert {name: getattr(found, name) for name in expected} == expected, stage
            products = (
                window_products(x, np.ones((outputs, x.shape[-1]), bool), tuple(of_heads)) if max(of_heads) > 1 else 0
            )
            assert found.window_products == products


def whole_table(nsad: Any) -> np.ndarray:
    """What becomes of every score from 0 to d."""
    last = nsad.table[:, -1:] if nsad.last < nsad.table.shape[1] - 1 + nsad.first else nsad.table[:, :0]
    return np.concatenate([np.zeros((len(nsad.table), nsad.first), np.int64), nsad.table, last], axis=1)


def test_the_first_release_layout_equals_pytorch(tmp_path: Path) -> None:
    """Its names, kernels of 1 and no biases in q, k and v: the numbers of the layout for CIFAR without these biases."""
    model = dyadic({"qkv_bias": False}, seed=14)
    frames = oracle.frames_for(model)
    logits, _ = oracle.run(model, frames)
    path = export(model, tmp_path)
    state = {first_release(name): tensor for name, tensor in load_file(path).items()}
    for name, tensor in state.items():
        if tensor.ndim == 2 and "_conv" in name:
            state[name] = tensor.reshape(*tensor.shape, *[1] * (2 if ".mlp." in name else 1))
    save_file(state, path, definition.metadata(model))
    network = import_checkpoint(path, bn_eps=0.0)
    assert network.name == "DS2TA first release 2-16"
    assert_array_equal(Simulator(network).run(frames).logits, logits)


def first_release(name: str) -> str:
    """The name that a tensor has in V1's first release."""
    stage = re.compile(r"patch_embed\.proj_(conv|bn)(\d?)\.")
    name = stage.sub(lambda found: f"patch_embed.block{int(found[2] or 0) + 1}_{found[1]}.", name)
    return name.replace("_linear.", "_conv.")


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = dyadic(in_channels=3)
    image = oracle.frames_for(model, steps=1)[0]
    logits, _ = oracle.run(model, np.stack([image] * T))
    assert_array_equal(model(torch.from_numpy(image)[None]).detach().numpy()[0], logits)
    network = imported(model, tmp_path, bn_eps=0.0)
    assert network.input.kind == "real"
    assert_array_equal(Simulator(network).run(image).logits, logits)


@pytest.mark.parametrize("name", ["proposed", "constant decay", "learned time constant"])
def test_real_weights_differ_by_rounding_only(tmp_path: Path, name: str) -> None:
    """The currents are sums of products in another order, and a learned time constant is not a power of two."""
    model = build(READINGS[name], "dvs", width=64, heads=4, size=34)
    model = denoise(oracle.make_lively(model, seed=1), seed=1)
    for neurons in model.modules():
        if hasattr(neurons, "w"):
            neurons.w.data.fill_(0.3)
    frames = oracle.frames_for(model, seed=2)
    logits, seen = oracle.run(model, frames)
    network = imported(model, tmp_path)
    results = [Simulator(network, chunk=chunk, record=oracle.neurons_of(model)).run(frames) for chunk in (None, 1, 3)]
    if not oracle.check_close(results[0], seen, model):
        assert_allclose(results[0].logits, logits, atol=1e-4)
    for result in results[1:]:
        assert_array_equal(result.logits, results[0].logits)
        assert result.totals == results[0].totals


@pytest.mark.parametrize("ablation", [{}, {"tasa": False}, {"nsad": False}])
@pytest.mark.parametrize("variant", ["cifar", "dvs"])
def test_window_1_and_identity_tables_are_spikformer_v1(
    tmp_path: Path, variant: str, ablation: dict[str, bool]
) -> None:
    reading = {"window": 1, "threshold": 0.5, **ablation}
    model = oracle.make_lively(build(reading, variant, width=32, size=32), seed=3)
    path = export(model, tmp_path)
    plain = {name: tensor for name, tensor in load_file(path).items() if ".nsad." not in name and ".tasa." not in name}
    save_file(plain, tmp_path / "v1.safetensors", definition.metadata(model) | {"heads": "2"})
    network, v1 = import_checkpoint(path), import_checkpoint(tmp_path / "v1.safetensors")
    assert "Spikformer" in v1.name
    if model.reading.nsad:
        assert_array_equal(network.layers["block.0.attn"].table, np.tile(np.arange(17), (2, 1)))

    frames = oracle.frames_for(model)
    record = [name for name in v1.layers if name.endswith(("lif", "attn"))]
    found, expected = (Simulator(each, record=record).run(frames) for each in (network, v1))
    assert_array_equal(found.logits, expected.logits)
    for name in record:
        assert_array_equal(found.recorded[name], expected.recorded[name], err_msg=name)
    assert found.recorded["block.1.attn"].any()
    for ours, theirs in zip(found.profile, expected.profile, strict=True):
        for key in ("acs", "graded_macs", "graded_acs", "macs", "spikes", "neuron_updates", "additions"):
            assert getattr(ours.counts, key) == getattr(theirs.counts, key), (ours.name, key)
        assert ours.dense_macs == theirs.dense_macs


def test_profile_shows_what_tables_and_windows_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = dyadic()
    frames = oracle.frames_for(model)
    network = imported(model, tmp_path, bn_eps=0.0)
    save(network, tmp_path / "model.h5")
    np.save(tmp_path / "frames.npy", frames)
    arguments = ["profile", str(tmp_path / "model.h5"), str(tmp_path / "frames.npy")]
    assert main([*arguments, "--json"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    layers = {layer["name"]: layer for layer in sample["layers"]}
    counts = {layer.name: layer.counts for layer in Simulator(network).run(frames).profile}
    for key in ("scores", "nonzero_scores", "kept_scores", "table_lookups"):
        assert layers["block.0.attn"][key] == getattr(counts["block.0.attn"], key) > 0
    assert layers["block.0.attn.q_linear"]["window_products"] == counts["block.0.attn.q_linear"].window_products > 0

    headings = ("products", "lookups", "kept")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    save(imported(build({"window": 1}), tmp_path), tmp_path / "model.h5")
    assert main(arguments) == 0
    assert [heading in shown for heading in headings] == [True] * 3
    assert headings[0] not in capsys.readouterr().out


# --- published numbers


CIFAR = {"width": 384, "depth": 4, "heads": 12, "classes": 10, "in_channels": 3, "size": 32}
DVS = {"width": 256, "depth": 2, "heads": 16, "classes": 10, "in_channels": 2, "size": 128}


@pytest.mark.parametrize(
    ("variant", "sizes", "qkv_bias", "unused", "v1", "total", "printed"),
    [
        ("cifar", CIFAR, True, 0, 9_324_730, 9_325_130, None),
        ("cifar", CIFAR, False, 0, 9_320_122, 9_320_522, "9.32"),  # V1's first release
        ("dvs", DVS, False, 0, 2_566_666, 2_566_930, None),
        ("dvs", DVS, False, 64 * 256, 2_583_050, 2_583_314, "2.58"),  # with V1's pos_embed, which is not used
    ],
)
def test_published_sizes(
    variant: str, sizes: dict[str, int], qkv_bias: bool, unused: int, v1: int, total: int, printed: str | None
) -> None:
    """Those of Spikformer V1, and a handful of numbers that become 33 or 17 integers per head.

    Tables 1 and 2 print 9.32 M and 2.58 M, for V1 and for DS2TA.
    """
    with torch.device("meta"):
        model = build({"qkv_bias": qkv_bias}, variant, **sizes)
    found = sum(parameter.numel() for parameter in model.parameters()) + unused
    assert found == total == v1 + sizes["depth"] * (4 + 8 * sizes["heads"])
    assert (f"{total / 1e6:.2f}" in ("9.32", "2.58")) == (printed is not None)
    assert printed in (None, f"{total / 1e6:.2f}") and printed in (None, f"{v1 / 1e6:.2f}")
    assert model.block[0].attn.nsad.table.shape == (sizes["heads"], sizes["width"] // sizes["heads"] + 1)


@pytest.mark.parametrize(
    ("base", "base_nj", "ours", "ours_nj", "reduction"),
    [
        (74.26, 7.69, 96.99, 0.90, 88.3),
        (76.82, 6.93, 97.82, 0.65, 90.6),
        (78.98, 6.28, 98.14, 0.56, 91.1),
        (82.64, 5.19, 98.59, 0.42, 91.9),
    ],
)
def test_published_energy_of_attention_maps(
    base: float, base_nj: float, ours: float, ours_nj: float, reduction: float
) -> None:
    """Table 3, from its sparsities: 64 tokens of 384 channels. Its reductions are those of its rounded energies."""
    energies = [round(tables.map_energy_nj(64, 384, percent / 100), 2) for percent in (base, ours)]
    assert energies == [base_nj, ours_nj]
    assert round(100 * (1 - energies[1] / energies[0]), 1) == reduction


# --- the definition


@pytest.mark.parametrize("inclusive", [False, True])
def test_evaluation_equals_the_exported_table_and_training_rounds_alike(inclusive: bool) -> None:
    model = dyadic({"threshold_inclusive": inclusive})
    nsad = model.block[0].attn.nsad
    scores = torch.arange(9.0).repeat(1, 2, 9, 1)
    found = nsad(scores)[0, :, 0]
    assert_array_equal(found, nsad.table)
    assert_array_equal(nsad.state_dict()["table"], nsad.table)
    trained = nsad.train()(scores)[0, :, 0]
    assert_array_equal(trained.detach(), nsad.table)
    trained.sum().backward()
    assert all(getattr(nsad, name).grad.abs().sum() > 0 for name in ("u", "a1", "c1", "a2", "a3", "b3"))
    assert (nsad.table < 0).any()


def test_state_dict_in_training_holds_the_integers_of_now() -> None:
    model = build().train()
    with torch.no_grad():
        model.block[0].attn.nsad.u.fill_(-3.0)
        model.block[0].attn.nsad.a1.fill_(2.5)
        model.block[0].attn.tasa["q"].exponent.fill_(0.6)
        model.block[0].attn.tasa["k"].exponent.fill_(-1.0)
    state = model.state_dict()
    assert_array_equal(state["block.0.attn.nsad.table"][0], np.rint(2.5 * np.arange(9)))
    assert (state["block.0.attn.tasa.q.d"], state["block.0.attn.tasa.k.d"]) == (1, 0)


@pytest.mark.parametrize("decay", ["geometric", "constant"])
def test_exponent_learns(decay: str) -> None:
    tasa = definition.TASA(definition.Reading(tasa_decay=decay), 2).train()
    spikes = torch.ones(3, 2)
    current = tasa(spikes)
    late = 1 + 0.25 + (0.0625 if decay == "geometric" else 0.25)
    assert_array_equal(current.detach(), np.repeat([[1], [1.25], [late]], 2, axis=1).astype(F))
    current.sum().backward()
    assert tasa.exponent.grad < 0  # more attenuation, less current


def test_every_head_learns_its_exponent() -> None:
    reading = definition.Reading(window=(1, 2, 3), exponent=(1, 0, 2), tasa_output="none")
    tasa = definition.TASA(reading, 3).train()
    currents = tasa(torch.ones(4, 1, 3, 2, 2))[:, 0, :, 0, 0]
    assert_array_equal(currents.detach(), np.array([[1, 1, 1], [1, 2, 1.25], [1, 2, 1.3125], [1, 2, 1.3125]], F))
    currents.sum().backward()
    assert tasa.exponent.grad[0] == 0 and (tasa.exponent.grad[1:] < 0).all()  # a window of 1 has no exponent to learn


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"window": (3, 0), "tasa_output": "none"},
        {"exponent": -1},
        {"tasa_decay": "linear"},
        {"tasa_output": "v"},
        {"table_scores": "0..d+1"},
        {"reset": "soft"},
        {"nsad": False, "tasa": False},
        {"window": (3, 3)},
        {"exponent": (2, 2)},
    ],
)
def test_the_definition_refuses_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="found; expected"):
        definition.Reading(**wrong)


@pytest.mark.parametrize("option", ["window", "exponent"])
def test_the_definition_wants_as_many_windows_as_heads(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option} \(1, 2, 3\) found; expected one, or one for each of 2 heads"):
        build({option: (1, 2, 3), "tasa_output": "none"})


@pytest.mark.parametrize("ablation", [None, "nsad_alone", "tasa_alone"])
def test_every_ablation_of_the_small_model_trains_and_imports(tmp_path: Path, ablation: str | None) -> None:
    torch.manual_seed(0)
    model = oracle.make_lively(definition.nmnist_model(ablation), seed=0).train()
    frames = torch.poisson(torch.full((5, 2, 2, 34, 34), 0.5))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(frames), torch.tensor([3, 7])).backward()
        optimizer.step()
    learned = {name: parameter.grad.abs().sum() for name, parameter in model.named_parameters()}
    assert all(torch.isfinite(gradient) for gradient in learned.values())
    for part, used in (("nsad.u", ablation != "tasa_alone"), ("tasa.q.exponent", ablation != "nsad_alone")):
        found = [gradient for name, gradient in learned.items() if name.endswith(part)]
        assert any(gradient > 0 for gradient in found) == bool(found) == used
    network = imported(model.eval(), tmp_path)
    assert network.assumptions == () or of_the_network(network) == ()
    assert network.name == "DS2TA dvs 2-64" + {None: ""}.get(ablation, f" with {(ablation or '')[:4].upper()} alone")
    given = frames[:, :1].numpy()
    assert_allclose(Simulator(network).run(given[:, 0]).logits, model(frames[:, :1])[0].detach(), atol=1e-4)


def test_an_unknown_ablation_is_refused() -> None:
    with pytest.raises(ValueError, match="ablation 'both' found; expected None, 'nsad_alone' or 'tasa_alone'"):
        definition.nmnist_model("both")


# --- recognition, tables from their parameters, bad input


def test_a_spikformer_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v1.npz", **spikformer_state("dvs"))
    with pytest.raises(InputError, match=r"v1\.npz: no DS2TA found; expected block\.0\.attn\.nsad or"):
        import_checkpoint(tmp_path / "v1.npz", "ds2ta")


def changed(
    folder: Path, metadata: dict[str, str] | None = None, model: Any = None, without: Iterable[str] = (), **tensors: Any
) -> Path:
    """A small model with tensors replaced, added or, where None, left out, and without some of the metadata."""
    model = dyadic() if model is None else model
    path = export(model, folder)
    kept = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    told = definition.metadata(model) | (metadata or {})
    save_file(kept, path, {name: value for name, value in told.items() if name not in without})
    return path


def only(part: str) -> dict[str, None]:
    """What to leave out so that only the table, or only its parameters, remain."""
    names = NSAD if part == "table" else ("table",)
    return {f"block.{i}.attn.nsad.{name}": None for i in range(2) for name in names}


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("part", ["table", "parameters"])
def test_either_the_table_or_its_parameters_will_do(tmp_path: Path, part: str, inclusive: bool) -> None:
    model = dyadic({"threshold_inclusive": inclusive})
    network = import_checkpoint(changed(tmp_path, model=model, **only(part)), bn_eps=0.0)
    for i in range(2):
        assert_array_equal(network.layers[f"block.{i}.attn"].table, model.block[i].attn.nsad.table)
    assert of_the_network(network) == ()


def test_threshold_option_makes_another_table(tmp_path: Path) -> None:
    model = build({"threshold": 2.0})
    path = changed(tmp_path, model=model, **only("parameters"))
    assert_array_equal(import_checkpoint(path).layers["block.0.attn"].table[0], [0, 0, 2, 3, 4, 5, 6, 7, 8])
    network = import_checkpoint(path, threshold_inclusive=True)
    assert_array_equal(network.layers["block.0.attn"].table[0], [0, 0, 0, 3, 4, 5, 6, 7, 8])
    both = changed(tmp_path, model=model)
    with pytest.raises(
        InputError,
        match=r"block.0.attn.nsad.table holds 2 for score 2 of head 0; expected 0 rounded, which block.0.attn.nsad.u",
    ):
        import_checkpoint(both, threshold_inclusive=True)


def test_halves_are_rounded_to_even_and_parameters_have_defaults(tmp_path: Path) -> None:
    model = build({"threshold": 1.0})
    model.block[0].attn.nsad.a1.data.fill_(0.5)
    model.block[0].attn.nsad.a3.data.fill_(3.0)
    left = {f"block.0.attn.nsad.{name}": None for name in ("table", "c1", "k3")}
    network = import_checkpoint(changed(tmp_path, model=model, **left, **{"block.0.attn.nsad.a3": np.zeros(2, F)}))
    assert_array_equal(network.layers["block.0.attn"].table, [[0, 0, 1, 2, 2, 2, 3, 4, 4]] * 2)
    network = import_checkpoint(changed(tmp_path, model=model, **left))
    a = np.arange(9)
    expected = np.rint(0.5 * a + 3 / (1 + np.exp(-(a - 1.0)))) * (a >= 1)
    assert_array_equal(network.layers["block.0.attn"].table[1], expected)


def test_table_alone_needs_no_threshold_option_and_float_integers_will_do(tmp_path: Path) -> None:
    path = changed(tmp_path, model=build(), **only("table"), **{"block.0.attn.tasa.q.d": np.array(3.0, np.float32)})
    state = {name: tensor for name, tensor in load_file(path).items() if not name.endswith("exponent")}
    save_file(state, path)
    network = import_checkpoint(path, time_steps=T, height=8, width=8, input_kind="graded", scale=0.125)
    said = {assumption.split(" ")[0] for assumption in of_the_network(network)}
    assert said == {"tasa_decay", "residual_op", "pools", "pool_order", *NEURONS}
    assert network.layers["block.0.attn.q_linear"].exponent == 3


def test_defaults_are_those_of_the_layout(tmp_path: Path) -> None:
    path = export(build({}, "dvs", heads=1, size=128), tmp_path)
    save_file(load_file(path), path)
    network = import_checkpoint(path)
    assert (network.time_steps, network.input.shape, network.layers["block.0.attn"].scale) == (10, (2, 128, 128), 0.25)
    said = {assumption.split(" ")[0] for assumption in of_the_network(network)}
    expected = {"scale", "time_steps", "height", "width", "input_kind", "tasa_decay", "threshold_inclusive"}
    assert said == expected | {"residual_op", "pools", "pool_order", *NEURONS}


def test_layers_are_what_the_checkpoint_says(tmp_path: Path) -> None:
    network = imported(dyadic({"tasa_output": "none"}), tmp_path)
    kinds = {name: type(layer) for name, layer in network.layers.items()}
    assert kinds["block.0.attn"] is TableAttention
    assert kinds["block.0.attn.q_linear"] is WindowedLinear
    assert kinds["block.0.attn.proj_linear"] is kinds["block.0.mlp.fc1_linear"] is Linear
    assert {field.name for field in fields(importer.Options)} >= {"tasa_decay", "tasa_form", "threshold_inclusive"}


TABLE = "block.0.attn.nsad.table"
NO_PARAMETERS = only("table")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({TABLE: np.zeros((2, 7), np.int64)}, rf"tensor {TABLE} \(2, 7\) found; expected \(2, 9\) or \(2, 8\)"),
        ({TABLE: np.zeros((2, 10), np.int64)}, rf"tensor {TABLE} \(2, 10\) found; expected \(2, 9\) or \(2, 8\)"),
        ({TABLE: np.zeros((2, 9, 1), np.int64)}, rf"tensor {TABLE} \(2, 9, 1\) found; expected \(2, 9\) or \(2, 8\)"),
        (
            {TABLE: np.zeros((2, 8), np.int64)},
            r"metadata table_scores=0..d found; expected 1..d or 0..d-1, as \S+ has 8",
        ),
        (
            {"block.1.attn.nsad.table": np.zeros((2, 8), np.int64)},
            r"tensor block.1.attn.nsad.table \(2, 8\) found; expected \(2, 9\)",
        ),
        ({TABLE: np.zeros(9, np.int64)}, rf"tensor {TABLE} \(9\) found; expected a number of heads that divides"),
        ({TABLE: np.zeros((3, 6), np.int64)}, rf"tensor {TABLE} \(3, 6\) found; .* divides the width 16"),
        ({TABLE: np.zeros((0, 9), np.int64)}, rf"tensor {TABLE} \(0, 9\) found; .* divides the width 16"),
        ({TABLE: np.ones((2, 9), np.int64)}, rf"tensor {TABLE} holds 1 for score 0 of head 0; expected 0"),
        ({TABLE: np.full((2, 9), 0.5, F)}, rf"tensor {TABLE} holds 0.5; expected whole numbers"),
        ({TABLE: np.full((2, 9), np.nan, F)}, rf"tensor {TABLE} holds nan; expected whole numbers"),
        ({TABLE: np.full((2, 9), 2**40)}, rf"tensor {TABLE} of type int64 found; expected integers of up to 32 bits"),
        ({TABLE: np.zeros((2, 9), bool)}, rf"tensor {TABLE} of type bool found; expected integers"),
        ({TABLE: None}, rf"tensor {TABLE} missing; expected it, or block.0.attn.nsad.u and so on"),
        (
            {"block.1.attn.nsad.table": None},
            r"tensor block.1.attn.nsad.table missing; expected it, or block.1.attn.nsad.u",
        ),
        (
            {"block.0.attn.tasa.q.d": np.array(-1, np.int64)},
            r"tensor \S+q.d = -1 found; expected a whole number from 0 to 126",
        ),
        (
            {"block.0.attn.tasa.q.d": np.array(127, np.int64)},
            r"tensor \S+q.d = 127 found; expected a whole number from 0 to 126",
        ),
        ({"block.0.attn.tasa.k.d": np.array(1.5, np.float32)}, r"tensor \S+k.d holds 1.5; expected whole numbers"),
        (
            {"block.0.attn.tasa.k.d": np.array([2])},
            r"tensor \S+k.d \(1\) found; expected \(\) or \(2\), one for each head",
        ),
        (
            {"block.1.attn.tasa.q.taw": np.array([1, 2, 3])},
            r"tensor \S+1.attn.tasa.q.taw \(3\) found; .* or \(2\), one for",
        ),
        ({"block.0.attn.tasa.q.taw": np.ones((2, 1), int)}, r"tensor \S+q.taw \(2, 1\) found; .* or \(2\), one for"),
        (
            {"block.0.attn.tasa.q.taw": np.array([3, 0])},
            r"tensor \S+q.taw = 0 found; expected a whole number at least 1",
        ),
        (
            {"block.0.attn.tasa.proj.taw": np.array([3, 3])},
            r"tensor \S+proj.taw \(2\) found; expected \(\), as the output projection adds up all heads",
        ),
        ({"block.0.attn.tasa.k.exponent": np.ones(2, F)}, r"tensor \S+k.exponent \(2\) found; expected \(\)"),
        ({"block.1.attn.tasa.k.d": None}, r"tensor block.1.attn.tasa.k.d missing; expected it with shape \(\)"),
        ({"block.1.attn.tasa.attn.d": np.array(2)}, r"tensor block.1.attn.tasa.attn.d \(\) left over"),
        (
            {"block.0.attn.tasa.k.d": np.array(9, np.int64)},
            r"tensor \S+k.d = 9 found; expected \S+exponent = \S+ rounded",
        ),
        (
            {"block.0.attn.tasa.v.taw": np.array(0, np.int64)},
            r"tensor \S+v.taw = 0 found; expected a whole number at least 1",
        ),
        ({"block.0.attn.tasa.proj.d": None}, r"tensor block.0.attn.tasa.proj.d missing"),
        ({"block.1.attn.q_linear.bias": None}, r"tensor block.1.attn.q_linear.bias missing"),
    ],
)
def test_bad_tensors_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    path = changed(tmp_path, **NO_PARAMETERS | tensors)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        import_checkpoint(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"u": np.array([-1, 1], F), "c1": np.full(2, 3, F)}, "holds -?[0-9]+ for score 0 of head 0; expected 0"),
        ({"u": np.ones(3, F)}, r"expected a number of heads that divides the width 16"),
        ({"u": None}, rf"tensor {TABLE} missing; expected it, or block.0.attn.nsad.u"),
        ({"a1": np.full(2, 1e30, F)}, r"tensors block.0.attn.nsad.\* make entries beyond 2147483647"),
        ({"k3": np.full(2, -1e30, F)}, None),
    ],
)
def test_bad_parameters_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str | None) -> None:
    tensors = {f"block.0.attn.nsad.{name}": tensor for name, tensor in tensors.items()}
    path = changed(tmp_path, **only("parameters") | tensors)
    if message is None:  # a sigmoid as steep as a step is fine
        import_checkpoint(path)
        return
    with pytest.raises(InputError, match=f"^{path}: .*{message}"):
        import_checkpoint(path)


OF_TASA = "expected none, as there is no tensor block.*.attn.tasa.*"
OF_NSAD = "expected none, as there is no tensor block.*.attn.nsad.*"


@pytest.mark.parametrize(
    ("reading", "options", "message"),
    [
        ({}, {"nsad": False}, "nsad=False found; expected True, as there are tensors block.*.attn.nsad.*"),
        ({}, {"tasa": False}, "tasa=False found; expected True, as there are tensors block.*.attn.tasa.*"),
        (
            {},
            {"tasa_output": "none"},
            "tasa_output=none found; expected proj, as there is a tensor block.0.attn.tasa.proj.",
        ),
        (
            {},
            {"tasa_output": "values"},
            "tasa_output=values found; expected proj, as there is a tensor block.0.attn.tasa",
        ),
        (
            {"tasa_output": "none"},
            {"tasa_output": "proj"},
            "tasa_output=proj found; expected none, as there is no tensor",
        ),
        (
            {"tasa_output": "product"},
            {"tasa_output": "proj"},
            "tasa_output=proj found; expected values or product, as there is a tensor block.0.attn.tasa.attn.",
        ),
        ({"tasa": False}, {"tasa": True}, "tasa=True found; expected False, as there is no tensor block.*.attn.tasa.*"),
        ({"tasa": False}, {"tasa_decay": "geometric"}, f"tasa_decay=geometric found; {OF_TASA}"),
        ({"tasa": False}, {"tasa_output": "none"}, f"tasa_output=none found; {OF_TASA}"),
        ({"tasa": False}, {"tasa_form": "reaccumulate"}, f"tasa_form=reaccumulate found; {OF_TASA}"),
        ({"nsad": False}, {"nsad": True}, "nsad=True found; expected False, as there is no tensor block.*.attn.nsad.*"),
        ({"nsad": False}, {"threshold_inclusive": True}, f"threshold_inclusive=True found; {OF_NSAD}"),
        ({"nsad": False}, {"table_scores": "1..d"}, f"table_scores=1..d found; {OF_NSAD}"),
    ],
)
@pytest.mark.parametrize("door", ["option", "metadata"])
def test_options_that_do_not_fit_the_tensors_are_refused(
    tmp_path: Path, door: str, reading: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    stated = {name: str(value) for name, value in options.items()} if door == "metadata" else {}
    path = changed(tmp_path, stated, model=build(reading))
    with pytest.raises(InputError) as caught:
        import_checkpoint(path, **{} if stated else options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path) if stated else "option ")


@pytest.mark.parametrize(
    ("reading", "tensors", "message"),
    [
        ({"nsad": False}, {TABLE: np.zeros((2, 9), int)}, "tensor block.1.attn.nsad.table missing; expected it, or"),
        (
            {"nsad": False},
            {"block.1.attn.nsad.u": np.zeros(2, F)},
            "tensor block.0.attn.nsad.table missing; expected it, or",
        ),
        (
            {"tasa": False},
            {"block.1.attn.tasa.q.d": np.array(2)},
            "tensor block.0.attn.tasa.q.d missing; expected it with",
        ),
        ({"tasa_output": "none"}, {"block.1.attn.tasa.proj.d": np.array(2)}, "tensor block.0.attn.tasa.proj.d missing"),
        (
            {"tasa_output": "values"},
            {"block.1.attn.tasa.attn.taw": np.array(65)},
            "tensor block.1.attn.tasa.attn.taw = 65 found; expected a whole number from 1 to 64",
        ),
        (
            {"tasa_output": "values"},
            {"block.1.attn.tasa.attn.taw": np.array([1, 2, 3])},
            "tensor block.1.attn.tasa.attn.taw (3) found; expected () or (2), one for each head",
        ),
        (
            {"nsad": False, "window": (1, 3), "tasa_output": "none"},
            {"block.0.attn.tasa.q.taw": np.array([1, 2, 3])},
            "tensor block.0.attn.tasa.q.taw (3) found; expected a number of heads that divides the width 16",
        ),
        (
            {"exponent": (2, 1), "tasa_output": "none"},
            {"block.0.attn.tasa.v.d": np.array([2, 2])},
            "tensor block.0.attn.tasa.v.d = 2 found; expected block.0.attn.tasa.v.exponent = 1 rounded",
        ),
        (
            {"qkv_bias": False},
            {"block.1.attn.k_linear.bias": np.zeros(16, F)},
            "tensor block.0.attn.q_linear.bias missing",
        ),
    ],
)
def test_tensors_that_do_not_fit_an_ablation_or_a_reading_are_refused(
    tmp_path: Path, reading: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    path = changed(tmp_path, model=build(reading), without=("nsad", "tasa", "tasa_output"), **tensors)
    with pytest.raises(InputError) as caught:
        import_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_bad_options_are_refused(tmp_path: Path) -> None:
    path = export(build(), tmp_path)
    with pytest.raises(InputError, match=r"^option heads=4 found; expected 2, as block.0.attn.nsad.table has"):
        import_checkpoint(path, heads=4)
    assert import_checkpoint(path, heads=2).layers["block.0.attn"].table.shape == (2, 9)
    with pytest.raises(InputError, match=r"^option attention_order=context_first found; expected scores_first"):
        import_checkpoint(path, attention_order="context_first")
    path = changed(tmp_path, {"heads": "4"})
    with pytest.raises(
        InputError, match=rf"^{path}: metadata heads=4 found; expected 2, as block.0.attn.nsad.table has"
    ):
        import_checkpoint(path)
    path = changed(tmp_path, {"attention_order": "context_first"})
    with pytest.raises(
        InputError, match=rf"^{path}: metadata attention_order=context_first found; expected scores_first"
    ):
        import_checkpoint(path)


def said(network: Network, option: str) -> list[tuple[Any, str, str]]:
    return [(each.value, each.source, each.note) for each in network.settings if each.option == option]


def test_what_tensors_tell_is_listed(tmp_path: Path) -> None:
    path = changed(tmp_path, without=("nsad", "tasa", "tasa_output", "table_scores"))
    assert said(import_checkpoint(path), "heads") == [(2, "inferred", "block.0.attn.nsad.table")]
    assert said(import_checkpoint(path, heads=2), "heads") == [(2, "option", "")]
    for option in ("c1", "k3", "nsad", "tasa", "tasa_output", "table_scores"):
        assert said(import_checkpoint(path), option) == []
    assert said(import_checkpoint(changed(tmp_path, {"heads": "2"})), "heads") == [(2, "metadata", "")]
    left = {f"block.{i}.attn.nsad.{name}": None for i in range(2) for name in ("table", "c1")}
    left |= {"block.1.attn.nsad.k3": None}
    model = build({"tasa_output": "none", "threshold": 1.0})
    network = import_checkpoint(changed(tmp_path, model=model, without=("tasa_output",), **left))
    assert said(network, "c1") == [(0.0, "inferred", "block.0.attn.nsad.c1 and 1 more absent")]
    assert said(network, "k3") == [(1.0, "inferred", "block.1.attn.nsad.k3 absent")]
    why = "there is no tensor block.*.attn.tasa.proj.* or block.*.attn.tasa.attn.*"
    assert said(network, "tasa_output") == [("none", "inferred", why)]


@pytest.mark.parametrize(("part", "left"), [("nsad", "tasa"), ("tasa", "nsad")])
def test_an_ablation_is_told_by_tensors(tmp_path: Path, part: str, left: str) -> None:
    model = build({part: False})
    network = import_checkpoint(changed(tmp_path, model=model, without=(part, left, "heads")))
    why = f"there is no tensor block.*.attn.{part}.*"
    assert said(network, part) == [(False, "inferred", why)]
    assert said(network, left) == []
    assert said(import_checkpoint(export(model, tmp_path)), part) == [(False, "metadata", "")]
    with pytest.raises(InputError, match=rf"^option {part}=True found; expected False, as {re.escape(why)}$"):
        import_checkpoint(export(model, tmp_path), **{part: True})
    with pytest.raises(InputError, match=rf"^option {left}=False found; expected True, as there are tensors block"):
        import_checkpoint(export(model, tmp_path), **{left: False})


def test_heads_without_tables_are_those_of_the_windows_or_else_chosen(tmp_path: Path) -> None:
    model = build({"nsad": False, "window": (1, 3), "tasa_output": "none"})
    network = import_checkpoint(changed(tmp_path, model=model, without=("heads",)))
    assert said(network, "heads") == [(2, "inferred", "block.0.attn.tasa.q.taw")]
    with pytest.raises(InputError, match=r"^option heads=4 found; expected 2, as block.0.attn.tasa.q.taw has"):
        import_checkpoint(export(model, tmp_path), heads=4)
    model = build({"nsad": False}, width=32)
    network = import_checkpoint(changed(tmp_path, model=model, without=("heads",)))
    assert said(network, "heads") == [(1, "assumed", "not found in the checkpoint, the default")]
    layer = import_checkpoint(changed(tmp_path, model=model), attention_order="context_first").layers["block.0.attn"]
    assert (layer.heads, layer.order) == (2, "context_first")


def test_equal_windows_of_heads_are_one(tmp_path: Path) -> None:
    taw = {f"block.{i}.attn.tasa.q.taw": np.array([3, 3]) for i in range(2)}
    network = import_checkpoint(changed(tmp_path, **taw))
    assert network.layers["block.0.attn.q_linear"].window == 3


@pytest.mark.parametrize(("scores", "expected"), [("1..d", [0, 5, 6, 7, 8]), ("0..d-1", [0, 5, 6, 7, 7])])
def test_a_table_of_d_entries(tmp_path: Path, scores: str, expected: list[int]) -> None:
    """It cannot tell which scores these are of."""
    entries = {"1..d": [5, 6, 7, 8], "0..d-1": [0, 5, 6, 7]}[scores]
    short = {f"block.{i}.attn.nsad.table": np.array([entries] * 4) for i in range(2)}
    path = changed(tmp_path, model=build(heads=4), without=("table_scores",), **only("table") | short)
    network = import_checkpoint(path, table_scores=scores)
    assert_array_equal(network.layers["block.0.attn"].table, [expected] * 4)
    if scores == "1..d":
        network = import_checkpoint(path)
        assert_array_equal(network.layers["block.0.attn"].table, [expected] * 4)
        assert said(network, "table_scores") == [("1..d", "assumed", "not found in the checkpoint, the default")]
    with pytest.raises(
        InputError, match=r"^option table_scores=0..d found; expected 1..d or 0..d-1, as block.0.\S+ has"
    ):
        import_checkpoint(path, table_scores="0..d")


def test_numbers_make_no_entry_of_a_score_that_has_none(tmp_path: Path) -> None:
    """With thresholds below 0, which no table of d + 1 entries could come from."""
    numbers = {f"block.{i}.attn.nsad.{name}": np.full(2, value, F) for i in range(2) for name, value in U_AND_C1}
    path = changed(tmp_path, without=("table_scores",), model=build(), **only("parameters") | numbers)
    network = import_checkpoint(path, table_scores="1..d")
    assert_array_equal(network.layers["block.0.attn"].table, [[0, 4, 5, 6, 7, 8, 9, 10, 11]] * 2)
    with pytest.raises(InputError, match="holds 3 for score 0 of head 0; expected 0"):
        import_checkpoint(path)


U_AND_C1 = (("u", -1), ("c1", 3))


def test_a_table_of_d_plus_1_entries_leaves_no_choice(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^option table_scores=1..d found; expected 0..d, as block.0.attn.nsad.table has 9 entries"
    ):
        import_checkpoint(export(build(), tmp_path), table_scores="1..d")


def test_an_unused_position_embedding_is_named(tmp_path: Path) -> None:
    path = export(build({}, "dvs", size=32), tmp_path)
    state, metadata = load_file(path), definition.metadata(build({}, "dvs", size=32))
    save_file(state | {"pos_embed": np.ones((1, 64, 16), F)}, path, metadata)
    network = import_checkpoint(path)
    why = "pos_embed: V1 declares a position embedding that its forward pass never reads"
    assert said(network, "ignore") == [("pos_embed", "inferred", why)]


# --- the trained model


def trained() -> tuple[Path, Any]:
    path = oracle.EXAMPLES / "weights" / "nmnist_ds2ta.safetensors"
    model = definition.nmnist_model().eval()
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()})
    return path, model


def test_trained_model_predicts_as_pytorch_does(shared: Path) -> None:
    path, model = trained()
    network = import_checkpoint(path)
    assert network.assumptions == ()
    samples = labelled_files(shared / "nmnist" / "Test")
    frames = oracle.recorded_frames(samples, network.time_steps)
    found = [result.prediction for result in Simulator(network).run_many(frames)]
    assert found == oracle.predictions(model, frames)
    right = sum(prediction == sample.label for prediction, sample in zip(found, samples, strict=True))
    assert right / len(samples) >= 0.9


def test_trained_tables_are_described(shared: Path) -> None:
    """The sparsities that the script prints are those of the maps in PyTorch."""
    path, model = trained()
    samples = labelled_files(shared / "nmnist" / "Test")[:3]
    network = import_checkpoint(path)
    counts = tables.count(network, [sample.name for sample in samples])
    for index, block in enumerate(model.block):
        attn = f"block.{index}.attn"
        nonzero = np.zeros(2)
        for frames in oracle.recorded_frames(samples, network.time_steps):
            _, seen = oracle.run(model, frames)
            nonzero += [np.mean(array != 0) / len(samples) for array in seen[f"{attn}.nsad"]]
        text = tables.describe_block(network, attn, counts)
        assert f"map sparsity {1 - nonzero[0]:.2%} without NSAD, {1 - nonzero[1]:.2%} with it" in text
        assert " ".join(f"{entry:3d}" for entry in block.attn.nsad.table[0].tolist()) in text
        assert text.count("if every step served its whole window") == 4


def test_maps_of_a_plain_spikformer_are_described(shared: Path) -> None:
    """The baseline of Table 3."""
    path = oracle.EXAMPLES / "weights" / "nmnist_spikformer.safetensors"
    model = oracle.example("spikformer").nmnist_model().eval()
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()})
    samples = labelled_files(shared / "nmnist" / "Test")[:3]
    plain = import_checkpoint(path)
    network = tables.with_tables(plain)
    counts = tables.count(network, [sample.name for sample in samples])
    nonzero = 0.0
    for frames in oracle.recorded_frames(samples, network.time_steps):
        assert_array_equal(Simulator(network).run(frames).logits, Simulator(plain).run(frames).logits)
        _, seen = oracle.run(model, frames)
        q, k = (oracle.as_tokens(seen[f"block.0.attn.{part}_lif"][1]).reshape(5, 9, 6, 16) for part in "qk")
        nonzero += np.mean(np.einsum("tihd,tjhd->thij", q, k) != 0) / len(samples)
    text = tables.describe_block(network, "block.0.attn", counts)
    assert text.split("; ")[0] == f"block.0.attn\n  map sparsity {1 - nonzero:.2%}"
