"""What the readers of state dicts share: modules become layers of the same name, and nothing is left over."""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.layers import Linear, Readout
from eventsim.network import Network, NetworkBuilder
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser
from eventsim_importers.reading.synapses import SynapseBuilder

BATCH_NORM = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
"""What follows the name of a batch normalisation in the names of its tensors, as a regular expression."""


@dataclass(frozen=True)
class BatchNormOptions:
    """How batch normalisation is read.

    Attributes
    ----------
    fold_bn : bool, optional
        Fold batch normalisation into the weights; otherwise it stays a layer, for bit-level comparison. Default: true.
    bn_eps : float, optional
        What batch normalisation adds to the variance. Default: 1e-5, PyTorch's.
    """

    fold_bn: bool | None = None
    bn_eps: float | None = None


class Reader:
    """Walks the modules of a checkpoint in the order of the forward pass.

    Parameters
    ----------
    checkpoint : Checkpoint
    options : BatchNormOptions
    """

    build: NetworkBuilder
    synapses: SynapseBuilder

    def __init__(self, checkpoint: Checkpoint, options: BatchNormOptions) -> None:
        self.checkpoint = checkpoint
        self.choose = Chooser(checkpoint, options)
        self._bn = (self.choose.way("fold_bn", True), self.choose("bn_eps", 1e-5))

    def _begin(self, name: str) -> None:
        """Begin a network of this name."""
        self.build = NetworkBuilder(name)
        self.synapses = SynapseBuilder(self.checkpoint, self.build, *self._bn)

    def _dense(self, name: str, source: str, inputs: int, outputs: int | None = None, tensors: str = "") -> str:
        """Add a linear layer with a bias and no normalisation; its tensors may have another name than the layer."""
        weight = self.checkpoint.take(f"{tensors or name}.weight", outputs, inputs)
        return self.build.add(
            name, Linear(weight, self.checkpoint.take(f"{tensors or name}.bias", len(weight))), source
        )

    def _finish(self, logits: str, time_steps: int) -> Network:
        """Read out the logits, refuse what is left over, and return the network."""
        self.build.add("readout", Readout(), logits)
        self.checkpoint.finish()
        return self.build.build(time_steps, tuple(self.checkpoint.settings))
