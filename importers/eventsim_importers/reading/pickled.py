"""Pickles, read without executing anything: of what PyTorch stores, tensors and plain values; the rest by name only.

`pickletools` splits the stream into opcodes; a machine of our own keeps the stack. It knows the few functions that
rebuild tensors and mappings, as functions of this module. Every other global is an `Unknown`, which is never called:
what it would have made is an `Unknown` too, and what would be put into it is dropped.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from eventsim.untrusted import printable

MOST_OPCODES = 1 << 22
"""Steps of the machine, each of which makes one small object at most."""
MOST_BYTES = 1 << 28
"""Length of a pickle."""
LONGEST_LINE = 1 << 20
MOST_AXES = 32
MOST_ARGUMENTS = 16
MOST_VALUES = 1 << 58


class PickleError(Exception):
    """A pickle that is damaged, or larger than the limits."""


@dataclass(slots=True, eq=False)
class Unknown:
    """What a global that is not known stands for, or would have made.

    Attributes
    ----------
    name : str
        Of the global, with its module.
    is_module : bool
        Whether it would have made a ``torch.nn.Module``, which its state tells.
    """

    name: str
    is_module: bool = False


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the values of tensors are stored.

    Attributes
    ----------
    key : str
        Its name in the file.
    kind : str
        What PyTorch calls its type: ``float32``, ``bfloat16``, ``qint8``; ``bytes`` where the tensor says the type.
    size : int
        Number of values.
    """

    key: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides count values."""

    storage: Storage
    kind: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OddTensor:
    """A tensor that is no view of plain values.

    Attributes
    ----------
    what : str
        Its type or layout.
    """

    what: str


class Attributes(dict[str, Any]):
    """What a namespace holds, such as the arguments of a training script."""


class _Mark:
    """The place on the stack where a group of arguments begins."""


STORAGE_KINDS = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "bytes",
}
PLAIN = (
    pickletools.pyint,
    pickletools.pyinteger_or_bool,
    pickletools.pyfloat,
    pickletools.pybytes_or_str,
    pickletools.pybytes,
    pickletools.pyunicode,
)
LITERALS = {code.name for code in pickletools.opcodes if code.arg and code.stack_after in [[kind] for kind in PLAIN]}
LITERALS |= {"BYTEARRAY8"}
"""Opcodes whose argument is the value."""
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Unknown("builtins.set"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(file: IO[bytes], storages: dict[str, Storage] | None = None) -> Any:
    """Read one pickle, and leave the file behind it.

    Parameters
    ----------
    file : binary file
    storages : dict, optional
        Gets every storage by its key.

    Returns
    -------
    object
        Plain values, lists, tuples, dictionaries (of their entries only those that text names), `Tensor`, `OddTensor`,
        `Storage` and `Unknown`.

    Raises
    ------
    PickleError
        If it is damaged or exceeds a limit.
    """
    try:
        return _Machine({} if storages is None else storages).run(
            _limited(pickletools.genops(cast(IO[bytes], _Within(file))))
        )
    except PickleError:
        raise
    except IndexError:
        raise PickleError("damaged pickle: it takes more from the stack than is there") from None
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PickleError(f"damaged pickle: {reason[:100]}") from None


def _limited(steps: Iterator[tuple[Any, Any, Any]]) -> Iterator[tuple[str, Any]]:
    for number, (opcode, argument, _) in enumerate(steps):
        if number >= MOST_OPCODES:
            raise PickleError(f"pickle of more than {MOST_OPCODES} steps")
        yield opcode.name, argument


class _Within:
    """A file of which no more is read than is there: some files make room for all that they are asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        begin = file.tell()
        self.end = file.seek(0, io.SEEK_END)
        file.seek(begin)
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        """Read bytes, as many as are there."""
        return self.file.read(min(size, self.end - self.file.tell()))

    def readline(self) -> bytes:
        """Read a line; of a longer one than any argument has, its beginning."""
        return self.file.readline(LONGEST_LINE)


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copied = 0

    def run(self, steps: Iterator[tuple[str, Any]]) -> Any:
        """Take every step; return what the last leaves."""
        for name, argument in steps:
            if name in LITERALS:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in TUPLES:
                self.stack.append(tuple(self._take(TUPLES[name])))
            elif name == "STOP":
                return self._one()
            else:
                getattr(self, f"_{name.lower()}", self._refuse)(argument)
        raise PickleError("damaged pickle: no end")

    def _refuse(self, _: Any) -> None:
        raise PickleError("pickle with data outside of it")

    def _one(self) -> Any:
        value = self.stack.pop()
        if value is _Mark:
            raise PickleError("damaged pickle: a mark in the place of a value")
        return value

    def _take(self, count: int) -> list[Any]:
        return [self._one() for _ in range(count)][::-1]

    def _group(self) -> list[Any]:
        """Return what lies above the last mark, and take both off."""
        group = []
        while (value := self.stack.pop()) is not _Mark:
            group.append(value)
        return group[::-1]

    # --- opcodes, by their names in pickletools

    def _proto(self, argument: int) -> None:
        if argument > 5:
            raise PickleError(f"pickle of protocol {argument}")

    def _frame(self, _: Any) -> None:
        """Frames only say how much to read at a time."""

    def _mark(self, _: Any) -> None:
        self.stack.append(_Mark)

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._group()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, index: int) -> None:
        if not 0 <= index < 1 << 32:
            raise PickleError("damaged pickle: a memo of a number that none has")
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._group()))

    def _list(self, _: Any) -> None:
        self.stack.append(self._group())

    def _dict(self, _: Any) -> None:
        group = self._group()
        self.stack.append({})
        self._set(group)

    def _frozenset(self, _: Any) -> None:
        self._group()
        self.stack.append(Unknown("builtins.frozenset"))

    def _append(self, _: Any) -> None:
        self._extend(self._take(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._group())

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def _additems(self, _: Any) -> None:
        self._group()

    def _setitem(self, _: Any) -> None:
        self._set(self._take(2))

    def _setitems(self, _: Any) -> None:
        self._set(self._group())

    def _set(self, group: list[Any]) -> None:
        """Set keys and values that alternate; others than texts name no tensor, and could be made to hash for ever."""
        target = self.stack[-1]
        if isinstance(target, dict):
            pairs = zip(group[::2], group[1::2], strict=True)
            target.update((printable(key), value) for key, value in pairs if type(key) is str)

    def _global(self, argument: str) -> None:
        self.stack.append(Unknown(printable(argument.replace(" ", "."))))

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("damaged pickle: a global that no text names")
        self.stack.append(Unknown(printable(f"{module}.{name}")))

    def _ext1(self, argument: int) -> None:
        self.stack.append(Unknown(f"copyreg extension {argument}"))

    _ext2 = _ext4 = _ext1

    def _inst(self, argument: str) -> None:
        self._call(Unknown(printable(argument.replace(" ", "."))), self._group())

    def _obj(self, _: Any) -> None:
        made, *arguments = self._group()
        self._call(made, arguments)

    def _reduce(self, _: Any) -> None:
        made, arguments = self._take(2)
        self._call(made, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        made, arguments, _ = self._take(3)
        self._call(made, arguments)

    def _build(self, _: Any) -> None:
        """Drop the state of an object, but for a namespace's and for what tells a module."""
        state = self._one()
        if isinstance(state, tuple) and state:
            state = state[0]
        made = self.stack[-1]
        if isinstance(made, Attributes) and isinstance(state, dict):
            made.update(state)
        if isinstance(made, Unknown) and isinstance(state, dict) and {"_parameters", "_modules"} <= state.keys():
            made.is_module = True

    def _persid(self, _: Any) -> None:
        raise PickleError("pickle with data outside of it")

    def _binpersid(self, _: Any) -> None:
        pid = self._one()
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            self.stack.append(pid[1])
            return
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], Unknown)):
            raise PickleError("pickle with data outside of it that is no storage")
        _, kind, key, _, size, *view = pid
        if any(view):
            raise PickleError("storage that is part of another")
        name = kind.name.rpartition(".")[2]
        if not isinstance(key, str) or not _is_size(size):
            raise PickleError("damaged pickle: a storage without name or size")
        self.storages[key] = Storage(key, STORAGE_KINDS.get(name, name), size)
        self.stack.append(self.storages[key])

    # --- calls

    def _call(self, made: Any, arguments: Any) -> None:
        """Push what a global makes of its arguments."""
        name = made.name if isinstance(made, Unknown) else type(made).__name__
        known = KNOWN.get(name)
        if known is None:
            self.stack.append(Unknown(name))
        elif known is _mapping:
            self.stack.append({})
            self._fill(arguments)
        elif not isinstance(arguments, (tuple, list)) or len(arguments) > MOST_ARGUMENTS:
            raise PickleError(f"damaged pickle: arguments of {name} that it does not take")
        else:
            self.stack.append(known(*arguments))

    def _fill(self, arguments: Any) -> None:
        """Fill an ordered dictionary from a list of pairs, as Python 2 stores it."""
        pairs = arguments[0] if arguments else None
        if not isinstance(pairs, list):
            return
        self.copied += len(pairs)
        if self.copied > MOST_OPCODES:
            raise PickleError(f"pickle of more than {MOST_OPCODES} steps")
        for pair in pairs:
            if isinstance(pair, (list, tuple)) and len(pair) == 2:
                self._set(list(pair))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_VALUES


def _mapping(*_: Any) -> Any:
    """Stand for the types of dictionaries."""


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Tensor | OddTensor:
    """Rebuild ``_rebuild_tensor_v2``; of the rest only the metadata matter, which may say that values are negated."""
    if not isinstance(storage, Storage):
        raise PickleError("damaged pickle: a tensor without storage")
    return _view(storage, storage.kind, offset, shape, stride, rest[2] if len(rest) > 2 else None)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any, metadata: Any = None
) -> Tensor | OddTensor:
    """Rebuild ``_rebuild_tensor_v3``, where the tensor says the type of an untyped storage."""
    if not isinstance(storage, Storage) or not isinstance(kind, Unknown):
        raise PickleError("damaged pickle: a tensor without storage or type")
    return _view(storage, kind.name.rpartition(".")[2], offset, shape, stride, metadata)


def _view(storage: Storage, kind: str, offset: Any, shape: Any, stride: Any, metadata: Any) -> Tensor | OddTensor:
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise PickleError("damaged pickle: a tensor without shape")
    if not len(shape) == len(stride) <= MOST_AXES or not all(map(_is_size, (offset, *shape, *stride, _extent(shape)))):
        raise PickleError("damaged pickle: a tensor with a shape, strides or an offset that none has")
    if isinstance(metadata, dict) and any(value is True for value in metadata.values()):
        return OddTensor("a layout of conjugated or negated values")
    return Tensor(storage, kind, offset, shape, stride)


def _extent(shape: tuple[Any, ...]) -> int:
    """Return the product of the sizes that are not 0; -1 of what are no sizes."""
    return math.prod(max(size, 1) for size in shape) if all(map(_is_size, shape)) else -1


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_type(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Rebuild a tensor with attributes; one of a class of others may mean something else."""
    name = kind.name if isinstance(kind, Unknown) else "no type"
    rebuild = {"_rebuild_tensor_v2": _tensor, "_rebuild_tensor_v3": _typed_tensor}.get(
        function.name.removeprefix("torch._utils.") if isinstance(function, Unknown) else ""
    )
    if rebuild is None or not name.startswith("torch.") or not isinstance(arguments, tuple):
        return OddTensor(f"type {name}")
    return rebuild(*arguments[:MOST_ARGUMENTS])


def _namespace(*_: Any) -> Attributes:
    return Attributes()


def _size(values: Any = ()) -> Any:
    return values if isinstance(values, tuple) else ()


def _odd(what: str) -> Callable[..., OddTensor]:
    return lambda *_: OddTensor(what)


def _quantised(storage: Any = None, *_: Any) -> OddTensor:
    return OddTensor(f"type torch.{storage.kind}" if isinstance(storage, Storage) else "quantised type")


KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "builtins.dict": _mapping,
    "__builtin__.dict": _mapping,
    "argparse.Namespace": _namespace,
    "types.SimpleNamespace": _namespace,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _odd("sparse layout"),
    "torch._utils._rebuild_sparse_csr_tensor": _odd("sparse layout"),
    "torch._utils._rebuild_nested_tensor": _odd("nested layout"),
    "torch._utils._rebuild_meta_tensor_no_storage": _odd("device meta, without values"),
    "torch._utils._rebuild_device_tensor_from_numpy": _odd("another device"),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _odd("another device"),
    "torch._utils._rebuild_wrapper_subclass": _odd("a wrapper class"),
}
"""What each global makes of its arguments; nothing else is called."""
