"""What conventions say of a run: documents, what each does not see, silence and refusals, reasons."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_conventions import samples, small_spikformer

import eventsim
from eventsim import InputError, Network, NetworkBuilder, Result, Simulator
from eventsim.accounting.conventions import CONVENTIONS, Seen, compare, energy_mj, estimate, estimates, seen
from eventsim.accounting.conventions.convention import Charge
from eventsim.accounting.conventions.reasons import reasons
from eventsim.facts import Facts
from eventsim.layers import (
    IF,
    Affine,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    MeanOverTime,
    Readout,
    Residual,
    SelectChannels,
    SoftmaxAttention,
    SpikingAttention,
)
from eventsim.ledger import Counts
from eventsim.profile import LayerProfile
from eventsim.report.document import sample_document
from eventsim.signals import SignalType
from eventsim.values import Values

# --- documents


def test_a_profile_holds_every_convention_beside_the_exact_counts() -> None:
    network = small_spikformer(channels=2)
    result = Simulator(network).run(samples()["counts"])
    document = sample_document("sample", network, result)
    found = document["conventions"]
    assert list(found) == list(CONVENTIONS)
    numbers = estimates(result.profile)
    for name, convention in CONVENTIONS.items():
        counts = convention(seen(result.profile))
        assert counts == Counts(acs=found[name]["acs"], macs=found[name]["macs"])
        assert found[name]["energy_mj"] == energy_mj(counts)
        assert numbers[name] == {key: value for key, value in found[name].items() if key != "reasons"}
    totals = document["totals"]
    assert found["exact_unary"]["acs"] == totals["acs"] + totals["graded_acs"]
    assert found["exact_macs"]["macs"] == totals["graded_macs"] + totals["macs"]


# --- what they do not see


def one_convolution(values: np.ndarray) -> tuple[Network, Result]:
    """Sixteen maps of 8 x 8 pixels, 190 active inputs."""
    rng = np.random.default_rng(0)
    frames = np.zeros(16 * 8 * 8, np.float32)
    frames[rng.permutation(frames.size)[: len(values)]] = values
    build = NetworkBuilder("convolution")
    x = build.add("input", Input((16, 8, 8), "graded"))
    x = build.add("conv", Conv2d(rng.normal(size=(16, 16, 3, 3)).astype(np.float32), padding=(1, 1)), x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network = build.build()
    return network, Simulator(network).run(frames.reshape(1, 16, 8, 8))


def numbers_of(network: Network, result: Result, name: str) -> tuple[int, int]:
    found = estimate(result.profile, name)
    return found.acs, found.macs


def test_a_convention_does_not_see_borders() -> None:
    network, result = one_convolution(np.ones(190))
    executed = result.totals.graded_macs
    assert executed < 27_360
    for name in ("syops", "spikingformer_tool", "spikingformer_tool_30"):
        assert numbers_of(network, result, name) == (27_360, 0)
    for name in ("spikingjelly", "spikingjelly_synops", "neurobench"):
        assert numbers_of(network, result, name) == (executed, 0)


def test_a_single_integer_makes_a_layer_dense() -> None:
    values = np.ones(190)
    values[0] = 2
    network, result = one_convolution(values)
    executed = result.totals.graded_macs
    for name in ("syops", "spikingformer_tool", "spikingjelly"):
        assert numbers_of(network, result, name) == (0, 147_456)
    assert numbers_of(network, result, "neurobench") == (0, executed)
    assert numbers_of(network, result, "spikingformer_tool_30") == (round(147_456 * 191 / 1024), 0)
    (said,) = estimate(result.profile, "syops").reasons
    exact = result.totals.graded_acs
    difference = (4.6 * 147_456 - 0.9 * exact) * 1e-9
    assert said == (
        f"+{difference:.3g} mJ, 100% of the difference: one input that is neither 0 nor 1 makes a layer MACs, all of "
        f"it; layer conv is 100% alone: 147,456 MACs where {exact:,} ACs were executed (1 of its 1,024 inputs are "
        "integers above 1)"
    )


@pytest.mark.parametrize(("value", "spikes"), [(30, True), (31, False)])
def test_the_limit_of_the_tool(value: int, spikes: bool) -> None:
    network, result = one_convolution(np.full(190, value))
    acs, macs = numbers_of(network, result, "spikingformer_tool_30")
    assert (acs > 0, macs > 0) == (spikes, not spikes)


def test_a_rate_of_syops_is_single_precision() -> None:
    """One spike of three inputs: 10^9 operations times a third, as a float32 has it."""
    third = Values(3, 1)
    some = SignalType("binary", 1, (1,))
    layer = LayerProfile("conv", "", "", Facts("convolution", (some,), some, 10**9), 1, values=(third,))
    assert CONVENTIONS["syops"]([Seen(layer)]) == Counts(acs=333_333_343)
    assert CONVENTIONS["spikingformer_tool"]([Seen(layer)]) == Counts(acs=333_333_333)


def test_syops_sees_pools_of_positions_alone() -> None:
    """A mean over time is no module, though a map comes out of it."""
    build = NetworkBuilder("pools")
    x = build.add("pool", MaxPool2d((2, 2), (2, 2)), build.add("input", Input((1, 4, 4), "binary")))
    x = build.add("flatten", Flatten(), build.add("mean", MeanOverTime(), x))
    build.add("readout", Readout(), x)
    network = build.build()
    result = Simulator(network).run(np.ones((3, 1, 4, 4), np.float32))
    assert numbers_of(network, result, "syops") == (3 * 16, 0)


def test_a_join_that_is_no_sum_costs_spikingjelly_nothing_here() -> None:
    build = NetworkBuilder("join")
    one = build.add("one", Linear(np.ones((4, 4), np.float32)), build.add("input", Input((4,), "binary")))
    one = build.add("fire", IF(), one)
    for mode in ("add", "iand"):
        build.add(mode, Residual(mode), one, "input")
    x = build.add("two", Linear(np.ones((3, 4), np.float32)), "iand")
    x = build.add("both", Residual(), x, build.add("three", Linear(np.ones((3, 4), np.float32)), "add"))
    build.add("readout", Readout(), x)
    network = build.build()
    result = Simulator(network).run(np.ones((1, 4), np.float32))
    # 16 synapses; 4 + 4 spikes meet in the sum, which makes the third layer 12 MACs; the IAND is silent; 3 real sums
    assert numbers_of(network, result, "spikingjelly") == (16 + 8 + 3, 12)


# --- attention


def test_both_products_around_a_softmax_are_dense_to_spikingjelly() -> None:
    build = NetworkBuilder("softmax")
    x = build.add("attention", SoftmaxAttention(2), build.add("input", Input((5, 12), "real")))
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    result = Simulator(build.build()).run(np.full((3, 5, 12), 0.5, np.float32))
    # 3 steps, 2 products of 5 x 5 pairs of 4 channels
    found = estimate(result.profile, "spikingjelly")
    assert (found.acs, found.macs) == (0, 3 * 2 * 25 * 4)
    assert estimate(result.profile, "spikingjelly_synops").acs == 0


def test_attention_between_other_layers_than_neurons_counts_like_a_layer() -> None:
    spikes = np.random.default_rng(0).random((2, 6, 8)) < 0.5
    build = NetworkBuilder("attention")
    x = build.add("input", Input((6, 8), "binary"))
    x = build.add("attn", SpikingAttention(heads=2), x, x, x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network = build.build()
    dense = 2 * 2 * 6**2 * 8
    result = Simulator(network).run(spikes)
    assert numbers_of(network, result, "spikingformer_tool") == (round(dense * spikes.mean()), 0)


@pytest.mark.parametrize("kind", ["spikes", "integers", "wide values"])
def test_the_tool_knows_no_attention_but_on_spikes_of_equal_shape(kind: str) -> None:
    build = NetworkBuilder("attention")
    x = build.add("input", Input((3, 4), "graded"))
    x = build.add("neuron", IF(multiple_spikes=kind == "integers"), x)
    v = build.add("wide", SelectChannels(np.arange(8) % 4), x) if kind == "wide values" else x
    if kind == "wide values":
        v = build.add("wide_neuron", IF(), v)
    build.add("attention", SpikingAttention(2), x, x, v)
    build.add("readout", Readout(), build.add("flat", Flatten(), "attention"))
    network = build.build()
    result = Simulator(network).run(np.ones((2, 3, 4), np.float32))
    # every neuron fires in both steps: T H N d^2 (1 + 1), else 2 N^2 (4 + the width of v) dense operations of ones
    formula, dense = 2 * 2 * 3 * 2**2 * 2, 2 * 3**2 * (4 + (8 if kind == "wide values" else 4))
    acs, _ = numbers_of(network, result, "spikingformer_tool")
    assert acs == (formula if kind == "spikes" else dense)


# --- silence and refusals


def without_dense_work() -> tuple[Network, Result]:
    build = NetworkBuilder("nothing")
    build.add("readout", Readout(), build.add("input", Input((4,), "binary")))
    network = build.build()
    return network, Simulator(network).run(np.ones((2, 4)))


def linear_alone(kind: str = "binary", stream: bool = False) -> tuple[Network, Result]:
    build = NetworkBuilder("line")
    x = build.add("fc", Linear(np.ones((3, 4), np.float32)), build.add("input", Input((4,), kind)))
    build.add("readout", Readout(), x)
    network = build.build()
    frames = np.ones((2, 4), np.float32)
    return network, Simulator(network).run(iter(frames) if stream else frames)


def test_without_dense_work_nothing_is_counted() -> None:
    _, result = without_dense_work()
    found = compare(result.profile)
    assert list(found) == [
        "exact_unary", "exact_macs", "spikformer_iclr", "spikformer_v2",
        "syops", "spikingformer_tool", "spikingformer_tool_30",
    ]  # fmt: skip
    assert {(each.acs, each.macs, each.reasons) for each in found.values()} == {(0, 0, ())}


@pytest.mark.parametrize(
    ("run", "name", "says"),
    [
        (without_dense_work, "attention_snn", "no layer with weights found; expected a convolution that comes first"),
        (
            linear_alone,
            "first_convolution_once",
            "linear layer fc found first; expected a convolution that comes first",
        ),
        (linear_alone, "stformer", "no attention found; expected the transformer that the formula is of"),
        (without_dense_work, "neurobench", "no convolution or linear layer found; expected one"),
        (
            lambda: linear_alone(stream=True),
            "neurobench",
            "sums of a stream found; expected the counts of each time step, run T frames",
        ),
        (
            lambda: linear_alone("real"),
            "dampfhoffer",
            "no layer with spikes or integers as inputs found; expected one",
        ),
        (
            without_dense_work,
            "spikingjelly",
            "no convolution, linear layer, spiking attention or attention with softmax found; expected one",
        ),
    ],
)
def test_what_means_nothing_is_left_out_and_refused_by_name(
    run: Callable[[], tuple[Network, Result]], name: str, says: str
) -> None:
    _, result = run()
    assert name not in estimates(result.profile)
    with pytest.raises(InputError) as refused:
        estimate(result.profile, name)
    assert str(refused.value) == f"convention {name}: {says}"


def test_a_convention_that_is_not_there() -> None:
    _, result = linear_alone()
    with pytest.raises(InputError, match=r"^convention 'mine' found; expected one of exact_unary, exact_macs, "):
        estimate(result.profile, "mine")


# --- reasons


def test_reasons_add_up_and_name_the_layer_that_weighs_most() -> None:
    network = small_spikformer(channels=2)
    layers = seen(Simulator(network).run(samples()["counts"]).profile)
    exact = CONVENTIONS["exact_unary"].charge(layers)
    assert reasons(layers, exact, exact) == []
    for name, convention in CONVENTIONS.items():
        charges = convention.charge(layers)
        assert len(charges) == len(layers)
        differences = {
            layer.name: charge.picojoules - done.picojoules
            for layer, charge, done in zip(layers, charges, exact, strict=True)
        }
        whole = sum(map(abs, differences.values()))
        said = reasons(layers, charges, exact)
        assert len(said) <= 3
        sizes = []
        for sentence in said:
            total, rest = sentence.split(" mJ, ", 1)
            sizes.append(abs(float(total)))
            share = int(rest.split("%", 1)[0])
            assert share == pytest.approx(100 * abs(float(total)) * 1e9 / whole, abs=1), name
            layer = rest.split("; layer ", 1)[1].split(" ", 1)[0]
            alone = int(rest.split("% alone", 1)[0].rsplit(" ", 1)[1])
            assert alone == pytest.approx(100 * abs(differences[layer]) / whole, abs=0.51)
            assert (differences[layer] > 0) == (float(total) > 0)
        assert sizes == sorted(sizes, reverse=True)
        largest = max(differences, key=lambda name: abs(differences[name]))
        if said and len(convention.name.split("exact")) == 1:
            assert any(f"layer {largest}" in sentence for sentence in said), name


def test_more_and_less_by_one_rule_are_two_reasons() -> None:
    some = SignalType("binary", 1, (1,))
    layers = [Seen(LayerProfile(name, "", "", Facts("linear", (some,), some))) for name in ("a", "b", "c")]
    exact = [Charge(acs=100)] * 3
    charges = [Charge(acs=acs, rule="rule", because="so") for acs in (400, 50, 150)]
    more, less = reasons(layers, charges, exact)
    # 300 and 50 more, 50 less, of 400 in all
    assert more.startswith(
        "+3.15e-07 mJ, 88% of the difference: rule; layer a among 2 layers is 75% alone: 400 ACs where"
    )
    assert less.startswith("-4.5e-08 mJ, 12% of the difference: rule; layer b is 12% alone: 50 ACs where 100 ACs were")


def test_a_layer_without_a_rule_is_named_as_one_that_is_not_seen() -> None:
    build = NetworkBuilder("scaled")
    x = build.add("scale", Affine(np.full(2, 0.5, np.float32)), build.add("input", Input((2,), "real")))
    build.add("readout", Readout(), x)
    profile = Simulator(build.build()).run(np.ones((1, 2), np.float32)).profile
    assert estimate(profile, "syops").reasons == (
        "-9.2e-09 mJ, 100% of the difference: what this convention does not see; layer scale is 100% alone: nothing "
        "where 2 MACs were executed (scaling of this kind is counted as nothing)",
    )
    (said,) = reasons(seen(profile)[:1], [Charge(acs=1, rule="rule", because="so")], [Charge()])
    assert "1 ACs where nothing was executed (so)" in said


@pytest.mark.parametrize(("zeros", "counted"), [(4, 4), (6, 6), (7, 0)])
def test_weights_of_zero_count_unless_a_layer_is_pruned(zeros: int, counted: int) -> None:
    weight = np.ones(12, np.float32)
    weight[:zeros] = 0
    build = NetworkBuilder("line")
    x = build.add("fc", Linear(weight.reshape(3, 4)), build.add("input", Input((4,), "binary")))
    build.add("readout", Readout(), x)
    network = build.build()
    found = estimate(Simulator(network).run(np.ones((1, 4), np.float32)).profile, "neurobench")
    assert (found.acs, found.more["zero_weights"]) == (12 if counted else 12 - zeros, counted)


# --- where it reads


def test_accounting_knows_no_layer_class() -> None:
    """Of the modules there, no import names `eventsim.layers`, not even inside of a function."""
    folder = Path(eventsim.__file__).parent / "accounting"
    modules = sorted(folder.rglob("*.py"))
    assert len(modules) > 8
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("eventsim.layers") for name in named), path
