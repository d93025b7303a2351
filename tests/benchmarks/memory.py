"""The peak of memory of one run above the import of eventsim."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch

from eventsim import save

PEAK = """
import json, re, sys
import numpy as np
from eventsim import Simulator, load

def peak():  # of this process alone: what the system calls its largest resident set may be that of its parent
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])

imported = peak()
network = load(sys.argv[1])
frames = np.load(sys.argv[2])
Simulator(network).run(frames)
print(json.dumps({"imported": imported, "peak": peak(), "weights": 4 * network.parameters}))
"""
IMAGENET = {"heads": 8, "classes": 1000, "in_channels": 3, "size": 224, "time_steps": 4}


def section(quick: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the peak of a run of Spikformer-8-512 on an image, of Spikformer-1-256 if quick; nothing but on Linux."""
    if not Path("/proc/self/status").exists():
        return
    width, depth = (256, 1) if quick else (512, 8)
    spikformer = networks.definition("spikformer")
    torch.manual_seed(0)
    model = spikformer.Spikformer("imagenet", width=width, depth=depth, **IMAGENET)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model_file, frames = Path(folder) / "model.h5", Path(folder) / "frames.npy"
        save(networks.imported(model, spikformer.metadata(model)), model_file)
        np.save(frames, np.random.default_rng(0).normal(size=(3, 224, 224)).astype(np.float32))
        words = [sys.executable, "-c", PEAK, str(model_file), str(frames)]
        told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    above = told["peak"] - told["imported"]
    told["above_over_weights"] = above / told["weights"]
    mib, before = above / 2**20, told["imported"] / 2**20
    line = (
        f"Spikformer-{depth}-{width}: {mib:.0f} MiB above the import of eventsim ({before:.0f} MiB), "
        f"{told['above_over_weights']:.2f} times its float32 weights"
    )
    yield line, f"memory of Spikformer-{depth}-{width}", told
