"""Kernels called directly on arrays, on awkward shapes, against plain NumPy.

Tests marked `nojit` are tiny and also pass where NUMBA_DISABLE_JIT=1 runs every kernel as plain Python. The vector
loops of `gather` and `fire` are LLVM intrinsics, which only exist compiled; uncompiled, plain loops stand in. Bounds
checks do not see into the intrinsics, so the arrays given to these two lie between guards that turn a stray read into
NaN and show a stray write.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import NO_VALUES, Triple, csr
from reference import counts
from reference.attention import spiking_attention
from reference.neurons import neuron
from reference.pooling import maxpool2d, sumpool2d
from reference.residual import residual
from reference.synapses import conv2d, linear
from strategies import Sliding, activity, randoms, slidings, weights

from eventsim.kernels.attention import attend_context_first, attend_scores_first
from eventsim.kernels.attention_masked import attend_masked
from eventsim.kernels.bits import words
from eventsim.kernels.dynamics import (
    DECAY,
    INTEGRATE,
    LEAK_DIVIDE,
    LEAK_FREE_INPUT,
    LEAK_FREE_MULTIPLY,
    LEAK_MULTIPLY,
    Dynamics,
    aligned,
    faster,
    repeated,
)
from eventsim.kernels.fan_out import gather_synapses
from eventsim.kernels.fire import fire
from eventsim.kernels.gather import COMPILED, FEW, MANY, NEAR, RARE, SEEN, edge, gather, tiles_of
from eventsim.kernels.gather_narrow import SPARSE
from eventsim.kernels.nonzeros import SPARE as SPARE_SUMS
from eventsim.kernels.packing import pack, unpack
from eventsim.kernels.pooling import pool_bits, pool_dense, pool_rows, set_bits
from eventsim.kernels.products import count_products
from eventsim.kernels.rows import (
    flatten_rows,
    gate_rows,
    join_rows,
    list_frames,
    list_nonzeros,
    sum_groups,
    sum_rows,
    total_rows,
)
from eventsim.kernels.scatter import FAR
from eventsim.kernels.tiles import TILE
from eventsim.kernels.vectors import LANES
from eventsim.kernels.visits import ROWS
from eventsim.kernels.window import Spans, Window

pytestmark = pytest.mark.kernels

F = np.float32
CHANNELS = (1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64, 65, 80, 95, 96, 97, 111, 112, 113, 127, 128, 192, 193, 210)
KINDS = ("binary", "graded", "real")


def last(maps: np.ndarray) -> np.ndarray:
    """(T, C, H, W) as rows (T * H * W, C)."""
    return np.ascontiguousarray(np.moveaxis(maps, 1, -1)).reshape(-1, maps.shape[1])


def maps(rows: np.ndarray, steps: int, size: tuple[int, int]) -> np.ndarray:
    """Rows (T * H * W, C) as (T, C, H, W)."""
    return np.moveaxis(rows.reshape(steps, *size, -1), -1, 1)


def window_of(size: tuple[int, int], sliding: Sliding) -> Window:
    return Window(*size, *sliding.size, *sliding.kernel, *sliding.stride, *sliding.padding)


def spans_of(size: tuple[int, int], sliding: Sliding) -> Spans:
    """The pixels of the map in each window, row by row and column by column."""
    firsts, lasts = [], []
    for n, count, k, s, p in zip(size, sliding.size, sliding.kernel, sliding.stride, sliding.padding, strict=True):
        firsts.append(np.array([max(i * s - p, 0) for i in range(count)]))
        lasts.append(np.array([min(i * s - p + k, n) for i in range(count)]))
    return Spans(*size, firsts[0], lasts[0], firsts[1], lasts[1])


def by_tap(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """(C_out, C_in / groups, kH, kW) as the kernels take it: (taps, C_in, C_out / groups)."""
    outputs, inputs, *_ = weight.shape
    taps = weight.reshape(outputs, inputs, -1)
    fan = outputs // groups
    parts = [taps[g * fan : (g + 1) * fan].transpose(2, 1, 0) for g in range(groups)]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def guarded(array: np.ndarray, value: float) -> tuple[np.ndarray, np.ndarray]:
    """A copy of an array inside a larger one filled with a value, and the larger one."""
    room = np.full(array.size + 256, value, array.dtype)
    inside = room[128 : 128 + array.size].reshape(array.shape)
    inside[...] = array
    return inside, room


def guards_of(room: np.ndarray) -> np.ndarray:
    return np.concatenate([room[:128], room[-128:]])


def tallies(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a kernel writes products and units of each step; what was there before must not matter."""
    return np.full(steps, -7, np.int64), np.full(steps, np.nan)


def products(
    frames: np.ndarray, weight: np.ndarray, sliding: Sliding, kind: str, groups: int = 1
) -> tuple[list[int], list[float]]:
    """Synapses reached in each step, and the same weighted by the magnitude of the input, by brute force.

    The second is left at 0 where all values are 1: it says nothing new.
    """
    options = (weight.shape, sliding.stride, sliding.padding, groups)
    reached = [counts.conv2d_counts(frame[None], *options, "real")["macs"] for frame in frames]
    weighted = conv2d(abs(frames), np.ones_like(weight), None, sliding.stride, sliding.padding, groups)
    units = [0.0 if kind == "binary" else float(step.sum(dtype=np.float64)) for step in weighted]
    return reached, units


def told(tally: tuple[np.ndarray, np.ndarray]) -> tuple[list[int], list[float]]:
    return tally[0].tolist(), tally[1].tolist()


# --- gather


def run_gather(
    frames: np.ndarray, weight: np.ndarray, bias: np.ndarray, sliding: Sliding, binary: bool, groups: int = 1
):
    """Result and counts of `gather` between guards."""
    steps, _, *size = frames.shape
    rows, values_room = list(csr(last(frames), binary)), None
    rows[1], _ = guarded(rows[1], 2**30)
    if not binary:
        rows[2], values_room = guarded(rows[2], np.nan)
    packed, _ = guarded(pack(by_tap(weight, groups), groups), np.nan)
    stale = np.full((steps * sliding.size[0] * sliding.size[1], len(bias)), np.nan, F)
    out, room = guarded(stale, 12345)
    guarded_bias, _ = guarded(bias, np.nan)
    tally, window, fan = tallies(steps), window_of(tuple(size), sliding), len(bias) // groups
    gather(tuple(rows), packed, guarded_bias, out, window, groups, (0, tiles_of(fan), 0, len(out)))
    count_products(tuple(rows), window, fan, *tally)
    assert (guards_of(room) == 12345).all()
    assert values_room is None or np.isnan(guards_of(values_room)).all()
    return maps(out, steps, sliding.size), told(tally)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", CHANNELS)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0], ids=["silent", "sparse", "full"])
def test_gather_into_any_number_of_channels(outputs, density, kind):
    rng = np.random.default_rng(outputs)
    sliding = Sliding((3, 2), (2, 1), (1, 1), (3, 5))
    frames = (rng.random((2, 5, 5, 4)) < density).astype(F)
    if kind != "binary":
        frames *= rng.integers(1, 5, frames.shape) if kind == "graded" else rng.integers(-8, 9, frames.shape) / 8
    weight, bias = rng.integers(-16, 17, (outputs, 5, 3, 2)) / F(16), rng.integers(-16, 17, outputs) / F(16)
    y, counted = run_gather(frames, weight.astype(F), bias.astype(F), sliding, kind == "binary")
    assert_array_equal(y, conv2d(frames, weight, bias, sliding.stride, sliding.padding))
    assert counted == products(frames, weight, sliding, kind)


@given(data=st.data())
def test_gather_under_any_window(data):
    kind, outputs = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(CHANNELS))
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    sliding = data.draw(slidings(size, widest=3))
    frames = data.draw(activity(kind, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6)), *size))
    weight = data.draw(weights(outputs, frames.shape[1], *sliding.kernel))
    bias = data.draw(weights(outputs))
    y, counted = run_gather(frames, weight, bias, sliding, kind == "binary")
    assert_array_equal(y, conv2d(frames, weight, bias, sliding.stride, sliding.padding))
    assert counted == products(frames, weight, sliding, kind)


def added_one_by_one(
    rows: Triple, weight: np.ndarray, bias: np.ndarray, window: Window, groups: int = 1
) -> tuple[np.ndarray, list[int], list[float]]:
    """What `gather` is by definition: bias, then tap after tap, event after event, each sum rounded to float32."""
    (indptr, indices, values), w, fan = rows, window, weight.shape[2]
    steps, size = (len(indptr) - 1) // (w.height * w.width), weight.shape[1] // groups
    out = np.tile(bias, (steps, w.out_height, w.out_width, 1))
    products, units = [0] * steps, [0.0] * steps
    for step, oy, ox in np.ndindex(out.shape[:3]):
        for tap, (ky, kx) in enumerate(np.ndindex(w.kernel_height, w.kernel_width)):
            y = oy * w.stride_height + ky * w.dilation_height - w.pad_height
            x = ox * w.stride_width + kx * w.dilation_width - w.pad_width
            if not (0 <= y < w.height and 0 <= x < w.width):
                continue
            row = (step * w.height + y) * w.width + x
            for e in range(indptr[row], indptr[row + 1]):
                first = indices[e] // size * fan
                value = F(1) if len(values) == 0 else values[e]
                out[step, oy, ox, first : first + fan] += weight[tap, indices[e]] * value
                products[step] += fan
                units[step] += 0.0 if len(values) == 0 else float(abs(value)) * fan
    return out.reshape(-1, len(bias)), products, units


@pytest.mark.parametrize("seed", range(60))
def test_gather_is_the_sum_one_by_one(seed):
    """Bit for bit, with weights whose sums are rounded: any stride, dilation, padding, groups, tiles and parts.

    Where events are few, they look for the sums that they reach; else sums look for events.
    """
    rng = np.random.default_rng(seed)
    kind, groups = KINDS[seed % 3], int(rng.choice([1, 1, 2, 3]))
    fan = int(rng.choice(CHANNELS))
    height, width, kh, kw, sy, sx, dy, dx, steps = rng.integers(1, 4, 9).tolist()
    py, px = rng.integers(0, 3, 2).tolist()
    height, width = max(2 * height, dy * (kh - 1) + 1 - 2 * py), max(2 * width, dx * (kw - 1) + 1 - 2 * px)
    oh, ow = (height + 2 * py - dy * (kh - 1) - 1) // sy + 1, (width + 2 * px - dx * (kw - 1) - 1) // sx + 1
    window = Window(height, width, oh, ow, kh, kw, sy, sx, py, px, dy, dx)
    inputs = groups * int(rng.choice([1, 2, 5, 2 * FEW, 90]))
    frames = rng.normal(size=(steps * height * width, inputs)) * (
        rng.random((steps * height * width, inputs)) < rng.choice([0.05, 0.6])
    )
    frames = {"binary": frames != 0, "graded": np.ceil(abs(frames)), "real": frames}[kind].astype(F)
    rows = csr(frames, kind == "binary")
    weight = rng.normal(size=(kh * kw, inputs, fan)).astype(F)
    bias = rng.normal(size=fan * groups).astype(F)
    expected, products, units = added_one_by_one(rows, weight, bias, window, groups)
    packed, out, tally = pack(weight, groups), np.full(expected.shape, np.nan, F), tallies(steps)
    gather(rows, packed, bias, out, window, groups, (0, tiles_of(fan), 0, len(out)))
    count_products(rows, window, fan, *tally)
    assert_array_equal(out.view(np.int32), expected.view(np.int32))
    assert tally[0].tolist() == products
    np.testing.assert_allclose(tally[1], units, rtol=1e-9)
    # served in parts, which write nothing else
    tiles, cut_row = tiles_of(fan), rng.integers(0, len(out) + 1)
    cut_tile = rng.integers(0, tiles + 1) if groups == 1 or fan >= LANES else tiles
    out[:] = np.nan
    spans = (0, cut_tile), (cut_tile, tiles)
    parts = [(a, b, c, d) for a, b in spans for c, d in ((0, cut_row), (cut_row, len(out)))]
    for part in rng.permutation(parts).tolist():
        before = out.copy()
        gather(rows, packed, bias, out, window, groups, tuple(part))
        channels = np.arange(groups * fan) % fan
        elsewhere = np.ones(out.shape, bool)
        elsewhere[part[2] : part[3], (channels >= edge(fan, part[0])) & (channels < edge(fan, part[1]))] = False
        assert_array_equal(out[elsewhere].view(np.int32), before[elsewhere].view(np.int32))
    assert_array_equal(out.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [12, 20, 100])
@pytest.mark.parametrize(("wide", "stride", "pad"), [(5, 1, 2), (5, 2, 1), (7, 3, 0), (4, 5, 3)])
def test_few_events_reach_every_tap_a_stride_apart(wide, stride, pad, outputs, kind):
    rng = np.random.default_rng(wide)
    out_width = (11 + 2 * pad - wide) // stride + 1
    window = Window(6, 11, 3, out_width, 3, wide, 2, stride, 1, pad, 1, 1)
    frames = rng.normal(size=(3 * 66, 4)) * (rng.random((3 * 66, 4)) < 0.2)
    frames = {"binary": frames != 0, "graded": np.ceil(abs(frames)), "real": frames}[kind].astype(F)
    rows = csr(frames, kind == "binary")
    assert 0 < len(rows[1]) < RARE * len(frames)
    weight, bias = rng.normal(size=(3 * wide, 4, outputs)).astype(F), rng.normal(size=outputs).astype(F)
    expected, *_ = added_one_by_one(rows, weight, bias, window)
    out = np.full(expected.shape, np.nan, F)
    gather(rows, pack(weight), bias, out, window, 1, (0, tiles_of(outputs), 0, len(out)))
    assert_array_equal(out.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("outputs", [90, 200])
def test_gather_of_many_events_serves_their_channels_part_after_part(outputs, side, kind):
    """Bit for bit what it is one by one: with rows in which a part is silent, or all are, and many rows."""
    rng = np.random.default_rng(outputs)
    inputs, height, width = 310, 4, 70 if COMPILED else 3
    window = Window(height, width, height, width, side, side, 1, 1, side // 2, side // 2)
    frames = rng.normal(size=(height * width, inputs)) * (rng.random((height * width, inputs)) < 0.6)
    frames[7], frames[8, :155], frames[9, 100:] = 0, 0, 0
    frames = {"binary": frames != 0, "graded": np.ceil(abs(frames)), "real": frames}[kind].astype(F)
    rows = csr(frames, kind == "binary")
    blocks = -(-inputs * edge(outputs, 1) // NEAR)
    assert blocks > 1
    assert len(rows[1]) > MANY * blocks * len(frames)
    weight, bias = rng.normal(size=(side * side, inputs, outputs)).astype(F), rng.normal(size=outputs).astype(F)
    expected, *_ = added_one_by_one(rows, weight, bias, window)
    out = np.full(expected.shape, np.nan, F)
    for first, last in ((0, 5), (5, len(out))):
        gather(rows, pack(weight), bias, out, window, 1, (0, tiles_of(outputs), first, last))
    assert_array_equal(out.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("inputs", [4, 30, 80])
def test_gather_of_more_rows_than_are_visited_at_once(groups, inputs):
    """Tiles and taps, one by one or in a row, meet the later rows again, and what comes next is fetched."""
    rng = np.random.default_rng(0)
    steps, side, fan = 3, 18, 100
    assert steps * side * side > 3 * ROWS
    assert 3 * 30 * edge(fan, 1) <= NEAR < 3 * 80 * edge(fan, 1)
    frames = (rng.random((steps, inputs, side, side)) < 0.4).astype(F)
    weight = (rng.integers(-16, 17, (groups * fan, inputs // groups, 3, 3)) / 16).astype(F)
    bias = (rng.integers(-16, 17, groups * fan) / 16).astype(F)
    sliding = Sliding((3, 3), (1, 1), (1, 1), (side, side))
    y, counted = run_gather(frames, weight, bias, sliding, True, groups)
    assert_array_equal(y, conv2d(frames, weight, bias, (1, 1), (1, 1), groups))
    assert counted == products(frames, weight, sliding, "binary", groups)


@pytest.mark.parametrize("outputs", CHANNELS)
def test_tiles_are_as_equal_as_can_be(outputs):
    edges = [edge(outputs, tile) for tile in range(tiles_of(outputs) + 1)]
    vectors, rest = np.divmod(np.diff(edges), LANES)
    assert (edges[0], edges[-1]) == (0, outputs)
    assert len(vectors) == -(-outputs // TILE)
    assert (rest[:-1] == 0).all()
    assert rest[-1] == outputs % LANES
    vectors[-1] += rest[-1] > 0
    assert (vectors > 0).all()
    assert vectors.max() - vectors.min() <= 1


@pytest.mark.parametrize("outputs", CHANNELS)
def test_pack_lays_tiles_one_after_the_other(outputs):
    weight = np.arange(1, 3 * 4 * outputs + 1, dtype=F).reshape(3, 4, outputs)
    expected = []
    for tile in range(tiles_of(outputs)):
        a, b = edge(outputs, tile), edge(outputs, tile + 1)
        filled = np.zeros((3, 4, -(-(b - a) // LANES) * LANES), F)
        filled[:, :, : b - a] = weight[:, :, a:b]
        expected.append(filled.ravel())
    packed = pack(weight)
    assert_array_equal(packed, np.concatenate(expected))
    assert packed.dtype == F
    assert packed.flags.c_contiguous
    assert packed.ctypes.data % 64 == 0, "the first tile begins on a cache line"
    assert (LANES, TILE) == (16, 96)


def test_gather_adds_in_the_order_of_taps_and_channels():
    """One order of additions, whatever the tile: sums that are not exact differ in no bit between neighbours."""
    rng = np.random.default_rng(0)
    frames = (rng.random((1, 40, 6, 6)) < 0.5).astype(F)
    weight = np.repeat(rng.normal(size=(1, 40, 3, 3)).astype(F), 130, axis=0)
    sliding = Sliding((3, 3), (1, 1), (1, 1), (6, 6))
    y, _ = run_gather(frames, weight, np.zeros(130, F), sliding, binary=True)
    assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    expected, (row, column) = F(0), (2, 3)
    for a, b in itertools.product(range(3), repeat=2):
        for c in np.flatnonzero(frames[0, :, row + a - 1, column + b - 1]):
            expected = F(expected + weight[0, c, a, b])
    assert y[0, 0, row, column] == expected


VALUES = [1, 2, 4, 8, 3, 5, 6, 0.5, 0.25, -1, -2, -0.5, 1.5, 2.0**-140, 2.0**-149]


@pytest.mark.parametrize("scale", [1, 2.0**-126, 2.0**-147])
@pytest.mark.parametrize("outputs", [16, 48, 96, 130])
@pytest.mark.parametrize("small", [0.1, 0.9], ids=["any", "powers"])
def test_a_product_is_rounded_before_it_is_added(small, outputs, scale):
    """Whatever the value, and whatever most are; and where weights are so small that half of one is not exact."""
    rng = np.random.default_rng(outputs)
    weight = (rng.normal(size=(1, len(VALUES), outputs)) * scale).astype(F)
    bias = (rng.normal(size=outputs) * scale).astype(F)
    many = rng.integers(len(VALUES), size=(40, 7))
    chances = np.repeat([small / 3, (1 - small) / (len(VALUES) - 3)], [3, len(VALUES) - 3])
    rows = np.arange(41) * 7, many.astype(np.int32).ravel(), rng.choice(np.array(VALUES, F), 280, p=chances)
    assert (np.isin(rows[2][:SEEN], [1, 2, 4]).mean() >= 0.75) == (small > 0.5)
    expected = np.broadcast_to(bias, (40, outputs)).copy()
    for event in range(7):
        values = rows[2].reshape(40, 7)[:, event, None]
        expected = (expected + (weight[0][many[:, event]] * values).astype(F)).astype(F)
    out = np.empty_like(expected)
    gather(rows, pack(weight), bias, out, Window(1, 40, 1, 40, 1, 1, 1, 1, 0, 0), 1, (0, tiles_of(outputs), 0, 40))
    assert_array_equal(out, expected)


@pytest.mark.nojit
@pytest.mark.parametrize("kind", KINDS)
def test_gather_into_a_remainder(kind):
    frames = np.array([[[[1, 0], [2, 0]], [[0, 0], [-0.5, 1]]]], F)
    frames = {"binary": (frames != 0).astype(F), "graded": np.ceil(abs(frames)), "real": frames}[kind]
    weight = np.arange(-8, 8).reshape(2, 2, 2, 2).astype(F) / 16
    sliding = Sliding((2, 2), (1, 1), (1, 1), (3, 3))
    y, counted = run_gather(frames, weight, np.array([0.5, 0], F), sliding, kind == "binary")
    assert_array_equal(y, conv2d(frames, weight, np.array([0.5, 0], F), (1, 1), (1, 1)))
    assert counted == products(frames, weight, sliding, kind)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_gather_groups(kind, data):
    groups, per_group = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    outputs = groups * data.draw(st.sampled_from([1, 2, 15, 16, 17, 97]))
    size = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    sliding = data.draw(slidings(size, widest=3))
    frames = data.draw(activity(kind, data.draw(st.integers(1, 3)), groups * per_group, *size))
    weight, bias = data.draw(weights(outputs, per_group, *sliding.kernel)), data.draw(weights(outputs))
    y, counted = run_gather(frames, weight, bias, sliding, kind == "binary", groups)
    assert_array_equal(y, conv2d(frames, weight, bias, sliding.stride, sliding.padding, groups))
    assert counted == products(frames, weight, sliding, kind, groups)


@pytest.mark.parametrize("density", [0.3, 0.5 / SPARSE], ids=["by channel", "product by product"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fan", [1, 2])
def test_gather_of_each_channel_alone(fan, kind, density):
    """More rows than are visited at once, of which some lines are read by two spans."""
    rng = np.random.default_rng(0)
    channels, steps, height, width = 20, 2, 23, 31
    sliding = Sliding((3, 5), (2, 1), (2, 1), (13, 29))
    assert sliding.size[0] * sliding.size[1] > ROWS
    frames = (rng.random((steps, channels, height, width)) < density).astype(F)
    assert (np.count_nonzero(frames) * SPARSE > frames.size) == (density == 0.3)
    if kind != "binary":
        frames *= rng.integers(1, 5, frames.shape) if kind == "graded" else rng.integers(-8, 9, frames.shape) / F(8)
    weight = (rng.integers(-16, 17, (fan * channels, 1, 3, 5)) / 16).astype(F)
    bias = (rng.integers(-16, 17, fan * channels) / 16).astype(F)
    y, counted = run_gather(frames, weight, bias, sliding, kind == "binary", channels)
    assert_array_equal(y, conv2d(frames, weight, bias, sliding.stride, sliding.padding, channels))
    assert counted == products(frames, weight, sliding, kind, channels)


@pytest.mark.nojit
@pytest.mark.parametrize("groups", [1, 2])
def test_silent_channels_meet_no_weight(groups):
    """A weight of infinity times nothing is nothing, and a sum of -0 stays what it is."""
    rows = csr(np.array([[1, 0], [0, 0]], F))
    weight = np.array([[[1], [np.inf]]], F)
    weight = weight if groups == 2 else np.repeat(weight, 2, axis=2)
    out = np.full((2, 2), F(np.nan))
    gather(
        rows, pack(weight, groups), np.full(2, F(-0.0)), out, Window(1, 2, 1, 2, 1, 1, 1, 1, 0, 0), groups, (0, 1, 0, 2)
    )
    assert_array_equal(out, [[1, -0.0 if groups == 2 else 1], [-0.0, -0.0]])
    assert_array_equal(np.signbit(out[1]), [True, True])


@pytest.mark.parametrize("offset", [0, 1, 16])
@pytest.mark.parametrize(("outputs", "side"), [(32, 256), (112, 140), (33, 256)])
def test_sums_that_no_cache_holds(offset, outputs, side):
    """Written past the caches where rows are whole cache lines, in any way elsewhere; a few events, each by hand."""
    rng = np.random.default_rng(outputs)
    pixels = side * side
    assert pixels * outputs >= FAR
    active = np.sort(rng.choice(pixels, 40, replace=False))
    rows = np.searchsorted(active, np.arange(pixels + 1)), np.zeros(40, np.int32), np.empty(0, F)
    weight, bias = rng.integers(-9, 9, (9, 1, outputs)).astype(F) / 8, rng.integers(-9, 9, outputs).astype(F) / 8
    room = aligned(pixels * outputs + offset + 16)
    room[:] = 7
    out = room[offset : offset + pixels * outputs].reshape(pixels, outputs)
    window = Window(side, side, side, side, 3, 3, 1, 1, 1, 1)
    for part in ((0, 1, 0, pixels // 3), (0, 1, pixels // 3, pixels), (1, 9, 0, pixels)):
        gather(rows, pack(weight), bias, out, window, 1, (part[0], min(part[1], tiles_of(outputs)), *part[2:]))
    expected = np.broadcast_to(bias, (side + 2, side + 2, outputs)).copy()
    for event, tap in itertools.product(active, range(9)):
        expected[event // side + 2 - tap // 3, event % side + 2 - tap % 3] += weight[tap, 0]
    assert_array_equal(out, expected[1:-1, 1:-1].reshape(pixels, outputs))
    assert (room[:offset] == 7).all() and (room[offset + out.size :] == 7).all()


@pytest.mark.nojit
def test_gather_groups_by_hand():
    rows = csr(np.array([[1, 2, 0, 3]], F))
    weight = np.array([[[1, 2], [3, 4], [5, 6], [7, 8]]], F) / 8  # two channels in and two out per group
    for groups, expected in ((2, [7, 10, 21, 24]), (4, [1, 2, 6, 8, 0, 0, 21, 24])):
        out = np.full((1, len(expected)), F(np.nan))
        tally, window = tallies(1), Window(1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
        gather(rows, pack(weight, groups), np.zeros(len(expected), F), out, window, groups, (0, 1, 0, 1))
        count_products(rows, window, 2, *tally)
        assert told(tally) == ([6], [12.0])
        assert_array_equal(out, np.array([expected], F) / 8)


def test_units_of_long_runs():
    """Magnitudes by whole vectors and what is left, of both signs, from any event on."""
    for before, events in itertools.product((0, 1, 5), (15, 16, 33, 200)):
        values = (np.arange(before + events) % 9 - 4).astype(F) / 4
        indptr, tally = np.array([0, before, before + events]), tallies(2)
        window = Window(1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
        count_products((indptr, np.zeros(before + events, np.int32), values), window, 3, *tally)
        assert told(tally)[1] == [3 * np.abs(values[:before]).sum(), 3 * np.abs(values[before:]).sum()]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_gather_synapses(kind, data):
    steps = data.draw(st.integers(1, 3))
    rows = data.draw(activity(kind, steps * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 20))))
    weight = data.draw(weights(data.draw(st.sampled_from(CHANNELS)), rows.shape[1]))
    weight *= data.draw(activity("binary", *weight.shape))
    bias = data.draw(weights(len(weight)))
    out = np.tile(bias, (len(rows), 1))
    tally = tallies(steps)
    gather_synapses(csr(rows, kind == "binary"), *csr(weight.T), out, *tally)
    assert_array_equal(out, linear(rows, weight, bias))
    by_step = np.split(rows, steps)
    assert tally[0].tolist() == [counts.sparse_linear_counts(step, weight, "real")["macs"] for step in by_step]
    units = [float((abs(step).astype(float) @ (weight.T != 0)).sum()) for step in by_step]
    assert tally[1].tolist() == ([0.0] * steps if kind == "binary" else units)


@pytest.mark.nojit
def test_gather_synapses_by_hand():
    weight = np.array([[0.5, 0, 1], [0, 0, -1]], F)  # two neurons; the second input has no synapse
    out = np.zeros((3, 2), F)
    rows = csr(np.array([[1, 1, 0], [0, 0, 0], [0, 3, 2]], F))
    tally = tallies(3)
    gather_synapses(rows, *csr(weight.T), out, *tally)
    assert told(tally) == ([1, 0, 2], [1.0, 0.0, 4.0])
    assert_array_equal(out, np.array([[0.5, 0], [0, 0], [2, -2]], F))


@pytest.mark.nojit
@pytest.mark.parametrize("outputs", [1, 15])
def test_a_silent_input_costs_nothing(outputs):
    window = Window(4, 3, 4, 3, 3, 3, 1, 1, 1, 1)
    silent: Triple = (np.zeros(25, np.int64), np.empty(0, np.int32), NO_VALUES)
    weight, out = np.ones((9, 2, outputs), F), np.full((24, outputs), F(np.nan))
    wide = np.full((24, 2 * outputs), F(np.nan))
    gather(silent, pack(weight), np.full(outputs, F(0.5)), out, window, 1, (0, 1, 0, 24))
    gather(silent, pack(weight, 2), np.full(2 * outputs, F(0.5)), wide, window, 2, (0, 1, 0, 24))
    for serve in (
        lambda *tally: count_products(silent, window, outputs, *tally),
        lambda *tally: gather_synapses(silent, *csr(np.ones((2, outputs))), out, *tally),
    ):
        tally = tallies(2)
        serve(*tally)
        assert told(tally) == ([0, 0], [0.0, 0.0])
    assert (out == 0.5).all(), "the bias stays"
    assert (wide == 0.5).all()
    for attend in (attend_scores_first, attend_masked, attend_context_first):
        executed = np.full((2, 3), -7)
        attend(silent[:2], silent[:2], silent[:2], 12, 1, F(1), out, executed)
        assert not out.any()
        assert not executed.any()
    for maximum in (True, False):
        pooled = (np.full(25, -7), np.empty(1, np.int32), np.empty(1, F))
        touched = np.full(2, -7)
        spans = spans_of((4, 3), Sliding((3, 3), (1, 1), (1, 1), (4, 3)))
        if maximum:
            bits = np.full((2, words(24)), 255, np.uint32)
            set_bits(*silent[:2], 2, bits)
            pool_bits(silent[0], bits, 2, spans, pooled, touched)
        else:
            pool_rows(silent, 2, spans, maximum, pooled, touched)
        assert not pooled[0].any()
        assert not touched.any()


# --- attention


def coincidences(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, order: str) -> np.ndarray:
    """Spikes of the two that are multiplied first which meet in each step: in a channel, or in a token and head."""
    if order == "qk_v":
        return (q.sum(axis=1) * k.sum(axis=1)).sum(axis=1)
    k, v = (x.reshape(*x.shape[:2], heads, -1).sum(axis=3) for x in (k, v))
    return (k * v).sum(axis=(1, 2))


def attention_of(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, scale: float):
    """Both orders on tokens (T, N, D), one of them in two ways: name, result and count of each."""
    rows = [csr(x.reshape(-1, x.shape[-1]))[:2] for x in (q, k, v)]
    for name, attend in (("qk_v", attend_scores_first), ("qk_v", attend_masked), ("kv_q", attend_context_first)):
        out = np.full((q.shape[0] * q.shape[1], q.shape[2]), np.nan, F)
        executed = np.full((len(q), 3), -7)
        attend(*rows, q.shape[1], heads, F(scale), out, executed)
        assert_array_equal(executed[:, 0], coincidences(q, k, v, heads, name))
        assert_array_equal(executed[:, 2], np.count_nonzero(out.reshape(len(q), -1), axis=1))
        yield name, out.reshape(q.shape), executed[:, :2].sum(axis=1).tolist()


@given(data=st.data())
def test_attention(data):
    heads, size = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 2, 7, 16, 17, 31, 32, 33, 65]))
    tokens = data.draw(st.one_of(st.integers(1, 10), st.sampled_from([63, 64, 65, 130])))
    shape = (data.draw(st.integers(1, 3)), tokens, heads * size)
    q, k, v = (data.draw(activity("binary", *shape)) for _ in range(3))
    scale = data.draw(st.sampled_from([0.125, 1.0, 0.3]))
    expected = spiking_attention(q, k, v, heads, scale)
    for order, y, additions in attention_of(q, k, v, heads, scale):
        assert_array_equal(y, expected)
        steps = [slice(t, t + 1) for t in range(len(q))]
        assert additions == [counts.attention_counts(q[t], k[t], v[t], heads, order)["acs"] for t in steps]


@pytest.mark.nojit
@pytest.mark.parametrize("size", [1, 31, 32, 33, 65])
def test_attention_of_tokens_with_a_channel_each(size):
    """Every channel of a head alone makes a score, wherever in its mask it is; the heads do not see each other."""
    q = np.concatenate([np.eye(size), np.eye(size)], axis=1, dtype=F)[None]
    k, v = q * (np.arange(2 * size) >= size), np.ones_like(q)
    for order, y, additions in attention_of(q, k, v, 2, 0.5):
        assert_array_equal(y, np.broadcast_to((np.arange(2 * size) >= size) / F(2), y.shape))
        assert additions == [size + size**2 if order == "qk_v" else 2 * size**2]


@pytest.mark.nojit
def test_attention_by_hand():
    q, k, v = (np.array(x, F)[None] for x in ([[1, 1], [0, 0]], [[1, 1], [0, 1]], [[1, 0], [1, 1]]))
    (_, scores, first), (_, masked, also), (_, context, second) = attention_of(q, k, v, 1, 0.25)
    assert_array_equal(scores, [[[0.75, 0.25], [0, 0]]])
    assert_array_equal(masked, scores)
    assert_array_equal(context, scores)
    assert (first, also, second) == ([3 + 1 + 2], [3 + 1 + 2], [4 + 1 + 2])
    for _, y, _ in attention_of(q, k, v, 2, 1.0):
        assert_array_equal(y, [[[1, 1], [0, 0]]])


def test_attention_where_all_spike():
    """The largest scores: every token hears every other one in every channel."""
    for size in (130, 255, 256):
        full = np.ones((2, 70, 2 * size), F)
        for order, y, additions in attention_of(full, full, full, 2, 1.0):
            assert (y == 70 * size).all()
            per_head = 70 * 70 * size * 2 if order == "qk_v" else 70 * size * size * 2
            assert additions == [2 * per_head] * 2


# --- neurons


CHARGES = {
    INTEGRATE: lambda k: lambda v, x: v + x,
    LEAK_MULTIPLY: lambda k: lambda v, x: v + (x - v) * k,
    LEAK_DIVIDE: lambda k: lambda v, x: v + (x - v) / k,
    LEAK_FREE_INPUT: lambda k: lambda v, x: v - v / k + x,
    DECAY: lambda k: lambda v, x: v * k + x,
    LEAK_FREE_MULTIPLY: lambda k: lambda v, x: v - v * k + x,
}
RESETS = ("zero", "subtract", "subtract_late", "subtract_once", "zero_late")


def fire_guarded(current, potential, constants, dynamics, start, keep):
    """Spikes (T, positions, channels) and charged potentials of one call, whose arrays lie between guards."""
    (steps, positions, channels), rows = current.shape, current.reshape(-1, current.shape[2])
    inputs, _ = guarded(rows, np.nan)
    v, v_room = guarded(potential, 12345)
    ready = tuple(guarded(repeated(c, positions), np.nan)[0] for c in constants)
    indptr, ptr_room = guarded(np.full(len(rows) + 1, start), -7)
    indices, room = guarded(np.full(start + current.size, -7, np.int32), -8)
    values, values_room = guarded(np.full(len(indices) if dynamics.multiple else 0, np.nan, F), 12345)
    charged, charged_room = guarded(np.full((len(rows) if keep else 0, channels), np.nan, F), 12345)
    active = np.full((steps, 2), -7)
    bits = np.full((1 if dynamics.multiple else steps, words(v.size)), 0xABCDEF01, np.uint32)
    fired = fire(inputs, v, ready, dynamics, (indptr, indices, values), bits, charged, active)
    assert (guards_of(v_room) == 12345).all() and (guards_of(charged_room) == 12345).all()
    assert (guards_of(ptr_room) == -7).all() and (guards_of(room) == -8).all()
    assert (guards_of(values_room) == 12345).all()
    assert (indices[:start] == -7).all() and indptr[0] == start
    assert fired == indptr[-1] - start
    spikes = np.zeros(rows.shape, F)
    for p, (a, b) in enumerate(itertools.pairwise(indptr)):
        assert (np.diff(indices[a:b]) > 0).all()
        spikes[p, indices[a:b]] = values[a:b] if dynamics.multiple else 1
    assert np.count_nonzero(spikes) == fired
    potential[:] = v
    return spikes.reshape(current.shape), charged.reshape(-1, positions, channels), active


def check_fire(charge, reset, current, constants, strict, multiple):
    """One call for all steps, and one for each, against the definition; counts by comparing potentials."""
    constant, threshold, floor, start = constants
    at_hand = (*constants[:3], start[:0])
    dynamics = Dynamics(charge, RESETS.index(reset), strict, multiple)
    low = floor if len(floor) else None
    expected, h = neuron(current, CHARGES[charge](constant), threshold, reset, strict, start, low, multiple)
    inputs = np.count_nonzero(current.reshape(len(current), -1), axis=1)
    v, before, moved = (*(np.array(np.broadcast_to(start, current.shape[1:])) for _ in range(2)), [])
    for t in range(len(current)):
        spikes, charged, active = fire_guarded(current[t : t + 1], v, at_hand, dynamics, 3 * t, True)
        assert_array_equal(spikes[0], expected[t])
        assert_array_equal(charged[0], h[t])
        moved.append(np.count_nonzero(h[t] != before))
        assert active.tolist() == [[inputs[t], moved[t]]]
        before = v.copy()
    for keep in (False, True):
        together = np.full(current.shape[1:], np.nan, F)  # whatever the sample before has left
        spikes, charged, active = fire_guarded(current, together, constants, dynamics, 0, keep)
        assert_array_equal(spikes, expected)
        assert_array_equal(charged, h if keep else h[:0])
        assert_array_equal(together, v)
        assert_array_equal(active, np.stack([inputs, moved], axis=1))


def population(rng, shape, charge, rows):
    """Inputs and constants of few bits, such that quotients and products round where they should: alike everywhere."""
    current = (rng.integers(-8, 17, shape) / 8 * (rng.random(shape) < 0.8)).astype(F)
    constant = rng.choice(np.array([1, 1.75, 2, 3], F), (rows[0], shape[2]))
    if charge in (LEAK_MULTIPLY, DECAY, LEAK_FREE_MULTIPLY):
        constant = (1 / constant).astype(F)
    threshold = rng.choice(np.array([0.25, 0.5, 1], F), (rows[1], shape[2]))
    floor = rng.choice(np.array([-0.5, -0.125, 0], F), (rows[2], shape[2]))
    start = rng.choice(np.array([-0.25, 0, 0.375], F), (rows[3], shape[2]))
    return current, (constant, threshold, floor, start)


@pytest.mark.parametrize("charge", CHARGES)
@pytest.mark.parametrize("reset", RESETS)
@given(data=st.data())
def test_fire(charge, reset, data):
    shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5)), data.draw(st.sampled_from(CHANNELS)))
    rows = [data.draw(st.sampled_from([1, shape[1]])) for _ in range(4)]
    rows[2] = data.draw(st.sampled_from([0, rows[2]]))
    strict = data.draw(st.booleans())
    multiple = reset in ("zero", "subtract") and not strict and data.draw(st.booleans())
    current, constants = population(data.draw(randoms()), shape, charge, rows)
    check_fire(charge, reset, current, constants, strict, multiple)


@pytest.mark.parametrize("charge", CHARGES)
@pytest.mark.parametrize(("positions", "channels"), [(70, 33), (129, 32), (3, 1500), (1, 4099), (50, 130)])
@pytest.mark.parametrize("rows", ["once", "each", "mixed"])
def test_fire_in_stretches(charge, positions, channels, rows):
    """More neurons than one stretch, with constants that begin again and constants that do not."""
    counts_of = {"once": (1, 1, 1, 1), "each": (positions,) * 4, "mixed": (1, positions, 1, positions)}[rows]
    current, constants = population(np.random.default_rng(channels), (3, positions, channels), charge, counts_of)
    check_fire(charge, "subtract_once", current, constants, False, False)
    check_fire(charge, "zero", current, (*constants[:2], constants[2][:0], constants[3]), True, False)
    check_fire(charge, "subtract", current, constants, False, True)


@pytest.mark.nojit
@pytest.mark.parametrize("charge", CHARGES)
@pytest.mark.parametrize("reset", RESETS)
def test_fire_small(charge, reset):
    current = np.array([[[1, 2, 0.5], [-1, 3, 0]], [[1, 1, 1], [0, 0, 2]]], F)
    constant, threshold = np.array([[0.5, 0.25, 1]], F), np.array([[1, 0.5, 1], [2, 1, 1]], F)
    floor, start = np.array([[-0.25, 0, -3]], F), np.array([[0, 0.5, -1]], F)
    for strict in (False, True):
        check_fire(charge, reset, current, (constant, threshold, floor, start), strict, False)
        check_fire(charge, reset, current, (constant, threshold, floor[:0], start), strict, False)
    if reset in ("zero", "subtract"):
        check_fire(charge, reset, current, (constant, threshold, floor, start), False, True)


@pytest.mark.nojit
def test_several_spikes_next_to_the_threshold():
    """One at a threshold that has no short quotient, none below it."""
    threshold = np.nextafter(np.array([[1, 3, 0.1]], F), F(4))
    current = np.stack([threshold, np.nextafter(threshold, F(0)), 3 * threshold])
    check_fire(INTEGRATE, "zero", current, (threshold, threshold, threshold[:0], 0 * threshold), False, True)


@pytest.mark.nojit
def test_powers_of_two_are_multiplied():
    """The same bits as the division, subnormal results included; other constants are still divided by."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=2000) * 2.0 ** rng.integers(-149, 100, 2000)).astype(F)
    for exponent in (-119, -3, 0, 1, 119):
        k = np.full((1, 2), 2.0**exponent, F)
        for charge, faster_charge in ((LEAK_DIVIDE, LEAK_MULTIPLY), (LEAK_FREE_INPUT, LEAK_FREE_MULTIPLY)):
            found, factor = faster(charge, k)
            assert found == faster_charge
            with np.errstate(over="ignore", under="ignore"):
                assert (x / k[0, 0]).tobytes() == (x * factor[0, 0]).tobytes()
    for k in ([[2, 3]], [[1, 2.0**-140]], [[2, 1.5]]):
        constant = np.array(k, F)
        charge, same = faster(LEAK_DIVIDE, constant)
        assert charge == LEAK_DIVIDE and same is constant
    assert faster(DECAY, np.array([[2]], F))[0] == DECAY


# --- rows


@given(data=st.data())
def test_list_nonzeros(data):
    kind, channels = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(CHANNELS))
    rows = data.draw(activity(kind, data.draw(st.integers(0, 6)), channels))
    check_listed(rows)


@pytest.mark.nojit
def test_list_nonzeros_small():
    check_listed(np.array([[0, 2, -0.0], [0, 0, 0], [-1, 0, 0.5]], F))
    check_listed(np.zeros((0, 3), F))


def check_listed(rows: np.ndarray) -> None:
    nonzeros = np.count_nonzero(rows)
    indptr, indices, values = np.empty(len(rows) + 1, np.int64), np.empty(nonzeros + 1, np.int32), None
    values = np.empty(nonzeros + 1, F)
    list_nonzeros(rows, indptr, indices, values)
    expected = csr(rows)
    assert_array_equal(indptr, expected[0])
    assert_array_equal(indices[:-1], expected[1])
    assert_array_equal(values[:-1], expected[2])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_pool_rows_and_dense(kind, data):
    size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    sliding = data.draw(slidings(size))
    channels = data.draw(st.sampled_from([1, 3, 17, 63, 64, 70]))
    frames = data.draw(activity(kind, data.draw(st.integers(1, 3)), channels, *size))
    check_pooled(frames, sliding, kind)


@pytest.mark.nojit
@pytest.mark.parametrize("kind", KINDS)
def test_pool_small(kind):
    frames = np.array([[[[0, 1, 0], [2, 0, 1]]], [[[0, 0, 0], [0, 0, 3]]]], F)
    frames = {"binary": (frames != 0).astype(F), "graded": frames, "real": frames - 1}[kind]
    check_pooled(frames, Sliding((2, 2), (1, 2), (1, 1), (3, 2)), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [3, 17, 24, 65])
def test_pool_rows_of_lines_that_take_several_words(channels, kind):
    """Windows whose bits begin anywhere in a word, and go on in the next."""
    rng = np.random.default_rng(channels)
    frames = rng.integers(0, 3, (2, channels, 4, 40)) * (rng.random((2, channels, 4, 40)) < 0.4)
    frames = {"binary": frames != 0, "graded": frames, "real": frames - (frames > 1) * 3}[kind].astype(F)
    check_pooled(frames, Sliding((2, 2), (2, 2), (0, 0), (2, 20)), kind)


def check_pooled(frames: np.ndarray, sliding: Sliding, kind: str) -> None:
    steps, channels, *size = frames.shape
    spans = spans_of(tuple(size), sliding)
    for maximum in (True, False):
        expected = (maxpool2d if maximum else sumpool2d)(frames, **sliding.parameters)
        stale = np.full((steps * sliding.size[0] * sliding.size[1], channels), np.nan, F)
        touched = pool_dense(last(frames), steps, spans, stale, maximum)
        assert_array_equal(maps(stale, steps, sliding.size), expected)
        assert touched == counts.pooled_values(frames, **sliding.parameters, windows=sliding.size, dense=True)
        if maximum and kind == "real":
            continue  # rows are pooled by maximum only where none is negative
        listed = csr(last(expected))
        room = len(listed[1])
        if kind == "real":  # some cancel, and are listed before they do
            room = expected.size
        for left in (True, False) if maximum and kind == "binary" else (False,):
            indptr = np.empty(len(listed[0]), np.int64)
            (indices, indices_room), (values, values_room) = (
                guarded(np.empty(room, np.int32), -8),
                guarded(np.empty(room, F), 7),
            )
            touched = np.full(steps, -7)
            rows = csr(last(frames), kind == "binary")
            if maximum and kind == "binary":
                bits = bits_of(frames)
                if not left:  # by neurons
                    set_bits(*rows[:2], channels, bits)
                pool_bits(rows[0], bits, channels, spans, (indptr, indices, values), touched)
            else:
                pool_rows(rows, channels, spans, maximum, (indptr, indices, values), touched)
            assert_array_equal(indptr, listed[0])
            assert_array_equal(indices[: indptr[-1]], listed[1])
            assert (guards_of(indices_room) == -8).all()
            assert (guards_of(values_room) == 7).all()
            if kind != "binary" or not maximum:  # all are 1 there, and not written
                assert_array_equal(values[: indptr[-1]], listed[2])
            one_by_one = (frame[None] for frame in frames)
            window_counts = {**sliding.parameters, "windows": sliding.size}
            assert touched.tolist() == [counts.pooled_values(frame, **window_counts) for frame in one_by_one]


def bits_of(frames: np.ndarray) -> np.ndarray:
    """The spikes of each step as neurons leave them; those behind mean nothing, and are all ones."""
    steps, size = len(frames), frames[0].size
    active = np.ones((steps, 32 * words(size)), bool)
    active[:, :size] = last(frames).reshape(steps, -1) != 0
    return np.packbits(active, axis=1, bitorder="little").view(np.uint32)


MODES = {"add": 0, "iand": 1, "and": 2}


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
def test_join_rows(mode, data):
    kinds = KINDS if mode == "add" else ("binary",)
    shape = (data.draw(st.integers(0, 6)), data.draw(st.sampled_from(CHANNELS)))
    a_kind, b_kind = data.draw(st.sampled_from(kinds)), data.draw(st.sampled_from(kinds))
    a = data.draw(activity(a_kind, *shape))
    b = data.draw(activity(b_kind, *shape))
    check_joined(mode, a, b, a_kind == "binary", b_kind == "binary")


@pytest.mark.nojit
@pytest.mark.parametrize("mode", MODES)
def test_join_rows_small(mode):
    a, b = np.array([[0, 0, 1, 1], [1, 0, 0, 0]], F), np.array([[0, 1, 0, 1], [1, 1, 0, 0]], F)
    check_joined(mode, a, b, True, True)
    check_joined(mode, a, np.zeros_like(b), True, True)
    if mode == "add":
        check_joined(mode, 2 * a, -2 * b, False, False)  # some cancel
        check_joined(mode, a, 3 * b, True, False)
    wide = [np.pad(x, ((0, 0), (60, 40))) for x in (a, b)]  # sparse enough to be merged
    check_joined(mode, *wide, True, True)
    check_joined(mode, 2 * wide[0], -2 * wide[1] if mode == "add" else wide[1], False, False)


def check_joined(mode: str, a: np.ndarray, b: np.ndarray, a_binary: bool, b_binary: bool) -> None:
    left, right = csr(a, a_binary), csr(b, b_binary)
    room = len(left[1]) + len(right[1]) + SPARE_SUMS
    indptr = np.empty(len(a) + 1, np.int64)
    (indices, indices_room), (values, values_room) = (
        guarded(np.empty(room, np.int32), -8),
        guarded(np.empty(room, F), 7),
    )
    meetings = np.full(2 if len(a) % 2 == 0 else 1, -7)
    join_rows(left, right, a.shape[1], MODES[mode], indptr, indices, values, meetings)
    expected = csr(residual(a, b, mode))
    assert_array_equal(indptr, expected[0])
    assert_array_equal(indices[: indptr[-1]], expected[1])
    assert_array_equal(values[: indptr[-1]], expected[2])
    assert (guards_of(indices_room) == -8).all()
    assert (guards_of(values_room) == 7).all()
    halves = zip(np.split(a, len(meetings)), np.split(b, len(meetings)), strict=True)
    assert meetings.tolist() == [counts.residual_add_coincidences(x, y) for x, y in halves]


@given(data=st.data())
def test_flatten_rows(data):
    steps, positions = data.draw(st.integers(0, 3)), data.draw(st.integers(1, 7))
    check_flattened(data.draw(activity("graded", steps, positions, data.draw(st.sampled_from([1, 2, 15, 17, 64])))))


@pytest.mark.nojit
@pytest.mark.parametrize("g_binary", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_gate_rows_small(binary, g_binary):
    """Two steps of two rows; one row of gates for both rows of a step, one gate for two channels."""
    x = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], F) * F(1 if binary else 3)
    g = np.array([[0, 1], [1, 0]], F) * F(1 if g_binary else 0.5)
    rows = csr(x, binary)
    indptr, indices, values = np.full(5, -7), np.empty(len(rows[1]), np.int32), np.empty(len(rows[1]), F)
    meetings = np.full(2, -7)
    gate_rows(csr(g, g_binary), rows, 2, 2, (indptr, indices, values), meetings)
    expected = csr(x * np.repeat(np.repeat(g, 2, axis=0), 2, axis=1))
    assert_array_equal(indptr, expected[0])
    assert_array_equal(indices[: indptr[-1]], expected[1])
    assert_array_equal(values[: indptr[-1]], expected[2])
    assert meetings.tolist() == [2, 1]


@pytest.mark.nojit
@pytest.mark.parametrize("binary", [True, False])
def test_sum_groups_small(binary):
    x = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 1]], F) * F(1 if binary else -1.5)
    out = np.zeros((2, 2), F)
    sum_groups(*csr(x, binary), 3, out)
    assert_array_equal(out, x.reshape(2, 2, 3).sum(axis=2))


@pytest.mark.nojit
def test_flatten_rows_small():
    check_flattened(np.array([[[1, 0, 2], [0, 0, 3]], [[0, 0, 0], [4, 5, 0]]], F))


def check_flattened(tokens: np.ndarray) -> None:
    steps, positions, channels = tokens.shape
    indptr, indices, values = csr(tokens.reshape(-1, channels))
    flat = np.full(steps + 1, -1, np.int64), np.full(len(indices), -1, np.int32), np.full(len(indices), -1, F)
    flatten_rows((indptr, indices, values), positions, channels, flat)
    expected = csr(tokens.swapaxes(1, 2).reshape(steps, channels * positions))
    for found, part in zip(flat, expected, strict=True):
        assert_array_equal(found, part)


@given(data=st.data())
def test_sum_rows(data):
    kind, channels = data.draw(st.sampled_from(KINDS)), data.draw(st.sampled_from(CHANNELS))
    tokens = data.draw(activity(kind, data.draw(st.integers(0, 3)), data.draw(st.integers(1, 7)), channels))
    check_summed(tokens, kind == "binary")


@pytest.mark.nojit
@pytest.mark.parametrize("binary", [True, False])
def test_sum_rows_small(binary):
    tokens = np.array([[[1, 0, 1], [0, 0, 1]], [[0, 0, 0], [1, 1, 0]]], F)
    check_summed(tokens if binary else tokens * F(-1.5), binary)


def check_summed(tokens: np.ndarray, binary: bool) -> None:
    steps, positions, channels = tokens.shape
    out = np.zeros((steps, channels), F)
    sum_rows(*csr(tokens.reshape(-1, channels), binary), positions, out)
    assert_array_equal(out, tokens.sum(axis=1))


# --- frames to rows, and rows summed over time


@pytest.mark.nojit
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_list_frames(dtype):
    frames = np.array([[[0, 1, 0], [2, 0, 3]], [[0, 0, 0], [0, 0, 1]]], dtype)  # steps, channels, positions
    indptr, indices, values = np.full(7, -1, np.int64), np.full(5, -1, np.int32), np.full(5, np.nan, F)
    list_frames(frames, indptr, indices, values)
    expected = csr(last(frames.astype(F)[:, :, None]))
    assert_array_equal(indptr, expected[0])
    assert_array_equal(indices[:-1], expected[1])
    assert_array_equal(values[:-1], expected[2])


@pytest.mark.nojit
@pytest.mark.parametrize("binary", [True, False])
def test_total_rows(binary):
    frames = np.array([[[1, 0], [0, 1], [1, 1]], [[0, 0], [0, 1], [1, 0]]], F) * (1 if binary else F(0.5))
    total = np.full((3, 2), 0.25, F)
    total_rows(*csr(frames.reshape(-1, 2), binary), 3, total)
    assert_array_equal(total, 0.25 + frames.sum(axis=0))


@pytest.mark.parametrize("outputs", CHANNELS)
def test_what_is_packed_can_be_unpacked(outputs):
    weight = np.random.default_rng(outputs).normal(size=(3, 4, outputs)).astype(F)
    for groups in (1, 2):
        assert_array_equal(unpack(pack(weight, groups), 3, 4, outputs, groups), weight)
