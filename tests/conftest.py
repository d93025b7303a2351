"""Settings of hypothesis, and the folder of real recordings beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
