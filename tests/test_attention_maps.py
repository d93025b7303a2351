"""The observer of attention maps against maps made entry by entry."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import activity, randoms, weights

from eventsim import AttentionMaps, Delayed, InputError, Network, NetworkBuilder, Result, Simulator
from eventsim.layers import (
    IF,
    Flatten,
    Input,
    IntegerActivation,
    Layer,
    Linear,
    MeanOverTime,
    Readout,
    Residual,
    SpikingAttention,
    TableAttention,
)
from eventsim.signals import SignalType

pytestmark = pytest.mark.kernels

HEADS, SIZE, TOKENS = 2, 3, 4
CHANNELS = HEADS * SIZE


def entries(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The map of each head and step, from tokens (T, N, D)."""
    maps = np.zeros((len(q), HEADS, q.shape[1], k.shape[1]), np.int64)
    for t, head, i, j in np.ndindex(*maps.shape):
        for c in range(head * SIZE, (head + 1) * SIZE):
            maps[t, head, i, j] += int(q[t, i, c]) * int(k[t, j, c])
    return maps


@st.composite
def drawn(draw: st.DrawFn, looped: bool = False) -> tuple[Network, np.ndarray]:
    """An attention on spikes, on integers or with a table, in a loop or behind nothing that has a memory."""
    integers = draw(st.booleans())
    build = NetworkBuilder("drawn")
    x = build.add("input", Input((TOKENS, 5), "graded"))
    if looped:
        spikes = SignalType("binary", CHANNELS, (TOKENS,))
        x = build.add("fc", Linear(draw(weights(CHANNELS, 5))), x)
        x = build.add("sum", Residual("add"), x, Delayed("neuron", draw(st.integers(1, 2)), spikes))
    parts = []
    for letter in "qkv":
        y = build.add(f"{letter}_fc", Linear(draw(weights(CHANNELS, build.types[x].channels))), x)
        neuron = IntegerActivation() if integers and letter != "v" else IF(0.5)
        parts.append(build.add(letter, neuron, y))
    layer: Layer = SpikingAttention(HEADS, 0.25, draw(st.sampled_from(["scores_first", "context_first"])))
    if not integers and draw(st.booleans()):
        table = draw(randoms()).integers(-1, 2, (HEADS, SIZE + 1)).astype(np.int32)
        table[:, 0] = 0
        layer = TableAttention(table)
    x = build.add("attn", layer, *parts)
    x = build.add("neuron", IF(0.5), x)
    build.add("readout", Readout(), build.add("flat", Flatten(), x))
    frames = draw(activity("graded", draw(st.integers(1, 5)), TOKENS, 5))
    return build.build(), frames


def check(network: Network, given: np.ndarray, steps: int, **options: Any) -> Result:
    """Compare maps and counts of one run with those entry by entry."""
    observer = AttentionMaps(network, keep=["attn"])
    simulator = Simulator(network, record=["q", "k"], observers=[observer], **options)
    result = simulator.run(given, steps)
    expected = entries(result.recorded["q"], result.recorded["k"])
    before, after = observer.maps("attn")
    assert_array_equal(before, expected)
    layer = network.layers["attn"]
    tabled = expected.copy()
    if isinstance(layer, TableAttention):
        for place in np.ndindex(*expected.shape):
            tabled[place] = layer.table[place[1], expected[place]]
    assert_array_equal(after, tabled)
    assert before.dtype == after.dtype == np.int64
    profile = next(layer for layer in result.profile if layer.name == "attn")
    assert profile.by_step is not None
    told = [[int(profile.by_step.get(name, np.zeros(steps))[t]) for name in NAMES] for t in range(steps)]
    filled = [[np.count_nonzero(m) for m in maps] for maps in (expected, tabled)]
    size = HEADS * TOKENS**2
    assert told == [[size, some, kept, some - kept] for some, kept in zip(*filled, strict=True)]
    return result


NAMES = ("scores", "nonzero_scores", "kept_scores", "removed_scores")


@given(drawn=drawn() | drawn(looped=True), chunk=st.integers(1, 5))
def test_frames(drawn: tuple[Network, np.ndarray], chunk: int) -> None:
    network, frames = drawn
    watched = check(network, frames, len(frames), chunk=chunk)
    alone = Simulator(network, chunk=chunk).run(frames)
    assert_array_equal(watched.logits, alone.logits)
    for seen, unseen in zip(watched.profile, alone.profile, strict=True):
        assert {name: n for name, n in seen.counts.items() if name not in NAMES} == {
            name: n for name, n in unseen.counts.items() if name not in NAMES
        }, "watching changes no other count"


@given(drawn=drawn(), chunk=st.integers(1, 5))
def test_an_image(drawn: tuple[Network, np.ndarray], chunk: int) -> None:
    network, frames = drawn
    check(network, frames[0], 4, chunk=chunk)


def static_network() -> Network:
    """An attention on integers alone, which an image needs once."""
    build = NetworkBuilder("static")
    x = build.add("input", Input((TOKENS, CHANNELS)))
    build.add("attn", SpikingAttention(HEADS), x, x, x)
    build.add("spikes", IF(), "attn")
    build.add("readout", Readout(), build.add("flat", Flatten(), "spikes"))
    return build.build()


IMAGE = np.arange(TOKENS * CHANNELS).reshape(TOKENS, CHANNELS) % 3


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_an_image_whose_map_is_made_once_counts_in_the_first_step(chunk: int) -> None:
    network = static_network()
    observer = AttentionMaps(network, keep=["attn"])
    result = Simulator(network, chunk=chunk, observers=[observer]).run(IMAGE, 3)
    layer = next(layer for layer in result.profile if layer.name == "attn")
    assert layer.by_step is not None
    assert layer.by_step["scores"].tolist() == [HEADS * TOKENS**2, 0, 0]
    assert_array_equal(observer.maps("attn").before, entries(np.stack([IMAGE] * 3), np.stack([IMAGE] * 3)))


def test_the_maps_are_those_of_the_last_sample_and_of_the_last_step_of_a_stream() -> None:
    network = static_network()
    observer = AttentionMaps(network, keep=["attn"])
    simulator = Simulator(network, observers=[observer])
    simulator.run([IMAGE, IMAGE])
    simulator.run([1 - IMAGE % 2, IMAGE])
    assert_array_equal(observer.maps("attn").before, entries(*[np.stack([1 - IMAGE % 2, IMAGE])] * 2))
    for frame in (IMAGE, 0 * IMAGE, IMAGE % 2):
        result = simulator.step(frame)
    assert_array_equal(observer.maps("attn").before, entries(*[np.stack([IMAGE % 2])] * 2))
    assert result.totals.scores == 3 * HEADS * TOKENS**2


def test_a_layer_behind_a_mean_over_time_has_one_map() -> None:
    build = NetworkBuilder("late")
    x = build.add("input", Input((TOKENS, CHANNELS)))
    x = build.add("whole", IntegerActivation(), build.add("mean", MeanOverTime(), x))
    build.add("attn", SpikingAttention(HEADS), x, x, x)
    build.add("readout", Readout(), build.add("flat", Flatten(), "attn"))
    network = build.build()
    for chunk in (1, 2, 3):
        observer = AttentionMaps(network, keep=["attn"])
        result = Simulator(network, chunk=chunk, record=["whole"], observers=[observer]).run([IMAGE] * 3)
        assert_array_equal(observer.maps("attn").before, entries(*[result.recorded["whole"]] * 2))
        assert result.totals.scores == HEADS * TOKENS**2


def test_layers_may_be_left_out() -> None:
    network = static_network()
    observer = AttentionMaps(network, count=[])
    assert Simulator(network, observers=[observer]).run([IMAGE]).totals.scores == 0
    with pytest.raises(InputError, match=r"^layer attn: its attention maps are not kept, those of none are"):
        observer.maps("attn")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": ["spikes"]}, "layer spikes: IF found; expected SpikingAttention"),
        ({"keep": ["spikes"]}, "layer spikes: IF found; expected SpikingAttention or TableAttention"),
        ({"keep": ["other"]}, "layer other: no such layer found"),
    ],
)
def test_other_layers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        AttentionMaps(static_network(), **options)


def test_maps_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"^layer attn: no attention maps found; expected a sample to be run"):
        AttentionMaps(static_network(), keep=["attn"]).maps("attn")


class Parallel:
    """Runs another sample on another thread between two chunks of the first."""

    def __init__(self, other: Any) -> None:
        self.other = other

    def on_layer(self, node: Any, inputs: Any, output: Any, rows: Any) -> None:
        if node.name == "readout" and rows.start == 0:
            thread = threading.Thread(target=self.other)
            thread.start()
            thread.join()


def test_two_samples_at_once_are_counted_and_not_kept() -> None:
    network, told = static_network(), []
    for keep in ([], ["attn"]):
        observer = AttentionMaps(network, keep=keep)
        second = Simulator(network, chunk=1, observers=[observer])

        def other(second: Simulator = second) -> None:
            try:
                told.append(second.run([IMAGE] * 2).totals.scores)
            except InputError as error:
                told.append(str(error))

        result = Simulator(network, chunk=1, observers=[observer, Parallel(other)]).run([IMAGE] * 2)
        assert result.totals.scores == 2 * HEADS * TOKENS**2
    assert told[0] == 2 * HEADS * TOKENS**2
    assert told[1].startswith("attention maps kept of samples on two threads found; expected one sample at a time")
