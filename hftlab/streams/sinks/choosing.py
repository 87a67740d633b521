"""Which of the accepted rows a sink keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, SymbolTable
from hftlab.events.tables import check_symbol
from hftlab.streams.ranges import Types, wanted_types

Mask = npt.NDArray[np.bool_]


class Choice:
    """Rows of these types and symbols (None: all). For batches under one table, which may grow."""

    def __init__(self, types: Types | None = None, symbols: Sequence[str] | str | None = None) -> None:
        self.types = wanted_types(types)
        if not self.types:
            raise ValidationError("types= asks for no type at all: name some, or leave it out for all of them")
        self.symbols = None if symbols is None else frozenset([symbols] if isinstance(symbols, str) else symbols)
        if self.symbols is not None and not self.symbols:
            raise ValidationError("symbols= asks for no symbol at all: name some, or leave it out for all of them")
        for symbol in self.symbols or ():
            check_symbol(symbol)
        self._wanted_ids = np.zeros(0, np.bool_)
        self._table: SymbolTable | None = None

    @property
    def is_all(self) -> bool:
        """Whether every row is wanted."""
        return self.symbols is None and len(self.types) == len(EventType)

    def mask(self, batch: EventBatch) -> Mask | None:
        """Which rows are wanted; None: all of them. Vectorised, about 2 ns a row."""
        mask: Mask | None = None
        if len(self.types) < len(EventType):
            mask = np.isin(batch.records["type"], sorted(self.types))
        if self.symbols is not None:
            by_symbol = self._ids(batch.symbols)[batch.records["symbol"]]
            mask = by_symbol if mask is None else mask & by_symbol
        return None if mask is None or bool(mask.all()) else mask

    def _ids(self, table: SymbolTable) -> Mask:
        """Whether each id is of a wanted symbol. Only new ids are looked up."""
        assert self.symbols is not None
        if table is not self._table:
            self._table, self._wanted_ids = table, np.zeros(0, np.bool_)
        known = len(self._wanted_ids)
        if known < len(table):
            fresh = [table[index] in self.symbols for index in range(known, len(table))]
            self._wanted_ids = np.concatenate([self._wanted_ids, np.array(fresh, np.bool_)])
        return self._wanted_ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and (self.types, self.symbols) == (other.types, other.symbols)

    __hash__ = None  # type: ignore[assignment]  # it learns

    def __repr__(self) -> str:
        said = [t.topic for t in EventType if t in self.types] if len(self.types) < len(EventType) else ["all events"]
        symbols = f" of {', '.join(sorted(self.symbols)[:5])}" if self.symbols is not None else ""
        return f"{', '.join(said)}{symbols}"
