"""PyTorch modules as networks: whole models, loops over time, bad input, verification, and what is left behind."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_oracle import example, export, frames_for, make_dyadic, make_lively, neuron, neurons_of, torch

import eventsim_importers.torch_program.operations as tables
from eventsim import InputError, Network, Result, Simulator, from_torch, import_checkpoint, margin
from eventsim.layers import IF
from eventsim_importers.torch_program import reading
from eventsim_importers.torch_program.folding import Kernel
from eventsim_importers.torch_program.neurons.protocol import Neuron

nn, F = torch.nn, torch.nn.functional
T = 4
SpikeLists = dict[str, list[np.ndarray]]


def rest(module: Any) -> Any:
    for each in module.modules():
        if isinstance(each, neuron.BaseNode):
            each.reset()
    return module


@torch.no_grad()
def in_pytorch(module: Any, x: Any) -> tuple[Any, SpikeLists]:
    """Return what the module returns, and what its neurons emit in each call."""
    seen: SpikeLists = {}

    def keep(name: str) -> Any:
        return lambda _module, _given, output: seen.setdefault(name, []).append(output.numpy().copy())

    hooks = [
        each.register_forward_hook(keep(name)) for name, each in module.named_modules() if name in neurons_of(module)
    ]
    output = rest(module)(x)
    for hook in hooks:
        hook.remove()
    rest(module)
    return output, seen


def simulated(network: Network, frames: np.ndarray, *names: str) -> Result:
    return Simulator(network, record=names).run(np.ascontiguousarray(frames, np.float32))


def dyadic(shape: tuple[int, ...], seed: int = 0) -> Any:
    return torch.from_numpy((np.random.default_rng(seed).integers(-4, 13, shape) / 8).astype(np.float32))


def frames_of(x: Any, time_axis: int | None = None) -> np.ndarray:
    """Frames (T, ...) of an example, an image in every step."""
    if time_axis == 1:
        return x[0].numpy()
    if time_axis == 0 or x.ndim == 5:
        return x[:, 0].numpy()
    return np.repeat(x.numpy(), T, axis=0)


def check(module: Any, x: Any, time_axis: int | None = None, turned: tuple[str, ...] = (), **options: Any) -> Network:
    """Return the network, after comparing logits and every spike, bit for bit, on the example and on other input.

    What the layers `turned` emit has its last two axes the other way round there.
    """
    network = from_torch(module, x, time_axis=time_axis, **options)
    rng = np.random.default_rng(1)
    for given in (x, x[..., torch.from_numpy(rng.permutation(x.shape[-1]))].contiguous(), x.flip(-1) * 0.5):
        output, seen = in_pytorch(module.eval(), given)
        frames = frames_of(given, time_axis).reshape(network.time_steps, *network.input.shape)
        result = simulated(network, frames, *seen)
        if isinstance(output, (dict, tuple)):
            output = output[options.get("output", 0)]
        readout = options.get("readout")
        output = {"mean": output.mean(0), "sum": output.sum(0), "last": output[-1]}.get(readout, output)
        assert_array_equal(result.logits, output[0].numpy())
        for name, calls in seen.items():
            spikes = np.concatenate(calls)
            spikes = spikes.swapaxes(-1, -2) if name in turned else spikes
            assert_array_equal(result.recorded[name].reshape(spikes.shape), spikes, err_msg=name)
    return network


# --- the definitions of the examples

SIZES = {"width": 32, "depth": 1, "heads": 2, "classes": 7, "time_steps": T}
MODELS: dict[str, Callable[[int], Any]] = {
    "spikformer": lambda channels: example("spikformer").Spikformer("dvs", **SIZES, in_channels=channels, size=32),
    "spikformer_v2": lambda channels: example("spikformer_v2").SpikformerV2(**SIZES, in_channels=channels, size=32),
    "ds2ta": lambda channels: example("ds2ta").DS2TA("dvs", **SIZES, in_channels=channels, size=32),
    "stformer": lambda channels: example("stformer").STFormer(**SIZES, in_channels=channels, size=32),
}


@pytest.mark.parametrize("still", [False, True], ids=["frames", "image"])
@pytest.mark.parametrize("name", MODELS)
def test_models_of_the_examples(name: str, still: bool, tmp_path: Path) -> None:
    """Logits, spikes and counts are those of PyTorch, and of the importer of the exported state dict."""
    model = make_dyadic(MODELS[name](3 if still else 2), 0)
    metadata = {**example(name).metadata(model), "bn_eps": "0.0"}
    known = import_checkpoint(export(model, tmp_path, metadata), format=name)
    frames = frames_for(model)
    if still:
        frames = np.repeat(frames[:1], T, axis=0)
        network = from_torch(model, torch.from_numpy(frames[:1]))
    else:
        network = from_torch(model, torch.from_numpy(frames[:, None]))
    assert network.time_steps == T
    assert network.input.kind == known.input.kind
    for seed in (0, 1):
        frames = frames_for(model, seed)
        frames = np.repeat(frames[:1], T, axis=0) if still else frames
        output, seen = in_pytorch(model, torch.from_numpy(frames[:1] if still else frames[:, None]))
        found, expected = (simulated(each, frames, *seen) for each in (network, known))
        assert_array_equal(found.logits, output[0].numpy())
        assert_array_equal(found.logits, expected.logits)
        for layer, (spikes,) in seen.items():
            assert_array_equal(found.recorded[layer].reshape(spikes.shape), spikes, err_msg=layer)
            assert 0 < spikes.mean() < 1, layer
        ours, theirs = ({layer.name: layer.counts for layer in each.profile} for each in (found, expected))
        assert ours == theirs
    layers = {
        each for each, module in model.named_modules() if hasattr(module, "weight") and not hasattr(module, "eps")
    }
    assert layers <= network.layers.keys()
    assert {setting.option: setting.value for setting in network.settings}["checkpoint_parameters"] == sum(
        each.numel() for each in model.parameters()
    )


def real_spikeformer() -> Any:
    model = example("spikeformer").nmnist_model()
    model.in_channels, model.size = 2, model.sizes.size
    return make_lively(model, 0)


OTHERS: dict[str, Callable[[], Any]] = {
    "spikeformer": real_spikeformer,
    "spikformer_v2": lambda: example("spikformer_v2").SpikformerV2(
        **SIZES, in_channels=2, size=32, reading=example("spikformer_v2").Reading(residual_op="iand")
    ),
    "stformer": lambda: example("stformer").STFormer(
        **SIZES, in_channels=2, size=32, reading=example("stformer").Reading(mlp_residual="membrane", rpe="after")
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_layers_are_called_as_by_the_importer(name: str, tmp_path: Path) -> None:
    model = OTHERS[name]()
    known = import_checkpoint(export(model, tmp_path, example(name).metadata(model)), format=name)
    network = from_torch(model, torch.from_numpy(frames_for(model)[:, None]), verify=False)
    assert network.layers.keys() == known.layers.keys()


def test_a_map_of_a_single_position() -> None:
    """No operation takes the mean over positions where there is one."""
    network = check(
        plain(lambda m, x: x.mean((3, 4), keepdim=True), lambda m, x: m.head(x.flatten(2))),
        dyadic(FRAMES),
        readout="sum",
    )
    assert network.input.shape == (2, 4, 4)
    model = make_dyadic(example("spikformer_v2").SpikformerV2(**SIZES, in_channels=2, size=16), 0)
    frames = frames_for(model)
    output, _ = in_pytorch(model, torch.from_numpy(frames[:, None]))
    network = from_torch(model, torch.from_numpy(frames[:, None]))
    assert_array_equal(simulated(network, frames).logits, output[0].numpy())


# --- networks that nobody has an importer for


class Branched(nn.Module):
    """A Spikformer block whose values go through a depthwise convolution beside the attention."""

    def __init__(self, fire: Callable[[], Any], heads: int = 2, width: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.embed_bn, self.embed_lif = nn.Conv2d(2, width, 3, 2, 1), nn.BatchNorm2d(width), fire()
        self.qkv, self.qkv_bn, self.qkv_lif = nn.Linear(width, 3 * width), nn.BatchNorm1d(3 * width), fire()
        self.local = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.local_bn, self.mix_lif = nn.BatchNorm2d(width), fire()
        self.proj, self.proj_lif = nn.Conv2d(width, width, 1), fire()
        self.head = nn.Linear(width, 5)

    def forward(self, x: Any) -> Any:
        steps = len(x)
        x = self.embed_bn(self.embed(x.flatten(0, 1)))
        x = self.embed_lif(x.view(steps, 1, *x.shape[1:]))
        y = self.qkv(x.flatten(3).transpose(-1, -2))  # (T, 1, N, 3 C)
        y = self.qkv_bn(y.flatten(0, 1).transpose(1, 2)).transpose(1, 2).reshape(y.shape)
        y = self.qkv_lif(y)
        q, k, v = y.unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        local = v.permute(0, 1, 2, 4, 3).reshape(x.shape)
        local = self.local_bn(self.local(local.flatten(0, 1))).unflatten(0, (steps, 1))
        y = (q @ (k.mT @ v) * 0.25).permute(0, 1, 2, 4, 3).reshape(x.shape) + local
        y = self.mix_lif(y)
        x = x + self.proj_lif(self.proj(y.flatten(0, 1)).unflatten(0, (steps, 1)))
        return self.head(x.mean((0, 3, 4)))


class Learned(nn.Module):
    """Neurons of no framework, all steps at once, with thresholds that are learned."""

    def __init__(self, threshold: Any) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold)

    def forward(self, x: Any) -> Any:
        v, spikes = torch.zeros_like(x[0]), []
        for each in x:
            v = v + each
            spikes.append((v >= self.threshold).float())
            v = v - spikes[-1] * self.threshold
        return torch.stack(spikes)


class Thresholds(nn.Module):
    """A threshold for each channel, before and behind a transposition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one = nn.Conv2d(2, 16, 3, padding=1), Learned(torch.arange(1, 17)[:, None, None] / 8)
        self.line, self.two = nn.Linear(16, 16), Learned(torch.arange(16, 0, -1) / 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.one(self.conv(x.flatten(0, 1)).unsqueeze(1))
        x = self.two(self.line(x.flatten(3).mT))
        return self.head(x.mean((0, 2)))


def learned(module: Any) -> Neuron:
    layer = IF(module.threshold.detach().numpy(), "subtract")
    return Neuron((layer,), 0, lambda output: output, lambda output: (), lambda: None)


class Recurrent(nn.Module):
    """Spikes go back through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(6, 16), nn.Linear(16, 16, bias=False)
        self.fire, self.out = neuron.LIFNode(v_threshold=0.5), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        spikes, out = torch.zeros(x.shape[1], 16), []
        for frame in x:
            spikes = self.fire(self.into(frame) + self.back(spikes))
            out.append(self.out(spikes))
        return torch.stack(out).mean(0)


def fire_many() -> Any:
    return neuron.LIFNode(step_mode="m")


def test_a_depthwise_branch_beside_attention() -> None:
    module = make_dyadic(Branched(fire_many), 3)
    network = check(module, dyadic((T, 1, 2, 8, 8)), turned=("qkv_lif",))
    assert network.layers["local"].groups == 8  # type: ignore[attr-defined]


def test_thresholds_of_channels_that_are_parameters() -> None:
    """As many tokens as channels, and the thresholds of neither order are those of the other."""
    network = check(make_dyadic(Thresholds(), 0), dyadic((T, 1, 2, 4, 4)), neurons={Learned: learned})
    assert_array_equal(network.layers["one"].v_threshold, np.arange(1, 17) / 8)  # type: ignore[attr-defined]
    assert_array_equal(network.layers["two"].v_threshold, np.arange(16, 0, -1) / 16)  # type: ignore[attr-defined]
    parameters = next(each.value for each in network.settings if each.option == "checkpoint_parameters")
    assert parameters == sum(each.numel() for each in Thresholds().parameters())


def test_a_recurrent_network() -> None:
    module = make_dyadic(Recurrent(), 0)
    network = check(module, dyadic((6, 1, 6)), time_axis=0)
    assert network.time_steps == 6
    assert {"into", "back", "fire", "out"} <= network.layers.keys()


class Queue(Recurrent):
    """Spikes come back some steps later, through a layer that does its work when they are emitted."""

    def __init__(self, delay: int) -> None:
        super().__init__()
        self.delay = delay

    def forward(self, x: Any) -> Any:
        waiting, out = [torch.zeros(1, 16)] * self.delay, 0
        for frame in x:
            spikes = self.fire(self.into(frame) + waiting.pop(0))
            waiting.append(self.back(spikes) * 0.5)
            out = out + self.out(spikes)
        return out


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_a_recurrent_network_of_longer_delays(delay: int) -> None:
    network = check(make_dyadic(Queue(delay), 0), dyadic((7, 1, 6)), time_axis=0)
    assert {edge.delay for edge in network.edges} == {0, delay}


class Own(nn.Module):
    """Neurons of no framework."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor([0.25, 0.5, 0.75, 1.0]))

    def forward(self, x: Any, v: Any = None) -> Any:
        v = x if v is None else v + x
        spikes = (v >= self.threshold).float()
        return spikes, v - spikes * self.threshold


class WithOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line, self.own, self.head = nn.Linear(6, 4), Own(), nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        v, total = None, 0
        for frame in x:
            spikes, v = self.own(self.line(frame), v)
            total = total + self.head(spikes)
        return total


def own(threshold: float | None = None) -> dict[type, Callable[[Any], Neuron]]:
    return {
        Own: lambda module: Neuron(
            (IF(module.threshold.detach().numpy() if threshold is None else threshold, "subtract"),),
            None,
            lambda output: output[0],
            lambda output: output[1:],
            lambda: None,
        )
    }


def test_neurons_of_ones_own() -> None:
    module, x = make_dyadic(WithOwn(), 0), dyadic((T, 1, 6))
    network = from_torch(module, x, time_axis=0, neurons=own())
    for seed in range(3):
        x = dyadic((T, 1, 6), seed)
        with torch.no_grad():
            assert_array_equal(simulated(network, x[:, 0].numpy()).logits, module(x)[0].numpy())
    (layer,) = (layer for layer in from_torch(module, x, time_axis=0).layers.values() if isinstance(layer, IF))
    assert layer.reset == "subtract"  # what it does is read, too
    assert_array_equal(layer.v_threshold, module.own.threshold.detach().numpy())


def test_that_the_state_of_other_neurons_is_refused() -> None:
    class Swapped(WithOwn):
        def __init__(self) -> None:
            super().__init__()
            self.second = Own()

        def forward(self, x: Any) -> Any:
            one = two = None
            total = 0
            for frame in x:
                spikes, new = self.own(self.line(frame), two)
                others, two = self.second(self.line(frame), one)
                one, total = new, total + self.head(spikes + others)
            return total

    words = "^module own: a state that is not its own of the step before found; expected that$"
    with pytest.raises(InputError, match=words):
        from_torch(make_dyadic(Swapped(), 0), dyadic((T, 1, 6)), time_axis=0, neurons=own())


# --- loops over time


class Loop(nn.Module):
    """A single-step network, and a way to run it."""

    def __init__(self, way: Callable[[Any, Any], Any], fire: Callable[[], Any] = neuron.IFNode) -> None:
        super().__init__()
        self.way = way
        self.conv, self.norm, self.one = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), fire()
        self.pool, self.line, self.two = nn.MaxPool2d(2), nn.Linear(16, 8), fire()
        self.head = nn.Linear(8, 5)

    def step(self, x: Any) -> Any:
        x = self.pool(self.one(self.norm(self.conv(x))))
        return self.two(self.line(x.flatten(1)))

    def forward(self, x: Any) -> Any:
        return self.way(self, x)


def running_sum(m: Any, x: Any) -> Any:
    total = 0
    for frame in x:
        total = total + m.head(m.step(frame))
    return total / 4


def in_place_sum(m: Any, x: Any) -> Any:
    total = torch.zeros(1, 5)
    for t in range(x.shape[0]):
        total += m.head(m.step(x[t]))
    return total


def first_then_sum(m: Any, x: Any) -> Any:
    total = m.step(x[0])
    for t in range(1, len(x)):
        total += m.step(x[t])
    return m.head(total)


def of_an_image(m: Any, x: Any) -> Any:
    return torch.stack([m.head(m.step(x)) for _ in range(T)]).mean(0)


def last_step(m: Any, x: Any) -> Any:
    for frame in x.unbind(0):
        out = m.head(m.step(frame))
    return out


def encoded_once(m: Any, x: Any) -> Any:
    x = m.norm(m.conv(x))
    return sum(m.head(m.two(m.line(m.pool(m.one(x)).flatten(1)))) for _ in range(T))


def two_loops(m: Any, x: Any) -> Any:
    """Layer after layer, each over all steps."""
    first = [m.pool(m.one(m.norm(m.conv(frame)))) for frame in x]
    second = [m.two(m.line(each.flatten(1))) for each in first]
    return m.head(torch.stack(second).sum(0))


def stacked_between(m: Any, x: Any) -> Any:
    """Synapses of all steps at once, neurons one by one."""
    y = m.norm(m.conv(x.flatten(0, 1))).unflatten(0, (len(x), 1))
    y = torch.stack([m.one(y[t]) for t in range(len(x))])
    y = m.line(m.pool(y.flatten(0, 1)).unflatten(0, (len(x), 1)).flatten(2))
    y = torch.stack([m.two(each) for each in y], dim=0)
    return m.head(y.mean(0))


def concatenated(m: Any, x: Any) -> Any:
    return m.head(torch.cat([m.step(frame).unsqueeze(0) for frame in x], dim=0).mean(0))


WAYS: dict[str, tuple[Callable[[Any, Any], Any], dict[str, Any]]] = {
    "stacked": (lambda m, x: torch.stack([m.head(m.step(frame)) for frame in x]), {"readout": "mean"}),
    "stacked, summed": (lambda m, x: torch.stack([m.head(m.step(x[t])) for t in range(len(x))]), {"readout": "sum"}),
    "stacked along axis 1": (lambda m, x: torch.stack([m.step(f) for f in x], 1).mean(1) @ m.head.weight.T, {}),
    "unbind": (lambda m, x: m.head(torch.stack([m.step(frame) for frame in x.unbind()]).sum(0)), {}),
    "select": (lambda m, x: m.head(torch.stack([m.step(x.select(0, t)) for t in range(T)]).mean(0)), {}),
    "negative index": (lambda m, x: m.head(torch.stack([m.step(x[t - T]) for t in range(T)]).mean(0)), {}),
    "running sum": (running_sum, {}),
    "in-place sum": (in_place_sum, {}),
    "first, then sum": (first_then_sum, {}),
    "last step": (last_step, {}),
    "two loops": (two_loops, {}),
    "stacked between": (stacked_between, {}),
    "concatenated": (concatenated, {}),
}


@pytest.mark.parametrize("reset", [0.0, None])
@pytest.mark.parametrize("name", WAYS)
def test_loops_over_time(name: str, reset: float | None) -> None:
    way, options = WAYS[name]
    module = make_dyadic(Loop(way, lambda: neuron.IFNode(v_reset=reset)), 1)
    network = check(module, dyadic((T, 1, 2, 4, 4)), **options)
    assert network.time_steps == T


@pytest.mark.parametrize("way", [of_an_image, encoded_once])
def test_loops_over_an_image(way: Any) -> None:
    network = check(make_dyadic(Loop(way), 1), dyadic((1, 2, 4, 4)))
    assert network.time_steps == T


def test_a_loop_with_the_batch_first() -> None:
    """Frames (1, T, C, H, W), time_axis=1."""
    module = make_dyadic(Loop(lambda m, x: m.head(sum(m.step(x[:, t]) for t in range(x.shape[1])))), 1)
    check(module, dyadic((1, T, 2, 4, 4)), time_axis=1)


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("name", ["running sum", "first, then sum", "in-place sum", "last step", "unbind"])
def test_short_loops(name: str, steps: int) -> None:
    network = check(make_dyadic(Loop(WAYS[name][0]), 1), dyadic((steps, 1, 2, 4, 4)))
    assert network.time_steps == steps


def odd_factor(m: Any, x: Any) -> Any:
    return sum(m.head(m.step(frame)) * (2 if t == 2 else 1) for t, frame in enumerate(x))


def odd_weights(m: Any, x: Any) -> Any:
    weights = [torch.full((8, 16), 0.5 + (t == 1)) for t in range(len(x))]
    return sum(m.head(m.two(F.linear(m.pool(m.one(m.conv(f))).flatten(1), w))) for f, w in zip(x, weights, strict=True))


def started(m: Any, x: Any) -> Any:
    """Spikes that come back, and are there before the first step."""
    back, total = torch.ones(1, 8), 0
    for frame in x:
        back = m.two(m.line(m.pool(m.one(m.conv(frame))).flatten(1)) + back * 0.25)
        total = total + m.head(back)
    return total


def some_steps(m: Any, x: Any) -> Any:
    return sum(m.head(m.step(F.relu(frame) if t == 2 else frame)) for t, frame in enumerate(x))


def skipping(m: Any, x: Any) -> Any:
    total = 0
    for t, frame in enumerate(x):
        spikes = m.one(m.conv(frame))
        if t != 1:
            total = total + m.head(m.two(m.line(m.pool(spikes).flatten(1))))
    return total


def one_step_alone(m: Any, x: Any) -> Any:
    out = [m.head(m.step(frame)) for frame in x]
    return out[1]


def backwards(m: Any, x: Any) -> Any:
    return sum(m.head(m.step(x[len(x) - 1 - t])) for t in range(len(x)))


ODD = {
    odd_factor: r"module itself: mul of time step 2 found that differs from that of step 3; expected the same .*",
    odd_weights: r"module itself: linear of time step 1 found that differs from that of step 3; expected the same .*",
    some_steps: r"module itself: relu found in time step 2 and not in step 0; expected the same in every step",
    skipping: r"module two: neurons called 3 times found, those of one 4 times; expected one call in each time step",
    one_step_alone: r"module head: linear: the result of time step 1 alone is used behind the loop; expected .*",
    backwards: r"module .* found.*; expected .*",
    started: r"layer two: .* differ from the module's by more than rounding explains .*",
}


@pytest.mark.parametrize("way", ODD, ids=lambda way: way.__name__)
def test_that_steps_which_differ_are_refused(way: Any) -> None:
    with pytest.raises(InputError, match=f"^{ODD[way]}$"):
        from_torch(make_dyadic(Loop(way), 1), dyadic((T, 1, 2, 4, 4)))


# --- bad input


class Plain(nn.Module):
    """A multi-step network: work between neurons, and what is made of the spikes."""

    def __init__(self, work: Callable[[Any, Any], Any] = lambda m, x: x, after: Any = None) -> None:
        super().__init__()
        self.work, self.after = work, after
        self.conv, self.norm, self.fire = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), fire_many()
        self.two, self.drop, self.head = fire_many(), nn.Dropout(0.5), nn.Linear(4, 5)

    def forward(self, x: Any) -> Any:
        x = self.norm(self.conv(x.flatten(0, 1))).unflatten(0, (x.shape[0], x.shape[1]))
        x = self.two(self.work(self, self.fire(x)))
        if self.after is not None:
            return self.after(self, x)
        return self.head(self.drop(x.mean((0, 3, 4))))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        return x * x

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        return gradient


FRAMES = (T, 1, 2, 4, 4)


def plain(work: Callable[[Any, Any], Any] = lambda m, x: x, after: Any = None) -> Any:
    return make_dyadic(Plain(work, after), 0)


def without_statistics() -> Any:
    module = plain()
    module.norm = nn.BatchNorm2d(4, track_running_stats=False)
    return module.eval()


def left_over() -> Any:
    module = plain()
    module(dyadic(FRAMES))
    return module


def one_step_many_frames() -> Any:
    module = plain()
    module.fire.step_mode = "s"
    return module


BAD: dict[str, tuple[Callable[[], Any], Any, dict[str, Any], str]] = {
    "no module": (lambda: 3, dyadic(FRAMES), {}, r"int found; expected a torch.nn.Module"),
    "no tensor": (plain, np.zeros(FRAMES), {}, r"example of ndarray found; expected a tensor"),
    "no neurons": (lambda: nn.Linear(4, 3), dyadic((1, 4)), {"time_axis": -1}, r"Linear: no neurons found; .*"),
    "batch of two": (plain, dyadic((T, 2, 2, 4, 4)), {}, r"example \(4, 2, 2, 4, 4\) found; .*time_axis= .*"),
    "channels": (
        plain, dyadic((T, 1, 3, 4, 4)), {},
        r"module conv: RuntimeError: .*; expected an example \(4, 1, 3, 4, 4\) that the module takes",
    ),
    "images": (plain, dyadic((2, 2, 4, 4)), {}, r"example \(2, 2, 4, 4\) found; .* axis 0, or time_axis= .*"),
    "few axes": (
        plain, dyadic((T, 1, 4)), {}, r"example \(4, 1, 4\) found, .*; expected time_axis=0 or 1, or -1 where .*"
    ),
    "many axes": (plain, dyadic((1, 1, 1, 2, 4, 4)), {}, r"example \(1, 1, 1, 2, 4, 4\) found; expected up to .*"),
    "time axis": (plain, dyadic(FRAMES), {"time_axis": 2}, r"time_axis=2 with an example .*; expected 0, 1 or -1"),
    "nan": (plain, dyadic(FRAMES) * torch.nan, {}, r"example with NaN or infinite values found; expected finite ones"),
    "half example": (plain, dyadic(FRAMES).half(), {}, r"example of torch.float16 found; expected .*example.float\(\)"),
    "half": (lambda: plain().half(), dyadic(FRAMES), {}, r"conv.weight of torch.float16 found; .*"),
    "bfloat": (lambda: plain().bfloat16(), dyadic(FRAMES), {}, r"conv.weight of torch.bfloat16 found; .*"),
    "no statistics": (
        without_statistics, dyadic(FRAMES), {}, r"module norm: batch normalisation without statistics found; .*"
    ),
    "left over": (left_over, dyadic(FRAMES), {}, r"Plain: state left over from an earlier call with gradients .*"),
    "branch": (
        lambda: plain(lambda m, x: x if x.sum() > 3 else -x), dyadic(FRAMES), {},
        r"module itself: __bool__\(\) of a tensor that depends on the example found; expected the same work .*",
    ),
    "item": (lambda: plain(lambda m, x: x * x.max().item()), dyadic(FRAMES), {}, r"module itself: item\(\) of .*"),
    "numpy": (
        lambda: plain(lambda m, x: torch.from_numpy(x.numpy() * 2)), dyadic(FRAMES), {}, r"module itself: numpy\(\) .*"
    ),
    "own gradient": (
        lambda: plain(lambda m, x: Square.apply(x)), dyadic(FRAMES), {},
        r"module itself: function Square with a gradient of its own found; expected spikes of neurons .*",
    ),
    "several outputs": (
        lambda: plain(after=lambda m, x: (m.head(x.mean((0, 3, 4))), x)), dyadic(FRAMES), {},
        r"Plain: outputs 0, 1 found; expected output= to say which are the logits",
    ),
    "no such output": (plain, dyadic(FRAMES), {"output": "logits"}, r"Plain: output=logits found; expected one of 0"),
    "constant output": (
        lambda: plain(after=lambda m, x: torch.ones(1, 5)), dyadic(FRAMES), {},
        r"Plain: output 0 is a tensor that does not depend on the example; expected logits",
    ),
    "no output": (
        lambda: plain(after=lambda m, x: None), dyadic(FRAMES), {},
        r"Plain: output 0 is NoneType that does not depend on the example; expected logits",
    ),
    "a map": (
        lambda: plain(after=lambda m, x: x.mean(0)), dyadic(FRAMES), {},
        r"output .* found; expected one vector of logits: choose another output",
    ),
    "time steps": (
        lambda: plain(after=lambda m, x: m.head(x.mean((3, 4)))), dyadic(FRAMES), {},
        r"output of 4 time steps found; expected readout=mean, sum or last .*",
    ),
    "no layer": (
        lambda: plain(lambda m, x: x.erf()), dyadic(FRAMES), {},
        r"module itself: operation erf on \(4, 1, 4, 4, 4\) found; expected one that has a layer here",
    ),
    "no layer in a child": (
        lambda: nn.Sequential(plain(lambda m, x: m.odd(x))).eval(), dyadic(FRAMES), {},
        r"module 0.odd: operation elu on \(4, 1, 4, 4, 4\) found; expected one that has a layer here",
    ),
    "dropout": (
        lambda: plain(lambda m, x: F.dropout(x, 0.5, True)), dyadic(FRAMES), {},
        r"module itself: dropout in training mode found; expected module.eval\(\)",
    ),
    "training norm": (
        lambda: plain(lambda m, x: F.batch_norm(x[:, 0], None, None, training=True).unsqueeze(1)), dyadic(FRAMES), {},
        r"module itself: batch normalisation without statistics found; .*",
    ),
    "shared": (
        lambda: plain(lambda m, x: m.fire(x)), dyadic(FRAMES), {},
        r"module fire: .*neurons called twice in a time step found; expected a module of its own for each call",
    ),
    "one step": (
        one_step_many_frames, dyadic(FRAMES), {},
        r"module fire: neuron: several time steps in one call found; expected a multi-step neuron, or a loop over time",
    ),
    "merged time": (
        lambda: plain(lambda m, x: m.fire2(x.transpose(0, 3))), dyadic(FRAMES), {},
        r"module fire2: neuron: time in axis 3 found; expected axis 0",
    ),
    "option": (plain, dyadic(FRAMES), {"colour": 3}, r".*colour.*"),
    "readout": (plain, dyadic(FRAMES), {"readout": "first"}, r".*readout.*first.*"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name: str) -> None:
    make, given, options, words = BAD[name]
    module = make()
    if isinstance(module, nn.Module):
        for each in module.modules():
            if isinstance(each, Plain):
                each.odd, each.fire2 = nn.ELU().eval(), fire_many().eval()
    with pytest.raises(InputError, match=f"^{words}$") as caught:
        from_torch(module, given, **options)
    assert "\n" not in str(caught.value)


def test_that_a_quantised_module_is_refused() -> None:
    class Packed(nn.Module):
        pass

    Packed.__module__ = "torch.ao.nn.quantized.modules.linear"
    module = plain()
    module.head = Packed()
    with pytest.raises(InputError, match=r"^module head: Packed found; expected a module that is not quantised$"):
        from_torch(module, dyadic(FRAMES))


def test_that_one_of_several_outputs_is_taken() -> None:
    def two(m: Any, x: Any) -> Any:
        x = x.mean((0, 3, 4))
        return x, m.head(x)

    check(plain(after=two), dyadic(FRAMES), output=1)

    def named(m: Any, x: Any) -> Any:
        return {"features": x, "logits": m.head(x.mean((0, 3, 4)))}

    check(plain(after=named), dyadic(FRAMES), output="logits")
    check(plain(after=lambda m, x: (m.head(x.mean((0, 3, 4))),)), dyadic(FRAMES))


@pytest.mark.parametrize("readout", ["mean", "sum", "last"])
def test_outputs_of_several_time_steps(readout: str) -> None:
    check(plain(after=lambda m, x: m.head(x.mean((3, 4)))), dyadic(FRAMES), readout=readout)


# --- training mode, and what is left behind


def everything(module: Any) -> dict[str, Any]:
    """Parameters, buffers, memories, modes and hooks."""
    found: dict[str, Any] = {}
    for name, each in module.named_modules():
        found[f"{name} training"] = each.training
        found[f"{name} hooks"] = (len(each._forward_hooks), len(each._forward_pre_hooks))
        if hasattr(each, "_memories"):
            found[f"{name} state"] = copy.deepcopy(dict(each._memories))
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        found[name] = (id(tensor), tensor.detach().clone(), tensor.requires_grad, tensor.grad)
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (tuple, dict)):
        keys = one if isinstance(one, dict) else range(len(one))
        return len(one) == len(other) and all(same(one[key], other[key]) for key in keys)
    return bool(one == other)


@pytest.fixture
def watched() -> Iterator[None]:
    """Whatever a test does, PyTorch is as it was."""
    before, grad = torch.autograd.Function.apply, torch.is_grad_enabled()
    yield
    assert torch.autograd.Function.apply == before
    assert torch.is_grad_enabled() == grad


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("train", [False, True])
def test_that_the_module_comes_back_as_it_was(train: bool) -> None:
    module = plain().train(train)
    module.conv.eval()
    with torch.no_grad():
        module.fire(dyadic((T, 1, 4, 4, 4)))  # a state left over
    x = dyadic(FRAMES)
    given = x.clone()
    before, random = everything(module), torch.get_rng_state()
    network = from_torch(module, x)
    assert same(everything(module), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, given)
    said = [setting.sentence for setting in network.settings if setting.option == "training mode"]
    if train:
        (sentence,) = said
        assert re.search("norm and [0-9] more evaluated: no dropout, norms of their running statistics", sentence)
    else:
        assert not said
    output, _ = in_pytorch(module.eval(), x)
    assert_array_equal(simulated(network, x[:, 0].numpy()).logits, output[0].numpy())


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", ["own gradient", "branch", "no layer", "several outputs", "time steps"])
def test_that_an_error_leaves_nothing_behind(name: str) -> None:
    make, given, options, _ = BAD[name]
    module = make()
    before = everything(module)
    with pytest.raises(InputError):
        from_torch(module, given, **options)
    assert same(everything(module), before)
    assert Square.apply(torch.tensor(3.0)) == 9


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", [None, "own gradient", "several outputs", "channels"])
def test_that_no_hooks_are_left_on_the_copy(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module may hand out what it hangs on, and keep its copy alive."""
    copies: list[Any] = []
    right = reading._copy
    monkeypatch.setattr(reading, "_copy", lambda *given: copies.append(right(*given)) or copies[-1])
    make, x, options, _ = BAD[name] if name else (plain, dyadic(FRAMES), {}, "")
    with pytest.raises(InputError) if name else contextlib.nullcontext():
        from_torch(make(), x, **options)
    (own,) = copies
    for each in own.modules():
        assert not each._forward_hooks
        assert not each._forward_pre_hooks


@pytest.mark.usefixtures("watched")
def test_that_an_error_of_the_module_itself_leaves_nothing_behind() -> None:
    def fails(m: Any, x: Any) -> Any:
        raise RuntimeError("of its own\nin two lines")

    module = plain(fails)
    before = everything(module)
    words = r"^module itself: RuntimeError: of its own; expected an example \(4, 1, 2, 4, 4\) that the module takes$"
    with pytest.raises(InputError, match=words):
        from_torch(module, dyadic(FRAMES))
    assert same(everything(module), before)
    x = torch.ones(2)
    assert (x + x).tolist() == [2, 2]
    from_torch(plain(), dyadic(FRAMES))


def test_that_a_copy_of_the_weights_is_taken() -> None:
    module, x = plain(), dyadic(FRAMES)
    network = from_torch(module, x)
    before = simulated(network, x[:, 0].numpy()).logits
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert_array_equal(simulated(network, x[:, 0].numpy()).logits, before)
    assert before.any()


# --- verification


def verified(network: Network) -> str:
    (found,) = (str(setting.value) for setting in network.settings if setting.option == "verified")
    return found


def test_what_verification_says() -> None:
    module, x = plain(), dyadic(FRAMES)
    assert re.fullmatch(
        r"[1-9]\d+ outputs of 2 layers of neurons, 0 that rounding moved", verified(from_torch(module, x))
    )
    assert not any(setting.option == "verified" for setting in from_torch(module, x, verify=False).settings)


def test_that_wrong_logits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the last neurons no spike tells."""
    module, x = plain(after=lambda m, x: m.head(x.mean((0, 3, 4)) + 0.25)), dyadic(FRAMES)
    check(module, x)
    monkeypatch.setitem(tables.OPERATIONS, "add", lambda at, node: at.value(node))
    with pytest.raises(
        InputError, match=r"^logits differ from the module's by .*though all spikes are the same; expected "
    ):
        from_torch(module, x)
    started = make_dyadic(Loop(lambda m, x: sum((m.head(m.step(frame)) for frame in x), torch.ones(1, 5))), 1)
    with pytest.raises(
        InputError,
        match=r"^module itself: add of a state .* that begins with other values than zeros found; expected zeros",
    ):
        from_torch(started, x)


def test_that_a_wrong_translation_is_refused_by_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def rectified(m: Any, x: Any) -> Any:
        return sum(
            m.head(m.two(m.line(m.pool(m.one(m.norm(m.conv(each)))).flatten(1)).relu() * -1.0 + 0.5)) for each in x
        )

    module, x = make_dyadic(Loop(rectified, lambda: neuron.IFNode(v_threshold=0.75)), 1), dyadic((T, 1, 2, 4, 4))
    right = Kernel.normalised

    def wrong(kernel: Any, *others: Any) -> Any:
        return right(replace(kernel, weight=kernel.weight * 1.25), *others)

    def refused_by(layer: str) -> Any:
        words = rf"^layer {layer}: [1-9]\d* of its outputs differ from the module's by more than rounding explains .*; "
        return pytest.raises(InputError, match=words + "expected the same spikes: report it, with the module$")

    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "normalised", wrong)
        with refused_by("one"):
            from_torch(module, x)
        assert from_torch(module, x, verify=False)
    with monkeypatch.context() as patch:
        patch.setitem(tables.OPERATIONS, "relu", lambda at, node: at.value(node))
        with refused_by("two"):
            from_torch(module, x)
    check(module, x)


@pytest.mark.parametrize("threshold", [0.375, 0.5001, 0.625])
def test_that_a_wrong_neuron_is_refused(threshold: float) -> None:
    module, x = make_dyadic(WithOwn(), 0), dyadic((T, 1, 6))
    with pytest.raises(InputError, match=r"^layer own: .* differ from the module's by more than rounding explains"):
        from_torch(module, x, time_axis=0, neurons=own(threshold))


@pytest.mark.parametrize("statistic", [lambda x: x * 2, lambda x: x.sum() / 64, lambda x: x.flip(-1)])
def test_that_a_constant_baked_in_is_found(statistic: Any) -> None:
    """What is computed behind PyTorch's back is right for the example alone."""

    def work(m: Any, x: Any) -> Any:
        with torch._C.DisableTorchFunction():
            bias = statistic(x) + 0
        return x + bias

    with pytest.raises(InputError, match=r"^layer two: .* differ from the module's by more than rounding explains"):
        from_torch(plain(work), dyadic(FRAMES))


@pytest.mark.parametrize("statistic", [lambda x: x.sum() / 32, lambda x: x.abs().max(), lambda x: (x != 0).sum() / 32])
def test_that_a_statistic_of_the_example_baked_in_is_found(statistic: Any) -> None:
    """Of the example in another order it is the same: only with gaps in it, it is another."""

    class Centred(Plain):
        def forward(self, x: Any) -> Any:
            with torch._C.DisableTorchFunction():
                level = statistic(x) + 0
            return super().forward(x - level)

    x = dyadic(FRAMES)
    x[..., 1:] = x[..., 1:].clamp(-0.25, 0.25)
    x[..., 0] = 0.25
    x[..., [1]] += 2  # the column that becomes a gap, in one order or the other
    order = np.random.default_rng(0).permutation(4)
    x = x[..., np.argsort(order)].contiguous()
    module = make_dyadic(Centred(), 0)
    with pytest.raises(InputError, match=r"^layer (fire|two): .* differ from the module's by more than rounding"):
        from_torch(module, x)


def test_that_flips_within_rounding_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of many bits that are 1, the threshold, but for rounding: PyTorch adds in another order."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = np.random.default_rng(0).random((256, 512)) + 0.1
            self.line, self.fire = nn.Linear(512, 256, bias=False), neuron.IFNode(step_mode="m")
            self.line.weight.data = torch.from_numpy(weight / weight.sum(1, keepdims=True)).float()
            self.head = nn.Linear(256, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.fire(self.line(x)).mean(0))

    network = from_torch(Wide(), torch.ones(2, 1, 512), time_axis=0)
    assert re.fullmatch(r"\d+ outputs of 1 layers of neurons, [1-9]\d* that rounding moved", verified(network))
    monkeypatch.setattr(margin, "ALLOWED", 0.0)
    with pytest.raises(InputError, match=r"^layer fire: "):
        from_torch(Wide(), torch.ones(2, 1, 512), time_axis=0)


# --- what the example tells


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 1], "binary"), ([0, 1, 3], "graded"), ([0, 0.5], "real"), ([-1, 1], "real"), ([0, 0], "binary")],
)
def test_the_kind_of_the_input(values: list[float], kind: str) -> None:
    x = torch.from_numpy(np.random.default_rng(0).choice(values, FRAMES).astype(np.float32))
    network = from_torch(plain(), x, verify=False)
    assert network.input.kind == kind
    assert from_torch(plain(), x, input_kind="real", verify=False).input.kind == "real"


def test_that_parts_by_index_are_no_time_steps() -> None:
    """Queries, keys and values are picked by number, and a loop over time follows."""

    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.many, self.one = nn.Linear(6, 24), fire_many(), neuron.LIFNode()
            self.head = nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            z = self.many(self.line(x)).unflatten(-1, (3, 8)).permute(3, 0, 1, 2, 4)
            q, k, v = z[0], z[1], z[2]
            y = q + k * v
            return self.head(torch.stack([self.one(y[t]) for t in range(len(y))]).mean((0, 2)))

    for steps in (2, 4):
        check(make_dyadic(Picked(), 1), 8 * dyadic((steps, 1, 8, 6)), time_axis=0)


def test_that_the_kind_that_is_said_is_that_of_the_example() -> None:
    with pytest.raises(
        InputError, match=r"^input_kind=binary with an example of real values found; expected an example"
    ):
        from_torch(plain(), dyadic(FRAMES), input_kind="binary")


def test_that_a_silent_example_compares_nothing() -> None:
    with pytest.raises(InputError, match=r"^Plain: no neuron fired on the example; expected .*verify=False$"):
        from_torch(plain(), torch.zeros(FRAMES))


def test_tokens_and_vectors() -> None:
    class Tokens(nn.Module):
        def __init__(self, axis: int) -> None:
            super().__init__()
            self.axis = axis
            self.line, self.fire, self.head = nn.Linear(6, 8), fire_many(), nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.fire(self.line(x))
            return self.head(x.mean((0, 2) if self.axis else 0))

    assert check(make_dyadic(Tokens(1), 0), 4 * dyadic((T, 1, 8, 6)), time_axis=0).input.shape == (8, 6)
    assert check(make_dyadic(Tokens(0), 1), 4 * dyadic((T, 1, 6)), time_axis=0).input.shape == (6,)


def test_names_and_options() -> None:
    module, x = plain(), dyadic(FRAMES)
    network = from_torch(module, x, name="mine", fold_bn=False)
    assert network.name == "mine"
    assert "norm" in network.layers
    assert from_torch(module, x).name == "Plain"
    assert "norm" not in from_torch(module, x).layers
    said = {setting.option: setting for setting in network.settings}
    assert said["fold_bn"].value is False
    assert reading.Options.__dataclass_fields__.keys() == {"input_kind", "readout", "fold_bn"}


def test_that_pytorch_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "eventsim_importers.torch_program.reading", None)
    with pytest.raises(InputError, match=r"^PyTorch cannot be imported \(.*\); expected pip install torch$"):
        from_torch(plain(), dyadic(FRAMES))
