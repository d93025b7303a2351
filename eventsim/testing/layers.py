"""The contract of a layer, as a test for whoever adds one."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from eventsim.context import Context
from eventsim.errors import LayerError
from eventsim.facts import MEMORIES, Facts
from eventsim.layers import Layer, Op
from eventsim.layers.time.steps import take_steps
from eventsim.ledger import Ledger
from eventsim.plan import DECLARATIONS
from eventsim.signals import CountArray, Dense, FloatArray, Rows, Signal, SignalType, as_static, to_frames
from eventsim.testing.dense_forms import check_dense_form, check_has_dense_form
from eventsim.testing.hearing_bands import check_bands
from eventsim.testing.hearing_bits import check_bits
from eventsim.testing.playing import check_playing
from eventsim.testing.samples import bits_of, from_bits, random_signal
from eventsim.workers import ALONE, Workers

BARRIER_SECONDS = 5
OR_LONGER = "or test with more steps"
METHODS_OF_STATE = ("fork", "own", "reset", "state", "restore")


@dataclasses.dataclass(frozen=True)
class Execution:
    """What a layer emitted over time, and what it executed in each time step."""

    frames: FloatArray
    counts: Mapping[str, CountArray]

    def equals(self, other: Execution) -> bool:
        """Compare bit for bit."""
        return (
            np.array_equal(self.frames, other.frames)
            and {name for name, column in self.counts.items() if column.any()}
            == {name for name, column in other.counts.items() if column.any()}
            and all(np.array_equal(column, other.counts[name]) for name, column in self.counts.items() if column.any())
        )


def check_layer(layer: Layer, *sources: SignalType, steps: int = 4, seeds: Sequence[int] = range(6)) -> None:
    """Check everything that a layer promises, on random signals.

    Types, rows, role and what operations entail are as declared, and memory that is counted is memory that it owns;
    chunks of every size give the same outputs and the same counts of each time step; the dense form computes the same,
    also step by step; no sample, fork or thread disturbs another, nor do threads that share its work; nothing is
    remembered by reference; what plays does the same for other samples; a state that was taken, pickled and given back
    goes on; and what the op declares is true in both directions: an op that says that it looks ahead, keeps state, or
    may not be computed once for a static input,
    must show it in one of the samples at least.

    Parameters
    ----------
    layer : Layer
        With arrays for which the layer does what it is for: weights that are not all zero, for example.
    *sources : SignalType
        What it hears, one for each argument.
    steps : int
        Time steps of a sample, at least 2: so many that what an op remembers shows.
    seeds : sequence of int
        One random sample is drawn for each.

    Raises
    ------
    AssertionError
        Says what is not as promised.

    Examples
    --------
    >>> from eventsim.layers import MaxPool2d
    >>> check_layer(MaxPool2d((2, 2), (2, 2)), SignalType("binary", 3, (4, 4)))
    """
    contract = _Contract(layer, sources, steps)
    contract.check_description()
    contract.check_declared()
    samples = [contract.sample(seed) for seed in seeds]
    for sample in samples:
        contract.check_output(copy.deepcopy(sample))
        contract.check_inputs_are_left_alone(sample)
    check_bits(layer, sources, samples[0])
    check_bands(layer, sources, samples[0])
    contract.check_no_steps(samples[0])
    contract.check_chunks(samples)
    contract.check_memory(samples)
    contract.check_static(samples)
    for index, sample in enumerate(samples):
        other = samples[index - 1]
        contract.check_reset(sample, other)
        contract.check_no_references(sample)
        contract.check_state(sample)
        contract.check_forks(sample, other)
        contract.check_workers(sample)
    check_playing(layer, sources, samples)
    check_has_dense_form(layer)
    for sample in samples:
        check_dense_form(layer, sources, sample, contract.alone(sample).frames)


class _Contract:
    """One layer under test."""

    def __init__(self, layer: Layer, sources: Sequence[SignalType], steps: int) -> None:
        self.layer = layer
        self.sources = sources
        self.steps = steps
        self.name = type(layer).__name__

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise AssertionError(f"{self.name}: {message}")

    def op(self) -> Op:
        return self.layer.op(*self.sources)

    def sample(self, seed: int) -> tuple[Signal, ...]:
        rng = np.random.default_rng(seed)
        return tuple(random_signal(source, self.steps, rng) for source in self.sources)

    def run(self, op: Op, sample: tuple[Signal, ...], chunk: int, workers: Workers = ALONE) -> Execution:
        """Run a sample through an op as it is, in chunks, into a ledger of its own."""
        steps = sample[0].steps
        ledger = Ledger(["layer"], steps)
        emitted = []
        for start in range(0, steps, chunk):
            stop = min(start + chunk, steps)
            context = Context(stop == steps, ledger.rows("layer", start, stop - start), workers)
            output = op.advance(tuple(take_steps(signal, start, stop) for signal in sample), context)
            emitted.append(to_frames(output).copy())
        return Execution(np.concatenate(emitted), ledger.columns("layer"))

    def alone(self, sample: tuple[Signal, ...], chunk: int | None = None) -> Execution:
        return self.run(self.op(), sample, chunk or self.steps)

    def attempt(self, work: Callable[[], Execution]) -> Execution | None:
        """Return nothing where the layer refuses."""
        try:
            return work()
        except LayerError:
            return None

    def check_description(self) -> None:
        self.require(dataclasses.is_dataclass(self.layer), "is no dataclass; expected a frozen one")
        self.require(len(self.sources) == self.layer.arguments, f"{len(self.sources)} sources for its arguments given")
        for field in dataclasses.fields(self.layer):
            value = getattr(self.layer, field.name)
            plain = value if isinstance(value, tuple) else (value,)
            fits = isinstance(value, np.ndarray) or all(
                v is None or isinstance(v, (bool, int, float, str)) for v in plain
            )
            self.require(fits, f"field {field.name} = {value!r:.60} cannot be kept in a model file")
        for name, number in (("neurons", self.layer.neurons), ("dense_macs", self.layer.dense_macs)):
            count = number(*self.sources)
            self.require(isinstance(count, int) and count >= 0, f"{name} {count!r} found; expected a whole number")
        self.facts()
        again = pickle.loads(pickle.dumps(self.layer))
        same = all(np.array_equal(array, again.arrays()[name]) for name, array in self.layer.arrays().items())
        self.require(same, "comes back from a pickle with other arrays")

    def facts(self) -> Facts:
        try:
            return self.layer.facts(*self.sources)
        except LayerError as error:
            raise AssertionError(f"{self.name}: {error}") from error

    def check_memory_is_owned(self, columns: Mapping[str, CountArray]) -> None:
        """Words that are read or written must be of a memory that the layer owns."""
        facts = self.facts()
        executed = {**columns, **facts.derived(columns)}
        for kind in MEMORIES:
            for operation in (f"{kind}_reads", f"{kind}_writes"):
                used = operation in executed and bool(executed[operation].any())
                self.require(not used or kind in facts.words, f"{operation} counted; expected {kind} among its words")

    def check_declared(self) -> None:
        op = self.op()
        for name, expected in DECLARATIONS.items():
            self.require(hasattr(op, name), f"its op declares no {name}; expected {expected.__name__}, see Op")
            found = getattr(op, name)
            self.require(
                isinstance(found, expected), f"its op declares {name} = {found!r}; expected {expected.__name__}"
            )
        for name in op.state_names:
            self.require(hasattr(op, name), f"state {name!r} declared and not there; expected reset to make it")

    def check_output(self, sample: tuple[Signal, ...]) -> None:
        declared = self.layer.output_type(*self.sources)
        ledger = Ledger(["layer"], self.steps)
        try:
            output = self.op().advance(sample, Context(True, ledger.rows("layer", 0, self.steps)))
        except LayerError as error:
            raise AssertionError(f"{self.name}: {error}") from error
        negative = [name for name, column in ledger.columns("layer").items() if (column < 0).any()]
        self.require(not negative, f"counts of {', '.join(negative)} are negative")
        self.check_memory_is_owned(ledger.columns("layer"))
        self.require(isinstance(output, (Rows, Dense)), f"emits {type(output).__name__}; expected Rows or Dense")
        self.require(output.type == declared, f"emits {output.type}; {declared} was declared")
        self.require(isinstance(output, Rows) != declared.dense, "emits rows where dense was declared, or the reverse")
        rows = output.steps * declared.positions
        if not isinstance(output, Rows):
            self.require(output.data.shape == (rows, declared.channels), f"emits data of shape {output.data.shape}")
            self.require(output.data.dtype == np.float32, f"emits {output.data.dtype}; expected float32")
            self.require(output.data.flags.c_contiguous, "emits data that is not contiguous")
            return
        for name, dtype in (("indptr", np.int64), ("indices", np.int32), ("values", np.float32)):
            array = getattr(output, name)
            fits = isinstance(array, np.ndarray) and array.dtype == dtype
            self.require(
                fits or (name == "values" and array is None), f"emits {name} that is no {dtype.__name__} array"
            )
        self.require(len(output.indptr) == rows + 1, f"emits {len(output.indptr) - 1} rows; expected {rows}")
        listed = output.indices
        inside = len(listed) == 0 or (listed.min() >= 0 and listed.max() < declared.channels)
        self.require(bool(inside), f"emits channels outside of 0 to {declared.channels - 1}")
        self.require((output.values is None) == (declared.kind == "binary"), "values are for all kinds but binary")
        self.require(output.values is None or bool(output.values.all()), "emits a value of 0; rows list what is not 0")
        for start, stop in zip(output.indptr[:-1], output.indptr[1:], strict=True):
            self.require(bool((np.diff(output.indices[start:stop]) > 0).all()), "channels of a row do not ascend")
        if output.bits is not None:
            fits = output.values is None and output.bits.shape == bits_of(output).shape
            self.require(fits, f"emits bits of {declared.kind} values, {output.bits.shape}")
            told = from_bits(output.bits, declared)
            self.require(np.array_equal(told, output.to_array()), "emits bits of other spikes")
        if declared.kind == "graded" and output.values is not None:
            whole = (output.values > 0) & (output.values == np.rint(output.values))
            self.require(bool(whole.all()), "emits graded values that are not positive integers")

    def check_no_steps(self, sample: tuple[Signal, ...]) -> None:
        """Give no time steps, as a mean over time emits before the last chunk: nothing to do, nothing to emit."""
        if self.op().looks_ahead:
            return
        ledger = Ledger(["layer"], self.steps)
        nothing = tuple(take_steps(signal, 0, 0) for signal in sample)
        op = self.op()
        try:
            output = op.advance(nothing, Context(False, ledger.rows("layer", 0, 0)))
        except Exception as error:
            raise AssertionError(f"{self.name}: raises {error!r:.100} for no time steps; expected none out") from error
        self.require(output.steps == 0, f"emits {output.steps} time steps for none")
        self.require(not any(c.any() for c in ledger.columns("layer").values()), "counts something for no time steps")

    def check_chunks(self, samples: Sequence[tuple[Signal, ...]]) -> None:
        """Compare chunks of every size with all steps at once."""
        differs = False
        for sample in samples:
            whole = self.alone(sample)
            for chunk in range(1, self.steps):
                cut = self.attempt(lambda sample=sample, chunk=chunk: self.alone(sample, chunk))  # type: ignore[misc]
                equal = cut is not None and cut.equals(whole)
                differs |= not equal
                if not self.op().looks_ahead:
                    self.require(equal, f"chunks of {chunk} give other outputs or counts than all steps at once")
        if self.op().looks_ahead:
            self.require(
                differs,
                f"looks_ahead is declared, and in no sample does it matter; declare False, {OR_LONGER}",
            )

    def check_reset(self, sample: tuple[Signal, ...], other: tuple[Signal, ...]) -> None:
        op = self.op()
        self.run(op, other, self.steps)
        op.reset()
        again = self.run(op, sample, self.steps)
        self.require(again.equals(self.alone(sample)), "a sample after another one differs from the sample alone")

    def check_memory(self, samples: Sequence[tuple[Signal, ...]]) -> None:
        """Compare whether steps before matter with what `state_names` says."""
        matters = False
        for index, sample in enumerate(samples):
            op = self.op()
            ledger = Ledger(["layer"], self.steps)
            before = self.attempt(lambda: self._unfinished(op, samples[index - 1], ledger))  # noqa: B023 - called at once
            after = None if before is None else self.attempt(lambda: self.run(op, sample, self.steps))  # noqa: B023
            matters |= after is None or not after.equals(self.alone(sample))
        if self.op().state_names:
            self.require(
                matters,
                f"state_names are declared, and in no sample do they matter; declare (), {OR_LONGER}",
            )
        else:
            self.require(not matters, "steps before matter, and state_names are (); declare what is remembered")

    def _unfinished(self, op: Op, sample: tuple[Signal, ...], ledger: Ledger) -> Execution:
        op.advance(sample, Context(False, ledger.rows("layer", 0, self.steps)))
        return Execution(np.empty(0, np.float32), {})

    def check_static(self, samples: Sequence[tuple[Signal, ...]]) -> None:
        """Compare a static input with the same frames repeated."""
        differs = False
        for sample in samples:
            frame = tuple(take_steps(signal, 0, 1) for signal in sample)
            repeated = tuple(as_static(signal).expand(self.steps) for signal in frame)
            every = self.attempt(lambda repeated=repeated: self.alone(repeated))  # type: ignore[misc]
            once = self.attempt(lambda frame=frame: self.run(self.op(), frame, 1))  # type: ignore[misc]
            same = (
                every is not None
                and once is not None
                and len(every.frames) == self.steps
                and all(np.array_equal(once.frames[0], step) for step in every.frames)
                and all((column == once.counts[name][0]).all() for name, column in every.counts.items())
            )
            differs |= not same
            if self.op().once_if_static:
                self.require(same, "once_if_static is declared, and a repeated frame gives other outputs or counts")
        if not self.op().once_if_static:
            self.require(
                differs,
                f"once_if_static is declared False, and in no sample does it matter; declare True, {OR_LONGER}",
            )

    def check_inputs_are_left_alone(self, sample: tuple[Signal, ...]) -> None:
        kept = copy.deepcopy(sample)
        self.alone(sample)
        for signal, before in zip(sample, kept, strict=True):
            for name, array in _arrays_of(signal):
                self.require(np.array_equal(array, getattr(before, name)), f"writes into the {name} of its input")

    def check_no_references(self, sample: tuple[Signal, ...]) -> None:
        """Overwrite each input after the call, as the layer before does with its next chunk."""
        if self.op().looks_ahead:
            return
        op, expected = self.op(), self.alone(sample)
        ledger = Ledger(["layer"], self.steps)
        emitted = []
        for step in range(self.steps):
            given = copy.deepcopy(tuple(take_steps(signal, step, step + 1) for signal in sample))
            output = op.advance(given, Context(step == self.steps - 1, ledger.rows("layer", step, 1)))
            emitted.append(to_frames(output).copy())
            for signal in given:
                for _, array in _arrays_of(signal):
                    array[...] = 0
        held = np.concatenate(emitted)
        self.require(np.array_equal(held, expected.frames), "remembers an input by reference; copy what is kept")

    def check_state(self, sample: tuple[Signal, ...]) -> None:
        """Take the state in the middle, pickle it, and go on in another op."""
        if self.op().looks_ahead:
            return
        half = self.steps // 2
        begin, rest = (tuple(take_steps(s, a, b) for s in sample) for a, b in ((0, half), (half, self.steps)))
        ledger = Ledger(["layer"], self.steps)
        op, other = self.op(), self.op().fork()
        op.advance(begin, Context(False, ledger.rows("layer", 0, half)))
        state = pickle.loads(pickle.dumps(op.state()))
        self.run(other, sample, self.steps)
        other.restore(state)
        went_on, expected = self.run(other, rest, self.steps), self.run(op, rest, self.steps)
        self.require(went_on.equals(expected), "goes on differently after its state was taken and given back")
        other.restore(state)
        again = self.run(other, rest, self.steps)
        self.require(again.equals(expected), "writes into the state that it was given back")

    def check_forks(self, sample: tuple[Signal, ...], other: tuple[Signal, ...]) -> None:
        """Look for anything that two forks share and one of them writes, and run them in step on two threads."""
        original = self.op()
        first, second = original.fork(), original.fork()
        before = _contents(second)
        self.run(first, sample, self.steps)
        for path, content in _contents(second).items():
            self.require(before.get(path) == content, f"a fork writes {path} of another one; make it in own or reset")
        forks = (original.fork(), original.fork())
        barrier = threading.Barrier(2)
        for fork in forks:
            _meet_inside(fork, barrier)
        with ThreadPoolExecutor(2) as pool:
            work = [pool.submit(self._in_step, *pair, barrier) for pair in zip(forks, (sample, other), strict=True)]
            together = [future.result() for future in work]
        for frames, given in zip(together, (sample, other), strict=True):
            self.require(
                np.array_equal(frames, self.alone(given).frames), "two forks on two threads disturb each other"
            )

    def check_workers(self, sample: tuple[Signal, ...]) -> None:
        """Look for anything that depends on how many threads share the work."""
        alone = self.alone(sample)
        for number in (2, 3):
            shared = self.run(self.op(), sample, self.steps, Workers(number, shortest_ns=0))
            self.require(shared.equals(alone), f"{number} threads that share its work give other outputs or counts")

    def _in_step(self, op: Op, sample: tuple[Signal, ...], barrier: threading.Barrier) -> FloatArray:
        """Run chunk by chunk, waiting for the other thread before each output is looked at."""
        chunk = self.steps if op.looks_ahead else 1
        ledger = Ledger(["layer"], self.steps)
        emitted = []
        for start in range(0, self.steps, chunk):
            context = Context(start + chunk == self.steps, ledger.rows("layer", start, chunk))
            output = op.advance(tuple(take_steps(signal, start, start + chunk) for signal in sample), context)
            _meet(barrier)
            emitted.append(to_frames(output).copy())
            _meet(barrier)
        return np.concatenate(emitted)


def _arrays_of(signal: Signal) -> Iterator[tuple[str, Any]]:
    for name in ("data", "indices", "values"):
        if isinstance(array := getattr(signal, name, None), np.ndarray):
            yield name, array


def _parts(thing: object) -> Iterator[tuple[str, Any]]:
    """Yield what an op consists of; descriptions are frozen and not looked into."""
    if isinstance(thing, dict):
        yield from ((f"[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, (list, tuple)):
        yield from ((f"[{index}]", value) for index, value in enumerate(thing))
    elif not isinstance(thing, (type, np.ndarray)) and not callable(thing) and not dataclasses.is_dataclass(thing):
        yield from ((f".{name}", value) for name, value in getattr(thing, "__dict__", {}).items())


def _contents(thing: object, path: str = "op", seen: frozenset[int] = frozenset()) -> dict[str, object]:
    """Return every array and plain value that an op holds, by its path."""
    if id(thing) in seen:
        return {}
    if isinstance(thing, np.ndarray):
        return {path: (thing.shape, thing.tobytes())}
    if thing is None or isinstance(thing, (bool, int, float, str, np.generic)):
        return {path: repr(thing)}
    found: dict[str, object] = {}
    for name, part in _parts(thing):
        found |= _contents(part, path + name, seen | {id(thing)})
    return found


def _meet_inside(op: Op, barrier: threading.Barrier) -> None:
    """Make each method of every inner op wait for the other thread before it returns."""
    for _, part in _parts(op):
        inner = list(part) if isinstance(part, (list, tuple)) else [part]
        for candidate in inner:
            if not isinstance(candidate, Op):
                continue
            for name in dir(type(candidate)):
                method = getattr(candidate, name)
                if not name.startswith("_") and callable(method) and name not in METHODS_OF_STATE:
                    setattr(candidate, name, _waiting(method, barrier))
            _meet_inside(candidate, barrier)


def _waiting(method: Callable[..., Any], barrier: threading.Barrier) -> Callable[..., Any]:
    def work(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        _meet(barrier)
        return result

    return work


def _meet(barrier: threading.Barrier) -> None:
    try:
        barrier.wait(BARRIER_SECONDS)
    except threading.BrokenBarrierError:
        return  # the other one takes fewer steps; go on alone
