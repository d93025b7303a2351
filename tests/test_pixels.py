"""Pixels of image files and arrays: every order of bytes, and one picture in a file."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from eventsim import Network, NetworkBuilder, Preparation
from eventsim.errors import InputError
from eventsim.layers import Flatten, Input, Linear, MeanOverTime, Readout


@pytest.fixture
def network() -> Network:
    build = NetworkBuilder("sees")
    flat = build.add("flatten", Flatten(), build.add("input", Input((3, 20, 24), "real")))
    mean = build.add("mean", MeanOverTime(), build.add("linear", Linear(np.zeros((2, 1440), np.float32)), flat))
    build.add("readout", Readout(), mean)
    return build.build(time_steps=2)


@pytest.mark.parametrize("fit", ["none", "crop", "downscale", "pad"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_the_order_of_bytes_changes_nothing(tmp_path: Path, network: Network, fit: str, kind: str) -> None:
    size = {"none": (20, 24), "pad": (13, 17)}.get(fit, (41, 33))
    pixels = np.random.default_rng(3).integers(0, 256 ** int(kind[1]), (3, *size)).astype(kind)
    prepared = Preparation(fit=fit, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.5))  # type: ignore[arg-type]
    expected = prepared.frames(pixels.astype(f"<{kind}"), network)
    assert expected.max() > 1  # of shares less their mean: neither 255 nor 65535 was forgotten
    assert_array_equal(prepared.frames(pixels.astype(f">{kind}"), network), expected)
    np.save(tmp_path / "i.npy", np.asfortranarray(pixels.astype(f">{kind}")))
    assert_array_equal(prepared.frames(tmp_path / "i.npy", network), expected)


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_a_file_of_several_pictures_is_no_image(tmp_path: Path, network: Network, suffix: str) -> None:
    pictures = [Image.fromarray(np.full((20, 24, 3), 90 * i, np.uint8)) for i in range(3)]
    path = tmp_path / f"moves.{suffix}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    with pytest.raises(InputError, match=r"moves\.\w+: 3 pictures found; expected one: save it as a file of its own"):
        Preparation().frames(path, network)
    pictures[1].save(path)
    assert np.asarray(Preparation().frames(path, network)).shape == (3, 20, 24)
