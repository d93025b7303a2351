"""The one place where the flags of compilation are set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

from eventsim.kernel_cache import keep

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile lazily, cached on disk, free of the interpreter lock, with strict floating point."""
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    keep(compiled, announced=True)
    return cast(F, compiled)
