"""Tables of attention scores: what is done with scores one by one, before the values.

The scores of spikes are whole numbers from 0 to the channels of a head. So whatever is made of each alone is a table, and
PyTorch itself fills it in: every operation is done again on a tensor that holds each score once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from eventsim.layers import TableAttention
from eventsim.untrusted import first_line
from eventsim_importers.torch_program.axes import Atom, AxesError, Dims, find, joined, reshaped, same, size_of
from eventsim_importers.torch_program.recorder import RETYPED, Node, Ref, leaves, mapped
from eventsim_importers.torch_program.unrolled import Earlier
from eventsim_importers.torch_program.values import Held, Scores, Tabled

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation

LOOKUPS = {"__getitem__": 0, "take": 0, "gather": 0, "embedding": 1}
"""Operations that read a table, and where it stands among their arguments."""
ONE_BY_ONE = (
    RETYPED, "to", "type", "long", "int", "short", "bool", "double", "round", "floor", "ceil", "trunc", "abs", "neg",
    "clamp", "clip", "clamp_min", "clamp_max", "minimum", "maximum", "add", "sub", "rsub", "mul", "div", "pow",
    "square", "sqrt", "exp", "exp2", "log1p", "sigmoid", "tanh", "relu", "threshold", "heaviside", "remainder", "ge",
    "gt", "le", "lt", "eq", "ne", "logical_and", "logical_or", "logical_not", "bitwise_right_shift",
    "bitwise_left_shift", "where", "masked_fill", "bucketize",
)  # fmt: skip
"""Operations whose every result depends on one score alone."""
SPELLED = {
    "truediv": "div", "rtruediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub",
    "negative": "neg", "absolute": "abs", "invert": "logical_not", "and": "logical_and", "or": "logical_or",
    "rshift": "bitwise_right_shift", "lshift": "bitwise_left_shift", "greater_equal": "ge", "greater": "gt",
    "less_equal": "le", "less": "lt", "rpow": "pow", "radd": "add", "rmul": "mul", "iadd": "add", "imul": "mul",
    "isub": "sub", "itruediv": "div",
}  # fmt: skip
PASSED = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "dropout")
"""Operations that leave scores what they are."""
SMALLEST_UNIT = 2.0**-20
"""Of which entries may be multiples, to be integers times a scale."""


def _plainly(operation: str) -> str:
    """Return the name of an operation without its spelling as an operator, or in place."""
    word = operation.strip("_")
    return SPELLED.get(word, word)


def tabulates(at: Translation, node: Node) -> bool:
    """Tell whether an operation makes something of each score, other than what attentions have without a table."""
    held = [at.held.get(ref) for ref in node.refs if not isinstance(ref, Earlier)]
    if not any(isinstance(each, Scores | Tabled) for each in held):
        return False
    if node.operation in LOOKUPS:
        return isinstance(at.plain(node, LOOKUPS[node.operation], "weight", None), torch.Tensor)
    word = _plainly(node.operation)
    if word in ("mul", "div") and len(node.refs) == 1 and _is_positive_number(node):
        return any(isinstance(each, Tabled) and not _whole(each.entries) for each in held)
    return word in ONE_BY_ONE or node.operation in ONE_BY_ONE


def _is_positive_number(node: Node) -> bool:
    """Tell whether scores are multiplied with, or divided by, one number, in no rounding way."""
    numbers = [each for each in leaves(node.arguments[:2]) if not isinstance(each, Ref)]
    one = len(numbers) == 1 and (not isinstance(numbers[0], torch.Tensor) or numbers[0].numel() == 1)
    turned = _plainly(node.operation) == "div" and not isinstance(node.arguments[0], Ref)
    return one and float(numbers[0]) > 0 and not node.keywords and not turned


def _whole(entries: torch.Tensor) -> bool:
    numbers = entries.double()
    return bool(torch.isfinite(numbers).all() and (numbers == numbers.round()).all()) and entries.dtype != torch.bool


def tabulate(at: Translation, node: Node) -> Held:
    """Return what an operation makes of each score."""
    helds = [at.held.get(ref) for ref in node.refs]
    given = [each for each in helds if isinstance(each, Scores | Tabled)]
    if len(given) != len(helds):
        raise AxesError("attention scores with a signal found; expected numbers")
    of = [each.scores if isinstance(each, Tabled) else each for each in given]
    first = of[0]
    if any((each.q, each.k) != (first.q, first.k) for each in of) or any(
        not same(each.dims, given[0].dims) for each in given
    ):
        raise AxesError("scores of other queries and keys, or in another shape, found; expected the same")
    _check(at, first)
    dims = given[0].dims
    probes = {ref: _spread(_entries(at, each), dims, first.heads) for ref, each in zip(node.refs, given, strict=True)}
    table = LOOKUPS.get(node.operation)
    arguments, keywords = [], {}
    axis = int(at.plain(node, 1, "dim", 0)) if node.operation == "gather" else None
    for index, each in enumerate(node.arguments):
        if index == table and axis is not None:
            arguments.append(_narrowed(each, dims, first.heads, axis % len(dims)))
        elif index == table:
            arguments.append(each)
        else:
            arguments.append(mapped(each, lambda x: _narrowed(x, dims, first.heads), lambda ref: probes[ref].clone()))
    for key, value in node.keywords.items():
        keywords[key] = mapped(value, lambda x: _narrowed(x, dims, first.heads), lambda ref: probes[ref].clone())
    assert node.function is not None
    try:
        made = node.function(*arguments, **keywords)
    except (IndexError, RuntimeError, TypeError) as error:
        entries = size_of(_channels(at, first))
        raise AxesError(
            f"what fails for scores from 0 to {entries} ({first_line(error)}) found; expected a value for each"
        ) from None
    if node.operation == "embedding" and made.shape[-1] == 1:
        dims, made = (*dims, ()), made[..., 0]
    shape = tuple(probes[node.refs[0]].shape)
    if tuple(map(size_of, dims)) != node.shapes[0] or np.broadcast_shapes(tuple(made.shape), shape) != shape:
        raise AxesError(f"a result of shape {node.shapes[0]} found; expected one number for each score")
    head = _head_axis(given[0].dims)
    spread = made.broadcast_to(shape)
    entries = spread.movedim(head, 0) if head is not None else spread[None]
    return Tabled(first, entries.reshape(first.heads, shape[-1]), dims)


def _check(at: Translation, scores: Scores) -> None:
    """Refuse scores that are no whole numbers."""
    kinds = [at.kind(each) for each in (scores.q, scores.k)]
    if any(kind.kind != "binary" for kind in kinds) or scores.q.complement or scores.k.complement:
        raise AxesError(f"a table of scores of {kinds[0]} and {kinds[1]} found; expected spikes, so that each is whole")
    if scores.softmax:
        raise AxesError("a function behind the softmax found; expected values")
    if find((scores.dims[-1],), "time"):
        raise AxesError("a table of scores among time steps found; expected tokens")


def _channels(at: Translation, scores: Scores) -> tuple[Atom, ...]:
    """Return the channels of a head."""
    return (Atom("channel", 1, at.kind(scores.q).channels // scores.heads),)


def _entries(at: Translation, held: Scores | Tabled) -> torch.Tensor:
    """Return what there is for each score so far."""
    if isinstance(held, Tabled):
        return held.entries * held.scale if held.scale != 1 else held.entries
    found = torch.arange(size_of(_channels(at, held)) + 1, dtype=torch.float32).expand(held.heads, -1)
    for node in held.scaled_by:
        assert node.function is not None
        arguments, keywords = mapped((node.arguments, node.keywords), lambda x: x.reshape(()), lambda _: found.clone())
        found = node.function(*arguments, **keywords)
    return found


def _head_axis(dims: Dims) -> int | None:
    axes = find(dims, "channel")
    if len(axes) > 1 or (axes and any(atom.of != "channel" for atom in dims[axes[0]])):
        raise AxesError("heads joined with other axes found; expected an axis of heads")
    return axes[0] if axes else None


def _spread(entries: torch.Tensor, dims: Dims, heads: int) -> torch.Tensor:
    """Return a tensor with the axes of the scores that holds each score once, in the place of the keys."""
    shape = [1] * len(dims)
    head = _head_axis(dims)
    if head is not None:
        shape[head] = heads
    shape[-1] = entries.shape[-1]
    return entries.reshape(shape)


def _narrowed(given: torch.Tensor, dims: Dims, heads: int, kept: int | None = None) -> torch.Tensor:
    """Return numbers of the module's own without the axes along which they are all the same; but for that of heads."""
    head = _head_axis(dims)
    for axis in range(given.ndim):
        place = len(dims) - given.ndim + axis
        if given.shape[axis] == 1 or place == kept or (place == head and given.shape[axis] == heads):
            continue
        first = given.narrow(axis, 0, 1)
        if not bool((given == first).all()):
            raise AxesError(
                f"numbers of shape {tuple(given.shape)} that differ among scores found; expected one, or one for each "
                "head"
            )
        given = first
    return given


def attention(held: Tabled) -> TableAttention:
    """Return the attention whose scores go through a table.

    Raises
    ------
    AxesError
        If its entries are no integers times one number.
    """
    entries = held.entries.double().numpy()
    unit = 1.0
    while np.isfinite(entries).all() and (entries != np.rint(entries)).any() and unit > SMALLEST_UNIT:
        entries, unit = entries * 2, unit / 2
    if not np.isfinite(entries).all() or (entries != np.rint(entries)).any():
        head, score = np.argwhere(entries != np.rint(entries))[0]
        raise AxesError(
            f"{held.entries[head, score].item():g} in the place of a score of {score} found; expected integers, or "
            "multiples of one power of two (round what is made of the scores)"
        )
    return TableAttention(entries.astype(np.int64), held.scale * unit)


def reshaped_scores(held: Scores | Tabled, shape: Sequence[int]) -> Scores | Tabled:
    """Return scores in another shape, of which the last axes are those of queries and keys."""
    before = held.scores.dims if isinstance(held, Tabled) else held.dims
    if math.prod(shape) != math.prod(map(size_of, held.dims)):
        raise AxesError("attention scores in another shape found; expected them as they are")
    dims = reshaped(held.dims, shape)
    last = dims[:-1] if len(dims) > 2 and not dims[-1] and dims[-3:-1] == before[-2:] else dims
    if len(last) < 2 or [joined(dim) for dim in last[-2:]] != [joined(dim) for dim in before[-2:]]:
        raise AxesError("attention scores in another shape found; expected queries and keys as their last axes")
    return held.along(dims)
