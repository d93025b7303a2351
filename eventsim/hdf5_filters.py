"""What unpacks the data sets of HDF5 files: which filters may, and what they are given.

Filters are code of the HDF5 library and its plug-ins. One byte of a file says which of them runs, and many take their
parameters and their input as they come: some end the process, some print, some reserve whatever a chunk says. So only
lossless filters that event files and checkpoints use are let through, and what they do not check is checked before.

Sources: the HDF5 File Format Specification 3.0; the list of registered filters, https://github.com/HDFGroup/hdf5_plugins;
for the chunks of LZ4, https://github.com/nexusformat/HDF5-External-Filter-Plugins, of LZF,
https://github.com/h5py/h5py/tree/master/lzf, of Bitshuffle, https://github.com/kiyo-masui/bitshuffle, of Blosc,
https://github.com/Blosc/c-blosc (README_CHUNK_FORMAT), of Blosc2, https://github.com/Blosc/c-blosc2
(README_CFRAME_FORMAT).
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lz4.block
import numpy as np
import zstandard

from eventsim.errors import InputError

GZIP, SHUFFLE, FLETCHER32 = 1, 2, 3
LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD, BLOSC2, ECF = 32000, 32001, 32004, 32008, 32015, 32026, 36559
CHECKSUM_BYTES = 4
COMPRESSIONS = {
    GZIP: "gzip",
    LZF: "LZF",
    BLOSC: "Blosc",
    BLOSC2: "Blosc2",
    ZSTD: "Zstd",
    LZ4: "LZ4",
    BITSHUFFLE: "Bitshuffle",
    ECF: "ECF",
}
"""Filters that compress, of which a data set may have one."""
OTHERS = {
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32013: "ZFP",
    32017: "SZ",
    32018: "JPEG-LS",
    32024: "SZ3",
    32028: "SPERR",
    32033: "HTJ2K",
}
"""Names of filters that are refused: lossy ones, and those whose decoders trust their parameters."""

MOST_OF_GZIP = 1032
"""Deflate makes at most so many bytes of one."""
UNPACKED_BYTES = 128 << 20
"""What a chunk may unpack to without being looked at before."""


BLOSC2_MAGIC = b"\x9e\xa8b2frame\0"
BLOSC2_UNWRITTEN = 4
# sizes of the header, the frame, what it unpacks to, what that takes packed, and a chunk of it; each behind its type
BLOSC2_HEADER = struct.Struct(">11xIxQ6xqxq11xI")


class Filter(NamedTuple):
    """A filter of a data set: its registered number, and the parameters that the file holds."""

    number: int
    parameters: tuple[int, ...]


def filters_of(dataset: Any) -> list[Filter]:
    """Return the filters of a data set in the order in which they packed it."""
    properties = dataset.id.get_create_plist()
    found = (properties.get_filter(index) for index in range(properties.get_nfilters()))
    return [Filter(int(number), tuple(parameters)) for number, _, parameters, _ in found]


def chunk_bytes(dataset: Any) -> int:
    """Return what one chunk of a data set takes when it is unpacked; 0 for one that is not in chunks."""
    return int(np.prod(dataset.chunks or (0,), dtype=object)) * int(dataset.dtype.itemsize)


def check_filters(path: str | Path, name: str, dataset: Any) -> None:
    """Refuse filters that are not known to be safe, before anything of a data set is read.

    Parameters
    ----------
    path : str or path
        For messages.
    name : str
        The data set's, for messages.
    dataset : h5py.Dataset

    Raises
    ------
    InputError
        Names the file, the data set and the filter.
    """
    filters = filters_of(dataset)
    numbers = [number for number, _ in filters]
    for number in numbers:
        if number not in COMPRESSIONS and number not in (SHUFFLE, FLETCHER32):
            known = f" ({OTHERS[number]})" if number in OTHERS else ""
            raise InputError(
                f"{path}: dataset {name} is packed by HDF5 filter {number}{known}, expected none, or one of shuffle, "
                f"Fletcher32, {', '.join(COMPRESSIONS.values())}; repack it with h5repack -f GZIP=6, or save it again "
                "with h5py"
            )
    packing = [number for number in numbers if number in COMPRESSIONS]
    if (
        len(packing) > 1
        or len(set(numbers)) < len(numbers)
        or (packing and SHUFFLE in numbers[numbers.index(*packing) :])
    ):
        raise InputError(
            f"{path}: dataset {name} is packed by the HDF5 filters {', '.join(map(str, numbers))}, expected shuffle "
            "before one compression at most; the file is damaged"
        )
    size, unpacked = int(dataset.dtype.itemsize), chunk_bytes(dataset)
    for number, parameters in filters:
        if dataset.dtype.kind != "O" and not _parameters_fit(number, parameters, size, unpacked):
            raise InputError(
                f"{path}: dataset {name} has the parameters {parameters} of {COMPRESSIONS[number]}, expected those of "
                f"chunks of {unpacked} bytes, {size} a value; the file is damaged"
            )


def _parameters_fit(number: int, told: tuple[int, ...], size: int, unpacked: int) -> bool:
    """Tell whether a filter's parameters are those of a data set, where it takes them as true."""
    if number == LZF:
        return len(told) < 3 or told[2] == unpacked
    if number == BLOSC:
        return len(told) >= 4 and told[3] == unpacked
    if number == BITSHUFFLE:
        blocks, inner = told[3:4], told[4:5]
        return len(told) >= 3 and told[2] == size > 0 and not any(b % 8 for b in blocks) and {*inner} <= {*_INNER}
    return True


def chunks_unchecked(path: str | Path, name: str, dataset: Any) -> bool:
    """Tell whether chunks of a data set must pass `check_chunks` before they are read.

    Raises
    ------
    InputError
        As of `largest_chunk`.
    """
    largest = largest_chunk(path, name, dataset)
    numbers = {number for number, _ in filters_of(dataset)}
    return bool(numbers & _CHECKS.keys() - {GZIP}) or (GZIP in numbers and MOST_OF_GZIP * largest > UNPACKED_BYTES)


def check_chunks(path: str | Path, name: str, dataset: Any, start: int = 0, stop: int | None = None) -> int:
    """Refuse chunks that their filter would not unpack to what they must be, without saying so or at all.

    Parameters
    ----------
    path, name, dataset
        As of `check_filters`, which the data set has passed.
    start, stop : int, optional
        Which rows.

    Returns
    -------
    int
        The row behind the last chunk that was looked at.

    Raises
    ------
    InputError
        Names the file, the data set and the chunk.
    """
    filters = filters_of(dataset)
    position = next((index for index, (number, _) in enumerate(filters) if number in _CHECKS), None)
    stop = dataset.shape[0] if stop is None else stop
    if position is None or not dataset.chunks or not dataset.size:
        return int(stop)
    number, parameters = filters[position]
    check = _CHECKS[number]
    unpacked, rows = chunk_bytes(dataset), dataset.chunks[0]
    summed = [index for index, (other, _) in enumerate(filters) if other == FLETCHER32 and index > position]
    axes = zip(dataset.shape[1:], dataset.chunks[1:], strict=True)
    starts = [range(start // rows * rows, stop, rows), *(range(0, whole, part) for whole, part in axes)]
    for at in itertools.product(*starts):
        left_out, data = dataset.id.read_direct_chunk(at)
        if left_out >> position & 1:
            continue
        if summed and not left_out >> summed[0] & 1:
            data = data[:-CHECKSUM_BYTES]
        if not check(data, unpacked, parameters):
            raise InputError(
                f"{path}: dataset {name} has a chunk at {', '.join(map(str, at))} that {COMPRESSIONS[number]} does not "
                f"unpack to {unpacked} bytes; the file is damaged"
            )
    return int(-(-stop // rows) * rows)


def largest_chunk(path: str | Path, name: str, dataset: Any) -> int:
    """Return how many bytes the largest chunk of a data set takes in its file; 0 without chunks.

    Raises
    ------
    InputError
        One claims more bytes than the file has, which the HDF5 library and h5py would reserve.
    """
    if not dataset.chunks:
        return 0
    most, largest = int(dataset.file.id.get_filesize()), 0

    def visit(chunk: Any) -> None:
        nonlocal largest
        largest = max(largest, int(chunk.size))

    dataset.id.chunk_iter(visit)
    if largest > most:
        raise InputError(
            f"{path}: dataset {name} has a chunk of {largest} bytes in a file of {most}; the file is damaged"
        )
    return largest


def _gzip(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether a stream ends within a chunk; the filter unpacks it to its end, however far that is."""
    if len(data) * MOST_OF_GZIP <= UNPACKED_BYTES:
        return True
    stream = zlib.decompressobj()
    try:
        left = unpacked + 1 - len(stream.decompress(data, unpacked + 1))
    except zlib.error:
        return False
    return left > 0 and stream.eof


def _lzf(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether a stream unpacks to a chunk; where it is less, the filter leaves the rest as its memory was."""
    at = made = 0
    while at < len(data):
        control = data[at]
        if control < 32:  # so many bytes, and one, follow as they are
            at, made = at + control + 2, made + control + 1
            continue
        if at + 2 + (control >= 224) > len(data):
            return False
        length = (control >> 5) + 2
        if control >= 224:
            length, at = length + data[at + 1], at + 1
        if ((control & 31) << 8) + data[at + 1] >= made:  # repeats what comes before the first byte
            return False
        at, made = at + 2, made + length
    return at == len(data) and made == unpacked


def _zstd(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether a frame unpacks to a chunk; the filter reserves what it says, and passes over what is damaged."""
    return _block_of_zstd(data, unpacked)


def _blosc(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether the header says that a buffer holds a chunk; the filter reserves what it says."""
    return len(data) >= 16 and struct.unpack_from("<II", data, 4)[0] == unpacked


def _blosc2(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether a frame, and the one chunk in it, say that they hold a chunk; the filter reserves what they say.

    Blocks that do not divide the sides of a chunk fill it up. A chunk may say that its values were never written: they
    would be what the memory held.
    """
    if len(data) < BLOSC2_HEADER.size or not data.startswith(BLOSC2_MAGIC):
        return False
    header, frame, whole, packed, chunk = BLOSC2_HEADER.unpack_from(data)
    inner = struct.unpack_from("<I", data, header + 4)[0] if packed and header + 8 <= len(data) else 0
    special = data[header + 31] >> 4 & 7 if packed and header + 31 < len(data) else 0
    if special == BLOSC2_UNWRITTEN:
        return False
    return bool(frame == len(data) and unpacked <= whole and max(whole, chunk, inner) <= 4 * unpacked + (1 << 20))


def _lz4(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether the blocks of a chunk unpack; the filter prints where they do not."""
    if len(data) < 12:
        return False
    told, block = struct.unpack_from(">QI", data)
    if told != unpacked or not block:
        return False
    sizes = (min(block, unpacked - start) for start in range(0, unpacked, block))
    # a block that did not become smaller is kept as it is
    return all(
        piece is not None and (len(piece) == size or _block_of_lz4(piece, size)) for piece, size in _pieces(data, sizes)
    )


def _bitshuffle(data: bytes, unpacked: int, parameters: tuple[int, ...]) -> bool:
    """Tell whether the blocks of a chunk unpack; the filter reads on behind them where they do not."""
    inner = _INNER[parameters[4] if len(parameters) > 4 else 0]
    if inner is None:
        return len(data) == unpacked
    if len(data) < 12:
        return False
    size = parameters[2]
    told, block = struct.unpack_from(">QI", data)
    if told != unpacked or not block or block % (8 * size):
        return False
    packed = unpacked // (8 * size) * (8 * size)  # the last values, less than eight, follow as they are
    sizes = (min(block, packed - start) for start in range(0, packed, block))
    end = 12
    for piece, whole in _pieces(data, sizes):
        if piece is None or not inner(piece, whole):
            return False
        end += 4 + len(piece)
    return len(data) == end + unpacked - packed


def _pieces(data: bytes, sizes: Iterator[int]) -> Iterator[tuple[bytes | None, int]]:
    """Return packed blocks, each behind its length, with their unpacked sizes; None where the data end before."""
    at = 12
    for size in sizes:
        length = int.from_bytes(data[at : at + 4], "big")
        begin, at = at + 4, at + 4 + length
        yield data[begin:at] if begin <= len(data) and at <= len(data) else None, size


def _block_of_lz4(piece: bytes, size: int) -> bool:
    try:
        return len(lz4.block.decompress(piece, uncompressed_size=size)) == size
    except lz4.block.LZ4BlockError:
        return False


def _block_of_zstd(piece: bytes, size: int) -> bool:
    try:
        if zstandard.frame_content_size(piece) != size:
            return False
        return len(zstandard.ZstdDecompressor().decompress(piece, allow_extra_data=False)) == size
    except zstandard.ZstdError:
        return False


_INNER: dict[int, Callable[[bytes, int], bool] | None] = {0: None, 2: _block_of_lz4, 3: _block_of_zstd}
_CHECKS: dict[int, Callable[[bytes, int, tuple[int, ...]], bool]] = {
    GZIP: _gzip,
    LZF: _lzf,
    ZSTD: _zstd,
    BLOSC: _blosc,
    BLOSC2: _blosc2,
    LZ4: _lz4,
    BITSHUFFLE: _bitshuffle,
}
