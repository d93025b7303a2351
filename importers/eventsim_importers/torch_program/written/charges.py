"""Which neuron the factors of a charge make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from eventsim.layers import IF, LIF, PLIF, DecayLIF, Layer, LeakyIntegrator, Threshold
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim_importers.torch_program.neurons.parameters import logit, scaled
from eventsim_importers.torch_program.neurons.protocol import Neuron
from eventsim_importers.torch_program.one_step import DIVIDES, MULTIPLIES
from eventsim_importers.torch_program.recorder import Ref
from eventsim_importers.torch_program.written.adaptive import Adaptive
from eventsim_importers.torch_program.written.expressions import (
    ONE,
    Atom,
    Expressions,
    Product,
    Reals,
    Sum,
    equal,
    number,
)
from eventsim_importers.torch_program.written.gates import attention_of

CLOSE = 1e-6
"""Up to this share two factors of float32 are meant to be the same."""
Reset = Literal["zero", "zero_late", "subtract", "subtract_late", "none"]
NOTHING: Reals = np.zeros(())


@dataclass(frozen=True)
class Step:
    r"""The charge of one time step.

    .. math:: v = g_a (\alpha v' + \beta v' s' + \gamma s' + p) + g_b k x + d

    Attributes
    ----------
    own, product, spike : float64 arrays
        Alpha, beta and gamma; 0 in the first step.
    past, gain, constant : float64 arrays
        p, k and d.
    source : Ref or tuple of Ref and tensor
        x, or what it is the sum of, where no operation makes that.
    learned : bool
        Whether k is a tensor of the module's own that multiplies x before all else.
    divided : bool
        Whether there is a division by a constant.
    late : bool
        Whether the spikes of the step before silence x too.
    gates : (Atom or None, Atom or None)
        Of the two terms.
    gain_nodes : tuple of int
        Operations that multiply x by k.
    given, left : mapping
        What the first and the second bracket are.
    """

    own: Reals
    product: Reals
    spike: Reals
    past: Reals
    gain: Reals
    constant: Reals
    source: Any
    learned: bool
    divided: bool
    late: bool
    gates: tuple[Atom | None, Atom | None]
    gain_nodes: tuple[int, ...]
    given: Sum
    left: Sum


def read_step(sums: Expressions, made: Sum, before: int | None, like: Step | None, inside: Sequence[Ref]) -> Step | str:
    """Return the charge of a step, or what is found in its place.

    Parameters
    ----------
    sums : Expressions
    made : mapping
        What the potential is made of.
    before : int, optional
        The comparison of the step before.
    like : Step, optional
        The step that follows.
    inside : sequence of Ref
        The results of which the potential is made, in order.
    """
    own, spike = (
        Atom("potential", before if before is not None else -1),
        Atom("spike", before if before is not None else -1),
    )
    left = {product: each for product, each in made.items() if own in product or spike in product}
    rest = {product: each for product, each in made.items() if product not in left}
    gates = _gates(sums, left, rest, own, like)
    if isinstance(gates, str):
        return gates
    past_gate, gate = gates
    late = (
        {product: each for product, each in left.items() if own not in product and _tensors(product)}
        if past_gate is None
        else {}
    )
    left = {product - {past_gate}: each for product, each in left.items() if product not in late}
    given: dict[Product, Reals] = {}
    constant, past = rest.get(ONE, NOTHING), NOTHING
    for product, each in rest.items():
        if past_gate is not None and product == {past_gate}:
            past = each
        elif gate is None:
            given[product] = each
        elif gate in product:
            given[product - {gate}] = each
        elif product != ONE:
            return "a term without a gate beside gated ones"
    if gate is not None:
        given.pop(ONE, None)
    for product in left:
        if not product <= {own, spike}:
            return f"a product of the potential with {_name(sums, product)}"
    source = _source(sums, given, inside, left.get(frozenset([own])), like)
    if isinstance(source, str):
        return source
    found, gain, learned, nodes, whole = source
    if gate is None and whole:
        constant = NOTHING
    step = Step(
        left.get(frozenset([own]), NOTHING),
        left.get(frozenset([own, spike]), NOTHING),
        left.get(frozenset([spike]), NOTHING),
        past,
        gain,
        constant,
        found,
        learned,
        any(sums.nodes[ref.node].operation in DIVIDES for ref in inside),
        bool(late),
        gates,
        nodes,
        {product: each for product, each in given.items() if product != ONE},
        left if not past.any() else {**left, ONE: past},
    )
    if late and not equal({product - {spike}: -each for product, each in late.items()}, step.given):
        return "spikes that silence a part of what arrives"
    return step


def _tensors(product: Product) -> set[Atom]:
    return {atom for atom in product if atom.of == "tensor"}


def _name(sums: Expressions, product: Product) -> str:
    (atom, *_) = sorted(_tensors(product)) or sorted(product)
    if atom.of != "tensor":
        return "the spikes of other neurons"
    node = sums.nodes[atom.number]
    return f"the result of {node.operation} in module {node.path or 'itself'}"


def _gates(
    sums: Expressions, left: Sum, rest: Sum, own: Atom, like: Step | None
) -> tuple[Atom | None, Atom | None] | str:
    """Return what the two terms of a charge are multiplied by."""
    if like is not None:
        kinds = [None if each is None else _kind(sums, each) for each in like.gates]
        everywhere = sorted({atom for product in (*left, *rest) for atom in _tensors(product)})
        found = [next((atom for atom in everywhere if _kind(sums, atom) == kind), None) for kind in kinds]
        return found[0], found[1]
    at_own = {atom for product in left if own in product for atom in _tensors(product)}
    if not at_own:
        return None, None
    if len(at_own) > 1:
        return "a potential times several signals"
    (past_gate,) = at_own
    several = [_tensors(product) for product in rest if len(product) > 1]
    if not several:
        return "a potential times a signal, and no gate of what arrives"
    common = set.intersection(*several)
    for likely in (past_gate, replace(past_gate, result=1 - past_gate.result)):
        if likely in common:
            return past_gate, likely
    return "two terms with gates of different operations"


def _kind(sums: Expressions, atom: Atom) -> tuple[str, int]:
    """Return what is the same in every step, though its module may be another in each."""
    return sums.nodes[atom.number].operation, atom.result


def _source(
    sums: Expressions, given: Sum, inside: Sequence[Ref], own: Reals | None, like: Step | None
) -> tuple[Any, Reals, bool, tuple[int, ...], bool] | str:
    """Return what arrives, its factor, whether that is learned, by which operations, and whether a constant is in."""
    arrives = {product: each for product, each in given.items() if product != ONE}
    if not arrives:
        return "no input of neurons"
    if like is not None and isinstance(like.source, Ref) and _is_atom(sums.of(like.source)):
        return _single(sums, arrives) or "more than one signal where the next step has one"
    if like is not None and isinstance(like.source, tuple):
        return _terms(sums, given, like)
    for wanted, whole in ((given, True), (arrives, False)):
        if whole and (len(given) == len(arrives) or (like is not None and like.constant.any())):
            continue
        for ref in inside:
            made = sums.made(ref) if ref in sums.potentials else sums.of(ref)
            if equal(made, wanted):
                return *_peeled(sums, ref, own, like), whole
    factors = list(arrives.values())
    if single := _single(sums, arrives):
        return single
    if any(len(product) > 1 for product in arrives) or any(not _near(each, factors[0]) for each in factors):
        return "a sum of signals with different factors"
    refs = tuple(_ref(sums, atom) for (atom,) in sorted(map(tuple, arrives)))
    return refs, factors[0], False, (), False


def _is_atom(made: Sum) -> bool:
    return len(made) == 1 and all(len(product) == 1 and bool((each == 1).all()) for product, each in made.items())


def _single(sums: Expressions, arrives: Sum) -> tuple[Ref, Reals, bool, tuple[int, ...], bool] | None:
    """Return the one signal that arrives, as no operation but the charge takes it."""
    if len(arrives) != 1:
        return None
    ((product, factor),) = arrives.items()
    if len(product) != 1:
        return None
    (atom,) = product
    return _ref(sums, atom), factor, False, (), False


def _terms(
    sums: Expressions, given: Sum, like: Step
) -> tuple[tuple[Any, ...], Reals, bool, tuple[int, ...], bool] | str:
    """Return the terms of a sum in the order of the step that follows; in the first a constant stands for one of them.

    So it is where a layer hears spikes of the step before, and gives its bias before the first.
    """
    left = {_ref(sums, atom): factor for product, factor in given.items() for atom in product if len(product) == 1}
    single = all(len(product) < 2 for product in given) and all(_near(each, like.gain) for each in left.values())
    found: list[Any] = []
    for each in like.source:
        kind = (sums.nodes[each.node].path, sums.nodes[each.node].operation, each.result)
        here = [ref for ref in left if (sums.nodes[ref.node].path, sums.nodes[ref.node].operation, ref.result) == kind]
        found.append(here[0] if here else None)
        left.pop(found[-1], None)
    if left or found.count(None) > 1 or not single:
        return "a sum of other signals than in the next step"
    constant = given.get(ONE, NOTHING)
    if None not in found:
        return tuple(found), like.gain, False, (), False
    silent = torch.from_numpy(np.asarray(constant / like.gain, np.float32))
    return tuple(silent if each is None else each for each in found), like.gain, False, (), True


def _ref(sums: Expressions, atom: Atom) -> Ref:
    if atom.of == "tensor":
        return atom.ref
    return Ref(next(node for node, (which, rest) in sums.spikes.items() if which == atom.number and not rest))


def _peeled(
    sums: Expressions, ref: Ref, own: Reals | None, like: Step | None
) -> tuple[Ref, Reals, bool, tuple[int, ...]]:
    """Take off the constants by which an input is multiplied, where they belong to the charge."""
    inner, factor, nodes, learned = ref, np.ones(()), [], False
    while True:
        node = sums.nodes[inner.node]
        if node.operation not in (*MULTIPLIES, *DIVIDES) or len(node.arguments) != 2:
            break
        one, other = node.arguments
        if node.operation in MULTIPLIES and not isinstance(one, Ref):
            one, other = other, one
        by = number(other)
        if not isinstance(one, Ref) or by is None:
            break
        factor = factor / by if node.operation in DIVIDES else factor * by
        learned = learned or not isinstance(other, (int, float))
        nodes.append(inner.node)
        inner = one
    share = own is not None and _near(factor, 1 - own)
    wanted = like.gain_nodes != () if like is not None else learned or share
    return (inner, factor, learned, tuple(nodes)) if nodes and wanted else (ref, np.ones(()), False, ())


def _near(a: Reals, b: Reals) -> bool:
    return bool(np.allclose(a, b, rtol=CLOSE, atol=CLOSE * 1e-3))


def neuron_of_steps(sums: Expressions, steps: Sequence[Step], threshold: Reals, strict: bool) -> Neuron | str:
    """Return the neuron that charges so in its time steps, or what is found in its place."""
    last = steps[-1]
    resets = {_reset(step, threshold) for step in steps[1:]}
    if len(resets) != 1 or None in resets:
        return "a reset to something else than zero, or by something else than the threshold,"
    (reset,) = resets
    assert reset is not None
    same = all(_near(step.own, last.own) for step in steps[1:]) and all(_near(step.gain, last.gain) for step in steps)
    one = last.gates == (None, None) and not any(step.past.any() or step.constant.any() for step in steps[1:])
    if one and same and not (last.learned and not _near(last.gain, 1 - last.own)):
        layers = _fires(last, reset, threshold, strict, steps[0].constant)
        if layers:
            return Neuron(layers, None, lambda output: output, lambda output: (), lambda: None)
    if reset not in ("zero", "subtract"):
        return f"a reset {reset} of neurons with coefficients of their own"
    if threshold.size != 1:
        return f"thresholds of shape {threshold.shape} of neurons with coefficients of their own"
    attention = attention_of(sums, steps) if last.gates != (None, None) else None
    if isinstance(attention, str):
        return attention
    return Adaptive.of(steps, float(threshold.reshape(())), reset, strict, attention)


def _reset(step: Step, threshold: Reals) -> Reset | None:
    none = not step.product.any()
    if _near(step.product, -step.own) and step.product.any() and not step.spike.any():
        return "zero_late" if step.late else "zero"
    if step.late or not none:
        return None
    if not step.spike.any():
        return "none"
    if _near(step.spike, -step.own * threshold):
        return "subtract"
    return "subtract_late" if _near(step.spike, -threshold) else None


def _value(array: Reals) -> PerNeuron:
    """Return a number if all are the same, else float32 values without leading axes of size 1."""
    if (array == array.reshape(-1)[0]).all():
        return float(array.reshape(-1)[0])
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return np.asarray(array, np.float32)


def _fires(step: Step, reset: Reset, threshold: Reals, strict: bool, first: Reals) -> tuple[Layer, ...]:
    """Return the layers of a neuron whose factors are the same in every step, none if there are none."""
    own = _value(step.own)
    beside: dict[str, Any] = {"start": _value(first / step.own)} if first.any() else {}
    if beside and reset in ("zero_late", "subtract_late"):
        return ()
    takes_share = _near(step.gain, 1 - step.own)
    if not takes_share and not _near(step.gain, np.ones(())):
        return ()
    at = _value(threshold)
    if reset == "none":
        before = scaled(_value(step.gain)) if takes_share else ()
        return (*before, LeakyIntegrator(own, **beside), Threshold(at, strict))
    if takes_share:
        if step.divided and np.all(step.gain <= 1):
            return (LIF(at, reset, strict, _value(1 / step.gain), True, **beside),)
        if np.all((step.gain > 0) & (step.gain < 1)):
            return (PLIF(at, reset, strict, logit(_value(step.gain)), True, **beside),)
        return ()
    if _near(step.own, np.ones(())):
        return (IF(at, reset, strict, **beside),)
    if step.divided and np.all((step.own >= 0) & (step.own < 1)):
        return (LIF(at, reset, strict, _value(1 / (1 - step.own)), False, **beside),)
    return (DecayLIF(at, reset, strict, decay=own, **beside),)
