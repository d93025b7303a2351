"""Train one of the systems in this folder on N-MNIST.

    python examples/train_nmnist.py SYSTEM --data FOLDER [--epochs N] [--output FILE]

FOLDER holds ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``; SYSTEM is the name of a definition, such as
``spikformer``: a module with ``nmnist_model()`` and ``metadata(model)``.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch
from torch import Tensor
from training import accuracy, export, frames_of, moved, seed_everything, train

from eventsim.datasets import labelled_files
from eventsim.dvs import open_recording

SEED = 0


def load(folder: Path, time_steps: int, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return frames ``[N, T, 2, 34, 34]`` and labels of ``folder/<digit>/*.bin``, in the order of ``evaluate``.

    Of more than `most` recordings it takes so many, evenly spaced in that order: about as many of each digit.
    """
    samples = labelled_files(folder)
    count = min(most or len(samples), len(samples))
    samples = [samples[index * len(samples) // count] for index in range(count)]
    frames = frames_of([open_recording(sample.name) for sample in samples], time_steps)
    return frames, torch.tensor([sample.label for sample in samples])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", metavar="SYSTEM", help="name of a definition in this folder, such as spikformer")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="holds Train and Test")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: weights/nmnist_SYSTEM.safetensors")
    parser.add_argument("--epochs", type=int, default=60, help="default: 60")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the highest; default: 0.003")
    args = parser.parse_args()

    seed_everything(SEED)
    definition = importlib.import_module(args.system)
    model = definition.nmnist_model()
    metadata = definition.metadata(model)
    time_steps = int(metadata["time_steps"])

    train(
        model,
        *load(args.data / "Train", time_steps),
        epochs=args.epochs,
        augment=moved,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
    )
    test = load(args.data / "Test", time_steps)
    print(f"test accuracy {accuracy(model, *test):.2%} on {len(test[1])} recordings")

    default = Path(__file__).parent / "weights" / f"nmnist_{args.system}.safetensors"
    export(model, metadata, args.output or default)


if __name__ == "__main__":
    main()
