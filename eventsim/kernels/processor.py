"""What the processor has that kernels are compiled for."""

from __future__ import annotations

from llvmlite.binding import llvm_version_info
from numba.core import config
from numba.core.codegen import get_host_cpu_features


def _features() -> set[str]:
    """Return them as Numba finds them, which has to make its compiler ready to be asked, in a third of a second."""
    features: str = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return {name[1:] for name in features.split(",") if name.startswith("+")}


FEATURES = _features()
"""As LLVM names them: those of this processor, or of the one that `NUMBA_CPU_NAME` says."""
COMPRESSED = "avx512f" in FEATURES and llvm_version_info >= (20,)
"""Whether it moves the lanes of a vector that are set next to each other, and LLVM can say so."""
COMPRESSED_BYTES = COMPRESSED and "avx512vbmi2" in FEATURES
"""Whether it does so with lanes of a byte, too."""
SHUFFLED_BYTES = not FEATURES.isdisjoint({"ssse3", "avx2"})
"""Whether it looks up sixteen bytes at once."""
MASKED = "avx512f" in FEATURES
"""Whether what a comparison tells of the lanes of a vector is a register of bits."""
