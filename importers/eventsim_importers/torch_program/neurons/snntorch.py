r"""snnTorch: ``Leaky``, ``Synaptic``, ``Lapicque``.

.. math::
    i = \alpha i + x \qquad h = \beta v + i \qquad \text{Lapicque:}\quad h = (1 - \tfrac{dt}{RC})\, v + \tfrac{dt}{C} x

A neuron fires where ``h > threshold``. By default its reset comes one step later; without `reset_delay` at once, but
not twice in succession. A reset of ``Leaky`` to zero leaves the input of the next step, that of the others does not.
Without a reset (``"none"``) the potential is a layer of its own, and a threshold follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from eventsim.layers import DecayLIF, Layer, LeakyIntegrator, Threshold
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim_importers.torch_program.neurons.classes import GIVE, Classes, refusal
from eventsim_importers.torch_program.neurons.parameters import is_at_least, number, plain, scaled
from eventsim_importers.torch_program.neurons.protocol import Neuron, State

CLASSES = Classes("snntorch", modules=("snntorch._neurons",), known=("Leaky", "Synaptic", "Lapicque"))
MECHANISMS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
PROBES = {-1.0: 0, -1e-6: 0, 0.0: 0, 1e-6: 1, 1.0: 1}
"""Distances to the threshold, and the spikes there."""


def read(module: Any) -> Neuron | None:
    """Return what a module of snnTorch is, None if it is no neuron.

    Raises
    ------
    InputError
        If it is a neuron that is not known, or set to do what no layer does.
    """
    kind = CLASSES.kind(module)
    if kind is None:
        return None
    _check(module, kind)
    before: tuple[Layer, ...] = ()
    if kind == "Lapicque":
        time = module.time_step
        before = scaled(number(module.R * (1 / (module.R * module.C)) * time))
        beta = number(1 - time / (module.R * module.C))
    else:
        beta = _share(module.beta)
    if kind == "Synaptic":
        before = (LeakyIntegrator(_share(module.alpha)),)
    layers = before + _fires(module, kind, beta)
    return Neuron(layers, None, _emitted, _state(module, kind), lambda: _reset(module), _states(module, kind))


def _share(value: Any) -> PerNeuron:
    """Return a decay as the module takes it."""
    return plain(np.clip(number(value), 0, 1))


def _fires(module: Any, kind: str, beta: PerNeuron) -> tuple[Layer, ...]:
    mechanism = MECHANISMS[module.state_function.__name__]
    delay = getattr(module, "reset_delay", True)
    threshold = number(module.threshold)
    if mechanism != module.reset_mechanism:
        raise refusal(
            module, f"reset_mechanism changed from {mechanism} to {module.reset_mechanism}", "what it was built with"
        )
    if mechanism == "none":
        return LeakyIntegrator(beta), Threshold(threshold, strict=True)
    if mechanism == "zero" and not delay and not is_at_least(threshold, 0):
        raise refusal(module, f"threshold {np.min(threshold):g} with a reset to zero at once", "at least 0")
    reset: Literal["zero", "zero_late", "subtract_late", "subtract_once"]
    if mechanism == "subtract":
        reset = "subtract_late" if delay else "subtract_once"
    else:
        reset = "zero_late" if delay and kind != "Leaky" else "zero"
    return (DecayLIF(threshold, reset, strict=True, decay=beta),)


def _check(module: Any, kind: str) -> None:
    """Refuse releases that compute otherwise, and settings that no layer has."""
    if not hasattr(module, "reset_mem"):
        raise refusal(module, "a snnTorch older than 0.8, which resets otherwise,", f"a newer one, or {GIVE}")
    if kind == "Synaptic" and "mem" not in module._non_persistent_buffers_set:
        raise refusal(module, "the Synaptic of a snnTorch older than 0.9, which mixes up its states,", "a newer one")
    if module.inhibition:
        raise refusal(module, "inhibition=True, where neurons silence each other,", "inhibition=False")
    if module.state_quant:
        raise refusal(module, "state_quant, which rounds the potential,", "state_quant=False")
    factor = number(module.graded_spikes_factor)
    if np.any(factor != 1):
        raise refusal(module, f"graded_spikes_factor {np.max(factor):g}", "1, and the factor in the next weights")
    zero = module.threshold.detach().flatten()[:1].float() * 0
    for distance, spike in PROBES.items():
        fired = module.spike_grad(zero + distance)
        if float(fired.item()) != spike:
            raise refusal(
                module,
                f"spike_grad that is {fired.item():g} at {distance:g} above the threshold",
                f"{spike}, or {GIVE}",
            )


def _emitted(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _state(module: Any, kind: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return what finds the state: in what the module returns, or, if it hides it there, in itself."""
    names = ("syn", "mem") if kind == "Synaptic" else ("mem",)

    def state(output: Any) -> tuple[Any, ...]:
        return tuple(output[1:]) if isinstance(output, tuple) else tuple(getattr(module, name) for name in names)

    return state


def _states(module: Any, kind: str) -> tuple[State, ...]:
    """Return what the state holds: a reset of Leaky to zero shows one step later."""
    if module.reset_mechanism == "none":
        potential = State(-2, "emitted")
    elif kind == "Leaky" and module.reset_mechanism == "zero" and getattr(module, "reset_delay", True):
        potential = State(-1, "charge")
    else:
        potential = State()
    return (State(0, "emitted"), potential) if kind == "Synaptic" else (potential,)


def _reset(module: Any) -> None:
    module.reset_mem()
