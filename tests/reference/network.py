"""A network as plain data, evaluated layer by layer over all time steps."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .attention import spiking_attention
from .neurons import if_neuron, lif, plif
from .normalization import affine, batch_norm
from .pooling import avgpool2d, maxpool2d, sumpool2d
from .reshaping import (
    channels_from_tokens,
    flatten,
    mean_over_positions,
    mean_over_time,
    sum_over_positions,
    sum_over_time,
    tokens_from_map,
)
from .residual import residual
from .synapses import conv2d, linear

Float32 = NDArray[np.float32]


def _spikes(neuron: Callable[..., tuple[Float32, Float32]]) -> Callable[..., Float32]:
    return lambda *inputs, **parameters: neuron(*inputs, **parameters)[0]


KINDS: dict[str, Callable[..., Float32]] = {
    "conv2d": conv2d,
    "linear": linear,
    "lif": _spikes(lif),
    "if_neuron": _spikes(if_neuron),
    "plif": _spikes(plif),
    "maxpool2d": maxpool2d,
    "avgpool2d": avgpool2d,
    "sumpool2d": sumpool2d,
    "residual": residual,
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


def run(
    layers: Mapping[str, tuple[str, Mapping[str, Any]]], edges: Sequence[tuple[str, str]], frames: Float32
) -> dict[str, Float32]:
    """Output of every layer over all time steps, and of the node "input", which is the frames.

    layers: name -> (kind, parameters); edges: (source, target), those into one target in the order of its arguments.
    Neurons give their spikes.
    """
    outputs = {"input": np.asarray(frames, np.float32)}
    pending = dict(layers)
    while pending:
        ready = [name for name in pending if all(source in outputs for source, target in edges if target == name)]
        if not ready:
            raise ValueError(f"layers without all their inputs: {sorted(pending)}")
        for name in ready:
            kind, parameters = pending.pop(name)
            inputs = [outputs[source] for source, target in edges if target == name]
            outputs[name] = KINDS[kind](*inputs, **parameters)
    return outputs
