"""How long a sample took, and where: as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eventsim.result import Result


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, 95th and 99th percentile, and the worst of some durations; nothing of none."""
    if not len(seconds):
        return {}
    median, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return {"median": float(median), "p95": float(p95), "p99": float(p99), "worst": float(max(seconds))}


def latency_line(latency: Mapping[str, Any]) -> str:
    """Say in one line what `latency_document` holds."""
    said = f"latency: reading {_ms(latency['reading_s'])}, simulation {_ms(latency['simulation_s'])}"
    if latency["chunks"] > 1:
        chunks = ", ".join(f"{name} {_ms(seconds)}" for name, seconds in latency["chunk_s"].items())
        said += f"; first of {latency['chunks']} chunks {_ms(latency['first_chunk_s'])}, {chunks}"
    if latency["decided_step"] is not None:
        after = f", {_ms(latency['decided_s'])}" if "decided_s" in latency else ""
        said += f"; decided in step {latency['decided_step']}{after}"
    if "real_time" in latency:
        factor = latency["real_time"]["factor"]
        said += f"; {factor:.3g} times as fast as the recording{'' if factor >= 1 else ': it does not keep up'}"
    return said


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def latency_document(
    result: Result, reading_s: float, preparation_s: float, bin_us: int | None, label: int | None = None
) -> dict[str, Any]:
    """Return where the time of a sample went.

    Parameters
    ----------
    result : Result
    reading_s : float
        Seconds to read the input, cut it into frames and fit these to the model.
    preparation_s : float
        Seconds to check the frames and bring them into the form that the first layer takes.
    bin_us : int or None
        Duration of a time step in microseconds, where it is fixed.
    label : int, optional
        The right class, where it is known.
    """
    chunks = result.step_latency_s
    document: dict[str, Any] = {
        "reading_s": reading_s,
        "preparation_s": preparation_s,
        "simulation_s": result.latency_s,
        "first_chunk_s": chunks[0],
        "chunks": len(chunks),
        "chunk_s": spread(chunks),
        "decided_step": result.decided_step,
    }
    if label is not None:
        document["first_correct_step"] = result.first_step_of(label)
    per_step = len(chunks) == result.time_steps
    for key in ("decided", "first_correct"):
        if per_step and document.get(f"{key}_step") is not None:
            document[f"{key}_s"] = sum(chunks[: document[f"{key}_step"] + 1])
    if bin_us is not None:
        step_s = (result.latency_s + reading_s + preparation_s) / result.time_steps
        document["real_time"] = {"step_s": bin_us * 1e-6, "factor": bin_us * 1e-6 / step_s}
    return document
