"""Queries, keys and values: products of matrices, scale and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch

from eventsim.layers import (
    Activation,
    Concat,
    Flatten,
    GlobalContext,
    Layer,
    Linear,
    Reshape,
    SelectChannels,
    SoftmaxAttention,
    SpikingAttention,
)
from eventsim_importers.torch_program.arranging import rearranged
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    Dims,
    find,
    joined,
    same,
    size_of,
    whole,
)
from eventsim_importers.torch_program.operations import synapses, tables, windows
from eventsim_importers.torch_program.recorder import CONTEXT, Node, Ref, leaves
from eventsim_importers.torch_program.values import Contexts, Held, OverTime, PoolWeights, Scores, Tabled, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


T = TypeVar("T", Value, OverTime, Scores, Tabled, Value | OverTime)
MATMULS = ("matmul", "__matmul__", "bmm")


def matmul(at: Translation, node: Node) -> Held:
    """Multiply queries with keys, then with values; or keys with values; any of them transposed; or with weights."""
    a, b = at.operands(node, Scores, Tabled, Contexts, PoolWeights, OverTime)
    return multiplied(at, node, a, b)


def multiplied(at: Translation, node: Node, a: Any, b: Any) -> Held:
    """Return the product of two matrices, which is known when values, or queries, have been multiplied too."""
    if isinstance(a, Value | OverTime) and isinstance(b, torch.Tensor):
        return _with_array(at, node, a, len(a.dims) - 1, b.mT if b.ndim > 1 else b, b)
    if isinstance(a, torch.Tensor) and isinstance(b, Value | OverTime):
        return _with_array(at, node, b, len(b.dims) - 2, a, a)
    if isinstance(a, Scores | Tabled) and isinstance(b, Value | OverTime):
        return _attended_over_time(at, node, a, b)
    if isinstance(a, Value | OverTime) and isinstance(b, Scores | Tabled):  # both transposed: keys come first
        return _turned(_attended_over_time(at, node, _scores_turned(b), _turned(a)))
    a, b = (at.settled(each) if isinstance(each, OverTime) else each for each in (a, b))
    if isinstance(a, Value) and isinstance(b, Contexts):
        return _asked(at, node, a, b.k, b.v, b)
    if isinstance(a, Contexts) and isinstance(b, Value):  # transposed
        return _turned(_asked(at, node, _turned(b), a.v, a.k, a))
    if not (isinstance(a, Value) and isinstance(b, Value)):
        raise AxesError("a product of scores, or of an array, with a matrix found; expected scores and values")
    a, b = _by_heads(at, node, a), _by_heads(at, node, b)
    (heads_a, d_a, p_a), (heads_b, d_b, p_b) = _head_axes(at, a), _head_axes(at, b)
    last = len(a.dims) - 1
    if heads_a != heads_b or not same(a.dims[:-2], b.dims[:-2]):
        raise AxesError("matrices of different heads found; expected the same")
    if (p_a, d_a) == (last - 1, last) and (d_b, p_b) == (last - 1, last):
        return Scores(a, b, (*a.dims[:-1], b.dims[-1]), heads_a)
    if (d_a, p_a) == (last - 1, last) and (p_b, d_b) == (last - 1, last):
        return Contexts(a, b, (*a.dims[:-1], b.dims[-1]), heads_a)
    raise AxesError("a product of matrices along other axes found; expected queries, keys and values of heads")


def _with_array(
    at: Translation, node: Node, held: Value | OverTime, axis: int, array: torch.Tensor, of: torch.Tensor
) -> Value | OverTime:
    """Multiply an axis with an array (outputs, inputs): channels with weights, or steps of time with how they mix."""
    if array.ndim != 2:
        raise AxesError(f"a product with an array of shape {tuple(of.shape)} found; expected weights of two axes")
    matrix = array.detach().float().cpu().numpy()
    if windows.is_time(at, held, axis):
        return windows.mixed_steps(at, node, held, axis, matrix.astype(np.float64))
    last = (*held.dims[:axis], *held.dims[axis + 1 :], held.dims[axis])
    made = synapses.weighted(at, node, held.along(last), matrix, of)
    return made.along((*made.dims[:axis], made.dims[-1], *made.dims[axis:-1]))


def einsum(at: Translation, node: Node) -> Held:
    """Multiply two matrices named by letters: those on both sides and in the result are heads, time and batch."""
    equation = str(node.arguments[0]).replace(" ", "")
    operands = [each for each in leaves(node.arguments[1:]) if isinstance(each, Ref | torch.Tensor)]
    sides, arrow, result = equation.partition("->")
    letters = sides.split(",")
    if len(operands) != 2 or len(letters) != 2 or not arrow or "." in equation:
        raise AxesError(f"{equation} found; expected two matrices and what becomes of them, such as bhid,bhjd->bhij")
    a, b = letters
    summed = "".join(each for each in a if each in b and each not in result)
    left = "".join(each for each in a if each not in b and each in result)
    right = "".join(each for each in b if each not in a and each in result)
    shared = [each for each in a if each in b and each in result]
    expected = sorted([*shared, *shared, summed, summed, left, right])
    if any(isinstance(each, torch.Tensor) for each in operands):
        return _with_array_by_letters(at, node, operands, letters, result, equation)
    if not len(summed) == len(left) == len(right) == 1 or sorted(a + b) != expected:
        raise AxesError(f"{equation} found; expected one axis summed over, and one of each matrix left")
    held = []
    for ref, given, order in ((operands[0], a, [*shared, left, summed]), (operands[1], b, [*shared, summed, right])):
        if not isinstance(ref, Ref):
            raise AxesError(f"{equation} of an array found; expected two signals")
        each = at.held[ref]
        each = at.settled(each) if isinstance(each, OverTime) else each
        moved = [given.index(letter) for letter in order]
        if not isinstance(each, Value) and moved != list(range(len(moved))):
            raise AxesError(f"{equation} of attention scores found; expected their axes in their order")
        held.append(each.along(tuple(each.dims[axis] for axis in moved)) if isinstance(each, Value) else each)
    made = multiplied(at, node, held[0], held[1])
    back = [[*shared, left, right].index(letter) for letter in result]
    if isinstance(made, Value):
        return made.along(tuple(made.dims[axis] for axis in back))
    if back != list(range(len(back))):
        raise AxesError(f"{equation} found; expected attention scores with queries before keys")
    return made


def _with_array_by_letters(
    at: Translation, node: Node, operands: Sequence[Any], letters: Sequence[str], result: str, equation: str
) -> Value | OverTime:
    first = isinstance(operands[0], torch.Tensor)
    (of, ref), (given, signal) = (operands, letters) if first else (operands[::-1], letters[::-1])
    summed = [letter for letter in given if letter in signal and letter not in result]
    left = [letter for letter in given if letter not in signal and letter in result]
    whole = len(given) == 2 and len(summed) == len(left) == 1
    if not whole or sorted(result) != sorted(signal.replace(summed[0], left[0])) or not isinstance(ref, Ref):
        raise AxesError(f"{equation} of an array found; expected weights of two axes, one of them summed over")
    array = of if given == left[0] + summed[0] else of.mT
    made = _with_array(at, node, at.loose(ref, node), signal.index(summed[0]), array, of)
    order = [signal.replace(summed[0], left[0]).index(letter) for letter in result]
    return made.along(tuple(made.dims[axis] for axis in order))


def _turned(value: T) -> T:
    """Return a value with its last two axes in the other order."""
    return value.along((*value.dims[:-2], value.dims[-1], value.dims[-2]))


def _scores_turned(held: Scores | Tabled) -> Scores | Tabled:
    """Return scores with keys before queries, which are then the queries."""
    if isinstance(held, Tabled):
        return _turned(replace(held, scores=cast(Scores, _scores_turned(held.scores))))
    if held.softmax:
        raise AxesError("a softmax over queries found; expected one over keys")
    return _turned(replace(held, q=_turned(held.k), k=_turned(held.q)))


def _asked(at: Translation, node: Node, q: Value, k: Value, v: Value, contexts: Contexts) -> Value:
    """Add the attention of queries to a context; axes of the result are tokens, channels of a head."""
    q = _by_heads(at, node, q)
    heads, d, token = _head_axes(at, q)
    last = len(q.dims) - 1
    if (token, d) != (last - 1, last) or heads != contexts.heads or not same(q.dims[:-2], contexts.dims[:-2]):
        raise AxesError("queries with other axes than the context found; expected tokens, channels of a head")
    layer = SpikingAttention(heads, contexts.scale, "context_first")
    _, d_v, _ = _head_axes(at, v)
    return Value(at.add(node.path or "attention", layer, q, k, v), (*q.dims[:-1], v.dims[d_v]))


def _by_heads(at: Translation, node: Node, value: Value) -> Value:
    """Return a value whose axes before the last two are its heads: windows of tokens, or rows, are heads too.

    Tokens of different windows do not meet, as channels of different heads do not.
    """
    try:
        _head_axes(at, value)
    except AxesError:
        last = (len(value.dims) - 2, len(value.dims) - 1)
        of = [{atom.of for atom in value.dims[axis]} for axis in last]
        if {"channel"} not in of or of not in ([{"channel"}, {"position"}], [{"position"}, {"channel"}]):
            raise
        d = last[of.index({"channel"})]
        front = [axis for axis in range(last[0]) if any(atom.of != "time" for atom in value.dims[axis])]
        return rearranged(at, node, value, (*front, d), (sum(last) - d,))
    return value


def _head_axes(at: Translation, value: Value) -> tuple[int, int, int]:
    """Return the number of heads, and which axes hold the channels of a head and the positions."""
    kind = at.kind(value)
    last = range(len(value.dims) - 2, len(value.dims))
    channels = [axis for axis in last if any(atom.of == "channel" for atom in value.dims[axis])]
    d = channels[0] if channels else last[1]
    inner, (token,) = joined(value.dims[d]), [axis for axis in last if axis != d]
    tokens = (whole("position", kind.positions), whole("time", at.time_steps))
    if len(channels) > 1 or joined(value.dims[token]) not in map(joined, tokens):
        raise AxesError(f"axes of {kind} found; expected heads, tokens and the channels of each head")
    size = size_of(inner)
    if inner != joined(whole("channel", size)):
        raise AxesError(f"channels of {kind} in another order found; expected neighbours in each head")
    before = joined(*(tuple(atom for atom in dim if atom.of == "channel") for dim in value.dims[: len(value.dims) - 2]))
    heads = kind.channels // size
    if before != (joined((Atom("channel", size, heads),)) if heads > 1 else ()):
        raise AxesError(f"heads of {kind} in another order found; expected one behind the other")
    return heads, d, token


def _of_values(at: Translation, dims: Dims, v: Value) -> Dims:
    """Return the axes of queries with the channels of values."""
    return (*v.dims[:-2], dims[-2], v.dims[-1])


def _attended_over_time(at: Translation, node: Node, scores: Scores | Tabled, v: Value | OverTime) -> Value | OverTime:
    """Add an attention; one for each time step that the values are a sum of."""
    if isinstance(v, OverTime) and not (isinstance(scores, Scores) and scores.softmax):
        name = node.path or "attention"
        made = windows.attended(at, node, lambda name, v: _attended(at, node, scores, v, name), name, v)
        if made is not None:
            return made
    return _attended(at, node, scores, at.settled(v))


def _attended(at: Translation, node: Node, held: Scores | Tabled, v: Value, name: str = "") -> Value:
    scores = held.scores if isinstance(held, Tabled) else held
    v = _by_heads(at, node, v)
    heads, d, position = _head_axes(at, v)
    if (
        (position, d) != (len(v.dims) - 2, len(v.dims) - 1)
        or heads != scores.heads
        or not same(v.dims[:-2], held.dims[:-2])
    ):
        raise AxesError("values with other axes than the scores found; expected tokens, channels of a head")
    name = name or node.path or "attention"
    if scores.softmax:
        return Value(_softmax(at, name, scores, v), _of_values(at, scores.q.dims, v))
    if find((v.dims[-2],), "time"):
        raise AxesError("attention among time steps without softmax found; expected tokens")
    attend: Layer = SpikingAttention(heads, scores.scale, "scores_first")
    if isinstance(held, Tabled):
        attend = tables.attention(held)
    layer = at.add(name, attend, scores.q, scores.k, v)
    return Value(layer, _of_values(at, scores.q.dims, v))


def _softmax(at: Translation, name: str, scores: Scores, v: Value) -> str:
    three = _of_one(at, (scores.q, scores.k, v))
    if three is None:
        three = scores.q
        for index, each in enumerate((scores.k, v)):
            joint = at.add(f"{name}.qkv{index}", Concat(), three, each)
            three = Value(joint, v.dims)
    over_time = bool(find((v.dims[-2],), "time"))
    layer = SoftmaxAttention(
        scores.heads, "time" if over_time else "space", at.time_steps if over_time else None, scores.scale
    )
    return at.add(name, layer, three)


def _of_one(at: Translation, parts: tuple[Value, Value, Value]) -> Value | None:
    """Return what queries, keys and values are the first, second and last third of, if they are."""
    layers = [at.build.layers.get(each.layer) for each in parts]
    if any(each.delay or each.complement for each in parts):
        return None
    chosen = [layer.indices for layer in layers if isinstance(layer, SelectChannels)]
    heard = {at.source_of(each.layer) for each, layer in zip(parts, layers, strict=True) if layer}
    if len(chosen) != 3 or len(heard) != 1:
        return None
    ((source, delay),) = heard
    whole_of_it = Value(source, (), delay)
    everything = np.concatenate(chosen)
    return whole_of_it if np.array_equal(everything, np.arange(at.kind(whole_of_it).channels)) else None


def softmax(at: Translation, node: Node) -> Held:
    """Add the softmax of attention scores, or of one score for each position."""
    held = at.held[node.refs[0]]
    dim = at.plain(node, 1, "dim", -1)
    held = at.settled(held) if isinstance(held, OverTime) else held
    if isinstance(held, Value):
        return _softmax_of_positions(at, node, held, dim % len(held.dims))
    if not isinstance(held, Scores) or dim % len(held.dims) != len(held.dims) - 1:
        raise AxesError("a softmax that is not of attention scores, over keys, found; expected that")
    return replace(held, softmax=True)


def _softmax_of_positions(at: Translation, node: Node, value: Value, axis: int) -> Held:
    kind = at.kind(value)
    if kind.channels == 1 and joined(value.dims[axis]) == joined(whole("position", kind.positions)):
        name = at.named(node, "softmax")
        vector = at.add(f"{name}.flatten", Flatten(), value)
        weights = at.add(name, Activation("softmax"), Value(vector, ()))
        shape = (1, *kind.grid) if len(kind.grid) == 2 else (*kind.grid, 1)
        return Value(at.add(f"{name}.reshape", Reshape(shape), Value(weights, ())), value.dims)
    everything = sorted(joined(value.dims[axis]), key=lambda atom: atom.of)
    layer = at.build.layers[value.layer]
    if (
        kind.channels == 1
        and isinstance(layer, Linear)
        and everything
        == [
            *whole("position", kind.positions),
            *whole("time", at.time_steps),
        ]
    ):
        source, delay = at.source_of(value.layer)
        at.take_back(value)  # a bias of the scores cancels
        channels = whole("channel", at.build.types[source].channels)
        dims = (*value.dims[:axis], value.dims[axis], channels)
        return PoolWeights(Value(source, dims, delay), np.ascontiguousarray(layer.weight[0]), dims)
    if joined(value.dims[axis]) == joined(whole("channel", kind.channels)):
        return Value(at.add(at.named(node, "softmax"), Activation("softmax"), value), value.dims)
    raise AxesError(f"a softmax over an axis of {kind} found; expected keys, positions of one score each, or channels")


def scaled_dot_product_attention(at: Translation, node: Node) -> Held:
    """Add pyTorch's own attention."""
    q, k, v = (at.value(node, index, word) for index, word in enumerate(("query", "key", "value")))
    if at.plain(node, 3, "attn_mask", None) is not None or at.plain(node, 5, "is_causal", False):
        raise AxesError("a mask found; expected attention among all")
    q, k = _by_heads(at, node, q), _by_heads(at, node, k)
    heads, d, _ = _head_axes(at, q)
    scale = at.plain(node, 6, "scale", node.keywords.get("scale"))
    factor = size_of(q.dims[d]) ** -0.5 if scale is None else float(scale)
    scores = Scores(q, _turned(k), (*q.dims[:-1], k.dims[-2]), heads, factor, softmax=True)
    return _attended(at, node, scores, v)


def scaled(held: Scores | Tabled | Contexts, factor: float, node: Node) -> Scores | Tabled | Contexts:
    """Return scores, what a table makes of them, or contexts, times a factor."""
    if isinstance(held, Tabled):
        return replace(held, scale=held.scale * factor)
    if isinstance(held, Scores):
        if held.softmax:
            raise AxesError("a factor behind the softmax found; expected it before")
        return replace(held, scale=held.scale * factor, scaled_by=(*held.scaled_by, node))
    return Contexts(held.k, held.v, held.dims, held.heads, held.scale * factor)


def number_of(value: Any) -> float:
    """Return a factor of attention scores as a number."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise AxesError(f"attention scores times an array of shape {tuple(value.shape)} found; expected one number")
        return float(value)
    return float(value)


def context(at: Translation, node: Node) -> Held:
    """Add a global context, of which `written.contexts` has found the parts."""
    value = at.map_of(node)
    arrays = {
        name: given.detach().float().cpu().numpy() for name, given in node.keywords.items() if hasattr(given, "detach")
    }
    rows = {name: np.ascontiguousarray(array.reshape(array.shape[0], -1)) for name, array in arrays.items()}
    hidden, channels = rows["value_weight"].shape
    zeros = {"key_bias": 1, "value_bias": hidden, "query_bias": channels}
    layer = GlobalContext(
        key_weight=rows.pop("key_weight")[0],
        value_weight=rows.pop("value_weight"),
        query_weight=rows.pop("query_weight"),
        **{name: np.zeros(size, np.float32) for name, size in zeros.items() if name not in rows},
        **{name: array.reshape(-1) for name, array in rows.items()},
        normalisation=node.keywords["normalisation"],
        combination=node.keywords["combination"],
        eps=float(node.keywords["eps"]),
    )
    return Value(at.add(node.path or "context", layer, value), value.dims)


OPERATIONS = {
    CONTEXT: context,
    **dict.fromkeys(MATMULS, matmul),
    "softmax": softmax,
    "einsum": einsum,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
