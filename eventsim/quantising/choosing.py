"""Which layers of a network become integers, and why the others stay float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eventsim.kernels.fire_integer import LEAK_BITS
from eventsim.layers import (
    IF,
    LIF,
    PLIF,
    AdaptiveMaxPool2d,
    Conv2d,
    Conv3d,
    Layer,
    Linear,
    MaxPool2d,
    Residual,
    WindowedLinear,
)
from eventsim.layers.neurons.decay_lif import DecayLIF
from eventsim.layers.synapses.integer_weights import LARGEST_SUM, LARGEST_WEIGHT
from eventsim.network import Network
from eventsim.quantising.bounds import ATTENTIONS

SYNAPSES = (Conv2d, Conv3d, Linear, WindowedLinear)
NEURONS = (IF, LIF, PLIF, DecayLIF)
PASSING = (MaxPool2d, AdaptiveMaxPool2d)
"""Layers that pick one of the sums of a channel, which are of one scale and one bias."""
JOINING = (Residual,)
"""Layers that add sums to others, or to spikes, where all are counted in one unit."""
WORKING = ("convolution", "linear", "neurons", "attention", "scaling")
"""Roles of layers of which it is told that they stay float32."""
MOST_HALVINGS = 16
"""Over a window: each takes a bit of the sums."""
STEEPEST = 1.0
"""A unit of sums beside spikes is at most a spike."""


@dataclass(frozen=True)
class Choice:
    """What becomes of the layers of a network.

    Attributes
    ----------
    integer : tuple of str
        Layers that become integers, in order.
    float32 : mapping of str to str
        Layers that compute and stay as they are, and why.
    """

    integer: tuple[str, ...]
    float32: Mapping[str, str]


def choose_layers(network: Network, bounds: Mapping[str, int | None]) -> Choice:
    """Return which layers become integers: sums that integer neurons alone hear, and the neurons that hear them."""
    heard_by: dict[str, list[str]] = {name: [] for name in network.layers}
    delayed = {edge.source for edge in network.edges if edge.delay}
    for edge in network.edges:
        heard_by[edge.source].append(edge.target)
    why = {name: _reason(network, name, bounds) for name in network.order}
    changed = True
    while changed:
        changed = False
        for name in network.order:
            if why[name] is None and (told := _obstacle(network, name, heard_by[name], why, delayed)):
                why[name], changed = told, True
    integer = tuple(name for name in network.order if why[name] is None)
    float32 = {
        name: reason
        for name, reason in why.items()
        if reason is not None and (network.layers[name].role in WORKING or network.layers[name].parameters)
    }
    return Choice(integer, float32)


def _reason(network: Network, name: str, bounds: Mapping[str, int | None]) -> str | None:
    """Return what in a layer itself keeps it from integers."""
    layer, kinds = network.layers[name], [kind.kind for kind in network.input_types(name)]
    if type(layer) in SYNAPSES:
        if isinstance(layer, WindowedLinear) and (times := _halvings(layer)) > MOST_HALVINGS:
            return f"its oldest inputs are halved {times} times"
        return "its input is real-valued" if "real" in kinds else None
    if type(layer) in NEURONS:
        return _reason_of_neurons(layer)
    if type(layer) in ATTENTIONS:
        largest = bounds[name]
        if largest is None:
            return "nothing bounds its input"
        return None if largest <= LARGEST_SUM else f"its sums may reach {largest}, beyond {LARGEST_SUM}"
    if type(layer) in PASSING and kinds == ["real"]:
        return None
    if isinstance(layer, Residual) and layer.mode == "add" and "real" in kinds:
        unbounded = [bounds[source] is None for source, kind in zip(network.sources[name], kinds, strict=True)]
        beside = any(none and kind != "real" for none, kind in zip(unbounded, kinds, strict=True))
        return "nothing bounds what is added to its sums" if beside else None
    return f"{type(layer).__name__} has no integer form"


def _halvings(layer: WindowedLinear) -> int:
    """Return how often the oldest input in the window of any output is halved."""
    smallest = min(float(layer.attenuation(age).min()) for age in range(layer.longest))
    return round(-np.log2(smallest)) if smallest > 0 else 2 * MOST_HALVINGS


def _reason_of_neurons(layer: Any) -> str | None:
    if layer.reset not in ("zero", "subtract"):
        return f"its reset is {layer.reset}"
    if layer.multiple_spikes or layer.emits != "spikes":
        return "it emits more than one spike in a step, or its potential"
    if np.any(layer.start) or layer.v_min is not None:
        return "its potential has a start or a floor"
    if (np.asarray(layer.v_threshold) <= 0).any():
        return "a threshold is not above 0"
    share = leak_share(layer)
    if (share < 0).any() or (share > 1).any():
        return "its potential grows by itself"
    if getattr(layer, "decay_input", False) and (np.rint(share * (1 << LEAK_BITS)) < 1).any():
        return f"a time constant is beyond {2 << LEAK_BITS} steps"
    return None


def leak_share(layer: Layer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the share of a potential that leaks in a step, of neurons that become integers."""
    if isinstance(layer, LIF):
        return np.asarray(1 / np.asarray(layer.tau, np.float64))
    if isinstance(layer, PLIF):
        return np.asarray(layer.share, np.float64)
    if isinstance(layer, DecayLIF):
        return np.asarray(1 - np.asarray(layer.decay, np.float64))
    return np.zeros(())


def _obstacle(
    network: Network, name: str, heard_by: list[str], why: Mapping[str, str | None], delayed: set[str]
) -> str | None:
    """Return what around a layer keeps it from integers."""
    layer = network.layers[name]
    if type(layer) not in SYNAPSES + ATTENTIONS:
        for source, kind in zip(network.sources[name], network.input_types(name), strict=True):
            if isinstance(layer, JOINING) and kind.kind != "real":
                continue
            if type(network.layers[source]) in NEURONS or why[source] is not None:
                return f"its input comes from {source}, which emits no integer sums"
            if isinstance(layer, JOINING) and (alone := _obstacle_to_a_unit(network, name, source)):
                return alone
        if type(layer) in NEURONS:
            return None
    if name in delayed:
        return "its sums wait on a delayed edge"
    for target in heard_by:
        kind_of = type(network.layers[target])
        if kind_of not in NEURONS + PASSING + JOINING or why[target] is not None:
            return f"its sums go to {target}, which takes no integer sums"
    return None


def _obstacle_to_a_unit(network: Network, name: str, source: str) -> str | None:
    """Return what keeps sums that come from a layer from being counted in the unit of others."""
    layer: Any = network.layers[source]
    if type(layer) in ATTENTIONS:
        return f"the sums of {source} have a unit of their own"
    if type(layer) in PASSING + JOINING:
        found = (_obstacle_to_a_unit(network, name, each) for each in network.sources[source])
        return next((told for told in found if told), None) if type(layer) in PASSING else None
    beside = any(kind.kind != "real" for kind in network.input_types(name))
    if beside and np.abs(layer.weight).max(initial=0) / LARGEST_WEIGHT > STEEPEST:
        return f"the weights of {source} are too large for a unit of which a spike has several"
    return None
