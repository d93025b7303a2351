"""Checkpoint formats, one file each.

A format is a module of this package with

``DESCRIPTION``
    one line for ``eventsim formats``;
``Options``
    a frozen dataclass: what a checkpoint of this format cannot tell, with defaults;
``recognises(checkpoint)``
    whether the tensors of a `reading.checkpoint.Checkpoint` are of this format;
``read(checkpoint, options)``
    the `eventsim.network.Network`.

Nothing else needs to know about it.
"""
