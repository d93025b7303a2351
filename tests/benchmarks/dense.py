"""A PyTorch network as the dense engines are given it: neurons without state of their own, batch norm folded.

SpikingJelly's neurons are replaced by `Neurons`, a plain loop over the time steps with the same arithmetic, which every
engine can trace. A batch norm right behind a convolution or linear layer becomes part of it, in float64.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

Norm = nn.modules.batchnorm._BatchNorm
OPSET = 17
SYNAPSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
SURROGATES = (surrogate.SurrogateFunctionBase, surrogate.MultiArgsSurrogateFunctionBase)


class Neurons(nn.Module):
    """Leaky integrate-and-fire neurons with a hard reset to zero, for [T, ...]; starts at rest."""

    def __init__(self, source: neuron.LIFNode | neuron.ParametricLIFNode) -> None:
        super().__init__()
        if source.v_reset != 0 or source.step_mode != "m":
            raise ValueError(f"{source} found; expected multi-step neurons that reset to 0")
        learned = isinstance(source, neuron.ParametricLIFNode)
        # a division by a power of two is the same as this product, bit for bit
        self.rate = float(source.w.sigmoid()) if learned else 1 / source.tau
        self.v_threshold, self.decay_input = source.v_threshold, source.decay_input

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            v = v + (current - v) * self.rate if self.decay_input else v - v * self.rate + current
            fires = v >= self.v_threshold
            spikes.append(fires.to(x.dtype))
            v = torch.where(fires, 0.0, v)
        return torch.stack(spikes)


class Step(nn.Module):
    """1 where x >= 0, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x >= 0).to(x.dtype)


@torch.inference_mode()
def prepared(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy with `Neurons` and without batch norms, for inference.

    Raises
    ------
    ValueError
        If a batch norm does not follow a convolution or linear layer, so that it cannot be folded.
    """
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, neuron.BaseNode):
                setattr(module, name, Neurons(child))
            elif isinstance(child, SURROGATES):  # the forward pass of each is a step, but no exporter knows
                setattr(module, name, Step())
    names = {module: name for name, module in model.named_modules()}
    for norm, layer in norms(model, example).items():
        layer.weight, layer.bias = (nn.Parameter(value.float(), requires_grad=False) for value in folded(norm, layer))
        parent, _, last = names[norm].rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Identity())
    return model.requires_grad_(False)


def norms(model: nn.Module, example: Tensor) -> dict[nn.Module, nn.Module]:
    """Return every batch norm and the convolution or linear layer whose output it takes; runs the model once to see.

    Raises
    ------
    ValueError
        If a batch norm does not follow such a layer, or shares it.
    """
    made: dict[tuple[int, int], tuple[nn.Module, Tensor]] = {}  # the tensors are kept: no address is used twice
    pairs: dict[nn.Module, nn.Module | None] = {}

    def emitted(module: nn.Module, _: object, output: Tensor) -> None:
        made[output.data_ptr(), output.numel()] = module, output

    def met(module: nn.Module, inputs: tuple[Tensor]) -> None:
        pairs[module] = made.get((inputs[0].data_ptr(), inputs[0].numel()), (None,))[0]  # a view of it, too

    hooks = [m.register_forward_hook(emitted) for m in model.modules() if isinstance(m, SYNAPSES)]
    hooks += [m.register_forward_pre_hook(met) for m in model.modules() if isinstance(m, Norm)]
    model(example)
    for hook in hooks:
        hook.remove()
    for name, norm in model.named_modules():
        before = pairs.get(norm)
        if isinstance(norm, Norm) and (before is None or list(pairs.values()).count(before) > 1):
            raise ValueError(f"{name}: a batch norm found that does not follow a convolution or linear layer alone")
    return pairs


def folded(norm: nn.Module, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a layer and the batch norm behind it, float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = 0.0 if layer.bias is None else layer.bias.double()
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return weight, (bias - norm.running_mean.double()) * scale + norm.bias.double()


def export(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the network with the shape of an example, batch size and all, as ONNX."""
    torch.onnx.register_custom_op_symbolic("aten::exp2", _exp2, OPSET)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on tracing: every shape here is a constant, as it should be
        torch.onnx.export(
            model, (example,), path, dynamo=False, opset_version=OPSET, input_names=["x"], output_names=["logits"]
        )


def _exp2(graph: Any, x: Any) -> Any:
    return graph.op("Pow", graph.op("Constant", value_t=torch.tensor(2.0)), x)
