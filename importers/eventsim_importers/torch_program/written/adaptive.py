"""Neurons with coefficients of their own, as `eventsim.layers.AdaptiveLIF`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import AdaptiveLIF, Layer
from eventsim.signals import FloatArray
from eventsim_importers.torch_program.neurons.protocol import Neuron
from eventsim_importers.torch_program.written.expressions import Reals
from eventsim_importers.torch_program.written.gates import StepAttention

if TYPE_CHECKING:
    from eventsim_importers.torch_program.written.charges import Step


@dataclass(frozen=True)
class Adaptive(Neuron):
    """Neurons whose coefficients may differ in time and space.

    Attributes
    ----------
    retention, gain, past, potential : tuple of float64 array
        Of each time step, in shapes that PyTorch broadcasts.
    """

    retention: tuple[Reals, ...] = ()
    gain: tuple[Reals, ...] = ()
    past: tuple[Reals, ...] = ()
    potential: tuple[Reals, ...] = ()

    @classmethod
    def of(
        cls,
        steps: Sequence[Step],
        threshold: float,
        reset: Literal["zero", "subtract"],
        strict: bool,
        attention: StepAttention | None,
    ) -> Adaptive:
        """Return the neuron of the charges of all steps."""
        later = [step.own for step in steps[1:]]
        alike = all(np.array_equal(own, later[0]) for own in later)
        retention = [later[0] if alike else np.ones(()), *later]  # the first multiplies nothing but an encoding
        past = [_over(step.past, own) for step, own in zip(steps, retention, strict=True)]
        if steps[0].past.any():  # a product of constants, which PyTorch has rounded already
            encoding = _rounded_to(steps[0].past, retention[0], past[0])
            if encoding is None:
                retention[0], encoding = np.ones(()), steps[0].past
            past[0] = encoding
        one = np.ones((1, 1, 1), np.float32)
        layer = AdaptiveLIF(one, one, v_threshold=threshold, reset=reset, strict=strict)
        if attention is not None:
            layer = replace(
                layer,
                reduce_weight=attention.reduce_weight,
                reduce_bias=attention.reduce_bias,
                expand_weight=attention.expand_weight,
                expand_bias=attention.expand_bias,
                gate_scale=attention.scale,
                gate_inputs=attention.inputs,
                scalar_gates=attention.scalar,
            )
        constants = tuple(step.constant for step in steps)
        return cls(
            (layer,),
            None,
            lambda output: output,
            lambda output: (),
            lambda: None,
            retention=tuple(retention),
            gain=tuple(step.gain for step in steps),
            past=tuple(past) if any(each.any() for each in past) else (),
            potential=constants if any(each.any() for each in constants) else (),
        )

    @property
    def spread(self) -> bool:
        """Always: there is no coefficient that does not need the axes."""
        return True

    def fitted(self, shape: tuple[int, ...], channels: int) -> tuple[Layer, ...]:
        """Return the layer with coefficients as (T or 1, channels or 1, positions or 1)."""
        (layer,) = self.layers
        assert isinstance(layer, AdaptiveLIF)
        return (
            replace(
                layer,
                retention=_stacked(self.retention, shape, channels),
                gain=_stacked(self.gain, shape, channels),
                past_encoding=_stacked(self.past, shape, channels) if self.past else None,
                potential_encoding=_stacked(self.potential, shape, channels) if self.potential else None,
            ),
        )


def _over(product: Reals, factor: Reals) -> Reals:
    """Return what a factor was multiplied with; 0 where that makes no difference."""
    if not product.any():
        return np.zeros(())
    wide, narrow = np.broadcast_arrays(product, factor)
    out: Reals = np.divide(wide, narrow, out=np.zeros(wide.shape), where=narrow != 0)
    return out


def _rounded_to(product: Reals, factor: Reals, near: Reals) -> Reals | None:
    """Return float32 values next to `near` whose products with a factor round to these; None if there are none."""
    wide, narrow, middle = (np.asarray(each, np.float32) for each in np.broadcast_arrays(product, factor, near))
    found = np.full(middle.shape, np.nan, np.float32)
    for each in (np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf)), middle):
        found = np.where(each * narrow == wide, each, found)
    return None if np.isnan(found).any() else np.asarray(found, np.float64)


def _stacked(steps: Sequence[Reals], shape: tuple[int, ...], channels: int) -> FloatArray:
    """Stack coefficients of all steps, without repetitions along an axis."""
    spread = []
    for each in steps:
        array = each
        while array.ndim > len(shape) and array.shape[0] == 1:
            array = array[0]
        try:
            whole = np.broadcast_to(array, shape)
        except ValueError:
            raise InputError(
                f"coefficients of shape {each.shape} found; expected a shape that broadcasts to {shape}, a time step"
            ) from None
        spread.append(np.moveaxis(whole, channels, 0).reshape(shape[channels], -1))
    stacked = np.stack(spread).astype(np.float32)
    for axis in range(3):
        first = stacked.take([0], axis=axis)
        if (stacked == first).all():
            stacked = first
    return np.ascontiguousarray(stacked)
