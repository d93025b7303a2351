"""``python -m eventsim``."""

import sys

from eventsim.cli import main

sys.exit(main())
