"""Values that callers give by name are of the right type, or refused in one line that names them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eventsim import InputError, Network, Preparation, Simulator, open_recording, stream
from eventsim.dvs import EVENT_DTYPE, Orientation

WHOLE = ("time_steps", "bin_us", "bin_events", "overlap", "start_us", "end_us", "lag_us", "stream", "first_pixel")
NO_NUMBERS: list[Any] = ["3", 3.0, np.float64(3), True, [3], Fraction(3), np.array([3]), b"3"]
NO_SIZES: list[Any] = [34, "34x34", (34.5, 34), (34,), (34, 34, 2), (0, 34), (34, 40_000), ("34", "34"), np.int64(34)]
WRONG: list[tuple[str, Any]] = [
    *((name, value) for name in WHOLE for value in NO_NUMBERS),
    *(("sensor_size", value) for value in NO_SIZES),
    *((name, value) for name in ("binary", "salvage") for value in ("yes", 1, 0.0, np.array([True]))),
    *((name, 3) for name in ("window", "fit", "camera", "disorder", "format", "columns", "time_unit", "group")),
    *((name, ["no"]) for name in ("window", "fit", "camera", "disorder", "format", "columns", "time_unit", "group")),
    *((name, "no") for name in ("window", "fit", "camera", "disorder", "time_unit")),
    *((name, value) for name in ("mean", "std") for value in ("0.5", 0.5, (), ("0.5",), np.array(0.5), {0.5: 1})),
    *(("orientation", value) for value in ("flip", True, (True, False), {"flip_x": True}, Orientation)),
    ("orientation", Orientation(flip_x="yes")),  # type: ignore[arg-type]
    ("orientation", Orientation(transpose=1)),  # type: ignore[arg-type]
    ("time_steps", 0),
    ("first_pixel", 2),
    ("window", np.zeros(1000)),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_value_of_another_type_is_named(name: str, value: Any) -> None:
    if name == "orientation" and isinstance(value, Orientation):
        name = "transpose" if value.transpose else "flip_x"
        value, said = getattr(value, name), {"orientation": value}
    else:
        said = {name: value}
    with pytest.raises(InputError) as caught:
        Preparation(**said)
    message = str(caught.value)
    assert message.startswith(f"{name}={' '.join(repr(value).split())[:60]}")
    assert " found; expected " in message
    assert "\n" not in message and len(message) < 250


def test_values_of_numpy_and_lists_are_as_pythons_own() -> None:
    said = Preparation(
        time_steps=np.int64(3), sensor_size=[np.int16(4), 5], binary=np.True_, mean=np.array([0.5, 1]), std=[1, 2],
        start_us=np.uint8(7),
    )  # type: ignore[arg-type]  # fmt: skip
    assert said == Preparation(time_steps=3, sensor_size=(4, 5), binary=True, mean=(0.5, 1), std=(1, 2), start_us=7)
    assert repr(said.mean) == "(0.5, 1.0)" and repr(said.start_us) == "7" and said.binary is True


@pytest.mark.parametrize(
    "said", [{"sensor_size": "34x34"}, {"sensor_size": 34}, {"start_us": "3"}, {"end_us": 2.5}, {"orientation": "flip"}]
)
def test_open_recording_names_them_too(said: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(said))}=.* found; expected"):
        open_recording(np.zeros(3, EVENT_DTYPE), **said)


def test_a_stream_names_them_too(small_network: Network) -> None:
    for said in ({"bin_us": "10"}, {"bin_us": 10, "restart_every": "2"}, {"bin_us": 10, "sensor_size": "6x6"}):
        with pytest.raises(InputError, match=f"{list(said)[-1]}='.*' found; expected"):
            stream(small_network, [], **{"sensor_size": (6, 6), **said})  # type: ignore[arg-type]


def test_masked_arrays_are_refused(small_network: Network) -> None:
    """Frames, events and batches: whoever reads their values would take those that are masked."""
    events = np.ma.masked_array(np.zeros(9, EVENT_DTYPE), mask=np.zeros(9, bool))
    listed = np.ma.masked_array(np.zeros((9, 4), int))
    frames = np.ma.masked_array(np.zeros((4, 2, 6, 6), np.float32), mask=True)
    pixels = np.ma.masked_array(np.zeros((2, 6, 6), np.uint8))
    asked = [
        lambda: open_recording(events),
        lambda: open_recording(listed, columns="xytp", sensor_size=(6, 6)),
        lambda: list(stream(small_network, [events], bin_us=10, sensor_size=(6, 6))),
        lambda: Preparation(sensor_size=(6, 6)).frames(events, small_network),
        lambda: Preparation().frames(frames, small_network),
        lambda: Preparation().frames(pixels, small_network),
        lambda: Simulator(small_network).run(frames),
        lambda: Simulator(small_network).run(iter(frames)),
        lambda: Simulator(small_network).step(frames[0]),
    ]
    for ask in asked:
        with pytest.raises(InputError, match=r"a masked array of shape \(.*\) found; expected"):
            ask()
    assert Simulator(small_network).run(frames.filled(0)).time_steps == 4
