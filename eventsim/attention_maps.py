"""Attention maps: an observer that counts what is in them, and keeps those of some layers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.context import Observed
from eventsim.errors import InputError
from eventsim.layers import SpikingAttention, TableAttention
from eventsim.ledger import Columns, LedgerRows
from eventsim.network import Network
from eventsim.signals import CountArray, Rows

Maps: TypeAlias = npt.NDArray[np.int64]


class Map(NamedTuple):
    """The maps of one layer, int64 ``(T, heads, positions of q, positions of k)``.

    Attributes
    ----------
    before : int64 array
        ``q k^T`` of each head.
    after : int64 array
        The same after the table of a `TableAttention`; without one, `before` itself.
    """

    before: Maps
    after: Maps


class AttentionMaps:
    r"""Computes :math:`q k^\top` of every head in every time step, where the algorithm itself does not tell it.

    `SpikingAttention` counts what it adds, not what its map holds. With this observer its layers have `scores`, all
    entries, and `nonzero_scores` and `kept_scores`, which without a table are the same, so that they can be compared
    with a `TableAttention`, which counts all of them by itself. The map is exact; it is also computed where the order
    is context first and no such map is ever formed. This work is not counted, nor in any latency of a layer.

    Parameters
    ----------
    network : Network
        The one that is run.
    count : iterable of str, optional
        `SpikingAttention` layers whose maps are counted; all of the network if left out.
    keep : iterable of str
        `SpikingAttention` and `TableAttention` layers whose maps are kept, see `maps`.

    Raises
    ------
    InputError
        If a layer is not in the network or of another type.

    Examples
    --------
    >>> from eventsim import NetworkBuilder, Simulator
    >>> from eventsim.layers import Flatten, Input, Readout, SpikingAttention
    >>> build = NetworkBuilder("attention")
    >>> x = build.add("input", Input((2, 3), "binary"))
    >>> x = build.add("attn", SpikingAttention(1), x, x, x)
    >>> x = build.add("readout", Readout(), build.add("flat", Flatten(), x))
    >>> network = build.build()
    >>> observer = AttentionMaps(network, keep=["attn"])
    >>> result = Simulator(network, observers=[observer]).run([[[1, 1, 0], [0, 0, 1]]])
    >>> result.totals.scores, result.totals.nonzero_scores
    (4, 2)
    >>> observer.maps("attn").before.tolist()
    [[[[2, 0], [0, 1]]]]
    """

    def __init__(self, network: Network, count: Iterable[str] | None = None, keep: Iterable[str] = ()) -> None:
        plain = [name for name, layer in network.layers.items() if isinstance(layer, SpikingAttention)]
        self._counted = frozenset(plain if count is None else _checked(network, count, (SpikingAttention,)))
        self._kept: dict[str, _Kept] = {}
        self._layers: dict[str, SpikingAttention | TableAttention] = {}
        keep = _checked(network, keep, (SpikingAttention, TableAttention))
        for name in (*self._counted, *keep):
            layer = network.layers[name]
            assert isinstance(layer, (SpikingAttention, TableAttention))
            self._layers[name] = layer
        self._keep = frozenset(keep)
        self._lock = threading.Lock()
        self._thread = 0

    def on_layer(self, node: Observed, inputs: Sequence[Any], output: Any, rows: LedgerRows) -> None:
        """Count and keep the maps of a layer that was asked for.

        Raises
        ------
        InputError
            If maps are kept and two threads run samples at once.
        """
        name = node.name
        if name not in self._layers:
            return
        q, k, _ = inputs
        maps = _products(q, k, _heads(self._layers[name]))
        if name in self._counted and (not output.static or rows.start == 0):  # an image counts in the first step
            own = rows.part(0, 1) if output.static else rows
            filled = _filled(maps)
            own.add("scores", maps[:1].size)
            own.add("nonzero_scores", filled)
            own.add("kept_scores", filled)
        if name in self._keep:
            with self._lock:
                self._take(name, np.broadcast_to(maps, (rows.steps, *maps.shape[1:])), rows)

    def maps(self, layer: str) -> Map:
        """Return the maps of a layer in the sample that was run last; of a stream, those of its last chunk.

        Raises
        ------
        InputError
            If the maps of this layer are not kept, or nothing was run.
        """
        if layer not in self._keep:
            kept = ", ".join(sorted(self._keep)) or "none"
            raise InputError(f"layer {layer}: its attention maps are not kept, those of {kept} are; name it in keep")
        if layer not in self._kept:
            raise InputError(f"layer {layer}: no attention maps found; expected a sample to be run with this observer")
        before: Maps = np.concatenate(self._kept[layer].chunks)
        table = self._layers[layer]
        if not isinstance(table, TableAttention):
            return Map(before, before)
        heads = np.arange(len(table.table))[:, None, None]
        return Map(before, table.table[heads, before].astype(np.int64))

    def _take(self, name: str, maps: Maps, rows: LedgerRows) -> None:
        thread = threading.get_ident()
        if thread != self._thread:
            if not all(kept.complete for kept in self._kept.values()):
                raise InputError(
                    "attention maps kept of samples on two threads found; expected one sample at a time (threads=1)"
                )
            self._kept, self._thread = {}, thread
        kept = self._kept.get(name)
        if kept is None or kept.sample is not rows.columns or rows.columns.length == 1:
            kept = self._kept[name] = _Kept(rows.columns)
        kept.chunks.append(maps)
        kept.complete = rows.columns.length == 1 or rows.start + rows.steps == rows.columns.length


class _Kept:
    """The chunks of one layer in one sample, which its columns of the ledger stand for."""

    def __init__(self, sample: Columns) -> None:
        self.sample = sample
        self.chunks: list[Maps] = []
        self.complete = False


def _checked(network: Network, names: Iterable[str], types: tuple[type, ...]) -> list[str]:
    checked = list(names)
    for name in checked:
        layer = network.layers.get(name)
        if not isinstance(layer, types):
            found = "no such layer" if layer is None else type(layer).__name__
            raise InputError(f"layer {name}: {found} found; expected {' or '.join(t.__name__ for t in types)}")
    return checked


def _heads(layer: SpikingAttention | TableAttention) -> int:
    return layer.heads if isinstance(layer, SpikingAttention) else len(layer.table)


def _products(q: Rows, k: Rows, heads: int) -> Maps:
    """Return ``q k^T`` of each step and head; products of integers are exact in float64 below 2**53."""
    first, second = (
        signal.to_array()
        .astype(np.float64)
        .reshape(signal.steps, signal.type.positions, heads, signal.type.channels // heads)
        .swapaxes(1, 2)
        for signal in (q, k)
    )
    maps: Maps = np.rint(first @ second.swapaxes(2, 3)).astype(np.int64)
    return maps


def _filled(maps: Maps) -> CountArray:
    """Return the entries of each step that are not 0."""
    return np.array([np.count_nonzero(step) for step in maps], np.int64)
