"""Spikes per synapse and inference, against the band in which spiking networks break even."""

from __future__ import annotations

from eventsim.accounting.conventions.convention import Charge, Convention, Layers, unseen
from eventsim.accounting.conventions.seen import Seen

BREAK_EVEN = (0.15, 1.38)
"""Between these two, by machine and precision, a spiking network needs as much energy as its dense twin."""


def _spiking(layer: Seen) -> bool:
    return layer.dense_macs > 0 and all(source.kind != "real" for source in layer.facts.inputs)


def dampfhoffer(layers: Layers) -> list[Charge]:
    """Charge the synaptic operations that spikes and integers cause, an integer as that many."""
    return [
        Charge(
            acs=layer.counts.acs + layer.counts.graded_acs,
            rule="what was executed",
            because=f"{layer.executed:,} products",
        )
        if _spiking(layer)
        else unseen("real inputs are")
        if layer.dense_macs
        else Charge()
        for layer in layers
    ]


def ratio(layers: Layers) -> dict[str, float]:
    r"""Return ``spikes_per_synapse``, and the band to hold against it.

    .. math:: \frac{\text{synaptic operations of an inference}}{\text{dense MACs of one time step}}

    over the layers whose inputs are spikes or integers.
    """
    spiking = [layer for layer in layers if _spiking(layer)]
    operations = sum(layer.counts.acs + layer.counts.graded_acs for layer in spiking)
    low, high = BREAK_EVEN
    return {
        "spikes_per_synapse": operations / sum(layer.facts.dense_macs for layer in spiking),
        "break_even_low": low,
        "break_even_high": high,
    }


def _refuses(layers: Layers) -> str | None:
    return None if any(map(_spiking, layers)) else "no layer with spikes or integers as inputs found; expected one"


DAMPFHOFFER = Convention(
    "dampfhoffer",
    "spikes per synapse and inference; break-even 0.15 to 1.38",
    "Dampfhoffer et al., IEEE TETCI 2023: Are SNNs really more energy-efficient than ANNs?",
    dampfhoffer,
    _refuses,
    ratio,
)
