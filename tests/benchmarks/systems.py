"""Every trained system of the examples on N-MNIST's test recordings: accuracy, operations, latency beside PyTorch.

Run: ``python tests/benchmarks/systems.py FOLDER`` with ``FOLDER/<digit>/*.bin``. Both sides run one recording at a time
on one thread, in turn, in the same process; latencies are medians, from the frames to the logits.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from threadpoolctl import threadpool_limits

from eventsim import Preparation, Simulator, import_checkpoint
from eventsim.datasets import labelled_files

EXAMPLES = Path(__file__).parents[2] / "examples"
SYSTEMS = ("spikformer", "spikformer_v2", "spikeformer", "ds2ta", "stformer", "staa_snn")


@torch.inference_mode()
def measure(system: str, folder: Path) -> None:
    """Print one line of the table."""
    checkpoint = EXAMPLES / "weights" / f"nmnist_{system}.safetensors"
    network = import_checkpoint(checkpoint)
    simulator = Simulator(network)
    simulator.warm_up()
    model = importlib.import_module(system).nmnist_model()
    model.load_state_dict(load_file(checkpoint))
    model.eval()

    right = agree = executed = dense = 0
    ours, theirs = [], []
    samples = labelled_files(folder)
    for sample in samples:
        frames = Preparation().frames(sample.name, network)
        result = simulator.run(frames)
        given = torch.from_numpy(frames).float().unsqueeze(1)
        start = time.perf_counter()
        prediction = int(model(given).argmax())
        theirs.append(time.perf_counter() - start)
        ours.append(result.latency_s)
        right += result.prediction == sample.label
        agree += result.prediction == prediction
        totals = result.totals
        executed += totals.acs + totals.graded_macs + totals.macs
        dense += sum(layer.dense_macs for layer in result.profile)
    n = len(samples)
    latency, peer = (1e3 * statistics.median(times) for times in (ours, theirs))
    print(
        f"| {system} | {right / n:.0%} | {agree} of {n} | {dense / n / 1e6:,.1f} M | {executed / n / 1e6:,.2f} M "
        f"({executed / dense:.1%}) | {latency:.1f} ms | {peer:.1f} ms |",
        flush=True,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.path.insert(0, str(EXAMPLES))
    print(
        "| system | accuracy | as PyTorch | dense MACs | executed | latency | PyTorch |\n" + "|---" + "|--:" * 6 + "|"
    )
    with threadpool_limits(1):  # as `torch.set_num_threads`, for the matrix products of ours
        for system in SYSTEMS:
            measure(system, Path(sys.argv[1]))
