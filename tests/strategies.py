"""Hypothesis strategies: dyadic arrays, and whole random networks built twice - for eventsim and for the reference.

Weights are multiples of 1/64, inputs small integers (or multiples of 1/8), averages over 1, 2 or 4 values: every sum
is exact in float32 in any order, so event-driven and dense must agree bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eventsim import Network, NetworkBuilder
from eventsim.layers import (
    IF,
    LIF,
    PLIF,
    Affine,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Layer,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Residual,
    SparseLinear,
    SpikingAttention,
    SumPool2d,
)
from eventsim.signals import SignalType

KINDS = ("binary", "graded", "real")


def weights(*shape: int) -> st.SearchStrategy[np.ndarray]:
    """Float32 multiples of 1/64 between -1 and 1."""
    return hnp.arrays(np.int8, shape, elements=st.integers(-64, 64)).map(lambda a: (a / 64).astype(np.float32))


def activity(kind: str, *shape: int) -> st.SearchStrategy[np.ndarray]:
    """Frames of one kind, zero more often than not."""
    elements = {
        "binary": st.sampled_from([0, 0, 1]),
        "graded": st.sampled_from([0, 0, 0, 1, 2, 5]),
        "real": st.integers(-8, 8).map(lambda k: k / 8),
    }[kind]
    return hnp.arrays(np.float32, shape, elements=elements.map(float))


def thresholds() -> st.SearchStrategy[float]:
    return st.sampled_from([0.125, 0.25, 0.5, 1.0, 1.5])


@dataclass(frozen=True)
class Drawn:
    """A network, the same as plain data for the reference, and frames for it."""

    network: Network
    layers: dict[str, tuple[str, dict[str, Any]]]
    edges: list[tuple[str, str]]
    frames: np.ndarray

    def __repr__(self) -> str:
        chain = ", ".join(f"{name}: {type(layer).__name__}" for name, layer in self.network.layers.items())
        return f"Drawn(frames {self.frames.shape}, {chain})"


class Twin:
    """Builds the network and its description for the reference side by side."""

    def __init__(self) -> None:
        self.build = NetworkBuilder("drawn")
        self.layers: dict[str, tuple[str, dict[str, Any]]] = {}
        self.edges: list[tuple[str, str]] = []

    def add(self, layer: Layer, kind: str, parameters: dict[str, Any], *sources: str) -> str:
        name = f"n{len(self.build.layers)}_{kind}"
        self.build.add(name, layer, *sources)
        self.describe(name, kind, parameters, *sources)
        return name

    @property
    def types(self) -> dict[str, SignalType]:
        """What every layer so far emits."""
        return Network("so far", dict(self.build.layers), tuple(self.build.edges)).types

    def describe(self, name: str, kind: str, parameters: dict[str, Any], *sources: str) -> str:
        """Add a node that only the reference needs, or its half of one."""
        self.layers[name] = (kind, parameters)
        self.edges.extend((source, name) for source in sources)
        return name


@st.composite
def neurons(draw: st.DrawFn) -> tuple[Layer, str, dict[str, Any]]:
    """A neuron of any type, for both."""
    shared = {
        "v_threshold": draw(thresholds()),
        "reset": draw(st.sampled_from(["zero", "subtract"])),
        "strict": draw(st.booleans()),
    }
    kind = draw(st.sampled_from(["lif", "if_neuron", "plif"]))
    if kind == "if_neuron":
        return IF(**shared), kind, shared
    if kind == "plif":
        w = draw(st.sampled_from([0.0, 0.7, -1.3]))
        return PLIF(w=w, **shared), kind, {"k": np.float32(1 / (1 + np.exp(-np.float64(w)))), **shared}
    own = {"tau": draw(st.sampled_from([1.0, 1.75, 2.0, 3.0, 4.0])), "decay_input": draw(st.booleans())}
    return LIF(**own, **shared), kind, {**own, **shared}


@st.composite
def networks(draw: st.DrawFn) -> Drawn:
    """A feed-forward network over a map, then over tokens, then a head."""
    twin = Twin()
    kind = draw(st.sampled_from(KINDS))
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(3, 7)), draw(st.integers(3, 7))
    steps = draw(st.integers(1, 4))
    x = twin.build.add("input", Input((channels, height, width), kind))
    size = (channels, height, width)
    for _ in range(draw(st.integers(1, 2))):
        x, size = _map_stage(draw, twin, x, size)
    if draw(st.booleans()):
        x = _residual(draw, twin, x, size, "map")
    channels = size[0]
    tokens = twin.describe("as_tokens", "tokens_from_map", {}, x)
    x, size = _attention(draw, twin, x, tokens, channels)
    _head(draw, twin, x, size, steps)
    network = twin.build.build(time_steps=steps, assumptions=("drawn",))
    frames = draw(activity(kind, steps, *network.input.shape))
    return Drawn(network, twin.layers, twin.edges, frames)


def _map_stage(draw: st.DrawFn, twin: Twin, x: str, size: tuple[int, int, int]) -> tuple[str, tuple[int, int, int]]:
    channels, height, width = size
    kernel = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    out = groups * draw(st.sampled_from([1, 2, 9]))
    weight = draw(weights(out, channels // groups, *kernel))
    bias = draw(st.none() | weights(out))
    parameters = {"weight": weight, "bias": bias, "stride": stride, "padding": padding, "groups": groups}
    x = twin.add(Conv2d(weight, bias, stride, padding, groups), "conv2d", parameters, x)
    height, width = (
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
    )
    if draw(st.booleans()):
        gamma, beta, mean = draw(weights(out)), draw(weights(out)), draw(weights(out))
        parameters = {"gamma": gamma, "beta": beta, "mean": mean, "var": np.full(out, 0.25, np.float32), "eps": 0.0}
        scale = gamma / np.float32(0.5)
        x = twin.add(Affine(scale, beta - mean * scale), "batch_norm", parameters, x)
    x = twin.add(*draw(neurons()), x)
    pool = draw(st.sampled_from(["none", "maxpool2d", "sumpool2d", "avgpool2d"]))
    if pool != "none":
        kernel = (draw(st.integers(1, min(2, height))), draw(st.integers(1, min(2, width))))
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        padding = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
        parameters = {"kernel": kernel, "stride": stride, "padding": padding}
        layer: Layer = {"maxpool2d": MaxPool2d, "sumpool2d": SumPool2d, "avgpool2d": AvgPool2d}[pool](
            kernel, stride, padding
        )
        x = twin.add(layer, pool, parameters, x)
        height, width = (
            (n + 2 * p - k) // s + 1 for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
        )
    return x, (out, height, width)


def _residual(draw: st.DrawFn, twin: Twin, x: str, size: tuple[int, int, int], where: str) -> str:
    channels = size[0]
    if where == "map":
        weight = draw(weights(channels, channels, 3, 3))
        parameters = {"weight": weight, "bias": None, "stride": (1, 1), "padding": (1, 1), "groups": 1}
        y = twin.add(Conv2d(weight, padding=(1, 1)), "conv2d", parameters, x)
    else:
        weight = draw(weights(channels, channels))
        y = twin.add(Linear(weight), "linear", {"weight": weight, "bias": None}, x)
    y = twin.add(*draw(neurons()), y)
    modes = ["add", "iand", "and"] if twin.types[x].kind == "binary" else ["add"]
    mode = draw(st.sampled_from(modes))
    return twin.add(Residual(mode), "residual", {"op": mode}, x, y)


def _attention(draw: st.DrawFn, twin: Twin, x: str, tokens: str, channels: int) -> tuple[str, tuple[int, int, int]]:
    heads = draw(st.integers(1, 3))
    dim = heads * draw(st.integers(1, 6))
    parts = []
    for _ in range(3):
        weight, bias = draw(weights(dim, channels)), draw(st.none() | weights(dim))
        name = f"n{len(twin.build.layers)}_linear"
        layer = SparseLinear.from_matrix(weight, bias) if draw(st.booleans()) else Linear(weight, bias)
        twin.build.add(name, layer, x)  # on the map, which the reference takes as tokens
        twin.describe(name, "linear", {"weight": weight, "bias": bias}, tokens)
        parts.append(twin.add(*draw(neurons()), name))
    scale = draw(st.sampled_from([0.125, 0.25, 1.0]))
    order = draw(st.sampled_from(["scores_first", "context_first"]))
    layer = SpikingAttention(heads, scale, order)
    y = twin.add(layer, "spiking_attention", {"heads": heads, "scale": scale}, *parts)
    y = twin.add(*draw(neurons()), y)
    y = _residual(draw, twin, y, (dim, 0, 0), "tokens")
    return y, (dim, 0, 0)


def _head(draw: st.DrawFn, twin: Twin, x: str, size: tuple[int, int, int], steps: int) -> str:
    dim, positions = size[0], twin.types[x].positions
    exact = positions in (1, 2, 4, 8, 16) and steps in (1, 2, 4)  # else a mean is not dyadic
    if exact and draw(st.booleans()):
        x = twin.add(MeanOverPositions(), "mean_over_positions", {}, x)
        x = twin.add(MeanOverTime(), "mean_over_time", {}, x)
        weight = draw(weights(4, dim))
        x = twin.add(Linear(weight), "linear", {"weight": weight, "bias": None}, x)
        return twin.build.add("readout", Readout("last"), x)
    weight = draw(weights(4, dim * positions))
    x = twin.build.add("flat", Flatten(), x)  # channel-major, while the reference flattens tokens position-major
    twin.describe("flat", "flatten", {}, twin.build.edges[-1][0])
    turned = np.ascontiguousarray(weight.reshape(4, dim, positions).swapaxes(1, 2).reshape(4, -1))
    layer = SparseLinear.from_matrix(weight) if draw(st.booleans()) else Linear(weight)
    twin.build.add("head", layer, "flat")
    twin.describe("head", "linear", {"weight": turned, "bias": None}, "flat")
    x = twin.add(*draw(neurons()), "head")
    return twin.build.add("readout", Readout("sum"), x)
