"""NIR files as the frameworks mean them that wrote them: their recurrences spike for spike, and what betrays them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from test_nir import Array, affine, chain, counts, dyadic, imported, refuse, write

from eventsim import Network, Simulator, import_checkpoint
from eventsim.layers import IF, LIF, DecayLIF, Input, LeakyIntegrator
from eventsim_importers.nir.conventions import CONVENTIONS

F = np.float32

# --- files that the frameworks wrote, with the spikes that they had

CASES: dict[str, dict[str, Any]] = {
    "norse_iaf": {"framework": "norse"},
    "norse_lif_cuba": {"framework": "norse"},
    "norse_lifbox": {"framework": "norse"},
    "sinabs_cnn": {"framework": "sinabs"},
    "sinabs_iaf": {"framework": "sinabs"},
    "sinabs_iaf_single": {"framework": "sinabs", "multiple_spikes": False, "v_min": "none"},
    "sinabs_lif": {"framework": "sinabs"},
    "snntorch_leaky_default": {"framework": "snntorch"},
    "snntorch_leaky_subtract_nodelay": {"framework": "snntorch", "reset_delay": False},
    "snntorch_leaky_zero": {"framework": "snntorch", "reset": "zero", "reset_delay": False},
    "snntorch_leaky_zero_delay": {"framework": "snntorch", "reset": "zero"},
    "snntorch_synaptic_zero": {"framework": "snntorch", "reset": "zero", "reset_delay": False},
    "spikingjelly_cnn": {"framework": "spikingjelly"},
    "spikingjelly_if_dt1ms": {"framework": "spikingjelly"},
    "spikingjelly_lif": {"framework": "spikingjelly"},
    "spikingjelly_vreset": {"framework": "spikingjelly"},
}
TABLE = re.compile(r"^\| (?:`|option|---).*\|$|^\|---.*\|$", re.MULTILINE)
BETRAYED = ("norse_lif_cuba", "norse_lifbox", "spikingjelly_cnn", "spikingjelly_if_dt1ms")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("told", [True, False])
def test_every_spike_is_that_of_the_framework(shared: Path, case: str, told: bool) -> None:
    if not told and case not in BETRAYED:
        pytest.skip("nothing in the file tells its framework")
    folder = shared / "cases" / "nir"
    kept = np.load(folder / f"{case}.npz")
    network = import_checkpoint(folder / f"{case}.nir", **(CASES[case] if told else {}))
    neurons = [name for name, layer in network.layers.items() if isinstance(layer, (IF, LIF, DecayLIF))]
    result = Simulator(network, record=neurons).run(kept["x"].astype(F))
    for index, name in enumerate(neurons):
        expected = kept[f"spikes_{index}"]
        np.testing.assert_array_equal(result.recorded[name].reshape(len(expected), -1), expected, err_msg=name)


# --- recurrences, written as the frameworks write them

STEPS = 40
INPUTS, NEURONS = 7, 5


def frames() -> Array:
    return counts(INPUTS, steps=STEPS)


def current(x: Array) -> Array:
    node = affine(NEURONS, INPUTS)
    return (x.astype(float) @ node.weight.T + node.bias).astype(F)


def lif(**fields: Any) -> nir.LIF:
    given = {"tau": 1e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0, **fields}
    return nir.LIF(**{name: np.broadcast_to(np.asarray(value, F), NEURONS).copy() for name, value in given.items()})


def cuba(**fields: Any) -> nir.CubaLIF:
    given = {"tau_mem": 1e-3, "tau_syn": 2e-4, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "w_in": 1.0, **fields}
    return nir.CubaLIF(**{name: np.broadcast_to(np.asarray(value, F), NEURONS).copy() for name, value in given.items()})


def integrate(**fields: Any) -> nir.IF:
    given = {"r": 1.0, "v_threshold": 0.5, **fields}
    return nir.IF(**{name: np.broadcast_to(np.asarray(value, F), NEURONS).copy() for name, value in given.items()})


def snntorch(x: Array, beta: float, reset: str, delay: bool, alpha: float | None = None) -> Array:
    """Leaky, and with alpha Synaptic; both start at 0."""
    threshold, spikes = F(0.5), np.zeros_like(x)
    v = i = np.zeros(x.shape[1:], F)
    for t, arriving in enumerate(x):
        late = (v > threshold).astype(F)
        i = arriving if alpha is None else F(alpha) * i + arriving
        if reset == "subtract":
            v = F(beta) * v + i - late * threshold
        elif alpha is None:
            v = F(beta) * ((1 - late) * v) + i
        else:
            v = (F(beta) * v + i) * (1 - late)
        fired = (v > threshold).astype(F)
        if not delay:
            v = v - (fired - late) * (threshold if reset == "subtract" else v)
        spikes[t] = fired
    return spikes


def sinabs(x: Array, alpha: float, gain: float, multiple: bool, v_min: float | None) -> Array:
    threshold, spikes, v = F(0.5), np.zeros_like(x), np.zeros(x.shape[1:], F)
    for t, arriving in enumerate(x):
        v = F(alpha) * v + F(gain) * arriving
        spikes[t] = (v > 0) * np.trunc(v / threshold) if multiple else v >= threshold
        v = v - spikes[t] * threshold
        v = v if v_min is None else np.maximum(v, F(v_min))
    return spikes


def norse(x: Array, rate: float, v_leak: float, synapse: float | None = None) -> Array:
    """LIFBox, and with a synapse LIF: the current before its decay drives the potential."""
    spikes, v, i = np.zeros_like(x), np.full(x.shape[1:], v_leak, F), np.zeros(x.shape[1:], F)
    for t, arriving in enumerate(x):
        i = arriving if synapse is None else i + arriving
        h = v + F(rate) * ((F(v_leak) - v) + i)
        i = i if synapse is None else i - F(synapse) * i
        spikes[t] = h > F(0.5)
        v = np.where(spikes[t] == 1, F(0), h)
    return spikes


def spikingjelly(x: Array, tau: float, v_reset: float) -> Array:
    spikes, v = np.zeros_like(x), np.full(x.shape[1:], v_reset, F)
    for t, arriving in enumerate(x):
        h = v + (arriving - (v - F(v_reset))) / F(tau)
        spikes[t] = h >= F(0.5)
        v = np.where(spikes[t] == 1, F(v_reset), h)
    return spikes


def spikingjelly_if(x: Array) -> Array:
    spikes, v = np.zeros_like(x), np.zeros(x.shape[1:], F)
    for t, arriving in enumerate(x):
        v = v + arriving
        spikes[t] = v >= F(0.5)
        v = np.where(spikes[t] == 1, F(0), v)
    return spikes


def told(framework: str | None, **options: Any) -> dict[str, Any]:
    return {"framework": framework, "dt": None, **options}


BETA = lif(tau=1e-4 / (1 - F(0.75)), r=1 / (1 - F(0.75)))
SYNAPTIC = cuba(tau_mem=4e-4, r=4, tau_syn=2e-4, w_in=2)
FRAMEWORKS: dict[str, tuple[nir.NIRNode, dict[str, Any], Callable[[Array], Array]]] = {
    "snntorch": (BETA, told("snntorch"), lambda x: snntorch(x, 0.75, "subtract", delay=True)),
    "snntorch, no delay": (
        BETA,
        told("snntorch", reset_delay=False),
        lambda x: snntorch(x, 0.75, "subtract", delay=False),
    ),
    "snntorch, zero": (BETA, told("snntorch", reset="zero"), lambda x: snntorch(x, 0.75, "zero", delay=True)),
    "snntorch, zero, no delay": (
        BETA,
        told("snntorch", reset="zero", reset_delay=False),
        lambda x: snntorch(x, 0.75, "zero", delay=False),
    ),
    "snntorch, beta 0": (
        lif(tau=1e-4, r=1),
        told("snntorch"),
        lambda x: snntorch(x, 0.0, "subtract", delay=True),
    ),
    "snntorch, beta 1": (
        lif(tau=np.inf, r=np.inf),
        told("snntorch"),
        lambda x: snntorch(x, 1.0, "subtract", delay=True),
    ),
    "snntorch synaptic": (SYNAPTIC, told("snntorch"), lambda x: snntorch(x, 0.75, "subtract", True, 0.5)),
    "snntorch synaptic, zero": (
        SYNAPTIC,
        told("snntorch", reset="zero"),
        lambda x: snntorch(x, 0.75, "zero", True, 0.5),
    ),
    "snntorch synaptic, no delay": (
        SYNAPTIC,
        told("snntorch", reset_delay=False),
        lambda x: snntorch(x, 0.75, "subtract", False, 0.5),
    ),
    "sinabs iaf": (integrate(), told("sinabs"), lambda x: sinabs(x, 1, 1, True, None)),
    "sinabs iaf, floor": (integrate(), told("sinabs", v_min=-0.5), lambda x: sinabs(x, 1, 1, True, -0.5)),
    "sinabs iaf, one spike": (
        integrate(),
        told("sinabs", multiple_spikes="false", v_min="none"),
        lambda x: sinabs(x, 1, 1, False, None),
    ),
    "sinabs lif": (lif(tau=5), told("sinabs"), lambda x: sinabs(x, np.exp(-0.2), 1 - np.exp(-0.2), True, None)),
    "sinabs lif, input as it is": (
        lif(tau=5),
        told("sinabs", decay_input=False),
        lambda x: sinabs(x, np.exp(-0.2), 1, True, None),
    ),
    "norse": (lif(tau=8e-6, v_leak=0.25), told("norse"), lambda x: norse(x, 0.125, 0.25)),
    "norse, tau in seconds": (lif(tau=8e-3, v_leak=0.25), told("norse"), lambda x: norse(x, 0.125, 0.25)),
    "norse, recognised": (lif(tau=8e-6), told(None), lambda x: norse(x, 0.125, 0)),
    "norse, current": (
        cuba(tau_mem=8e-6, tau_syn=4e-6, v_leak=0.25),
        told("norse"),
        lambda x: norse(x, 0.125, 0.25, 0.25),
    ),
    "spikingjelly": (
        lif(tau=4e-4, v_leak=-0.25, v_reset=-0.25),
        told("spikingjelly"),
        lambda x: spikingjelly(x, 4, -0.25),
    ),
    "spikingjelly, if": (integrate(r=1e3), told("spikingjelly"), spikingjelly_if),
    "spikingjelly, recognised": (integrate(r=1e3), told(None), spikingjelly_if),
    "lava": (lif(tau=8e-4), told("lava"), lambda x: norse(x, 0.125, 0)),
}


@pytest.mark.parametrize("case", FRAMEWORKS)
def test_neurons_fire_as_in_their_framework(tmp_path: Path, case: str) -> None:
    node, options, recurrence = FRAMEWORKS[case]
    graph = chain({"fc": affine(NEURONS, INPUTS), "neuron": node}, INPUTS, out=(NEURONS,))
    network = imported(tmp_path, graph, **options)
    expected = recurrence(current(frames()))
    assert 0.05 < (expected > 0).mean() < 0.95
    result = Simulator(network, record=["neuron"]).run(frames())
    np.testing.assert_array_equal(result.recorded["neuron"], expected)


def recurrent(framework_names: bool = True, bias: bool = True) -> nir.NIRGraph:
    """What snnTorch makes of an RLeaky."""
    w_rec = nir.Affine(dyadic(NEURONS, NEURONS, seed=3), dyadic(NEURONS, seed=4)) if bias else nir.Linear(dyadic(5, 5))
    names = {"input": "input", "lif": "lif", "w_rec": "w_rec" if framework_names else "feedback", "output": "output"}
    nodes = {
        "input": nir.Input(np.array([NEURONS])),
        "lif": BETA,
        "w_rec": w_rec,
        "output": nir.Output(np.array([NEURONS])),
    }
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    inner = nir.NIRGraph(
        {names[name]: node for name, node in nodes.items()},
        [(names[source], names[target]) for source, target in edges],
        type_check=False,
    )
    return chain({"fc": affine(NEURONS, INPUTS), "rnn": inner}, INPUTS, out=(NEURONS,))


@pytest.mark.parametrize("options", [{"framework": "snntorch"}, {}, {"cycle_delay": 1, "framework": "snntorch"}])
def test_feedback_takes_one_step(tmp_path: Path, options: dict[str, Any]) -> None:
    """The spikes wait, not what the synapses make of them: their bias is there from the first step on."""
    x = current(frames())
    weight, bias = dyadic(NEURONS, NEURONS, seed=3), dyadic(NEURONS, seed=4)
    expected, v, fired = np.zeros_like(x), np.zeros(NEURONS, F), np.zeros(NEURONS, F)
    for t, arriving in enumerate(x):
        late = (v > F(0.5)).astype(F)
        v = F(0.75) * v + (arriving + (weight @ fired + bias)) - late * F(0.5)
        fired = expected[t] = (v > F(0.5)).astype(F)
    network = imported(tmp_path, recurrent(), dt=None, **options)
    result = Simulator(network, record=["rnn.lif"]).run(frames())
    np.testing.assert_array_equal(result.recorded["rnn.lif"], expected)
    assert 0.05 < expected.mean() < 0.95


def test_feedback_of_no_known_framework_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, recurrent(framework_names=False))
    refuse(path, r"recurrent edges rnn.lif -> rnn.feedback -> rnn.lif found; .*framework or cycle_delay")
    refuse(path, r"recurrent edges .*cycle_delay=0; expected a delay of 1", cycle_delay=0)
    network = import_checkpoint(path, cycle_delay=2, decay="multiply")
    assert [edge.delay for edge in network.edges if edge.delay] == [2]


# --- what tells the framework, and what is said


def test_the_page_has_the_values_of_the_frameworks() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "nir.md").read_text()
    header, _, *rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]]
        for line in TABLE.findall(page.partition("What the tables leave out")[0])
    ]
    shown = {name: {row[0]: row[column] for row in rows} for column, name in enumerate(header) if column}
    written = {
        name: {option: str(value).lower() for option, value in vars(convention).items()}
        for name, convention in CONVENTIONS.items()
    }
    for values in written.values():
        values["dt"] = f"{float(values['dt']):g}"
    assert shown == written


def said(network: Network) -> dict[str, tuple[Any, str]]:
    return {setting.option: (setting.value, setting.source) for setting in network.settings}


def test_values_of_a_framework_are_inferred_and_can_be_set_alone(tmp_path: Path) -> None:
    graph = chain({"fc": affine(NEURONS, INPUTS), "neuron": BETA}, INPUTS, out=(NEURONS,))
    path = write(tmp_path, graph)
    values = said(import_checkpoint(path, framework="snntorch"))
    assert values["framework"] == ("snntorch", "option")
    assert values["reset"] == ("subtract", "inferred")
    assert values["reset_delay"] == (True, "inferred")
    assert values["strict"] == (True, "inferred")
    assert values["dt"] == (1e-4, "inferred")
    values = said(import_checkpoint(path, framework="snntorch", strict=False, reset="zero"))
    assert values["strict"] == (False, "option")
    assert values["reset"] == ("zero", "option")
    unknown = import_checkpoint(path)
    assert said(unknown)["framework"] == ("nir", "assumed")
    assert {sentence.partition(" = ")[0] for sentence in unknown.assumptions} == {
        "framework", "dt", "reset", "reset_delay", "strict", "multiple_spikes", "v_min", "decay",
        "input_kind", "readout",
    }  # fmt: skip


def test_metadata_tells_the_framework_and_more(tmp_path: Path) -> None:
    graph = chain({"fc": affine(NEURONS, INPUTS), "neuron": BETA}, INPUTS, out=(NEURONS,))
    graph.metadata = {"framework": "snntorch", "dt": 1e-4, "author": "somebody"}
    graph.nodes["neuron"].metadata = {"reset": "zero", "dt": 1e-3}
    graph.nodes["fc"].metadata = {"strict": True}
    try:
        path = write(tmp_path, graph)
    finally:
        graph.nodes["neuron"].metadata = {}
        graph.nodes["fc"].metadata = {}
    network = import_checkpoint(path)
    assert said(network)["framework"] == ("snntorch", "metadata")
    assert said(network)["dt"] == (1e-4, "metadata")
    assert said(network)["reset"] == ("zero", "metadata")
    assert said(network)["metadata"] == (
        ("metadata.author", "fc.metadata.strict", "neuron.metadata.dt"),
        "metadata",
    )
    assert network.layers["neuron"].reset == "zero"
    assert import_checkpoint(path, reset="subtract").layers["neuron"].reset == "subtract_late"


def test_unknown_versions_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, chain({"fc": affine(NEURONS, INPUTS)}, INPUTS))
    assert "version" not in said(import_checkpoint(path))
    with h5py.File(path, "r+") as file:
        del file["version"]
        file["version"] = "2.1"
    assert "version = 2.1: a version of NIR that is not known, read as 1.0" in import_checkpoint(path).assumptions


def test_a_reset_at_or_above_the_threshold_is_said(tmp_path: Path) -> None:
    node = lif(tau=4e-4, v_reset=0.75)
    path = write(tmp_path, chain({"fc": affine(NEURONS, INPUTS), "neuron": node}, INPUTS, out=(NEURONS,)))
    assert any(
        "v_reset: at or above v_threshold" in each and "neuron" in each for each in import_checkpoint(path).assumptions
    )


@pytest.mark.parametrize(
    ("node", "options", "words"),
    [
        (lif(tau=1e-3), {"framework": "sinabs"}, r"tau 0.001 found; .*dt = 1 \(framework sinabs\)"),
        (lif(tau=1e-3, r=2), {"framework": "snntorch", "dt": 1e-4}, "r 2 found; framework snntorch writes tau / dt"),
        (lif(tau=1e-3, r=10, v_reset=0.1), {"framework": "snntorch"}, "v_reset 0.1 found; framework snntorch"),
        (lif(tau=5, r=2), {"framework": "sinabs"}, "r 2 found; framework sinabs writes 1"),
        (lif(tau=1e-3, r=3), {"framework": "norse"}, "r 3 found; framework norse writes 1"),
        (
            lif(tau=1e-3, r=3),
            {"framework": "spikingjelly", "dt": 1e-4},
            "r 3 found; framework spikingjelly writes 1 or",
        ),
        (integrate(r=3), {"framework": "spikingjelly"}, "r 3 found; framework spikingjelly writes 1 / dt = 10000"),
        (integrate(r=1e3), {"framework": "sinabs"}, "r 1000 found; framework sinabs writes 1"),
        (cuba(w_in=3, r=10), {"framework": "snntorch"}, "w_in 3 found; framework snntorch writes tau_syn / dt"),
        (lif(v_reset=0.1), {"framework": "lava"}, "v_reset 0.1 found; framework lava resets to 0"),
    ],
)
def test_a_framework_that_contradicts_the_file_is_refused(
    tmp_path: Path, node: nir.NIRNode, options: dict[str, Any], words: str
) -> None:
    path = write(tmp_path, chain({"fc": affine(NEURONS, INPUTS), "neuron": node}, INPUTS, out=(NEURONS,)))
    refuse(path, rf"node neuron \(\w+\): {words}", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"v_min": "low"}, "option v_min=low found; expected a number, at most 3.40282e\\+38, or none"),
        ({"v_min": "1e39"}, "option v_min=1e39 found; expected a number, at most 3.40282e\\+38, or none"),
        ({"framework": "snntorch", "reset": "subtract_once", "reset_delay": True}, "option reset_delay beside"),
        ({"multiple_spikes": True, "reset": "subtract_late"}, r"node neuron \(LIF\): several spikes in a step"),
        ({"multiple_spikes": True, "strict": True}, r"node neuron \(LIF\): several spikes in a step and strict"),
        ({"output": "elsewhere"}, "output=elsewhere found; expected one, or output= one of output"),
    ],
)
def test_options_that_do_not_fit_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = write(tmp_path, chain({"fc": affine(NEURONS, INPUTS), "neuron": BETA}, INPUTS, out=(NEURONS,)))
    with pytest.raises(ValueError, match=words) as caught:
        import_checkpoint(path, **options)
    assert "\n" not in str(caught.value)


def test_the_time_step_shows_in_r(tmp_path: Path) -> None:
    node = lif(tau=8e-3, r=4)  # tau of 4 steps, input as it is
    path = write(tmp_path, chain({"fc": affine(NEURONS, INPUTS), "neuron": node}, INPUTS, out=(NEURONS,)))
    assert said(import_checkpoint(path, framework="spikingjelly"))["dt"] == (2e-3, "inferred")
    assert said(import_checkpoint(path, framework="snntorch"))["dt"] == (2e-3, "inferred")


def test_the_layers_of_a_current_based_neuron(tmp_path: Path) -> None:
    path = write(tmp_path, chain({"fc": affine(NEURONS, INPUTS), "neuron": SYNAPTIC}, INPUTS, out=(NEURONS,)))
    network = import_checkpoint(path, framework="snntorch")
    assert list(network.layers) == ["input", "fc", "neuron.synapse", "neuron", "output"]
    assert isinstance(network.layers["neuron.synapse"], LeakyIntegrator)
    assert isinstance(network.layers["input"], Input)
