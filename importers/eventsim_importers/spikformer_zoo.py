"""Spikformer as SpikingJelly defines it: queries, keys and values of one convolution, poolings before neurons.

Forward pass and tensor names: ``spikingjelly.activation_based.model.spikformer`` (``spikformer_ti``, ``spikformer_s``)
and ``SpikingSelfAttention`` of github.com/fangwei123456/spikingjelly, after Zhou et al., "Spikformer: When Spiking
Neural Network Meets Transformer" (ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from eventsim.errors import InputError
from eventsim.layers import LIF, Layer, MaxPool2d, Residual
from eventsim.network import Network
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM
from eventsim_importers.reading.spiking_transformer import TransformerOptions, TransformerReader
from eventsim_importers.reading.synapses import linear

POSITION = "patch_embed.positional_encoding"
TOLD_BY = ("blocks.0.attn.qkv_conv_bn.0.weight", f"{POSITION}.conv_bn.block.0.weight")
"""The tensors that tell this system."""
NAMES = (
    r"patch_embed\.(stages\.\d+|positional_encoding)\.conv_bn\.block\.0\.weight",
    rf"patch_embed\.(stages\.\d+|positional_encoding)\.conv_bn\.block\.1{BATCH_NORM}",
    r"blocks\.\d+\.(attn\.(qkv|proj)_conv_bn|mlp\.fc[12])\.0\.weight",
    rf"blocks\.\d+\.(attn\.(qkv|proj)_conv_bn|mlp\.fc[12])\.1{BATCH_NORM}",
    r"head\.(weight|bias)",
)
"""Every tensor, as regular expressions."""


@dataclass(frozen=True)
class Options(TransformerOptions, InputOptions):
    """What the state dict cannot tell; None takes what the metadata say, else the default.

    Those of `TransformerOptions`, of which `tau` is for the neurons outside the attentions, and

    Attributes
    ----------
    attn_tau : float, optional
        Membrane time constant of all neurons of the attentions, which SpikingJelly's model leaves at 2 whatever the
        others have. Default: 2.
    heads : int, optional
        Attention heads. Default: one per 32 channels (8 for width 256, 12 for 384).
    scale : float, optional
        Attention scale. Default: 0.125.
    time_steps : int, optional
        Of a sample. Default: 4.
    height, width : int, optional
        Input size. Default: 224.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    """

    attn_tau: float | None = None
    heads: int | None = None
    scale: float | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors by their names."""
    return len(checkpoint.matching(*NAMES)) if checkpoint.tensors.keys() >= set(TOLD_BY) else 0


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Patch embedding: four times LIF(max pooling of BN(conv 3x3)), to which LIF(BN(conv 3x3 of it)) is added. Each block:
    x + LIF(BN(proj(LIF(scale (q k^T) v)))) with q, k, v = the thirds of LIF(BN(conv x)), then
    x + LIF(BN(fc2(LIF(BN(fc1 x))))). Head: linear on the mean over tokens and time; SpikingJelly's model returns the
    logits of every step, to be averaged.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    if not checkpoint.tensors.keys() >= set(TOLD_BY):
        raise InputError(f"{checkpoint.path}: no Spikformer of SpikingJelly found; expected {' with '.join(TOLD_BY)}")
    return _Reader(checkpoint, options).network()


class _Reader(TransformerReader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        super().__init__(checkpoint, options)
        choose = self.choose
        self.attn_tau = choose("attn_tau", 2.0)
        if self.attn_tau < 1:
            raise InputError(f"{checkpoint.path}: attn_tau={self.attn_tau:g} found; expected at least 1 time step")
        self.stages = checkpoint.count("patch_embed.stages.{}.")
        self.depth = checkpoint.count("blocks.{}.")
        self.dim = checkpoint.take_kernel(TOLD_BY[1], size=3).shape[0]
        self.heads = choose.heads(max(self.dim // 32, 1), self.dim)
        self.scale = choose("scale", 0.125)
        self.time_steps = choose("time_steps", 4)
        first = checkpoint.take_kernel("patch_embed.stages.0.conv_bn.block.0.weight", size=3)
        self.input = choose.input(first.shape[1], 224, 224)
        self._begin(f"Spikformer of SpikingJelly {self.depth}-{self.dim}")

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", self.input)
        for index in range(self.stages):
            x = self._stage(f"patch_embed.stages.{index}", x, pooled=True)
        x = self.build.add("patch_embed.add", Residual("add"), x, self._stage(POSITION, x, pooled=False))
        for index in range(self.depth):
            block = f"blocks.{index}"
            y = self._lif(f"{block}.attn.proj_lif", self._attention(f"{block}.attn", x, x))
            x = self.build.add(f"{block}.attn_add", Residual("add"), x, y)
            x = self.build.add(f"{block}.mlp_add", Residual("add"), x, self._mlp(f"{block}.mlp", x))
        return self._finish(self._head(x), self.time_steps)

    def _stage(self, stage: str, x: str, *, pooled: bool) -> str:
        module = f"{stage}.conv_bn.block"
        weight = self.checkpoint.take_kernel(f"{module}.0.weight", inputs=self.build.types[x].channels, size=3)
        x = self.synapses.conv2d(f"{module}.0", weight, x, norm=f"{module}.1", padding=1)
        if pooled:
            x = self.build.add(f"{module}.2", MaxPool2d((3, 3), (2, 2), (1, 1)), x)
        return self._lif(f"{stage}.neuron", x)

    def _attention(self, attn: str, query: str, context: str) -> str:
        """Add an attention up to the projection of its output, with a layer for each third of the one convolution."""
        module, dim = f"{attn}.qkv_conv_bn", self.dim
        weight = self.checkpoint.take(f"{module}.0.weight", 3 * dim, dim, 1)[..., 0]
        arrays = self.checkpoint.take_batch_norm(f"{module}.1", 3 * dim)
        thirds = []
        for index, (part, source) in enumerate(zip("qkv", (query, context, context), strict=True)):
            rows = slice(index * dim, (index + 1) * dim)
            norm, taken = f"{module}.1.{part}", arrays.part(rows)
            x = self.synapses.add(f"{module}.0.{part}", weight[rows], None, source, linear, norm=norm, arrays=taken)
            thirds.append(self._lif(f"{attn}.qkv_lif.{part}", x))
        y = self._attend(attn, *thirds)
        return self._project(attn, "proj", self._lif(f"{attn}.attn_lif", y, self.attn_threshold, "attn_threshold"))

    def _project(self, attn: str, part: str, source: str) -> str:
        return self._dense_norm(f"{attn}.{part}_conv_bn", source, self.dim)

    def _mlp(self, mlp: str, x: str) -> str:
        x = self._lif(f"{mlp}.neuron1", self._dense_norm(f"{mlp}.fc1", x))
        return self._lif(f"{mlp}.neuron2", self._dense_norm(f"{mlp}.fc2", x, self.dim))

    def _dense_norm(self, module: str, source: str, outputs: int | None = None) -> str:
        """Add a convolution of kernel 1 over tokens, and its normalisation."""
        weight = self.checkpoint.take(f"{module}.0.weight", outputs, self.build.types[source].channels, 1)[..., 0]
        return self.synapses.add(f"{module}.0", weight, None, source, linear, norm=f"{module}.1")

    def _neurons(self, name: str, threshold: float | None = None, option: str = "v_threshold") -> Layer:
        layer = super()._neurons(name, threshold, option)
        return replace(layer, tau=self.attn_tau) if ".attn." in name and isinstance(layer, LIF) else layer


IMPORTER = Importer("Spikformer of SpikingJelly: spikformer_ti, spikformer_s", Options, signature, read)
