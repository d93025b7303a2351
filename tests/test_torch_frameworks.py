"""Networks as users of snnTorch, Norse and sinabs write them; ``nox -s programs`` installs these."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eventsim import InputError, Network, Simulator, from_torch
from eventsim.layers.neurons.spiking import Neuron as SpikingLayer

torch = pytest.importorskip("torch", reason="needs PyTorch")
nn = torch.nn
# the frameworks warn of their own dependencies
pytestmark = pytest.mark.filterwarnings("ignore")
T = 6


def framework(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name, reason=f"needs {name}")
        return importlib.import_module({"norse": "norse.torch", "sinabs": "sinabs.layers"}.get(name, name))


def dyadic(module: Any) -> Any:
    """Weights in sixteenths, so that sums are exact."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, (nn.Linear, nn.Conv2d)):
                for parameter in each.parameters():
                    parameter.copy_(torch.from_numpy(rng.integers(-8, 9, parameter.shape) / 16))
    return module.eval()


def events(seed: int, time_axis: int = 0) -> Any:
    frames = torch.from_numpy(np.random.default_rng(seed).poisson(0.7, (T, 1, 2, 8, 8)).astype(np.float32))
    return frames if time_axis == 0 else frames.transpose(0, 1)


def check(make: Callable[[], Any], time_axis: int = 0, **options: Any) -> Network:
    """Compare logits on three inputs, each from a module at rest; every layer of neurons is verified on the way."""
    network = from_torch(dyadic(make()), events(0, time_axis), time_axis=time_axis, **options)
    found = set()
    for seed in range(3):
        with torch.no_grad():
            expected = dyadic(make())(events(seed, time_axis))[0].numpy()
        logits = Simulator(network).run(events(seed)[:, 0].numpy()).logits
        np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
        found |= set(logits.tolist())
    assert len(found) > 4
    return network


class Loop(nn.Module):
    """Two layers whose neurons hand their state on."""

    def __init__(self, one: Callable[[int], Any], two: Callable[[int], Any]) -> None:
        super().__init__()
        self.conv, self.one, self.pool = nn.Conv2d(2, 4, 3, padding=1), one(4), nn.MaxPool2d(2)
        self.line, self.two = nn.Linear(64, 8), two(8)

    def forward(self, x: Any) -> Any:
        first = second = None
        total = 0
        for frame in x:
            spikes, *first = self.one(self.conv(frame), *(first or ()))
            spikes, *second = self.two(self.line(self.pool(spikes).flatten(1)), *(second or ()))
            total = total + spikes
        return total


def per_channel(channels: int, maps: bool) -> Any:
    values = torch.arange(1, channels + 1) / 4
    return values[:, None, None] if maps else values


SNNTORCH: dict[str, tuple[dict[str, Any], bool]] = {
    "subtract": ({"beta": 0.5}, False),
    "zero": ({"beta": 0.5, "reset_mechanism": "zero"}, False),
    "none": ({"beta": 0.5, "reset_mechanism": "none"}, False),
    "at once": ({"beta": 0.75, "reset_delay": False}, False),
    "learned thresholds": ({"beta": 0.5, "learn_threshold": True}, True),
    "learned decays": ({"beta": 0.25, "learn_beta": True}, False),
}


@pytest.mark.parametrize("name", SNNTORCH)
def test_snntorch_leaky(name: str) -> None:
    snn = framework("snntorch")
    options, varied = SNNTORCH[name]

    def one(channels: int, maps: bool) -> Any:
        return snn.Leaky(**options, **({"threshold": per_channel(channels, maps)} if varied else {}))

    network = check(lambda: Loop(lambda c: one(c, True), lambda c: one(c, False)))
    assert network.time_steps == T
    if varied:
        for layer, channels in (("one", 4), ("two", 8)):
            threshold = network.layers[layer].v_threshold  # type: ignore[attr-defined]
            np.testing.assert_array_equal(threshold, np.arange(1, channels + 1) / 4)


def test_snntorch_synaptic() -> None:
    snn = framework("snntorch")
    network = check(lambda: Loop(lambda c: snn.Synaptic(0.5, 0.75), lambda c: snn.Synaptic(0.25, 0.5)))
    assert "one.current" in network.layers


def test_snntorch_that_keeps_its_state() -> None:
    """``init_hidden``: a loop of ``nn.Sequential``, reset by the import."""
    snn = framework("snntorch")

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            fire = [snn.Leaky(0.5, init_hidden=True), snn.Leaky(0.75, init_hidden=True)]
            self.net = nn.Sequential(nn.Conv2d(2, 4, 3), fire[0], nn.Flatten(), nn.Linear(144, 8), fire[1])

        def forward(self, x: Any) -> Any:
            return torch.stack([self.net(frame) for frame in x]).sum(0)

    check(Kept)


def test_norse_cells() -> None:
    norse = framework("norse")

    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            p = norse.LIFParameters(tau_syn_inv=torch.tensor(250.0), tau_mem_inv=torch.tensor(500.0))
            self.conv, self.one = nn.Conv2d(2, 4, 3), norse.LIFCell(p)
            self.line, self.two, self.out = nn.Linear(144, 8), norse.LIFBoxCell(), norse.LICell()

        def forward(self, x: Any) -> Any:
            first = second = third = None
            for frame in x:
                y, first = self.one(self.conv(frame), first)
                y, second = self.two(self.line(y.flatten(1)), second)
                y, third = self.out(y, third)
            return y

    network = check(Cells)
    assert {"one.current", "one", "two", "out"} <= network.layers.keys()


def test_norse_over_all_steps() -> None:
    norse = framework("norse")

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.line, self.two = nn.Conv2d(2, 4, 3), norse.LIF(), nn.Linear(144, 8), norse.IAF()

        def forward(self, x: Any) -> Any:
            y = self.conv(x.flatten(0, 1)).unflatten(0, (len(x), 1)) * 4
            y, _ = self.one(y)
            y, _ = self.two(self.line(y.flatten(2)))
            return y.mean(0)

    check(Many)


@pytest.mark.parametrize("multiple", [True, False])
def test_sinabs_with_time_behind_the_batch(multiple: bool) -> None:
    layers = framework("sinabs")
    activation = importlib.import_module("sinabs.activation")
    fires = {} if multiple else {"spike_fn": activation.SingleSpike}

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one = nn.Conv2d(2, 4, 3), layers.LIF(tau_mem=2.0, norm_input=False, **fires)
            self.line, self.two = nn.Linear(144, 8), layers.IAF(**fires)

        def forward(self, x: Any) -> Any:
            y = self.one(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return self.two(self.line(y.flatten(2))).sum(1)

    network = check(Behind, time_axis=1)
    spiking = [layer for layer in network.layers.values() if isinstance(layer, SpikingLayer)]
    assert [layer.multiple_spikes for layer in spiking] == [multiple, multiple]


def test_sinabs_squeezed() -> None:
    layers = framework("sinabs")

    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(2, 4, 3), layers.IAFSqueeze(batch_size=1, min_v_mem=-1.0), nn.AvgPool2d(2), nn.Flatten(),
                nn.Linear(36, 8), layers.IAFSqueeze(batch_size=1),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            return self.net(x.flatten(0, 1)).mean(0, keepdim=True)

    check(Squeezed)


# --- states that are read


class States(Loop):
    """`Loop`, reading states: of what is done in a step, logits."""

    def __init__(self, one: Callable[[int], Any], two: Callable[[int], Any], way: Callable[..., Any]) -> None:
        super().__init__(one, two)
        self.way, self.head = way, nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        first = second = None
        out = []
        for frame in x:
            spikes, *first = self.one(self.conv(frame), *(first or ()))
            spikes, *second = self.two(self.line(self.pool(spikes).flatten(1)), *(second or ()))
            out.append(self.way(self, spikes, *second))
        return self.head(torch.stack(out).mean(0))


def membrane(m: Any, spikes: Any, *state: Any) -> Any:
    return state[-1]


def membrane_and_spikes(m: Any, spikes: Any, *state: Any) -> Any:
    return spikes + state[-1] * 0.5


def current(m: Any, spikes: Any, *state: Any) -> Any:
    return state[0] - spikes


READ = {
    "subtract": lambda snn: snn.Leaky(0.5),
    "zero": lambda snn: snn.Leaky(0.5, reset_mechanism="zero"),
    "none": lambda snn: snn.Leaky(0.5, reset_mechanism="none"),
    "subtract at once": lambda snn: snn.Leaky(0.75, reset_delay=False),
    "zero at once": lambda snn: snn.Leaky(0.75, reset_mechanism="zero", reset_delay=False),
    "synaptic": lambda snn: snn.Synaptic(0.5, 0.75),
    "synaptic, zero": lambda snn: snn.Synaptic(0.5, 0.75, reset_mechanism="zero"),
    "synaptic, none": lambda snn: snn.Synaptic(0.5, 0.75, reset_mechanism="none"),
    "lapicque": lambda snn: snn.Lapicque(R=2.0, C=2.0),
    "lapicque, zero": lambda snn: snn.Lapicque(R=2.0, C=2.0, reset_mechanism="zero"),
}


@pytest.mark.parametrize("way", [membrane, membrane_and_spikes, current])
@pytest.mark.parametrize("name", READ)
def test_snntorch_states_that_are_read(name: str, way: Callable[..., Any]) -> None:
    """Caught: the potential on the other side of the reset, the current of the next step."""
    snn = framework("snntorch")
    network = check(lambda: States(lambda c: READ[name](snn), lambda c: READ[name](snn), way))
    emits = {name for name, layer in network.layers.items() if getattr(layer, "emits", "spikes") != "spikes"}
    passed_on = "none" in name or (way is current and "synaptic" in name)  # by a layer of its own
    assert emits == (set() if passed_on else {"two"} if way is membrane else {"two.potential"})
    assert ("two" in network.layers) == (way is not membrane or not passed_on)


def test_snntorch_sums_of_spikes_and_potentials() -> None:
    """The loop of many tutorials, and one of its two sums."""
    snn = framework("snntorch")

    class Sums(Loop):
        def __init__(self, warm_up: int) -> None:
            super().__init__(lambda c: snn.Leaky(0.5), lambda c: snn.Leaky(0.5))
            self.warm_up = warm_up

        def forward(self, x: Any) -> Any:
            one, two = self.one.reset_mem(), self.two.reset_mem()
            spike_sum, mem_sum = torch.zeros(1, 8), torch.zeros(1, 8)
            for t in range(x.shape[0]):
                spikes, one = self.one(self.conv(x[t]), one)
                spikes, two = self.two(self.line(self.pool(spikes).flatten(1)), two)
                if t >= self.warm_up:
                    spike_sum += spikes
                    mem_sum += two
            return spike_sum / 4 + mem_sum / 8

    for warm_up in (0, 1, 2):
        network = check(lambda warm_up=warm_up: Sums(warm_up))  # type: ignore[misc]
        assert {"two", "two.potential"} <= network.layers.keys()


def test_snntorch_potentials_that_are_hidden() -> None:
    snn = framework("snntorch")

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one = nn.Conv2d(2, 4, 3), snn.Leaky(0.5, init_hidden=True)
            self.line, self.two = nn.Linear(144, 8), snn.Leaky(0.75, init_hidden=True, output=True)

        def forward(self, x: Any) -> Any:
            out = []
            for frame in x:
                self.one(self.conv(frame))
                _, potential = self.two(self.line(self.one.mem.flatten(1)))
                out.append(potential)
            return torch.stack(out).mean(0)

    network = check(Hidden)
    assert {name: getattr(network.layers[name], "emits", None) for name in ("one", "two")} == {
        "one": "potential",
        "two": "potential",
    }


def test_norse_states_that_are_read() -> None:
    """``s.v`` and ``s.i``, of neurons that are measured from another potential, too."""
    norse = framework("norse")

    class Read(nn.Module):
        def __init__(self, read: Callable[..., Any], v_reset: float) -> None:
            super().__init__()
            p = norse.LIFParameters(
                tau_syn_inv=torch.tensor(250.0), tau_mem_inv=torch.tensor(500.0), v_reset=torch.tensor(v_reset),
                v_leak=torch.tensor(0.25),
            )  # fmt: skip
            self.conv, self.one, self.read = nn.Conv2d(2, 4, 3), norse.LIFCell(p), read
            self.line, self.two = nn.Linear(144, 8), norse.LIFCell(p)

        def forward(self, x: Any) -> Any:
            first = second = None
            out = 0
            for frame in x:
                spikes, first = self.one(self.conv(frame), first)
                spikes, second = self.two(self.line(spikes.flatten(1)), second)
                out = out + self.read(spikes, second)
            return out

    for v_reset in (0.0, -0.25):
        for read in (lambda z, s: s.v, lambda z, s: s.i, lambda z, s: z + s.v * 0.5 - s.i * 0.25):
            check(lambda read=read, v_reset=v_reset: Read(read, v_reset))  # type: ignore[misc]


@pytest.mark.parametrize("cell", ["LIFBoxCell", "IAFCell", "LICell", "LIBoxCell"])
def test_norse_potentials_of_other_cells(cell: str) -> None:
    norse = framework("norse")

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one = nn.Conv2d(2, 4, 3), getattr(norse, cell)()
            self.line, self.two = nn.Linear(144, 8), getattr(norse, cell)()

        def forward(self, x: Any) -> Any:
            first = second = None
            out = []
            for frame in x:
                spikes, first = self.one(self.conv(frame), first)
                _, second = self.two(self.line((spikes + first.v).flatten(1)), second)
                out.append(second.v)
            return torch.stack(out)[1:].mean(0)

    check(Read)


def test_sinabs_in_a_loop_of_ones_own() -> None:
    """Neurons of all steps, of which a loop takes slices and keeps a trace."""
    layers = framework("sinabs")

    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one = nn.Conv2d(2, 4, 3), layers.LIF(tau_mem=2.0, norm_input=False)
            self.line = nn.Linear(144, 8)

        def forward(self, x: Any) -> Any:
            y = self.one(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return self.line(y[:, 1:].flatten(2)).mean(1)

    check(Traced, time_axis=1)


def test_that_states_of_all_steps_are_refused() -> None:
    """Caught: the last potential of a call that takes all time steps, taken for that of each."""
    layers = framework("sinabs")

    class Potentials(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one = nn.Conv2d(2, 4, 3), layers.IAF()
            self.line = nn.Linear(144, 8)

        def forward(self, x: Any) -> Any:
            self.one(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
            return self.line(self.one.v_mem.flatten(1))

    with pytest.raises(
        InputError, match=r"^module itself: flatten of the state of neurons one found; expected what .*$"
    ):
        check(Potentials, time_axis=1)
