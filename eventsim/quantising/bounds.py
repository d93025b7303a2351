"""The largest value of every signal of integers, whatever arrives: what the widths of sums are proven from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from eventsim.layers import (
    AdaptiveMaxPool2d,
    Concat,
    CropOverTime,
    DelayEach,
    Flatten,
    Gate,
    IntegerActivation,
    JoinOverTime,
    Layer,
    MaxPool2d,
    Rearrange,
    Reshape,
    Residual,
    SelectChannels,
    SliceOverTime,
    SpikingAttention,
    SumOverChannels,
    SumOverPositions,
    SumPool2d,
    TableAttention,
    TileOverTime,
)
from eventsim.network import Network
from eventsim.signals import SignalType

Given = tuple[int, ...]
Types = tuple[SignalType, ...]

MOVING = (
    AdaptiveMaxPool2d,
    Concat,
    CropOverTime,
    DelayEach,
    Flatten,
    JoinOverTime,
    MaxPool2d,
    Rearrange,
    Reshape,
    SelectChannels,
    SliceOverTime,
    TileOverTime,
)
"""Layers that emit values that arrived, or 0."""


def _attention(layer: Any, given: Given, types: Types) -> int:
    q, k, _ = types
    return prod(given) * (q.channels // int(layer.heads)) * k.positions


def _table(layer: Any, given: Given, types: Types) -> int:
    return int(np.abs(layer.table.astype(np.int64)).max()) * types[1].positions


GROWING: dict[type[Layer], Callable[[Any, Given, Types], int]] = {
    Gate: lambda layer, given, types: prod(given),
    IntegerActivation: lambda layer, given, types: int(layer.maximum),
    Residual: lambda layer, given, types: sum(given),
    SpikingAttention: _attention,
    SumOverChannels: lambda layer, given, types: given[0] * types[0].channels // layer.groups,
    SumOverPositions: lambda layer, given, types: given[0] * types[0].positions,
    SumPool2d: lambda layer, given, types: given[0] * prod(layer.kernel_size),
    TableAttention: _table,
}
"""How large values become; of the two attentions, before their scale."""

ATTENTIONS = (SpikingAttention, TableAttention)
"""Layers that emit integers times one number."""


def largest_values(network: Network) -> Mapping[str, int | None]:
    """Return the largest magnitude that each layer can emit, in integers; None where nothing bounds it, or it is real.

    Spikes are 1. Attentions count in units of their scale.
    """
    bounds: dict[str, int | None] = {}
    for name in network.order:
        layer, emitted = network.layers[name], network.types[name]
        types = network.input_types(name)
        # what is heard over a delay may come later in the order
        given = [
            1 if kind.kind == "binary" else bounds.get(source)
            for source, kind in zip(network.sources[name], types, strict=True)
        ]
        if emitted.kind == "binary":
            bounds[name] = 1
        elif emitted.kind == "graded" or isinstance(layer, ATTENTIONS):
            bounds[name] = _largest(layer, given, types)
        else:
            bounds[name] = None
    return bounds


def _largest(layer: Layer, given: list[int | None], types: Types) -> int | None:
    known = tuple(value for value in given if value is not None)
    if isinstance(layer, IntegerActivation):
        known = tuple(0 for _ in given)  # whatever it is given
    if len(known) < len(given) or not given:
        return None
    if isinstance(layer, MOVING):
        return max(known)
    rule = GROWING.get(type(layer))
    return None if rule is None else rule(layer, known, types)
