"""What a NIR file does not say, and what each framework that writes such files means by them.

NIR has no field for the time step, the reset, the comparison, the value at the start, several spikes in a step, a floor
under the potential, the form of the decay, or the delay of a cycle. The framework that wrote a file fixes all of them.

============ ====== ============== ====== ======= =========== ===== ===============================================
framework    dt     reset          strict start   decay       cycle recurrence
============ ====== ============== ====== ======= =========== ===== ===============================================
nir          0.0001 zero           yes    v_reset euler       none  the definition, by one step of Euler's method
norse        0.001  zero           yes    v_leak  euler       1     h = v + dt/tau (v_leak - v + x)
snntorch     0.0001 subtract, late yes    v_reset multiply    1     h = beta v + x - S[t-1] threshold, v = h
sinabs       1      subtract       no     v_reset exponential 1     h = a v + (1 - a) x, several spikes in a step
spikingjelly 0.0001 zero           no     v_reset euler       1     h = v + (x - (v - v_reset)) / tau
lava         0.0001 zero           yes    zero    multiply    1     h = (1 - dt/tau) v + dt/tau x
============ ====== ============== ====== ======= =========== ===== ===============================================

Read from, and compared spike for spike with, Norse 1.1.0, snnTorch 1.0.0, sinabs 3.1.3 and SpikingJelly 2.0.0; for Lava
see the example ``nir_to_lava.py`` of github.com/neuromorphs/NIR.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from eventsim.errors import InputError
from eventsim.settings import Plain, Setting
from eventsim.signals import FLOAT32_MAX
from eventsim_importers.nir.graph import Graph, Node
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import NOT_STATED, Chooser

ROUNDING = 1e-6
"""Relative error by which a stored number may miss what it was computed as: all of them were rounded to float32."""

PULSE = 10.0
"""An r of an IF from here on, the same for all, is 1 / dt and no resistance."""

NORSE_DT = 1e-3

Reset = Literal["zero", "subtract", "subtract_late", "subtract_once", "zero_late"]
Framework = Literal["nir", "norse", "snntorch", "sinabs", "spikingjelly", "lava"]
Decay = Literal["euler", "multiply", "exponential"]


@dataclass(frozen=True)
class Convention:
    """What a framework fixes; the names are those of the options."""

    dt: float = 1e-4
    reset: str = "zero"
    reset_delay: bool = False
    strict: bool = True
    start: str = "v_reset"
    multiple_spikes: bool = False
    v_min: str = "none"
    decay: Decay = "euler"
    cycle_delay: int = 1


CONVENTIONS: dict[str, Convention] = {
    "nir": Convention(cycle_delay=0),
    "norse": Convention(dt=NORSE_DT, start="v_leak"),
    "snntorch": Convention(reset="subtract", reset_delay=True, decay="multiply"),
    "sinabs": Convention(dt=1.0, reset="subtract", strict=False, multiple_spikes=True, decay="exponential"),
    "spikingjelly": Convention(strict=False),
    "lava": Convention(start="zero", decay="multiply"),
}


class Conventions:
    """Chooses values: what the user says, else the file's metadata, else what the framework fixes.

    Parameters
    ----------
    checkpoint : Checkpoint
    options : dataclass instance
    graph : Graph
    """

    def __init__(self, checkpoint: Checkpoint, options: Any, graph: Graph) -> None:
        self.checkpoint = checkpoint
        self.choose = Chooser(checkpoint, options)
        self.graph = graph

    @cached_property
    def framework(self) -> str:
        """Who wrote the file: stated, recognised, or assumed to be nobody in particular."""
        stated = self.choose.stated("framework")
        if stated is not None:
            return str(stated)
        for recognised, why in (self._pulses(), self._short_tau(), self._recurrent()):
            if recognised:
                return str(self.choose.inferred("framework", recognised, why))
        return str(self.choose("framework", "nir"))

    @property
    def convention(self) -> Convention:
        """What the framework fixes."""
        return CONVENTIONS[self.framework]

    def _pulses(self) -> tuple[str, str]:
        """SpikingJelly gives every IF an r of 1 / dt."""
        r = self._pulse
        if r is None or (self._stated_dt not in (None, 0) and abs(r * float(self._stated_dt or 0) - 1) > ROUNDING):
            return "", ""
        return "spikingjelly", f"r = {r:g} = 1 / dt of every IF"

    def _short_tau(self) -> tuple[str, str]:
        """Norse writes dt tau for tau: shorter than any time step that others use."""
        shortest = self._shortest_tau
        if self._stated_dt is not None or shortest is None or shortest[0] >= CONVENTIONS["nir"].dt * (1 - ROUNDING):
            return "", ""
        return "norse", f"{shortest[1]} of {shortest[0]:g}, shorter than a time step: dt tau, as Norse writes it"

    def _recurrent(self) -> tuple[str, str]:
        """SnnTorch makes a graph of its recurrent neurons, with nodes of its own names."""
        names = {node.name for node in self.graph.nodes.values()}
        for name in sorted(names):
            rnn = name.removesuffix(".w_rec")
            if rnn != name and f"{rnn}.lif" in names:
                return "snntorch", f"nodes {rnn}.lif and {name}, as snnTorch names them"
        return "", ""

    @cached_property
    def _pulse(self) -> float | None:
        """The r of all IF nodes, where it is the same and no resistance."""
        values = [self.checkpoint.tensors.get(f"{node.key}.r") for node in self.graph.of_type("IF")]
        if not values or any(value is None or value.size == 0 or value.dtype.kind != "f" for value in values):
            return None
        every = np.concatenate([np.ravel(value) for value in values if value is not None]).astype(np.float64)
        r = float(every[0])
        return r if np.isfinite(r) and r >= PULSE and np.allclose(every, r, ROUNDING, 0) else None

    @cached_property
    def _ratio(self) -> float | None:
        """The tau / r of all leaky neurons with an r other than 1, where it is the same: dt, if input is not scaled."""
        ratios = []
        for node in self.graph.of_type("LIF", "CubaLIF"):
            tau, r = (
                self.checkpoint.tensors.get(f"{node.key}.{field}")
                for field in ("tau" if node.type == "LIF" else "tau_mem", "r")
            )
            if tau is None or r is None or tau.shape != r.shape or tau.dtype.kind != "f" or r.dtype.kind != "f":
                return None
            scaled = np.isfinite(tau) & np.isfinite(r) & (r != 1) & (r != 0)
            ratios.append(tau[scaled].astype(np.float64) / r[scaled])
        every = np.concatenate(ratios) if ratios else np.empty(0)
        return float(every[0]) if every.size and np.allclose(every, every[0], 1e-5, 0) and every[0] > 0 else None

    @cached_property
    def _shortest_tau(self) -> tuple[float, str] | None:
        """The shortest time constant of the file and where it is."""
        found = []
        for node in self.graph.of_type("LIF", "LI", "CubaLIF", "CubaLI"):
            for field in ("tau", "tau_mem", "tau_syn"):
                value = self.checkpoint.tensors.get(f"{node.key}.{field}")
                if value is not None and value.size and value.dtype.kind == "f" and np.isfinite(value).any():
                    found.append((float(np.nanmin(value)), f"{field} of node {node.name}"))
        positive = [each for each in found if each[0] > 0]
        return min(positive, default=None)

    @cached_property
    def _stated_dt(self) -> float | None:
        value = self.choose.stated("dt")
        return None if value is None else float(value)

    @cached_property
    def dt(self) -> float:
        """Length of a time step."""
        dt = self._dt()
        if not dt > 0:
            raise InputError(f"{self.checkpoint.path}: dt={dt} found; expected a time step longer than 0")
        return dt

    def _dt(self) -> float:
        if self._stated_dt is not None:
            return self._stated_dt
        framework, shortest = self.framework, self._shortest_tau
        if framework == "spikingjelly" and self._pulse is not None:
            return float(
                self.choose.inferred("dt", float(f"{1 / self._pulse:.6g}"), f"r = {self._pulse:g} of every IF")
            )
        if framework in ("snntorch", "spikingjelly") and self._ratio is not None:
            note = "tau / r of every neuron with an r other than 1"
            return float(self.choose.inferred("dt", float(f"{self._ratio:.5g}"), note))
        if framework == "norse" and shortest is not None and shortest[0] < NORSE_DT * (1 - ROUNDING):
            note = f"Norse writes dt tau for tau: {shortest[1]} is {shortest[0]:g}, with its dt = {NORSE_DT:g}"
            return float(self.choose.inferred("dt", float(f"{NORSE_DT**2:.6g}"), note))
        return float(self._fixed("dt", self.convention.dt))

    def value(self, name: str, node: Node | None = None) -> Any:
        """Return the value of an option for a node, and note where it comes from."""
        given = getattr(self.choose.options, name)
        stored = None if node is None or given is not None else self._stored(f"{node.key}.metadata.{name}")
        if node is not None and stored is not None:
            try:
                value = self.choose.declared[name].convert(stored)
            except ValueError as error:
                raise InputError(
                    f"{self.checkpoint.path}: node {node.name} ({node.type}): metadata {name}={stored!r} found; "
                    f"expected {error}"
                ) from None
            alike = stored == self.checkpoint.metadata.get(name)
            self.checkpoint.say(Setting(name, value, "metadata", "" if alike else f"of node {node.name}"))
            return value
        stated = self.choose.stated(name)
        if stated is not None:
            return stated
        if name == "strict" and getattr(self.choose.options, "multiple_spikes", None) and self.convention.strict:
            return self.choose.inferred("strict", False, "multiple_spikes, which are counted from the threshold on")
        return self._fixed(name, getattr(self.convention, name))

    def _stored(self, key: str) -> str | None:
        """Return a text or a single number of the metadata as text."""
        number = self.checkpoint.tensors.get(key)
        if number is not None and number.size == 1:
            return str(number.item())
        return self.checkpoint.metadata.get(key)

    def _fixed(self, name: str, value: Any) -> Any:
        """Take what the framework fixes: an inference, or an assumption where nobody said which it is."""
        if self.known:
            self.checkpoint.say(Setting(name, value, "inferred", f"framework {self.framework}"))
        else:
            self.checkpoint.assume(name, value, NOT_STATED)
        return value

    @property
    def known(self) -> bool:
        """Whether the framework is more than an assumption."""
        framework = self.framework
        return framework != "nir" or not any(
            each.option == "framework" and each.source == "assumed" for each in self.checkpoint.settings
        )

    def reset(self, node: Node, recurrent: bool) -> Reset:
        """Return the reset of a neuron, its delay included.

        snnTorch's reset by subtraction, where it is not delayed, does not happen twice in succession. Its reset to zero
        with a delay takes the input of the next step too, in recurrent neurons and those with a current; in others
        it is the same as one at once. RSynaptic delays always.
        """
        reset = str(self.value("reset", node))
        if reset not in ("zero", "subtract"):
            if getattr(self.choose.options, "reset_delay", None) is not None:
                raise InputError(f"option reset_delay beside reset={reset} found; expected it with zero or subtract")
            return reset  # type: ignore[return-value]
        late = bool(self.value("reset_delay", node))
        snntorch = self.framework == "snntorch"
        current = node.type == "CubaLIF"
        late |= snntorch and recurrent and current
        if reset == "zero":
            return "zero_late" if late and snntorch and (recurrent or current) else "zero"
        if late:
            return "subtract_late"
        return "subtract_once" if snntorch else "subtract"

    def number(self, name: str, node: Node) -> Plain | None:
        """Return a value that is a word or a number, such as ``v_min``, as a number; None for the word ``none``."""
        text = self.value(name, node)
        if text == "none":
            return None
        try:
            number = float(text)
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) <= FLOAT32_MAX:
            raise InputError(
                f"{self.checkpoint.path}: option {name}={text} found; expected a number, at most {FLOAT32_MAX:.6g}, "
                "or none"
            )
        return number
