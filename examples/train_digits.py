"""Train Spikformer on handwritten digits before a simulated event camera; makes what ``eventsim demo`` shows.

    python examples/train_digits.py [--output FOLDER]

A quarter of scikit-learn's 1,797 digits is set aside and takes no part in training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from event_camera import SIDE, EventCamera, write_nmnist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from spikformer import Spikformer, metadata
from training import accuracy, export, frames_of, moved, seed_everything, train

from eventsim.dvs import open_recording

SEED = 0
EPOCHS = 30
SHIPPED_RECORDINGS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "eventsim" / "demo")
    folder = parser.parse_args().output

    seed_everything(SEED)
    model = Spikformer("dvs", width=96, depth=1, heads=6, classes=10, in_channels=2, size=SIDE, time_steps=6)

    digits = load_digits()
    camera = EventCamera(seed=SEED)
    print(f"recording {len(digits.images)} digits", file=sys.stderr)
    events = [camera.record(image / 16, seed=index) for index, image in enumerate(digits.images)]
    frames = frames_of([open_recording(each, sensor_size=(SIDE, SIDE)) for each in events], model.time_steps)
    labels = torch.from_numpy(digits.target).long()
    training, test = train_test_split(range(len(labels)), test_size=0.25, random_state=SEED, stratify=labels)

    train(model, frames[training], labels[training], epochs=EPOCHS, augment=moved, batch_size=16, learning_rate=2e-3)
    print(f"test accuracy {accuracy(model, frames[test], labels[test]):.2%} on {len(test)} digits")

    export(model, metadata(model), folder / "digits.safetensors")
    for index in test[:SHIPPED_RECORDINGS]:
        write_nmnist(folder / f"digit_{index:04d}_{labels[index]}.bin", events[index])


if __name__ == "__main__":
    main()
