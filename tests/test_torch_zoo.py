"""The models that SpikingJelly 2 brings, as networks; ``nox -s programs`` installs it."""

from __future__ import annotations

import functools
import importlib
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eventsim import Network, Simulator, from_torch

torch = pytest.importorskip("torch", reason="needs PyTorch")
nn = torch.nn
# it warns of what it lacks, and of its own use of PyTorch
pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def part(name: str) -> Any:
    """Import a part of SpikingJelly 2, with a stand-in for the one name that it takes from torchvision."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        stand_in = types.ModuleType("torchvision.models.utils")
        stand_in.load_state_dict_from_url = None  # type: ignore[attr-defined]
        for package in ("torchvision", "torchvision.models"):
            patch.setitem(sys.modules, package, types.ModuleType(package))
        patch.setitem(sys.modules, stand_in.__name__, stand_in)
        pytest.importorskip("spikingjelly.activation_based.model.qkformer", reason="needs SpikingJelly 2")
        return importlib.import_module(f"spikingjelly.activation_based.{name}")


def of(name: str) -> Any:
    return part(f"model.{name}")


def many(module: Any) -> Any:
    part("functional").set_step_mode(module, "m")
    return module


def fire() -> dict[str, Any]:
    return {
        "spiking_neuron": part("neuron").IFNode,
        "surrogate_function": part("surrogate").ATan(),
        "detach_reset": True,
    }


def image(size: int) -> Any:
    return torch.rand(1, 3, size, size)


def pixels(size: int, steps: int = 4) -> Any:
    return image(size).repeat(steps, 1, 1, 1, 1)


def events(size: int, steps: int = 4) -> Any:
    return torch.poisson(torch.rand(steps, 1, 2, size, size) * 1.5)


Make = Callable[[], tuple[Any, Any]]
ZOO: dict[str, Make] = {
    "spikformer_cifar10": lambda: (of("spikformer").spikformer_cifar10(T=4), image(32)),
    "spikformer_ti": lambda: (
        of("spikformer").spikformer_ti(T=2, img_size_h=64, img_size_w=64, num_classes=10), image(64)
    ),
    "qkformer_10_384": lambda: (of("qkformer").qkformer_10_384(), image(64)),
    "sdt_8_384": lambda: (of("spike_driven_transformer").sdt_8_384(), image(64)),
    "maxformer_cifar": lambda: (of("maxformer").maxformer_cifar(), image(32)),
    "maxformer_10_384": lambda: (of("maxformer").maxformer_10_384(), image(64)),
    "sew_resnet18 add": lambda: (
        many(of("sew_resnet").sew_resnet18(cnf="ADD", num_classes=10, **fire())), pixels(64)
    ),
    "sew_resnet18 iand": lambda: (
        many(of("sew_resnet").sew_resnet18(cnf="IAND", num_classes=10, **fire())), pixels(64)
    ),
    "sew_resnet18 and": lambda: (
        many(of("sew_resnet").sew_resnet18(cnf="AND", num_classes=10, **fire())), pixels(32)
    ),
    "spiking_resnet18": lambda: (many(of("spiking_resnet").spiking_resnet18(num_classes=10, **fire())), pixels(64)),
    "ms_resnet18": lambda: (of("ms_resnet").ms_resnet18(num_classes=10), image(32)),
    "max_resnet18": lambda: (of("ms_resnet").max_resnet18(num_classes=10), image(32)),
    "spiking_vgg11_bn": lambda: (many(of("spiking_vgg").spiking_vgg11_bn(num_classes=10, **fire())), pixels(32)),
    "plif CIFAR10": lambda: (many(of("parametric_lif_net").CIFAR10Net(channels=16, **fire())), pixels(32)),
    "plif DVSGesture": lambda: (many(of("parametric_lif_net").DVSGestureNet(channels=8, **fire())), events(128)),
    "plif NMNIST": lambda: (many(of("parametric_lif_net").NMNISTNet(channels=8, **fire())), events(34)),
}  # fmt: skip


def calibrated(module: Any, x: Any, offset: float) -> Any:
    """Give normalisations the statistics of their inputs, and such gains and offsets that 5 to 20 % of neurons fire."""
    module.eval()
    generator = torch.Generator().manual_seed(0)
    norms = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
            norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(torch.rand(norm.bias.shape, generator=generator) * 0.8 + offset)
        for name, each in module.named_modules():
            if isinstance(each, nn.Linear) and "conv_fc" in name:  # no normalisation follows these
                each.weight *= 5
        module(x)
    part("functional").reset_net(module)
    return module.eval()


@torch.no_grad()
def in_pytorch(module: Any, x: Any) -> tuple[np.ndarray, dict[str, float]]:
    """Return the logits, and the share of neurons that fire in a time step, by layer."""
    seen: dict[str, float] = {}

    def keep(name: str) -> Any:
        return lambda _module, _given, output: seen.__setitem__(name, float(output.mean()))

    modules = [item for item in module.named_modules() if isinstance(item[1], part("neuron").BaseNode)]
    hooks = [each.register_forward_hook(keep(name)) for name, each in modules]
    output = module(x)
    part("functional").reset_net(module)
    for hook in hooks:
        hook.remove()
    return (output.mean(0) if output.ndim == 3 else output)[0].numpy(), seen


def frames_of(x: Any, network: Network) -> np.ndarray:
    frames = x[:, 0] if x.ndim == 5 else x.repeat(network.time_steps, 1, 1, 1)
    return np.ascontiguousarray(frames.numpy())


@pytest.mark.parametrize("name", ZOO)
def test_a_model_of_the_zoo(name: str) -> None:
    """Every layer of neurons is verified on equal inputs, and logits are equal unless a spike moved on the way."""
    part("neuron")
    torch.manual_seed(0)
    module, x = ZOO[name]()
    module = calibrated(module, x, -0.1 if "former" in name or "sdt" in name else -0.4)
    expected, rates = in_pytorch(module, x)
    assert 0.05 < np.mean(list(rates.values())) < 0.35, rates
    assert np.mean([0.0005 < rate < 0.8 for rate in rates.values()]) > 0.75, rates
    timed = {"readout": "mean"} if module(x).ndim == 3 else {}
    part("functional").reset_net(module)
    network = from_torch(module, x, **timed)
    (verified,) = (str(each.value) for each in network.settings if each.option == "verified")
    assert verified.split(" layers")[0].endswith(f" outputs of {len(rates)}")
    assert rates.keys() <= network.layers.keys()
    found = Simulator(network).run(frames_of(x, network)).logits
    if verified.endswith(" 0 that rounding moved"):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
