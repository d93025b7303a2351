r"""AEDAT 2.0, the format of jAER: DVS128 and DAVIS recordings, MNIST-DVS, CIFAR10-DVS.

Text lines that begin with ``#``, the first ``#!AER-DAT2.0``, then 8 bytes per word: a 32-bit address and a 32-bit time
in microseconds, both big-endian. The time is read as unsigned, and goes on behind a full counter of 32 bits: see
`rounds`. Format: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-2.0.html

============  =============  ================  ========  ====================================
layout        x              y                 polarity  skipped
============  =============  ================  ========  ====================================
``dvs128``    bits 1-7       bits 8-14         bit 0     bit 15 or 31: external event
``davis``     bits 12-21     bits 22-30        bit 11    bit 31: frame (APS) and IMU words;
                                                         bit 10: external event
============  =============  ================  ========  ====================================

**Convention.** By default the events are those that jAER itself extracts (its classes ``DVS128`` and
``DavisEventExtractor``): x is mirrored, x = width - 1 - stored x; y as stored, *counted from the lower edge*;
ON where a DVS128 sets polarity bit 0 to **zero** (iniVation's page says the opposite of jAER's code), and where a DAVIS
sets bit 11 to one. So ``Orientation(flip_y=True)`` shows the scene upright with row 0 at the top, and

* SpikingJelly's CIFAR10-DVS loader (x = 127 - stored y, y = 127 - stored x, p = 1 - bit) is
  ``Orientation(transpose=True, flip_x=True)``;
* Tonic's ``read_dvs_128`` (x = stored y, y = stored x, p = bit) is
  ``Orientation(transpose=True, flip_y=True, flip_polarity=True)``.

A network must be run with the orientation of the loader that it was trained with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.cameras import Camera, Layout, camera_named
from eventsim.dvs.columns import Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.counters import rounds, steady
from eventsim.dvs.decoding import FULL, MORE, REFUSED, WRAPS, Decoding, time_at_the_end
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ByteReader, ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError

MAGIC = b"#!AER-DAT2"
WORD_BYTES = 8
# jAER copies the camera's whole preferences into the header: some hundred kilobytes
MAX_HEADER_BYTES = 4 << 20
# jAER and AedatTools write it with and without a space, in different cases
END_OF_HEADER = "end of ascii header"

V2E = "AEDat2Output in v2e"

DVS128_EXTERNAL = 0x80008000
DVS128_UNUSED = 0x7FFF0000
DAVIS_NOT_PIXEL = 0x80000400
# what the decoder keeps beside the wraps: the stamp before (-1: none yet), whether it is a DAVIS, and its last column
PREVIOUS, DAVIS, RIGHT = 1, 2, 3


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is AEDAT 2.0, or a version 1 that this reader refuses by name."""
    named = head.startswith((MAGIC, b"#!AER-DAT1"))
    unnamed = head.startswith(b"#") and not head.startswith(b"#!AER-DAT") and path.suffix.lower() == ".aedat"
    return named or unnamed


class Aedat2Recording(Recording):
    """An AEDAT 2.0 file; see the module for layouts and for the convention of its coordinates.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels. When not given: that of the camera which the header's ``AEChip`` line names, 128 x
        128 for a DVS128.
    orientation : Orientation
        How to turn the picture.
    camera : {"dvs128", "davis"}, optional
        Layout of the addresses. When not given: that of the camera named by the header, and ``dvs128`` when the header
        names none (MNIST-DVS and CIFAR10-DVS are such files); addresses with bits that a DVS128 has not are refused. A
        file of v2e, which its header tells, is ``davis`` of 346 x 260, what v2e writes unless asked for another size.
    salvage : bool
        Whether an incomplete last word is left to the reading, which ends there.

    Raises
    ------
    InputError
        The file is missing or empty, of version 1.0, of a camera that is not known, its header does not end, or its
        last word is incomplete.
    """

    format = "aedat2"
    custom_size = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        camera: Layout | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        self._file = file
        lines, self._data_start = _read_header(file)
        if not lines or not lines[0].startswith("#!AER-DAT2.0"):
            version = lines[0][:20] if lines and lines[0].startswith("#!AER-DAT") else "no version line, so AEDAT 1.0"
            raise InputError(
                f"{file}: {version}, expected #!AER-DAT2.0; convert the recording with jAER or DV to AEDAT 2.0 or later"
            )
        self._layout, size = _layout_and_size(file, lines, camera, sensor_size)
        super().__init__(str(file), size, orientation)
        self.size_given = sensor_size is not None
        self.told_size = _told_size(lines)
        if not any("AEChip:" in line for line in lines):
            given = {"sensor_size": sensor_size, "camera": camera}
            self.untold = frozenset(name for name, value in given.items() if value is None)
        self._left_over = file.left_over(self._data_start, WORD_BYTES, "8 bytes per event", salvage=salvage)

    def _stored_end(self) -> int | None:
        return time_at_the_end(self._file, self._data_start, WORD_BYTES, self._decoding)

    def _decoding(self, file: ByteReader) -> Decoding:
        state = np.array([0, -1, self._layout == "davis", self._sensor_width - 1], np.int64)
        return Decoding(file.readinto, _decode_words, state, word="<u4", as_they_come=self._file.arrives)

    def _decode(self, block_events: int) -> Iterator[Packed]:
        with self._file.opened(self._data_start, WORD_BYTES) as file:
            decoding = self._decoding(file)
            yield from decoding.blocks(block_events)
        if decoding.why == REFUSED:
            raise InputError(
                f"{self.path}: address 0x{decoding.rest[:4].hex()} has bits that a DVS128 does not set; pass "
                "camera='davis' and sensor_size=(height, width), or the file is corrupt: salvage=True reads up to there"
            )
        if self._left_over:
            raise InputError(self._left_over)


@compiled
def _big_endian(word: Any) -> Any:
    """Return a word of 32 bits that was read in the wrong order of bytes."""
    return word >> 24 | word >> 8 & 0xFF00 | word << 8 & 0xFF0000 | word << 24 & 0xFF000000


@compiled
def _decode_words(
    words: npt.NDArray[np.uint32],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.int16],
    y: npt.NDArray[np.int16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode pairs of address and time, up to bits that the camera does not set; see `Decoding`."""
    wraps, previous, davis, right = state[WRAPS], state[PREVIOUS], state[DAVIS] != 0, state[RIGHT]
    count = 0
    taken = 0
    why = MORE
    for index in range(len(words) // 2):
        if count == len(t):
            why = FULL
            break
        address, stamp = _big_endian(np.int64(words[2 * index])), _big_endian(np.int64(words[2 * index + 1]))
        if davis:
            keep = address & DAVIS_NOT_PIXEL == 0
        else:
            keep = address & DVS128_EXTERNAL == 0
            if keep and address & DVS128_UNUSED != 0:
                why = REFUSED
                break
        if keep:
            step = stamp - previous
            if not steady(step, 1 << 32) and previous >= 0:
                wraps += rounds(step, 1 << 32)
            previous = stamp
            x[count] = right - (address >> 12 & 0x3FF if davis else address >> 1 & 0x7F)
            y[count] = address >> 22 & 0x1FF if davis else address >> 8 & 0x7F
            t[count] = (wraps << 32) + stamp
            p[count] = address & 0x800 != 0 if davis else address & 1 == 0
            count += 1
        taken += 1
    state[WRAPS], state[PREVIOUS] = wraps, previous
    return 2 * taken, count, why


def _read_header(path: ReadableFile) -> tuple[list[str], int]:
    """Read the header's lines and find the byte at which the events begin."""
    head = path.beginning(MAX_HEADER_BYTES)
    lines: list[str] = []
    start = 0
    while head[start : start + 1] == b"#":
        end = head.find(b"\n", start)
        if end < 0 and len(head) == MAX_HEADER_BYTES:
            raise InputError(f"{path}: no end of the header in its first {MAX_HEADER_BYTES} bytes; the file is corrupt")
        # the first event may begin with '#' too (DAVIS rows 140 to 143); a line of text holds no control characters
        if end < 0 or any(byte < 0x20 and byte not in b"\t\r" for byte in head[start:end]):
            break
        lines.append(head[start:end].decode("latin-1").rstrip("\r"))
        start = end + 1
        if lines[-1].lstrip("# ").lower().startswith(END_OF_HEADER):
            break
    return lines, start


def _layout_and_size(
    path: ReadableFile, lines: list[str], camera: Layout | None, sensor_size: SensorSize | None
) -> tuple[Layout, SensorSize]:
    """Choose layout and sensor size: the options first, then the header, then DVS128 when the header is silent."""
    if camera not in (None, "dvs128", "davis"):
        raise InputError(f"{path}: camera is {camera!r}, expected 'dvs128' or 'davis'")
    chips = [line.split("AEChip:", 1)[1].strip() for line in lines if "AEChip:" in line]
    # the header of v2e names no camera, and v2e packs addresses as the DAVIS346 does
    by_v2e = any(V2E in line for line in lines)
    silent = Camera("davis", (260, 346)) if by_v2e else Camera("dvs128", (128, 128))
    named: Camera | None = camera_named(chips[0]) if chips else silent
    if named is None and (camera is None or (camera == "davis" and sensor_size is None)):
        raise InputError(
            f"{path}: the header names the camera {chips[0]!r}, expected a DVS128 or DAVIS; pass camera='dvs128' or "
            "'davis' and sensor_size=(height, width)"
        )
    if camera is None:
        assert named is not None
        return named.layout, sensor_size or named.sensor_size
    if sensor_size is not None:
        return camera, sensor_size
    if camera == "dvs128":
        return camera, (128, 128)
    if named is None or named.layout != "davis":
        raise InputError(f"{path}: the header does not say which DAVIS recorded it; pass sensor_size=(height, width)")
    return camera, named.sensor_size


def _told_size(lines: list[str]) -> SensorSize | None:
    """Return the size of the camera that the header names."""
    camera = next((camera_named(line.split("AEChip:", 1)[1].strip()) for line in lines if "AEChip:" in line), None)
    return None if camera is None else camera.sensor_size


FORMAT = EventFormat(
    title="AEDAT 2.0",
    description="AEDAT 2.0 of jAER: DVS128 and DAVIS, MNIST-DVS, CIFAR10-DVS",
    extensions=(".aedat", ".aedat2"),
    recognises=recognises,
    open=Aedat2Recording,
    options=frozenset({"camera", "salvage"}),
    forward=True,
)
