"""Lists of the bits that are set: a row of channels becomes a list of those that are active.

A processor that moves bytes next to each other lists 64 bits at once, and writes as many vectors of 16 as they fill;
others look up what eight bits list, in a table. Neither has a branch on a bit. Rows of few channels are listed
together, as many as have 64 bits: what is moved, or looked up again, is then the channel of each bit.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.dynamics import LANES
from eventsim.kernels.jit import kernel
from eventsim.kernels.processor import COMPRESSED_BYTES, SHUFFLED_BYTES

AT_A_TIME = 16
"""Entries that are written at a time: a list of 64 bits takes as much room as there are bits, while it is made."""

COMPILED = not numba.config.DISABLE_JIT
TOGETHER = COMPILED and (COMPRESSED_BYTES or SHUFFLED_BYTES)
"""Whether rows of few channels are listed together."""
FEW = 32
"""Channels that are few."""

LISTED = np.array(
    [[i for i in range(8) if byte >> i & 1] + [0] * (8 - byte.bit_count()) for byte in range(256)], np.uint8
)

_WIDE, _WORD, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)


def _number(value: int) -> Any:
    return ir.Constant(_WIDE, value)


def _pointer(b: Any, address: Any, kind: Any, offset: Any) -> Any:
    """Return a pointer to what lies so many bytes behind an address."""
    return b.inttoptr(b.add(address, offset), kind.as_pointer())


def _everywhere(b: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one word."""
    nowhere = ir.Constant(ir.VectorType(_WORD, lanes), ir.Undefined)
    first = b.insert_element(nowhere, value, ir.Constant(_WORD, 0))
    return b.shuffle_vector(first, nowhere, ir.Constant(ir.VectorType(_WORD, lanes), [0] * lanes))


@intrinsic  # type: ignore[untyped-decorator]
def _emit_by_table(
    typingctx: Any, bits: Any, width: Any, first: Any, listed: Any, channels: Any, out: Any
) -> Any:  # fmt: skip
    """Write the channels of the bits that are set, and return how many: of `width` bits, 64 at most.

    Sixteen bits at a time, and of each eight the whole entry of `LISTED`, whose address is given: the next one writes
    over what is too much. A channel is `first` and the byte of its bit among those at the address of `channels`; where
    no bytes can be looked up at once, and not `TOGETHER`, these are the numbers of bits.
    """
    signature = types.int64(types.uint64, types.int64, types.int64, *[types.uintp] * 3)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        b, (bits, width, first, listed, channels, out) = builder, arguments
        entries, numbers = ir.VectorType(_BYTE, 8), ir.VectorType(_WORD, 8)
        start = _everywhere(b, b.trunc(first, _WORD), 8)
        n, ends, end = _number(0), [], b.append_basic_block("emitted")
        for eight in range(8):
            byte = b.and_(b.lshr(bits, _number(8 * eight)), _number(255))
            entry = b.load(_pointer(b, listed, entries, b.shl(byte, _number(3))), align=1)
            if SHUFFLED_BYTES:
                of_bits = b.load(_pointer(b, channels, entries, _number(8 * eight)), align=1)
                index = b.add(b.zext(_looked_up(b, of_bits, entry), numbers), start)
            else:
                index = b.add(b.add(b.zext(entry, numbers), start), ir.Constant(numbers, [8 * eight] * 8))
            b.store(index, _pointer(b, out, numbers, b.shl(n, _number(2))), align=4)
            n = b.add(n, b.ctpop(byte))
            if eight % 2:
                following = b.append_basic_block("bits") if eight < 7 else end
                ends.append((n, b.block))
                if eight < 7:
                    b.cbranch(b.icmp_signed(">", width, _number(8 * eight + 8)), following, end)
                    b.position_at_end(following)
                else:
                    b.branch(end)
                    b.position_at_end(end)
        total = b.phi(_WIDE)
        for count, block in ends:
            total.add_incoming(count, block)
        return total

    return signature, generate


def _looked_up(b: Any, bytes_: Any, places: Any) -> Any:
    """Return, of eight bytes, those at eight places."""
    sixteen = ir.VectorType(_BYTE, 16)
    kind = ir.FunctionType(sixteen, [sixteen] * 2)
    shuffle = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.ssse3.pshuf.b.128")
    twice = ir.Constant(ir.VectorType(_WORD, 16), [*range(8)] * 2)
    found = b.call(shuffle, [b.shuffle_vector(each, each, twice) for each in (bytes_, places)])
    return b.shuffle_vector(found, found, ir.Constant(ir.VectorType(_WORD, 8), [*range(8)]))


@intrinsic  # type: ignore[untyped-decorator]
def _emit_at_once(typingctx: Any, bits: Any, first: Any, channels: Any, out: Any) -> Any:
    """Do what `_emit_by_table` does with 64 bits: list them in bytes, and widen 16 of these at a time."""
    signature = types.int64(types.uint64, types.int64, types.uintp, types.uintp)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        b, (bits, first, channels, out) = builder, arguments
        many, numbers = ir.VectorType(_BYTE, 64), ir.VectorType(_WORD, AT_A_TIME)
        mask = b.bitcast(bits, ir.VectorType(ir.IntType(1), 64))
        kind = ir.FunctionType(many, [many, mask.type, many])
        compress = cgutils.get_or_insert_function(b.module, kind, "llvm.experimental.vector.compress.v64i8")
        of_bits = b.load(_pointer(b, channels, many, _number(0)), align=1)
        listed = b.call(compress, [of_bits, mask, ir.Constant(many, [0] * 64)])
        start, count = _everywhere(b, b.trunc(first, _WORD), AT_A_TIME), b.ctpop(bits)
        end = b.append_basic_block("emitted")
        for part in range(0, 64, AT_A_TIME):
            lanes = ir.Constant(ir.VectorType(_WORD, AT_A_TIME), list(range(part, part + AT_A_TIME)))
            index = b.add(b.zext(b.shuffle_vector(listed, listed, lanes), numbers), start)
            b.store(index, _pointer(b, out, numbers, _number(4 * part)), align=4)
            following = end if part + AT_A_TIME == 64 else b.append_basic_block("bits")
            if following is end:
                b.branch(end)
            else:  # few are more than a vector
                b.cbranch(b.icmp_signed(">", count, _number(part + AT_A_TIME)), following, end)
            b.position_at_end(following)
        return count

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _ctpop(typingctx: Any, word: Any) -> Any:
    """Count the bits that are set."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.ctpop(builder.bitcast(arguments[0], _WIDE))

    return types.uint64(types.uint64), generate


@kernel
def bits_of(word: np.uint64) -> np.uint64:
    """Return how many bits of a word are set."""
    if COMPILED:
        return np.uint64(_ctpop(word))
    return np.uint64(sum([np.int64(word >> np.uint64(n) & np.uint64(1)) for n in range(64)]))


@kernel
def words(neurons: int) -> int:
    """Return how many words the bits of a step take: of 32 bits, read two at a time, one pair more than there are."""
    return neurons // LANES // 2 * 2 + 4


@kernel
def bits_from(words: npt.NDArray[np.uint64], bit: np.uint64) -> np.uint64:
    """Return 64 bits from one on."""
    word, shift, one = bit >> np.uint64(6), bit & np.uint64(63), np.uint64(1)
    return np.uint64((words[word] >> shift) | (words[word + one] << one << (np.uint64(63) - shift)))


@kernel
def _count_bits(words: npt.NDArray[np.uint64], bits: int) -> int:
    """Return how many of the first bits are set."""
    n = 0
    for word in range(np.uint64(bits // 64)):
        n += int(bits_of(words[word]))
    if bits % 64:
        n += int(bits_of(words[bits // 64] << np.uint64(64 - bits % 64)))
    return n


@kernel
def _count_rows(fired: npt.NDArray[np.uint64], channels: int, begin: int, ends: npt.NDArray[np.int64]) -> int:
    """Do what `list_bits` does where there is no room."""
    n = begin
    for row in range(len(ends)):
        for first in range(0, channels, 64):
            bits = bits_from(fired, np.uint64(row * channels + first))
            n += int(bits_of(bits << np.uint64(64 - min(64, channels - first))))
        ends[row] = n
    return n


@kernel
def _emit_one_by_one(
    bits: np.uint64, first: int, channels: npt.NDArray[np.uint8], indices: npt.NDArray[np.int32], n: int
) -> int:
    """Do what `_emit_at_once` does from place `n` on, and write nothing behind it; return the end."""
    one = np.uint64(1)
    while bits != 0:
        others = np.uint64(bits & (bits - one))
        indices[n] = first + int(channels[bits_of((bits ^ others) - one)])
        bits = others
        n += 1
    return n


@kernel
def list_bits(
    fired: npt.NDArray[np.uint64],
    channels: int,
    begin: int,
    ends: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
) -> int:
    """List the bits that are set, row by row; or only count them, where there is no room at all.

    Parameters
    ----------
    fired : uint64 array
        A bit for each channel, row after row; read is up to one word behind the last of them.
    channels : int
        Of a row.
    begin : int
        Where the first row begins in `indices`.
    ends : int64 array (rows,)
        Written: where each row ends.
    indices : int32 array
        Written: channels. What lies behind the last of them may be written too, up to the end of the array; the last 64
        are written one by one.

    Returns
    -------
    int
        Where the last row ends.
    """
    n, rows, done, room = begin, len(ends), 0, len(indices)
    if room == 0:
        return _count_rows(fired, channels, begin, ends)
    of_bits = np.empty(64, np.uint8)
    if TOGETHER and channels <= FEW:
        many = 64 // channels
        before = np.empty(many, np.uint64)  # which bits come before the end of each of the rows
        for k in range(many):
            before[k] = ~np.uint64(0) >> np.uint64(64 - (k + 1) * channels)
        for bit in range(64):
            of_bits[bit] = bit % channels
        while done + many <= rows:
            bits = np.uint64(bits_from(fired, np.uint64(done * channels)) & before[many - 1])
            for k in range(np.uint64(many)):
                ends[np.uint64(done) + k] = n + np.int64(_ctpop(bits & before[k]))
            if n + 64 > room:
                n = _emit_one_by_one(bits, 0, of_bits, indices, n)
            elif COMPRESSED_BYTES:
                n += _emit_at_once(bits, 0, of_bits.ctypes.data, indices.ctypes.data + 4 * n)
            elif bits != 0:
                to = indices.ctypes.data + 4 * n
                n += _emit_by_table(bits, many * channels, 0, LISTED.ctypes.data, of_bits.ctypes.data, to)
            done += many
    for bit in range(64):
        of_bits[bit] = bit
    for row in range(done, rows):
        for first in range(0, channels, 64):
            width, bits = min(64, channels - first), bits_from(fired, np.uint64(row * channels + first))
            if width < 64:
                bits &= (np.uint64(1) << np.uint64(width)) - np.uint64(1)
            if n + 64 > room or not COMPILED:
                n = _emit_one_by_one(bits, first, of_bits, indices, n)
            elif COMPRESSED_BYTES:
                n += _emit_at_once(bits, first, of_bits.ctypes.data, indices.ctypes.data + 4 * n)
            elif bits != 0:
                to = indices.ctypes.data + 4 * n
                n += _emit_by_table(bits, width, first, LISTED.ctypes.data, of_bits.ctypes.data, to)
        ends[row] = n
    return n


@kernel
def list_steps(
    fired: npt.NDArray[np.uint32],
    positions: int,
    channels: int,
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    first: int,
    last: int,
) -> None:
    """List who fired in some time steps; others may be listed at the same time.

    Parameters
    ----------
    fired : uint32 array (steps, words)
        A bit for each channel of each position; `words` of them.
    positions, channels : int
    indptr : int64 array (steps * positions + 1,)
        Written: ends of the rows of these steps; the first entry is given, and says where they begin.
    indices : int32 array
        Written: the channels of these steps, as by `list_bits`.
    first, last : int
        These steps, the last one excluded.
    """
    begin, bits = indptr[0], fired.view(np.uint64)
    for step in range(first):
        begin += _count_bits(bits[step], positions * channels)
    if last < len(fired):  # another part begins where this one ends
        end = begin
        for step in range(first, last):
            end += _count_bits(bits[step], positions * channels)
        indices = indices[:end]
    for step in range(first, last):
        ends = indptr[step * positions + 1 : (step + 1) * positions + 1]
        begin = list_bits(bits[step], channels, begin, ends, indices)
