r"""Nodes that hold a state: IF, LIF, CubaLIF, and those that never fire, I, LI, CubaLI.

They are differential equations. A time step of length dt is one step of Euler's method, or the exact solution:

.. math::
    h = v + \frac{dt}{\tau} \left(v_{leak} - v + r I\right) \qquad
    h = e^{-dt/\tau} v + (1 - e^{-dt/\tau}) (v_{leak} + r I) \qquad \text{IF:}\quad h = v + r I

In the IF and the I a spike is a pulse of unit area: the weights are used as they are, as in Norse and sinabs.
SpikingJelly writes r = 1 / dt for that same neuron, and is understood. The current of a CubaLIF is a neuron that never
fires, ``node.current``; the potential hears it in the same step. Membrane potentials are measured from v_reset.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from eventsim.layers import IF, LIF, PLIF, Affine, DecayLIF, Layer, LeakyIntegrator
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim.signals import SignalType
from eventsim_importers.nir.conventions import ROUNDING, Conventions
from eventsim_importers.nir.fields import Fields, Heard, Real, least, simplest
from eventsim_importers.nir.graph import Node

NONE = np.zeros(1)


class Leak(NamedTuple):
    """How a potential goes through a time step: ``v = decay v + gain x + shift``.

    Attributes
    ----------
    steps : float64 array
        The time constant, in time steps.
    decay, gain, shift : float64 array
    """

    steps: Real
    decay: Real
    gain: Real
    shift: Real


class Neurons:
    """Turns nodes with a state into layers.

    Parameters
    ----------
    fields : Fields
    conventions : Conventions
    loops : collection of Node
        Nodes that hear themselves.
    """

    def __init__(self, fields: Fields, conventions: Conventions, loops: Collection[Node]) -> None:
        self.fields = fields
        self.conventions = conventions
        self.loops = loops

    def integrate_and_fire(self, node: Node, heard: Heard) -> str:
        """Map the IF."""
        arriving = self.fields.type(heard)
        heard = self._pulses(node, heard)
        v_reset = self._v_reset(node, arriving)
        return self.fields.add(node, IF(**self._fire(node, arriving, v_reset, v_reset)), heard)

    def integrator(self, node: Node, heard: Heard) -> str:
        """Map the I."""
        return self.fields.add(node, LeakyIntegrator(), self._pulses(node, heard))

    def leaky_integrate_and_fire(self, node: Node, heard: Heard) -> str:
        """Map the LIF."""
        return self._fires(node, heard, "tau")

    def current_based(self, node: Node, heard: Heard) -> str:
        """Map the CubaLIF."""
        return self._fires(node, self._current(node, heard), "tau_mem")

    def leaky_integrator(self, node: Node, heard: Heard) -> str:
        """Map the LI."""
        return self._integrates(node, heard, "tau")

    def current_based_integrator(self, node: Node, heard: Heard) -> str:
        """Map the CubaLI."""
        return self._integrates(node, self._current(node, heard), "tau_mem")

    def _fires(self, node: Node, heard: Heard, tau: str) -> str:
        """Add the neuron, and before it a layer for what it has no place for.

        The forms that a neuron knows are v + (x - v) / tau, v - v / tau + x, and decay v + x.
        """
        arriving = self.fields.type(heard)
        self.fields.per_neuron(node, tau, arriving, infinite=True)
        v_reset = self._v_reset(node, arriving)
        v_leak = self.fields.per_neuron(node, "v_leak", arriving)
        leak = self._leak(node, arriving, tau, v_leak - v_reset)
        fire = self._fire(node, arriving, v_reset, v_leak)
        form = self._form(node)
        stored = self.fields.checkpoint.tensors.get(f"{node.key}.metadata.plif_w")
        layer: Layer
        if form == "euler":
            gain = leak.gain * leak.steps
            free = not leak.shift.any() and np.allclose(leak.gain, 1, ROUNDING, 0)
            shift = leak.shift * leak.steps
            if stored is not None:
                w = simplest(np.asarray(self.fields.per_neuron(node, "metadata.plif_w", arriving)))
                free = free and not np.allclose(leak.steps, 1, ROUNDING, 0)  # else both forms take all of the input
                layer = PLIF(w=w, decay_input=not free, **fire)
            else:
                layer = LIF(tau=simplest(leak.steps), decay_input=not free, **fire)
            if free:
                gain = np.ones(1)
        else:
            gain, shift = leak.gain, leak.shift
            layer = DecayLIF(decay=simplest(leak.decay), **fire)
        return self.fields.add(node, layer, self._scaled(node, heard, gain, shift))

    def _integrates(self, node: Node, heard: Heard, tau: str) -> str:
        arriving = self.fields.type(heard)
        v_leak = self.fields.per_neuron(node, "v_leak", arriving)
        leak = self._leak(node, arriving, tau, v_leak)
        start: Real = NONE
        if self.fields.has(node, "metadata.start"):
            start = self.fields.per_neuron(node, "metadata.start", arriving)
        elif v_leak.any() and self.conventions.value("start", node) == "v_leak":
            start = v_leak
        layer = LeakyIntegrator(simplest(leak.decay), simplest(start))
        return self.fields.add(node, layer, self._scaled(node, heard, leak.gain, leak.shift))

    def _current(self, node: Node, heard: Heard) -> str:
        """Add the current of a current-based neuron."""
        arriving = self.fields.type(heard)
        if self.fields.has(node, "w_in"):
            weight = self.fields.per_neuron(node, "w_in", arriving, infinite=True)
        else:
            weight = np.ones(1)
        unscaled = self.conventions.framework == "norse"  # which adds what arrives to its current, and writes w_in = 1
        leak = self._leak(node, arriving, "tau_syn", NONE, weight, unscaled)
        if not self.conventions.known:
            self.fields.checkpoint.assume("current", None, "heard by the potential in the same step, as in Norse")
        scaled = self._scaled(node, heard, leak.gain, NONE, ".input")
        return self.fields.add(node, LeakyIntegrator(simplest(leak.decay)), scaled, suffix=".synapse")

    def _leak(
        self,
        node: Node,
        arriving: SignalType,
        tau: str,
        rest: Real,
        gain: Real | None = None,
        unscaled: bool = False,
    ) -> Leak:
        """Work out one time step, in float64."""
        dt = self.conventions.dt
        seconds = self.fields.per_neuron(node, tau, arriving, infinite=True)
        r = self.fields.per_neuron(node, "r", arriving, infinite=True) if gain is None else gain
        exponential = self.conventions.value("decay", node) == "exponential"
        self._check_tau(node, tau, seconds, exponential)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = seconds / dt
            steps = np.where((steps < 1) & (steps > 1 - ROUNDING), 1.0, steps)
            kept = np.exp(-1 / steps) if exponential else 1 - 1 / steps
            share = 1 - kept if exponential else 1 / steps
            reached = r * share
        never = np.isinf(seconds) & np.isinf(r)
        reached = np.where(never, 1.0, reached)  # tau = r dt beyond all bounds
        if not np.isfinite(reached).all():
            raise self.fields.error(node, f"{tau} or {'r' if gain is None else 'w_in'} that is infinite found")
        self._check_gain(node, tau, r, reached)
        if unscaled:
            reached = np.broadcast_to(r, reached.shape)
        decays = self._decays_input(node)
        if decays is not None and gain is None:
            reached = (
                r * share if decays else (reached / share if not np.allclose(reached, 1, ROUNDING, 0) else reached)
            )
        if np.allclose(reached, 1, ROUNDING, 0):
            reached = np.ones(1)
        return Leak(steps, kept, reached, share * rest if rest.any() else NONE)

    def _decays_input(self, node: Node) -> bool | None:
        """Whether what arrives is scaled by what leaks; None where r says so.

        sinabs writes the same r either way: its LIF scales by default, its ExpLeak does not.
        """
        stated = self.conventions.choose.stated("decay_input")
        if stated is not None:
            return bool(stated)
        if self.conventions.framework == "sinabs":
            value = node.type != "LI"
            return bool(self.conventions.choose.inferred("decay_input", value, f"the {node.type} of framework sinabs"))
        return None

    def _check_tau(self, node: Node, name: str, tau: Real, exponential: bool) -> None:
        dt = self.conventions.dt
        least_tau = dt / 10 if exponential else dt
        if (tau <= 0).any() or (tau < least_tau * (1 - ROUNDING)).any():
            framework = self.conventions.framework
            of = f" (framework {framework})" if framework != "nir" else ""
            raise self.fields.error(
                node, f"{name} {tau.min():g} found; expected at least dt = {dt:g}{of}; set a smaller dt"
            )

    def _check_gain(self, node: Node, tau: str, r: Real, reached: Real) -> None:
        """Refuse an r that the framework does not write."""
        framework = self.conventions.framework
        name = "w_in" if tau == "tau_syn" else "r"
        written, fits = "", True
        if framework == "snntorch":
            written, fits = f"{tau} / dt", np.allclose(reached, 1, 1e-4, 0)
        elif framework == "norse" or (framework == "sinabs" and name == "r"):
            written, fits = "1", np.allclose(r, 1, ROUNDING, 0)
        elif framework == "spikingjelly":
            written, fits = f"1 or {tau} / dt", np.allclose(reached, 1, 1e-4, 0) or np.allclose(r, 1, ROUNDING, 0)
        if not fits:
            raise self.fields.error(
                node, f"{name} {r.flat[0]:g} found; framework {framework} writes {written}, set another framework"
            )

    def _form(self, node: Node) -> str:
        """Return the arithmetic of the decay; SpikingJelly's current-based neuron has another than its LIF."""
        form = str(self.conventions.value("decay", node))
        if form == "euler" and self.conventions.framework == "spikingjelly" and node.type == "CubaLIF":
            return "multiply"
        return form

    def _pulses(self, node: Node, heard: Heard) -> Heard:
        """Scale what arrives by r, unless a spike is a pulse of unit area anyway."""
        r = self.fields.per_neuron(node, "r", self.fields.type(heard))
        if (r == 1).all() or np.allclose(r * self.conventions.dt, 1, ROUNDING, 0):
            return heard
        framework = self.conventions.framework
        if framework in ("norse", "sinabs", "spikingjelly"):
            written = f"1 / dt = {1 / self.conventions.dt:g}" if framework == "spikingjelly" else "1"
            raise self.fields.error(
                node, f"r {r.flat[0]:g} found; framework {framework} writes {written}, set another framework or dt"
            )
        return self._scaled(node, heard, r, NONE)

    def _scaled(self, node: Node, heard: Heard, gain: Real, shift: Real, suffix: str = ".current") -> Heard:
        """Add a layer for gain and shift, if there are any."""
        gain, shift = (np.asarray(each, np.float32).astype(np.float64) for each in (gain, shift))
        if (gain == 1).all() and not shift.any():
            return heard
        layer = Affine(least(gain), least(shift) if shift.any() else None)
        return self.fields.add(node, layer, heard, suffix=suffix)

    def _v_reset(self, node: Node, arriving: SignalType) -> Real:
        """Take the reset potential; files of NIR 0.2 have none and mean 0."""
        if not self.fields.has(node, "v_reset"):
            if not self.conventions.known:
                self.fields.checkpoint.assume("v_reset", 0, "not in the checkpoint, NIR's default")
            return NONE
        v_reset = self.fields.per_neuron(node, "v_reset", arriving)
        if v_reset.any() and self.conventions.framework in ("snntorch", "sinabs", "lava"):
            raise self.fields.error(
                node,
                f"v_reset {v_reset[v_reset != 0].flat[0]:g} found; framework {self.conventions.framework} resets to 0, "
                "set another framework",
            )
        return v_reset

    def _fire(self, node: Node, arriving: SignalType, v_reset: Real, v_leak: Real) -> dict[str, Any]:
        """Return what every neuron that fires has, measured from v_reset."""
        conventions = self.conventions
        threshold = self.fields.per_neuron(node, "v_threshold", arriving) - v_reset
        if (at_once := int(np.count_nonzero(threshold <= 0))) and v_reset.size:
            self.fields.checkpoint.assume(
                "v_reset",
                None,
                f"at or above v_threshold for {at_once} of {threshold.size} values of node {node.name}: a neuron there "
                "fires without input",
            )
        floor = self._floor(node, arriving)
        return {
            "v_threshold": simplest(threshold),
            "reset": conventions.reset(node, node in self.loops),
            "strict": bool(conventions.value("strict", node)),
            "multiple_spikes": bool(conventions.value("multiple_spikes", node)),
            "start": self._start(node, arriving, v_reset, v_leak),
            "v_min": None if floor is None else simplest(floor - v_reset),
        }

    def _floor(self, node: Node, arriving: SignalType) -> Real | None:
        if self.conventions.choose.options.v_min is None and self.fields.has(node, "metadata.v_min"):
            return self.fields.per_neuron(node, "metadata.v_min", arriving)
        number = self.conventions.number("v_min", node)
        return None if number is None else np.full(1, float(str(number)))

    def _start(self, node: Node, arriving: SignalType, v_reset: Real, v_leak: Real) -> PerNeuron:
        """Return where potentials start; it is said where that makes a difference."""
        if self.conventions.choose.options.start is None and self.fields.has(node, "metadata.start"):
            return simplest(self.fields.per_neuron(node, "metadata.start", arriving) - v_reset)
        if not v_reset.any() and not v_leak.any():
            return 0.0
        starts = {"v_reset": v_reset, "v_leak": v_leak, "zero": NONE}
        return simplest(starts[str(self.conventions.value("start", node))] - v_reset)
