"""Arguments that several commands take, and what they mean."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

from eventsim import dvs
from eventsim.accounting.energy import MAIN
from eventsim.cli.printing import complain
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation import Preparation
from eventsim.preparation_options import ORIENTATION, WindowKind, numbers_of, size_of

Arguments = argparse.Namespace
YES_OR_NO = argparse.BooleanOptionalAction
TURNS = {
    "flip-x": "mirror the events left to right",
    "flip-y": "mirror the events top to bottom",
    "transpose": "swap x and y, before the flips",
    "flip-polarity": "take ON events for OFF and OFF for ON",
}
"""What the flags of the orientation do, which weights depend on."""


def preparation_of(args: Arguments, network: Network | None = None) -> Preparation:
    """Return what the flags say; a flag of the orientation leaves the others as the model says."""
    turns = {name: getattr(args, name) for name in ORIENTATION}
    orientation = None
    if any(value is not None for value in turns.values()):
        model = (Preparation() if network is None else Preparation().of(network)).orientation or dvs.Orientation()
        orientation = replace(model, **{name: value for name, value in turns.items() if value is not None})
    preparation = Preparation(
        time_steps=getattr(args, "time_steps", None),
        window=getattr(args, "window", None),
        bin_us=getattr(args, "bin_us", None),
        bin_events=getattr(args, "bin_events", None),
        overlap=getattr(args, "overlap", None),
        binary=getattr(args, "binary", None),
        fit=getattr(args, "fit", None),
        sensor_size=args.sensor,
        camera=args.camera,
        orientation=orientation,
        mean=getattr(args, "mean", None),
        std=getattr(args, "std", None),
        start_us=args.start,
        end_us=args.end,
        disorder=getattr(args, "disorder", None),
        lag_us=getattr(args, "lag", None),
        salvage=args.salvage or None,
        stream=args.stream,
        format=args.format,
        columns=args.columns,
        time_unit=args.time_unit,
        group=args.group,
        first_pixel=args.first_pixel,
    )
    if network is not None:
        preparation.check(network)
        for sentence in preparation.overridden(network):
            complain(sentence)
    return preparation


def check_output(output: str, source: str) -> None:
    """Refuse to write over what is read, and what cannot be written, before anything is computed."""
    if not output:
        raise InputError("-o '' found; expected the name of a file to write")
    target = Path(output)
    if target.is_dir():
        raise InputError(f"{output}: a folder found; expected the name of a file to write")
    if not target.parent.is_dir():
        raise InputError(f"{output}: cannot be written (no folder {target.parent}); create it, or take another name")
    if Path(output).exists() and Path(source).exists() and Path(output).samefile(source):
        raise InputError(f"{output}: -o names the file that is read; expected another name")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Say what a network is read from."""
    parser.add_argument("model", metavar="MODEL.h5", help="a network, as eventsim import writes it")


def add_inputs(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Say what a network is run on, and `more` that a command takes."""
    says = "recordings (eventsim formats lists them), images, or .npy files of frames; one or several"
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help=says + more)


def add_wide(parser: argparse.ArgumentParser, says: str = "every column, also where the terminal is narrower") -> None:
    """Say how tables become complete."""
    parser.add_argument("--wide", action="store_true", help=says)


def add_energy_option(parser: argparse.ArgumentParser) -> None:
    """Say which energies tables show, and which prices there are beside those that are shipped."""
    parser.add_argument(
        "--energy",
        action="append",
        default=[],
        metavar="NAME|FILE.toml",
        help=f"energy model to show, or a file of prices; may repeat; default: {', '.join(MAIN)}",
    )


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Say how inputs become frames and frames go through the network."""
    parser.add_argument(
        "--chunk", type=at_least_one, metavar="STEPS", help="time steps per pass; 1 is clock-stepped; default: all"
    )
    add_frame_options(parser)


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Say how inputs become frames."""
    parser.add_argument(
        "--time-steps",
        type=at_least_one,
        metavar="T",
        help="frames of a recording, or how often an image is shown; default: the model's",
    )
    parser.add_argument(
        "--window",
        metavar="NAME",
        choices=get_args(WindowKind),
        help=f"{', '.join(get_args(WindowKind))}: T frames of equally many events or equal time, tonic-: without the "
        "remainder; or bins of --bin-us, also as Tonic or SpikingJelly have them; default: the model's",
    )
    parser.add_argument("--bin-us", type=at_least_one, metavar="US", help="bins of fixed duration instead")
    parser.add_argument(
        "--bin-events", type=at_least_one, metavar="N", help="bins of so many events, as Tonic has them"
    )
    parser.add_argument(
        "--overlap",
        type=at_least_one,
        metavar="N",
        help="events of --bin-events, or microseconds with --window tonic-duration, that are in the next bin, too",
    )
    parser.add_argument(
        "--disorder",
        choices=("sort", "drop", "refuse"),
        help="events earlier than one before them; default: refuse, and take them as they come with --window count",
    )
    parser.add_argument(
        "--lag", type=microseconds, metavar="US", help="how late --disorder sort expects them; default: 10000"
    )
    parser.add_argument("--binary", action=YES_OR_NO, help="clip event counts to 1; default: the model's")
    parser.add_argument(
        "--fit",
        choices=("none", "crop", "pad", "downscale"),
        help="how a sensor or image of another size becomes the model's; default: as the model says",
    )
    parser.add_argument(
        "--mean", type=floats, metavar="R,G,B", help="taken off the channels of an image in 0..1; default: the model's"
    )
    parser.add_argument(
        "--std", type=floats, metavar="R,G,B", help="what they are divided by then; default: the model's"
    )
    add_recording_options(parser)


def add_recording_options(parser: argparse.ArgumentParser) -> None:
    """Say how recordings are read."""
    parser.add_argument("--sensor", type=size, metavar="WxH", help="sensor size, for formats that do not tell")
    parser.add_argument("--camera", choices=("dvs128", "davis"), help="address layout of AEDAT 2.0")
    parser.add_argument("--stream", type=whole, metavar="N", help="which stream of events, where a file holds several")
    parser.add_argument(
        "--format", metavar="NAME", help="of a recording, in place of recognising it: see eventsim formats"
    )
    parser.add_argument("--columns", metavar="TXYP", help="order of the columns of text, and of lists in .npy and HDF5")
    parser.add_argument(
        "--time-unit", choices=("s", "ms", "us", "ns"), help="of the times in text, arrays, HDF5 and MATLAB files"
    )
    parser.add_argument("--group", metavar="NAME", help="where the events are in HDF5 that holds several recordings")
    parser.add_argument("--first-pixel", type=int, choices=(0, 1), help="number of the first pixel in a MATLAB file")
    parser.add_argument("--start", type=whole, metavar="US", help="leave out events before this time, as in the file")
    parser.add_argument("--end", type=whole, metavar="US", help="leave out events from this time on")
    parser.add_argument("--salvage", action="store_true", help="read up to the damage of a cut or corrupt file")
    for name, says in TURNS.items():
        parser.add_argument(f"--{name}", action=YES_OR_NO, help=f"{says}; default: the model's")


def at_least_one(text: str) -> int:
    """Read a positive whole number."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} found, expected a whole number of at least 1")
    return value


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} found, expected a whole number") from None


def zero_or_more(text: str) -> int:
    """Read a whole number of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} found, expected a whole number, 0 or more")
    return int(text)


def microseconds(text: str) -> int:
    """Read a number of microseconds of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} found, expected whole microseconds")
    return int(text)


def csv_name(text: str) -> Path:
    """Read the name of a CSV file."""
    return _named(text, ".csv")


def html_name(text: str) -> Path:
    """Read the name of a page."""
    return _named(text, ".html")


def npz_name(text: str) -> Path:
    """Read the name of a file of NumPy arrays."""
    return _named(text, ".npz")


def _named(text: str, suffix: str) -> Path:
    if Path(text).suffix.lower() != suffix:
        raise argparse.ArgumentTypeError(f"{text} found, expected a name that ends in {suffix}")
    return file_to_write(text)


def file_to_write(text: str) -> Path:
    """Read the name of a file, which may be there; a folder would be noticed when all is computed."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} found, a folder; expected the name of a file to write")
    return Path(text)


def layer_names(text: str) -> list[str]:
    """Read names of layers with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} found, expected names of layers with commas between them")
    return names


def size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT."""
    try:
        return size_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} found, expected {error}") from None


def shape(text: str) -> tuple[int, ...]:
    """Read the shape of a time step."""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and 0 < int(part) < 1 << 31 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} found, expected a shape such as 3x32x32")
    return tuple(map(int, parts))


def floats(text: str) -> tuple[float, ...]:
    """Read numbers with commas between them."""
    try:
        return numbers_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} found, expected {error}") from None
