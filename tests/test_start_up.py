"""What starting costs: packages that come when they are needed, and names that come with them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest

import eventsim

LATER = {
    "PIL",
    "h5py",
    "hypothesis",
    "jinja2",
    "nir",
    "pandas",
    "rich",
    "scipy.sparse",
    "scipy.special",
    "tonic",
    "torch",
}
DOORS = ("AttentionMaps", "Verification", "from_torch", "import_checkpoint", "to_nir", "verify")


def imported_by(code: str) -> set[str]:
    """Return the packages that a new interpreter holds after some code."""
    code = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_eventsim_imports_nothing_that_a_run_does_not_need() -> None:
    by_numba = imported_by("import numba")  # it looks for some of them
    found = imported_by("import eventsim") - by_numba
    assert not found & LATER
    assert not found & {"eventsim_importers", "eventsim.accounting", "eventsim.report", "eventsim.verification"}


def test_finding_the_importers_imports_nothing_that_few_of_them_need() -> None:
    code = "import eventsim.importing; assert 'spikformer' in eventsim.importing.formats()"
    assert not imported_by(code) & LATER


def test_every_public_name_is_there_and_listed() -> None:
    assert {*eventsim.__all__, "__version__"} <= set(dir(eventsim))
    for name in DOORS:
        vars(eventsim).pop(name, None)  # asked for by another test
        assert getattr(eventsim, name).__name__ == name
        assert name in vars(eventsim), "the next access is one of a plain name"
    assert eventsim.__version__ == metadata.version("eventsim")
    with pytest.raises(AttributeError, match=r"module 'eventsim' has no attribute 'import_checkpiont'"):
        eventsim.import_checkpiont  # noqa: B018
