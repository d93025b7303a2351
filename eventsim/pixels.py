"""Pixels of image files and of arrays of bytes: read, brought to the model's size, and to 0..1."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.errors import InputError
from eventsim.untrusted import first_line

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without one, Python writes what Pillow logs to stderr

PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH_AT = 24
TIFF_BITS = 258
MOST_PIXELS = 1 << 26
"""Of an image file: some bytes can stand for gigabytes of one colour. Half of it for WebP, which is unpacked twice."""
MOST_LINES = 1 << 16
"""Of an image file: Pillow keeps pointers to each, for every copy."""

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]


def image_file(path: Path, shape: tuple[int, ...], fit: str) -> npt.NDArray[np.float32]:
    """Read an image file as values in 0..1.

    Parameters
    ----------
    path : path
        8 bits for each channel, or 16 for grey.
    shape : (int, int, int)
        Channels, height and width that the model takes.
    fit : {"none", "crop", "pad", "downscale"}
        What to do where the image is of another size.

    Returns
    -------
    ndarray of float32, shape (C, H, W)

    Raises
    ------
    InputError
        It is no image, of several pictures, of another depth, or of another size while `fit` is "none".
    """
    channels, height, width = shape
    try:
        file = readable_file(path)
        with Image.open(file.path) as image:
            most = MOST_PIXELS // 2 if image.format == "WEBP" else MOST_PIXELS
            if image.width * image.height > most or image.height > MOST_LINES:
                limit = f"{most} pixels" if image.width * image.height > most else f"{MOST_LINES} lines"
                raise InputError(
                    f"{path}: an image of {image.width} x {image.height} found; expected at most {limit}: scale it down"
                )
            if (pictures := getattr(image, "n_frames", 1)) > 1:
                raise InputError(
                    f"{path}: {pictures} pictures found; expected one: save it as a file of its own, or all of them as "
                    "frames in .npy"
                )
            deep = image.mode.startswith("I;16") or (image.mode == "I" and _png_depth(file) == 16)  # older Pillow
            if not deep:
                _check_depth(image, file)
            if deep:
                grey = Image.fromarray(np.asarray(image).astype(np.float32))
                fitted = _resize(grey, (width, height), fit, str(path))
                values = np.asarray(fitted, np.float32)[..., None].repeat(channels, axis=-1)
            else:
                converted = image.convert("L" if channels == 1 else "RGB")
                fitted = _resize(converted, (width, height), fit, str(path))
                values = np.asarray(fitted, np.float32).reshape(height, width, channels)
    except InputError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
        raise InputError(f"{path}: not a readable image ({first_line(error)})") from None
    return np.moveaxis(values, -1, 0) / np.float32(65535 if deep else 255)


def pixel_array(
    array: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], shape: tuple[int, ...], fit: str, name: str
) -> npt.NDArray[np.float32]:
    """Bring an array of pixels to the model's size and to 0..1, as the same picture from a file.

    Parameters
    ----------
    array : ndarray of uint8 or uint16, of any byte order, shape (C, H', W') or (T, C, H', W')
        An image or frames; (H', W') is an image of one channel.
    shape : (int, int, int)
        Channels, height and width that the model takes.
    fit : {"none", "crop", "pad", "downscale"}
        What to do where the pictures are of another size.
    name : str
        For messages.

    Returns
    -------
    ndarray of float32, shape (C, H, W) or (T, C, H, W)

    Raises
    ------
    InputError
        The array has other axes, or another size while `fit` is "none".
    """
    channels, height, width = shape
    pictures = array[None] if array.ndim == 2 and channels == 1 else array
    if pictures.ndim not in (3, 4) or pictures.shape[-3] != channels:
        found = " x ".join(map(str, array.shape))
        last = array.ndim in (3, 4) and array.shape[-1] == channels
        advice = "move the axis of the channels to the front" if last else "give one image, or frames with T in front"
        raise InputError(
            f"{name}: pixels of shape {found} found; the model takes {channels} x {height} x {width} (channels x "
            f"height x width); {advice}"
        )
    if pictures.shape[-2:] != (height, width):
        planes = pictures.reshape(-1, *pictures.shape[-2:]).astype(np.float32 if array.itemsize == 2 else np.uint8)
        fitted = [np.asarray(_resize(Image.fromarray(plane), (width, height), fit, name)) for plane in planes]
        pictures = np.stack(fitted).reshape(*pictures.shape[:-2], height, width)
    largest = np.float32(65535 if array.itemsize == 2 else 255)
    return np.asarray(pictures.astype(np.float32) / largest, np.float32)


def _png_depth(file: ReadableFile) -> int:
    """Return the bits of each channel of a PNG, 0 for other files."""
    return file.head[PNG_DEPTH_AT] if file.head.startswith(PNG) and len(file.head) > PNG_DEPTH_AT else 0


def _check_depth(image: Image.Image, file: ReadableFile) -> None:
    """Refuse channels of more than 8 bits, of which the decoder would leave the lower ones out."""
    bits: Any = _png_depth(file) or 8
    if image.format == "TIFF":
        bits = max(np.atleast_1d(getattr(image, "tag_v2", {}).get(TIFF_BITS, 8)))
    if image.mode.startswith(("I", "F")) or bits > 8:
        raise InputError(
            f"{file}: pixels of mode {image.mode} with {bits} bits for each channel found; expected 8 bits, or 16 for "
            "grey; give them as an array of uint16 in .npy, channels first"
        )


def _resize(image: Image.Image, size: tuple[int, int], fit: str, name: str) -> Image.Image:
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
        f"{name}: an image of {image.width} x {image.height} found; the model takes {width} x {height}; "
        "choose --fit crop, pad or downscale"
    )
