"""Settings of hypothesis, and the folder of real recordings beside the repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from eventsim import Network, NetworkBuilder, plugins
from eventsim.layers import LIF, Conv2d, Flatten, Input, Linear, MeanOverTime, Readout

SLOW_START = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", max_examples=30, deadline=None, suppress_health_check=SLOW_START)
settings.register_profile("quick", max_examples=15, deadline=None, suppress_health_check=SLOW_START)
settings.register_profile("brief", max_examples=4, deadline=None, suppress_health_check=SLOW_START)
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=SLOW_START)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of third-party recordings; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data with the third-party recordings is absent")
    return SHARED


@pytest.fixture
def small_network() -> Network:
    """A convolution, a neuron, a head: for tests of everything around the simulation."""
    rng = np.random.default_rng(0)
    build = NetworkBuilder("small")
    x = build.add("input", Input((2, 6, 6)))
    x = build.add("conv", Conv2d(rng.integers(-8, 9, (4, 2, 3, 3)).astype(np.float32) / 8, padding=(1, 1)), x)
    x = build.add("lif", LIF(), x)
    x = build.add("flatten", Flatten(), x)
    x = build.add("head", Linear(rng.integers(-8, 9, (3, 144)).astype(np.float32) / 8), x)
    x = build.add("mean", MeanOverTime(), x)
    build.add("readout", Readout(), x)
    return build.build(time_steps=4)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package with a module and an entry point, by default a checkpoint format."""
    plugins._load.cache_clear()
    installed: list[str] = []

    def add(name: str, source: str, attribute: str = ":IMPORTER", group: str = plugins.IMPORTERS) -> None:
        module = f"plugin_{name}"
        folder = tmp_path / module
        (folder / f"{module}-1.dist-info").mkdir(parents=True)
        (folder / f"{module}-1.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n"
        )
        points = f"[{group}]\n{name} = {module}{attribute}\n"
        (folder / f"{module}-1.dist-info" / "entry_points.txt").write_text(points)
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        installed.append(module)

    yield add
    plugins._load.cache_clear()
    for module in installed:
        sys.modules.pop(module, None)
