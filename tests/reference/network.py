"""A network as plain data, evaluated layer by layer over all time steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import integers
from .attention import spiking_attention
from .gating import gate
from .neurons import if_neuron, integer_activation, lif, plif
from .normalization import affine, batch_norm
from .pooling import adaptive_max_pool2d, avgpool2d, maxpool2d, sumpool2d
from .reshaping import (
    channels_from_tokens,
    flatten,
    mean_over_positions,
    mean_over_time,
    rearrange,
    select_channels,
    sum_over_channels,
    sum_over_positions,
    sum_over_time,
    tokens_from_map,
)
from .residual import residual
from .synapses import conv2d, linear

Float32 = NDArray[np.float32]
Edge = tuple[str, str] | tuple[str, str, int]


def _spikes(neuron: Callable[..., tuple[Float32, Float32]]) -> Callable[..., Float32]:
    return lambda *inputs, **parameters: neuron(*inputs, **parameters)[0]


def _integer_neurons(sums: Float32, **parameters: Any) -> Float32:
    per_neuron = {
        name: value[:, None, None] if np.ndim(value) == 1 and sums.ndim == 4 else value
        for name, value in parameters.items()
    }
    return integers.lif(sums, **per_neuron)[0].astype(np.float32)


def _joined(a: Float32, b: Float32, factors: NDArray[np.int32]) -> Float32:
    per_channel = factors[:, :, None, None] if a.ndim == 4 else factors
    return integers.joined(a, b, per_channel).astype(np.float32)


KINDS: dict[str, Callable[..., Float32]] = {
    "integer_conv2d": lambda x, **parameters: integers.conv2d(x, **parameters).astype(np.float32),
    "integer_conv3d": lambda x, **parameters: integers.conv3d(x, **parameters).astype(np.float32),
    "integer_linear": lambda x, weight: integers.linear(x, weight).astype(np.float32),
    "integer_windowed_linear": lambda x, **parameters: integers.windowed_linear(x, **parameters).astype(np.float32),
    "integer_residual": _joined,
    "integer_lif": _integer_neurons,
    "conv2d": conv2d,
    "linear": linear,
    "lif": _spikes(lif),
    "if_neuron": _spikes(if_neuron),
    "plif": _spikes(plif),
    "maxpool2d": maxpool2d,
    "avgpool2d": avgpool2d,
    "sumpool2d": sumpool2d,
    "adaptive_max_pool2d": adaptive_max_pool2d,
    "residual": residual,
    "gate": gate,
    "integer_activation": integer_activation,
    "rearrange": rearrange,
    "select_channels": select_channels,
    "sum_over_channels": sum_over_channels,
    "spiking_attention": spiking_attention,
    "batch_norm": batch_norm,
    "affine": affine,
    "flatten": flatten,
    "tokens_from_map": tokens_from_map,
    "channels_from_tokens": channels_from_tokens,
    "mean_over_positions": mean_over_positions,
    "mean_over_time": mean_over_time,
    "sum_over_positions": sum_over_positions,
    "sum_over_time": sum_over_time,
}


def delayed(output: Float32, steps: int) -> Float32:
    """What is heard of an output so many time steps later: zeros come first."""
    late = np.zeros_like(output)
    late[steps:] = output[: max(len(output) - steps, 0)]
    return late


def delay_of(edge: Edge) -> int:
    """Time steps that an edge waits."""
    return edge[2] if len(edge) == 3 else 0


def inputs_of(
    name: str, edges: Sequence[Edge], outputs: Mapping[str, Float32], late: Mapping[str, Float32] | None = None
) -> list[Float32]:
    """What arrives at a layer, in the order of its arguments; `late` is what is heard over delays, if not outputs."""
    into = [edge for edge in edges if edge[1] == name]
    heard = outputs if late is None else late
    return [delayed(heard[edge[0]], delay_of(edge)) if delay_of(edge) else outputs[edge[0]] for edge in into]


def run(
    layers: Mapping[str, tuple[str, Mapping[str, Any]]],
    edges: Sequence[Edge],
    frames: Float32,
    fed_back: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Float32]:
    """Output of every layer over all time steps, and of the node "input", which is the frames.

    layers: name -> (kind, parameters); edges: (source, target) or (source, target, delay), those into one target in the
    order of its arguments. Neurons give their spikes.

    With feedback, `fed_back` gives the shapes, in one step, of what is heard over delays. Everything is then evaluated
    T + 1 times over all steps, from what the last time gave over the delays, and silence at first: as no layer looks
    ahead, n + 1 evaluations get the first n steps right.
    """
    frames = np.asarray(frames, np.float32)
    late = {name: np.zeros((len(frames), *shape), np.float32) for name, shape in (fed_back or {}).items()}
    for _ in range(len(frames) + 1 if fed_back else 1):
        outputs = {"input": frames}
        pending = dict(layers)
        while pending:
            ready = [
                name
                for name in pending
                if all(e[0] in (late if delay_of(e) and fed_back else outputs) for e in edges if e[1] == name)
            ]
            if not ready:
                raise ValueError(f"layers without all their inputs: {sorted(pending)}")
            for name in ready:
                kind, parameters = pending.pop(name)
                outputs[name] = KINDS[kind](*inputs_of(name, edges, outputs, late or None), **parameters)
        late = {name: outputs[name] for name in late}
    return outputs
