"""From a PyTorch module to a network, by what the module does."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from eventsim.errors import EventsimError, InputError
from eventsim.network import Network
from eventsim.untrusted import described, first_line


def from_torch(
    module: Any,
    example: Any,
    *,
    time_axis: int | None = None,
    name: str | None = None,
    output: int | str | None = None,
    verify: bool = True,
    **options: Any,
) -> Network:
    """Return the network that a PyTorch module computes; nothing need be known but neurons that hide what they do.

    The module runs once on the example, on a copy in evaluation mode, and every operation on tensors that depend on the
    example becomes a layer, named by the path of its module. It comes back as it was given.

    Parameters
    ----------
    module : torch.nn.Module
        With neurons of SpikingJelly, snnTorch, Norse or sinabs, or written out as charge, threshold and reset; on the
        CPU, in float32.
    example : tensor
        One sample as the module takes it, a batch of 1: an image ``(1, C, H, W)``, frames ``(T, 1, C, H, W)``, or with
        ``time_axis=1`` frames ``(1, T, C, H, W)``.
    time_axis : int, optional
        Which axis of the example is time, -1 for none; needed for three axes or fewer.
    name : str, optional
        Of the network. Default: the module's class.
    output : int or str, optional
        Which of several outputs are the logits.
    verify : bool
        Whether to compare every layer of neurons with the module's, from equal inputs, on the example and on a second
        one (`eventsim.testing.compare_layers`).
    **options
        ``input_kind`` ("binary", "graded" or "real"; default: as the values of the example); ``readout`` ("mean", "sum"
        or "last") where the output has several time steps; ``fold_bn``; ``neurons``, a mapping of neuron classes to
        functions that return a `eventsim_importers.torch_program.neurons.protocol.Neuron`; and how recordings and
        images were prepared (`eventsim.preparation_options.PreparationOptions`).

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If PyTorch is missing, the module holds what has no layer, the roles of axes stay open, or a layer differs from
        the module's by more than rounding explains; names the module.
    """
    read = _reading().read
    network: Network = read(module, example, time_axis=time_axis, name=name, output=output, verify=verify, **options)
    return network


def import_with_module(
    path: str | Path, factory: str, example: tuple[int, ...], example_steps: int | None = None, **options: Any
) -> Network:
    """Return the network of a module of the user's own code, with the weights of a checkpoint.

    Nothing in the checkpoint is executed; the code that is named is.

    Parameters
    ----------
    path : str or Path
        What `eventsim.import_checkpoint` reads; entries, prefixes and masks are found by the names of the module.
    factory : str
        ``package.module:function``, which returns the module; the working directory is looked at first.
    example : tuple of int
        Shape of one time step of a sample, without the batch. Random values are put in: of ``input_kind`` if that is
        given, else counts for two channels, else real ones.
    example_steps : int, optional
        Time steps of frames; without it the sample is an image.
    **options
        ``weights`` and ``ignore`` as of `eventsim.import_checkpoint`, and those of `from_torch`.

    Raises
    ------
    InputError
        If there is no such function, or the checkpoint lacks tensors of the module or holds others.
    EventsimError
        If the function fails.
    """
    reading = _reading()
    module = _made(factory)
    reading.load_weights(module, path, options.pop("weights", None), options.pop("ignore", ()))
    if "time_axis" in options:
        options["time_axis"] = int(options["time_axis"])
    given = reading.random_example(example, example_steps, options.get("time_axis"), options.get("input_kind"))
    if example_steps is None:
        options.setdefault("time_axis", -1)
    elif len(example) < 3:
        options.setdefault("time_axis", 0)
    try:
        return from_torch(module, given, **options)
    except InputError as error:
        if example_steps is None and "that the module takes" in str(error):
            raise InputError(f"{error}; frames need --example-steps") from error
        raise


def _reading() -> Any:
    try:
        return importlib.import_module("eventsim_importers.torch_program.reading")
    except ImportError as error:
        raise InputError(f"PyTorch cannot be imported ({first_line(error)}); expected pip install torch") from None


def _made(factory: str) -> Any:
    """Call a function of the user's."""
    place, colon, name = factory.partition(":")
    if not (place and colon and name.isidentifier()):
        raise InputError(f"--module {factory} found; expected package.module:function, such as my_net:build")
    if place.endswith(".py"):
        raise InputError(f"--module {factory} found; expected {place.removesuffix('.py')}:{name}, without .py")
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(place), name, None)
    except Exception as error:
        raise InputError(f"--module {factory}: {place} cannot be imported from here ({described(error)})") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(function):
        raise InputError(f"--module {factory}: no function {name} in {place} found; expected one that returns a module")
    try:
        return function()
    except Exception as error:
        raise EventsimError(f"--module {factory}: {name}() failed ({described(error)})") from error
