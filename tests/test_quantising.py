"""Networks that become integers: which layers do, what they compute, what is refused, and what a model file keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference import integers, pooling, residual
from reference.attention import spiking_attention
from strategies import networks, randoms

from eventsim import Delayed, InputError, Network, NetworkBuilder, Simulator, load, quantise, save, verify
from eventsim.cli.commands.quantising import spread_files
from eventsim.cli.main import main
from eventsim.layers import (
    IF,
    LIF,
    PLIF,
    AvgPool2d,
    Conv2d,
    Flatten,
    Gate,
    Input,
    IntegerActivation,
    IntegerConv2d,
    IntegerLIF,
    IntegerLinear,
    Layer,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    Readout,
    Residual,
    SelectChannels,
    SpikingAttention,
    SumOverChannels,
    SumOverPositions,
    SumPool2d,
    TableAttention,
    WindowedLinear,
)
from eventsim.layers.neurons.decay_lif import DecayLIF
from eventsim.quantising.bounds import largest_values
from eventsim.signals import SignalType

F = np.float32
SHAPE = (6, 4, 4)


def some(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 0.3, shape).astype(F)


def block(rng: np.random.Generator, kind: str = "binary", **neuron: Any) -> Network:
    """Convolution, pool before the neurons, attention, a residual, a linear layer on its sums, a mean and a head."""
    build = NetworkBuilder("block")
    x = build.add("input", Input((2, 8, 8), kind))  # type: ignore[arg-type]
    x = build.add("conv", Conv2d(some(rng, 6, 2, 3, 3), some(rng, 6), padding=(1, 1)), x)
    x = build.add("pool", MaxPool2d((2, 2), (2, 2)), x)
    x = build.add("lif", LIF(v_threshold=0.25, **neuron), x)
    q, k, v = (
        build.add(f"{n}_lif", LIF(0.1, tau=t), build.add(n, Linear(some(rng, 6, 6), some(rng, 6)), x))
        for n, t in (("q", 2.0), ("k", 3.0), ("v", 4.0))
    )
    y = build.add("attention", SpikingAttention(2, 0.25), q, k, v)
    y = build.add("attention_lif", LIF(0.5, tau=1.5, decay_input=False), y)
    x = build.add("add", Residual("add"), x, y)
    x = build.add("fc", Linear(some(rng, 40, 6), some(rng, 40)), x)
    x = build.add("fc_if", IF(some(rng, 40) ** 2 + F(0.3), "subtract"), x)
    x = build.add("mean", MeanOverPositions(), x)
    x = build.add("head", Linear(some(rng, 3, 40)), x)
    build.add("readout", Readout("sum"), x)
    return build.build(time_steps=4)


def frames(rng: np.random.Generator, kind: str = "binary") -> np.ndarray:
    values = np.ones((4, 2, 8, 8)) if kind == "binary" else rng.integers(1, 9, (4, 2, 8, 8))
    return np.where(rng.random((4, 2, 8, 8)) < 0.5, values, 0).astype(F)


def in_integers(network: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    """The block in 64-bit integers, from the arrays of its layers alone."""

    def sums(name: str, given: np.ndarray) -> np.ndarray:
        layer: Any = network.layers[name]
        if layer.weight.ndim == 4:
            return integers.conv2d(given, layer.weight, layer.stride, layer.padding)
        return integers.linear(given.transpose(0, 2, 3, 1), layer.weight).transpose(0, 3, 1, 2)

    def fires(name: str, given: np.ndarray) -> np.ndarray:
        layer: Any = network.layers[name]
        constants = (layer.v_threshold, 0 if layer.bias is None else layer.bias, layer.leak)
        spread = [np.asarray(a)[:, None, None] if np.ndim(a) == 1 else a for a in constants]
        options = {"input_leaks": layer.input_leaks, "fraction": layer.fraction, "strict": layer.strict}
        return integers.lif(given, *spread, subtract=layer.reset == "subtract", **options)[0]

    out = {"conv": sums("conv", x)}
    out["lif"] = fires("lif", pooling.maxpool2d(out["conv"].astype(F), (2, 2), (2, 2)))
    for name in "qkv":
        out[f"{name}_lif"] = fires(f"{name}_lif", sums(name, out["lif"]))
    q, k, v = (out[f"{name}_lif"].reshape(len(x), 6, 16).swapaxes(1, 2).astype(F) for name in "qkv")
    attended = spiking_attention(q, k, v, heads=2, scale=1.0)
    attended = (attended[0] if isinstance(attended, tuple) else attended).swapaxes(1, 2).reshape(len(x), *SHAPE)
    out["attention"] = attended
    out["attention_lif"] = fires("attention_lif", attended)
    out["fc"] = sums("fc", residual.residual(out["lif"].astype(F), out["attention_lif"].astype(F), "add"))
    out["fc_if"] = fires("fc_if", out["fc"])
    return out


@given(rng=randoms(), kind=st.sampled_from(["binary", "graded"]), scales=st.sampled_from(["exact", "power_of_two"]))
def test_a_network_of_integers_is_exact(rng: np.random.Generator, kind: str, scales: Any) -> None:
    network, x = block(rng, kind), frames(rng, kind)
    try:
        integer = quantise(network, [x], scales=scales, fraction=int(rng.integers(0, 13)))
    except InputError as error:
        assert "no spike in 1 samples found" in str(error)
        return
    expected = in_integers(integer, x)
    for chunk in (1, 3, 4):
        result = Simulator(integer, chunk=chunk, record=list(expected)).run(x)
        for name, values in expected.items():
            assert_array_equal(result.recorded[name], values, err_msg=name)
    found = verify(integer, x)
    assert found.holds
    assert found.differing == 0
    assert found.compared == sum(values.size for name, values in expected.items() if name.endswith(("lif", "_if")))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def quantised(rng: np.random.Generator, **options: Any) -> tuple[Network, Network]:
    network = block(rng)
    return network, quantise(network, [frames(rng) for _ in range(4)], **options)


def test_samples_may_come_one_time_step_after_the_other(rng: np.random.Generator) -> None:
    network, samples = block(rng), [frames(rng) for _ in range(2)]
    one, two = quantise(network, samples), quantise(network, map(iter, samples))
    assert one.settings == two.settings


def test_what_is_rounded(rng: np.random.Generator) -> None:
    """Weights to 127 steps of the largest, biases and thresholds to steps of the potential, leaks to 15 bits."""
    network, integer = quantised(rng)
    conv: Any = integer.layers["conv"]
    before: Any = network.layers["conv"]
    assert (np.abs(conv.weight.reshape(6, -1)).max(1) == 127).all()
    error = np.abs(conv.weight * conv.scale[:, None, None, None].astype(np.float64) - before.weight)
    assert (error <= 0.5001 * conv.scale[:, None, None, None]).all()
    lif: Any = integer.layers["lif"]
    unit = conv.scale.astype(np.float64) / 2.0**lif.fraction
    assert lif.fraction == 12
    assert (np.abs(lif.v_threshold * unit - 0.25) <= 0.5001 * unit).all()
    assert (np.abs(lif.bias * unit - before.bias) <= 0.5001 * unit).all()
    shares = {name: integer.layers[f"{name}_lif"].leak for name in ("q", "k", "v", "attention")}  # type: ignore[attr-defined]
    assert shares == {"q": 1 << 14, "k": 10_923, "v": 1 << 13, "attention": 21_845}
    attention: Any = integer.layers["attention_lif"]
    assert not attention.input_leaks
    assert (np.asarray(attention.v_threshold) == 2 << 12).all()  # 0.5 over the scale 0.25, exactly
    assert integer.layers["attention"].scale == 1  # type: ignore[attr-defined]
    powers: Any = quantise(network, [frames(rng) for _ in range(4)], scales="power_of_two").layers["conv"]
    assert (np.frexp(powers.scale)[0] == 0.5).all()
    assert (powers.scale >= conv.scale * F(0.999)).all()


def test_bounds_follow_the_graph(rng: np.random.Generator) -> None:
    network, integer = quantised(rng)
    bounds = largest_values(network)
    assert bounds["add"] == 2
    assert bounds["attention"] == 3 * 16  # channels of a head times tokens
    assert bounds["conv"] is None
    fc: Any = integer.layers["fc"]
    sides = np.maximum(fc.weight, 0).sum(1, dtype=int), -np.minimum(fc.weight, 0).sum(1, dtype=int)
    assert fc.largest_input == 2
    assert fc.width.largest == 2 * max(side.max() for side in sides)
    assert integer.layers["fc_if"].largest_input == fc.width.largest  # type: ignore[attr-defined]
    assert integer.layers["attention_lif"].largest_input == 48  # type: ignore[attr-defined]


REACHED: dict[str, tuple[tuple[Layer, ...], int]] = {
    "sum pool": ((SumPool2d((2, 3), (1, 1)),), 6),
    "a maximum of sums": ((SumPool2d((2, 2), (2, 2)), MaxPool2d((2, 2), (1, 1))), 4),
    "channels": ((SumOverChannels(2),), 3),
    "positions": ((SumOverPositions(),), 16),
    "integers": ((Conv2d(np.full((6, 6, 1, 1), 9, F)), IntegerActivation(5)), 5),
    "select": ((SumOverPositions(), SelectChannels(np.array([1, 0], np.int32))), 16),
    "several": ((SumPool2d((2, 2), (2, 2)), SumOverPositions(), SumOverChannels(1)), 96),
}


@pytest.mark.parametrize("case", REACHED)
def test_a_bound_is_reached_where_everything_is_active(case: str) -> None:
    chained, largest = REACHED[case]
    build = NetworkBuilder("active")
    x = build.add("input", Input(SHAPE, "binary"))
    for index, layer in enumerate(chained):
        x = build.add(f"layer{index}", layer, x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x) if build.types[x].grid else x)
    network = build.build(time_steps=1)
    assert largest_values(network)[x] == largest
    assert Simulator(network, record=[x]).run(np.ones((1, *SHAPE), F)).recorded[x].max() == largest


def test_attentions_are_bounded_by_heads_tokens_and_tables() -> None:
    spikes, graded = SignalType("binary", 6, (5,)), SignalType("graded", 6, (5,))
    table = np.array([[0, 1, -9, 3], [0, -1, 0, 7]], np.int32)
    for layer, kinds, largest in (
        (SpikingAttention(2), (spikes,) * 3, 15),
        (SpikingAttention(3), (graded,) * 3, 10 * 2**3),
        (TableAttention(table), (spikes,) * 3, 45),
        (Gate(), (graded, graded), 4),
        (Gate(), (graded, spikes), 2),
    ):
        build = NetworkBuilder("attention")
        x = build.add("input", Input((5, 6), "binary"))
        parts = [x if kind is spikes else build.add(f"sum{n}", Residual("add"), x, x) for n, kind in enumerate(kinds)]
        build.add("attention", layer, *parts)
        build.add("readout", Readout(), build.add("flatten", Flatten(), "attention"))
        assert largest_values(build.build(time_steps=1))["attention"] == largest


@given(drawn=networks(kinds=("binary",)))
def test_no_value_leaves_its_bound(drawn: Any) -> None:
    """Of any network, also where it is as active as it can be."""
    bounds = largest_values(drawn.network)
    bounded = [name for name in drawn.network.layers if bounds[name] is not None and name != "readout"]
    for x in (drawn.frames, np.ones_like(drawn.frames)):
        recorded = Simulator(drawn.network, record=bounded).run(x).recorded
        for name in bounded:
            scale = getattr(drawn.network.layers[name], "scale", 1)
            assert np.abs(recorded[name]).max(initial=0) <= bounds[name] * scale, name


def test_counts_are_those_of_the_same_work(rng: np.random.Generator) -> None:
    """Of equal spikes: the synapses of float32, and its biases, counted where they are added now."""
    network, integer = quantised(rng)
    x = frames(rng)
    one, other = Simulator(network).run(x), Simulator(integer).run(x)
    layers = [{layer.name: layer.counts for layer in result.profile} for result in (one, other)]
    assert layers[0]["conv"].acs == layers[1]["conv"].acs > 0
    # behind the pool there are fewer to add a bias to
    assert one.totals.bias_additions - layers[0]["conv"].bias_additions == other.totals.bias_additions - 4 * 96
    assert layers[1]["conv"].bias_additions == 0
    assert layers[1]["lif"].bias_additions == 4 * 96
    assert one.totals.neuron_updates == other.totals.neuron_updates
    assert integer.parameters == network.parameters
    facts = {layer.name: layer.facts.words for layer in other.profile}
    assert {kind: words.bits for kind, words in facts["conv"].items()} == {"weight": 8, "sum": 16}
    assert {kind: words.bits for kind, words in facts["lif"].items()} == {"potential": 32, "bias": 32}
    assert facts["head"]["weight"].bits == 32


def test_what_stays_float32_is_said(rng: np.random.Generator) -> None:
    _, integer = quantised(rng)
    said = [setting.sentence for setting in integer.settings]
    assert said == [
        "integer = int8: 12 layers, exact scales, up to 12 bits behind the point, checked on 4 samples",
        "float32 = head: its input is real-valued",
    ]
    kinds = {name: type(layer) for name, layer in integer.layers.items()}
    assert {kinds[name] for name in ("lif", "q_lif", "attention_lif", "fc_if")} == {IntegerLIF}
    assert (kinds["conv"], kinds["fc"], kinds["head"]) == (IntegerConv2d, IntegerLinear, Linear)


def chain(layer: Layer, neuron: Layer, *between: Layer, kind: str = "binary") -> Network:
    build = NetworkBuilder("chain")
    x = build.add("input", Input((2, 4, 4), kind))  # type: ignore[arg-type]
    x = build.add("first", layer, x)
    for index, more in enumerate(between):
        x = build.add(f"between{index}", more, x)
    x = build.add("neuron", neuron, x)
    x = build.add("second", Linear(np.eye(2, dtype=F)), x)
    x = build.add("last", IF(0.5), x)
    x = build.add("sum", SumOverPositions(), x)
    build.add("readout", Readout("sum"), x)
    return build.build(time_steps=2)


CONV = Conv2d(np.full((2, 2, 1, 1), 0.5, F))
STAYS: dict[str, tuple[Network, str, str]] = {
    "real input": (chain(CONV, IF(), kind="real"), "first", "its input is real-valued"),
    "behind it": (chain(CONV, IF(), kind="real"), "neuron", "its input comes from first, which emits no integer sums"),
    "a mean": (
        chain(CONV, IF(), AvgPool2d((1, 1), (1, 1))),
        "first",
        "its sums go to between0, which takes",
    ),
    "late reset": (chain(CONV, IF(reset="zero_late")), "neuron", "its reset is zero_late"),
    "its synapses": (chain(CONV, IF(reset="zero_late")), "first", "its sums go to neuron, which takes no integer sums"),
    "floor": (chain(CONV, IF(v_min=-1.0)), "neuron", "its potential has a start or a floor"),
    "several": (chain(CONV, IF(multiple_spikes=True)), "neuron", "it emits more than one spike in a step"),
    "threshold": (chain(CONV, IF(np.array([1, 0], F))), "neuron", "a threshold is not above 0"),
    "growing": (chain(CONV, DecayLIF(decay=1.5)), "neuron", "its potential grows by itself"),
    "slow": (chain(CONV, LIF(1e-7, tau=1e6)), "neuron", "a time constant is beyond 65536 steps"),
}


@pytest.mark.parametrize("case", STAYS)
def test_a_layer_without_integers_says_why(case: str) -> None:
    network, name, reason = STAYS[case]
    integer = quantise(network, [np.ones((2, 2, 4, 4), F)])
    told = {layer: s.note for s in integer.settings if s.option == "float32" for layer in s.value}  # type: ignore[union-attr]
    assert told[name].startswith(reason)
    assert type(integer.layers[name]) is type(network.layers[name])
    assert isinstance(integer.layers["last"], IntegerLIF)


@pytest.mark.parametrize("padded", [False, True])
def test_a_mean_before_integers_is_a_sum(padded: bool, rng: np.random.Generator) -> None:
    """Its window is in the scale of the weights; a mean of as many values as there are stays, and who hears it, too."""
    build = NetworkBuilder("mean")
    x = build.add("input", Input((2, 8, 8), "binary"))
    pool = AvgPool2d((2, 2), (2, 2), (1, 1), count_include_pad=False) if padded else AvgPool2d((2, 2), (2, 2))
    x = build.add("conv", Conv2d(some(rng, 3, 2, 3, 3)), build.add("pool", pool, x))
    x = build.add("last", IF(0.3), x)
    x = build.add("third", IF(0.3), build.add("fc", Linear(np.eye(3, dtype=F)), x))
    build.add("readout", Readout("sum"), build.add("sum", SumOverPositions(), x))
    network, x = build.build(time_steps=4), frames(rng)  # type: ignore[assignment]
    integer = quantise(network, [x])
    if padded:
        assert type(integer.layers["pool"]) is AvgPool2d
        assert_array_equal(integer.layers["conv"].weight, network.layers["conv"].weight)  # type: ignore[attr-defined]
        assert isinstance(integer.layers["fc"], IntegerLinear)
        return
    assert type(integer.layers["pool"]) is SumPool2d
    conv: Any = integer.layers["conv"]
    before: Any = network.layers["conv"]
    assert conv.largest_input == 4
    error = np.abs(4.0 * conv.weight * conv.scale[:, None, None, None] - before.weight)
    assert (error <= 4 * 0.5001 * conv.scale[:, None, None, None]).all()
    one, other = (Simulator(each, record=["last"]).run(x).recorded["last"] for each in (network, integer))  # type: ignore[arg-type]
    assert (one != other).mean() < 0.02


def test_delayed_sums_stay() -> None:
    """A sum that waits is 0 before, without the bias that neurons would add."""
    build = NetworkBuilder("two")
    x = build.add("input", Input((2,), "binary"))
    x = build.add("late", Linear(np.eye(2, dtype=F), np.full(2, 9, F)), x)
    x = build.add("heard", PLIF(), Delayed(x, 1))
    x = build.add("third", Linear(np.eye(2, dtype=F)), x)
    x = build.add("last", PLIF(v_threshold=0.1, w=0.3, decay_input=False), x)
    build.add("readout", Readout("sum"), x)
    integer = quantise(build.build(time_steps=2), [np.ones((6, 2), F)])
    assert {name for name, layer in integer.layers.items() if isinstance(layer, IntegerLinear)} == {"third"}
    last: Any = integer.layers["last"]
    assert last.leak == round(2**15 / (1 + np.exp(-0.3)))
    assert not last.input_leaks


def branches(rng: np.random.Generator, steep: float = 0.3) -> Network:
    """Two sums, of which one is heard alone too; a sum and spikes; and that and a sum over a window."""
    build = NetworkBuilder("branches")
    x = build.add("input", Input((5, 6), "binary"))
    a = build.add("a", Linear(some(rng, 6, 6), some(rng, 6)), x)
    finer = F(2.0 ** rng.choice([-3, 3]))
    b = build.add("b", Linear(some(rng, 6, 6) * finer, some(rng, 6)), x)
    a_if = build.add("a_if", IF(0.25), a)
    ab = build.add("ab_if", IF(0.25), build.add("ab", Residual("add"), a, b))
    spikes = build.add("spikes", Residual("add"), a_if, ab)
    c = build.add("c", Linear(some(rng, 6, 6) * F(steep), some(rng, 6)), ab)
    beside = build.add("beside", Residual("add"), spikes, c)
    beside_if = build.add("beside_if", LIF(1.0), beside)
    d = build.add("d", WindowedLinear(some(rng, 6, 6), some(rng, 6), 3, (1, 2)), beside_if)
    x = build.add("d_if", IF(1.0), build.add("beside_d", Residual("add"), beside, d))
    x = build.add("mean", MeanOverPositions(), x)
    build.add("readout", Readout("sum"), x)
    return build.build(time_steps=4)


@given(rng=randoms(), scales=st.sampled_from(["exact", "power_of_two"]))
def test_sums_of_branches_are_of_one_unit_and_exact(rng: np.random.Generator, scales: Any) -> None:
    network, x = branches(rng), (rng.random((4, 5, 6)) < 0.5).astype(F)
    try:
        integer = quantise(network, [x], scales=scales, fraction=6)
    except InputError as error:
        assert "no spike in 1 samples found" in str(error)
        return
    made: Any = integer.layers
    assert not [setting for setting in integer.settings if setting.option == "float32"]
    assert type(made["ab"]) is Residual
    assert_array_equal(made["a"].scale, made["b"].scale)
    assert_array_equal(made["c"].scale, made["d"].unit)
    for name in "abcd":
        scale = made[name].scale[:, None].astype(np.float64)
        error = np.abs(made[name].weight * scale - network.layers[name].weight)  # type: ignore[attr-defined]
        assert (error <= 0.5001 * scale).all(), name
    worth = made["beside"].factors[0]
    assert_array_equal(worth, np.rint(1 / made["c"].scale.astype(np.float64)))
    assert (np.abs(worth * made["c"].scale - 1) < 1e-6).all()
    assert (made["beside"].factors[1] == 1).all()
    assert type(made["beside_d"]) is Residual
    # what arrives at neurons, in 64-bit integers
    out = {"a": integers.linear(x, made["a"].weight), "b": integers.linear(x, made["b"].weight)}

    def fires(name: str, given: np.ndarray) -> np.ndarray:
        layer = made[name]
        options = {"input_leaks": layer.input_leaks, "fraction": layer.fraction}
        return integers.lif(given, layer.v_threshold, layer.bias, layer.leak, **options)[0]

    out["a_if"], out["ab_if"] = fires("a_if", out["a"]), fires("ab_if", out["a"] + out["b"])
    c = integers.linear(out["ab_if"], made["c"].weight)
    out["beside"] = integers.joined(out["a_if"] + out["ab_if"], c, made["beside"].factors)
    out["beside_if"] = fires("beside_if", out["beside"])
    d = integers.windowed_linear(out["beside_if"], made["d"].weight, [3] * 6, [1] * 3 + [2] * 3)
    out["d_if"] = fires("d_if", out["beside"] + d)
    for chunk in (1, 4):
        recorded = Simulator(integer, chunk=chunk, record=list(out)).run(x).recorded
        for name, values in out.items():
            assert_array_equal(recorded[name], values, err_msg=name)
    # biases of branches meet in the neurons, to half a step of the potential
    unit = made["a"].scale.astype(np.float64) / 2.0 ** made["ab_if"].fraction
    biases: Any = network.layers
    assert (np.abs(made["ab_if"].bias * unit - biases["a"].bias - biases["b"].bias) <= 0.5001 * unit).all()
    assert np.abs(recorded["beside"]).max() <= made["beside_if"].largest_input


def test_a_branch_whose_unit_is_more_than_a_spike_stays(rng: np.random.Generator) -> None:
    network = branches(rng, steep=900.0)
    integer = quantise(network, [(rng.random((4, 5, 6)) < 0.5).astype(F) for _ in range(3)])
    told = {layer: s.note for s in integer.settings if s.option == "float32" for layer in s.value}  # type: ignore[union-attr]
    assert told["c"] == "its sums go to beside, which takes no integer sums"
    assert isinstance(integer.layers["ab_if"], IntegerLIF)
    assert isinstance(integer.layers["beside_if"], LIF)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "silent": (
        lambda: quantise(chain(CONV, IF(9.0)), [np.ones((2, 2, 4, 4), F)]),
        "layer neuron: no spike in 1 samples found; expected samples of the training data",
    ),
    "no sample": (lambda: quantise(chain(CONV, IF()), []), "network chain: no sample found"),
    "nothing to do": (
        lambda: quantise(replace_last(chain(CONV, IF(), kind="real")), [np.ones((2, 2, 4, 4), F)]),
        "network chain: no layer that becomes an integer found (first: its input is real-valued)",
    ),
    "scales": (lambda: quantise(chain(CONV, IF()), [], scales="nearest"), "scales 'nearest' found; expected"),  # type: ignore[arg-type]
    "fraction": (lambda: quantise(chain(CONV, IF()), [], fraction=17), "fraction 17 found; expected 0 to 16 bits"),
    "no width": (lambda: quantise(wide(), [np.ones((1, 140_000), F)]), "layer fc: sums up to 17780000 found (weights"),
}


def replace_last(network: Network) -> Network:
    return replace(network, layers={**network.layers, "last": IF(0.5, "zero_late")})


def wide() -> Network:
    build = NetworkBuilder("wide")
    x = build.add("input", Input((140_000,), "binary"))
    x = build.add("fc", Linear(np.ones((1, 140_000), F)), x)
    x = build.add("fire", IF(), x)
    build.add("readout", Readout("sum"), x)
    return build.build(time_steps=1)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_quantised_is_refused_in_one_line(case: str) -> None:
    act, message = REFUSED[case]
    with pytest.raises(InputError) as caught:
        act()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_extreme_channels_keep_to_their_bits() -> None:
    """A channel of hardly any weight, one of a huge bias, one of nothing: their scale grows, and nothing overflows."""
    weight = np.array([[1e-12, 0], [1e-6, 1e-6], [0, 0], [1, -1]], F)
    build = NetworkBuilder("extreme")
    x = build.add("input", Input((2,), "binary"))
    x = build.add("fc", Linear(weight, np.array([0, 40, 0.5, 0], F)), x)
    x = build.add("fire", IF(np.array([1, 1, 1, 1e-9], F), "subtract"), x)
    build.add("readout", Readout("sum"), x)
    network = build.build(time_steps=8)
    integer = quantise(network, [np.eye(2, dtype=F)[np.zeros(8, int)]])
    x = np.eye(2, dtype=F)[np.zeros(8, int)]
    expected, found = Simulator(network).run(x), Simulator(integer).run(x)
    assert_array_equal(found.logits, [0, 8, 4, 8])
    assert_array_equal(expected.logits, found.logits)


def test_a_model_file_keeps_integers(rng: np.random.Generator, tmp_path: Path) -> None:
    _, integer = quantised(rng)
    save(integer, tmp_path / "int8.h5")
    again = load(tmp_path / "int8.h5")
    assert again.settings == integer.settings
    for name, layer in integer.layers.items():
        other = again.layers[name]
        assert type(other) is type(layer)
        for field, array in layer.arrays().items():
            assert other.arrays()[field].dtype == array.dtype
            assert_array_equal(other.arrays()[field], array)
    x = frames(rng)
    one, two = Simulator(integer).run(x), Simulator(again, chunk=1).run(x)
    assert_array_equal(one.logits, two.logits)
    assert one.totals == two.totals


def test_the_command_line(rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, int8, data = tmp_path / "model.h5", tmp_path / "int8.h5", tmp_path / "training"
    data.mkdir()
    save(block(rng), model)
    for index in range(5):
        np.save(data / f"{index}.npy", frames(rng))
    assert main(["quantise", str(model), "--calibrate", str(data), "-o", str(int8), "--samples", "3"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("12 layers, exact scales, up to 12 bits behind the point, checked on 3 samples")
    assert said[1:] == ["stays float32: head: its input is real-valued", f"wrote {int8}"]
    inputs = str(data / "0.npy")
    assert main(["profile", str(int8), inputs]) == 0
    out = capsys.readouterr().out
    assert "gather_int8_" in out
    assert "energy, 45nm_int8_sums32: " in out
    assert main(["info", str(int8), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"][-1] == {
        "option": "float32", "value": ["head"], "source": "inferred", "note": "its input is real-valued",
    }  # fmt: skip
    for arguments, told in (
        (
            ["run", str(int8), inputs, "--energy", "45nm_mac"],
            "eventsim: layer conv: integer sums of 16 bits found",
        ),
        (
            ["quantise", str(model), "--calibrate", str(tmp_path / "no"), "-o", str(int8)],
            "eventsim: ",
        ),
        (["quantise", str(model), "--calibrate", str(data), "-o", str(model)], f"eventsim: {model}: -o names the file"),
        (
            ["quantise", str(int8), "--calibrate", str(data), "-o", str(tmp_path / "b.h5")],
            "eventsim: network block: no",
        ),
    ):
        assert main(arguments) == 2, arguments
        complaint = capsys.readouterr().err
        assert complaint.startswith(told)
        assert complaint.count("\n") == 1


def test_samples_are_spread_over_the_files(tmp_path: Path) -> None:
    for name in ("b/3", "a/1", "a/.hidden", "a/2", "c/4", "c/5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for most, names in ((3, ["1", "2", "4"]), (9, ["1", "2", "3", "4", "5"]), (1, ["1"])):
        assert [file.name for file in spread_files([str(tmp_path)], most)] == names
    with pytest.raises(InputError, match=r"empty: no file below it found; expected recordings"):
        (tmp_path / "empty").mkdir()
        spread_files([str(tmp_path / "empty")], 1)
