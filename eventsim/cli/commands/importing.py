"""``eventsim import``: from a checkpoint to a model file."""

from __future__ import annotations

import argparse

from eventsim.cli.arguments import Arguments, at_least_one, check_output, shape
from eventsim.cli.printing import console, print_json
from eventsim.errors import InputError
from eventsim.from_module import import_with_module
from eventsim.importing import import_checkpoint, refuse_assumptions
from eventsim.modelfile import save
from eventsim.network import Network
from eventsim.report import document, tables


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``import``."""
    parser.set_defaults(command=import_model)
    says = "weights as they were saved: .pth, .safetensors, .npz, .h5 or .nir"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=says)
    parser.add_argument("-o", "--output", metavar="MODEL.h5", required=True, help="the model file to write")
    parser.add_argument("--format", metavar="NAME", help="see eventsim formats; default: recognised by its keys")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of the format, such as tau=2.0; may repeat; eventsim formats NAME explains them",
    )
    parser.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="tensors that enter no forward pass, such as 'criterion.*'; may repeat",
    )
    parser.add_argument(
        "--module", metavar="PACKAGE.MODULE:FUNCTION", help="code of yours that makes the network, in place of a format"
    )
    parser.add_argument("--example", type=shape, metavar="CxHxW", help="shape of a time step that it takes")
    parser.add_argument("--example-steps", type=at_least_one, metavar="T", help="frames instead of an image")
    parser.add_argument("--strict", action="store_true", help="refuse a network of which any value is assumed")


def import_model(args: Arguments) -> int:
    """Import a checkpoint into a model file."""
    given = [_key_value(text) for text in args.set]
    options = dict(given)
    if len(options) < len(given):
        twice = next(key for key, _ in given if sum(key == other for other, _ in given) > 1)
        raise InputError(f"--set {twice} given more than once; expected one value")
    if args.ignore:
        options["ignore"] = ",".join(filter(None, (options.get("ignore"), *args.ignore)))
    check_output(args.output, args.checkpoint)
    if args.module is None:
        if args.example or args.example_steps:
            raise InputError("--example without --module found; expected --module package.module:function with it")
        network = import_checkpoint(args.checkpoint, args.format, assume=not args.strict, **options)
    else:
        network = _import_module(args, options)
    save(network, args.output)
    description = document.network_document(args.output, network)
    if args.json:
        print_json(description)
        return 0
    screen = console()
    counted = tables.parameters(description)
    screen.print(f"recognised {network.name}: {len(network.layers)} layers, parameters: {counted}", markup=False)
    tables.print_settings(screen, description)
    screen.print(f"wrote {args.output}", markup=False)
    return 0


def _import_module(args: Arguments, options: dict[str, str]) -> Network:
    """Import the weights of a module that the user's own code makes."""
    if args.format is not None:
        raise InputError(f"--format {args.format} beside --module found; expected one of them")
    if not args.example:
        raise InputError("--module without --example found; expected the shape of a time step, as --example 3x32x32")
    network = import_with_module(args.checkpoint, args.module, args.example, args.example_steps, **options)
    if args.strict:
        refuse_assumptions(args.checkpoint, network)
    return network


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set {text} found; expected key=value")
    if key in ("path", "format", "assume"):
        raise InputError(f"--set {text} found; expected an option of the format; --format and --strict say the rest")
    return key, value
