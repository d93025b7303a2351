"""SLAYER's ``.bs2``: the 40-bit events of N-MNIST without its markers of time overflow.

Bits of an event, from the most significant: 8 bits x, 8 bits y, 1 bit polarity (1 = ON), 23 bits time in microseconds.
Row 240 is a row like any other here. Source: ``encode2Dspikes`` of https://github.com/bamsumit/slayerPytorch

Coordinates as stored: x to the right, y downwards.
"""

from __future__ import annotations

import os

from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.formats.nmnist import NmnistRecording
from eventsim.dvs.recording import AS_RECORDED, Orientation, SensorSize


class Bs2Recording(NmnistRecording):
    """A ``.bs2`` file.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; (34, 34), N-MNIST's, when not given.
    orientation : Orientation
        How to turn the picture.
    salvage : bool
        Whether an incomplete last event is left to the reading, which ends there.

    Raises
    ------
    InputError
        The file is missing or empty, or its length is not a multiple of 5 bytes.
    """

    format = "bs2"
    _overflow_row = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        salvage: bool = False,
    ) -> None:
        super().__init__(path, sensor_size=sensor_size, orientation=orientation, salvage=salvage)


FORMAT = EventFormat(
    title="SLAYER",
    description="40-bit events as SLAYER keeps N-MNIST",
    extensions=(".bs2",),
    recognises=None,
    open=Bs2Recording,
    options=frozenset({"salvage"}),
    forward=True,
)
