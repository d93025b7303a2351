"""Every operation of an event-driven machine, counted one by one: of each layer, in each time step.

Written from the definitions (docs/counts.md), for dense arrays (T, positions, channels), maps (T, C, H, W) where a
layer needs them. A `Work` has one counter for each time step; the functions add what a layer executes. What it reads
and writes of signals is the same for all: `Work.read` and `Work.write`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]


class Signal(NamedTuple):
    """How an array is held: its kind, and whether every value is stored, or those that are not 0 in rows."""

    kind: str
    dense: bool


class Work:
    """What was executed, step by step."""

    def __init__(self, steps: int) -> None:
        self.steps: list[dict[str, int]] = [{} for _ in range(steps)]

    def add(self, t: int, **executed: int) -> None:
        """Count in a step."""
        step = self.steps[t]
        for name, number in executed.items():
            step[name] = step.get(name, 0) + int(number)

    def columns(self) -> dict[str, list[int]]:
        """By operation, those that occur: one number for each step."""
        names = {name for step in self.steps for name, number in step.items() if number}
        return {name: [step.get(name, 0) for step in self.steps] for name in names}

    def read(self, t: int, frame: Array, signal: Signal) -> None:
        """A layer takes in a frame: each value of rows is a message, which has an address and, if no spike, a value."""
        arrived = sum(1 for value in frame.ravel().tolist() if value != 0)
        if signal.dense:
            self.add(t, value_reads=frame.size)
        else:
            self.add(t, messages=arrived, index_reads=arrived, value_reads=arrived * (signal.kind != "binary"))

    def write(self, t: int, frame: Array, signal: Signal) -> None:
        """A layer puts out a frame."""
        emitted = sum(1 for value in frame.ravel().tolist() if value != 0)
        if signal.dense:
            self.add(t, value_writes=frame.size)
        else:
            self.add(t, index_writes=emitted, value_writes=emitted * (signal.kind != "binary"))

    def offer(self, t: int, frame: Array) -> None:
        """A layer that multiplies is given a frame."""
        self.add(t, inputs=frame.size, nonzero_inputs=np.count_nonzero(frame))

    def products(self, t: int, signal: Signal, value: float, synapses: int) -> None:
        """A value meets so many synapses: each weight is read, and a sum is read and written."""
        if synapses == 0 or (value == 0 and not signal.dense):
            return
        name = {"binary": "acs", "graded": "graded_macs", "real": "macs"}[signal.kind]
        self.add(t, **{name: synapses}, weight_reads=synapses, sum_reads=synapses, sum_writes=synapses)
        if signal.kind == "graded":
            self.add(t, graded_acs=int(abs(value)) * synapses)

    def biases(self, t: int, outputs: int) -> None:
        """Each output adds its bias to its sum."""
        self.add(t, bias_additions=outputs, bias_reads=outputs, sum_reads=outputs, sum_writes=outputs)


def is_synapse(weight: Array) -> Array:
    """Of a weight of which more than half is 0, those that are not; else all."""
    zeros = sum(1 for w in weight.ravel() if w == 0)
    return weight != 0 if 2 * zeros > weight.size else np.ones(weight.shape, bool)


def convolution(
    work: Work,
    x: Array,
    signal: Signal,
    exists: Array,
    size: Pair,
    *,
    stride: Pair,
    padding: Pair,
    groups: int,
    dilation: Pair = (1, 1),
    before: int = 0,
) -> None:
    """Maps (T, C, H, W) meet a kernel (O, C / groups, kT, kH, kW) of synapses; a product counts in the step it is for.

    Output step t reads input step t + k - before at the k-th time step of the kernel; size is that of the output map.
    """
    steps, channels, height, width = x.shape
    outputs, group_inputs, *_ = exists.shape
    for k, a, b in np.ndindex(*exists.shape[2:]):
        for i, j in np.ndindex(*size):
            row, column = i * stride[0] + a * dilation[0] - padding[0], j * stride[1] + b * dilation[1] - padding[1]
            if not (0 <= row < height and 0 <= column < width):
                continue
            for c in range(channels):
                group = c // group_inputs
                own = slice(group * (outputs // groups), (group + 1) * (outputs // groups))
                synapses = int(exists[own, c % group_inputs, k, a, b].sum())
                for t in range(steps):
                    if 0 <= t + k - before < steps:
                        work.products(t, signal, x[t + k - before, c, row, column], synapses)


def matrix(work: Work, x: Array, signal: Signal, exists: Array) -> None:
    """Rows (T, P, C) meet a matrix (O, C) of synapses."""
    for t, p, c in np.ndindex(*x.shape):
        work.products(t, signal, x[t, p, c], int(exists[:, c].sum()))


def windowed(work: Work, x: Array, signal: Signal, exists: Array, window: Sequence[int], *, once: bool) -> None:
    """Output o feels the steps t - window[o] < earlier <= t: products again in each, or once and then additions."""
    steps, positions, channels = x.shape
    for t, o in np.ndindex(steps, len(exists)):
        for earlier in range(max(0, t - window[o] + 1), t + 1):
            for p in range(positions):
                if earlier < t:  # a sum kept, or made anew, is added to that of the output
                    work.add(t, additions=1, sum_reads=2, sum_writes=1)
                for c in range(channels):
                    value = x[earlier, p, c]
                    if value != 0 or signal.dense:
                        work.add(t, window_products=int(exists[o, c]))
                    if not once or earlier == t:
                        work.products(t, signal, value, int(exists[o, c]))


def neurons(
    work: Work, before: Array, x: Array, charged: Array, spikes: Array, leaks: int, additions: int, comparisons: int
) -> None:
    """Potentials before and after the charge, inputs and spikes, all (T, ...)."""
    for t in range(len(x)):
        for v, i, h, s in zip(*(a[t].ravel().tolist() for a in (before, x, charged, spikes)), strict=True):
            work.add(t, neuron_updates=1, potential_reads=1, potential_writes=1)
            work.add(t, leak_multiplications=leaks, membrane_additions=additions, membrane_comparisons=comparisons)
            work.add(t, updates_with_input=i != 0, updates_with_change=h != v)
            work.add(t, updates_with_spike=s != 0, resets=s != 0)


def attention(
    work: Work, parts: tuple[Array, Array, Array], heads: int, scale: float, y: Array, *, context: bool, graded: bool
) -> None:
    """Q, k, v as tokens, values that meet one by one; with `context`, k and v meet first."""
    for t, h in np.ndindex(len(y), heads):
        a, b, c = (x[t].reshape(len(x[t]), heads, -1)[:, h] for x in parts)
        if context:
            for d, e in np.ndindex(b.shape[1], c.shape[1]):
                entry = _meet(work, t, zip(b[:, d], c[:, e], strict=True), graded)
                for value in a[:, d]:
                    _ask(work, t, entry, value, graded)
        else:
            for i, j in np.ndindex(len(a), len(b)):
                score = _meet(work, t, zip(a[i], b[j], strict=True), graded)
                for value in c[j]:
                    _ask(work, t, score, value, graded)
    _scaled(work, y, scale)


def table_attention(work: Work, parts: tuple[Array, Array, Array], table: Array, scale: float, y: Array) -> None:
    """Spikes whose scores go through a table (heads, entries)."""
    for t, h in np.ndindex(len(y), len(table)):
        a, b, c = (x[t].reshape(len(x[t]), len(table), -1)[:, h] for x in parts)
        for i, j in np.ndindex(len(a), len(b)):
            score = _meet(work, t, zip(a[i], b[j], strict=True), graded=False)
            entry = table[h, score]
            work.add(t, scores=1, nonzero_scores=score != 0, kept_scores=entry != 0)
            work.add(t, removed_scores=score != 0 and entry == 0)
            if score != 0:
                work.add(t, table_lookups=1, table_reads=1, sum_reads=1)
            for value in c[j]:
                _ask(work, t, entry, value, graded=False)
    _scaled(work, y, scale)


def _meet(work: Work, t: int, pairs: Iterable[tuple[float, float]], graded: bool) -> int:
    """Pairs of values that are not 0 are added to an entry of the map, in memory."""
    entry = 0
    for a, b in pairs:
        if a != 0 and b != 0:
            entry += int(a * b)
            work.add(t, coincidences=1, sum_reads=1, sum_writes=1)
            work.add(t, **({"graded_macs": 1, "graded_acs": int(a * b)} if graded else {"acs": 1}))
    return entry


def _ask(work: Work, t: int, entry: int, value: float, graded: bool) -> None:
    """A value asks for an entry of the map, which is read and added to an output."""
    if entry != 0 and value != 0:
        work.add(t, value_additions=1, sum_reads=2, sum_writes=1)
        work.add(t, **({"graded_macs": 1, "graded_acs": int(value)} if graded else {"acs": 1}))


def _scaled(work: Work, y: Array, scale: float) -> None:
    if np.float32(scale) != 1:
        for t, frame in enumerate(y):
            work.add(t, scale_multiplications=np.count_nonzero(frame))


def softmax_attention(
    work: Work, steps: int, positions: int, heads: int, d: int, *, over_time: bool, one: bool
) -> None:
    """Each value attends to the positions of its step, or to the steps of its position; `one`: the scale is 1."""
    for t, _, _, _ in np.ndindex(steps, positions, heads, steps if over_time else positions):
        work.add(t, macs=2 * d, coincidences=d, value_additions=d, sum_reads=3 * d, sum_writes=2 * d)
        work.add(t, exponentials=1, divisions=1, scale_multiplications=not one)


Windows = Sequence[Sequence[Pair]]


def sliding_windows(
    size: Pair, out: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Windows:
    """The pixels of each window, those beyond the borders left out."""
    return [
        [
            (row, column)
            for row in (i * stride[0] + a * dilation[0] - padding[0] for a in range(kernel[0]))
            for column in (j * stride[1] + b * dilation[1] - padding[1] for b in range(kernel[1]))
            if 0 <= row < size[0] and 0 <= column < size[1]
        ]
        for i, j in np.ndindex(*out)
    ]


def adaptive_windows(size: Pair, out: Pair) -> Windows:
    """The pixels of each of so many windows: from floor(i * size / out) up to ceil((i + 1) * size / out)."""
    return [
        [
            (row, column)
            for row in range(i * size[0] // out[0], -(-(i + 1) * size[0] // out[0]))
            for column in range(j * size[1] // out[1], -(-(j + 1) * size[1] // out[1]))
        ]
        for i, j in np.ndindex(*out)
    ]


def pool(work: Work, x: Array, signal: Signal, windows: Windows, *, maximum: bool, mean: bool = False) -> None:
    """Maps (T, C, H, W): a value that is not 0, or of a dense map any, meets what its window has so far.

    Where values may be negative, a 0 may be the largest, so that it is compared, too.
    """
    every = signal.dense or (maximum and signal.kind == "real")
    for t, c in np.ndindex(*x.shape[:2]):
        for window in windows:
            values = [x[t, c, row, column] for row, column in window]
            for value in values:
                if value != 0 or every:
                    work.add(t, sum_reads=1, sum_writes=1)
                    work.add(t, **({"comparisons": 1, "pool_comparisons": 1} if maximum else {"additions": 1}))
            if mean and (signal.dense or sum(np.float64(value) for value in values) != 0):
                work.add(t, divisions=1)


def sums(work: Work, x: Array, *, every: bool) -> None:
    """Values that are not 0, or every one, are added to a sum."""
    for place in np.ndindex(*x.shape):
        if every or x[place] != 0:
            work.add(place[0], additions=1, sum_reads=1, sum_writes=1)


def residual(work: Work, a: Array, b: Array, mode: str, *, dense: bool) -> None:
    """Where two values meet they are added, or compared; of a dense join all do."""
    for place in np.ndindex(*a.shape):
        if dense or (a[place] != 0 and b[place] != 0):
            added = {"additions": 1, "residual_additions": 1}
            work.add(place[0], **(added if mode == "add" else {"comparisons": 1}))


def gate(work: Work, g: Array, x: Array, signals: tuple[Signal, Signal]) -> None:
    """Tokens (T, N, C) and gates (T, N or 1, G): a spike lets pass, other values multiply."""
    kinds = {signal.kind for signal in signals}
    for t, n, c in np.ndindex(*x.shape):
        own = g[t, n % g.shape[1]]
        factor, value = own[c // (x.shape[2] // len(own))], x[t, n, c]
        if not ((factor != 0 or signals[0].dense) and (value != 0 or signals[1].dense)):
            continue
        work.add(t, gate_products=1)
        if "binary" in kinds:
            work.add(t, comparisons=1)
        elif "real" in kinds:
            work.add(t, macs=1)
        else:
            work.add(t, graded_macs=1, graded_acs=int(factor * value))


def scaling(work: Work, x: Array, *, every: bool, shifted: bool) -> None:
    """A value meets a scale, and a shift within the same multiply-accumulate."""
    for place in np.ndindex(*x.shape):
        if every or x[place] != 0:
            work.add(place[0], macs=1, weight_reads=1, bias_reads=shifted)


def layer_norm(work: Work, x: Array, *, biased: bool) -> None:
    """Rows of channels: a mean, a mean of squares, a root; each value is divided, scaled and shifted."""
    for t, p in np.ndindex(*x.shape[:2]):
        work.add(t, divisions=2, square_roots=1)
        for _ in x[t, p]:
            work.add(t, additions=1, sum_reads=1, sum_writes=1)  # for the mean
            work.add(t, macs=1, sum_reads=1, sum_writes=1)  # its square
            work.add(t, divisions=1, macs=1, weight_reads=1, bias_reads=biased)


def attention_pool(work: Work, x: Array) -> None:
    """Logits of rows, and the sum that they weight; the division comes with the last step."""
    for t, _ in np.ndindex(*x.shape[:2]):
        d = x.shape[2]
        work.add(t, macs=2 * d, weight_reads=d, sum_reads=2 * d, sum_writes=2 * d, exponentials=1)
    work.add(len(x) - 1, divisions=x.shape[2])


def _dense_matrix(work: Work, t: int, outputs: int, inputs: int, *, weights: bool = True, biased: bool = True) -> None:
    for _ in range(outputs):
        work.add(t, macs=inputs, weight_reads=inputs * weights, sum_reads=inputs, sum_writes=inputs)
    if biased:
        work.biases(t, outputs)


def global_context(work: Work, x: Array, hidden: int, *, normed: bool, gated: bool) -> None:
    """Rows (T, P, C): logits, weighted sum, two matrices with a norm between them, and what becomes of a value."""
    for t in range(len(x)):
        positions, channels = x.shape[1:]
        _dense_matrix(work, t, positions, channels)
        work.add(t, exponentials=positions, divisions=positions)
        _dense_matrix(work, t, channels, positions, weights=False, biased=False)
        _dense_matrix(work, t, hidden, channels)
        if normed:  # squares and scales are products; the mean is not counted but for its division
            work.add(t, macs=2 * hidden, sum_reads=hidden, sum_writes=hidden, weight_reads=hidden, bias_reads=hidden)
            work.add(t, divisions=hidden + 2, square_roots=1)
        _dense_matrix(work, t, channels, hidden)
        if gated:
            work.add(t, exponentials=channels, divisions=channels, macs=positions * channels)
        else:
            work.add(t, additions=positions * channels)


def adaptive_lif(work: Work, x: Array, gates: tuple[int, int, int] | None, encodings: int, *, terms: bool) -> None:
    """The coefficients of neurons (T, P, C), and the gates: (hidden, number of gates, gates of one term)."""
    for t in range(len(x)):
        positions, channels = x.shape[1:]
        size = positions * channels
        work.add(t, macs=2 * size, additions=encodings * size, weight_reads=(2 + encodings) * size)
        if gates is None:
            continue
        hidden, number, per_term = gates
        means = 2 if terms else 1
        work.add(t, additions=means * size, sum_reads=means * size, sum_writes=means * size, divisions=means * channels)
        _dense_matrix(work, t, hidden, 2 * channels)
        _dense_matrix(work, t, number, hidden)
        work.add(t, exponentials=number, divisions=number, macs=size if number == per_term else 2 * size)


def watched(charge: Callable[[Array, Array], Array], seen: list[Array]) -> Callable[[Array, Array], Array]:
    """A charge equation that keeps the potentials that it was given."""

    def keep(v: Array, x: Array) -> Array:
        seen.append(np.array(v))
        return charge(v, x)

    return keep
