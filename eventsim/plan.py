"""From a network to ops in order: weights packed and kernels chosen, once."""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.layers import Op
from eventsim.network import Network


@dataclass(frozen=True)
class Node:
    """One layer, ready to run.

    Attributes
    ----------
    name, kind : str
        Layer name, and the name of its primitive.
    op : Op
    sources : tuple of str
    last_use_of : tuple of str
        Layers whose output nothing needs after this one.
    neurons, dense_macs : int
        Neurons, and dense multiply-accumulates per time step.
    """

    name: str
    kind: str
    op: Op
    sources: tuple[str, ...]
    last_use_of: tuple[str, ...]
    neurons: int
    dense_macs: int


def plan(network: Network) -> tuple[Node, ...]:
    """Prepare every layer of a network, in order of execution."""
    network.validate()
    last_reader = {source: name for name in network.order for source in network.sources[name]}
    nodes = []
    for name in network.order:
        layer, inputs = network.layers[name], network.input_types(name)
        done = tuple(source for source, reader in last_reader.items() if reader == name)
        nodes.append(
            Node(
                name,
                type(layer).__name__,
                layer.op(*inputs),
                network.sources[name],
                done,
                layer.neurons(*inputs),
                layer.dense_macs(*inputs),
            )
        )
    return tuple(nodes)
