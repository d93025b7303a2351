"""A stream as it goes on: a line or an entry of the document for every bin, and what it all came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from eventsim.accounting.energy import EnergyModel, energies
from eventsim.ledger import Counts
from eventsim.network import Network
from eventsim.operations import synaptic_operations
from eventsim.profile import LayerProfile, totals_row
from eventsim.report.document import failures
from eventsim.report.energy import energy_document, energy_lines
from eventsim.report.tables import share
from eventsim.signals import CountArray
from eventsim.streaming import Bin

LEAST_BEHIND_S = 0.1
"""What is less, and less than a bin, nobody needs to be told."""


class Course:
    """What bins came to so far; holds sums alone.

    Parameters
    ----------
    network : Network
    bin_us, restart_every : int
        As `Streaming` has them.
    """

    def __init__(self, network: Network, bin_us: int, restart_every: int) -> None:
        self._network = network
        self._bin_us, self._every = bin_us, restart_every
        self._layers: list[LayerProfile] = []
        self._columns: list[dict[str, CountArray]] = []
        self._last: Bin | None = None
        self.bins = self.events = self.behind_bins = 0
        self.took_s = self.most_s = self.simulation_s = self.most_behind_s = 0.0
        self._told_behind = self._told_caught_up = False

    def take(self, each: Bin) -> list[str]:
        """Add a bin; return what is to be said of it: once where it falls behind, once where it has caught up."""
        self._last = each
        self.bins += 1
        self.events += each.events
        self.took_s += each.took_s
        self.simulation_s += each.simulation_s
        self.most_s = max(self.most_s, each.took_s)
        self.most_behind_s = max(self.most_behind_s, each.behind_s)
        self.behind_bins += each.behind_s > 0
        self._add(each.profile)
        at = f"bin {each.index} ({each.end_us / 1e6:.6f} s)"
        if not self._told_behind and each.behind_s > max(LEAST_BEHIND_S, self._bin_us / 1e6):
            self._told_behind = True
            return [
                f"behind real time by {_seconds(each.behind_s)} at {at}: {self._work()}; take longer bins, more "
                "threads or a smaller network"
            ]
        if self._told_behind and not self._told_caught_up and not each.behind_s:
            self._told_caught_up = True
            return [f"caught up with real time at {at}"]
        return []

    def _add(self, profile: list[LayerProfile]) -> None:
        if not self._layers:
            self._columns = [{} for _ in profile]
            self._layers = [replace(layer, columns={}, steps=0, seconds=0.0) for layer in profile]
        for mine, columns, layer in zip(self._layers, self._columns, profile, strict=True):
            mine.steps += layer.steps
            mine.seconds += layer.seconds
            for name, column in layer.columns.items():
                if name in columns:
                    columns[name] += column
                else:
                    columns[name] = column.copy()

    @property
    def _whole(self) -> list[LayerProfile]:
        """What each layer executed so far."""
        pairs = zip(self._layers, self._columns, strict=True)
        return [replace(layer, columns=columns) for layer, columns in pairs]

    def _work(self) -> str:
        mean_s = self.took_s / max(self.bins, 1)
        return (
            f"the work on a bin takes {mean_s * 1e3:.2f} ms on average, {self.most_s * 1e3:.2f} ms at most, and a bin "
            f"lasts {self._bin_us / 1e3:.2f} ms"
        )

    def pace(self) -> str:
        """Say whether real time was kept, with numbers."""
        if not self.behind_bins or self._last is None:
            return f"never behind real time: {self._work()}"
        return (
            f"behind real time in {self.behind_bins:,} of {_counted(self.bins, 'bin')}, by "
            f"{_seconds(self.most_behind_s)} at most and {_seconds(self._last.behind_s)} at the end: {self._work()}"
        )

    @property
    def told_behind(self) -> bool:
        """Whether it was said that it falls behind."""
        return self._told_behind

    def line(self, each: Bin) -> str:
        """Return one bin as a line."""
        step = f"step {each.step + 1}" + (f" of {self._every}" if self._every else "")
        said = f"prediction {each.prediction}" if self._network.classifies else f"{len(each.logits)} features"
        return (
            f"bin {each.index}  to {each.end_us / 1e6:.6f} s  {_counted(each.events, 'event')}  {said}  {step}  "
            f"{synaptic_operations(each.counts):,} synaptic operations  {each.took_s * 1e3:.2f} ms"
        )

    def lines(self, models: Mapping[str, EnergyModel], shown: tuple[str, ...]) -> list[str]:
        """Return what all bins came to as lines."""
        if self._last is None:
            return []
        layers = self._whole
        totals = totals_row(layers, self.bins)
        priced = {name: energy_document(each) for name, each in energies(layers, models).items()}
        samples = _counted(self._last.sample + 1, "sample")
        cut = "" if self._last.last or not self._every else f", the last of {_counted(self._last.step + 1, 'bin')}"
        return [
            f"{_counted(self.bins, 'bin')} of {self._bin_us:,} us in {samples}{cut}: "
            f"{_counted(self.events, 'event')}, {_counted(totals['spikes'], 'spike')}, "
            f"{synaptic_operations(totals):,} synaptic operations ({share(totals)} of {totals['dense_macs']:,} dense "
            "MACs)",
            self.pace(),
            *energy_lines({"energy": priced}, shown),
        ]

    def document(self, models: Mapping[str, EnergyModel]) -> dict[str, Any]:
        """Return the same as plain data."""
        last, layers = self._last, self._whole
        return {
            "bins": self.bins,
            "samples": 0 if last is None else last.sample + 1,
            "events": self.events,
            "took_s": self.took_s,
            "most_s": self.most_s,
            "simulation_s": self.simulation_s,
            "behind_bins": self.behind_bins,
            "most_behind_s": self.most_behind_s,
            "behind_s": 0.0 if last is None else last.behind_s,
            "dense_macs": sum(layer.dense_macs for layer in layers),
            "totals": dict(Counts.total(layer.counts for layer in layers)),
            "energy_mj": {name: each.total_mj for name, each in energies(layers, models).items()},
        }


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def begin_document(head: Mapping[str, Any]) -> str:
    """Return the first line of a document whose bins follow, each on a line of its own."""
    return json.dumps(head, allow_nan=False)[:-1] + ', "bins": ['


def bin_entry(each: Bin, network: Network, first: bool) -> str:
    """Return the line of a bin: behind a comma, unless it is the first."""
    entry = each.to_dict()
    entry["logits"] = [float(value) if np.isfinite(value) else None for value in each.logits]
    if not network.classifies:
        entry["prediction"] = None
    return ("" if first else ",") + json.dumps(entry, allow_nan=False)


def end_document(
    course: Course, models: Mapping[str, EnergyModel], recording: dict[str, Any], failed: list[tuple[str, str]]
) -> str:
    """Return the last line of the document."""
    rest = {"summary": course.document(models), "recording": recording, "failed": failures(failed)}
    return "], " + json.dumps(rest, allow_nan=False)[1:]
