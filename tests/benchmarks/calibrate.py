"""Weights that were never trained, and neurons that fire as often as trained ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from dense import Neurons, Norm, folded, norms
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

GRID = 2.0**10
EPS = {"bn_eps": str(1 / GRID)}
"""What `make_dyadic` changes of the metadata."""
HALVINGS = 16
LIMIT = 12.0


@torch.inference_mode()
def calibrate(
    model: nn.Module, inputs: Tensor, rates: Mapping[str, float], seen_by_next: Mapping[str, Callable] | None = None
) -> None:
    """Set every batch norm to the statistics of its input, and its shift so that the neurons behind it fire at a rate.

    Layers are set in the order of execution, each on what those before it emit. Neurons behind no batch norm of their
    own, as those after an attention, get a threshold instead.

    Parameters
    ----------
    model : module
        With neurons of SpikingJelly; takes `inputs`.
    inputs : tensor
    rates : mapping
        Names of neurons and their rate; others are left alone.
    seen_by_next : mapping, optional
        Names of neurons and a function of their spikes, such as a pooling: the rate is that of what it returns.
    """
    names = {module: name for name, module in model.named_modules()}
    latest: list[nn.Module] = []
    taken: set[nn.Module] = set()

    def norm(module: nn.Module, args: tuple[Tensor]) -> None:
        (x,) = args
        axes = [axis for axis in range(x.ndim) if axis != 1]
        module.running_mean.copy_(x.mean(axes))
        module.running_var.copy_(x.var(axes, correction=0) + 1e-6)
        module.weight.fill_(1.0)
        module.bias.fill_(0.0)
        latest[:] = [module]

    def neurons(module: nn.Module, args: tuple[Tensor]) -> None:
        name = names[module]
        if name not in rates:
            return
        (x,) = args
        see = (seen_by_next or {}).get(name, lambda spikes: spikes)
        if not latest or latest[0] in taken:
            low, high = 0.0, 64.0
            for _ in range(HALVINGS):
                module.v_threshold = (low + high) / 2
                few = float(see(Neurons(module)(x)).count_nonzero()) < rates[name] * see(x).numel()
                low, high = (low, module.v_threshold) if few else (module.v_threshold, high)
            return
        low, high = -LIMIT, LIMIT
        for _ in range(HALVINGS):
            shift = (low + high) / 2
            few = float(see(Neurons(module)(x + shift)).count_nonzero()) < rates[name] * see(x).numel()
            low, high = (shift, high) if few else (low, shift)
        latest[0].bias.fill_((low + high) / 2)
        taken.add(latest[0])
        x.add_((low + high) / 2)  # in place: where this is a sum that goes on as a shortcut, it goes on with the shift

    hooks = [module.register_forward_pre_hook(norm) for module in model.modules() if isinstance(module, Norm)]
    nodes = [module for module in model.modules() if isinstance(module, neuron.BaseNode)]
    hooks += [module.register_forward_pre_hook(neurons) for module in nodes]
    model.eval()(inputs)
    for hook in hooks:
        hook.remove()


@torch.inference_mode()
def make_dyadic(model: nn.Module, inputs: Tensor) -> None:
    """Move the batch norms into the weights and round those to multiples of 2 ** -10.

    Sums of such weights are exact in float32, in any order, where the inputs are spikes or small integers. So every
    float32 engine must give the same spikes, however deep the network; rounding errors would flip some, and these more.
    What is left of a batch norm divides by sqrt(1 - 2 ** -10 + 2 ** -10), which is 1.
    """
    for norm, layer in norms(model.eval(), inputs).items():
        weight, bias = (((value * GRID).round() / GRID).float() for value in folded(norm, layer))
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.zero_()
        norm.eps = 1 / GRID
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.weight.fill_(1.0)
        norm.bias.copy_(bias)


def uniform(model: nn.Module, rate: float, but: str = "attn_lif") -> dict[str, float]:
    """Return one rate for all neurons but those whose names end in `but`."""
    nodes = [name for name, module in model.named_modules() if isinstance(module, neuron.BaseNode)]
    return {name: rate for name in nodes if not name.endswith(but)}
