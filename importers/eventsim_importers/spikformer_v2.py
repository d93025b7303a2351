"""Spikformer V2: a spiking convolutional stem before the encoder of V1, and a choice of residual operation.

Zhou et al., "Spikformer V2: Join the High Accuracy Club on ImageNet with an SNN Ticket" (2024), arXiv 2401.02020. No
code was published, so the names are ours, those of the PyTorch definition in ``examples/spikformer_v2.py``:

=====================================================  ==========================================================
``stem.{0..3}.down.weight``, ``.down_bn.*``            convolution 2 x 2 of stride 2
``stem.{0..3}.conv1.weight``, ``.bn1.*``               convolution 3 x 3, to 4 times the channels
``stem.{0..3}.conv2.weight``, ``.bn2.*``               convolution 3 x 3, back
``block.{i}.attn.*``, ``block.{i}.mlp.*``, ``head.*``  as in V1 for ImageNet
=====================================================  ==========================================================

Other names are recognised by the shapes of the stem, which no other system has, and are told by ``rename``.

The paper does not say which convolutions of the stem have a bias. Its five parameter counts fit none, ``down`` alone
and ``conv2`` alone; the tensors tell, ``stem.{0..3}.down.bias`` and so on.

A pre-training checkpoint (figure 6) holds
the encoder without a head, ``mask_token`` and ``decoder_*``. The encoder is read; all patches are visible to it. Its
outputs are the means over tokens and time that a head would get, and are said to be no scores of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eventsim.errors import InputError
from eventsim.layers import Residual
from eventsim.network import Network
from eventsim.settings import HEAD, NO_HEAD, Setting
from eventsim_importers import spikformer
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser
from eventsim_importers.reading.reader import BATCH_NORM

STAGES = 4
STEM_RATIO = 4
CONVOLUTIONS = ("down", "conv1", "conv2")
"""Of a stage of the stem."""


@dataclass(frozen=True)
class Options(spikformer.Options):
    """What the state dict of a Spikformer V2 cannot tell; None takes the default.

    All options of V1 (`eventsim_importers.spikformer.Options`), with its ImageNet defaults; `pools` and `pool_order`
    fit no stem and are refused. And

    Attributes
    ----------
    scs_residual : bool, optional
        Whether the stages of the stem have a residual connection. Default: true; the paper says that they are like an
        MLP, which has one.
    rename : str, optional
        ``THEIRS:OURS,...``: names of the checkpoint's modules, each with our name for it. Of several that fit a tensor
        the last counts.
    """

    scs_residual: bool | None = None
    rename: str | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors by their names, or those of the stem by shape: [c, ., 2, 2], [4c, c, 3, 3], [c, 4c, 3, 3]."""
    if "stem.0.down.weight" in checkpoint.tensors:
        stem = (
            rf"stem\.[0-{STAGES - 1}]\.({'|'.join(CONVOLUTIONS)})\.(weight|bias)",
            rf"stem\.[0-{STAGES - 1}]\.(down_bn|bn[12]){BATCH_NORM}",
        )
        return len(checkpoint.matching(*stem, *spikformer.IMAGENET.encoder_names))
    shapes = [tensor.shape for tensor in checkpoint.tensors.values()]
    widths = {shape[0] for shape in shapes if shape[2:] == (2, 2)}
    stages = [{(STEM_RATIO * c, c, 3, 3), (c, STEM_RATIO * c, 3, 3)} for c in widths]
    if len(widths) != STAGES or not all(stage <= set(shapes) for stage in stages):
        return 0
    return STAGES + sum(shape in stage for stage in stages for shape in shapes)


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Stem, four times: x = LIF(BN(conv 2x2 stride 2)), then op(x, LIF(BN(conv 3x3 LIF(BN(conv 3x3 x))))). Blocks and
    head: as in V1 for ImageNet, with op for its sums.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    rename = Chooser(checkpoint, options).stated("rename")
    if rename is not None:
        checkpoint = _renamed(
            checkpoint, rename, "option" if options.rename is not None else f"{checkpoint.path}: metadata"
        )
    if "stem.0.down.weight" not in checkpoint.tensors:
        names = ", ".join(list(checkpoint.tensors)[:2])
        raise InputError(
            f"{checkpoint.path}: tensors {names}, ... found; expected stem.0.down.weight and so on, "
            "or an option rename=THEIRS:OURS,... that says which module is which"
        )
    return _Reader(checkpoint, options).network()


def _renamed(checkpoint: Checkpoint, rename: str, said: str) -> Checkpoint:
    """Return the checkpoint with modules renamed as `said`, an option or the metadata, has it."""
    names = {name: name for name in checkpoint.tensors}
    for pair in rename.split(","):
        theirs, _, ours = pair.partition(":")
        found = [name for name in names if f"{name}.".startswith(f"{theirs}.")]
        if not ours or not found:
            raise InputError(
                f"{said} rename={pair} found; expected THEIRS:OURS with the name of a module of {checkpoint.path}"
            )
        names.update({name: ours + name.removeprefix(theirs) for name in found})
    for name, new in names.items():
        if list(names.values()).count(new) > 1:
            raise InputError(
                f"{said} rename={rename} found; expected names of their own, not {new} for {name} and another"
            )
    return checkpoint.renamed(names)


class _Reader(spikformer.Reader):
    """Reads the stem in the place of V1's patch embedding."""

    unused: ClassVar[tuple[str, ...]] = ()

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        super().__init__(checkpoint, options, spikformer.IMAGENET)
        if self.depth == 0:
            raise InputError(
                f"{checkpoint.path}: tensor block.0.attn.q_conv.weight missing; expected an encoder of stem and blocks"
            )
        self.scs_residual = self.choose("scs_residual", True)
        self.biased = [part for part in CONVOLUTIONS if checkpoint.matching(rf"stem\.\d+\.{part}\.bias")]
        if self.biased:
            first = checkpoint.matching(rf"stem\.\d+\.{self.biased[0]}\.bias")[0]
            checkpoint.say(Setting("stem_bias", ",".join(self.biased), "inferred", f"tensor {first} and so on"))
        for name in ("pools", "pool_order"):
            stated = self.choose.stated(name)
            if stated is not None:
                said = f"{checkpoint.path}: metadata" if getattr(options, name) is None else "option"
                raise InputError(
                    f"{said} {name}={stated} found; expected none, as the stem of a Spikformer V2 has no poolings"
                )

    def _name(self) -> str:
        return f"Spikformer V2 {self.depth}-{self.dim} {self.residual}"

    def _widths(self) -> tuple[int, int]:
        first = self.checkpoint.take("stem.0.down.weight", None, None, 2, 2)
        return first.shape[1], self.checkpoint.take(f"stem.{STAGES - 1}.down.weight", None, None, 2, 2).shape[0]

    def _patch_embed(self, x: str) -> str:
        for index in range(STAGES):
            stage = f"stem.{index}"
            x = self._lif(f"{stage}.down_lif", self._stem_conv(stage, "down", "down_bn", x, 2))
            y = self._lif(f"{stage}.lif1", self._stem_conv(stage, "conv1", "bn1", x, 3))
            y = self._lif(f"{stage}.lif2", self._stem_conv(stage, "conv2", "bn2", y, 3))
            x = self.build.add(f"{y}_{self.residual}", Residual(self.residual), x, y) if self.scs_residual else y
        return x

    def _stem_conv(self, stage: str, part: str, norm: str, source: str, size: int) -> str:
        name = f"{stage}.{part}"
        weight = self.checkpoint.take(f"{name}.weight", None, None, size, size)
        bias = self.checkpoint.take(f"{name}.bias", len(weight)) if part in self.biased else None
        padding, stride = (0, 2) if size == 2 else (1, 1)
        norm = f"{stage}.{norm}"
        return self.synapses.conv2d(name, weight, source, norm=norm, bias=bias, padding=padding, stride=stride)

    def _head(self, x: str) -> str:
        """Add the classifier, or, where there is none, what it would get."""
        if self.checkpoint.matching(r"head\..*"):
            return super()._head(x)
        note = "no tensor head.weight; the outputs are means over tokens and time, no scores of classes"
        self.checkpoint.say(Setting(HEAD, NO_HEAD, "inferred", note))
        return self._mean(x)


IMPORTER = Importer("Spikformer V2: convolutional stem, ADD or IAND residuals", Options, signature, read)
