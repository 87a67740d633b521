"""A digest of delivered rows on which any machine, frame size and slicing agrees: XXH3-128, with names for ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash

from hftlab.events.batch import EventBatch
from hftlab.events.records import MAX_LOG_SEQUENCE, RECORD, RUN_BIT, Rows
from hftlab.events.rowbytes import clear_padding, copy_rows
from hftlab.events.tables import Table

_UNSEEN = np.iinfo(np.uint32).max
_SESSION_BITS = ~np.int64(MAX_LOG_SEQUENCE | RUN_BIT)


class RowDigest:
    """Takes batches under one pair of tables, in order, cut in any way; ``hexdigest`` is of all rows so far.

    Ids are replaced by the order in which their names first appeared, and those names are hashed at the end, so the
    digest depends on names and not on the tables. The session's number leaves the causes. About 25 ns a row.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._orders = {"symbol": _FirstSeen(), "source": _FirstSeen()}
        self.rows = 0

    def update(self, batch: EventBatch) -> None:
        """Add the rows of a batch."""
        if not len(batch):
            return
        rows = copy_rows(batch.records).view(RECORD)
        clear_padding(rows)
        self._orders["symbol"].renumber(rows, "symbol", batch.symbols)
        self._orders["source"].renumber(rows, "source", batch.sources)
        if rows["cause"].any():
            rows["cause"] &= ~_SESSION_BITS
        self._hash.update(rows.data)
        self.rows += len(rows)

    def hexdigest(self) -> str:
        """32 hexadecimal digits; taking it changes nothing."""
        final = self._hash.copy()
        for order in self._orders.values():
            final.update("\0".join(str(name) for name in order.names).encode() + b"\0\0")
        return final.hexdigest()


class _FirstSeen:
    def __init__(self) -> None:
        self.names: list[Any] = []
        self._order = np.zeros(0, np.uint32)

    def renumber(self, rows: Rows, field: str, table: Table[Any]) -> None:
        if len(self._order) < len(table):
            grown = np.full(len(table), _UNSEEN, np.uint32)
            grown[: len(self._order)] = self._order
            self._order = grown
        ids = rows[field]
        order = self._order[ids]
        if (order == _UNSEEN).any():
            found, first = np.unique(ids, return_index=True)
            for index in found[np.argsort(first)]:
                if self._order[index] == _UNSEEN:
                    self._order[index] = len(self.names)
                    self.names.append(table[int(index)])
            order = self._order[ids]
        rows[field] = order
