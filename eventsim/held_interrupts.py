"""Ctrl-C that waits until what was begun is done, and stops a command once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN_S = 1.0
"""For how long Ctrl-C pressed again means the same: what hears it has time to."""


class Interrupts:
    """Ctrl-C while a command runs.

    Attributes
    ----------
    ending : bool
        Whether the command ends anyway, with what it has; nothing stops that.
    came_late : bool
        Whether Ctrl-C was pressed while it ended.
    """

    def __init__(self) -> None:
        self.ending = self.came_late = False
        self._heard = -AGAIN_S

    def __call__(self, *_: Any) -> None:
        """Stop the command, unless that was said already."""
        now = time.monotonic()
        if self.ending:
            self.came_late = True
        elif now - self._heard >= AGAIN_S:
            self._heard = now
            raise KeyboardInterrupt


@contextmanager
def interrupted_once(last: bool = False) -> Iterator[Interrupts]:
    """Let Ctrl-C stop the block once; behind `ending` it does not any more, nor what follows where that is the `last`.

    Where Ctrl-C is ignored, as by what runs in the background, or somebody else hears it, all stays as it is.
    """
    interrupts = Interrupts()
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if last else signal.default_int_handler)


def ending() -> None:
    """Let Ctrl-C stop this command no more: what follows says what was computed."""
    interrupts = signal.getsignal(signal.SIGINT)
    if isinstance(interrupts, Interrupts):
        interrupts.ending = True


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block; it stops what comes behind."""
    if threading.current_thread() is not threading.main_thread():  # no other is interrupted
        yield
        return
    came: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *given: came.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])
