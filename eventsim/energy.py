"""Energy of the counted synaptic operations and neuron updates by cited models.

Compute only: no data movement, and none of additions without a weight, comparisons or lookups.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.ledger import Counts


@dataclass(frozen=True)
class EnergyModel:
    """Picojoules per operation.

    Attributes
    ----------
    name, source : str
    ac_pj, mac_pj, neuron_update_pj : float
        Per accumulate, per multiply-accumulate, per neuron update.
    unary_graded : bool
        Whether graded inputs are charged as unary accumulates (value times fan-out), else as multiply-accumulates.
    """

    name: str
    source: str
    ac_pj: float
    mac_pj: float
    neuron_update_pj: float = 0.0
    unary_graded: bool = False

    def millijoules(self, counts: Counts) -> float:
        """Return the energy of some counts in millijoules."""
        graded = counts.graded_acs * self.ac_pj if self.unary_graded else counts.graded_macs * self.mac_pj
        synapses = counts.acs * self.ac_pj + graded + counts.macs * self.mac_pj
        return (synapses + counts.neuron_updates * self.neuron_update_pj) * 1e-9


FORTY_FIVE_NM = EnergyModel("45nm_mac", "Horowitz, ISSCC 2014, as 45nm_unary; graded inputs as MACs", 0.9, 4.6)

MODELS = (
    EnergyModel(
        "45nm_unary",
        "Horowitz, ISSCC 2014: 0.9 pJ per AC, 4.6 pJ per MAC (32-bit float, 45 nm); graded inputs as unary ACs",
        0.9,
        4.6,
        unary_graded=True,
    ),
    FORTY_FIVE_NM,
    EnergyModel(
        "loihi",
        "Davies et al., IEEE Micro 2018: 23.6 pJ per synaptic operation, 81 pJ per neuron update; "
        "every operation as a synaptic one",
        23.6,
        23.6,
        81.0,
        unary_graded=True,
    ),
)
