"""Print what the denoising tables of a DS2TA learned, and what they and its temporal window save.

    python examples/ds2ta_tables.py CHECKPOINT RECORDING...

Of a model without tables, such as a Spikformer, which is the baseline of the paper's Table 3, it prints the sparsity of
its maps.

The sparsity of an attention map is the share of its entries that are zero, over all heads, tokens, time steps and
recordings; without NSAD means before the table. The energies are those of the paper's Table 3, whose numbers all equal
0.019 pJ N^2 D (1 - sparsity) for N tokens and D channels.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from eventsim import Network, Simulator, import_checkpoint, open_recording
from eventsim.dvs import frames_by_count
from eventsim.layers import SpikingAttention, TableAttention
from eventsim.ledger import Counts

ENTRY_PJ = 0.019


def map_energy_nj(tokens: int, width: int, sparsity: float) -> float:
    """Return the energy of attention-map work as the paper's Table 3 has it."""
    return ENTRY_PJ * 1e-3 * tokens**2 * width * (1 - sparsity)


def count(network: Network, recordings: list[str]) -> dict[str, Counts]:
    """Return what each layer executed, over all recordings."""
    counts = {name: Counts() for name in network.layers}
    frames = (frames_by_count(open_recording(path), network.time_steps) for path in recordings)
    for result in Simulator(network).run_many(frames):
        for layer in result.profile:
            counts[layer.name] += layer.counts
    return counts


def describe_block(network: Network, attn: str, counts: dict[str, Counts]) -> str:
    """Say what one block learned and saved."""
    lines = [attn]
    stages = [name for name in network.layers if name.startswith(f"{attn}.") and counts[name].window_products]
    for name in stages:
        layer, executed = network.layers[name], counts[name]
        served = executed.acs + executed.graded_macs
        lines.append(
            f"  {name.removeprefix(attn + '.'):12s} window {layer.window}, d = {layer.exponent}: {served:,} products, "
            f"{executed.window_products:,} if every step served its whole window"
        )
    (source, *_) = network.input_types(attn)
    scores, table = counts[attn].scores, network.layers[attn].table
    before, after = (1 - count / scores for count in (counts[attn].nonzero_scores, counts[attn].kept_scores))
    energies = [map_energy_nj(source.positions, source.channels, sparsity) for sparsity in (before, after)]
    if (table == np.arange(table.shape[1])).all():
        lines.append(f"  map sparsity {before:.2%}; by Table 3's rule {energies[0]:.4f} nJ")
        return "\n".join(lines)
    for head, entries in enumerate(table):
        lines.append(f"  table of head {head:2d}  " + " ".join(f"{entry:3d}" for entry in entries))
    lines.append(
        f"  map sparsity {before:.2%} without NSAD, {after:.2%} with it; "
        f"by Table 3's rule {energies[0]:.4f} and {energies[1]:.4f} nJ"
    )
    return "\n".join(lines)


def with_tables(network: Network) -> Network:
    """Return the same network with a table behind every map ``q k^T``, which counts its entries: the identity."""
    layers = dict(network.layers)
    for name, layer in layers.items():
        if isinstance(layer, SpikingAttention):
            d = network.types[name].channels // layer.heads
            layers[name] = TableAttention(np.tile(np.arange(d + 1), (layer.heads, 1)), layer.scale)
    return replace(network, layers=layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("recordings", metavar="RECORDING", nargs="+")
    args = parser.parse_args()

    network = with_tables(import_checkpoint(args.checkpoint))
    counts = count(network, args.recordings)
    for name, executed in counts.items():
        if executed.scores:
            print(describe_block(network, name, counts))


if __name__ == "__main__":
    main()
