"""Leaky neuron given by what is left of its potential after a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eventsim.kernels.dynamics import DECAY
from eventsim.layers.dense import spread
from eventsim.layers.neurons.spiking import Neuron, PerNeuron
from eventsim.signals import FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class DecayLIF(Neuron):
    r"""LIF neuron that keeps a share of its potential: snnTorch's ``Leaky``, sinabs' ``LIF``, Lava's ``LIF``.

    .. math:: h = \beta v + x

    With :math:`\beta = 1 - 1 / \tau` it is `LIF` without ``decay_input`` but for the rounding; with
    :math:`e^{-1/\tau}` the exact solution between two steps.

    Parameters
    ----------
    decay : float or float32 array
        Beta.
    """

    decay: PerNeuron = 0.5

    charge: ClassVar[int] = DECAY

    def charged(self, v: FloatArray, x: FloatArray) -> FloatArray:
        """Return the charge, v multiplied by beta."""
        return v * spread(self.decay, x.shape) + x

    @property
    def constant(self) -> PerNeuron:
        """Beta."""
        return self.decay
