"""Event-driven, sparse simulator for spiking transformers."""

from importlib.metadata import version as _version

from eventsim.dvs import open_recording as open_recording
from eventsim.errors import EventsimError as EventsimError
from eventsim.errors import InputError as InputError
from eventsim.importing import import_checkpoint as import_checkpoint
from eventsim.modelfile import load as load
from eventsim.modelfile import save as save
from eventsim.network import Network as Network
from eventsim.network import NetworkBuilder as NetworkBuilder
from eventsim.samples import Preparation as Preparation
from eventsim.simulator import Result as Result
from eventsim.simulator import Simulator as Simulator

__version__ = _version("eventsim")
