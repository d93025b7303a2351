"""Arrays whose values are partly masked."""

from __future__ import annotations

import sys
from typing import Any

from eventsim.errors import InputError


def refuse_masked(values: Any, name: str) -> None:
    """Refuse a masked array: what reads values would take those that are masked, too.

    Parameters
    ----------
    values : object
        Of any type.
    name : str
        For the message.

    Raises
    ------
    InputError
        It is one.
    """
    # where nobody imported it there are none, nor while another thread does; and importing it takes time
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is not None and isinstance(values, masked):
        raise InputError(
            f"{name}: a masked array of shape {values.shape} found; expected all values to count: pass its filled(...) "
            "or compressed()"
        )
