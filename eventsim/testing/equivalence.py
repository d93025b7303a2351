"""A network against a dense model of the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.network import Network
from eventsim.signals import FloatArray
from eventsim.simulator import Simulator
from eventsim.testing.samples import random_rows

Reference: TypeAlias = Callable[[FloatArray], npt.ArrayLike | Mapping[str, npt.ArrayLike]]


def check_equivalent(
    network: Network,
    reference: Reference,
    frames: Iterable[FloatArray] | None = None,
    *,
    tolerance: float = 0.0,
    examples: int = 10,
    seed: int = 0,
) -> None:
    """Check that a network computes what a dense model does, however it is run.

    Each sample runs with all steps at once, step by step, and as a stream; all three must agree bit for bit, counts
    included, and with the reference up to `tolerance`.

    Parameters
    ----------
    network : Network
    reference : callable
        Takes frames, float32 ``(T, *input shape)``; returns the logits ``(classes,)``, or the outputs of any layers by
        name, ``(T, C, H, W)``, ``(T, N, C)`` or ``(T, C)``, the logits under the name of the readout as ``(classes,)``.
    frames : iterable of float32 array (T, *input shape), optional
        Samples; by default `examples` random ones.
    tolerance : float
        Largest difference allowed. With weights, time constants and thresholds that are small dyadic rationals every
        sum is exact, and 0 is right.
    examples, seed : int
        How many samples are drawn, and from which seed.

    Raises
    ------
    AssertionError
        Names the layer, the sample, and the largest difference.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import NetworkBuilder
    >>> from eventsim.layers import Input, Linear, Readout
    >>> weight = np.array([[0.5, -1.0], [0.25, 2.0]], np.float32)
    >>> build = NetworkBuilder("linear")
    >>> x = build.add("input", Input((2,)))
    >>> x = build.add("fc", Linear(weight), x)
    >>> _ = build.add("readout", Readout("sum"), x)
    >>> check_equivalent(build.build(), lambda frames: (frames @ weight.T).sum(axis=0))
    """
    whole = Simulator(network)
    output = whole.schedule.output
    for index, sample in enumerate(_samples(network, examples, seed) if frames is None else frames):
        expected = reference(np.array(sample, np.float32))
        named = dict(expected) if isinstance(expected, Mapping) else {output: expected}
        if unknown := sorted(named.keys() - network.layers.keys()):
            raise AssertionError(f"layer {unknown[0]} of the reference is not in network {network.name}")
        recorded = Simulator(network, record=named).run(sample, len(sample))
        for name, dense in named.items():
            found = recorded.logits if name == output else recorded.recorded[name]
            _compare(network, f"layer {name}, sample {index}", found, np.asarray(dense), tolerance)
        _check_ways(network, sample, index, recorded.logits)


def _check_ways(network: Network, sample: FloatArray, index: int, logits: FloatArray) -> None:
    """Compare chunks of one step, and a stream, with all steps at once."""
    whole = Simulator(network)
    if any(node.op.looks_ahead for node in whole.schedule.nodes):
        return
    expected = whole.run(sample, len(sample))
    _compare(network, f"logits, sample {index}, recorded or not", expected.logits, logits, 0.0)
    stepped = Simulator(network, chunk=1)
    for way, result in (("step by step", stepped.run(sample, len(sample))), ("as a stream", whole.run(iter(sample)))):
        _compare(network, f"logits, sample {index}, {way}", result.logits, expected.logits, 0.0)
        for ours, theirs in zip(result.profile, expected.profile, strict=True):
            if ours.counts != theirs.counts:
                raise AssertionError(
                    f"network {network.name}: layer {ours.name}, sample {index}, {way}: {ours.counts} found; "
                    f"all at once gives {theirs.counts}"
                )


def _samples(network: Network, examples: int, seed: int) -> Iterable[FloatArray]:
    kind = network.input.output_type()
    rng = np.random.default_rng(seed)
    for _ in range(examples):
        steps = network.time_steps or int(rng.integers(1, 9))
        rows = random_rows(kind, steps * kind.positions, rng)
        maps = rows.reshape(steps, *kind.grid, kind.channels)
        yield np.moveaxis(maps, -1, 1) if len(kind.grid) == 2 else maps


def _compare(network: Network, what: str, found: FloatArray, expected: npt.NDArray[Any], tolerance: float) -> None:
    if found.shape != expected.shape:
        raise AssertionError(f"network {network.name}: {what}: shape {found.shape} found; {expected.shape} expected")
    apart = np.abs(found.astype(np.float64) - expected)
    if apart.size and not apart.max() <= tolerance:
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(apart)), apart.shape))
        raise AssertionError(
            f"network {network.name}: {what}: {np.count_nonzero(apart > tolerance)} of {apart.size} values differ by "
            f"more than {tolerance:g}, the most at {at}: {found[at]:g} found, {expected[at]:g} expected"
        )
