"""Energy models: what a run costs, and what of it has no price."""

from __future__ import annotations

import ast
import copy
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from energy_cases import EXPECTED_PJ, RUN, SUM_BITS, Run, sram
from hypothesis import given
from hypothesis import strategies as st

import eventsim
from eventsim import InputError, NetworkBuilder, Simulator
from eventsim.accounting.energy import MAIN, MAIN_OF_INTEGERS, EnergyModel, fitting, models
from eventsim.accounting.energy_model import Access, OfRole
from eventsim.accounting.price_file import read_prices
from eventsim.facts import Facts, Words
from eventsim.layers import IF, Input, Linear, Readout
from eventsim.ledger import Counts
from eventsim.operations import OPERATIONS
from eventsim.signals import SignalType

PRICES = resources.files("eventsim.accounting") / "prices"
NAMES = list(EXPECTED_PJ)


def documents() -> dict[str, dict[str, Any]]:
    files = [file for file in PRICES.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): tomllib.loads(file.read_text()) for file in files}


def check_expected(model: EnergyModel) -> None:
    energy = model.of(RUN)
    compute, memory = EXPECTED_PJ[model.name]
    assert energy.compute_mj == pytest.approx(compute * 1e-9, rel=1e-9)
    assert energy.memory_mj == pytest.approx(memory * 1e-9, rel=1e-9)
    assert energy.total_mj == pytest.approx((compute + memory) * 1e-9, rel=1e-9)
    assert model.sum_bits == SUM_BITS.get(model.name)


def test_every_model_is_checked() -> None:
    assert set(models()) == set(documents()) == set(EXPECTED_PJ)
    assert {*MAIN, *MAIN_OF_INTEGERS} <= set(models())
    assert all(model.source and model.name == name for name, model in models().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_run_costs_what_the_literature_says(name: str) -> None:
    check_expected(models()[name])


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every number of a document, and of every key that is one."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        if isinstance(key, str) and key.isdecimal():
            yield (*path, key, "key")
        if isinstance(inner, int | float):
            yield (*path, key)
        yield from numbers(inner, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    """Return a document with one number a little larger; a key, half as large."""
    other = copy.deepcopy(document)
    *above, last = path
    inner: Any = other
    for key in above if last != "key" else above[:-1]:
        inner = inner[key]
    if last == "key":
        inner[str(int(above[-1]) // 2)] = inner.pop(above[-1])
    else:
        inner[last] += 1 if isinstance(inner[last], int) else 0.01
    return other


CONSTANTS = [(name, path) for name in NAMES for path in numbers(documents()[name])]


@pytest.mark.parametrize(("name", "path"), CONSTANTS, ids=[f"{name} {path}" for name, path in CONSTANTS])
def test_a_constant_cannot_change_unseen(name: str, path: tuple[Any, ...]) -> None:
    document = documents()[name]
    check_expected(read_prices(name, document))
    with pytest.raises(AssertionError):
        check_expected(read_prices(name, changed(document, path)))


def test_keys_of_schema_2_keep_their_values() -> None:
    """Accumulates, multiply-accumulates, updates: the three models that there were."""
    counts = Counts(acs=7, graded_acs=11, graded_macs=5, macs=3, neuron_updates=13, additions=1000, comparisons=1000)
    found = {name: models()[name].millijoules(counts) for name in ("45nm_unary", "45nm_mac", "loihi")}
    expected = {"45nm_unary": 18 * 0.9 + 3 * 4.6, "45nm_mac": 7 * 0.9 + 8 * 4.6, "loihi": 21 * 23.6 + 13 * 81}
    assert found == pytest.approx({name: value * 1e-9 for name, value in expected.items()}, rel=1e-12)


# --- what adds up


def with_wholes(executed: dict[str, int]) -> Counts:
    """Return counts in which no part is more than its whole."""
    for name, n in list(executed.items()):
        for whole in OPERATIONS[name].part_of:
            executed[whole] = max(executed.get(whole, 0), n)
    return Counts(executed)


some_counts = st.dictionaries(st.sampled_from(list(OPERATIONS)), st.integers(0, 1 << 40), max_size=12).map(with_wholes)
runs = st.lists(some_counts, min_size=len(RUN), max_size=len(RUN))


def run_of(counts: list[Counts]) -> list[Run]:
    return [Run(layer.name, layer.facts, each) for layer, each in zip(RUN, counts, strict=True)]


@given(one=runs, other=runs, name=st.sampled_from(NAMES))
def test_the_energy_of_a_sum_is_the_sum_of_energies(one: list[Counts], other: list[Counts], name: str) -> None:
    model = models()[name]
    added = model.of(run_of(one)) + model.of(run_of(other))
    whole = model.of(run_of([a + b for a, b in zip(one, other, strict=True)]))
    scale = 1e-9 * max(abs(added.compute_mj), abs(added.memory_mj), 1e-12)
    assert added.compute_mj == pytest.approx(whole.compute_mj, rel=1e-9, abs=scale)
    assert added.memory_mj == pytest.approx(whole.memory_mj, rel=1e-9, abs=scale)
    assert added.by_layer == pytest.approx({name: whole.by_layer.get(name, 0) for name in added.by_layer}, abs=scale)
    assert {name: n for name, n in added.unpriced.items() if n} == dict(whole.unpriced)


@given(counts=runs, name=st.sampled_from(NAMES))
def test_layers_and_operations_add_up_to_the_total(counts: list[Counts], name: str) -> None:
    energy = models()[name].of(run_of(counts))
    tolerance = 1e-9 * sum(map(abs, energy.by_operation.values()))
    assert sum(energy.by_layer.values()) == pytest.approx(energy.total_mj, abs=tolerance)
    assert sum(energy.by_operation.values()) == pytest.approx(energy.total_mj, abs=tolerance)
    each = [models()[name].of([layer]) for layer in run_of(counts)]
    assert sum(one.total_mj for one in each) == pytest.approx(energy.total_mj, abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_executed_costs_nothing(name: str) -> None:
    energy = models()[name].of(run_of([Counts()] * len(RUN)))
    assert (energy.total_mj, energy.by_layer, energy.by_operation, energy.unpriced) == (0, {}, {}, {})


def test_energies_of_two_models_do_not_add() -> None:
    with pytest.raises(InputError, match=r"^energies by odin and loihi found; expected those of one model to add$"):
        models()["odin"].of(RUN) + models()["loihi"].of(RUN)


# --- what has no price


WITHOUT_PRICE = {
    # a synaptic operation alone: everything else is told, but neither inputs, alternatives, parts nor the other reading
    "45nm_mac": {
        "spikes": 211, "neuron_updates": 2003, "table_lookups": 71, "additions": 89, "comparisons": 31, "scores": 900,
        "nonzero_scores": 90, "kept_scores": 83, "removed_scores": 7, "scale_multiplications": 11,
        "bias_additions": 104, "divisions": 19, "messages": 471, "weight_reads": 1422, "bias_reads": 108,
        "sum_reads": 1451, "sum_writes": 1459, "potential_reads": 2017, "potential_writes": 2027, "index_reads": 412,
        "index_writes": 227, "value_reads": 2136, "value_writes": 722, "table_reads": 73,
    },
    # steps of an update have prices, so the others are told in its stead; the attention has no sums that it tells of
    "lemaire2022": {
        "table_lookups": 71, "comparisons": 31, "scores": 900, "nonzero_scores": 90, "kept_scores": 83,
        "removed_scores": 7, "scale_multiplications": 11, "membrane_comparisons": 2011, "divisions": 19,
        "sum_reads": 13, "sum_writes": 17,
    },
    # routing is left out, memory is in what was measured
    "loihi": {
        "spikes": 211, "table_lookups": 71, "additions": 89, "comparisons": 31, "scores": 900, "nonzero_scores": 90,
        "kept_scores": 83, "removed_scores": 7, "scale_multiplications": 11, "divisions": 19, "messages": 471,
        "index_reads": 412, "index_writes": 227, "value_reads": 2136, "value_writes": 722, "table_reads": 73,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_PRICE)
def test_what_has_no_price_is_listed(name: str) -> None:
    assert models()[name].of(RUN).unpriced == WITHOUT_PRICE[name]


def model(**prices: Any) -> EnergyModel:
    return EnergyModel("own", "a test", "mac", **prices)


def of(counts: Counts, **prices: Any) -> tuple[float, dict[str, int]]:
    """Return picojoules and what has no price."""
    facts = Facts("neurons", (SignalType("real", 4),), SignalType("binary", 4), words={"potential": Words(3, 8)})
    energy = model(**prices).of([Run("one", facts, counts)])
    return energy.total_mj * 1e9, dict(energy.unpriced)


@pytest.mark.parametrize(("bits", "priced"), [(None, True), (0, False), (8, False), (16, True), (32, True)])
def test_sums_of_integers_have_a_price_where_their_width_has(bits: int | None, priced: bool) -> None:
    """8-bit weights, 16-bit sums: without a price for these, the work is told, not priced; its memory has prices."""
    counts = Counts(acs=10, weight_reads=10)
    source, words = SignalType("binary", 4), {"weight": Words(64, 8), "sum": Words(4, 16)}
    own = model(compute={"acs": 2.0}, words={"weight_reads": Access(per_bit=0.5)}, sum_bits=bits)
    facts = Facts("linear", (source,), SignalType("real", 4, dense=True), words=words)
    energy = own.of([Run("one", facts, counts)])
    assert own.prices_integers(facts) is priced
    assert energy.compute_mj == pytest.approx(20e-9 if priced else 0)
    assert energy.memory_mj == pytest.approx(10 * 8 * 0.5e-9)
    assert dict(energy.unpriced) == ({} if priced else {"acs": 10})
    floats = Facts("linear", (source,), facts.output, words={"weight": Words(64), "sum": Words(4)})
    assert own.prices_integers(floats)


def test_models_that_are_shown_have_prices_for_the_widths() -> None:
    words = {"weight": Words(64, 8), "sum": Words(4, 32)}
    facts = {"one": Facts("linear", (SignalType("binary", 4),), SignalType("real", 4, dense=True), words=words)}
    assert fitting(models(), MAIN, facts, chosen=False) == MAIN_OF_INTEGERS
    assert fitting(models(), MAIN, {}, chosen=False) == MAIN
    assert fitting(models(), ("loihi", "45nm_int32_mac"), facts, chosen=True) == ("loihi", "45nm_int32_mac")
    told = (
        r"^layer one: integer sums of 32 bits found; energy model 45nm_\w+ has prices of (integer sums of up to 8 bits"
    )
    for name in ("45nm_mac", "45nm_int8_unary"):
        with pytest.raises(InputError, match=told + r"|floating-point sums), take 45nm_int8_sums32 or another"):
            fitting(models(), (name,), facts, chosen=True)


def test_a_part_has_its_price_in_place_of_the_whole() -> None:
    counts = Counts(neuron_updates=10, updates_with_input=4, updates_with_spike=1)
    assert of(counts, compute={"neuron_updates": 2.0}) == (pytest.approx(20), {})
    assert of(counts, compute={"neuron_updates": 2.0, "updates_with_input": 5.0}) == (pytest.approx(4 * 5 + 6 * 2), {})
    # without a price of the whole, what is left of it has none; of two memories' prices, both are paid
    assert of(counts, compute={"updates_with_input": 5.0}) == (pytest.approx(20), {"neuron_updates": 6})
    both = {"compute": {"updates_with_input": 5.0}, "memory": {"neuron_updates": 1.0}}
    assert of(counts, **both) == (pytest.approx(4 * 5 + 10), {})


@pytest.mark.parametrize(
    ("prices", "found"),
    [
        (("acs", "coincidences"), "acs and coincidences"),
        (("neuron_updates", "resets"), "neuron_updates and resets"),
        (("neuron_updates", "updates_with_input", "updates_with_spike"), "neuron_updates, updates_with_input and u"),
    ],
)
def test_the_same_work_is_not_charged_twice(prices: tuple[str, ...], found: str) -> None:
    with pytest.raises(InputError, match=f"^prices of {found}.*; expected one of them, as the work is the same$"):
        of(Counts(acs=1), compute=dict.fromkeys(prices, 1.0))


def test_words_cost_by_the_memory_that_holds_them() -> None:
    narrow, wide = ((0, 0.0), (100, 100.0)), ((0, 7.0),)
    access = Access({8: narrow, 64: wide})
    # an access of 8 bits takes a word of 8 at once; of 16, one of 64; of 96, two of 64
    assert [access.picojoules(30, bits) for bits in (1, 8, 16, 64, 65, 128, 129)] == [30, 30, 7, 7, 14, 14, 21]
    assert [access.picojoules(size, 8) for size in (0, 50, 100, 300)] == [0, 50, 100, 300]
    assert Access({8: narrow}, size=20).picojoules(9999, 8) == 20
    assert Access(per_bit=0.5).picojoules(9999, 12) == 6
    # three potentials of 8 bits are a memory of 3 bytes; nobody tells a size of the sums
    words = {"potential_reads": Access({8: narrow}), "sum_reads": Access({8: narrow})}
    assert of(Counts(potential_reads=2, sum_reads=5), words=words) == (pytest.approx(6), {"sum_reads": 5})


def test_the_line_of_lemaire_goes_through_its_points() -> None:
    points = {0: 0, 8192: 10, 32768: 20, 1048576: 100}
    found = models()["lemaire2022"].words["weight_reads"]
    for size in (*points, 1, 4096, 20000, 500_000, 4_000_000):
        assert found.picojoules(size, 32) == pytest.approx(points.get(size, sram(size)))


def test_roles_have_prices_of_their_own() -> None:
    roles = {"linear": OfRole({"acs": 5.0}, {"messages": 7.0}, frozenset({"value_reads"}))}
    own = model(compute={"acs": 1.0, "macs": 2.0}, memory={"value_reads": 3.0}, roles=roles)
    counts = Counts(acs=1, macs=1, messages=1, value_reads=1)
    by_role = {role: own.of([Run("x", Facts(role, (), SignalType("real", 1)), counts)]) for role in ("linear", "pool")}
    assert by_role["linear"].by_operation == pytest.approx({"acs": 5e-9, "macs": 2e-9, "messages": 7e-9})
    assert by_role["pool"].by_operation == pytest.approx({"acs": 1e-9, "macs": 2e-9, "value_reads": 3e-9})
    assert (by_role["linear"].unpriced, by_role["pool"].unpriced) == ({}, {"messages": 1})
    with pytest.raises(InputError, match=r"^energy model own: prices by layer found; expected layers, as `of` takes"):
        own.millijoules(counts)


# --- a run


def test_a_simulated_run_has_its_energy() -> None:
    """Two steps, three inputs, four outputs: spikes 1 0 1 and 0 1 0."""
    build = NetworkBuilder("small")
    x = build.add(
        "linear",
        Linear(np.ones((4, 3), np.float32), np.full(4, 0.5, np.float32)),
        build.add("input", Input((3,), "binary")),
    )
    build.add("readout", Readout(), build.add("if", IF(), x))
    result = Simulator(build.build()).run([[1, 0, 1], [0, 1, 0]])
    energy = models()["lemaire2022"].of(result.profile)
    assert energy.by_layer.keys() == {"linear", "if"}
    # 12 synapses and 8 biases; every neuron fires in both steps; no leak
    assert energy.compute_mj == pytest.approx(1e-9 * 0.1 * (12 + 8 + 8))
    # 12 weights of 48 bytes, 8 biases of 16, sums and potentials of 16, 3 + 8 addresses of 4000; addresses of synapses
    words = 12 * sram(48) + 8 * sram(16) + 2 * 20 * sram(16) + 2 * 8 * sram(16) + (3 + 8) * sram(4000)
    assert energy.memory_mj == pytest.approx(1e-9 * (words + 12 * 0.1))


def test_accounting_imports_no_layer() -> None:
    for path in (Path(eventsim.__file__).parent / "accounting").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in named if name.startswith("eventsim.layers")], path
