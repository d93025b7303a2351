"""What the neurons of a module emit, and its output, against a network's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from eventsim.comparison import compare_layers
from eventsim.errors import InputError
from eventsim.margin import ALLOWED
from eventsim.network import Network
from eventsim.settings import Setting
from eventsim.signals import FloatArray
from eventsim.simulator import Simulator
from eventsim_importers.torch_program.axes import Atom, Dims, find, whole
from eventsim_importers.torch_program.neurons.protocol import Neuron
from eventsim_importers.torch_program.recorder import record
from eventsim_importers.torch_program.translation import Translation
from eventsim_importers.torch_program.values import Emitted, Value
from eventsim_importers.torch_program.written.neurons import Written

LOGITS = 1e-4
"""Largest difference of logits, as a share of the largest."""


@dataclass(frozen=True)
class Sample:
    """How an example is laid out.

    Attributes
    ----------
    dims : tuple
        Of the tensor.
    shape : tuple of int
        Of one time step, as the network's input has it.
    frames : float32 array (T, *shape)
        The example as the network takes it; an image in every time step.
    """

    dims: Dims
    shape: tuple[int, ...]
    frames: FloatArray


def put_at_rest(neurons: Any) -> None:
    """Reset neurons, but for what is none."""
    for neuron in neurons:
        if neuron is not None:
            neuron.reset()


def copy_of(module: nn.Module) -> nn.Module:
    """Return a module with the same parameters, and a state of its own."""
    return copy.deepcopy(module, {id(each): each for each in module.parameters()})


def outputs_of(outputs: Any) -> dict[int | str, Any]:
    """Return what a module returned by name or number."""
    if isinstance(outputs, dict):
        return dict(outputs)
    return dict(enumerate(outputs)) if isinstance(outputs, (tuple, list)) else {0: outputs}


def verified(
    network: Network,
    translation: Translation,
    own: nn.Module,
    known: Mapping[str, Neuron | None],
    sample: Sample,
    example: torch.Tensor,
    output: int | str,
    written: Written,
) -> Setting:
    """Compare every layer of neurons, and the logits, on the example and on the example in another order of its values.

    Raises
    ------
    InputError
        Names the first layer that differs by more than rounding explains.
    """
    spikes = differing = 0
    largest = 0.0
    for given, frames in _variants(example, sample):
        theirs, logits = _emitted(translation, own, known, given, output, written)
        put_at_rest(known.values())
        layers = compare_layers(network, frames, theirs, translation.terms)
        for layer in layers:
            spikes, differing = spikes + layer.spikes, differing + layer.differing
            largest = max(largest, layer.largest_ratio)
            if layer.outside:
                raise InputError(
                    f"layer {layer.name}: {layer.outside} of its outputs differ from the module's by more than "
                    f"rounding explains ({layer.largest_ratio:.3g} times what terms and eps make, {ALLOWED} allowed); "
                    f"expected the same spikes{_hint(network)}"
                )
        if not any(layer.differing for layer in layers):  # a spike that rounding moves moves the logits too
            _compare_logits(network, frames, logits)
    if not spikes:
        raise InputError(
            f"{network.name}: no neuron fired on the example; expected one that makes the network active, or "
            "verify=False"
        )
    what = f"{spikes} outputs of {len(translation.neurons)} layers of neurons, {differing} that rounding moved"
    return Setting("verified", what, "inferred", f"compared with PyTorch; largest ratio {largest:.2g} of {ALLOWED}")


def _hint(network: Network) -> str:
    """Say what may be behind a difference."""
    if any(edge.delay and _biased(network, edge.target) for edge in network.edges):
        return (
            ": a layer with a bias that hears earlier steps adds its bias in the first steps too, here; begin the loop "
            "with zeros in place of leaving the branch out"
        )
    return ": report it, with the module"


def _biased(network: Network, layer: str) -> bool:
    return bool(network.layers[layer].facts(*network.input_types(layer)).biased)


def _compare_logits(network: Network, frames: FloatArray, theirs: FloatArray) -> None:
    ours = Simulator(network).run(frames).logits
    difference, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    if not difference <= LOGITS * max(scale, 1e-3):
        raise InputError(
            f"logits differ from the module's by {difference:.3g}, of up to {scale:.3g}, though all spikes are the "
            f"same; expected the same{_hint(network)}"
        )


def _variants(example: torch.Tensor, sample: Sample) -> Iterator[tuple[torch.Tensor, FloatArray]]:
    """Return the example and one whose last axis is in another order, with gaps: what was baked in is seen there."""
    yield example, sample.frames
    rng = np.random.default_rng(0)
    order = rng.permutation(example.shape[-1])
    kept = (np.arange(len(order)) % 4 != 1).astype(np.float32)
    turned = example[..., torch.from_numpy(order)] * torch.from_numpy(kept).to(example.dtype)
    frames = sample.frames[..., order] * kept
    yield turned.contiguous(), np.ascontiguousarray(frames)


def _emitted(
    translation: Translation,
    own: nn.Module,
    known: Mapping[str, Neuron | None],
    example: torch.Tensor,
    output: int | str,
    written: Written,
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Run the module; return what its neurons emit, by layer, as the network orders it, and the logits.

    Neurons that are written out are at rest in a copy only, and what they emit is found among its operations.
    """
    own = copy_of(own) if written.spikes else own
    seen: dict[str, list[FloatArray]] = {}

    def keep(neuron: Neuron, emitted: Emitted) -> Callable[..., None]:
        def kept(_module: nn.Module, _given: Any, output: Any) -> None:
            tensor = neuron.emitted(output) if emitted.state is None else neuron.state(output)[emitted.state]
            array = tensor.detach().float().numpy().copy()
            if emitted.state is not None:  # what the layer emits
                state = neuron.states[emitted.state]
                array = (array - np.float32(state.shift)) / np.float32(state.gain)
            seen.setdefault(emitted.value.layer, []).append(array)

        return kept

    modules = dict(own.named_modules())
    handles = [
        modules[each.path].register_forward_hook(keep(neuron, each))
        for each in translation.emitted
        if (neuron := known.get(each.path)) is not None
    ]
    at = {each: known[path] for path, each in modules.items()}
    places = {place for steps in written.spikes.values() for place, _ in steps}
    again = record(own, example.clone(), lambda each: at[each], places)
    results = again.returned
    for handle in handles:
        handle.remove()
    found = {}
    for each in translation.emitted:
        name, neuron = each.value.layer, known.get(each.path)
        if each.path in written.spikes:
            loop, steps = True, written.spikes[each.path]
            arrays = [1 - again.kept[at].numpy() if rest else again.kept[at].numpy() for at, rest in steps]
        else:
            loop, arrays = neuron is not None and neuron.time_axis is None, seen[name]
        found[name] = as_signal(translation, each.value, np.stack(arrays) if loop else arrays[0], loop)
    logits = outputs_of(results)[output].detach().float().numpy()
    return found, as_logits(translation, logits)


def as_signal(at: Translation, value: Value, array: FloatArray, loop: bool) -> FloatArray:
    """Return a tensor's values, of all time steps, as ``(T, *per-step shape)`` of the signal.

    Parameters
    ----------
    value : Value
        What the tensor is of.
    array : array
        With a first axis of time steps where calls were stacked.
    loop : bool
        Whether they were.
    """
    kind = at.kind(value)
    steps = at.steps_of(value)
    dims = (whole("time", steps), *value.dims) if loop else value.dims
    atoms = [atom for dim in dims for atom in dim]
    fine = np.asarray(array, np.float32).reshape([atom.size for atom in atoms])
    if not find(dims, "time"):
        fine, atoms = (
            np.broadcast_to(fine, (steps, *fine.shape)),
            [Atom("time", 1, steps), *atoms],
        )
    of = ("time", "channel", "position") if len(kind.grid) == 2 else ("time", "position", "channel")
    order = sorted(range(len(atoms)), key=lambda at: (of.index(atoms[at].of), -atoms[at].stride))
    return np.ascontiguousarray(fine.transpose(order).reshape(steps, *kind.shape))


def as_logits(at: Translation, array: FloatArray) -> FloatArray:
    """Return the output of the module as the network reads it out."""
    steps = as_signal(at, at.logits, array, loop=False)
    if find(at.logits.dims, "time") and at.readout != "last":
        summed = steps.sum(axis=0, dtype=np.float64)
        steps = (summed / (len(steps) if at.readout == "mean" else 1))[None]
    return np.asarray(steps[-1], np.float32).reshape(-1)
