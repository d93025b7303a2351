"""W1: Spikformer-4-384 on CIFAR-10 images, trained at the published size.

Without the trained weights beside the repository, the same layout with seeded weights stands in, its neurons firing at
8 % as those of the trained network do on average, on smooth seeded images.
"""

from __future__ import annotations

from collections.abc import Iterator

import networks
import numpy as np
import torch
from calibrate import EPS, calibrate, make_dyadic, uniform
from machine import SHARED
from measure import Workload
from safetensors.torch import load_file

from eventsim import import_checkpoint

FOLDER = SHARED / "checkpoints" / "spikformer_cifar10"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES, CALIBRATION = 20, 20
RATE = 0.08


def workloads(quick: bool) -> Iterator[Workload]:
    """Yield the trained network, or what stands in for it."""
    spikformer = networks.definition("spikformer")
    sizes = {"width": 384, "depth": 4, "heads": 12, "classes": 10, "in_channels": 3, "size": 32, "time_steps": 4}
    torch.manual_seed(0)
    model = spikformer.Spikformer("cifar", **sizes)
    images, labels = _images()
    if FOLDER.is_dir():
        name = "W1 Spikformer-4-384, CIFAR-10, trained"
        path = FOLDER / "spikformer_4_384_cifar10.safetensors"
        tensors = {key: value.float() for key, value in load_file(path).items()}
        unused = model.load_state_dict(tensors, strict=False)
        if unused.missing_keys:
            raise ValueError(f"{path}: {unused.missing_keys} missing")
        network = import_checkpoint(path, heads=12, time_steps=4)
    else:
        name = "W1 Spikformer-4-384, CIFAR-10, stand-in: ../shared with the trained weights is absent"
        example = torch.from_numpy(np.stack(images[IMAGES:]))
        calibrate(model, example, uniform(model, RATE))
        make_dyadic(model, example)
        network = networks.imported(model, spikformer.metadata(model) | EPS)
    count = 2 if quick else IMAGES
    calibration = images[IMAGES : IMAGES + (4 if quick else CALIBRATION)]
    yield Workload(name, network, model, images[:count], calibration, image=True, labels=labels[:count])


def _images() -> tuple[list[np.ndarray], list[int]]:
    """Return the images timed, then those to calibrate on, normalised, (3, 32, 32), and labels if there are any."""
    count = IMAGES + CALIBRATION
    if FOLDER.is_dir():
        with np.load(FOLDER / "test_images.npz") as files:
            pixels, labels = files["x"][:count].astype(np.float32) / 255, files["y"][:count].tolist()
        shifted = (pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        return list(np.ascontiguousarray(shifted.transpose(0, 3, 1, 2))), labels
    return smooth_images(count, 32), []


def smooth_images(count: int, size: int) -> list[np.ndarray]:
    """Return seeded images in which neighbours are alike, (3, size, size), of multiples of 1/16 about 0."""
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
    return list((16 * images / images.std()).round().div(16).numpy())
