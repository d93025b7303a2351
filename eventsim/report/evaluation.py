"""An evaluation as the document of ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from eventsim.accounting.energy import EnergyModel, models
from eventsim.datasets import Evaluation, LayerSum
from eventsim.datasets.evaluation import deviation
from eventsim.network import Network
from eventsim.operations import synaptic_operations
from eventsim.report.document import failures, headed
from eventsim.report.energy import energy_document


def evaluation_document(
    model: str,
    network: Network,
    whence: dict[str, Any],
    compile_s: float,
    evaluation: Evaluation,
    by: Mapping[str, EnergyModel] | None = None,
) -> dict[str, Any]:
    """Return the document: totals are sums, layers, energies and conventions means over the samples."""
    n = max(evaluation.samples, 1)
    mean, spread = evaluation.mean_energy_mj, evaluation.std_energy_mj
    priced = evaluation.energy({name: price for name, price in (by or models()).items() if name in mean})
    totals = evaluation.totals
    return {
        **headed(model, network, whence),
        "compile_s": compile_s,
        "samples": evaluation.samples,
        "correct": evaluation.correct,
        "accuracy": evaluation.accuracy if evaluation.samples else None,
        "confusion": [
            {
                "label": label,
                "samples": sum(of.values()),
                "correct": of.get(label, 0),
                "predicted": {str(prediction): times for prediction, times in of.items()},
            }
            for label, of in evaluation.confusion.items()
        ],
        "latency_s": evaluation.latency_percentiles_s(),
        "latency_comparable": evaluation.comparable,
        "binning_s": evaluation.binning_percentiles_s(),
        "reading_s": _mean(evaluation.readings_s),
        "recordings": evaluation.defects.to_dict(),
        "first_correct": _steps(evaluation.first_correct_steps),
        "decided": _steps(evaluation.decided_steps),
        "step_accuracy": evaluation.step_accuracy,
        "margin": _margin(evaluation),
        "not_finite": evaluation.unsound,
        "dense_macs": evaluation.dense_macs / n,
        "synaptic_operations": synaptic_operations(totals) / n,
        "totals": dict(totals),
        "energy_mj": mean,
        "energy": {
            name: {**energy_document(energy, n), "total_mj": mean[name], "std_mj": spread[name]}
            for name, energy in priced.items()
        },
        "conventions": {
            name: {
                **{key: fmean(values) for key, values in counted.items()},
                "std_mj": deviation(counted["energy_mj"]),
            }
            for name, counted in evaluation.conventions.items()
        },
        "layers": [_mean_layer(name, layer, n) for name, layer in evaluation.layers.items()],
        "failed": failures([(each.input, each.error) for each in sorted(evaluation.failed, key=_place)]),
        "predictions": [
            {
                "input": each.input,
                "label": each.label,
                "prediction": each.prediction,
                "input_sha256": each.input_sha256,
            }
            for each in sorted(evaluation.predictions, key=_place)
        ],
    }


def _place(each: Any) -> int:
    """Return the place in the data set; what has the same stays in the order in which it came."""
    return int(each.place)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _steps(steps: Sequence[int]) -> dict[str, Any]:
    return {"samples": len(steps), "step": _mean(steps)}


def _margin(evaluation: Evaluation) -> dict[str, Any]:
    every = [*evaluation.right_margins, *evaluation.wrong_margins]
    return {
        "samples": len(every),
        "mean": _mean(every),
        "std": deviation(every) if every else None,
        "smallest": min(every, default=None),
        "right_mean": _mean(evaluation.right_margins),
        "wrong_mean": _mean(evaluation.wrong_margins),
        "label_mean": _mean(evaluation.label_margins),
    }


def _mean_layer(name: str, layer: LayerSum, samples: int) -> dict[str, Any]:
    counts = layer.counts
    return {
        "name": name,
        "kernel": layer.kernel,
        "firing_rate": counts.spikes / max(layer.neuron_steps, 1),
        "input_density": counts.nonzero_inputs / max(counts.inputs, 1),
        "dense_macs": layer.dense_macs / samples,
        **{operation: executed / samples for operation, executed in counts.items()},
    }
