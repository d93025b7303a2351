"""Why a convention differs from what was executed: its rules by their share, each with the layer that weighs most."""

from __future__ import annotations

from collections.abc import Sequence

from eventsim.accounting.conventions.convention import Charge, unseen
from eventsim.accounting.conventions.seen import Seen

MOST = 3
LEAST_SHARE = 0.01


def reasons(layers: Sequence[Seen], charges: Sequence[Charge], exact: Sequence[Charge]) -> list[str]:
    """Return the largest reasons for a difference in energy, in words, the largest first.

    The difference of every layer, at the 45 nm prices of both sides, is put down to the rule that was applied to it. A
    share is that of a rule's, or layer's, difference in the sum of all differences without their signs.

    Parameters
    ----------
    layers : sequence of Seen
    charges, exact : sequence of Charge
        What the convention, and what the ledger, has for each of these layers.

    Returns
    -------
    list of str
        At most three; none where nothing differs.
    """
    by_rule: dict[tuple[str, bool], list[tuple[float, int]]] = {}
    charges = [charge if charge.rule else _unseen(layer) for layer, charge in zip(layers, charges, strict=True)]
    for place, (charge, executed) in enumerate(zip(charges, exact, strict=True)):
        if difference := charge.picojoules - executed.picojoules:
            by_rule.setdefault((charge.rule, difference > 0), []).append((difference, place))
    whole = sum(abs(difference) for found in by_rule.values() for difference, _ in found)
    ranked = sorted(by_rule.items(), key=lambda item: -abs(sum(difference for difference, _ in item[1])))
    said = []
    for (rule, _), found in ranked[:MOST]:
        total = sum(difference for difference, _ in found)
        if abs(total) < LEAST_SHARE * whole:
            break
        difference, place = max(found, key=lambda item: abs(item[0]))
        layer, charge, executed = layers[place], charges[place], exact[place]
        among = f" among {len(found)} layers" if len(found) > 1 else ""
        said.append(
            f"{total * 1e-9:+.3g} mJ, {abs(total) / whole:.0%} of the difference: {rule}; layer {layer.name}{among} is "
            f"{abs(difference) / whole:.0%} alone: {_operations(charge)} where {_executed(executed)} ({charge.because})"
        )
    return said


def _unseen(layer: Seen) -> Charge:
    """Return the charge of a layer for which a convention has no rule, and so no words."""
    role = layer.facts.role
    return unseen("layers of this kind are" if role == "other" else f"{role} of this kind is")


def _executed(charge: Charge) -> str:
    operations = _operations(charge)
    return f"{operations} {'was' if operations == 'nothing' else 'were'} executed"


def _operations(charge: Charge) -> str:
    """Say what was counted."""
    parts = [(charge.acs, "ACs"), (charge.macs, "MACs")]
    return " and ".join(f"{number:,.0f} {unit}" for number, unit in parts if round(number)) or "nothing"
