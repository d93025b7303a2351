"""One run by hand, and what it costs by every shipped model, worked out from the constants of the literature.

Nothing here reads a price file. Memories have sizes that lie in every piece of the line that Lemaire et al. draw.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.facts import Facts, Words
from eventsim.ledger import Counts
from eventsim.signals import SignalType

SPIKES = SignalType("binary", 4, (8, 8))
MAP = SignalType("graded", 2, (16, 8))
VALUES = SignalType("real", 64, dense=True)


@dataclass(frozen=True)
class Run:
    name: str
    facts: Facts
    counts: Counts


def words(**bytes_of: int) -> dict[str, Words]:
    """Memories by their bytes, in words of 32 bits."""
    return {kind: Words(size // 4) for kind, size in bytes_of.items()}


RUN = (
    Run(
        "conv",
        Facts("convolution", (SPIKES,), VALUES, words=words(weight=20480, bias=2048, sum=540672)),
        Counts(
            inputs=9001, nonzero_inputs=307, acs=1009, graded_macs=37, graded_acs=41, bias_additions=101, messages=307,
            weight_reads=1013, bias_reads=103, sum_reads=1019, sum_writes=1021, index_reads=311, value_writes=643,
        ),
    ),
    Run(
        "graded",
        Facts("linear", (MAP,), VALUES, words=words(weight=2097152, sum=8192)),
        Counts(
            inputs=256, nonzero_inputs=97, acs=43, graded_macs=401, graded_acs=787, macs=53, bias_additions=3,
            messages=97, weight_reads=409, bias_reads=5, sum_reads=419, sum_writes=421, index_reads=101,
            value_reads=107,
        ),
    ),
    Run(
        "lif",
        Facts("neurons", (VALUES,), SPIKES, neurons=256, words=words(potential=32768)),
        Counts(
            neuron_updates=2003, updates_with_input=701, updates_with_change=709, updates_with_spike=211, spikes=211,
            leak_multiplications=2003, membrane_additions=4006, membrane_comparisons=2011, resets=223,
            potential_reads=2017, potential_writes=2027, value_reads=2029, index_writes=227,
        ),
    ),
    Run(
        "attention",
        Facts("attention", (SPIKES, SPIKES), MAP, heads=2, words=words(table=16384)),
        Counts(
            acs=503, graded_macs=59, graded_acs=61, coincidences=300, value_additions=203, messages=67,
            table_lookups=71, table_reads=73, scores=900, nonzero_scores=90, kept_scores=83,
            removed_scores=7, scale_multiplications=11,
            sum_reads=13, sum_writes=17, value_writes=79,
        ),
    ),
    Run(
        "pool",
        Facts("join", (SPIKES, SPIKES), SPIKES),
        Counts(
            additions=89, residual_additions=40, comparisons=31, pool_comparisons=31, divisions=19, window_products=5
        ),
    ),
)  # fmt: skip

ACS, MACS = 1009 + 43 + 503, 53
UNARY, GRADED = 41 + 787 + 61, 37 + 401 + 59
SOPS = ACS + UNARY
MESSAGES = 307 + 97 + 67
WEIGHTS = 1013 + 409


def sram(size: int) -> float:
    """Lemaire et al.: 0, 10, 20, 100 pJ at 0, 8 KiB, 32 KiB, 1 MiB, and straight lines between."""
    if size <= 8192:
        return 10 * size / 8192
    if size <= 32768:
        return 10 + 10 * (size - 8192) / 24576
    return 20 + 80 * (size - 32768) / 1015808


LEMAIRE_COMPUTE = (
    0.1 * ACS
    + (3.1 + 0.1) * (GRADED + MACS)
    + 0.1 * (101 + 3)  # biases
    + (3.1 + 0.1) * 2003  # leaks
    + 0.1 * 223  # resets
    + 0.1 * 89  # joins
)
LEMAIRE_MEMORY = (
    # addressing: synapses of events, and two multiply-accumulates for an input event of a convolution
    0.1 * (1009 + 37 + 43 + 401)
    + 2 * (3.1 + 0.1) * 311
    # the convolution: 20 KiB of weights, 2 KiB of biases, 528 KiB of sums; these are 15, 2.5 and 60 pJ
    + 15 * 1013
    + 2.5 * 103
    + 60 * (1019 + 1021)
    # the linear layer: weights, and biases among them, go past 1 MiB; sums of 8 KiB
    + sram(2097152) * (409 + 5)
    + 10 * (419 + 421)
    # potentials of 32 KiB
    + 20 * (2017 + 2027)
    # addresses in a buffer of 1000 words
    + sram(4000) * (311 + 101 + 227)
    # values: of 2 x 16 x 8 words read by the linear layer, as many written by the attention
    + sram(1024) * (107 + 79)
    # a table of 16 KiB
    + sram(16384) * 73
)
DRAM_PER_BIT = 1300 / 64

EXPECTED_PJ = {
    "45nm_unary": (0.9 * SOPS + 4.6 * MACS, 0),
    "45nm_mac": (0.9 * ACS + 4.6 * (GRADED + MACS), 0),
    "45nm_fp16_unary": (0.4 * SOPS + 1.5 * MACS, 0),
    "45nm_fp16_mac": (0.4 * ACS + 1.5 * (GRADED + MACS), 0),
    "45nm_int32_unary": (0.1 * SOPS + 3.2 * MACS, 0),
    "45nm_int32_mac": (0.1 * ACS + 3.2 * (GRADED + MACS), 0),
    "45nm_int8_unary": (0.03 * SOPS + 0.23 * MACS, 0),
    "45nm_int8_mac": (0.03 * ACS + 0.23 * (GRADED + MACS), 0),
    "45nm_int8_sums32": (0.1 * ACS + 0.3 * GRADED + 4.6 * MACS, 0),
    "lemaire2022": (LEMAIRE_COMPUTE, LEMAIRE_MEMORY),
    "yan2024_second_hand": (0.05448 * (SOPS + 2011 + 223), 3.0 * MESSAGES),
    "yan2024_second_hand_dram": (0.05448 * (SOPS + 2011 + 223), 3.0 * MESSAGES + 32 * DRAM_PER_BIT * WEIGHTS),
    "loihi": (23.6 * (SOPS + MACS) + 81 * 2003, 0),
    "loihi_active": (23.6 * SOPS + 81 * 709 + 52 * (2003 - 709), 0),
    "loihi_sanafe": (
        24.0 * (1009 + 41) + 35.5 * (43 + 787) + 33.6 * (503 + 61) + 21.6 * 709 + 69.3 * 211,
        51.2 * 2003 + 111 * MESSAGES,
    ),
    "spinnaker2": (10 * SOPS, 0),
    "seneca": (2.8 * SOPS, 0),
    "truenorth": (2.5 * SOPS, 0),
    "tianjic": (1.54 * SOPS, 0),
    "odin": (12.7 * SOPS, 0),
    "ds2ta_table3": (0.019 * 32 / 4 * 83, 0),
}
"""Compute and memory of `RUN` by model."""

SUM_BITS = {
    "45nm_unary": 0,
    "45nm_mac": 0,
    "45nm_fp16_unary": 0,
    "45nm_fp16_mac": 0,
    "45nm_int32_unary": 32,
    "45nm_int32_mac": 32,
    "45nm_int8_unary": 8,
    "45nm_int8_mac": 8,
    "45nm_int8_sums32": 32,
    "lemaire2022": 32,
}
"""Bits of the integers that are added at these prices, 0 of floating-point numbers; of chips nothing is said."""
