"""W2: Spikformer-2-256 for event cameras, 16 time steps, on clips of DVS128 Gesture.

No trained weights of this size are at hand: they are seeded, and calibrated on the first clip so that every layer of
neurons behind a batch norm fires at 8 %.
"""

from __future__ import annotations

from collections.abc import Iterator

import networks
import torch
from calibrate import EPS, calibrate, make_dyadic, uniform
from machine import SHARED
from measure import Workload

from eventsim import Preparation

CLIPS = SHARED / "dvsgesture"
RATE = 0.08
SIZES = {"width": 256, "depth": 2, "heads": 16, "classes": 11, "in_channels": 2, "size": 128, "time_steps": 16}


def workloads(quick: bool) -> Iterator[Workload]:
    """Yield the network on all clips; nothing where ../shared is absent."""
    files = sorted(CLIPS.glob("*.aedat"))
    if not files:
        return
    spikformer = networks.definition("spikformer")
    torch.manual_seed(0)
    model = spikformer.Spikformer("dvs", **SIZES)
    first = networks.imported(model, spikformer.metadata(model))  # tells how recordings become frames
    clips = [Preparation().frames(str(file), first) for file in files]
    example = torch.from_numpy(clips[0]).float().unsqueeze(1)
    calibrate(model, example, uniform(model, RATE))
    make_dyadic(model, example)
    network = networks.imported(model, spikformer.metadata(model) | EPS)
    timed = clips[:2] if quick else clips
    yield Workload("W2 Spikformer-2-256, DVS128 Gesture, seeded and calibrated", network, model, timed, clips[:2])
