"""What starting costs: packages that come when they are needed, and names that come with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numba
import pytest

import eventsim
from eventsim.kernel_cache import _Index

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


def imported_by(code: str) -> set[str]:
    """Return the packages that a new interpreter holds after some code."""
    code = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_eventsim_imports_nothing_that_a_run_does_not_need() -> None:
    by_numba = imported_by("import numba")  # it looks for some of them
    found = imported_by("from eventsim import Network, Result, Simulator, load") - by_numba
    assert not found & LATER
    assert not found & {"eventsim_importers", "eventsim.accounting", "eventsim.report", "eventsim.verification"}


def test_names_are_imported_when_they_are_asked_for() -> None:
    assert not imported_by("import eventsim") & {"numba", "numpy", "eventsim.layers", "eventsim.dvs"}
    assert "numba" in imported_by("import eventsim; eventsim.Simulator")
    parts = imported_by("import eventsim; eventsim.layers.Linear, eventsim.dvs.Recording, eventsim.datasets.evaluate")
    assert {"eventsim.layers", "eventsim.dvs", "eventsim.datasets"} <= parts


def test_opening_a_recording_imports_nothing_that_few_formats_need() -> None:
    code = "import eventsim.dvs; assert 'hdf5' in eventsim.dvs.event_formats()"
    assert not imported_by(code) & LATER


def test_finding_the_importers_imports_nothing_that_few_of_them_need() -> None:
    code = "import eventsim.importing; assert 'spikformer' in eventsim.importing.formats()"
    assert not imported_by(code) & LATER


def test_every_public_name_is_there_and_listed() -> None:
    assert {*eventsim.__all__, "__version__"} <= set(dir(eventsim))
    for name in eventsim.__all__:
        vars(eventsim).pop(name, None)  # asked for by another test
        assert getattr(eventsim, name).__name__ == name
        assert name in vars(eventsim), "the next access is one of a plain name"
    assert eventsim.__version__ == metadata.version("eventsim")
    with pytest.raises(AttributeError, match=r"module 'eventsim' has no attribute 'import_checkpiont'"):
        eventsim.import_checkpiont  # noqa: B018


COLD = """
import numpy as np
from eventsim import NetworkBuilder, Simulator
from eventsim.layers import Flatten, Input, Readout
build = NetworkBuilder("small")
x = build.add("input", Input((2, 3, 3)))
x = build.add("flatten", Flatten(), x)
build.add("readout", Readout(), x)
simulator = Simulator(build.build())
for dtype in (np.int32, np.float32):  # two variants of a kernel, and one announcement
    simulator.run(np.ones((2, 2, 3, 3), dtype))
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_compilation_is_announced_once_and_loading_is_not(tmp_path: Path) -> None:
    def said() -> str:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == ""
        return done.stderr

    (line,) = said().splitlines()
    assert line.startswith("eventsim: compiling the kernels of these layers for this processor, some seconds and once")
    assert f"later runs load them from {tmp_path}" in line
    assert said() == ""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_loading_kernels_imports_nothing_that_only_compiling_needs(tmp_path: Path) -> None:
    """Numba imports SciPy's linear algebra for its compiler: a third of the time and of the memory of a short run.

    And the module of an array's functions, for what compiled code holds of them.
    """
    said = "print('scipy.linalg' in sys.modules, 'numba.np.arrayobj' in sys.modules)"
    code = f"import sys, os; os.environ['NUMBA_CACHE_DIR'] = {str(tmp_path)!r}\n{COLD}\n{said}"
    found = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert found == ["True True\n", "False False\n"]


def test_processes_that_compile_at_the_same_time_never_take_the_code_of_others(tmp_path: Path) -> None:
    """Neither what is compiled for other types in the meantime, nor what other sources left behind."""
    old = _Index(str(tmp_path), "kernel-1.py311", "old")
    for types in ("floats", "integers"):
        old.save(types, f"old code of {types}")
    left = {path.name for path in tmp_path.glob("*.nbc")}
    assert len(left) == 2
    mine, other = (_Index(str(tmp_path), "kernel-1.py311", "new") for _ in range(2))
    assert mine.load("floats") is None

    found = []
    save_data, save_index = mine._save_data, mine._save_index
    mine._save_data = lambda *given: (found.append(other.load("integers")), save_data(*given))
    mine._save_index = lambda index: (other.save("integers", "code of integers"), save_index(index))
    mine.save("floats", "code of floats")
    found += [_Index(str(tmp_path), "kernel-1.py311", "new").load(types) for types in ("floats", "integers")]
    assert found[:2] == [None, "code of floats"]
    assert found[2] in {None, "code of integers"}
    assert not left & {path.name for path in tmp_path.glob("*.nbc")}


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_kernels_of_others_are_not_announced() -> None:
    code = "import numba, eventsim; print(numba.njit(lambda x: x + 1)(2))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("3\n", "")


def printed(code: str, folder: Path) -> str:
    """Return what code prints in a process that finds modules in a folder, too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_a_kernel_is_compiled_anew_when_one_that_it_calls_has_changed(tmp_path: Path) -> None:
    """As after an upgrade, where the file of the caller may be what it was."""
    begin = "from eventsim.kernels.jit import kernel\n"
    calling = "from called import one\n@kernel\ndef two():\n    return one() + one()\n"
    (tmp_path / "calling.py").write_text(begin + calling)
    found = []
    for number in (1, 1, 200):
        (tmp_path / "called.py").write_text(f"{begin}@kernel\ndef one():\n    return {number}\n")
        os.utime(tmp_path / "called.py", (number, number))
        found.append(printed("from calling import two; print(two(), sum(two.stats.cache_hits.values()))", tmp_path))
    assert found == ["2 0", "2 1", "400 0"]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_a_kernel_that_was_kept_is_called_by_one_that_is_compiled(tmp_path: Path) -> None:
    """It is linked as bitcode then; both hold arrays of their own, for which Numba has helpers."""
    begin = "from eventsim.kernels.jit import kernel\n@kernel\n"
    (tmp_path / "called.py").write_text(f"{begin}def double(x):\n    return (x + x).copy()\n")
    calling = "def shifted(x, y):\n    return double(x + y)\n"
    (tmp_path / "calling.py").write_text(f"from called import double\n{begin}{calling}")
    first = "import numpy as np; from called import double; print(double(np.ones(2)), *double.stats.cache_hits.values()"
    then = ", shifted(np.ones(2), 1.0), *shifted.stats.cache_hits.values()"
    found = [printed(f"{first})", tmp_path)]
    found += [printed(f"from calling import shifted; {first}{then})", tmp_path) for _ in range(2)]
    assert found == ["[2. 2.]", "[2. 2.] 1 [4. 4.]", "[2. 2.] 1 [4. 4.] 1"]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_a_kernel_that_was_kept_raises_what_it_raised_when_it_was_compiled(tmp_path: Path) -> None:
    """For errors that are known when they are raised, and for the interpreter, code looks at its environment."""
    (tmp_path / "called.py").write_text("""
from numba import objmode
from eventsim.kernels.jit import kernel

@kernel
def within(x):
    if x > 5:
        raise IndexError("beyond", x)
    with objmode(y="int64"):
        y = len(str(x))
    return y

@kernel
def listed(x):
    return {1: 2}[x]

@kernel
def calling(x):
    return within(x) + 1
""")
    said = """
from called import calling, listed
for function, x in ((calling, 3), (calling, 7), (listed, 1), (listed, 7)):
    try:
        print(function(x), end=" ")
    except Exception as error:
        print(type(error).__name__, *error.args, end=" ")
"""
    compiled, loaded = (printed(said, tmp_path) for _ in range(2))
    assert compiled.startswith("2 IndexError beyond 7 2 KeyError")  # Numba 0.61 does not say which key
    assert loaded == compiled


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_what_is_kept_of_a_version_whose_types_are_gone_is_not_read(tmp_path: Path) -> None:
    """The index of a kernel names the types of its arguments, some of which an upgrade may take away."""
    begin = "from eventsim.kernels.jit import kernel\n"
    (tmp_path / "calling.py").write_text(f"{begin}@kernel\ndef first(x):\n    return x[0]\n")
    found = []
    for name, number in (("Old", 1), ("New", 2)):
        fields = "(NamedTuple):\n    n: int\n\n"
        (tmp_path / "taken.py").write_text(f"from typing import NamedTuple\nclass {name}{fields}Taken = {name}\n")
        os.utime(tmp_path / "taken.py", (number, number))
        found.append(printed("from calling import first; from taken import Taken; print(first(Taken(5)))", tmp_path))
    assert found == ["5", "5"]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_a_decoder_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path) -> None:
    """Formats lie in a folder of their own, and call what stands above it."""
    shutil.copytree(Path(eventsim.__file__).parent, tmp_path / "eventsim", ignore=shutil.ignore_patterns("__pycache__"))
    (events,) = (tmp_path / "eventsim" / "demo").glob("digit_*_4.bin")
    code = f"""
import eventsim
from eventsim.dvs.formats.nmnist import _decode_events
eventsim.open_recording({str(events)!r}).summary()
print(sum(_decode_events.stats.cache_hits.values()))
"""
    found = []
    for number in (1, 1, 200):
        os.utime(tmp_path / "eventsim" / "dvs" / "counters.py", (number, number))
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        found.append(done.stdout.strip())
    assert found == ["0", "1", "0"]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_where_no_compiled_code_can_be_kept_that_is_said_once_and_everything_works(tmp_path: Path) -> None:
    """A package of another user and a home that cannot be written, as in containers and batch jobs."""
    shutil.copytree(Path(eventsim.__file__).parent, tmp_path / "eventsim", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [tmp_path / "eventsim", *(tmp_path / "eventsim").rglob("*/")]:
        (folder / "__pycache__").touch()  # root may write into every folder, but into no file as if it were one
    (tmp_path / "home").touch()
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)}
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    (events,) = (tmp_path / "eventsim" / "demo").glob("digit_*_4.bin")
    for code in (COLD, f"import eventsim; eventsim.open_recording({str(events)!r}).summary()"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("eventsim: compiled kernels cannot be kept (no folder for them can be written): every")
        assert "set NUMBA_CACHE_DIR" in line


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_compiled_code_that_does_not_fit_on_the_disk_is_said_once_and_everything_works(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n" + COLD
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    _, line = done.stderr.splitlines()  # behind that they are compiled
    assert line.startswith(f"eventsim: compiled kernels cannot be kept ({tmp_path}") and "File too large" in line
