"""How much of a fault one run goes through: some of it in the ordinary suite, all of it with ``HFTLAB_FAULTS=full``."""

from __future__ import annotations

import os

FULL = os.environ.get("HFTLAB_FAULTS") == "full"


def seeds(few: int, all_of_them: int = 20) -> range:
    """The seeds to try."""
    return range(all_of_them if FULL else few)


def seconds(few: float, full: float = 60.0) -> float:
    """How long to go on."""
    return full if FULL else few
