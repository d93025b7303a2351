"""What a layer says of itself for accounting: checked where it is made, derived where it is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_contract import CURRENTS, MAP, STEPS, Odd

from eventsim import InputError, NetworkBuilder, Simulator, layers
from eventsim.facts import Facts, Words, arriving, merged
from eventsim.signals import SignalType
from eventsim.testing import check_layer

pytestmark = pytest.mark.kernels

WORDS = Words(96)
FACTS: dict[str, dict[str, Any]] = {
    "role 'neuron' found; expected one of input, convolution, linear, neurons": {"role": "neuron"},
    "words of 'weights' found; expected one of weight, bias, potential, sum, table": {"words": {"weights": WORDS}},
    "weight words 96 found; expected eventsim.facts.Words": {"words": {"weight": 96}},
    "operation 'swaps' among what is entailed found; expected one registered": {"entailed": {"swaps": {"acs": 1}}},
    "operation 'swap' among what is entailed found; expected one registered": {"entailed": {"acs": {"swap": 1}}},
    "-1 additions for each of acs found; expected a whole number": {"entailed": {"acs": {"additions": -1}}},
    "0.5 additions for each of acs found; expected a whole number": {"entailed": {"acs": {"additions": 0.5}}},
}


@pytest.mark.parametrize("message", FACTS)
def test_what_a_layer_says_of_itself_is_checked_here_and_in_a_network(
    message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FACTS[message].items():
        monkeypatch.setattr(Odd, name, value if name == "role" else lambda self, *inputs, value=value: value)
    with pytest.raises(AssertionError, match=f"^Odd: {message}"):
        check_layer(Odd(), CURRENTS, steps=STEPS)
    build = NetworkBuilder("odd")
    x = build.add("input", layers.Input((2,), "real"))
    x = build.add("sum", Odd(), x)
    build.add("readout", layers.Readout(), x)
    with pytest.raises(InputError, match=f"^layer sum: {message}"):
        Simulator(build.build())


def test_what_is_entailed_is_derived_from_what_was_reported() -> None:
    facts = Facts(
        "other", (MAP,), MAP, entailed={"acs": {"weight_reads": 2}, "macs": {"weight_reads": 1, "additions": 3}}
    )
    reported = {"acs": np.array([1, 0]), "macs": np.array([0, 5]), "spikes": np.array([7, 7])}
    assert {name: column.tolist() for name, column in facts.derived(reported).items()} == {
        "weight_reads": [2, 5],
        "additions": [0, 15],
    }
    assert facts.derived({"spikes": np.array([7, 7])}) == {}


def test_what_two_say_of_one_operation_adds_up() -> None:
    assert merged({"acs": {"additions": 1}}, {"acs": {"additions": 2, "resets": 1}}, {}) == {
        "acs": {"additions": 3, "resets": 1}
    }


def test_what_follows_from_inputs_is_not_reported_again() -> None:
    """Of mixed inputs nothing follows from the sum that a layer reports."""
    graded = SignalType("graded", 6, (4, 4))
    message = {"messages": 1, "index_reads": 1}
    assert arriving(MAP, MAP) == {"nonzero_inputs": message}
    assert arriving(graded) == {"nonzero_inputs": {**message, "value_reads": 1}}
    assert arriving(MAP, graded) == {"nonzero_inputs": message}
    assert arriving(CURRENTS) == {"inputs": {"value_reads": 1}}
    assert arriving(MAP, CURRENTS) == {}
    assert Facts("join", (MAP, graded, CURRENTS), MAP).reads == (
        (0, ("messages",)),
        (1, ("messages", "value_reads")),
        (2, ("value_reads",)),
    )
    assert Facts("join", (MAP, graded), graded, entailed=arriving(MAP, graded)).reads == ((1, ("value_reads",)),)
    assert Facts("join", (MAP,), graded).writes == ("index_writes", "value_writes")
    assert Facts("routing", (MAP,), MAP).reads == Facts("routing", (MAP,), MAP).writes == ()


def test_words_are_rounded_up_to_bytes() -> None:
    assert (Words(3).bytes, Words(3, 8).bytes, Words(3, 1).bytes, Words(0).bytes) == (12, 3, 1, 0)
