"""Synaptic accumulation: for each output row, add up the weight rows of the active input channels.

A linear layer is the convolution with one tap. Weights are packed ``[taps, input channels, output channels of the
group]``; output row ``r`` starts from the bias, then takes tap after tap, so a row's sum has one order whatever the
chunk. Every kernel returns what it executed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


class Geometry(NamedTuple):
    """Grid of a convolution: input and output pixels, kernel, stride, zero padding, channel groups."""

    height: int
    width: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    pad_height: int
    pad_width: int
    groups: int


@kernel
def gather_binary(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    steps: int,
    geometry: Geometry,
) -> int:
    """Add the weight rows of binary spikes to `out`.

    Parameters
    ----------
    indptr, indices : arrays
        CSR rows of the input, ``steps * height * width`` of them.
    weight : float32 array (taps, input channels, output channels / groups)
    out : float32 array (steps * out_height * out_width, output channels)
        Holds the bias on entry.
    steps : int
    geometry : Geometry

    Returns
    -------
    int
        Weights added: the synapses that the spikes reached.
    """
    g = geometry
    fan = weight.shape[2]
    group_inputs = weight.shape[1] // g.groups
    served = np.int64(0)
    for tap in range(weight.shape[0]):
        dy = tap // g.kernel_width - g.pad_height
        dx = tap % g.kernel_width - g.pad_width
        for row in range(steps * g.out_height):
            step = row // g.out_height
            y = row % g.out_height * g.stride_height + dy
            if y < 0 or y >= g.height:
                continue
            for out_x in range(g.out_width):
                x = out_x * g.stride_width + dx
                if x < 0 or x >= g.width:
                    continue
                source = (step * g.height + y) * g.width + x
                target = row * g.out_width + out_x
                start = indptr[source]
                stop = indptr[source + 1]
                served += stop - start
                if g.groups == 1:
                    e = start
                    while e + 4 <= stop:  # four events share one pass over the output row
                        i0 = indices[e]
                        i1 = indices[e + 1]
                        i2 = indices[e + 2]
                        i3 = indices[e + 3]
                        for j in range(fan):
                            out[target, j] += (
                                weight[tap, i0, j] + weight[tap, i1, j] + weight[tap, i2, j] + weight[tap, i3, j]
                            )
                        e += 4
                    while e < stop:
                        i0 = indices[e]
                        for j in range(fan):
                            out[target, j] += weight[tap, i0, j]
                        e += 1
                else:
                    for e in range(start, stop):
                        i0 = indices[e]
                        first = i0 // group_inputs * fan
                        for j in range(fan):
                            out[target, first + j] += weight[tap, i0, j]
    return served * fan


@kernel
def gather_valued(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    steps: int,
    geometry: Geometry,
) -> tuple[int, float]:
    """Add the weight rows of valued inputs, times their value, to `out`.

    Parameters
    ----------
    indptr, indices, values : arrays
        CSR rows of the input, ``steps * height * width`` of them.
    weight : float32 array (taps, input channels, output channels / groups)
    out : float32 array (steps * out_height * out_width, output channels)
        Holds the bias on entry.
    steps : int
    geometry : Geometry

    Returns
    -------
    products : int
        Synapses reached by non-zero inputs.
    units : float
        The same, each weighted by the magnitude of its input; exact while integers stay below 2**53.
    """
    g = geometry
    fan = weight.shape[2]
    group_inputs = weight.shape[1] // g.groups
    served = np.int64(0)
    units = np.float64(0)
    for tap in range(weight.shape[0]):
        dy = tap // g.kernel_width - g.pad_height
        dx = tap % g.kernel_width - g.pad_width
        for row in range(steps * g.out_height):
            step = row // g.out_height
            y = row % g.out_height * g.stride_height + dy
            if y < 0 or y >= g.height:
                continue
            for out_x in range(g.out_width):
                x = out_x * g.stride_width + dx
                if x < 0 or x >= g.width:
                    continue
                source = (step * g.height + y) * g.width + x
                target = row * g.out_width + out_x
                for e in range(indptr[source], indptr[source + 1]):
                    i = indices[e]
                    value = values[e]
                    first = i // group_inputs * fan
                    for j in range(fan):
                        out[target, first + j] += value * weight[tap, i, j]
                    served += 1
                    units += abs(value)
    return served * fan, units * fan


@kernel
def gather_synapses(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    synapse_indptr: npt.NDArray[np.int64],
    synapse_targets: npt.NDArray[np.int32],
    synapse_weights: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> tuple[int, float]:
    """Serve the synapses of each active input channel: fan-out lists in CSR form.

    Parameters
    ----------
    indptr, indices : arrays
        CSR rows of the input.
    values : float32 array
        One value per non-zero input, or empty where all are 1.
    synapse_indptr : int64 array (input channels + 1,)
    synapse_targets : int32 array (synapses,)
    synapse_weights : float32 array (synapses,)
    out : float32 array (rows, output channels)
        Holds the bias on entry.

    Returns
    -------
    products : int
        Synapses served.
    units : float
        The same, each weighted by the magnitude of its input; exact while integers stay below 2**53.
    """
    binary = len(values) == 0
    served = np.int64(0)
    units = np.float64(0)
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            start = synapse_indptr[indices[e]]
            stop = synapse_indptr[indices[e] + 1]
            value = np.float32(1) if binary else values[e]
            for s in range(start, stop):
                out[row, synapse_targets[s]] += value * synapse_weights[s]
            served += stop - start
            units += abs(value) * (stop - start)
    return served, units
