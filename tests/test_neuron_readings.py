"""One reading of neurons, residual connections and pooling: every pair of values against a dense Spikformer."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import spikformer as dense
from state_dicts import spikformer_state

from eventsim import InputError, Network, Simulator, import_checkpoint, load, save
from eventsim.preparation_options import ORIENTATION
from eventsim.settings import CHECKPOINT_PARAMETERS

F = np.float32
SIZES = {"heads": 2, "height": 16, "width": 16, "time_steps": 4, "input_kind": "graded"}
VALUES: dict[str, tuple[Any, ...]] = {
    "tau": (2.0, 1.5),
    "decay_input": (True, False),
    "v_threshold": (1.0, 0.75),
    "attn_threshold": (0.5, 0.25),
    "reset": ("zero", "subtract"),
    "v_reset": (0.0, -0.5, 0.125),
    "strict": (False, True),
    "residual_op": ("add", "iand", "and"),
    "pools": ("0011", "1001"),
    "pool_order": ("after_fire", "before_fire"),
    "bn_eps": (1e-5, 0.25),
}
INVALID = {
    (("reset", "subtract"), ("v_reset", -0.5)): "v_reset=-0.5 with reset=subtract found; expected reset=zero",
    (("reset", "subtract"), ("v_reset", 0.125)): "v_reset=0.125 with reset=subtract found; expected reset=zero",
}
"""The pairs of values that do not go together, and what is said of them."""


def pairs() -> list[dict[str, Any]]:
    """Every pair of values of two options, each in a set of all options, greedily few sets."""
    names = list(VALUES)
    missing = {
        pair
        for a, b in combinations(names, 2)
        for pair in product(((a, value) for value in VALUES[a]), ((b, value) for value in VALUES[b]))
        if pair not in INVALID
    }
    rng, rows = np.random.default_rng(0), []
    while missing:
        best: tuple[int, dict[str, Any]] = (0, {})
        for _ in range(200):
            row = {name: values[rng.integers(len(values))] for name, values in VALUES.items()}
            if not any(row[a] == x and row[b] == y for (a, x), (b, y) in INVALID):
                covered = sum(1 for (a, x), (b, y) in missing if row[a] == x and row[b] == y)
                best = max(best, (covered, row), key=lambda found: found[0])
        rows.append(best[1])
        missing = {((a, x), (b, y)) for (a, x), (b, y) in missing if not (best[1][a] == x and best[1][b] == y)}
    return rows


PAIRS = pairs()


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Weights whose neurons are lively under every reading."""
    state = {name: np.asarray(value) for name, value in spikformer_state("cifar", dim=16, depth=2, classes=5).items()}
    rng = np.random.default_rng(3)
    biases = [name for name in state if "_bn" in name and name.endswith(".bias")]
    return state | {name: rng.uniform(0, 1, state[name].shape).astype(F) for name in biases}


@pytest.fixture(scope="module")
def path(state: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readings") / "c.npz"
    np.savez(path, **state)
    return path


def frames(state: dict[str, np.ndarray]) -> np.ndarray:
    channels = state["patch_embed.proj_conv.weight"].shape[1]
    return np.random.default_rng(1).integers(0, 3, (4, channels, 16, 16)).astype(F)


@pytest.mark.parametrize("reading", PAIRS, ids=range(len(PAIRS)))
def test_every_pair_of_values_equals_the_dense_model(
    path: Path, state: dict[str, np.ndarray], tmp_path: Path, reading: dict[str, Any]
) -> None:
    network = import_checkpoint(path, **SIZES, **reading)
    expected = dense.run(state, frames(state), dense.Reading(heads=2, **reading))
    result = Simulator(network).run(frames(state))
    np.testing.assert_allclose(result.logits, expected, atol=1e-4)
    assert result.totals.spikes > 1000
    said = {setting.option: (setting.value, setting.source) for setting in network.settings}
    for name, value in reading.items():
        if (name, reading["reset"]) != ("v_reset", "subtract"):
            assert said[name] == (value, "option")
    save(network, tmp_path / "m.h5")
    assert load(tmp_path / "m.h5").settings == network.settings


def test_every_value_matters(path: Path, state: dict[str, np.ndarray]) -> None:
    """Else the pairs would show nothing."""

    def logits(**reading: Any) -> np.ndarray:
        return Simulator(import_checkpoint(path, **SIZES, **reading)).run(frames(state)).logits

    default = logits()
    for name, values in VALUES.items():
        for value in values[1:]:
            assert np.abs(logits(**{name: value}) - default).max() > 1e-3, (name, value)


@pytest.mark.parametrize("pair", INVALID, ids=str)
def test_pairs_that_do_not_go_together_are_refused(path: Path, pair: tuple[tuple[str, Any], tuple[str, Any]]) -> None:
    with pytest.raises(InputError, match=INVALID[pair]) as caught:
        import_checkpoint(path, **SIZES, **dict(pair))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"v_reset": 1.0}, "v_threshold=1 found; expected more than v_reset=1"),
        ({"v_reset": 0.75}, "attn_threshold=0.5 found; expected more than v_reset=0.75"),
        ({"v_threshold": 0.0}, "v_threshold=0 found; expected more than v_reset=0"),
        ({"pools": "0021"}, "pools=0021 found; expected 4 ones and zeros, such as 0011"),
        ({"pools": "011"}, "pools=011 found; expected 4 ones and zeros"),
        ({"tau": 0.5}, "tau=0.5 found; expected at least 1 time step"),
    ],
)
def test_values_that_make_no_sense_are_refused(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        import_checkpoint(path, **SIZES, **options)
    assert "\n" not in str(caught.value)


def test_nothing_is_guessed_without_a_word(path: Path) -> None:
    """Every constant of every layer is a setting, and each has a source."""
    network = import_checkpoint(path)
    settings = [setting for setting in network.settings if setting.option != CHECKPOINT_PARAMETERS]
    assert {setting.source for setting in settings} == {"assumed"}
    prepared = {"window", "binary", "fit", *ORIENTATION}
    assert {setting.option for setting in settings} == {*VALUES, *SIZES, "scale"} | prepared
    defaults = asdict(dense.Reading(heads=0))
    for setting in settings:
        if setting.option in VALUES:
            assert setting.value == defaults[setting.option]


CASES = {
    "g_base_heads4": {},
    "g_tau15": {"tau": 1.5},
    "g_soft": {"reset": "subtract"},
    "g_nodecay": {"decay_input": False},
    "g_cml": {"pool_order": "before_fire"},
}


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_of_other_readings(shared: Path, case: str) -> None:
    pytest.importorskip("torch")
    folder = shared / "cases" / "checkpoints"
    network: Network = import_checkpoint(folder / f"{case}.pth", heads=4, **CASES[case])
    with np.load(folder / f"{case}_expected.npz") as expected:
        for image, logits in zip(expected["x"], expected["logits"], strict=True):
            np.testing.assert_allclose(Simulator(network).run(image).logits, logits, atol=1e-6)
