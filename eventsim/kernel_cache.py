"""Where compiled code is kept between runs, and what is done where nothing can be kept: it is compiled in every run."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

LOG = logging.getLogger("eventsim")
"""Where nobody configures logging, Python writes its warnings to stderr."""


class _Cache(FunctionCache):  # type: ignore[misc]
    """What Numba keeps, except that a disk that is full or cannot be read stops nobody.

    Numba compiles anew when the file of a function has changed. Compiled code holds the functions that it calls, too:
    here it is compiled anew when any file of its folder has changed, or of the folder of kernels, or of others named.
    """

    def __init__(self, function: Any, *others: Path) -> None:
        super().__init__(function)
        folders = {Path(function.__code__.co_filename).parent, Path(__file__).parent / "kernels", *others}
        stamps = tuple(_stamp_of(folder) for folder in sorted(folders))
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, stamps)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError:
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            self.disable()
            _uncached.say(f"{self.cache_path}: {error.strerror or error}")


@cache
def _stamp_of(folder: Path) -> tuple[tuple[str, float, int], ...]:
    """Return name, time and size of every source file of a folder."""
    sources = [(path.name, path.stat()) for path in sorted(folder.glob("*.py"))]
    return tuple((name, found.st_mtime, found.st_size) for name, found in sources)


class _Uncached(event.Listener):  # type: ignore[misc]
    """Says once in a process that code is compiled which no later run will find."""

    def __init__(self) -> None:
        self.without: set[Any] = set()
        self.said = False

    def on_start(self, event: Any) -> None:
        if event.data["dispatcher"] in self.without:
            self.say("no folder for them can be written")

    def on_end(self, event: Any) -> None:
        """Do nothing."""

    def say(self, why: str) -> None:
        if not self.said:
            self.said = True
            LOG.warning(
                "eventsim: compiled kernels cannot be kept (%s): every run compiles them anew, some seconds; set "
                "NUMBA_CACHE_DIR to a folder that can be written",
                why,
            )


_uncached = _Uncached()
event.register("numba:compile", _uncached)


def keep(dispatcher: Any, *folders: Path) -> bool:
    """Let Numba keep on disk what it compiles of a function.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Of `numba.njit`, made without ``cache``, which refuses to work where nothing can be kept.
    *folders : Path
        Of functions that it calls, beside its own and that of the kernels.

    Returns
    -------
    bool
        Whether there is a folder for it; where there is none, that is said when the function is compiled.
    """
    try:
        dispatcher._cache = _Cache(dispatcher.py_func, *folders)
    except (RuntimeError, OSError):  # Numba's for: no folder
        _uncached.without.add(dispatcher)
        return False
    return True
