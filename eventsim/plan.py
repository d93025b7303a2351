"""From a network to ops in order: weights packed, kernels chosen and loops found, once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from eventsim.errors import InputError, LayerError
from eventsim.facts import Facts
from eventsim.layers import Op, Readout
from eventsim.network import Edge, Network, in_order
from eventsim.signals import SignalType

DECLARATIONS = {"kernel": str, "state_names": tuple, "looks_ahead": bool, "once_if_static": bool}
"""What every op says of itself."""


@dataclass(frozen=True, eq=False)
class Node:
    """One layer, ready to run.

    Attributes
    ----------
    name, kind : str
        Layer name, and the name of its primitive.
    op : Op
    inputs : tuple of Edge
        Where its inputs come from, in order.
    facts : Facts
        What accounting knows of the layer.
    """

    name: str
    kind: str
    op: Op
    inputs: tuple[Edge, ...]
    facts: Facts

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the layers that it hears."""
        return tuple(edge.source for edge in self.inputs)

    @cached_property
    def delayed(self) -> bool:
        """Whether anything arrives later than it was emitted."""
        return any(edge.delay for edge in self.inputs)


@dataclass(frozen=True, eq=False)
class Loop:
    """Layers of one cycle over delayed edges; they run one time step after the other.

    Attributes
    ----------
    nodes : tuple of Node
        In order of execution within a step.
    heard_outside : tuple of str
        Those that other layers hear, or that emit the logits.
    """

    nodes: tuple[Node, ...]
    heard_outside: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Schedule:
    """What runs, in order.

    Attributes
    ----------
    parts : tuple of Node or Loop
    done_after : tuple of tuple of str
        For each part, the layers whose output nothing needs after it.
    delays : dict of Edge to SignalType
        Edges that wait, and what they carry.
    output : str
        The layer that emits the logits.
    unlisted : frozenset of str
        Layers whose channels nobody needs listed: all who hear them read bits, in the same chunk.
    banded : frozenset of str
        Layers that one layer alone hears, in the same chunk, which takes bands where there are any.
    """

    parts: tuple[Node | Loop, ...]
    done_after: tuple[tuple[str, ...], ...]
    delays: dict[Edge, SignalType]
    output: str
    unlisted: frozenset[str]
    banded: frozenset[str]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every layer, in order of execution."""
        return tuple(node for part in self.parts for node in (part.nodes if isinstance(part, Loop) else (part,)))


def plan(network: Network) -> Schedule:
    """Prepare every layer of a network.

    Raises
    ------
    InputError
        If the network is not valid, an op leaves out what it must declare, or a layer that looks ahead is in a loop.
    """
    network.validate()
    nodes = {name: _node(network, name) for name in network.order}
    (output,) = (name for name, layer in network.layers.items() if isinstance(layer, Readout))
    parts: list[Node | Loop] = []
    for names in _components(network):
        if len(names) > 1 or any(edge.source == names[0] for edge in network.inputs[names[0]]):
            for name in names:
                if nodes[name].op.looks_ahead:
                    raise InputError(
                        f"layer {name}: looks ahead in time and is in the loop {' -> '.join(names)}; expected a layer "
                        "there that needs nothing but the steps so far"
                    )
            outside = {edge.source for edge in network.edges if edge.target not in names} | {output}
            parts.append(Loop(tuple(nodes[name] for name in names), tuple(name for name in names if name in outside)))
        else:
            parts.append(nodes[names[0]])
    delays = {edge: network.types[edge.source] for edge in network.edges if edge.delay}
    hearers = _hearers(nodes, parts, network.edges)
    unlisted = frozenset(name for name, ops in hearers.items() if all(op is not None and op.hears_bits for op in ops))
    alone = {name: ops[0] for name, ops in hearers.items() if len(ops) == 1}
    banded = frozenset(name for name, op in alone.items() if op is not None and op.hears_bands)
    return Schedule(tuple(parts), _done_after(parts), delays, output, unlisted, banded)


def _node(network: Network, name: str) -> Node:
    layer, inputs = network.layers[name], network.input_types(name)
    op = layer.op(*inputs)
    for declaration, expected in DECLARATIONS.items():
        if not hasattr(op, declaration):
            raise InputError(f"layer {name}: {type(op).__name__} declares no {declaration}; expected it, see Op")
        if not isinstance(found := getattr(op, declaration), expected):
            raise InputError(
                f"layer {name}: {type(op).__name__} declares {declaration} = {found!r}; expected {expected.__name__}"
            )
    try:
        facts = layer.facts(*inputs)
    except LayerError as error:
        raise InputError(f"layer {name}: {error}") from None
    return Node(name, type(layer).__name__, op, network.inputs[name], facts)


def _hearers(
    nodes: Mapping[str, Node], parts: Iterable[Node | Loop], edges: Iterable[Edge]
) -> dict[str, list[Op | None]]:
    """Return the ops that hear each layer; None for one that does later, or step by step."""
    alone = {part.name for part in parts if isinstance(part, Node)}
    heard: dict[str, list[Op | None]] = {}
    for edge in edges:
        in_one_go = not edge.delay and edge.source in alone and edge.target in alone
        heard.setdefault(edge.source, []).append(nodes[edge.target].op if in_one_go else None)
    return heard


def _components(network: Network) -> list[tuple[str, ...]]:
    """Return the strongly connected components in order of execution, their layers in the order of the network."""
    onwards: dict[str, list[str]] = {name: [] for name in network.order}
    backwards: dict[str, list[str]] = {name: [] for name in network.order}
    for edge in network.edges:
        onwards[edge.source].append(edge.target)
        backwards[edge.target].append(edge.source)
    component: dict[str, tuple[str, ...]] = {name: (name,) for name in network.order}
    for edge in network.edges:
        if edge.delay and len(component[edge.source]) == 1:  # no cycle is without a delay
            around = _reached(edge.target, onwards) & _reached(edge.source, backwards)
            component |= dict.fromkeys(around, tuple(name for name in network.order if name in around))
    before: dict[str, dict[str, None]] = {component[name][0]: {} for name in network.order}  # in this order
    for edge in network.edges:
        source, target = component[edge.source][0], component[edge.target][0]
        if source != target:
            before[target][source] = None
    return [component[name] for name in in_order(before)]


def _reached(start: str, ways: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the layers that lie on a way from one, itself among them."""
    reached, ahead = {start}, [start]
    while ahead:
        new = [name for name in ways[ahead.pop()] if name not in reached]
        reached.update(new)
        ahead.extend(new)
    return reached


def _done_after(parts: list[Node | Loop]) -> tuple[tuple[str, ...], ...]:
    last_reader: dict[str, int] = {}
    for index, part in enumerate(parts):
        for node in part.nodes if isinstance(part, Loop) else (part,):
            last_reader.setdefault(node.name, index)
            for edge in node.inputs:
                last_reader[edge.source] = max(index, last_reader.get(edge.source, 0))
    return tuple(tuple(name for name, last in last_reader.items() if last == index) for index in range(len(parts)))
