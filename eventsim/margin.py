"""The rule of rounding: where two executions of a layer on equal inputs may differ.

With real weights the order of float32 additions differs, so that a neuron near its threshold may flip. A spike may
differ only where the potential is as near to the threshold as additions in another order can make it, a value only by
as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from eventsim.layers.dense import Reals
from eventsim.layers.layer import Layer
from eventsim.layers.neurons.adaptive_lif import AdaptiveLIF
from eventsim.layers.neurons.spiking import LATE, DenseStep, Flags, Neuron
from eventsim.signals import FloatArray, SignalType

Layered = TypeVar("Layered", bound=Neuron | AdaptiveLIF)

ALLOWED = 8
"""Largest ratio of a difference to what rounding makes of the terms of a sum."""
EPSILON = float(np.finfo(np.float32).eps) / 2
SMALLEST = float(np.finfo(np.float32).tiny)
"""Values below it have fewer digits, or are zeros."""


def allowed_for(products: float, additions: float) -> float:
    r"""Return the ratio allowed for a real value: :math:`\max(8, 2\sqrt{p} + a)`.

    Each addition is off by up to eps times the sum so far. Where weights are multiplied, that goes to both sides alike:
    for p terms of equal sign, the worst case, the standard deviation is :math:`\sqrt{p}/3` times eps and the sum, and
    twice the root is six of them, which one value in 500 million exceeds (after Higham and Mary, "A new approach to
    probabilistic rounding error analysis", SIAM J. Sci. Comput., 2019). Where values are added as they are, they may be
    equal, and then every addition is off to the same side, by up to a eps in all. For spikes it is 8 whatever they are
    made of.

    Parameters
    ----------
    products : float
        Weighted terms of the sum that a value is.
    additions : float
        Real values that are added as they are.
    """
    return max(ALLOWED, 2 * math.sqrt(products) + additions)


def allowed_by(layer: Layer, sources: Sequence[SignalType], output: SignalType, steps: int) -> float:
    """Return the ratio allowed for the real values of a layer whose sums hold so many time steps, 1 without memory."""
    products = layer.dense_macs(*sources) / output.size
    if products:
        return allowed_for(products * steps, 0)
    largest = max((source.size for source in sources if source.kind == "real"), default=0)
    return allowed_for(0, largest / output.size * steps)  # integers are added without rounding


Step: TypeAlias = Callable[[FloatArray, FloatArray], tuple[DenseStep, FloatArray]]
"""From potentials and inputs of one time step to what happens in it, and to the potentials that it leaves."""


@dataclass
class Differences:
    """How two executions of one layer differ, added up over time.

    Attributes
    ----------
    compared : int
        Values.
    differing : int
        Values that differ.
    outside : int
        Of those, the ones that rounding does not explain.
    largest_difference : float
        Of values, or of potentials.
    largest_distance : float
        From the threshold, of potentials where spikes differ.
    largest_ratio : float
        Of a difference, or such a distance, to eps times the sum of absolute terms.
    allowed : float
        The largest ratio that rounding explains.
    """

    compared: int = 0
    differing: int = 0
    outside: int = 0
    largest_difference: float = 0.0
    largest_distance: float = 0.0
    largest_ratio: float = 0.0
    allowed: float = field(default_factory=lambda: ALLOWED)

    def take_values(self, ours: FloatArray, theirs: FloatArray, terms: npt.ArrayLike | None) -> None:
        """Compare values; those that are exact have no terms and must be equal."""
        self.compared += theirs.size
        wrong = ours != theirs
        if not wrong.any():
            return
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(ours.astype(np.float64) - theirs)[wrong]
            allowed = 0.0 if terms is None else (np.asarray(terms, np.float64) + np.abs(theirs))[wrong]
            ratio = difference / (EPSILON * allowed + SMALLEST)
        self._note(difference, ratio)
        self.largest_difference = max(self.largest_difference, _largest(difference))

    def take_spikes(self, wrong: Flags, distance: Reals, allowed: Reals) -> None:
        """Note where spikes differ, how far the potential is from the threshold there, and the terms of its sum."""
        self.compared += wrong.size
        if not wrong.any():
            return
        far = distance[wrong]
        self._note(far, far / (EPSILON * allowed[wrong] + SMALLEST))
        self.largest_distance = max(self.largest_distance, _largest(far))

    def take_held(self, wrong: Flags, difference: Reals, allowed: Reals, explained: Flags) -> None:
        """Note where potentials differ, by how much, and the terms of their sums; some are explained by a spike."""
        self.compared += wrong.size
        if not wrong.any():
            return
        ratio = np.where(explained, 0.0, difference / (EPSILON * allowed + SMALLEST))
        self._note(difference[wrong], ratio[wrong])
        self.largest_difference = max(self.largest_difference, _largest(difference[wrong & ~explained]))

    def _note(self, difference: Reals, ratio: Reals) -> None:
        self.differing += difference.size
        self.outside += int((~(ratio <= self.allowed)).sum())  # NaN is outside, too
        self.largest_ratio = max(self.largest_ratio, _largest(ratio))


def _largest(values: Reals) -> float:
    return float(np.max(np.where(np.isnan(values), np.inf, values), initial=0))


@dataclass
class Beside(Generic[Layered]):
    """Neurons that are stepped through beside those of another execution.

    Parameters
    ----------
    layer : Neuron or AdaptiveLIF
    threshold : float32 array
        That broadcasts to the potentials.
    floor : float32 array or None
        Likewise, the lowest potential.
    step : callable
        See `Step`.
    potential : float32 array
        At the beginning of the sample, in any order of axes that the other arrays have too.
    """

    layer: Layered
    threshold: FloatArray
    floor: FloatArray | None
    step: Step
    potential: FloatArray


@dataclass
class Firing(Beside[Neuron | AdaptiveLIF]):
    r"""Neurons stepped through beside the spikes of another execution, whose side they take where one differs.

    A spike may differ only where

    .. math:: |v - \theta| \le 8\, \epsilon \Big(\sum |w x| + |bias| + |v|\Big), \qquad \epsilon = 2^{-24}

    over the inputs of that neuron since its last reset to a value.
    """

    sums: Reals = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros(self.potential.shape)

    def take(self, current: FloatArray, theirs: FloatArray, terms: npt.ArrayLike, differences: Differences) -> None:
        """Go on by the time steps of some inputs, beside the other's spikes; `terms` are those of the inputs."""
        threshold = self.threshold
        for x, fired, added in zip(current, theirs, np.asarray(terms), strict=True):
            happened, after = self.step(self.potential, x)
            charged = happened.charged
            self.sums += added if happened.terms is None else happened.terms + added
            wrong = happened.spikes != fired
            # every threshold between the two numbers of spikes
            ends = threshold * (np.minimum(happened.spikes, fired) + 1), threshold * np.maximum(happened.spikes, fired)
            distance = np.maximum(*(np.abs(charged.astype(np.float64) - end) for end in ends))
            differences.take_spikes(wrong, distance, self.sums + np.abs(charged) + np.abs(threshold))
            if wrong.any():
                corrected = _after(self.layer, charged, fired, threshold, happened.late)
                if self.floor is not None:
                    corrected = np.maximum(corrected, self.floor)
                after = np.where(wrong, corrected, after)
            if self.layer.reset == "zero":
                self.sums[fired != 0] = 0
            self.potential = after


@dataclass
class Holding(Beside[Neuron]):
    r"""Neurons that emit charges or potentials, beside others from whose potential each step goes on.

    A potential may differ as a spike may, by what rounding makes of the terms of one step. Where the charge is so near
    to the threshold that rounding explains a spike, it explains the reset.
    """

    def take(self, current: FloatArray, theirs: FloatArray, terms: npt.ArrayLike, differences: Differences) -> None:
        """Go on by the time steps of some inputs, beside what the other emits; `terms` are those of the inputs."""
        threshold = self.threshold
        for x, held, added in zip(current, theirs, np.asarray(terms, np.float64), strict=True):
            happened, after = self.step(self.potential, x)
            charged = happened.charged
            ours = charged if self.layer.emits == "charge" else after
            wrong = ours != held
            allowed = added + np.abs(self.potential) + np.abs(charged) + np.abs(threshold)
            tied = np.abs(charged.astype(np.float64) - threshold) <= ALLOWED * EPSILON * allowed
            explained = tied & (self.layer.emits == "potential")
            differences.take_held(wrong, np.abs(ours.astype(np.float64) - held), allowed, explained)
            self.potential = np.asarray(self._left(after, held, wrong), np.float32)

    def _left(self, after: FloatArray, held: FloatArray, wrong: Flags) -> FloatArray:
        """Return the potentials that a step of the other leaves, as far as what it emits tells."""
        layer, threshold = self.layer, self.threshold
        if layer.emits == "potential":
            return held
        if layer.reset in ("subtract_late", "zero_late"):
            return held if self.floor is None else np.maximum(held, self.floor)
        if layer.reset == "subtract_once" or not wrong.any():
            return after
        above = np.greater if layer.strict else np.greater_equal
        times = np.trunc(held / threshold) if layer.multiple_spikes else 1
        fired = np.asarray(above(held, threshold) * times, np.float32)
        left = _after(layer, held, fired, threshold, fired > 0)
        return np.where(wrong, left if self.floor is None else np.maximum(left, self.floor), after)


def _after(
    layer: Neuron | AdaptiveLIF, charged: FloatArray, fired: FloatArray, threshold: FloatArray, late: Flags
) -> FloatArray:
    """Return the potentials that the other's spikes leave, where it took the other side of the threshold."""
    if layer.reset not in LATE:
        return np.asarray(np.where(fired != 0, 0, charged) if layer.reset == "zero" else charged - fired * threshold)
    # of a reset that is to come, the potential itself tells whether there was a spike
    above = np.nextafter(threshold, np.float32(np.inf)) if layer.strict else threshold
    below = threshold if layer.strict else np.nextafter(threshold, -np.float32(np.inf))
    beside = np.where(fired != 0, above, below)
    if layer.reset == "subtract_once":
        return np.where(late == (fired != 0), beside, charged - (fired - late) * threshold).astype(np.float32)
    return beside.astype(np.float32)
