"""JSON documents of the commands, schema 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from eventsim.accounting.energy import EnergyModel, energies
from eventsim.hashes import sha256
from eventsim.network import Network
from eventsim.report.energy import energy_document
from eventsim.report.provenance import machine
from eventsim.result import Result
from eventsim.settings import CHECKPOINT_PARAMETERS

SCHEMA = 2


def sample_document(
    name: str, network: Network, result: Result, by: Mapping[str, EnergyModel] | None = None
) -> dict[str, Any]:
    """Return one sample of ``run --json`` or ``profile --json``, with energies by all shipped models or those given."""
    priced = result.energy if by is None else energies(result.profile, by)
    return {
        "input": name,
        **result.to_dict(),
        "logits": [float(value) if np.isfinite(value) else None for value in result.logits],
        **({} if network.classifies else {"prediction": None}),
        "energy_mj": {model: energy.total_mj for model, energy in priced.items()},
        "energy": {model: energy_document(energy) for model, energy in priced.items()},
        "conventions": {name: each.to_dict() for name, each in result.conventions.items()},
    }


def headed(model: str, network: Network, whence: dict[str, Any]) -> dict[str, Any]:
    """Return what every document about a network and its inputs begins with."""
    return {"schema": SCHEMA, "model": model, "settings": settings_document(network), "provenance": whence}


def run_document(
    model: str,
    network: Network,
    whence: dict[str, Any],
    load_s: float,
    compile_s: float,
    samples: list[dict[str, Any]],
    failed: list[tuple[str, str]],
) -> dict[str, Any]:
    """Return the document of ``run`` and ``profile``; `failed` lists inputs and their errors."""
    return {
        **headed(model, network, whence),
        "load_s": load_s,
        "compile_s": compile_s,
        "samples": samples,
        "failed": failures(failed),
    }


def failures(failed: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Return inputs and their errors as a list of objects."""
    return [{"input": name, "error": error} for name, error in failed]


def error_document(error: str) -> dict[str, Any]:
    """Return the document of a command that failed as a whole."""
    return {"schema": SCHEMA, "error": error}


def settings_document(network: Network) -> list[dict[str, Any]]:
    """Return the values that the weights do not tell: option, value, source, note."""
    return [asdict(setting) for setting in network.settings]


def network_document(model: str, network: Network) -> dict[str, Any]:
    """Return the document of ``info`` and ``import``."""
    layers = []
    for name in network.order:
        layer, inputs = network.layers[name], network.input_types(name)
        layers.append(
            {
                "name": name,
                "kind": type(layer).__name__,
                "inputs": list(network.sources[name]),
                "delays": [edge.delay for edge in network.inputs[name]],
                "shape": list(network.types[name].shape),
                "signal": network.types[name].kind,
                "parameters": layer.parameters,
                "neurons": layer.neurons(*inputs),
                "dense_macs_per_step": layer.dense_macs(*inputs),
            }
        )
    return {
        "schema": SCHEMA,
        "model": model,
        "model_sha256": sha256(model),
        "provenance": machine(),
        "network": network.name,
        "time_steps": network.time_steps,
        "assumptions": list(network.assumptions),
        "settings": settings_document(network),
        "parameters": network.parameters,
        "checkpoint_parameters": next(
            (setting.value for setting in network.settings if setting.option == CHECKPOINT_PARAMETERS), None
        ),
        "neurons": sum(layer["neurons"] for layer in layers),
        "dense_macs_per_step": sum(layer["dense_macs_per_step"] for layer in layers),
        "layers": layers,
    }
