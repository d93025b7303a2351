"""From a PyTorch module to a network, by what the module does."""

from __future__ import annotations

from typing import Any

from eventsim.errors import InputError
from eventsim.network import Network


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
    """Return the network that a PyTorch module computes; nothing of it but its neurons need be known.

    The module runs once on the example, on a copy in evaluation mode, and every operation on tensors that depend on the
    example becomes a layer, named by the path of its module. It comes back as it was given.

    Parameters
    ----------
    module : torch.nn.Module
        With neurons of SpikingJelly, snnTorch, Norse or sinabs; on the CPU, in float32.
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
        images were prepared (`eventsim.preparation.PreparationOptions`).

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If PyTorch is missing, the module holds what has no layer, the roles of axes stay open, or a layer differs from
        the module's by more than rounding explains; names the module.
    """
    try:
        from eventsim_importers.torch_program.reading import read  # noqa: PLC0415 - PyTorch is not needed elsewhere
    except ImportError as error:
        raise InputError(f"PyTorch cannot be imported ({error}); expected pip install torch") from None
    return read(module, example, time_axis=time_axis, name=name, output=output, verify=verify, **options)
