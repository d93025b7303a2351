"""How a model's recordings and images were prepared, as options of its import say it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from eventsim.dvs.recording import MAX_SENSOR_SIDE, TIME_LIMIT_US
from eventsim.errors import InputError

WindowKind: TypeAlias = Literal[
    "count",
    "time",
    "duration",
    "tonic-count",
    "tonic-time",
    "tonic-duration",
    "tonic-event-count",
    "spikingjelly-duration",
]
BINS = ("duration", "tonic-duration", "spikingjelly-duration")
"""Windows of a fixed duration, of which the recording says how many there are."""
BINS_OF_EVENTS = "tonic-event-count"
"""Windows of so many events each, of which it says so, too."""
OVERLAPPING = ("tonic-duration", BINS_OF_EVENTS)
ORIENTATION = ("transpose", "flip_x", "flip_y", "flip_polarity")


@dataclass(frozen=True)
class PreparationOptions:
    """How the recordings and images of a model were prepared: options of every import; None is told by the metadata.

    Attributes
    ----------
    window : str, optional
        Frames of equally many events ("count"), of equal time ("time"), or bins of `bin_us` ("duration"), or a loader's
        by name ("spikingjelly-duration"). Default: "count".
    bin_us : int, optional
        Bin length in microseconds for "duration" and its relatives.
    bin_events : int, optional
        Events of a bin for "tonic-event-count".
    overlap : int, optional
        How much of a bin of "tonic-duration" or "tonic-event-count" is in the next one, too. Default: 0.
    binary : bool, optional
        Clip event counts to 1. Default: whether the input takes spikes.
    transpose : bool, optional
        Exchange x and y, as the loader of the training data did. Default: false.
    flip_x, flip_y : bool, optional
        Count columns from the right, or rows from the bottom, as that loader did. Default: false.
    flip_polarity : bool, optional
        Take on events for off events and the reverse, as that loader did. Default: false.
    fit : {"none", "crop", "pad", "downscale"}, optional
        What to do where a sensor or image is not of the model's size. Default: "none".
    sensor : str, optional
        WIDTHxHEIGHT, for event files that do not tell.
    camera : {"dvs128", "davis"}, optional
        Address layout of AEDAT 2.0 files that do not tell.
    mean, std : str, optional
        Numbers for each channel, separated by commas: normalisation of images, after scaling to 0..1. Default: none.
    """

    window: WindowKind | None = None
    bin_us: int | None = None
    bin_events: int | None = None
    overlap: int | None = None
    binary: bool | None = None
    transpose: bool | None = None
    flip_x: bool | None = None
    flip_y: bool | None = None
    flip_polarity: bool | None = None
    fit: Literal["none", "crop", "pad", "downscale"] | None = None
    sensor: str | None = None
    camera: Literal["dvs128", "davis"] | None = None
    mean: str | None = None
    std: str | None = None


PREPARED = tuple(field.name for field in fields(PreparationOptions))


def size_of(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT; return (height, width).

    Raises
    ------
    ValueError
        Says what was expected.
    """
    parts = text.lower().split("x")
    sides = [int(part) if part.strip().isdecimal() and len(part) < 9 else 0 for part in parts]
    if len(sides) != 2 or not all(1 <= side <= MAX_SENSOR_SIDE for side in sides):
        raise ValueError(f"WIDTHxHEIGHT such as 34x34, at most {MAX_SENSOR_SIDE} pixels a side")
    return sides[1], sides[0]


def numbers_of(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas.

    Raises
    ------
    ValueError
        Says what was expected.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("numbers separated by commas") from None


def check_options(options: PreparationOptions) -> None:
    """Refuse texts of options that cannot be read.

    Raises
    ------
    InputError
        Names the option, what was found and what was expected.
    """
    for name, read in (("sensor", size_of), ("mean", numbers_of), ("std", numbers_of)):
        text = getattr(options, name)
        try:
            if text is not None:
                read(text)
        except ValueError as error:
            raise InputError(f"option {name}={text} found; expected {error}") from None
    if options.bin_us is not None and not 1 <= options.bin_us < TIME_LIMIT_US:
        raise InputError(f"option bin_us={options.bin_us} found; expected 1 microsecond or more, below 2^62")
    if options.window is not None and (options.window in BINS) != (options.bin_us is not None):
        raise InputError(
            f"option bin_us={options.bin_us} with window={options.window} found; expected bin_us with "
            f"{', '.join(BINS)} alone"
        )
    if options.window is not None and (options.window == BINS_OF_EVENTS) != (options.bin_events is not None):
        raise InputError(
            f"option bin_events={options.bin_events} with window={options.window} found; expected bin_events with "
            f"{BINS_OF_EVENTS} alone"
        )
    if options.bin_events is not None and options.bin_events < 1:
        raise InputError(f"option bin_events={options.bin_events} found; expected 1 or more")
    size = options.bin_us if options.window == "tonic-duration" else options.bin_events
    fits = options.window in OVERLAPPING and 0 <= (options.overlap or 0) < (size or 0)
    if options.overlap is not None and options.window is not None and not fits:
        raise InputError(
            f"option overlap={options.overlap} with window={options.window} found; expected overlap with "
            f"{' and '.join(OVERLAPPING)} alone, less than a bin"
        )
