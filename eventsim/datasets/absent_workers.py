"""Saying that nothing goes on because a cluster has lost its workers or its scheduler, and that it goes on again."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

LOG = logging.getLogger("eventsim")
SILENCE_S = 5.0
"""How long nothing is said: workers are started again, and a network may fail for a moment."""
LOOK_S = 1.0


@contextmanager
def absence_told(client: Any, address: str) -> Iterator[None]:
    """Warn once, by the logger ``eventsim``, where workers or scheduler are away for some seconds, and of their return.

    Parameters
    ----------
    client : distributed.Client
    address : str
        Of the cluster, for the message.
    """
    done = Event()
    looking = Thread(target=_look, args=(client, address, done), daemon=True)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join(LOOK_S)  # or it would ask a client that is being closed


def _look(client: Any, address: str, done: Event) -> None:
    since, told = time.monotonic(), ""
    while not done.wait(LOOK_S):
        away = _away(client)
        if not away:
            if told:
                LOG.warning("eventsim: cluster %s: goes on", address)
            since, told = time.monotonic(), ""
        elif away != told and time.monotonic() - since >= SILENCE_S and not done.is_set():
            LOG.warning("eventsim: cluster %s: %s", address, away)
            told = away


def _away(client: Any) -> str:
    """Return what is waited for, if something is."""
    with suppress(Exception):  # a client that is being closed, or has just lost its scheduler
        if client.status == "running":
            return "" if client.nthreads() else "no workers are there; waiting for some"
    return "its scheduler does not answer any more; waiting for it"
