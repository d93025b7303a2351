r"""Neurons written out: a potential that is charged, compared with a threshold, and reset, step by step.

A comparison in the recorded program, or a function that is one, looks at a potential :math:`v_t`. Followed back through
sums and products with constants, :math:`v_t` is made of one earlier potential, its spikes, and what arrives:

.. math:: v_t = \alpha v_{t-1} + \beta v_{t-1} s_{t-1} + \gamma s_{t-1} + k x_t + d

The factors tell the neuron (`charges`); the chain from potential to potential tells its time steps. All its operations
give way to one call of a neuron in each step. With gates before the terms it is step attention (`gates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from eventsim.errors import InputError
from eventsim_importers.torch_program.neurons.protocol import Neuron
from eventsim_importers.torch_program.recorder import CONTEXT, FIRE, NEURON, Node, Program, Ref, leaves, mapped, needed
from eventsim_importers.torch_program.written.charges import Step, neuron_of_steps, read_step
from eventsim_importers.torch_program.written.comparisons import COMPARISONS, compared, of_scores, potential_of
from eventsim_importers.torch_program.written.contexts import with_contexts
from eventsim_importers.torch_program.written.expressions import (
    FOLLOWED,
    ONE,
    Expressions,
    Reals,
    Sum,
    added,
    equal,
)

NAMES_ITSELF = ("conv1d", "conv2d", "conv3d", "linear", "batch_norm", "layer_norm", "max_pool2d", "avg_pool2d")
"""Operations whose layer has the name of the module that does them."""


@dataclass
class _Fired:
    """One comparison of a potential with a threshold.

    Attributes
    ----------
    potential : Ref
    threshold : float64 array
    strict : bool
    made : mapping
        What the potential is made of.
    nodes : list of int
        The operations that compare so: a reset of the next step may do it again.
    before : int, optional
        The comparison of the step before.
    """

    potential: Ref
    threshold: Reals
    strict: bool
    made: Sum
    nodes: list[int] = field(default_factory=list)
    before: int | None = None


@dataclass(frozen=True)
class Written:
    """What stands in the place of neurons written out.

    Attributes
    ----------
    program : Program
    spikes : dict of str to list of (int, bool)
        By the name of neurons: in each step the operation, before, that emitted them, and whether its result is 1 less.
    """

    program: Program
    spikes: dict[str, list[tuple[int, bool]]]


def recognised(program: Program) -> Written:
    """Return a program with one operation for each step of neurons that are written out.

    Raises
    ------
    InputError
        If a comparison with a threshold is part of something that is no neuron here; names the module.
    """
    return _Recognition(program).written()


class _Recognition:
    def __init__(self, program: Program) -> None:
        self.program, self.nodes = program, with_contexts(program.nodes)
        self.spikes: dict[int, tuple[int, bool]] = {}
        self.potentials: dict[Ref, int] = {}
        self.fired: list[_Fired] = []
        self.sums = Expressions(self.nodes, self.spikes, self.potentials)
        self.replaced: dict[int, list[Node]] = {}
        self.emitted: dict[int, Ref] = {}  # by comparison, the spikes in the new program
        self.left: set[int] = set()  # comparisons that stay as they are
        self.unused = len(self.nodes)

    def written(self) -> Written:
        """Find neurons, and put them in their place."""
        outputs = [ref.node for ref in leaves(self.program.output) if isinstance(ref, Ref)]
        for number_ in sorted(needed(self.nodes, outputs)):
            self._look(self.nodes[number_])
        if not self.fired and not any(node.operation == CONTEXT for node in self.nodes):
            return Written(self.program, {})
        chains = [chain for chain in self._chains() if len(chain) > 1]
        steps = {chain[0]: self._steps(chain) for chain in chains}
        names = self._names(chains, steps)
        emitted = {}
        for chain, name in zip(chains, names, strict=True):
            neuron = self._neuron(chain, steps[chain[0]], name)
            for call, (which, step) in enumerate(zip(chain, steps[chain[0]], strict=True)):
                source, made = self._summed(step.source, which, name)
                self._replace(which, (source,), NEURON, name, call, neuron, made)
            emitted[name] = [
                (self.fired[which].nodes[0], self.spikes[self.fired[which].nodes[0]][1]) for which in chain
            ]
        inside = {which for chain in chains for which in chain}
        for which, fired in enumerate(self.fired):
            if which not in inside:
                node = self.nodes[fired.nodes[0]]
                if node.operation in COMPARISONS and of_scores(self.nodes, fired.potential):
                    self.left.add(which)
                    continue
                threshold = torch.from_numpy(np.asarray(fired.threshold, np.float32))
                self._replace(which, (fired.potential, threshold, fired.strict), FIRE, node.path, node.call, None)
        return Written(self._rewritten(dict(zip((chain[0] for chain in chains), names, strict=True))), emitted)

    # --- comparisons

    def _look(self, node: Node) -> None:
        """Note a comparison with a threshold."""
        found = compared(node)
        if found is None:
            return
        ref, threshold, strict, rest = found
        again = self._of_spikes(ref, threshold, strict)
        if again is not None:
            self.spikes[node.number] = again[0], again[1] != rest
            self.fired[again[0]].nodes.append(node.number)
            return
        ref, threshold = potential_of(self.nodes, ref, threshold)
        which = self.potentials.get(ref)
        if which is None:
            fired = _Fired(ref, threshold, strict, self.sums.made(ref))
            fired.before = self._before(fired, node)
            self.potentials[ref] = which = len(self.fired)
            self.fired.append(fired)
            self.sums.known.clear()  # what was followed through this potential
        elif self.fired[which].strict != strict or not np.array_equal(self.fired[which].threshold, threshold):
            if node.operation in COMPARISONS and of_scores(self.nodes, ref):
                return
            raise self._error(node, "a potential compared with two thresholds found; expected one threshold of neurons")
        self.fired[which].nodes.append(node.number)
        self.spikes[node.number] = which, rest

    def _of_spikes(self, ref: Ref, threshold: Reals, strict: bool) -> tuple[int, bool] | None:
        """Return which spikes a comparison with a number between 0 and 1 gives again, as in ``spikes > 0``."""
        above = [bool((value > threshold if strict else value >= threshold).all()) for value in (0, 1)]
        return self._spikes_in(self.sums.of(ref)) if above == [False, True] else None

    def _spikes_in(self, made: Sum) -> tuple[int, bool] | None:
        """Return of which comparison a sum is the spikes, or 1 less them."""
        atoms = {atom for product in made for atom in product}
        if len(atoms) != 1:
            return None
        (atom,) = atoms
        spikes: Sum = {frozenset([atom]): np.ones(())}
        if atom.of != "spike" or not (equal(made, spikes) or equal(made, added({ONE: np.ones(())}, spikes, -1))):
            return None
        return atom.number, ONE in made

    def _before(self, fired: _Fired, node: Node) -> int | None:
        """Return the comparison whose potential is in this one."""
        earlier = {atom.number for product in fired.made for atom in product if atom.of == "potential"}
        if len(earlier) > 1:
            raise self._error(
                node, "a potential made of the potentials of several neurons found; expected their spikes"
            )
        return earlier.pop() if earlier else None

    def _chains(self) -> list[list[int]]:
        """Return the comparisons of each neuron, step by step."""
        after: dict[int, int] = {}
        for which, fired in enumerate(self.fired):
            if fired.before is not None:
                if fired.before in after:
                    node = self.nodes[fired.nodes[0]]
                    raise self._error(
                        node, "a potential that two later ones are made of found; expected neurons that read their own"
                    )
                after[fired.before] = which
        chains = []
        for which, fired in enumerate(self.fired):
            if fired.before is None:
                chain = [which]
                while chain[-1] in after:
                    chain.append(after[chain[-1]])
                chains.append(chain)
        return chains

    # --- neurons

    def _steps(self, chain: list[int]) -> list[Step]:
        """Read every step as the last one is."""
        found: list[Step] = []
        for which in reversed(chain):
            fired = self.fired[which]
            like = found[0] if found else None
            step = read_step(self.sums, fired.made, fired.before, like, list(self._inside(fired)))
            if isinstance(step, str):
                raise self._error(
                    self.nodes[fired.potential.node], f"{step} found, in time step {chain.index(which)}; {EXPECTED}"
                )
            found.insert(0, step)
        return found

    def _inside(self, fired: _Fired) -> Iterator[Ref]:
        """Return the results that a potential is made of, up to those that are not followed."""
        seen: set[Ref] = set()
        waiting = [fired.potential]
        while waiting:
            ref = waiting.pop()
            if ref in seen or (ref in self.potentials and ref != fired.potential):
                continue
            seen.add(ref)
            node = self.nodes[ref.node]
            if node.operation in FOLLOWED and ref.node not in self.spikes:
                waiting.extend(node.refs)
        yield from sorted(seen, key=lambda ref: (ref.node, ref.result))

    def _neuron(self, chain: list[int], steps: list[Step], name: str) -> Neuron:
        first = self.fired[chain[0]]
        for which in chain:
            fired = self.fired[which]
            if fired.strict != first.strict or not np.array_equal(fired.threshold, first.threshold):
                raise InputError(
                    f"module {name}: thresholds that differ in time found; expected the same in every step"
                )
        made = neuron_of_steps(self.sums, steps, first.threshold, first.strict)
        if isinstance(made, str):
            raise InputError(f"module {name}: {made} found; {EXPECTED}")
        return made

    def _names(self, chains: list[list[int]], steps: dict[int, list[Step]]) -> list[str]:
        """Name neurons for the module that holds their operations, or for what they do in it."""
        paths = [self._path(chain, steps[chain[0]]) for chain in chains]
        other = {node.path for node in self.nodes if node.operation in NAMES_ITSELF}
        names: list[str] = []
        for path in paths:
            name = path
            if not path or path in other or paths.count(path) > 1:
                word = f"{path}.spikes" if path else "spikes"
                at = sum(each.startswith(word) for each in names)
                name = f"{word}{at or ''}"
            names.append(name)
        return names

    def _path(self, chain: list[int], steps: list[Step]) -> str:
        """Return the innermost module that does all that neurons do."""
        paths = []
        for which, step in zip(chain, steps, strict=True):
            fired = self.fired[which]
            paths += [self.nodes[each].path for each in (fired.potential.node, *fired.nodes, *step.gain_nodes)]
            for ref in self._inside(fired):
                made = self.sums.of(ref)
                if any(atom.of != "tensor" and atom.number in (fired.before, which) for each in made for atom in each):
                    paths.append(self.nodes[ref.node].path)
        parts = [path.split(".") for path in paths]
        common = []
        for each in zip(*parts, strict=False):
            if len(set(each)) > 1:
                break
            common.append(each[0])
        return ".".join(common)

    # --- the program

    def _summed(self, source: Any, which: int, path: str) -> tuple[Ref, list[Node]]:
        """Return what neurons hear, and the operations that add it up where the module adds it to the potential."""
        if not isinstance(source, tuple):
            return source, []
        shapes = [self.nodes[self.fired[which].potential.node].shapes[self.fired[which].potential.result]]
        total, nodes = source[0], []
        for each in source[1:]:
            nodes.append(Node(self.unused, "add", (total, each), {}, shapes, path, 0))
            total = Ref(self.unused)
            self.unused += 1
        return total, nodes

    def _replace(
        self,
        which: int,
        arguments: tuple[Any, ...],
        operation: str,
        path: str,
        call: int,
        neuron: Neuron | None,
        before: Sequence[Node] = (),
    ) -> None:
        """Put one operation in the place of those that compare a potential with its threshold."""
        fired = self.fired[which]
        first, *again = fired.nodes
        shapes = [self.nodes[first].shapes[0]]
        spikes = Node(self.unused, operation, arguments, {}, shapes, path, call, neuron)
        self.unused += 1
        self.replaced[first] = [*before, spikes]
        for each in (first, *again):
            made = _of_spikes(self.nodes[each], Ref(spikes.number), self.spikes[each][1])
            self.replaced.setdefault(each, []).append(made)
        self.emitted[which] = Ref(spikes.number)

    def _again(self, node: Node) -> list[Node]:
        """Return an operation as it is, or what stands for one that gives spikes again, as ``where(v > 1, 1, 0)``."""
        if node.operation not in FOLLOWED or node.number in self.spikes or len(node.shapes) > 1:
            return [node]
        found = self._spikes_in(self.sums.of(Ref(node.number)))
        return (
            [node] if found is None or found[0] in self.left else [_of_spikes(node, self.emitted[found[0]], found[1])]
        )

    def _rewritten(self, names: dict[int, str]) -> Program:
        """Return the program with what was replaced, of what its output needs alone; numbers are places again."""
        nodes: list[Node] = []
        same: dict[int, Ref] = {}
        for node in self.nodes:
            for each in self.replaced.get(node.number) or self._again(node):
                if each.operation == "alias":
                    same[each.number] = each.arguments[0]
                else:
                    nodes.append(each)
        aliased = [
            replace(node, arguments=_renamed(node.arguments, same), keywords=_renamed(node.keywords, same))
            for node in nodes
        ]
        output = _renamed(self.program.output, same)
        by_number = {node.number: node for node in aliased}
        read = {0} | needed(by_number, (ref.node for ref in leaves(output) if isinstance(ref, Ref)))
        kept = [node for node in aliased if node.number in read]
        self._check(kept, names)
        places = {node.number: place for place, node in enumerate(kept)}
        moved = [
            replace(
                node,
                number=places[node.number],
                arguments=_moved(node.arguments, places),
                keywords=_moved(node.keywords, places),
            )
            for node in kept
        ]
        return replace(self.program, nodes=moved, output=_moved(output, places))

    def _check(self, kept: list[Node], names: dict[int, str]) -> None:
        """Refuse what needs a potential beside the neurons."""
        for node in kept:
            if node.number >= len(self.nodes):
                continue
            if node.number in self.spikes:
                continue
            # of the first step's potential, which may be what arrives, it is asked what it is made of
            own = [Ref(node.number, index) for index in range(len(node.shapes))]
            made = [product for ref in own for product in self.sums.made(ref)]
            if any(atom.of == "potential" and self._stands(atom.number) for product in made for atom in product):
                raise self._error(
                    node,
                    f"{node.operation} of the potential of neurons found; expected that only their spikes are read",
                )

    def _stands(self, which: int) -> bool:
        """Tell whether a potential is that of neurons, which no operation makes any more."""
        return which not in self.left and self.replaced[self.fired[which].nodes[0]][-2].operation == NEURON

    def _error(self, node: Node, words: str) -> InputError:
        return InputError(f"module {node.path or 'itself'}: {words}")


EXPECTED = (
    "expected neurons as charge, threshold and reset: v = decay * v + x or v + (x - v) / tau, spikes = v >= threshold, "
    "v * (1 - spikes) or v - threshold * spikes"
)


def _of_spikes(node: Node, spikes: Ref, rest: bool) -> Node:
    """Return an operation that gives spikes, or what they leave of 1, in the place of another."""
    if rest:
        return replace(node, operation="rsub", arguments=(spikes, 1.0), keywords={})
    return replace(node, operation="alias", arguments=(spikes,), keywords={})


def _renamed(value: Any, same: dict[int, Ref]) -> Any:
    return mapped(value, lambda tensor: tensor, lambda ref: same.get(ref.node, ref))


def _moved(value: Any, places: dict[int, int]) -> Any:
    return mapped(value, lambda tensor: tensor, lambda ref: Ref(places[ref.node], ref.result))
