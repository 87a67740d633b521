"""A policy as it is between two changes, made ready for rows: what Priorities asks, and what it makes anew then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.bus.kernels.lanes import any_priority
from hftlab.bus.lane_tables import MAX_TEXTS, Lanes, LaneTable, SymbolMasks
from hftlab.bus.mappings import Mapping, Rule
from hftlab.bus.subscriptions import check_mask, symbol_matcher
from hftlab.errors import ValidationError
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, RECORD, EventType, Priority, Rows
from hftlab.events.rowbytes import data_address, take_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event, SignalEvent

Failed = Callable[[Rule, int, Exception], None]
"""Told of a rule that raised or returned nonsense, and of how many rows it was asked about."""

Places = npt.NDArray[np.intp] | None
"""Where rows stand in the batch that they are from; None: they are all of it."""

_LANES = tuple(Priority)
_TYPE_OF: dict[np.dtype[Any], EventType | None] = {**{dtype: t for t, dtype in DTYPES.items()}, RECORD: None}


class LanePlan:
    """What mappings, rules and conditions come to. See ``Priorities.lanes`` and ``lane_of_event``. One thread."""

    def __init__(
        self,
        mappings: tuple[Mapping, ...],
        rules: tuple[Rule, ...],
        conditions: dict[str, tuple[str, ...]],
        masks: SymbolMasks,
        failed: Failed,
    ) -> None:
        self._masks, self._failed = masks, failed
        self._tables = {event_type: LaneTable(event_type, mappings, conditions, masks) for event_type in EventType}
        self._rules = {event_type: [rule for rule in rules if event_type in rule.types] for event_type in EventType}
        self._matchers = {t: [(rule, symbol_matcher(rule.pattern)) for rule in some] for t, some in self._rules.items()}
        simple = {t: table.uniform for t, table in self._tables.items() if table.uniform and not self._rules[t]}
        # Rows and objects of these types go to one lane all, but for those with a priority of their own.
        self._simple_of_dtype = {DTYPES[event_type]: lane for event_type, lane in simple.items()}
        # By the type's number: an enum as a key is hashed in Python, 10 times as slow.
        self._simple_of_type: list[Priority | None] = [None] * (max(EventType) + 1)
        for event_type, lane in simple.items():
            self._simple_of_type[event_type] = lane
        self._looked_into = [event_type for event_type in EventType if event_type not in simple]
        self._of_type_byte = np.full(256, Priority.NORMAL, np.uint8)
        for event_type, table in self._tables.items():
            self._of_type_byte[event_type] = table.uniform or Priority.NORMAL
        self._known: dict[tuple[int, str, str, str], Priority] = {}

    def lanes(self, rows: Rows, symbols: SymbolTable) -> Priority | Lanes:
        """The one lane of all rows, or else the lane of each: uint8 of ``len(rows)``."""
        lane = self._simple_of_dtype.get(rows.dtype)
        if lane is not None and not any_priority(data_address(rows), rows.strides[0], len(rows)):
            return lane
        return self._lanes_of_each(rows, symbols)

    def lane_of_event(
        self, event: Event, symbols: SymbolTable | None, sources: SourceTable | None, now_ns: int | None
    ) -> Priority:
        """The lane of one event object."""
        event_type = event.event_type
        simple = self._simple_of_type[event_type]
        if simple is not None and not event.priority:
            return simple
        lane: Priority = event.priority or self._mapped(event)
        rules = [rule for rule, matches in self._matchers[event_type] if matches(event.symbol)]
        if not rules:
            return lane
        row = np.zeros(1, DTYPES[event_type])
        symbols = SymbolTable() if symbols is None else symbols
        sources = SourceTable() if sources is None else sources
        pack_event(event, row.view(np.uint8).data, symbols, sources, now_ns=now_ns)
        lanes = np.full(1, lane, np.uint8)
        for rule in rules:
            self._apply(rule, row, None, lanes)
        raised: Priority = _LANES[lanes[0]]
        return raised

    def _mapped(self, event: Event) -> Priority:
        table = self._tables[event.event_type]
        if table.uniform is not None:
            return table.uniform
        texts = (event.signal_type, event.strategy_id) if isinstance(event, SignalEvent) else ("", "")
        key = (event.event_type.value, event.symbol, *texts)
        lane = self._known.get(key)
        if lane is None:
            if len(self._known) >= MAX_TEXTS:
                self._known.clear()
            lane = self._known[key] = table.lane_of(event.symbol, *texts)
        return lane

    def _lanes_of_each(self, rows: Rows, symbols: SymbolTable) -> Priority | Lanes:
        if rows.dtype not in _TYPE_OF:
            raise ValidationError(f"rows have one of hftlab's dtypes (RECORD, DTYPES); got {rows.dtype!s:.200}")
        if not len(rows):
            return self._simple_of_dtype.get(rows.dtype, Priority.NORMAL)
        event_type = _TYPE_OF[rows.dtype]
        groups: list[tuple[EventType, Rows, Places]]
        if event_type is not None:
            lanes = self._tables[event_type].lanes(rows, symbols)
            groups = [(event_type, rows, None)]
        else:
            lanes = self._of_type_byte.take(rows["type"])
            groups = list(_groups(rows, self._looked_into))
            for kind, some, places in groups:
                if self._tables[kind].uniform is None:
                    lanes[slice(None) if places is None else places] = self._tables[kind].lanes(some, symbols)
        own = rows["priority"]
        if own.any():
            lanes = np.where(own != 0, own, lanes)
        for kind, some, places in groups:
            for rule in self._rules[kind]:
                self._apply_by_symbol(rule, some, places, lanes, symbols)
        first = lanes[0]
        return _LANES[first] if (lanes == first).all() else lanes

    def _apply_by_symbol(self, rule: Rule, rows: Rows, places: Places, lanes: Lanes, symbols: SymbolTable) -> None:
        if rule.pattern is not None:
            chosen = np.flatnonzero(self._masks.mask((rule.pattern,), symbols)[rows["symbol"]])
            if len(chosen) < len(rows):
                rows, places = take_rows(rows, chosen), chosen if places is None else places[chosen]
        if len(rows):
            self._apply(rule, rows, places, lanes)

    def _apply(self, rule: Rule, rows: Rows, places: Places, lanes: Lanes) -> None:
        """Raise in ``lanes``, where ``rows`` have their places there (None: they are all of them)."""
        rows = rows[:]
        rows.flags.writeable = False  # a rule judges events, and must not change them
        rule.rows += len(rows)
        try:
            holds = check_mask(rule.where(rows), len(rows), f"the rule {rule.name!r}")
        except Exception as error:  # the user's rule
            self._failed(rule, len(rows), error)
            return
        raised = np.flatnonzero(holds) if places is None else places[holds]
        raised = raised[lanes[raised] < rule.lane]
        lanes[raised] = rule.lane
        rule.raised += len(raised)


def _groups(rows: Rows, kinds: list[EventType]) -> Iterator[tuple[EventType, Rows, Places]]:
    """The rows of each of some types, of rows of several."""
    for event_type in kinds:
        places = np.flatnonzero(rows["type"] == event_type)
        if len(places) == len(rows):
            yield event_type, rows.view(DTYPES[event_type]), None
        elif len(places):
            yield event_type, take_rows(rows, places).view(DTYPES[event_type]), places
