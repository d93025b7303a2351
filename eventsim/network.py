"""A network is data: named layers and the edges between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

from eventsim.errors import InputError
from eventsim.layers import Input, Layer, LayerError, Readout
from eventsim.signals import SignalType

MAXIMUM_VALUES = 2**31
"""Values of one time step stay below this: rows number them with 32 bits."""


@dataclass(frozen=True, eq=False)
class Network:
    """Named layers, and edges from source to target; the order of a target's edges is the order of its inputs.

    Attributes
    ----------
    name : str
        What the network is, for people.
    layers : mapping of str to Layer
        One `Input`, one `Readout`, and layers named by the module paths of the checkpoint.
    edges : tuple of (str, str)
    time_steps : int or None
        Steps that the weights were trained with, if known: the default of a run.
    assumptions : tuple of str
        What the importer could not read from the checkpoint and chose, one sentence each.
    """

    name: str
    layers: Mapping[str, Layer]
    edges: tuple[tuple[str, str], ...]
    time_steps: int | None = None
    assumptions: tuple[str, ...] = ()

    @cached_property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """Inputs of each layer, in order."""
        sources: dict[str, list[str]] = {name: [] for name in self.layers}
        for source, target in self.edges:
            for name in (source, target):
                if name not in self.layers:
                    raise InputError(f"network {self.name}: edge {source} -> {target} names unknown layer {name!r}")
            sources[target].append(source)
        return {name: tuple(names) for name, names in sources.items()}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Layer names such that every layer comes after its inputs; otherwise in the order they were given."""
        sorter = TopologicalSorter(self.sources)
        try:
            sorter.prepare()
        except CycleError as error:
            raise InputError(
                f"network {self.name}: feedback {' -> '.join(error.args[1])} found; expected a feed-forward network"
            ) from None
        rank = {name: position for position, name in enumerate(self.layers)}
        ready: list[int] = []
        names = list(self.layers)
        order = []
        while sorter.is_active():
            for name in sorter.get_ready():
                heappush(ready, rank[name])
            order.append(names[heappop(ready)])
            sorter.done(order[-1])
        return tuple(order)

    @cached_property
    def types(self) -> dict[str, SignalType]:
        """What every layer emits.

        Raises
        ------
        InputError
            If anything does not fit; names the layer, what was found and what was expected.
        """
        types: dict[str, SignalType] = {}
        for name in self.order:
            layer, sources = self.layers[name], self.sources[name]
            if len(sources) != layer.arguments:
                raise InputError(f"layer {name}: {len(sources)} inputs found; expected {layer.arguments}")
            try:
                types[name] = layer.output_type(*(types[source] for source in sources))
            except LayerError as error:
                raise InputError(f"layer {name}: {error}") from None
        return types

    @cached_property
    def input(self) -> Input:
        """The layer where frames enter."""
        (layer,) = (layer for layer in self.layers.values() if isinstance(layer, Input))
        return layer

    @property
    def parameters(self) -> int:
        """Number of stored weights and biases."""
        return sum(layer.parameters for layer in self.layers.values())

    def input_types(self, name: str) -> tuple[SignalType, ...]:
        """Types of the inputs of one layer, in order."""
        return tuple(self.types[source] for source in self.sources[name])

    def validate(self) -> Network:
        """Check the network as a whole and return it.

        Raises
        ------
        InputError
            Names the layer, what was found and what was expected.
        """
        for kind in (Input, Readout):
            names = [name for name, layer in self.layers.items() if isinstance(layer, kind)]
            if len(names) != 1:
                raise InputError(f"network {self.name}: {len(names)} {kind.__name__} layers found; expected one")
        if self.time_steps is not None and self.time_steps < 1:
            raise InputError(f"network {self.name}: {self.time_steps} time steps found; expected at least 1")
        for name, emitted in self.types.items():
            if not 1 <= emitted.size < MAXIMUM_VALUES:
                raise InputError(f"layer {name}: output {emitted} found; expected 1 to {MAXIMUM_VALUES - 1} values")
        used = {source for source, _ in self.edges}
        for name, layer in self.layers.items():
            if name not in used and not isinstance(layer, Readout):
                raise InputError(f"layer {name}: output that nothing reads found; expected an edge from it")
        return self


@dataclass
class NetworkBuilder:
    """Collects layers and edges in reading order; importers compose networks with it.

    Examples
    --------
    >>> build = NetworkBuilder("example")
    >>> x = build.add("input", Input((2, 34, 34)))
    >>> x = build.add("conv", conv, x)                                  # doctest: +SKIP
    """

    name: str
    layers: dict[str, Layer] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, layer: Layer, *sources: str) -> str:
        """Add a layer fed by `sources`, in order; return its name.

        Raises
        ------
        InputError
            If the name is taken.
        """
        if name in self.layers:
            raise InputError(f"network {self.name}: two layers named {name!r} found; expected different names")
        self.layers[name] = layer
        self.edges.extend((source, name) for source in sources)
        return name

    def build(self, time_steps: int | None = None, assumptions: tuple[str, ...] = ()) -> Network:
        """Return the validated network."""
        return Network(self.name, dict(self.layers), tuple(self.edges), time_steps, assumptions).validate()
