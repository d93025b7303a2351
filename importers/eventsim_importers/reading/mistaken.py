"""Files that people take for checkpoints, named for what they are, with what to do."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".safetensors", ".npz", ".h5", ".hdf5", ".nir")
ARCHIVES = (".zip", ".tgz", ".gz", ".7z", ".rar", ".xz")
PACKED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
MOST_NAMES = 1000
"""Members of an archive that are looked at."""


def what_it_is(path: Path, head: bytes) -> str | None:
    """Say what a file is that is no checkpoint; None if it may be one.

    Parameters
    ----------
    path : Path
    head : bytes
        Its first 512.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "Git LFS pointer found, in the place of the file itself; run git lfs pull, or download the file"
    if re.match(rb"<[!?a-z][\s -~]{6}", text):
        return "web page found, in the place of a checkpoint: the download failed; open its address in a browser"
    if re.match(rb'\{\s*"[\s -~]{6}', text):
        return (
            "JSON text found, in the place of a checkpoint: the download failed, or it lists the parts of one; "
            "expected the weights themselves"
        )
    for magic, name in PACKED.items():
        if head.startswith(magic):
            return f"packed file ({name}) found; unpack it, and import the checkpoint that is inside"
    if head[257:262] == b"ustar":
        return _tar(path)
    if head.startswith(b"PK"):
        return _zip(path)
    return None


def _tar(path: Path) -> str:
    names = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                names.append(member.name)
                if len(names) == MOST_NAMES:
                    break
    except (tarfile.TarError, OSError, ValueError, EOFError, OverflowError):
        return "damaged tar archive found; expected a checkpoint file"
    if {"pickle", "storages", "tensors"} <= {PurePosixPath(name).name for name in names}:
        return "file of PyTorch before 0.1.10 found; load it there, and save its state dict with a newer PyTorch"
    return _archive("tar", names)


def _zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError, OSError, EOFError):
        return None
    last = {PurePosixPath(name).name for name in names}
    if "data.pkl" in last:
        return None
    if "serialized_exported_program.json" in last or "archive_format" in last:
        return (
            "program of torch.export found; expected a state dict: in PyTorch, "
            f"torch.save(torch.export.load({path.name!r}).state_dict, 'weights.pth')"
        )
    if any(name.endswith(".npy") for name in last) or not any(
        name.lower().endswith(CHECKPOINTS + ARCHIVES) for name in last
    ):
        return None
    return _archive("ZIP", names)


def _archive(kind: str, names: list[str]) -> str:
    """Say that a file is an archive, and which checkpoints are in it."""
    inside = [name for name in names if name.lower().endswith(CHECKPOINTS + ARCHIVES)]
    shown = ", ".join(repr(name)[1:-1] for name in (inside or names)[:3]) or "nothing"
    more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
    return f"{kind} archive of {shown}{more} found; unpack it, and import the checkpoint that is inside"
