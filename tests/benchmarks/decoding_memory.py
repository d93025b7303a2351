"""How much memory it takes to stream an event file of any length, format by format.

Run: ``python tests/benchmarks/decoding_memory.py [MEGABYTES]``, on Linux. Of every format a file of so many megabytes
(200 when not said) is read, as events and as frames, in a process of its own, with kernels that were compiled before.
What is told is how far the resident memory rose above what it was after the import of `eventsim.dvs`, of which what
Numba needs to load compiled code takes some 30 MiB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import decoding

# the file is this part of a recording again and again, so that times go back
EVENTS = 100_000
CHILD = """
import sys
import eventsim.dvs
from eventsim.dvs import Reading, frames_by_count, frames_by_duration, frames_by_time, open_recording

def most():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

imported = most()
recording = open_recording(sys.argv[1], sensor_size=(34, 34))
events = sum(len(chunk) for chunk in recording.chunks(disorder="keep"))
frames_by_count(recording, 10)
frames_by_time(recording, 10, reading=Reading("drop"))
for frame in frames_by_duration(recording, 10**12, reading=Reading("drop")):
    pass
print(events, most() - imported)
"""


def repeated(head: bytes, part: bytes, size: int) -> Iterator[bytes]:
    """Yield a head, and a part of a file until that is of a size."""
    yield head
    yield from repeat(part, size // len(part))


def writers(folder: Path) -> dict[str, tuple[str, Callable[[Path, int], None]]]:
    """Return the suffix of a file of each format, and what writes one of a size."""
    files = decoding.write_all(folder, decoding.events_of(EVENTS))

    def of_bytes(source: Path, data_start: bytes | int) -> Callable[[Path, int], None]:
        data = source.read_bytes()
        at = data_start if isinstance(data_start, int) else data.index(data_start) + len(data_start)

        def write(path: Path, size: int) -> None:
            with path.open("wb") as file:
                file.writelines(repeated(data[:at], data[at:], size))

        return write

    def npy(path: Path, size: int) -> None:
        part = np.load(files["npy"])
        whole = np.lib.format.open_memmap(path, "w+", part.dtype, (size // part.nbytes * len(part),))
        for start in range(0, len(whole), len(part)):
            whole[start : start + len(part)] = part

    def npz(path: Path, size: int) -> None:
        part: Any = np.load(files["npz"])
        arrays = {name: np.tile(part[name], size // (4 * part[name].nbytes)) for name in "xytp"}
        np.savez(path, **arrays)

    def hdf5(path: Path, size: int, **options: Any) -> None:
        with h5py.File(files["HDF5"]) as source, h5py.File(path, "w") as file:
            for name in "xytp":
                part = source[f"events/{name}"][:]
                file.create_dataset(f"events/{name}", data=np.tile(part, size // (9 * len(part))), **options)

    writing = {
        "AEDAT 2.0": of_bytes(files["AEDAT 2.0"], b"2.0\r\n"),
        "AEDAT 3.1": of_bytes(files["AEDAT 3.1 large"], b"END-HEADER\r\n"),
        "AEDAT 3.1 small": of_bytes(files["AEDAT 3.1 small"], b"END-HEADER\r\n"),
        "AEDAT 4.0": of_bytes(files["AEDAT 4.0 large"], b"</dv>\0"),
        "AEDAT 4.0 small": of_bytes(files["AEDAT 4.0 small"], b"</dv>\0"),
        "N-MNIST": of_bytes(files["N-MNIST"], 0),
        "DAT": of_bytes(files["DAT"], b"\x0c\x08"),
        "EVT 2.0": of_bytes(files["EVT 2.0"], b"% end\n"),
        "EVT 3.0": of_bytes(files["EVT 3.0"], b"% end\n"),
        "Event Stream": of_bytes(files["Event Stream"], 20),
        "text": of_bytes(files["text"], 0),
        "npy": npy,
        "npz": npz,
        "HDF5": hdf5,
        "HDF5, gzip": lambda path, size: hdf5(path, size, compression="gzip", compression_opts=1),
    }
    suffixes = {name.removesuffix(" large"): path.suffix for name, path in files.items()}
    return {name: (suffixes[name.partition(",")[0]], write) for name, write in writing.items()}


def measured(folder: Path, size: int) -> Iterator[tuple[str, int, int]]:
    """Write and read a file of each format, after a small one in another process, where code is compiled and kept.

    Yield the name of the format, the number of events, and how many bytes more were resident than after the import.
    """
    for name, (suffix, write) in writers(folder).items():
        for path, bytes_of in ((folder / f"warm{suffix}", 4_000_000), (folder / f"read{suffix}", size)):
            write(path, bytes_of)
            done = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=True)
        events, more = map(int, done.stdout.split())
        yield name, events, more


def main() -> None:
    size = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 200_000_000
    with tempfile.TemporaryDirectory() as folder:
        for name, events, more in measured(Path(folder), size):
            print(f"{name}: {events} events, at most {more >> 20} MiB more than after the import")


if __name__ == "__main__":
    main()
