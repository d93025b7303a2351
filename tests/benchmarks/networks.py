"""PyTorch definitions of the examples, and the networks that eventsim imports from their state dicts."""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from machine import ROOT
from safetensors.torch import save_file
from torch import nn

from eventsim import Network, import_checkpoint


def definition(name: str) -> Any:
    """Return a module of the examples."""
    folder = str(ROOT / "examples")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def imported(model: nn.Module, metadata: dict[str, str]) -> Network:
    """Return a model as eventsim imports it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.safetensors"
        save_file(model.state_dict(), path, metadata)
        return import_checkpoint(path)
