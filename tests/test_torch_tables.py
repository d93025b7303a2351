"""Tables of attention scores as PyTorch authors write them: lookups, and functions of each score alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference.table_attention import table_attention_counts
from test_torch_operations import heads, merged
from torch_between import C, F, N, T, Work, compared, example_of
from torch_oracle import torch

from eventsim import InputError, Simulator
from eventsim.layers import TableAttention
from eventsim_importers.torch_program.operations import tables

ONE = [0, 0, 3, -1, 2]
TWO = [ONE, [0, 1, 0, 4, -5]]
PARTS = {"table": torch.tensor(ONE), "tables": torch.tensor(TWO)}
D = C // 2
Scored = Any
"""A function (module, scores) of scores (T, 1, heads, N, N)."""


def attended(work: Scored, m: Any, s: Any, t: Any) -> Any:
    return merged(work(m, heads(s) @ heads(t).mT) @ heads(t))


def table_of(work: Scored) -> tuple[list[list[int]], float]:
    """Return table and scale of the network, which equals PyTorch."""
    network = compared(lambda m, s, t: attended(work, m, s, t), **PARTS)
    (layer,) = (layer for layer in network.layers.values() if isinstance(layer, TableAttention))
    return layer.table.tolist(), layer.scale


def embedded(m: Any, x: Any) -> Any:
    return F.embedding(x.long(), m.table.float().view(-1, 1))


def of_each_head(m: Any, x: Any) -> Any:
    return torch.stack([m.tables[head].float()[each.int()] for head, each in enumerate(x.unbind(2))], 2)


def in_one_batch(m: Any, x: Any) -> Any:
    head = torch.arange(2).view(-1, 1, 1)
    return m.tables.float()[head, x.flatten(0, 1).long()].unflatten(0, (T, 1))


LOOKUPS: dict[str, tuple[Scored, Any]] = {
    "__getitem__": (lambda m, x: m.table[x.long()].float(), ONE),
    "__getitem__ by head": (lambda m, x: m.tables[torch.arange(2).view(-1, 1, 1), x.long()].float(), TWO),
    "take": (lambda m, x: torch.take(m.table, x.long()).to(torch.float32), ONE),
    "gather": (lambda m, x: m.tables.view(1, 1, 2, 1, 5).expand(T, 1, 2, N, 5).gather(-1, x.long()).float(), TWO),
    "embedding": (lambda m, x: embedded(m, x).squeeze(-1), ONE),
    "embedding, first": (lambda m, x: embedded(m, x)[..., 0], ONE),
    "bucketize": (lambda m, x: torch.bucketize(x, torch.tensor([0.5, 2.5])).float(), [0, 1, 1, 2, 2]),
    "unbind, stack": (of_each_head, TWO),
    "index, stack": (lambda m, x: torch.stack([m.tables[h][x[:, :, h].long()] for h in range(2)], 2).float(), TWO),
    "select, cat": (
        lambda m, x: torch.cat([m.tables[h].float()[x.select(2, h).long()].unsqueeze(2) for h in range(2)], 2), TWO
    ),
    "time and batch as one": (in_one_batch, TWO),
    "type_as": (lambda m, x: m.table[x.long()].type_as(m.table.float()), ONE),
}  # fmt: skip

FUNCTIONS: dict[str, tuple[Scored, Any]] = {
    "another type of float": (lambda m, x: (x > 1).float() + (x > 2).float(), [0, 0, 1, 2, 2]),
    "to": (lambda m, x: x.to(torch.int64).float(), [0, 1, 2, 3, 4]),
    "type": (lambda m, x: x.type(torch.int64).type(torch.float32), [0, 1, 2, 3, 4]),
    "long": (lambda m, x: (x / 2).long().float(), [0, 0, 1, 1, 2]),
    "int": (lambda m, x: (x / 2).int().float(), [0, 0, 1, 1, 2]),
    "short": (lambda m, x: (x / 2).short().float(), [0, 0, 1, 1, 2]),
    "bool": (lambda m, x: x.bool().float(), [0, 1, 1, 1, 1]),
    "double": (lambda m, x: (x.double() / 3).round().float(), [0, 0, 1, 1, 1]),
    "round": (lambda m, x: (x * 0.75).round(), [0, 1, 2, 2, 3]),
    "floor": (lambda m, x: (x * 0.3).floor(), [0, 0, 0, 0, 1]),
    "ceil": (lambda m, x: (x * 0.3).ceil(), [0, 1, 1, 1, 2]),
    "trunc": (lambda m, x: (x * -0.75).trunc(), [0, 0, -1, -2, -3]),
    "abs": (lambda m, x: 2 - (x - 2).abs(), [0, 1, 2, 1, 0]),
    "neg": (lambda m, x: -x, [0, -1, -2, -3, -4]),
    "clamp": (lambda m, x: x.clone().clamp_(max=2), [0, 1, 2, 2, 2]),
    "clip": (lambda m, x: x.clip(0, 3), [0, 1, 2, 3, 3]),
    "clamp_min": (lambda m, x: x.clamp_min(2) - 2, [0, 0, 0, 1, 2]),
    "clamp_max": (lambda m, x: x.clamp_max(1), [0, 1, 1, 1, 1]),
    "minimum": (lambda m, x: torch.minimum(x, torch.tensor(3.0)), [0, 1, 2, 3, 3]),
    "maximum": (lambda m, x: torch.maximum(x - 1, torch.zeros_like(x)), [0, 0, 1, 2, 3]),
    "add": (lambda m, x: x + x.square(), [0, 2, 6, 12, 20]),
    "sub": (lambda m, x: (x - 1).relu(), [0, 0, 1, 2, 3]),
    "rsub": (lambda m, x: torch.rsub(torch.rsub(x, 4), 4), [0, 1, 2, 3, 4]),
    "mul": (lambda m, x: x * (x >= 2), [0, 0, 2, 3, 4]),
    "div": (lambda m, x: torch.div(x, 2, rounding_mode="floor"), [0, 0, 1, 1, 2]),
    "pow": (lambda m, x: x**2, [0, 1, 4, 9, 16]),
    "square": (lambda m, x: (x.square() / 3).round(), [0, 0, 1, 3, 5]),
    "sqrt": (lambda m, x: x.sqrt().round(), [0, 1, 1, 2, 2]),
    "exp": (lambda m, x: x.exp().floor() - 1, [0, 1, 6, 19, 53]),
    "exp2": (lambda m, x: x.exp2() - 1, [0, 1, 3, 7, 15]),
    "log1p": (lambda m, x: x.log1p().mul(4).round(), [0, 3, 4, 6, 6]),
    "sigmoid": (lambda m, x: torch.round(8 * torch.sigmoid(x - 2)) * (x > 0), [0, 2, 4, 6, 7]),
    "tanh": (lambda m, x: (x.tanh() * 4).round(), [0, 3, 4, 4, 4]),
    "relu": (lambda m, x: torch.relu(x - 1), [0, 0, 1, 2, 3]),
    "remainder": (lambda m, x: x % 3, [0, 1, 2, 0, 1]),
    "ge": (lambda m, x: (x >= 2).float(), [0, 0, 1, 1, 1]),
    "gt": (lambda m, x: (x > torch.tensor([1.0, 2.0]).view(2, 1, 1)) * x, [[0, 0, 2, 3, 4], [0, 0, 0, 3, 4]]),
    "le": (lambda m, x: x * (x <= 2), [0, 1, 2, 0, 0]),
    "lt": (lambda m, x: x * (x < 2), [0, 1, 0, 0, 0]),
    "eq": (lambda m, x: (x == 3).float(), [0, 0, 0, 1, 0]),
    "ne": (lambda m, x: x * (x != 3), [0, 1, 2, 0, 4]),
    "logical_and": (lambda m, x: ((x > 1) & (x < 4)).float(), [0, 0, 1, 1, 0]),
    "logical_or": (lambda m, x: ((x == 1) | (x == 4)).float(), [0, 1, 0, 0, 1]),
    "logical_not": (lambda m, x: (~(x == 0)).float(), [0, 1, 1, 1, 1]),
    "bitwise_right_shift": (lambda m, x: (x.long() >> 1).float(), [0, 0, 1, 1, 2]),
    "bitwise_left_shift": (lambda m, x: (x.long() << 1).float(), [0, 2, 4, 6, 8]),
    "where": (lambda m, x: torch.where(x < 2, torch.zeros_like(x), x * 2 - 3), [0, 0, 1, 3, 5]),
    "masked_fill": (lambda m, x: x.masked_fill(x < 2, 0), [0, 0, 2, 3, 4]),
}


def both(table: Any) -> list[list[int]]:
    """Of two heads."""
    return table if isinstance(table[0], list) else [table, table]


@pytest.mark.parametrize("name", LOOKUPS | FUNCTIONS)
def test_tables_of_scores(name: str) -> None:
    work, table = (LOOKUPS | FUNCTIONS)[name]
    assert table_of(work) == (both(table), 1.0)


def test_that_every_operation_has_a_case() -> None:
    assert FUNCTIONS.keys() == set(tables.ONE_BY_ONE)
    assert {name.split()[0].strip(",") for name in LOOKUPS} >= tables.LOOKUPS.keys()


@pytest.mark.parametrize(
    ("work", "table", "scale"),
    [
        (lambda m, x: m.table[x.long()] * 0.375, ONE, 0.375),
        (lambda m, x: m.table[x.long()] / 4, ONE, 0.25),
        (lambda m, x: x.clamp(max=3) * torch.tensor(0.5) * 0.5, [0, 1, 2, 3, 3], 0.25),
        (lambda m, x: x.square() * 0.25 - x * 0.25, [0, 0, 2, 6, 12], 0.25),
        (lambda m, x: x.clamp(max=3) * -0.5, [0, -1, -2, -3, -3], 0.5),
        (lambda m, x: m.table[(x / 2 * 4).long().clamp(max=4)] * 0.25, [0, 3, 2, 2, 2], 0.25),
    ],
)
def test_scales_of_tables(work: Scored, table: list[int], scale: float) -> None:
    """A factor behind integers is the attention's scale; one before them is part of the table."""
    found, factor = table_of(work)
    assert (np.array(found) * factor).tolist() == (np.array(both(table)) * scale).tolist()
    if scale in (0.375, 0.25) and table == ONE:
        assert (found, factor) == (both(ONE), scale)


@settings(max_examples=10)
@given(st.data())
def test_any_table_of_any_heads(data: st.DataObject) -> None:
    """Of each head its own, in logits and in counts, which are those of the reference."""
    count = data.draw(st.sampled_from((1, 2, 4)))
    entries = st.lists(st.integers(-9, 9), min_size=C // count, max_size=C // count).map(lambda found: [0, *found])
    drawn = torch.tensor(data.draw(st.lists(entries, min_size=count, max_size=count)))
    drawn[:, -1] += ~drawn.any()

    def work(m: Any, s: Any, t: Any) -> Any:
        scores = heads(s, count) @ heads(t, count).mT
        return merged(m.table[torch.arange(count).view(-1, 1, 1), scores.long()].float() @ heads(t, count) * 0.5)

    network = compared(work, table=drawn)
    layer = network.layers["attention"]
    assert isinstance(layer, TableAttention)
    assert layer.scale == 0.5
    assert_array_equal(layer.table, drawn)
    frames = example_of((T, C, 4, 2), 5).numpy()
    result = Simulator(network, record=("one", "two")).run(frames)
    one, two = (result.recorded[name].reshape(T, C, N).swapaxes(1, 2) for name in ("one", "two"))
    (counts,) = (each.counts for each in result.profile if each.name == "attention")
    expected = table_attention_counts(one, two, two, drawn.numpy())
    assert {key: getattr(counts, key) for key in expected} == expected


# --- other orders of axes


def turned(m: Any, s: Any, t: Any) -> Any:
    """Keys before queries, values before scores."""
    return merged((heads(t).mT @ m.table[(heads(t) @ heads(s).mT).long()].float()).mT)


def in_batches(m: Any, s: Any, t: Any) -> Any:
    """Time, batch and heads are one axis."""
    q, k = (heads(x).flatten(0, 2) for x in (s, t))
    return torch.bmm(m.table[torch.bmm(q, k.mT).long()].float(), k).view(T, 1, 2, N, D).mT.flatten(2, 3)


def by_letters(m: Any, s: Any, t: Any) -> Any:
    q, k = (x.flatten(3).unflatten(2, (2, D)) for x in (s, t))
    found = m.table[torch.einsum("tbhdi,tbhdj->tbhij", q, k).long()].float()
    return torch.einsum("tbhij,tbhdj->tbhdi", found, k).flatten(2, 3)


@pytest.mark.parametrize("work", [turned, in_batches, by_letters])
def test_tables_in_any_order_of_axes(work: Work) -> None:
    layer = compared(work, **PARTS).layers["attention"]
    assert isinstance(layer, TableAttention)
    assert layer.table.tolist() == both(ONE)


def test_a_table_and_a_window_of_values() -> None:
    def work(m: Any, s: Any, t: Any) -> Any:
        v = heads(t)
        v = v + 0.5 * torch.cat([torch.zeros_like(v[:1]), v[:-1]])
        return merged(m.table[(heads(s) @ heads(t).mT).long()].float() @ v * 0.125)

    network = compared(work, **PARTS)
    attentions = {name: layer for name, layer in network.layers.items() if isinstance(layer, TableAttention)}
    assert {name: layer.scale for name, layer in attentions.items()} == {"attention": 0.125, "attention.ago1": 0.125}


# --- what is refused

UNEVEN = torch.tril(torch.ones(N, N))
BAD: dict[str, tuple[Scored, str]] = {
    "no integers": (lambda m, x: x.sqrt(), "matmul: 1.41421 in the place of a score of 2 found; expected integers"),
    "no numbers": (lambda m, x: x.sub(2).sqrt() * 0 + x, "matmul: nan in the place of a score of 0 found"),
    "not silent": (lambda m, x: x + 1, "table entry 1 for score 0 found; expected 0"),
    "a mask of tokens": (lambda m, x: x * UNEVEN, r"mul: numbers of shape \(8, 8\) that differ among scores found"),
    "a share": (lambda m, x: x / x.sum(-1, keepdim=True), "sum of attention scores found; expected scale, softmax or"),
    "behind a softmax": (lambda m, x: x.softmax(-1).round(), "round: a function behind the softmax found"),
    "sums of scores": (lambda m, x: x.cumsum(-1), "operation cumsum on"),
    "heads in another order": (
        lambda m, x: torch.stack([m.table[x[:, :, 1 - head].long()] for head in range(2)], 2).float(),
        "stack: attention scores side by side found; expected those of all heads",
    ),
    "a part of the heads": (lambda m, x: x[:, :, 0:1], "__getitem__: a part of attention scores found"),
    "a part of the tokens": (lambda m, x: x[..., 0], "__getitem__: a part of attention scores found"),
    "more than one number": (lambda m, x: m.tables[:, x.long()].float().sum(0), "__getitem__: a result of shape"),
    "keys before queries": (lambda m, x: x.mT, "mT of attention scores found; expected scale, softmax or a table"),
    "heads joined": (
        lambda m, x: (x * torch.tensor([1.0, 2]).view(2, 1, 1)).flatten(0, 2).clamp(max=3).view(x.shape),
        "clamp: heads of different tables joined with other axes found",
    ),
    "another shape": (lambda m, x: x.clamp(max=3).flatten(3).view(x.shape), "attention scores in another shape found"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_refused_by_name(name: str) -> None:
    work, words = BAD[name]
    with pytest.raises(InputError, match=words) as caught:
        compared(lambda m, s, t: attended(work, m, s, t), **PARTS)
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)


def test_that_scores_that_may_occur_need_an_entry() -> None:
    """Even if the example never makes them."""

    def short(m: Any, s: Any, t: Any) -> Any:
        return merged(torch.arange(8)[(heads(s, 1) @ heads(t, 1).mT).long()].float() @ heads(t, 1))

    def never(m: Any, s: Any, t: Any) -> Any:
        t = t * (torch.arange(C) != 3).float().view(-1, 1, 1)
        return merged((heads(s, 1) @ heads(t, 1).mT).square() @ heads(s, 1))

    with pytest.raises(
        InputError, match=r"__getitem__: what fails for scores from 0 to 8 \(.*\) found; expected a val"
    ):
        compared(short, seed=1)
    with pytest.raises(InputError, match=r"square: a table of scores of .*real .* found; expected spikes"):
        compared(never)


def test_scores_of_integers_or_of_others_have_no_table() -> None:
    def graded(m: Any, s: Any, t: Any) -> Any:
        return merged(m.table[(heads(s + t) @ heads(t).mT).long().clamp(max=4)].float() @ heads(t))

    def of_two(m: Any, s: Any, t: Any) -> Any:
        return merged((heads(s) @ heads(t).mT + (heads(t) @ heads(t).mT).square()) @ heads(t))

    with pytest.raises(InputError, match=r"long: a table of scores of graded .* and binary .* found; expected spikes"):
        compared(graded, **PARTS)
    with pytest.raises(InputError, match="add: scores of other queries and keys found; expected the same"):
        compared(of_two)
