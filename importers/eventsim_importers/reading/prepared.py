"""How recordings and images become frames, as options of every import."""

from __future__ import annotations

import dataclasses
from typing import Any

from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.normalisation import check_normalisation
from eventsim.preparation_options import (
    BINS,
    BINS_OF_EVENTS,
    ORIENTATION,
    OVERLAPPING,
    PREPARED,
    PreparationOptions,
    check_options,
    numbers_of,
)
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser


def keep_preparation(network: Network, checkpoint: Checkpoint, options: PreparationOptions) -> Network:
    """Keep in the network how its recordings or images are prepared, as the user, the metadata or nobody says.

    Raises
    ------
    InputError
        If an option does not fit the network's input, or the metadata hold what cannot be read.
    """
    already = len(checkpoint.settings)
    choose = Chooser(checkpoint, options)
    shape, kind = network.input.shape, network.input.kind
    if network.input.takes_recordings:
        binned = options.bin_us is not None or (options.window is None and "bin_us" in checkpoint.metadata)
        window = choose.inferred("window", "duration", "bin_us") if binned else choose("window", "count")
        if window not in BINS and options.bin_us is not None:
            raise InputError(f"{checkpoint.path}: bin_us with window={window} found; expected window=duration with it")
        if window in BINS and choose.stated("bin_us") is None:
            raise InputError(f"{checkpoint.path}: window={window} without bin_us found; expected the length of a bin")
        if window == BINS_OF_EVENTS and choose.stated("bin_events") is None:
            raise InputError(f"{checkpoint.path}: window={window} without bin_events found; expected the size of a bin")
        if window in OVERLAPPING:
            choose.stated("overlap")
        if kind == "binary":
            choose.inferred("binary", True, "the input takes spikes")
        else:
            choose("binary", False)
        for name in ORIENTATION:
            choose(name, False)
        choose("fit", "none")
        for name in ("sensor", "camera"):
            choose.stated(name)
    elif network.input.takes_images:
        choose("fit", "none")
        for name, default in (("mean", "0"), ("std", "1")):
            choose(name, ",".join([default] * shape[0]))
    used = {setting.option for setting in checkpoint.settings[already:]}
    for name in PREPARED:
        if getattr(options, name) is not None and name not in used:
            size = " x ".join(map(str, shape))
            raise InputError(f"{checkpoint.path}: option {name} found; expected none for {kind} input of {size}")
    chosen: dict[str, Any] = {setting.option: setting.value for setting in checkpoint.settings[already:]}
    try:
        check_options(dataclasses.replace(options, **chosen))
        if network.input.takes_images:
            check_normalisation(numbers_of(chosen["mean"]), numbers_of(chosen["std"]), shape[0])
    except ValueError as error:
        raise InputError(f"{checkpoint.path}: {str(error).removeprefix('option ')}") from None
    return network.with_settings(*checkpoint.settings[already:])
