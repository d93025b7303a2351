"""A checkpoint format of another package, as small as can be: one linear layer and neurons, named ``toy.*``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from eventsim.layers import LIF, Linear, MeanOverPositions, MeanOverTime, Readout
from eventsim.network import Network, NetworkBuilder
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser

NAMES = (r"toy\.(weight|bias|unused)", "tau")


@dataclass(frozen=True)
class Options:
    """As in our own formats: None takes the default, and says so."""

    height: int | None = None
    width: int | None = None
    input_kind: Literal["binary", "graded", "real"] | None = None
    reset: Literal["zero", "subtract"] | None = None
    v_threshold: float | None = None
    averaged: Literal["first", "last"] | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors by their names."""
    return len(checkpoint.matching(*NAMES)) if "toy.weight" in checkpoint.tensors else 0


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Read every tensor, and refuse others."""
    return compose(checkpoint, Chooser(checkpoint, options))


def compose(checkpoint: Checkpoint, choose: Chooser) -> Network:
    """Compose the network of what a chooser chooses."""
    weight = checkpoint.take("toy.weight", None, 2)
    tau = float(checkpoint.take("tau"))
    build = NetworkBuilder("toy")
    x = build.add("input", choose.input(2, 2, 2))
    linear = "toy", Linear(weight, checkpoint.take("toy.bias", len(weight)))
    parts = [("mean_over_positions", MeanOverPositions()), linear]
    for name, layer in parts if choose.way("averaged", "first") == "first" else parts[::-1]:
        x = build.add(name, layer, x)
    reset = cast(Literal["zero", "subtract"], choose("reset", "zero"))
    x = build.add("lif", LIF(v_threshold=choose("v_threshold", 1.0), reset=reset, tau=tau), x)
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), x))
    checkpoint.ignore(r"toy\.unused")
    checkpoint.finish()
    return build.build(3, tuple(checkpoint.settings))


def write(folder: Path) -> Path:
    """Write a checkpoint."""
    rng = np.random.default_rng(0)
    tensors = {"toy.weight": rng.normal(size=(3, 2)), "toy.bias": rng.normal(size=3), "toy.unused": np.ones(2)}
    np.savez(folder / "toy.npz", **tensors, tau=np.float64(2))
    return folder / "toy.npz"


IMPORTER = Importer("a toy", Options, signature, read)
