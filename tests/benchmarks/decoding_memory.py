"""How much memory it takes to stream an event file of any length, format by format.

Run: ``python tests/benchmarks/decoding_memory.py [MEGABYTES]``. Of every format a file of so many megabytes (200 when
not said) is read, as events and as frames, after a small one of each. What is told is how far the resident memory rose
above what it was after the import of `eventsim.dvs`: with the small files, which is what the readers and Numba need to
start, and then with the large one of each format.
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
import resource, sys
import eventsim.dvs
from eventsim.dvs import Reading, frames_by_count, frames_by_duration, frames_by_time, open_recording

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

def read(path):
    recording = open_recording(path, sensor_size=(34, 34))
    events = sum(len(chunk) for chunk in recording.chunks(disorder="keep"))
    frames_by_count(recording, 10)
    frames_by_time(recording, 10, reading=Reading("drop"))
    for frame in frames_by_duration(recording, 10**12, reading=Reading("drop")):
        pass
    return events

imported = most()
paths = sys.argv[1:]
for path in paths:
    if "small" in path:
        read(path)
loaded = most()
print(loaded - imported)
for path in paths:
    if "large" in path:
        events = read(path)
        print(events, most() - loaded)
"""


def repeated(head: bytes, part: bytes, size: int) -> Iterator[bytes]:
    """Yield a head, and a part of a file until that is of a size."""
    yield head
    yield from repeat(part, size // len(part))


def writers(folder: Path) -> dict[str, Callable[[Path, int], None]]:
    """Return what writes a file of each format and of a size."""
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

    return {
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


def suffix_of(folder: Path, name: str) -> str:
    """Return the suffix of the files of a format."""
    files = decoding.write_all(folder, decoding.events_of(10))
    name = name.partition(",")[0]
    return (files[name] if name in files else files[f"{name} large"]).suffix


def measured(folder: Path, size: int) -> tuple[int, dict[str, tuple[int, int]]]:
    """Write a small and a large file of each format and read them.

    Return how many bytes more are resident after the import with the small ones; and for each format the events of the
    large one, and how many bytes more there are then, with it or with one before it.
    """
    paths = {"small": [], "large": []}
    names = []
    for index, (name, write) in enumerate(writers(folder).items()):
        names.append(name)
        for kind, bytes_of in (("small", 2_000_000), ("large", size)):
            path = folder / f"{kind}{index}{suffix_of(folder, name)}"
            write(path, bytes_of)
            paths[kind].append(path)
    # a process takes the most memory of the one that starts it for its own: a small one is between them
    between = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"
    command = [sys.executable, "-c", between, CHILD, *map(str, paths["small"]), *map(str, paths["large"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded, *lines = done.stdout.splitlines()
    found = [tuple(int(word) for word in line.split()) for line in lines]
    return int(loaded), dict(zip(names, found, strict=True))


def main() -> None:
    size = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else 200_000_000
    with tempfile.TemporaryDirectory() as folder:
        loaded, found = measured(Path(folder), size)
        print(f"small files of all formats: {loaded >> 20} MiB more than after the import")
        for name, (events, more) in found.items():
            print(f"{name}: {events} events: at most {more >> 20} MiB more than that, so far")


if __name__ == "__main__":
    main()
