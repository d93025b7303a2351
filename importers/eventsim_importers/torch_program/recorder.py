"""What a module does with one example: every operation on tensors that depend on it, in order.

A ``TorchFunctionMode`` sees the operations of PyTorch before they are decomposed, on real tensors, so that control
flow, shape arithmetic and operations on parameters have happened already. Neurons are opaque: their calls are
operations.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from eventsim.errors import InputError
from eventsim.untrusted import described
from eventsim_importers.torch_program.neurons.protocol import Neuron
from eventsim_importers.torch_program.surrogates import Step, step_of

NEURON, FIRE, CONTEXT = "neuron", "fire", "global context"
"""Calls of neurons; comparisons with a threshold whose gradient is their own; and what `written.contexts` finds."""
RETYPED = "another type of float"
SAME_VALUE = ("detach", "contiguous", "clone", "requires_grad_", "alias", "positive", "to", "float", "type_as", "cpu")
"""Operations that leave values and axes as they are; a change of their type is looked for."""
CONSTANT = ("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full")
"""Operations that read of a tensor its shape only."""
BRANCHES = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__", "nonzero", "equal",
            "is_nonzero", "allclose")  # fmt: skip
"""Operations whose result leaves the tensors."""
QUESTIONS = (
    "size", "dim", "stride", "numel", "nelement", "element_size", "ndimension", "storage_offset", "untyped_storage",
    "data_ptr", "get_device", "__len__", "__hash__", "__repr__", "__format__", "_is_view",
)  # fmt: skip
"""Operations that ask for something else than values."""
ALIASES = {"axis": "dim", "keepdims": "keepdim", "axis0": "dim0", "axis1": "dim1"}
"""NumPy's names of arguments."""
IN_PLACE = re.compile(r"(?!__).*[^_]_|__i(add|sub|mul|truediv|and|or)__|__setitem__")
"""Operations that change their first argument."""
PROPERTIES_OF_VALUE = ("data", "T", "mT", "H", "mH", "real")


@dataclass(frozen=True)
class Ref:
    """A tensor that depends on the example: which of the results of which operation."""

    node: int
    result: int = 0


@dataclass
class Node:
    """One operation.

    Attributes
    ----------
    number : int
    operation : str
        As PyTorch names the function or the method, ``"neuron"``, or ``"example"``.
    arguments : tuple
        Positional; `Ref` in the place of what depends on the example, other tensors and plain values as they are.
    keywords : dict
    shapes : list of tuple of int
        Of the results.
    path : str
        Of the module that did it.
    call : int
        How often that module had been called before.
    neuron : Neuron, optional
    function : callable, optional
        PyTorch's own.
    """

    number: int
    operation: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    shapes: list[tuple[int, ...]]
    path: str
    call: int
    neuron: Neuron | None = None
    function: Callable[..., Any] | None = None

    @property
    def refs(self) -> list[Ref]:
        """The tensors it reads that depend on the example, in order."""
        return [each for each in leaves((self.arguments, self.keywords)) if isinstance(each, Ref)]


def needed(nodes: Mapping[int, Node] | Sequence[Node], outputs: Iterable[int]) -> set[int]:
    """Return the numbers of the operations that others, given by number, depend on, and of these themselves."""
    found: set[int] = set()
    waiting = list(outputs)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting.extend(ref.node for ref in nodes[number].refs)
    return found


@dataclass
class Program:
    """What was recorded; a folding of its loop changes it.

    Attributes
    ----------
    nodes : list of Node
        The first is the example.
    output : object
        What the module returned, with `Ref` in the place of tensors.
    owners : dict of int to list of str
        The modules that hold a parameter or buffer, by the address of its storage.
    kept : dict of int to tensor
        First results that were asked for, by operation.
    returned : object
        The same as `output` with its tensors.
    tensors : dict of int to str
        Names of the module's own tensors, by where their values lie.
    """

    nodes: list[Node]
    output: Any
    owners: dict[int, list[str]] = field(default_factory=dict)
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    returned: Any = None
    tensors: dict[int, str] = field(default_factory=dict)


def record(
    module: nn.Module,
    example: torch.Tensor,
    neuron_of: Callable[[nn.Module], Neuron | None],
    keep: Collection[int] = (),
) -> Program:
    """Run a module on an example, and return what it did.

    Parameters
    ----------
    module : Module
        In evaluation mode.
    example : tensor
    neuron_of : callable
        What each module is, if it is a neuron.
    keep : collection of int
        Operations whose first result is wanted.

    Raises
    ------
    InputError
        If the module refuses the example, or values that depend on it decide what is done.
    """
    paths = {each: path for path, each in module.named_modules()}
    recorder = _Recorder(keep)
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for each, path in paths.items():
            neuron = neuron_of(each)
            for handle in recorder.watch(each, path, neuron):
                hooks.callback(handle.remove)
        recorder.known[example] = recorder.add("example", (), {}, [example])[0]
        hooks.enter_context(recorder.functions_followed())
        try:
            with recorder:
                results = module(example)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{recorder.where()}: {described(error)}; expected an example {tuple(example.shape)} that "
                "the module takes"
            ) from error
    output = mapped(results, lambda tensor: recorder.known.get(tensor, tensor))
    own = [*module.named_buffers(), *module.named_parameters()]
    tensors = {tensor.untyped_storage().data_ptr(): name for name, tensor in own if tensor.numel()}
    return Program(recorder.nodes, output, _owners(module), recorder.kept, results, tensors)


def _owners(module: nn.Module) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = defaultdict(list)
    for path, each in module.named_modules():
        for tensor in (*each.parameters(recurse=False), *each.buffers(recurse=False)):
            owners[tensor.untyped_storage().data_ptr()].append(path)
    return owners


class _Recorder(TorchFunctionMode):  # type: ignore[misc]
    """Notes every operation on tensors that depend on the example."""

    def __init__(self, keep: Collection[int]) -> None:
        super().__init__()
        self.keep = frozenset(keep)
        self.kept: dict[int, torch.Tensor] = {}
        self.steps: dict[Any, tuple[Any, Step | None]] = {}
        self.nodes: list[Node] = []
        self.known: Any = WeakTensorKeyDictionary()
        self.states: Any = WeakTensorKeyDictionary()
        self.stale: Any = WeakTensorKeyDictionary()
        self.stack: list[tuple[str, int]] = [("", 0)]
        self.calls: dict[str, int] = {}
        self.opaque = 0

    def watch(self, module: nn.Module, path: str, neuron: Neuron | None) -> Iterator[Any]:
        """Follow the calls of a module."""

        def enter(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            self.stack.append((path, self.calls.get(path, 0)))
            self.calls[path] = self.calls.get(path, 0) + 1
            if neuron is not None:
                self.opaque += 1

        def leave(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            if neuron is not None:
                self.opaque -= 1
                if not self.opaque:
                    self.fired(module, neuron, arguments, keywords, output)
            self.stack.pop()

        yield module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        yield module.register_forward_hook(leave, with_kwargs=True, prepend=False)

    @contextlib.contextmanager
    def functions_followed(self) -> Iterator[None]:
        """Note functions with gradients of their own that are steps, such as surrogates; refuse others.

        No mode sees into them.
        """
        before = torch.autograd.Function.__dict__["apply"]

        def apply(cls: type, *arguments: Any, **keywords: Any) -> Any:
            run = before.__get__(None, cls)
            given = mapped(arguments, self.reference)
            if self.opaque or not any(isinstance(each, Ref) for each in leaves((given, keywords))):
                return run(*arguments, **keywords)
            self.opaque += 1
            try:
                result = run(*arguments, **keywords)
                step = self.step(cls, run, arguments, given)
                like = [each for each in arguments if isinstance(each, torch.Tensor) and each in self.known]
                if step is not None and not (
                    isinstance(result, torch.Tensor) and bool((result == step(like[0])).all())
                ):
                    step = None
            finally:
                self.opaque -= 1
            (ref,) = [each for each in given if isinstance(each, Ref)] if step else [None]
            if step is None or keywords:
                raise InputError(
                    f"{self.where()}: function {cls.__name__} with a gradient of its own found; expected spikes of "
                    "neurons that are known, a function that is 1 from a threshold on and 0 below, or "
                    "neurons={Class: function} (neurons=) for others"
                )
            self.known[result] = self.add(FIRE, (ref, step.threshold, step.strict), {}, [result])[0]
            return result

        torch.autograd.Function.apply = classmethod(apply)
        try:
            yield
        finally:
            torch.autograd.Function.apply = before

    def step(
        self, cls: type, run: Callable[..., Any], arguments: tuple[Any, ...], given: tuple[Any, ...]
    ) -> Step | None:
        """Return the step that a function is of the one argument that depends on the example."""
        places = [place for place, each in enumerate(given) if isinstance(each, Ref)]
        if len(places) != 1 or any(
            isinstance(each, Ref) for each in leaves([e for e in given if not isinstance(e, Ref)])
        ):
            return None
        (place,) = places
        like = arguments[place]
        rest = (*arguments[:place], *arguments[place + 1 :])
        key = (
            cls,
            place,
            tuple(like.shape),
            tuple(id(each) if isinstance(each, torch.Tensor) else repr(each) for each in rest),
        )
        if key not in self.steps:  # with the arguments, so that their ids stay theirs
            self.steps[key] = (rest, step_of(lambda x: run(*arguments[:place], x, *arguments[place + 1 :]), like))
        return self.steps[key][1]

    def fired(
        self, module: nn.Module, neuron: Neuron, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        """Note a call of a neuron."""
        given = mapped(arguments, self.reference)
        if not any(isinstance(each, Ref) for each in leaves(given)):
            raise InputError(
                f"{self.where()}: an input that does not depend on the example, as far as operations can be followed, "
                "found; expected no compiled or foreign functions before neurons"
            )
        tensors = [neuron.emitted(output), *(each for each in neuron.state(output) if isinstance(each, torch.Tensor))]
        refs = self.add(NEURON, given, mapped(keywords, self.reference), tensors, neuron)
        for tensor, ref in reversed(list(zip(tensors, refs, strict=True))):  # what is emitted may be a state, too
            self.known[tensor] = ref
        held = {**vars(module), **getattr(module, "_memories", {}), **dict(module.named_buffers(recurse=False))}
        for value in held.values():
            if isinstance(value, torch.Tensor):
                self.states[value] = self.stack[-1][0] or "itself"

    def reference(self, value: Any) -> Any:
        """Return the `Ref` of a tensor that depends on the example, anything else as it is."""
        return self.known.get(value, value) if isinstance(value, torch.Tensor) else value

    def add(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        results: Sequence[torch.Tensor],
        neuron: Neuron | None = None,
        function: Callable[..., Any] | None = None,
    ) -> list[Ref]:
        """Note an operation."""
        path, call = self.stack[-1]
        number = len(self.nodes)
        shapes = [tuple(result.shape) for result in results]
        self.nodes.append(Node(number, operation, arguments, keywords, shapes, path, call, neuron, function))
        if number in self.keep:
            self.kept[number] = results[0].detach().float().clone()
        return [Ref(number, index) for index in range(len(results))]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do an operation, and note it if it depends on the example."""
        keywords = kwargs or {}
        if self.opaque:
            return func(*args, **keywords)
        name = _name(func)
        if name == "__setitem__":
            self.written_back(*args)
        self.check_arguments(name, args, keywords)
        if name in ("__getitem__", "__setitem__") and isinstance(args[1], list):
            args = (args[0], torch.as_tensor(args[1]), *args[2:])  # not one number for each axis
        given, named = mapped(args, self.reference), mapped(keywords, self.reference)
        if not any(isinstance(each, Ref) for each in leaves((given, named))):
            return func(*args, **keywords)
        if name in BRANCHES:
            raise InputError(
                f"{self.where()}: {name}() of a tensor that depends on the example found; expected the same work for "
                "every input"
            )
        if name in QUESTIONS or name.startswith("is_"):
            return func(*args, **keywords)
        self.change_in_place(name, args)
        if IN_PLACE.fullmatch(name) and isinstance(given[0], torch.Tensor):
            given = (given[0].clone(), *given[1:])  # as it was
        result = func(*args, **keywords)
        given, named = _in_places(given, named)
        before = next(each.dtype for each in leaves((args, keywords)) if isinstance(each, torch.Tensor))
        self.note(func, given, named, args, result, before)
        return result

    def check_arguments(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Refuse what could not be followed: states of neurons, and what was changed through another tensor."""
        if name == "is_property":
            return
        for tensor in leaves((args, keywords)):
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor in self.stale:
                raise InputError(
                    f"{self.where()}: {name} of a tensor found of which a view was changed in place by "
                    f"{self.stale[tensor][0]}; expected an operation that makes a new one"
                )
            if tensor in self.states and tensor not in self.known:
                raise InputError(
                    f"{self.where()}: {name} of the state of neurons {self.states[tensor]} found; expected what they "
                    "emit"
                )

    def written_back(self, tensor: Any, index: Any, value: Any) -> None:
        """Trust a tensor again when what was changed in place of it is put there: ``x[1:] += y`` does both."""
        if tensor not in self.stale or not isinstance(value, torch.Tensor):
            return
        _, places = self.stale[tensor]
        if places == {_place(tensor[index])} == {_place(value)}:
            del self.stale[tensor]

    def change_in_place(self, name: str, args: tuple[Any, ...]) -> None:
        """Note that other tensors hold other values after a change in place."""
        if not IN_PLACE.fullmatch(name) or not args or not isinstance(args[0], torch.Tensor):
            return
        storage = args[0].untyped_storage().data_ptr()
        for other in list(self.known):
            if other is not args[0] and storage and other.untyped_storage().data_ptr() == storage:
                _, places = self.stale.get(other, (name, set()))
                self.stale[other] = (name, places | {_place(args[0])})

    def note(self, func: Any, given: Any, named: Any, args: tuple[Any, ...], result: Any, before: torch.dtype) -> None:
        """Note what an operation made; `before` is the type of numbers of the first tensor that it took."""
        name = _name(func)
        if name in CONSTANT:
            return
        if name == "__setitem__":
            self.known[args[0]] = self.add(name, given, named, [args[0]])[0]
            return
        made = [each for each in leaves(result) if isinstance(each, torch.Tensor)]
        if not made:
            return
        if name in SAME_VALUE and isinstance(given[0], Ref) and made[0].is_floating_point():
            if made[0].dtype == before:
                self.known[made[0]] = given[0]
                return
            name, func = RETYPED, partial(torch.Tensor.to, dtype=made[0].dtype)  # with which PyTorch reckons otherwise
            given, named = given[:1], {}
        for tensor, ref in zip(made, self.add(name, given, named, made, function=func), strict=True):
            self.known[tensor] = ref

    def where(self) -> str:
        """Name the module that is at work."""
        return f"module {self.stack[-1][0] or 'itself'}"


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return where in memory the values of a tensor lie."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _in_places(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put arguments that were given by name where they stand without, under PyTorch's own names."""
    named = {ALIASES.get(key, key): value for key, value in named.items()}
    for key in ("input", "tensors"):
        if key in named:
            given = (named.pop(key), *given)
    for key in ("other", "mat2", "source", "destination", "dim0", "dim1", "split_size_or_sections", "chunks"):
        if key in named:
            given = (*given, named.pop(key))
    return given, named


def _name(func: Any) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":  # a property
        described = getattr(func, "__self__", None)
        name = getattr(described, "__name__", name)
        return name if name in PROPERTIES_OF_VALUE else "is_property"
    return {"_scaled_dot_product_attention": "scaled_dot_product_attention"}.get(name, name)


def mapped(value: Any, tensor: Callable[[torch.Tensor], Any], ref: Callable[[Ref], Any] = lambda ref: ref) -> Any:
    """Return nested tuples, lists and dictionaries with every tensor and every `Ref` changed."""
    if isinstance(value, torch.Tensor):
        return tensor(value)
    if isinstance(value, Ref):
        return ref(value)
    if isinstance(value, (tuple, list)):
        return tuple(mapped(each, tensor, ref) for each in value)
    if isinstance(value, dict):
        return {key: mapped(each, tensor, ref) for key, each in value.items()}
    return value


def leaves(value: Any) -> Iterator[Any]:
    """Return what nested tuples, lists and dictionaries hold."""
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    else:
        yield value
