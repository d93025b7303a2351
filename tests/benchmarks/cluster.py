"""What handing out samples costs on a Dask cluster, from 1 to 64 workers: samples are replaced by a fixed sleep.

Run: ``python tests/benchmarks/cluster.py [MILLISECONDS]``. Workers are threads of up to four processes, so that a few
cores hold all of them: they sleep. What a sample sends back is the layers of a real one. Printed are, for one sample a
task and for as many as `eventsim.datasets` puts into one: samples per second, their share of what sleeping alone
allows, the time of a worker that each sample takes beyond its sleep, and the processor time that it takes from the
process that has both scheduler and client, which is the limit of samples per second where the share falls.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import distributed
import numpy as np

import eventsim
from eventsim import NetworkBuilder, Preparation, Simulator
from eventsim.datasets import Outcome, Sample, cluster, evaluate
from eventsim.layers import Input, Linear, Readout

WORKERS = (1, 2, 4, 8, 16, 32, 64)
PROCESSES = 4
SECONDS = 4.0
"""Of sleep for each worker."""
MOST = 3000
"""Samples."""
DEMO = Path(eventsim.__file__).parent / "demo"


class Sleeping(distributed.WorkerPlugin):  # type: ignore[misc]
    """Puts a sleep in the place of the simulation."""

    def __init__(self, outcome: Outcome, seconds: float) -> None:
        self.outcome = outcome
        self.seconds = seconds

    def setup(self, worker: Any) -> None:
        def slept(simulator: Simulator, sample: Sample, *_: Any) -> Outcome:
            time.sleep(self.seconds)
            row = Outcome(sample, "slept").row()
            return Recorded({**row, "layers": self.outcome.row()["layers"]})  # type: ignore[return-value]

        cluster.outcome = slept


class Recorded:
    """An outcome that is its row."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def row(self) -> dict[str, Any]:
        """Return it."""
        return self._row


def real() -> Outcome:
    """Return the outcome of a recording that the package ships, through the network that it ships."""
    network = eventsim.import_checkpoint(DEMO / "digits.safetensors")
    recording = min(DEMO.glob("digit_*.bin"))
    (outcome,) = evaluate(Simulator(network), [Sample("a", 0, str(recording))], Preparation())
    assert outcome.error is None
    return outcome


def tiny() -> Simulator:
    """Return a network that takes no time to send."""
    build = NetworkBuilder("tiny")
    build.add("readout", Readout(), build.add("head", Linear(np.eye(2, dtype=np.float32)), build.add("i", Input((2,)))))
    return Simulator(build.build(time_steps=1))


def main() -> None:
    seconds = float(sys.argv[1]) * 1e-3 if len(sys.argv) > 1 else 0.02
    outcome, simulator, most = real(), tiny(), cluster.MOST_SAMPLES
    print(f"a sample sleeps {seconds * 1e3:g} ms")
    print(f"{'workers':>7} {'a task':>8} {'samples/s':>10} {'of ideal':>9} {'overhead':>11} {'CPU':>9}")
    for workers in WORKERS:
        processes = min(workers, PROCESSES)
        options = {"n_workers": processes, "threads_per_worker": workers // processes, "dashboard_address": None}
        with distributed.LocalCluster(**options) as started, distributed.Client(started) as client:
            client.register_plugin(Sleeping(outcome, seconds))
            for limit in (1, most):
                cluster.MOST_SAMPLES = limit
                samples = [Sample(str(n), 0, str(n), n) for n in range(min(MOST, int(SECONDS / seconds * workers)))]
                outcomes = evaluate(simulator, samples, Preparation(), client=client)
                next(outcomes)  # from when on every worker has the network
                began, used = time.perf_counter(), time.process_time()
                done = sum(1 for _ in outcomes)
                took, used = time.perf_counter() - began, time.process_time() - used
                ideal = workers / seconds
                said = "1" if limit == 1 else "chosen"
                print(
                    f"{workers:>7} {said:>8} {done / took:>10.0f} {done / took / ideal:>9.0%} "
                    f"{(took * workers / done - seconds) * 1e3:>8.2f} ms {used / done * 1e3:>6.2f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
