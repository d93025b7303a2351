"""Cameras that AEDAT headers name: which address layout each has and how many pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Layout: TypeAlias = Literal["dvs128", "davis"]

# pixels of the DAVIS family by the number in the name: (height, width); jAER's chip classes and libcaer's device list
DAVIS_SIZES = {"128": (128, 128), "208": (192, 208), "240": (180, 240), "346": (260, 346), "640": (480, 640)}


@dataclass(frozen=True)
class Camera:
    """One camera model.

    Attributes
    ----------
    layout : {"dvs128", "davis"}
        How AEDAT 2.0 packs its addresses.
    sensor_size : tuple of int
        (height, width) in pixels.
    """

    layout: Layout
    sensor_size: tuple[int, int]


def camera_named(name: str) -> Camera | None:
    """Find the camera that a header's name means.

    Parameters
    ----------
    name : str
        A jAER chip class (``eu.seebetter.ini.chips.davis.Davis346red``) or a source of AEDAT 3.1 (``DAVIS240C``).

    Returns
    -------
    Camera or None
        None when the name is of no camera known here.
    """
    model = name.strip().rsplit(".", 1)[-1].lower()
    if model.startswith(("dvs128", "tmpdiff128")):
        return Camera("dvs128", (128, 128))
    davis = re.match(r"(?:davis(?:het)?|dvs(?=240))(\d+)", model)
    if davis is None or davis[1] not in DAVIS_SIZES:
        return None
    return Camera("davis", DAVIS_SIZES[davis[1]])
