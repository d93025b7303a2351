"""Where compiled code is kept between runs, and what is done where nothing can be kept: it is compiled in every run."""

from __future__ import annotations

import logging
from typing import Any

from numba.core import event
from numba.core.caching import FunctionCache

LOG = logging.getLogger("eventsim")
"""Where nobody configures logging, Python writes its warnings to stderr."""


class _Cache(FunctionCache):  # type: ignore[misc]
    """What Numba keeps, except that a disk that is full or cannot be read stops nobody."""

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


def keep(dispatcher: Any) -> bool:
    """Let Numba keep on disk what it compiles of a function.

    Parameters
    ----------
    dispatcher : numba dispatcher
        Of `numba.njit`, made without ``cache``, which refuses to work where nothing can be kept.

    Returns
    -------
    bool
        Whether there is a folder for it; where there is none, that is said when the function is compiled.
    """
    try:
        dispatcher._cache = _Cache(dispatcher.py_func)
    except (RuntimeError, OSError):  # Numba's for: no folder
        _uncached.without.add(dispatcher)
        return False
    return True
