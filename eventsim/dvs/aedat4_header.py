"""The beginning of an AEDAT 4.0 file: a FlatBuffers table with the compression and an XML description of the streams.

Format: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from xml.parsers import expat

# positions of the fields in the FlatBuffers vtable: compression, dataTablePosition and infoNode
COMPRESSION_SLOT = 4
TABLE_POSITION_SLOT = 6
DESCRIPTION_SLOT = 8
# the nodes of the description, by name: a stream, and what is said of it
STREAM = ("outInfo", None)
INFO = (*STREAM, "info")
ATTRIBUTES = {STREAM: ("typeIdentifier",), INFO: ("sizeX", "sizeY")}


@dataclass(frozen=True)
class Aedat4Header:
    """What the header says.

    Attributes
    ----------
    compression : int
        Number of the compression of every packet.
    table_position : int
        Byte at which the table behind the packets begins; -1 without one.
    streams : dict of int to dict of str to str
        By the number of a stream: its ``typeIdentifier`` (``EVTS`` for events), and ``sizeX`` and ``sizeY`` in pixels,
        as far as they are said.
    """

    compression: int
    table_position: int
    streams: dict[int, dict[str, str]]


def parsed_aedat4_header(header: bytes) -> Aedat4Header:
    """Read a header, without the number of its bytes before it.

    Raises
    ------
    ValueError
        It is none.
    """

    def field(slot: int) -> int:
        # vtable entries are 16-bit offsets into the table; 0 or a short vtable mean that the field has its default
        entry = struct.unpack_from("<H", header, vtable + slot)[0] if slot < vtable_bytes else 0
        return table + int(entry) if entry else -1

    try:
        (table,) = struct.unpack_from("<I", header)
        vtable = table - struct.unpack_from("<i", header, table)[0]
        if vtable < 0:
            raise ValueError("vtable before the header")
        (vtable_bytes,) = struct.unpack_from("<H", header, vtable)
        description = field(DESCRIPTION_SLOT)
        if description < 0:
            raise ValueError("no description of the streams")
        text = description + struct.unpack_from("<I", header, description)[0]
        (length,) = struct.unpack_from("<I", header, text)
        if length > len(header) - text - 4:
            raise ValueError("description longer than the header")
        compression, position = field(COMPRESSION_SLOT), field(TABLE_POSITION_SLOT)
        return Aedat4Header(
            0 if compression < 0 else int(struct.unpack_from("<i", header, compression)[0]),
            -1 if position < 0 else int(struct.unpack_from("<q", header, position)[0]),
            _described(header[text + 4 : text + 4 + length].decode("utf-8")),
        )
    except struct.error as error:
        raise ValueError(str(error)) from error


def _described(text: str) -> dict[int, dict[str, str]]:
    """Read the description of the streams piece by piece: no tree is built of it."""
    streams: dict[int, dict[str, str]] = {}
    path: list[str] = []
    keys: list[str] = []
    said: list[str] = []

    def place() -> tuple[str | None, ...]:
        return (path[1], None, *path[3:]) if len(path) > 2 else ()

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if tag == "attr":
            keys.append(attributes.get("key", ""))
            said.clear()
            return
        path.append(attributes.get("name", ""))
        if place() == STREAM:
            if not re.fullmatch(r"\d{1,9}", path[2]):
                raise ValueError(f"a stream is called {path[2][:40]!r}, expected a number")
            streams.setdefault(int(path[2]), {})

    def end(tag: str) -> None:
        if tag != "attr":
            path.pop()
            return
        key = keys.pop()
        if key in ATTRIBUTES.get(place(), ()):
            streams[int(path[2])][key] = "".join(said)

    def declares(*_: object) -> None:
        raise ValueError("the description declares a type of document")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = said.append
    # without one no entity can grow
    parser.StartDoctypeDeclHandler = declares
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise ValueError(f"description of the streams: {error}") from error
    return streams
