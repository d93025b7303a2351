"""Integer synapses and neurons against 64-bit integers, at the bounds that were proven, too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from integer_strategies import SERVING, bytes_of, served_by
from numpy.testing import assert_array_equal
from plain_rows import chunks, execute, one_call, rows_of_frames, signal_type
from reference import integers
from strategies import Sliding, activity, randoms, slidings

from eventsim.errors import LayerError
from eventsim.kernels.fire_integer import LARGEST_CURRENT, LARGEST_POTENTIAL
from eventsim.kernels.gather_integer import ENTRIES, NEAR
from eventsim.layers import IntegerConv2d, IntegerConv3d, IntegerLIF, IntegerLinear, IntegerWindowedLinear
from eventsim.layers.synapses import integer_weights
from eventsim.layers.synapses.integer_weights import LARGEST_SUM, NARROW_SUM, width_of
from eventsim.signals import Dense

pytestmark = pytest.mark.kernels

F = np.float32
CHANNELS = (1, 2, 31, 32, 33, 64, 65, 95, 96, 127, 128, 129, 200)


def all_chunks(layer: Any, kind: str, x: np.ndarray, expected: np.ndarray) -> None:
    """By each of the kernels, whatever this processor has an instruction for."""
    for kernel in SERVING:
        with served_by(kernel):
            for chunk in chunks(len(x)):
                assert_array_equal(execute(layer, [(signal_type(kind, x.shape[1:]), x)], chunk).frames, expected)


@given(st.data())
def test_sums_are_those_of_64_bit_integers(data: st.DataObject) -> None:
    draw = data.draw
    kind, outputs = draw(st.sampled_from(["binary", "graded"])), draw(st.sampled_from(CHANNELS))
    largest = 1 if kind == "binary" else draw(st.sampled_from([17, 100, 257, 259, 1000]))
    if draw(st.booleans()):
        channels = draw(st.sampled_from([1, 7] if largest > 150 else [1, 7, 300, 700]))
        x = draw(activity(kind, 3, 4, channels))
        weight = draw(bytes_of(outputs, channels))
        layer: Any = IntegerLinear(weight, np.ones(outputs, F), largest)
        return all_chunks(layer, kind, x, integers.linear(x, weight))
    groups = draw(st.sampled_from([1, 1, 2]))
    size, channels = (
        draw(st.tuples(st.integers(2, 6), st.integers(2, 6))),
        groups * draw(st.sampled_from([1, 3] if largest > 150 else [1, 3, 40])),
    )
    outputs = groups * -(-outputs // 8)
    window: Sliding = draw(slidings(size, widest=2))
    place = {"stride": window.stride, "padding": window.padding, "groups": groups}
    place["dilation"] = draw(st.sampled_from([(1, 1), (1, 1), (2, 1)])) if window.kernel[0] == 1 else (1, 1)
    x = draw(activity(kind, 3, channels, *size))
    weight = draw(bytes_of(outputs, channels // groups, *window.kernel))
    layer = IntegerConv2d(weight, np.ones(outputs, F), largest, **place)
    return all_chunks(layer, kind, x, integers.conv2d(x, weight, **place))


@pytest.mark.parametrize("seed", range(24))
def test_sums_under_any_window(seed: int) -> None:
    """Taps side by side and apart, strides, padding, several tiles and parts of tiles; values that fill the lanes."""
    rng = np.random.default_rng(seed)
    kind, largest = ("binary", 1) if seed % 3 else ("graded", int(rng.choice([5, 200])))
    (kh, kw), stride = rng.integers(1, 4, 2).tolist(), tuple(rng.integers(1, 4, 2).tolist())
    dilation, padding = tuple(rng.integers(1, 4, 2).tolist()), tuple(rng.integers(0, 3, 2).tolist())
    height, width = (int(d * (k - 1) + 1 + rng.integers(0, 6)) for d, k in zip(dilation, (kh, kw), strict=True))
    channels, outputs = int(rng.choice([1, 20, 70])), int(rng.choice([3, 32, 96, 130]))
    x = np.where(rng.random((3, channels, height, width)) < rng.choice([0.1, 0.9]), largest, 0).astype(F)
    weight = rng.integers(-127, 128, (outputs, channels, kh, kw)).astype(np.int8)
    place: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    all_chunks(
        IntegerConv2d(weight, np.ones(outputs, F), largest, **place),
        kind,
        x,
        integers.conv2d(x, weight, groups=1, **place),
    )


@pytest.mark.parametrize(("channels", "outputs", "size"), [(64, 40, 24), (470, 128, 4), (520, 130, 3)])
@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_sums_of_more_events_than_are_put_together_at_once(kind: str, channels: int, outputs: int, size: int) -> None:
    """In several blocks of output rows; and where the weights of a tile are far, row of taps after row of taps."""
    rng = np.random.default_rng(channels)
    x = (rng.random((1, channels, size, size)) < 0.95) * rng.integers(1, 2 if kind == "binary" else 9, channels)[
        :, None, None
    ]
    weight = rng.integers(-127, 128, (outputs, channels, 3, 3)).astype(np.int8)
    assert 9 * channels * min(outputs, 128) > NEAR or 9 * x[x > 0].size > ENTRIES
    place: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    layer = IntegerConv2d(weight, np.ones(outputs, F), int(x.max()), **place)
    all_chunks(layer, kind, x.astype(F), integers.conv2d(x.astype(F), weight, groups=1, **place))


def test_values_may_add_up_to_more_than_32_bits_hold() -> None:
    """Over all that is served in one call, where the sums of each output fit by far."""
    weight = np.repeat(np.array([[50], [-50], [1]], np.int8), 500, axis=1)
    layer = IntegerLinear(weight, np.ones(3, F), 255)
    x = np.full((17_000, 1, 500), 255, F)
    assert x.sum(dtype=np.float64) > 2**31
    with served_by("plain"):
        found = execute(layer, [(signal_type("graded", (1, 500)), x)], len(x)).frames
    assert_array_equal(found, np.broadcast_to(255 * weight.sum(1, dtype=np.int64), found.shape))


@given(st.data())
def test_sums_over_time_are_those_of_64_bit_integers(data: st.DataObject) -> None:
    draw = data.draw
    kind = draw(st.sampled_from(["binary", "graded"]))
    largest, outputs = 1 if kind == "binary" else draw(st.sampled_from([17, 257])), draw(st.sampled_from([2, 6, 34]))
    if draw(st.booleans()):
        x = draw(activity(kind, 4, 2, *draw(st.sampled_from([(1, 3), (3, 2)]))))
        causal, length = draw(st.booleans()), draw(st.sampled_from([1, 3]))
        weight = draw(bytes_of(outputs, 2, length, 1, 2))
        layer: Any = IntegerConv3d(
            weight, np.ones(outputs, F), largest, padding=(0, 1), time_padding="causal" if causal else "centred"
        )
        expected = integers.conv3d(x, weight, padding=(0, 1), causal=causal)
        if layer.op(signal_type(kind, x.shape[1:])).looks_ahead:
            for kernel in SERVING:
                with served_by(kernel):
                    found = execute(layer, [(signal_type(kind, x.shape[1:]), x)], len(x)).frames
                    assert_array_equal(found, expected)
            return
    else:
        x = draw(activity(kind, 4, 3, 5))
        weight = draw(bytes_of(outputs, 5))
        groups = draw(st.sampled_from([1, 2]))
        window, exponent = (
            tuple(draw(st.lists(st.integers(low, 3), min_size=groups, max_size=groups))) for low in (1, 0)
        )
        decay, form = (
            draw(st.sampled_from(["geometric", "constant"])),
            draw(st.sampled_from(["accumulate_once", "reaccumulate"])),
        )
        layer = IntegerWindowedLinear(weight, np.ones(outputs, F), largest, window, exponent, decay, form)
        of_each = [[int(n) for n in np.repeat(values, outputs // groups)] for values in (window, exponent)]
        expected = integers.windowed_linear(x, weight, of_each[0], of_each[1], decay)
    all_chunks(layer, kind, x, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_worst_over_a_window_is_exact_and_one_more_is_refused(sign: int) -> None:
    """4 + 2 + 1 of every product: 127 x 18,871 x 7 = 16,776,319 of 2^24."""
    weight, x = np.full((3, 18_871), sign * 127, np.int8), np.ones((4, 1, 18_871), F)
    layer = IntegerWindowedLinear(weight, np.full(3, 0.5, F), 1, 3, 1)
    assert (layer.width.largest, layer.bits) == (16_776_319, 32)
    assert_array_equal(layer.unit, [0.125] * 3)
    all_chunks(layer, "binary", x, np.array([4, 6, 7, 7])[:, None, None] * np.full((1, 1, 3), sign * 127 * 18_871))
    source = signal_type("binary", (1, 18_873))
    with pytest.raises(
        LayerError, match=r"^sums up to 16778097 found \(weights times inputs up to 1 over the window\)"
    ):
        IntegerWindowedLinear(np.full((3, 18_873), sign * 127, np.int8), np.ones(3, F), 1, 3, 1).output_type(source)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("channels", [6, 300])
@pytest.mark.parametrize("size", [(3, 5), (4, 4), (2, 1)])
def test_pixels_in_pairs_end_with_their_line(size: tuple[int, int], channels: int, stride: tuple[int, int]) -> None:
    """Of maps with odd and even lines, whether a visit takes a tap or a row of them."""
    rng = np.random.default_rng(channels)
    weight = rng.integers(-127, 128, (20, channels, 3, 3)).astype(np.int8)
    x = np.where(rng.random((2, channels, *size)) < 0.4, rng.integers(1, 6, (2, channels, *size)), 0).astype(F)
    layer = IntegerConv2d(weight, np.ones(20, F), 5, stride, (1, 1))
    all_chunks(layer, "graded", x, integers.conv2d(x, weight, stride, (1, 1)))


@pytest.mark.parametrize("causal", [True, False])
def test_a_kernel_over_time_begins_where_it_says(causal: bool) -> None:
    weight = np.arange(1, 4, dtype=np.int8).reshape(1, 1, 3, 1, 1)
    x = np.array([1, 0, 0, 0], F).reshape(4, 1, 1, 1)
    layer = IntegerConv3d(weight, np.ones(1, F), time_padding="causal" if causal else "centred")
    found = execute(layer, [(signal_type("binary", (1, 1, 1)), x)], 4).frames.ravel()
    assert_array_equal(found, [3, 2, 1, 0] if causal else [2, 1, 0, 0])
    assert_array_equal(found, integers.conv3d(x, weight, causal=causal).ravel())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_worst_over_time_is_exact(sign: int) -> None:
    weight, x = np.full((3, 300, 3, 1, 1), sign * 127, np.int8), np.ones((4, 300, 1, 1), F)
    layer = IntegerConv3d(weight, np.ones(3, F), time_padding="causal")
    assert (layer.width.largest, layer.width.lane, layer.width.bits) == (127 * 900, 16, 32)
    steps = np.array([1, 2, 3, 3])[:, None, None, None]
    all_chunks(layer, "binary", x, np.broadcast_to(steps * sign * 127 * 300, (4, 3, 1, 1)))


@pytest.mark.parametrize("outputs", [3, 40, 130])
@pytest.mark.parametrize(
    ("inputs", "largest", "lane", "bits"),
    [
        (258, 1, 16, 16),  # 258 x 127 = 32,766
        (259, 1, 16, 32),
        (1, 255, 16, 16),
        (1, 256, 32, 32),  # no byte holds it
        (1000, 132, 16, 32),
        (100, 1321, 32, 32),  # 16,776,700 of 16,777,216
    ],
)
def test_the_worst_that_was_proven_is_exact(inputs: int, largest: int, lane: int, bits: int, outputs: int) -> None:
    """Every weight at its limit, every input active and at its largest; of one sign, then of the other."""
    kind = "binary" if largest == 1 else "graded"
    x = np.full((2, 1, inputs), largest, F)
    for sign in (1, -1):
        weight = np.full((outputs, inputs), sign * 127, np.int8)
        layer = IntegerLinear(weight, np.ones(outputs, F), largest)
        assert (layer.width.lane, layer.width.bits) == (lane, bits)
        assert layer.width.largest == 127 * inputs * largest
        all_chunks(layer, kind, x, np.full((2, 1, outputs), sign * 127 * inputs * largest))
    weight = np.full((outputs, inputs, 1, 1), 127, np.int8)
    conv = IntegerConv2d(weight, np.ones(outputs, F), largest)
    all_chunks(conv, kind, np.full((2, inputs, 1, 2), largest, F), np.full((2, outputs, 1, 2), 127 * inputs * largest))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("total", [258, 259, 600])
@pytest.mark.parametrize("largest", [1, 3])
def test_as_much_is_taken_at_once_as_fits(largest: int, total: int, sign: int) -> None:
    """258 x 127 = 32,766 is the last that 16 bits hold; more is taken in pieces."""
    inputs = 900
    weight = np.full((40, inputs), sign * 127, np.int8)
    weight[::2] *= -1
    x = np.zeros((1, 1, inputs), F)
    x[0, 0, :: inputs * largest // total][: total // largest] = largest
    x[0, 0, inputs - 1] = total - x.sum()
    layer = IntegerLinear(weight, np.ones(40, F), largest)
    assert layer.width.lane == 16
    assert layer.width.room == 258
    assert x.max() <= largest
    all_chunks(layer, "binary" if largest == 1 else "graded", x, x @ weight.T.astype(F))


def test_taps_are_taken_at_once_where_what_is_active_fits() -> None:
    """Four taps of 60 inputs fit; whichever of nine pixels are silent, what is added up must."""
    masks = (np.arange(512)[:, None] >> np.arange(9) & 1).reshape(512, 1, 3, 3)
    x = np.broadcast_to(masks, (512, 60, 3, 3)).astype(F)
    layer = IntegerConv2d(np.full((3, 60, 3, 3), 127, np.int8), np.ones(3, F), padding=(1, 1))
    assert layer.width.room == 258
    around = np.pad(masks, ((0, 0), (0, 0), (1, 1), (1, 1)))
    active = sum(around[:, :, dy : dy + 3, dx : dx + 3] for dy in range(3) for dx in range(3))
    all_chunks(layer, "binary", x, np.broadcast_to(active * 60 * 127, (512, 3, 3, 3)))


@given(st.data())
def test_weights_are_held_once_and_read_as_they_were(data: st.DataObject) -> None:
    """In the form of whatever kernel serves them; an op made for another one packs them anew."""
    draw = data.draw
    outputs, largest = draw(st.sampled_from([2, 16, 34, 98, 130])), draw(st.sampled_from([1, 300]))
    groups = draw(st.sampled_from([1, 2]))
    shape, size = draw(st.sampled_from([((3,), (5,)), ((3, 2, 3), (4, 4)), ((3, 3, 2, 3), (4, 4))]))
    weight = draw(bytes_of(outputs, *shape))
    kind, channels = "binary" if largest == 1 else "graded", 3
    if len(shape) > 1:
        channels = 3 * groups
        made = IntegerConv2d if len(shape) == 3 else IntegerConv3d
        layer: Any = made(weight, np.ones(outputs, F), largest, groups=groups)
    else:
        layer = draw(st.sampled_from([IntegerLinear, IntegerWindowedLinear]))(weight, np.ones(outputs, F), largest)
    source = signal_type(kind, (channels, *size) if len(size) == 2 else (*size, channels))
    facts = layer.facts(source)
    for kernel in SERVING:
        with served_by(kernel):
            layer.op(source)
        held = vars(layer)["_weight"]
        assert isinstance(held, integer_weights.PackedBytes)
        assert layer.weight.dtype == np.int8
        assert_array_equal(layer.weight, weight)
        assert layer.facts(source) == facts
    assert facts.zero_weights == np.count_nonzero(weight == 0)


def test_one_input_more_is_refused() -> None:
    """2^24 is the end: 127 x 132,104 is the last below it."""
    weight = np.full((1, 132_104), 127, np.int8)
    source = signal_type("binary", (1, 132_104))
    assert IntegerLinear(weight, np.ones(1, F)).output_type(source).channels == 1
    more = np.full((1, 132_105), 127, np.int8)
    with pytest.raises(
        LayerError, match=r"^sums up to 16777335 found \(weights times inputs up to 1\); expected at most"
    ):
        IntegerLinear(more, np.ones(1, F)).output_type(signal_type("binary", (1, 132_105)))
    with pytest.raises(LayerError, match="sums up to 16777335 found"):
        IntegerLinear(weight[:, :1], np.ones(1, F), 132_105).output_type(signal_type("graded", (1, 1)))


def test_an_input_beyond_what_was_proven_is_refused() -> None:
    layer = IntegerLinear(np.ones((2, 3), np.int8), np.ones(2, F), 5)
    kind = signal_type("graded", (1, 3))
    execute(layer, [(kind, np.full((1, 1, 3), 5, F))], 1)
    with pytest.raises(LayerError, match=r"^input 6 found; expected at most 5, for which the width"):
        execute(layer, [(kind, np.full((1, 1, 3), 6, F))], 1)


@given(data=st.data(), largest=st.sampled_from([1, 2, 9, 258]))
def test_nothing_there_is_room_for_leaves_its_lane(data: st.DataObject, largest: int) -> None:
    """Whatever is active: of each sign, the largest weights as often as there is room."""
    channels = data.draw(st.sampled_from([1, 40] if largest > 9 else [1, 40, 300]))
    taps = data.draw(bytes_of(data.draw(st.integers(1, 9)), channels, 3)).astype(np.int64)
    width = width_of(taps.astype(np.int8).transpose(2, 1, 0)[:, :, None], largest)
    for output in range(3):
        for sign in (1, -1):
            weights = np.sort(np.maximum(sign * taps[..., output].ravel(), 0))[::-1].repeat(largest)
            assert width.largest >= weights.sum()
            assert weights[: width.room].sum() <= (NARROW_SUM if width.lane == 16 else LARGEST_SUM)
    assert width.room >= largest
    assert width.largest <= 2 ** (width.bits - 1) - 1
    assert width.lane <= width.bits


LEAKS = st.sampled_from([0, 1, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 10_923, 32_767])


@given(st.data())
def test_neurons_are_those_of_64_bit_integers(data: st.DataObject) -> None:
    draw = data.draw
    rng, channels = draw(randoms()), draw(st.sampled_from([1, 3, 31, 32, 65, 700]))
    shape = draw(st.sampled_from([(channels,), (5, channels), (channels, 2, 3)]))
    fraction = draw(st.integers(0, 12))
    largest = draw(st.sampled_from([40, 1000, (LARGEST_CURRENT >> fraction) - 1]))
    sums = rng.integers(-largest, largest + 1, (4, *shape)) * rng.integers(0, 2, (4, *shape))
    sums = np.where(np.abs(sums) < 2**24, sums, 2**24 * np.sign(sums)).astype(F)

    def constant(low: int, high: int) -> Any:
        size = draw(st.sampled_from([(), (channels,), shape]))
        drawn = rng.integers(low, high + 1, size)
        return int(drawn) if size == () else drawn.astype(np.int32)

    def like(value: Any) -> Any:
        return value[:, None, None] if np.ndim(value) == 1 and len(shape) == 3 else value

    unit = 1 << fraction
    threshold, bias = constant(0, min(largest, 60) * unit), np.asarray(constant(-unit + 1, unit - 1), np.int32)
    room = LARGEST_CURRENT - (largest << fraction)
    bias = np.clip(bias, -room, room).astype(np.int32)
    leak = draw(LEAKS) if draw(st.booleans()) else constant(1, 1 << 15)
    options = {"input_leaks": draw(st.booleans()), "fraction": fraction, "strict": draw(st.booleans())}
    subtract = draw(st.booleans())
    layer = IntegerLIF(threshold, largest, bias=bias, leak=leak, reset="subtract" if subtract else "zero", **options)
    expected, _, before, _ = integers.lif(sums, like(threshold), like(bias), like(leak), subtract=subtract, **options)
    all_chunks(layer, "real", sums, expected)
    left = execute(layer, [(signal_type("real", shape), sums[:-1])], 2).op.potential  # type: ignore[attr-defined]
    assert_array_equal(left, rows_of_frames(before[-1:]))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("leak", [0, 1 << 14, 1, 32_767])
@pytest.mark.parametrize("input_leaks", [True, False])
def test_potentials_stay_where_they_end(sign: int, leak: int, input_leaks: bool) -> None:
    """The largest current in every step, of either sign, for longer than 2^30 has room; then the other sign."""
    largest, fraction = 2**24, 5
    sums = np.full((9, 40), sign * largest, F)
    sums[6:] *= -1
    options: dict[str, Any] = {"leak": leak, "input_leaks": input_leaks, "fraction": fraction}
    layer = IntegerLIF(LARGEST_POTENTIAL, largest, strict=True, reset="subtract", **options)
    expected = integers.lif(sums, LARGEST_POTENTIAL, strict=True, subtract=True, **options)[0]
    all_chunks(layer, "real", sums, expected)
    with pytest.raises(LayerError, match=r"^sums up to 16777216 with 6 bits behind the point and biases up to 0 found"):
        IntegerLIF(1, largest, fraction=6).output_type(signal_type("real", (40,)))
    with pytest.raises(LayerError, match=r"^sums up to 16777216 with 5 bits behind the point and biases up to 1 found"):
        IntegerLIF(1, largest, fraction=5, bias=np.ones(40, np.int32)).output_type(signal_type("real", (40,)))


@pytest.mark.parametrize("channels", [3, 64, 5000])
def test_a_sample_begins_at_0_whatever_the_one_before_left(channels: int) -> None:
    """In vectors and beside them; and so does what is told of the potential before it begins."""
    sums = np.random.default_rng(channels).integers(-9, 90, (3, channels)).astype(F)
    kind = signal_type("real", (channels,))
    op: Any = IntegerLIF(40, 90, leak=1 << 13, fraction=0).op(kind)
    for sample in (sums, sums[::-1].copy()):
        op.reset()
        expected, _, before, _ = integers.lif(sample, 40, leak=1 << 13)
        begun = op.advance((Dense(kind, 2, sample[:2]),), one_call(2, final=False)[0])
        assert_array_equal(begun.to_array(), expected[:2])
        assert_array_equal(op.potential[0], before[2])
        ended = op.advance((Dense(kind, 1, sample[2:]),), one_call(1)[0])
        assert_array_equal(ended.to_array(), expected[2:])
    op.reset()
    assert not op.state()["potential"].any()


@pytest.mark.parametrize("channels", [3, 64])
def test_at_the_threshold(channels: int) -> None:
    """A potential that equals the threshold fires unless strict, and one unit more does; what is left is exact."""
    kind, sums = signal_type("real", (channels,)), np.full((1, channels), 3, F)
    bias = np.arange(channels, dtype=np.int32) % 2
    for strict in (False, True):
        layer = IntegerLIF(3 << 4, 9, bias=bias, fraction=4, strict=strict, reset="subtract")
        done = execute(layer, [(kind, sums)], 1)
        assert_array_equal(done.frames[0], (bias >= 1) if strict else bias >= 0)
        left = np.where(done.frames[0] == 1, bias, 3 << 4)
        assert_array_equal(done.op.potential[0], left)  # type: ignore[attr-defined]


@pytest.mark.parametrize("channels", [3, 64])
def test_a_sum_beyond_what_was_proven_is_refused(channels: int) -> None:
    layer, kind = IntegerLIF(10, 7), signal_type("real", (channels,))
    for sum_ in (8, -8, np.inf, np.nan):
        x = np.zeros((2, channels), F)
        x[1, 1] = sum_
        with pytest.raises(LayerError, match=r"^sum \S+ found; expected at most 7, as proven of the layers before"):
            execute(layer, [(kind, x)], 2)


def test_a_power_of_two_leaks_as_its_product_does() -> None:
    """A shift is a product of which the bits are known: neurons of one leak, and the same beside another."""
    sums = np.random.default_rng(0).integers(-99, 100, (8, 64)).astype(F)
    alike, mixed = np.full(64, 1 << 13, np.int32), np.full(64, 1 << 13, np.int32)
    mixed[-1] = 5
    kind = signal_type("real", (64,))
    for input_leaks in (True, False):
        one, other = (
            execute(IntegerLIF(150, 99, leak=leak, input_leaks=input_leaks, fraction=2), [(kind, sums)], 8)
            for leak in (alike, mixed)
        )
        assert_array_equal(one.frames[:, :63], other.frames[:, :63])
        assert_array_equal(one.op.potential[:, :63], other.op.potential[:, :63])  # type: ignore[attr-defined]
        assert one.frames.any()


@pytest.mark.nojit
def test_uncompiled_it_is_the_same() -> None:
    rng = np.random.default_rng(1)
    weight, x = rng.integers(-127, 128, (3, 2, 2, 2)).astype(np.int8), rng.integers(0, 3, (2, 2, 3, 3)).astype(F)
    layer = IntegerConv2d(weight, np.ones(3, F), 2)
    sums = integers.conv2d(x, weight)
    all_chunks(layer, "graded", x, sums)
    neuron = IntegerLIF(400, layer.width.largest, leak=9999, fraction=3, reset="subtract")
    expected = integers.lif(sums, 400, leak=9999, fraction=3, subtract=True)[0]
    all_chunks(neuron, "real", sums.astype(F), expected)


REFUSED = [
    (IntegerLinear(np.full((2, 3), -128, np.int8), np.ones(2, F)), "binary", "^weight of int8 from -128 on found"),
    (IntegerLinear(np.ones((2, 3), np.int8), np.ones(3, F)), "binary", r"^scale of shape \(3,\) found"),
    (IntegerLinear(np.ones((2, 3), np.int8), np.zeros(2, F)), "binary", r"finite numbers above 0$"),
    (IntegerLinear(np.ones((2, 3), np.int8), np.ones(2, F)), "real", "^input real 3 found; expected spikes or graded"),
    (IntegerLinear(np.ones((2, 3), np.int8), np.ones(2, F), 2), "binary", "^largest input 2 of binary 3 found"),
    (IntegerLinear(np.ones((2, 4), np.int8), np.ones(2, F)), "binary", r"^weight of shape \(2, 4\) found"),
    (IntegerLIF(-1, 5), "real", "^v_threshold of int64 with other values found; expected integers from 0 to"),
    (IntegerLIF(1, 5, leak=32769), "real", "^leak of int64 with other values found"),
    (IntegerLIF(np.ones(2, np.int32), 5), "real", r"^v_threshold of shape \(2,\) found"),
    (IntegerLIF(np.ones(3, F), 5), "real", "^v_threshold of float32 with other values found"),  # type: ignore[arg-type]
    (IntegerLIF(1, 5, fraction=25), "real", "^fraction 25 found; expected 0 to 24 bits"),
    (IntegerLIF(1, 5, reset="zero_late"), "real", "^reset 'zero_late' found"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("layer", "kind", "message"), REFUSED)
def test_what_does_not_fit_is_refused(layer: Any, kind: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        layer.output_type(signal_type(kind, (3,)))
