"""Checkpoint formats of other packages: found, judged, and left out where they are broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_format
from state_dicts import spikformer_state

from eventsim import EventsimError, InputError, import_checkpoint
from eventsim.importing import formats
from eventsim.plugins import PluginWarning

OURS = [
    "ds2ta",
    "nir",
    "sew_resnet",
    "sew_resnet_dvs",
    "spikeformer",
    "spikformer",
    "spikformer_v2",
    "spikformer_zoo",
    "spikingformer",
    "staa_snn",
    "stformer",
]

TOY = Path(toy_format.__file__).read_text()
"""Source of a format that works."""


@pytest.mark.parametrize("first", ["eventsim", "eventsim_importers", "eventsim_importers.protocol"])
def test_either_package_may_be_imported_first(first: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {first}"], check=True)


def test_ours_are_the_modules_that_define_an_importer() -> None:
    assert list(formats()) == OURS


def test_formats_of_other_packages_read(tmp_path: Path, install: Any) -> None:
    install("toy", TOY)
    assert list(formats()) == [*OURS, "toy"]
    path = toy_format.write(tmp_path)
    assert import_checkpoint(path).name == "toy"
    assert import_checkpoint(path, "toy", height="4").input.shape == (2, 4, 2)
    with pytest.raises(InputError, match="option 'heads' of format toy found; expected one of height, width, "):
        import_checkpoint(path, heads=2)


def test_a_module_with_the_attributes_is_a_format(tmp_path: Path, install: Any) -> None:
    install("toy", TOY + "\ndescription, options = 'as a module', Options\n", attribute="")
    assert formats()["toy"].description == "as a module"
    assert import_checkpoint(toy_format.write(tmp_path)).name == "toy"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", r"plug-in toy = plugin_toy:IMPORTER of package plugin_toy .* is left out: ZeroDivisionError"),
        ("IMPORTER = 1", "no description and no options and no signature and no read found; expected an importer with"),
        (
            TOY + "\nIMPORTER = Importer('a toy', int, signature, read)",
            "options <class 'int'> found; expected a dataclass",
        ),
        (
            TOY + "\nIMPORTER = Importer('', Options, signature, read)",
            "description '' found; expected one line of text",
        ),
        (TOY + "\nIMPORTER = Importer('a toy', Options, 3, read)", "signature 3 found; expected a function"),
        (
            TOY.replace("v_threshold: float | None = None", "v_threshold: list[int] = ()"),
            r"option v_threshold of type list\[int\] found; expected bool, int",
        ),
        (TOY.replace("height: int | None = None", "height: int"), "option height without a default found"),
    ],
)
def test_a_broken_format_is_left_out_and_stops_nothing(tmp_path: Path, install: Any, source: str, message: str) -> None:
    install("toy", source)
    np.savez(tmp_path / "c.npz", **spikformer_state("dvs"))
    with pytest.warns(PluginWarning, match=message):
        network = import_checkpoint(tmp_path / "c.npz", height=32, width=32)
    assert network.name == "Spikformer dvs 2-32"
    assert list(formats()) == OURS  # without a second warning


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    raise KeyError('patch_embed')", "KeyError: 'patch_embed'"),
        ("    return None", "signature of None found; expected a number of tensors"),
        ("    return -1", "signature of -1 found; expected a number of tensors"),
    ],
)
def test_a_format_that_cannot_judge_is_left_out(tmp_path: Path, install: Any, body: str, reason: str) -> None:
    install("toy", TOY.replace('    """Count the tensors by their names."""', body))
    np.savez(tmp_path / "c.npz", **spikformer_state("dvs"))
    with pytest.warns(
        PluginWarning, match=f"format toy of another package cannot judge .*c.npz and is left out: {reason}"
    ):
        network = import_checkpoint(tmp_path / "c.npz", height=32, width=32)
    assert network.name == "Spikformer dvs 2-32"


def test_the_format_that_places_most_reads(tmp_path: Path, install: Any) -> None:
    """It may be built on another, which then needs not know."""
    install("toy", TOY)
    install(
        "child", TOY.replace("|unused)", "|unused|child)").replace('NetworkBuilder("toy")', 'NetworkBuilder("child")')
    )
    path = toy_format.write(tmp_path)
    with np.load(path) as tensors:
        np.savez(tmp_path / "child.npz", **tensors, **{"toy.child": np.ones(1)})
    with pytest.raises(InputError, match=r"child\.npz: tensor toy\.child \(1\) left over"):  # the child took the file
        import_checkpoint(tmp_path / "child.npz")
    with pytest.raises(InputError, match=r"^\S*toy\.npz: could be child or toy; say which with --format \(format=\)$"):
        import_checkpoint(path)
    assert import_checkpoint(path, "child").name == "child"


def test_a_format_that_fails_says_whose_it_is(tmp_path: Path, install: Any) -> None:
    install("toy", TOY.replace("    checkpoint.finish()", "    1 / 0"))
    with pytest.raises(
        EventsimError, match=r"toy\.npz: format toy of another package failed \(ZeroDivisionError: "
    ) as error:
        import_checkpoint(toy_format.write(tmp_path))
    assert not isinstance(error.value, InputError)
    assert "\n" not in str(error.value)


def test_no_package_takes_the_name_of_ours(install: Any) -> None:
    install("nir", TOY)
    with pytest.warns(PluginWarning, match="the name nir is taken; expected one of its own"):
        assert formats()["nir"].description.startswith("NIR graph")


def test_importing_eventsim_loads_no_format(tmp_path: Path, install: Any) -> None:
    install("toy", TOY)
    modules = {"plugin_toy", "eventsim_importers.nir", "torch", "nir"}
    code = f"import eventsim, sys; print(*sorted({modules} & set(sys.modules)))"
    path = [str(tmp_path / "plugin_toy"), *filter(None, sys.path)]
    found = [
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {line}"], capture_output=True, check=True
        )
        for line in (code, "import eventsim.importing; eventsim.importing.formats(); " + code)
    ]
    assert [each.stdout.decode().split() for each in found] == [[], ["eventsim_importers.nir", "plugin_toy"]]
