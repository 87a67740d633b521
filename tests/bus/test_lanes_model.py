"""A real bus against plain lists: bursts of everything into all lanes, work in steps, other settings all the time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hftlab.bus import EventBus, Flow
from hftlab.clock import VirtualClock
from hftlab.errors import BusFull
from hftlab.events import EventBatch, EventType, Kind, MarketDataEvent, OrderType, Priority, Side, SymbolTable
from hftlab.events.records import RECORD, blank, of_type
from hftlab.events.rowbytes import concat_rows, take_rows
from tests.bus.handlers import make_event
from tests.bus.lanes_model import LEVELS, LanesModel, Row
from tests.bus.samples import START_NS
from tests.bus.virtual_time import fates

CAPACITY = 1_024
LONG_NS = 10**12
SYMBOLS = ["A", "B", "C"]


class Group(NamedTuple):
    """``rows`` alike: 1,000 at most, so that the four groups of a burst are still one piece for the bus."""

    event_type: EventType
    own: Priority
    symbol: str
    kind: Kind
    rows: int


class Round(NamedTuple):
    """Under a ``flow``, a burst comes in, its groups one after the other or ``mixed``, by ``publish_batch`` if
    ``awaited``, and ``singles`` one by one; then up to ``most`` rows are handled."""

    flow: dict[EventType, str]
    burst: list[Group]
    mixed: bool
    awaited: bool
    singles: Group
    most: int


def groups(*rows: int) -> st.SearchStrategy[Group]:
    """Most of one lane and one of two types, so that queues overflow."""
    event_types = [EventType.MARKET_DATA] * 5 + [EventType.SIGNAL] * 3 + [EventType.ORDER, EventType.FILL]
    levels = [Priority.DEFAULT] * 7 + [Priority.LOW, Priority.HIGH, Priority.CRITICAL]
    kinds = [Kind.QUOTE, Kind.TICK, Kind.LEVEL, Kind.TRADE]
    return st.builds(
        Group,
        st.sampled_from(event_types),
        st.sampled_from(levels),
        st.sampled_from(SYMBOLS),
        st.sampled_from(kinds),
        st.sampled_from(rows),
    )


policies = st.sampled_from(["drop oldest", "conflate", "drop newest", "drop oldest", "conflate", "wait", "raise"])
rounds = st.builds(
    Round,
    st.fixed_dictionaries(dict.fromkeys(EventType, policies)),
    # Runs of 128 rows and more are chunks of their own.
    st.lists(groups(700, 1_000, 300, 60, 1), min_size=2, max_size=4),
    st.booleans(),
    st.booleans(),
    groups(1, 5, 0),
    st.sampled_from([100, 700, 1, 2_000]),
)


class Lanes(RuleBasedStateMachine):
    """The handler notes every row's own number, which the rows bring as their arrival time."""

    def __init__(self) -> None:
        super().__init__()
        self.bus = EventBus(capacity=CAPACITY, clock=VirtualClock(START_NS), flow=Flow(ageing_s=0, watchdog_s=0))
        self.model = LanesModel(CAPACITY)
        self.seen: list[int] = []
        self.next_uid = 0
        self.runner = asyncio.Runner()
        self.symbols = SymbolTable(SYMBOLS)

        def note(received: int) -> None:
            self.seen.append(received - START_NS)

        self.bus.subscribe(note, mode="fields", name="all")

    def teardown(self) -> None:
        """What waits tells which rows went: all of it is handled."""
        self.runner.close()
        while self.model.left or any(lane.ring for lane in self.model.lanes.values()):
            self.work(1 << 40)
        self.the_books_balance_and_agree()
        assert self.bus.do_work().idle
        assert self.bus.close() == 0

    # -- settings -----------------------------------------------------------------------------------------------------

    @rule(event_type=st.sampled_from(EventType), level=st.sampled_from(LEVELS))
    def change_the_lane_of_a_type(self, event_type: EventType, level: Priority) -> None:
        self.bus.priorities.map(event_type, lane=level, name=f"all of {event_type.topic}")
        # The mapping that was made last matches; one that is made again keeps its place.
        self.model.mapped[event_type] = level

    # -- publishing ---------------------------------------------------------------------------------------------------

    def make(self, burst: list[Group], mixed: bool) -> tuple[list[Row], EventBatch]:
        """The burst's rows, group by group, or mixed: a row of each group in turn."""
        parts, places = [], []
        for group in burst:
            some = blank(group.rows, group.event_type)
            some["priority"], some["symbol"] = group.own, SYMBOLS.index(group.symbol)
            if group.event_type is EventType.MARKET_DATA:
                some["kind"], some["price"] = group.kind, 1.0
            if group.event_type is EventType.ORDER:
                some["direction"], some["order_type"] = Side.BUY, OrderType.MARKET
            parts.append(some.view(RECORD))
            places.append(np.arange(group.rows))
        records = concat_rows(parts, RECORD)
        owners = np.repeat(np.arange(len(burst)), [group.rows for group in burst])
        if mixed:
            order = np.argsort(np.concatenate(places), kind="stable")
            records, owners = take_rows(records, order), owners[order]
        uids = np.arange(self.next_uid, self.next_uid + len(records))
        self.next_uid += len(records)
        records["received"] = records["timestamp"] = START_NS + uids
        rows = [
            Row(uid, burst[owner].event_type, burst[owner].own, state_of(burst[owner]))
            for uid, owner in zip(uids.tolist(), owners.tolist(), strict=True)
        ]
        types = {group.event_type for group in burst}
        typed = of_type(records, types.pop()) if len(types) == 1 else records
        return rows, EventBatch(typed, self.symbols)

    @rule(several=st.lists(rounds, min_size=4, max_size=8))
    def publish_bursts_with_some_work_after_each(self, several: list[Round]) -> None:
        for one in several:
            policies: Any = one.flow
            self.bus.flow = Flow(overflow=policies, ageing_s=0, watchdog_s=0)
            self.model.policies = one.flow
            self.publish(one.burst, one.mixed, one.awaited)
            self.the_books_balance_and_agree()
            self.publish_one_by_one(one.singles)
            self.the_books_balance_and_agree()
            self.work(one.most)
            self.the_books_balance_and_agree()

    def publish(self, burst: list[Group], mixed: bool, awaited: bool) -> None:
        rows, batch = self.make(burst, mixed)
        taken = self.model.offer(rows)
        if not awaited:
            assert self.bus.offer(batch) == taken
        elif taken == len(rows):
            self.runner.run(self.bus.publish_batch(batch))
        else:  # nobody makes room
            with pytest.raises(BusFull):
                self.runner.run(self.bus.publish_batch(batch))

    def publish_one_by_one(self, singles: Group) -> None:
        for uid in range(self.next_uid, self.next_uid + singles.rows):
            times = {"received": START_NS + uid, "timestamp": START_NS + uid}
            event = make_event(singles.event_type, singles.symbol, priority=singles.own, **times)
            kind = event.kind if isinstance(event, MarketDataEvent) else Kind.TRADE
            row = Row(uid, singles.event_type, singles.own, state_of(singles._replace(kind=Kind(kind))))
            if self.model.publish(row):
                self.bus.publish_nowait(event)
            else:
                with pytest.raises(BusFull):
                    self.bus.publish_nowait(event)
        self.next_uid += singles.rows

    # -- working ------------------------------------------------------------------------------------------------------

    def work(self, most: int) -> None:
        handled = self.model.work(most)
        assert self.bus.do_work(most, max_ns=LONG_NS).handled == sum(map(len, handled.values()))
        assert self.seen == [row.uid for rows in handled.values() for row in rows]
        self.seen.clear()
        for level, rows in handled.items():
            backlog = self.bus._lanes[level].backlog
            self.model.lanes[level].show(rows, backlog.taken, backlog.done_in_chunk())

    @invariant()
    def the_books_balance_and_agree(self) -> None:
        fates(self.bus)
        told = self.bus.statistics()
        assert (told.published, told.handled, told.held) == (self.model.published, self.model.handled, self.model.left)
        for one in told.lanes:
            level = Priority[one.lane]
            assert one.waiting == len(self.model.lanes[level].ring)
            assert one.gave_way == +self.model.gave_way[level]
        totals = sum(self.model.gave_way.values(), start=Counter[str]())
        found = told.dropped_newest, told.dropped_oldest, told.conflated
        assert found == (totals["drop newest"], totals["drop oldest"], totals["conflate"])


def state_of(group: Group) -> object:
    """What a row tells the latest of."""
    is_state = group.event_type is EventType.MARKET_DATA and group.kind is not Kind.TRADE
    return (group.symbol, group.kind) if is_state else None


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=40, stateful_step_count=8)
