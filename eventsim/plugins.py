"""Parts that other packages bring, found through entry points; a broken one is reported and stops nothing else.

A package that adds a checkpoint format, an event-file format or a layer names it in its ``pyproject.toml``::

    [project.entry-points."eventsim.importers"]
    my_format = "my_package.my_format:IMPORTER"

The groups are `IMPORTERS`, `EVENT_FORMATS` and `LAYERS`. Installing a package is what trusts it: its code runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from eventsim.errors import InputError
from eventsim.untrusted import described

IMPORTERS = "eventsim.importers"
EVENT_FORMATS = "eventsim.events"
LAYERS = "eventsim.layers"


class PluginWarning(UserWarning):
    """A part of another package cannot be used; the message names it and says why."""


def plugins(group: str, taken: Iterable[str], check: Callable[[Any], None]) -> dict[str, Any]:
    """Return the usable parts of one group by name; each broken one is a `PluginWarning`, once.

    Parameters
    ----------
    group : str
        `IMPORTERS`, `EVENT_FORMATS` or `LAYERS`.
    taken : iterable of str
        Names of our own parts, which no other package may take.
    check : callable
        Raises `InputError` where a part lacks something of its protocol.
    """
    return dict(_load(group, frozenset(taken), check))


@cache
def _load(group: str, taken: frozenset[str], check: Callable[[Any], None]) -> tuple[tuple[str, Any], ...]:
    found: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        try:
            if point.name in taken or point.name in found:
                raise InputError(f"the name {point.name} is taken; expected one of its own")
            part = point.load()
            check(part)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the code of another package raises
            warnings.warn(_report(group, point, error), PluginWarning, stacklevel=3)
            continue
        found[point.name] = part
    return tuple(found.items())


def _report(group: str, point: EntryPoint, error: BaseException) -> str:
    reason = str(error) if isinstance(error, InputError) else described(error)
    package = f" of package {point.dist.name}" if point.dist is not None else ""
    return f"plug-in {point.name} = {point.value}{package} ({group}) is left out: {reason}"
