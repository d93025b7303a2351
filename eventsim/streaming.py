"""Events as they come, bin by bin: a prediction and counts for each, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from eventsim.dvs import Defects, Reading, Recording
from eventsim.dvs.arriving import ArrivingFile, arriving_file
from eventsim.dvs.batches import Batches
from eventsim.dvs.columns import EVENT_DTYPE
from eventsim.dvs.live_bins import bins_as_they_come
from eventsim.dvs.order import DEFAULT_LAG_US
from eventsim.dvs.recording import AS_RECORDED
from eventsim.dvs.said_values import whole_number
from eventsim.errors import InputError
from eventsim.ledger import Counts
from eventsim.network import Network
from eventsim.operations import synaptic_operations
from eventsim.preparation import OF_IMAGES, Preparation
from eventsim.profile import LayerProfile
from eventsim.result import Result
from eventsim.signals import FloatArray
from eventsim.simulator import Simulator

if TYPE_CHECKING:
    from eventsim.accounting.energy import Energy

Events: TypeAlias = Iterable[Any] | Recording | ArrivingFile | io.BufferedIOBase | io.RawIOBase
OPTIONS = frozenset(field.name for field in fields(Preparation)) - {*OF_IMAGES, "time_steps", "bin_events", "overlap"}
"""Options of a preparation that a stream may have."""
OF_FILES = ("camera", "stream", "format", "group", "first_pixel")
"""Those of them that batches cannot use."""


@dataclass(frozen=True, repr=False, eq=False)
class Bin:
    """One bin of a stream, and what the network says after it.

    Attributes
    ----------
    index : int
        Of the bin in the stream, from 0.
    start_us, end_us : int
        It holds the events with start_us <= t < end_us; microseconds, as the events have them. Of the last bin the
        stream may have ended before `end_us`.
    events : int
        How many of the sensor's events it holds; of one that is cropped, not all of them reach the network.
    sample, step : int
        Which sample of the stream it is in, and which time step of the sample it is, from 0.
    last : bool
        Whether it is the last time step of its sample: the prediction is then that of the sample.
    result : Result
        Logits of the sample so far, as `Simulator.step` has them, and what was executed in this bin.
    took_s : float
        Seconds of work since the bin before, or since the first events came: reading and binning, the simulation, and
        whatever was done with the bin before; waiting for events apart.
    behind_s : float
        How far behind real time it is: for so long events that come in real time have been waiting when this bin is
        done. 0 where the work keeps up; see `stream`.
    clock_lag_s : float
        Seconds by the clock from the end of the bin until it was done, for events that come as they happen; what
        ``disorder="sort"`` holds back is in it. The clock is set by the event that came soonest after its time so far.
    """

    index: int
    start_us: int
    end_us: int
    events: int
    sample: int
    step: int
    last: bool
    result: Result
    took_s: float
    behind_s: float
    clock_lag_s: float

    @property
    def logits(self) -> FloatArray:
        """Logits of the sample so far, float32 (classes,)."""
        return self.result.logits

    @property
    def prediction(self) -> int:
        """Index of the largest logit."""
        return self.result.prediction

    @property
    def counts(self) -> Counts:
        """Operations executed in this bin, over all layers."""
        return self.result.totals

    @property
    def profile(self) -> list[LayerProfile]:
        """What each layer executed in this bin."""
        return self.result.profile

    @property
    def energy(self) -> Mapping[str, Energy]:
        """Energy of this bin by every shipped model, by its name."""
        return self.result.energy

    @property
    def simulation_s(self) -> float:
        """Seconds from the bin's frame to the logits, part of `took_s`."""
        return self.result.latency_s

    def to_dict(self) -> dict[str, Any]:
        """Return everything but layers and energies as plain data."""
        return {
            "index": self.index,
            "start_us": self.start_us,
            "end_us": self.end_us,
            "events": self.events,
            "sample": self.sample,
            "step": self.step,
            "last": self.last,
            "prediction": self.prediction,
            "logits": [float(value) for value in self.logits],
            "totals": dict(self.counts),
            "simulation_s": self.simulation_s,
            "took_s": self.took_s,
            "behind_s": self.behind_s,
            "clock_lag_s": self.clock_lag_s,
        }

    def __repr__(self) -> str:
        behind = f", {self.behind_s:.2f} s behind" if self.behind_s else ""
        return (
            f"Bin({self.index}, {self.start_us:,} to {self.end_us:,} us, {self.events:,} events, prediction "
            f"{self.prediction} at step {self.step} of sample {self.sample}, {synaptic_operations(self.counts):,} "
            f"synaptic operations, {self.took_s * 1e3:.1f} ms{behind})"
        )


def stream(
    network: Network,
    events: Events,
    *,
    restart_every: int | None = None,
    threads: int = 1,
    **options: Any,
) -> Iterator[Bin]:
    r"""Take events as they come, and yield a prediction and counts for every bin.

    Bins of `bin_us` begin with the first event and are yielded as soon as an event behind their end has come: with
    ``disorder="sort"`` an event one lag behind it. Time steps pass in empty bins too. However the events are divided
    into batches, each bin is what ``Simulator.step`` makes of the frame that `Preparation` makes of the same recording
    with the same options.

    Nothing grows with the length of the stream. The iterator pulls: the next batch is asked for when every bin that
    ends in the last one was taken, so a slow loop makes the producer wait. Of a pipe, one piece of 64 KiB is read ahead
    at most, and then its writer waits.

    Behind real time, `Bin.behind_s`, follows from the work alone, so that it means the same of a camera and of a file:
    if events came as they happened, bin k would begin to be worked on when it is complete and the bin before is done.
    What is left to do when the next bin is complete is

    .. math:: behind_k = \max(0, behind_{k-1} + took_k - bin)

    with `Bin.took_s`, the work on a bin including what the loop does with it, and without the time spent waiting for
    events. It is 0 while the work on a bin takes no longer than the bin, and grows while it takes longer.

    Parameters
    ----------
    network : Network
        Without layers that look ahead in time.
    events : iterable, Recording, or binary file
        Batches of events of any length, in order of time: arrays as `open_recording` takes them (fields x, y, t and p,
        also by the names of dv_processing, aedat, faery and Metavision; with `columns` plain arrays), objects whose
        ``numpy()`` returns one, or None for no events. Or one such array, a recording, or an open binary file, such as
        ``sys.stdin.buffer``, of a format that is read forwards.
    restart_every : int, optional
        Bins of a sample: the next one begins a new sample. As many as the network's time steps when not given, and
        without end where it says none; 0 never begins anew.
    threads : int
        Threads that share the work of every large layer.
    **options
        Those of `Preparation` for recordings: ``bin_us``, and for batches ``sensor_size=(height, width)``, unless the
        network says them; ``fit``, ``binary``, ``orientation``, ``disorder``, ``lag_us``, ``start_us``, ``columns``,
        ``time_unit`` and so on. What the network says of them holds where nothing is given. Of a recording, what it was
        opened with holds: orientation and size of the sensor are those said here, else the network's, where it was
        opened without them.

    Yields
    ------
    Bin

    Raises
    ------
    InputError
        At the call: an option is missing or does not fit, or a layer looks ahead in time. While reading: events that do
        not fit, or are out of order; a gap of more than a million bins; no events at all.

    Examples
    --------
    Batches from a camera of 346 x 260 pixels, for a network of 34 x 34::

        for bin in eventsim.stream(network, batches, bin_us=10_000, sensor_size=(260, 346), fit="crop"):
            print(bin.end_us, bin.prediction, bin.counts.acs, bin.behind_s)
    """
    if unknown := sorted(set(options) - OPTIONS):
        raise TypeError(f"stream() got an unexpected keyword argument {unknown[0]!r}")
    return iter(Streaming(Simulator(network, threads=threads), events, Preparation(**options), restart_every))


class Streaming:
    """A stream that is about to go through a network: checked, and iterated once.

    Parameters
    ----------
    simulator : Simulator
        Whose stream it becomes.
    events, restart_every
        As of `stream`.
    preparation : Preparation
        What is said of events and bins.

    Attributes
    ----------
    recording : Recording
        The events.
    bin_us : int
        Duration of a bin.
    restart_every : int
        Bins of a sample, 0 for a sample without end.
    defects : Defects
        What was met in the events so far, and done.

    Raises
    ------
    InputError
        As `stream` at the call.
    """

    def __init__(
        self, simulator: Simulator, events: Events, preparation: Preparation, restart_every: int | None = None
    ) -> None:
        network = simulator.network
        whole = preparation.of(network)
        name = str(events.path) if isinstance(events, (Recording, ArrivingFile)) else "events"
        if preparation.time_steps is not None:
            raise InputError(
                f"{name}: time_steps={preparation.time_steps} found, expected the bins of a sample; pass restart_every"
            )
        if whole.window != "duration" or whole.bin_us is None:
            raise InputError(
                f"{name}: windows of {whole.window or 'count'} found, expected bins of a fixed duration, since where a "
                "stream ends nobody knows; pass bin_us=10000 or another number of microseconds"
            )
        if restart_every is not None and whole_number("restart_every", restart_every) < 0:
            raise InputError(f"restart_every {restart_every} found; expected the bins of a sample, or 0 for no end")
        for node in simulator.schedule.nodes:
            if node.op.looks_ahead:
                raise InputError(
                    f"{name}: network {network.name} found, of which layer {node.name} looks ahead in time, expected "
                    "one that goes step by step; save the events to a file and run it"
                )
        simulator.restart()
        simulator.count_anew()
        self.restart_every = (network.time_steps or 0) if restart_every is None else restart_every
        self.bin_us = whole.bin_us
        self.defects = Defects()
        fit = whole.fit_for(network)
        self.recording = _recording(events, network, preparation, name)
        self.defects.sensor = self.recording.overruled_size
        if self.recording.waiting is not None and preparation.end_us is not None:
            raise InputError(f"{name}: end_us={preparation.end_us} found; a stream ends with its events, leave it out")
        self._simulator = simulator
        # how far the clock is ahead of the events
        self._ahead_s: float | None = None
        self._mark = self._mark_waited = 0.0
        lag_us = DEFAULT_LAG_US if whole.lag_us is None else whole.lag_us
        reading = Reading(whole.disorder, lag_us, self.defects)
        self._binned = partial(bins_as_they_come, bin_us=self.bin_us, fit=fit, binary=bool(whole.binary))
        self._bins = self._binned(self.recording, reading=reading, on_arrival=self._note)

    def _note(self, latest_us: int) -> None:
        """Note when events came, whether or not they are held back to be sorted."""
        now = perf_counter()
        if self._ahead_s is None:
            self._mark, self._mark_waited = now, self._waited()
        ahead_s = now - latest_us / 1e6
        self._ahead_s = ahead_s if self._ahead_s is None else min(self._ahead_s, ahead_s)

    def _waited(self) -> float:
        waiting = self.recording.waiting
        return 0.0 if waiting is None else waiting.seconds

    def _warm_up(self) -> None:
        """Compile kernels, or load them, before events wait for it."""
        self._simulator.warm_up()
        size = (self.recording.height, self.recording.width)
        for _ in self._binned(Batches([np.zeros(1, EVENT_DTYPE)], sensor_size=size)):
            pass

    def __iter__(self) -> Iterator[Bin]:
        """Compile what is not compiled, then take bin after bin."""
        simulator, bin_s, every = self._simulator, self.bin_us / 1e6, self.restart_every
        self._warm_up()
        sample, step, behind_s = -1, 0, 0.0
        for each in self._bins:
            step = step + 1 if sample >= 0 and step + 1 != every else 0
            if step == 0:
                simulator.restart()  # and its sums
                sample += 1
            else:
                simulator.count_anew()
            result = simulator.step(each.frame)
            now, waited_now = perf_counter(), self._waited()
            took_s = max(0.0, now - self._mark - (waited_now - self._mark_waited))
            self._mark, self._mark_waited = now, waited_now
            behind_s = max(0.0, behind_s + took_s - bin_s)
            end_us = each.start_us + self.bin_us
            assert self._ahead_s is not None
            yield Bin(
                each.index,
                each.start_us,
                end_us,
                each.events,
                sample,
                step,
                step + 1 == every,
                result,
                took_s,
                behind_s,
                max(0.0, now - self._ahead_s - end_us / 1e6),
            )


def _recording(events: Events, network: Network, preparation: Preparation, name: str) -> Recording:
    """Return what is streamed as a recording: batches as they come, or what is one already."""
    if isinstance(events, (io.BufferedIOBase, io.RawIOBase)):
        events = arriving_file(events, name)
    if isinstance(events, (Recording, ArrivingFile)):
        return preparation.recording_for(events, network)
    if isinstance(events, (str, Path)):
        raise InputError(f"{events}: a path found; expected open_recording(path), or batches of events as they come")
    whole = preparation.of(network)
    for option in OF_FILES:
        if (value := getattr(preparation, option)) is not None:
            raise InputError(f"{name}: {option}={value!r} found; batches of events cannot use that: leave it out")
    if whole.sensor_size is None:
        raise InputError(
            f"{name}: no size of the sensor found, expected one, which batches do not tell; pass "
            "sensor_size=(height, width)"
        )
    batches = Batches(
        [events] if isinstance(events, np.ndarray) else events,
        sensor_size=whole.sensor_size,
        orientation=whole.orientation or AS_RECORDED,
        path=name,
        columns=whole.columns,
        time_unit=whole.time_unit,
    )
    batches.start_us, batches.salvage = whole.start_us, bool(whole.salvage)
    return batches
