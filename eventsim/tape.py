"""The kernel calls of one sample, written down while it runs and made again for every sample of the same shape.

A small layer takes longer to be called than to be computed. But where a whole sample is one chunk, every sample of the
same shape makes the same calls, in the same memory: so they are written down once, with their arguments, and made again
in compiled code. What they count lies in one place, which is copied after each sample and read when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any, NamedTuple, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from eventsim.buffers import Buffers
from eventsim.errors import LayerError
from eventsim.kernels.calls import LINE, PLAYABLE, make, make_together, size_of, write
from eventsim.ledger import Columns, Executed
from eventsim.signals import CountArray, FloatArray, SignalType
from eventsim.values import Looked, Values
from eventsim.workers import ALONE, Workers

TAKES_TAPES = PLAYABLE and not (numba.config.DISABLE_JIT or numba.config.BOUNDSCHECK)
"""Whether calls can be made again: compiled ones, and not where a kernel may refuse an index."""

BLOCK = 1 << 16
"""Bytes of counts that are taken at a time."""

Copy: TypeAlias = list[bytes]


class Place(NamedTuple):
    """Where counts lie: the number of their block, and what makes an array of it."""

    block: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, copy: Copy) -> npt.NDArray[Any]:
        """Return the counts as they were when the copy was made."""
        return np.ndarray(self.shape, self.dtype, copy[self.block], self.offset, self.strides)


class Tally:
    """Memory that calls count in."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[np.uint8]] = []
        self._used: list[int] = []

    def take(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return memory, not initialised."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        if not self._blocks or self._used[-1] + size > len(self._blocks[-1]):
            self._blocks.append(np.zeros(max(size, BLOCK), np.uint8))
            self._used.append(0)
        begin = self._used[-1]
        self._used[-1] += -(-size // 8) * 8
        return self._blocks[-1][begin : begin + size].view(kind).reshape(shape)

    def place(self, array: npt.NDArray[Any]) -> Place | None:
        """Say where an array lies; None of one that was not taken from here."""
        address: int = array.__array_interface__["data"][0]
        for number, block in enumerate(self._blocks):
            offset = address - block.ctypes.data
            if 0 <= offset < len(block):
                return Place(number, offset, array.shape, array.strides, array.dtype)
        return None

    def copy(self) -> Copy:
        """Return everything that is counted now."""
        return [block[:used].tobytes() for block, used in zip(self._blocks, self._used, strict=True)]


class Call(NamedTuple):
    """A call that was written down.

    Attributes
    ----------
    layer : str
    function : kernel, or callable
    arguments : tuple
    holds : callable, or None
        What has to hold of what a kernel returns.
    part : int
        Of calls that write nothing in common, and may be made at the same time: which of them.
    seconds : float
        Where it has parts, how long it took.
    """

    layer: str
    function: Any
    arguments: tuple[Any, ...]
    holds: Callable[[Any], bool] | None
    part: int
    seconds: float


class Stretch:
    """Kernel calls that follow each other without anything in between.

    Parameters
    ----------
    calls : sequence of Call
    tally : Tally
    workers : Workers
        Who shares those that have parts.
    """

    def __init__(self, calls: Sequence[Call], tally: Tally, workers: Workers) -> None:
        self.layers = [call.layer for call in calls]
        self._entries: list[npt.NDArray[np.uint64]] = []
        self._calls = np.empty((len(calls), 2), np.uint64)
        self._checks: list[tuple[npt.NDArray[Any], Callable[[Any], bool]]] = []
        self._ends = tally.take(len(calls) + 1, np.int64)
        self.place = tally.place(self._ends)
        for number, call in enumerate(calls):
            self._calls[number] = self._written(call)
        gained = sum(call.seconds for call in calls if call.part)  # others are woken where it is worth it
        self._workers = workers if gained and workers.worth(1e9 * gained) else ALONE
        self._progress = np.zeros((self._workers.number, LINE), np.int64)
        self._threads = np.array([call.part % self._workers.number for call in calls], np.int64)
        begins = [number - call.part for number, call in enumerate(calls)]
        self._after = np.array(begins, np.int64)

    def _written(self, call: Call) -> tuple[int, int]:
        """Write an entry, and return what `make` needs."""
        compiled = call.function.overloads[tuple(map(numba.typeof, call.arguments))]
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        entry = np.zeros(-(-size_of(call.arguments) // 8), np.uint64)
        self._entries.append(entry)
        if call.holds is not None:
            kind = np.dtype(str(compiled.signature.return_type).replace("boolean", "bool"))
            self._checks.append((entry[1:].view(np.uint8)[: kind.itemsize].view(kind), call.holds))
        return write(entry, address, call.arguments), entry.ctypes.data

    def play(self) -> bool:
        """Make the calls; say whether what they returned is as it has to be."""
        if self._workers.number == 1:
            if make(self._calls, self._ends) < len(self._calls):
                return False
        elif not self._together():
            return False
        for returned, holds in self._checks:  # noqa: SIM110 - half the time
            if not holds(returned[0]):
                return False
        return True

    def _together(self) -> bool:
        calls, progress = self._calls, self._progress
        progress[:] = 0

        def work(thread: int) -> bool:
            return make_together(calls, self._threads, self._after, progress, self._ends, thread) == len(calls)

        return self._workers.meet(work, lambda: progress.fill(len(calls)))


class Step:
    """A call of what is not compiled by us: a function of NumPy that writes into an array.

    Parameters
    ----------
    call : Call
    tally : Tally
    """

    def __init__(self, call: Call, tally: Tally) -> None:
        self.layers = [call.layer]
        self._function, self._arguments = call.function, call.arguments
        self._ends = tally.take(2, np.int64)
        self.place = tally.place(self._ends)

    def play(self) -> bool:
        """Make the call."""
        self._ends[0] = perf_counter_ns()
        self._function(*self._arguments)
        self._ends[1] = perf_counter_ns()
        return True


class Note(NamedTuple):
    """What a layer reports of some time steps; see `eventsim.ledger.LedgerRows.add`."""

    operation: str
    start: int
    steps: int
    executed: Place | int
    times: int


class Sight(NamedTuple):
    """Values of an input that a layer looks at."""

    place: int
    kind: SignalType
    steps: int
    seen: Place | tuple[Place, Place, Place]


@dataclass
class Script:
    """What one layer reports in every sample."""

    notes: list[Note] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)


class ScriptColumns(Columns):
    """Columns of a layer that are written, and whose notes are kept for later samples.

    Parameters
    ----------
    length : int
    script : Script
    tally : Tally
    """

    __slots__ = ("_script", "_tally")

    def __init__(self, length: int, script: Script, tally: Tally) -> None:
        super().__init__(length)
        self._script, self._tally = script, tally

    def note(self, operation: str, start: int, steps: int, executed: Executed, times: int) -> None:
        """Note down what was executed, and where it was counted."""
        super().note(operation, start, steps, executed, times)
        if not isinstance(executed, np.ndarray):
            self._script.notes.append(Note(operation, start, steps, int(executed), times))
            return
        place = self._tally.place(executed)
        if place is None:
            raise LayerError(
                f"{operation} reported as an array of its own, by an op that declares `plays`; expected one that "
                "`Context.counts` gave and a call wrote"
            )
        self._script.notes.append(Note(operation, start, steps, place, times))


class Tape:
    """Calls of one sample; first written, then played.

    Parameters
    ----------
    frames : array (T, *input shape)
        What the first sample was; the same memory is what all others are copied into.
    length : int
        Time steps of the sample.
    workers : Workers
        Threads that share calls.

    Attributes
    ----------
    buffers : Buffers
        Memory for what the calls write.
    tally : Tally
        Memory for what they count.
    layer : str
        Whose calls are written down.
    output : float32 array (steps, classes)
        The logits, once something was played.
    seen : mapping of str to int
        Time steps that each layer saw.
    """

    output: FloatArray
    seen: Mapping[str, int]

    def __init__(self, frames: npt.NDArray[Any], length: int, workers: Workers = ALONE) -> None:
        self.frames = frames.copy()
        self.length = length
        self._workers = workers
        self.buffers = Buffers(small=0)
        self.tally = Tally()
        self.layer = ""
        self._scripts: dict[str, Script] = {}
        self._calls: list[Call] = []
        self._parts: list[Stretch | Step] = []

    def columns(self, layer: str) -> Columns:
        """Return columns for a layer to write into while its calls are written down."""
        return ScriptColumns(self.length, self._scripts.setdefault(layer, Script()), self.tally)

    def write(
        self,
        function: Any,
        arguments: tuple[Any, ...],
        holds: Callable[[Any], bool] | None = None,
        part: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Write a call down that was made; see `Call`."""
        self._calls.append(Call(self.layer, function, tuple(map(self._borrowed, arguments)), holds, part, seconds))

    def _borrowed(self, argument: Any) -> Any:
        """Return an argument whose arrays do not keep a buffer from being used again; all others are kept."""
        if isinstance(argument, tuple):
            parts = map(self._borrowed, argument)
            return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
        if isinstance(argument, np.ndarray) and argument.size:
            address: int = argument.__array_interface__["data"][0]
            if self.buffers.holds(address):
                return _view(argument, address)
        return argument

    def spikes_seen(self, place: int, kind: SignalType, by_step: CountArray) -> None:
        """Write down that a layer looks at a binary signal, whose spikes are counted there."""
        counted = self._place(by_step)
        self._scripts[self.layer].sights.append(Sight(place, kind, len(by_step), counted))

    def values_seen(self, place: int, kind: SignalType, looked: Looked) -> None:
        """Write down that a layer looks at a signal with values."""
        places = self._place(looked.levels), self._place(looked.sums), self._place(looked.counted)
        self._scripts[self.layer].sights.append(Sight(place, kind, len(looked.sums) - 2, places))

    def _place(self, array: npt.NDArray[Any]) -> Place:
        place = self.tally.place(array)
        assert place is not None  # as those who count for a tape take it from there
        return place

    def finish(self, output: FloatArray, seen: Mapping[str, int]) -> None:
        """Get ready to play.

        Parameters
        ----------
        output : float32 array (steps, classes)
            Where the logits are, after each time step that has some.
        seen : mapping of str to int
            Time steps that each layer saw.
        """
        self.output, self.seen = output, seen
        kernels: list[Call] = []
        for call in self._calls:
            if hasattr(call.function, "overloads"):
                kernels.append(call)
                continue
            if kernels:
                self._parts.append(Stretch(kernels, self.tally, self._workers))
                kernels = []
            self._parts.append(Step(call, self.tally))
        if kernels:
            self._parts.append(Stretch(kernels, self.tally, self._workers))

    def play(self, frames: npt.NDArray[Any]) -> Copy | None:
        """Make all calls for other frames.

        Returns
        -------
        list of bytes, or None
            What was counted; None where a call raised an error or returned what it must not.
        """
        np.copyto(self.frames, frames)
        for part in self._parts:
            if not part.play():
                return None
        return self.tally.copy()

    def columns_of(self, layer: str, copy: Copy) -> Columns:
        """Return what a layer executed in a sample."""
        columns = Columns(self.length)
        for operation, start, steps, executed, times in self._scripts[layer].notes:
            counted = executed if isinstance(executed, int) else executed.read(copy)
            columns.note(operation, start, steps, counted, times)
        return columns

    def values_of(self, layer: str, inputs: int, copy: Copy) -> tuple[Values, ...]:
        """Return the values that reached a layer of so many inputs; nothing where it does not look at them."""
        sights = self._scripts[layer].sights
        values = tuple(Values() for _ in range(inputs if sights else 0))
        for place, kind, steps, seen in sights:
            if isinstance(seen, Place):
                values[place].take_spikes(kind, steps, int(seen.read(copy).sum()))
            else:
                values[place].take(kind, steps, Looked(*[each.read(copy) for each in seen]).read())
        return values

    def seconds(self, copy: Copy) -> dict[str, float]:
        """Return how long the calls of each layer took."""
        spent = dict.fromkeys(self._scripts, 0.0)
        for part in self._parts:
            assert part.place is not None
            for layer, nanoseconds in zip(part.layers, np.diff(part.place.read(copy)).tolist(), strict=True):
                spent[layer] += nanoseconds * 1e-9
        return spent


def _view(array: npt.NDArray[Any], address: int) -> npt.NDArray[Any]:
    """Return an array of the same memory that does not keep it."""
    described = {**array.__array_interface__, "data": (address, not array.flags.writeable), "strides": array.strides}
    view: npt.NDArray[Any] = np.asarray(type("Borrowed", (), {"__array_interface__": described})())
    return view
