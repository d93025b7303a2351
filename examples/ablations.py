"""Train the ablations of three papers on N-MNIST, simulate them, and print what each component costs and saves.

    python examples/ablations.py --data FOLDER [--epochs N] [--recordings N] [--output FOLDER]

FOLDER holds ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``. Every network begins with the same seed, trains on the
same recordings, is exported, imported without any assumption, and predicts the test recordings in PyTorch and in
eventsim. docs/papers/ablations.md shows a run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ds2ta
import staa_snn
import stformer
from torch import nn
from train_nmnist import SEED, load
from training import export, logits_of, moved, seed_everything, train

from eventsim import Preparation, Simulator, import_checkpoint
from eventsim.accounting.energy import models
from eventsim.datasets import labelled_files
from eventsim.ledger import Counts

EPOCHS = 7
RECORDINGS = 1000
BATCH_SIZE = 16


@dataclass(frozen=True)
class Case:
    """A network to train.

    Attributes
    ----------
    system : str
    ablation : str, optional
        None is the full network, which the others of its system are compared with.
    make : callable
        Returns the model.
    metadata : callable
        Returns what its state dict cannot tell.
    """

    system: str
    ablation: str | None
    make: Callable[[], nn.Module]
    metadata: Callable[[Any], dict[str, str]]

    @property
    def name(self) -> str:
        return self.system if self.ablation is None else f"{self.system}, {self.ablation.replace('_', ' ')}"


@dataclass(frozen=True)
class Measured:
    """What became of it on the test recordings.

    Attributes
    ----------
    case : Case
    parameters : int
        Those that were trained.
    samples, right, agree : int
        Recordings, right predictions, and predictions equal to those of PyTorch.
    difference : float
        The largest between a logit of eventsim and PyTorch's.
    counts : Counts
        Sums over the recordings.
    latency_s : float
        Median over the recordings; not a number until `latencies` measured it.
    """

    case: Case
    parameters: int
    samples: int
    right: int
    agree: int
    difference: float
    counts: Counts
    latency_s: float = float("nan")

    @property
    def accuracy(self) -> float:
        return self.right / self.samples

    @property
    def macs(self) -> int:
        """Multiply-accumulates: of event counts and sums of spikes, and of real values."""
        return self.counts.graded_macs + self.counts.macs

    @property
    def energy_mj(self) -> float:
        """At 45 nm, 0.9 pJ for an AC and 4.6 pJ for a MAC."""
        return models()["45nm_mac"].millijoules(self.counts)


def cases() -> list[Case]:
    """Return every network, the full one of a system before its ablations.

    The full STFormer has the sources that the paper supports best, ``x2, x, y``; the exported weights have others.
    """
    makers: list[tuple[str, Any, dict[str | None, Callable[[], nn.Module]]]] = [
        (
            "STFormer",
            stformer,
            {None: partial(stformer.nmnist_model, key="x")}
            | {name: partial(stformer.nmnist_model, name) for name in stformer.ABLATIONS if name != "none"},
        ),
        ("DS2TA", ds2ta, {name: partial(ds2ta.nmnist_model, name) for name in ds2ta.ABLATIONS}),
        ("STAA-SNN", staa_snn, {None: staa_snn.nmnist_model, "plain": partial(staa_snn.nmnist_model, "plain")}),
    ]
    return [
        Case(system, ablation, make, definition.metadata)
        for system, definition, models in makers
        for ablation, make in models.items()
    ]


def measure(case: Case, data: Path, checkpoint: Path, *, epochs: int, recordings: int) -> Measured:
    """Train a network, export it to `checkpoint`, import that, and predict the test recordings on both sides."""
    seed_everything(SEED)
    model = case.make()
    metadata = case.metadata(model)
    time_steps = int(metadata["time_steps"])
    frames, labels = load(data / "Train", time_steps, recordings)
    train(model, frames, labels, epochs=epochs, augment=moved, batch_size=BATCH_SIZE)
    export(model, metadata, checkpoint)
    expected = logits_of(model, load(data / "Test", time_steps)[0]).numpy()

    network = import_checkpoint(checkpoint, assume=False)
    simulator = Simulator(network)
    samples = labelled_files(data / "Test")
    results = [simulator.run(Preparation().frames(sample.name, network)) for sample in samples]
    pairs = list(zip(results, expected, strict=True))
    return Measured(
        case,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        samples=len(samples),
        right=sum(result.prediction == sample.label for result, sample in zip(results, samples, strict=True)),
        agree=sum(result.prediction == logits.argmax() for result, logits in pairs),
        difference=max(float(abs(result.logits - logits).max()) for result, logits in pairs),
        counts=Counts.total(result.totals for result in results),
    )


def latencies(checkpoints: Iterable[Path], data: Path) -> list[float]:
    """Return the median latency of each network; each recording goes through all, so that all meet the same machine."""
    simulators = [Simulator(import_checkpoint(path)) for path in checkpoints]
    for simulator in simulators:
        simulator.warm_up()
    seconds = [
        [simulator.run(Preparation().frames(sample.name, simulator.network)).latency_s for simulator in simulators]
        for sample in labelled_files(data / "Test")
    ]
    return [statistics.median(of_one) for of_one in zip(*seconds, strict=True)]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; all but its first column are aligned to the right."""
    lines = [columns, ["---"] + ["--:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_all(found: list[Measured]) -> str:
    """Return the table of what was measured; operations are means over the recordings."""
    operations = ("spikes", "acs", "graded_macs", "macs", "additions", "comparisons", "table_lookups")

    def row(one: Measured) -> list[str]:
        return [
            one.case.name,
            f"{one.parameters:,}",
            f"{one.accuracy:.0%}",
            f"{one.agree} of {one.samples}",
            f"{one.difference:.0e}",
            *(f"{one.counts[name] / one.samples / 1e3:,.1f}" for name in operations),
            f"{one.energy_mj / one.samples * 1e6:,.0f}",
            f"{one.latency_s * 1e3:.1f}",
        ]

    head = ["network", "parameters", "accuracy", "as PyTorch", "logits differ by", "spikes (k)", "ACs (k)"]
    head += ["graded MACs (k)", "real MACs (k)", "additions (k)", "comparisons (k)", "lookups (k)"]
    return table([*head, "energy (nJ)", "latency (ms)"], map(row, found))


def of_differences(found: list[Measured]) -> str:
    """Return the table of each ablation beside the full network of its system."""
    full = {one.case.system: one for one in found if one.case.ablation is None}

    def row(one: Measured) -> list[str]:
        whole = full[one.case.system]
        pairs = (
            (one.counts.spikes, whole.counts.spikes),
            (one.counts.acs, whole.counts.acs),
            (one.macs, whole.macs),
            (one.energy_mj, whole.energy_mj),
            (one.latency_s, whole.latency_s),
        )
        return [
            one.case.name,
            f"{one.parameters - whole.parameters:+,}",
            f"{100 * (one.accuracy - whole.accuracy):+.0f}",
            *(f"{100 * part / of:.0f} %" if of else "-" for part, of in pairs),
        ]

    head = ["network, beside the full one", "parameters", "accuracy (points)", "spikes", "ACs", "MACs", "energy"]
    return table([*head, "latency"], (row(one) for one in found if one.case.ablation is not None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="holds Train and Test")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help=f"default: {EPOCHS}")
    parser.add_argument(
        "--recordings", type=int, default=RECORDINGS, metavar="N", help=f"to train on; default: {RECORDINGS}"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="for the trained weights; default: none are kept")
    args = parser.parse_args()

    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.output or Path(scratch)
        checkpoints = {
            case: folder / f"{case.name.replace(', ', '_').replace(' ', '_')}.safetensors" for case in cases()
        }
        for case, path in checkpoints.items():
            print(case.name, file=sys.stderr)
            found.append(measure(case, args.data, path, epochs=args.epochs, recordings=args.recordings))
        seconds = latencies(checkpoints.values(), args.data)
    found = [replace(one, latency_s=latency) for one, latency in zip(found, seconds, strict=True)]
    print(of_all(found), of_differences(found), sep="\n\n")
    if differing := [one.case.name for one in found if one.agree < one.samples]:
        sys.exit(f"not every prediction is PyTorch's: {'; '.join(differing)}")


if __name__ == "__main__":
    main()
