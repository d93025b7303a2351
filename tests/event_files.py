"""Writers of event files, each by the specification of its format and without eventsim, for the tests of the readers.

Events are lists of (x, y, t, p) in order of time; each writer returns the bytes of a file.
"""

import io
import struct

import h5py
import numpy as np
import scipy.io

COLUMNS = np.dtype([("x", "<i8"), ("y", "<i8"), ("t", "<i8"), ("p", "?")])


def table(events):
    return np.array(events, COLUMNS)


def dat(events, version=2, kind=12, header=b"% Width 40\n% Height 30\n"):
    text = b"% Data file containing CD events.\n" + (b"% Version 2\n" if version == 2 else b"") + header
    places = (14, 28) if version == 2 else (9, 17)
    words = [struct.pack("<II", t % 2**32, x | y << places[0] | p << places[1]) for x, y, t, p in events]
    return text + bytes([kind, 8]) + b"".join(words)


def evt2(events, header=b"% evt 2.0\n% geometry 40x30\n% end\n", between=()):
    words, high = [], None
    for x, y, t, p in events:
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high % 2**28)
        words += [*between, p << 28 | (t & 0x3F) << 22 | x << 11 | y]
    return header + struct.pack(f"<{len(words)}I", *words)


def evt3(events, header=b"% evt 3.0\n% geometry 40x30\n% end\n", between=(), vectors=True):
    """One row word a row, one vector of 12 for neighbours of one row, time and polarity; single events otherwise."""
    words, high, low, row = [], None, None, None
    index = 0
    while index < len(events):
        x, y, t, p = events[index]
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8000 | high % 2**12)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6000 | low)
        if y != row:
            row = y
            words.append(y)
        words += between
        run = [x]
        while index + len(run) < len(events) and vectors:
            after = events[index + len(run)]
            if (after[1:] != (y, t, p)) or not run[-1] < after[0] < x + 20:
                break
            run.append(after[0])
        if len(run) > 1:
            # a vector of 12 and one of 8 follow one another from the same begin
            bits = sum(1 << (other - x) for other in run)
            words += [0x3000 | p << 11 | x, 0x4000 | bits & 0xFFF, 0x5000 | bits >> 12]
        else:
            words.append(0x2000 | p << 11 | x)
        index += len(run)
    return header + struct.pack(f"<{len(words)}H", *words)


def es(events, width=40, height=30, version=2, kind=1):
    data, now = b"", 0
    for x, y, t, p in events:
        full, rest = divmod(t - now, 127)
        now = t
        data += b"\xff" * full + b"\xfe" + struct.pack("<BHH", rest << 1 | p, x, y)
    return b"Event Stream" + bytes([version, 0, 0, kind]) + struct.pack("<HH", width, height) + data


def slayer(events):
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, t, p in events)


def npz(events, save=np.savez, names="txyp", **more):
    buffer = io.BytesIO()
    save(buffer, **{name: table(events)[name].astype("i8") for name in names}, **more)
    return buffer.getvalue()


def hdf5(build):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        build(file)
    return buffer.getvalue()


def dsec(events, offset=0, **options):
    def build(file):
        for name, dtype in (("x", "u2"), ("y", "u2"), ("t", "u4"), ("p", "u1")):
            file.create_dataset(f"events/{name}", data=table(events)[name].astype(dtype), **options)
        file["t_offset"] = np.int64(offset)
        file["ms_to_idx"] = np.arange(4, dtype="u8")

    return hdf5(build)


def v2e_hdf5(events, **options):
    data = np.stack([table(events)[name].astype("u4") for name in "txyp"], 1)
    return hdf5(lambda file: file.create_dataset("events", data=data, **options))


def metavision_hdf5(events, geometry="40x30", **options):
    dtype = np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")], align=True)

    def build(file):
        file.create_dataset("CD/events", data=table(events)[["x", "y", "p", "t"]].astype(dtype), **options)
        file["CD/indexes"] = np.zeros(3, [("id", "<u8"), ("ts", "<i8")])
        if geometry:
            file.attrs["geometry"] = geometry

    return hdf5(build)


def mat(events, first_pixel=1, **options):
    """Write MATLAB's version 5 with SciPy; pixels from 1 and polarities 1 and 2, or from 0 and -1 and 1."""
    columns = table(events)
    polarity = columns["p"] + 1 if first_pixel else 2 * columns["p"].astype("i8") - 1
    fields = {"x": columns["x"] + first_pixel, "y": columns["y"] + first_pixel, "p": polarity, "ts": columns["t"]}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"TD": {name: values.astype("f8") for name, values in fields.items()}}, **options)
    return buffer.getvalue()


def mat73(events):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        for name, values in zip(("x", "y", "ts", "p"), zip(*events, strict=True), strict=True):
            file.create_dataset(f"TD/{name}", data=np.array([values], "f8") + (name != "ts"))
    return b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(512) + buffer.getvalue()[512:]


def text(events, line="{x} {y} {t} {p}", first=""):
    rows = [line.format(x=x, y=y, t=t, s=t / 1e6, p=int(p), word=bool(p)) for x, y, t, p in events]
    return (first + "\n".join(rows) + "\n").encode()
