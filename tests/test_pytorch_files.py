"""PyTorch's files, read without PyTorch: every value as PyTorch reads it, nothing executed, refused in one line."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import io
import pickle
import random
import struct
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files
from state_dicts import spikformer_state
from torch_files import Raw, call, code, name, pickled, storage, tensor, write

from eventsim import InputError, import_checkpoint
from eventsim.errors import EventsimError
from eventsim_importers.reading import pytorch_file
from eventsim_importers.reading.pickled import PickleError, Tensor, Unknown, read_pickle

SMALL = {"height": 32, "width": 32, "time_steps": 3, "heads": 2}


class Colour(enum.Enum):
    RED = 1


def refused(path: Path, **options: Any) -> str:
    """Return the line that a file is refused with."""
    with pytest.raises(InputError) as caught:
        import_checkpoint(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def load(path: Path, entry: str = "") -> dict[str, np.ndarray]:
    container = pytorch_file.read(path)
    return dict(container.load(entry, container.entries[entry]))


def floats(count: int) -> bytes:
    return np.arange(count, dtype="<f4").tobytes()


# --- values


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("new", [True, False])
def test_values_are_those_that_pytorch_reads(tmp_path: Path, new: bool, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    attributed = torch.ones(3)
    attributed.note = "with an attribute"
    state = {
        **{
            str(dtype): torch.arange(-3, 9).to(dtype)
            for dtype in (
                torch.float32,
                torch.float64,
                torch.float16,
                torch.bfloat16,
                torch.int64,
                torch.int32,
                torch.int16,
                torch.int8,
                torch.uint8,
                torch.bool,
                torch.complex64,
                *([torch.uint16, torch.uint32] if new else []),
            )
        },
        "transposed": base.t(),
        "sliced": base[1:5:2, ::3],
        "shared": base[0],
        "bfloat16 transposed": base.bfloat16().t(),
        "channels last": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "number": torch.tensor(3.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(base[2]),
        "buffer": torch.nn.Buffer(base[3]),
        "attributed": attributed,
        "expanded": base[:1, :1].expand(2, 3),
    }
    torch.save(state, tmp_path / "c.pth", _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    container = pytorch_file.read(tmp_path / "c.pth")
    found = container.load("", list(state))
    assert list(container.entries[""]) == list(state)
    for key, value in state.items():
        expected = (value.detach().float() if value.is_floating_point() else value.detach()).numpy()
        for array in (found[key], container.entries[""][key]):
            assert (array.shape, array.dtype) == (expected.shape, expected.dtype), key
        np.testing.assert_array_equal(found[key], expected, key)
        assert found[key].flags.c_contiguous, key


def test_values_without_checksum_are_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.arange(4.0)}, tmp_path / "c.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(load(tmp_path / "c.pth")["weight"], np.arange(4))


def test_bytes_of_the_other_order_are_read(tmp_path: Path) -> None:
    value = {"weight": tensor(storage("0", 3), (3,)), "count": tensor(storage("1", 2, "LongStorage"), (2,))}
    content = {"0": np.array([1, 2, 3], ">f4").tobytes(), "1": np.array([5, 6], ">i8").tobytes()}
    found = load(write(tmp_path / "c.pth", value, content, byteorder=b"big"))
    assert found["weight"].tolist() == [1, 2, 3]
    assert found["count"].tolist() == [5, 6]
    assert all(array.dtype.isnative for array in found.values())


def test_archives_that_others_packed_again_are_read(tmp_path: Path) -> None:
    write(tmp_path / "c.pth", {"weight": tensor(storage("0", 4), (2, 2))}, {"0": floats(4)})
    with (
        zipfile.ZipFile(tmp_path / "c.pth") as old,
        zipfile.ZipFile(tmp_path / "d.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        new.writestr("__MACOSX/archive/._data.pkl", b"")
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert load(tmp_path / "d.pth")["weight"].tolist() == [[0, 1], [2, 3]]


def test_files_of_old_python_are_read(tmp_path: Path) -> None:
    """An ordered dictionary as a list of pairs, tensors without flags, storages of a GPU."""
    stored = storage("0", 4, "FloatStorage", "torch.cuda")
    old = call("torch._utils._rebuild_tensor", stored, 1, (3,), (1,))
    write(tmp_path / "c.pth", {"state_dict": call("collections.OrderedDict", [["weight", old]])}, {"0": floats(4)})
    assert load(tmp_path / "c.pth", "state_dict")["weight"].tolist() == [1, 2, 3]


def test_pytorch_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = torch_files.write_state(tmp_path / "c.pth", spikformer_state("dvs"))
    assert import_checkpoint(path, **SMALL).name == "Spikformer dvs 2-32"


# --- what lies beside the weights


@pytest.mark.parametrize("new", [True, False])
def test_plain_values_beside_the_weights_are_skipped(tmp_path: Path, new: bool) -> None:
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(value) for key, value in spikformer_state("dvs").items()}
    beside = {
        "scalar": np.float64(95.2),
        "array": np.arange(6.0).reshape(2, 3),
        "object array": np.array([{}, None], object),
        "path": Path("runs/1"),
        "date": datetime.datetime.now(tz=datetime.UTC),
        "default": collections.defaultdict(list, {"loss": [1.0]}),
        "ordered": collections.OrderedDict(lr=0.1),
        "args": argparse.Namespace(lr=0.1),
        "counter": collections.Counter("aab"),
        "enum": Colour.RED,
        "set": {1, 2},
        "frozen": frozenset({3}),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "complex": 1 + 2j,
        "function": np.mean,
        "bytes": bytearray(b"x"),
        3: "a number as key",
        (1, 2): "a tuple as key",
        "generator": torch.Generator().get_state(),
        "metric": torch.tensor(91.5),
    }
    for protocol in (2, 4):
        torch.save(
            {"state_dict": state, **beside},
            tmp_path / "c.pth",
            _use_new_zipfile_serialization=new,
            pickle_protocol=protocol,
        )
        network = import_checkpoint(tmp_path / "c.pth", **SMALL)
        said = next(setting for setting in network.settings if setting.option == "weights")
        assert (said.value, said.source) == ("state_dict", "inferred")


# --- what is named for what it is


def test_whole_modules_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    for new in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(module, tmp_path / "c.pth", _use_new_zipfile_serialization=new)
        message = refused(tmp_path / "c.pth")
        assert "whole pickled module torch.nn.modules.container.Sequential found; expected its state dict" in message
    torch.save({"model": module, "epoch": 3}, tmp_path / "c.pth")
    assert "entry model: whole pickled module" in refused(tmp_path / "c.pth")


@pytest.mark.filterwarnings("ignore")
def test_compiled_programs_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "c.pt")
    assert "TorchScript archive found" in refused(tmp_path / "c.pt")
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), tmp_path / "c.pt2")
    assert "program of torch.export found" in refused(tmp_path / "c.pt2")


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_plain_values_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    odd = {
        "sparse layout": torch.ones(2, 2).to_sparse(),
        "type torch.quint8": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.quint8),
        "device meta": torch.ones(2, device="meta"),
        "type torch.float8_e4m3fn": torch.ones(2).to(torch.float8_e4m3fn),
    }
    for words, value in odd.items():
        torch.save({"block.0.weight": value}, tmp_path / "c.pth")
        message = refused(tmp_path / "c.pth")
        assert "tensor block.0.weight of " in message
        assert words in message
    negated = torch.ones(2, dtype=torch.complex64).conj().imag
    torch.save({"w": negated}, tmp_path / "c.pth")
    assert "tensor w of a layout of conjugated or negated values" in refused(tmp_path / "c.pth")


def test_other_pickles_are_named(tmp_path: Path) -> None:
    for protocol in (2, 3, 4, 5):
        (tmp_path / "c.pth").write_bytes(pickle.dumps({"weight": [1.0]}, protocol=protocol))
        assert "a pickle that torch.save did not write found" in refused(tmp_path / "c.pth")
    assert "list found; expected a state dict" in refused(write(tmp_path / "c.pth", [1, 2]))
    assert "no tensors found in epoch, lr" in refused(write(tmp_path / "c.pth", {"epoch": 3, "lr": 0.1}))
    assert "refused without running it (os.system)" in refused(write(tmp_path / "c.pth", call("os.system", "true")))


# --- hostile files

MANY = 300_000
LAUGHS = b")" + b"2\x86" * 60
"""A tuple of two that are the same tuple of two, and so on: of 2^60 values."""
RUNS = b"cpathlib\nPosixPath.touch\n"


def hostile(mark: Path) -> dict[str, bytes]:
    """Return pickles that would run something or take all memory or time."""
    target = code(str(mark))
    touch = b"c__builtin__\nopen\n(" + target + code("w") + b"t"
    return {
        "system": b"\x80\x02cos\nsystem\n(" + code(f"touch {mark}") + b"tR.",
        "in a value": pickled({"weight": Raw(touch + b"R")}),
        "as a storage": pickled({"weight": tensor(Raw(touch + b"R"), (1,))}),
        "as a function of a type": pickled(
            {"w": call("torch._tensor._rebuild_from_type_v2", name("os.system"), 1, ("x",), 1)}
        ),
        "new object": b"\x80\x02" + touch + b"\x81.",
        "new object with names": b"\x80\x04" + touch + b"}\x92.",
        "instance": b"(" + target + code("w") + b"i__builtin__\nopen\n.",
        "object": b"(c__builtin__\nopen\n" + target + code("w") + b"o.",
        "stack global": b"\x80\x04" + code("builtins") + code("open") + b"\x93(" + target + code("w") + b"tR.",
        "state": b"\x80\x02" + touch + b"R}(" + code("__class__") + code(1) + b"ub.",
        "a set": b"\x80\x04\x8f(" + touch + b"R\x90.",
        "extension": b"\x80\x02\x82\x01)R.",
        "laughs as a key": b"}" + LAUGHS + b"Ns.",
        "laughs as a value": b"}" + code("weight") + LAUGHS + b"s.",
        "laughs as a shape": pickled({"weight": tensor(storage("0", 1), Raw(LAUGHS), ())}),
        "laughs in a call": b"cos\nsystem\n" + LAUGHS + b"R.",
        "deep lists": b"]" * MANY + b"a" * (MANY - 1) + b".",
        "deep tuples": b")" + b"\x85" * MANY + b".",
        "deep dictionaries": b"}" + (code("a") + b"}") * MANY + b"s" * MANY + b".",
        "a list in itself": b"]q\x00h\x00a.",
        "a dictionary in itself": b"}q\x00" + code("a") + b"h\x00s.",
        "dictionaries in each other": b"}"
        + b"".join(b"q\x00}(" + code("a") + b"h\x00" + code("b") + b"h\x00u" for _ in range(60))
        + b".",
        "large memo": b"Nr\xff\xff\xff\xff.",
        "memo of a large number": b"Np" + b"9" * 4000 + b"\n.",
        "negative memo": b"Np-1\n.",
        "long text": b"X\xff\xff\xff\x7fabc.",
        "longer text": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc.",
        "long number": b"\x8b\xff\xff\xff\x7fabc.",
        "negative length": b"\x8b\xff\xff\xff\xffabc.",
        "long decimal number": b"L" + b"9" * 100_000 + b"L\n.",
        "keys of one hash": b"}(" + b"".join(code(number * (2**61 - 1)) + b"N" for number in range(20_000)) + b"u.",
        "no stack": b"R.",
        "no mark": b"t.",
        "a mark as value": b"(.",
        "no end": b"N",
        "odd items": b"}(" + code("a") + b"u.",
        "protocol 9": b"\x80\x09N.",
        "unknown opcode": b"\xff.",
        "buffers": b"\x80\x05\x97.",
        "other data outside": code(("module", 1)) + b"Q.",
        "text outside": b"Pabc\n.",
        "pairs over and over": b"ccollections\nOrderedDict\n("
        + code([["a", 1]] * 20_000)
        + b"tq\x00"
        + b"0"
        + b"ccollections\nOrderedDict\nh\x00R" * 20_000
        + b".",
        "arguments over and over": b"("
        + b"N" * 20_000
        + b"tq\x00"
        + b"ctorch._utils\n_rebuild_parameter\nh\x00R" * 20_000
        + b".",
    }


@pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
@pytest.mark.parametrize("new", [True, False])
def test_hostile_pickles_are_refused(tmp_path: Path, kind: str, new: bool) -> None:
    mark = tmp_path / "executed"
    content = hostile(mark)[kind]
    if new:
        write(tmp_path / "c.pth", content, {"0": floats(1)})
    else:
        (tmp_path / "c.pth").write_bytes(
            pickled(torch_files.MAGIC) + pickled(1001) + pickled({}) + content + pickled([])
        )
    began = time.process_time()
    refused(tmp_path / "c.pth")
    assert time.process_time() - began < 10
    assert not mark.exists()


def test_steps_of_a_pickle_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventsim_importers.reading.pickled.MOST_OPCODES", 1000)
    assert "pickle of more than 1000 steps" in refused(write(tmp_path / "c.pth", b"}" * 1001 + b"."))
    monkeypatch.setattr("eventsim_importers.reading.pytorch_file.MOST_BYTES", 1000)
    assert "data.pkl unpacks to more than 1000 bytes" in refused(write(tmp_path / "c.pth", b"N" * 1001))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tensor(storage("0", 4), (5,)), "tensor w larger than its stored data"),
        (tensor(storage("0", 4), (4,), offset=1), "tensor w larger than its stored data"),
        (tensor(storage("0", 4), (2, 2), (4, 1)), "tensor w larger than its stored data"),
        (tensor(storage("0", 4), (2,), (10**15,)), "tensor w larger than its stored data"),
        (tensor(storage("0", 10**9), (10**9,)), "tensor w larger than its stored data"),
        (tensor(storage("0", 10**15), (10**9, 10**6)), "tensor w larger than its stored data"),
        (tensor(storage("0", 4), (10**12,), (0,)), "tensor w larger than its stored data"),
        (tensor(storage("0", 4), (0, 10**18, 10**18), (1, 1, 1)), "shape, strides or an offset"),
        (tensor(storage("0", 4), (-1,), (1,)), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), (1,), (-1,)), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), (1,), offset=-4), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), (2**70,), (1,)), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), (1.5,), (1,)), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), (1,) * 40), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), (1,), (1, 1)), "shape, strides or an offset that none has"),
        (tensor(storage("0", 4), [1], (1,)), "tensor without shape"),
        (tensor(storage("0", -4), (1,)), "storage without name or size"),
        (tensor(storage("0", "4"), (1,)), "storage without name or size"),
        (tensor(storage("0", 4, "FloatStorage", "torch", ("0", 0, 2)), (1,)), "storage that is part of another"),
        (tensor(storage("0", 4, "NoStorage"), (1,)), "tensor w of type torch.NoStorage found; expected floating point"),
        (tensor(storage("1", 4), (1,)), "entry archive/data/1 missing"),
        (tensor(storage("../data.pkl", 4), (1,)), "entry archive/data/../data.pkl missing"),
        (tensor(3, (1,)), "tensor without storage"),
        (call("torch._utils._rebuild_tensor_v2", 1), "damaged pickle"),
        (call("torch._utils._rebuild_qtensor"), "tensor w of quantised type"),
    ],
)
def test_claims_of_a_pickle_are_not_believed(tmp_path: Path, value: Raw, words: str) -> None:
    assert words in refused(write(tmp_path / "c.pth", {"w": value}, {"0": floats(4)}))


def test_tensors_that_share_their_values_do_not_multiply_them(tmp_path: Path) -> None:
    """Of many views of one storage, each is made a tensor of its own where its type is converted."""
    shared = Raw(storage("0", 1 << 20, "HalfStorage") + b"q\x00")
    views = {"0": tensor(shared, (1 << 20,))} | {
        str(number): tensor(Raw(b"h\x00"), (1 << 20,)) for number in range(1, 300)
    }
    assert "larger than its stored data" in refused(write(tmp_path / "c.pth", views, {"0": bytes(1 << 21)}))


def test_packed_storages_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickled({"w": tensor(storage("0", 1 << 25), (1,))}))
        archive.writestr("a/data/0", bytes(1 << 27))
    assert "entry a/data/0 unpacks to more than 67108864 bytes" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a/data.pkl", pickled({"w": tensor(storage("0", 1), (1,))}))
    assert "entry a/data.pkl packed by method 14" in refused(path)


def test_old_files_are_as_long_as_they_say(tmp_path: Path) -> None:
    head = b"".join(map(pickled, (torch_files.MAGIC, 1001, {"little_endian": True})))
    state = pickled({"w": tensor(storage("0", 4), (4,))})
    whole = head + state + pickled(["0"]) + struct.pack("<q", 4) + floats(4)
    path = tmp_path / "c.pth"
    path.write_bytes(whole)
    assert load(path)["w"].tolist() == [0, 1, 2, 3]
    for change in (
        whole[:-1],
        whole[:-17],
        head + state,
        whole[:-24] + struct.pack("<q", -4) + floats(4),
        whole[:-24] + struct.pack("<q", 2**62) + floats(4),
        head + state + pickled(["1"]) + bytes(24),
    ):
        path.write_bytes(change)
        refused(path)


def small_file(folder: Path, new: bool) -> bytes:
    path = folder / "small.pth"
    values = {"a.weight": tensor(storage("0", 6), (2, 3)), "a.bias": tensor(storage("1", 2, "DoubleStorage"), (2,))}
    beside = {"epoch": 3, "args": call("argparse.Namespace"), "path": call("pathlib.PosixPath", "a", "b")}
    content = {"0": floats(6), "1": np.arange(2.0).tobytes()}
    if new:
        return write(path, {"state_dict": values, **beside}, content).read_bytes()
    pickles = (torch_files.MAGIC, 1001, {"little_endian": True}, {"state_dict": values, **beside}, ["0", "1"])
    sizes = struct.pack("<q", 6), struct.pack("<q", 2)
    return b"".join(map(pickled, pickles)) + sizes[0] + content["0"] + sizes[1] + content["1"]


@pytest.mark.parametrize("new", [True, False])
def test_flipped_bits_and_cut_files_are_read_or_refused_in_one_line(tmp_path: Path, new: bool) -> None:
    whole = small_file(tmp_path, new)
    rng = random.Random(0)
    path = tmp_path / "c.pth"
    for trial in range(400):
        content = bytearray(whole)
        if trial % 4 == 0:
            content = content[: rng.randrange(1, len(content))]
        for _ in range(rng.choice((1, 1, 2, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        with pytest.raises(EventsimError, match=r"c\.pth") as caught:  # these names are of no format
            import_checkpoint(path)
        assert "\n" not in str(caught.value)


def test_pickles_become_plain_values_alone() -> None:
    """Whatever is in a pickle, what comes out is plain or inert."""
    value = {"path": Path("x"), "nested": [{"a": (1, b"x", 2.5, None, True)}], "date": datetime.date(2020, 1, 1)}
    for protocol in range(6):
        found = read_pickle(io.BytesIO(pickle.dumps(value, protocol=protocol)))
        assert isinstance(found["path"], Unknown)
        assert isinstance(found["date"], Unknown)
        assert found["nested"][0]["a"][0] == 1
    with pytest.raises(PickleError, match="damaged pickle"):
        read_pickle(io.BytesIO(b"junk"))
    assert isinstance(read_pickle(io.BytesIO(pickled({"w": tensor(storage("0", 1), (1,))})))["w"], Tensor)


@pytest.mark.parametrize("number", [1.5, np.float32(1.5), np.array(1.5), np.ones(3)])
def test_a_number_under_the_name_of_a_weight_is_not_lost(tmp_path: Path, number: Any) -> None:
    torch = pytest.importorskip("torch")
    state = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in spikformer_state("dvs").items()}
    torch.save(state | {"patch_embed.proj_lif.w": number}, tmp_path / "c.pth")
    said = refused(tmp_path / "c.pth", **SMALL)
    assert "a number that is no tensor found as patch_embed.proj_lif.w; expected a tensor" in said
    torch.save(state | {"epoch": number}, tmp_path / "c.pth")
    assert import_checkpoint(tmp_path / "c.pth", **SMALL).name
