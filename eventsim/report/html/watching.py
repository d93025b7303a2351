"""What a report shows beside the counts: the input, spikes, attention maps, and every time step on its own.

The sample is simulated twice more: once layer by layer, keeping the spikes of a few layers and the maps of attention,
and once as a stream, one time step after the other, for logits and seconds of every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.attention_maps import AttentionMaps, Map
from eventsim.errors import InputError
from eventsim.layers import SpikingAttention, TableAttention
from eventsim.network import Network
from eventsim.report.html import pictures
from eventsim.result import Result
from eventsim.simulator import Simulator

MOST_FRAMES, MOST_NEURONS, MOST_STEPS, MOST_BINS = 16, 160, 400, 2000
MOST_TOKENS, MOST_HEADS = 256, 4
LONGEST_S = 2.0
"""Seconds that repeated simulations may take together."""
MOST_PASSES = 5


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows.

    Attributes
    ----------
    uri : str
    title : str
    width, height : int
        Pixels.
    """

    uri: str
    title: str
    width: int
    height: int


@dataclass(frozen=True)
class Steps:
    """A sample as a stream.

    Attributes
    ----------
    logits : list of list of float
        After each time step.
    seconds : dict of str to list of float
        Of each time step, by layer.
    """

    logits: list[list[float]]
    seconds: dict[str, list[float]]


@dataclass(frozen=True)
class Watched:
    """What was seen of one sample.

    Attributes
    ----------
    inputs : list of Picture
    rasters : list of Picture
        Time steps from left to right, neurons from top to bottom.
    maps : list of Picture
    rates : dict of str to list of float
        Firing rate of each time step, by layer of neurons.
    seconds : dict of str to float
        By layer, the median of several runs.
    runs : int
        How many.
    latency_s : float
        Median latency of these.
    steps : Steps, optional
    no_steps : str
        Why there are none.
    """

    inputs: list[Picture] = field(default_factory=list)
    rasters: list[Picture] = field(default_factory=list)
    maps: list[Picture] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    runs: int = 1
    latency_s: float = 0.0
    steps: Steps | None = None
    no_steps: str = ""


def watch(
    network: Network, frames: npt.NDArray[Any] | Iterator[npt.NDArray[Any]], result: Result, *, name: str = "input"
) -> Watched:
    """Simulate a sample again and keep what a report shows.

    Parameters
    ----------
    network : Network
    frames : array (T, *input shape), (*input shape) for an image, or an iterator of time steps
    result : Result
        Of the sample as it was simulated before.
    name : str
        Names the sample in errors.

    Raises
    ------
    InputError
        If there are too many time steps for a page.
    """
    frames = _held(frames, name)
    neurons = [layer for layer in result.profile if layer.counts.spikes]
    chosen = _chosen([(layer.name, layer.counts.spikes) for layer in neurons])
    attentions = _attentions(network)
    observer = AttentionMaps(network, count=(), keep=attentions)
    simulator = Simulator(network, record=chosen, observers=[observer] if attentions else [])
    shown = None if _several(network, frames) else result.time_steps
    again = simulator.run(frames, shown)
    plain = Simulator(network)
    runs = [result, *(plain.run(frames, shown) for _ in range(_repeats(result.latency_s)))]
    rates = {
        layer.name: (layer.by_step["spikes"] / max(layer.neurons, 1)).tolist() for layer in neurons if layer.by_step
    }
    steps, why = _stream(network, frames, result.time_steps)
    return Watched(
        _inputs(network, frames),
        [_raster(name, again.recorded[name]) for name in chosen],
        [picture for name in attentions for picture in _maps(name, observer.maps(name))],
        rates,
        _medians([{layer.name: layer.seconds for layer in each.profile} for each in runs]),
        len(runs),
        float(np.median([each.latency_s for each in runs])),
        steps,
        why,
    )


def _repeats(seconds: float) -> int:
    """Return how often to simulate again for the median of its times: often, where it takes little."""
    return max(0, min(6, int(LONGEST_S / max(seconds, 1e-6))))


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.median([run[name] for run in runs])) for name in runs[0]}


def _held(frames: npt.NDArray[Any] | Iterator[npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """Return frames as an array; those of a stream as long as a page can show them."""
    if isinstance(frames, np.ndarray):
        return frames
    held = list(islice(frames, MOST_BINS + 1))
    if len(held) > MOST_BINS:
        raise InputError(
            f"{name}: more than {MOST_BINS} bins found; a report shows at most so many, take longer --bin-us"
        )
    return np.array(held)


def _several(network: Network, frames: npt.NDArray[Any]) -> bool:
    return frames.ndim > len(network.input.shape)


def _chosen(neurons: Sequence[tuple[str, int]]) -> list[str]:
    """Return the first layer that fired, the one that fired most, and the last."""
    if not neurons:
        return []
    most = max(neurons, key=lambda each: each[1])[0]
    return list(dict.fromkeys((neurons[0][0], most, neurons[-1][0])))


def _attentions(network: Network) -> list[str]:
    """Return the first and the last spiking attention of which a page can show the map."""
    fitting = [
        name
        for name, layer in network.layers.items()
        if isinstance(layer, (SpikingAttention, TableAttention))
        and max(kind.positions for kind in network.input_types(name)) <= MOST_TOKENS
    ]
    return list(dict.fromkeys((*fitting[:1], *fitting[-1:])))


def _maps(name: str, maps: Map) -> list[Picture]:
    """Return the maps of the first heads, summed over time, before and after a table."""
    pictures = []
    changed = maps.after is not maps.before
    for head in range(min(maps.before.shape[1], MOST_HEADS)):
        for when, values in (("before its table", maps.before), ("after its table", maps.after))[: 1 + changed]:
            summed = values[:, head].sum(axis=0)
            filled = np.count_nonzero(values[:, head]) / values[:, head].size
            of = f"head {head} of {maps.before.shape[1]}{', ' + when if changed else ''}"
            title = f"{name}, {of}: {filled:.0%} of the entries are not 0"
            pictures.append(_picture(np.abs(summed).astype(np.float64), title))
    return pictures


def _raster(name: str, spikes: npt.NDArray[np.float32]) -> Picture:
    """Return the spikes of neurons that lie evenly among all, the silent ones included, as a picture."""
    flat = spikes.reshape(len(spikes), -1)[:MOST_STEPS]
    shown = np.unique(np.linspace(0, flat.shape[1] - 1, min(flat.shape[1], MOST_NEURONS)).astype(int))
    active, rate = int(np.count_nonzero(flat.any(axis=0))), np.count_nonzero(flat) / flat.size
    title = (
        f"{name}: {len(shown)} of {flat.shape[1]:,} neurons, evenly spaced, one row each; {active:,} of all fired, "
        f"{rate:.1%} of the time"
    )
    return _picture(flat[:, shown].T, title)


def _picture(values: npt.NDArray[np.floating], title: str) -> Picture:
    return Picture(pictures.data_uri(pictures.shades(values)), title, values.shape[1], values.shape[0])


def _inputs(network: Network, frames: npt.NDArray[Any]) -> list[Picture]:
    """Return the input as pictures: of a sequence, time steps that lie evenly."""
    several = _several(network, frames)
    shape = network.input.shape
    if len(shape) != 3 or shape[0] not in (1, 2, 3):
        flat = frames.reshape(len(frames), -1).T if several else frames.reshape(-1, 1)
        return [_picture(np.abs(flat[:MOST_NEURONS, :MOST_STEPS]).astype(np.float32), "input, time from left to right")]
    draw = pictures.events if shape[0] == 2 else pictures.image
    if not several:
        return [Picture(draw(np.asarray(frames, np.float32)), "shown in every time step", shape[2], shape[1])]
    at = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST_FRAMES)).astype(int))
    return [
        Picture(
            draw(np.asarray(frames[t], np.float32)),
            f"step {t}: {_events(frames[t])}",
            shape[2],
            shape[1],
        )
        for t in at.tolist()
    ]


def _events(frame: npt.NDArray[Any]) -> str:
    return f"{frame[1].sum():,.0f} ON, {frame[0].sum():,.0f} OFF" if len(frame) == 2 else "image"


def _stream(network: Network, frames: npt.NDArray[Any], time_steps: int) -> tuple[Steps | None, str]:
    """Simulate one step after the other; or say why that cannot be."""
    simulator = Simulator(network)
    several = _several(network, frames)
    passes: list[list[dict[str, float]]] = []
    began = time.perf_counter()
    while not passes or (len(passes) < MOST_PASSES and time.perf_counter() - began < LONGEST_S):
        simulator.restart()
        logits: list[list[float]] = []
        spent = [dict.fromkeys(network.order, 0.0)]
        try:
            for step in range(time_steps):
                result = simulator.step(frames[step] if several else frames)
                logits.append([float(value) for value in result.logits])
                spent.append({layer.name: layer.seconds for layer in result.profile})
        except InputError as error:
            return None, str(error)
        passes.append([{name: after[name] - before[name] for name in after} for before, after in pairwise(spent)])
    by_step = [_medians(step) for step in zip(*passes, strict=True)]
    return Steps(logits, {name: [step[name] for step in by_step] for name in network.order}), ""
