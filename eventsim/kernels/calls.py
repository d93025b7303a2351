"""Calls of kernels that were written down, made again without the interpreter.

A call is written as the address of a small function, made here for the types of the arguments, and that of an entry,
which holds the address of the kernel, room for what it returns, and the arguments as Numba passes them. Whoever writes
a call down keeps the arrays: nothing here counts references.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel

BEFORE = 16
"""Bytes of an entry before the arguments: the address of the kernel, and what it returns, a number or nothing."""

LINE = 8
"""Words of a cache line, which one thread writes."""
PATIENCE = 2000
"""Looks at what another thread does, before it is taken to be asleep."""

_BYTES, _STATUS, _WIDE = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


def _borrowed(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return a value whose arrays, in tuples too, belong to nobody that compiled code knows."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = cgutils.get_null_value(array.meminfo.type)
        array.parent = cgutils.get_null_value(array.parent.type)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = [builder.extract_value(value, index) for index in range(len(kind))]
        parts = [_borrowed(context, builder, each, part) for each, part in zip(kind.types, parts, strict=True)]
        return context.make_tuple(builder, kind, parts)
    return value


def _calling(context: Any, module: Any, kind: Any, packed: Any) -> Any:
    """Make the function that takes an entry, calls its kernel and returns what Numba's status says."""
    function = ir.Function(module, ir.FunctionType(_STATUS, [_BYTES]), module.get_unique_name("call"))
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    (entry,) = function.args
    address = builder.load(builder.bitcast(entry, _WIDE.as_pointer()))
    place = builder.bitcast(builder.gep(entry, [ir.Constant(_WIDE, BEFORE)]), packed.as_pointer())
    value = context.unpack_value(builder, kind, place)
    arguments = [builder.extract_value(value, index) for index in range(len(kind))]
    packer = context.get_arg_packer(kind.types)
    passed = packer.as_arguments(builder, arguments)
    given = [builder.gep(entry, [ir.Constant(_WIDE, 8)]), builder.bitcast(builder.alloca(_BYTES), _BYTES)]
    called = ir.FunctionType(_STATUS, [_BYTES, _BYTES, *[each.type for each in passed]])
    builder.ret(builder.call(builder.inttoptr(address, called.as_pointer()), [*given, *passed]))
    return function


@intrinsic  # type: ignore[untyped-decorator]
def _write(typingctx: Any, address: Any, arguments: Any) -> Any:
    """Write arguments into the entry at an address, and return the address of what calls a kernel with them."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        address, value = given
        packed = context.get_data_type(arguments)
        place = builder.inttoptr(builder.add(address, ir.Constant(_WIDE, BEFORE)), packed.as_pointer())
        context.pack_value(builder, arguments, _borrowed(context, builder, arguments, value), place)
        return builder.ptrtoint(_calling(context, builder.module, arguments, packed), _WIDE)

    return types.uintp(types.uintp, arguments), generate


@intrinsic  # type: ignore[untyped-decorator]
def _size(typingctx: Any, arguments: Any) -> Any:
    """Return how many bytes these arguments take."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return ir.Constant(_WIDE, context.get_abi_sizeof(context.get_data_type(arguments)))

    return types.int64(arguments), generate


@intrinsic  # type: ignore[untyped-decorator]
def _call(typingctx: Any, function: Any, entry: Any) -> Any:
    """Call a function that `_write` returned."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        function, entry = given
        kind = ir.FunctionType(_STATUS, [_BYTES])
        status = builder.call(builder.inttoptr(function, kind.as_pointer()), [builder.inttoptr(entry, _BYTES)])
        return builder.zext(status, _WIDE)

    return types.int64(types.uintp, types.uintp), generate


@intrinsic  # type: ignore[untyped-decorator]
def _now(typingctx: Any) -> Any:
    """Return nanoseconds of the monotonic clock."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        pair = ir.LiteralStructType([_WIDE, _WIDE])
        place = cgutils.alloca_once(builder, pair)
        kind = ir.FunctionType(_STATUS, [_STATUS, pair.as_pointer()])
        clock = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(clock, [ir.Constant(_STATUS, time.CLOCK_MONOTONIC), place])
        seconds, nanoseconds = (builder.load(cgutils.gep_inbounds(builder, place, 0, n)) for n in range(2))
        return builder.add(builder.mul(seconds, ir.Constant(_WIDE, 10**9)), nanoseconds)

    return types.int64(), generate


@kernel
def size_of(arguments: tuple[Any, ...]) -> int:
    """Return how many bytes an entry of these arguments takes."""
    size: int = BEFORE + _size(arguments)
    return size


@kernel
def write(entry: npt.NDArray[np.uint64], address: int, arguments: tuple[Any, ...]) -> int:
    """Write a call down.

    Parameters
    ----------
    entry : uint64 array
        Written, of as many bytes as `size_of` says; it must not move.
    address : int
        Of the kernel, compiled for arguments of these types.
    arguments : tuple

    Returns
    -------
    int
        The address of what makes the call.
    """
    entry[0] = address
    caller: int = _write(np.uintp(entry.ctypes.data), arguments)
    return caller


@kernel
def make(calls: npt.NDArray[np.uint64], ends: npt.NDArray[np.int64]) -> int:
    """Make calls one after the other.

    Parameters
    ----------
    calls : uint64 array (calls, 2)
        What makes each call, and its entry.
    ends : int64 array (calls + 1,)
        Written: nanoseconds of a monotonic clock, before the first call and after each.

    Returns
    -------
    int
        How many were made: fewer than all where one raised an error, and behind it none.
    """
    ends[0] = _now()
    for index in range(len(calls)):
        if _call(calls[index, 0], calls[index, 1]) != 0:
            return index
        ends[index + 1] = _now()
    return len(calls)


@intrinsic  # type: ignore[untyped-decorator]
def _tell(typingctx: Any, address: Any, number: Any) -> Any:
    """Write a number for other threads, who then see all that was written before."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        address, number = given
        builder.store_atomic(number, builder.inttoptr(address, _WIDE.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _told(typingctx: Any, address: Any) -> Any:
    """Read a number that another thread writes."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(given[0], _WIDE.as_pointer()), "acquire", 8)

    return types.int64(types.uintp), generate


@intrinsic  # type: ignore[untyped-decorator]
def _give_way(typingctx: Any) -> Any:
    """Let another thread run."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kind = ir.FunctionType(_STATUS, [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def _wait(progress: npt.NDArray[np.int64], until: int) -> None:
    """Wait until every thread has come so far, awake, as falling asleep and waking take longer than most calls."""
    for thread in range(len(progress)):
        tries = 0
        while _told(np.uintp(progress.ctypes.data + 8 * LINE * thread)) < until:
            tries += 1
            if tries > PATIENCE:
                _give_way()


@kernel
def make_together(
    calls: npt.NDArray[np.uint64],
    threads: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    progress: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    me: int,
) -> int:
    """Make those of the calls that are for this thread, while others make theirs.

    Parameters
    ----------
    calls : uint64 array (calls, 2)
        As for `make`.
    threads : int64 array (calls,)
        Who makes each.
    after : int64 array (calls,)
        So many of the calls, from the first one on, have to be made before.
    progress : int64 array (threads, LINE)
        Zeros; shared by the threads.
    ends : int64 array (calls + 1,)
        Written by thread 0: as by `make`, its waiting for others included.
    me : int

    Returns
    -------
    int
        How many calls came before one that raised an error; all where none did.
    """
    mine = np.uintp(progress.ctypes.data + 8 * LINE * me)
    made = len(calls)
    for index in range(len(calls)):
        if threads[index] == me:
            _tell(mine, index)
            _wait(progress[:, 0], after[index])
        if me == 0:
            ends[index] = _now()
        if threads[index] == me and _call(calls[index, 0], calls[index, 1]) != 0:
            made = index
            break
    _tell(mine, len(calls))
    if me == 0:
        _wait(progress[:, 0], len(calls))
        ends[len(calls)] = _now()
    return made


PLAYABLE = hasattr(time, "CLOCK_MONOTONIC") and sys.platform != "win32"
"""Whether this platform has the clock that `make` reads."""
