"""W4: every trained network of the examples on N-MNIST, or on the three recordings that eventsim ships.

The recordings are FOLDER/Test/<digit>/*.bin, and those that int8 engines choose their scales on FOLDER/Train, as
examples/train_nmnist.py takes them. The shipped ones are digits before a simulated camera of the same format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networks
import numpy as np
from machine import ROOT, SHARED
from measure import Workload
from safetensors.torch import load_file

from eventsim import Preparation, import_checkpoint
from eventsim.datasets import labelled_files

SYSTEMS = ("spikformer", "spikformer_v2", "spikeformer", "ds2ta", "stformer", "staa_snn")
CALIBRATION = 40
QUICK, QUICK_SYSTEMS = 4, 2
OVER_ALL = ("OpenVINO f32", "OpenVINO int8", "ONNX Runtime f32", "ONNX Runtime int8")


def workloads(quick: bool, folder: Path | None, systems: tuple[str, ...] = SYSTEMS) -> Iterator[Workload]:
    """Yield one workload for each system."""
    folder = folder or (SHARED / "nmnist" if (SHARED / "nmnist").is_dir() else None)
    if folder is None:
        files = sorted((ROOT / "eventsim" / "demo").glob("digit_*.bin"))
        timed = calibration = [(str(file), int(file.stem[-1])) for file in files]
        of = "shipped recordings"
    else:
        timed, calibration = (
            [(sample.name, sample.label) for sample in labelled_files(folder / part)] for part in ("Test", "Train")
        )
        of = "N-MNIST"
    calibration = calibration[:: max(len(calibration) // CALIBRATION, 1)]
    if quick:
        timed, calibration = timed[:: max(len(timed) // QUICK, 1)], calibration[:QUICK]
        systems = systems[:QUICK_SYSTEMS]
    for system in systems:
        checkpoint = ROOT / "examples" / "weights" / f"nmnist_{system}.safetensors"
        network = import_checkpoint(checkpoint)
        model = networks.definition(system).nmnist_model()
        model.load_state_dict(load_file(checkpoint))
        frames = [
            [Preparation().frames(name, network) for name, _ in recordings] for recordings in (timed, calibration)
        ]
        labels = [label for _, label in timed] if folder else []  # of the shipped ones no network here was trained
        yield Workload(f"W4 {system}, {of}", network, model, *frames, labels=labels)


def over_all(results: dict[str, Any], batch: str) -> Iterator[str]:
    """Yield the geometric means of ratios over the systems, and the rows of the README's table."""
    rows = {name.split(",")[0][3:]: result[batch] for name, result in results.items() if name.startswith("W4")}
    ours = "eventsim f32"
    rows = {system: row for system, row in rows.items() if ours in row["engines"]}
    if not rows:
        return
    yield f"\nW4, {batch}: geometric means over {len(rows)} systems"
    for engine in OVER_ALL:
        ratios = [
            row["engines"][engine]["median_ms"] / row["engines"][ours]["median_ms"]
            for row in rows.values()
            if engine in row["engines"]
        ]
        if ratios:
            yield f"{engine} / {ours}: {np.exp(np.mean(np.log(ratios))):.2f}x over {len(ratios)}"
    peers = [name for name in next(iter(rows.values()))["engines"] if name != ours]
    yield "\n| system | accuracy | predicts as PyTorch | dense MACs | executed | eventsim | " + " | ".join(peers) + " |"
    yield "|---|" + "--:|" * (5 + len(peers))
    for system, row in rows.items():
        told, facts = row["engines"][ours], row["facts"]
        times = " | ".join(
            f"{row['engines'][name]['median_ms']:.1f} ms" if name in row["engines"] else "-" for name in (ours, *peers)
        )
        check = told["check"]
        accuracy = f"{check['accuracy']:.0%}" if "accuracy" in check else "-"
        yield (
            f"| {system} | {accuracy} | {check['same_prediction']} of {check['samples']} "
            f"| {facts['dense_mmacs']:,.1f} M | {facts['executed_mops']:,.2f} M ({facts['executed_of_dense']:.1%}) "
            f"| {times} |"
        )
