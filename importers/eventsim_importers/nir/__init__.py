"""NIR: graphs of the Neuromorphic Intermediate Representation, in the files that ``nir.write`` makes.

Nodes and their equations: Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for
interoperable brain-inspired computing" (Nature Communications 15, 2024), and github.com/neuromorphs/NIR.

All 19 types of node are read: ``graph`` has the structure, ``conventions`` what the frameworks that write such files
mean by them, ``neurons`` and ``maps`` the nodes, ``reader`` puts them together. The logits are the sum over time of
what reaches the Output node: spike counts where the last layer spikes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventsim.errors import InputError
from eventsim.network import Network
from eventsim_importers.nir.conventions import Decay, Framework, Reset
from eventsim_importers.nir.reader import Reader
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint


@dataclass(frozen=True)
class Options:
    """What a NIR file does not tell; None takes the metadata, else what the framework fixes, and the import says so.

    Attributes
    ----------
    framework : {"nir", "norse", "snntorch", "sinabs", "spikingjelly", "lava"}, optional
        Who wrote the file. It fixes the next ten (`eventsim_importers.nir.conventions`), which can be set alone, too.
        Recognised where the graph betrays it; default: ``"nir"``, the definition of NIR.
    dt : float, optional
        Length of a time step, in the unit of the file's time constants (by convention seconds). It matters to nodes
        with a time constant or a delay, and to IF nodes whose r is not 1.
    reset : {"zero", "subtract", "subtract_late", "subtract_once", "zero_late"}, optional
        Back to v_reset as NIR defines it, or less v_threshold - v_reset; the last three are those of snnTorch: in the
        next step, at once but not twice in succession, and to zero in the next step.
    reset_delay : bool, optional
        Apply the reset one time step later.
    strict : bool, optional
        Fire above the threshold only.
    start : {"v_reset", "v_leak", "zero"}, optional
        Where membrane potentials start.
    multiple_spikes : bool, optional
        As many spikes in a time step as the threshold goes into the potential.
    v_min : str, optional
        A number, below which membrane potentials do not stay, or ``"none"``.
    decay : {"euler", "multiply", "exponential"}, optional
        v + (x - v) / tau; the same written as (1 - 1 / tau) v + x / tau; or exp(-1 / tau) v + (1 - exp(-1 / tau)) x.
    decay_input : bool, optional
        Whether what arrives at a LIF or LI is scaled by what leaks. Default: as r says; sinabs writes the same r either
        way.
    cycle_delay : int, optional
        Time steps that feedback without a Delay node takes.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded".
    readout : {"sum", "last"}, optional
        The logits: the sum over time of what reaches the Output, or its last value.
    output : str, optional
        Which of several Output nodes; what does not lead to it is left out.
    """

    framework: Framework | None = None
    dt: float | None = None
    reset: Reset | None = None
    reset_delay: bool | None = None
    strict: bool | None = None
    start: Literal["v_reset", "v_leak", "zero"] | None = None
    multiple_spikes: bool | None = None
    v_min: str | None = None
    decay: Decay | None = None
    decay_input: bool | None = None
    cycle_delay: int | None = None
    input_kind: Literal["binary", "graded", "real"] | None = None
    readout: Literal["sum", "last"] | None = None
    output: str | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the fields of the nodes of a NIR file, which the type of its root node tells."""
    if checkpoint.container != "hdf5" or "node.type" not in checkpoint.metadata:
        return 0
    return len(checkpoint.matching(r"node\..*"))


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Map every node to a layer of the same name; a node of a nested graph is called ``graph.node``.

    Where several edges lead into one node, a layer ``node.sum`` adds up what they carry. A resistance or leak
    potential that the neuron itself has no place for becomes a layer ``node.current`` before it, the current of a
    current-based neuron ``node.synapse``.

    Raises
    ------
    InputError
        If a node does not fit what arrives at it or contradicts the framework, or if anything in the file is left over;
        names the node.
    """
    if not signature(checkpoint):
        raise InputError(f"{checkpoint.path}: no NIR graph found; expected an HDF5 file with a root node")
    root = checkpoint.metadata["node.type"]
    if root != "NIRGraph":
        raise InputError(f"{checkpoint.path}: {root} found at the root of the NIR file; expected NIRGraph")
    return Reader(checkpoint, options).network()


IMPORTER = Importer(
    "NIR graph: all nodes, as Norse, snnTorch, sinabs, SpikingJelly and Lava mean them", Options, signature, read
)
