"""Tables of attention scores: what is made of each score alone, before the values.

The scores of spikes are whole numbers from 0 to the channels of a head. So whatever is made of each alone is a table,
and PyTorch itself fills it in: every operation is done again on a tensor that holds each score once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from eventsim.layers import TableAttention
from eventsim.untrusted import first_line
from eventsim_importers.torch_program.axes import Atom, AxesError, Dims, find, reshaped, same, size_of
from eventsim_importers.torch_program.one_step import Earlier
from eventsim_importers.torch_program.recorder import RETYPED, Node, Ref, leaves, mapped
from eventsim_importers.torch_program.values import Held, Scores, Tabled

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation

LOOKUPS = {"__getitem__": 0, "take": 0, "gather": 0, "embedding": 1, "bucketize": 1}
"""Operations that read a table, and where it stands among their arguments."""
ONE_BY_ONE = (
    RETYPED, "to", "type", "long", "int", "short", "bool", "double", "round", "floor", "ceil", "trunc", "abs", "neg",
    "clamp", "clip", "clamp_min", "clamp_max", "minimum", "maximum", "add", "sub", "rsub", "mul", "div", "pow",
    "square", "sqrt", "exp", "exp2", "log1p", "sigmoid", "tanh", "relu", "remainder", "ge", "gt", "le", "lt", "eq",
    "ne", "logical_and", "logical_or", "logical_not", "bitwise_right_shift", "bitwise_left_shift", "where",
    "masked_fill",
)  # fmt: skip
"""Operations whose every result depends on one score alone."""
SPELLED = {
    "truediv": "div", "rtruediv": "div", "rdiv": "div", "true_divide": "div", "divide": "div", "multiply": "mul",
    "subtract": "sub", "negative": "neg", "absolute": "abs", "invert": "logical_not", "and": "logical_and",
    "or": "logical_or", "rshift": "bitwise_right_shift", "lshift": "bitwise_left_shift", "greater_equal": "ge",
    "greater": "gt", "less_equal": "le", "less": "lt", "rpow": "pow", "radd": "add", "rmul": "mul", "iadd": "add",
    "imul": "mul", "isub": "sub", "itruediv": "div",
}  # fmt: skip
OF_HEADS = ("__getitem__", "select", "unbind")
"""Operations that take the scores of one head."""
BESIDE = ("stack", "cat", "concat", "concatenate")
LAID_OUT = (
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "transpose", "permute", "contiguous", "mT",
)  # fmt: skip
"""Operations after which scores are scores."""
SMALLEST_UNIT = 2.0**-20
"""Of which entries may be multiples, to be integers times a scale."""


def of_scores(at: Translation, node: Node) -> Callable[[Translation, Node], Held | Sequence[Held]] | None:
    """Return what translates an operation on scores that attentions without a table do not have; else None."""
    held = [at.held.get(ref) for ref in node.refs if not isinstance(ref, Earlier)]
    if not any(isinstance(each, Scores | Tabled) for each in held):
        return None
    place = LOOKUPS.get(node.operation, len(node.arguments))
    if place < len(node.arguments) and isinstance(node.arguments[place], torch.Tensor):
        return tabulated
    if node.operation in OF_HEADS:
        return one_head
    if node.operation in BESIDE:
        return heads_together
    word = _plainly(node.operation)
    if word in ("mul", "div") and len(node.refs) == 1 and _is_positive_number(node):
        exact = all(isinstance(each, Scores) or _whole(cast(Tabled, each).entries) for each in held)
        return None if exact else tabulated  # a scale of the attention
    return tabulated if word in ONE_BY_ONE or node.operation in ONE_BY_ONE else None


def is_function_of_scores(operation: str) -> bool:
    """Tell whether an operation makes each of its results of one score, or lays scores out otherwise."""
    return operation in (*LOOKUPS, *ONE_BY_ONE, *OF_HEADS, *BESIDE, *LAID_OUT) or _plainly(operation) in ONE_BY_ONE


def _plainly(operation: str) -> str:
    """Return the name of an operation without its spelling as an operator, or in place."""
    word = operation.strip("_")
    return SPELLED.get(word, word)


def _is_positive_number(node: Node) -> bool:
    """Tell whether scores are multiplied with one number, or divided by it, without rounding."""
    numbers = [each for each in leaves(node.arguments[:2]) if not isinstance(each, Ref)]
    one = len(numbers) == 1 and (not isinstance(numbers[0], torch.Tensor) or numbers[0].numel() == 1)
    turned = _plainly(node.operation) == "div" and not isinstance(node.arguments[0], Ref)
    turned = turned or node.operation in ("__rtruediv__", "__rdiv__")
    return one and float(numbers[0]) > 0 and not node.keywords and not turned


def _whole(entries: torch.Tensor) -> bool:
    """Tell whether all entries are integers."""
    numbers = entries.double()
    return bool(torch.isfinite(numbers).all() and (numbers == numbers.round()).all()) and entries.dtype != torch.bool


def begun(at: Translation, held: Scores | Tabled) -> Tabled:
    """Return scores as a table of themselves.

    Raises
    ------
    AxesError
        If they are no whole numbers.
    """
    if isinstance(held, Tabled):
        return replace(held, entries=held.entries * held.scale, scale=1.0) if held.scale != 1 else held
    kinds = [at.kind(each) for each in (held.q, held.k)]
    if any(kind.kind != "binary" for kind in kinds) or held.q.complement or held.k.complement:
        raise AxesError(f"a table of scores of {kinds[0]} and {kinds[1]} found; expected spikes, so that each is whole")
    if held.softmax:
        raise AxesError("a function behind the softmax found; expected values")
    if find((held.dims[-1],), "time"):
        raise AxesError("a table of scores among time steps found; expected tokens")
    found = torch.arange(kinds[0].channels // held.heads + 1, dtype=torch.float32).expand(held.heads, -1)
    for node in held.scaled_by:
        found = _done(node, node.arguments, node.keywords, dict.fromkeys(node.refs, found), lambda x: x.reshape(()))
    return Tabled(held, found, tuple(range(held.heads)), held.dims)


def _done(
    node: Node,
    arguments: Any,
    keywords: Any,
    entries: dict[Ref, torch.Tensor],
    narrowed: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Do an operation again, on other scores."""
    assert node.function is not None
    arguments, keywords = mapped((arguments, keywords), narrowed, lambda ref: entries[ref].clone())
    return cast(torch.Tensor, node.function(*arguments, **keywords))


def tabulated(at: Translation, node: Node) -> Held:
    """Return what an operation makes of each score."""
    given = _tables(at, node)
    one = given[0]
    if any(each.heads != one.heads or not same(each.dims, one.dims) for each in given):
        raise AxesError("scores of other heads, or in another shape, found; expected the same")
    dims = one.dims
    head = _head_axis(one)
    probes = {ref: _spread(each, head) for ref, each in zip(node.refs, given, strict=True)}
    shape = tuple(probes[node.refs[0]].shape)
    table = LOOKUPS.get(node.operation)
    kept = int(at.plain(node, 1, "dim", 0)) % len(dims) if node.operation == "gather" else None
    alike = partial(_narrowed, rank=len(dims), head=head, heads=len(one.heads))
    arguments = [
        alike(each, kept=kept) if index == table and kept is not None else mapped(each, alike)
        for index, each in enumerate(node.arguments)
        if index != table or kept is not None
    ]
    if table is not None and kept is None:
        arguments.insert(table, node.arguments[table])
    try:
        made = _done(node, tuple(arguments), mapped(node.keywords, alike), probes, lambda x: x)
    except (IndexError, RuntimeError, TypeError) as error:
        raise AxesError(
            f"what fails for scores from 0 to {shape[-1] - 1} ({first_line(error)}) found; expected a value for each"
        ) from None
    if node.operation == "embedding" and made.shape[-1] == 1:
        dims, made = (*dims, ()), made[..., 0]
    if tuple(map(size_of, dims)) != node.shapes[0] or np.broadcast_shapes(tuple(made.shape), shape) != shape:
        raise AxesError(f"a result of shape {node.shapes[0]} found; expected one number for each score")
    spread = made.broadcast_to(shape)
    rows = (spread.movedim(head, 0) if head is not None else spread).reshape(-1, shape[-1])
    return Tabled(one.scores, rows.expand(len(one.heads), -1), one.heads, dims)


def _tables(at: Translation, node: Node) -> list[Tabled]:
    """Return the tables that an operation reads, of the same scores."""
    helds = [at.held.get(ref) for ref in node.refs]
    given = [begun(at, each) for each in helds if isinstance(each, Scores | Tabled)]
    if len(given) != len(helds):
        raise AxesError("attention scores with a signal found; expected numbers")
    first = given[0].scores
    if any((each.scores.q, each.scores.k) != (first.q, first.k) for each in given):
        raise AxesError("scores of other queries and keys found; expected the same")
    return given


def _head_axis(held: Tabled) -> int | None:
    """Return the axis of heads, if there is one that holds nothing else."""
    axes = find(held.dims, "channel")
    if len(axes) == 1 and all(atom.of == "channel" for atom in held.dims[axes[0]]):
        return axes[0]
    if axes and not bool((held.entries == held.entries[:1]).all()):
        raise AxesError("heads of different tables joined with other axes found; expected an axis of heads")
    return None


def _spread(held: Tabled, head: int | None) -> torch.Tensor:
    """Return a tensor with the axes of the scores that holds each score once, in the place of the keys."""
    shape = [1] * len(held.dims)
    entries = held.entries if head is not None else held.entries[:1]
    if head is not None:
        shape[head] = len(held.heads)
    shape[-1] = entries.shape[-1]
    return entries.reshape(shape)


def _narrowed(given: torch.Tensor, rank: int, head: int | None, heads: int, kept: int | None = None) -> torch.Tensor:
    """Return numbers of the module's own without axes along which all are the same, but for that of heads."""
    for axis in range(given.ndim):
        place = rank - given.ndim + axis
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


# --- axes


def one_head(at: Translation, node: Node) -> Held | Sequence[Held]:
    """Return the scores of one head, or of each; or without an axis of size 1."""
    (held,) = _tables(at, node)
    place, chosen = _picked(at, node, len(held.dims))
    dims = (*held.dims[:place], *held.dims[place + 1 :])
    if chosen in (0, -1) and not held.dims[place]:
        return held.along(dims)
    count = len(held.heads)
    numbers = list(range(count)) if node.operation == "unbind" else [chosen % count] if chosen is not None else []
    if place != _head_axis(held) or not numbers:
        raise AxesError("a part of attention scores found; expected all, or those of one head")
    found = [
        replace(held, entries=held.entries[number : number + 1], heads=(held.heads[number],), dims=dims)
        for number in numbers
    ]
    return found if node.operation == "unbind" else found[0]


def _picked(at: Translation, node: Node, rank: int) -> tuple[int, int | None]:
    """Return the axis of which an index takes one, and which."""
    if node.operation != "__getitem__":
        return int(at.plain(node, 1, "dim", 0)) % rank, at.plain(node, 2, "index", None)
    index = node.arguments[1]
    given = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in given:
        dots = given.index(Ellipsis)
        given[dots : dots + 1] = [slice(None)] * (rank + 1 - len(given))
    chosen = [(axis, each) for axis, each in enumerate(given) if each != slice(None)]
    if len(chosen) != 1 or type(chosen[0][1]) is not int:
        raise AxesError("a part of attention scores found; expected all, or those of one head")
    return chosen[0]


def heads_together(at: Translation, node: Node) -> Held:
    """Return the scores of all heads, one behind the other."""
    given = _tables(at, node)
    new = node.operation == "stack"
    axis = int(at.plain(node, 1, "dim", 0)) % len(node.shapes[0])
    one = given[0]
    heads = tuple(head for each in given for head in each.heads)
    listed = len(node.arguments[0]) == len(node.refs)
    alike = all(same(each.dims, one.dims) and len(each.heads) == 1 for each in given)
    if not listed or not alike or heads != tuple(range(one.scores.heads)) or not (new or not one.dims[axis]):
        raise AxesError("attention scores side by side found; expected those of all heads, each once, in their order")
    rest = one.dims if new else (*one.dims[:axis], *one.dims[axis + 1 :])
    width = at.kind(one.scores.q).channels // len(heads)
    dims = (*rest[:axis], (Atom("channel", width, len(heads)),), *rest[axis:])
    return Tabled(one.scores, torch.cat([each.entries for each in given]), heads, dims)


def reshaped_scores(held: Scores | Tabled, shape: Sequence[int]) -> Scores | Tabled:
    """Return scores in another shape, of which the last axes are those of queries and keys."""
    before = held.scores.dims if isinstance(held, Tabled) else held.dims
    words = "attention scores in another shape found; expected queries and keys as their last axes"
    if math.prod(shape) != math.prod(map(size_of, held.dims)):
        raise AxesError(words)
    dims = reshaped(held.dims, shape)

    def ends(last: Dims) -> bool:
        return len(last) > 1 and same(last[-2:], before[-2:])

    if not (ends(dims) or (dims and not dims[-1] and ends(dims[:-1]))):
        raise AxesError(words)
    return held.along(dims)


# --- what it becomes


def attention(held: Tabled) -> TableAttention:
    """Return the attention whose scores go through a table.

    Raises
    ------
    AxesError
        If its entries are no integers times one number.
    """
    if held.heads != tuple(range(held.scores.heads)):
        raise AxesError(f"a table of head {held.heads[0]} alone found; expected all heads")
    entries = held.entries.double().numpy()
    unit = 1.0
    while np.isfinite(entries).all() and (entries != np.rint(entries)).any() and unit > SMALLEST_UNIT:
        entries, unit = entries * 2, unit / 2
    if not np.isfinite(entries).all() or (entries != np.rint(entries)).any():
        head, score = np.argwhere(~(entries == np.rint(entries)) | ~np.isfinite(entries))[0]
        raise AxesError(
            f"{held.entries[head, score].item():g} in the place of a score of {score} found; expected integers, or "
            "multiples of one power of two (round what is made of the scores)"
        )
    return TableAttention(entries.astype(np.int64), held.scale * unit)
