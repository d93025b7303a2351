"""Where a document comes from: what was run, on what, with what."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np

import eventsim
from eventsim.hashes import sha256
from eventsim.network import Network
from eventsim.preparation import Preparation

VECTORS = ("sse4.2", "avx", "avx2", "fma", "avx512f", "neon", "sve")
"""Instruction sets that make a difference here."""


def provenance(
    model: str | Path, network: Network, preparation: Preparation, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return versions, machine, model, options and preparation as plain data.

    Parameters
    ----------
    model : path
        The model file.
    network : Network
    preparation : Preparation
        What was said with the input; what the model says stands in for the rest.
    options : mapping
        What was asked for, by name.
    """
    return {
        **machine(),
        "network": network.name,
        "model_sha256": sha256(model),
        "options": {name: value for name, value in options.items() if value not in (None, [])},
        "preparation": prepared(preparation.of(network)),
    }


def machine() -> dict[str, Any]:
    """Return versions, processor and time."""
    return {
        "eventsim": eventsim.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "cpu": processor(),
        "vectors": _vectors(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """Return the processor as the system calls it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def prepared(preparation: Preparation) -> dict[str, Any]:
    """Return what a preparation says, by name, as plain data."""
    values = asdict(preparation)
    values |= values.pop("orientation") or {}
    return {name: value for name, value in values.items() if value is not None}


def _vectors() -> list[str]:
    return [name for name, there in llvmlite.binding.get_host_cpu_features().items() if there and name in VECTORS]
