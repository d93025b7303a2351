"""Every operation of the table, of every layer and in every time step, against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from brute_force import COUNTS, NOTHING_IS_COUNTED, brute_force
from hypothesis import given
from hypothesis import strategies as st
from plain_rows import chunks, decode, encode
from strategies import Drawn, activity, networks, randoms, recurrent_networks, slidings, weights
from test_contract import EXAMPLES, INPUTS_THAT_DIFFER

from eventsim import Simulator, layers
from eventsim.context import Context
from eventsim.layers import Layer
from eventsim.ledger import Counts, Ledger
from eventsim.operations import OPERATIONS
from eventsim.profile import LayerProfile
from eventsim.result import Result
from eventsim.signals import SignalType
from eventsim.testing import strategies as public
from eventsim.traffic import report_traffic

pytestmark = pytest.mark.kernels

F = np.float32
Columns = dict[str, list[int]]


def executed(layer: Layer, types: Sequence[SignalType], inputs: Sequence[np.ndarray], chunk: int) -> Any:
    """What a layer puts out, and what it executes, on its own but told as in a network."""
    op, facts = layer.op(*types).fork(), layer.facts(*types)
    steps = len(inputs[0])
    ledger, emitted = Ledger(["layer"], steps), []
    for start in range(0, steps, chunk):
        given = tuple(encode(kind, x[start : start + chunk]) for kind, x in zip(types, inputs, strict=True))
        rows = ledger.rows("layer", start, given[0].steps)
        signal = op.advance(given, Context(start + chunk >= steps, rows))
        report_traffic(given, signal, facts, Context(True, rows))
        emitted.append(decode(signal).copy())
    profile = LayerProfile("layer", type(layer).__name__, op.kernel, facts, steps, 0.0, ledger.columns("layer"), True)
    return np.concatenate(emitted), told(profile)


def told(profile: LayerProfile) -> Columns:
    """What a profile says was executed, without what was not."""
    assert profile.by_step is not None
    return {name: column.tolist() for name, column in profile.by_step.items() if column.any()}


def check_counts(layer: Layer, types: Sequence[SignalType], inputs: Sequence[np.ndarray]) -> Columns:
    """Compare with brute force, in chunks of every size, and look at the parts."""
    steps = len(inputs[0])
    output, found = executed(layer, types, inputs, steps)
    expected = brute_force(layer, types, inputs, output)
    assert found == expected
    if not layer.op(*types).looks_ahead:
        for chunk in chunks(steps):
            assert executed(layer, types, inputs, chunk)[1] == expected, chunk
    check_parts(Counts({name: sum(column) for name, column in found.items()}))
    return found


STEPS_OF_AN_UPDATE = 2
"""Additions of the longest charge equation, and comparisons with threshold and floor."""


def check_parts(counts: Counts) -> None:
    """A part is never more than what it is part of; in another unit than an update, so many of it in each."""
    for part in OPERATIONS.values():
        if part.part_of:
            own_unit = part.unit == OPERATIONS[part.part_of[0]].unit or part.name == "resets"
            most = STEPS_OF_AN_UPDATE if part.part_of == ("neuron_updates",) and not own_unit else 1
            assert counts[part.name] <= most * sum(counts[whole] for whole in part.part_of), part.name
    assert counts.coincidences + counts.value_additions <= counts.acs + counts.graded_macs + counts.macs


def frames(kind: SignalType, steps: int, seed: int) -> np.ndarray:
    """Random frames of a type, about half of the values 0."""
    rng = np.random.default_rng(seed)
    some = rng.random((steps, *kind.shape)) < 0.5
    values = {"binary": 1, "graded": rng.integers(1, 4, some.shape), "real": rng.integers(-8, 9, some.shape) / 8}
    return np.where(some, values[kind.kind], 0).astype(F)


def parts_of_a_sample(layer: Layer, source: SignalType) -> tuple[list[SignalType], list[np.ndarray]]:
    return [source] * layer.arguments, [frames(source, 4, seed) for seed in range(layer.arguments)]


SPREAD = [((layer, tuple([source] * layer.arguments))) for layer, source in EXAMPLES] + INPUTS_THAT_DIFFER
TOKENS = SignalType("real", 6, (5,), dense=True)
CONTEXT = (6, 1, (2, 6), 2, (6, 2), 6, 2, 2)
RARE: list[tuple[Layer, tuple[SignalType, ...]]] = [
    (layers.Input((6, 4, 4)), ()),
    (
        layers.GlobalContext(*(np.ones(n, F) for n in ((6,), 1, (2, 6), 2, (6, 2), 6, 2, 2)), "sigmoid", "gated"),
        (TOKENS,),
    ),
    (layers.SoftmaxAttention(2, scale=1.0), (TOKENS,)),
    (layers.LayerNorm(np.ones(6, F), np.ones(6, F)), (TOKENS,)),
]
"""What the contract does not need, and counts do."""


def test_examples() -> None:
    """All layers there are, and with them all operations, whichever random ones are drawn elsewhere."""
    seen: set[str] = set()
    for index, (layer, types) in enumerate([*SPREAD, *RARE]):
        inputs = [frames(kind, 4, 10 * index + place) for place, kind in enumerate(types)]
        if types:
            seen |= check_counts(layer, types, inputs).keys()
    assert seen == OPERATIONS.keys() - {"valued_inputs"}  # which the run counts: `test_networks`


def test_every_layer_is_counted() -> None:
    exported = {
        layer
        for layer in (getattr(layers, name) for name in layers.__all__)
        if isinstance(layer, type) and issubclass(layer, Layer) and layer is not Layer
    }
    assert COUNTS.keys() | set(NOTHING_IS_COUNTED) == exported
    assert not COUNTS.keys() & set(NOTHING_IS_COUNTED)


@given(data=st.data())
def test_random_layers(data: st.DataObject) -> None:
    layer, types = data.draw(public.layers())
    steps = data.draw(st.integers(1, 4))
    kinds = [kind.kind for kind in types]
    inputs = [data.draw(activity(kind, steps, *source.shape)) for kind, source in zip(kinds, types, strict=True)]
    check_counts(layer, types, inputs)


@st.composite
def pruned(draw: st.DrawFn, *shape: int) -> np.ndarray:
    """A weight of which some, half, or most are 0."""
    weight = draw(weights(*shape))
    weight[draw(randoms()).random(shape) < draw(st.sampled_from([0.0, 0.5, 0.8]))] = 0
    return weight


def source_of(draw: Any, channels: int, grid: tuple[int, ...]) -> SignalType:
    kind = draw(st.sampled_from(["binary", "graded", "real"]))
    return SignalType(kind, channels, grid, kind == "real" and draw(st.booleans()))


@given(data=st.data())
def test_pruned_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    groups, size = draw(st.sampled_from([1, 1, 2, 3])), draw(st.tuples(st.integers(3, 6), st.integers(3, 6)))
    source = source_of(draw, groups * draw(st.integers(1, 2)), size)
    window, out = draw(slidings(size)), groups * draw(st.integers(1, 3))
    place: Any = window.stride, window.padding, groups
    shape = out, source.channels // groups
    bias = draw(st.none() | weights(out))
    if draw(st.booleans()):
        dilation = (
            draw(st.sampled_from([(1, 1), (1, 2), (2, 1)])) if min(size) > 4 and max(window.kernel) < 3 else (1, 1)
        )
        layer: Layer = layers.Conv2d(draw(pruned(*shape, *window.kernel)), bias, *place, dilation)
    else:
        time, padding = draw(st.sampled_from([(1, "causal"), (2, "causal"), (3, "causal"), (3, "centred")]))
        layer = layers.Conv3d(draw(pruned(*shape, time, *window.kernel)), bias, *place, padding)
    check_counts(layer, [source], [draw(activity(source.kind, draw(st.integers(1, 4)), *source.shape))])


@pytest.mark.parametrize("kind", ["Linear", "SparseLinear", "WindowedLinear"])
@given(data=st.data())
def test_pruned_matrices(kind: str, data: st.DataObject) -> None:
    draw = data.draw
    source = source_of(draw, draw(st.integers(1, 8)), draw(st.sampled_from([(), (3,), (2, 2)])))
    groups = draw(st.sampled_from([1, 2]))
    weight = draw(pruned(groups * draw(st.integers(1, 4)), source.channels))
    bias = draw(st.none() | weights(len(weight)))
    window = draw(st.tuples(*[st.integers(1, 3)] * groups))
    form = draw(st.sampled_from(["accumulate_once", "reaccumulate"]))
    made: dict[str, Layer] = {
        "Linear": layers.Linear(weight, bias),
        "SparseLinear": layers.SparseLinear.from_matrix(weight, bias),
        "WindowedLinear": layers.WindowedLinear(weight, bias, window if groups > 1 else window[0], 1, form=form),
    }
    check_counts(made[kind], [source], [draw(activity(source.kind, 4, *source.shape))])


@given(data=st.data())
def test_neurons(data: st.DataObject) -> None:
    draw = data.draw
    source = source_of(draw, draw(st.sampled_from([1, 5, 17])), draw(st.sampled_from([(), (3,), (2, 2)])))
    reset = draw(st.sampled_from(["zero", "subtract", "subtract_late", "subtract_once", "zero_late"]))
    multiple = reset in ("zero", "subtract") and draw(st.booleans())
    options: dict[str, Any] = {
        "v_threshold": draw(st.sampled_from([0.25, 0.5, 1.5])),
        "reset": reset,
        "strict": not multiple and draw(st.booleans()),
        "multiple_spikes": multiple,
        "start": draw(st.sampled_from([0.0, 0.125, 2.0])),
        "v_min": draw(st.sampled_from([None, -0.25, 0.0])),
    }
    kind = draw(st.sampled_from(["IF", "LIF", "PLIF", "DecayLIF", "PLIAF", "LeakyIntegrator"]))
    if kind == "LIF":
        options |= {"tau": draw(st.sampled_from([1.0, 1.75, 2.0, 3.0])), "decay_input": draw(st.booleans())}
    elif kind in ("PLIF", "PLIAF"):
        options |= {"w": draw(st.sampled_from([0.0, 0.5])), "decay_input": draw(st.booleans())}
        if kind == "PLIAF":
            options["multiple_spikes"] = False
    elif kind == "DecayLIF":
        options["decay"] = draw(st.sampled_from([0.5, 1.0]))
    elif kind == "LeakyIntegrator":
        options = {"decay": draw(st.sampled_from([0.0, 0.5, 1.0])), "start": options["start"]}
    check_counts(getattr(layers, kind)(**options), [source], [draw(activity(source.kind, 5, *source.shape))])


@given(data=st.data())
def test_attention(data: st.DataObject) -> None:
    draw = data.draw
    heads, tokens, others = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    d, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    scale = draw(st.sampled_from([0.25, 1.0]))
    if draw(st.booleans()):
        table = draw(randoms()).integers(-2, 3, (heads, d + 1)).astype(np.int32)
        table[:, 0] = 0
        layer: Layer = layers.TableAttention(table, scale)
        types = [SignalType("binary", heads * d, (tokens,))] * 3
    else:
        layer = layers.SpikingAttention(heads, scale, draw(st.sampled_from(["scores_first", "context_first"])))
        q, k, v = (draw(st.sampled_from(["binary", "graded"])) for _ in "qkv")
        types = [
            SignalType(q, heads * d, (tokens,)),
            SignalType(k, heads * d, (others,)),
            SignalType(v, heads * width, (others,)),
        ]
    check_counts(layer, types, [draw(activity(kind.kind, 3, *kind.shape)) for kind in types])


# --- networks


def counted(drawn: Drawn, result: Result, image: bool = False) -> dict[str, Columns]:
    """Brute force of every layer, on what the layers before it put out in this run.

    What an image needs once is computed in the first step; the layers behind read it in every step.
    """
    network, steps = drawn.network, len(drawn.frames)
    expected: dict[str, Columns] = {"input": {}}
    once = {"input"} if image else set()
    for name in network.order:
        types, edges = network.input_types(name), network.inputs[name]
        if not edges:
            continue
        given = [heard(result.recorded[edge.source], edge.delay) for edge in edges]
        output = result.recorded[name]
        if network.layers[name].op(*types).once_if_static and all(e.source in once and not e.delay for e in edges):
            once.add(name)
            given, output = [x[:1] for x in given], output[:1]
        columns = brute_force(network.layers[name], types, given, output)
        if network.layers[name].dense_macs(*types) and any(valued := values_of(given)):
            columns["valued_inputs"] = valued
        # one step alone is the first, for an image, or else the last, behind a mean over time
        silent = [0] * (steps - len(given[0]))
        expected[name] = {
            operation: column + silent if name in once else silent + column for operation, column in columns.items()
        }
    return expected


def values_of(given: list[np.ndarray]) -> list[int]:
    """How many inputs of each step are neither 0 nor of magnitude 1."""
    return [sum(int(((x[t] != 0) & (np.abs(x[t]) != 1)).sum()) for x in given) for t in range(len(given[0]))]


def heard(output: np.ndarray, delay: int) -> np.ndarray:
    """What arrives over an edge that waits."""
    late = np.zeros_like(output)
    late[delay:] = output[: max(len(output) - delay, 0)]
    return late


def check_network(drawn: Drawn, frames: np.ndarray | None = None) -> Result:
    """Compare every layer with brute force, however the network is run: on the frames, or on one image."""
    image = frames is not None
    given, steps = (drawn.frames, None) if frames is None else (frames, len(drawn.frames))

    def run(**options: Any) -> Result:
        return Simulator(drawn.network, record=drawn.network.layers, **options).run(given, steps)

    whole = run()
    expected = counted(drawn, whole, image)
    for layer in whole.profile:
        assert told(layer) == expected[layer.name], layer.name
    for chunk in range(1, len(drawn.frames)):
        assert {layer.name: told(layer) for layer in run(chunk=chunk).profile} == expected, chunk
    for threads in (1, 2):
        for result in Simulator(drawn.network, threads=threads).run_many([given] * 3, steps):
            assert {layer.name: told(layer) for layer in result.profile} == expected, threads
    for name in OPERATIONS:
        assert whole.totals[name] == sum(sum(layer.get(name, [])) for layer in expected.values()), name
    check_parts(whole.totals)
    return whole


@given(drawn=networks() | recurrent_networks())
def test_networks(drawn: Drawn) -> None:
    whole = check_network(drawn)
    streamed = Simulator(drawn.network).run(iter(drawn.frames))
    assert [layer.counts for layer in streamed.profile] == [layer.counts for layer in whole.profile]


@given(drawn=networks() | recurrent_networks())
def test_networks_that_see_an_image(drawn: Drawn) -> None:
    check_network(drawn, drawn.frames[0])
