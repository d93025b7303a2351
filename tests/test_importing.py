"""Checkpoints: recognised by their keys, complete to the last tensor, refused in one line."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from state_dicts import STAGES, spikformer_state

from eventsim import InputError, Simulator, import_checkpoint
from eventsim.errors import EventsimError
from eventsim.layers import Affine, Conv2d, SparseLinear
from eventsim.settings import Setting
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

SMALL = {"height": 32, "width": 32, "time_steps": 3, "heads": 2}


def write_npz(folder: Path, state: dict[str, np.ndarray], name: str = "checkpoint.npz") -> Path:
    path = folder / name
    np.savez(path, **state)
    return path


@pytest.mark.parametrize("variant", STAGES)
def test_variants_are_recognised_by_their_keys(tmp_path: Path, variant: str) -> None:
    path = write_npz(tmp_path, spikformer_state(variant))
    network = import_checkpoint(path, **SMALL)
    assert network.name.startswith(f"Spikformer {variant.replace('_', ' ')} 2-32")
    pools = sum("maxpool" in name or name.endswith("_mp") for name in network.layers)
    assert pools == (2 if variant in ("cifar", "first_release") else 4)
    assert f"patch_embed.{STAGES[variant][0]}" in network.layers
    result = Simulator(network).run(np.random.default_rng(0).integers(0, 3, (3, 2, 32, 32)))
    assert result.logits.shape == (10,)
    assert result.totals.spikes > 0


def test_every_container_gives_the_same_network(tmp_path: Path) -> None:
    state = spikformer_state("cifar")
    frames = np.random.default_rng(0).integers(0, 3, (3, 2, 32, 32))
    paths = [write_npz(tmp_path, state)]
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, tmp_path / "c.safetensors")
    paths.append(tmp_path / "c.safetensors")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name, value in state.items():
            file[name.replace(".", "/")] = value
    paths.append(tmp_path / "c.h5")
    logits = [Simulator(import_checkpoint(path, **SMALL)).run(frames).logits for path in paths]
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])


@pytest.mark.parametrize("wrapping", ["bare", "state_dict", "model", "module.", "ema only", "training"])
def test_usual_wrappings_of_pytorch_files(tmp_path: Path, wrapping: str) -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in spikformer_state("dvs").items()}
    if wrapping == "module.":
        state = {f"module.{name}": value for name, value in state.items()}
    wrapped = {
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "ema only": {"state_dict_ema": state},
        "training": {
            "state_dict": state,
            "state_dict_ema": state,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
            "args": argparse.Namespace(lr=0.1, model="spikformer"),
            "metric": 91.5,
        },
    }.get(wrapping, state)
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(wrapped, path)
    if wrapping != "training":
        assert import_checkpoint(path, **SMALL).name == "Spikformer dvs 2-32"
        return
    asked = r"2 sets of weights found \(state_dict, state_dict_ema\); say which with --set weights=NAME"
    with pytest.raises(InputError, match=asked):
        import_checkpoint(path, **SMALL)
    network = import_checkpoint(path, weights="state_dict_ema", **SMALL)
    assert Setting("weights", "state_dict_ema", "option") in network.settings
    with pytest.raises(InputError, match=r"no entry 'model'.*state_dict"):
        import_checkpoint(path, weights="model")


def test_what_cannot_be_inferred_is_said(tmp_path: Path) -> None:
    network = import_checkpoint(write_npz(tmp_path, spikformer_state("dvs")))
    said = " ".join(network.assumptions)
    for option in (
        "heads = 2",
        "scale = 0.25",
        "time_steps = 16",
        "height = 128",
        "width = 128",
        "input_kind = graded",
    ):
        assert option in said
    given = import_checkpoint(write_npz(tmp_path, spikformer_state("dvs")), heads="4", height=64, width=64)
    assert "heads" not in " ".join(given.assumptions)


def test_metadata_of_the_file_answers_first(tmp_path: Path) -> None:
    state = {name: np.ascontiguousarray(value) for name, value in spikformer_state("dvs").items()}
    save_file(
        state, tmp_path / "c.safetensors", metadata={"heads": "8", "time_steps": "5", "height": "34", "width": "34"}
    )
    network = import_checkpoint(tmp_path / "c.safetensors")
    assert network.time_steps == 5
    assert network.layers["block.0.attn"].heads == 8
    assert network.input.shape == (2, 34, 34)


def test_mostly_zero_weights_become_synapse_lists(tmp_path: Path) -> None:
    state = spikformer_state("cifar")
    weight = state["block.0.mlp.fc1_linear.weight"]
    weight[np.random.default_rng(0).random(weight.shape) < 0.8] = 0
    network = import_checkpoint(write_npz(tmp_path, state), **SMALL)
    sparse = network.layers["block.0.mlp.fc1_linear"]
    assert isinstance(sparse, SparseLinear)
    assert len(sparse.weights) == np.count_nonzero(weight)


def test_normalisation_can_stay_a_layer(tmp_path: Path) -> None:
    path = write_npz(tmp_path, spikformer_state("cifar"))
    network = import_checkpoint(path, fold_bn="false", **SMALL)
    assert isinstance(network.layers["patch_embed.proj_bn"], Affine)
    assert isinstance(network.layers["patch_embed.proj_conv"], Conv2d)
    np.testing.assert_array_equal(
        network.layers["patch_embed.proj_conv"].weight, spikformer_state("cifar")["patch_embed.proj_conv.weight"]
    )


def broken(change: str) -> dict[str, np.ndarray]:
    state = spikformer_state("cifar")
    name = "block.1.attn.k_linear.weight"
    if change == "renamed":
        state["block.1.attn.key_linear.weight"] = state.pop(name)
    elif change == "missing":
        del state[name]
    elif change == "extra":
        state["block.1.attn.gate.weight"] = np.zeros((3, 4), np.float32)
    elif change == "shape":
        state[name] = state[name][:, :-1]
    elif change == "nan":
        state[name][3, 4] = np.nan
    elif change == "infinite":
        state["head.bias"][0] = np.inf
    elif change == "variance":
        state["block.1.attn.k_bn.running_var"][0] = -1
    elif change == "integers":
        state[name] = np.ones(state[name].shape, np.int64)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("renamed", "block.1.attn.k_linear.weight missing"),
        ("missing", "block.1.attn.k_linear.weight missing"),
        ("extra", r"block.1.attn.gate.weight \(3, 4\) left over"),
        ("shape", r"block.1.attn.k_linear"),
        ("nan", "block.1.attn.k_linear.weight holds NaN"),
        ("infinite", "head.bias holds NaN or infinite"),
        ("variance", "k_bn.running_var holds a negative variance"),
        ("integers", "of type int64 found; expected floating point"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(write_npz(tmp_path, broken(change)), **SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 5}, "heads=5 found; expected a divisor"),
        ({"heads": "many"}, "heads=many found; expected int"),
        ({"head": 5}, "option 'head' of format spikformer found; expected one of .*heads"),
        ({"tau": "0.5"}, "tau=0.5 found; expected at least 1 time step"),
        ({"tau": "nan"}, "tau=nan found; expected a finite number"),
        ({"fold_bn": "perhaps"}, "expected true or false"),
        ({"attention_order": "both"}, "expected one of scores_first"),
        ({"height": 0}, "shape"),
        ({"time_steps": 0}, "0 time steps found"),
        ({"format": "spikeformer2"}, "format 'spikeformer2' found; expected one of"),
        ({"weights": "model"}, "only PyTorch training checkpoints"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        import_checkpoint(write_npz(tmp_path, spikformer_state("cifar")), **options)


def test_unknown_tensors_list_the_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no known format found.*spikformer"):
        import_checkpoint(write_npz(tmp_path, {"layer.weight": np.ones((2, 2), np.float32)}))


def test_indices_are_counted_up_to_the_first_that_is_missing() -> None:
    names = ("layer1.0.weight", "layer2.0.weight", "layer2.1.weight", "layer4.0.weight")
    checkpoint = Checkpoint(Path("c"), "npz", Contents({name: np.ones(1, np.float32) for name in names}))
    assert [checkpoint.count("layer{}.", first=first) for first in (0, 1, 2, 3, 4)] == [0, 2, 1, 0, 1]
    assert checkpoint.count("layer2.{}.") == 2


ENCODER = "downsample1_1.encode_conv.weight"
UNREAD = {
    "Spike-driven Transformer ": ("patch_embed.rpe_conv.weight", "block.0.attn.talking_heads.weight"),
    "Spike-driven Transformer V2 (Meta-SpikeFormer)": (ENCODER, "block3.0.attn.q_conv.0.body.0.weight"),
    "Spike-driven Transformer V3": (ENCODER, "block3.0.attn.q_conv.0.weight"),
    "QKFormer": ("patch_embed1.proj_conv.weight", "stage1.0.tssa.q_conv.weight"),
    "a masked autoencoder whose encoder is of no known format": ("decoder_embed.weight", "mask_token"),
    "ResNet with normalised membrane potentials (MPBN)": ("conv1.pool.weight", "layer1.0.conv1.pool.weight"),
    "a vision transformer without spikes": ("cls_token", "blocks.0.attn.qkv.weight"),
}
"""Systems that no format reads: two of their tensors, of which the message names one."""


@pytest.mark.parametrize("prefix", ["", "module.", "encoder.model."])
@pytest.mark.parametrize("system", UNREAD)
def test_systems_that_no_format_reads_are_named(tmp_path: Path, system: str, prefix: str) -> None:
    names = UNREAD[system]
    with pytest.raises(InputError) as caught:
        import_checkpoint(write_npz(tmp_path, {prefix + name: np.ones((2, 2, 1, 1), np.float32) for name in names}))
    message = str(caught.value)
    assert f"looks like a checkpoint of {system.strip()} (tensor {prefix}" in message
    assert "which is not read; expected one of ds2ta, nir" in message
    assert "\n" not in message
    told_by = names[0] if system == "Spike-driven Transformer V3" else names[1]
    assert f"(tensor {prefix}{told_by})" in message


@pytest.mark.parametrize("names", [(ENCODER.replace("1_1", "2"),), ("mask_token",), ("stage1.0.tssa.weight",)])
def test_a_part_of_the_names_of_a_system_tells_nothing(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="no known format found"):
        import_checkpoint(write_npz(tmp_path, {name: np.ones((2, 2), np.float32) for name in names}))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".safetensors", ".npz", ".h5", ".nir"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 broken", b"\x80\x02}q\x00(X"])
def test_files_that_are_no_checkpoints(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(EventsimError, match=r"file\.") as caught:
        import_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        import_checkpoint(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="not a regular file"):
        import_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    state = {name: np.ascontiguousarray(value) for name, value in spikformer_state("cifar").items()}
    save_file(state, tmp_path / "c.safetensors")
    write_npz(tmp_path, state)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name, value in state.items():
            file[name] = value
    for name in ("c.safetensors", "checkpoint.npz", "c.h5"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(InputError, match=name):
            import_checkpoint(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_pytorch_files(tmp_path: Path, share: float) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "c.pth"
    torch.save({name: torch.from_numpy(value) for name, value in spikformer_state("cifar").items()}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"c\.pth"):
        import_checkpoint(path)


class Bomb:
    """Runs code when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("container", ["pytorch", "bare pickle", "npz"])
def test_nothing_from_a_file_is_executed(tmp_path: Path, container: str) -> None:
    mark, path = tmp_path / "executed", tmp_path / "bomb.pth"
    if container == "npz":
        path = tmp_path / "bomb.npz"
        np.savez(path, weight=np.asarray([Bomb(mark)], dtype=object))
    else:
        torch = pytest.importorskip("torch")
        if container == "pytorch":
            torch.save({"weight": Bomb(mark)}, path)
        else:
            path.write_bytes(pickle.dumps({"weight": Bomb(mark)}, protocol=2))
    with pytest.raises(InputError, match=r"bomb\.") as caught:
        import_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_declared_sizes_are_not_believed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("weight", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024))
    with pytest.raises(InputError, match=r"dataset weight declares \d+ bytes"):
        import_checkpoint(tmp_path / "huge.h5")
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (tmp_path / "huge.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError, match=r"huge\.safetensors"):
        import_checkpoint(tmp_path / "huge.safetensors")
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(1).expand(1 << 40)}, tmp_path / "huge.pth")
    with pytest.raises(InputError, match="weight larger than its stored data"):
        import_checkpoint(tmp_path / "huge.pth")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"c\.pth: not a regular file"):
        import_checkpoint(tmp_path / "c.pth")


def test_archives_of_anything_but_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")
    with pytest.raises(InputError, match=r"entry notes\.txt is no array"):
        import_checkpoint(path)
    for size in (10**12, 10**30):  # more than the machine has; more than an index holds
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},), }}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        with pytest.raises(InputError, match=r"c\.npz: damaged"):
            import_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", bytes(1 << 27))
    with pytest.raises(InputError, match=r"c\.npz: 134217728 bytes unpacked found"):
        import_checkpoint(path)


@pytest.mark.filterwarnings("ignore")  # quantised tensors are deprecated
def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    torch.save({"block.0.weight": tensor}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"tensor block\.0\.weight of type torch\.qint8"):
        import_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bn_eps": -1}, r"layer patch_embed\.proj_bn: variance plus bn_eps of -0\.\d+ found"),
        ({"scale": 1e39}, r"option scale=1e\+39 found; expected a finite number, at most 3\.40282e\+38 \(float32\)"),
        ({"v_threshold": 1e-50}, r"option v_threshold=1e-50 found; expected 0, or a number that is not 0 in float32"),
        ({"tau": 1e39}, r"option tau=1e\+39 found; expected a finite number, at most"),
        ({"bn_eps": "-1e39"}, r"option bn_eps=-1e39 found; expected a finite number, at most"),
        ({"scale": 0}, r"layer block\.0\.attn: scale 0\.0 found"),
        ({"v_threshold": 1e39}, r"option v_threshold=1e\+39 found; expected a finite number, at most"),
        ({"width": 10**21}, r"layer input: output graded 2x32x10+ found; expected 1 to 2147483647 values"),
        ({"time_steps": 2.5}, r"option time_steps=2\.5 found; expected int"),
        ({"time_steps": True}, r"option time_steps=True found; expected int"),
    ],
)
def test_senseless_options_are_refused(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        import_checkpoint(write_npz(tmp_path, spikformer_state("dvs")), **{**SMALL, **options})


def test_weights_that_fold_to_infinity_are_refused(tmp_path: Path) -> None:
    state = spikformer_state("dvs")
    state["patch_embed.proj_bn.weight"][:] = 3e38
    state["patch_embed.proj_bn.running_var"][:] = 1e-12
    with pytest.raises(InputError, match=r"layer patch_embed\.proj_bn: folded weights beyond float32"):
        import_checkpoint(write_npz(tmp_path, state), **SMALL)


def test_a_network_of_no_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"layer head: output real 0 found"):
        import_checkpoint(write_npz(tmp_path, spikformer_state("dvs", classes=0)), **SMALL)


@pytest.mark.parametrize("name", ["c.npz", "c.pth"])
@pytest.mark.parametrize("version", [(b"\x93", 4), (b"\xff\x00", 6)])
def test_archives_with_damaged_directories_are_refused(tmp_path: Path, name: str, version: tuple[bytes, int]) -> None:
    """A name that is no text, and a version of ZIP that does not exist."""
    if name == "c.pth":
        pytest.importorskip("torch")
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\u00e9" * 4, "x")
    content = path.read_bytes()
    change, offset = version
    at = content.index(b"PK\x01\x02") + (46 if offset == 4 else offset)
    path.write_bytes(content[:at] + change + content[at + len(change) :])
    with pytest.raises(InputError, match=rf"{name}: damaged"):
        import_checkpoint(path)


def test_attributes_of_an_hdf5_file_are_metadata_of_any_type(tmp_path: Path) -> None:
    import h5py

    state = spikformer_state("dvs", dim=16, depth=1)
    attributes = {"heads": 2, "tau": 1.5, "strict": True, "flip_x": np.bool_(True), "reset": np.bytes_("subtract")}
    attributes |= {"v_threshold": np.array([0.75]), "height": np.int64(34), "width": 34, "time_steps": np.uint8(5)}
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name, tensor in state.items():
            file[name] = tensor
        file.attrs.update(attributes)
    network = import_checkpoint(tmp_path / "c.h5")
    found = {each.option: (each.value, each.source) for each in network.settings}
    expected = {"reset": "subtract", "v_threshold": 0.75}
    for name, value in (attributes | expected).items():
        assert found[name] == (value, "metadata")


def test_bfloat16_is_read(tmp_path: Path) -> None:
    torch, torch_save = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch").save_file
    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in spikformer_state("dvs").items()}
    short = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    sizes = {"height": "34", "width": "34", "time_steps": "2", "heads": "2"}
    torch_save(short, tmp_path / "short.safetensors", sizes)
    torch_save({name: each.float() for name, each in short.items()}, tmp_path / "long.safetensors", sizes)
    frames = np.random.default_rng(0).poisson(0.5, (2, 2, 34, 34)).astype(np.float32)
    results = [Simulator(import_checkpoint(tmp_path / f"{name}.safetensors")).run(frames) for name in ("short", "long")]
    np.testing.assert_array_equal(results[0].logits, results[1].logits)


def test_weights_are_named_by_a_text(tmp_path: Path) -> None:
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "c.safetensors")
    with pytest.raises(InputError, match="option weights=3 found; expected the name of an entry"):
        import_checkpoint(tmp_path / "c.safetensors", weights=3)
