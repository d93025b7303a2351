"""A checkpoint's tensors, with a record of which were used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from eventsim.errors import InputError
from eventsim.settings import Plain, Setting
from eventsim.signals import CountArray, FloatArray
from eventsim_importers.reading import hdf5_file, npz_file, pytorch_file, safetensors_file
from eventsim_importers.reading.container import Array, Contents

PREFIXES = ("module.", "model.", "_orig_mod.")
LARGEST_INTEGER = 2**31 - 1


class Checkpoint:
    """Tensors of a checkpoint file by name; each is to be taken or ignored, none forgotten.

    Attributes
    ----------
    path : Path
    container : str
        ``"pytorch"``, ``"safetensors"``, ``"npz"`` or ``"hdf5"``.
    tensors : dict of str to array
        Without the prefixes that wrappers such as ``DataParallel`` put before every name.
    metadata : dict of str to str
        Strings that the file carries beside the tensors.
    settings : list of Setting
        Values that the tensors do not tell, with their sources.
    """

    def __init__(self, path: Path, container: str, contents: Contents) -> None:
        self.path = path
        self.container = container
        self.metadata = dict(contents.metadata)
        self.tensors = dict(contents.tensors)
        self.settings = list(contents.settings)
        if not self.tensors:
            raise InputError(f"{path}: no tensors found; expected the weights of a network")
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in self.tensors):
                self.tensors = {name.removeprefix(prefix): value for name, value in self.tensors.items()}
        self._left = set(self.tensors)

    @classmethod
    def open(cls, path: str | Path, weights: str | None = None) -> Self:
        """Read a checkpoint file; what it is is told by its contents.

        Parameters
        ----------
        path : str or Path
        weights : str, optional
            Which entry of a PyTorch training checkpoint to take, such as ``state_dict_ema``.

        Raises
        ------
        InputError
            If the file cannot be read; names it, what was found and what was expected.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_file():  # a pipe would wait for ever
                raise InputError(f"{path}: not a regular file; expected a checkpoint file")
            with path.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; expected a checkpoint file") from None
        if not head:
            raise InputError(f"{path}: empty file found; expected a checkpoint")
        if hdf5_file.holds(path, head):
            container, contents = "hdf5", hdf5_file.read(path)
        elif pytorch_file.holds(path, head):
            container, contents = "pytorch", pytorch_file.read(path, weights)
        elif npz_file.holds(path, head):
            container, contents = "npz", npz_file.read(path)
        elif safetensors_file.holds(path, head):
            container, contents = "safetensors", safetensors_file.read(path)
        else:
            raise InputError(
                f"{path}: not a checkpoint (begins with {head[:8]!r}); "
                "expected .pth, .pt, .tar, .safetensors, .npz, .h5 or .nir"
            )
        if weights is not None and container != "pytorch":
            raise InputError(f"{path}: weights={weights} asked for; only PyTorch training checkpoints have entries")
        return cls(path, container, contents)

    def take(self, name: str, *shape: int | None) -> FloatArray:
        """Use one tensor.

        Parameters
        ----------
        name : str
        *shape : int or None
            Expected size along each axis; None accepts any.

        Raises
        ------
        InputError
            If it is missing, of another shape or type, or holds NaN or infinity.
        """
        tensor = self._use(name, *shape)
        if tensor.dtype != np.float32:
            raise InputError(f"{self.path}: tensor {name} of type {tensor.dtype} found; expected floating point")
        if not np.isfinite(tensor).all():
            raise InputError(f"{self.path}: tensor {name} holds NaN or infinite values; expected finite weights")
        return tensor

    def take_integers(self, name: str, *shape: int | None) -> CountArray:
        """Use one tensor of whole numbers, stored as integers or as floats.

        Parameters are those of `take`; the result is int64.

        Raises
        ------
        InputError
            If it is missing, of another shape, or holds anything but whole numbers of up to 32 bits.
        """
        tensor = self._use(name, *shape)
        if tensor.dtype.kind not in "iuf" or (np.abs(tensor.astype(np.float64)) > LARGEST_INTEGER).any():
            raise InputError(
                f"{self.path}: tensor {name} of type {tensor.dtype} found; expected integers of up to 32 bits"
            )
        if (tensor != np.rint(tensor)).any():
            (first,) = tensor[tensor != np.rint(tensor)].flat[:1]
            raise InputError(f"{self.path}: tensor {name} holds {first:g}; expected whole numbers")
        return tensor.astype(np.int64)

    def assume(self, option: str, value: Plain | None, note: str) -> None:
        """Note what nothing says and was chosen; once, however often it is asked for."""
        self.say(Setting(option, value, "assumed", note))

    def say(self, setting: Setting) -> None:
        """Note a setting once."""
        if setting not in self.settings:
            self.settings.append(setting)

    def _use(self, name: str, *shape: int | None) -> Array:
        """Take a tensor of this shape off the list of those left."""
        if name not in self.tensors:
            raise InputError(f"{self.path}: tensor {name} missing; expected it with shape {describe(shape)}")
        tensor = self.tensors[name]
        self._left.discard(name)
        fits = tensor.ndim == len(shape) and all(
            want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            raise InputError(f"{self.path}: tensor {name} {describe(tensor.shape)} found; expected {describe(shape)}")
        return tensor

    def take_batch_norm(self, name: str, channels: int) -> BatchNorm:
        """Use the four arrays of a batch normalisation ``name.{weight,bias,running_mean,running_var}``."""
        self._left.discard(f"{name}.num_batches_tracked")
        arrays = [self.take(f"{name}.{part}", channels) for part in ("weight", "bias", "running_mean", "running_var")]
        if (arrays[3] < 0).any():
            raise InputError(f"{self.path}: tensor {name}.running_var holds a negative variance; expected none")
        return BatchNorm(*arrays)

    def take_kernel(
        self, name: str, outputs: int | None = None, inputs: int | None = None, size: int | None = None
    ) -> FloatArray:
        """Use the weights of a convolution whose kernel is square and of odd size, of this size if one is given."""
        weight = self.take(name, outputs, inputs, size, size)
        if weight.shape[2] % 2 == 0 or weight.shape[3] != weight.shape[2]:
            raise InputError(
                f"{self.path}: tensor {name} {describe(weight.shape)} found; expected a square kernel of odd size"
            )
        return weight

    def ignore(self, *patterns: str) -> None:
        """Accept tensors that are known not to enter the forward pass; patterns are those of `matching`."""
        self._left -= set(self.matching(*patterns))

    def matching(self, *patterns: str) -> list[str]:
        """Return the names that one of some regular expressions matches as a whole."""
        whole = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
        return [name for name in self.tensors if whole.fullmatch(name)]

    def count(self, template: str) -> int:
        """Return how many consecutive indices i, from 0, have tensors whose name begins with ``template.format(i)``."""
        n = 0
        while any(name.startswith(template.format(n)) for name in self.tensors):
            n += 1
        return n

    def finish(self) -> None:
        """Refuse tensors that were neither taken nor ignored.

        Raises
        ------
        InputError
            Names the first of them.
        """
        if self._left:
            first, *others = sorted(self._left)
            more = f" and {len(others)} more" if others else ""
            raise InputError(
                f"{self.path}: tensor {first} {describe(self.tensors[first].shape)}{more} left over; "
                "expected every tensor to have its place in the network"
            )


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Batch normalisation in evaluation: ``y = (x - mean) / sqrt(variance + eps) * weight + bias``.

    All are float32 arrays (channels,).
    """

    weight: FloatArray
    bias: FloatArray
    mean: FloatArray
    variance: FloatArray


def describe(shape: tuple[int | None, ...]) -> str:
    """Say a shape."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
