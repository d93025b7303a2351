"""Integer layers drawn for property tests: for eventsim and for the reference."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st

from eventsim.layers import (
    IntegerConv2d,
    IntegerConv3d,
    IntegerLIF,
    IntegerLinear,
    IntegerResidual,
    IntegerWindowedLinear,
    Layer,
)
from eventsim.layers.synapses import integer_weights

F = np.float32
SERVING = ("quads", "plain", "floats")
LARGEST = 2**15
"""No graded value of a drawn network is larger."""


def served_by(kernel: str) -> Any:
    """Let a kernel of `SERVING` serve what it can, whatever this processor has an instruction for."""
    few = integer_weights.FEW_INPUTS if kernel == "floats" else 0
    return patch.multiple(integer_weights, SERVED=kernel == "quads", FEW_INPUTS=few)


@st.composite
def bytes_of(draw: st.DrawFn, *shape: int) -> np.ndarray:
    """Int8 weights from -127 to 127, or nothing but the two ends."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.choice([-127, 127], shape) if draw(st.booleans()) else rng.integers(-127, 128, shape)
    return values.astype(np.int8)


@st.composite
def integer_neurons(draw: st.DrawFn, channels: int, largest: int) -> tuple[Layer, str, dict[str, Any]]:
    """A neuron of integers for sums of a largest magnitude, with a threshold and a bias for each channel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    fraction = draw(st.integers(0, 4))
    threshold, bias = rng.integers(1, 500 << fraction, channels), rng.integers(-50, 50, channels)
    leak = draw(st.sampled_from([0, 1 << 14, 1 << 13, 10_923, 1 << 15]))
    shared = {"input_leaks": draw(st.booleans()), "fraction": fraction, "strict": draw(st.booleans())}
    subtract = draw(st.booleans())
    reset = "subtract" if subtract else "zero"
    ours = IntegerLIF(threshold, largest, bias=bias, leak=leak, reset=reset, **shared)  # type: ignore[arg-type]
    return ours, "integer_lif", {"threshold": threshold, "bias": bias, "leak": leak, "subtract": subtract, **shared}


@st.composite
def integer_stage(draw: st.DrawFn, twin: Any, x: str, channels: int) -> str:
    """Synapses of integers that keep the size, and neurons behind them; `twin` is a `strategies.Twin`."""
    source = twin.types[x]
    largest = 1 if source.kind == "binary" else LARGEST // max(source.channels, 1)
    over_time = draw(st.booleans())
    if len(source.grid) == 2 and over_time:
        largest = max(largest // 2, 1)  # as twice as many add up
        weight = draw(bytes_of(channels, source.channels, 2, 1, 3))
        layer: Any = IntegerConv3d(weight, np.ones(channels, F), largest, padding=(0, 1), time_padding="causal")
        parameters: dict[str, Any] = {"weight": weight, "padding": (0, 1), "causal": True}
        y = twin.add(layer, "integer_conv3d", parameters, x)
    elif len(source.grid) == 2:
        weight = draw(bytes_of(channels, source.channels, 1, 3))
        layer = IntegerConv2d(weight, np.ones(channels, F), largest, padding=(0, 1))
        place = {"stride": (1, 1), "padding": (0, 1), "groups": 1}
        y = twin.add(layer, "integer_conv2d", {"weight": weight, **place}, x)
    elif over_time:
        weight, window, exponent = draw(bytes_of(channels, source.channels)), draw(st.integers(1, 3)), 1
        layer = IntegerWindowedLinear(weight, np.ones(channels, F), largest, window, exponent)
        parameters = {"weight": weight, "windows": [window] * channels, "exponents": [exponent] * channels}
        y = twin.add(layer, "integer_windowed_linear", parameters, x)
    else:
        weight = draw(bytes_of(channels, source.channels))
        layer = IntegerLinear(weight, np.ones(channels, F), largest)
        y = twin.add(layer, "integer_linear", {"weight": weight}, x)
    reached = layer.width.largest
    if source.channels == channels and draw(st.booleans()):
        factors = np.array([draw(st.lists(st.integers(1, 9), min_size=channels, max_size=channels)), [1] * channels])
        y = twin.add(IntegerResidual(factors), "integer_residual", {"factors": factors}, x, y)
        reached += 9 * largest
    return twin.add(*draw(integer_neurons(channels, reached)), y)
