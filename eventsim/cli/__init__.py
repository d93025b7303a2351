"""The command line: parse, call, print. One file a command, in ``commands``."""

import gc

from eventsim.cli.main import main

gc.freeze()  # the modules stay: no collection looks through what they hold again, which takes 40 ms

__all__ = ["main"]
