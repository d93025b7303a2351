"""From a network in float32 to one in integers, where its layers allow it.

`bounds` says how large every signal can become, `choosing` which layers become integers, `rounding` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import tee
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError, LayerError
from eventsim.layers import Layer
from eventsim.network import Network
from eventsim.quantising.averaging import averages, with_sums
from eventsim.quantising.bounds import ATTENTIONS, largest_values
from eventsim.quantising.choosing import JOINING, NEURONS, PASSING, SYNAPSES, Choice, choose_layers
from eventsim.quantising.rounding import (
    Scales,
    asked_by,
    check_options,
    common_unit,
    integer_attention,
    integer_join,
    integer_neurons,
    integer_synapses,
    unit_of,
)
from eventsim.settings import Setting
from eventsim.simulator import Simulator

__all__ = ["quantise"]

INTEGER, FLOAT32 = "integer", "float32"
"""Options of the settings that say what a network was quantised with, and what stays as it was."""


def quantise(
    network: Network,
    samples: Iterable[npt.ArrayLike],
    time_steps: int | None = None,
    *,
    scales: Scales = "exact",
    fraction: int = 12,
    on_progress: Callable[[int], None] | None = None,
) -> Network:
    """Return a network of integers: int8 weights, sums of a proven width, fixed-point potentials.

    Convolutions, linear layers and attentions on spikes or small integers become integers where neurons, or pools
    before them, are all that hears them; so do these neurons. Everything else stays float32, which the settings of the
    network say, by layer and reason. docs/integer.md says what is rounded and how widths are proven.

    Parameters
    ----------
    network : Network
    samples : iterable of arrays
        Frames or images as `Simulator.run` takes them, of the training data. Nothing is fitted to them: every layer
        that becomes an integer must fire on them, and the integer network must take them.
    time_steps : int, optional
        For images: how often each is shown; default is the network's.
    scales : {"exact", "power_of_two"}
        Of weights: the largest weight of each output channel over 127, or the next power of two.
    fraction : int
        Bits behind the point of potentials, 0 to 16; fewer where sums need the room.
    on_progress : callable, optional
        Called after each sample with the number done.

    Raises
    ------
    InputError
        If no layer can become an integer, the sums of a layer fit no width, no sample was given, or one layer never
        fires; one line that names the layer.
    """
    check_options(scales, fraction)
    means = averages(network)
    summed = with_sums(network, means)
    kept = choose_layers(summed, largest_values(summed)).integer  # a mean whose synapses stay float32 stays a mean
    network = with_sums(network, [name for name, heard_by in means.items() if set(heard_by) <= set(kept)])
    bounds = largest_values(network)
    choice = choose_layers(network, bounds)
    if not choice.integer:
        name, reason = next(iter(choice.float32.items()), ("readout", "there is nothing to quantise"))
        raise InputError(f"network {network.name}: no layer that becomes an integer found ({name}: {reason})")
    made = _made(network, choice, bounds, scales, fraction)
    integer = replace(network, layers={name: made.get(name, layer) for name, layer in network.layers.items()})
    seen = _calibrate(network, integer, choice, samples, time_steps, on_progress)
    count = sum(type(network.layers[name]) not in PASSING + JOINING for name in choice.integer)
    note = f"{count} layers, {scales} scales, up to {fraction} bits behind the point, checked on {seen} samples"
    settings = [Setting(INTEGER, "int8", "option", note)]
    for reason in dict.fromkeys(choice.float32.values()):
        names = tuple(name for name, told in choice.float32.items() if told == reason)
        settings.append(Setting(FLOAT32, names, "inferred", reason))
    return integer.with_settings(*settings).validate()


def _made(
    network: Network, choice: Choice, bounds: Mapping[str, int | None], scales: Scales, fraction: int
) -> dict[str, Layer]:
    """Return the layers that take the place of others."""
    chosen, made, sums = set(choice.integer), {}, {}
    units = _units(network, chosen, scales)
    for name in choice.integer:
        layer: Any = network.layers[name]
        sources, emitted = network.sources[name], network.types[name]
        try:
            if type(layer) in SYNAPSES:
                kind = network.types[sources[0]].kind
                largest = 1 if kind == "binary" else bounds[sources[0]]
                made[name], sums[name] = integer_synapses(layer, units[name], largest)
            elif type(layer) in ATTENTIONS:
                made[name], sums[name] = integer_attention(layer, emitted.channels, bounds[name] or 0)
            elif type(layer) in PASSING:
                sums[name] = sums[sources[0]]
            elif type(layer) in JOINING:
                joined = [
                    sums[source] if source in chosen and source in sums else bounds[source] or 0 for source in sources
                ]
                made[name], sums[name] = integer_join(layer, joined)
            else:
                made[name] = integer_neurons(layer, sums[sources[0]], fraction)
        except LayerError as error:
            raise InputError(f"layer {name}: {error}") from None
    return made


def _units(network: Network, chosen: set[str], scales: Scales) -> dict[str, Any]:
    """Return what a unit of the sums of synapses is worth: one for all sums that are added to each other."""
    least, met = _asked(network, chosen), _met(network, chosen)
    together: dict[str, list[str]] = {}
    for name in sorted(chosen, key=network.order.index):
        if type(network.layers[name]) in SYNAPSES:
            together.setdefault(met.get(name, name), []).append(name)
    spiking = {
        met[name]
        for name in chosen
        if type(network.layers[name]) in JOINING and any(kind.kind != "real" for kind in network.input_types(name))
    }
    units: dict[str, Any] = {}
    for group, names in together.items():
        unit = common_unit([unit_of(network.layers[name], least[name], scales) for name in names], group in spiking)
        units |= dict.fromkeys(names, unit)
    return units


def _met(network: Network, chosen: set[str]) -> dict[str, str]:
    """Return, for every layer whose sums meet others in a join, a name that all of these have in common."""
    met: dict[str, str] = {}
    for name in network.order:
        if name not in chosen or type(network.layers[name]) not in PASSING + JOINING:
            continue
        kinds = zip(network.sources[name], network.input_types(name), strict=True)
        members = {met.get(each, each) for each in (name, *(s for s, kind in kinds if kind.kind == "real"))}
        first = min(members, key=network.order.index)
        met |= dict.fromkeys(members, first)
        met |= {each: first for each, group in met.items() if group in members}
    return met


def _asked(network: Network, chosen: set[str]) -> dict[str, Any]:
    """Return the least unit of each channel that the neurons behind a layer allow."""
    least: dict[str, Any] = {name: np.zeros(network.types[name].channels) for name in chosen}
    for name in reversed(network.order):
        if name not in chosen or type(network.layers[name]) in SYNAPSES + ATTENTIONS:
            continue
        neurons = type(network.layers[name]) in NEURONS
        asked = asked_by(network.layers[name], network.types[name].shape) if neurons else least[name]
        for source, kind in zip(network.sources[name], network.input_types(name), strict=True):
            if kind.kind == "real":
                least[source] = np.maximum(least[source], asked)
    return least


def _calibrate(
    network: Network,
    integer: Network,
    choice: Choice,
    samples: Iterable[npt.ArrayLike],
    time_steps: int | None,
    on_progress: Callable[[int], None] | None,
) -> int:
    """Run both networks, and return the number of samples."""
    neurons = [name for name in choice.integer if type(network.layers[name]) in NEURONS]
    simulators = Simulator(network), Simulator(integer)
    fired, seen = dict.fromkeys(neurons, 0), 0
    for frames in samples:
        each = tee(frames) if isinstance(frames, Iterator) else (frames, frames)
        both = zip(simulators, each, strict=True)
        results = [simulator.run(taken, time_steps, name=f"sample {seen}") for simulator, taken in both]
        for layer in results[0].profile:
            if layer.name in fired:
                fired[layer.name] += layer.counts.spikes
        seen += 1
        if on_progress is not None:
            on_progress(seen)
    if not seen:
        raise InputError(f"network {network.name}: no sample found; expected some of the training data")
    for name, spikes in fired.items():
        if not spikes:
            raise InputError(
                f"layer {name}: no spike in {seen} samples found; expected samples of the training data, and that it "
                "fires"
            )
    return seen
