r"""sinabs: ``IAF``, ``LIF``, ``ExpLeak``, and their ``Squeeze`` twins.

.. math::
    i = \alpha_{syn} (i + x), \quad h = \alpha v + i \;\text{or}\; \alpha v + (1 - \alpha) i, \quad \alpha = e^{-1/\tau}

Without `tau_syn` i is x. As many spikes are emitted in a step as the threshold goes into h, or one at most
(``SingleSpike``), from the threshold on; they are subtracted, or v becomes 0. At the end of a step v is lifted to
`min_v_mem`. An ``ExpLeak`` never fires, and passes on h.

The input is ``(batch, time, ...)``, that of a ``Squeeze`` ``(batch * time, ...)``: for a batch of 1, time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from eventsim.layers import IF, DecayLIF, Layer, LeakyIntegrator
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim_importers.torch_program.neurons.classes import GIVE, Classes, named, refusal
from eventsim_importers.torch_program.neurons.parameters import is_at_least, number, plain, scaled
from eventsim_importers.torch_program.neurons.protocol import Neuron

SPIKING = ("IAF", "LIF", "ExpLeak")
CLASSES = Classes(
    "sinabs",
    modules=tuple(f"sinabs.layers.{name}" for name in ("stateful_layer", "lif", "iaf", "alif", "exp_leak")),
    known=(*SPIKING, *(f"{name}Squeeze" for name in SPIKING)),
)


def read(module: Any) -> Neuron | None:
    """Return what a module of sinabs is, None if it is no neuron.

    Raises
    ------
    InputError
        If it is a neuron that is not known, or set to do what no layer does; from ``emitted`` if a squeezed batch was
        larger than 1.
    """
    kind = CLASSES.kind(module)
    if kind is None:
        return None
    alpha = number(module.alpha_mem_calculated)
    layers: tuple[Layer, ...] = ()
    gain: PerNeuron = plain(1 - np.asarray(alpha, np.float32)) if module.norm_input else 1.0
    synapse = module.alpha_syn_calculated
    if synapse is not None:  # its layer holds i + x
        layers = (LeakyIntegrator(number(synapse)),)
        gain = plain(np.float32(gain) * np.asarray(number(synapse), np.float32))
    layers += (*scaled(gain), _membrane(module, alpha))
    squeezed = kind.endswith("Squeeze")
    emitted = _squeezed(module) if squeezed else lambda output: output
    return Neuron(layers, 0 if squeezed else 1, emitted, lambda output: (), module.reset_states)


def _squeezed(module: Any) -> Callable[[Any], Any]:
    """Return what checks that the batch was 1: it is given, or what the time steps leave."""
    if module.batch_size > 1:
        raise refusal(module, f"batch_size {module.batch_size}", "1")

    def emitted(output: Any) -> Any:
        if module.num_timesteps > 0 and len(output) != module.num_timesteps:
            raise refusal(
                module, f"{len(output)} entries for num_timesteps {module.num_timesteps}", "as many: a batch of 1"
            )
        return output

    return emitted


def _membrane(module: Any, alpha: PerNeuron) -> Layer:
    floor = None if module.min_v_mem is None else number(module.min_v_mem)
    if module.spike_fn is None:
        if floor is not None:
            raise refusal(module, f"min_v_mem {np.max(floor):g} of a neuron that never fires", "none")
        return LeakyIntegrator(alpha)
    threshold = number(module.spike_threshold)
    multiple = _spikes(module, threshold)
    reset = _reset(module, threshold)
    if np.all(np.asarray(alpha) == 1):
        return IF(threshold, reset, multiple_spikes=multiple, v_min=floor)
    return DecayLIF(threshold, reset, decay=alpha, multiple_spikes=multiple, v_min=floor)


def _spikes(module: Any, threshold: PerNeuron) -> bool:
    """Whether there may be several in a step."""
    package, name = named(module.spike_fn)
    most = getattr(module.spike_fn, "max_num_spikes_per_bin", None)
    if package == "sinabs" and name == "SingleSpike":
        return False
    if package == "sinabs" and (name == "MultiSpike" or (name == "MaxSpike" and most in (None, 1))):
        if not is_at_least(threshold, np.nextafter(np.float32(0), np.float32(1))):
            raise refusal(module, f"spike_threshold {np.min(threshold):g} of {name}", "more than 0")
        return most is None
    raise refusal(
        module, f"spike_fn {name}" + ("" if most is None else f" of {most}"), f"MultiSpike or SingleSpike, or {GIVE}"
    )


def _reset(module: Any, threshold: PerNeuron) -> Literal["zero", "subtract"]:
    method, name = module.reset_fn, named(module.reset_fn)
    if name == ("sinabs", "MembraneReset"):
        if method.reset_value:
            raise refusal(module, f"reset_value {method.reset_value:g}, which is added to silent neurons too,", "0")
        return "zero"
    if name == ("sinabs", "MembraneSubtract"):
        value = method.subtract_value
        if value is not None and np.any(number(value) != np.asarray(threshold)):
            raise refusal(module, f"subtract_value {np.max(number(value)):g}", "the spike_threshold, or None")
        return "subtract"
    raise refusal(module, f"reset_fn {name[1]}", f"MembraneSubtract or MembraneReset, or {GIVE}")
