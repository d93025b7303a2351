"""Checkpoint formats, one file each.

A format is a module (or package) of this package that defines ``IMPORTER``, a `protocol.Importer`: description,
options, signature, read. Nothing else needs to know about it. Formats of other packages fit the same protocol and are
found through entry points (`eventsim.plugins`).
"""

import eventsim as eventsim  # first, whichever of both packages is asked for first: each imports parts of the other
