"""Read damaged event files of every format: ``python tests/mutants.py [INPUTS] [SEED]``, 20,000 inputs when not said.

Each input is a small file of one format, damaged at random. It must be read, or refused by an InputError in one line
that begins with its path, by a process that may take 1 GiB more than it has after its imports and prints nothing by
itself: neither the panic of a library nor a warning.
"""

import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_BYTES = 1 << 30
SLOW_S = 20.0
EXTREMES = [b"\xff", b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8]


def damaged(data, others, rng):
    """Damage a file in one to four ways."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(min(len(data), 256) if rng.random() < 0.4 else len(data)) if data else 0
        kind = rng.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            extreme = rng.choice([*EXTREMES, struct.pack("<I", rng.getrandbits(32)), b"9" * rng.randrange(1, 30)])
            data[at : at + len(extreme)] = extreme
        elif kind == 3:
            del data[at : len(data) if rng.random() < 0.5 else at + rng.randrange(1, 40)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(1, 200)] * rng.randrange(1, 4)
        elif kind == 5:
            data[at:at] = rng.randbytes(rng.randrange(1, 16))
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.randrange(1, 300)]
    return bytes(data)


def attempt(path, options, most_s=SLOW_S):
    """Read one file; raise AssertionError where it is neither read nor refused as it should be."""
    from eventsim.dvs import open_recording
    from eventsim.errors import InputError

    started = time.process_time()
    try:
        open_recording(path, **options).summary()
        outcome = "read"
    except InputError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and "\n" not in message, f"refused with {message!r}"
        outcome = "refused"
    took = time.process_time() - started
    assert took < most_s, f"took {took:.1f} s"
    return outcome


def packings():
    """Return the arguments of h5py for each filter of HDF5 that `eventsim.hdf5_filters` lets through."""
    import hdf5plugin

    return {
        "gzip": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"compression": "lzf", "shuffle": True},
        "blosc": dict(hdf5plugin.Blosc()),
        "blosc_zstd": dict(hdf5plugin.Blosc(cname="zstd")),
        "blosc2": dict(hdf5plugin.Blosc2()),
        "zstd": dict(hdf5plugin.Zstd()),
        "zstd_summed": {**hdf5plugin.Zstd(), "fletcher32": True},
        "lz4": dict(hdf5plugin.LZ4()),
        "lz4_blocks": dict(hdf5plugin.LZ4(nbytes=1024)),
        "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
        "bitshuffle_lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
        "bitshuffle_blocks": dict(hdf5plugin.Bitshuffle(nelems=64, cname="lz4")),
        "bitshuffle_zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    }


def child(inputs, seed, folder):
    """Damage and read, within the limit; `folder` keeps the input at which it ended early."""
    # imports of test modules find one another beside this file
    import event_files
    from test_dvs_formats import FILES, GOOD_EVENTS

    rng = random.Random(seed)
    files = [(name, data) for kind in FILES.values() for name, data in kind.items()]
    # beside those of every format, HDF5 by each filter: what unpacks it trusts what it is given
    files += [(f"{name}.h5", event_files.dsec(GOOD_EVENTS, chunks=(16,), **how)) for name, how in packings().items()]
    everything = [data for _, data in files]
    warm = Path(folder, "warm")
    warm.mkdir()
    for name, data in files:
        (warm / name).write_bytes(data)
        # the first of a kind compiles
        assert attempt(warm / name, {}, 1000.0) == "read", name
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT_BYTES, resource.RLIM_INFINITY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {"read": 0, "refused": 0}
    slowest = (0.0, "")
    for index in range(inputs):
        name, data = files[index % len(files)]
        path = Path(folder, name)
        path.write_bytes(damaged(data, everything, rng))
        options = {"sensor_size": (300, 300)} if rng.random() < 0.3 else {}
        if rng.random() < 0.2:
            options["salvage"] = True
        Path(folder, "last").write_text(f"{index} {name} {options}")
        started = time.process_time()
        counts[attempt(path, options)] += 1
        slowest = max(slowest, (time.process_time() - started, f"{index} {name}"))
        path.unlink()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(
        f"{inputs} inputs of {len(FILES)} formats: {counts['read']} read, {counts['refused']} refused, "
        f"{grown} MiB more, slowest {slowest[0]:.1f} s ({slowest[1]})"
    )


def run(inputs, seed=0):
    """Run a child and return what it said.

    Raises
    ------
    AssertionError
        It failed, died, or something of it reached the terminal; the input is kept and named.
    """
    folder = tempfile.mkdtemp(prefix="mutants-")
    command = [sys.executable, str(Path(__file__).resolve()), str(inputs), str(seed), folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = Path(folder, "last")
    at = f"at input {last.read_text() if last.exists() else '-'} in {folder}"
    assert done.returncode == 0, f"exit {done.returncode} {at}: {done.stderr[-2000:]}"
    assert done.stderr == "", f"printed {at}: {done.stderr[-2000:]}"
    return done.stdout.strip()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) == 3:
        child(int(arguments[0]), int(arguments[1]), arguments[2])
    else:
        print(run(int(arguments[0]) if arguments else 20_000, int(arguments[1]) if len(arguments) > 1 else 0))
