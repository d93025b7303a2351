"""Conventions against the tools that they are named after, on the same networks; ``nox -s conventions`` has these."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eventsim import Network, Result, Simulator, from_torch
from eventsim.accounting.conventions import Estimate, estimate

torch = pytest.importorskip("torch", reason="needs PyTorch")
nn = torch.nn
# the tools warn of what they lack and of their own dependencies
pytestmark = pytest.mark.filterwarnings("ignore")
T = 5


def package(name: str, needs: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name, reason=f"needs {needs}")
        return importlib.import_module(name)


def dyadic(module: Any, seed: int = 0) -> Any:
    """Weights in eighths, none of them zero, so that sums are exact and every synapse counts."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, (nn.Linear, nn.Conv2d)):
                for parameter in each.parameters():
                    values = rng.integers(1, 7, parameter.shape) * rng.choice([-1, 1, 1], parameter.shape) / 8
                    parameter.copy_(torch.from_numpy(values))
    return module.eval()


def frames(kind: str, channels: int = 2, size: int = 8) -> Any:
    """Events as counts, as spikes, or real pixels."""
    rng = np.random.default_rng(len(kind))
    counts = rng.poisson(0.6, (T, 1, channels, size, size))
    made = {"counts": counts, "spikes": np.minimum(counts, 1), "pixels": rng.normal(size=counts.shape)}[kind]
    return torch.from_numpy(made.astype(np.float32))


def simulated(module: Any, x: Any, **options: Any) -> tuple[Network, Result]:
    network = from_torch(module, x, **options)
    return network, Simulator(network).run(x[:, 0].numpy())


def found(network: Network, result: Result, name: str) -> Estimate:
    estimated = estimate(result.profile, name)
    assert estimated.acs + estimated.macs > 0
    return estimated


# --- SpikingJelly 2.0.0


def jelly() -> Any:
    return package("spikingjelly.activation_based.op_counter", "SpikingJelly 2")


def counted(module: Any, x: Any, *names: str) -> list[int]:
    """Totals of counters of SpikingJelly, each of a run of its own; neurons are told to be ignored."""
    counters, neuron = jelly(), package("spikingjelly.activation_based.neuron", "SpikingJelly")
    totals = []
    for name in names:
        counter = getattr(counters, name)(extra_ignore_modules=[neuron.base_node.BaseNode])
        with torch.no_grad(), counters.DispatchCounterMode([counter]):
            module(x)
        importlib.import_module("spikingjelly.activation_based.functional").reset_net(module)
        totals.append(counter.get_total())
    return totals


def strided() -> Any:
    jelly()
    neuron, layer = (package(f"spikingjelly.activation_based.{name}", "SpikingJelly") for name in ("neuron", "layer"))
    return nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, step_mode="m"),
        neuron.LIFNode(step_mode="m"),
        layer.Conv2d(4, 6, 3, stride=2, padding=2, groups=2, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.MaxPool2d(2, step_mode="m"),
        layer.Conv2d(6, 6, 3, padding=2, dilation=2, step_mode="m"),
        neuron.LIFNode(v_reset=None, step_mode="m"),
        layer.AvgPool2d(2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(6, 5, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )


class Transformer(nn.Module):
    """A block with integers between its residuals, as Spikformer has them."""

    def __init__(self, order: str, image: bool = False) -> None:
        super().__init__()
        jelly()
        neuron = package("spikingjelly.activation_based.neuron", "SpikingJelly")
        self.order, self.image = order, image
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.fire = nn.ModuleList(neuron.IFNode(v_threshold=0.5, step_mode="m") for _ in range(7))

    def forward(self, x: Any) -> Any:
        if self.image:
            x = x.unsqueeze(0).repeat(T, 1, 1, 1, 1)
        steps, batch = x.shape[:2]
        maps = self.stem(x.flatten(0, 1))
        x = self.fire[0](maps.flatten(2).transpose(1, 2).reshape(steps, batch, 64, 8))
        q, k, v = (
            (part(x) if self.order == "softmax" else self.fire[1 + i](part(x)))
            .reshape(steps, batch, 64, 2, 4)
            .transpose(2, 3)
            for i, part in enumerate((self.q, self.k, self.v))
        )
        if self.order == "scores_first":
            attended = ((q @ k.transpose(-2, -1)) * 0.125) @ v
        elif self.order == "softmax":
            attended = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v
        else:
            attended = q @ ((k.transpose(-2, -1) @ v) * 0.125)
        y = self.fire[4](attended.transpose(2, 3).reshape(steps, batch, 64, 8))
        x = x + self.fire[5](self.out(y))
        x = x + self.fire[6](self.up(x))
        return self.head(x.mean(2))


JELLY: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    **{f"strided, {kind}": (strided, lambda kind=kind: frames(kind)) for kind in ("counts", "spikes", "pixels")},
    "scores first": (lambda: Transformer("scores_first"), lambda: frames("spikes")),
    "context first": (lambda: Transformer("context_first"), lambda: frames("counts")),
    "softmax": (lambda: Transformer("softmax"), lambda: frames("spikes")),
    "an image": (lambda: Transformer("scores_first", image=True), lambda: frames("pixels")[0]),
    "an image of spikes": (lambda: Transformer("scores_first", image=True), lambda: frames("spikes")[0]),
}


@pytest.mark.parametrize("name", JELLY)
def test_spikingjelly(name: str) -> None:
    make, given = JELLY[name]
    module, x = dyadic(make()), given()
    acs, macs, synops = counted(module, x, "ACCounter", "MACCounter", "SynOpCounter")
    network = from_torch(module, x, readout="last")
    result = Simulator(network).run((x[:, 0] if x.ndim == 5 else x[0]).numpy())
    exact, alone = found(network, result, "spikingjelly"), found(network, result, "spikingjelly_synops")
    assert (exact.acs, exact.macs) == (acs, macs)
    assert (alone.acs, alone.macs) == (synops, 0)


# --- NeuroBench 2.3.0


class Looped(nn.Module):
    """The steps that NeuroBench takes itself."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        return torch.stack([self.net(frame)[0] for frame in x]).mean(0)


def leaky(reset: str) -> Any:
    snn = package("snntorch", "snnTorch")
    options = {"beta": 0.5, "init_hidden": True, "reset_mechanism": reset}
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        snn.Leaky(**options),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False),
        snn.Leaky(**options),
        nn.Flatten(),
        nn.Linear(64, 6),
        snn.Leaky(**options, output=True),
    )


@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("kind", ["counts", "spikes", "pixels", "signs"])
def test_neurobench(kind: str, reset: str) -> None:
    workload = package("neurobench.metrics.workload", "NeuroBench")
    static = package("neurobench.metrics.static", "NeuroBench")
    models = package("neurobench.models", "NeuroBench")
    x = frames("pixels" if kind == "signs" else kind)
    x = x.sign() if kind == "signs" else x
    net = dyadic(leaky(reset))
    network, result = simulated(Looped(net), x, readout="last")
    model = models.SNNTorchModel(net)
    model.register_hooks()
    predictions = model(x.transpose(0, 1))
    data = (x.transpose(0, 1), torch.zeros(1))
    expected = workload.SynapticOperations()(model, predictions, data)
    estimated = found(network, result, "neurobench")
    assert estimated.acs == expected["Effective_ACs"]
    assert estimated.macs == expected["Effective_MACs"]
    assert (estimated.acs > 0, estimated.macs > 0) == (True, kind in ("counts", "pixels"))
    assert estimated.more["dense"] == expected["Dense"]
    sparsity = workload.ActivationSparsity()(model, predictions, data)
    assert estimated.more["activation_sparsity"] == pytest.approx(sparsity, rel=1e-12)
    if reset == "subtract":  # a potential that is set to zero a step late may come back to what it was
        assert estimated.more["membrane_updates"] == workload.MembraneUpdates()(model, predictions, data)
    buffers = sum(b.numel() * b.element_size() for b in net.buffers())
    assert estimated.more["footprint_bytes"] == static.Footprint()(model) - buffers
    model.cleanup_hooks()


# --- syops 0.0.5


def multi_step(kind: str) -> Any:
    """As its users write it: SpikingJelly 0.0.0.0.12, every module called once for all time steps."""
    neuron = package("spikingjelly.clock_driven.neuron", "SpikingJelly 0.0.0.0.12")
    layer = package("spikingjelly.clock_driven.layer", "SpikingJelly 0.0.0.0.12")
    pool = nn.AvgPool2d if kind == "average" else nn.MaxPool2d

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, stride=2, bias=False)
            self.pool, self.line, self.head = pool(2), nn.Linear(4, 6), nn.Linear(6, 3)
            self.fire = nn.ModuleList(neuron.MultiStepLIFNode(detach_reset=True) for _ in range(3))
            self.scale = 0.25 if kind == "scaled" else None

        def forward(self, x: Any) -> Any:
            steps, batch = x.shape[:2]
            x = self.fire[0](self.one(x.flatten(0, 1)).unflatten(0, (steps, batch)))
            x = x if self.scale is None else x * self.scale
            x = self.fire[1](self.two(x.flatten(0, 1)).unflatten(0, (steps, batch)))
            x = self.pool(x.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (steps, batch))
            x = self.fire[2](self.line(x))
            return self.head(x.mean(2)).mean(0)

    assert layer is not None
    return Net()


@pytest.mark.parametrize("given", ["spikes", "counts", "pixels"])
@pytest.mark.parametrize("kind", ["maximum", "average", "scaled"])
def test_syops(kind: str, given: str) -> None:
    module, x = dyadic(multi_step(kind)), frames(given)
    tool = package("syops", "syops")
    network, result = simulated(module, x, readout="last", fold_bn=False)  # or the scale is in the weights
    (_, acs, macs, _), _ = tool.get_model_complexity_info(
        module, (1,), [(x, 0)], as_strings=False, print_per_layer_stat=False
    )
    estimated = found(network, result, "syops")
    # it divides by the first axis of its input, which is time here
    assert estimated.macs == macs * T
    assert estimated.acs == round(acs * T)
