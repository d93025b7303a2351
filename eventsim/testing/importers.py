"""The contract of checkpoint formats, for whoever adds one: `check_importer` tries what `Importer` demands."""

from __future__ import annotations

import dataclasses
import fnmatch
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.errors import InputError
from eventsim.importing import formats, import_checkpoint
from eventsim.modelfile import load, save
from eventsim.network import Network
from eventsim.signals import FloatArray
from eventsim.simulator import Simulator
from eventsim_importers.protocol import Importer, check_importer_parts
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Array, Contents
from eventsim_importers.reading.options import Declared, declared, parse_options

STEPS = 4
"""Time steps that are run where the network does not say."""
WRONG = "no such value"


def _whole_name(name: str) -> tuple[str, ...]:
    return (name,)


@dataclass(frozen=True)
class Example:
    """A small checkpoint that a format reads, and what is peculiar to it.

    Attributes
    ----------
    path : str or Path
        Complete: every tensor that the format knows for this network, and none else.
    options : mapping
        With which the network is small, where the file's metadata do not see to it.
    alternatives : mapping
        For each option a second value, other than the default and than the one in `options`, with which the checkpoint
        gives another network.
    told : collection of str
        Options that this checkpoint leaves no choice for: they have no alternative, and need not be said.
    ways : collection of str
        Options that change how the work is done and not what comes out (`Chooser.way`): their default is no guess, and
        is not said.
    optional : collection of str
        Shell-like patterns of tensors that may be absent, or whose absence means another network: without them the
        checkpoint is read, or refused in one line that may name another tensor.
    unused : collection of str
        Shell-like patterns of tensors that are ignored, whatever they hold.
    named : callable
        ``named(tensor)``: the words by which a message names a tensor. Default: its name.
    """

    path: str | Path
    options: Mapping[str, Any] = field(default_factory=dict)
    alternatives: Mapping[str, Any] = field(default_factory=dict)
    told: Iterable[str] = ()
    ways: Iterable[str] = ()
    optional: Iterable[str] = ()
    unused: Iterable[str] = ("*.num_batches_tracked",)
    named: Callable[[str], Iterable[str]] = _whole_name


def check_importer(importer: Importer, examples: Iterable[Example]) -> None:
    """Check that a checkpoint format keeps the contract of `eventsim_importers.protocol.Importer`.

    Every example is recognised as of this format and by no other; frames and images run to finite logits, also with
    random normal weights; the network is the same after a model file; a tensor that is missing, left over, of a wrong
    shape or not finite is refused in one line that names it; options do what they say, as values, as text and from the
    metadata, and what was assumed is said.

    Parameters
    ----------
    importer : Importer
        Or any object or module with its attributes.
    examples : iterable of Example
        Small ones: each is read some times per tensor.

    Raises
    ------
    AssertionError
        Says what does not hold.

    Examples
    --------
    A test of a format that a package of one's own brings:

    >>> def test_my_format(tmp_path):
    ...     np.savez(tmp_path / "small.npz", **small_state_dict())
    ...     example = Example(
    ...         tmp_path / "small.npz",
    ...         options={"height": 8, "width": 8, "time_steps": 3},
    ...         alternatives={"height": 16, "width": 16, "time_steps": 2, "tau": 4.0, "fold_bn": False},
    ...         ways={"fold_bn"},
    ...     )
    ...     check_importer(IMPORTER, [example])
    """
    check_importer_parts(importer)
    for example in examples:
        contract = _Contract(importer, example)
        contract.check_recognition()
        contract.check_running()
        contract.check_tensors()
        contract.check_options()


class _Contract:
    """One example of one format."""

    def __init__(self, importer: Importer, example: Example) -> None:
        self.importer = importer
        self.example = example
        self.path = Path(example.path)
        opened = Checkpoint.open(self.path)
        self.container = opened.container
        self.tensors = opened.tensors
        self.metadata = opened.metadata
        self.options = dict(example.options)

    def checkpoint(
        self, tensors: Mapping[str, Array] | None = None, metadata: Mapping[str, str | None] | None = None
    ) -> Checkpoint:
        """Return the checkpoint anew, with other tensors, and entries of the metadata replaced; None leaves one out."""
        kept = {key: value for key, value in {**self.metadata, **(metadata or {})}.items() if value is not None}
        contents = Contents(self.tensors if tensors is None else tensors, kept)
        return Checkpoint(self.path, self.container, contents)

    def read(self, checkpoint: Checkpoint | None = None, options: Mapping[str, Any] | None = None) -> Network:
        """Read a checkpoint; both are those of the example unless given."""
        parsed = parse_options("under test", self.importer.options, self.options if options is None else options)
        return self.importer.read(self.checkpoint() if checkpoint is None else checkpoint, parsed)

    def refusal(self, checkpoint: Checkpoint) -> str | None:
        """Return the message with which a checkpoint is refused, None if it is read."""
        try:
            self.read(checkpoint)
        except InputError as error:
            return str(error)
        return None

    # --- recognition

    def check_recognition(self) -> None:
        """Every tensor has a place in this format, and none has in a format that knows none of them."""
        known = formats()
        others = {name: each for name, each in known.items() if each.read is not self.importer.read}
        total = len(self.tensors)
        placed = self.importer.signature(self.checkpoint())
        assert placed == total, f"{self.path}: signature of {placed} found; expected {total}, the number of tensors"
        more = self.importer.signature(self.checkpoint(self.tensors | {"left_over": np.zeros(3, np.float32)}))
        assert more == total, f"{self.path}: signature of {more} with an unknown tensor found; expected {total}"
        for name, other in others.items():
            count = other.signature(self.checkpoint())
            assert count < total, f"{self.path}: format {name} places all {count} tensors too; expected fewer"
            with _refused(f"{self.path} read as {name}", str(self.path)):
                other.read(self.checkpoint(), other.options())
        nothing = Checkpoint(self.path, "npz", Contents({"left_over": np.zeros(3, np.float32)}))
        assert self.importer.signature(nothing) == 0, "signature above 0 of a checkpoint without a known tensor found"
        with _refused("a checkpoint without a known tensor", str(self.path)):
            self.read(nothing)
        if len(others) < len(known):
            difference = _difference(import_checkpoint(self.path, **self.options), self.read())
            assert difference is None, f"{self.path}: import_checkpoint gives another {difference}"

    # --- running

    def check_running(self) -> None:
        """Frames and images run to finite logits, before and after a model file, and with random normal weights."""
        network = self.read()
        logits = _logits(network)
        with tempfile.TemporaryDirectory() as folder:
            save(network, Path(folder) / "model.h5")
            loaded = load(Path(folder) / "model.h5")
        difference = _difference(loaded, network)
        assert difference is None, f"{self.path}: another {difference} after saving and loading found"
        assert loaded.assumptions == network.assumptions, f"{self.path}: other assumptions after saving and loading"
        assert np.array_equal(_logits(loaded), logits), f"{self.path}: other logits after saving and loading found"
        _logits(self.read(self.checkpoint(dict(self._random_weights()))))

    def _random_weights(self) -> Iterator[tuple[str, Array]]:
        rng = np.random.default_rng(0)
        for name, tensor in self.tensors.items():
            if name.endswith("weight") and tensor.ndim > 1 and tensor.dtype.kind == "f":
                scale = np.sqrt(np.prod(tensor.shape[1:]))
                yield name, (rng.normal(size=tensor.shape) / scale).astype(np.float32)
            else:
                yield name, tensor

    # --- tensors

    def check_tensors(self) -> None:
        """Tensors that are missing, misshapen, not finite or left over are refused by name."""
        needed: set[str] = set()
        for name, tensor in self.tensors.items():
            unused, optional = (
                self._matches(name, patterns) for patterns in (self.example.unused, self.example.optional)
            )
            absent = {other: each for other, each in self.tensors.items() if other != name}
            faults = {"of a wrong shape": self.tensors | {name: tensor[None, None]}}
            if tensor.dtype.kind == "f":
                faults["that is not finite"] = self.tensors | {name: np.full_like(tensor, np.nan)}
            if not unused and not optional:
                faults["missing"] = absent
            elif optional and not self._is_named(self._refused_in_one_line(absent) or "", name):
                needed.add(name)
            for fault, tensors in faults.items():
                self._check_fault(name, fault, tensors, accepted=unused)
        for pattern in self.example.optional:
            assert fnmatch.filter(needed, pattern), (
                f"{self.path}: optional tensors {pattern} found, of which every one is refused by name where it is "
                "missing; expected the pattern left out"
            )
        for module in sorted({name.rpartition(".")[0] for name in self.tensors} | {""}):
            name = f"{module}.left_over" if module else "left_over"
            tensors = self.tensors | {name: np.zeros(3, np.float32)}
            self._check_fault(name, "left over", tensors, accepted=self._matches(name, self.example.unused))

    def _refused_in_one_line(self, tensors: Mapping[str, Array]) -> str | None:
        message = self.refusal(self.checkpoint(tensors))
        assert "\n" not in (message or ""), f"{self.path}: refused in several lines: {message}"
        return message

    def _check_fault(self, name: str, fault: str, tensors: Mapping[str, Array], accepted: bool) -> None:
        message = self._refused_in_one_line(tensors)
        if accepted:
            assert message is None, f"{self.path}: unused tensor {name} {fault} is refused: {message}"
            return
        assert message is not None, f"{self.path}: tensor {name} {fault} is read; expected an InputError that names it"
        assert self._is_named(message, name), (
            f"{self.path}: tensor {name} {fault} is refused without naming it: {message}"
        )

    def _is_named(self, message: str, name: str) -> bool:
        return str(self.path) in message and all(word in message for word in self.example.named(name))

    @staticmethod
    def _matches(name: str, patterns: Iterable[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    # --- options

    def check_options(self) -> None:
        """Every option does what it says, as a value, as text and from the metadata, or is said where it is assumed."""
        types = declared(self.importer.options)
        told, ways = set(self.example.told), set(self.example.ways)
        for group, names in (("told", told), ("ways", ways), ("alternatives", self.example.alternatives)):
            unknown = set(names) - set(types)
            assert not unknown, f"{group} {sorted(unknown)} found; expected options of the format"
        with _refused("an unknown option", "no_such_option"):
            parse_options("under test", self.importer.options, {"no_such_option": 1})
        for name, kind in types.items():
            _check_conversion(self.importer, name, kind, self.example.alternatives.get(name))
            if name not in told:
                assert name in self.example.alternatives, (
                    f"option {name} has no alternative; expected one, or it in told"
                )
                self._check_option(name, kind, name in ways)

    def _other(self, name: str, kind: Declared) -> object:
        """Return the value of an option that no assumption names: its default, or what its alternative is not."""
        value, default = self.example.alternatives[name], getattr(self.importer.options(), name)
        if default is not None:
            return default
        return not value if kind.python_type is bool else next(word for word in kind.words if word != value)

    def _check_option(self, name: str, kind: Declared, way: bool) -> None:
        """Compare four networks: with the default, and with the alternative as value and from the metadata."""
        value = self.example.alternatives[name]
        rest = {option: each for option, each in self.options.items() if option != name}
        default = self.read(self.checkpoint(metadata={name: None}), rest)
        given = self.read(self.checkpoint(metadata={name: None}), rest | {name: value})
        assert _difference(given, default) is not None, f"{self.path}: option {name}={value} makes no difference"
        said = next((sentence for sentence in default.assumptions if sentence.startswith(f"{name} = ")), None)
        if kind.optional:
            assert (said is None) == way, (
                f"{self.path}: assumption {said!r} of {name} found; expected '{name} = ...', or {name} in told, "
                "or in ways if it is no guess"
            )
        assert not any(sentence.startswith(f"{name} = ") for sentence in given.assumptions), (
            f"{self.path}: option {name} was given, and is said to be assumed"
        )
        stored = self.read(self.checkpoint(metadata={name: str(value)}), rest)
        difference = _difference(stored, given)
        assert difference is None, f"{self.path}: metadata {name}={value} gives another {difference} than the option"
        assert stored.assumptions == given.assumptions, f"{self.path}: metadata {name} is read, and said to be assumed"
        first = said.removeprefix(f"{name} = ").partition(":")[0] if said else self._other(name, kind)
        both = self.read(self.checkpoint(metadata={name: str(value)}), rest | {name: first})
        assert _difference(both, default) is None, f"{self.path}: metadata {name} wins over the option; expected less"
        if kind.words or kind.python_type is not str:
            with _refused(f"metadata {name}={WRONG}", str(self.path), name):
                self.read(self.checkpoint(metadata={name: WRONG}), rest)


@contextmanager
def _refused(what: str, *words: str) -> Iterator[None]:
    """Demand an InputError of one line that holds some words."""
    try:
        yield
    except InputError as error:
        message = str(error)
    else:
        raise AssertionError(f"{what} is accepted; expected an InputError")
    assert "\n" not in message, f"{what} is refused in several lines: {message}"
    missing = [word for word in words if word not in message]
    assert not missing, f"{what} is refused without naming {', '.join(missing)}: {message}"


def _check_conversion(importer: Importer, name: str, kind: Declared, value: object) -> None:
    """Text converts to the same value, and a wrong one is refused."""
    if value is not None:
        as_value, as_text = (
            parse_options("under test", importer.options, {name: each}) for each in (value, str(value))
        )
        assert as_value == as_text, f"option {name}={value} found as {as_value}, and as text {as_text}"
    if kind.words or kind.python_type is not str:
        with _refused(f"option {name}={WRONG}", name, WRONG):
            parse_options("under test", importer.options, {name: WRONG})


def _logits(network: Network) -> FloatArray:
    """Run frames, and an image for as many steps; return the logits of both."""
    steps = network.time_steps or STEPS
    rng = np.random.default_rng(0)
    shape = (steps, *network.input.shape)
    drawn = {"binary": rng.random(shape) < 0.3, "graded": rng.poisson(0.7, shape), "real": rng.normal(size=shape)}
    frames = drawn[network.input.kind].astype(np.float32)
    simulator = Simulator(network)
    moving = simulator.run(frames).logits
    image, repeated = simulator.run(frames[0], steps).logits, simulator.run(np.stack([frames[0]] * steps)).logits
    for logits in (moving, image):
        assert logits.ndim == 1, f"{network.name}: logits of shape {logits.shape} found; expected one axis"
        assert np.isfinite(logits).all(), f"{network.name}: logits that are NaN or infinite found"
    assert np.array_equal(image, repeated), (
        f"{network.name}: an image gives other logits than the same frame in every step"
    )
    return np.stack([moving, image])


def _difference(first: Network, second: Network) -> str | None:
    """Say the first thing, but for the assumptions, in which two networks differ."""
    for part in ("name", "time_steps", "edges"):
        if getattr(first, part) != getattr(second, part):
            return part
    if list(first.layers) != list(second.layers):
        return "set of layers"
    for name, layer in first.layers.items():
        other = second.layers[name]
        if type(layer) is not type(other):
            return f"type of layer {name}"
        for each in dataclasses.fields(layer):
            values = getattr(layer, each.name), getattr(other, each.name)
            if not (np.array_equal(*values) if isinstance(values[0], np.ndarray) else values[0] == values[1]):
                return f"{each.name} of layer {name}"
    return None
