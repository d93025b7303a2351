"""Hypothesis strategies of signals, layers, networks and frames, for property tests of your own.

Weights are multiples of 1/16, real inputs multiples of 1/8 and thresholds small dyadic numbers, so that every sum is
exact in float32: an event-driven and a dense model must agree bit for bit. Shapes and options are drawn, and shrunk,
one by one; the values of an array come from a drawn seed, since element-wise drawing fills most of a larger array with
one value, under which swapped indices go unnoticed.

Needs hypothesis: ``pip install 'eventsim[testing]'``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from eventsim.layers import (
    IF,
    LIF,
    PLIF,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Affine,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    Gate,
    Input,
    IntegerActivation,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Rearrange,
    Residual,
    SelectChannels,
    SparseLinear,
    SpikingAttention,
    SumOverChannels,
    SumOverPositions,
    SumPool2d,
    Threshold,
)
from eventsim.network import Delayed, Network, NetworkBuilder
from eventsim.signals import FloatArray, Kind, Signal, SignalType
from eventsim.testing.samples import random_rows, random_signal

KINDS: tuple[Kind, ...] = ("binary", "graded", "real")
LAYERS = ("linear", "sparse", "conv", "neuron", "pool", "attention", "join", "gate", "select", "scaling", "mean", "sum")
CHANNELS = (1, 2, 5, 15, 16, 17, 33)
"""Around the width of a vector register."""


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Random generators of a drawn seed."""
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def weights(draw: st.DrawFn, *shape: int) -> FloatArray:
    """Float32 multiples of 1/16 between -1 and 1, none of them 0."""
    rng = draw(generators())
    return np.asarray(rng.integers(1, 17, shape) * rng.choice([-1, 1], shape) / 16, np.float32)


@st.composite
def signal_types(draw: st.DrawFn, kinds: tuple[Kind, ...] = KINDS, axes: tuple[int, ...] = (0, 1, 2)) -> SignalType:
    """Vectors, tokens or maps of any kind; real ones dense or in rows.

    Parameters
    ----------
    kinds : tuple of str
    axes : tuple of int
        Axes of the grid: 0 for a vector, 1 for tokens, 2 for a map.
    """
    kind = draw(st.sampled_from(kinds))
    grid = draw(st.sampled_from(axes).flatmap(lambda n: st.tuples(*[st.integers(2, 6)] * n)))
    dense = kind == "real" and draw(st.booleans())
    return SignalType(kind, draw(st.sampled_from(CHANNELS)), grid, dense)


@st.composite
def signals(draw: st.DrawFn, kind: SignalType, steps: int | None = None) -> Signal:
    """Signals of a type, of so many time steps, or of 1 to 5."""
    return random_signal(kind, draw(st.integers(1, 5)) if steps is None else steps, draw(generators()))


@st.composite
def frames(draw: st.DrawFn, network: Network, steps: int | None = None) -> FloatArray:
    """Frames ``(T, *input shape)`` for a network: so many, else as many as it was trained with, else 1 to 5."""
    kind = network.input.output_type()
    steps = steps or network.time_steps or draw(st.integers(1, 5))
    rows = random_rows(kind, steps * kind.positions, draw(generators()))
    maps = rows.reshape(steps, *kind.grid, kind.channels)
    return np.ascontiguousarray(np.moveaxis(maps, -1, 1)) if len(kind.grid) == 2 else maps


@st.composite
def neurons(draw: st.DrawFn, potentials: bool = False) -> Layer:
    """Neurons of any of the common types.

    Parameters
    ----------
    potentials : bool
        Whether they may emit their potentials instead of spikes.
    """
    options: dict[str, Any] = {
        "v_threshold": draw(st.sampled_from([0.25, 0.5, 1.0, 1.5])),
        "reset": draw(st.sampled_from(["zero", "subtract"])),
        "strict": draw(st.booleans()),
        "emits": draw(st.sampled_from(["spikes", "spikes", "spikes", "potential", "charge"]))
        if potentials
        else "spikes",
    }
    kind: Any = draw(st.sampled_from([IF, LIF, PLIF]))
    if kind is LIF:
        options |= {"tau": draw(st.sampled_from([1.0, 2.0, 4.0])), "decay_input": draw(st.booleans())}
    neuron: Layer = kind(**options)
    return neuron


@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, tuple[SignalType, ...]]:
    """Layers with signals that they fit: the layer, and the type of each of its inputs."""
    name = draw(st.sampled_from(LAYERS))
    source = draw(signal_types(axes=(2,) if name in ("conv", "pool") else (0, 1, 2)))
    c = source.channels
    if name == "linear":
        return Linear(draw(weights(draw(st.sampled_from(CHANNELS)), c)), None), (source,)
    if name == "sparse":
        matrix = draw(weights(draw(st.sampled_from(CHANNELS)), c))
        matrix[draw(generators()).random(matrix.shape) < 0.5] = 0
        return SparseLinear.from_matrix(matrix), (source,)
    if name == "conv":
        return draw(convolutions(source)), (source,)
    if name == "neuron":
        return draw(neurons(potentials=True)), (source,)
    if name == "pool":
        adaptive = draw(st.sampled_from([None, None, AdaptiveAvgPool2d, AdaptiveMaxPool2d]))
        if adaptive is not None:
            return adaptive(draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))), (source,)
        pool = draw(st.sampled_from([MaxPool2d, SumPool2d, AvgPool2d]))
        return pool((2, 2), (draw(st.integers(1, 2)),) * 2), (source,)
    if name == "attention":
        heads = draw(st.sampled_from([n for n in (1, 2, 3) if c % n == 0]))
        order: Literal["scores_first", "context_first"] = draw(st.sampled_from(["scores_first", "context_first"]))
        kind = draw(st.sampled_from(KINDS[:2]))
        return SpikingAttention(heads, order=order), (SignalType(kind, c, source.grid),) * 3
    if name == "join":
        return draw(st.sampled_from([Residual("add"), Concat()])), (source, source)
    if name == "gate":
        gates = draw(st.sampled_from([n for n in (1, 3, c) if c % n == 0]))
        gate = replace(draw(signal_types(axes=(0,))), channels=gates, grid=draw(st.sampled_from([(), source.grid])))
        return Gate(), (gate, source)
    if name == "select":
        if draw(st.booleans()):
            shape = draw(st.sampled_from([(6,), (3, 2), (2, 3, 1)]))
            return Rearrange(draw(generators()).integers(-1, source.size, 6), shape), (source,)
        return SelectChannels(draw(generators()).integers(0, c, draw(st.integers(1, 20)))), (source,)
    if name == "sum":
        groups = draw(st.sampled_from([n for n in (1, 3, c) if c % n == 0]))
        return draw(st.sampled_from([SumOverChannels(groups), SumOverPositions()])), (source,)
    if name == "scaling":
        scaled: list[Layer] = [
            Affine(draw(weights(c))),
            Threshold(0.5),
            LayerNorm(draw(weights(c))),
            IntegerActivation(),
        ]
        return draw(st.sampled_from(scaled)), (source,)
    return draw(st.sampled_from([MeanOverTime(), MeanOverPositions(), Flatten()])), (source,)


@st.composite
def convolutions(draw: st.DrawFn, source: SignalType) -> Layer:
    """Convolutions of a map that keep its size or leave a part of it."""
    c = source.channels
    groups = draw(st.sampled_from([n for n in (1, 2, 3) if c % n == 0]))
    out = groups * draw(st.sampled_from([1, 2, 9]))
    kernel = draw(st.integers(1, min(3, *source.grid)))
    padding = draw(st.sampled_from([0, kernel // 2]))
    bias = draw(st.none() | weights(out))
    stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    return Conv2d(draw(weights(out, c // groups, kernel, kernel)), bias, stride, (padding, padding), groups)


@st.composite
def networks(draw: st.DrawFn, kinds: tuple[Kind, ...] = KINDS, feedback: bool = True) -> Network:
    """Small spiking networks: synapses and neurons over maps or tokens, pooling, residuals, attention, and a head.

    Parameters
    ----------
    kinds : tuple of str
        Kinds of input.
    feedback : bool
        Whether spikes may come back over delayed edges.
    """
    build = NetworkBuilder("drawn")
    source = draw(signal_types(kinds, axes=(1, 2)))
    x = build.add("input", Input(source.shape, source.kind))
    for stage in range(draw(st.integers(1, 3))):
        x = _stage(draw, build, x, f"stage{stage}", feedback)
    if draw(st.booleans()):
        x = _attention(draw, build, x)
    x = build.add("mean" if draw(st.booleans()) else "flat", _head_of(draw, build.types[x]), x)
    x = build.add("head", Linear(draw(weights(3, build.types[x].channels))), x)
    build.add("readout", Readout(draw(st.sampled_from(["last", "sum"]))), x)
    return build.build(draw(st.none() | st.integers(1, 4)))


def _head_of(draw: st.DrawFn, source: SignalType) -> Layer:
    exact = source.positions in (1, 2, 4, 8, 16)  # a mean over other numbers is rounded
    return MeanOverPositions() if exact and draw(st.booleans()) else Flatten()


def _stage(draw: st.DrawFn, build: NetworkBuilder, x: str, name: str, feedback: bool) -> str:
    source = build.types[x]
    if len(source.grid) == 2:
        y = build.add(f"{name}.conv", draw(convolutions(source)), x)
    else:
        y = build.add(f"{name}.fc", Linear(draw(weights(draw(st.sampled_from(CHANNELS)), source.channels))), x)
    current = build.types[y]
    if feedback and draw(st.booleans()):
        spikes = SignalType("binary", current.channels, current.grid)
        back = Delayed(f"{name}.neuron", draw(st.integers(1, 3)), spikes)
        y = build.add(f"{name}.sum", Residual("add"), y, back)
    y = build.add(f"{name}.neuron", draw(neurons()), y)
    if build.types[x].kind != "real" and build.types[x].shape == build.types[y].shape and draw(st.booleans()):
        y = build.add(f"{name}.add", Residual("add"), x, y)
    grid = build.types[y].grid
    if len(grid) == 2 and min(grid) > 1 and draw(st.booleans()):
        y = build.add(f"{name}.pool", draw(st.sampled_from([MaxPool2d, SumPool2d]))((2, 2), (2, 2)), y)
    return y


def _attention(draw: st.DrawFn, build: NetworkBuilder, x: str) -> str:
    heads, channels = draw(st.integers(1, 3)), build.types[x].channels
    dim = heads * draw(st.integers(1, 6))
    parts = []
    for letter in "qkv":
        y = build.add(f"attn.{letter}", Linear(draw(weights(dim, channels))), x)
        parts.append(build.add(f"attn.{letter}_neuron", draw(neurons()), y))
    y = build.add("attn", SpikingAttention(heads, 0.25), *parts)
    return build.add("attn.neuron", draw(neurons()), y)
