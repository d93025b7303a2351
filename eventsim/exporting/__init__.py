"""From a network to a NIR file, in the layout of ``nir.write``.

NIR has no field for dt, reset, comparison, start, several spikes in a step and a floor: they go out as metadata of the
graph and of each neuron, which `eventsim.import_checkpoint` reads. Potentials are measured from v_reset, which is left
out where it is 0: NIR 1.0.4, which sinabs asks for, does not know it. A delay of an edge becomes a Delay node, a sum
several edges into a node.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.exporting.graph import Graph
from eventsim.exporting.nodes import Fields
from eventsim.network import Network
from eventsim.whole_file import whole_file

VERSION = "1.0.8"
"""Of NIR."""


def to_nir(network: Network, path: str | Path) -> None:
    """Write a network as a NIR graph; an existing file is replaced only once the new one is complete.

    The file is that of ``nir.write``, and `eventsim.import_checkpoint` makes the same network of it: every number of a
    layer comes back bit for bit. The package ``nir`` is not needed.

    Parameters
    ----------
    network : Network
    path : str or Path
        Ends in ``.nir`` by convention.

    Raises
    ------
    InputError
        If a layer has no node in NIR, or the file cannot be written; names the layer, or the file.
    """
    import h5py  # noqa: PLC0415 - takes long to import

    network.validate()
    graph = Graph(network)
    held = io.BytesIO()  # the HDF5 library crashes where a disk is full
    with h5py.File(held, "w") as file:
        text = h5py.string_dtype()
        file.create_dataset("version", data=VERSION, dtype=text)
        _write(file.create_group("node"), graph.fields(), text)
    with whole_file(path) as partial:
        partial.write_bytes(held.getvalue())  # no copy, where nothing is written any more


def _write(group: Any, fields: Fields, text: np.dtype[Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _write(group.create_group(name), dict(value), text)
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=text)
        elif isinstance(value, np.ndarray) and value.ndim:
            group.create_dataset(name, data=value, compression="gzip")
        else:
            group.create_dataset(name, data=value)
