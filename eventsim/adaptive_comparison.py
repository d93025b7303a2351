"""Neurons with coefficients and gates of their own against the spikes of another simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from eventsim.context import Context
from eventsim.layers import AdaptiveLIF
from eventsim.ledger import Ledger
from eventsim.signals import FLOAT32_MAX, Dense, FloatArray, Signal, SignalType

EPSILON = float(np.finfo(np.float32).eps) / 2

Reals = npt.NDArray[np.float64]


def differing_spikes(layer: AdaptiveLIF, signal: Signal, theirs: FloatArray, terms: Reals) -> tuple[int, Reals]:
    r"""Step through neurons, and take the other's side where a spike differs.

    A gate is a sigmoid of sums, which change by rounding as other sums do: a term behind it counts
    :math:`g\,(1 + \max |E|(|R| \bar t + |r|) + |e|)` times, where g is the scale of the gates and :math:`\bar t` the
    means of the absolute terms.

    Parameters
    ----------
    layer : AdaptiveLIF
    signal : Rows or Dense
        What arrives.
    theirs : float32 array (T, positions, channels)
        The spikes of the other simulator.
    terms : float64 array (T, positions, channels)
        Of each value that arrives, the sum of the absolute values that were added up.

    Returns
    -------
    int
        Spikes that differ.
    float64 array
        Of each of them, the distance of the potential from the threshold, as a share of eps times the absolute terms
        since the last reset to zero.
    """
    kind, steps = signal.type, signal.steps
    current = np.array(signal.to_array()).reshape(steps, kind.positions, kind.channels)
    dense = SignalType("real", kind.channels, kind.grid, dense=True)
    op, never = layer.op(dense), replace(layer, v_threshold=FLOAT32_MAX / 4, reset="zero").op(dense)
    context = Context(True, Ledger({"": op}, 1).rows("", 0, 1))
    sums: Reals = np.zeros(current.shape[1:])
    ratios: list[Reals] = []
    for step, (x, fired, added) in enumerate(zip(current, theirs, terms, strict=True)):
        given = (Dense(dense, 1, np.ascontiguousarray(x)),)
        before = {name: np.array(value) for name, value in op.state().items()}
        never.restore(before)
        never.advance(given, context)
        charged = np.array(never.state()["potential"]).reshape(x.shape)
        ours = op.advance(given, context).to_array().reshape(x.shape)
        sums += _terms(layer, step, before["potential"].reshape(x.shape), added)
        wrong = ours != fired
        if wrong.any():
            distance = np.abs(charged.astype(np.float64) - layer.v_threshold)
            ratios.append((distance / (EPSILON * (sums + np.abs(charged) + abs(layer.v_threshold))))[wrong])
            state = {name: np.array(value) for name, value in op.state().items()}
            after = charged * (1 - fired) if layer.reset == "zero" else charged - fired * np.float32(layer.v_threshold)
            state["potential"].reshape(x.shape)[wrong] = after[wrong]
            op.restore(state)
        if layer.reset == "zero":
            sums[fired != 0] = 0
    found = np.concatenate(ratios) if ratios else np.zeros(0)
    return len(found), found


def _terms(layer: AdaptiveLIF, step: int, left: FloatArray, added: Reals) -> Reals:
    """Return the absolute terms of a charge, (positions, channels), for what was left and what arrives."""
    past = np.abs(left).astype(np.float64)
    if layer.past_encoding is not None:
        past = past + np.abs(_at(layer.past_encoding, step).T)
    past, present = past * np.abs(_at(layer.retention, step).T), added * np.abs(_at(layer.gain, step).T)
    charge = past + present
    if (gates := layer.gates) is not None:
        means = np.concatenate([past.mean(axis=0), np.maximum(present, added).mean(axis=0)])
        hidden = np.abs(_at(gates.reduce_weight, step)) @ means + np.abs(_at(gates.reduce_bias, step))
        logits = np.abs(_at(gates.expand_weight, step)) @ hidden + np.abs(_at(gates.expand_bias, step))
        charge = charge * abs(float(gates.scale)) * (1 + logits.max())
    if layer.potential_encoding is not None:
        charge = charge + np.abs(_at(layer.potential_encoding, step).T)
    return np.asarray(charge, np.float64)


def _at(array: FloatArray, step: int) -> FloatArray:
    entry: FloatArray = array[step if len(array) > 1 else 0]
    return entry
