r"""Norse: ``LIF``, ``LIFCell``, ``LIFBoxCell``, ``IAF``, ``IAFCell``, ``LI``, ``LICell``, ``LIBoxCell``.

.. math::
    j = i + x, \quad h = v + dt\, \tau_{mem}^{-1} ((v_{leak} - v) + j), \quad i = j - dt\, \tau_{syn}^{-1} j

The current j, with what arrives in this step, is a layer of its own; the box neurons have none, and hear x. A neuron
fires where ``h > v_th``, and goes to v_reset, from where its potential is measured here; a box neuron may subtract
v_th instead. Potentials start at v_leak. LI never fires, and passes on h. Cells take one step, the others all of them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from eventsim.layers import IF, LIF, PLIF, Layer, LeakyIntegrator
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim_importers.torch_program.neurons.classes import GIVE, Classes, named, refusal
from eventsim_importers.torch_program.neurons.parameters import logit, number, plain, scaled
from eventsim_importers.torch_program.neurons.protocol import Neuron, State

DEFINING = (
    "snn", "coba_lif", "iaf", "izhikevich", "leaky_integrator", "leaky_integrator_box", "lif", "lif_adex",
    "lif_adex_refrac", "lif_box", "lif_correlation", "lif_ex", "lif_mc", "lif_mc_refrac", "lif_refrac", "lsnn",
)  # fmt: skip
CLASSES = Classes(
    "norse",
    modules=tuple(f"norse.torch.module.{name}" for name in DEFINING),
    known=("LIFCell", "LIF", "LIFBoxCell", "IAFCell", "IAF", "LICell", "LI", "LIBoxCell"),
)
STEPS = (
    "lif_feed_forward_step", "lif_feed_forward_adjoint_step", "lif_box_feed_forward_step", "iaf_feed_forward_step",
    "li_feed_forward_step", "li_box_feed_forward_step",
)  # fmt: skip


def read(module: Any) -> Neuron | None:
    """Return what a module of Norse is, None if it is no neuron.

    Raises
    ------
    InputError
        If it is a neuron that is not known, or set to do what no layer does.
    """
    kind = CLASSES.kind(module)
    if kind is None:
        return None
    if named(module.activation) not in [("norse", name) for name in STEPS]:
        raise refusal(module, f"activation {named(module.activation)[1]}", f"the one of {kind}, or {GIVE}")
    cell = kind.removesuffix("Cell")
    layers = {"IAF": _integrate, "LI": _leak, "LIBox": _leak}.get(cell, _fire)(module, cell)
    if not kind.endswith("Cell"):
        return Neuron(layers, 0, lambda output: output[0], lambda output: _flat(output[1]), lambda: None)
    states = _states(module, cell)
    return Neuron(layers, None, lambda output: output[0], lambda output: _flat(output[1]), lambda: None, states)


def _states(module: Any, cell: str) -> tuple[State, ...]:
    """Return what v and i hold: v from v_reset on, and of the current what a step leaves."""
    if cell.startswith("LI") and not cell.startswith("LIF"):
        potential = State(value="emitted")
    else:
        potential = State(shift=_rest(module))
    if cell not in ("LIF", "LI"):
        return (potential,)
    return (potential, State(0, "emitted", plain(1 - np.float64(_rate(module, "tau_syn_inv")))))


def _rest(module: Any) -> PerNeuron:
    """Return from where a potential is measured."""
    subtracts = hasattr(module.p, "reset_method") and named(module.p.reset_method)[1] == "reset_subtract"
    return 0.0 if subtracts else number(module.p.v_reset)


def _flat(state: Any) -> tuple[Any, ...]:
    """Return the tensors of a state, which is a tuple of them or of states."""
    return tuple(each for part in state for each in _flat(part)) if isinstance(state, tuple) else (state,)


def _rate(module: Any, name: str) -> PerNeuron:
    """Return the share that a step takes off, as the module rounds it."""
    rate = number(module.dt * getattr(module.p, name))
    if not np.all((np.asarray(rate) > 0) & (np.asarray(rate) <= 1)):
        raise refusal(module, f"dt {name} = {np.max(rate):g}", "more than 0, at most 1")
    return rate


def _current(module: Any, cell: str) -> tuple[Layer, ...]:
    if cell.endswith("Box"):
        return ()
    return (LeakyIntegrator(plain(1 - np.float64(_rate(module, "tau_syn_inv")))),)


def _integrate(module: Any, cell: str) -> tuple[Layer, ...]:
    threshold = plain(number(module.p.v_th) - number(module.p.v_reset))
    return (IF(threshold, strict=True),)


def _leak(module: Any, cell: str) -> tuple[Layer, ...]:
    rate, v_leak = _rate(module, "tau_mem_inv"), number(module.p.v_leak)
    membrane = LeakyIntegrator(plain(1 - np.float64(rate)), v_leak)
    return (*_current(module, cell), *scaled(rate, rate * v_leak), membrane)


def _fire(module: Any, cell: str) -> tuple[Layer, ...]:
    p = module.p
    subtract = False
    if hasattr(p, "reset_method"):
        method = named(p.reset_method)
        if method not in (("norse", "reset_value"), ("norse", "reset_subtract")):
            raise refusal(module, f"reset_method {method[1]}", f"reset_value or reset_subtract, or {GIVE}")
        subtract = method[1] == "reset_subtract"
    rest = _rest(module)
    leak = plain(number(p.v_leak) - rest)
    rate = _rate(module, "tau_mem_inv")
    threshold = plain(number(p.v_th) - rest)
    reset: Literal["zero", "subtract"] = "subtract" if subtract else "zero"
    membrane: Layer
    if np.all(np.frexp(np.asarray(rate, np.float32))[0] == 0.5):  # the same, and plainer
        membrane = LIF(threshold, reset, strict=True, tau=plain(1 / np.float64(rate)), start=leak)
    else:
        membrane = PLIF(threshold, reset, strict=True, w=logit(rate), start=leak)
    return (*_current(module, cell), *scaled(1.0, leak), membrane)
