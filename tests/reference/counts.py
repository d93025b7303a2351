"""Operations an event-driven machine executes, by enumerating every synapse; whole numbers over all time steps.

Layers with synapses return {"acs", "graded_macs", "graded_acs", "macs"}; what does not fit the kind of input is 0:

* binary: acs = pairs of a non-zero input and a synapse leaving it;
* graded: graded_macs = the same pairs, graded_acs = sum of |input| over them;
* real: macs = the same pairs, or with dense=True the pairs of every input, zeros too.

A synapse exists where the kernel, moved by the stride, covers the pixel: fewer of them leave the pixels at a border.
Where more than half of the weights of a layer are 0, it was pruned, and a weight of 0 is no synapse.
"""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Counts = dict[str, int]
Pair = tuple[int, int]


def conv2d_counts(
    x: Float32,
    weight: Float32 | tuple[int, int, int, int],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
    kind: str = "binary",
    dense: bool = False,
    dilation: Pair = (1, 1),
) -> Counts:
    """Pairs of a convolution with a weight, or with an unpruned one of this shape."""
    steps, channels, height, width = x.shape
    exists = synapses_of(weight)
    out, per_group, kh, kw = exists.shape
    if channels != per_group * groups:
        raise ValueError(f"{channels} input channels, weight {exists.shape}, {groups} groups")
    counts = _Pairs(kind, dense)
    reach = dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1
    for i in range((height + 2 * padding[0] - reach[0]) // stride[0] + 1):
        for j in range((width + 2 * padding[1] - reach[1]) // stride[1] + 1):
            for a in range(kh):
                for b in range(kw):
                    row = i * stride[0] + a * dilation[0] - padding[0]
                    column = j * stride[1] + b * dilation[1] - padding[1]
                    if not (0 <= row < height and 0 <= column < width):
                        continue
                    for t in range(steps):
                        for channel in range(channels):
                            # the taps (i, j, a, b) of this channel: one synapse to each output channel of its group
                            first = channel // per_group * (out // groups)
                            to = exists[first : first + out // groups, channel % per_group, a, b]
                            counts.add(x[t, channel, row, column], int(to.sum()))
    return counts.result()


def linear_counts(x: Float32, weight: Float32 | tuple[int, int], kind: str = "binary", dense: bool = False) -> Counts:
    """Pairs of a linear layer on x[..., F] with a weight, or with an unpruned one of this shape."""
    counts = _Pairs(kind, dense)
    exists = synapses_of(weight)
    for row in x.reshape(-1, exists.shape[1]):
        for channel, value in enumerate(row):
            counts.add(value, int(exists[:, channel].sum()))
    return counts.result()


def synapses_of(weight: Float32 | tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether each weight is a synapse."""
    if isinstance(weight, tuple):
        return np.ones(weight, bool)
    pruned = 2 * np.count_nonzero(weight) < weight.size
    return weight != 0 if pruned else np.ones(weight.shape, bool)


def sparse_linear_counts(x: Float32, weight: Float32, kind: str = "binary", dense: bool = False) -> Counts:
    """Pairs of a linear layer on x[..., F] whose weights of 0 are no synapses; weight is the matrix (O, F)."""
    counts = _Pairs(kind, dense)
    for row in x.reshape(-1, weight.shape[1]):
        for f, value in enumerate(row):
            counts.add(value, sum(1 for w in weight[:, f] if w != 0))
    return counts.result()


def attention_counts(q: Float32, k: Float32, v: Float32, heads: int, order: str) -> Counts:
    """Additions of spiking attention on tokens (T, N, D), as acs, per step and head.

    "qk_v", A = q k^T first: one for every (i, j, c) with q[i, c] = k[j, c] = 1, and one for every active channel of
    v[j] for every (i, j) with A[i, j] not 0.
    "kv_q", M = k^T v first: one for every (j, c, d) with k[j, c] = v[j, d] = 1, and one for every entry of row c of M
    that is not 0 for every (i, c) with q[i, c] = 1.
    """
    steps, tokens, dim = q.shape
    size = dim // heads
    acs = 0
    for t in range(steps):
        for head in range(heads):
            channels = range(head * size, (head + 1) * size)
            if order == "qk_v":
                for i in range(tokens):
                    for j in range(tokens):
                        score = sum(1 for c in channels if q[t, i, c] != 0 and k[t, j, c] != 0)
                        acs += score
                        if score:
                            acs += sum(1 for d in channels if v[t, j, d] != 0)
            elif order == "kv_q":
                for c in channels:
                    entries = [sum(1 for j in range(tokens) if k[t, j, c] != 0 and v[t, j, d] != 0) for d in channels]
                    acs += sum(entries)
                    queries = sum(1 for i in range(tokens) if q[t, i, c] != 0)
                    acs += queries * sum(1 for entry in entries if entry != 0)
            else:
                raise ValueError(f"order {order!r}; one of qk_v, kv_q")
    return {"acs": acs, "graded_macs": 0, "graded_acs": 0, "macs": 0}


def graded_attention_counts(q: Float32, k: Float32, v: Float32, heads: int, order: str) -> Counts:
    """Products of attention on integers, q (T, N, D), k (T, M, D) and v (T, M, E), token by token and value by value.

    graded_macs are the additions of `attention_counts`, with non-zero values in place of spikes. graded_acs weigh
    each: values of q and k (k and v) that meet by their product, a score (an entry of M) that is added by the value of
    v (of q) that asks for it.
    """
    counts = {"acs": 0, "graded_macs": 0, "graded_acs": 0, "macs": 0}

    def meet(units: float) -> None:
        counts["graded_macs"] += units != 0
        counts["graded_acs"] += int(units)

    size, width = q.shape[2] // heads, v.shape[2] // heads
    for t, head in np.ndindex(len(q), heads):
        a, b = (x[t, :, head * size : (head + 1) * size] for x in (q, k))
        c = v[t, :, head * width : (head + 1) * width]
        if order == "qk_v":
            for i, j in np.ndindex(len(a), len(b)):
                for d in range(size):
                    meet(a[i, d] * b[j, d])
                if any(a[i, d] * b[j, d] for d in range(size)):
                    for e in range(width):
                        meet(c[j, e])
        elif order == "kv_q":
            for d, e in np.ndindex(size, width):
                for j in range(len(b)):
                    meet(b[j, d] * c[j, e])
                if any(b[j, d] * c[j, e] for j in range(len(b))):
                    for i in range(len(a)):
                        meet(a[i, d])
        else:
            raise ValueError(f"order {order!r}; one of qk_v, kv_q")
    return counts


def neuron_updates(x: Float32) -> int:
    """Steps times neurons: every neuron is updated at every step."""
    return int(np.prod(x.shape, dtype=np.int64))


def pooled_values(
    x: Float32,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    windows: Pair,
    dense: bool = False,
    dilation: Pair = (1, 1),
) -> int:
    """Number of (non-zero input, window that holds it) pairs, or with dense=True the pairs of every input."""
    height, width = x.shape[2:]
    pairs = 0
    for i in range(windows[0]):
        for j in range(windows[1]):
            for a in range(kernel[0]):
                for b in range(kernel[1]):
                    row = i * stride[0] + a * dilation[0] - padding[0]
                    column = j * stride[1] + b * dilation[1] - padding[1]
                    if 0 <= row < height and 0 <= column < width:
                        values = x[:, :, row, column]
                        pairs += values.size if dense else int(np.count_nonzero(values))
    return pairs


def adaptively_pooled_values(x: Float32, size: Pair, dense: bool = False) -> int:
    """Number of (non-zero input, window that holds it) pairs of adaptive pooling, or those of every input."""
    pairs = 0
    for i, j in np.ndindex(*size):
        (top, bottom), (left, right) = (
            (n * length // many, ((n + 1) * length + many - 1) // many)
            for n, length, many in zip((i, j), x.shape[2:], size, strict=True)
        )
        values = x[:, :, top:bottom, left:right]
        pairs += values.size if dense else int(np.count_nonzero(values))
    return pairs


def residual_add_coincidences(a: Float32, b: Float32) -> int:
    """Number of places where both inputs are non-zero, the only ones where an addition is needed."""
    return sum(1 for left, right in zip(a.ravel(), b.ravel(), strict=True) if left != 0 and right != 0)


class _Pairs:
    """Sums over (input, synapse) pairs."""

    def __init__(self, kind: str, dense: bool) -> None:
        if kind not in {"binary", "graded", "real"}:
            raise ValueError(f"kind {kind!r}; one of binary, graded, real")
        if dense and kind != "real":
            raise ValueError(f"dense counts are for real inputs, not {kind}")
        self.kind, self.dense = kind, dense
        self.pairs = 0
        self.units = 0.0

    def add(self, value: np.float32, synapses: int) -> None:
        """Count an input that has so many synapses."""
        if self.kind == "binary" and value not in {0, 1}:
            raise ValueError(f"{value} in a binary input")
        if value != 0 or self.dense:
            self.pairs += synapses
            self.units += abs(float(value)) * synapses

    def result(self) -> Counts:
        counts = {"acs": 0, "graded_macs": 0, "graded_acs": 0, "macs": 0}
        if self.kind == "binary":
            counts["acs"] = self.pairs
        elif self.kind == "graded":
            if not self.units.is_integer():
                raise ValueError(f"graded inputs add up to {self.units}, which is not whole")
            counts["graded_macs"], counts["graded_acs"] = self.pairs, int(self.units)
        else:
            counts["macs"] = self.pairs
        return counts
