"""What a measurement was made on, and that everybody kept to one thread."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "TBB")
PACKAGES = (
    *("eventsim", "numpy", "numba", "llvmlite", "scipy"),
    *("torch", "spikingjelly", "openvino", "nncf", "onnx", "onnxruntime"),
)
LIMITS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE")
"""What keeps compilers and engines from instructions that the processor has."""
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
"""Recordings and checkpoints of others, which are no part of the project."""


def hold_to_one_thread() -> None:
    """Set what libraries read when they are imported: call this before any is."""
    os.environ |= {f"{name}_NUM_THREADS": "1" for name in THREADS}
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"


def more_than_one_thread() -> list[str]:
    """Return the pools of threads, BLAS and OpenMP of everyone loaded and PyTorch's, that are larger than one."""
    import torch
    from threadpoolctl import threadpool_info

    wide = [f"{pool['prefix']} {pool['num_threads']}" for pool in threadpool_info() if pool["num_threads"] != 1]
    return wide + ([f"torch {torch.get_num_threads()}"] if torch.get_num_threads() != 1 else [])


def described() -> dict[str, Any]:
    """Return processor, vector extensions, versions, threads and load."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*:\s*(.*)$", told, re.MULTILINE)
    flags = set((re.search(r"^flags\s*:\s*(.*)$", told, re.MULTILINE) or [""])[0].split())
    return {
        "cpu": name[1] if name else platform.processor(),
        "flags": {flag: flag in flags for flag in ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")},
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cache_bytes": _caches(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "limits": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
        "threads": 1,
        "load_average": list(os.getloadavg()),
    }


def commit() -> str:
    """Return the commit measured, with a + where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if git("status", "--porcelain") else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _caches() -> dict[str, int]:
    """Return the bytes of the data caches of the first core, as Linux tells them."""
    found = {}
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("K")) << 10
    return found
