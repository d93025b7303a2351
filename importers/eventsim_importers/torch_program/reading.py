"""A PyTorch module as a network: recorded, folded, translated, and compared with what the module does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation_options import PREPARED, PreparationOptions, check_options
from eventsim.settings import CHECKPOINT_PARAMETERS, Setting
from eventsim.signals import Kind
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents
from eventsim_importers.reading.options import Chooser, parse_options
from eventsim_importers.reading.prepared import keep_preparation
from eventsim_importers.reading.wrappings import patterns_of
from eventsim_importers.torch_program.axes import grid_axes, whole
from eventsim_importers.torch_program.compared import Sample, copy_of, outputs_of, put_at_rest, verified
from eventsim_importers.torch_program.neurons import neuron_of
from eventsim_importers.torch_program.neurons.protocol import Neuron
from eventsim_importers.torch_program.recorder import FIRE, NEURON, Program, Ref, record
from eventsim_importers.torch_program.translation import Translation
from eventsim_importers.torch_program.unrolled import folded
from eventsim_importers.torch_program.written.neurons import recognised

ARGUMENTS = ("time_axis", "name", "output", "weights", "ignore")
"""What is said beside the options, on the command line with --set too."""
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Options:
    """What a module does not tell; None takes the default, and the import says so.

    Attributes
    ----------
    input_kind : {"binary", "graded", "real"}, optional
        Default: what the values of the example are.
    readout : {"mean", "sum", "last"}, optional
        How outputs of several time steps become the logits of the sample; needed where the output has them.
    fold_bn : bool, optional
        Fold normalisations into the weights before them. Default: true.
    """

    input_kind: Kind | None = None
    readout: Literal["mean", "sum", "last"] | None = None
    fold_bn: bool | None = None


def read(
    module: nn.Module,
    example: torch.Tensor,
    *,
    time_axis: int | None = None,
    name: str | None = None,
    output: int | str | None = None,
    verify: bool = True,
    neurons: Mapping[type, Callable[[Any], Neuron]] | None = None,
    **options: Any,
) -> Network:
    """Return the network of a module; see `eventsim.from_torch`."""
    _check(module, example, time_axis)
    prepared = {key: options.pop(key) for key in PREPARED if key in options}
    preparation = parse_options("every import", PreparationOptions, prepared)
    check_options(preparation)
    chosen = parse_options("PyTorch modules", Options, options, (*ARGUMENTS, *PREPARED))
    title = name or type(module).__name__
    checkpoint = Checkpoint(Path(title), "module", Contents(_tensors(module)))
    choose = Chooser(checkpoint, chosen)
    stated, values = chosen.input_kind, _kind(example)
    if stated is not None and (values, stated) in (("graded", "binary"), ("real", "binary"), ("real", "graded")):
        raise InputError(
            f"input_kind={stated} with an example of {values} values found; expected an example of that kind"
        )
    kind = cast(Kind, choose.inferred("input_kind", values, "the values of the example"))
    own = _copy(module, checkpoint)
    known = {path: neuron_of(each, neurons) for path, each in own.named_modules()}
    at = {each: known[path] for path, each in own.named_modules()}
    put_at_rest(known.values())
    at_rest = copy_of(own)
    program = record(own, example.clone(), lambda each: at[each])
    put_at_rest(known.values())
    key, wanted = _output(program, output, title)
    written = recognised(replace(program, output=wanted))
    if not any(node.operation in (NEURON, FIRE) for node in written.program.nodes):
        raise InputError(
            f"{title}: no neurons found; expected modules of SpikingJelly, snnTorch, Norse or sinabs, or charge, "
            "threshold and reset as operations, or neurons="
        )
    program, loop = folded(written.program)
    steps = loop or _time_steps(program, example, time_axis)
    readout = choose.stated("readout")
    fold_bn = choose.way("fold_bn", True)
    layouts = _layouts(example, time_axis, steps)
    network, translation, sample = _translated(program, title, layouts, steps, kind, readout, fold_bn)
    network = keep_preparation(network.with_settings(*checkpoint.settings), checkpoint, preparation)
    theirs = sum(parameter.numel() for parameter in module.parameters())
    note = "as sum(p.numel()) counts in PyTorch"
    if more := network.parameters - theirs:
        note += (
            f"; ours are {abs(more):,} {'more' if more > 0 else 'fewer'}: normalisations are folded into weights, "
            "scales are one for each channel, constants of neurons are no weights"
        )
    network = network.with_settings(Setting(CHECKPOINT_PARAMETERS, theirs, "inferred", note))
    if verify:
        said = verified(network, translation, at_rest if written.spikes else own, known, sample, example, key, written)
        network = network.with_settings(said)
    return network


# --- what the command line needs


def load_weights(module: nn.Module, path: str | Path, weights: str | None, ignore: str | tuple[str, ...]) -> None:
    """Put the tensors of a checkpoint into a module.

    Raises
    ------
    InputError
        Names the first tensor that is missing, left over, or of another shape.
    """
    _check_module(module)
    wanted = module.state_dict()

    def recognise(checkpoint: Checkpoint) -> int:
        found = sum(name in wanted for name in checkpoint.tensors)
        return found if 2 * found > len(wanted) else 0

    checkpoint = Checkpoint.open(path, weights, patterns_of(ignore), recognise)
    state = {}
    for name, tensor in wanted.items():
        if name not in checkpoint.tensors and name.endswith("num_batches_tracked"):
            continue
        found = checkpoint.tensors.get(name)
        if found is None:
            raise InputError(f"{path}: tensor {name} missing; expected it with shape {tuple(tensor.shape)}")
        if found.shape != tuple(tensor.shape):
            raise InputError(f"{path}: tensor {name} {found.shape} found; expected {tuple(tensor.shape)}")
        checkpoint.used(name)
        state[name] = torch.from_numpy(np.array(found)).to(tensor.dtype)
    checkpoint.finish()
    module.load_state_dict(state, strict=False)


def random_example(
    shape: tuple[int, ...], steps: int | None, time_axis: int | None, kind: str | None = None
) -> torch.Tensor:
    """Return a sample of a batch of 1, of a kind; by default event counts for two channels, else values from 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    front = (1,) if steps is None else (1, steps) if time_axis == 1 else (steps, 1)
    values = torch.rand(*front, *shape, generator=generator)
    if kind == "binary":
        return (values < 0.3).float()
    counts = kind == "graded" or (kind is None and shape[0] == 2)
    return torch.poisson(2 * values, generator=generator) if counts else values


# --- before


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"{type(module).__name__} found; expected a torch.nn.Module")


def _check(module: Any, example: Any, time_axis: int | None) -> None:
    """Refuse what cannot be read."""
    _check_module(module)
    if not isinstance(example, torch.Tensor):
        raise InputError(f"example of {type(example).__name__} found; expected a tensor")
    tensors = [*module.named_parameters(), *module.named_buffers(), ("example", example)]
    for name, tensor in tensors:
        if tensor.device.type != "cpu":
            raise InputError(f"{name} on {tensor.device} found; expected module.cpu() and example.cpu()")
        if tensor.dtype in HALF:
            raise InputError(f"{name} of {tensor.dtype} found; expected module.float() and example.float()")
        if tensor.is_quantized:
            raise InputError(f"{name} of {tensor.dtype} found; expected a module that is not quantised")
    for path, each in module.named_modules():
        if ".quantized." in f"{type(each).__module__}.":
            raise InputError(f"module {path}: {type(each).__name__} found; expected a module that is not quantised")
    batch = _batch_axis(example, time_axis)
    if example.shape[batch] != 1:
        raise InputError(
            f"example {tuple(example.shape)} found; expected one sample as the module takes it, a batch of 1 in axis "
            f"{batch}, or time_axis= that says which axis is time"
        )
    if not torch.isfinite(example.float()).all():
        raise InputError("example with NaN or infinite values found; expected finite ones")


def _batch_axis(example: torch.Tensor, time_axis: int | None) -> int:
    rank = example.ndim
    if time_axis is None:
        if rank <= 3:
            raise InputError(
                f"example {tuple(example.shape)} found, whose axes do not tell which is time; expected time_axis=0 or "
                "1, or -1 where there is none"
            )
        if rank > 5:
            raise InputError(f"example {tuple(example.shape)} found; expected up to (T, 1, C, H, W)")
        return 1 if rank == 5 else 0
    if time_axis not in (-1, 0, 1) or rank < (2 if time_axis >= 0 else 1):
        raise InputError(f"time_axis={time_axis} with an example {tuple(example.shape)} found; expected 0, 1 or -1")
    return 0 if time_axis in (-1, 1) else 1


def _kind(example: torch.Tensor) -> Kind:
    values = example.detach().float().numpy()
    if ((values == 0) | (values == 1)).all():
        return "binary"
    return "graded" if (values >= 0).all() and (values == np.rint(values)).all() else "real"


def _tensors(module: nn.Module) -> dict[str, Any]:
    return {key: tensor.detach().float().numpy() for key, tensor in module.named_parameters()} or {
        "none": np.zeros(1, np.float32)
    }


def _copy(module: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    """Return a copy in evaluation mode, at rest."""
    try:
        own = copy.deepcopy(module)
    except RuntimeError:
        raise InputError(
            f"{checkpoint.path}: state left over from an earlier call with gradients found; reset the module first"
        ) from None
    training = [
        path or "itself" for path, each in module.named_modules() if each.training and not list(each.children())
    ]
    if training:
        note = (
            f"{training[0]}{f' and {len(training) - 1} more' if training[1:] else ''} evaluated: no dropout, norms of "
        )
        checkpoint.say(Setting("training mode", None, "inferred", note + "their running statistics"))
    return own.eval()


# --- between


def _output(program: Program, output: int | str | None, title: str) -> tuple[int | str, Ref]:
    """Return the one output that is asked for, by its name and in the program."""
    named = outputs_of(program.output)
    if output is None and len(named) > 1:
        names = ", ".join(map(str, named))
        raise InputError(f"{title}: outputs {names} found; expected output= to say which are the logits")
    key = next(iter(named)) if output is None else output
    if key not in named:
        raise InputError(f"{title}: output={output} found; expected one of {', '.join(map(str, named))}")
    wanted = named[key]
    if not isinstance(wanted, Ref):
        what = "a tensor" if isinstance(wanted, torch.Tensor) else type(wanted).__name__
        raise InputError(f"{title}: output {key} is {what} that does not depend on the example; expected logits")
    return key, wanted


def _time_steps(program: Program, example: torch.Tensor, time_axis: int | None) -> int:
    """Return the number of time steps of a module without a loop."""
    if time_axis is None and example.ndim == 5:
        return int(example.shape[0])
    if time_axis in (0, 1):
        return int(example.shape[time_axis])
    for node in program.nodes:
        if (
            node.operation in ("repeat", "expand", "expand_as", "tile", "broadcast_to", "stack", "cat")
            and node.shapes[0][0] > 1
        ):
            return node.shapes[0][0]
    return 1


def _layouts(example: torch.Tensor, time_axis: int | None, steps: int) -> Iterator[Sample]:
    """Return what the axes of an example may be; behind time and batch, channels come first or, of two, last."""
    timed = time_axis in (0, 1) or (time_axis is None and example.ndim == 5)
    axis = (time_axis or 0) if timed else None
    array = example.detach().float().numpy()
    front: list[Any] = [()] if axis is None else [whole("time", steps), ()] if axis == 0 else [(), whole("time", steps)]
    rest = array.shape[len(front) :]
    frames = np.repeat(array, steps, axis=0) if axis is None else np.moveaxis(array, axis, 0)[:, 0]
    if len(rest) == 3:
        yield Sample((*front, whole("channel", rest[0]), *grid_axes(rest[1:])), rest, frames)
    elif len(rest) == 2:
        dims = (*front, whole("position", rest[0]), whole("channel", rest[1]))
        yield Sample(dims, rest, frames)
        line = (rest[0], 1, rest[1])
        dims = (*front, whole("channel", rest[0]), whole("position", rest[1]))
        yield Sample(dims, line, frames.reshape(len(frames), *line))
    elif len(rest) == 1:
        yield Sample((*front, whole("channel", rest[0])), rest, frames)
    else:
        raise InputError(f"example {tuple(example.shape)} found; expected up to three axes in a time step")


def _translated(
    program: Program,
    title: str,
    layouts: Iterator[Sample],
    steps: int,
    kind: Kind,
    readout: str | None,
    fold_bn: bool,
) -> tuple[Network, Translation, Sample]:
    """Translate with the first layout of the example that the operations fit."""
    refused: tuple[int, InputError] | None = None
    for sample in layouts:
        translation = Translation(program, title, sample.dims, sample.shape, kind, steps, fold_bn)
        try:
            network = translation.network(program.output, readout, ())
            return network, translation, Sample(sample.dims, sample.shape, np.ascontiguousarray(sample.frames))
        except InputError as error:
            got = len(translation.build.layers)  # the layout that led farther tells more
            refused = (got, error) if refused is None or got > refused[0] else refused
    assert refused is not None
    raise refused[1]
