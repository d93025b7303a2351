"""The text that begins Prophesee's files: lines of ``% key value``, up to ``% end`` or the first other byte.

Source: https://docs.prophesee.ai/stable/data/file_formats/index.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eventsim.dvs.readable_file import ReadableFile
from eventsim.dvs.recording import SensorSize
from eventsim.errors import InputError

MAX_HEADER_BYTES = 1 << 20
# what the driver's name says of the chip: (height, width)
SENSORS = {
    "gen31": (480, 640),
    "gen3": (480, 640),
    "gen41": (720, 1280),
    "gen4": (720, 1280),
    "imx636": (720, 1280),
    "genx320": (320, 320),
}


@dataclass(frozen=True)
class PropheseeHeader:
    """The header of a file.

    Attributes
    ----------
    fields : dict of str to str
        Keys in lower case and their values; of a repeated key the last value.
    data_start : int
        Byte at which the data begins.
    """

    fields: dict[str, str]
    data_start: int

    def encoding(self) -> str | None:
        """Return the encoding of raw events, such as ``"2.0"`` and ``"3.0"``; None where the header names none."""
        named = re.match(r"EVT(\d)(\d?)\b", self.fields.get("format", ""), re.IGNORECASE)
        if named is not None:
            return f"{named[1]}.{named[2] or 0}"
        return self.fields.get("evt")

    def sensor_size(self) -> SensorSize | None:
        """Return (height, width) as the header's geometry, size or camera says; None where it says none."""
        said = self.fields.get("format", "")
        height, width = (re.search(rf"\b{side}=(\d{{1,5}})\b", said) for side in ("height", "width"))
        if height and width:
            return int(height[1]), int(width[1])
        geometry = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.fields.get("geometry", ""))
        if geometry:
            return int(geometry[2]), int(geometry[1])
        sides = self.fields.get("height", ""), self.fields.get("width", "")
        if all(re.fullmatch(r"\d{1,5}", side) for side in sides):
            return int(sides[0]), int(sides[1])
        words = re.split(r"[^a-z0-9]+", self.fields.get("plugin_name", "").lower())
        return next((size for name, size in SENSORS.items() if name in words), None)


def parsed_header(head: bytes) -> PropheseeHeader:
    """Read the header's lines at the beginning of `head`; a line that is cut by its end is left out."""
    fields: dict[str, str] = {}
    start = 0
    while head[start : start + 1] == b"%":
        end = head.find(b"\n", start)
        # data may begin with '%' too; a line of text holds no control characters
        if end < 0 or any(byte < 0x20 and byte not in b"\t\r" for byte in head[start:end]):
            break
        line = head[start + 1 : end].decode("latin-1").strip()
        start = end + 1
        if line == "end":
            break
        key, _, value = line.partition(" ")
        fields[key.lower()] = value.strip()
    return PropheseeHeader(fields, start)


def read_header(file: ReadableFile) -> PropheseeHeader:
    """Read the whole header of a file.

    Raises
    ------
    InputError
        It does not end within a mebibyte.
    """
    head = file.beginning(MAX_HEADER_BYTES)
    header = parsed_header(head)
    if header.data_start == 0 or (len(head) == MAX_HEADER_BYTES and header.data_start > MAX_HEADER_BYTES - 4096):
        raise InputError(f"{file}: no header of lines that begin with % and end; the file is corrupt")
    return header


def sensor_of(file: ReadableFile, header: PropheseeHeader) -> SensorSize:
    """Return the sensor's (height, width) that the header says.

    Raises
    ------
    InputError
        It says none.
    """
    size = header.sensor_size()
    if size is None:
        camera = header.fields.get("plugin_name", "none")
        raise InputError(
            f"{file}: the header says no geometry and the camera {camera!r}, expected one of {', '.join(SENSORS)}; "
            "pass sensor_size=(height, width)"
        )
    return size
