"""How fast event files are decoded, beside the packages that read them too.

Run: ``python tests/benchmarks/decoding.py [EVENTS]``. The same events are written in every format; each reader takes
all of them. Seconds are those of the processor, the least of some turns, in which the readers alternate: on a machine
that is shared only the ratios mean something. A package that is not installed is left out; whether one reads the same
events is told, since a fast wrong reader is no measure.
``small`` are packets of 50 events, ``large`` those of thousands.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lz4.frame
import numpy as np
import zstandard

from eventsim.dvs import frames_by_count, frames_by_time, open_recording

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from test_dvs_readers import aedat4

EVENTS = 2_000_000
TURNS = 5
SIDE = 34


def events_of(count: int) -> Any:
    rng = np.random.default_rng(0)
    events = np.zeros(count, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    events["x"], events["y"] = rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)
    events["t"] = np.sort(rng.integers(0, 2**23, count))
    events["p"] = rng.integers(0, 2, count)
    return events


def words(count: int, *columns: Any, dtype: str) -> bytes:
    table = np.empty((count, len(columns)), dtype)
    for index, column in enumerate(columns):
        table[:, index] = column
    return table.tobytes()


def aedat3(x: Any, y: Any, t: Any, p: Any, packet: int) -> bytes:
    data = words(len(t), x << 17 | y << 2 | p << 1 | 1, t, dtype="<u4")
    parts = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"]
    for start in range(0, len(t), packet):
        here = min(packet, len(t) - start)
        parts.append(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, here, here, here))
        parts.append(data[start * 8 : (start + here) * 8])
    return b"".join(parts)


def as_stored(data: bytes) -> bytes:
    return data


def with_lz4(data: bytes) -> bytes:
    packed: bytes = lz4.frame.compress(data, block_linked=True, store_size=False)
    return packed


def aedat4_packets(events: Any, packet: int, pack: Callable[[bytes], bytes] = as_stored, compression: int = 0) -> bytes:
    padded = np.zeros(len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?"), ("pad", "V3")])
    for name in "xytp":
        padded[name] = events[name]
    head = bytearray(aedat4(width=SIDE, height=SIDE))
    # where `aedat4` writes the number of the compression
    struct.pack_into("<i", head, 46, compression)
    parts = [bytes(head)]
    for start in range(0, len(events), packet):
        here = padded[start : start + packet]
        table = struct.pack("<I4s2x3HiII", 16, b"EVTS", 6, 8, 4, 6, 4, len(here)) + here.tobytes()
        packed = pack(struct.pack("<I", len(table)) + table)
        parts += [struct.pack("<ii", 0, len(packed)), packed]
    return b"".join(parts)


def evt(x: Any, y: Any, t: Any, p: Any) -> tuple[bytes, bytes]:
    """Write EVT 2.0 and, without vectors, EVT 3.0."""
    head = b"%% evt %s\n%% geometry 34x34\n%% end\n"
    new = np.flatnonzero(np.diff(t >> 6, prepend=-1))
    two = np.insert(p << 28 | (t & 63) << 22 | x << 11 | y, new, 8 << 28 | t[new] >> 6)
    # every event says its row and time anew
    three = np.stack([8 << 12 | t >> 12 & 0xFFF, 6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x], 1)
    return head % b"2.0" + two.astype("<u4").tobytes(), head % b"3.0" + three.astype("<u2").tobytes()


def write_all(folder: Path, events: Any) -> dict[str, Path]:
    x, y, t, p = (events[name].astype(np.int64) for name in "xytp")
    count = len(events)
    steps = np.minimum(np.diff(t, prepend=t[0]), 126)
    es = words(count, steps << 1 | p, x, 0 * x, y, 0 * y, dtype="u1")
    evt2, evt3 = evt(x, y, t, p)
    few = min(count, 200_000)
    rows = zip(x[:few].tolist(), y[:few].tolist(), p[:few].tolist(), t[:few].tolist(), strict=True)
    files = {
        "AEDAT 2.0": (
            "a2.aedat",
            b"#!AER-DAT2.0\r\n" + words(count, (SIDE - 1 - x) << 1 | y << 8 | 1 - p, t, dtype=">u4"),
        ),
        "AEDAT 3.1 large": ("large.aedat", aedat3(x, y, t, p, 5000)),
        "AEDAT 3.1 small": ("small.aedat", aedat3(x, y, t, p, 50)),
        "AEDAT 4.0 large": ("large.aedat4", aedat4_packets(events, 5000)),
        "AEDAT 4.0 small": ("small.aedat4", aedat4_packets(events, 50)),
        "AEDAT 4.0 LZ4 large": ("lz4_large.aedat4", aedat4_packets(events, 5000, with_lz4, 1)),
        "AEDAT 4.0 LZ4 small": ("lz4_small.aedat4", aedat4_packets(events, 50, with_lz4, 1)),
        "AEDAT 4.0 Zstd large": ("zstd.aedat4", aedat4_packets(events, 5000, zstandard.ZstdCompressor(1).compress, 3)),
        "N-MNIST": ("a.bin", words(count, x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255, dtype="u1")),
        "DAT": (
            "a.dat",
            b"% Version 2\n% Height 34\n% Width 34\n\x0c\x08" + words(count, t, x | y << 14 | p << 28, dtype="<u4"),
        ),
        "EVT 2.0": ("evt2.raw", evt2),
        "EVT 3.0": ("evt3.raw", evt3),
        "Event Stream": ("a.es", b"Event Stream\x02\0\0\x01" + struct.pack("<HH", SIDE, SIDE) + es),
        "text": ("a.csv", "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows).encode()),
    }
    for name, data in files.values():
        (folder / name).write_bytes(data)
    np.save(folder / "a.npy", events)
    np.savez(folder / "a.npz", x=x, y=y, t=t, p=p)
    with h5py.File(folder / "a.h5", "w") as file:
        for name, dtype in zip("xytp", ("u2", "u2", "u4", "u1"), strict=True):
            file[f"events/{name}"] = events[name].astype(dtype)
    paths = {title: folder / name for title, (name, _) in files.items()}
    return paths | {"npy": folder / "a.npy", "npz": folder / "a.npz", "HDF5": folder / "a.h5"}


def expelliarmus(path: Path, encoding: str) -> Any:
    from expelliarmus import Wizard

    return Wizard(encoding=encoding).read(path)


def with_faery(path: Path) -> Any:
    import faery

    return np.concatenate(list(faery.events_stream_from_file(path)))


def with_aedat(path: Path) -> Any:
    import aedat

    return np.concatenate([packet["events"] for packet in aedat.Decoder(str(path))])


def with_dv_processing(path: Path) -> Any:
    import dv_processing

    reader = dv_processing.io.MonoCameraRecording(str(path))
    store = dv_processing.EventStore()
    while (batch := reader.getNextEventBatch()) is not None:
        store.add(batch)
    return store.numpy()


def with_evt3(path: Path) -> Any:
    import evt3

    found = evt3.decode_file(str(path))
    return {"x": found.x, "y": found.y, "t": found.timestamp, "p": found.polarity}


def with_event_stream(path: Path) -> Any:
    import event_stream

    with event_stream.Decoder(str(path)) as decoder:
        return np.concatenate(list(decoder))


def with_loadtxt(path: Path) -> Any:
    x, y, p, t = np.loadtxt(path, np.int64, delimiter=",").T
    return {"x": x, "y": y, "t": t, "p": p}


OF_AEDAT4 = {"aedat": with_aedat, "faery": with_faery, "dv_processing": with_dv_processing}
OTHERS: dict[str, dict[str, Any]] = {
    **{f"AEDAT 4.0 {kind}": OF_AEDAT4 for kind in ("large", "small", "LZ4 large", "LZ4 small", "Zstd large")},
    "DAT": {"expelliarmus": lambda path: expelliarmus(path, "dat"), "faery": with_faery},
    "EVT 2.0": {"expelliarmus": lambda path: expelliarmus(path, "evt2"), "faery": with_faery},
    "EVT 3.0": {"expelliarmus": lambda path: expelliarmus(path, "evt3"), "evt3": with_evt3, "faery": with_faery},
    "Event Stream": {"event_stream": with_event_stream, "faery": with_faery},
    "text": {"numpy.loadtxt": with_loadtxt},
}


def same(found: Any, expected: Any) -> bool:
    names = {"x": "x", "y": "y", "t": "t", "p": "p"}
    if isinstance(found, np.ndarray):
        known = found.dtype.fields or {}
        names["p"] = next((name for name in ("p", "on", "polarity") if name in known), "p")
        names["t"] = next((name for name in ("t", "timestamp") if name in known), "t")
    return all(np.array_equal(found[names[name]], expected[name]) for name in "xytp")


def seconds(tasks: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Run tasks in turns; return the least processor seconds of each, and its last result or what it raised."""
    least: dict[str, float] = {}
    results: dict[str, Any] = {}
    for _ in range(TURNS):
        for name, task in tasks.items():
            started = time.process_time()
            try:
                results[name] = task()
            except Exception as error:  # noqa: BLE001 - a package that is not there, or cannot read the file
                results[name] = error
                continue
            least[name] = min(least.get(name, 1e9), time.process_time() - started)
    return least, results


def main() -> None:
    events = events_of(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS)
    with tempfile.TemporaryDirectory() as folder:
        for title, path in write_all(Path(folder), events).items():
            recording = open_recording(path, sensor_size=(SIDE, SIDE))
            expected = np.concatenate(list(recording.chunks()))
            tasks: dict[str, Any] = {
                "events": lambda recording=recording: sum(len(chunk) for chunk in recording.chunks()),
                "by count": lambda recording=recording: frames_by_count(recording, 10),
                "by time": lambda recording=recording: frames_by_time(recording, 10),
            }
            others = {name: (lambda read=read, path=path: read(path)) for name, read in OTHERS.get(title, {}).items()}
            least, results = seconds(tasks | others)
            ours = ", ".join(f"{name} {len(expected) / least[name] / 1e6:.1f} M/s" for name in tasks)
            print(f"{title}: {ours}", flush=True)
            for name in others:
                if name not in least:
                    print(f"    {name}: left out ({type(results[name]).__name__})")
                    continue
                verdict = "" if same(results[name], expected) else ", other events"
                print(f"    {name}: {least['events'] / least[name]:.2f} times as fast as events{verdict}")


if __name__ == "__main__":
    main()
