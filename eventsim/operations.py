"""The table of operations: everything that an op may report, and what one of it is.

An operation is added here and written by the op that executes it (`eventsim.context.Context.rows`); totals, JSON
documents, CSV rows, terminal tables and the list in the README follow from this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from eventsim.errors import InputError

Group: TypeAlias = Literal["input", "synapses", "neurons", "joins", "attention", "alternative"]


@dataclass(frozen=True)
class Operation:
    """One kind of work, or of activity, that is counted exactly.

    Attributes
    ----------
    name : str
        Key in documents and attribute of `Counts`.
    unit : str
        What is counted, as a plural.
    what : str
        What one of them is.
    group : {"input", "synapses", "neurons", "joins", "attention", "alternative"}
        What it belongs to. ``"input"`` is activity offered, not work; ``"alternative"`` is what another machine would
        execute in place of the work counted.
    source : str
        Where the definition comes from.
    """

    name: str
    unit: str
    what: str
    group: Group
    source: str


_OURS = "the definition of eventsim"

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("inputs", "values", "a value offered to a layer that multiplies, zero or not", "input", _OURS),
        Operation("nonzero_inputs", "values", "one of these that is not zero", "input", _OURS),
        Operation("spikes", "spikes", "a spike emitted by a neuron", "neurons", "Davies et al., IEEE Micro 2018"),
        Operation(
            "acs",
            "accumulates",
            "an addition of a weight caused by a spike; in spiking attention, an addition of the named algorithm",
            "synapses",
            "Merolla et al., Science 2014: a synaptic operation",
        ),
        Operation(
            "graded_macs",
            "multiply-accumulates",
            "a non-zero integer input (event count, residual sum) times one synapse",
            "synapses",
            _OURS,
        ),
        Operation(
            "graded_acs",
            "accumulates",
            "the same work in unary additions: a unit of that integer served by one synapse",
            "synapses",
            _OURS,
        ),
        Operation(
            "macs",
            "multiply-accumulates",
            "a real value times a weight, a gate or another real value",
            "synapses",
            "Horowitz, ISSCC 2014",
        ),
        Operation(
            "neuron_updates",
            "updates",
            "one step of one neuron's membrane potential",
            "neurons",
            "Davies et al., IEEE Micro 2018",
        ),
        Operation(
            "table_lookups", "lookups", "a read of an integer lookup table", "attention", "arXiv 2409.15375, eq. 7"
        ),
        Operation(
            "additions",
            "additions",
            "an addition without a weight: residual joins, pooling sums, means",
            "joins",
            _OURS,
        ),
        Operation(
            "comparisons",
            "comparisons",
            "a value compared: by maximum pooling, a threshold without state, where spikes meet in an IAND or AND join",
            "joins",
            _OURS,
        ),
        Operation(
            "window_products",
            "products",
            "a non-zero input times a synapse, were all steps of a temporal window served anew in each step",
            "alternative",
            "arXiv 2409.15375, eq. 5",
        ),
        Operation("scores", "scores", "an entry of an attention map that goes through a table", "attention", _OURS),
        Operation("nonzero_scores", "scores", "one of these that is not zero before the table", "attention", _OURS),
        Operation("kept_scores", "scores", "one of these that is not zero after the table", "attention", _OURS),
    )
}
"""By name, in the order of documents."""


def register(operation: Operation) -> None:
    """Add an operation that a layer of another package executes; call it where that layer is defined.

    Raises
    ------
    InputError
        If the name is taken by a different operation, or cannot be an attribute.
    """
    if not operation.name.isidentifier() or operation.name.startswith("_"):
        raise InputError(f"operation {operation.name!r} found; expected a name that can be an attribute")
    if OPERATIONS.setdefault(operation.name, operation) != operation:
        raise InputError(f"operation {operation.name} found twice; expected a name of its own")


def markdown() -> str:
    """Return the table as the README shows it."""
    lines = ["| operation | group | one of them is |", "|---|---|---|"]
    lines += [f"| `{o.name}` | {o.group} | {o.what} |" for o in OPERATIONS.values()]
    return "\n".join(lines)
