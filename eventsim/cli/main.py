"""The command line: which command, what it may end with, and how it says that it failed."""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from textwrap import TextWrapper, wrap
from typing import Any, NamedTuple, NoReturn

from threadpoolctl import threadpool_limits

import eventsim
from eventsim.cli.printing import complain, print_json
from eventsim.cli.words import in_flags
from eventsim.errors import INTERRUPTED, OUT_OF_MEMORY, EventsimError, InputError
from eventsim.held_interrupts import ending, interrupted_once
from eventsim.plugins import PluginWarning
from eventsim.report import document


class Command(NamedTuple):
    """One command: the module that is imported when it is chosen, and what adds its arguments; help; examples."""

    module: str
    add: str
    help: str
    examples: tuple[str, ...]


COMMANDS = {
    "demo": Command("demo", "add", "run what the package ships: a trained checkpoint sees a recording", ("",)),
    "formats": Command(
        "formats",
        "add",
        "list the checkpoint and event-file formats, or explain the options of one",
        ("", "spikformer"),
    ),
    "import": Command(
        "importing",
        "add",
        "import a trained checkpoint",
        (
            "checkpoint.pth -o model.h5",
            "checkpoint.pth -o model.h5 --format spikformer --set tau=2.0 --set heads=8",
            "checkpoint.pth -o model.h5 --module my_package.models:make --example 3x32x32",
        ),
    ),
    "info": Command(
        "info", "add", "show layers, shapes, parameters and dense MACs per step", ("model.h5", "model.h5 --wide")
    ),
    "export": Command(
        "exporting",
        "add",
        "write a network as a NIR graph, where every layer has a node there",
        ("model.h5 -o model.nir",),
    ),
    "run": Command(
        "simulating",
        "add_run",
        "simulate recordings, frames or images; print predictions",
        (
            "model.h5 recording.aedat4",
            "model.h5 recording.aedat4 --record block.0.attn.q_lif -o spikes.npz",
            "model.h5 - --bin-us 10000 --columns txyp --sensor 346x260 --fit downscale",
        ),
    ),
    "profile": Command(
        "simulating",
        "add_profile",
        "simulate as run does; print counts, density, energy and time of every layer",
        ("model.h5 recording.aedat4 --conventions", "model.h5 image.png --energy lemaire2022 --report page.html"),
    ),
    "verify": Command(
        "verifying",
        "add",
        "compare every layer with its dense form on recordings, frames or images",
        ("model.h5 image.png",),
    ),
    "quantise": Command(
        "quantising",
        "add",
        "make integers of a network, checked on its training data",
        ("model.h5 --calibrate train -o int8.h5",),
    ),
    "evaluate": Command(
        "evaluating",
        "add",
        "accuracy, latency and counts over FOLDER/<label>/* or tonic:NAME",
        (
            "model.h5 FOLDER --threads 2",
            "model.h5 FOLDER --rows rows.csv --resume",
            "model.h5 recording.aedat --labels recording_labels.csv",
            "model.h5 tonic:NMNIST --root data --split test --cluster local",
        ),
    ),
    "events": Command(
        "events", "add", "show what a recording holds", ("recording.aedat4", "recording.bin --sensor 34x34")
    ),
}


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and name what may have been meant."""

    as_json = False
    """Whether a machine asked, who gets a document in any case."""
    _given: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line that says where help is; what is missing may be there with a wrong name."""
        if self._subparsers is None and message.startswith("the following arguments are required"):
            for text in takewhile(lambda text: text != "--", self._given):
                if re.match(r"--?[^\d\s.-]\S*$", text) and text[:2] not in self._option_string_actions:
                    self._check_option(text)
        message = re.sub(r"ignored explicit argument (.*)$", r"\1 found, expected no value", message)
        message = re.sub(r"^(argument \S+:)  found", r"\1 '' found", message)
        if Parser.as_json:
            print_json(document.error_document(message))
        self.exit(2, f"eventsim: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is left over, in the words of the command that does not know it."""
        if self._subparsers is not None and args and args[0] != "--json":  # which says how to complain, here too
            self._check_option(args[0])  # or it would be a command that is missed
        self._given = args or ()
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._check_option(unknown[0])
            self.error(f"{unknown[0]} found behind what {self.prog} takes")
        return found, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help where results go, or fail: argparse would not say that a disk is full."""
        if file is not sys.stdout:
            super()._print_message(message, file)
        else:
            print(message, end="", flush=True)

    def _check_option(self, text: str) -> None:
        """Refuse an option that is none."""
        name = text.partition("=")[0]
        if name.startswith("-") and not any(known.startswith(name) for known in self._option_string_actions):
            self.error(f"{text} found, no option{_meant(text, self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a command that is none, and a value that is none of those to choose from."""
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            self.error(
                f"{value!r} found, no command{_meant(value, choices) or f'; expected one of {_listed(choices)}'}"
            )
        raise argparse.ArgumentError(
            action, f"{value} found, expected one of {_listed(choices)}{_meant(str(value), choices)}"
        )


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose names with hyphens are not folded."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _Version(argparse.Action):
    """Says the version, which takes long to find, where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and leave."""
        print(f"eventsim {eventsim.__version__}", flush=True)
        parser.exit()


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _meant(text: str, names: Iterable[str]) -> str:
    """Ask whether one of the names was meant, if one is like the text; the dashes of options do not count."""
    bare = {name.lstrip("-"): name for name in names}
    near = get_close_matches(text.partition("=")[0].lstrip("-"), bare, 1)
    return "".join(f"; did you mean {bare[name]}?" for name in near)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 (the work failed), 2 (bad usage, input or disk) or 130 (interrupted)."""
    given = sys.argv[1:] if arguments is None else arguments
    Parser.as_json = "--json" in given
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and layers may be no text of this terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        warnings.simplefilter("ignore")  # what is to be said is said in words of this door
        warnings.simplefilter("always", PluginWarning)
        with threadpool_limits(limits=1):  # matrix products too: `--threads` says how many there are
            return _run_once(given, last=arguments is None)


def _run_once(given: Sequence[str], last: bool) -> int:
    """Run a command, which Ctrl-C stops once; `last` if nothing comes behind it."""
    with interrupted_once(last) as interrupts:
        try:
            code = _run_command(given)
        except KeyboardInterrupt:
            ending()
            return _fail("interrupted", INTERRUPTED)
        if interrupts.came_late and not code:
            complain("interrupted")
            return INTERRUPTED
        return code


def _run_command(given: Sequence[str]) -> int:
    try:
        args = _parser(given).parse_args(given)
        code = int(args.command(args))
        sys.stdout.flush()
        return code
    except EventsimError as error:
        return _fail(error, 2 if isinstance(error, InputError) else 1)
    except MemoryError:
        return _fail(OUT_OF_MEMORY, 1)
    except BrokenPipeError:
        sys.stderr.close()
        with suppress(OSError):  # what is left of the results fails no more when Python ends, which would exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", 1)
        complain(f"results cannot be written ({error.strerror or error})")
        sys.stderr.close()  # what is left of the results fails once more when Python ends
        return 2


def _fail(error: object, code: int) -> int:
    """Say in one line why a command failed as a whole; a machine gets its document all the same."""
    complain(error)
    if Parser.as_json:
        print_json(document.error_document(in_flags(" ".join(str(error).split()))))
    return code


def _show_warning(message: Warning | str, *_: Any) -> None:
    complain(message)


def _folded(example: str) -> str:
    """Return an example in lines that fit the terminal, and that a shell takes as one."""
    bound = re.sub(r"( --?\w\S*) (?=[^-])", "\\1\xa0", example)  # an option and its value
    width = max(shutil.get_terminal_size().columns - len(" \\"), 40)
    folds = TextWrapper(width, "  ", " " * 6, break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(folds.wrap(bound)).replace("\xa0", " ")


def _parser(given: Sequence[str]) -> Parser:
    """Return a parser that knows all commands, and the arguments of the one that was chosen."""
    parser = Parser(prog="eventsim", description="Event-driven simulator for spiking transformers.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chosen = next((word for word in given if word in COMMANDS), None)
    for name, command in COMMANDS.items():
        epilog = "for example:\n" + "\n".join(_folded(f"eventsim {name} {each}") for each in command.examples)
        sub = commands.add_parser(
            name, help=command.help, description=command.help, epilog=epilog, formatter_class=_Help
        )
        if name == chosen:
            sub.add_argument("--json", action="store_true", help="print one JSON document")
            getattr(import_module(f"eventsim.cli.commands.{command.module}"), command.add)(sub)
    return parser
