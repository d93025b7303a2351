"""Neurons with every reset, start, floor and decay, delays and shapes, against the dense reference and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_rows import check, signal_type
from reference import counts
from reference.neurons import leaky_integrator, neuron_states
from reference.over_time import delay_each
from reference.synapses import conv2d
from strategies import OUTPUTS, activity, constants, randoms, slidings, thresholds, weights

from eventsim import InputError, NetworkBuilder
from eventsim.layers import (
    IF,
    LIF,
    PLIAF,
    PLIF,
    Conv2d,
    DecayLIF,
    DelayEach,
    Input,
    Layer,
    LeakyIntegrator,
    Reshape,
)
from eventsim.layers.neurons.spiking import EMITTED

pytestmark = pytest.mark.kernels

F = np.float32
KINDS = ("binary", "graded", "real", "sparse real")
kinds = pytest.mark.parametrize("kind", KINDS)
SHAPES = [(2, 3, 4), (1, 5, 1), (4, 7), (17,), (33,)]
RESETS = ["zero", "subtract", "subtract_late", "subtract_once", "zero_late"]
DYADIC = st.sampled_from([0.0, 0.25, -0.5, 1.0])


def frames_of(data: st.DataObject, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    return data.draw(activity(kind.removeprefix("sparse "), data.draw(st.integers(1, 6)), *shape))


def charged(layer: type[Layer], constant: object, decay_input: bool = True) -> tuple[object, object]:
    """What the layer is made with, and its charge by the book."""
    k = np.asarray(constant, F)
    if layer is IF:
        return {}, lambda v, x: v + x
    if layer is PLIF:
        sigma = (1 / (1 + np.exp(-np.asarray(constant, np.float64)))).astype(F)
        if not decay_input:
            return {"w": constant, "decay_input": False}, lambda v, x: v * (F(1) - sigma) + x
        return {"w": constant}, lambda v, x: v + (x - v) * sigma
    if layer is DecayLIF:
        return {"decay": constant}, lambda v, x: v * k + x
    return {"tau": constant}, lambda v, x: v + (x - v) / k


@kinds
@pytest.mark.parametrize("layer", [IF, LIF, PLIF, DecayLIF])
@given(data=st.data())
def test_neurons_follow_their_definition(layer, kind, data):
    shape = data.draw(st.sampled_from(SHAPES))
    x, source = frames_of(data, kind, shape), signal_type(kind, shape)
    values = [1.0, 2.0, 3.0] if layer is LIF else [0.5, 0.25, 0.75]
    constant, expected_constant = data.draw(constants(st.sampled_from(values), shape))
    threshold, expected_threshold = data.draw(constants(thresholds(), shape))
    start, expected_start = data.draw(constants(DYADIC, shape))
    v_min, expected_v_min = data.draw(st.just((None, None)) | constants(st.sampled_from([-0.125, -1.0]), shape))
    multiple = data.draw(st.booleans())
    reset = data.draw(st.sampled_from(RESETS[:2] if multiple else RESETS))
    strict = not multiple and data.draw(st.booleans())
    decay_input = data.draw(st.booleans())
    fields, _ = charged(layer, constant, decay_input)
    _, charge = charged(layer, expected_constant, decay_input)
    emits = data.draw(st.sampled_from(EMITTED))
    expected = neuron_states(
        x, charge, expected_threshold, reset, strict, expected_start, expected_v_min, multiple_spikes=multiple
    )[EMITTED.index(emits)]
    done = check(
        layer(threshold, reset, strict, **fields, multiple_spikes=multiple, start=start, v_min=v_min, emits=emits),
        [(source, x)],
        expected,
        spikes=int(expected.sum()) if emits == "spikes" else 0,
        neuron_updates=counts.neuron_updates(x),
    )
    assert done.op.kernel == "fire"


@kinds
@given(data=st.data())
def test_leaky_integrators_follow_their_definition(kind, data):
    shape = data.draw(st.sampled_from(SHAPES))
    x, source = frames_of(data, kind, shape), signal_type(kind, shape)
    decay, expected_decay = data.draw(constants(st.sampled_from([0.0, 0.5, 0.9, 1.0]), shape))
    start, expected_start = data.draw(constants(DYADIC, shape))
    expected = leaky_integrator(x, expected_decay, expected_start)
    layer = LeakyIntegrator(decay, start)
    check(layer, [(source, x)], expected, neuron_updates=counts.neuron_updates(x))
    assert layer.neurons(source) == source.size
    assert layer.parameters == 0


@kinds
@given(data=st.data())
def test_delays_of_single_neurons(kind, data):
    shape = data.draw(st.sampled_from(SHAPES))
    x, source = frames_of(data, kind, shape), signal_type(kind, shape)
    steps = data.draw(randoms()).integers(0, data.draw(st.integers(1, 8)), shape)
    check(DelayEach(steps), [(source, x)], delay_each(x, steps))


@kinds
@given(data=st.data())
def test_shapes_change_as_in_pytorch(kind, data):
    """Any two shapes of as many values: NumPy's reshape is PyTorch's."""
    shape, other = data.draw(st.permutations([(2, 3, 4), (6, 4), (24,), (4, 6, 1), (8, 3), (1, 12, 2), (3, 8)]))[:2]
    x, source = frames_of(data, kind, shape), signal_type(kind, shape)
    check(Reshape(other), [(source, x)], x.reshape(len(x), *other))


@kinds
@given(data=st.data())
def test_dilated_convolutions(kind, data):
    groups = data.draw(st.sampled_from([1, 1, 2]))
    channels, outputs = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.sampled_from(OUTPUTS))
    dilation = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    shape = (channels, *data.draw(st.tuples(st.integers(4, 7), st.integers(4, 7))))
    window = data.draw(slidings((2, 2), widest=2))
    weight, bias = data.draw(weights(outputs, channels // groups, *window.kernel)), data.draw(weights(outputs))
    x, source = frames_of(data, kind, shape), signal_type(kind, shape)
    options = (window.stride, window.padding, groups)
    check(
        Conv2d(weight, bias, *options, dilation),
        [(source, x)],
        conv2d(x, weight, bias, *options, dilation),
        inputs=x.size,
        nonzero_inputs=np.count_nonzero(x),
        **counts.conv2d_counts(x, weight, *options, source.kind, source.dense, dilation),
    )


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (IF(reset="late"), r"reset 'late' found; expected 'zero' or 'subtract', or one of 'subtract_late'"),
        (IF(reset="subtract_late", multiple_spikes=True), "several spikes in a step with reset 'subtract_late'"),
        (IF(emits="v"), "emits 'v' found; expected one of 'spikes', 'charge', 'potential'"),
        (PLIAF(emits="charge"), r"emits 'charge' found; expected 'spikes', in the place of which it emits max\(h, 0\)"),
        (IF(strict=True, multiple_spikes=True), "several spikes in a step and strict"),
        (IF(0.0, multiple_spikes=True), r"several spikes in a step, v_threshold 0\.0"),
        (IF(start=np.ones(3, F)), r"start of shape \(3,\)"),
        (IF(v_min=np.nan), "v_min that is NaN"),
        (DecayLIF(decay=np.ones((2, 3), F)), "time constant of shape"),
        (LeakyIntegrator(np.ones(3, F)), "decay of shape"),
        (DelayEach(np.array([1.0, 2.0])), "steps that are no whole numbers"),
        (DelayEach(np.array([-1, 0])), "steps that are no whole numbers"),
        (DelayEach(np.array([0, 2**30])), "a delay of 1073741824 steps"),
        (Reshape((5, 5)), r"shape \(5, 5\) found; expected 1 to 3 axes of 32 values"),
        (Conv2d(np.ones((1, 2, 2, 2), F), dilation=(0, 1)), r"dilation \(0, 1\) found"),
        (Conv2d(np.ones((1, 2, 2, 2), F), dilation=(4, 1)), "does not fit into a 4x4 map"),
    ],
)
def test_what_does_not_fit_is_named(layer, words):
    build = NetworkBuilder("odd")
    x = build.add("input", Input((2, 4, 4)))
    with pytest.raises(InputError, match=f"^layer odd: .*{words}"):
        build.add("odd", layer, x)
