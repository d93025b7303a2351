"""Average pools of spikes and small integers, as sums whose number of values is in the weights behind them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from eventsim.layers import AvgPool2d, Layer, SumPool2d
from eventsim.network import Network
from eventsim.quantising.choosing import SYNAPSES


def averages(network: Network) -> dict[str, list[str]]:
    """Return the average pools that can be sums, and the synapses behind each, which alone hear it."""
    found: dict[str, list[str]] = {}
    for name, layer in network.layers.items():
        if type(layer) is not AvgPool2d or layer.ceil_mode or (any(layer.padding) and not layer.count_include_pad):
            continue
        heard_by = [edge.target for edge in network.edges if edge.source == name]
        kinds = {kind.kind for kind in network.input_types(name)}
        if "real" not in kinds and heard_by and all(type(network.layers[each]) in SYNAPSES for each in heard_by):
            found[name] = heard_by
    return found


def with_sums(network: Network, pools: Collection[str]) -> Network:
    """Return the network with sums in place of some of its `averages`, and weights divided by their windows."""
    changed: dict[str, Layer] = {}
    for name, heard_by in averages(network).items():
        pool: Any = network.layers[name]
        if name not in pools:
            continue
        changed[name] = SumPool2d(pool.kernel_size, pool.stride, pool.padding)
        for each in heard_by:
            layer: Any = network.layers[each]
            changed[each] = replace(layer, weight=layer.weight / np.float32(prod(pool.kernel_size)))
    return replace(network, layers={name: changed.get(name, layer) for name, layer in network.layers.items()})
