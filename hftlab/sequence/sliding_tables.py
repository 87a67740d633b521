"""The sliding window's memory: allocated at the start, grown between calls, never within one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hftlab.events.records import RECORD
from hftlab.events.tables import SourceTable
from hftlab.sequence.kernels import slots as at
from hftlab.sequence.rules import Rule, find

PIECE_ROWS = 4_096
"""How many rows a kernel takes at once: what it writes beside them stays in the cache."""

Ints = npt.NDArray[np.int64]

_FIRST_ROWS, _FIRST_SOURCES, _ROW_WORDS = 256, 16, 16


class SlidingTables:
    """The kernels' tables (see ``kernels.slots``): grown between calls. ``address`` is what kernels take."""

    def __init__(self, hold_ns: int, capacity: int, by_timestamp: bool, sources: SourceTable) -> None:
        self.own_rules: dict[int, Rule] = {}
        self._table, self._known, self._by_timestamp = sources, 0, by_timestamp
        self.control = control = np.zeros(at.CONTROLS, np.int64)
        self.address: int = control.ctypes.data
        control[[at.HOLD_NS, at.CAPACITY, at.BY_TIMESTAMP]] = hold_ns, capacity, by_timestamp
        lists = (at.FREE, at.RETIRED, at.RETIRED_TAIL, at.FIRST_HELD, at.LAST_HELD, at.FIRST_OPEN, at.LAST_OPEN)
        control[list(lists)] = -1
        control[at.NEXT_DUE] = at.FOREVER
        self.slots = np.zeros((0, at.SLOT_FACTS), np.int64)
        self.store = np.zeros((0, _ROW_WORDS), np.int64)
        self.sources = np.zeros((0, at.SOURCE_FACTS), np.int64)
        self.groups = np.zeros((0, at.GROUP_FACTS), np.int64)
        self.order = np.zeros((0, at.ORDER_FACTS), np.int64)
        self.aside = np.zeros(0, np.int64)
        if by_timestamp:
            self._new_group()
        self.learn_sources()

    def make_room(self, rows: int) -> None:
        """See to it that a call with that many rows finds all the room that it could need."""
        needed = int(self.control[at.HELD_ROWS]) + rows
        if needed > len(self.store) or not len(self.store):
            size = min(max(_FIRST_ROWS, 1 << needed.bit_length()), int(self.control[at.CAPACITY]) + PIECE_ROWS)
            self.slots, self.store = _grown(self.slots, size), _grown(self.store, size)
            self.order, self.aside = np.zeros((size, at.ORDER_FACTS), np.int64), np.zeros(size, np.int64)
            self._place()

    def learn_sources(self) -> None:
        """Know all sources that the table has by now. Raises ValidationError for a rule that nobody registered."""
        if self._known == len(self._table):
            return
        if len(self._table) > len(self.sources):
            self.sources = _grown(self.sources, max(_FIRST_SOURCES, 1 << (len(self._table) - 1).bit_length()))
        try:
            for number in range(self._known, len(self._table)):
                self.sources[number] = self._group_of(number), -1, at.NEVER, -1
                self._known = number + 1
        finally:
            self._place()

    def own_numbers(self, words: Ints) -> Ints:
        """The number of each row's message, where a source has a rule of the user's own."""
        records = words.view(RECORD).reshape(-1)
        numbers = records["sequence"].astype(np.int64)
        for source, rule in self.own_rules.items():
            where = np.flatnonzero(records["source"] == source)
            if len(where):
                numbers[where] = rule.cover(records[where])[1]
        return numbers

    def _group_of(self, source: int) -> int:
        if self._by_timestamp:
            return 0
        rule = find(self._table[source])
        if rule.dense or not rule.numbered:
            return -1
        if rule.numbers is not None:
            self.own_rules[source] = rule
        return self._new_group()

    def _new_group(self) -> int:
        group = int(self.control[at.GROUPS])
        if group == len(self.groups):
            self.groups = _grown(self.groups, max(1, 2 * group))
        self.groups[group, [at.HEAP, at.LAST_MAJOR]] = -1
        self.control[at.GROUPS] = group + 1
        return group

    def _place(self) -> None:
        tables = (self.slots, self.store, self.sources, self.groups, self.order, self.aside)
        self.control[at.SLOTS_AT : at.ASIDE_AT + 1] = [table.ctypes.data for table in tables]
        self.control[at.SOURCES] = self._known


def _grown(table: Ints, size: int) -> Ints:
    grown = np.zeros((size, *table.shape[1:]), np.int64)
    grown[: len(table)] = table
    return grown
