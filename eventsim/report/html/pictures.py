"""Small pictures as data URIs: inputs, spike rasters, attention maps."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

ON, OFF, INK = (37, 99, 235), (217, 119, 6), (99, 102, 241)
"""Colours that can be told apart on white and on black, by the colour-blind too."""


def data_uri(rgba: npt.NDArray[np.uint8]) -> str:
    """Return pixels (height, width, 3 or 4) as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shades(values: npt.NDArray[np.floating], colour: tuple[int, int, int] = INK) -> npt.NDArray[np.uint8]:
    """Return values (height, width) as pixels of one colour, the more opaque the larger; 0 is transparent."""
    largest = max(float(np.max(values, initial=0)), 1e-12)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = colour
    # the square root lets small values be seen
    pixels[..., 3] = np.round(255 * np.sqrt(np.clip(values, 0, None) / largest))
    return pixels


def events(frame: npt.NDArray[np.floating]) -> str:
    """Return counts of ON and OFF events (2, height, width) as a picture; where both are, the more frequent shows."""
    on, off = shades(frame[1], ON), shades(frame[0], OFF)
    return data_uri(np.where((frame[1] >= frame[0])[..., None], on, off))


def image(values: npt.NDArray[np.floating]) -> str:
    """Return an image (1 or 3, height, width) of any range as a picture that uses the whole range."""
    low, high = float(values.min()), float(values.max())
    scaled = np.round(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
    return data_uri(np.ascontiguousarray(np.moveaxis(np.broadcast_to(scaled, (3, *scaled.shape[1:])), 0, -1)))
