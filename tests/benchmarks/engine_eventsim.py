"""eventsim: one sample after the other, whatever the batch."""

from __future__ import annotations

import time

import numpy as np
from measure import Array, Engine, Job, MissingEngine, Workload

from eventsim import InputError, Network, Simulator, quantise
from eventsim.operations import synaptic_operations


def float32(workload: Workload, batches: list[list[int]]) -> list[Job]:
    return _jobs(workload, workload.network, batches)


def int8(workload: Workload, batches: list[list[int]]) -> list[Job]:
    """Integers where the network allows them; only checked, not fitted, on the calibration inputs."""
    try:
        network = quantise(workload.network, workload.calibration)
    except InputError as error:
        raise MissingEngine(str(error)) from None
    return _jobs(workload, network, batches)


def _jobs(workload: Workload, network: Network, batches: list[list[int]]) -> list[Job]:
    """Return a job for each batch; where the workload names a layer, its seconds alone count."""
    simulator = Simulator(network, record=[workload.layer] if workload.layer else [])
    simulator.warm_up(many=True)

    def job_of(batch: list[int]) -> Job:
        def job() -> tuple[Array, float]:
            begin = time.perf_counter()
            results = [simulator.run(workload.samples[index]) for index in batch]
            seconds = time.perf_counter() - begin
            if workload.layer:
                layers = [layer for result in results for layer in result.profile]
                seconds = sum(layer.seconds for layer in layers if layer.name == workload.layer)
                return np.stack([result.recorded[workload.layer].ravel() for result in results]), seconds
            return np.stack([result.logits for result in results]), seconds

        return job

    return [job_of(batch) for batch in batches]


ENGINES = (Engine("eventsim f32", True, float32), Engine("eventsim int8", False, int8))


def facts(workload: Workload) -> dict[str, float]:
    """Return what eventsim executed of the dense products, and how often neurons fired, over all samples."""
    simulator = Simulator(workload.network)
    executed = dense = spikes = neurons = 0
    for sample in workload.samples:
        result = simulator.run(sample)
        executed += synaptic_operations(result.totals)
        dense += sum(layer.dense_macs for layer in result.profile)
        firing = [layer for layer in result.profile if layer.counts.neuron_updates]
        spikes += sum(layer.counts.spikes for layer in firing)
        neurons += sum(layer.counts.neuron_updates for layer in firing)
    count = len(workload.samples)
    found = {
        "dense_mmacs": dense / count / 1e6,
        "executed_mops": executed / count / 1e6,
        "executed_of_dense": executed / max(dense, 1),
    }
    return found | ({"firing_rate": spikes / neurons} if neurons else {})
