r"""SpikingJelly: ``IFNode``, ``LIFNode``, ``ParametricLIFNode``, one step or several, of all releases.

.. math:: h = v + x \qquad h = v + (x - (v - v_{reset})) / \tau \qquad h = v - (v - v_{reset}) / \tau + x

A neuron fires where ``h >= v_threshold``; then ``v = v_reset``, or ``h - v_threshold`` for ``v_reset=None``. Potentials
are measured from v_reset here. The forms of a leak that is not the input's differ in their rounding alone, and are
those of evaluation.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import numpy as np

from eventsim.layers import IF, LIF, PLIF, DecayLIF, Layer
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim.signals import FLOAT32_MAX
from eventsim_importers.torch_program.neurons.classes import Classes, refusal
from eventsim_importers.torch_program.neurons.parameters import logit, number, plain
from eventsim_importers.torch_program.neurons.protocol import Neuron, State

SINGLE = ("IFNode", "LIFNode", "ParametricLIFNode")
CLASSES = Classes(
    "spikingjelly",
    modules=("spikingjelly.activation_based.neuron", "spikingjelly.clock_driven.neuron"),
    known=(*SINGLE, *(f"MultiStep{name}" for name in SINGLE)),
    stateful=("MemoryModule",),
    dynamics=("neuronal_charge", "neuronal_fire", "neuronal_reset"),
)


class Fire(TypedDict):
    """What every neuron has."""

    v_threshold: PerNeuron
    reset: Literal["zero", "subtract"]
    start: PerNeuron


def read(module: Any) -> Neuron | None:
    """Return what a module of SpikingJelly is, None if it is no neuron.

    Raises
    ------
    InputError
        If it is a neuron that is not known, or set to do what no layer does.
    """
    kind = CLASSES.kind(module)
    if kind is None:
        return None
    if getattr(module, "backend", "torch") == "lava":
        raise refusal(module, "backend 'lava', which rounds to integers,", "'torch' or 'cupy'")
    if getattr(module, "_neuron_precision", None) is not None:
        raise refusal(module, f"a neuron precision of {module._neuron_precision}", "none: float32 throughout")
    if not getattr(module.surrogate_function, "spiking", True):
        raise refusal(module, "surrogate_function with spiking=False, which is no spike,", "spiking=True")
    layer = _layer(module, kind.removeprefix("MultiStep"))
    many = kind.startswith("MultiStep") or getattr(module, "step_mode", "s") == "m"
    if many:
        return Neuron((layer,), 0, lambda output: output, lambda output: (), module.reset)
    shift = 0.0 if _at_rest(module, "v_reset") is None else number(_at_rest(module, "v_reset"))
    states = (State(shift=shift),)
    return Neuron((layer,), None, lambda output: output, lambda output: (module.v,), module.reset, states)


def _layer(module: Any, kind: str) -> Layer:
    subtracts = _at_rest(module, "v_reset") is None
    v_reset = 0.0 if subtracts else number(_at_rest(module, "v_reset"))
    fire = Fire(
        v_threshold=plain(_finite(number(_at_rest(module, "v_threshold"))) - v_reset),
        reset="subtract" if subtracts else "zero",
        start=plain(number(_at_rest(module, "v")) - v_reset),
    )
    if kind == "IFNode":
        return IF(**fire)
    if kind == "ParametricLIFNode":
        w, share = number(module.w), number(module.w.sigmoid())
        if not np.array_equal(PLIF(w=w).share, np.float32(share)):  # PyTorch's sigmoid rounds otherwise
            w = logit(share)
        return PLIF(w=w, decay_input=module.decay_input, **fire)
    tau = number(module.tau)
    if not module.decay_input and _keeps_a_share(module, subtracts, v_reset):
        return DecayLIF(decay=plain(1 - 1 / np.float64(tau)), **fire)
    return LIF(tau=tau, decay_input=module.decay_input, **fire)


def _finite(threshold: PerNeuron) -> PerNeuron:
    """Return a threshold that is never met for an infinite one, of neurons that are read by their potential."""
    return FLOAT32_MAX if np.all(np.isposinf(threshold)) else threshold


def _at_rest(module: Any, name: str) -> Any:
    """Return a value as ``reset()`` leaves it: it puts back more than the potential in some releases."""
    return module._memories_rv.get(name, getattr(module, name))


def _keeps_a_share(module: Any, subtracts: bool, v_reset: PerNeuron) -> bool:
    """Whether the leak is ``v (1 - 1 / tau)`` instead of ``v - v / tau``."""
    if hasattr(module, "single_step_functional_forward"):  # 2.0
        return False
    if hasattr(module, "jit_eval_single_step_forward_soft_reset_no_decay_input"):  # 0.0.0.0.14
        return subtracts
    return not np.any(v_reset)
