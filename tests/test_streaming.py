"""Events as they come: every bin is what a run of the whole recording says, however the events are handed over."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_memory import traced

import eventsim
from eventsim import Delayed, InputError, Network, NetworkBuilder, Preparation, Simulator, open_recording
from eventsim.accounting.energy import energies, models
from eventsim.dvs import EVENT_DTYPE
from eventsim.layers import IF, LIF, Conv2d, Conv3d, Flatten, Input, Linear, MeanOverTime, Readout, Residual
from eventsim.ledger import Counts
from eventsim.operations import OPERATIONS
from eventsim.signals import SignalType
from eventsim.streaming import Bin

F = np.float32
SIDE = 6
SIZE = {"sensor_size": (SIDE, SIDE)}
BEHIND_THE_MEAN = ("mean", "head", "readout")


def built(readout: str = "last", mean: bool = False, recurrent: bool = False, time_steps: int | None = 4) -> Network:
    """A convolution, neurons, a head; weights are dyadic."""
    rng = np.random.default_rng(1)

    def dyadic(*shape: int) -> np.ndarray:
        return rng.integers(-8, 9, shape).astype(F) / 8

    build = NetworkBuilder("small")
    x = build.add("input", Input((2, SIDE, SIDE)))
    x = build.add("conv", Conv2d(dyadic(4, 2, 3, 3), padding=(1, 1)), x)
    x = build.add("lif", LIF(), x)
    x = build.add("flatten", Flatten(), x)
    x = build.add("hidden", Linear(dyadic(5, 4 * SIDE * SIDE)), x)
    if recurrent:
        back = build.add("back", Linear(dyadic(5, 5)), Delayed("spikes", 2, SignalType("binary", 5)))
        x = build.add("sum", Residual("add"), x, back)
    x = build.add("spikes", IF(), x)
    if mean:
        x = build.add("mean", MeanOverTime(), x)
    x = build.add("head", Linear(dyadic(3, 5)), x)
    build.add("readout", Readout(readout), x)
    return build.build(time_steps=time_steps)


NETWORKS = {
    "sum": built("sum"),
    "mean": built("last", mean=True),
    "recurrent": built("sum", recurrent=True),
}


@st.composite
def recordings(draw: st.DrawFn, disorder: int = 0) -> np.ndarray:
    """Events with pauses, up to `disorder` microseconds out of order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 60))
    events = np.zeros(count, EVENT_DTYPE)
    gaps = rng.choice([0, 0, 1, 7, 50], count)
    t = draw(st.integers(-50, 10**12)) + np.cumsum(gaps)
    events["t"] = t - (rng.integers(0, disorder + 1, count) if disorder else 0)
    events["x"], events["y"] = rng.integers(0, SIDE, (2, count))
    events["p"] = rng.integers(0, 2, count)
    return events


@st.composite
def divided(draw: st.DrawFn, events: np.ndarray) -> list[np.ndarray]:
    """The same in batches of any length, empty ones too."""
    cuts = draw(st.lists(st.integers(0, len(events)), max_size=12).map(sorted))
    return np.split(events, cuts)


def binned(events: np.ndarray, bin_us: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames and numbers of events of all bins, event by event."""
    index = [(int(t) - int(events["t"][0])) // bin_us for t in events["t"]]
    frames, numbers = np.zeros((max(index) + 1, 2, SIDE, SIDE), np.int32), np.zeros(max(index) + 1, int)
    for at, (x, y, _, p) in zip(index, events, strict=True):
        frames[at, int(p), y, x] += 1
        numbers[at] += 1
    return frames, numbers


def streamed(network: Network, events: object, **options: object) -> list[Bin]:
    return list(eventsim.stream(network, events, **{**SIZE, **options}))


@pytest.mark.parametrize("name", NETWORKS)
@given(data=st.data(), bin_us=st.sampled_from([5, 10, 64, 1000]), every=st.sampled_from([None, 0, 1, 3]))
def test_every_bin_is_what_a_run_says_however_the_events_come(name, data, bin_us, every) -> None:
    network = NETWORKS[name]
    events = data.draw(recordings())
    frames, numbers = binned(events, bin_us)
    found = streamed(network, data.draw(divided(events)), bin_us=bin_us, restart_every=every)
    assert [each.index for each in found] == list(range(len(frames)))
    assert [each.events for each in found] == numbers.tolist()
    begins = [int(events["t"][0]) + index * bin_us for index in range(len(frames))]
    assert [(each.start_us, each.end_us) for each in found] == [(begin, begin + bin_us) for begin in begins]
    length = len(frames) if every == 0 else every or 4
    simulator = Simulator(network)
    seldom = max(1, len(frames) // 20)
    for sample, first in enumerate(range(0, len(frames), length)):
        part = frames[first : first + length]
        whole = simulator.run(part)
        for step, each in enumerate(found[first : first + length]):
            assert (each.sample, each.step, each.last) == (sample, step, every != 0 and step + 1 == length)
            for layer, of_bin in zip(whole.profile, each.profile, strict=True):
                assert of_bin.steps == 1
                if name != "mean" or layer.name not in BEHIND_THE_MEAN:
                    of_step = {operation: int(column[step]) for operation, column in layer.by_step.items()}
                    assert of_bin.counts == Counts(of_step), layer.name
            if each.index % seldom == 0:
                result = simulator.run(part[: step + 1])
                assert_array_equal(each.logits, result.logits)
                assert each.prediction == result.prediction
                of_last = {layer.name: layer.counts for layer in result.profile if layer.steps == 1}
                for of_bin in each.profile:
                    if name == "mean" and of_bin.name in BEHIND_THE_MEAN[1:]:
                        assert of_bin.counts == of_last[of_bin.name]


@pytest.mark.parametrize("disorder", ["sort", "drop"])
@given(data=st.data(), bin_us=st.sampled_from([10, 64]))
def test_disorder_is_dealt_with_as_in_a_recording(disorder, data, bin_us) -> None:
    network = NETWORKS["sum"]
    events = data.draw(recordings(disorder=30))
    options = {"disorder": disorder, "bin_us": bin_us, **({"lag_us": 40} if disorder == "sort" else {})}
    frames = list(Preparation(**SIZE, **options).frames(events, network))
    found = streamed(network, data.draw(divided(events)), restart_every=0, **options)
    assert len(found) == len(frames)
    result = Simulator(network).run(np.stack(frames))
    assert_array_equal(found[-1].logits, result.logits)
    assert Counts.total(each.counts for each in found) == result.totals


@given(data=st.data())
def test_disorder_is_refused_by_the_event_and_what_came_before_is_there(data) -> None:
    events = data.draw(recordings())
    events["t"] += np.arange(len(events))
    late = np.concatenate((events, events[-1:]))
    late["t"][-1] -= 1
    taken = []
    with pytest.raises(InputError, match=rf"events: event {len(events)} has t = .*disorder='sort'"):
        for each in eventsim.stream(NETWORKS["sum"], data.draw(divided(late)), bin_us=10, **SIZE):
            taken.append(each.index)  # noqa: PERF401 - an error follows
    assert taken == list(range((int(events["t"][-1]) - int(events["t"][0])) // 10))


def some_events(count: int = 40, apart_us: int = 7) -> np.ndarray:
    rng = np.random.default_rng(0)
    events = np.zeros(count, EVENT_DTYPE)
    events["x"], events["y"] = rng.integers(0, SIDE, (2, count))
    events["t"], events["p"] = apart_us * np.arange(count), rng.integers(0, 2, count)
    return events


class Store:
    """What dv_processing hands over."""

    def __init__(self, events: np.ndarray) -> None:
        self._events = events

    def numpy(self) -> np.ndarray:
        names = [("timestamp", "<i8"), ("x", "<i2"), ("y", "<i2"), ("polarity", "i1")]
        return np.array([(t, x, y, p) for x, y, t, p in self._events.tolist()], names)


def test_events_come_in_many_forms(tmp_path) -> None:
    events = some_events()
    network = NETWORKS["sum"]
    expected = [each.logits.tolist() for each in streamed(network, events, bin_us=50)]
    halves = events[:13], events[:0], events[13:]
    plain = [np.stack([half["t"], half["x"], half["y"], half["p"]], axis=1) for half in halves]
    metavision = np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    path = tmp_path / "events.npy"
    np.save(path, events)
    text = "x y p t\n" + "".join(f"{x} {y} {p:d} {t}\n" for x, y, t, p in events.tolist())
    given = {
        "a generator": (half for half in halves),
        "named as Metavision does": [
            np.array([(x, y, p, t) for x, y, t, p in half.tolist()], metavision) for half in halves
        ],
        "stores": [Store(half) for half in halves],
        "nothing now and then": [None, halves[0], None, None, halves[2], None],
    }
    for name, source in given.items():
        found = [each.logits.tolist() for each in streamed(network, source, bin_us=50)]
        assert found == expected, name
    found = streamed(network, plain, bin_us=50, columns="txyp")
    assert [each.logits.tolist() for each in found] == expected
    in_seconds = [np.stack([half["t"] / 1e6, half["x"], half["y"], half["p"]], axis=1) for half in halves]
    found = streamed(network, in_seconds, bin_us=50, columns="txyp", time_unit="s")
    assert [each.logits.tolist() for each in found] == expected
    found = list(eventsim.stream(network, open_recording(path, **SIZE), bin_us=50))
    assert [each.logits.tolist() for each in found] == expected
    found = streamed(network, io.BytesIO(text.encode()), bin_us=50)
    assert [each.logits.tolist() for each in found] == expected


def test_the_producer_is_asked_when_every_bin_of_its_last_batch_was_taken() -> None:
    said: list[str] = []

    def batches() -> Iterator[np.ndarray]:
        for number, batch in enumerate(np.split(some_events(40, 10), 4)):
            said.append(f"batch {number}")
            yield batch

    bins = eventsim.stream(NETWORKS["sum"], batches(), bin_us=30, **SIZE)
    assert said == [], "nothing is asked for before the first bin is"
    for each in bins:
        said.append(f"bin {each.index}")  # noqa: PERF401 - in turns with the producer
    of_batch = [(number * 100 + 90) // 30 for number in range(4)]
    expected, bin_ = [], 0
    for number in range(4):
        expected.append(f"batch {number}")
        while bin_ < of_batch[number]:
            expected.append(f"bin {bin_}")
            bin_ += 1
    assert said == [*expected, f"bin {bin_}"]


def test_a_stream_of_events_holds_no_more_after_many_bins() -> None:
    events = some_events(60, 10)

    def batches() -> Iterator[np.ndarray]:
        for number in range(10**9):
            batch = events.copy()
            batch["t"] += number * 600
            yield batch

    bins = eventsim.stream(NETWORKS["mean"], batches(), bin_us=50, disorder="sort", lag_us=20, **SIZE)
    next(bins)
    with traced() as held:
        sizes = []
        for _ in range(4):
            for _ in range(400):
                next(bins)
            sizes.append(held()[0])
        grown = np.diff(sizes)
        assert grown.min() < 400, f"{grown} bytes in 400 bins each; what is kept once is in one of them"


def test_a_slow_loop_falls_behind_and_waiting_for_events_does_not() -> None:
    events = some_events(20, 1000)
    found = []
    for each in eventsim.stream(NETWORKS["sum"], events, bin_us=1000, **SIZE):
        found.append(each)
        time.sleep(0.02)
    for each in found[1:]:
        assert each.took_s >= 0.02
        assert each.behind_s >= each.index * (0.02 - 0.001)
        assert each.clock_lag_s >= each.index * 0.02 - (each.index + 1) * 0.001

    def waits() -> Iterator[np.ndarray]:
        for event in np.split(events, len(events)):
            time.sleep(0.05)
            yield event

    found = streamed(NETWORKS["sum"], waits(), bin_us=1000)
    assert found[-1].behind_s < 0.5, "a second of waiting is no work"
    assert found[-1].clock_lag_s > 0.8, "but time by the clock"
    found = streamed(NETWORKS["sum"], events, bin_us=10**9)
    assert [each.behind_s for each in found] == [0.0]
    assert [each.clock_lag_s for each in found] == [0.0], "the events end before their bin"


def test_the_work_that_was_left_is_made_up_for(monkeypatch) -> None:
    """By a clock of the test: a camera, and 3 s of work for each of the first bins of 2 s, then 1 s."""
    now = [7.0]
    monkeypatch.setattr("eventsim.streaming.perf_counter", lambda: now[0])
    monkeypatch.setattr("eventsim.stopwatch.time", SimpleNamespace(perf_counter=lambda: now[0]))
    events = some_events(8, 2_000_000)
    works = [3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0]

    def camera() -> Iterator[np.ndarray]:
        for number, event in enumerate(np.split(events, 8)):
            now[0] = max(now[0], 7.0 + 2.0 * number)
            yield event

    class Slow(Simulator):
        def step(self, frame):
            now[0] += works[len(found)]
            return super().step(frame)

    monkeypatch.setattr("eventsim.streaming.Simulator", Slow)
    found: list[Bin] = []
    for each in eventsim.stream(NETWORKS["sum"], camera(), bin_us=2_000_000, **SIZE):
        found.append(each)  # noqa: PERF402 - the work on each is told by their number
    assert [each.took_s for each in found] == works
    assert [each.behind_s for each in found] == [1, 2, 3, 2, 1, 0, 0, 0]
    assert [each.clock_lag_s for each in found] == [3, 4, 5, 4, 3, 2, 1, 0]


def test_the_clock_is_set_by_the_event_that_came_soonest(monkeypatch) -> None:
    """The first ones waited for somebody to take them; others came a second after their time, and one later."""
    now = [0.0]
    monkeypatch.setattr("eventsim.streaming.perf_counter", lambda: now[0])

    def camera() -> Iterator[np.ndarray]:
        for number, event in enumerate(np.split(some_events(7, 1_000_000), 7)):
            now[0] = number + 2.5 if number == 6 else max(5.0, number + 1.0)
            yield event

    found = streamed(NETWORKS["sum"], camera(), bin_us=1_000_000)
    assert [each.clock_lag_s for each in found] == [0, 0, 0, 0, 0, 1.5, 0.5]


def test_what_is_held_back_to_be_sorted_is_on_the_clock(monkeypatch) -> None:
    """A bin of a second is done when an event two seconds behind its end has come; work takes no time."""
    now = [0.0]
    monkeypatch.setattr("eventsim.streaming.perf_counter", lambda: now[0])

    def camera() -> Iterator[np.ndarray]:
        events = some_events(9, 1_000_000)
        events["t"][[4, 5]] = events["t"][[5, 4]]
        for number, event in enumerate(np.split(events, 9)):
            now[0] = float(number)
            yield event

    found = streamed(NETWORKS["sum"], camera(), bin_us=1_000_000, disorder="sort", lag_us=2_000_000)
    # number 4 is of second 5, which sets the clock a second on; it frees two bins, and the end of the events three
    assert [each.clock_lag_s for each in found] == [2, 3, 2, 3, 3, 3, 2, 1, 0]


def test_a_bin_is_looked_at() -> None:
    first, *_, last = streamed(NETWORKS["sum"], some_events(), bin_us=50)
    assert repr(first).startswith("Bin(0, 0 to 50 us, 8 events, prediction ")
    assert "at step 0 of sample 0" in repr(first)
    document = json.loads(json.dumps(last.to_dict()))
    assert document["totals"] == dict(last.counts)
    assert set(document["totals"]) == set(OPERATIONS)
    assert document["logits"] == last.logits.tolist()
    assert document["took_s"] >= document["simulation_s"] > 0
    priced = energies(last.profile, models())
    assert {name: each.total_mj for name, each in last.energy.items()} == {
        name: each.total_mj for name, each in priced.items()
    }


def test_a_network_without_time_steps_has_one_sample() -> None:
    found = streamed(built("sum", time_steps=None), some_events(), bin_us=20)
    assert {each.sample for each in found} == {0}
    assert [each.step for each in found] == list(range(len(found)))
    assert not any(each.last for each in found)


def test_what_the_network_says_holds_where_nothing_is_given() -> None:
    network = NETWORKS["sum"].with_settings(
        eventsim.settings.Setting("window", "duration", "metadata"),
        eventsim.settings.Setting("bin_us", 50, "metadata"),
        eventsim.settings.Setting("sensor", f"{SIDE}x{SIDE}", "metadata"),
        eventsim.settings.Setting("flip_x", True, "metadata"),
    )
    events = some_events()
    turned = events.copy()
    turned["x"] = SIDE - 1 - turned["x"]
    found = list(eventsim.stream(network, events))
    expected = streamed(NETWORKS["sum"], turned, bin_us=50)
    assert [each.logits.tolist() for each in found] == [each.logits.tolist() for each in expected]


def test_a_crop_counts_the_events_of_the_sensor() -> None:
    events = some_events()
    events["x"][::2] += 20
    found = streamed(NETWORKS["sum"], events, bin_us=10**6, sensor_size=(SIDE, 40), fit="crop")
    assert [each.events for each in found] == [40]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bin_us": None}, r"windows of count found.*pass bin_us=10000"),
        ({"sensor_size": None}, r"no size of the sensor.*pass sensor_size=\(height, width\)"),
        ({"sensor_size": (40, 50)}, r"sensor 50 x 40 and frames 6 x 6"),
        ({"time_steps": 4}, "stream.. got an unexpected keyword argument 'time_steps'"),
        ({"mean": (1.0,)}, "stream.. got an unexpected keyword argument 'mean'"),
        ({"bin": 3}, "stream.. got an unexpected keyword argument 'bin'"),
        ({"restart_every": -1}, "restart_every -1 found"),
        ({"window": "tonic-duration"}, "windows of tonic-duration found"),
        ({"camera": "davis"}, "camera='davis' found; batches of events cannot use that"),
        ({"format": "dat"}, "format='dat' found; batches of events cannot use that"),
        ({"end_us": 100}, "end_us=100 found; a stream ends with its events"),
        ({"disorder": "keep"}, "disorder='keep' with windows of time"),
        ({"threads": 0}, "threads 0 found"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_the_call(options, message) -> None:
    with pytest.raises((InputError, TypeError), match=message) as raised:
        eventsim.stream(NETWORKS["sum"], some_events(), **{"bin_us": 50, **SIZE, **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("events.npy", "events.npy: a path found; expected open_recording"),
        (b"events", "bytes found, expected an iterable of arrays"),
        (17, "int found, expected an iterable of arrays"),
        ([[1, 2, 3, 0]], "batch 0: list found, expected an array of events"),
        (np.zeros((3, 4)), "whose columns have no names; pass columns"),
        ([some_events(), np.zeros(3)], r"batch 1: holds an array of shape \(3,\)"),
        ([], "holds no events, expected some"),
        ([some_events()[:0], None], "holds no events, expected some"),
    ],
)
def test_what_is_no_stream_is_refused(events, message) -> None:
    with pytest.raises(InputError, match=message):
        streamed(NETWORKS["sum"], events, bin_us=10**6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": SIDE}, r"event 39 has x = 6, outside of the sensor"),
        ({"t": 2**61}, r"a gap of \d+ bins of 50 us before an event at 2305843009213693952 us"),
    ],
)
def test_events_that_cannot_be_are_refused_behind_the_bins_before(change, message) -> None:
    events = some_events()
    for name, value in change.items():
        events[name][-1] = value
    taken = []
    with pytest.raises(InputError, match=message):
        for each in eventsim.stream(NETWORKS["sum"], [events], bin_us=50, **SIZE):
            taken.append(each.index)  # noqa: PERF401 - an error follows
    assert taken == list(range(38 * 7 // 50))


def test_a_layer_that_looks_ahead_is_refused_at_the_call() -> None:
    build = NetworkBuilder("ahead")
    x = build.add("input", Input((2, SIDE, SIDE)))
    x = build.add("ahead", Conv3d(np.ones((2, 2, 3, 1, 1), F), time_padding="centred"), x)
    x = build.add("flatten", Flatten(), x)
    build.add("readout", Readout(), x)
    with pytest.raises(InputError, match=r"of which layer ahead looks ahead in time.*save the events to a"):
        eventsim.stream(build.build(), some_events(), bin_us=50, **SIZE)


def test_batches_are_read_once() -> None:
    from eventsim.dvs.batches import Batches

    recording = Batches([some_events()], **SIZE)
    assert sum(map(len, recording.blocks())) == 40
    with pytest.raises(InputError, match="batches that were read before found"):
        list(recording.blocks())


def test_sums_of_a_stream_begin_anew_and_the_sample_goes_on() -> None:
    network = NETWORKS["recurrent"]
    frames = binned(some_events(), 40)[0]
    plain, anew = Simulator(network), Simulator(network)
    before = Counts()
    for frame in frames:
        anew.count_anew()
        whole, step = plain.step(frame), anew.step(frame)
        assert_array_equal(whole.logits, step.logits)
        assert before + step.totals == whole.totals
        assert [step.latency_s] == step.step_latency_s
        assert sum(layer.steps for layer in step.profile) == len(step.profile)
        before = whole.totals
    plain.restart()
    assert_array_equal(plain.step(frames[0]).logits, Simulator(network).step(frames[0]).logits)
