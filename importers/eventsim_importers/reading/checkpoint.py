"""A checkpoint's tensors, with a record of which were used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from eventsim.errors import InputError
from eventsim.settings import Plain, Setting
from eventsim.signals import CountArray, FloatArray
from eventsim_importers.reading import hdf5_file, npz_file, pytorch_file, safetensors_file
from eventsim_importers.reading.container import Array, Container, Contents
from eventsim_importers.reading.mistaken import what_it_is
from eventsim_importers.reading.unused import is_buffer, unused_in
from eventsim_importers.reading.wrappings import unwrap

LARGEST_INTEGER = 2**31 - 1


class Checkpoint:
    """Tensors of a checkpoint file by name; each is to be taken or ignored, none forgotten.

    Attributes
    ----------
    path : Path
    container : str
        ``"pytorch"``, ``"safetensors"``, ``"npz"`` or ``"hdf5"``.
    tensors : dict of str to array
        Without what wrappers such as ``DataParallel`` put before every name.
    metadata : dict of str to str
        Strings that the file carries beside the tensors.
    settings : list of Setting
        Values that the tensors do not tell, with their sources.
    ignored : set of str
        Tensors that were found to enter no forward pass.
    folded : int
        Parameters of batch normalisations that folding into the weights did away with.
    """

    def __init__(self, path: Path, container: str, contents: Contents) -> None:
        self.path = path
        self.container = container
        self.metadata = dict(contents.metadata)
        self.tensors = dict(contents.tensors)
        self.settings = list(contents.settings)
        if not self.tensors:
            raise InputError(f"{path}: no tensors found; expected the weights of a network")
        self.strays = dict(contents.strays)
        self._contents = contents
        self.ignored: set[str] = set()
        self.folded = 0
        self._left = set(self.tensors)
        self._strays_left = set(self.strays)

    @classmethod
    def open(
        cls,
        path: str | Path,
        weights: str | None = None,
        ignore: Sequence[str] = (),
        recognise: Callable[[Checkpoint], int] | None = None,
    ) -> Self:
        """Read a checkpoint file; what it is is told by its contents.

        Parameters
        ----------
        path : str or Path
        weights : str, optional
            Which entry of a training checkpoint to take, such as ``state_dict_ema``, and what stands before every name.
        ignore : sequence of str
            Shell-like patterns of tensors to leave out.
        recognise : callable, optional
            ``recognise(checkpoint)``: how many tensors a format can place. It tells the network's tensors from what
            they are wrapped in.

        Raises
        ------
        InputError
            If the file cannot be read; names it, what was found and what was expected.
        """
        path = Path(path)
        container = _container(path)

        def count(tensors: Mapping[str, Array]) -> int:
            if recognise is None or not tensors:
                return 0
            return recognise(cls(path, container.kind, Contents(tensors, container.metadata)))

        return cls(path, container.kind, unwrap(path, container, count, weights, ignore))

    def renamed(self, names: Mapping[str, str]) -> Checkpoint:
        """Return the checkpoint with tensors of other names, of which none was taken."""
        tensors = {names[name]: tensor for name, tensor in self.tensors.items()}
        return type(self)(self.path, self.container, replace(self._contents, tensors=tensors, settings=self.settings))

    @property
    def parameters(self) -> int:
        """What ``sum(p.numel() for p in model.parameters())`` gives, as far as names tell parameters from buffers."""
        return sum(tensor.size for name, tensor in self.tensors.items() if self.is_parameter(name))

    def is_parameter(self, name: str) -> bool:
        """Tell whether a tensor is one that PyTorch calls a parameter, as far as its type and name tell."""
        return self.tensors[name].dtype.kind in "fc" and not is_buffer(name)

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

    def take_number(self, name: str) -> float:
        """Use a tensor that holds one number, with an axis of size 1 or none."""
        axes = (1,) if name in self.tensors and self.tensors[name].shape == (1,) else ()
        return float(self.take(name, *axes).item())

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

    def beside(self, name: str) -> Iterator[tuple[str, object]]:
        """Return plain values of this name that the file holds beside the weights, with where each is.

        Those may be scalars among the tensors, or what a training script stored: ``args.NAME`` and others.
        """
        for scalars, left in ((self.tensors, self._left), (self.strays, self._strays_left)):
            if name in scalars and scalars[name].size == 1:
                left.discard(name)
                yield name, scalars[name].item()
        texts = {place: text for place, text in self.metadata.items() if "." in place and not place.startswith("node.")}
        for place, value in (texts | dict(self._contents.beside)).items():
            if place.rpartition(".")[2] == name:
                yield place, value

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

    def used(self, name: str) -> None:
        """Take a tensor off the list of those left, whatever it holds."""
        self._left.discard(name)

    def ignore(self, *patterns: str) -> None:
        """Accept tensors that are known not to enter the forward pass; patterns are those of `matching`."""
        found = self._left & set(self.matching(*patterns))
        self.ignored |= found
        self._left -= found

    def matching(self, *patterns: str) -> list[str]:
        """Return the names that one of some regular expressions matches as a whole."""
        whole = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
        return [name for name in self.tensors if whole.fullmatch(name)]

    def count(self, template: str, first: int = 0) -> int:
        """Return how many indices i in a row, from `first`, have tensors that begin with ``template.format(i)``."""
        n = first
        while any(name.startswith(template.format(n)) for name in self.tensors):
            n += 1
        return n - first

    def finish(self) -> None:
        """Refuse tensors that were neither taken nor ignored.

        Raises
        ------
        InputError
            Names the first of them.
        """
        left = sorted(self._left | self._strays_left)
        for kind, names in unused_in(left, {*self.tensors, *self.strays}).items():
            count = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            self.say(Setting("ignore", kind.pattern, "inferred", f"{count}: {kind.why}"))
            self.ignored |= set(names)
            self._left -= set(names)
            self._strays_left -= set(names)
        left = sorted(self._left | self._strays_left)
        if left:
            first, *others = left
            more = f" and {len(others)} more" if others else ""
            shape = (self.tensors if first in self._left else self.strays)[first].shape
            alone = "" if self._left else f", or --set weights={self._contents.place} for those alone"
            raise InputError(
                f"{self.path}: tensor {first} {describe(shape)}{more} left over; "
                "expected every tensor to have its place in the network, or --ignore PATTERN (ignore=) for those that "
                f"enter no forward pass{alone}"
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

    def part(self, channels: slice) -> BatchNorm:
        """Return the normalisation of some of the channels."""
        return BatchNorm(self.weight[channels], self.bias[channels], self.mean[channels], self.variance[channels])


def describe(shape: tuple[int | None, ...]) -> str:
    """Say a shape."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _container(path: Path) -> Container:
    """Read a file as what its first bytes say."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise InputError(f"{path}: not a regular file; expected a checkpoint file")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected a checkpoint file") from None
    if not head:
        raise InputError(f"{path}: empty file found; expected a checkpoint")
    mistaken = what_it_is(path, head)
    if mistaken is not None:
        raise InputError(f"{path}: {mistaken}")
    if hdf5_file.holds(path, head):
        return hdf5_file.read(path)
    if safetensors_file.holds(path, head):
        return safetensors_file.read(path)
    if pytorch_file.holds(path, head):
        return pytorch_file.read(path)
    if npz_file.holds(path, head):
        return npz_file.read(path)
    raise InputError(
        f"{path}: not a checkpoint (begins with {head[:8]!r}); "
        "expected .pth, .pt, .tar, .safetensors, .npz, .h5 or .nir"
    )
