"""Text in HDF5: what claims more bytes than the file has is refused before the library reserves them."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import event_files
import h5py
import nir
import numpy as np
import pytest
from test_hostile_sizes import WITHIN

from eventsim import Network, save
from eventsim.errors import InputError
from eventsim.hdf5_text import REFERENCE, HeldText
from eventsim.importing import import_checkpoint
from eventsim.modelfile import seal

GIGABYTES = 0xF0000005
TEXTS = [f"text {index}" for index in range(70)]
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunks": {"chunks": (33,)},
    "gzip": {"chunks": (33,), "compression": "gzip", "shuffle": True},
}


def claim(data: bytes, length: int, claimed: int = GIGABYTES, most: int = 1) -> bytes:
    """Have references to texts of some length claim another."""
    heaps = [match.start() for match in re.finditer(b"GCOL", data)]
    # addresses count from the end of the user block
    base = data.index(b"\x89HDF")
    changed = 0
    for heap in heaps:
        address = struct.pack("<IQ", length, heap - base)
        changed += min(data.count(address), most)
        data = data.replace(address, struct.pack("<IQ", claimed, heap - base), most)
    assert changed
    return data


def refused_within_bounds(*words: str) -> str:
    """Return the complaint of a command that takes little memory."""
    done = subprocess.run([sys.executable, "-c", WITHIN, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert int(done.stdout.split()[-1]) < 300
    return done.stderr


@pytest.mark.parametrize("claimed", [GIGABYTES, 0x40000005])
def test_a_geometry_of_gigabytes_is_refused(tmp_path: Path, claimed: int) -> None:
    path = tmp_path / "a.hdf5"
    path.write_bytes(claim(event_files.metavision_hdf5([(1, 1, 1, 1)] * 99), len("40x30"), claimed))
    said = refused_within_bounds("events", str(path))
    assert f"{path}: attribute geometry claims {claimed} bytes of text in a file of {path.stat().st_size};" in said


@pytest.mark.parametrize(("length", "where"), [(len("NIRGraph"), "node/type"), (len("weight_node"), "node/edges")])
def test_a_graph_of_gigabytes_is_refused(tmp_path: Path, length: int, where: str) -> None:
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "weight_node": nir.Linear(np.ones((2, 3), np.float32)),
        "output": nir.Output({"output": np.array([2])}),
    }
    path = tmp_path / "a.nir"
    nir.write(path, nir.NIRGraph(nodes, [("input", "weight_node"), ("weight_node", "output")]))
    import_checkpoint(path)
    data = path.read_bytes()
    if where == "node/edges":  # nir packs them, or not
        with h5py.File(path, "r+") as file:
            pairs = file[where][()]
            del file[where]
            file.create_dataset(where, data=pairs, dtype=h5py.string_dtype())
        data = path.read_bytes()
    path.write_bytes(claim(data, length, most=9))
    said = refused_within_bounds("import", str(path), "-o", str(tmp_path / "m.h5"))
    assert f"dataset {where} claims " in said


def test_an_attribute_of_a_checkpoint_and_one_of_a_model(tmp_path: Path, small_network: Network) -> None:
    path = tmp_path / "c.h5"
    with h5py.File(path, "w") as file:
        file["weight"] = np.ones(70, np.float32)
        file["weight"].attrs["kind"] = "seven text"
    path.write_bytes(claim(path.read_bytes(), 10))
    assert "attribute kind claims" in refused_within_bounds("import", str(path), "-o", str(tmp_path / "m.h5"))
    save(small_network, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        described = len(file["network"][()])
        layer = len(next(iter(file["layers"].values())).attrs["layer"])
    whole = (tmp_path / "m.h5").read_bytes()
    for length, what in ((described, "dataset network"), (layer, "attribute layer")):
        (tmp_path / "m.h5").write_bytes(claim(whole, length))
        seal(tmp_path / "m.h5")
        assert f"{what} claims" in refused_within_bounds("info", str(tmp_path / "m.h5"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("userblock", [0, 512])
def test_data_sets_of_text_are_counted(tmp_path: Path, layout: str, userblock: int) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file.create_dataset("names", data=TEXTS, **LAYOUTS[layout])
        file.create_dataset("one", data="alone")
    with h5py.File(path) as file:
        held = HeldText(path)
        held.check_dataset("names", file["names"])
        held.check_dataset("one", file["one"])
    if layout == "gzip":
        return
    # each within the file, together more than it
    path.write_bytes(claim(path.read_bytes(), len("text 11"), path.stat().st_size - 1, most=9))
    with (
        h5py.File(path) as file,
        pytest.raises(InputError, match=r"dataset names claims \d+ bytes of text in a file of"),
    ):
        HeldText(path).check_dataset("names", file["names"])


def test_packed_references_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("names", data=TEXTS, **LAYOUTS["chunks"])
        data = np.frombuffer(made.id.read_direct_chunk((33,))[1], REFERENCE).copy()
        data["bytes"][5] = GIGABYTES
        packed = file.create_dataset("packed", data=TEXTS, chunks=(33,), compression="gzip")

        packed.id.write_direct_chunk((33,), zlib.compress(data.tobytes()))
    with h5py.File(path) as file, pytest.raises(InputError, match=r"dataset packed claims 4026\d+ bytes"):
        HeldText(path).check_dataset("packed", file["packed"])


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("others", [0, 20])
def test_attributes_are_found_wherever_a_file_keeps_them(tmp_path: Path, version: str, others: int) -> None:
    """In headers of both kinds, in their continuations, and in heaps of their own where there are many."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        group = file.create_group("g")
        for index in range(others):
            group.attrs[f"other {index}"] = f"another {index}"
        group.attrs["größe"] = "a text"
        file.attrs["größe"] = ["a text", "ever so much more"]
        file["values"] = np.frombuffer(b"gr\xc3\xb6\xc3\x9fe\0" * 8, np.uint8)
        file["values"].attrs["größe"] = 7

    def check() -> None:
        with h5py.File(path) as file:
            held = HeldText(path)
            for name in ("/", "g", "values"):
                for key in file[name].attrs:
                    held.check_attribute(file[name], key)

    check()
    if version == "latest":  # has check sums of what it keeps
        return
    path.write_bytes(claim(path.read_bytes(), len("ever so much more")))
    with pytest.raises(InputError, match="attribute größe claims 4026"):
        check()


def test_texts_that_no_reader_can_bound_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("nothing", (5,), h5py.string_dtype())
        file.create_dataset("packed", data=TEXTS, chunks=(7,), compression="lzf")
    with h5py.File(path) as file:
        held = HeldText(path)
        for name, said in (
            ("nothing", "nothing is text that is stored within its header"),
            ("packed", "other than gzip"),
        ):
            with pytest.raises(InputError, match=said):
                held.check_dataset(name, file[name])
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", data=np.ones(4, np.float32))
        file.create_dataset("lists", (5,), h5py.vlen_dtype(np.float32))
        file["lists"][:] = [np.ones(3, np.float32)] * 5
        file.create_dataset("pair", (5,), [("a", "f4"), ("b", h5py.string_dtype())])
    with pytest.raises(InputError, match="dataset pair holds values of any length; expected numbers"):
        import_checkpoint(path)
