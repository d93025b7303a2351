"""The command line: parse, call, print. One file a command, in ``commands``."""

import gc
import signal
import sys

gc.disable()  # what is imported stays: to look through it again and again takes a tenth of the time of a short command

try:
    from eventsim.cli.main import main
except KeyboardInterrupt:  # as later, when `main` hears it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed again it means the same
    sys.stderr.write("eventsim: interrupted\n")
    sys.exit(130)

gc.enable()
gc.freeze()

__all__ = ["main"]
