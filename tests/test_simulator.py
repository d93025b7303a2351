"""What run, step and run_many accept, refuse and report."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import InputError, Network, NetworkBuilder, Preparation, Result, Simulator
from eventsim.layers import IF, LIF, Conv2d, Flatten, Input, Layer, LayerError, Linear, MeanOverTime, Op, Readout
from eventsim.masked import refuse_masked
from eventsim.operations import OPERATIONS

F = np.float32
SHAPE = (2, 6, 6)


def recording(seed: int = 0, steps: int = 5) -> np.ndarray:
    """Event counts for the small network."""
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 3], (steps, *SHAPE)).astype(F)


def contents(result: Result) -> tuple:
    """Everything a result holds, times aside."""
    recorded = {name: output.tolist() for name, output in result.recorded.items()}
    profile = [(p.name, p.kind, p.kernel, p.neurons, p.steps, p.dense_macs, str(p.counts)) for p in result.profile]
    return result.logits.tolist(), result.time_steps, profile, recorded


def pipeline(shape: tuple[int, ...], kind: str, *layers: Layer, time_steps: int | None = None) -> Network:
    """Layers one after the other, named by their types."""
    build = NetworkBuilder("pipeline")
    x = build.add("input", Input(shape, kind))
    for layer in layers:
        x = build.add(type(layer).__name__.lower(), layer, x)
    build.add("readout", Readout(), x)
    return build.build(time_steps)


def test_masked_arrays_that_another_thread_is_importing_stop_nobody(monkeypatch):
    """Numba asks for them when it first sees an array."""
    monkeypatch.setitem(sys.modules, "numpy.ma", ModuleType("numpy.ma"))
    refuse_masked(recording(), "frames")


# --- what is refused


@pytest.mark.parametrize(
    ("frames", "time_steps", "message"),
    [
        (np.zeros((4, 2, 6, 5)), None, "a time step of shape 2 x 6 x 5 found; the model takes 2 x 6 x 6"),
        (np.zeros((4, 6, 6)), None, "a time step of shape 4 x 6 x 6 found"),
        (np.zeros((1, 4, *SHAPE)), None, "1 x 4 x 2 x 6 x 6 found, a batch of samples with time steps; they go one by"),
        (np.zeros(6), None, "the model takes 2 x 6 x 6"),
        (7, None, "the model takes 2 x 6 x 6"),
        (np.zeros((0, *SHAPE)), None, "no time steps found; the model needs at least one"),
        (np.full((4, *SHAPE), np.nan), None, "NaN or infinite values found"),
        (np.full((4, *SHAPE), np.inf), None, "NaN or infinite values found"),
        (np.full((4, *SHAPE), -1.0), None, "negative or not whole found; the model takes event counts"),
        (np.full((4, *SHAPE), 0.5), None, "negative or not whole found"),
        (np.zeros((4, *SHAPE)), 5, "4 frames found; 5 time steps were asked for"),
        (np.zeros(SHAPE), 0, "0 time steps found; an image needs a number of at least 1"),
        (np.zeros(SHAPE), -3, "-3 time steps found"),
        (np.zeros((4, *SHAPE), complex), None, "values of type complex128 found; expected numbers"),
        (np.full((4, *SHAPE), "spike"), None, "values of type <U5 found; expected numbers"),
        (np.full((4, *SHAPE), None), None, "values of type object found; expected numbers"),
        (iter([]), None, "no time steps found"),
        (iter(np.zeros((4, 2, 6, 5))), None, "a time step of shape 2 x 6 x 5 found"),
        (iter([np.zeros(SHAPE), np.zeros((6, 6))]), None, "the model takes 2 x 6 x 6"),
        (iter([np.zeros(SHAPE), np.full(SHAPE, np.nan)]), None, "NaN or infinite values found"),
    ],
)
def test_frames_that_do_not_fit_are_refused(small_network, frames, time_steps, message):
    simulator = Simulator(small_network, chunk=1)
    before = simulator.run(recording())
    with pytest.raises(InputError) as caught:
        simulator.run(frames, time_steps, name="cat.npy")
    assert str(caught.value).startswith("cat.npy: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(simulator.run(recording())) == contents(before), "a refusal leaves no trace"


def test_a_binary_model_refuses_counts():
    network = pipeline((3,), "binary", IF())
    Simulator(network).run([[0, 1, 1]])
    with pytest.raises(InputError, match="input: values other than 0 and 1 found; the model takes binary input"):
        Simulator(network).run([[0, 1, 2]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_that_are_not_scaled_are_refused(dtype):
    """Preparation divides them by their largest; a model would take them for values 255 times as large."""
    network = pipeline((3, 2, 2), "real", Flatten(), Linear(np.ones((2, 12), F)), time_steps=2)
    pixels = np.full((3, 2, 2), 200, dtype)
    for frames in (pixels, np.stack([pixels] * 2)):
        with pytest.raises(
            InputError, match=rf"input: pixels of type {np.dtype(dtype)} found; .* Preparation\(\).frames"
        ):
            Simulator(network).run(frames)
        with pytest.raises(InputError, match="pixels of type"):
            next(Simulator(network).run_many([frames]))
    scaled = Preparation().frames(pixels, network)
    assert Simulator(network).run(scaled).logits[0] == pytest.approx(12 * 200 / np.iinfo(dtype).max)


def test_a_real_model_takes_negative_values():
    network = pipeline((3,), "real", Linear(np.eye(3, dtype=F)))
    assert_array_equal(Simulator(network).run([[0.5, -1, 0]]).logits, [0.5, -1, 0])
    with pytest.raises(InputError, match="NaN or infinite"):
        Simulator(network).run([[0.5, -np.inf, 0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "chunk 0 found; expected at least 1 time step"),
        ({"chunk": -1}, "chunk -1 found"),
        ({"threads": 0}, "threads 0 found; expected at least 1"),
        ({"record": ["lif", "liff"]}, "layer 'liff' to record not found in network small; .*; did you mean lif"),
    ],
)
def test_options_that_make_no_sense_are_refused(small_network, options, message):
    with pytest.raises(InputError, match=message):
        Simulator(small_network, **options)


def test_a_network_that_is_not_valid_is_refused():
    network = Network("odd", {"input": Input((3,)), "lif": LIF()}, (("input", "lif"),))
    with pytest.raises(InputError, match="0 Readout layers found"):
        Simulator(network)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((2, 6, 5)), "the model takes 2 x 6 x 6"),
        (np.zeros((2, *SHAPE)), "2 frames found; a step takes one"),
        (np.full(SHAPE, np.nan), "NaN or infinite"),
        (np.full(SHAPE, -1), "negative or not whole"),
        (np.full(SHAPE, "spike"), "expected numbers"),
    ],
)
def test_a_refused_frame_is_no_step_of_the_stream(small_network, frame, message):
    frames = recording()
    simulator = Simulator(small_network, record=["lif"])
    simulator.step(frames[0])
    with pytest.raises(InputError, match=message):
        simulator.step(frame)
    result = simulator.step(frames[1])
    assert contents(result) == contents(replay(small_network, frames[:2]))


def replay(network: Network, frames: np.ndarray) -> Result:
    """The frames as a stream of their own."""
    simulator = Simulator(network, record=["lif"])
    return [simulator.step(frame) for frame in frames][-1]


# --- what is accepted


def test_frames_of_any_type_and_layout_are_taken_and_left_alone(small_network):
    frames = recording()
    expected = contents(Simulator(small_network).run(frames))
    wide = np.zeros((5, 2, 6, 12), F)
    wide[..., ::2] = frames
    for given in (
        frames.astype(np.float64),
        frames.astype(np.uint8),
        frames.astype(np.int64),
        frames.tolist(),
        np.asfortranarray(frames),
        wide[..., ::2],
        frames[::-1].copy()[::-1],
    ):
        kept = np.array(given)
        assert contents(Simulator(small_network, chunk=2).run(given)) == expected
        assert_array_equal(given, kept)
    frozen = frames.copy()
    frozen.flags.writeable = False
    assert contents(Simulator(small_network).run(frozen)) == expected
    assert contents(Simulator(small_network).run(frames > 0)) == contents(
        Simulator(small_network).run((frames > 0).astype(F))
    )


def test_an_image_is_shown_as_often_as_the_network_was_trained(small_network):
    image = recording(steps=1)[0]
    simulator = Simulator(small_network)
    assert simulator.run(image).time_steps == small_network.time_steps == 4
    assert simulator.run(image, 7).time_steps == 7
    assert simulator.run(image[None]).time_steps == 1, "one frame of a recording is one step"
    unknown = Network(small_network.name, small_network.layers, small_network.edges)
    assert Simulator(unknown).run(image, 2).time_steps == 2
    with pytest.raises(InputError, match="input: None time steps found; an image needs a number of at least 1"):
        Simulator(unknown).run(image)


def test_a_stream_runs_as_the_array_of_its_frames(small_network):
    frames = recording(steps=9)
    expected = contents(Simulator(small_network, record=["lif", "mean"]).run(frames))
    for chunk in (None, 1, 2, 4, 9, 100):
        simulator = Simulator(small_network, chunk=chunk, record=["lif", "mean"])
        assert contents(simulator.run(frame for frame in frames)) == expected
        assert contents(simulator.run(iter(frames.astype(int).tolist()))) == expected


def test_a_stream_may_reuse_its_frame(small_network):
    frames = recording()

    def reused():
        buffer = np.empty(SHAPE, F)
        for frame in frames:
            buffer[:] = frame
            yield buffer

    assert contents(Simulator(small_network, chunk=2).run(reused())) == contents(Simulator(small_network).run(frames))


# --- what is reported


@pytest.mark.parametrize(("chunk", "expected"), [(None, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_progress_is_told_after_each_chunk(small_network, chunk, expected):
    calls: list[tuple[int, int | None]] = []
    simulator = Simulator(small_network, chunk=chunk)
    result = simulator.run(recording(), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 5) for done in expected]
    assert len(result.step_latency_s) == len(expected)
    assert all(seconds > 0 for seconds in result.step_latency_s)
    assert result.latency_s == sum(result.step_latency_s)
    assert sum(layer.seconds for layer in result.profile) <= result.latency_s
    calls.clear()
    simulator.run(recording()[0], 3, on_progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3, 3)
    calls.clear()
    simulator.run(iter(recording()), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, None) for done in expected]


def test_totals_and_rates(small_network):
    frames = recording()
    result = Simulator(small_network, record=["lif", "conv"]).run(frames)
    for name in OPERATIONS:
        total = sum(getattr(layer.counts, name) for layer in result.profile)
        assert getattr(result.totals, name) == result.totals[name] == total
        assert type(getattr(result.totals, name)) is int
    by_name = {layer.name: layer for layer in result.profile}
    assert list(by_name) == ["input", "conv", "lif", "flatten", "head", "mean", "readout"]
    lif, conv = by_name["lif"], by_name["conv"]
    assert lif.neurons == 4 * 6 * 6
    assert lif.firing_rate == result.recorded["lif"].mean(dtype=float) > 0
    assert conv.input_density == np.count_nonzero(frames) / frames.size
    assert conv.dense_macs == 5 * 6 * 6 * 4 * 2 * 9
    assert conv.neurons == conv.firing_rate == by_name["flatten"].input_density == 0
    assert (by_name["mean"].steps, by_name["readout"].steps) == (5, 1), "the mean of five steps is one"
    assert result.prediction == np.argmax(result.logits)
    assert [layer.kind for layer in result.profile][:3] == ["Input", "Conv2d", "LIF"]


def test_recorded_outputs_have_the_shapes_of_pytorch():
    build = NetworkBuilder("shapes")
    x = build.add("input", Input((2, 3, 4)))
    x = build.add("conv", Conv2d(np.ones((5, 2, 2, 2), F)), x)
    x = build.add("flat", Flatten(), x)
    x = build.add("mean", MeanOverTime(), x)
    build.add("readout", Readout(), x)
    network = build.build()
    for chunk in (None, 1, 3):
        recorded = Simulator(network, chunk=chunk, record=network.layers).run(np.ones((7, 2, 3, 4))).recorded
        shapes = {name: output.shape for name, output in recorded.items()}
        assert shapes == {
            "input": (7, 2, 3, 4),
            "conv": (7, 5, 2, 3),
            "flat": (7, 30),
            "mean": (1, 30),
            "readout": (1, 30),
        }
    tokens = pipeline((6, 3), "graded", Linear(np.ones((2, 3), F)), Flatten())
    assert Simulator(tokens, record=["linear"]).run(np.ones((4, 6, 3))).recorded["linear"].shape == (4, 6, 2)


def test_results_do_not_change_afterwards(small_network):
    simulator = Simulator(small_network, chunk=2, record=["lif", "conv", "input", "readout"])
    runs = [simulator.run(recording(seed)) for seed in range(2)]
    steps = [simulator.step(frame) for frame in recording(2)]
    before = [contents(result) for result in (*runs, *steps)]
    times = [list(result.step_latency_s) for result in steps]
    for seed in range(3, 5):
        simulator.run(recording(seed))
        simulator.step(recording(seed)[0])
    simulator.restart()
    simulator.step(recording(9)[0])
    assert [contents(result) for result in (*runs, *steps)] == before
    assert [result.step_latency_s for result in steps] == times
    assert [len(latency) for latency in times] == [1] * 5
    assert [result.time_steps for result in steps] == [1, 2, 3, 4, 5]


def test_warming_up_changes_nothing(small_network):
    frames = recording()
    simulator = Simulator(small_network, record=["lif"])
    expected = contents(Simulator(small_network, record=["lif"]).run(frames))
    assert simulator.warm_up() > 0
    assert contents(simulator.run(frames)) == expected
    simulator.step(frames[0])
    assert simulator.warm_up() > 0
    assert contents(simulator.step(frames[1])) == contents(replay(small_network, frames[:2]))
    assert contents(simulator.run(frames)) == expected


# --- several samples, several threads


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_samples(small_network, threads):
    samples = [recording(seed, steps=1 + 7 * (seed % 2)) for seed in range(12)]  # every other one takes longer
    alone = [contents(Simulator(small_network).run(sample)) for sample in samples]
    simulator = Simulator(small_network, threads=threads)
    assert [contents(result) for result in simulator.run_many(samples)] == alone
    assert [contents(result) for result in simulator.run_many(reversed(samples))] == alone[::-1]
    assert list(simulator.run_many([])) == []
    images = [sample[0] for sample in samples]
    assert [result.time_steps for result in simulator.run_many(images, time_steps=3)] == [3] * 12


@pytest.mark.parametrize("threads", [1, 3])
def test_samples_are_taken_as_they_are_needed(small_network, threads):
    taken = count()
    endless = (recording(seed) for seed in taken)
    results = Simulator(small_network, threads=threads).run_many(endless)
    for _ in range(5):
        next(results)
    assert next(taken) <= 5 + 2 * threads + 1
    results.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_the_place_of_its_result(small_network, threads):
    samples = [recording(seed) for seed in range(6)]
    samples[3] = -samples[3] - 1
    results = Simulator(small_network, threads=threads).run_many(samples)
    for seed in range(3):
        assert contents(next(results)) == contents(Simulator(small_network).run(samples[seed]))
    with pytest.raises(InputError, match="negative"):
        next(results)


def test_one_simulator_serves_several_threads(small_network):
    simulator = Simulator(small_network, chunk=1, record=["lif", "conv"])
    samples = [recording(seed, steps=20) for seed in range(4)]
    alone = [contents(Simulator(small_network, record=["lif", "conv"]).run(sample)) for sample in samples]
    together = threading.Barrier(4)

    def work(seed: int) -> list[tuple]:
        together.wait(timeout=30)
        return [contents(simulator.run(samples[seed])) for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for seed, results in enumerate(pool.map(work, range(4))):
            assert results == [alone[seed]] * 5


def test_a_stream_and_a_run_do_not_disturb_each_other(small_network):
    simulator = Simulator(small_network, record=["lif"])
    frames = recording(steps=10)
    streamed = []

    def interrupt(done: int, total: int | None) -> None:
        streamed.append(simulator.step(frames[done - 1]))

    chunked = Simulator(small_network, chunk=1, record=["lif"])
    simulator.chunk = 1
    result = simulator.run(frames, on_progress=interrupt)
    assert contents(result) == contents(chunked.run(frames))
    assert contents(streamed[-1]) == contents(replay(small_network, frames))


# --- layers that look ahead, and layers that fail


class BackwardsOp(Op):
    kernel = "reverse"
    state_names = ()
    looks_ahead = True
    once_if_static = False

    def advance(self, inputs, context):
        (signal,) = inputs
        return type(signal)(signal.type, signal.steps, signal.data[::-1].copy())


@dataclass(frozen=True, eq=False)
class Backwards(Layer):
    """The steps of a sample in reverse order."""

    def output_type(self, *inputs):
        return inputs[0]

    def op(self, *inputs):
        return BackwardsOp()


def test_a_layer_that_looks_ahead_needs_all_steps_at_once():
    network = pipeline((2,), "real", Backwards())
    frames = np.arange(10, dtype=F).reshape(5, 2)
    for chunk in (None, 5, 6):
        simulator = Simulator(network, chunk=chunk, record=["backwards"])
        assert_array_equal(simulator.run(frames).recorded["backwards"], frames[::-1])
    with pytest.raises(InputError, match=r"^layer backwards: looks ahead in time.* all 5 steps.*chunk 4 found"):
        Simulator(network, chunk=4).run(frames)
    with pytest.raises(InputError, match=r"^layer backwards: looks ahead in time.*use run"):
        Simulator(network).step(frames[0])
    with pytest.raises(InputError, match=r"^layer backwards: looks ahead in time.*stream"):
        Simulator(network).run(iter(frames))
    assert Simulator(network).warm_up() > 0


@dataclass(frozen=True, eq=False)
class Fussy(Backwards):
    """A layer that finds out too late."""

    def op(self, *inputs):
        return FussyOp()


class FussyOp(Op):
    kernel = "none"
    state_names = ()
    looks_ahead = False
    once_if_static = True

    def advance(self, inputs, context):
        raise LayerError("13 steps found; expected fewer")


def test_a_layer_that_fails_while_running_is_named():
    with pytest.raises(InputError, match=r"^layer fussy: 13 steps found; expected fewer$"):
        Simulator(pipeline((2,), "real", Fussy())).run(np.zeros((13, 2)))


def test_streams_of_anything_but_single_steps_are_refused(small_network: Network) -> None:
    simulator = Simulator(small_network)
    frame = np.zeros(small_network.input.shape, np.float32)
    with pytest.raises(InputError, match=r"its length says how many time steps, 9 asked for"):
        simulator.run(iter([frame]), 9)
    with pytest.raises(InputError, match=r"2 frames found; a step takes one"):
        simulator.run(iter([np.stack([frame, frame])]))
    with pytest.raises(InputError, match=r"expected numbers"):
        simulator.run(iter([np.full(frame.shape, "a")]))
    with pytest.raises(InputError, match=r"a time step of shape 3 x 6 x 6 found"):
        simulator.run(iter([frame, np.zeros((3, 6, 6))]))
