"""What every comparison has in common: a workload, engines, outputs checked before anything is timed, rounds.

The rounds are interleaved: in each, every engine takes its turn with the same batches, beginning with another one.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import machine
import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from eventsim import Network

Array: TypeAlias = np.ndarray[Any, Any]
Job: TypeAlias = Callable[[], tuple[Array, float]]
"""Takes one batch and returns the outputs, one row for each sample, and the seconds that count."""

AGREEING = 0.05
"""A float32 engine is right if the median of its largest differences is below this part of the range of the logits.

The order of float32 additions differs, so a neuron at its threshold may flip, and one flip travels on: single samples
of a large network may differ by more."""
MORE_THAN_ONE_CORE = 1.15


class MissingEngine(Exception):
    """An engine cannot run here; the message says why."""


@dataclass(frozen=True, eq=False)
class Workload:
    """One network and its inputs.

    Attributes
    ----------
    name : str
    network : Network
        As eventsim runs it.
    model : module
        The same in PyTorch, with its batch norms; takes [T, B, ...], or [B, ...] for images; returns [B, classes].
    samples : list of array
        Recordings (T, ...) or images (...), as eventsim takes them.
    calibration : list of array
        Inputs like these, on which int8 engines choose their scales.
    image : bool
    labels : list of int, optional
    sizes : tuple of int, optional
        The batch sizes that make sense, where not all do.
    facts : callable, optional
        Takes the workload and returns more to tell about it, by name.
    layer : str, optional
        Where eventsim runs it, this layer alone is timed, and its outputs of all steps are compared.
    """

    name: str
    network: Network
    model: nn.Module
    samples: list[Array]
    calibration: list[Array]
    image: bool = False
    labels: list[int] = field(default_factory=list)
    sizes: tuple[int, ...] = ()
    facts: Callable[[Workload], dict[str, Any]] = lambda _: {}
    layer: str = ""

    def batches(self, size: int) -> list[list[int]]:
        """Return which samples make each batch; where there are fewer than one batch needs, they come again."""
        count = len(self.samples)
        if count < size:
            return [[index % count for index in range(size)]]
        return [list(range(begin, begin + size)) for begin in range(0, count - size + 1, size)]

    def dense(self, samples: Sequence[Array]) -> Array:
        """Return samples as dense engines take them: float32, images (B, ...), frames (T, B, ...)."""
        return np.ascontiguousarray(np.stack(samples, axis=0 if self.image else 1), np.float32)


@dataclass(frozen=True)
class Engine:
    """Something that runs a workload.

    Attributes
    ----------
    name : str
    exact : bool
        Whether it computes in float32, so that its outputs must be those of PyTorch but for rounding.
    load : callable
        Takes a workload and the batches, lists of numbers of samples, and returns a job for each. Whatever can be done
        ahead is done here: conversion, compilation, packing.
    """

    name: str
    exact: bool
    load: Callable[[Workload, list[list[int]]], list[Job]]


def timed(function: Callable[[], Array]) -> Job:
    """Return a job that counts all seconds of a function."""

    def job() -> tuple[Array, float]:
        begin = time.perf_counter()
        output = function()
        return output, time.perf_counter() - begin

    return job


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Return median and minimum in milliseconds, and how many they are of."""
    return {"median_ms": 1e3 * statistics.median(seconds), "min_ms": 1e3 * min(seconds), "n": len(seconds)}


def reference(workload: Workload) -> Array:
    """Return the logits of PyTorch's own module, batch norms and all, sample by sample."""
    import torch

    with torch.inference_mode():
        model = workload.model.eval()
        return np.concatenate([model(torch.from_numpy(workload.dense([s]))).numpy() for s in workload.samples])


def check(expected: Array, found: Array, exact: bool) -> dict[str, Any]:
    """Compare outputs (samples, classes); `wrong` says why an engine must not be timed, and is missing otherwise."""
    if found.shape != expected.shape:
        return {"wrong": f"outputs of shape {found.shape} found; expected {expected.shape}"}
    if not np.isfinite(found).all():
        return {"wrong": "outputs that are not finite found"}
    differences = np.abs(found - expected).max(axis=1)
    outcome: dict[str, Any] = {
        "largest_difference": float(differences.max()),
        "relative_median": float(np.median(differences / np.ptp(expected, axis=1).clip(1e-9))),
        "same_prediction": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        "samples": len(expected),
    }
    if exact and outcome["relative_median"] > AGREEING:
        outcome["wrong"] = (
            f"outputs differ by {outcome['relative_median']:.1%} of the range of the logits (median of "
            f"{len(expected)} samples); expected at most {AGREEING:.0%}"
        )
    return outcome


def measure(workload: Workload, batch: int, engines: Sequence[Engine], rounds: int) -> dict[str, Any]:
    """Check every engine against PyTorch, then time those that are right, in milliseconds for one sample.

    Returns
    -------
    dict
        `engines` with `check`, times and `cores` (CPU time over elapsed) of those that were timed, `left_out` with the
        reason of the others. `cpu_ms` is the median of the CPU time, which other users of the machine lengthen less.
    """
    expected = reference(workload)
    batches = workload.batches(batch)
    order = [index for each in batches for index in each]
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    jobs: dict[str, list[Job]] = {}
    for engine in engines:
        try:
            loaded = engine.load(workload, batches)
        except MissingEngine as reason:
            left_out[engine.name] = str(reason)
            continue
        outputs = np.concatenate([job()[0].reshape(batch, -1) for job in loaded])
        outcome = check(expected[order], outputs, engine.exact)
        if workload.labels:
            right = [outputs[i].argmax() == workload.labels[sample] for i, sample in enumerate(order)]
            outcome["accuracy"] = float(np.mean(right))
        if "wrong" in outcome:
            left_out[engine.name] = f"not timed: {outcome['wrong']}"
        else:
            jobs[engine.name] = loaded
            found[engine.name] = {"check": outcome}
    if wide := machine.more_than_one_thread():
        raise SystemExit(f"{workload.name}: pools of threads {wide} found; expected one thread each")
    for name, times in in_turn(jobs, rounds).items():
        found[name] |= summary([seconds / batch for seconds in times.seconds])
        found[name] |= {"cpu_ms": 1e3 * statistics.median(times.cpu) / batch, "cores": times.cores}
    return {"batch": batch, "engines": found, "left_out": left_out}


@dataclass
class Times:
    """Seconds of one engine, call by call: those that count, all that passed, and of CPU time."""

    seconds: list[float] = field(default_factory=list)
    elapsed: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def cores(self) -> float:
        """CPU time over elapsed time: 1 of one thread on a quiet machine, less where others run, more of threads."""
        return sum(self.cpu) / sum(self.elapsed)


def in_turn(jobs: dict[str, list[Job]], rounds: int) -> dict[str, Times]:
    """Run all jobs of each engine in turn, over and over; every engine begins a round as often as any other."""
    names = list(jobs)
    times = {name: Times() for name in names}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                for job in jobs[name]:
                    cpu, begin = time.process_time(), time.perf_counter()
                    times[name].seconds.append(job()[1])
                    times[name].elapsed.append(time.perf_counter() - begin)
                    times[name].cpu.append(time.process_time() - cpu)
    finally:
        gc.enable()
    return times
