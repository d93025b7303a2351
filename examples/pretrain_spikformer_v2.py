"""Pre-train Spikformer V2 by masking and reconstruction, and compare fine-tuning it with training from scratch.

    python examples/pretrain_spikformer_v2.py --data mnist.npz [--output FOLDER]

Zhou et al., "Spikformer V2" (2024), section 4.2 and figure 6. Of the patches of an image, 16 x 16 pixels each, a random
share of 75 % is masked. The encoder, spiking and with one time step, sees the others only: the mask is enlarged by 8, 4
and 2 for the first three stages of the stem, whose convolutions and normalisations are sparse, so that nothing leaks
from masked patches; its blocks get the visible tokens alone. A small transformer without spikes gets all tokens, the
masked ones replaced by one learned vector, and reconstructs the normalised image; the loss counts masked patches only.
The decoder is then discarded, and the encoder gets a head and is fine-tuned.

MNIST's images are enlarged to 64 x 64 pixels, 16 patches. Pre-training sees many of them without their labels. The
encoder is then fine-tuned on a few with their labels, and two models are trained from scratch on the same few: one as
often, the other more often, so that images times time steps are as many as those of pre-training and fine-tuning
together. All three have the same weights at first and the same schedule; each seed draws other images, weights and
masks.

What the paper does not say, and is chosen here: where the mask acts within a stage (behind every normalisation); the
position embedding (learned, see `Decoder`); the statistics that normalise the image (its own mean and deviation).
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from spikformer_v2 import SCSStage, SpikformerV2, join, metadata
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from training import accuracy, moved, seed_everything, train

PATCH = 16
SIZE = 64
PREPARATION = {"fit": "none", "mean": "0", "std": "1"}
"""Pixels from 0 to 1 go in as they are, under the names of the options of every import."""
TIME_STEPS = 2
"""Of fine-tuning; pre-training has one."""


# --- sparse stem


def random_mask(samples: int, grid: tuple[int, int], ratio: float) -> Tensor:
    """Return which patches are visible, bool ``[samples, rows, columns]``: equally many in each sample, at least one.

    Parameters
    ----------
    samples : int
    grid : (int, int)
    ratio : float
        Share of the patches that are masked.
    """
    patches = grid[0] * grid[1]
    visible = max(round(patches * (1 - ratio)), 1)
    order = torch.rand(samples, patches).argsort(dim=1)
    return (order < visible).unflatten(1, grid)


def enlarged(mask: Tensor, factor: int) -> Tensor:
    """Return a mask in which every patch is a square of `factor` x `factor` pixels."""
    return mask.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def sparse_norm(norm: nn.BatchNorm2d, x: Tensor, mask: Tensor) -> Tensor:
    """Normalise the visible pixels of ``[B, C, H, W]`` by their statistics; all others become 0.

    Parameters
    ----------
    norm : BatchNorm2d
        Its running statistics follow those of the visible pixels.
    x : tensor [B, C, H, W]
    mask : bool tensor [B, H, W]
    """
    pixels = x.movedim(1, -1)
    out = torch.zeros_like(pixels)
    out[mask] = norm(pixels[mask].T[None, ..., None])[0, ..., 0].T
    return out.movedim(-1, 1)


def sparse_layer(conv: nn.Conv2d, norm: nn.BatchNorm2d, lif: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """Return the spikes of a layer for one time step; a neuron that is masked gets no input and is silent.

    A convolution over maps that are 0 where they are masked, and masked again behind it, is a sparse one.
    """
    return lif(sparse_norm(norm, conv(x), mask)[None])[0]


def sparse_stage(stage: SCSStage, x: Tensor, mask: Tensor) -> Tensor:
    """Return what a stage of the stem makes of visible pixels; `mask` has the size of its output."""
    x = sparse_layer(stage.down, stage.down_bn, stage.down_lif, x, mask)
    y = sparse_layer(stage.conv1, stage.bn1, stage.lif1, x, mask)
    y = sparse_layer(stage.conv2, stage.bn2, stage.lif2, y, mask)
    return join(stage.reading.residual_op, x, y) if stage.reading.scs_residual else y


# --- autoencoder


def patches_of(images: Tensor) -> Tensor:
    """Cut images ``[B, C, H, W]`` into patches ``[B, N, C * 16 * 16]``, row by row."""
    return nn.functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2)


def normalised(images: Tensor) -> Tensor:
    """Return images of mean 0 and variance 1 each: the target of the reconstruction."""
    mean = images.mean((1, 2, 3), keepdim=True)
    variance = images.var((1, 2, 3), unbiased=False, keepdim=True)
    return (images - mean) / (variance + 1e-6).sqrt()


class MaskedAutoencoder(nn.Module):
    """An encoder and the decoder that it is pre-trained with; its state dict is a pre-training checkpoint.

    It holds the encoder under its own names, without a head, ``mask_token`` and ``decoder_*``. By default the decoder
    is that of the paper: 4 layers of width 256 with 4 heads, 3.41 M parameters for 196 patches of 3 channels, which
    counts its learned position embedding and leaves out ``decoder_embed``.

    Parameters
    ----------
    encoder : SpikformerV2
        Its stem and blocks are used, not copied. The size of its input is a multiple of 16.
    width, depth, heads : int
        Of the decoder.
    """

    def __init__(self, encoder: SpikformerV2, *, width: int = 256, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        if any(n % PATCH for n in encoder.size):
            raise ValueError(f"input of size {encoder.size} found; expected multiples of {PATCH}")
        self.grid = (encoder.size[0] // PATCH, encoder.size[1] // PATCH)
        self.stem = encoder.stem
        self.block = encoder.block
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_embed = nn.Linear(encoder.head.in_features, width)
        self.decoder_pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], width))
        layers = (
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.decoder_blocks = nn.Sequential(*layers)
        self.decoder_norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, encoder.in_channels * PATCH * PATCH)
        for parameter in (self.mask_token, self.decoder_pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def encode(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the encoder's output for the visible patches, ``[B, visible, width]``, row by row; one time step."""
        functional.reset_net(self)
        x = images
        for stage, factor in zip(self.stem, (8, 4, 2, 1), strict=True):
            x = sparse_stage(stage, x, enlarged(mask, factor))
        tokens = x.flatten(2).transpose(1, 2)[mask.flatten(1)].unflatten(0, (len(x), -1))
        return self.block(tokens.transpose(1, 2)[None])[0].transpose(1, 2)

    def reconstruct(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return all patches ``[B, N, C * 16 * 16]``, from the tokens of the visible ones."""
        visible = mask.flatten(1)
        x = self.mask_token.expand(*visible.shape, -1).clone()
        x[visible] = self.decoder_embed(tokens).flatten(0, 1)
        return self.decoder_pred(self.decoder_norm(self.decoder_blocks(x + self.decoder_pos_embed)))

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Return the mean squared error of the masked patches."""
        masked = ~mask.flatten(1)
        found = self.reconstruct(self.encode(images, mask), mask)
        return nn.functional.mse_loss(found[masked], patches_of(normalised(images))[masked])


def pretrain(
    model: MaskedAutoencoder,
    images: Tensor,
    *,
    epochs: int,
    ratio: float = 0.75,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
) -> float:
    """Pre-train with AdamW and a one-cycle cosine schedule; return the mean loss of the last epoch.

    Parameters
    ----------
    model : MaskedAutoencoder
    images : tensor [N, C, H, W]
    epochs : int
    ratio : float
        Share of the patches that are masked.
    batch_size : int
    learning_rate : float
        The highest.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)
    batches = -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches)
    began = time.perf_counter()
    losses = 0.0
    model.train()
    for epoch in range(1, epochs + 1):
        losses = 0.0
        for batch in torch.randperm(len(images)).split(batch_size):
            loss = model(images[batch], random_mask(len(batch), model.grid, ratio))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item() * len(batch)
        print(
            f"epoch {epoch}/{epochs}  reconstruction loss {losses / len(images):.3f}  "
            f"{time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )
    return losses / len(images)


# --- comparison on MNIST


def mnist_model(time_steps: int = TIME_STEPS) -> SpikformerV2:
    """Return a small model for enlarged images of one channel: 16 tokens, 2 blocks."""
    return SpikformerV2(width=48, depth=2, heads=4, classes=10, in_channels=1, size=SIZE, time_steps=time_steps)


def mnist_autoencoder(encoder: SpikformerV2) -> MaskedAutoencoder:
    """Return an encoder with a decoder of its size."""
    return MaskedAutoencoder(encoder, width=64, depth=2, heads=4)


def pixels(images: np.ndarray) -> Tensor:
    """Return images ``[N, 28, 28]`` of bytes as pixels from 0 to 1 ``[N, 1, 64, 64]``: a border of 2, then enlarged."""
    padded = torch.from_numpy(np.pad(images, ((0, 0), (2, 2), (2, 2)))).float() / 255
    return enlarged(padded, 2)[:, None]


def train_on_images(model: SpikformerV2, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train a model on labelled images, moved at random and shown in every time step."""

    def shown(samples: Tensor) -> Tensor:
        return moved(samples, shift=4).expand(-1, model.time_steps, -1, -1, -1)

    train(model, images[:, None], labels, epochs=epochs, augment=shown, batch_size=20, learning_rate=2e-3)


def export_encoder(module: nn.Module, encoder: SpikformerV2, path: Path, time_steps: int = TIME_STEPS) -> None:
    """Write the state dict of an encoder, or of what holds one, and what it cannot tell to ``.safetensors``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(module.state_dict(), path, metadata(encoder) | PREPARATION | {"time_steps": str(time_steps)})


@dataclass(frozen=True)
class Plan:
    """How much is trained in the comparison.

    Attributes
    ----------
    data : Path
        A file as Keras has MNIST: ``train_x``, ``train_y``, ``test_x``, ``test_y``.
    unlabelled, pretrain_epochs : int
        Images without labels, and how often each is seen.
    labelled, epochs : int
        Images with labels, which are among them, and how often each is seen.
    tested : int
    output : Path, optional
        Where the weights of the first seed go.
    """

    data: Path
    unlabelled: int
    pretrain_epochs: int
    labelled: int
    epochs: int
    tested: int
    output: Path | None

    @property
    def longer(self) -> int:
        """Epochs with labels in which a model sees as many images times time steps as in all training of another."""
        return self.epochs + round(self.unlabelled * self.pretrain_epochs / (self.labelled * TIME_STEPS))


@dataclass(frozen=True)
class Outcome:
    """What one seed gave.

    Attributes
    ----------
    seed : int
    loss : float
        Mean of the last epoch of pre-training.
    pretrained, scratch, longer : float
        Test accuracy in percent: fine-tuned, from scratch as often, from scratch as many images times time steps.
    seconds : tuple of float
        Of pre-training, and of the training and the test of the three.
    """

    seed: int
    loss: float
    pretrained: float
    scratch: float
    longer: float
    seconds: tuple[float, float, float, float]

    def __str__(self) -> str:
        accuracies = "  ".join(f"{each:12.2f} %" for each in (self.pretrained, self.scratch, self.longer))
        return (
            f"{self.seed:>4}  {self.loss:6.3f}  {accuracies}   {' + '.join(f'{each:.0f}' for each in self.seconds)} s"
        )


HEADING = f"seed    loss  {'pre-trained':>14}  {'from scratch':>14}  {'for longer':>14}"


def compare(seed: int, plan: Plan) -> Outcome:
    """Pre-train and fine-tune a model, and train two from scratch that have the same weights at first."""
    seed_everything(seed)
    with np.load(plan.data) as data:
        images, labels = data["train_x"], torch.from_numpy(data["train_y"]).long()
        test = pixels(data["test_x"][: plan.tested])[:, None].expand(-1, TIME_STEPS, -1, -1, -1)
        test_labels = torch.from_numpy(data["test_y"][: plan.tested]).long()
    drawn = torch.randperm(len(images))[: plan.unlabelled]
    unlabelled = pixels(images[drawn.numpy()])
    labelled, labels = unlabelled[: plan.labelled], labels[drawn[: plan.labelled]]

    began = time.perf_counter()
    encoder = mnist_model()
    scratch, longer = copy.deepcopy(encoder), copy.deepcopy(encoder)
    autoencoder = mnist_autoencoder(encoder)
    loss = pretrain(autoencoder, unlabelled, epochs=plan.pretrain_epochs)
    if plan.output and seed == 0:
        export_encoder(autoencoder, encoder, plan.output / "mnist_spikformer_v2_pretrained.safetensors", time_steps=1)
    clock, found = [began, time.perf_counter()], []
    for model, epochs in ((encoder, plan.epochs), (scratch, plan.epochs), (longer, plan.longer)):
        torch.manual_seed(seed)  # the same order of the images, moved alike
        train_on_images(model, labelled, labels, epochs)
        found.append(100 * accuracy(model, test, test_labels))
        clock.append(time.perf_counter())
    if plan.output and seed == 0:
        export_encoder(encoder, encoder, plan.output / "mnist_spikformer_v2_fine_tuned.safetensors")
    return Outcome(seed, loss, *found, tuple(np.diff(clock).tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="mnist.npz")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the weights of seed 0 here")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--unlabelled", type=int, default=2500, help="images to pre-train on; default: 2500")
    parser.add_argument("--pretrain-epochs", type=int, default=12, help="default: 12")
    parser.add_argument("--labelled", type=int, default=200, help="images with labels; default: 200")
    parser.add_argument("--epochs", type=int, default=40, help="with labels; default: 40")
    parser.add_argument("--tested", type=int, default=2000, help="images to test on; default: 2000")
    parser.add_argument("--processes", type=int, default=2, help="seeds at a time, one thread each; default: 2")
    args = parser.parse_args()

    plan = Plan(**{field.name: getattr(args, field.name) for field in fields(Plan)})
    began = time.perf_counter()
    print(HEADING, flush=True)
    outcomes = []
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        for outcome in pool.map(partial(compare, plan=plan), args.seeds):
            print(outcome, flush=True)
            outcomes.append(outcome)
    fine_tuned, scratch, longer = (
        np.array([getattr(outcome, name) for outcome in outcomes]) for name in ("pretrained", "scratch", "longer")
    )
    for said, values in (
        (f"pre-trained, {plan.epochs} epochs", fine_tuned),
        (f"from scratch, {plan.epochs} epochs", scratch),
        (f"from scratch, {plan.longer} epochs", longer),
        ("gain at the same epochs, points", fine_tuned - scratch),
        ("gain at the same images times time steps, points", fine_tuned - longer),
    ):
        spread = f", standard deviation {values.std(ddof=1):.2f}" if len(values) > 1 else ""
        print(f"{said}: mean {values.mean():.2f}, {values.min():.2f} to {values.max():.2f}{spread}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
