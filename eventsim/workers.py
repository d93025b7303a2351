"""Threads that share the work of one layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from threading import Lock
from typing import Any


class Workers:
    """A few threads, of which the caller is one.

    What they share must be compiled code that lets go of the interpreter lock, and parts that write nothing in common;
    then results do not depend on their number.

    Parameters
    ----------
    number : int
        Threads, the caller among them.
    shortest_ns : float
        Work that takes less than this is not shared: it is done before another thread has woken, which takes 50 us.
    """

    def __init__(self, number: int = 1, shortest_ns: float = 200_000) -> None:
        self.number = number
        self._shortest_ns = shortest_ns
        self._process = 0

    def worth(self, nanoseconds: float) -> bool:
        """Say whether there is somebody to share with, and work of about this length is worth waking them."""
        return self.number > 1 and nanoseconds >= self._shortest_ns

    def share(self, work: Callable[..., Any], parts: Sequence[tuple[Any, ...]]) -> None:
        """Call `work` with the arguments of every part, and return when all are done."""
        if self.number == 1 or len(parts) < 2:
            for part in parts:
                work(*part)
            return
        self._settle()
        others = [self._pool.submit(work, *part) for part in parts[1:]]
        try:
            work(*parts[0])
        finally:  # the others write where the caller reads
            wait(others)
        for other in others:
            other.result()

    def meet(self, work: Callable[[int], bool], release: Callable[[], None]) -> bool:
        """Call `work` on every thread at the same time, with its number, where threads wait for each other.

        Parameters
        ----------
        work : callable
        release : callable
            Lets the others go on where the caller was interrupted.

        Returns
        -------
        bool
            Whether all returned true.
        """
        self._settle()
        others: list[Future[bool]] = []
        with self._meeting:  # of two callers, each could wait for a thread that the other one holds
            try:
                others += [self._pool.submit(work, thread) for thread in range(1, self.number)]
                done = work(0)
            except BaseException:
                release()
                raise
            finally:
                wait(others)
        return all(other.result() for other in others) and done

    def _settle(self) -> None:
        """Make threads, which do not follow into a forked process, and a lock that nobody holds there."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(self.number - 1, thread_name_prefix="eventsim")
            self._meeting = Lock()

    def ranges(self, items: int, of: int = 1) -> list[tuple[int, int]]:
        """Divide ``range(items)`` into one part for each thread, alike in size; each but the last of whole `of`."""
        blocks = -(-items // of)
        edges = [min(items, blocks * n // self.number * of) for n in range(self.number + 1)]
        return [(a, b) for a, b in pairwise(edges) if a < b]


ALONE = Workers()
"""The caller, and nobody else."""
