"""Where compiled code is kept between runs, and what is done where nothing can be kept: it is compiled in every run."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from llvmlite.binding import add_symbol, parse_bitcode
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.environment import Environment, lookup_environment
from numba.core.runtime._nrt_python import c_helpers

LOG = logging.getLogger("eventsim")
"""Where nobody configures logging, Python writes its warnings to stderr."""


class _Index(IndexDataCacheFile):  # type: ignore[misc]
    """Which file holds the code of which types, for processes that compile at the same time.

    Numba numbers the files, and names one before it is written: another process may take what an older version of the
    sources left under that number, or what a third process compiled for other types, and run it. And it reads an index
    before it looks whether that is of these sources: an index of others may name types that are no longer there.
    """

    def __init__(self, cache_path: str, filename_base: str, source_stamp: tuple[Any, ...]) -> None:
        super().__init__(cache_path, filename_base, source_stamp)
        self._version = numba.__version__, source_stamp

    def save(self, key: Any, data: Any) -> None:
        sources, types = _number_of(self._source_stamp), _number_of(key)
        name = self._data_name(sources << 48 | types)
        self._save_data(name, data)
        known = self._load_index()
        self._save_index({**known, key: name})
        if not known:
            for path in Path(self._cache_path).glob(self._data_name_pattern.replace("{number:d}", "*")):
                number = path.suffixes[-2][1:]
                if not number.isdigit() or int(number) >> 48 != sources:
                    with suppress(OSError):
                        path.unlink()


def _number_of(what: object) -> int:
    """Return a number of 48 bits that nothing else has."""
    return int.from_bytes(sha256(repr(what).encode()).digest()[:6])


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Machine code that was kept, and its bitcode, which is read where a kernel that calls it is compiled."""

    @classmethod
    def _unserialize(cls, codegen: Any, state: Any) -> _Library:
        name, _, (machine_code, bitcode) = state
        library = cls(codegen, name)
        library.enable_object_caching()
        library._set_compiled_object(machine_code)
        library._bitcode = bitcode
        library._finalize_final_module()
        return library

    @cached_property
    def _parsed(self) -> Any:
        return parse_bitcode(self._bitcode)

    def _get_module_for_linking(self) -> Any:
        return self._parsed

    def get_pointer_to_function(self, name: str) -> int:
        """Return the address of a function, which Numba looks for in the bitcode first."""
        return int(self._codegen._engine.get_function_address(name))


class _Bare:
    """An environment of a function of Numba's own that holds nothing: its code only asks whether there is one.

    With the environment itself, Numba would import the module of the function, which compilers need.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __reduce__(self) -> tuple[Any, ...]:
        return _environment, (self.module, self.name)


def _environment(module: str, name: str) -> Environment:
    """Return the environment of this name, or one without globals."""
    found = lookup_environment(name)
    if found is None:
        found = Environment({"__name__": module})
        found.env_name = name
        Environment._memo[name] = found
    return found


class _Results(CompileResultCacheImpl):  # type: ignore[misc]
    """What is kept of a compiled function."""

    def reduce(self, data: Any) -> tuple[Any, ...]:
        *kept, environments = super().reduce(data)
        return (*kept, tuple(map(_kept, environments)))


def _kept(environment: Environment) -> Environment | _Bare:
    module = environment.globals["__name__"]
    is_bare = module.startswith("numba.") and not len(environment.consts)
    return _Bare(module, environment.env_name) if is_bare else environment


@cache
def _name_helpers() -> None:
    """Tell the linker what Numba's code calls of its own; where Numba does, it compiles more that compilers need."""
    for name, address in c_helpers.items():
        add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class _Files(FunctionCache):  # type: ignore[misc]
    """What Numba keeps of a function.

    Numba compiles anew when the file of a function has changed. Compiled code holds the functions that it calls, too:
    here it is compiled anew when any file of its folder has changed, or of the folder of kernels, or of others named.
    """

    _impl_class = _Results

    def __init__(self, function: Any, *others: Path) -> None:
        super().__init__(function)
        folders = {Path(function.__code__.co_filename).parent, Path(__file__).parent / "kernels", *others}
        stamps = tuple(_stamp_of(folder) for folder in sorted(folders))
        self._cache_file = _Index(self._cache_path, self._impl.filename_base, stamps)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load without what only a compiler needs: that is half a second and 50 MB, SciPy's linear algebra with it."""
        _name_helpers()
        codegen = target_context.codegen()
        codegen._library_class = _Library  # nothing else is made meanwhile: Numba holds its lock
        try:
            return self._load_overload(sig, target_context)
        finally:
            vars(codegen).pop("_library_class", None)  # to load one kernel may be to load another


@cache
def _stamp_of(folder: Path) -> tuple[tuple[str, float, int], ...]:
    """Return name, time and size of every source file of a folder."""
    sources = [(path.name, path.stat()) for path in sorted(folder.glob("*.py"))]
    return tuple((name, found.st_mtime, found.st_size) for name, found in sources)


class _Kept:
    """The cache of one dispatcher, looked for when it is first called: a run calls few of all kernels.

    A disk that is full or cannot be read stops nobody. What is compiled, or cannot be kept, is said once in a process.
    """

    def __init__(self, function: Any, folders: tuple[Path, ...], announced: bool) -> None:
        self.function = function
        self.folders = folders
        self.announced = announced

    @cached_property
    def files(self) -> _Files | None:
        try:
            return _Files(self.function, *self.folders)
        except (RuntimeError, OSError):  # Numba's for: no folder
            return None

    @property
    def cache_path(self) -> str | None:
        return None if self.files is None else self.files.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if self.files is None:
            _say_uncached("no folder for them can be written")
            return None
        try:
            found = self.files.load_overload(sig, target_context)
        except OSError:
            found = None
        if found is None and self.announced:
            _say_compiling(self.files.cache_path)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        if self.files is None:
            return
        try:
            self.files.save_overload(sig, data)
        except OSError as error:
            self.files.disable()
            _say_uncached(f"{self.files.cache_path}: {error.strerror or error}")


_said: set[str] = set()
"""The messages that this process has heard, each of which is said once."""


def _say(message: str, *what: object) -> None:
    if message not in _said:
        _said.add(message)
        LOG.warning(message, *what)


def _say_compiling(folder: str) -> None:
    _say(
        "eventsim: compiling the kernels of these layers for this processor, some seconds and once: later runs load "
        "them from %s",
        folder,
    )


def _say_uncached(why: str) -> None:
    _say(
        "eventsim: compiled kernels cannot be kept (%s): every run compiles them anew, some seconds; set "
        "NUMBA_CACHE_DIR to a folder that can be written",
        why,
    )


def keep(dispatcher: Any, *folders: Path, announced: bool = False) -> None:
    """Let Numba keep on disk what it compiles of a function; where there is no folder for it, say so when it is called.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Of `numba.njit`, made without ``cache``, which refuses to work where nothing can be kept.
    *folders : Path
        Of functions that it calls, beside its own and that of the kernels.
    announced : bool
        Say that kernels are compiled, when this one is.
    """
    if not numba.config.DISABLE_JIT:
        dispatcher._cache = _Kept(dispatcher.py_func, folders, announced)
