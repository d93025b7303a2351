"""Hypothesis strategies: dyadic arrays, and whole random networks built twice - for eventsim and for the reference.

Weights are multiples of 1/16, inputs small integers or multiples of 1/8, averages over 1, 2 or 4 values: every sum is
exact in float32 in any order, so event-driven and dense must agree bit for bit. Shapes and options are drawn (and
shrunk) one by one; the values of an array come from a drawn seed, because element-wise drawing fills most of a larger
array with one value, under which swapped indices go unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from integer_strategies import integer_stage
from reference import network
from reference.network import Edge

from eventsim import Delayed, Network, NetworkBuilder
from eventsim.layers import (
    IF,
    LIF,
    PLIF,
    AdaptiveMaxPool2d,
    Affine,
    AvgPool2d,
    Conv2d,
    Flatten,
    Gate,
    Input,
    IntegerActivation,
    Layer,
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
)
from eventsim.settings import Setting
from eventsim.signals import SignalType

KINDS = ("binary", "graded", "real")
OUTPUTS = (1, 2, 5, 15, 16, 17, 33)  # channels around the width of a vector register

F = np.float32
Shape = tuple[int, ...]


@st.composite
def randoms(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


@st.composite
def weights(draw: st.DrawFn, *shape: int, zeros: bool = True) -> np.ndarray:
    """Float32 multiples of 1/16 between -1 and 1; some are 0 unless `zeros` is false."""
    rng = draw(randoms())
    array = rng.integers(-16, 17, shape)
    return (np.where(array == 0, 0 if zeros else 7, array) / 16).astype(F)


@st.composite
def activity(draw: st.DrawFn, kind: str, *shape: int) -> np.ndarray:
    """Frames of one kind and any density; real ones hold negative values, and zeros of both signs."""
    rng, density = draw(randoms()), draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    zeros = np.zeros(shape, F)
    if kind == "binary":
        values = np.ones(shape)
    elif kind == "graded":
        values = rng.choice([1, 1, 2, 3, 17], shape)
    else:
        values = rng.integers(1, 9, shape) * rng.choice([-1, 1], shape) / 8
        zeros = rng.choice([F(0), F(-0.0)], shape)
    return np.where(rng.random(shape) < density, values, zeros).astype(F)


def thresholds() -> st.SearchStrategy[float]:
    return st.sampled_from([0.125, 0.25, 0.5, 1.0, 1.5])


@dataclass(frozen=True)
class Drawn:
    """A network, the same as plain data for the reference, and frames for it.

    A layer has the same name in both. Where the reference holds tokens (T, N, D), eventsim may hold the map (T, D, H,
    W) whose pixels they are.
    """

    network: Network
    layers: dict[str, tuple[str, dict[str, Any]]]
    edges: list[Edge]
    frames: np.ndarray
    fed_back: dict[str, Shape] = field(default_factory=dict)

    def expected(self, frames: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """What the reference makes of the frames."""
        return network.run(self.layers, self.edges, self.frames if frames is None else frames, self.fed_back)

    def __repr__(self) -> str:
        chain = ", ".join(f"{name}: {type(layer).__name__}" for name, layer in self.network.layers.items())
        return f"Drawn(frames {self.frames.shape}, {chain})"


class Twin:
    """Builds the network and its description for the reference side by side."""

    def __init__(self) -> None:
        self.build = NetworkBuilder("drawn")
        self.layers: dict[str, tuple[str, dict[str, Any]]] = {}
        self.edges: list[Edge] = []
        self.fed_back: dict[str, Shape] = {}

    def add(
        self, layer: Layer, kind: str, parameters: dict[str, Any], *sources: str | Delayed, name: str | None = None
    ) -> str:
        name = name or f"n{len(self.build.layers)}_{kind}"
        self.build.add(name, layer, *sources)
        for source in sources:
            if isinstance(source, Delayed):
                self.fed_back[source.source] = (source.type or self.types[source.source]).shape
        return self.describe(name, kind, parameters, *sources)

    @property
    def types(self) -> dict[str, SignalType]:
        """What every layer so far emits."""
        return self.build.types

    def describe(self, name: str, kind: str, parameters: dict[str, Any], *sources: str | Delayed) -> str:
        """Add a node that only the reference needs, or its half of one."""
        self.layers[name] = (kind, parameters)
        for source in sources:
            late = isinstance(source, Delayed)
            self.edges.append((source.source, name, source.delay) if late else (source, name))
        return name


@st.composite
def constants(draw: st.DrawFn, values: st.SearchStrategy[float], shape: Shape, tokens: bool = False) -> tuple[Any, Any]:
    """One number, an array per channel or per neuron, for eventsim and for the reference.

    `shape` is that of a time step, (C, H, W), (N, C) or (C,); with `tokens` the reference takes the map as tokens.
    """
    spread = draw(st.sampled_from(["one", "per channel", "per neuron"]))
    if spread == "one":
        value = draw(values)
        return value, value
    size = (shape[0] if len(shape) == 3 else shape[-1],) if spread == "per channel" else shape
    some = draw(st.lists(values, min_size=1, max_size=4))
    array = draw(randoms()).choice(np.array(some, F), size)
    if len(shape) < 3:
        return array, array
    if spread == "per channel":
        return array, array if tokens else array[:, None, None]
    return array, array.reshape(len(array), -1).T if tokens else array


@st.composite
def neurons(draw: st.DrawFn, shape: Shape, tokens: bool = False) -> tuple[Layer, str, dict[str, Any]]:
    """A neuron of any type for inputs of a shape, for both; see `constants`."""
    given, expected = draw(constants(thresholds(), shape, tokens))
    shared = {"reset": draw(st.sampled_from(["zero", "subtract"])), "strict": draw(st.booleans())}
    ours, theirs = {"v_threshold": given, **shared}, {"v_threshold": expected, **shared}
    kind = draw(st.sampled_from(["lif", "if_neuron", "plif"]))
    if kind == "if_neuron":
        return IF(**ours), kind, theirs
    if kind == "plif":
        w, expected = draw(constants(st.sampled_from([0.0, 0.7, -1.3]), shape, tokens))
        return PLIF(w=w, **ours), kind, {"k": (1 / (1 + np.exp(-np.float64(expected)))).astype(F), **theirs}
    tau, expected = draw(constants(st.sampled_from([1.0, 1.75, 2.0, 3.0, 4.0]), shape, tokens))
    decay = draw(st.booleans())
    return LIF(tau=tau, decay_input=decay, **ours), kind, {"tau": expected, "decay_input": decay, **theirs}


@dataclass(frozen=True)
class Sliding:
    """A window that fits into a map, and the size of the map that it leaves."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    size: tuple[int, int]

    @property
    def parameters(self) -> dict[str, tuple[int, int]]:
        """Kernel, stride and padding."""
        return {"kernel": self.kernel, "stride": self.stride, "padding": self.padding}


@st.composite
def slidings(draw: st.DrawFn, size: tuple[int, int], largest: int = 3, widest: int | None = None) -> Sliding:
    """A window of up to `largest` pixels a side; its padding is half of it, or up to `widest` where that is given."""
    kernel = draw(st.tuples(*(st.integers(1, min(largest, n)) for n in size)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(*(st.integers(0, k // 2 if widest is None else widest) for k in kernel)))
    left = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return Sliding(kernel, stride, padding, left)


@dataclass(frozen=True)
class Wanted:
    """What the networks drawn may hold."""

    kinds: tuple[str, ...] = KINDS
    biases: bool = True
    integers: bool = True

    def bias(self, channels: int) -> st.SearchStrategy[np.ndarray | None]:
        return st.none() | weights(channels) if self.biases else st.none()


@st.composite
def networks(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, biases: bool = True, integers: bool = True) -> Drawn:
    """A feed-forward network over a map (or over tokens from the start), then over tokens, then a head.

    Without biases, a silent input leaves the whole network silent. Some layers are of integers, unless these are off.
    """
    twin, wanted = Twin(), Wanted(kinds, biases, integers and biases)
    kind = draw(st.sampled_from(kinds))
    steps = draw(st.integers(1, 5))
    if draw(st.sampled_from(["map", "map", "tokens"])) == "map":
        size = draw(st.tuples(st.integers(1, 3), st.integers(3, 7), st.integers(3, 7)))
        x = twin.build.add("input", Input(size, kind))
        for _ in range(draw(st.integers(1, 2))):
            x = _map_stage(draw, twin, wanted, x)
            if draw(st.booleans()):
                x = _rearranged(draw, twin, x)
        if draw(st.booleans()):
            x = _residual(draw, twin, x)
        tokens = twin.describe("as_tokens", "tokens_from_map", {}, x)
    else:
        tokens = x = twin.build.add("input", Input((draw(st.integers(1, 9)), draw(st.integers(1, 20))), kind))
    x = _attention(draw, twin, wanted, x, tokens)
    _head(draw, twin, wanted, x, steps)
    built = twin.build.build(time_steps=steps, settings=(Setting("drawn", True, "option"),))
    frames = draw(activity(kind, steps, *built.input.shape))
    return Drawn(built, twin.layers, twin.edges, frames)


@st.composite
def recurrent_networks(draw: st.DrawFn) -> Drawn:
    """A network over a map or a vector with feedback over delayed edges: spikes come back to the current before them.

    They come back as they are or through synapses, from the neuron itself or from one behind it, after up to three
    steps; loops follow each other or lie within each other, and edges outside of loops wait, too.
    """
    twin = Twin()
    kind, steps = draw(st.sampled_from(KINDS)), draw(st.integers(1, 6))
    size = draw(st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(2, 4)) | st.tuples(st.integers(1, 9)))
    x = twin.build.add("input", Input(size, kind))
    for index in range(draw(st.integers(1, 2))):
        x = _recurrent_stage(draw, twin, x, f"loop{index}")
    if twin.types[x].grid:
        name = f"n{len(twin.build.layers)}_flatten"
        twin.build.add(name, Flatten(), x)
        x = twin.describe(name, "flatten", {}, x)
    weight = draw(weights(3, twin.types[x].size))
    late = draw(st.integers(0, 2))
    source = Delayed(x, late) if late else x
    x = twin.add(Linear(weight), "linear", {"weight": weight, "bias": None}, source)
    twin.build.add("readout", Readout(draw(st.sampled_from(["last", "sum"]))), x)
    built = twin.build.build(time_steps=steps, settings=(Setting("drawn", True, "option"),))
    frames = draw(activity(kind, steps, *built.input.shape))
    return Drawn(built, twin.layers, twin.edges, frames, twin.fed_back)


def _recurrent_stage(draw: st.DrawFn, twin: Twin, x: str, stage: str) -> str:
    channels = draw(st.sampled_from([1, 2, 17]))
    if draw(st.booleans()):
        x = twin.add(Residual("add"), "residual", {"op": "add"}, x, Delayed(x, draw(st.integers(1, 3))))
    current = _synapses(draw, twin, x, channels)
    source = twin.types[current]
    spikes = SignalType("binary", source.channels, source.grid)
    delays = st.integers(1, 3)
    ends = draw(st.sampled_from([("near",), ("near",), ("far",), ("near", "far"), ("near", "near")]))
    for end in ends:
        back: str | Delayed = Delayed(f"{stage}_{end}", draw(delays), spikes)
        if draw(st.booleans()):
            back = _synapses(draw, twin, back, channels, spikes)
        current = twin.add(Residual("add"), "residual", {"op": "add"}, current, back)
    neuron = draw(neurons(spikes.shape))
    x = twin.add(*neuron, current, name=f"{stage}_near")
    if "far" in ends:
        y = _synapses(draw, twin, x, channels)
        x = twin.add(*draw(neurons(spikes.shape)), y, name=f"{stage}_far")
    return x


def _synapses(draw: st.DrawFn, twin: Twin, x: str | Delayed, channels: int, arriving: SignalType | None = None) -> str:
    """Synapses that keep the size: a convolution on a map, a matrix else."""
    source = arriving or twin.types[x]
    bias = draw(st.none() | weights(channels))
    if len(source.grid) == 2:
        weight = draw(weights(channels, source.channels, 3, 3))
        parameters = {"weight": weight, "bias": bias, "stride": (1, 1), "padding": (1, 1), "groups": 1}
        return twin.add(Conv2d(weight, bias, padding=(1, 1)), "conv2d", parameters, x)
    weight = draw(weights(channels, source.channels))
    return twin.add(Linear(weight, bias), "linear", {"weight": weight, "bias": bias}, x)


def _map_stage(draw: st.DrawFn, twin: Twin, wanted: Wanted, x: str) -> str:
    if wanted.integers and twin.types[x].kind != "real" and draw(st.sampled_from([False, False, True])):
        x = draw(integer_stage(twin, x, draw(st.sampled_from([1, 3, 33]))))
    channels, *size = twin.types[x].shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    out = groups * draw(st.sampled_from([1, 2, 9]))
    window = draw(slidings(tuple(size), widest=2))
    weight, bias = draw(weights(out, channels // groups, *window.kernel)), draw(wanted.bias(out))
    parameters = {"weight": weight, "bias": bias, "stride": window.stride, "padding": window.padding, "groups": groups}
    x = twin.add(Conv2d(weight, bias, window.stride, window.padding, groups), "conv2d", parameters, x)
    if draw(st.booleans()):
        gamma, beta, mean = (draw(weights(out)) for _ in range(3))
        if not wanted.biases:
            beta = mean = np.zeros(out, F)
        scale = gamma / F(0.5)
        shift = beta - mean * scale
        parameters = {"gamma": gamma, "beta": beta, "mean": mean, "var": np.full(out, 0.25, F), "eps": 0.0}
        y = twin.add(Affine(scale, shift), "batch_norm", parameters, x)
        x = twin.add(Residual("add"), "residual", {"op": "add"}, x, y) if draw(st.booleans()) else y
    x = twin.add(*draw(neurons(twin.types[x].shape)), x)
    if draw(st.booleans()):  # real values in sparse rows, some of them negative, some products zero
        scale, expected = draw(constants(st.sampled_from([-0.5, 0.0, 0.25, 1.0]), twin.types[x].shape))
        x = twin.add(Affine(np.asarray(scale, F)), "affine", {"scale": expected}, x)
    pool = draw(st.sampled_from(["none", "maxpool2d", "sumpool2d", "avgpool2d", "adaptive_max_pool2d"]))
    if pool == "none":
        return x
    if pool == "adaptive_max_pool2d":
        shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        return twin.add(AdaptiveMaxPool2d(shape), pool, {"size": shape}, x)
    window = draw(slidings(window.size, largest=2))
    layer = {"maxpool2d": MaxPool2d, "sumpool2d": SumPool2d, "avgpool2d": AvgPool2d}[pool]
    return twin.add(layer(window.kernel, window.stride, window.padding), pool, window.parameters, x)


def _rearranged(draw: st.DrawFn, twin: Twin, x: str) -> str:
    """A map of other sizes, its values anywhere in it, once, several times or not at all."""
    shape = draw(st.tuples(st.sampled_from([1, 2, 4]), st.integers(3, 5), st.integers(3, 5)))
    indices = draw(randoms()).integers(-1, twin.types[x].size, int(np.prod(shape))).astype(np.int32)
    parameters = {"indices": indices, "shape": shape}
    return twin.add(Rearrange(indices, shape), "rearrange", parameters, x)


def _residual(draw: st.DrawFn, twin: Twin, x: str) -> str:
    source = twin.types[x]
    modes = ["add", "iand", "and"] if source.kind == "binary" else ["add"]
    mode = draw(st.sampled_from(modes))
    branch = draw(st.sampled_from(["itself", "through synapses", "through synapses"]))
    if branch == "itself":
        return twin.add(Residual(mode), "residual", {"op": mode}, x, x)
    if len(source.grid) == 2 and "as_tokens" not in twin.layers:
        weight = draw(weights(source.channels, source.channels, 3, 3))
        parameters = {"weight": weight, "bias": None, "stride": (1, 1), "padding": (1, 1), "groups": 1}
        y = twin.add(Conv2d(weight, padding=(1, 1)), "conv2d", parameters, x)
    else:
        weight = draw(weights(source.channels, source.channels))
        y = twin.add(Linear(weight), "linear", {"weight": weight, "bias": None}, x)
    y = twin.add(*draw(neurons(source.shape, tokens="as_tokens" in twin.layers)), y)
    return twin.add(Residual(mode), "residual", {"op": mode}, x, y)


def _attention(draw: st.DrawFn, twin: Twin, wanted: Wanted, x: str, tokens: str) -> str:
    """Queries, keys and values, and what makes something of them; maps are tokens in the reference."""
    heads = draw(st.integers(1, 3))
    size, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    mechanism = draw(st.sampled_from(["attention", "attention", "gated channels", "gated heads"]))
    sizes = [heads * size, heads * size, heads * (width if mechanism == "attention" and draw(st.booleans()) else size)]
    parts = draw(st.sampled_from([_projections, _one_projection]))(draw, twin, wanted, x, tokens, sizes)
    if mechanism == "attention":
        scale = draw(st.sampled_from([0.125, 0.25, 1.0]))
        layer = SpikingAttention(heads, scale, draw(st.sampled_from(["scores_first", "context_first"])))
        y = twin.add(layer, "spiking_attention", {"heads": heads, "scale": scale}, *parts)
        y = twin.add(*draw(neurons(twin.types[y].shape, "as_tokens" in twin.layers)), y)
        return _residual(draw, twin, y)
    q, k, v = parts
    on_map = "as_tokens" in twin.layers
    if mechanism == "gated channels":
        y = twin.add(SumOverPositions(), "sum_over_positions", {}, twin.add(Gate(), "gate", {}, k, v))
        on_map = False  # a vector
    else:
        q = twin.add(Gate(), "gate", {}, v, q)
        y = twin.add(SumOverChannels(heads), "sum_over_channels", {"groups": heads}, k)
    y = twin.add(*draw(neurons(twin.types[y].shape, on_map)), y)
    return _residual(draw, twin, twin.add(Gate(), "gate", {}, y, q))


def _projection(draw: st.DrawFn, twin: Twin, wanted: Wanted, x: str, tokens: str, size: int, activation: str) -> str:
    """Synapses, and spikes or integers."""
    weight, bias = draw(weights(size, twin.types[x].channels)), draw(wanted.bias(size))
    name = f"n{len(twin.build.layers)}_linear"
    layer = SparseLinear.from_matrix(weight, bias) if draw(st.booleans()) else Linear(weight, bias)
    twin.build.add(name, layer, x)
    twin.describe(name, "linear", {"weight": weight, "bias": bias}, tokens)
    if activation == "integers":
        options = {"maximum": draw(st.integers(1, 4)), "ties": draw(st.sampled_from(["even", "up"]))}
        return twin.add(IntegerActivation(**options), "integer_activation", options, name)
    return twin.add(*draw(neurons(twin.types[name].shape, "as_tokens" in twin.layers)), name)


def _projections(draw: st.DrawFn, twin: Twin, wanted: Wanted, x: str, tokens: str, sizes: list[int]) -> list[str]:
    """One for each, of spikes or of integers."""
    activations = draw(st.sampled_from([["spikes"] * 3, ["integers"] * 3, ["integers", "spikes", "integers"]]))
    return [
        _projection(draw, twin, wanted, x, tokens, size, activation)
        for size, activation in zip(sizes, activations, strict=True)
    ]


def _one_projection(draw: st.DrawFn, twin: Twin, wanted: Wanted, x: str, tokens: str, sizes: list[int]) -> list[str]:
    """One for all, of which each takes channels of its own, in any order."""
    y = _projection(draw, twin, wanted, x, tokens, sum(sizes), draw(st.sampled_from(["spikes", "integers"])))
    order = np.arange(sum(sizes), dtype=np.int32)
    if draw(st.booleans()):
        order = draw(randoms()).permutation(order)
    chosen = np.split(order, np.cumsum(sizes)[:-1])
    return [twin.add(SelectChannels(indices), "select_channels", {"indices": indices}, y) for indices in chosen]


def _head(draw: st.DrawFn, twin: Twin, wanted: Wanted, x: str, steps: int) -> str:
    """Logits from tokens. Means come only where they are dyadic, in any order."""
    source = twin.types[x]
    means = []
    if steps in (1, 2, 4) and draw(st.booleans()):
        means.append((MeanOverTime(), "mean_over_time"))
    if source.positions in (1, 2, 4, 8, 16) and draw(st.booleans()):
        means.insert(draw(st.integers(0, len(means))), (MeanOverPositions(), "mean_over_positions"))
    for layer, kind in means:
        x = twin.add(layer, kind, {}, x)
    if means and draw(st.booleans()):
        scale, shift = draw(weights(source.channels)), draw(wanted.bias(source.channels))
        x = twin.add(Affine(scale, shift), "affine", {"scale": scale, "shift": shift}, x)
    if twin.types[x].grid:
        x = _flatten(twin, x)
    weight = draw(weights(4, twin.types[x].size))
    layer = SparseLinear.from_matrix(weight) if draw(st.booleans()) else Linear(weight)
    x = twin.add(layer, "linear", {"weight": weight, "bias": None}, x)
    if not means and draw(st.booleans()):
        x = twin.add(*draw(neurons((4,))), x)
    return twin.build.add("readout", Readout(draw(st.sampled_from(["last", "sum"]))), x)


def _flatten(twin: Twin, x: str) -> str:
    """A map is flattened channel by channel, so the tokens of the reference are turned first."""
    turned = twin.describe("turned", "channels_from_tokens", {}, x) if "as_tokens" in twin.layers else x
    name = f"n{len(twin.build.layers)}_flatten"
    twin.build.add(name, Flatten(), x)
    return twin.describe(name, "flatten", {}, turned)
