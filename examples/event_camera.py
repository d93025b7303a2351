"""A simulated event camera that looks at a small picture, with the three saccades of N-MNIST.

A pixel compares the logarithm of its intensity with the value it remembers; each time the difference reaches its
contrast threshold it sends an event and remembers the new value (Lichtsteiner, Posch and Delbruck, "A 128 x 128 120 dB
15 us latency asynchronous temporal contrast vision sensor", 2008). The picture moves as in Orchard et al., "Converting
static image datasets to spiking neuromorphic datasets using saccades" (2015): down to the right, up to the right, back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs import EVENT_DTYPE

Floats = npt.NDArray[np.float64]
Events = npt.NDArray[np.void]

SIDE = 34
SACCADE_US = 100_000
CORNERS = np.array([(-3.0, -3.0), (0.0, 3.0), (3.0, -3.0), (-3.0, -3.0)])
"""Where the picture's centre is before and after each saccade: (x, y) in pixels from the centre of the sensor."""
DURATION_US = SACCADE_US * (len(CORNERS) - 1)
MAX_US = 2**23


@dataclass(frozen=True)
class EventCamera:
    """A sensor of 34 x 34 pixels.

    Attributes
    ----------
    threshold : float
        Contrast threshold: change of the natural logarithm of the intensity that makes an event.
    mismatch : float
        Standard deviation of the threshold over the pixels, relative to it; ON and OFF thresholds differ too.
    noise_hz : float
        Events per pixel and second that have no cause.
    dark : float
        Intensity of black, where white is 1; it bounds the contrast.
    magnification : float
        Pixels of the sensor per pixel of the picture.
    step_us : int
        Microseconds between two rendered pictures; between them the logarithm is taken to change linearly.
    seed : int
        Decides the thresholds.
    """

    threshold: float = 0.4
    mismatch: float = 0.04
    noise_hz: float = 0.2
    dark: float = 0.1
    magnification: float = 3.0
    step_us: int = 2000
    seed: int = 0

    def record(self, picture: npt.NDArray[Any], seed: int) -> Events:
        """Look at a picture.

        Parameters
        ----------
        picture : array (height, width)
            Intensities from 0 (black, like everything around it) to 1.
        seed : int
            Decides the noise, and what the pixels remember at the beginning.

        Returns
        -------
        EVENT_DTYPE array (n,)
            In order of time, 0 <= t < 300,000 microseconds.
        """
        rng = np.random.default_rng(seed)
        on, off = self._thresholds()
        times = np.arange(0, DURATION_US + 1, self.step_us)
        before = self._logarithm(picture, times[0])
        remembered = before + rng.uniform(-on, off)
        parts = [self._noise(rng)]
        for start in times[:-1]:
            after = self._logarithm(picture, start + self.step_us)
            for sign, threshold in ((1, on), (-1, off)):
                crossings = np.maximum(np.floor(sign * (after - remembered) / threshold), 0).astype(np.int64)
                y, x = np.nonzero(crossings)
                repeats = crossings[y, x]
                y, x = np.repeat(y, repeats), np.repeat(x, repeats)
                nth = np.arange(1, len(x) + 1) - np.repeat(np.cumsum(repeats) - repeats, repeats)
                level = remembered[y, x] + sign * nth * threshold[y, x]
                progress = (level - before[y, x]) / (after[y, x] - before[y, x])
                parts.append(_events(x, y, start + progress * self.step_us, sign > 0))
                remembered = remembered + sign * crossings * threshold
            before = after
        events = np.concatenate(parts)
        return events[np.argsort(events["t"], kind="stable")]

    def _thresholds(self) -> Floats:
        """Return ON and OFF thresholds, (2, 34, 34)."""
        spread = np.random.default_rng(self.seed).normal(1, self.mismatch, (2, SIDE, SIDE))
        return self.threshold * np.maximum(spread, 0.1)

    def _noise(self, rng: np.random.Generator) -> Events:
        count = rng.poisson(self.noise_hz * SIDE * SIDE * DURATION_US * 1e-6)
        x, y = rng.integers(0, SIDE, (2, count))
        return _events(x, y, rng.uniform(0, DURATION_US, count), rng.random(count) < 0.5)

    def _logarithm(self, picture: npt.NDArray[Any], t_us: int) -> Floats:
        """Return the logarithm of the intensity that each pixel sees at a time, (34, 34)."""
        x, y = position(t_us)
        rows, columns = (self._interpolation(size, at) for size, at in zip(picture.shape, (y, x), strict=True))
        return np.log(self.dark + (1 - self.dark) * rows @ picture @ columns.T)

    def _interpolation(self, size: int, centre: float) -> Floats:
        """Return the weight of each of `size` picture pixels for each sensor pixel along one axis, (34, size)."""
        seen = (np.arange(SIDE) - (SIDE - 1) / 2 - centre) / self.magnification + (size - 1) / 2
        return np.maximum(1 - abs(seen[:, None] - np.arange(size)), 0)


def position(t_us: float) -> Floats:
    """Return where the picture's centre is at a time, (x, y); it starts and stops gently in every saccade."""
    saccade, within = divmod(t_us, SACCADE_US)
    if saccade == len(CORNERS) - 1:
        return CORNERS[-1]
    start, end = CORNERS[int(saccade)], CORNERS[int(saccade) + 1]
    return start + (end - start) * (1 - np.cos(np.pi * within / SACCADE_US)) / 2


def _events(x: npt.ArrayLike, y: npt.ArrayLike, t_us: Floats, p: npt.ArrayLike) -> Events:
    events = np.empty(len(t_us), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = x, y, p
    events["t"] = np.clip(t_us, 0, DURATION_US - 1)
    return events


def write_nmnist(path: str | Path, events: Events) -> None:
    """Write events in N-MNIST's format: 8 bits x, 8 bits y, 1 bit polarity, 23 bits microseconds.

    Raises
    ------
    ValueError
        If an event does not fit into 40 bits.
    """
    if len(events) and (events["t"].min() < 0 or events["t"].max() >= MAX_US):
        first, last = events["t"].min(), events["t"].max()
        raise ValueError(f"{path}: times from {first} to {last} us found; expected 0 to {MAX_US - 1}")
    t = events["t"].astype(np.uint32)
    columns = (events["x"], events["y"], events["p"] * 128 + (t >> 16), t >> 8 & 255, t & 255)
    Path(path).write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())
