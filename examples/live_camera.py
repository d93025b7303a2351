"""A network that looks through a camera while the camera looks at digits, in real time.

``python live_camera.py`` runs the demo's network behind the simulated event camera: a thread sends a batch of events
every 5 milliseconds, as a camera's driver would, and a line tells of each digit what the network saw. The queue between
them is bounded: where the network cannot follow, the camera drops batches and says how many.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from event_camera import DURATION_US, SIDE, EventCamera

import eventsim

BATCH_US = 5_000
BIN_US = DURATION_US // 6
"""The network was trained with 6 time steps of a recording."""

Events = npt.NDArray[np.void]


class Driver(threading.Thread):
    """Sends the events of some pictures as they happen.

    Parameters
    ----------
    pictures : array (n, height, width)
        Intensities from 0 to 1, looked at one after the other.
    """

    def __init__(self, pictures: npt.NDArray[Any]) -> None:
        super().__init__(daemon=True)
        self._pictures = pictures
        self._queue: queue.Queue[Events | None] = queue.Queue(maxsize=1000)
        self.dropped = 0

    def run(self) -> None:
        """Look at every picture for the 0.3 seconds that three saccades take."""
        camera, began = EventCamera(), time.perf_counter()
        for number, picture in enumerate(self._pictures):
            events = camera.record(picture, seed=number)
            for start in range(0, DURATION_US, BATCH_US):
                first, last = np.searchsorted(events["t"], (start, start + BATCH_US))
                batch = events[first:last].copy()
                batch["t"] += number * DURATION_US
                happened = (number * DURATION_US + start + BATCH_US) / 1e6
                time.sleep(max(0.0, happened - (time.perf_counter() - began)))
                try:
                    self._queue.put_nowait(batch)
                except queue.Full:
                    self.dropped += 1
        self._queue.put(None)

    def batches(self) -> Iterator[Events]:
        """Yield batches as they come."""
        while (batch := self._queue.get()) is not None:
            yield batch


def main(digits: int = 10) -> None:
    """Show the network some of scikit-learn's digits."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - as slow as everything else together

    data = load_digits()
    network = eventsim.import_checkpoint(str(resources.files("eventsim") / "demo" / "digits.safetensors"))
    driver = Driver(data.images[-digits:] / 16)
    # what is compiled later would be waited for by the camera
    eventsim.Simulator(network).warm_up()
    driver.start()
    for bin in eventsim.stream(network, driver.batches(), bin_us=BIN_US, sensor_size=(SIDE, SIDE)):
        if bin.last:
            seen = data.target[-digits:][min(bin.sample, digits - 1)]
            print(
                f"{bin.end_us / 1e6:5.2f} s  saw {seen}, says {bin.prediction}  {bin.clock_lag_s * 1e3:4.0f} ms after "
                f"the event, of which {bin.took_s * 1e3:.1f} ms of work; {bin.behind_s * 1e3:.0f} ms behind"
            )
    print(f"{driver.dropped} batches dropped")


if __name__ == "__main__":
    main()
