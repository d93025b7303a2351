"""A network is data: named layers and the edges between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import NamedTuple, TypeVar

import numpy as np

from eventsim.errors import InputError, LayerError
from eventsim.layers import Input, Layer, Readout
from eventsim.settings import HEAD, NO_HEAD, Setting
from eventsim.signals import SignalType
from eventsim.untrusted import described

T = TypeVar("T", int, str)

MAXIMUM_VALUES = 2**31
"""Values of one time step stay below this: rows number them with 32 bits."""

MAXIMUM_WAITING = 2**28
"""Values held by one delayed edge: a gigabyte."""


class Edge(NamedTuple):
    """What `source` emits goes to `target`, `delay` time steps later; before the first of them come zeros."""

    source: str
    target: str
    delay: int = 0


@dataclass(frozen=True)
class Delayed:
    """A source of a layer that is heard some time steps later; this way only, a layer may hear one that comes after it.

    Attributes
    ----------
    source : str
        Name of the layer heard.
    delay : int
        Time steps to wait.
    type : SignalType, optional
        What the source will emit: needed where it is added later.
    """

    source: str
    delay: int = 1
    type: SignalType | None = None


def in_order(sources: Mapping[T, Iterable[T]]) -> tuple[T, ...]:
    """Return the keys such that each comes after its sources; otherwise in the order given.

    Raises
    ------
    CycleError
        If that is not possible; its second argument lists the names of a cycle, the first one again at the end.
    """
    sorter = TopologicalSorter(sources)
    sorter.prepare()
    rank = {name: position for position, name in enumerate(sources)}
    names = list(sources)
    ready: list[int] = []
    order = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, rank[name])
        order.append(names[heappop(ready)])
        sorter.done(order[-1])
    return tuple(order)


@dataclass(frozen=True, eq=False, repr=False)
class Network:
    """Named layers, and edges from source to target; the order of a target's edges is the order of its inputs.

    Attributes
    ----------
    name : str
        What the network is, for people.
    layers : mapping of str to Layer
        One `Input`, one `Readout`, and layers named by the module paths of the checkpoint.
    edges : tuple of Edge
        Pairs (source, target) are edges without delay. Feedback is allowed over delayed edges.
    time_steps : int or None
        Steps that the weights were trained with, if known: the default of a run.
    settings : tuple of Setting
        Values that the weights do not tell, with their sources.
    promised : mapping of str to SignalType
        What layers emit that others hear, over a delay, before they come in `order`.
    """

    name: str
    layers: Mapping[str, Layer]
    edges: tuple[Edge, ...]
    time_steps: int | None = None
    settings: tuple[Setting, ...] = ()
    promised: Mapping[str, SignalType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for edge in self.edges:
            if len(edge) not in (2, 3):
                raise InputError(
                    f"network {self.name}: edge {edge!r} found; expected source, target and a delay or none"
                )
        object.__setattr__(self, "edges", tuple(Edge(*edge) for edge in self.edges))

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self.layers)} layers, {self.parameters:,} parameters)"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What nothing says and the importer chose, one sentence each, beginning with the option's name."""
        return tuple(setting.sentence for setting in self.settings if setting.source == "assumed")

    @property
    def classifies(self) -> bool:
        """Whether the outputs are scores of classes, and not features for which the checkpoint held no head."""
        return not any(setting.option == HEAD and setting.value == NO_HEAD for setting in self.settings)

    def with_settings(self, *more: Setting) -> Network:
        """Return the same network with further settings; each takes the place of those of its option."""
        options = {setting.option for setting in more}
        kept = (setting for setting in self.settings if setting.option not in options)
        network = replace(self, settings=(*kept, *more))
        vars(network)["_inferred"] = self._inferred
        return network

    @cached_property
    def inputs(self) -> dict[str, tuple[Edge, ...]]:
        """Edges into each layer, in the order of its arguments."""
        inputs: dict[str, list[Edge]] = {name: [] for name in self.layers}
        for edge in self.edges:
            for name in (edge.source, edge.target):
                if name not in self.layers:
                    raise InputError(
                        f"network {self.name}: edge {edge.source} -> {edge.target} names unknown layer {name!r}"
                    )
            inputs[edge.target].append(edge)
        return {name: tuple(edges) for name, edges in inputs.items()}

    @cached_property
    def sources(self) -> dict[str, tuple[str, ...]]:
        """Inputs of each layer by name, in the order of its arguments."""
        return {name: tuple(edge.source for edge in edges) for name, edges in self.inputs.items()}

    @cached_property
    def _inferred(self) -> NetworkBuilder:
        """A builder that was given every layer after those it hears without delay."""
        for edge in self.edges:
            _check_delay(self.name, edge)
        undelayed = {name: [e.source for e in edges if not e.delay] for name, edges in self.inputs.items()}
        try:
            order = in_order(undelayed)
        except CycleError as error:
            raise InputError(
                f"network {self.name}: cycle {' -> '.join(reversed(error.args[1]))} of no delay found; expected one of "
                "its edges to wait at least 1 time step"
            ) from None
        build = NetworkBuilder(self.name)
        for name in order:
            given = (
                Delayed(edge.source, edge.delay, self.promised.get(edge.source)) if edge.delay else edge.source
                for edge in self.inputs[name]
            )
            build.add(name, self.layers[name], *given)
        return build

    @property
    def order(self) -> tuple[str, ...]:
        """Layer names such that every layer comes after those it hears without delay; otherwise as they were given."""
        return tuple(self._inferred.layers)

    @property
    def types(self) -> Mapping[str, SignalType]:
        """What every layer emits.

        Raises
        ------
        InputError
            If anything does not fit; names the layer, what was found and what was expected.
        """
        return self._inferred.types

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
        steps = self.time_steps
        if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
            raise InputError(f"network {self.name}: {steps} time steps found; expected a whole number of at least 1")
        self._inferred.check_promises()
        used = {edge.source for edge in self.edges}
        for name, layer in self.layers.items():
            if name not in used and not isinstance(layer, Readout):
                raise InputError(f"layer {name}: output that nothing reads found; expected an edge from it")
        return self


def _check_delay(network: str, edge: Edge) -> None:
    delay = edge.delay
    if not isinstance(delay, int) or isinstance(delay, bool) or delay < 0:
        raise InputError(
            f"network {network}: edge {edge.source} -> {edge.target} with delay {delay!r} found; expected a whole "
            "number of time steps, 0 or more"
        )


@dataclass(repr=False)
class NetworkBuilder:
    """Collects layers and edges in reading order, and infers what each emits; importers compose networks with it.

    Attributes
    ----------
    name : str
        Of the network.
    layers : dict of str to Layer
        So far.
    edges : list of Edge
    types : dict of str to SignalType
        What every layer so far emits.

    Examples
    --------
    >>> from eventsim.layers import IF, Input, Linear, Readout, Residual
    >>> from eventsim.signals import SignalType
    >>> import numpy as np
    >>> build = NetworkBuilder("recurrent")
    >>> x = build.add("input", Input((3,), "binary"))
    >>> x = build.add("feed", Linear(np.ones((2, 3), np.float32)), x)
    >>> back = build.add("back", Linear(np.eye(2, dtype=np.float32)), Delayed("if", 1, SignalType("binary", 2)))
    >>> x = build.add("sum", Residual("add"), x, back)
    >>> x = build.add("if", IF(), x)
    >>> build.types["if"].shape
    (2,)
    >>> _ = build.add("readout", Readout("sum"), x)
    >>> build.build()
    Network('recurrent', 6 layers, 10 parameters)
    """

    name: str
    layers: dict[str, Layer] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    types: dict[str, SignalType] = field(default_factory=dict)
    _promised: dict[str, tuple[str, SignalType]] = field(default_factory=dict)

    def add(self, name: str, layer: Layer, *sources: str | Delayed) -> str:
        """Add a layer fed by `sources`, in order; return its name.

        Raises
        ------
        InputError
            If the name is taken, a source is not there, the layer does not fit what arrives, or a delay is no whole
            number of time steps; names the layer.
        """
        if not isinstance(name, str) or not name or not isinstance(layer, Layer):
            raise InputError(f"network {self.name}: layer {name!r} of {layer!r:.60} found; expected a name and a Layer")
        if name in self.layers:
            raise InputError(f"network {self.name}: two layers named {name!r} found; expected different names")
        heard = [source if isinstance(source, Delayed) else Delayed(source, 0) for source in sources]
        heard = [replace(s, delay=int(s.delay)) if isinstance(s.delay, np.integer) else s for s in heard]
        if len(heard) != layer.arguments:
            raise InputError(f"layer {name}: {len(heard)} inputs found; expected {layer.arguments}")
        arriving = [self._arriving(name, source) for source in heard]
        try:
            emitted = layer.output_type(*arriving)
        except LayerError as error:
            raise InputError(f"layer {name}: {error}") from None
        except Exception as error:
            package = type(layer).__module__
            if package.startswith("eventsim."):
                raise
            raise InputError(
                f"layer {name}: {type(layer).__name__} of {package} failed ({described(error)})"
            ) from error
        if not 1 <= emitted.size < MAXIMUM_VALUES:
            raise InputError(f"layer {name}: output {emitted} found; expected 1 to {MAXIMUM_VALUES - 1} values")
        self.layers[name] = layer
        self.types[name] = emitted
        self.edges.extend(Edge(source.source, name, source.delay) for source in heard)
        return name

    def _arriving(self, name: str, heard: Delayed) -> SignalType:
        """Return what arrives from one source, and note what was promised of it."""
        _check_delay(self.name, Edge(heard.source, name, heard.delay))
        known = self.types.get(heard.source)
        if known is not None:
            if heard.type not in (None, known):
                raise InputError(f"layer {name}: source {heard.source!r} of type {known} found; {heard.type} was said")
            self._check_room(name, heard, known)
            return known
        if not heard.delay:
            raise InputError(
                f"layer {name}: source {heard.source!r} not found; expected a layer added before, or one with a delay"
            )
        if heard.type is None:
            raise InputError(
                f"layer {name}: source {heard.source!r} is not there yet; expected Delayed(..., type) that says "
                "what it will emit"
            )
        self._promised.setdefault(heard.source, (name, heard.type))
        if self._promised[heard.source][1] != heard.type:
            raise InputError(
                f"layer {name}: source {heard.source!r} of type {heard.type} found; {self._promised[heard.source][0]} "
                f"expects {self._promised[heard.source][1]}"
            )
        self._check_room(name, heard, heard.type)
        return heard.type

    def _check_room(self, name: str, heard: Delayed, emitted: SignalType) -> None:
        if heard.delay * emitted.size > MAXIMUM_WAITING:
            raise InputError(
                f"network {self.name}: edge {heard.source} -> {name} with delay {heard.delay} of {emitted.size} values "
                f"found; expected at most {MAXIMUM_WAITING} values that wait"
            )

    def check_promises(self) -> None:
        """Refuse a source that was promised and is missing, or emits something else.

        Raises
        ------
        InputError
            Names the layer that hears it.
        """
        for source, (name, promised) in self._promised.items():
            if source not in self.types:
                raise InputError(f"layer {name}: source {source!r} not found; expected a layer of this name")
            if self.types[source] != promised:
                raise InputError(
                    f"layer {name}: source {source!r} was said to emit {promised}, it emits {self.types[source]}"
                )

    def build(self, time_steps: int | None = None, settings: tuple[Setting, ...] = ()) -> Network:
        """Return the validated network."""
        promised = {source: kind for source, (_, kind) in self._promised.items()}
        if isinstance(time_steps, np.integer):
            time_steps = int(time_steps)
        network = Network(self.name, dict(self.layers), tuple(self.edges), time_steps, settings, promised)
        # inferred once, here; this builder may go on
        vars(network)["_inferred"] = NetworkBuilder(
            self.name, dict(self.layers), list(self.edges), dict(self.types), dict(self._promised)
        )
        return network.validate()
