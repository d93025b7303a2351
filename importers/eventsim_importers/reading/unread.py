"""Systems that people bring and no format reads, told by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Unread:
    """A system, and what its checkpoints hold.

    Attributes
    ----------
    system : str
        As its authors call it.
    names : tuple of str
        Regular expressions; a checkpoint of it has a name for each, maybe behind a prefix.
    """

    system: str
    names: tuple[str, ...]


SYSTEMS = (
    Unread("Spike-driven Transformer", (r"block\.\d+\.attn\.talking_heads\.weight",)),
    Unread(
        "Spike-driven Transformer V2 (Meta-SpikeFormer)",
        (r"block3\.\d+\.attn\.q_conv\.0\.body\..*", r"downsample1_1\.encode_conv\.weight"),
    ),
    Unread("Spike-driven Transformer V3", (r"downsample1_1\.encode_conv\.weight",)),  # V2's names without its body
    Unread("QKFormer", (r"stage1\.\d+\.(tssa|attn|ssa)\..*", r"patch_embed1\.proj_conv\.weight")),
    Unread("a masked autoencoder whose encoder is of no known format", (r"mask_token", r"decoder_.*")),
    Unread("ResNet with normalised membrane potentials (MPBN)", (r"layer1\.0\.conv1\.pool\.weight",)),
    Unread("a vision transformer without spikes", (r"blocks\.0\.attn\.qkv\.weight", r"cls_token")),
)
"""The first that fits counts."""


def system_of(names: Iterable[str]) -> tuple[str, str] | None:
    """Return which of these systems a checkpoint is of, and a tensor that tells; None if it looks like no one's."""
    names = list(names)
    for each in SYSTEMS:
        told = [_first(pattern, names) for pattern in each.names]
        if told[0] is not None and None not in told:
            return each.system, told[0]
    return None


def _first(pattern: str, names: Iterable[str]) -> str | None:
    """Return the first name that ends as a pattern says, from its beginning or behind a dot."""
    whole = re.compile(rf"(?:.*\.)?{pattern}")
    return next((name for name in names if whole.fullmatch(name)), None)
