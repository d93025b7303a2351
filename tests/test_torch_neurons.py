"""Neurons read from modules of PyTorch frameworks fire as those do; ``nox -s programs`` brings the frameworks."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from eventsim import InputError, NetworkBuilder, Simulator
from eventsim.layers import IF, Input, Layer, MeanOverPositions, Readout
from eventsim_importers.torch_program.neurons import neuron_of
from eventsim_importers.torch_program.neurons.protocol import Neuron

torch = pytest.importorskip("torch", reason="needs PyTorch")
# the frameworks warn of their own dependencies, and of options that are not read
pytestmark = pytest.mark.filterwarnings("ignore")

F = np.float32
STEPS, CHANNELS, GRID = 40, 8, (3, 2)
Array = np.ndarray
Make = Callable[[], Any]


def framework(*names: str) -> Any:
    """Import the first of these modules that there is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names[:-1]:
            try:
                return importlib.import_module(name)
            except ModuleNotFoundError:
                continue
        return pytest.importorskip(names[-1], reason=f"needs {names[-1].partition('.')[0]}")


def currents(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    """Eighths, which meet thresholds exactly, or values of which none do."""
    rng = np.random.default_rng(seed)
    if kind == "dyadic":
        return (rng.integers(-6, 19, (STEPS, *shape)) / 8).astype(F)
    return rng.normal(0.7, 0.8, (STEPS, *shape)).astype(F)


def in_pytorch(module: Any, neuron: Neuron, x: Array) -> Array:
    """Let the module take all steps, at rest before and after."""
    frames = torch.tensor(x)
    neuron.reset()
    with torch.no_grad():
        if neuron.time_axis == 1:
            output = module(frames[None])
            emitted = neuron.emitted(output)[0]
            assert all(torch.is_tensor(each) for each in neuron.state(output))
        elif neuron.time_axis == 0:
            squeezed = hasattr(module, "num_timesteps")
            output = module(frames if squeezed else frames[:, None])
            emitted = neuron.emitted(output) if squeezed else neuron.emitted(output)[:, 0]
            assert all(torch.is_tensor(each) for each in neuron.state(output))
        else:
            state, seen = (), []
            for frame in frames:
                output = module(frame[None], *state)
                if isinstance(output, tuple) and not getattr(module, "init_hidden", False):
                    state = output[1:]
                seen.append(neuron.emitted(output)[0])
            emitted = torch.stack(seen)
    neuron.reset()
    return emitted.numpy()


def in_eventsim(layers: tuple[Layer, ...], x: Array) -> Array:
    build = NetworkBuilder("neurons")
    name = build.add("input", Input(x.shape[1:], "real"))
    for index, layer in enumerate(layers):
        name = build.add(f"layer{index}", layer, name)
    pooled = build.add("pooled", MeanOverPositions(), name) if x.ndim > 2 else name
    build.add("output", Readout("sum"), pooled)
    return np.asarray(Simulator(build.build(), record=[name]).run(x).recorded[name])


def compare_states(module: Any, neuron: Neuron, layers: tuple[Layer, ...], x: Array) -> None:
    """Compare what the tensors of a state hold behind each step with what is said of them."""
    state: tuple[Any, ...] = ()
    seen: list[Array] = []
    neuron.reset()
    for frame in torch.tensor(x):
        with torch.no_grad():
            output = module(frame[None], *state)
        if isinstance(output, tuple) and not getattr(module, "init_hidden", False):
            state = output[1:]
        seen.append([each.numpy().copy() for each in neuron.state(output)])
    neuron.reset()
    assert {len(each) for each in seen} == {len(neuron.states)} != {0}
    for index, said in enumerate(neuron.states):
        made = list(layers[: len(layers) + 1 + said.layer if said.layer < 0 else said.layer + 1])
        if said.value != "emitted":
            made[-1] = dataclasses.replace(made[-1], emits=said.value)  # type: ignore[call-arg]
        found = in_eventsim(tuple(made), x) * said.gain + said.shift
        expected = np.array([each[index] for each in seen]).reshape(found.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=f"state {index}")


def compare(make: Make, shape: tuple[int, ...] = (CHANNELS,), fires: bool = True, seeds: int = 3) -> None:
    module = make().eval()
    neuron = neuron_of(copy.deepcopy(module))
    assert neuron is not None
    neuron = neuron_of(module)
    assert neuron is not None
    layers = neuron.fitted(shape, 0)
    for kind, seed in itertools.product(("dyadic", "random"), range(seeds)):
        x = currents(kind, shape, seed)
        expected = in_pytorch(module, neuron, x)
        np.testing.assert_array_equal(in_pytorch(module, neuron, x), expected, err_msg="not at rest")
        found = in_eventsim(layers, x)
        if neuron.time_axis is None and not seed:
            compare_states(module, neuron, layers, x)
        if fires:
            np.testing.assert_array_equal(found.reshape(expected.shape), expected, err_msg=f"{kind} {seed}")
            assert 0 < (expected > 0).mean() < 1
        else:
            np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


def combined(**options: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


def shown(value: Any) -> str:
    return "-".join(f"{name}={each}" for name, each in value.items()) if isinstance(value, dict) else str(value)


def per_channel(values: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0), maps: bool = False) -> Any:
    tensor = torch.tensor(values * (CHANNELS // len(values)))
    return tensor[:, None, None] if maps else tensor


# --- SpikingJelly

SPIKINGJELLY = ("spikingjelly.activation_based.neuron", "spikingjelly.clock_driven.neuron")


def spikingjelly(name: str, many: bool, **options: Any) -> Any:
    module = framework(*SPIKINGJELLY)
    if module.__name__.startswith(SPIKINGJELLY[1]):
        return getattr(module, f"MultiStep{name}" if many else name)(**options)
    return getattr(module, name)(step_mode="m" if many else "s", **options)


FIRE = {"many": (False, True), "v_reset": (0.0, None, -0.25), "v_threshold": (0.5, 0.375)}


@pytest.mark.parametrize("options", combined(**FIRE), ids=shown)
def test_spikingjelly_if(options: dict[str, Any]) -> None:
    compare(lambda: spikingjelly("IFNode", **options))


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [2.0, 4.0, 1.7])
@pytest.mark.parametrize("options", combined(**FIRE), ids=shown)
def test_spikingjelly_lif(options: dict[str, Any], tau: float, decay_input: bool) -> None:
    compare(lambda: spikingjelly("LIFNode", tau=tau, decay_input=decay_input, **options), seeds=1)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [2.0, 1.7])
@pytest.mark.parametrize("options", combined(**FIRE), ids=shown)
def test_spikingjelly_plif(options: dict[str, Any], tau: float, decay_input: bool) -> None:
    compare(lambda: spikingjelly("ParametricLIFNode", init_tau=tau, decay_input=decay_input, **options), seeds=1)


def test_spikingjelly_starts_where_it_is_reset_to() -> None:
    def make() -> Any:
        module = spikingjelly("LIFNode", many=False, v_reset=-0.25)
        module.set_reset_value("v", 0.875)
        return module

    compare(make)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("maps", [False, True])
def test_spikingjelly_values_per_channel(maps: bool, decay_input: bool) -> None:
    def make() -> Any:
        module = spikingjelly("ParametricLIFNode", many=True, decay_input=decay_input)
        module.w = torch.nn.Parameter(per_channel((-1.0, 0.0, 0.5, 2.0), maps))
        return module

    compare(make, (CHANNELS, *GRID) if maps else (CHANNELS,))


def test_values_that_a_reset_undoes_are_not_read() -> None:
    module = spikingjelly("IFNode", many=False)
    if "v_threshold" not in module._memories_rv:
        pytest.skip("of clock_driven")
    module.v_threshold, module.v_reset = 0.5, None
    neuron = neuron_of(module)
    assert neuron is not None
    assert (neuron.layers[0].v_threshold, neuron.layers[0].reset) == (1.0, "zero")  # type: ignore[attr-defined]
    compare(lambda: module)


def test_spikingjelly_keeps_its_potentials_too() -> None:
    if framework(*SPIKINGJELLY).__name__.startswith(SPIKINGJELLY[1]):
        pytest.skip("clock_driven always does")
    compare(lambda: spikingjelly("LIFNode", many=True, store_v_seq=True))


def test_spikingjelly_neurons_of_maps() -> None:
    compare(lambda: spikingjelly("LIFNode", many=True), shape=(CHANNELS, *GRID))


def test_other_neurons_of_spikingjelly_are_refused() -> None:
    module = framework(*SPIKINGJELLY)
    names = {"QIFNode", "EIFNode", "IzhikevichNode", "KLIFNode", "GatedLIFNode", "CUBALIFNode", "SimpleLIFNode"}
    there = sorted(names & set(vars(module)))
    assert len(there) >= 2
    for name in there:
        cls = getattr(module, name)
        with pytest.raises(
            InputError, match=rf"neuron\S*\.{name}: a neuron of spikingjelly .*expected one of IFNode.*give"
        ):
            neuron_of(cls.__new__(cls))
    liaf = module.LIAFNode
    with pytest.raises(InputError, match="LIAFNode: a neuron of spikingjelly"):
        neuron_of(liaf.__new__(liaf))


def test_spikingjelly_neurons_that_do_not_spike_are_refused() -> None:
    module = spikingjelly("LIFNode", many=False)
    module.surrogate_function = copy.deepcopy(module.surrogate_function)  # all modules share the default
    module.surrogate_function.set_spiking_mode(False)
    with pytest.raises(InputError, match="LIFNode: surrogate_function with spiking=False"):
        neuron_of(module)
    module = spikingjelly("IFNode", many=True)
    module.backend = "lava" if not hasattr(type(module), "backend") else module.backend
    if getattr(module, "backend", None) == "lava":
        with pytest.raises(InputError, match="backend 'lava'"):
            neuron_of(module)


# --- what holds for all frameworks: subclasses, given functions, other modules


def derived(**members: Any) -> Any:
    base = type(spikingjelly("LIFNode", many=False))
    return type("Mine", (base,), members)


def test_subclasses_that_change_nothing_are_read() -> None:
    mine = derived(extra_repr=lambda self: "mine", help=lambda self: None)
    compare(lambda: mine(tau=4.0))


@pytest.mark.parametrize("name", ["neuronal_charge", "neuronal_fire", "forward", "single_step_forward", "__call__"])
def test_subclasses_that_change_the_dynamics_are_refused(name: str) -> None:
    base = type(spikingjelly("LIFNode", many=False))
    if name != "__call__" and not hasattr(base, name):
        pytest.skip("not in this release")
    with pytest.raises(
        InputError, match=rf"Mine: a LIFNode of spikingjelly with a {name} of its own .*neurons={{Class"
    ):
        neuron_of(derived(**{name: lambda self, x=None: x})())
    module = spikingjelly("LIFNode", many=False)
    if name != "__call__":
        vars(module)[name] = lambda x: x
        with pytest.raises(InputError, match=f"with a {name} of its own"):
            neuron_of(module)


def test_neurons_of_their_own_are_refused_or_given() -> None:
    module = framework(*SPIKINGJELLY)
    memory = next(cls for cls in module.BaseNode.__mro__ if cls.__name__ == "MemoryModule")

    class Mine(module.BaseNode):  # type: ignore[misc,name-defined]
        def neuronal_charge(self, x: Any) -> None:
            self.v = self.v + x

    class Bare(memory):  # type: ignore[misc,valid-type]
        def neuronal_charge(self, x: Any) -> None: ...

    with pytest.raises(InputError, match=r"Mine: a neuron of spikingjelly found; .*give neurons={Class: function}"):
        neuron_of(Mine())
    with pytest.raises(InputError, match="Bare: a MemoryModule of spikingjelly with a neuronal_charge of its own"):
        neuron_of(Bare())
    given = Neuron((IF(),), None, lambda output: output, lambda output: (), lambda: None)
    assert neuron_of(Mine(), {Mine: lambda module: given}) is given
    with pytest.raises(InputError, match=r"neurons: IF returned for .*Mine; expected a"):
        neuron_of(Mine(), {Mine: lambda module: IF()})  # type: ignore[dict-item,return-value]


def test_other_modules_are_no_neurons() -> None:
    for module in (torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Linear(2, 2))):
        assert neuron_of(module) is None


def test_no_framework_is_imported() -> None:
    code = (
        "import sys; from eventsim_importers.torch_program.neurons import neuron_of; assert neuron_of(1) is None; "
        "print(sorted({'torch', 'spikingjelly', 'snntorch', 'norse', 'sinabs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_arrays_fit_the_step() -> None:
    def fitted(threshold: Array, shape: tuple[int, ...], channels: int) -> Any:
        neuron = Neuron((IF(threshold),), None, lambda output: output, lambda output: (), lambda: None)
        return neuron.fitted(shape, channels)[0].v_threshold  # type: ignore[attr-defined]

    values = np.arange(1, 4, dtype=F)
    np.testing.assert_array_equal(fitted(values, (3,), 0), values)
    np.testing.assert_array_equal(fitted(values[:, None, None], (3, 3, 3), 0), values)
    np.testing.assert_array_equal(fitted(values, (2, 3), 1), values)
    np.testing.assert_array_equal(fitted(values, (3, 3, 3), 0), np.broadcast_to(values, (3, 3, 3)))  # by column
    with pytest.raises(InputError, match=r"v_threshold of shape \(3,\) found; .*broadcasts to \(2,\)"):
        fitted(values, (2,), 0)


# --- snnTorch

SNNTORCH = {
    "reset_mechanism": ("subtract", "zero", "none"), "threshold": (1.0, 0.375), "init_hidden": (False, True),
}  # fmt: skip
DELAYS = {**SNNTORCH, "reset_delay": (True, False)}


@pytest.mark.parametrize("beta", [0.75, 0.9, 1.5])
@pytest.mark.parametrize("options", combined(**DELAYS), ids=shown)
def test_snntorch_leaky(options: dict[str, Any], beta: float) -> None:
    snn = framework("snntorch")
    compare(lambda: snn.Leaky(beta=beta, **options))


@pytest.mark.parametrize("shares", [(0.5, 0.75), (0.3, 0.9)])
@pytest.mark.parametrize("options", combined(**DELAYS), ids=shown)
def test_snntorch_synaptic(options: dict[str, Any], shares: tuple[float, float]) -> None:
    snn = framework("snntorch")
    compare(lambda: snn.Synaptic(alpha=shares[0], beta=shares[1], **options))


@pytest.mark.parametrize(
    "circuit",
    [{"beta": 0.75}, {"R": 1, "C": 4}, {"R": 2.0, "C": 4.0, "time_step": 0.5}, {"beta": 0.5, "R": 3.0}],
    ids=shown,
)
@pytest.mark.parametrize("options", combined(**SNNTORCH), ids=shown)
def test_snntorch_lapicque(options: dict[str, Any], circuit: dict[str, Any]) -> None:
    snn = framework("snntorch")
    compare(lambda: snn.Lapicque(**circuit, **{**options, "threshold": options["threshold"] / 4}))


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("options", combined(**DELAYS | {"threshold": ("each",)}), ids=shown)
def test_snntorch_neurons_of_learned_values(options: dict[str, Any], maps: bool) -> None:
    snn = framework("snntorch")
    values = per_channel(maps=maps)
    given = {**options, "threshold": values + 0.125, "learn_beta": True, "learn_threshold": True}
    shape = (CHANNELS, *GRID) if maps else (CHANNELS,)
    compare(lambda: snn.Leaky(beta=values, **given), shape)
    compare(lambda: snn.Synaptic(alpha=values.flip(0), beta=values, learn_alpha=True, **given), shape)


def test_snntorch_returns_states_where_it_is_asked_to() -> None:
    snn = framework("snntorch")
    compare(lambda: snn.Leaky(beta=0.5, init_hidden=True, output=True))
    compare(lambda: snn.Leaky(beta=0.5, surrogate_disable=True))
    compare(lambda: snn.Leaky(beta=0.5, spike_grad=snn.surrogate.fast_sigmoid()))


def snntorch_refused(snn: Any) -> dict[str, tuple[Make, str]]:
    def changed() -> Any:
        module = snn.Leaky(beta=0.5)
        module.reset_mechanism = "zero"
        return module

    return {
        "RLeaky": (lambda: snn.RLeaky(beta=0.5, all_to_all=False), "a neuron of snntorch found; .*Leaky, Synaptic"),
        "RSynaptic": (lambda: snn.RSynaptic(alpha=0.5, beta=0.5, all_to_all=False), "a neuron of snntorch"),
        "Alpha": (lambda: snn.Alpha(alpha=0.6, beta=0.5), "a neuron of snntorch"),
        "SLSTM": (lambda: snn.SLSTM(2, 2), "a neuron of snntorch"),
        "graded": (lambda: snn.Leaky(beta=0.5, graded_spikes_factor=2.0), "graded_spikes_factor 2 found"),
        "quantized": (lambda: snn.Leaky(beta=0.5, state_quant=torch.round), "state_quant"),
        "inhibition": (lambda: snn.Leaky(beta=0.5, inhibition=True), "inhibition=True"),
        "changed": (changed, "reset_mechanism changed from subtract to zero"),
        "negative": (
            lambda: snn.Leaky(beta=0.5, threshold=-0.5, reset_mechanism="zero", reset_delay=False),
            "threshold -0.5 with a reset to zero at once",
        ),
        "soft": (lambda: snn.Leaky(beta=0.5, spike_grad=torch.sigmoid), "spike_grad that is 0.268941 at -1 above"),
        "at the threshold": (
            lambda: snn.Leaky(beta=0.5, spike_grad=lambda x: (x >= 0).float()),
            "spike_grad that is 1 at 0",
        ),
    }


@pytest.mark.parametrize(
    "case",
    ["RLeaky", "RSynaptic", "Alpha", "SLSTM", "graded", "quantized", "inhibition", "changed", "negative", "soft",
     "at the threshold"],
)  # fmt: skip
def test_other_neurons_of_snntorch_are_refused(case: str) -> None:
    make, message = snntorch_refused(framework("snntorch"))[case]
    with pytest.raises(InputError, match=message):
        neuron_of(make())


# --- Norse


def norse(name: str, dt: float = 0.125, **values: Any) -> Any:
    module = framework("norse.torch")
    cell = name.removesuffix("Cell")
    parameters = getattr(module, f"{cell}Parameters")
    given = {
        key: value if callable(value) or isinstance(value, str) else torch.as_tensor(value)
        for key, value in values.items()
    }
    return getattr(module, name)(p=parameters(**given), dt=dt)


POTENTIALS = combined(v_leak=(0.0, 0.25, -0.125), v_reset=(0.0, -0.25, 0.125), v_th=(0.5, 0.75))


@pytest.mark.parametrize("rates", [(2.0, 1.0), (0.9, 0.7), (8.0, 4.0)])
@pytest.mark.parametrize("values", POTENTIALS, ids=shown)
@pytest.mark.parametrize("name", ["LIF", "LIFCell"])
def test_norse_lif(name: str, values: dict[str, Any], rates: tuple[float, float]) -> None:
    compare(lambda: norse(name, tau_mem_inv=rates[0], tau_syn_inv=rates[1], **values))


@pytest.mark.parametrize("method", ["reset_value", "reset_subtract"])
@pytest.mark.parametrize("rate", [2.0, 0.9, 8.0])
@pytest.mark.parametrize("values", POTENTIALS, ids=shown)
def test_norse_lif_box(values: dict[str, Any], rate: float, method: str) -> None:
    reset = getattr(framework("norse.torch.functional.reset"), method)
    compare(lambda: norse("LIFBoxCell", tau_mem_inv=rate, reset_method=reset, **values))


@pytest.mark.parametrize("values", combined(v_th=(1.0, 0.375), v_reset=(0.0, -0.25)), ids=shown)
@pytest.mark.parametrize("name", ["IAF", "IAFCell"])
def test_norse_iaf(name: str, values: dict[str, Any]) -> None:
    compare(lambda: norse(name, **values))


@pytest.mark.parametrize("v_leak", [0.0, 0.25])
@pytest.mark.parametrize("rates", [(2.0, 1.0), (0.9, 0.7)])
@pytest.mark.parametrize("name", ["LI", "LICell", "LIBoxCell"])
def test_norse_leaky_integrator(name: str, rates: tuple[float, float], v_leak: float) -> None:
    given = {"tau_mem_inv": rates[0], "tau_syn_inv": rates[1], "v_leak": v_leak}
    if name == "LIBoxCell":
        del given["tau_syn_inv"]
    compare(lambda: norse(name, **given), fires=False)


@pytest.mark.parametrize("maps", [False, True])
def test_norse_neurons_of_learned_values(maps: bool) -> None:
    rates, shape = per_channel((1.0, 2.0, 4.0, 0.7), maps), (CHANNELS, *GRID) if maps else (CHANNELS,)
    compare(lambda: norse("LIFCell", tau_mem_inv=rates, tau_syn_inv=rates.flip(0), v_th=rates / 8), shape)
    compare(lambda: norse("LIFBoxCell", tau_mem_inv=rates, v_th=rates / 8, v_leak=rates / 32), shape)


def test_norse_as_it_comes() -> None:
    module = framework("norse.torch")
    for name in ("LIF", "LIFCell", "IAF", "IAFCell"):
        compare(functools.partial(getattr, module, name)())
    for method in ("heaviside", "tanh", "circ"):
        compare(functools.partial(norse, "LIF", tau_mem_inv=2.0, tau_syn_inv=1.0, method=method))
    compare(lambda: module.LIF(record_states=True))


def test_other_neurons_of_norse_are_refused() -> None:
    module = framework("norse.torch")
    cases = {
        module.LIFRecurrentCell: (2, 2),
        module.LIFRefracCell: (),
        module.LIFAdExCell: (),
        module.LSNNCell: (),
        module.LILinearCell: (2, 2),
    }
    for cls, arguments in cases.items():
        with pytest.raises(InputError, match=f"{cls.__name__}: a neuron of norse found; expected one of LIFCell"):
            neuron_of(cls(*arguments))
    with pytest.raises(InputError, match="dt tau_mem_inv = 2 found"):
        neuron_of(norse("LIFBoxCell", tau_mem_inv=16.0))
    with pytest.raises(InputError, match="reset_method <lambda> found"):
        neuron_of(norse("LIFBoxCell", reset_method=lambda z, v, reset, th: v))
    odd = module.LIFCell()
    odd.activation = module.lif_refrac_feed_forward_step
    with pytest.raises(InputError, match="activation lif_refrac_feed_forward_step found"):
        neuron_of(odd)
    assert neuron_of(module.SequentialState(module.LIFCell())) is None
    assert neuron_of(module.Lift(torch.nn.Linear(2, 2))) is None


# --- sinabs


def sinabs(name: str, alpha: float | None = None, **options: Any) -> Any:
    """A neuron that keeps exactly alpha, or what its tau says."""
    module = getattr(framework("sinabs.layers"), name)
    if alpha is None:
        return module(**options)
    made = module(tau_mem=2.0, train_alphas=True, **options)
    made.alpha_mem.data = torch.as_tensor(alpha)
    if options.get("tau_syn") is not None:
        made.alpha_syn.data = torch.tensor(0.5)
    return made


def firing(spikes: str, resets: str) -> dict[str, Any]:
    activation = framework("sinabs.activation")
    most = {"MaxSpike(None)": None, "MaxSpike(1)": 1}
    fn = activation.MaxSpike(most[spikes]) if spikes in most else getattr(activation, spikes)
    return {"spike_fn": fn, "reset_fn": getattr(activation, resets)()}


SPIKES = ("MultiSpike", "SingleSpike", "MaxSpike(None)", "MaxSpike(1)")
SINABS = combined(
    spikes=SPIKES, resets=("MembraneSubtract", "MembraneReset"), min_v_mem=(None, -0.25), spike_threshold=(1.0, 0.375)
)


def spiking(options: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in options.items() if key not in ("spikes", "resets")}
    return {**rest, **firing(options["spikes"], options["resets"])}


@pytest.mark.parametrize("tau_syn", [None, 2.0])
@pytest.mark.parametrize("options", SINABS, ids=shown)
@pytest.mark.parametrize("squeeze", [{}, {"batch_size": 1}, {"num_timesteps": STEPS}], ids=shown)
def test_sinabs_iaf(options: dict[str, Any], tau_syn: float | None, squeeze: dict[str, int]) -> None:
    name = "IAFSqueeze" if squeeze else "IAF"
    compare(lambda: sinabs(name, tau_syn=tau_syn, **spiking(options), **squeeze), seeds=1)


@pytest.mark.parametrize("norm_input", [True, False])
@pytest.mark.parametrize("tau_syn", [None, 3.0])
@pytest.mark.parametrize("alpha", [0.75, None])
@pytest.mark.parametrize("options", SINABS, ids=shown)
def test_sinabs_lif(options: dict[str, Any], alpha: float | None, tau_syn: float | None, norm_input: bool) -> None:
    given = {**spiking(options), "tau_syn": tau_syn, "norm_input": norm_input}
    given["spike_threshold"] *= 0.5
    compare(lambda: sinabs("LIF", alpha, **given, **({} if alpha else {"tau_mem": 5.0})), seeds=1)


def test_sinabs_squeezed_and_learned() -> None:
    for squeeze in ({"batch_size": 1}, {"num_timesteps": STEPS}):
        compare(functools.partial(sinabs, "LIFSqueeze", 0.75, norm_input=False, **squeeze))
        compare(functools.partial(sinabs, "ExpLeakSqueeze", 0.75, **squeeze), fires=False)
    for maps in (False, True):
        shape = (CHANNELS, *GRID) if maps else (CHANNELS,)
        values = per_channel((0.25, 0.5, 0.75, 0.9), maps)
        given = {"norm_input": True, "spike_threshold": values / 2, "min_v_mem": -values}
        compare(functools.partial(sinabs, "LIF", values, **given), shape)


@pytest.mark.parametrize("norm_input", [True, False])
@pytest.mark.parametrize("alpha", [0.75, None])
def test_sinabs_exp_leak(alpha: float | None, norm_input: bool) -> None:
    tau = {} if alpha else {"tau_mem": 5.0}
    compare(lambda: sinabs("ExpLeak", alpha, norm_input=norm_input, **tau), fires=False)


def test_other_neurons_of_sinabs_are_refused() -> None:
    layers, activation = framework("sinabs.layers"), framework("sinabs.activation")
    cases = {
        r"ALIF: a neuron of sinabs found": lambda: layers.ALIF(tau_mem=2.0, tau_adapt=2.0),
        r"LIFRecurrent: a neuron of sinabs": lambda: layers.LIFRecurrent(
            tau_mem=2.0, rec_connect=torch.nn.Linear(2, 2)
        ),
        r"IAFSqueeze: batch_size 2 found": lambda: layers.IAFSqueeze(batch_size=2),
        r"spike_fn MaxSpike of 2 found": lambda: layers.IAF(spike_fn=activation.MaxSpike(2)),
        r"reset_value 0.5, which is added": lambda: layers.IAF(reset_fn=activation.MembraneReset(0.5)),
        r"subtract_value 0.5 found": lambda: layers.IAF(reset_fn=activation.MembraneSubtract(0.5)),
        r"reset_fn <lambda> found": lambda: layers.IAF(reset_fn=lambda spikes, state, threshold: state),
        r"spike_threshold 0 of MultiSpike": lambda: layers.IAF(spike_threshold=0.0),
        r"min_v_mem -1 of a neuron that never fires": lambda: layers.ExpLeak(tau_mem=2.0, min_v_mem=-1.0),
    }
    for message, make in cases.items():
        with pytest.raises(InputError, match=message):
            neuron_of(make())
    squeezed = layers.IAFSqueeze(num_timesteps=4)
    neuron = neuron_of(squeezed)
    assert neuron is not None
    with pytest.raises(InputError, match="8 entries for num_timesteps 4 found; expected as many: a batch of 1"):
        neuron.emitted(squeezed(torch.ones(8, 2)))
