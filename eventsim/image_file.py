"""Image files: pixels of the size and the channels that a network takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from eventsim.dvs import readable_file
from eventsim.errors import InputError
from eventsim.untrusted import first_line


def read_image(path: Path, shape: tuple[int, int, int], fit: str) -> npt.NDArray[np.uint8]:
    """Read an image as bytes.

    Parameters
    ----------
    path : Path
    shape : (int, int, int)
        Channels, 1 or 3, height and width that are wanted.
    fit : {"none", "crop", "pad", "downscale"}
        What to do with an image of another size.

    Returns
    -------
    uint8 array (C, H, W)

    Raises
    ------
    InputError
        If the file is no image of 8 bits a channel, or `fit` does not make it one of this size.
    """
    channels, height, width = shape
    try:
        with Image.open(readable_file(path).path) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path}: pixels of mode {image.mode} found; expected 8 bits for each channel")
            pixels = _resize(image.convert("L" if channels == 1 else "RGB"), (width, height), fit, path)
    except InputError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise InputError(f"{path}: not a readable image ({first_line(error)})") from None
    return np.moveaxis(np.asarray(pixels, np.uint8).reshape(height, width, channels), -1, 0)


def _resize(image: Image.Image, size: tuple[int, int], fit: str, path: Path) -> Image.Image:
    """Fit an image to (width, height): centre crop, centre pad with zeros, or scale down (bilinear)."""
    width, height = size
    if image.size == size:
        return image
    larger = image.width >= width and image.height >= height
    if fit == "crop" and larger:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    if fit == "pad" and image.width <= width and image.height <= height:
        padded = Image.new(image.mode, size)
        padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return padded
    if fit == "downscale" and larger:
        return image.resize(size, Image.Resampling.BILINEAR)
    raise InputError(
        f"{path}: an image of {image.width} x {image.height} found; the model takes {width} x {height}; "
        "choose --fit crop, pad or downscale"
    )
