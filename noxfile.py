"""What is run over and over here, each in an environment of its own: ``nox -l`` lists it, ``nox -s tests`` runs one.

Words after ``--`` go to the tool: ``nox -s tests -- -x tests/test_cli.py``. ``HYPOTHESIS_PROFILE=quick`` shortens the
property tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["tests", "lint"]

# The one release that the oracles and examples run on; SpikingJelly asks for torchvision, which nothing here needs.
TORCH = "torch==2.13.0"
SPIKINGJELLY = "spikingjelly==0.0.0.0.14"
PEERS = {
    "1.0.4": ("nirtorch==1.0", "sinabs==3.1.3", "norse==1.1.0"),
    "1.0.8": ("nirtorch==2.6", "sinabs==3.1.3", "norse==1.1.0", "snntorch==1.0.0"),
}
# Whose neurons are read from their modules; the newest SpikingJelly that the models of papers use is in `tests`.
PROGRAMS = {
    "spikingjelly-0.0.0.0.12": ("spikingjelly==0.0.0.0.12",),
    "spikingjelly-2.0.0": ("spikingjelly==2.0.0", "loguru"),
    "snntorch-0.9.4": ("snntorch==0.9.4",),
    "others": PEERS["1.0.8"],
}
# Tools whose counting rules are reproduced, each beside the SpikingJelly that it can be used with.
COUNTERS = {
    "spikingjelly-2.0.0": ("spikingjelly==2.0.0", "loguru", "neurobench==2.3.0", "snntorch==1.0.0"),
    "spikingjelly-0.0.0.0.12": ("spikingjelly==0.0.0.0.12", "syops==0.0.5", "progress==1.6.1"),
}


def floors() -> list[str]:
    """Return the lowest version of everything that pyproject.toml asks for, to run or to test."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["testing"] + extras["hdf5"] + extras["test"]
    wanted = [requirement for requirement in wanted if not requirement.startswith("eventsim[")]
    odd = [requirement for requirement in wanted if not re.fullmatch(r"[\w-]+>=[\d.]+", requirement)]
    if odd:
        raise ValueError(f"pyproject.toml: {odd}, expected NAME>=VERSION")
    return [requirement.replace(">=", "==") for requirement in wanted]


def newer_python() -> str | None:
    """Return the newest interpreter on PATH or in pyenv that is above the lowest supported one; None without any."""
    for version in ("3.14", "3.13", "3.12"):
        found = [
            shutil.which(f"python{version}"),
            *Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"),
        ]
        for path in filter(None, found):  # a pyenv shim may be on PATH and start nothing
            if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
                return str(path)
    return None


NEWER = newer_python()


def run_pytest(session: nox.Session, *options: str, **env: str) -> None:
    """Run pytest on every core, with compiled kernels of this session: cached ones do not tell flags apart."""
    env["NUMBA_CACHE_DIR"] = str(Path(session.create_tmp()).resolve() / "numba")
    session.run("pytest", "-q", "-n", "auto", "--dist", "loadfile", *options, *session.posargs, env=env)


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test, compared with PyTorch and SpikingJelly too."""
    session.install(TORCH, ".[test]")
    session.install("--no-deps", SPIKINGJELLY)
    run_pytest(session)


@nox.session
@nox.parametrize("nir", ["1.0.4", "1.0.8"])
def peers(session: nox.Session, nir: str) -> None:
    """Let other frameworks read what is exported: sinabs and Norse with the NIR that sinabs pins, all with today's."""
    session.install(TORCH, ".[test]", "matplotlib", "pbr")
    session.install("--no-deps", f"nir=={nir}", *PEERS[nir])
    run_pytest(session, "tests/test_nir_peers.py")


@nox.session
@nox.parametrize("frameworks", list(PROGRAMS))
def programs(session: nox.Session, frameworks: str) -> None:
    """Compare neurons and networks read from modules with the frameworks' own, release by release."""
    session.install(TORCH, ".[test]", "matplotlib", "pbr")
    session.install("--no-deps", *PROGRAMS[frameworks])
    run_pytest(session, "tests/test_torch_neurons.py", "tests/test_torch_frameworks.py", "tests/test_torch_zoo.py")


@nox.session
@nox.parametrize("counters", list(COUNTERS))
def conventions(session: nox.Session, counters: str) -> None:
    """Compare conventions with the counters of SpikingJelly, NeuroBench and syops on the same networks."""
    session.install(TORCH, ".[test]")
    session.install("--no-deps", *COUNTERS[counters])
    run_pytest(session, "tests/test_conventions_packages.py")


@nox.session
def mutants(session: nox.Session) -> None:
    """Read 20,000 damaged event files of every format, each within 1 GiB; after --: how many, and a seed."""
    session.install(".[test]")
    env = {"NUMBA_CACHE_DIR": str(Path(session.create_tmp()).resolve() / "numba")}
    session.run("python", "tests/mutants.py", *session.posargs, env=env)


@nox.session
def cluster(session: nox.Session) -> None:
    """Evaluate on a Dask cluster of processes, some of which are killed, and write Parquet rows."""
    session.install(".[test,cluster,parquet]")
    run_pytest(session, "tests/test_cluster.py", "tests/test_evaluation_rows.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, types and the direction of imports."""
    session.install(".[lint]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def bounds(session: nox.Session) -> None:
    """Run the tests of the kernels with every index checked."""
    session.install(".[test]")
    run_pytest(session, "-m", "kernels", NUMBA_BOUNDSCHECK="1")


@nox.session
def uncompiled(session: nox.Session) -> None:
    """Run the tests that are small enough for kernels as plain Python."""
    session.install(".[test]")
    run_pytest(session, "-m", "nojit", NUMBA_DISABLE_JIT="1")


@nox.session
def generic(session: nox.Session) -> None:
    """Run the tests of kernels and networks as compiled for a processor without vector extensions."""
    session.install(".[test]")
    run_pytest(session, "-m", "kernels", NUMBA_CPU_NAME="generic")
    # integers have kernels of their own for AVX2, which a processor with more never takes
    avx2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+bmi,+popcnt"}
    run_pytest(session, "tests/test_integers.py", **avx2)


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run the tests on the lowest Python and the lowest versions that pyproject.toml allows."""
    session.install(TORCH, *floors(), ".")
    session.install("--no-deps", SPIKINGJELLY)
    run_pytest(session)


@nox.session(python=NEWER or False)
def newer(session: nox.Session) -> None:
    """Run the tests that need no PyTorch on the newest Python found here, with the newest versions."""
    if NEWER is None:
        session.skip("no Python 3.12 or newer on PATH or in ~/.pyenv")
    session.install(".[test]")
    run_pytest(session)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure time beside dense engines, ceilings, start-up and memory; ``-- --quick`` takes minutes."""
    session.install(TORCH, ".[test,bench]")
    session.install("--no-deps", SPIKINGJELLY)
    env = {"NUMBA_CACHE_DIR": str(Path(session.create_tmp()).resolve() / "numba")}
    session.run("python", "tests/benchmarks/run.py", *session.posargs, env=env)
    if not session.posargs:
        session.run("python", "tests/benchmarks/fire.py", env=env)
        session.run("python", "tests/benchmarks/gather.py", env=env)
        session.run("python", "tests/benchmarks/decoding.py", env=env)
