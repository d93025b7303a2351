"""What layers share that hand on what they are given, in another place or later."""

from __future__ import annotations

from typing import ClassVar

from eventsim.facts import Role
from eventsim.layers.layer import Layer


class Routing(Layer):
    """A layer that computes nothing, so that nothing of it is counted."""

    role: ClassVar[Role] = "routing"

    def absolute(self) -> Layer:
        """Return the layer itself: it moves values, absolute ones too."""
        return self
