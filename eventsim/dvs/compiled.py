"""How the decoders of event files are compiled: exact integers, free of the interpreter lock, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from eventsim.kernel_cache import keep

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile at the first call, for the types that it is called with."""
    decoder = numba.njit(nogil=True, error_model="numpy")(function)
    keep(decoder, Path(__file__).parent)  # decoders of formats call what stands here
    return cast(F, decoder)
