"""The one place where the flags of compilation are set, and where it is said that kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event

from eventsim.kernel_cache import LOG, keep

F = TypeVar("F", bound=Callable[..., Any])


class _Announcement(event.Listener):  # type: ignore[misc]
    """Says once in a process that kernels are compiled; loading them from the cache is not, and takes no time."""

    def __init__(self) -> None:
        self.kernels: set[Any] = set()

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if dispatcher in self.kernels:
            self.kernels.clear()
            LOG.warning(
                "eventsim: compiling the kernels of these layers for this processor, some seconds and once: later "
                "runs load them from %s",
                dispatcher.stats.cache_path,
            )

    def on_end(self, event: Any) -> None:
        """Do nothing."""


_announcement = _Announcement()
event.register("numba:compile", _announcement)


def kernel(function: F) -> F:
    """Compile lazily, cached on disk, free of the interpreter lock, with strict floating point."""
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    if not numba.config.DISABLE_JIT and keep(compiled):
        _announcement.kernels.add(compiled)
    return cast(F, compiled)
