"""Small files that stand for much: none makes a process take more than a gigabyte."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from eventsim import InputError, Network, NetworkBuilder, Preparation, save
from eventsim.cli import main
from eventsim.dvs import EVENT_DTYPE
from eventsim.layers import Flatten, Input, Readout
from eventsim.modelfile import seal

WITHIN = """
import re, sys
from eventsim.cli import main
def peak():  # getrusage would say what the process that started this one took, if that was more
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
code = main(sys.argv[1:])
print("MiB", (peak() - before) >> 10)
sys.exit(code)
"""


def header(shape: tuple[int, ...], kind: str) -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    return head.getvalue()


def frames_npz(path: Path, shape: tuple[int, ...], kind: str) -> None:
    """Write an archive of zeros."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("frames.npy", "w") as member,
    ):
        member.write(header(shape, kind))
        left = int(np.prod(shape)) * np.dtype(kind).itemsize
        while left:
            left -= member.write(bytes(min(left, 1 << 20)))


def black_png(path: Path, side: int, depth: int = 8) -> None:
    """Write a grey square."""
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(1 + side * depth // 8)) for _ in range(side)) + packer.flush()

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    shape = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", shape) + part(b"IDAT", data) + part(b"IEND", b""))


@pytest.fixture
def place(tmp_path: Path, small_network: Network, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(small_network, "m.h5")
    build = NetworkBuilder("sees")
    build.add("readout", Readout(), build.add("flatten", Flatten(), build.add("input", Input((3, 8, 8), "real"))))
    save(build.build(time_steps=1), "image.h5")
    return tmp_path


@pytest.mark.parametrize(
    ("model", "name", "write", "said"),
    [
        ("m.h5", "a.npz", lambda path: frames_npz(path, (900, 2, 150, 150), "<i8"), "expected numbers of at most 256"),
        ("m.h5", "a.npz", lambda path: frames_npz(path, (3000, 2, 150, 150), "|u1"), "expected numbers of at most 256"),
        ("m.h5", "a.npz", lambda path: frames_npz(path, (800, 2, 144, 144), "<i8"), "a time step of shape 2 x 144"),
        ("image.h5", "a.png", lambda path: black_png(path, 12_000), "expected at most 67108864 pixels: scale it down"),
        (
            "image.h5",
            "a.png",
            lambda path: black_png(path, 8_000, 16),
            "an image of 8000 x 8000 found; the model takes",
        ),
    ],
)
def test_what_unpacks_to_much_is_refused_in_bounded_memory(
    model: str, name: str, write: Callable[[Path], None], said: str, place: Path
) -> None:
    write(place / name)
    assert (place / name).stat().st_size < 4 << 20
    command = [sys.executable, "-c", WITHIN, "run", model, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert int(done.stdout.split()[-1]) < 1024


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10**9, 0), "10{9} x 0"),
        ((10**7, 0, 2, 6, 6), "10{7} x 0 x 2 x 6 x 6"),
        ((0, 2, 6, 6), "0 x 2 x 6 x 6"),
        ((7, 2, 6, 5), "7 x 2 x 6 x 5"),
        ((7, 6), "7 x 6"),
        ((7, 1, 4, 2, 6, 6), "7 x 1 x 4 x 2 x 6 x 6"),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify"])
def test_arrays_that_hold_no_samples_are_one_complaint(
    command: str, shape: tuple[int, ...], expected: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = int(np.prod([min(side, 10) for side in shape]))
    Path("a.npy").write_bytes(header(shape, "<i4") + bytes(4 * values))
    assert main([command, "m.h5", "a.npy", "--batch"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    found = expected.replace("10{9}", str(10**9)).replace("10{7}", str(10**7))
    assert err == (
        f"eventsim: a.npy: an array of {found} with --batch found; expected samples along the first axis, each 2 x 6 x "
        "6, or T x 2 x 6 x 6\n"
    )


@pytest.mark.parametrize("command", ["run", "verify"])
def test_one_sample_is_no_batch(command: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", np.zeros((2, 6, 6), np.int32))
    assert main([command, "m.h5", "a.npy", "--batch"]) == 2
    assert capsys.readouterr() == (
        "",
        "eventsim: a.npy: an array of 2 x 6 x 6 with --batch found, which is one sample; leave --batch out\n",
    )


def zeros_h5(path: Path, sets: int, values: int, kind: str, *, group: bool = False) -> None:
    """Write data sets of zeros, each compressed to a 900th; one chunk stands for all others."""
    with h5py.File(path, "w") as file:
        rows = values // (1 << 20)
        size = (1 << 20) * np.dtype(kind).itemsize
        data = zlib.compress(bytes(size - 256) + np.random.default_rng(0).bytes(256), 9)
        for index in range(sets):
            where = file.create_group(f"g{index}") if group else file
            for name in "xytp" if group else (f"w{index}",):
                made = where.create_dataset(name, (rows, 1 << 20), kind, chunks=(1, 1 << 20), compression="gzip")
                for row in range(rows):
                    made.id.write_direct_chunk((row, 0), data)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("a.h5", lambda path: zeros_h5(path, 1, 700 << 20, "<f4"), "bytes unpacked found; expected at most"),
        ("b.h5", lambda path: zeros_h5(path, 30, 40 << 20, "<f2"), "bytes unpacked found; expected at most"),
    ],
)
def test_weights_of_zeros_are_refused_in_bounded_memory(
    name: str, write: Callable[[Path], None], said: str, place: Path
) -> None:
    write(place / name)
    assert (place / name).stat().st_size < 5 << 20
    command = [sys.executable, "-c", WITHIN, "import", name, "-o", "new.h5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr
    assert int(done.stdout.split()[-1]) < 1024


def test_a_model_of_zeros_is_refused_in_bounded_memory(place: Path) -> None:
    """With a seal: it says that nothing was damaged, not who wrote it."""
    layer = {"name": "a", "type": "Linear", "fields": {}}
    data = zlib.compress(bytes((4 << 20) - 256) + np.random.default_rng(0).bytes(256), 9)
    with h5py.File("zeros.h5", "w", userblock_size=512) as file:
        file.attrs["eventsim_schema"] = 2
        file.create_dataset("network", data=json.dumps({"name": "n", "edges": [], "time_steps": 1, "settings": []}))
        for index in range(6):
            group = file.create_group(f"layers/{index:05d}")
            group.attrs["layer"] = json.dumps(layer)
            made = group.create_dataset("weight", (128, 1 << 20), "<f4", chunks=(1, 1 << 20), compression="gzip")
            for row in range(128):
                made.id.write_direct_chunk((row, 0), data)
    seal(Path("zeros.h5"))
    assert Path("zeros.h5").stat().st_size < 5 << 20
    command = [sys.executable, "-c", WITHIN, "info", "zeros.h5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "bytes unpacked found; expected at most" in done.stderr
    assert int(done.stdout.split()[-1]) < 1024


def test_structures_of_zeros_are_refused_in_bounded_memory(place: Path) -> None:
    zeros_h5(place / "data.h5", 9, 30 << 20, "<f4", group=True)
    Path("a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + Path("data.h5").read_bytes())
    command = [sys.executable, "-c", WITHIN, "events", "a.mat"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "bytes of numbers, expected less" in done.stderr
    assert int(done.stdout.split()[-1]) < 1024


def test_labels_of_nothing_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", np.zeros((1000, 0, 6, 6), np.int32))
    np.save("labels.npy", np.zeros(1000, np.int8))
    assert main(["evaluate", "m.h5", "a.npy", "--labels", "labels.npy"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("eventsim: a.npy: int32 (1000, 0, 6, 6) with 1000 labels found; expected frames or images")


def test_a_damaged_image_is_one_line(tmp_path: Path) -> None:
    """Pillow logs what it thinks of a file, and Python writes that to the terminal where nobody set a log up."""
    build = NetworkBuilder("rgb")
    build.add("readout", Readout(), build.add("flatten", Flatten(), build.add("input", Input((3, 4, 4), kind="real"))))
    save(build.build(time_steps=1), tmp_path / "m.h5")
    image = io.BytesIO()
    Image.new("RGB", (4, 4)).save(image, "tiff")
    tag = struct.Struct("<HHIH")  # which, type, how many, value
    assert image.getvalue().count(tag.pack(277, 3, 1, 3)) == 1
    (tmp_path / "a.tiff").write_bytes(image.getvalue().replace(tag.pack(277, 3, 1, 3), tag.pack(277, 3, 1, 277)))
    command = [sys.executable, "-m", "eventsim", "run", str(tmp_path / "m.h5"), str(tmp_path / "a.tiff")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = (line for line in done.stderr.splitlines() if not line.startswith("eventsim: compiling the kernels"))
    assert said.startswith(f"eventsim: {tmp_path / 'a.tiff'}: not a readable image")


@pytest.mark.parametrize(("name", "size"), [("a.webp", (8192, 8192)), ("a.png", (2, 1 << 25)), ("b.png", (8192, 8192))])
def test_images_of_one_colour_stay_within_a_gigabyte(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """The limit of pixels holds whatever a decoder takes beside them: WebP once more, every line its pointers."""
    build = NetworkBuilder("rgb")
    build.add("readout", Readout(), build.add("flatten", Flatten(), build.add("input", Input((3, 4, 4), kind="real"))))
    save(build.build(time_steps=1), tmp_path / "m.h5")
    Image.new("RGB", size).save(tmp_path / name)
    command = [sys.executable, "-c", WITHIN, "run", str(tmp_path / "m.h5"), str(tmp_path / name), "--fit", "downscale"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (0 if name == "b.png" else 2), done.stderr
    assert int(done.stdout.split()[-1]) < 1000


@pytest.mark.parametrize("window", ["count", "time", "tonic-count", "tonic-time"])
def test_frames_of_too_many_steps_are_refused_before_they_are_allocated(
    window: Any,
    small_network: Network,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = np.zeros(40, EVENT_DTYPE)
    events["x"], events["t"] = np.arange(40) % 6, np.arange(40)
    np.save(tmp_path / "a.npy", events)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="1,000,000 time steps of 2 x 6 x 6 found; expected at most 932,067"):
            Preparation(window=window, time_steps=1_000_000, sensor_size=(6, 6)).frames(
                str(tmp_path / "a.npy"), small_network
            )
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
    save(small_network, tmp_path / "m.h5")
    capsys.readouterr()
    command = ["run", str(tmp_path / "m.h5"), str(tmp_path / "a.npy"), "--sensor", "6x6", "--window", window]
    assert main([*command, "--time-steps", "1000000"]) == 2
    assert "lower --time-steps N, or pass --bin-us N, bins that come one by one\n" in capsys.readouterr().err
    monkeypatch.setattr("eventsim.preparation.MAX_FRAME_BYTES", 4 * 72 * 13)
    for steps, code in ((13, 0), (14, 2)):
        assert main([*command, "--time-steps", str(steps)]) == code
    assert main([*command[:-2], "--bin-us", "1"]) == 0
