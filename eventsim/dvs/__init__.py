"""Recordings of event cameras, and their windowing into frames.

`open_recording` recognises a file by its content; `frames_by_count`, `frames_by_time`, `frames_by_duration` and
`frames_from_events` turn a recording into frames. One format is one file in `eventsim.dvs.formats`, or an `EventFormat`
of another package;
`event_formats` lists them. Data sets that Tonic knows open with `eventsim.dvs.tonic_dataset.open_tonic_dataset`, a
module of its own since importing Tonic takes a second.
"""

from __future__ import annotations

from eventsim.dvs.columns import EVENT_DTYPE, Columns
from eventsim.dvs.defects import Defects
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.events_array import ArrayRecording
from eventsim.dvs.fitting import Fit

# readers that are asked for by name; a format is found without a line here
from eventsim.dvs.formats.aedat2 import Aedat2Recording
from eventsim.dvs.formats.aedat3 import Aedat3Recording
from eventsim.dvs.formats.aedat4 import Aedat4Recording
from eventsim.dvs.formats.nmnist import NmnistRecording
from eventsim.dvs.formats.npy import NpyRecording
from eventsim.dvs.opening import event_formats, open_recording
from eventsim.dvs.order import Reading
from eventsim.dvs.part import RecordingPart
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording
from eventsim.dvs.slices import frames_of_slices
from eventsim.dvs.summary import RecordingSummary
from eventsim.dvs.windowing import frames_by_count, frames_by_duration, frames_by_time, frames_from_events

__all__ = [
    "AS_RECORDED",
    "EVENT_DTYPE",
    "Aedat2Recording",
    "Aedat3Recording",
    "Aedat4Recording",
    "ArrayRecording",
    "Columns",
    "Defects",
    "EventFormat",
    "Fit",
    "NmnistRecording",
    "NpyRecording",
    "Orientation",
    "ReadableFile",
    "Reading",
    "Recording",
    "RecordingPart",
    "RecordingSummary",
    "event_formats",
    "frames_by_count",
    "frames_by_duration",
    "frames_by_time",
    "frames_from_events",
    "frames_of_slices",
    "open_recording",
    "readable_file",
]
