"""Threads that share the work of one layer: nothing depends on their number, and nothing is lost of what fails."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integer_strategies import SERVING, bytes_of, served_by
from numpy.testing import assert_array_equal
from strategies import activity, networks, neurons, recurrent_networks

from eventsim import NetworkBuilder, Simulator
from eventsim.layers import Flatten, Input, IntegerConv2d, IntegerLIF, IntegerLinear, Readout, SoftmaxAttention
from eventsim.workers import Workers


@given(data=st.data())
def test_results_and_counts_are_those_of_one_thread(data: st.DataObject) -> None:
    drawn = data.draw(networks() | recurrent_networks())
    chunk = data.draw(st.none() | st.integers(1, len(drawn.frames)))
    alone = Simulator(drawn.network, chunk=chunk, record=drawn.network.layers).run(drawn.frames)
    for number in (2, 3):
        simulator = Simulator(drawn.network, chunk=chunk, threads=number, record=drawn.network.layers)
        simulator._workers = Workers(number, shortest_ns=0)
        shared = simulator.run(drawn.frames)
        assert_array_equal(shared.step_logits, alone.step_logits)
        for name, output in alone.recorded.items():
            assert_array_equal(shared.recorded[name], output, err_msg=f"{name}, {number} threads")
        for ours, theirs in zip(shared.profile, alone.profile, strict=True):
            assert ours.columns.keys() == theirs.columns.keys()
            for operation, column in theirs.columns.items():
                assert_array_equal(ours.columns[operation], column, err_msg=f"{ours.name}: {operation}")


@given(data=st.data())
def test_neurons_that_are_shared_fire_as_one_population(data: st.DataObject) -> None:
    """Of so many neurons each thread has some; sizes of no use to vectors among them."""
    shape = data.draw(st.sampled_from([(13, 17, 19), (48, 10, 10), (3, 41, 40), (5000,), (96, 7, 9)]))
    layer, *_ = data.draw(neurons(shape))
    build = NetworkBuilder("neurons")
    x = build.add("input", Input(shape, "real"))
    x = build.add("neurons", layer, x)
    x = x if len(shape) == 1 else build.add("flatten", Flatten(), x)
    build.add("readout", Readout(), x)
    network, frames = build.build(), data.draw(activity("real", 3, *shape))
    alone, shared = (Simulator(network, threads=number, record=["neurons"]) for number in (1, 3))
    shared._workers = Workers(3, shortest_ns=0)
    expected, found = alone.run(frames), shared.run(frames)
    assert_array_equal(found.recorded["neurons"], expected.recorded["neurons"])
    for operation, column in expected.profile[1].columns.items():
        assert_array_equal(found.profile[1].columns[operation], column, err_msg=operation)


@pytest.mark.parametrize("axis", ["space", "time"])
def test_softmax_attention_that_is_shared_attends_as_one(axis: str) -> None:
    """Each thread has some of the time steps, or of the positions."""
    build = NetworkBuilder("attention")
    x = build.add("input", Input((7, 24), "real"))
    x = build.add("attention", SoftmaxAttention(2, axis, 5 if axis == "time" else None), x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network, frames = build.build(), np.random.default_rng(0).normal(size=(5, 7, 24))
    alone, shared = (Simulator(network, threads=number) for number in (1, 3))
    shared._workers = Workers(3, shortest_ns=0)
    expected, found = alone.run(frames), shared.run(frames)
    assert expected.step_logits.any()
    assert_array_equal(found.step_logits, expected.step_logits)


@given(data=st.data())
def test_integers_that_are_shared_are_those_of_one_thread(data: st.DataObject) -> None:
    """By each kernel, divided by tiles of channels or, where these are too few, by rows."""
    draw = data.draw
    outputs, largest = draw(st.sampled_from([5, 96, 130, 200])), draw(st.sampled_from([1, 5]))
    grid = draw(st.sampled_from([(9, 7), (1, 3), (5, 1)]))
    weight = draw(bytes_of(outputs, 6, 3, 3))
    build = NetworkBuilder("integers")
    x = build.add("input", Input((6, *grid), "binary" if largest == 1 else "graded"))
    conv = IntegerConv2d(weight, np.ones(outputs, np.float32), largest, padding=(1, 1))
    x = build.add("conv", conv, x)
    x = build.add("neurons", IntegerLIF(900, conv.width.largest, leak=1 << 14, fraction=2), x)
    x = build.add("linear", IntegerLinear(draw(bytes_of(7, outputs)), np.ones(7, np.float32)), x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network, frames = build.build(), draw(activity("binary" if largest == 1 else "graded", 3, 6, *grid))
    frames = np.minimum(frames, largest)
    for kernel in SERVING:
        with served_by(kernel):
            alone, shared = (Simulator(network, threads=number, record=network.layers) for number in (1, 3))
        shared._workers = Workers(3, shortest_ns=0)
        expected, found = alone.run(frames), shared.run(frames)
        for name, output in expected.recorded.items():
            assert_array_equal(found.recorded[name], output, err_msg=name)
        for ours, theirs in zip(found.profile, expected.profile, strict=True):
            for operation, column in theirs.columns.items():
                assert_array_equal(ours.columns[operation], column, err_msg=f"{ours.name}: {operation}")


@given(items=st.integers(0, 100), of=st.integers(1, 9), number=st.integers(1, 5))
def test_ranges_cover_everything_once_in_whole_blocks(items: int, of: int, number: int) -> None:
    parts = Workers(number).ranges(items, of)
    assert [n for a, b in parts for n in range(a, b)] == list(range(items))
    assert len(parts) <= number
    assert all(a % of == 0 for a, _ in parts)
    blocks = [-(-(b - a) // of) for a, b in parts]
    assert not blocks or max(blocks) - min(blocks) <= 1


def test_every_part_has_a_thread_of_its_own() -> None:
    meeting = threading.Barrier(3, timeout=20)
    Workers(3).share(meeting.wait, [()] * 3)


def test_who_is_alone_takes_one_part_after_the_other() -> None:
    seen: list[tuple[int, int]] = []
    Workers(1).share(lambda part: seen.append((part, threading.get_ident())), [(1,), (2,)])
    assert seen == [(1, threading.get_ident()), (2, threading.get_ident())]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_when_all_parts_are_done(failing: int) -> None:
    done: set[int] = set()

    def work(part: int) -> None:
        if part == failing:
            raise ValueError(f"part {part}")
        threading.Event().wait(0.05)
        done.add(part)

    with pytest.raises(ValueError, match=f"part {failing}"):
        Workers(3).share(work, [(part,) for part in range(3)])
    assert done == {0, 1, 2} - {failing}


def test_short_work_is_not_worth_waking_another() -> None:
    assert not Workers(2).worth(10_000)
    assert Workers(2).worth(1e6)
    assert not Workers(1).worth(1e6)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # what is tested
def test_a_forked_process_has_threads_of_its_own() -> None:
    workers = Workers(2)
    out = np.zeros(2)
    work = lambda n: out.__setitem__(n, n + 1)  # noqa: E731
    workers.share(work, [(0,), (1,)])
    child = os.fork()
    if not child:
        signal.alarm(30)  # rather than wait for a thread that is not there
        out[:] = 0
        workers.share(work, [(0,), (1,)])
        os._exit(0 if list(out) == [1, 2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
