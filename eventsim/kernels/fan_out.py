"""Synapses that are listed one by one, as fan-out of each input channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


@kernel
def gather_synapses(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    synapse_indptr: npt.NDArray[np.int64],
    synapse_targets: npt.NDArray[np.int32],
    synapse_weights: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.int64],
) -> None:
    """Serve the synapses of each active input channel: fan-out lists in CSR form.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input; values are empty where all are 1.
    synapse_indptr : int64 array (input channels + 1,)
    synapse_targets : int32 array (synapses,)
    synapse_weights : float32 array (synapses,)
    out : float32 array (steps * positions, output channels)
        Holds the bias on entry.
    products, units : int64 arrays (steps,)
        Written, as by `eventsim.kernels.products.count_products`.
    """
    indptr, indices, values = rows
    binary = len(values) == 0
    products[:] = 0
    units[:] = 0
    positions = max((len(indptr) - 1) // max(len(products), 1), 1)
    for row in range(len(indptr) - 1):
        step = row // positions
        for e in range(indptr[row], indptr[row + 1]):
            start = synapse_indptr[indices[e]]
            stop = synapse_indptr[indices[e] + 1]
            value = np.float32(1) if binary else values[e]
            for s in range(start, stop):
                out[row, synapse_targets[s]] += value * synapse_weights[s]
            products[step] += stop - start
            if not binary:
                units[step] += abs(value) * (stop - start)
