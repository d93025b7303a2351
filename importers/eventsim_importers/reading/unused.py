"""Tensors that no forward pass reads, known by their names."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

STATE = re.compile(r"(?P<module>(?:.*\.)?)[vh]")
"""What neurons of SpikingJelly remember of their last input."""
BESIDE_STATE = re.compile(r"[vhw]|surrogate_function\..*")
"""All that such a neuron may hold; a module that holds more is another, whose ``v`` may be a weight."""
RUNNING = re.compile(r"(.*\.)?(running_mean|running_var)")


@dataclass(frozen=True)
class Unused:
    """A kind of tensors that is known to be unused.

    Attributes
    ----------
    pattern : str
        As `ignore` would name them.
    names : regular expression
    why : str
    """

    pattern: str
    names: re.Pattern[str]
    why: str


KINDS = (
    Unused("*surrogate_function.*", re.compile(r"(.*\.)?surrogate_function\..*"), "surrogates act in training only"),
    Unused("*total_[op]*", re.compile(r"(.*\.)?total_(ops|params)"), "counters of a profiler"),
    Unused("*num_batches_tracked", re.compile(r"(.*\.)?num_batches_tracked"), "counters of batch normalisation"),
    Unused("*n_averaged", re.compile(r"(.*\.)?n_averaged"), "the counter of an averaged model"),
    Unused("*.[vh]", STATE, "membrane potentials of the last input, which a run begins without"),
)
LOSS = Unused(
    "*criterion.*", re.compile(r"(.*\.)?(criterion|loss|loss_fn|loss_function)\..*"), "a loss acts in training only"
)

DECODER = Unused(
    "mask_token,decoder_*",
    re.compile(r"(.*\.)?(mask_token|decoder_.*)"),
    "mask token and decoder of a masked pre-training",
)
"""Where there is a mask token."""


def unused_in(names: Collection[str], among: Collection[str]) -> dict[Unused, list[str]]:
    """Return those of some names that are known to be unused, by kind; `among` are all names of the checkpoint."""
    found: dict[Unused, list[str]] = {}
    others = {name for name in among if not _beside_state(name)}
    masked = any(name.rpartition(".")[2] == "mask_token" for name in among)
    for name in names:
        for kind in (*KINDS, LOSS, *([DECODER] if masked else [])):
            if kind.names.fullmatch(name) and (kind.names is not STATE or not _holds_more(name, others)):
                found.setdefault(kind, []).append(name)
                break
    return found


def is_buffer(name: str) -> bool:
    """Tell whether a tensor is one that PyTorch does not call a parameter, as far as names tell."""
    return bool(RUNNING.fullmatch(name)) or any(kind.names.fullmatch(name) for kind in KINDS)


def _beside_state(name: str) -> bool:
    """Tell whether a tensor is one that a neuron may hold."""
    head, _, last = name.rpartition(".")
    return bool(BESIDE_STATE.fullmatch(last)) or "surrogate_function" in head.split(".")


def _holds_more(name: str, others: Collection[str]) -> bool:
    """Tell whether the module of a tensor holds what no neuron does."""
    module = name.rpartition(".")[0]
    return not module or any(other.startswith(f"{module}.") for other in others)
