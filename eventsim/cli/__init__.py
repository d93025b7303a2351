"""The command line: parse, call, print. One file a command, in ``commands``."""

from eventsim.cli.main import main

__all__ = ["main"]
