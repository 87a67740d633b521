"""The sequencer's memory: allocated at the start, grown between calls, never within one."""

from __future__ import annotations

from typing import Any

import numpy as np

from hftlab.events.records import EventType
from hftlab.events.tables import UNKNOWN_SOURCE, Source, SourceTable
from hftlab.sequence import layout as at
from hftlab.sequence.gaps import COUNTED
from hftlab.sequence.layout import State, Table
from hftlab.sequence.ordering import Ordering
from hftlab.sequence.rules import Rule, find, is_known

KEPT_GAPS = 1 << 18
"""How many gaps are kept; beyond that the oldest closed ones are forgotten, and counted."""

_LISTS = (at.WINDOW_HEAD, at.WINDOW_TAIL, at.OPEN_GAP, at.LAST_GAP, at.QUEUE_HEAD, at.QUEUE_TAIL, at.ASSEMBLY)
_FIRST_SOURCES, _FIRST_ROWS = 16, 256


class Tables:
    """``address`` is what the kernels take, ``state`` has the tables, ``facts`` the control block as plain integers.

    ``own_rules`` are the rules with a function, by source.
    """

    def __init__(self, ordering: Ordering, sources: SourceTable) -> None:
        self.own_rules: dict[int, Rule] = {}
        self.unruled: dict[int, Source] = {}
        self._roomy, self._opened = -1, 0
        self._sources = sources
        self._known = 0
        control = np.zeros(at.CONTROLS, np.int64)
        control[at.WINDOW] = ordering.window
        control[at.DEADLINE_NS] = ordering.deadline_ns
        control[at.STRICT_TYPES] = sum(1 << EventType(event_type) for event_type in ordering.strict)
        control[at.SET_ORPHANS_ASIDE] = ordering.lost_cause == "set aside"
        control[at.REMEMBERED] = ordering.remembered
        control[[at.NEXT_DUE, at.NEXT_CAUSE, at.NEXT_CAUSE_DUE]] = at.FOREVER
        control[[at.FREE_ROW, at.RETIRED_ROW, at.FREE_NODE, at.FREE_GAP]] = -1
        self.state = State(
            control=control,
            sources=np.zeros((0, at.SOURCE_FACTS), np.int64),
            counts=np.zeros((0, len(COUNTED)), np.int64),
            seen=np.zeros((0, ordering.remembered, 2), np.int64),
            nodes=np.zeros((0, at.NODE_FACTS), np.int64),
            store=np.zeros((0, at.WORDS), np.int64),
            links=np.zeros(0, np.int64),
            gaps=np.zeros((0, at.GAP_FACTS), np.int64),
            deadlines=np.zeros((_FIRST_ROWS, at.DEADLINE_FACTS), np.int64),
            aside_ids=np.zeros((at.ASIDE_IDS, 2), np.int64),
            order=np.zeros((0, at.ORDER_FACTS), np.int64),
            notices=np.zeros((0, at.NOTICE_FACTS), np.int64),
            aside=np.zeros((0, at.ASIDE_FACTS), np.int64),
        )
        self.address = int(control.ctypes.data)
        # The control block as plain integers: NumPy takes three times as long for one.
        self.facts = memoryview(control)  # type: ignore[arg-type]
        self._replace()
        self.make_room(0)

    def make_room(self, rows: int) -> None:
        """See to it that a call with that many rows finds all the room that it could need. About 1 µs if it does.

        Raises ValidationError for a new source whose rule nobody registered.
        """
        facts = self.facts
        known = self._known == len(self._sources)
        if known and rows <= self._roomy and not facts[at.HELD_ROWS] and facts[at.SERIAL] == self._opened:
            return  # nothing was used up since the last look
        self._roomy, self._opened = rows, facts[at.SERIAL]
        self.learn_sources()
        state, control = self.state, self.state.control
        # A message takes a node and a row of the store at most.
        if control[at.FREE_ROWS] + len(state.store) - control[at.ROWS_USED] < rows:
            size = _enough(int(control[at.ROWS_USED]), rows)
            self._replace(store=_grown(state.store, size), links=_grown(state.links, size))
        if control[at.FREE_NODES] + len(state.nodes) - control[at.NODES_USED] < rows:
            self._replace(nodes=_grown(state.nodes, _enough(int(control[at.NODES_USED]), rows)))
        if control[at.DEADLINE_COUNT] + rows >= len(state.deadlines):
            self._grow_deadlines(rows)
        # A message opens a gap, and fills or splits one (two rows more). Any open gap may be declared lost.
        gaps_needed = 3 * rows + 4
        if control[at.FREE_GAPS] + len(state.gaps) - control[at.GAPS_USED] < gaps_needed:
            self._replace(gaps=_grown(state.gaps, _enough(int(control[at.GAPS_USED]), gaps_needed)))
        held = int(control[at.HELD_ROWS])
        if len(state.order) < rows + held or len(state.aside) < rows + held:
            size = 2 * (rows + held)
            self._replace(
                order=np.zeros((size, at.ORDER_FACTS), np.int64), aside=np.zeros((size, at.ASIDE_FACTS), np.int64)
            )
        notices_needed = 4 * rows + int(control[at.GAPS_USED])
        if len(state.notices) < notices_needed:
            self._replace(notices=np.zeros((2 * notices_needed, at.NOTICE_FACTS), np.int64))

    @property
    def counts(self) -> Table:
        """What became of each source's messages, in the columns of ``COUNTED``: a copy."""
        counts = self.state.counts.copy()
        counts[:, at.RECEIVED] += self.state.sources[:, at.PASSED]
        counts[:, at.DELIVERED] += self.state.sources[:, at.PASSED]
        return counts

    @property
    def used_gaps(self) -> Table:
        """The rows of gaps that were ever used; free ones have the serial -1."""
        return self.state.gaps[: self.state.control[at.GAPS_USED]]

    def _replace(self, **tables: Any) -> None:
        """Have other tables from now on, and tell the kernels where all are."""
        self.state = state = self.state._replace(**tables)
        control = state.control
        control[at.FIRST_TABLE : at.FIRST_TABLE + len(state) - 1] = [table.ctypes.data for table in state[1:]]
        control[at.SOURCES_COUNT] = len(state.sources)
        control[at.DEADLINES_MASK] = len(state.deadlines) - 1

    def source(self, number: int) -> Source:
        """The source with that id."""
        return self._sources[number]

    def number_of(self, source: Source) -> int:
        """The id of a source, which gets one if it has none."""
        return self._sources.intern(source)

    def learn_sources(self) -> None:
        """Take note of new sources. One whose rule nobody registered (``unruled``) has no numbers until it is."""
        for number in [number for number, source in self.unruled.items() if is_known(source)]:
            del self.unruled[number]
            self._learn(number)
        if self._known < len(self._sources):
            self._learn_new()

    def _learn_new(self) -> None:
        before, needed = len(self.state.sources), len(self._sources)
        if before < needed:
            size = max(_FIRST_SOURCES, 1 << (needed - 1).bit_length())
            state = self.state
            sources = _grown(state.sources, size)
            sources[before:, list(_LISTS)] = -1
            sources[before:, [at.EPOCH, at.ENDED_AT]] = -1
            self._replace(sources=sources, counts=_grown(state.counts, size), seen=_grown(state.seen, size))
        for number in range(self._known, needed):
            if is_known(self._sources[number]):
                self._learn(number)
            else:
                self.unruled[number] = self._sources[number]
                self.state.sources[number, at.RULE] = at.NAMELESS
            self._known = number + 1

    def _learn(self, number: int) -> None:
        rule = find(self._sources[number])
        facts = self.state.sources[number]
        if not rule.numbered:
            facts[at.RULE] = at.NAMELESS if self._sources[number] == UNKNOWN_SOURCE else at.UNNUMBERED
        else:
            facts[at.RULE] = at.DENSE if rule.dense else at.RISING
        facts[at.SPANS] = rule.spans
        if rule.numbers is not None:
            self.own_rules[number] = rule

    def _grow_deadlines(self, rows: int) -> None:
        state, control = self.state, self.state.control
        first, count = int(control[at.DEADLINE_FIRST]), int(control[at.DEADLINE_COUNT])
        waiting = np.roll(state.deadlines, -first, axis=0)[:count]
        deadlines = np.zeros((1 << (count + rows + 1).bit_length(), at.DEADLINE_FACTS), np.int64)
        deadlines[:count] = waiting
        control[at.DEADLINE_FIRST] = 0
        self._replace(deadlines=deadlines)


def _enough(used: int, more: int) -> int:
    """A size with room for ``more`` behind what is used, and for the same again."""
    return max(_FIRST_ROWS, 1 << (2 * (used + more) - 1).bit_length())


def _grown(table: Table, size: int) -> Table:
    grown = np.zeros((size, *table.shape[1:]), np.int64)
    grown[: len(table)] = table
    return grown
