"""One short training loop for all examples, and the export of what it trained."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eventsim.dvs import Recording, frames_by_count

PREPARATION = {
    "window": "count",
    "binary": "false",
    "transpose": "false",
    "flip_x": "false",
    "flip_y": "false",
    "flip_polarity": "false",
    "fit": "none",
}
"""How `frames_of` prepares recordings, under the names of the options of every import."""


def seed_everything(seed: int) -> None:
    """Seed PyTorch and use one thread; call it before the model is made."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)


def frames_of(recordings: list[Recording], time_steps: int) -> Tensor:
    """Cut recordings into frames exactly as ``eventsim run`` does: ``[N, T, 2, H, W]``, event counts."""
    return torch.from_numpy(np.stack([frames_by_count(recording, time_steps) for recording in recordings])).float()


def moved(frames: Tensor, shift: float = 2, turn: float = 0.2, zoom: float = 0.1) -> Tensor:
    """Return samples ``[N, T, C, H, W]``, each moved, turned and zoomed at random, all its frames alike.

    Parameters
    ----------
    frames : tensor [N, T, C, H, W]
    shift : float
        Largest displacement along each axis, pixels.
    turn : float
        Largest angle, radians.
    zoom : float
        Largest change of size, as a fraction.
    """
    height, width = frames.shape[-2:]
    angle, size, x, y = torch.rand(4, len(frames)) * 2 - 1
    angle, size = angle * turn, 1 + size * zoom
    rows = (
        torch.stack((size * angle.cos(), -size * angle.sin(), x * shift * 2 / width), dim=1),
        torch.stack((size * angle.sin(), size * angle.cos(), y * shift * 2 / height), dim=1),
    )
    images = frames.flatten(1, 2)
    grid = nn.functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    turned = nn.functional.grid_sample(images, grid, mode="nearest", align_corners=False)
    return turned.unflatten(1, frames.shape[1:3])


def train(
    model: nn.Module,
    frames: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    augment: Callable[[Tensor], Tensor],
    batch_size: int = 32,
    learning_rate: float = 3e-3,
) -> None:
    """Train with AdamW, a one-cycle cosine schedule and cross entropy; a line per epoch goes to stderr.

    Parameters
    ----------
    model : module
        Takes ``[T, B, C, H, W]``, returns logits.
    frames : tensor [N, T, C, H, W]
    labels : int64 tensor [N]
    epochs, batch_size : int
    augment : callable
        Applied to every batch.
    learning_rate : float
        The highest.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    batches = -(-len(frames) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches)
    cross_entropy = nn.CrossEntropyLoss(label_smoothing=0.1)
    began = time.perf_counter()
    for epoch in range(1, epochs + 1):
        model.train()
        losses, correct = 0.0, 0
        for batch in torch.randperm(len(frames)).split(batch_size):
            logits = model(augment(frames[batch]).transpose(0, 1))
            loss = cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item() * len(batch)
            correct += int((logits.argmax(1) == labels[batch]).sum())
        print(
            f"epoch {epoch}/{epochs}  loss {losses / len(frames):.3f}  training accuracy {correct / len(frames):.1%}  "
            f"{time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )


@torch.no_grad()
def logits_of(model: nn.Module, frames: Tensor, batch_size: int = 100) -> Tensor:
    """Return the logits of each sample of ``[N, T, C, H, W]``, ``[N, classes]``."""
    model.eval()
    return torch.cat([model(batch.transpose(0, 1)) for batch in frames.split(batch_size)])


def predict(model: nn.Module, frames: Tensor) -> Tensor:
    """Return the predicted class of each sample of ``[N, T, C, H, W]``."""
    return logits_of(model, frames).argmax(1)


def accuracy(model: nn.Module, frames: Tensor, labels: Tensor) -> float:
    """Return the share of right predictions."""
    return float((predict(model, frames) == labels).float().mean())


def export(model: nn.Module, metadata: dict[str, str], path: Path) -> None:
    """Write the state dict, what it cannot tell and `PREPARATION` to a ``.safetensors`` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path, metadata | PREPARATION)
