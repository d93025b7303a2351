"""JSON documents of the commands."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eventsim.conventions import CONVENTIONS, facts
from eventsim.energy import FORTY_FIVE_NM, MODELS
from eventsim.evaluation import Evaluation
from eventsim.network import Network
from eventsim.simulator import LayerProfile, Result

SCHEMA = 1


def layer_document(layer: LayerProfile) -> dict[str, Any]:
    """Return one layer of a profile: exact counts over all time steps of the sample."""
    return {
        "name": layer.name,
        "kind": layer.kind,
        "kernel": layer.kernel,
        "neurons": layer.neurons,
        "firing_rate": layer.firing_rate,
        "input_density": layer.input_density,
        "dense_macs": layer.dense_macs,
        **asdict(layer.counts),
        "seconds": layer.seconds,
    }


def totals_document(result: Result) -> dict[str, Any]:
    """Return a profile summed over its layers, with the keys of one layer."""
    neurons = sum(layer.neurons for layer in result.profile)
    counts = result.totals
    return {
        "name": "total",
        "kind": "",
        "kernel": "",
        "neurons": neurons,
        "firing_rate": counts.spikes / max(neurons * result.time_steps, 1),
        "input_density": counts.nonzero_inputs / max(counts.inputs, 1),
        "dense_macs": sum(layer.dense_macs for layer in result.profile),
        **asdict(counts),
        "seconds": sum(layer.seconds for layer in result.profile),
    }


def conventions_document(network: Network, result: Result) -> dict[str, Any]:
    """Return what published conventions would have counted for this run, by name; exact counts are in the totals."""
    layers = facts(network, result.profile)
    counted = {name: convention(layers) for name, convention in CONVENTIONS.items()}
    return {
        name: {"acs": counts.acs, "macs": counts.macs, "energy_mj": FORTY_FIVE_NM.millijoules(counts)}
        for name, counts in counted.items()
    }


def sample_document(name: str, network: Network, result: Result) -> dict[str, Any]:
    """Return one sample of ``run --json`` or ``profile --json``."""
    return {
        "input": name,
        "time_steps": result.time_steps,
        "logits": [float(value) for value in result.logits],
        "prediction": result.prediction,
        "latency_s": result.latency_s,
        "step_latency_s": result.step_latency_s,
        "totals": totals_document(result),
        "energy_mj": {model.name: model.millijoules(result.totals) for model in MODELS},
        "conventions": conventions_document(network, result),
        "layers": [layer_document(layer) for layer in result.profile],
    }


def run_document(
    model: str, compile_s: float, samples: list[dict[str, Any]], failed: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return the document of ``run`` and ``profile``; `failed` lists inputs and their errors."""
    errors = [{"input": name, "error": error} for name, error in failed]
    return {"schema": SCHEMA, "model": model, "compile_s": compile_s, "samples": samples, "failed": errors}


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
        "network": network.name,
        "time_steps": network.time_steps,
        "assumptions": list(network.assumptions),
        "parameters": network.parameters,
        "neurons": sum(layer["neurons"] for layer in layers),
        "dense_macs_per_step": sum(layer["dense_macs_per_step"] for layer in layers),
        "layers": layers,
    }


def evaluation_document(model: str, compile_s: float, evaluation: Evaluation) -> dict[str, Any]:
    """Return the document of ``evaluate``."""
    return {
        "schema": SCHEMA,
        "model": model,
        "compile_s": compile_s,
        "samples": evaluation.samples,
        "correct": evaluation.correct,
        "accuracy": evaluation.accuracy if evaluation.samples else None,
        "latency_s": evaluation.latency_percentiles_s(),
        "totals": asdict(evaluation.totals),
        "failed": [{"input": name, "error": error} for name, error in evaluation.failed],
        "predictions": [
            {"input": name, "label": label, "prediction": prediction}
            for name, label, prediction in evaluation.predictions
        ],
    }
