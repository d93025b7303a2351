"""Event-driven, sparse simulator for spiking transformers.

Import the network that was trained in PyTorch, stream the recording of an event camera through it, and read what was
really executed::

    network = eventsim.import_checkpoint("checkpoint.safetensors")
    frames = eventsim.Preparation().frames("recording.bin", network)
    result = eventsim.Simulator(network).run(frames)
    print(result.prediction, result.totals.acs, result.latency_s)

Networks
    `import_checkpoint` reads a trained checkpoint, `from_torch` a PyTorch module by what it does, `NetworkBuilder`
    composes a `Network` by hand, `Delayed` is an edge that waits, `save` and `load` keep a network in a file, `to_nir`
    writes it for other frameworks, `quantise` makes integers of it.
Simulation
    `Simulator` runs samples, streams and threads of samples, and returns a `Result`; `stream` takes events as they come
    and yields a prediction and counts for every bin; `AttentionMaps` watches what its attention looks at. `verify` runs
    a network densely beside, and returns a `Verification`: what differs, and whether rounding explains it.
Data
    `open_recording` reads event files, `Preparation` makes frames of them; `eventsim.datasets` evaluates data sets.
Errors
    `InputError` where something from outside does not fit, else `EventsimError`; one line each.
Parts of your own
    `eventsim.layers` says what a layer is, `eventsim.testing` tests it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventsim.attention_maps import AttentionMaps
    from eventsim.dvs import open_recording
    from eventsim.errors import EventsimError, InputError
    from eventsim.exporting import to_nir
    from eventsim.from_module import from_torch
    from eventsim.importing import import_checkpoint
    from eventsim.modelfile import load, save
    from eventsim.network import Delayed, Network, NetworkBuilder
    from eventsim.preparation import Preparation
    from eventsim.quantising import quantise
    from eventsim.result import Result
    from eventsim.simulator import Simulator
    from eventsim.streaming import stream
    from eventsim.verification import verify
    from eventsim.verified import Verification

    __version__: str
else:
    _HOME = {
        "AttentionMaps": "attention_maps",
        "Delayed": "network",
        "EventsimError": "errors",
        "InputError": "errors",
        "Network": "network",
        "NetworkBuilder": "network",
        "Preparation": "preparation",
        "Result": "result",
        "Simulator": "simulator",
        "Verification": "verified",
        "from_torch": "from_module",
        "import_checkpoint": "importing",
        "load": "modelfile",
        "open_recording": "dvs",
        "quantise": "quantising",
        "save": "modelfile",
        "stream": "streaming",
        "to_nir": "exporting",
        "verify": "verification",
    }
    """Where each name is from: that module is imported when the name is first asked for, and what it needs with it."""
    _PARTS = ("datasets", "dvs", "layers", "testing")

    def __getattr__(name: str) -> Any:
        """Return what is not there yet; the next access finds it in place."""
        from importlib import import_module, metadata  # noqa: PLC0415 - no names of this module

        if name == "__version__":
            found = metadata.version("eventsim")
        elif name in _HOME:
            found = getattr(import_module(f"eventsim.{_HOME[name]}"), name)
        elif name in _PARTS:
            found = import_module(f"eventsim.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        return globals().setdefault(name, found)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME, *_PARTS, "__version__"})


__all__ = [
    "AttentionMaps",
    "Delayed",
    "EventsimError",
    "InputError",
    "Network",
    "NetworkBuilder",
    "Preparation",
    "Result",
    "Simulator",
    "Verification",
    "from_torch",
    "import_checkpoint",
    "load",
    "open_recording",
    "quantise",
    "save",
    "stream",
    "to_nir",
    "verify",
]
