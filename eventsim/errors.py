"""The ways in which eventsim refuses or fails, each one line long."""

INTERRUPTED = 130
"""What the command line exits with where somebody stopped it."""
OUT_OF_MEMORY = "not enough memory; take fewer time steps, or a smaller chunk or fewer threads where these are options"
"""What became of work that did not fit."""


class EventsimError(Exception):
    """Base of every error that eventsim raises on purpose; the command line exits with 1."""


class InputError(EventsimError, ValueError):
    """A file, option or array from outside is not usable; the command line exits with 2.

    The message is one line that names the file or layer, what was found, what was expected and what to do.
    """


class LayerError(ValueError):
    """A layer does not fit its inputs or its own arrays, or an op broke a promise; the caller adds the layer's name."""
