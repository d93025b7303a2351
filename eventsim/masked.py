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
    ma = sys.modules.get("numpy.ma")  # where nobody imported it there are none, and importing it takes time
    if ma is not None and isinstance(values, ma.MaskedArray):
        raise InputError(
            f"{name}: a masked array of shape {values.shape} found; expected all values to count: pass its filled(...) "
            "or compressed()"
        )
