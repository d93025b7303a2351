"""Every checkpoint format of ours keeps the public contract, with small checkpoints of the PyTorch definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import sew_resnet_torch
import spikformer_zoo_torch
import spikingformer_torch
import torch_oracle as oracle
from safetensors.numpy import load_file, save_file
from state_dicts import STAGES, spikformer_state

from eventsim.importing import formats
from eventsim.testing.importers import Example, check_importer

F = np.float32
T = 4
BN = "*.num_batches_tracked"
SYNAPSES = {"fold_bn": False, "bn_eps": 1e-2}
SIZES = {"time_steps": 2, "height": 64, "width": 64, "input_kind": "binary"}
THRESHOLDS = {"v_threshold": 0.75, "attn_threshold": 0.25}
FIRING = {"reset": "subtract", "v_reset": 0.125, "strict": True}
WAYS = {"attention_order", "fold_bn"}
SPIKFORMER = {
    "heads": 4,
    "scale": 0.5,
    "tau": 4.0,
    "decay_input": False,
    **FIRING,
    "residual_op": "iand",
    "pools": "0110",
    "pool_order": "before_fire",
    "attention_order": "context_first",
    **SIZES,
    **THRESHOLDS,
    **SYNAPSES,
}


def put(folder: Path, model: Any, definition: Any, drop: Callable[[str], bool] = lambda name: False) -> Path:
    """Write the state dict of a PyTorch definition with its metadata, without some tensors."""
    path = oracle.export(model, folder, definition.metadata(model))
    save_file(
        {name: tensor for name, tensor in load_file(path).items() if not drop(name)}, path, definition.metadata(model)
    )
    return path


def spikformer(folder: Path, variant: str) -> Example:
    np.savez(folder / "c.npz", **spikformer_state(variant, dim=16))
    unused = (BN, "block.*.norm1.*", "block.*.norm2.*", "pos_embed", "norm.weight", "norm.bias")
    options = {"heads": 2, "time_steps": 3, "height": 16, "width": 16}
    optional = ["patch_embed.block1_conv.weight"] if variant == "first_release" else []
    return Example(folder / "c.npz", options, SPIKFORMER, ways=WAYS, optional=optional, unused=unused)


def learned_scales(folder: Path) -> Example:
    """One more tensor in each block, and one option less."""
    example = spikformer(folder, "dvs")
    scales = {f"block.{i}.attn.scale": np.float32(0.25 + i) for i in range(2)}
    np.savez(folder / "c.npz", **spikformer_state("dvs", dim=16), **scales)
    alternatives = {name: value for name, value in SPIKFORMER.items() if name != "scale"}
    return replace(example, alternatives=alternatives, told={"scale"})


def spikformer_v2(folder: Path, **reading: Any) -> Example:
    definition = oracle.example("spikformer_v2")
    model = definition.SpikformerV2(
        width=16,
        depth=2,
        heads=2,
        classes=5,
        in_channels=2,
        size=32,
        time_steps=T,
        reading=definition.Reading(**reading),
    )
    alternatives = SPIKFORMER | {"residual_op": "iand", "scs_residual": False}
    path = put(folder, oracle.make_lively(model, 0), definition)
    told = {"rename", "pools", "pool_order"}
    alternatives = {name: value for name, value in alternatives.items() if name not in told}
    return Example(path, alternatives=alternatives, told=told, ways=WAYS)


def ds2ta(folder: Path, kept: str, **reading: Any) -> Example:
    """Tables as they are, the numbers that they are made of, or both; or no tables."""
    definition = oracle.example("ds2ta")
    sizes = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    model = definition.DS2TA("dvs", **sizes, reading=definition.Reading(**reading))
    oracle.make_lively(model, 0)
    for module in model.modules():
        if isinstance(module, definition.NSAD):
            module.u.data.fill_(2.0)
    model.train().eval()  # writes the tables

    def drop(name: str) -> bool:
        return ".nsad." in name and (name.endswith(".table") == (kept == "numbers")) and kept != "both"

    alternatives = SPIKFORMER | {
        "tasa_decay": "constant",
        "tasa_output": "product",
        "tasa_form": "reaccumulate",
        "threshold_inclusive": True,
        "table_scores": "0..d-1",
    }
    told = {"nsad", "tasa"}
    told |= {"heads", "attention_order"} if model.reading.nsad else set()
    told |= set() if kept == "numbers" else {"threshold_inclusive"}
    told |= set() if kept == "numbers" or model.reading.table_scores == "1..d" else {"table_scores"}
    told |= set() if model.reading.tasa else {"tasa_decay", "tasa_form"}
    told |= set() if model.reading.tasa_output == "values" else {"tasa_output"}
    told |= {"tau"} if model.reading.learned_tau else set()
    optional = {
        "none": (),
        "table": (),
        "numbers": ("*.nsad.c1", "*.nsad.k3"),
        "both": ("*.nsad.c1", "*.nsad.k3", "*.nsad.table", "*.nsad.u"),
    }[kept]
    return Example(
        put(folder, model, definition, drop),
        alternatives={name: value for name, value in alternatives.items() if name not in told},
        told=told,
        ways=(WAYS | {"tasa_form"}) - told,
        optional=(
            *optional,
            *(["*.tasa.*.exponent"] if model.reading.tasa else []),
            *(["*_lif*.w"] if model.reading.learned_tau else []),
        ),
    )


def spikeformer(folder: Path, **sizes: Any) -> Example:
    definition = oracle.example("spikeformer")
    small = {"kernel": 3, "stages": 2, "blocks_per_stage": 2, "width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2}
    small |= {"neuron": "plif", "classes": 5, "in_channels": 2, "size": (8, 8), "time_steps": T}
    model = definition.Spikeformer(definition.Configuration(**small | sizes)).eval()
    for embedding in (model.pos_embed, model.time_embed):
        oracle.torch.nn.init.normal_(embedding)
    neuron = "plif" if sizes else "pliaf"
    other = {"heads": 4, **SIZES, "height": 16, "width": 16, "neuron": neuron, "stride": 1, "decay_input": False}
    other |= {"v_threshold": 0.75, **FIRING, **SYNAPSES, "ln_eps": 1e-2}
    told = {"residual_op", *(["v_reset"] if sizes else [])}  # counts are no spikes, potentials are measured from 0
    return Example(
        put(folder, model, definition),
        alternatives={name: value for name, value in other.items() if name not in told},
        told=told,
        ways={"fold_bn"},
        optional=("*.shortcut.1.0.0.weight",),
        unused=(BN,),
    )


def stformer(folder: Path, **reading: Any) -> Example:
    """Queries are of Y, so that keys and values can be of X or Y."""
    definition = oracle.example("stformer")
    given = definition.Reading(**{"pools": "0110", **reading})
    has_sga = given.convs > 0 and given.attention == "sga"
    if has_sga:
        given = replace(given, query="y")
    model = definition.STFormer(
        width=16, depth=2, heads=2, classes=5, in_channels=2, size=8, time_steps=T, reading=given
    )
    words = {"temporal_padding": "causal", "time_split": "tiled", "rpe": "after", "rpe_residual": "none"}
    words |= {"query": "x", "key": "y", "value": "x", "head_lif": True}
    words |= {"mlp_residual": "membrane", "attn_residual": "none", "later_blocks": "ssa"}
    path = put(folder, oracle.make_lively(model, 0), definition)
    norms = {f"block.{i}.norm{j}.{part}": np.ones(16, F) for i in (0, 1) for j in (1, 2) for part in ("weight", "bias")}
    # the metadata that name the query alone are older ones
    stated = {name: value for name, value in definition.metadata(model).items() if name != "query"}
    save_file(load_file(path) | norms, path, stated)  # the baseline has norms and never uses them
    told = {"attention"}
    told |= {"later_blocks", "rpe"} if given.core == "per_block" else set()
    told |= {"time_split"} if given.time_split == "concatenated" else set()
    told |= set() if has_sga else {"query", "key", "value", "later_blocks"}
    told |= set() if given.convs else {"temporal_padding", "time_split", "rpe"}
    alternatives = SPIKFORMER | words | {"pools": "0011"}
    del (
        alternatives["residual_op"],
        alternatives["pool_order"],
    )  # shortcuts of potentials
    if given.time_split == "concatenated":
        alternatives["time_steps"] = 3
    return Example(
        path,
        options={"query": "y"} if has_sga else {},
        alternatives={name: value for name, value in alternatives.items() if name not in told},
        told=told,
        ways=WAYS,
        optional=("*temporal_core.conv.*.weight",) if given.convs else (),
        unused=(BN, "block.*.norm1.*", "block.*.norm2.*"),
    )


def spikingformer(folder: Path, names: str) -> Example:
    definition = spikingformer_torch
    reading = definition.Reading(names=names)
    sizes = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    path = put(folder, oracle.make_lively(definition.Spikingformer(**sizes, reading=reading), 0), definition)
    alternatives = {name: value for name, value in SPIKFORMER.items() if name not in ("residual_op", "pool_order")} | {
        "variant": "cml",
        "pools": "0110",
    }
    told = set()
    if names == "block":  # the names tell it
        told.add("variant")
        del alternatives["variant"]
    return Example(path, {}, alternatives, told, WAYS, unused=(BN, "block.*.norm1.*", "block.*.norm2.*"))


def spikformer_zoo(folder: Path) -> Example:
    definition = spikformer_zoo_torch
    sizes = {"width": 16, "depth": 1, "heads": 2, "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    model = oracle.make_lively(definition.Spikformer(**sizes, reading=definition.Reading()), 0)
    alternatives = {
        name: value for name, value in SPIKFORMER.items() if name not in ("residual_op", "pools", "pool_order")
    }
    return Example(put(folder, model, definition), {}, alternatives | {"attn_tau": 3.0}, ways=WAYS)


def sew_resnet(folder: Path, source: str, **reading: Any) -> Example:
    """As the authors name it, where sizes tell the kind of block; as torchvision does, where the metadata say it."""
    sizes = {"widths": (4, 8), "blocks": (1, 1), "classes": 5, "in_channels": 2, "size": 16, "time_steps": T}
    kind = sew_resnet_torch.ResNet
    if source == "zoo":
        kind, sizes = sew_resnet_torch.Zoo, sizes | {"widths": (2, 2, 4, 4), "blocks": (1, 1, 1, 1)}
    model = oracle.make_lively(kind(**sizes, reading=sew_resnet_torch.Reading(**reading)), 0)
    path = sew_resnet_torch.export(model, folder)
    alternatives = {**SIZES, **FIRING, **SYNAPSES, "v_threshold": 0.75, "residual_op": "and", "neuron": "lif"}
    alternatives |= {"tau": 4.0, "decay_input": False}
    told = {"block"}
    if reading.get("neuron") == "lif":
        alternatives["neuron"] = "if"
        told.add("neuron")  # without a leak the time constant would be refused
    elif reading.get("neuron") == "plif":
        told |= {"neuron", "tau"}
    else:
        told |= {"tau", "decay_input"}
    if reading.get("block") == "spiking_resnet":
        told.add("residual_op")
    return Example(
        path,
        alternatives={name: value for name, value in alternatives.items() if name not in told},
        told=told,
        ways={"fold_bn"},
    )


def sew_resnet_dvs(folder: Path, block: str) -> Example:
    definition = sew_resnet_torch
    sizes = {"widths": (4, 8), "classes": 5, "in_channels": 2, "size": 16, "time_steps": T, "pools": "10"}
    model = definition.EventNet(**sizes, reading=definition.EventReading(block=block))
    path = oracle.export(oracle.make_lively(model, 0), folder, definition.event_metadata(model))
    alternatives = {"time_steps": 2, "input_kind": "binary", **FIRING, **SYNAPSES, "v_threshold": 0.75}
    alternatives["decay_input"] = False
    alternatives |= {"residual_op": "and"} if block == "sew" else {}
    told = {"height", "width", "pool", "block", *({"residual_op"} - alternatives.keys())}  # the head fixes the size
    return Example(path, alternatives=alternatives, told=told, ways={"fold_bn"}, optional=())


STAA_SNN: dict[str, tuple[str, dict[str, Any]]] = {
    "three": ("conv1.2", {"widths": (4, 8), "blocks": (1, 2), "size": 16}),
    "one": ("relu", {"widths": (4, 8, 12), "blocks": (2, 1, 1), "size": 8}),
    "imagenet": ("relu", {"widths": (4, 8), "blocks": (1, 1), "size": 32}),
    "vgg": ("features.2", {"widths": ((4, 6), (8,), (8,)), "size": 16}),
}


def staa_snn(folder: Path, backbone: str, **reading: Any) -> Example:
    definition = oracle.example("staa_snn")
    first, sizes = STAA_SNN[backbone]
    options = {"classes": 5, "in_channels": 2, "time_steps": T, **sizes}
    options["reading"] = definition.Reading(**{"sa_ratio": 2, "pe_axes": ("time", "channel"), **reading})
    model = definition.VGG(**options) if backbone == "vgg" else definition.ResNet(backbone, **options)
    return Example(
        put(folder, oracle.make_lively(model, 0), definition),
        alternatives=staa_snn_alternatives(options["reading"]) | ({"last_pool": False} if backbone == "vgg" else {}),
        told=staa_snn_told(options["reading"]) | (set() if backbone == "vgg" else {"last_pool"}),
        ways={"fold_bn"},
        optional=(
            *([f"{first}.gc.norm.weight"] if "gc" in options["reading"].modules else []),
            *(["features.*.pool.weight"] if backbone == "vgg" else []),
        ),
    )


def staa_snn_alternatives(reading: Any) -> dict[str, Any]:
    """Of what the network has; the reset value only where no M multiplies the potential."""
    values = {**SIZES, "v_threshold": 0.75, "reset": "subtract", "strict": True, **SYNAPSES}
    if reading.neurons == "plain":
        return values | {"tau": 4.0, "decay_input": True, "v_reset": 0.125}
    values |= {} if "pe" in reading.modules else {"pe_fixed": "time"}
    values |= {"pe_at": "potential"} if "pe" in reading.modules and reading.pe_at != "both" else {}
    values |= {"gc_norm": "sigmoid", "gc_combine": "gated", "ln_eps": 1e-2} if "gc" in reading.modules else {}
    return values | ({"sa_inputs": "features", "sa_scale": 1.0} if "sa" in reading.modules else {})


def staa_snn_told(reading: Any) -> set[str]:
    """What tensors say, and what has no meaning in this network."""
    named = {"tau", "decay_input", "v_reset", "gc_at", "pe_at", "pe_fixed", "gc_norm", "gc_combine", "ln_eps"}
    return (named | {"sa_mode", "sa_gates", "sa_inputs", "sa_scale"}) - staa_snn_alternatives(reading).keys()


def nir_graph(folder: Path) -> Example:
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.uniform(0.25, 1, shape).astype(F)

    nodes = {
        "input": nir.Input(np.array([2, 6, 5])),
        "conv": nir.Conv2d((6, 5), drawn(4, 2, 3, 3), 1, 0, 1, 1, drawn(4)),
        "lif": nir.LIF(*(drawn(4, 4, 3) for _ in range(5))),
        "pool": nir.SumPool2d(np.array([2, 1]), np.array([2, 1]), np.array([0, 0])),
        "flatten": nir.Flatten(np.array([4, 2, 3]), 0, -1),
        "fc": nir.Affine(drawn(5, 24), drawn(5)),
        "if": nir.IF(drawn(5), drawn(5), drawn(5)),
        "output": nir.Output(np.array([5])),
    }
    names = list(nodes)
    nir.write(folder / "c.nir", nir.NIRGraph(nodes, list(pairwise(names)), type_check=False))
    return Example(
        folder / "c.nir",
        alternatives={
            "dt": 2.0**-5,
            "reset": "subtract",
            "strict": False,
            "start": "zero",
            "v_min": "0.125",
            "decay": "multiply",
            "input_kind": "binary",
            "readout": "last",
        },
        # no framework writes these numbers, thresholds may be negative, and there is no feedback and one output
        told={"framework", "multiple_spikes", "reset_delay", "decay_input", "cycle_delay", "output"},
        optional=("*.v_reset", "*.input_shape", "*.input_type", "node.nodes.output.shape"),
        unused=(),
        named=lambda name: [part for part in name.split(".") if part not in ("node", "nodes")],
    )


EXAMPLES: dict[str, dict[str, Callable[[Path], Example]]] = {
    "ds2ta": {
        "numbers": lambda folder: ds2ta(folder, "numbers"),
        "table": lambda folder: ds2ta(folder, "table"),
        "both, learned time constant": lambda folder: ds2ta(folder, "both", learned_tau=True),
        "NSAD alone, entries from 1": lambda folder: ds2ta(folder, "table", tasa=False, table_scores="1..d"),
        "TASA alone, of v": lambda folder: ds2ta(folder, "none", nsad=False, tasa_output="values"),
        "windows of each head, biases": lambda folder: ds2ta(
            folder, "table", window=(1, 3), exponent=(2, 1), tasa_output="values", qkv_bias=True
        ),
    },
    "nir": {"graph": nir_graph},
    "sew_resnet": {
        "authors": lambda folder: sew_resnet(folder, "authors"),
        "authors, leaky": lambda folder: sew_resnet(folder, "authors", neuron="lif"),
        "spiking resnet, learned time constants": lambda folder: sew_resnet(
            folder, "authors", block="spiking_resnet", neuron="plif"
        ),
        "torchvision's names": lambda folder: sew_resnet(folder, "zoo"),
    },
    "sew_resnet_dvs": {
        block: lambda folder, block=block: sew_resnet_dvs(folder, block) for block in ("sew", "spiking_resnet")
    },
    "spikeformer": {
        "events": spikeformer,
        "images": lambda folder: spikeformer(folder, neuron="pliaf", in_channels=3),
    },
    "spikformer": {
        **{variant: lambda folder, variant=variant: spikformer(folder, variant) for variant in STAGES},
        "learned scales": learned_scales,
    },
    "spikformer_v2": {
        "add": spikformer_v2,
        "biases in the stem": lambda folder: spikformer_v2(folder, stem_bias="conv2"),
    },
    "spikformer_zoo": {"one convolution for three": spikformer_zoo},
    "spikingformer": {names: lambda folder, names=names: spikingformer(folder, names) for names in ("block", "proj")},
    "staa_snn": {
        **{backbone: lambda folder, backbone=backbone: staa_snn(folder, backbone) for backbone in STAA_SNN},
        "gates of each step": lambda folder: staa_snn(folder, "three", sa_per_step=True),
        "scalar gates, encodings at both ports": lambda folder: staa_snn(
            folder, "one", sa_gates="scalar", modules=("pe", "sa"), pe_at="both"
        ),
        "context on the input": lambda folder: staa_snn(folder, "three", gc_at="input", pe_axes=("time",)),
        "context alone": lambda folder: staa_snn(folder, "one", modules=("gc",)),
        "plain": lambda folder: staa_snn(folder, "three", neurons="plain", modules=()),
        "plain VGG": lambda folder: staa_snn(folder, "vgg", neurons="plain", modules=()),
    },
    "stformer": {
        "core once": stformer,
        "core per block": lambda folder: stformer(folder, core="per_block"),
        "four convolutions": lambda folder: stformer(folder, convs=4),
        "parts in time": lambda folder: stformer(folder, time_split="concatenated"),
        "without SGA": lambda folder: stformer(folder, attention="ssa", convs=4),
        "without temporal core": lambda folder: stformer(folder, convs=0),
    },
}


def test_every_format_has_an_example() -> None:
    assert set(EXAMPLES) == set(formats())


@pytest.mark.parametrize(
    ("name", "example"), [(name, example) for name, examples in EXAMPLES.items() for example in examples]
)
def test_formats_keep_the_contract(tmp_path: Path, name: str, example: str) -> None:
    check_importer(formats()[name], [EXAMPLES[name][example](tmp_path)])
