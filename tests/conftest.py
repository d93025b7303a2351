"""Settings of hypothesis, and the folder of real recordings beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from eventsim import Network, NetworkBuilder
from eventsim.layers import LIF, Conv2d, Flatten, Input, Linear, MeanOverTime, Readout

SLOW_START = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", max_examples=60, deadline=None, suppress_health_check=SLOW_START)
settings.register_profile("quick", max_examples=15, deadline=None, suppress_health_check=SLOW_START)
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
