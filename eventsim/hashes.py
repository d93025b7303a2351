"""Which file it was: the hash of its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(path: str | Path) -> str | None:
    """Return the hash of a file's bytes; None for what is not a file, or cannot be read again."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # a name may hold a null character
        return None
