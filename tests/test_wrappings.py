"""What weights are wrapped in: entries, prefixes, masks, what lies beside them, and files that are none."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from state_dicts import spikformer_state
from torch_files import Raw, call, code, parts, write, write_state
from torch_files import name as name_of

from eventsim import InputError, Network, Simulator, import_checkpoint, load
from eventsim.cli import main
from eventsim.layers import LIF, PLIF, SparseLinear
from eventsim.settings import Setting
from eventsim_importers.reading.unused import unused_in

SMALL = {"height": 32, "width": 32, "time_steps": 2, "heads": 4}
STATE = spikformer_state("cifar")
FRAMES = np.random.default_rng(0).integers(0, 3, (2, 2, 32, 32))
LIFS = sorted({name[: -len("_bn.weight")] + "_lif" for name in STATE if name.endswith("_bn.weight")})
LIFS.remove("patch_embed.rpe_lif")
State = Mapping[str, np.ndarray]


def behind(prefix: str, state: State = STATE) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in state.items()}


def beside(part: str, value: Any) -> dict[str, np.ndarray]:
    return STATE | {f"{name}.{part}": np.asarray(value) for name in LIFS}


def pruned(state: State, share: float = 0.0) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(1), {}
    for name, value in state.items():
        if name.endswith("weight") and value.ndim > 1 and not name.startswith("head"):
            found[f"{name}_orig"] = value
            found[f"{name}_mask"] = (rng.random(value.shape) >= share).astype(np.float32)
        else:
            found[name] = value
    return found


def logits(network: Network) -> np.ndarray:
    return Simulator(network).run(FRAMES).logits


def settings(network: Network, option: str) -> list[tuple[Any, str]]:
    return [(setting.value, setting.source) for setting in network.settings if setting.option == option]


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        import_checkpoint(path, **SMALL | options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    return logits(import_checkpoint(write_state(tmp_path_factory.mktemp("bare") / "c.pth", STATE), **SMALL))


# --- entries and prefixes


@pytest.mark.parametrize("entry", ["module", "params", "weights", "network", "ema", "state_dict", "anything"])
def test_the_one_entry_with_weights_is_taken(tmp_path: Path, expected: np.ndarray, entry: str) -> None:
    path = write_state(tmp_path / "c.pth", STATE, lambda tensors: {entry: tensors, "arch": "spikformer"})
    network = import_checkpoint(path, **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    assert settings(network, "weights") == [(entry, "inferred")]
    named = import_checkpoint(path, weights=entry, **SMALL)
    assert settings(named, "weights") == [(entry, "option")]


@pytest.mark.parametrize(
    "prefix", ["module.", "model.module.", "module.net._orig_mod.", "backbone.", "net.", "a.b.c.d.e.f.", "block."]
)
@pytest.mark.parametrize("container", ["pth", "npz", "safetensors"])
def test_prefixes_are_found_by_the_names_they_leave(
    tmp_path: Path, expected: np.ndarray, prefix: str, container: str
) -> None:
    path = tmp_path / f"c.{container}"
    state = {name: np.ascontiguousarray(value) for name, value in behind(prefix).items()}
    {
        "pth": write_state,
        "npz": lambda path, state: np.savez(path, **state),
        "safetensors": lambda p, s: save_file(s, p),
    }[container](path, state)
    network = import_checkpoint(path, **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    place = prefix[:-1].removesuffix("._orig_mod")
    assert settings(network, "weights") == [(place, "inferred")]
    assert settings(import_checkpoint(path, weights=prefix[:-1], **SMALL), "weights") == [(place, "option")]


def test_entries_within_entries_have_dotted_names(tmp_path: Path, expected: np.ndarray) -> None:
    path = write_state(
        tmp_path / "c.pth", behind("module."), lambda tensors: {"run": {"best": {"net": tensors}}, "epoch": 1}
    )
    network = import_checkpoint(path, **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    assert settings(network, "weights") == [("run.best.net.module", "inferred")]
    assert import_checkpoint(path, weights="run.best.net", **SMALL).name == network.name
    assert import_checkpoint(path, weights="run.best.net.module", **SMALL).name == network.name
    assert "no entry 'run.best' found; it holds run.best.net" in refused(path, weights="run.best")


def test_several_are_asked_for(tmp_path: Path, expected: np.ndarray) -> None:
    other = {name: value * 0.5 for name, value in STATE.items()}
    tensors, storages = parts(behind("ours.") | behind("theirs.", other))
    ours = {name.removeprefix("ours."): value for name, value in tensors.items() if name.startswith("ours.")}
    theirs = {name.removeprefix("theirs."): value for name, value in tensors.items() if name.startswith("theirs.")}
    entries = write(tmp_path / "c.pth", {"state_dict": ours, "state_dict_ema": theirs, "epoch": 3}, storages)
    message = refused(entries)
    assert "2 sets of weights found (state_dict, state_dict_ema); say which with --set weights=NAME" in message
    np.testing.assert_array_equal(logits(import_checkpoint(entries, weights="state_dict", **SMALL)), expected)
    assert not np.array_equal(logits(import_checkpoint(entries, weights="state_dict_ema", **SMALL)), expected)
    prefixes = write(tmp_path / "d.pth", {"state_dict": tensors}, storages)
    assert "2 sets of weights found (state_dict.ours, state_dict.theirs)" in refused(prefixes)
    np.testing.assert_array_equal(logits(import_checkpoint(prefixes, weights="state_dict.ours", **SMALL)), expected)
    bare = write(tmp_path / "e.pth", tensors, storages)
    assert "2 sets of weights found (ours, theirs)" in refused(bare)
    np.testing.assert_array_equal(logits(import_checkpoint(bare, weights="ours", **SMALL)), expected)
    model = tmp_path / "model.h5"
    assert main(["import", str(entries), "-o", str(model)]) == 2
    assert main(["import", str(entries), "-o", str(model), "--set", "weights=state_dict_ema"]) == 0


@pytest.mark.parametrize("inner", ["ema.", "ema.module.", "teacher.backbone."])
@pytest.mark.parametrize("outer", ["", "module."])
def test_a_set_within_another_is_no_part_of_it(tmp_path: Path, expected: np.ndarray, outer: str, inner: str) -> None:
    other = {name: value * 0.5 for name, value in STATE.items()}
    state = behind(outer) | behind(outer + inner, other)
    path = write_state(tmp_path / "c.pth", state)
    entry = write_state(tmp_path / "d.pth", state, lambda tensors: {"state_dict": tensors})
    first, second = outer[:-1] or ".", (outer + inner)[:-1]
    assert f"2 sets of weights found ({first}, {second}); say which with --set weights=NAME" in refused(path)
    first_in_entry = f"state_dict.{first}".removesuffix("..")
    assert f"({first_in_entry}, state_dict.{second})" in refused(entry)
    for file, asked in ((path, first), (entry, first_in_entry)):
        network = import_checkpoint(file, weights=asked, **SMALL)
        np.testing.assert_array_equal(logits(network), expected)
        assert settings(network, "weights") == [(asked, "option")]
    for file, asked in ((path, second), (entry, f"state_dict.{second}")):
        assert not np.array_equal(logits(import_checkpoint(file, weights=asked, **SMALL)), expected)


@pytest.mark.parametrize(
    ("backbone", "head"), [("backbone.", ""), ("model.backbone.", "model."), ("net.body.", "net.classifier.")]
)
def test_a_head_beside_a_backbone_belongs_to_it(tmp_path: Path, expected: np.ndarray, backbone: str, head: str) -> None:
    heads = {name for name in STATE if name.startswith("head.")}
    state = {(head if name in heads else backbone) + name: value for name, value in STATE.items()}
    network = import_checkpoint(write_state(tmp_path / "c.pth", state), **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    assert settings(network, "joined weights") == [(f"{head}head.weight, {head}head.bias", "inferred")]
    twice = state | {f"other.{name}": STATE[name] + 1 for name in heads}  # the nearer head belongs to it
    path = write_state(tmp_path / "d.pth", twice)
    assert "tensor other.head.bias (10) and 1 more left over" in refused(path)
    np.testing.assert_array_equal(logits(import_checkpoint(path, ignore="other.*", **SMALL)), expected)


def test_a_head_of_the_same_name_outside_is_not_lost(tmp_path: Path, expected: np.ndarray) -> None:
    """A network with its old head behind the prefix, and a new one beside it."""
    state = behind("backbone.") | {name: STATE[name] * 3 for name in STATE if name.startswith("head.")}
    path = write_state(tmp_path / "c.pth", state)
    assert "tensor head.bias (10) and 1 more left over" in refused(path)
    np.testing.assert_array_equal(logits(import_checkpoint(path, weights="backbone", **SMALL)), expected)


def test_each_set_has_the_head_beside_it(tmp_path: Path, expected: np.ndarray) -> None:
    state = {name if name.startswith("head.") else f"backbone.{name}": value for name, value in STATE.items()}
    path = write_state(tmp_path / "c.pth", state | {f"ema.{name}": value * 2 for name, value in state.items()})
    assert "2 sets of weights found (backbone, ema.backbone)" in refused(path)
    network = import_checkpoint(path, weights="backbone", **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    averaged = import_checkpoint(path, weights="ema.backbone", **SMALL)
    assert settings(averaged, "joined weights") == [("ema.head.weight, ema.head.bias", "inferred")]
    np.testing.assert_array_equal(averaged.layers["head"].weight, STATE["head.weight"] * 2)


def test_a_pruned_head_beside_a_backbone(tmp_path: Path) -> None:
    state = {name: value for name, value in behind("backbone.").items() if ".head." not in name}
    mask = np.arange(STATE["head.weight"].size).reshape(STATE["head.weight"].shape) % 2
    head = {"head.weight_orig": STATE["head.weight"], "head.weight_mask": mask, "head.bias": STATE["head.bias"]}
    network = import_checkpoint(write_state(tmp_path / "c.pth", state | head), **SMALL)
    np.testing.assert_array_equal(network.layers["head"].weight, STATE["head.weight"] * mask)


def test_wrappers_within_names(tmp_path: Path, expected: np.ndarray) -> None:
    state = {re.sub(r"(block\.\d+\.(attn|mlp))", r"\1._orig_mod", name): value for name, value in STATE.items()}
    np.testing.assert_array_equal(logits(import_checkpoint(write_state(tmp_path / "c.pth", state), **SMALL)), expected)


def test_names_of_entries_that_meet_are_told_apart(tmp_path: Path, expected: np.ndarray) -> None:
    tensors, storages = parts(behind("x.") | behind("y.", {name: value * 2 for name, value in STATE.items()}))
    first, second = (
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in ("x.", "y.")
    )
    path = write(tmp_path / "c.pth", {"a.b": first, "a": {"b": second}}, storages)
    assert "2 sets of weights found (a.b, a.b')" in refused(path)
    np.testing.assert_array_equal(logits(import_checkpoint(path, weights="a.b", **SMALL)), expected)
    dot = write(tmp_path / "d.pth", {".": first}, storages)
    np.testing.assert_array_equal(logits(import_checkpoint(dot, weights=".", **SMALL)), expected)


def test_a_network_among_many_other_tensors_is_found(tmp_path: Path, expected: np.ndarray) -> None:
    crowd = {f"detector.layer{index}.weight": np.ones(2, np.float32) for index in range(20 * len(STATE))}
    path = write_state(tmp_path / "c.pth", behind("spiking.") | crowd)
    assert "tensor detector.layer0.weight (2) and " in refused(path)
    assert "--set weights=spiking" in refused(path)
    np.testing.assert_array_equal(logits(import_checkpoint(path, weights="spiking", **SMALL)), expected)


def test_entries_that_no_format_knows_are_listed(tmp_path: Path) -> None:
    path = write_state(tmp_path / "c.pth", {"a": np.ones(2), "b": np.ones(2)}, lambda t: {"x": {"a": t["a"]}, "y": t})
    message = refused(path)
    assert "tensors of no known format found in x, y; say which are the weights with --set weights=NAME" in message
    assert "tensors of no known format found (a, ...)" in refused(path, weights="x")


def test_tensors_beside_the_network_are_named(tmp_path: Path, expected: np.ndarray) -> None:
    state = behind("model.") | {"normaliser.mean": np.ones(3, np.float32), "normaliser.std": np.ones(3, np.float32)}
    path = write_state(tmp_path / "c.pth", state, lambda tensors: {"state_dict": tensors})
    message = refused(path)
    assert "tensor normaliser.mean (3) and 1 more left over" in message
    assert "--ignore PATTERN" in message
    network = import_checkpoint(path, ignore="normaliser.*", **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    assert Setting("ignore", "normaliser.*", "option", "2 tensors") in network.settings
    both = import_checkpoint(path, ignore=("normaliser.m*", "*.std"), **SMALL)
    assert settings(both, "ignore") == [("normaliser.m*", "option"), ("*.std", "option")]
    assert "ignore=other.* matches no tensor; expected a pattern of names such as model." in refused(
        path, ignore="other.*"
    )
    chosen = import_checkpoint(path, weights="state_dict.model", **SMALL)  # the rest is not asked for
    np.testing.assert_array_equal(logits(chosen), expected)


def test_what_is_renamed_keeps_what_lies_beside(tmp_path: Path) -> None:
    """A reader that renames tensors still refuses those behind no prefix."""
    torch = pytest.importorskip("torch")
    from test_importer_contract import EXAMPLES

    example = EXAMPLES["spikformer_v2"]["add"](tmp_path)
    state = (
        {f"net.{name}": value for name, value in np.load(example.path).items()}
        if str(example.path).endswith("npz")
        else None
    )
    if state is None:
        from safetensors.numpy import load_file

        state = {f"net.{name}": value for name, value in load_file(example.path).items()}
    torch.save(
        {name: torch.from_numpy(value.copy()) for name, value in (state | {"x": np.ones(1)}).items()},
        tmp_path / "c.pth",
    )
    with pytest.raises(InputError, match=r"tensor x \(1\) left over"):
        import_checkpoint(tmp_path / "c.pth", **example.options, rename="head:head")


# --- values of options beside the weights


def namespace(**values: Any) -> Raw:
    return Raw(code(name_of("argparse.Namespace")) + b")\x81" + code(values) + b"b")


@pytest.mark.parametrize(
    ("place", "made"),
    [
        ("args.tau", lambda state: {"model": state, "args": namespace(tau=1.5, scale=[0.08, 1.0], reset=True)}),
        ("hyper_parameters.tau", lambda state: {"state_dict": state, "hyper_parameters": {"tau": 1.5, "reset": 3}}),
        ("tau", lambda state: {"net": state, "tau": 1.5, "scaler": {"scale": 65536.0}}),
        ("tau", lambda state: state | {"tau": 1.5}),
    ],
)
def test_what_a_training_script_stored_answers_the_options_of_its_name(
    tmp_path: Path, expected: np.ndarray, place: str, made: Callable[[Any], Any]
) -> None:
    tensors, storages = parts(STATE)
    path = write(tmp_path / "c.pth", made(tensors), storages)
    network = import_checkpoint(path, **SMALL)
    assert Setting("tau", 1.5, "metadata", f"{place} beside the weights") in network.settings
    assert {layer.tau for layer in network.layers.values() if isinstance(layer, LIF)} == {1.5}
    assert settings(network, "scale") == [(0.125, "assumed")]
    (reset,) = (setting for setting in network.settings if setting.option == "reset")
    assert (reset.value, reset.source) == ("zero", "assumed")
    assert ("is no value of it" in reset.note) == ("." in place)
    told = import_checkpoint(path, **SMALL, tau=2)
    np.testing.assert_array_equal(logits(told), expected)
    assert settings(told, "tau") == [(2.0, "option")]


def test_what_is_found_beside_the_weights_is_named_where_it_does_not_fit(tmp_path: Path) -> None:
    tensors, storages = parts(STATE)
    path = write(tmp_path / "c.pth", {"model": tensors, "args": {"tau": 0.996}}, storages)
    message = refused(path)
    assert (
        "tau=0.996 found; expected at least 1 time step (beside the weights tau=0.996 found; --set NAME=VALUE"
        in message
    )
    both = write(tmp_path / "d.pth", {"model": tensors, "tau": 2.0, "args": {"tau": 1.5}}, storages)
    assert "tau=2.0 and args.tau=1.5 found beside the weights; expected one value: give --set tau=VALUE" in refused(
        both
    )
    assert settings(import_checkpoint(both, **SMALL, tau=3), "tau") == [(3.0, "option")]
    strict = write(tmp_path / "e.pth", {"model": tensors, "args": {"strict": True, "tau": True}}, storages)
    network = import_checkpoint(strict, **SMALL)
    assert settings(network, "strict") == [(False, "assumed")]  # may be that of load_state_dict
    assert settings(network, "tau") == [(2.0, "assumed")]
    deep = write(tmp_path / "f.pth", {"m": {**tensors, "heads": 4}, "args": {"model": {"tau": 1.5}}}, storages)
    network = import_checkpoint(deep, height=32, width=32, time_steps=2)
    assert settings(network, "heads") == [(4, "metadata")]
    assert settings(network, "tau") == [(1.5, "metadata")]
    sets = write(tmp_path / "g.pth", {"m": tensors, "scheduler": {"tau": 1.5}}, storages)
    assert settings(import_checkpoint(sets, **SMALL), "tau") == [(2.0, "assumed")]


def test_attributes_of_a_group_answer_options(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name, value in STATE.items():
            file["model/" + name.replace(".", "/")] = value
        file["model"].attrs["tau"] = 1.5
        file["nothing"] = h5py.Empty("f")
    assert settings(import_checkpoint(tmp_path / "c.h5", **SMALL), "tau") == [(1.5, "metadata")]


def test_an_option_without_effect_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        name
        for name in import_checkpoint(write_state(tmp_path / "c.pth", STATE), **SMALL).layers
        if name.endswith(("_lif", "_lif1", "_lif2", "_lif3"))
    ]
    path = write_state(tmp_path / "c.pth", STATE | {f"{name}.w": np.zeros(1, np.float32) for name in names})
    assert settings(import_checkpoint(path, **SMALL, tau=1.5), "unused options") == [("tau=1.5", "option")]
    assert main(["import", str(path), "-o", str(tmp_path / "m.h5"), "--set", "heads=4", "--set", "heads=8"]) == 2
    assert "--set heads given more than once; expected one value" in capsys.readouterr().err


def test_the_file_that_is_read_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_state(tmp_path / "c.pth", STATE)
    (tmp_path / "link.h5").symlink_to(path)
    before = path.read_bytes()
    for output in (path, tmp_path / "link.h5", tmp_path / "." / "c.pth"):
        assert main(["import", str(path), "-o", str(output), "--set", "heads=4"]) == 2
        assert "-o names the file that is read; expected another name" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_scalars_among_arrays_answer_the_options_of_their_name(tmp_path: Path) -> None:
    values = {"heads": np.asarray(4), "tau": np.asarray(1.5, np.float32), "reset": np.asarray("subtract")}
    np.savez(tmp_path / "c.npz", **STATE, **values)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name, value in (STATE | {name: values[name] for name in ("heads", "tau")}).items():
            file[name.replace(".", "/")] = value
        file["reset"] = "subtract"
    sizes = {name: value for name, value in SMALL.items() if name != "heads"}
    for path in (tmp_path / "c.npz", tmp_path / "c.h5"):
        network = import_checkpoint(path, **sizes)
        assert settings(network, "heads") == [(4, "metadata")]
        assert {(layer.tau, layer.reset) for layer in network.layers.values() if isinstance(layer, LIF)} == {
            (1.5, "subtract")
        }


def test_metadata_of_another_format_are_said(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file(
        {name: np.ascontiguousarray(value) for name, value in STATE.items()}, path, {"temporal_padding": "causal"}
    )
    (unused,) = (one for one in import_checkpoint(path, **SMALL).settings if one.option == "unused metadata")
    assert unused.sentence == "unused metadata = temporal_padding=causal: without effect in format spikformer"


# --- tensors that enter no forward pass

UNUSED: dict[str, Callable[[], Mapping[str, np.ndarray]]] = {
    "*surrogate_function.*": lambda: beside("surrogate_function.alpha", np.float32(4)),
    "*.[vh]": lambda: beside("v", np.zeros((1, 32), np.float32)),
    "*total_[op]*": lambda: beside("total_ops", np.zeros(1)),
    "*n_averaged": lambda: behind("module.") | {"n_averaged": np.asarray(7)},
    "*criterion.*": lambda: behind("model.") | {"criterion.weight": np.ones(10, np.float32)},
}


@pytest.mark.parametrize("pattern", list(UNUSED))
def test_tensors_that_are_known_to_be_unused_are_said(tmp_path: Path, expected: np.ndarray, pattern: str) -> None:
    network = import_checkpoint(write_state(tmp_path / "c.pth", UNUSED[pattern]()), **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    assert settings(network, "ignore") == [(pattern, "inferred")]


def test_a_v_that_may_be_a_weight_is_refused(tmp_path: Path) -> None:
    for name in ("block.0.attn.v", "v"):
        path = write_state(tmp_path / "c.pth", STATE | {name: np.ones((32, 32), np.float32)})
        assert f"tensor {name} (32, 32) left over" in refused(path)
    assert not unused_in(["a.v"], ["a.v", "a.b.weight"])
    assert unused_in(["a.v"], ["a.v", "a.w", "a.surrogate_function.alpha", "ab.weight"])


def test_a_learned_time_constant_makes_a_plif(tmp_path: Path, expected: np.ndarray) -> None:
    network = import_checkpoint(write_state(tmp_path / "c.pth", beside("w", np.float32(0))), **SMALL)
    np.testing.assert_array_equal(logits(network), expected)  # sigmoid(0) is 1 / 2, as tau = 2
    assert isinstance(network.layers[LIFS[0]], PLIF)
    assert settings(network, "tau") == [(2.0, "assumed")]  # of the others
    state = STATE | {
        f"{name}.w": np.asarray(0.5, np.float32)
        for name in network.layers
        if name.endswith(("_lif", "_lif1", "_lif2", "_lif3"))
    }
    learned = import_checkpoint(write_state(tmp_path / "c.pth", state), **SMALL)
    assert settings(learned, "tau") == []  # no neuron has that
    state = STATE | {f"{LIFS[0]}.w": np.asarray(1.5, np.float32)}
    one = import_checkpoint(write_state(tmp_path / "c.pth", state), **SMALL)
    assert isinstance(one.layers[LIFS[1]], LIF)
    assert one.layers[LIFS[0]].w == 1.5
    assert not np.array_equal(logits(one), expected)


# --- pruning


def test_masks_are_multiplied_in(tmp_path: Path, expected: np.ndarray) -> None:
    network = import_checkpoint(write_state(tmp_path / "c.pth", pruned(STATE)), **SMALL)
    np.testing.assert_array_equal(logits(network), expected)
    assert settings(network, "pruned weights") == [(sum(v.ndim > 1 for v in STATE.values()) - 1, "inferred")]
    state = pruned(STATE, 0.8)
    sparse = import_checkpoint(write_state(tmp_path / "c.pth", behind("module.", state)), **SMALL)
    layer = sparse.layers["block.0.mlp.fc1_linear"]
    assert isinstance(layer, SparseLinear)
    assert len(layer.weights) == np.count_nonzero(state["block.0.mlp.fc1_linear.weight_mask"])


def test_masks_that_are_none_are_refused(tmp_path: Path) -> None:
    state = pruned(STATE)
    name = "block.0.mlp.fc1_linear.weight_mask"
    for mask, words in (
        (state[name] * 0.5, "with other values than 0 and 1"),
        (state[name][1:], "(127, 32) found; expected"),
    ):
        assert f"tensor {name} {words}" in refused(write_state(tmp_path / "c.pth", state | {name: mask}))


# --- strict


def test_strict_refuses_what_is_assumed(tmp_path: Path) -> None:
    path = write_state(tmp_path / "c.pth", STATE)
    with pytest.raises(
        InputError, match=r"c\.pth: assumed .*heads = 1.*; expected every value said.*: give each, such as --set \w+="
    ) as caught:
        import_checkpoint(path, assume=False)
    assert "\n" not in str(caught.value)
    assumed = {
        setting.option: setting.value for setting in import_checkpoint(path).settings if setting.source == "assumed"
    }
    assert import_checkpoint(path, assume=False, **assumed).assumptions == ()
    arguments = ["import", str(path), "-o", str(tmp_path / "model.h5"), "--strict"]
    assert main(arguments) == 2
    assert main([*arguments, *(text for name, value in assumed.items() for text in ("--set", f"{name}={value}"))]) == 0


def test_ignored_patterns_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = STATE | {
        "aux.weight": np.ones(3, np.float32),
        "extra": np.ones(2, np.float32),
        "more": np.ones(1, np.float32),
    }
    path = write_state(tmp_path / "c.pth", state)
    arguments = ["import", str(path), "-o", str(tmp_path / "model.h5"), "--json"]
    assert main([*arguments, "--ignore", "aux.*", "--ignore", "extra", "--set", "ignore=more"]) == 0
    document = json.loads(capsys.readouterr().out)
    patterns = [each["value"] for each in document["settings"] if each["option"] == "ignore"]
    assert patterns == ["more", "aux.*", "extra"]


# --- parameters


def numel(state: State) -> int:
    return sum(
        v.size for k, v in state.items() if v.dtype.kind == "f" and not k.endswith(("running_mean", "running_var"))
    )


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.8])
def test_parameters_are_those_that_pytorch_counts(
    tmp_path: Path, fold_bn: bool, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    state = pruned(STATE, share) if share else STATE
    path = write_state(tmp_path / "c.pth", state, lambda tensors: {"model": tensors})
    network = import_checkpoint(path, fold_bn=fold_bn, **SMALL)
    said = network.settings[-1]
    assert (said.option, said.value, said.source) == ("checkpoint_parameters", numel(STATE), "inferred")
    assert "sum(p.numel())" in said.note
    counts = [int(word.replace(",", "")) for word in said.note.split() if word[0].isdecimal()]
    assert numel(STATE) - sum(counts) == network.parameters
    assert "not counted" not in said.note
    assert ("folded" in said.note) == fold_bn
    assert ("sparse" in said.note) == (share > 0)
    model = str(tmp_path / "model.h5")
    assert main(["import", str(path), "-o", model, "--set", f"fold_bn={fold_bn}"]) == 0
    assert f"parameters: {network.parameters:,} of {numel(STATE):,} in the checkpoint" in capsys.readouterr().out
    assert main(["info", model]) == 0
    assert f"parameters: {network.parameters:,} of {numel(STATE):,} in the checkpoint" in capsys.readouterr().out
    assert load(model).settings[-1] == said


def test_parameters_are_those_of_a_module(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from test_importer_contract import EXAMPLES

    del torch
    for name in ("spikeformer", "staa_snn"):
        kind, example = next(iter(EXAMPLES[name].items()))
        made = example(tmp_path)
        network = import_checkpoint(made.path, **made.options)
        assert network.settings[-1].option == "checkpoint_parameters", kind
        assert int(network.settings[-1].value) >= network.parameters


# --- files that are no checkpoints


def test_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    weights = write_state(tmp_path / "weights.pth", STATE).read_bytes()
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        archive.writestr("run/model.pth", weights)
    with tarfile.open(tmp_path / "real.tar", "w") as archive:
        entry = tarfile.TarInfo("model.pth")
        entry.size = len(weights)
        archive.addfile(entry, io.BytesIO(weights))
    with tarfile.open(tmp_path / "old.tar", "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (tmp_path / "packed.gz").write_bytes(gzip.compress(weights))
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>")
    (tmp_path / "denied.pth").write_text('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')
    (tmp_path / "named.npz").write_bytes((tmp_path / "zipped.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "nested.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK")
    (tmp_path / "s3.pth").write_text("<Error><Code>AccessDenied</Code></Error>")
    (tmp_path / "comment.pth").write_text("<!-- served by a mirror -->\n<html></html>")
    (tmp_path / "index.json").write_text('{"metadata": {"total_size": 3}, "weight_map": {}}')
    write(tmp_path / "script.pt", {}, {}, **{"constants.pkl": b"", "code/net.py": b""})
    write(tmp_path / "module.pth", {"model": call("net.Net")})
    for name, words in {
        "zipped.zip": "ZIP archive of run/model.pth found; unpack it",
        "real.tar": "tar archive of model.pth found; unpack it",
        "old.tar": "PyTorch before 0.1.10",
        "packed.gz": "packed file (gzip) found; unpack it",
        "pointer.pth": "Git LFS pointer found",
        "page.pth": "web page found",
        "denied.pth": "web page found",
        "nested.zip": "ZIP archive of inner.zip found; unpack it",
        "named.npz": "ZIP archive of run/model.pth found; unpack it",
        "s3.pth": "web page found",
        "comment.pth": "web page found",
        "index.json": "JSON text found",
        "script.pt": "TorchScript archive found",
        "module.pth": "no tensors found in model",
    }.items():
        assert words in refused(tmp_path / name), name


def test_a_safetensors_header_of_any_length_is_no_text(tmp_path: Path, expected: np.ndarray) -> None:
    for length in (0x613C, 0x1227B):  # as bytes they begin with <a and {"
        path = tmp_path / f"{length}.safetensors"
        save_file({name: np.ascontiguousarray(value) for name, value in STATE.items()}, path)
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        path.write_bytes(length.to_bytes(8, "little") + content[8:end].ljust(length) + content[end:])
        np.testing.assert_array_equal(logits(import_checkpoint(path, **SMALL)), expected)


def test_a_weight_of_a_class_that_is_not_known_is_named(tmp_path: Path) -> None:
    tensors, storages = parts(STATE)
    path = write(tmp_path / "c.pth", tensors | {"head.weight": call("torchao.Int8Tensor")}, storages)
    assert "tensor head.weight of type torchao.Int8Tensor found; expected plain" in refused(path)


def test_options_that_are_none_are_refused(tmp_path: Path) -> None:
    path = write_state(tmp_path / "c.pth", STATE)
    with pytest.raises(InputError, match="option ignore=3 found; expected patterns of names"):
        import_checkpoint(path, ignore=3)
    image = write_state(tmp_path / "i.pth", spikformer_state("cifar", channels=3))
    for option in ({"sensor": "34x34"}, {"camera": "davis"}):
        assert f"option {next(iter(option))} found; expected none for real input" in refused(image, **option)


def test_names_with_line_breaks_stay_in_one_line(tmp_path: Path) -> None:
    for write_to in (write_state, lambda path, state: save_file(state, path)):
        path = tmp_path / "c.pth"
        write_to(path, {"a\nb": np.ones(2, np.float32), "c" * 5000: np.ones(1, np.float32)})
        assert len(refused(path)) < 2000


# --- the cases that people sent


def test_repackagings_of_one_checkpoint(tmp_path: Path, shared: Path) -> None:
    """Their names are in the folder's make_cases.py; made here from the one file."""
    torch = pytest.importorskip("torch")
    folder = shared / "cases" / "checkpoints"
    if not folder.is_dir():
        pytest.skip("no cases of checkpoints")
    state = torch.load(folder / "g_base_heads4.pth", weights_only=True)
    with np.load(folder / "g_base_heads4_expected.npz") as file:
        images, right = file["x"], file["logits"]
    for wrapped in (
        {"state_dict": state, "best_acc": np.float64(95.2)},
        {"n_averaged": torch.tensor(7)} | {f"module.{name}": value for name, value in state.items()},
        {"state_dict": {f"model.{name}": value for name, value in state.items()}, "pytorch-lightning_version": "2.2"},
    ):
        torch.save(wrapped, tmp_path / "c.pth")
        network = import_checkpoint(tmp_path / "c.pth", heads=4)
        simulator = Simulator(network)
        for image, each in zip(images, right, strict=True):
            found = simulator.run(np.repeat(image[None], network.time_steps or 1, 0)).logits
            np.testing.assert_allclose(found, each, atol=1e-6)


def test_what_is_ignored_is_no_candidate(tmp_path: Path) -> None:
    both = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in STATE.items()}
    path = write_state(tmp_path / "c.pth", both)
    assert "2 sets of weights found" in refused(path)
    network = import_checkpoint(path, ignore="teacher.*")
    found = {setting.option: setting.value for setting in network.settings}
    assert found["weights"] == "student"
    assert found["ignore"] == "teacher.*"
