"""Fields of nodes: taken from the checkpoint, and checked against what arrives."""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.layers import Layer
from eventsim.network import Delayed, NetworkBuilder
from eventsim.signals import FloatArray, SignalType
from eventsim_importers.nir.graph import Graph, Node
from eventsim_importers.reading.checkpoint import Checkpoint

Pair = tuple[int, int]
Heard: TypeAlias = str | Delayed
Real = npt.NDArray[np.float64]

REALS = re.compile(r"node(?:\.nodes\..*)?\.(?:weight|bias|scale|threshold|tau|tau_mem|tau_syn|r|v_\w+|w_in|delay)")
LARGEST = 2**24
"""Integers up to here are exact in float32."""


def as_reals(checkpoint: Checkpoint) -> None:
    """Take integers for reals in fields of real numbers, where float32 holds them exactly."""
    for name, tensor in checkpoint.tensors.items():
        if REALS.fullmatch(name) and tensor.dtype.kind in "iu" and (np.abs(tensor.astype(np.float64)) <= LARGEST).all():
            checkpoint.tensors[name] = tensor.astype(np.float32)


class Fields:
    """What the nodes of a file hold, and the network that is built of them.

    Parameters
    ----------
    checkpoint : Checkpoint
    graph : Graph
    build : NetworkBuilder
    """

    def __init__(self, checkpoint: Checkpoint, graph: Graph, build: NetworkBuilder) -> None:
        self.checkpoint = checkpoint
        self.graph = graph
        self.build = build

    def error(self, node: Node, message: str) -> InputError:
        """Return an error that names the file and the node."""
        return InputError(f"{self.checkpoint.path}: node {node.name} ({node.type}): {message}")

    def type(self, heard: Heard) -> SignalType:
        """Return what a source emits."""
        if isinstance(heard, str):
            return self.build.types[heard]
        known = self.build.types.get(heard.source, heard.type)
        assert known is not None
        return known

    def add(self, node: Node, layer: Layer, *heard: Heard, suffix: str = "") -> str:
        """Add a layer of a node and return its name."""
        name = node.name + suffix
        try:
            return self.build.add(name, layer, *heard)
        except InputError as error:
            raise self.error(node, str(error).removeprefix(f"layer {name}: ")) from None

    def has(self, node: Node, field: str) -> bool:
        """Tell whether the file holds a field."""
        return f"{node.key}.{field}" in self.checkpoint.tensors

    def take(self, node: Node, field: str, *shape: int | None) -> FloatArray:
        """Take a tensor of real numbers."""
        return self.checkpoint.take(f"{node.key}.{field}", *shape)

    def per_neuron(self, node: Node, field: str, arriving: SignalType, infinite: bool = False) -> Real:
        """Take a parameter: one value ``(1,)``, or one for each neuron ``(*shape of a time step,)``.

        One for each channel of a map is repeated over its pixels, and a batch axis of 1 is left out. Where the file
        has double precision, so has the result.
        """
        key, shape = f"{node.key}.{field}", arriving.shape
        stored = self.checkpoint.tensors.get(key)
        if stored is None or stored.dtype != np.float32:
            return np.asarray(self.take(node, field, *shape), np.float64)
        fitting = _fitting(stored.shape, shape)
        if fitting is None:
            return np.asarray(self.take(node, field, *shape), np.float64)  # refused, with what was expected
        self.checkpoint.ignore(re.escape(key))
        if not infinite or np.isnan(stored).any():
            self.take(node, field, *stored.shape)  # refuses what is not finite
        exact = self.graph.exact.get(key)
        values = np.asarray(stored, np.float64)
        if exact is not None and exact.shape == stored.shape:
            with np.errstate(over="ignore"):
                values = np.asarray(exact) if np.array_equal(exact.astype(np.float32), stored) else values
        values = values.reshape(fitting)
        return values if fitting == (1,) else np.array(np.broadcast_to(values, shape))

    def integers(self, node: Node, field: str) -> tuple[int, ...]:
        """Use one whole number or a list of them."""
        stored = self.checkpoint.tensors.get(f"{node.key}.{field}")
        if stored is None:
            raise self.error(node, f"{field} missing; expected it in the file")
        self.checkpoint.ignore(re.escape(f"{node.key}.{field}"))
        if stored.ndim > 1 or stored.dtype.kind not in "iu":
            raise self.error(
                node, f"{field} of type {stored.dtype} and shape {stored.shape} found; expected whole numbers"
            )
        return tuple(int(value) for value in stored.ravel())

    def integer(self, node: Node, field: str) -> int:
        """Use one whole number."""
        values = self.integers(node, field)
        if len(values) != 1:
            raise self.error(node, f"{field} {values} found; expected one number")
        return values[0]

    def pair(self, node: Node, field: str) -> Pair:
        """Use (vertical, horizontal), or one number for both."""
        values = self.integers(node, field)
        if len(values) not in (1, 2):
            raise self.error(node, f"{field} {values} found; expected (vertical, horizontal)")
        return values[0], values[-1]

    def expect(self, node: Node, field: str, arriving: tuple[int, ...]) -> tuple[int, ...]:
        """Compare a shape that the file states with the one that the layers before give; return the one stated."""
        if not self.has(node, field):
            return arriving
        stated = self.integers(node, field)
        if stated not in (arriving, (1, *arriving)):
            raise self.error(node, f"{field} {stated} found; expected {arriving}, which is what arrives")
        return stated


def _fitting(stored: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape in which a parameter broadcasts to that of a time step; None if it does not."""
    if np.prod(stored, dtype=np.int64) == 1:
        return (1,)
    if len(stored) == len(shape) + 1 and stored[0] == 1:
        stored = stored[1:]
    if len(stored) == len(shape) and all(size in (1, whole) for size, whole in zip(stored, shape, strict=True)):
        return stored
    if len(stored) == 1 and len(shape) == 3 and stored[0] == shape[0]:
        return (shape[0], 1, 1)
    if len(stored) == 1 and len(shape) == 2 and shape[0] != shape[1] and stored[0] in shape:
        return (shape[0], 1) if stored[0] == shape[0] else (1, shape[1])
    return None


def simplest(values: Real) -> float | FloatArray:
    """Return one number where all values are the same, one for each channel where they are on a map."""
    array = np.asarray(values, np.float32)
    if (array == array.flat[0]).all():
        return float(array.flat[0])
    return least(array)


def least(values: Real | FloatArray) -> FloatArray:
    """Return the smallest array that a layer takes for the same values: ``(1,)``, one a channel, or all."""
    array = np.asarray(values, np.float32)
    if (array == array.flat[0]).all():
        return array.reshape(-1)[:1].copy()
    if array.ndim == 3 and (array == array[:, :1, :1]).all():
        return array[:, 0, 0].copy()
    return array
