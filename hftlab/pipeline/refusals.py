"""``RefusedEffects``: what the server would not do of the users' transactions, and its words."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MOST_KEPT = 100
"""How many refusals a processor keeps, the latest ones; ``statistics().refused_effects`` counts all."""


class RefusedEffects(msgspec.Struct, frozen=True):
    """A transaction that the server would not do: its commands, the server's words, and when (ns UTC)."""

    commands: str
    error: str
    at_ns: int


class RefusedList(list[RefusedEffects]):
    """Refused transactions, the oldest first: a list that tables well."""

    def __init__(self, refused: Iterable[RefusedEffects] = ()) -> None:
        super().__init__(refused)

    def to_frame(self) -> pd.DataFrame:
        """A row a transaction: at (UTC), commands, error."""
        import pandas as pd

        return pd.DataFrame(
            {
                "at": pd.DatetimeIndex(np.array([one.at_ns for one in self], "M8[ns]"), tz="UTC"),
                "commands": [one.commands for one in self],
                "error": [one.error for one in self],
            }
        )

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(one.commands)}: {html.escape(one.error)}</li>" for one in self[-20:])
        return f"<div><b>{len(self)} refused transactions</b><ul>{rows}</ul></div>"
