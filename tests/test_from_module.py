"""A module of the user's own code with the weights of a checkpoint, on the command line; and an example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle as oracle
from numpy.testing import assert_array_equal

from eventsim import Simulator, import_checkpoint, load
from eventsim.cli import main
from eventsim.from_module import import_with_module

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # SpikingJelly uses torch.jit
torch = oracle.torch
CODE = """
import torch
from spikingjelly.activation_based import layer, neuron

def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False, step_mode="m"),
        layer.BatchNorm2d(4, step_mode="m"),
        neuron.LIFNode(v_threshold=0.25, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(4 * 8 * 8, 5, step_mode="m"),
    )

def fails():
    raise RuntimeError("no such file")

def nothing():
    return 3

number = 3
"""
EXAMPLE = ("--example", "2x8x8", "--example-steps", "4", "--set", "readout=mean")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder with code of the user's, under a name that no other test has imported, and weights."""
    name = f"mine_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(CODE, namespace)
    state = {key: value * 1.5 for key, value in namespace["network"]().state_dict().items()}
    torch.save(state, "bare.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, "wrapped.pth")
    return tmp_path / name


def run(folder: Path, checkpoint: str, *arguments: str, function: str = "network") -> int:
    return main(["import", checkpoint, "--module", f"{folder.name}:{function}", "-o", "m.h5", *arguments])


@pytest.mark.parametrize("checkpoint", ["bare.pth", "wrapped.pth"])
def test_the_weights_of_a_checkpoint_are_put_into_the_module(folder: Path, checkpoint: str) -> None:
    assert run(folder, checkpoint, *EXAMPLE) == 0
    namespace: dict[str, Any] = {}
    exec(CODE, namespace)
    module = namespace["network"]()
    module.load_state_dict(torch.load("bare.pth"))
    x = torch.poisson(torch.rand(4, 1, 2, 8, 8))
    with torch.no_grad():
        expected = module.eval()(x).mean(0)[0].numpy()
    network = load("m.h5")
    assert network.time_steps == 4
    np.testing.assert_allclose(Simulator(network).run(x[:, 0].numpy()).logits, expected, atol=1e-6)


def test_it_is_the_network_of_the_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(oracle.EXAMPLES)
    path = oracle.EXAMPLES / "weights" / "nmnist_spikformer.safetensors"
    network = import_with_module(path, "spikformer:nmnist_model", (2, 34, 34), 5)
    frames = np.random.default_rng(0).poisson(0.3, (5, 2, 34, 34))
    found, expected = (Simulator(each).run(frames) for each in (network, import_checkpoint(path)))
    assert_array_equal(found.logits, expected.logits)
    assert found.totals == expected.totals


BAD = {
    "no module": (lambda f: ["--module", "absent.code:network", *EXAMPLE], "absent.code cannot be imported"),
    "a file": (lambda f: ["--module", f"{f.name}.py:network", *EXAMPLE], "without .py"),
    "no steps": (lambda f: ["--module", f"{f.name}:network", "--example", "2x8x8"], "frames need --example-steps"),
    "an option": (
        lambda f: ["--module", f"{f.name}:network", *EXAMPLE, "--set", "readot=sum"],
        "expected one of input_kind, readout, fold_bn, time_axis",
    ),
    "no colon": (lambda f: ["--module", f.name, *EXAMPLE], "expected package.module:function"),
    "no function": (lambda f: ["--module", f"{f.name}:absent", *EXAMPLE], "no function absent in"),
    "a number": (lambda f: ["--module", f"{f.name}:number", *EXAMPLE], "no function number in"),
    "no network": (lambda f: ["--module", f"{f.name}:nothing", *EXAMPLE], "int found; expected a torch.nn.Module"),
    "no example": (lambda f: ["--module", f"{f.name}:network"], "expected the shape of a time step"),
    "another format": (
        lambda f: ["--module", f"{f.name}:network", "--format", "nir", *EXAMPLE],
        "beside --module found",
    ),
    "no code": (lambda f: EXAMPLE[:4], "expected --module package.module:function with it"),
    "another size": (
        lambda f: ["--module", f"{f.name}:network", "--example", "2x9x9", "--example-steps", "4"],
        "expected an example (4, 1, 2, 9, 9) that the module takes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, words = BAD[name]
    assert main(["import", "bare.pth", "-o", "m.h5", *arguments(folder)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not Path("m.h5").exists()


def test_code_that_fails_is_no_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "bare.pth", *EXAMPLE, function="fails") == 1
    assert "fails() failed (RuntimeError: no such file)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"4.bias": None}, "tensor 4.bias missing; expected it with shape (5,)"),
        ({"5.weight": np.ones(3, np.float32)}, "tensor 5.weight (3) left over"),
        ({"4.bias": np.ones(6, np.float32)}, "tensor 4.bias (6,) found; expected (5,)"),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, change: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {key: value.numpy() for key, value in torch.load("bare.pth").items()} | change
    np.savez("changed.npz", **{key: value for key, value in state.items() if value is not None})
    assert run(folder, "changed.npz", *EXAMPLE) == 2
    assert words in capsys.readouterr().err


def test_a_network_that_nobody_published(capsys: pytest.CaptureFixture[str]) -> None:
    oracle.example("your_own_network").main()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("prediction"))
    ours, theirs = (int(word) for word in line.replace(",", "").split() if word.isdigit())
    assert ours == theirs
