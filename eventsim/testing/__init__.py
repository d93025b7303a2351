"""For whoever adds a layer, a checkpoint format or an event format, or wants to test a network against a dense model.

`check_layer`, `check_importer` and `check_event_format` test everything that such a part promises;
`check_equivalent` compares a network with a dense model of yours, `compare_layers` its neurons with those of another
simulator, layer by layer from equal inputs. `eventsim.testing.strategies` draws signals, layers,
networks and frames for property tests; it alone needs hypothesis (``pip install 'eventsim[testing]'``).
"""

from eventsim.comparison import LayerComparison, compare_layers
from eventsim.testing.equivalence import check_equivalent
from eventsim.testing.event_formats import check_event_format
from eventsim.testing.importers import Example, check_importer
from eventsim.testing.layers import check_layer

__all__ = [
    "Example",
    "LayerComparison",
    "check_equivalent",
    "check_event_format",
    "check_importer",
    "check_layer",
    "compare_layers",
]
