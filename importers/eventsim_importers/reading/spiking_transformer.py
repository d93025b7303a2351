"""What readers of transformers with spiking self-attention share: neurons, projections, attention and head."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from eventsim.layers import Layer, MeanOverPositions, MeanOverTime, SpikingAttention
from eventsim.settings import Setting
from eventsim.signals import FloatArray
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.neurons import LIFOptions, Neurons
from eventsim_importers.reading.options import NOT_STATED
from eventsim_importers.reading.reader import BATCH_NORM, BatchNormOptions, Reader
from eventsim_importers.reading.synapses import linear

UNUSED_NORMS = r"block\.\d+\.norm[12]\..*"
"""Normalisations that the definitions of both hold and no forward pass uses, as a regular expression."""
LEARNED_SCALE = r"block\.\d+\.attn\.scale"
"""Attention scales that were learned, one for each block, as a regular expression."""


def encoder_names(layer: str, mlp: str, qkv_bias: bool) -> tuple[str, ...]:
    """Return regular expressions of the names of the tensors of blocks and head.

    Parameters
    ----------
    layer : {"conv", "linear"}
        What projections are called.
    mlp : str
        What the layers of the MLP are called before their number.
    qkv_bias : bool
    """
    biased = "q|k|v|proj" if qkv_bias else "proj"
    return (
        rf"block\.\d+\.attn\.(q|k|v|proj)_{layer}\.weight",
        rf"block\.\d+\.attn\.({biased})_{layer}\.bias",
        rf"block\.\d+\.attn\.(q|k|v|proj)_bn{BATCH_NORM}",
        rf"block\.\d+\.mlp\.{mlp}[12]_{layer}\.(weight|bias)",
        rf"block\.\d+\.mlp\.{mlp}[12]_bn{BATCH_NORM}",
        r"head\.(weight|bias)",
    )


@dataclass(frozen=True)
class TransformerOptions(LIFOptions, BatchNormOptions):
    """Options of every spiking transformer: `LIFOptions`, `BatchNormOptions`, and below.

    Attributes
    ----------
    attn_threshold : float, optional
        Threshold of the neurons behind the attention. Default: 0.5.
    attention_order : {"scores_first", "context_first"}, optional
        Order of the two products; the result is the same, the work is not. Default: "scores_first".
    """

    attn_threshold: float | None = None
    attention_order: Literal["scores_first", "context_first"] | None = None


class TransformerReader(Reader, ABC):
    """Reads modules named as in Spikformer and Spikingformer: ``x_conv`` or ``x_linear``, ``x_bn``, ``x_lif``.

    Attributes
    ----------
    dim, heads, scale
        Width of a token, attention heads and scale: what derived readers set. None is a scale that each block holds.
    tau_note
        Where the time constant of `_default_tau` comes from.
    """

    tau_note = NOT_STATED

    dim: int
    heads: int
    scale: float | None

    def __init__(self, checkpoint: Checkpoint, options: TransformerOptions) -> None:
        super().__init__(checkpoint, options)
        self.neurons = Neurons(self.choose, self._default_tau(), self.tau_note)
        self.attn_threshold = self.choose("attn_threshold", 0.5)
        order = self.choose.way("attention_order", "scores_first")
        self.attention_order = cast(Literal["scores_first", "context_first"], order)

    def _default_tau(self) -> float:
        """Return the time constant of the published models."""
        return 2.0

    @abstractmethod
    def _project(self, attn: str, part: str, source: str) -> str:
        """Add the projection q, k, v or proj of an attention, with its normalisation."""

    def _attend(self, attn: str, q: str, k: str, v: str) -> str:
        """Add what combines queries, keys and values."""
        return self.build.add(attn, SpikingAttention(self.heads, self._scale_of(attn), self.attention_order), q, k, v)

    def _learned_or_chosen_scale(self, default: float) -> float | None:
        """Return the attention scale of all blocks; None where they hold learned ones, beside which none may be stated.

        Raises
        ------
        InputError
            If one is; names both.
        """
        learned = self.checkpoint.matching(LEARNED_SCALE)
        if not learned:
            return self.choose("scale", default)
        self.choose.without_effect("scale", f"tensor {learned[0]}")
        count = learned[0] if len(learned) == 1 else f"{learned[0]} and {len(learned) - 1} more"
        self.checkpoint.say(Setting("scale", "learned", "inferred", count))
        return None

    def _scale_of(self, attn: str) -> float:
        """Return the scale of an attention; a learned one is a tensor of one number."""
        if self.scale is not None:
            return self.scale
        name = f"{attn}.scale"
        axes = self.checkpoint.tensors[name].ndim if name in self.checkpoint.tensors else 0
        return float(self.checkpoint.take(name, *[1] * min(axes, 1)).item())

    def _attention(self, attn: str, query: str, context: str) -> str:
        """Add an attention up to the projection of its output; return that, which no neuron has seen yet."""
        return self._attention_of(attn, query, context, context)

    def _attention_of(self, attn: str, query: str, key: str, value: str) -> str:
        """Add the same with keys and values of different sources."""
        q, k, v = (
            self._lif(f"{attn}.{part}_lif", self._project(attn, part, source))
            for part, source in (("q", query), ("k", key), ("v", value))
        )
        y = self._lif(f"{attn}.attn_lif", self._attend(attn, q, k, v), self.attn_threshold, "attn_threshold")
        return self._project(attn, "proj", y)

    def _head(self, x: str) -> str:
        """Add the classifier of the mean over tokens and time."""
        return self._dense("head", self._mean(x), self.dim)

    def _mean(self, x: str) -> str:
        """Add the mean over tokens and time."""
        return self.build.add(
            "mean_over_time", MeanOverTime(), self.build.add("mean_over_positions", MeanOverPositions(), x)
        )

    def _conv(
        self, name: str, source: str, outputs: int | None = None, inputs: int | None = None, size: int | None = None
    ) -> str:
        """Add a convolution that keeps the size of the map, and its normalisation."""
        weight = self.checkpoint.take_kernel(f"{name}.weight", outputs, inputs, size)
        return self.synapses.conv2d(name, weight, source, norm=_norm(name), padding=weight.shape[2] // 2)

    def _linear(
        self,
        name: str,
        source: str,
        shape: tuple[int | None, int],
        axes: int,
        has_bias: bool,
        make: Callable[[FloatArray, FloatArray | None], Layer] = linear,
    ) -> str:
        """Add a linear layer, which may be stored as a convolution of kernel 1, and its normalisation.

        Parameters
        ----------
        name, source
        shape : (int or None, int)
            Outputs, where None accepts any, and inputs.
        axes : int
            Axes of the kernel of 1.
        has_bias : bool
        make : callable
            Makes the layer of weight and bias.
        """
        weight = self.checkpoint.take(f"{name}.weight", *shape, *[1] * axes)
        weight = weight.reshape(weight.shape[:2])
        bias = self.checkpoint.take(f"{name}.bias", len(weight)) if has_bias else None
        return self.synapses.add(name, weight, bias, source, make, norm=_norm(name))

    def _outputs(self, name: str) -> int:
        """Return the number of outputs of a layer that was added."""
        return len(self.checkpoint.tensors[f"{name}.weight"])

    def _lif(self, name: str, source: str, threshold: float | None = None, option: str = "v_threshold") -> str:
        """Add neurons, with the threshold of all unless another is given under the name of its option."""
        return self.build.add(name, self._neurons(name, threshold, option), source)

    def _neurons(self, name: str, threshold: float | None = None, option: str = "v_threshold") -> Layer:
        """Return neurons; with a learned time constant where the checkpoint holds one."""
        if f"{name}.w" in self.checkpoint.tensors:
            return self.neurons.plif(self.checkpoint.take_number(f"{name}.w"), threshold, option)
        return self.neurons.lif(threshold, option)


def _norm(name: str) -> str:
    """Return the normalisation behind ``x_conv`` or ``x_linear``: ``x_bn``, with the same number if it has one."""
    return re.sub(r"_(conv|linear)(?=\d*$)", "_bn", name)
