"""What nobody foresaw while a source is read: the error of that source, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from eventsim.errors import EventsimError, InputError
from eventsim.untrusted import described

T = TypeVar("T")


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn what nobody expected of a source into the error of that source.

    Files are anybody's, and libraries read them: one that fails in a way of its own must not lose what comes before and
    after it. Reading alone is guarded: a fault of the simulation is to be seen as what it is.

    Parameters
    ----------
    name : str
        Of the source.

    Raises
    ------
    InputError
        In the place of an exception that is none of eventsim's, and not for want of memory.
    """
    try:
        yield
    except (EventsimError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"{name}: cannot be read ({described(error)}); the file is damaged, or please report the error with it"
        ) from error


def each_in_one_line(frames: Iterator[T], name: str) -> Iterator[T]:
    """Do the same for frames that are read as they are asked for; what happens to them elsewhere is not in here."""
    with one_line(name):
        yield from frames
