"""The table of operations: everything that an op may report, and what one of it is.

An operation is added here and written by the op that executes it (`eventsim.context.Context.rows`); totals, JSON
documents, CSV rows, terminal tables and the list in the README follow from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from eventsim.errors import InputError

Group: TypeAlias = Literal["input", "synapses", "neurons", "joins", "attention", "arithmetic", "memory", "alternative"]


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
    group : Group
        What it belongs to. ``"input"`` is activity offered, not work; ``"arithmetic"`` is work beside synapses and
        neurons that energy models seldom price; ``"memory"`` is data moved; ``"alternative"`` is what another machine
        would execute in place of the work counted.
    source : str
        Where the definition comes from.
    part_of : tuple of str
        Operations that this one tells more of: it is already in their numbers, and is not added to them. In the unit of
        its whole it is some of it. In another unit than a neuron update it is what one update consists of, of which
        there may be more than one.
    """

    name: str
    unit: str
    what: str
    group: Group
    source: str
    part_of: tuple[str, ...] = ()


_OURS = "the definition of eventsim"

_LEMAIRE = "Lemaire et al., arXiv 2210.13107"
_PRODUCTS = ("acs", "graded_macs", "macs")
_UPDATE = ("neuron_updates",)

OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("inputs", "values", "a value offered to a layer that multiplies, zero or not", "input", _OURS),
        Operation("nonzero_inputs", "values", "one of these that is not zero", "input", _OURS),
        Operation("valued_inputs", "values", "one of these whose magnitude is not 1", "input", _OURS),
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
        Operation(
            "scores", "scores", "an entry of an attention map that a table or an observer looked at", "attention", _OURS
        ),
        Operation("nonzero_scores", "scores", "one of these that is not zero before any table", "attention", _OURS),
        Operation(
            "kept_scores",
            "scores",
            "one of these that is not zero after its table, if there is one",
            "attention",
            _OURS,
        ),
        Operation(
            "removed_scores", "scores", "one that is not zero before its table and zero after", "attention", _OURS
        ),
        Operation(
            "coincidences",
            "accumulates",
            "an addition into an attention map, where a value of q meets one of k; context first, one of k meets one "
            "of v",
            "attention",
            _OURS,
            _PRODUCTS,
        ),
        Operation(
            "value_additions",
            "accumulates",
            "an addition of an entry of that map into an output of the attention",
            "attention",
            _OURS,
            _PRODUCTS,
        ),
        Operation(
            "scale_multiplications",
            "multiplications",
            "an output of an attention that is not zero times its scale, unless that is 1; with softmax, a score",
            "arithmetic",
            _OURS,
        ),
        Operation("bias_additions", "additions", "a bias added to a sum in one time step", "arithmetic", _LEMAIRE),
        Operation(
            "residual_additions",
            "additions",
            "an addition of a residual join",
            "joins",
            _OURS,
            ("additions",),
        ),
        Operation("pool_comparisons", "comparisons", "a comparison of a pool", "joins", _OURS, ("comparisons",)),
        Operation(
            "gate_products",
            "products",
            "a value that meets its gate",
            "joins",
            _OURS,
            ("comparisons", "graded_macs", "macs"),
        ),
        Operation(
            "updates_with_input",
            "updates",
            "a neuron update whose input is not zero",
            "neurons",
            "Davies et al., IEEE Micro 2018: active and inactive updates",
            _UPDATE,
        ),
        Operation(
            "updates_with_change",
            "updates",
            "a neuron update whose charge changed the potential",
            "neurons",
            "Yik et al. (NeuroBench), Nature Communications 2025: membrane updates",
            _UPDATE,
        ),
        Operation("updates_with_spike", "updates", "a neuron update that fired", "neurons", _OURS, _UPDATE),
        Operation(
            "leak_multiplications",
            "multiplications",
            "a multiplication by, or division through, a time constant in a charge",
            "neurons",
            _LEMAIRE,
            _UPDATE,
        ),
        Operation(
            "membrane_additions", "additions", "an addition or subtraction in a charge", "neurons", _OURS, _UPDATE
        ),
        Operation(
            "membrane_comparisons",
            "comparisons",
            "a potential compared with its threshold or its floor",
            "neurons",
            _OURS,
            _UPDATE,
        ),
        Operation(
            "resets", "resets", "a potential reset after a spike, counted with the spike", "neurons", _OURS, _UPDATE
        ),
        Operation("exponentials", "exponentials", "an exponential, in a softmax or a sigmoid", "arithmetic", _OURS),
        Operation(
            "divisions", "divisions", "a division, in a softmax, a sigmoid, a mean or a norm", "arithmetic", _OURS
        ),
        Operation("square_roots", "square roots", "a square root, in a norm", "arithmetic", _OURS),
        Operation(
            "messages",
            "messages",
            "a non-zero value of a sparse signal that reached a layer: once for every edge that it took",
            "memory",
            "Davies et al., IEEE Micro 2018",
        ),
        Operation("weight_reads", "words", "a weight read for a product", "memory", _LEMAIRE),
        Operation("bias_reads", "words", "a bias read", "memory", _LEMAIRE),
        Operation(
            "sum_reads", "words", "a running sum read: of synapses, attention, pools, means, norms", "memory", _LEMAIRE
        ),
        Operation("sum_writes", "words", "a running sum written after something was added", "memory", _LEMAIRE),
        Operation("potential_reads", "words", "a word of a neuron's state read", "memory", _LEMAIRE),
        Operation("potential_writes", "words", "a word of a neuron's state written", "memory", _LEMAIRE),
        Operation("index_reads", "words", "the address of a non-zero value read by a layer", "memory", _LEMAIRE),
        Operation("index_writes", "words", "the address of a non-zero value written", "memory", _LEMAIRE),
        Operation(
            "value_reads",
            "words",
            "a value read: integers of rows that are not 0, all dense values",
            "memory",
            _OURS,
        ),
        Operation("value_writes", "words", "such a value written", "memory", _OURS),
        Operation("table_reads", "words", "an entry of a table read", "memory", _OURS),
    )
}
"""By name, in the order of documents."""


def synaptic_operations(counts: Mapping[str, int]) -> int:
    """Return the synapses served among some counts, whatever the kind of input; a graded value is one of them."""
    return sum(counts[name] for name in _PRODUCTS)


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
