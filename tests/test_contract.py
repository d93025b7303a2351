"""What every layer promises, whatever it does: each exported layer must be listed here, as small as possible."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from plain_rows import decode, encode

from eventsim import layers
from eventsim.layers import Layer
from eventsim.signals import Rows, SignalType

F = np.float32
MAP = SignalType("binary", 6, (4, 4))
CURRENTS = SignalType("real", 6, (4, 4), dense=True)
VECTOR = SignalType("real", 6, (), dense=True)
STEPS = 3


def ones(*shape: int) -> np.ndarray:
    return np.full(shape, 0.25, F)


EXAMPLES: list[tuple[Layer, SignalType]] = [
    (layers.AdaptiveLIF(ones(1, 6, 1), ones(1, 6, 1)), CURRENTS),
    (layers.Affine(ones(6), ones(6)), MAP),
    (layers.AttentionPool(ones(6)), CURRENTS),
    (layers.AvgPool2d((2, 2), (2, 2)), MAP),
    (layers.Concat(), MAP),
    (layers.Conv2d(ones(5, 6, 3, 3)), MAP),
    (layers.Conv3d(ones(5, 6, 2, 3, 3), time_padding="causal"), MAP),
    (layers.Flatten(), MAP),
    (layers.GlobalContext(ones(6), ones(1), ones(2, 6), ones(2), ones(6, 2), ones(6)), CURRENTS),
    (layers.IF(), CURRENTS),
    (layers.LIF(), CURRENTS),
    (layers.LayerNorm(ones(6)), CURRENTS),
    (layers.Linear(ones(5, 6)), MAP),
    (layers.MaxPool2d((2, 2), (2, 2)), MAP),
    (layers.MeanOverPositions(), MAP),
    (layers.MeanOverTime(), MAP),
    (layers.PLIAF(), CURRENTS),
    (layers.PLIF(), CURRENTS),
    (layers.PositionEncoding(ones(1, 6, 16)), CURRENTS),
    (layers.Readout(), VECTOR),
    (layers.Residual("add"), MAP),
    (layers.SliceOverTime(0, 1), MAP),
    (layers.SoftmaxAttention(2), CURRENTS),
    (layers.SparseLinear.from_matrix(ones(5, 6)), MAP),
    (layers.SpikingAttention(2), MAP),
    (layers.SumPool2d((2, 2), (2, 2)), MAP),
    (layers.TableAttention(np.array([[0, 1, 2, 3]] * 2, np.int32)), MAP),
    (layers.Threshold(), MAP),
    (layers.TileOverTime(), MAP),
    (layers.WindowedLinear(ones(5, 6), window=2, exponent=1), MAP),
]
each = pytest.mark.parametrize(("layer", "source"), EXAMPLES, ids=[type(layer).__name__ for layer, _ in EXAMPLES])


def given(layer: Layer, source: SignalType, steps: int, seed: int = 0) -> tuple[object, ...]:
    rng = np.random.default_rng(seed)
    shape = (steps, *source.shape)
    return tuple(
        encode(source, (rng.integers(-4, 9, shape) / 4 if source.dense else rng.random(shape) < 0.3).astype(F))
        for _ in range(layer.arguments)
    )


def test_every_exported_layer_is_listed() -> None:
    exported = {
        name
        for name in layers.__all__
        if isinstance(getattr(layers, name), type) and issubclass(getattr(layers, name), Layer)
    }
    assert {type(layer).__name__ for layer, _ in EXAMPLES} == exported - {"Layer", "Input"}  # frames enter there


@each
def test_rows_are_as_promised(layer: Layer, source: SignalType) -> None:
    """Types as declared; channels ascend, and no value is zero."""
    sources = [source] * layer.arguments
    signal, _ = layer.op(*sources).advance(given(layer, source, STEPS), True)
    assert signal.type == layer.output_type(*sources)
    assert isinstance(signal, Rows) != signal.type.dense
    if isinstance(signal, Rows):
        for start, stop in zip(signal.indptr[:-1], signal.indptr[1:], strict=True):
            assert (np.diff(signal.indices[start:stop]) > 0).all()
        assert (signal.values is None) == (signal.type.kind == "binary")
        assert signal.values is None or (signal.values != 0).all()


@each
def test_reset_and_fork_begin_anew(layer: Layer, source: SignalType) -> None:
    op = layer.op(*[source] * layer.arguments)
    inputs = given(layer, source, STEPS)
    first, counts = op.advance(inputs, True)
    expected = decode(first).copy()
    op.reset()
    again, counts_again = op.advance(inputs, True)
    assert_array_equal(decode(again), expected)
    forked, counts_forked = op.fork().advance(inputs, True)
    assert_array_equal(decode(forked), expected)
    assert counts == counts_again == counts_forked


@each
def test_inputs_are_not_remembered_by_reference(layer: Layer, source: SignalType) -> None:
    """The buffers of a chunk belong to the layer before, which writes the next chunk into them."""
    sources = [source] * layer.arguments
    chunks = [given(layer, source, 1, seed) for seed in range(STEPS)]
    kept, spoiled = layer.op(*sources), layer.op(*sources)
    if not kept.causal:
        pytest.skip("needs all steps in one chunk")
    for index, chunk in enumerate(chunks):
        final = index == STEPS - 1
        expected = decode(kept.advance(given(layer, source, 1, index), final)[0]).copy()
        assert_array_equal(decode(spoiled.advance(chunk, final)[0]), expected)
        for signal in chunk:
            for name in ("data", "indices", "values"):
                if (array := getattr(signal, name, None)) is not None:
                    array[...] = 0


@each
def test_every_field_is_one_that_a_model_file_holds(layer: Layer, source: SignalType) -> None:
    for field in fields(layer):
        value = getattr(layer, field.name)
        assert value is None or isinstance(value, (np.ndarray, bool, int, float, str, tuple)), field.name
