"""Loops over time as users write them: what they take, sum up, leave out, remember, and read of neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_oracle import make_dyadic, neuron, neurons_of, torch

from eventsim import InputError, Network, Simulator, from_torch
from eventsim.layers import CropOverTime, LeakyIntegrator
from eventsim_importers.torch_program import neurons
from eventsim_importers.torch_program.neurons import spikingjelly
from eventsim_importers.torch_program.neurons.protocol import State

nn = torch.nn
T = 4
Way = Callable[[Any, Any], Any]


class Loop(nn.Module):
    """A single-step network, and a way to run it."""

    def __init__(self, way: Way, fire: Callable[[], Any]) -> None:
        super().__init__()
        self.way = way
        self.conv, self.one, self.pool = nn.Conv2d(2, 4, 3, padding=1), fire(), nn.MaxPool2d(2)
        self.line, self.two, self.head = nn.Linear(16, 8), fire(), nn.Linear(8, 5)
        self.decay = nn.Parameter(torch.tensor([0.5, 0.25, 0.75, 0.5, 1.0, 0.0, 0.5, 0.25]))

    def before(self, x: Any) -> Any:
        return self.line(self.pool(self.one(self.conv(x))).flatten(1))

    def step(self, x: Any) -> Any:
        return self.two(self.before(x))

    def forward(self, x: Any) -> Any:
        return self.way(self, x)


def eighths(shape: tuple[int, ...], seed: int = 0) -> Any:
    return torch.from_numpy((np.random.default_rng(seed).integers(-4, 13, shape) / 8).astype(np.float32))


def loop(way: Way, reset: float | None = None, **options: Any) -> Any:
    options = {"v_threshold": 0.5, **options}
    return make_dyadic(Loop(way, lambda: neuron.IFNode(v_reset=reset, **options)), 1)


def at_rest(module: Any) -> Any:
    for each in module.modules():
        if isinstance(each, neuron.BaseNode):
            each.reset()
    return module


def check(module: Any, shape: tuple[int, ...], **options: Any) -> Network:
    """Return the network, after comparing logits and spikes, bit for bit, on three inputs that give different ones."""
    still = len(shape) == 4
    network = from_torch(module, eighths(shape), **options)
    spiking = [name for name in neurons_of(module) if name in network.layers]
    spiking = [name for name in spiking if getattr(network.layers[name], "emits", "spikes") == "spikes"]
    found: set[float] = set()
    active: dict[str, bool] = {}
    for seed in range(3):
        x = eighths(shape, seed)
        seen: dict[str, list[np.ndarray]] = {name: [] for name in spiking}
        hooks = [
            module.get_submodule(name).register_forward_hook(lambda _m, _g, out, to=to: to.append(out.numpy().copy()))
            for name, to in seen.items()
        ]
        with torch.no_grad():
            expected = at_rest(module)(x)
        for hook in hooks:
            hook.remove()
        frames = np.repeat(x.numpy(), network.time_steps, axis=0) if still else x[:, 0].numpy()
        result = Simulator(network, record=spiking).run(frames)
        assert_array_equal(result.logits, expected[0].numpy())
        for name, calls in seen.items():
            spikes = np.concatenate(calls)
            active[name] = active.get(name, False) or bool(0 < spikes.mean() < 1)
            assert_array_equal(result.recorded[name].reshape(spikes.shape), spikes, err_msg=name)
        found |= set(result.logits.tolist())
    at_rest(module)
    assert len(found) > 3
    assert all(active.values())
    return network


def mean(m: Any, frames: Any) -> Any:
    return m.head(torch.stack([m.step(frame) for frame in frames]).mean(0))


# --- what a loop takes

TAKEN: dict[str, Way] = {
    "x[t : t + 1].squeeze(0)": lambda m, x: mean(m, (x[t : t + 1].squeeze(0) for t in range(len(x)))),
    "x[t : t + 1].flatten(0, 1)": lambda m, x: mean(m, (x[t : t + 1].flatten(0, 1) for t in range(len(x)))),
    "x[t : t + 1, 0]": lambda m, x: mean(m, (x[t : t + 1, 0] for t in range(len(x)))),
    "x[t, ...]": lambda m, x: mean(m, (x[t, ...] for t in range(len(x)))),
    "x[t, :, 1:] before x[t, :, :1]": lambda m, x: mean(
        m, (torch.cat([x[t, :, 1:], x[t, :, :1]], 1) for t in range(len(x)))
    ),
    "x[t][None, 0]": lambda m, x: mean(m, (x[t][None, 0] for t in range(len(x)))),
    "transposed, x[:, t]": lambda m, x: mean(m, (x.transpose(0, 1)[:, t] for t in range(len(x)))),
    "split": lambda m, x: mean(m, (part[0] for part in x.split(1))),
    "chunk": lambda m, x: mean(m, (part.squeeze(0) for part in x.chunk(len(x)))),
    "tensor_split": lambda m, x: mean(m, (part.squeeze(0) for part in x.tensor_split(len(x)))),
    "unbind along 1": lambda m, x: mean(m, x.transpose(0, 1).unbind(1)),
    "narrow": lambda m, x: mean(m, (x.narrow(0, t, 1)[0] for t in range(len(x)))),
    "narrow by name": lambda m, x: mean(m, (x.narrow(dim=0, start=t, length=1)[0] for t in range(len(x)))),
    "select by name": lambda m, x: mean(m, (x.select(dim=0, index=t) for t in range(len(x)))),
    "a second time": lambda m, x: m.head(
        torch.stack([m.two(y[t]) for y in [torch.stack([m.before(f) for f in x])] for t in range(len(x))]).mean(0)
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_time_steps_however_they_are_taken(name: str) -> None:
    """Caught: an index that takes another step, or another axis of as many."""
    for steps in (2, 4):  # two channels and a map of four by four, too
        network = check(loop(TAKEN[name]), (steps, 1, 2, 4, 4))
        assert (network.time_steps, network.input.shape) == (steps, (2, 4, 4))


@pytest.mark.parametrize("axis", [0, 1])
def test_an_image_repeated_and_then_taken(axis: int) -> None:
    ways: list[Way] = [
        lambda m, x: mean(m, x.unsqueeze(axis).repeat(*(T if at == axis else 1 for at in range(5))).unbind(axis)),
        lambda m, x: mean(m, (x.unsqueeze(axis).expand(*(T if at == axis else -1 for at in range(5))).select(axis, t)
                              for t in range(T))),
    ]  # fmt: skip
    for way in ways:
        assert check(loop(way), (1, 2, 4, 4)).time_steps == T


def every_second(m: Any, x: Any) -> Any:
    return mean(m, (x[2 * t] for t in range(2)))


# --- what it sums up


def two_sums(m: Any, x: Any) -> Any:
    logits, spikes = 0, torch.zeros(1, 8)
    for frame in x:
        z = m.step(frame)
        logits = logits + m.head(z)
        spikes += z
    return logits / len(x) + m.head(spikes)


def in_two_lines(m: Any, x: Any) -> Any:
    total = 0
    for frame in x:
        y = m.before(frame)
        total += m.head(m.two(y))
        total += m.head(y) * 0.25
    return total / len(x)


def in_one_line(m: Any, x: Any) -> Any:
    total = torch.zeros(1, 5)
    for frame in x:
        y = m.before(frame)
        total = total + m.head(m.two(y)) - m.head(y) * 0.5
    return total


def read_in_every_step(m: Any, x: Any) -> Any:
    total, out = torch.zeros(1, 8), []
    for frame in x:
        total = total + m.step(frame)
        out.append(m.head(total))
    return torch.stack(out).mean(0)


def filled(m: Any, x: Any) -> Any:
    out = torch.zeros(1, len(x), 5)
    for t, frame in enumerate(x):
        out[:, t] = m.head(m.step(frame))
    return out.mean(1)


def subtracted(m: Any, x: Any) -> Any:
    total = 0
    for frame in x:
        total = total - m.step(frame)
    return m.head(total)


@pytest.mark.parametrize(
    "way",
    [
        two_sums,
        in_two_lines,
        in_one_line,
        read_in_every_step,
        filled,
        subtracted,
        lambda m, x: m.head(torch.stack([m.step(frame) for frame in x]).sum(0)),
        lambda m, x: m.head(torch.stack([m.step(frame) for frame in x])[-1]),
        lambda m, x: sum(m.head(m.step(frame)) for frame in x) / len(x),
    ],
)
def test_sums(way: Way) -> None:
    for steps in (2, 4):
        check(loop(way), (steps, 1, 2, 4, 4))


def test_the_layers_of_sums() -> None:
    """What is read behind the loop alone is a sum, else there is a potential that never leaks."""
    assert not any(isinstance(each, LeakyIntegrator) for each in check(loop(two_sums), (T, 1, 2, 4, 4)).layers.values())
    layer = check(loop(read_in_every_step), (T, 1, 2, 4, 4)).layers["trace"]
    assert isinstance(layer, LeakyIntegrator)
    assert layer.decay == 1


# --- what it leaves out


def appended(begin: int) -> Way:
    def way(m: Any, x: Any) -> Any:
        out = []
        for t, frame in enumerate(x):
            y = m.head(m.step(frame))
            if t >= begin:
                out.append(y)
        return torch.stack(out).mean(0)

    return way


def worked(begin: int) -> Way:
    """The head does nothing before."""

    def way(m: Any, x: Any) -> Any:
        total = 0
        for t, frame in enumerate(x):
            spikes = m.step(frame)
            if t >= begin:
                total = total + m.head(spikes)
        return total

    return way


def summed(begin: int) -> Way:
    def way(m: Any, x: Any) -> Any:
        total = torch.zeros(1, 5)
        for t, frame in enumerate(x):
            y = m.head(m.step(frame))
            if t >= begin:
                total += y
        return total

    return way


def traced(begin: int) -> Way:
    def way(m: Any, x: Any) -> Any:
        trace, out = 0, []
        for t, frame in enumerate(x):
            spikes = m.step(frame)
            if t >= begin:
                trace = trace * 0.5 + spikes
                out.append(m.head(trace))
        return torch.stack(out).mean(0)

    return way


WARM: dict[str, tuple[Callable[[int], Way], str]] = {
    "appended": (appended, "mean_over_time"),
    "worked": (worked, "head"),
    "summed": (summed, "mean_over_time"),
    "traced": (traced, "head"),
    "stacked": (
        lambda begin: lambda m, x: torch.stack([m.head(m.step(frame)) for frame in x])[begin:].mean(0),
        "mean_over_time",
    ),
    "listed": (lambda begin: lambda m, x: sum([m.head(m.step(frame)) for frame in x][begin:]), "mean_over_time"),
}


@pytest.mark.parametrize(("steps", "begin"), [(5, 1), (6, 2), (4, 2)])
@pytest.mark.parametrize("name", WARM)
def test_a_warm_up_left_out(name: str, steps: int, begin: int) -> None:
    """Caught: work that is done, or counted, in the steps left out."""
    make, behind = WARM[name]
    network = check(loop(make(begin)), (steps, 1, 2, 4, 4))
    if (steps, begin) != (4, 2) or name != "stacked":
        assert any(isinstance(each, CropOverTime) for each in network.layers.values())
    profile = {each.name: each for each in Simulator(network).run(eighths((steps, 2, 4, 4)).numpy()).profile}
    assert profile["two"].steps == steps
    assert profile[behind].steps == steps - begin
    assert profile["line"].dense_macs == steps * 16 * 8


def test_the_first_steps_alone() -> None:
    check(loop(lambda m, x: torch.stack([m.head(m.step(frame)) for frame in x][:2]).mean(0)), (5, 1, 2, 4, 4))
    check(loop(lambda m, x: torch.stack([m.head(m.step(frame)) for frame in x])[1:3].mean(0)), (5, 1, 2, 4, 4))


# --- what it remembers beside neurons


def trace(step: Callable[[Any, Any], Any], start: Any = 0) -> Way:
    def way(m: Any, x: Any) -> Any:
        state, out = start, 0
        for frame in x:
            state = step(state, m.step(frame))
            out = out + m.head(state)
        return out

    return way


def in_place(m: Any, x: Any) -> Any:
    state = torch.zeros(1, 8)
    for frame in x:
        state.mul_(0.5).add_(m.step(frame))
    return m.head(state)


def begun_by_none(m: Any, x: Any) -> Any:
    state = None
    for frame in x:
        spikes = m.step(frame)
        state = spikes if state is None else state * 0.5 + spikes
    return m.head(state)


def per_neuron(m: Any, x: Any) -> Any:
    state = torch.zeros(1, 8)
    for frame in x:
        state = m.decay * state + m.step(frame)
    return m.head(state)


def cascade(m: Any, x: Any) -> Any:
    fast, slow, out = torch.zeros(1, 8), torch.zeros(1, 8), 0
    for frame in x:
        fast = fast * 0.5 + m.step(frame)
        slow = slow * 0.75 + fast * 0.25
        out = out + m.head(fast - slow)
    return out


def as_a_current(m: Any, x: Any) -> Any:
    """What the trace was before the step is added to the current that makes it."""
    state, out = torch.zeros(1, 8), 0
    for frame in x:
        spikes = m.two(m.before(frame) - 0.5 * state)
        state = state * 0.5 + spikes
        out = out + m.head(spikes)
    return out


def of_the_map(m: Any, x: Any) -> Any:
    state, out = 0, 0
    for frame in x:
        state = state * 0.5 + m.one(m.conv(frame))
        out = out + m.head(m.two(m.line(m.pool(state).flatten(1))))
    return out


def fewer_products_at_first(m: Any, x: Any) -> Any:
    """Which of three products the first step lacks, and which the last, no number tells."""
    before, out = None, 0
    for frame in x:
        spikes = m.step(frame)
        y = spikes * 2
        if before is not None:
            y = y + before * 0.5
        out = out + m.head(y * 0.25)
        before = spikes
    return out


def changes_of_frames(m: Any, x: Any) -> Any:
    before, out = torch.zeros(1, 2, 4, 4), 0
    for frame in x:
        out = out + m.head(m.step(frame - before))
        before = frame
    return out


def two_steps_of_spikes(m: Any, x: Any) -> Any:
    before, out = torch.zeros(1, 8), 0
    for frame in x:
        spikes = m.step(frame)
        out = out + m.head(spikes - before * 0.5)
        before = spikes
    return out


TRACES: dict[str, Way] = {
    "factor first": trace(lambda a, s: 0.5 * a + s),
    "factor behind": trace(lambda a, s: a * 0.5 + s, torch.zeros(1, 8)),
    "signal first": trace(lambda a, s: s + a / 2, torch.zeros(1, 8)),
    "average": trace(lambda a, s: 0.5 * a + 0.5 * s),
    "difference": trace(lambda a, s: a + (s - a) * 0.25, torch.zeros(1, 8)),
    "less a share": trace(lambda a, s: a - a * 0.25 + s, torch.zeros(1, 8)),
    "signal less": trace(lambda a, s: s - 0.5 * a, torch.zeros(1, 8)),
    "less the signal": trace(lambda a, s: 0.5 * a - s, torch.zeros(1, 8)),
    "negative": trace(lambda a, s: -(a * 0.5 - s), torch.zeros(1, 8)),
    "scaled sum": trace(lambda a, s: (a + s) * 0.5, torch.zeros(1, 8)),
    "with a bias": trace(lambda a, s: a * 0.5 + 0.25 + s, torch.zeros(1, 8)),
    "in place": in_place,
    "begun by none": begun_by_none,
    "per neuron": per_neuron,
    "cascade": cascade,
    "as a current": as_a_current,
    "of the map": of_the_map,
    "fewer products at first": fewer_products_at_first,
    "changes of frames": changes_of_frames,
    "two steps of spikes": two_steps_of_spikes,
}


@pytest.mark.parametrize("name", TRACES)
def test_traces(name: str) -> None:
    """Caught: a factor, a sign, a bias, a delay that is another."""
    for steps in (2, 4):
        check(loop(TRACES[name]), (steps, 1, 2, 4, 4))


def test_the_layers_of_traces() -> None:
    network = check(loop(per_neuron), (T, 1, 2, 4, 4))
    layer = network.layers["trace"]
    assert isinstance(layer, LeakyIntegrator)
    assert_array_equal(layer.decay, [0.5, 0.25, 0.75, 0.5, 1, 0, 0.5, 0.25])
    network = check(loop(as_a_current), (T, 1, 2, 4, 4))
    assert [(edge.source, edge.delay) for edge in network.edges if edge.delay] == [("two", 1)]
    profile = {each.name: each for each in Simulator(network).run(eighths((T, 2, 4, 4)).numpy()).profile}
    assert profile["trace"].counts.neuron_updates == T * 8


# --- what it reads of neurons


def last_potential(m: Any, x: Any) -> Any:
    for frame in x:
        m.step(frame)
    return m.head(m.two.v)


def potentials(m: Any, x: Any) -> Any:
    out = []
    for frame in x:
        m.step(frame)
        out.append(m.two.v)
    return m.head(torch.stack(out).mean(0))


def spikes_and_potentials(m: Any, x: Any) -> Any:
    out = 0
    for frame in x:
        spikes = m.step(frame)
        out = out + m.head(spikes) + m.head(m.two.v) * 0.5
    return out


def potentials_as_a_current(m: Any, x: Any) -> Any:
    out = 0
    for frame in x:
        m.one(m.conv(frame))
        out = out + m.head(m.two(m.line(m.pool(m.one.v).flatten(1))))
    return out


def potentials_that_come_back(m: Any, x: Any) -> Any:
    out, before = 0, torch.zeros(1, 8)
    for frame in x:
        spikes = m.two(m.before(frame) - before * 0.25)
        before = m.two.v
        out = out + m.head(spikes)
    return out


@pytest.mark.parametrize("reset", [None, 0.0, -0.25])
@pytest.mark.parametrize(
    "way", [last_potential, potentials, spikes_and_potentials, potentials_as_a_current, potentials_that_come_back]
)
def test_potentials(way: Way, reset: float | None) -> None:
    """Caught: the potential before the reset, one measured from elsewhere, one of the step before."""
    if reset == -0.25 and way is potentials_that_come_back:
        with pytest.raises(InputError, match=r"^module itself: mul of a state that .*; expected neurons, or a sum"):
            from_torch(loop(way, reset), eighths((T, 1, 2, 4, 4)))
        return
    network = check(loop(way, reset), (T, 1, 2, 4, 4))
    emits = {name: getattr(network.layers.get(name), "emits", None) for name in ("one", "two", "two.potential")}
    assert (
        emits
        == {
            last_potential: {"one": "spikes", "two": "potential", "two.potential": None},
            potentials: {"one": "spikes", "two": "potential", "two.potential": None},
            spikes_and_potentials: {"one": "spikes", "two": "spikes", "two.potential": "potential"},
            potentials_as_a_current: {"one": "potential", "two": "spikes", "two.potential": None},
            potentials_that_come_back: {"one": "spikes", "two": "spikes", "two.potential": "potential"},
        }[way]
    )


def test_neurons_that_never_fire() -> None:
    """Potentials of a last layer whose threshold is infinite."""
    module = loop(potentials, 0.0)
    module.two.v_threshold = float("inf")
    check(module, (T, 1, 2, 4, 4))


@pytest.mark.parametrize("wrong", [{"value": "charge"}, {"shift": 0.125}, {"gain": 2.0}])
def test_that_a_wrong_potential_is_refused(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Caught: potentials that are not compared."""
    right = spikingjelly.read

    def misread(module: Any) -> Any:
        read = right(module)
        return read and replace(read, states=(State(**wrong),))

    for way in (potentials, spikes_and_potentials, potentials_as_a_current):
        module = loop(way)
        with monkeypatch.context() as patch:
            patch.setattr(neurons, "FRAMEWORKS", (misread,))
            patch.setattr(neurons.neuron_of, "__defaults__", (None, (misread,)))
            with pytest.raises(
                InputError, match=r"^layer (one|two)(\.potential)?: .* differ from the module's by more"
            ):
                from_torch(module, eighths((T, 1, 2, 4, 4)))


# --- what is refused


def squashed(m: Any, x: Any) -> Any:
    state, out = torch.zeros(1, 8), 0
    for frame in x:
        state = torch.tanh(state * 0.5 + m.step(frame))
        out = out + m.head(state)
    return out


def two_timescales(m: Any, x: Any) -> Any:
    fast, slow, out = torch.zeros(1, 8), torch.zeros(1, 8), 0
    for frame in x:
        fast = fast * 0.5 + m.step(frame) + slow * 0.25
        slow = slow * 0.75 + fast * 0.25
        out = out + m.head(slow)
    return out


def gated(m: Any, x: Any) -> Any:
    state, out = torch.zeros(1, 8), 0
    for frame in x:
        spikes = m.step(frame)
        state = state * spikes + spikes
        out = out + m.head(state)
    return out


def started(m: Any, x: Any) -> Any:
    return trace(lambda a, s: a * 0.5 + s, torch.ones(1, 8))(m, x)


def first_is_other(m: Any, x: Any) -> Any:
    """The first average is not a share of the first spikes, but they."""
    state, out = None, 0
    for frame in x:
        spikes = m.step(frame)
        state = spikes if state is None else state * 0.5 + spikes * 0.5
        out = out + m.head(state)
    return out


def largest(m: Any, x: Any) -> Any:
    return torch.stack([m.head(m.step(frame)) for frame in x]).max(0)[0]


def weighed(m: Any, x: Any) -> Any:
    out = torch.stack([m.head(m.step(frame)) for frame in x])
    return (out * torch.arange(1.0, len(x) + 1).view(-1, 1, 1)).sum(0)


def neurons_later(m: Any, x: Any) -> Any:
    out = 0
    for t, frame in enumerate(x):
        y = m.before(frame)
        if t >= 1:
            out = out + m.head(m.two(y))
    return out


def every_second_step(m: Any, x: Any) -> Any:
    out = 0
    for t, frame in enumerate(x):
        spikes = m.step(frame)
        if t % 2:
            out = out + m.head(spikes)
    return out


OUTSIDE = "of a state that the loop hands on outside of neurons"
LEAKS = r"expected neurons, or a sum that leaks: state = factor \* state \+ signal"
REFUSED: dict[Way, str] = {
    squashed: rf"module itself: tanh {OUTSIDE} found; {LEAKS}",
    two_timescales: rf"module itself: \S+ {OUTSIDE} and that depends on another such state found; {LEAKS}",
    gated: rf"module itself: mul {OUTSIDE} times what depends on the example found; {LEAKS}",
    started: rf"module itself: add {OUTSIDE} that begins with other values than zeros found; .*",
    first_is_other: r"module .*: \S+ of time step \d found that differs from that of step \d; expected the same in .*",
    largest: r"module itself: operation max on \(4, 1, 5\) found; expected one that has a layer here",
    weighed: r"module itself: mul: factors that differ in time found; expected the same in every step",
    neurons_later: r"module two: neurons called 3 times found, those of one 4 times; expected one call .*",
    every_second_step: r"module head: linear found in time step 1 and not in step 0; expected the same in every step",
    every_second: r"module .*: .* found.*; expected .*",
}


@pytest.mark.parametrize("way", REFUSED, ids=lambda way: way.__name__)
def test_what_is_refused_by_module_and_operation(way: Way) -> None:
    with pytest.raises(InputError, match=f"^{REFUSED[way]}$") as caught:
        from_torch(loop(way), eighths((T, 1, 2, 4, 4)))
    assert "\n" not in str(caught.value)
