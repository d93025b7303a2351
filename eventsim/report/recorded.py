"""Recorded spikes and potentials as a file, for comparison with another program."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from eventsim.result import Result
from eventsim.whole_file import whole_file


def write_recorded(path: str | Path, result: Result) -> None:
    """Write what was recorded as ``.npz``: ``LAYER`` its outputs, ``LAYER:potential`` its potentials, and ``:logits``.

    Outputs and potentials are float32 ``(T, C, H, W)``, ``(T, N, C)`` or ``(T, C)``; potentials are those after the
    reset, at the end of each time step. ``:logits`` holds the logits, ``:step_logits`` those of every step with some.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    arrays = dict(result.recorded)
    arrays |= {f"{name}:potential": potentials for name, potentials in result.potentials.items()}
    arrays |= {":logits": result.logits, ":step_logits": result.step_logits}
    # names of layers are no keywords, as NumPy's own function wants them
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
