"""Adaptive neuron and step attention against the reference: exactly where gates are 0, 1 or 2, else by margins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import check, chunks, execute, main, signal_type
from reference.adaptive_lif import StepAttention, adaptive_lif
from strategies import activity, randoms

from eventsim import InputError, NetworkBuilder, Simulator
from eventsim.layers import AdaptiveLIF, Flatten, Input, LayerError, MeanOverTime, Readout
from eventsim.ledger import Counts

F = np.float32
INPUTS = ("binary", "graded", "real", "sparse real")
GRIDS = ((1, 1), (1, 2), (2, 2), (2, 4))
inputs = pytest.mark.parametrize("kind", INPUTS)
gate_inputs = pytest.mark.parametrize("gate_inputs", ["terms", "features"])
resets = st.fixed_dictionaries({"reset": st.sampled_from(["zero", "subtract"]), "strict": st.booleans()})
modes = pytest.mark.parametrize("mode", ["each", "sum"])
scalars = pytest.mark.parametrize("scalar", [False, True])


def as_tokens(frames: np.ndarray) -> np.ndarray:
    """(T, C, H, W) as (T, N, C)."""
    return np.moveaxis(frames, 1, -1).reshape(len(frames), -1, frames.shape[1])


def as_maps(tokens: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(tokens.reshape(len(tokens), *shape[2:], shape[1]), -1, 1)


@st.composite
def quarters(draw, *shape: int) -> np.ndarray:
    """Multiples of 1/4 between -1 and 1: few digits, so that sums stay exact over four time steps."""
    return (draw(randoms()).integers(-4, 5, shape) / 4).astype(F)


@st.composite
def encodings(draw, steps: int, channels: int, positions: int) -> dict[str, np.ndarray]:
    """Some of the two encodings, with any axes repeated, as the layer takes them."""
    names = draw(st.sets(st.sampled_from(["past_encoding", "potential_encoding"])))
    sizes = ((1, steps), (1, channels), (1, positions))
    return {name: draw(quarters(*(draw(st.sampled_from(choices)) for choices in sizes))) for name in sorted(names)}


def as_rows(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same, as the reference takes them."""
    return {name: array.swapaxes(1, 2) for name, array in arrays.items()}


@st.composite
def coefficients(draw, steps: int, channels: int, positions: int) -> np.ndarray:
    """M or N with any axes repeated."""
    sizes = ((1, steps, steps + 2), (1, channels), (1, positions))
    return draw(quarters(*(draw(st.sampled_from(choices)) for choices in sizes)))


def counted(
    x: np.ndarray,
    spikes: np.ndarray,
    attention: StepAttention | None,
    gate_inputs: str,
    gates: int = 0,
    encodings: int = 0,
) -> dict[str, int]:
    """M * H and N * X; both linear maps, and a product by the gates for each term or for their sum; encodings."""
    macs, additions = 2 * x.size, encodings * x.size
    if attention is not None:
        terms = len(attention.expand_bias[0]) // gates
        maps = attention.reduce_weight[0].size + attention.expand_weight[0].size
        macs += len(x) * maps + terms * x.size
        additions += x.size * (2 if gate_inputs == "terms" else 1)
    return {
        "inputs": x.size,
        "nonzero_inputs": int(np.count_nonzero(x)),
        "spikes": int(spikes.sum()),
        "neuron_updates": x.size,
        "macs": macs,
        "additions": additions,
    }


@inputs
@given(data=st.data())
def test_without_attention(kind, data):
    steps, channels, grid = (
        data.draw(st.integers(1, 4)),
        data.draw(st.integers(1, 20)),
        data.draw(st.sampled_from(GRIDS)),
    )
    x = data.draw(activity(kind.removeprefix("sparse "), steps, channels, *grid))
    source = signal_type(kind, x.shape[1:])
    m, n = (data.draw(coefficients(steps, channels, source.positions)) for _ in range(2))
    m, n = (a if len({1, len(m), len(n)}) < 3 else a[:1] for a in (m, n))  # both are for equally many steps
    threshold = data.draw(st.sampled_from([0.25, 1.0]))
    dynamics = data.draw(resets)
    encoded = data.draw(encodings(steps if steps + 2 not in (len(m), len(n)) else 1, channels, source.positions))
    given_rows = (a[:steps].swapaxes(1, 2) for a in (m, n))
    spikes, _ = adaptive_lif(as_tokens(x), *given_rows, None, threshold, **dynamics, **as_rows(encoded))
    layer = AdaptiveLIF(m, n, v_threshold=threshold, **dynamics, **encoded)
    expected = counted(x, spikes, None, "terms", encodings=len(encoded))
    check(layer, [(source, x)], as_maps(spikes, x.shape), **expected)
    assert layer.neurons(source) == source.size
    assert layer.dense_macs(source) == 0
    assert layer.parameters == m.size + n.size + sum(array.size for array in encoded.values())


@gate_inputs
@modes
@scalars
@inputs
@given(data=st.data())
def test_exact_where_gates_saturate(kind, scalar, mode, gate_inputs, data):
    """Gates are scale * sigmoid of 0, or of numbers so large that the sigmoid is 0 or 1; they depend on the means."""
    steps, channels, hidden = (data.draw(st.integers(1, most)) for most in (4, 6, 3))
    x = data.draw(activity(kind.removeprefix("sparse "), steps, channels, *data.draw(st.sampled_from(GRIDS))))
    source = signal_type(kind, x.shape[1:])
    m, n = data.draw(quarters(1, channels, 1)), data.draw(quarters(1, channels, source.positions))
    own = data.draw(st.sampled_from([1, steps]))  # weights for all steps, or for each
    per_term = 1 if scalar else channels
    outputs = 2 * per_term if mode == "each" else per_term
    attention = StepAttention(
        data.draw(quarters(own, hidden, 2 * channels)),
        data.draw(quarters(own, hidden)),
        data.draw(quarters(own, outputs, hidden)) * F(2**26),
        data.draw(quarters(own, outputs)) * F(2**12),
    )
    scale = data.draw(st.sampled_from([1.0, 2.0]))
    dynamics = data.draw(resets)
    coefficients = m.swapaxes(1, 2), n.swapaxes(1, 2)
    encoded = data.draw(encodings(steps, channels, source.positions))
    settings = {"gate_inputs": gate_inputs, **dynamics}
    spikes, _ = adaptive_lif(
        as_tokens(x), *coefficients, attention, 0.5, scale, **settings, scalar=scalar, **as_rows(encoded)
    )
    layer = AdaptiveLIF(m, n, *attention, v_threshold=0.5, gate_scale=scale, **settings, scalar_gates=scalar, **encoded)
    expected = counted(x, spikes, attention, gate_inputs, per_term, len(encoded))
    check(layer, [(source, x)], as_maps(spikes, x.shape), **expected)
    assert layer.dense_macs(source) == hidden * (2 * channels + outputs)


@pytest.mark.kernels
@pytest.mark.parametrize("channels", [3, 8, 33, 50, 64])
@pytest.mark.parametrize("gated", ["no", "each", "sum", "features"])
def test_populations_of_many_stretches(gated, channels):
    """More neurons than are taken together, no whole number of times; coefficients of channels and of every neuron."""
    rng = np.random.default_rng(channels)
    steps, grid = 3, (16, 32)

    def quarter(*shape: int) -> np.ndarray:
        return (rng.integers(-4, 5, shape) / 4).astype(F)

    x = quarter(steps, channels, *grid)
    m, n = quarter(1, channels, 1), quarter(steps, channels, 512)
    encoded = {"past_encoding": quarter(steps, 1, 512), "potential_encoding": quarter(1, channels, 1)}
    attention, settings = None, {}
    if gated != "no":
        outputs = channels if gated == "sum" else 2 * channels
        sizes, scales = ((2, 2 * channels), (2,), (outputs, 2), (outputs,)), (1, 1, 2**26, 2**12)
        attention = StepAttention(*(quarter(1, *size) * F(factor) for size, factor in zip(sizes, scales, strict=True)))
        settings = {"gate_inputs": "features" if gated == "features" else "terms"}
    given_rows = (array.swapaxes(1, 2) for array in (m, n))
    spikes, _ = adaptive_lif(as_tokens(x), *given_rows, attention, 0.5, **settings, **as_rows(encoded))
    layer = AdaptiveLIF(m, n, *(attention or ()), v_threshold=0.5, **settings, **encoded)
    assert 0.01 < spikes.mean() < 0.9
    source = signal_type("real", x.shape[1:])
    for chunk in chunks(steps):
        done = execute(layer, [(source, x)], chunk)
        assert_array_equal(done.frames, as_maps(spikes, x.shape))
        counts = counted(x, spikes, attention, settings.get("gate_inputs", "terms"), channels, 2)
        assert main(done.counts) == Counts(**counts)


@gate_inputs
@modes
@given(data=st.data())
def test_real_weights_agree_away_from_the_threshold_and_exactly_for_every_chunk(mode, gate_inputs, data):
    rng = data.draw(randoms())
    steps, channels, hidden = (data.draw(st.integers(1, most)) for most in (5, 9, 3))
    x = rng.normal(size=(steps, channels, data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))).astype(F) * F(2)
    m, n = (rng.normal(size=(1, channels, 1)).astype(F) for _ in range(2))
    outputs = 2 * channels if mode == "each" else channels
    sizes = ((hidden, 2 * channels), (hidden,), (outputs, hidden), (outputs,))
    attention = StepAttention(*(rng.normal(size=(1, *size)).astype(F) for size in sizes))
    spikes, potentials = adaptive_lif(
        as_tokens(x), m.swapaxes(1, 2), n.swapaxes(1, 2), attention, gate_inputs=gate_inputs
    )
    assume(np.abs(potentials - 1).min() > 1e-4)
    layer = AdaptiveLIF(m, n, *attention, gate_inputs=gate_inputs)
    expected = counted(x, spikes, attention, gate_inputs, channels)
    for chunk in chunks(steps):
        done = execute(layer, [(signal_type("real", x.shape[1:]), x)], chunk)
        assert_array_equal(done.frames, as_maps(spikes, x.shape))
        assert main(done.counts) == Counts(**expected)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, F)


def network_of(layer: AdaptiveLIF):
    build = NetworkBuilder("one layer")
    x = build.add("input", Input((2, 1, 2)))
    x = build.add("flat", Flatten(), build.add("layer", layer, x))
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), x))
    return build.build(time_steps=3)


def test_every_sample_begins_at_rest_and_at_the_first_step():
    gains = F([0.5, 0.75, 0.0]).reshape(3, 1, 1)
    simulator = Simulator(network_of(AdaptiveLIF(ones(1, 1, 1), gains)), chunk=1, record=["layer"])
    frames = ones(3, 2, 1, 2)
    for sample in (frames, frames[:2], frames, frames[0]):  # V: 0.5; 1.25, fires; 0
        fired = simulator.run(sample).recorded["layer"]
        assert_array_equal(fired[:, 0, 0, 0], [0, 1, 0][: len(fired)])
    for step in range(3):
        assert simulator.step(frames[0]).recorded["layer"][0][0, 0, 0] == (step == 1)


def test_what_the_last_input_was_is_forgotten_between_samples():
    """With features a spike needs an input in the step before; the first step of a sample never has one."""
    attention = (F([[[1, 0, 0, 0]]]), F([[0]]), F([[[512], [512], [512], [512]]]), F([[-256] * 4]))
    layer = AdaptiveLIF(ones(1, 1, 1), ones(1, 1, 1), *attention, gate_inputs="features")
    simulator = Simulator(network_of(layer), record=["layer"])
    for _ in range(2):
        assert_array_equal(simulator.run(ones(3, 2, 1, 2)).recorded["layer"][:, 0, 0, 0], [0, 1, 1])


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_more_steps_than_the_coefficients_have_are_refused(chunk):
    network = network_of(AdaptiveLIF(ones(3, 1, 1), ones(1, 1, 1)))
    words = "^layer layer: 4 time steps found; expected at most 3, which the coefficients are for$"
    with pytest.raises(InputError, match=words):
        Simulator(network, chunk=chunk).run(np.zeros((4, 2, 1, 2)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"retention": ones(1, 5, 1)},
            r"retention of shape \(1, 5, 1\) found; expected .*6 channels or 1, 4 positions",
        ),
        ({"gain": ones(1, 6, 3)}, r"gain of shape \(1, 6, 3\) found"),
        ({"past_encoding": ones(1, 5, 1)}, r"past_encoding of shape \(1, 5, 1\) found; expected .*6 channels or 1"),
        ({"potential_encoding": ones(1, 6)}, r"potential_encoding of shape \(1, 6\) found"),
        (
            {"scalar_gates": True},
            r"expand_weight of shape \(1, 12, 2\) found; expected \(T or 1, 2 or 1, 2\)",
        ),
        ({"gain": ones(6)}, r"gain of shape \(6,\) found"),
        ({"gain": ones(0, 1, 1)}, "an array for 0 time steps found; expected at least 1"),
        ({"gain": ones(3, 1, 1), "retention": ones(2, 1, 1)}, r"arrays for \[2, 3\] time steps found; expected equal"),
        (
            {"reduce_weight": ones(1, 2, 6)},
            r"reduce_weight of shape \(1, 2, 6\) found; expected \(T or 1, hidden, 12\)",
        ),
        ({"reduce_weight": ones(2, 12)}, r"reduce_weight of shape \(2, 12\) found"),
        ({"reduce_bias": ones(1, 3)}, r"reduce_bias of shape \(1, 3\) found; expected \(T or 1, 2\)"),
        (
            {"expand_weight": ones(1, 7, 2)},
            r"expand_weight of shape \(1, 7, 2\) found; expected \(T or 1, 12 or 6, 2\)",
        ),
        ({"expand_bias": ones(1, 6)}, r"expand_bias of shape \(1, 6\) found; expected \(T or 1, 12\)"),
        ({"expand_bias": None}, "only some arrays of the step attention found; expected both weights and both biases"),
        ({"reset": "none"}, r"reset 'none' found; expected one of \('zero', 'subtract'\)"),
        ({"gate_inputs": "all"}, r"gate_inputs 'all' found; expected one of \('terms', 'features'\)"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    fields = {"retention": ones(1, 6, 1), "gain": ones(1, 1, 4), "reduce_weight": ones(1, 2, 12)}
    fields |= {"reduce_bias": ones(1, 2), "expand_weight": ones(1, 12, 2), "expand_bias": ones(1, 12)}
    AdaptiveLIF(**fields).output_type(signal_type("real", (6, 2, 2)))
    with pytest.raises(LayerError, match=words):
        AdaptiveLIF(**{**fields, **change}).output_type(signal_type("real", (6, 2, 2)))
