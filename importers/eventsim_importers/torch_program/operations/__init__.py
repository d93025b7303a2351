"""Operations of PyTorch as layers, a file for each kind.

Each file has ``OPERATIONS``: by PyTorch's name of a function or method, a function ``(translation, node)`` that adds
layers and returns what the results stand for (`values.Held`), a list where there are several, None where nothing reads
one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eventsim_importers.torch_program.operations import (
    attention,
    borders,
    firing,
    joins,
    loops,
    pools,
    shapes,
    synapses,
)
from eventsim_importers.torch_program.recorder import Node
from eventsim_importers.torch_program.values import Held

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation

Translate = Callable[["Translation", Node], Held | Sequence[Held | None]]

OPERATIONS: dict[str, Translate] = {
    name: translate
    for room in (shapes, loops, synapses, borders, pools, joins, attention, firing)
    for name, translate in room.OPERATIONS.items()
}
