"""One thing after the other: what fails, or is stopped, loses nothing that was computed before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventsim.cli.printing import complain
from eventsim.cli.words import in_flags
from eventsim.errors import INTERRUPTED, OUT_OF_MEMORY, EventsimError, InputError
from eventsim.held_interrupts import ending


class Attempts:
    """What a command tried, and how it ends.

    Attributes
    ----------
    failed : list of (str, str)
        What failed, and its error.
    code : int
        0, or what the command exits with: 2 if an input is no good, else 1 if the work failed, 130 if it was stopped.
    """

    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []
        self.code = 0

    def attempt(self, name: str, work: Callable[[], object]) -> None:
        """Do one thing, or say in one line why it failed."""
        try:
            work()
        except MemoryError:
            self._fail(name, f"{name}: {OUT_OF_MEMORY}", 1)
        except EventsimError as error:
            self._fail(name, str(error), 2 if isinstance(error, InputError) else 1)

    def each(self, names: Sequence[str], work: Callable[[str], object]) -> None:
        """Do the same with everything named, until somebody stops it; nothing stops what follows."""
        done = 0
        try:
            for name in names:
                self.attempt(name, lambda name=name: work(name))  # type: ignore[misc]
                done += 1
            ending()
        except KeyboardInterrupt:
            ending()
            complain(f"interrupted after {done} of {len(names)} inputs")
            self.code = INTERRUPTED

    def _fail(self, name: str, error: str, code: int) -> None:
        self.failed.append((name, in_flags(error)))
        self.code = max(self.code, code)
        complain(error)
