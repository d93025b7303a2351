"""PyTorch's ``.pth``, ``.pt`` and ``.tar`` files; nothing in them is executed."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.errors import EventsimError, InputError
from eventsim.settings import Setting
from eventsim.untrusted import MAXIMUM_BYTES, first_line
from eventsim_importers.reading.container import Array, Contents, as_float32

WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "state_dict_ema", "model_ema")


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is one of PyTorch's, by its first bytes or by what its archive lists."""
    if head.startswith(b"\x80\x02"):  # before PyTorch 1.6: bare pickles
        return True
    if not head.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError, OSError, EOFError):
        return path.suffix != ".npz"  # a damaged archive, which the reader will say


def read(path: Path, weights: str | None = None) -> Contents:
    """Read the tensors with PyTorch's restricted unpickler (``weights_only=True``).

    Parameters
    ----------
    path : Path
    weights : str, optional
        Which entry of a training checkpoint to take, such as ``state_dict_ema``.

    Raises
    ------
    EventsimError
        If PyTorch is not installed.
    InputError
        If the file is damaged, holds anything but plain data, or no tensors.
    """
    try:
        import torch  # noqa: PLC0415 - an optional extra, needed for this container alone
    except ImportError:
        raise EventsimError(
            f"{path}: a PyTorch file found, and PyTorch is not installed; "
            "run: pip install torch==2.13.0, or convert the file to .safetensors"
        ) from None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an error says all
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        raise InputError(
            f"{path}: not plain tensors, refused without running it ({reason.strip() or 'damaged pickle'}); "
            "expected a state dict"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes PyTorch raise
        raise InputError(
            f"{path}: damaged or truncated PyTorch file ({first_line(error)}); expected a state dict"
        ) from None
    state, settings = _unwrap(path, loaded, weights)
    tensors: dict[str, Array] = {}
    total = 0
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            continue
        stored = value.untyped_storage().nbytes() if value.layout == torch.strided else 0
        total += value.numel() * value.element_size()
        if value.is_quantized:
            raise InputError(f"{path}: tensor {name} of type {value.dtype} found; expected floating point")
        if value.layout != torch.strided or value.numel() * value.element_size() > stored or total > MAXIMUM_BYTES:
            raise InputError(f"{path}: tensor {name} larger than its stored data found; expected plain tensors")
        dense = value.detach()
        tensors[str(name)] = as_float32(np.asarray((dense.float() if dense.is_floating_point() else dense).numpy()))
    return Contents(tensors, settings=settings)


def _unwrap(path: Path, loaded: Any, weights: str | None) -> tuple[Mapping[str, Any], list[Setting]]:
    """Find the state dict in a training checkpoint."""
    if not isinstance(loaded, Mapping):
        raise InputError(f"{path}: {type(loaded).__name__} found; expected a state dict of named tensors")
    entries = {name: loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping)}
    if weights is not None:
        if weights not in entries:
            raise InputError(f"{path}: no entry {weights!r} found; it holds {', '.join(map(str, list(loaded)[:8]))}")
        return entries[weights], [Setting("weights", weights, "option")]
    if not entries:
        return loaded, []
    chosen, *others = entries
    return entries[chosen], [_chosen_entry(chosen, others)]


def _chosen_entry(chosen: str, others: list[str]) -> Setting:
    """Say which entry was taken: the only one, or one of several."""
    if not others:
        return Setting("weights", chosen, "inferred", "the only entry that holds weights")
    return Setting("weights", chosen, "assumed", f"the file also holds {', '.join(others)}")
