"""What `eventsim.verify` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from eventsim.signals import FloatArray


@dataclass(frozen=True)
class LayerVerification:
    """How one layer compares with its dense form.

    Attributes
    ----------
    name, kind : str
        Layer, and its primitive.
    fires : bool
        Whether what is compared are spikes at a threshold.
    compared : int
        Values compared, over all time steps: of neurons, spikes and silences; of a layer that an image drives, those of
        one step.
    emitted : int
        Sum of the spikes or integers that the event-driven layer emitted; 0 for real values.
    differing : int
        Values that differ, from equal inputs.
    outside : int
        Of those, the ones that rounding does not explain.
    largest_distance : float
        From the threshold, of the potentials where spikes differ.
    largest_difference : float
        Of values; of neurons, of the potentials at the end of each piece of the time steps.
    largest_ratio : float
        Of a difference, or of a distance from the threshold, to eps = 2^-24 times the sum of the absolute terms.
    allowed : float
        The largest ratio that rounding explains: 8, more for values that are sums of many terms.
    end_to_end_differing : int
        Values that differ where everything before was dense, too.
    end_to_end_difference : float
        The largest of these differences.
    """

    name: str
    kind: str
    fires: bool
    compared: int
    emitted: int
    differing: int
    outside: int
    largest_distance: float
    largest_difference: float
    largest_ratio: float
    allowed: float
    end_to_end_differing: int
    end_to_end_difference: float

    @property
    def margin(self) -> float:
        """The share of the margin that the largest ratio is."""
        return self.largest_ratio / self.allowed

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as one plain row; None for a number that is not finite."""
        row = asdict(self)
        return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in row.items()}


@dataclass(frozen=True, eq=False, repr=False)
class Verification:
    """A network beside its dense form, on one sample.

    Attributes
    ----------
    network, name : str
        Of the network, and of the sample.
    time_steps : int
    layers : list of LayerVerification
        In order of execution.
    logits, dense_logits : float32 array (classes,)
        Of the event-driven network, and of the one that is dense from end to end.
    classifies : bool
        Whether the logits are scores of classes.
    """

    network: str
    name: str
    time_steps: int
    layers: list[LayerVerification]
    logits: FloatArray
    dense_logits: FloatArray
    classifies: bool = True

    @property
    def holds(self) -> bool:
        """Whether rounding explains everything that differs."""
        return not any(layer.outside for layer in self.layers)

    @property
    def equal(self) -> bool:
        """Whether nothing differs, not in a bit."""
        return not any(layer.differing or layer.end_to_end_differing for layer in self.layers)

    @property
    def compared(self) -> int:
        """Spikes and silences compared."""
        return sum(layer.compared for layer in self.layers if layer.fires)

    @property
    def differing(self) -> int:
        """Spikes that differ, from equal inputs."""
        return sum(layer.differing for layer in self.layers if layer.fires)

    @property
    def end_to_end_differing(self) -> int:
        """Spikes that differ where everything was dense."""
        return sum(layer.end_to_end_differing for layer in self.layers if layer.fires)

    @property
    def margin(self) -> float:
        """The largest share of the margin that any layer takes; rounding explains up to 1."""
        return max(layer.margin for layer in self.layers)

    @property
    def logit_difference(self) -> float:
        """The largest difference of a logit, end to end."""
        with np.errstate(invalid="ignore"):
            apart = np.abs(self.logits.astype(np.float64) - self.dense_logits)
        return float(np.where(self.logits == self.dense_logits, 0, apart).max())

    @property
    def prediction(self) -> int | None:
        """Index of the largest logit; None of a network without a head."""
        return int(np.argmax(self.logits)) if self.classifies else None

    @property
    def dense_prediction(self) -> int | None:
        """The same of the network that is dense from end to end."""
        return int(np.argmax(self.dense_logits)) if self.classifies else None

    @property
    def verdict(self) -> str:
        """The outcome in one line."""
        fire = [layer for layer in self.layers if layer.fires]
        if self.equal:
            others = [layer for layer in self.layers if not layer.fires]
            values = sum(layer.compared for layer in others)
            return (
                f"equal (bit for bit: {self.compared:,} spikes compared in {_layers(len(fire))}, {values:,} values in "
                f"{len(others)} others)"
            )
        first = next((layer for layer in self.layers if layer.outside), None)
        if first is not None:
            what = "spikes" if first.fires else "values"
            far = (
                f"{first.largest_distance:.3g} from the threshold" if first.fires else f"{first.largest_difference:.3g}"
            )
            return (
                f"differs (first layer {first.name}: {first.outside:,} of {first.compared:,} {what} that rounding does "
                f"not explain, up to {far}, {first.margin:.3g} times the margin)"
            )
        flipped = sum(layer.differing > 0 for layer in fire)
        return (
            f"differs only within the rounding margin ({self.differing:,} of {self.compared:,} spikes in "
            f"{_layers(flipped)}, at most {self.margin:.2g} of the margin; end to end "
            f"{self.end_to_end_differing:,} spikes and {self.logit_difference:.2g} in a logit, "
            f"{self._said_of_the_prediction()})"
        )

    def _said_of_the_prediction(self) -> str:
        if not self.classifies:
            return "no prediction"
        if self.prediction == self.dense_prediction:
            return f"prediction {self.prediction} on both sides"
        return f"prediction {self.prediction}, densely {self.dense_prediction}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain row for each layer, as any data frame takes them."""
        return [layer.to_dict() for layer in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "verdict": self.verdict,
            "equal": self.equal,
            "holds": self.holds,
            "time_steps": self.time_steps,
            "compared": self.compared,
            "differing": self.differing,
            "margin": _finite(self.margin),
            "end_to_end_differing": self.end_to_end_differing,
            "logit_difference": _finite(self.logit_difference),
            "prediction": self.prediction,
            "dense_prediction": self.dense_prediction,
            "layers": self.rows(),
        }

    def __repr__(self) -> str:
        return f"Verification({self.network!r}, {self.time_steps} time steps: {self.verdict})"


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _layers(count: int) -> str:
    return f"{count} layer" if count == 1 else f"{count} layers"
