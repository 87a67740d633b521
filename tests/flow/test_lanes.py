"""The lanes that flow control speaks of are the events' priorities, and rows are judged as they are in the bus."""

from __future__ import annotations

from collections import deque

import numpy as np

from hftlab.events import EventType, Priority
from hftlab.events.records import blank
from hftlab.events.tables import SymbolTable
from hftlab.flow import LANES, SHEDDABLE, OverloadBreaker, Shedder, ShedRule

MS = 1_000_000


def test_the_lanes_are_the_priorities_the_most_urgent_first() -> None:
    assert list(LANES) == [one.name for one in sorted(Priority, reverse=True) if one is not Priority.DEFAULT]
    assert LANES[1:] == SHEDDABLE


def test_rows_and_symbols_of_the_bus_are_judged_as_they_are() -> None:
    rule = ShedRule(
        lanes=("LOW",), measure="memory", above=0.9, until=0.8, types=(EventType.SIGNAL,), symbols="B*", name="b"
    )
    shedder = Shedder([rule])
    shedder.update(0, {}, {}, 0.95)
    symbols = SymbolTable(["A", "B1"])
    rows = blank(4, EventType.SIGNAL)
    rows["symbol"] = [0, 1, symbols.intern("B2"), 1]
    rows["type"][3] = EventType.MARKET_DATA
    mask, counts = shedder.mask("LOW", rows, 0, symbols)
    assert mask is not None
    assert mask.tolist() == [False, True, True, False]
    assert counts == {"b": 2}


def test_in_a_lasting_overload_waits_stay_bounded_and_afterwards_all_is_let_in_again() -> None:
    """A turn is 10 ms: handlers take 100 rows, 30 CRITICAL ones come, and 150 of LOW in the first 20 s, then 20."""
    breaker = OverloadBreaker()
    waiting: deque[int] = deque()  # when each row came
    waits: list[int] = []
    critical = came = 0
    for turn in range(4_000):
        now = turn * 10
        breaker.observe((now - waiting[0] if waiting else 0) * MS, now * MS)
        answer = breaker.admit("CRITICAL", 30, now * MS)
        assert isinstance(answer, int)
        critical += answer
        low = 150 if turn < 2_000 else 20
        came += low
        admitted = breaker.admit("LOW", low, now * MS)
        waiting.extend([now] * (answer + (admitted if isinstance(admitted, int) else int(np.count_nonzero(admitted)))))
        waits += [now - waiting.popleft() for _ in range(min(100, len(waiting)))]
    told = breaker.statistics()
    assert critical == 30 * 4_000
    assert len(waits) + len(waiting) == critical + came - told.shed_rows
    # Without shedding, the last row of the overload would have waited 16 s.
    assert max(waits) < 1_500
    assert breaker.is_closed
    assert not waiting or now - waiting[0] < 100
    assert told.openings > 1
