"""What an import assumes of the network itself, apart from how recordings and images are prepared."""

from __future__ import annotations

from eventsim.network import Network
from eventsim.preparation_options import PREPARED


def of_the_network(network: Network) -> tuple[str, ...]:
    assumed = (setting for setting in network.settings if setting.source == "assumed")
    return tuple(setting.sentence for setting in assumed if setting.option not in PREPARED)
