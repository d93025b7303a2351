"""The command line: parse, call, print. One file a command, in ``commands``."""

import gc

gc.disable()  # what is imported stays: to look through it again and again takes a tenth of the time of a short command

from eventsim.cli.main import main  # noqa: E402 - as above

gc.enable()
gc.freeze()

__all__ = ["main"]
