"""What was executed, counted by the ops that did the work."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counts:
    """Exact operation counts of one layer over some time steps; Python integers, so they never overflow.

    Attributes
    ----------
    inputs, nonzero_inputs : int
        Of layers that multiply: input values offered, and those that were not zero; their ratio is the input density.
    spikes : int
        Spikes emitted by neurons.
    acs : int
        Accumulates: additions of a weight caused by a binary spike. For spiking attention: additions executed by the
        named algorithm.
    graded_macs, graded_acs : int
        One piece of work counted in two ways: non-zero integer inputs times fan-out, and the same as unary additions
        (value times fan-out).
    macs : int
        Real-valued multiply-accumulates.
    neuron_updates : int
        Neurons times time steps.
    table_lookups : int
        Reads of an integer lookup table.
    additions : int
        Additions that involve no weight: residual joins, pooling sums, means.
    comparisons : int
        Values compared: by maximum pooling, by stateless thresholds, and spikes that meet in IAND and AND joins.
    window_products : int
        For layers over a temporal window: products of non-zero inputs and synapses that a machine would execute which
        serves all steps of the window anew in every step. An alternative to the work executed, not a part of it.
    scores, nonzero_scores, kept_scores : int
        Entries of attention maps that go through a table; those that are not zero before it, and after it.
    """

    inputs: int = 0
    nonzero_inputs: int = 0
    spikes: int = 0
    acs: int = 0
    graded_macs: int = 0
    graded_acs: int = 0
    macs: int = 0
    neuron_updates: int = 0
    table_lookups: int = 0
    additions: int = 0
    comparisons: int = 0
    window_products: int = 0
    scores: int = 0
    nonzero_scores: int = 0
    kept_scores: int = 0

    def add(self, other: Counts) -> None:
        """Add another count to this one, key by key."""
        for name in COUNT_NAMES:
            setattr(self, name, getattr(self, name) + int(getattr(other, name)))


COUNT_NAMES = tuple(field.name for field in fields(Counts))
