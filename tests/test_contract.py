"""What every layer promises, whatever it does: each exported layer must be listed here, as small as possible.

The contract itself is public, `eventsim.testing.check_layer`; the second half of this file shows that it catches what
it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from eventsim import EventsimError, InputError, NetworkBuilder, Simulator, layers
from eventsim.banded import Banded
from eventsim.layers import Layer, Op
from eventsim.layers.dense import Memory
from eventsim.layers.neurons.spiking import NeuronOp
from eventsim.signals import Dense, Rows, SignalType
from eventsim.testing import check_layer

pytestmark = pytest.mark.kernels

F = np.float32
MAP = SignalType("binary", 6, (4, 4))
COUNTS = SignalType("graded", 6, (4, 4))
SPARSE = SignalType("real", 6, (4, 4))
CURRENTS = SignalType("real", 6, (4, 4), dense=True)
VECTOR = SignalType("real", 6, (), dense=True)
TOKENS = SignalType("binary", 6, (5,))
STEPS = 4


def random(*shape: int) -> np.ndarray:
    """Multiples of 1/16, none of them 0."""
    rng = np.random.default_rng(sum(shape))
    return (rng.integers(1, 17, shape) * rng.choice([-1, 1], shape) / 16).astype(F)


def pruned(*shape: int) -> np.ndarray:
    """Weights of which most are 0."""
    weight = random(*shape)
    weight.reshape(-1)[np.arange(weight.size) % 5 > 1] = 0
    return weight


def integers(*shape: int, least: int = -127) -> np.ndarray:
    """From `least` to 127."""
    return np.random.default_rng(sum(shape)).integers(least, 128, shape)


def bytes_of(*shape: int) -> np.ndarray:
    return integers(*shape).astype(np.int8)


def gates(steps: int) -> tuple[np.ndarray, ...]:
    return random(steps, 3, 12), random(steps, 3), random(steps, 12, 3), random(steps, 12)


EXAMPLES: list[tuple[Layer, SignalType]] = [
    (layers.AdaptiveLIF(random(1, 6, 1), random(1, 6, 1), v_threshold=0.25), CURRENTS),
    (layers.AdaptiveLIF(random(STEPS, 6, 1), random(1, 6, 16), *gates(STEPS), v_threshold=0.125), CURRENTS),
    (layers.AdaptiveLIF(random(1, 6, 1), random(1, 6, 1), *gates(1), 0.25, gate_inputs="features"), CURRENTS),
    (
        layers.AdaptiveLIF(
            random(1, 6, 1), random(1, 6, 1), past_encoding=random(STEPS, 6, 16), potential_encoding=random(1, 6, 1)
        ),
        CURRENTS,
    ),
    (layers.Activation("relu"), SPARSE),
    (layers.Activation("relu"), CURRENTS),
    (layers.Activation("clamp", -0.25, 0.5), SPARSE),
    (layers.Activation("clamp", 0.25), SPARSE),
    (layers.Activation("clamp", None, 2), COUNTS),
    (layers.Activation("clamp", 0, 0.5), CURRENTS),
    (layers.Activation("sigmoid"), MAP),
    (layers.Activation("softmax"), CURRENTS),
    (layers.AdaptiveAvgPool2d((3, 5)), MAP),
    (layers.AdaptiveAvgPool2d((2, 3)), CURRENTS),
    (layers.AdaptiveMaxPool2d((3, 2)), COUNTS),
    (layers.AdaptiveMaxPool2d((5, 1)), CURRENTS),
    (layers.Affine(random(6), random(6)), MAP),
    (layers.Affine(np.array([0, 1, 0, -2, 1, 0.5], F)), COUNTS),
    (layers.AttentionPool(random(6)), CURRENTS),
    (layers.AttentionPool(random(6)), MAP),
    (layers.AvgPool2d((2, 2), (2, 2)), MAP),
    (layers.AvgPool2d((3, 3), (2, 2), (1, 1), count_include_pad=False), CURRENTS),
    (layers.Concat(), MAP),
    (layers.Concat(), CURRENTS),
    (layers.Conv2d(random(5, 6, 3, 3)), MAP),
    (layers.Conv2d(random(17, 6, 3, 3), padding=(1, 1)), COUNTS),
    (layers.Conv2d(random(4, 3, 3, 3), random(4), groups=2), SPARSE),
    (layers.Conv2d(random(5, 6, 3, 3), random(5), stride=(2, 1)), CURRENTS),
    (layers.Conv2d(pruned(4, 3, 2, 3), groups=2), COUNTS),
    (layers.Conv3d(random(5, 6, 2, 3, 3), time_padding="causal"), MAP),
    (layers.Conv3d(random(5, 6, 3, 3, 3), random(5)), MAP),
    (layers.Conv3d(random(4, 3, 1, 3, 3), groups=2), CURRENTS),
    (layers.Conv3d(random(5, 6, 3, 1, 1), random(5)), SPARSE),
    (layers.Conv3d(pruned(5, 6, 2, 1, 3), padding=(0, 1), time_padding="causal"), MAP),
    (layers.Conv2d(random(5, 6, 2, 3), stride=(2, 1), padding=(1, 2), dilation=(2, 1)), MAP),
    (layers.Conv2d(random(4, 3, 3, 2), groups=2, padding=(1, 0), dilation=(1, 3)), COUNTS),
    (layers.Conv2d(random(5, 6, 2, 2), random(5), dilation=(3, 2)), CURRENTS),
    (layers.Conv2d(pruned(5, 6, 3, 2), None, (2, 1), (1, 0), dilation=(1, 2)), COUNTS),
    (layers.CropOverTime(2), MAP),
    (layers.CropOverTime(1, 3), CURRENTS),
    (layers.DecayLIF(decay=0.75, v_threshold=0.5, reset="subtract_late", strict=True), CURRENTS),
    (layers.DecayLIF(decay=random(6), v_threshold=0.25, reset="subtract_once"), CURRENTS),
    (layers.DecayLIF(decay=0.5, v_threshold=0.25, reset="zero_late", start=0.125), MAP),
    (layers.DelayEach(np.array([0, 2, 1, 0, 3, 1])), MAP),
    (layers.DelayEach(np.arange(96).reshape(6, 4, 4) % 3), CURRENTS),
    (layers.Flatten(), MAP),
    (layers.Flatten(), TOKENS),
    (layers.Gate(), MAP),
    (layers.Gate(), COUNTS),
    (layers.Gate(), SPARSE),
    (layers.Gate(), CURRENTS),
    (layers.GlobalContext(random(6), random(1), random(2, 6), random(2), random(6, 2), random(6)), CURRENTS),
    (layers.GlobalContext(random(6), random(1), random(2, 6), random(2), random(6, 2), random(6)), COUNTS),
    (layers.IF(v_threshold=1.5), CURRENTS),
    (layers.IF(v_threshold=0.25, reset="subtract", multiple_spikes=True, v_min=-0.25, start=0.5), CURRENTS),
    (layers.IF(0.5, "subtract", emits="charge"), MAP),
    (layers.DecayLIF(0.5, "zero_late", decay=random(6), emits="potential"), CURRENTS),
    (layers.IntegerActivation(), CURRENTS),
    (layers.IntegerActivation(2, "up"), SPARSE),
    (layers.IntegerConv2d(bytes_of(5, 6, 3, 3), np.ones(5, F)), MAP),
    (layers.IntegerConv2d(bytes_of(17, 6, 3, 3), np.ones(17, F), 17, (2, 1), (1, 1), dilation=(1, 2)), COUNTS),
    (layers.IntegerConv2d(bytes_of(4, 3, 3, 3), np.ones(4, F), 300, groups=2), COUNTS),
    (layers.IntegerConv3d(bytes_of(5, 6, 2, 3, 3), np.ones(5, F), time_padding="causal"), MAP),
    (layers.IntegerConv3d(bytes_of(17, 6, 3, 3, 3), np.ones(17, F), 300, (2, 1), (1, 1)), COUNTS),
    (layers.IntegerConv3d(bytes_of(4, 3, 1, 3, 3), np.ones(4, F), groups=2), MAP),
    (layers.IntegerLIF(20, 99, fraction=4, leak=1 << 14), CURRENTS),
    (layers.IntegerLIF(9, 99, bias=integers(6), fraction=3, leak=1 << 13, input_leaks=False, strict=True), CURRENTS),
    (
        layers.IntegerLIF(integers(6, least=5) // 6, 99, leak=integers(6, least=9) * 99, reset="subtract", fraction=2),
        COUNTS,
    ),
    (layers.IntegerLIF(integers(6, 4, 4, least=5) // 20, 99, fraction=1), CURRENTS),
    (layers.IntegerLinear(bytes_of(33, 6), np.ones(33, F)), MAP),
    (layers.IntegerLinear(bytes_of(5, 6), np.ones(5, F), 300), COUNTS),
    (layers.IntegerResidual(integers(2, 6, least=1)), MAP),
    (layers.IntegerResidual(np.array([[1] * 6, [2, 3, 1, 1, 1, 9]])), COUNTS),
    (layers.IntegerResidual(np.ones((2, 6), np.int32)), CURRENTS),
    (layers.IntegerWindowedLinear(bytes_of(33, 6), np.ones(33, F)), MAP),
    (layers.IntegerWindowedLinear(bytes_of(6, 6), np.ones(6, F), 300, (3, 1, 2), (2, 0, 1)), COUNTS),
    (
        layers.IntegerWindowedLinear(bytes_of(6, 6), np.ones(6, F), 1, 3, 2, "constant", form="reaccumulate"),
        TOKENS,
    ),
    (layers.IntegerWindowedLinear(bytes_of(6, 6), np.ones(6, F), 17, (3, 2), 1, form="reaccumulate"), COUNTS),
    (layers.LIF(reset="subtract", v_threshold=2.0), COUNTS),
    (layers.LayerNorm(random(6)), CURRENTS),
    (layers.LayerNorm(random(6)), SPARSE),
    (layers.LeakyIntegrator(0.75, start=random(6)), MAP),
    (layers.LeakyIntegrator(), CURRENTS),
    (layers.Linear(random(5, 6)), MAP),
    (layers.Linear(random(33, 6), random(33)), CURRENTS),
    (layers.Linear(pruned(5, 6)), MAP),
    (layers.MaxPool2d((2, 2), (2, 2)), MAP),
    (layers.MaxPool2d((3, 3), (2, 2), (1, 1)), CURRENTS),
    (layers.MaxPool2d((2, 2), (2, 2)), SPARSE),
    (layers.MaxPool2d((2, 2), (1, 2), (1, 0), (2, 1), ceil_mode=True), COUNTS),
    (layers.MeanOverPositions(), MAP),
    (layers.MeanOverPositions(), CURRENTS),
    (layers.MeanOverTime(), MAP),
    (layers.MeanOverTime(), CURRENTS),
    (layers.PLIAF(w=0.5), CURRENTS),
    (layers.PLIF(w=-1.0, v_threshold=0.25), CURRENTS),
    (layers.PositionEncoding(random(1, 6, 16)), CURRENTS),
    (layers.PositionEncoding(random(STEPS, 6, 1)), MAP),
    (layers.Readout(), VECTOR),
    (layers.Readout("sum"), VECTOR),
    (layers.Rearrange(np.array([5, -1, 5, 90, 0, 3], np.int32), (3, 2)), MAP),
    (layers.Rearrange(np.arange(96)[::-1].copy(), (2, 12, 4)), COUNTS),
    (layers.Rearrange(np.array([-1, 7, 95, 95]), (4,)), CURRENTS),
    (layers.Rearrange(np.array([29, -1, -1, 0]), (1, 2, 2)), TOKENS),
    (layers.Reshape((4, 24)), MAP),
    (layers.Reshape((2, 3, 16)), COUNTS),
    (layers.Reshape((3, 32)), CURRENTS),
    (layers.Reshape((5, 3, 2)), TOKENS),
    (layers.Residual("add"), MAP),
    (layers.Residual("iand"), MAP),
    (layers.Residual("add"), CURRENTS),
    (layers.SelectChannels(np.array([4, 0, 3], np.int32)), MAP),
    (layers.SelectChannels(np.array([1, 1, 5, 0, 2, 3, 4])), CURRENTS),
    (layers.SliceOverTime(0, 1), MAP),
    (layers.SliceOverTime(1, 2), MAP),
    (layers.SoftmaxAttention(2), CURRENTS),
    (layers.SoftmaxAttention(2, "time", STEPS), CURRENTS),
    (layers.SoftmaxAttention(2), MAP),
    (layers.SparseLinear.from_matrix(np.where(np.eye(5, 6) == 1, F(0), random(5, 6))), MAP),
    (layers.SpikingAttention(2), MAP),
    (layers.SpikingAttention(3, order="context_first"), TOKENS),
    (layers.SpikingAttention(2, 0.1), COUNTS),
    (layers.SpikingAttention(2, order="context_first"), COUNTS),
    (layers.SumOverChannels(3), MAP),
    (layers.SumOverChannels(2), CURRENTS),
    (layers.SumOverPositions(), COUNTS),
    (layers.SumOverPositions(), CURRENTS),
    (layers.SumPool2d((2, 2), (2, 2)), COUNTS),
    (layers.TableAttention(np.array([[0, 1, 2, 3], [0, -1, 0, 7]], np.int32)), MAP),
    (layers.Threshold(), MAP),
    (layers.Threshold(0.5), CURRENTS),
    (layers.WindowedLinear(random(5, 6), window=2, exponent=1), MAP),
    (layers.WindowedLinear(random(5, 6), random(5), 3, 1, form="reaccumulate"), COUNTS),
    (layers.WindowedLinear(random(6, 6), random(6), (1, 3, 2), (1, 0, 2), form="reaccumulate"), COUNTS),
    (layers.WindowedLinear(random(6, 6), None, (3, 1), (2, 0), "constant"), MAP),
    (layers.WindowedLinear(pruned(6, 6), None, (2, 3), 1, form="reaccumulate"), SPARSE),
    (layers.WindowedLinear(random(5, 6), random(5), 3, 1, form="reaccumulate"), CURRENTS),
    (layers.WindowedLinear(random(5, 6)), MAP),
]


@pytest.mark.parametrize(("layer", "source"), EXAMPLES, ids=[type(layer).__name__ for layer, _ in EXAMPLES])
def test_a_layer_keeps_its_promises(layer: Layer, source: SignalType) -> None:
    check_layer(layer, *[source] * layer.arguments, steps=STEPS)


INPUTS_THAT_DIFFER: list[tuple[Layer, tuple[SignalType, ...]]] = [
    (layers.Gate(), (SignalType("binary", 3, (4, 4)), MAP)),
    (layers.Gate(), (VECTOR, COUNTS)),
    (layers.Gate(), (SignalType("binary", 1, (4, 4)), CURRENTS)),
    (layers.SpikingAttention(3), (TOKENS, TOKENS, SignalType("graded", 12, (5,)))),
    (layers.SpikingAttention(2, order="context_first"), (SignalType("graded", 6, (3,)), TOKENS, TOKENS)),
]


@pytest.mark.parametrize(
    ("layer", "sources"), INPUTS_THAT_DIFFER, ids=[type(layer).__name__ for layer, _ in INPUTS_THAT_DIFFER]
)
def test_a_layer_of_inputs_that_differ_keeps_its_promises(layer: Layer, sources: tuple[SignalType, ...]) -> None:
    check_layer(layer, *sources, steps=STEPS)


def test_every_exported_layer_is_listed() -> None:
    exported = {
        name
        for name in layers.__all__
        if isinstance(getattr(layers, name), type) and issubclass(getattr(layers, name), Layer)
    }
    # frames enter at an input; the last two need inputs of different lengths, as test_over_time gives them
    listed = {type(layer).__name__ for layer, _ in EXAMPLES}
    assert listed == exported - {"Layer", "Input", "JoinOverTime", "TileOverTime"}


# --- what the contract catches


@dataclass(frozen=True, eq=False)
class Odd(Layer):
    """A running sum, told by what its op does wrong."""

    fault: str = ""

    def output_type(self, *inputs: SignalType) -> SignalType:
        return inputs[0]

    def op(self, *inputs: SignalType) -> Op:
        return OPS.get(self.fault, SumOp)(inputs[0])

    def dense(self, inputs: tuple[np.ndarray, ...], memory: Memory) -> np.ndarray:
        return DENSE_FORMS.get(self.fault, running_sum)(inputs[0], memory)

    def absolute(self) -> Layer:
        return Odd("its dense form is half" if self.fault == "its absolute layer emits less" else "")


def running_sum(x: np.ndarray, memory: Memory) -> np.ndarray:
    before = memory.kept.get("total", np.zeros((1, *x.shape[1:]), F))
    total = np.cumsum(np.concatenate([before, x]), axis=0)
    memory.kept["total"] = total[-1:]
    return total[1:]


def in_place(x: np.ndarray, memory: Memory) -> np.ndarray:
    total = running_sum(x, memory)
    x += 1
    return total


DENSE_FORMS: dict[str, Callable[[np.ndarray, Memory], np.ndarray]] = {
    "its dense form differs from its op, in": lambda x, memory: running_sum(x, memory) * F(1.0001),
    "its dense form differs step by step, in": lambda x, memory: running_sum(x, Memory()),
    "its dense form writes into its input": in_place,
    "its dense form emits float64": lambda x, memory: running_sum(x, memory).astype(np.float64),
    r"its dense form emits 1 time steps for none": lambda x, memory: (
        running_sum(x, memory) if len(x) else np.zeros((1, *x.shape[1:]), F)
    ),
    "its dense form is half": lambda x, memory: running_sum(x, memory) / 2,
}


@dataclass(frozen=True, eq=False)
class WithoutDenseForm(Layer):
    """Adds up over time, and does not say so."""

    def output_type(self, *inputs: SignalType) -> SignalType:
        return inputs[0]

    def op(self, *inputs: SignalType) -> Op:
        return SumOp(inputs[0])


class SumOp(Op):
    """Adds up over time, without fault."""

    kernel = "sum"
    state_names: ClassVar[tuple[str, ...]] = ("total",)
    looks_ahead = False
    once_if_static = False

    def __init__(self, source: SignalType) -> None:
        self.source = source
        self.own()
        self.reset()

    def own(self) -> None:
        self.buffer = np.empty((STEPS * self.source.positions, self.source.channels), F)

    def reset(self) -> None:
        self.total = np.zeros((self.source.positions, self.source.channels), F)

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        (signal,) = inputs
        n = self.source.positions
        for step in range(signal.steps):
            self.total = self.total + signal.data[step * n : (step + 1) * n]
            self.buffer[step * n : (step + 1) * n] = self.total
        context.rows.add("additions", self.source.size)
        return Dense(self.source, signal.steps, self.buffer[: signal.steps * n])


class ReadsWhatItDoesNotOwn(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        context.rows.add("table_reads", 1)
        return super().advance(inputs, context)


class Undeclared(SumOp):
    def __getattribute__(self, name: str) -> Any:
        if name == "looks_ahead":
            raise AttributeError(name)
        return super().__getattribute__(name)


class SaysItKeepsNothing(SumOp):
    state_names: ClassVar[tuple[str, ...]] = ()


class SaysItMayBeComputedOnce(SumOp):
    once_if_static = True


class SaysItLooksAhead(SumOp):
    looks_ahead = True


class SaysItKeepsWhatNeverMatters(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        self.total = np.zeros_like(self.total)
        return Dense(self.source, inputs[0].steps, inputs[0].data.copy())


class SaysItMayNotBeComputedOnce(SumOp):
    state_names: ClassVar[tuple[str, ...]] = ()

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        return Dense(self.source, inputs[0].steps, inputs[0].data.copy())


class HidesThatItLooksAhead(SumOp):
    state_names: ClassVar[tuple[str, ...]] = ()

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        (signal,) = inputs
        return Dense(self.source, signal.steps, signal.data[::-1].copy())


class ForgetsToReset(SumOp):
    def reset(self) -> None:
        if not hasattr(self, "total"):
            super().reset()


class SharesItsBuffer(SumOp):
    def own(self) -> None:
        if not hasattr(self, "buffer"):
            super().own()


class SharesAnInnerOp(SumOp):
    """The inner op writes one buffer for both forks."""

    def __init__(self, source: SignalType) -> None:
        super().__init__(source)
        self.inner = SumOp(source)

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        self.inner.total = self.total
        summed = self.inner.advance(inputs, context)
        self.total = self.inner.total
        return Dense(self.source, summed.steps, summed.data.copy())


class KeepsAReference(SumOp):
    """Emits what came one step before."""

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        data, n = inputs[0].data, self.source.positions
        output = np.concatenate([self.total, data[:-n]])
        self.total = data[-n:]
        return Dense(self.source, inputs[0].steps, output)


class WritesItsInput(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        output = super().advance(inputs, context)
        inputs[0].data[:] = 0
        return output


class CountsOncePerChunk(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        output = super().advance(inputs, context)
        context.rows.add("comparisons", np.eye(1, inputs[0].steps, dtype=np.int64)[0])
        return output


class HidesAState(SumOp):
    """Half of what it remembers is not declared."""

    def reset(self) -> None:
        super().reset()
        self.seen = F(0)

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        output = super().advance(inputs, context)
        for step in output.data.reshape(inputs[0].steps, self.source.size):
            self.seen = max(self.seen, F(step[0]))
            step[:] += self.seen
        return output


class FailsWithoutSteps(SumOp):
    """Takes the last step, of which there may be none."""

    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        output = super().advance(inputs, context)
        self.last = output.data.reshape(output.steps, -1)[-1]
        return output


class CountsDown(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        context.rows.add("comparisons", -1)
        return super().advance(inputs, context)


class EmitsNothing(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Any:
        super().advance(inputs, context)


class EmitsDoubles(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        output = super().advance(inputs, context)
        return Dense(output.type, output.steps, output.data.astype(np.float64))


OPS: dict[str, type[SumOp]] = {
    "": SumOp,
    "counts of comparisons are negative": CountsDown,
    "table_reads counted; expected table among its words": ReadsWhatItDoesNotOwn,
    "emits NoneType; expected Rows or Dense": EmitsNothing,
    "emits float64; expected float32": EmitsDoubles,
    "raises .* for no time steps": FailsWithoutSteps,
    "declares no looks_ahead": Undeclared,
    "steps before matter, and state_names": SaysItKeepsNothing,
    "once_if_static is declared, and": SaysItMayBeComputedOnce,
    "looks_ahead is declared, and in no sample": SaysItLooksAhead,
    "state_names are declared, and in no sample": SaysItKeepsWhatNeverMatters,
    "once_if_static is declared False, and": SaysItMayNotBeComputedOnce,
    "chunks of 1 give": HidesThatItLooksAhead,
    "a sample after another one": ForgetsToReset,
    "a fork writes op.buffer of another": SharesItsBuffer,
    "a fork writes op.inner.": SharesAnInnerOp,
    "by reference": KeepsAReference,
    "writes into the data of its input": WritesItsInput,
    "chunks of 1 give other outputs or counts": CountsOncePerChunk,
    "goes on differently": HidesAState,
}


@pytest.mark.parametrize("fault", [*OPS, *list(DENSE_FORMS)[:-1], "its absolute layer emits less"])
def test_the_contract_catches(fault: str) -> None:
    if not fault:
        check_layer(Odd(), CURRENTS, steps=STEPS)
        return
    with pytest.raises(AssertionError, match=f"^Odd: .*{fault}"):
        check_layer(Odd(fault), CURRENTS, steps=STEPS)


def test_a_layer_without_a_dense_form_does_not_keep_the_contract() -> None:
    with pytest.raises(
        AssertionError, match=r"^WithoutDenseForm: has no dense form; expected a method `dense`, as docs"
    ):
        check_layer(WithoutDenseForm(), CURRENTS, steps=STEPS)


def test_an_op_that_says_it_hears_bits_and_reads_a_list_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layers.SumPool2d((2, 2), (2, 2))
    check_layer(layer, MAP, steps=STEPS)
    monkeypatch.setattr("eventsim.layers.pooling.sum_pool2d.SumPool2dOp.hears_bits", True)
    with pytest.raises(AssertionError, match="without a list of channels, though it declares hears_bits"):
        check_layer(layer, MAP, steps=STEPS)


def test_an_op_that_neither_lists_spikes_nor_leaves_their_bits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = NeuronOp.advance

    def bare(self: NeuronOp, inputs: tuple[Rows | Dense], context: Any) -> Rows:
        rows = original(self, inputs, context)
        return rows if self.lists_channels else replace(rows, bits=None)

    monkeypatch.setattr(NeuronOp, "advance", bare)
    with pytest.raises(AssertionError, match="lists no channels where nobody needs them, and leaves no bits"):
        check_layer(layers.IF(), CURRENTS, steps=STEPS)


def test_an_op_that_takes_other_sums_in_bands_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    check_layer(layers.LIF(), CURRENTS, steps=STEPS)
    original = NeuronOp.advance

    def odd(self: NeuronOp, inputs: tuple[Rows | Dense], context: Any) -> Rows:
        if isinstance(inputs[0], Banded):
            inputs = (Dense(inputs[0].type, inputs[0].steps, -inputs[0].data),)
        return original(self, inputs, context)

    monkeypatch.setattr(NeuronOp, "advance", odd)
    with pytest.raises(AssertionError, match="other outputs or counts for bands, though it declares hears_bands"):
        check_layer(layers.LIF(), CURRENTS, steps=STEPS)


def test_a_convolution_over_time_that_hides_its_state_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layers.Conv3d(random(5, 6, 2, 3, 3), time_padding="causal")
    original = layers.Conv3d.op

    def stateless(self: layers.Conv3d, *inputs: SignalType) -> Op:
        op = original(self, *inputs)
        op.state_names = ()
        return op

    monkeypatch.setattr(layers.Conv3d, "op", stateless)
    with pytest.raises(AssertionError, match="Conv3d: "):
        check_layer(layer, MAP, steps=STEPS)


def test_a_network_with_an_op_that_declares_too_little_is_refused() -> None:
    build = NetworkBuilder("odd")
    x = build.add("input", layers.Input((2,), "real"))
    x = build.add("sum", Odd("declares no looks_ahead"), x)
    build.add("readout", layers.Readout(), x)
    with pytest.raises(InputError, match=r"^layer sum: Undeclared declares no looks_ahead; expected it, see Op$"):
        Simulator(build.build())


class Failing(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        raise ZeroDivisionError("out of order\nin two lines")


def test_an_op_of_another_package_that_fails_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "", Failing)
    build = NetworkBuilder("odd")
    x = build.add("input", layers.Input((2,), "real"))
    x = build.add("sum", Odd(), x)
    build.add("readout", layers.Readout(), x)
    with pytest.raises(
        EventsimError, match=r"^layer sum: Failing of \w+ failed \(ZeroDivisionError: out of order\)$"
    ) as told:
        Simulator(build.build()).run(np.ones((2, 2)))
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_an_op_that_emits_no_signal_is_named() -> None:
    build = NetworkBuilder("odd")
    x = build.add("input", layers.Input((2,), "real"))
    x = build.add("sum", Odd("emits NoneType; expected Rows or Dense"), x)
    build.add("readout", layers.Readout(), x)
    with pytest.raises(InputError, match=r"^layer sum: emits NoneType; expected Rows or Dense$"):
        Simulator(build.build()).run(np.ones((2, 2)))


class Inventive(SumOp):
    def advance(self, inputs: tuple[Dense], context: Any) -> Dense:
        context.rows.add("guesses", 1)
        return super().advance(inputs, context)


def test_an_operation_that_is_not_registered_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "", Inventive)
    build = NetworkBuilder("odd")
    x = build.add("input", layers.Input((2,), "real"))
    x = build.add("sum", Odd(), x)
    build.add("readout", layers.Readout(), x)
    with pytest.raises(InputError, match=r"^layer sum: operation 'guesses' reported; expected one registered"):
        Simulator(build.build()).run(np.ones((2, 2)))
