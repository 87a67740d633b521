"""Priority inversion on purpose: an order waits for its cause in a lazy lane, while a flood of more urgent events comes
in between. Side by side with and without inheritance, and causes at random across all lanes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.bus import EventBus, Flow, LaneStatistics
from hftlab.bus.lanes import TURN_NS
from hftlab.clock import VirtualClock
from hftlab.events import Event, EventBatch, EventType, OrderEvent, Side, SignalEvent, SourceTable, SymbolTable
from hftlab.events.records import RECORD, Flags, Priority, blank, event_id
from tests.bus.samples import START_NS
from tests.bus.virtual_time import VirtualTime, fates, in_virtual_time

SESSION = 7
CALL_NS = 20_000
FLOOD = 5_000


# -- side by side -----------------------------------------------------------------------------------------------------


class Inversion:
    """A bus whose handlers take 20 µs a call, and the events that they were given, by their names."""

    def __init__(self, clock: VirtualTime, *, inherit: bool, ageing_s: float = 0.0) -> None:
        self.clock = clock
        self.bus = EventBus(clock=clock, flow=Flow(inherit=inherit, ageing_s=ageing_s))
        self.seen: list[str] = []
        self._numbers = iter(range(1, 1 << 20))
        self.bus.subscribe(self._handle, name="all")

    def _handle(self, event: Event) -> None:
        self.clock.advance(CALL_NS)
        self.seen.append(event.order_id if isinstance(event, OrderEvent) else str(getattr(event, "strategy_id", "")))

    def signal(self, name: str, lane: Priority, cause: int = 0) -> int:
        """Publish a signal into a lane; returns its event id."""
        given = event_id(SESSION, next(self._numbers))
        self.bus.publish_nowait(
            SignalEvent(symbol="S", signal_type="s", strategy_id=name, priority=lane, event_id=given, cause=cause)
        )
        return given

    def order(self, name: str, cause: int) -> None:
        self.bus.publish_nowait(
            OrderEvent(
                symbol="S", order_id=name, direction=Side.BUY, quantity=1.0,
                event_id=event_id(SESSION, next(self._numbers)), cause=cause,
            )
        )  # fmt: skip

    def flood(self) -> None:
        """As many HIGH events as take 100 ms, some of them at work already."""
        for _ in range(FLOOD):
            self.signal("flood", Priority.HIGH)
        self.bus.do_work()

    def work_off(self) -> None:
        while not self.bus.do_work().idle:
            fates(self.bus)

    def flood_before(self, name: str, begin: int) -> int:
        """How much of the flood was handled before an event, of what was handled from ``begin`` on."""
        return self.seen[begin : self.seen.index(name)].count("flood")

    def lane(self, name: str) -> LaneStatistics:
        return next(lane for lane in self.bus.statistics().lanes if lane.lane == name)


def order_behind_its_cause(clock: VirtualTime, *, inherit: bool, ageing_s: float = 0.0) -> tuple[Inversion, int]:
    """The order's cause waits in LOW behind ten others; returns the flood's part that overtook it, too."""
    ours = Inversion(clock, inherit=inherit, ageing_s=ageing_s)
    for number in range(10):
        ours.signal(f"low {number}", Priority.LOW)
    cause = ours.signal("cause", Priority.LOW)
    ours.signal("behind the cause", Priority.LOW)
    ours.flood()
    begin = len(ours.seen)
    ours.order("order", cause)
    assert ours.lane("CRITICAL").waits_for == "LOW"
    ours.work_off()
    assert ours.seen.index("cause") < ours.seen.index("order")
    return ours, ours.flood_before("order", begin)


def test_with_inheritance_no_flood_overtakes_the_cause_of_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = in_virtual_time(monkeypatch)
    lent, overtaken_lent = order_behind_its_cause(clock, inherit=True)
    plain, overtaken_plain = order_behind_its_cause(clock, inherit=False)
    told = {"with": (lent, overtaken_lent), "without": (plain, overtaken_plain)}
    for which, (ours, overtaken) in told.items():
        critical = ours.lane("CRITICAL")
        print(
            f"{which} inheritance: {overtaken:,} of {FLOOD:,} HIGH events before the order, which waited "
            f"{critical.wait_max_ns / 1e6:.2f} ms; inversion {critical.inversion_ns / 1e6:.2f} ms"
        )
    assert overtaken_lent == 0
    assert overtaken_plain > 0.99 * FLOOD
    # What stood before the cause in its own lane is what the order waits for, at most a turn too long.
    assert 11 * CALL_NS <= lent.lane("CRITICAL").inversion_ns <= 11 * CALL_NS + TURN_NS
    assert plain.lane("CRITICAL").inversion_ns > 0.99 * FLOOD * CALL_NS
    # The lane that lent goes back to its own level: the rest of LOW comes behind the flood.
    assert lent.seen[-1] == "behind the cause" or lent.flood_before("behind the cause", 0) < FLOOD


def test_without_inheritance_age_ends_the_inversion_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = in_virtual_time(monkeypatch)
    ours, overtaken = order_behind_its_cause(clock, inherit=False, ageing_s=0.01)
    # LOW needs two levels to be HIGH's equal, and takes turns with it from then on.
    assert 0.3 * 0.02e9 / CALL_NS < overtaken < 2 * 0.03e9 / CALL_NS
    assert ours.lane("CRITICAL").waits_for == ""


def chain(clock: VirtualTime, *, inherit: bool) -> tuple[Inversion, int]:
    """The order waits for a NORMAL event, and that one for a LOW event."""
    ours = Inversion(clock, inherit=inherit)
    ours.signal("low before", Priority.LOW)
    low = ours.signal("low", Priority.LOW)
    ours.signal("normal before", Priority.NORMAL)
    normal = ours.signal("normal", Priority.NORMAL, cause=low)
    ours.flood()
    begin = len(ours.seen)
    ours.order("order", normal)
    ours.work_off()
    assert ours.seen.index("low") < ours.seen.index("normal") < ours.seen.index("order")
    assert ours.seen.index("normal before") < ours.seen.index("normal")
    return ours, ours.flood_before("order", begin)


def test_inheritance_goes_through_a_chain_over_three_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = in_virtual_time(monkeypatch)
    lent, overtaken_lent = chain(clock, inherit=True)
    _, overtaken_plain = chain(clock, inherit=False)
    print(f"a chain of three: {overtaken_lent:,} HIGH events overtook it, without inheritance {overtaken_plain:,}")
    assert overtaken_lent == 0
    assert overtaken_plain > 0.99 * FLOOD
    assert lent.lane("CRITICAL").inversion_ns <= 4 * CALL_NS + 2 * TURN_NS


def test_orders_whose_causes_were_handled_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Inversion(in_virtual_time(monkeypatch), inherit=True)
    cause = ours.signal("cause", Priority.LOW)
    ours.work_off()
    ours.signal("low", Priority.LOW)
    ours.order("order", cause)
    ours.order("of another session", event_id(SESSION + 1, 2))
    ours.work_off()
    assert ours.seen == ["cause", "order", "of another session", "low"]


@pytest.mark.parametrize("dropped", [False, True])
def test_a_cause_that_found_no_room_yet_is_waited_for_too(dropped: bool) -> None:
    """Rows that a chunk shows can't give way, so newer ones are left over: the order's cause is among them."""
    flow = Flow(overflow="drop oldest", ageing_s=0)
    bus, seen = EventBus(capacity=1_024, clock=VirtualClock(START_NS), flow=flow), list[int]()
    bus.subscribe(lambda event_id: seen.append(event_id & 0xFFFF), name="all")
    assert bus.offer(market(range(700))) == 700
    bus.do_work(100, max_ns=1 << 62)  # as many as asked for, however slow the machine is
    assert bus.offer(market(range(700, 1_400))) + bus.offer(market(range(1_400, 2_100))) == 1_400
    bus.publish_nowait(
        OrderEvent(
            symbol="S", order_id="o", direction=Side.BUY, quantity=1.0,
            event_id=event_id(SESSION, 5_000), cause=event_id(SESSION, 2_090),
        )
    )  # fmt: skip
    assert bus.statistics().held > 0
    if dropped:  # by what comes after it
        assert bus.offer(market(range(2_100, 3_600))) == 1_500
    while not bus.do_work().idle:
        fates(bus)
    assert 5_000 in seen
    assert dropped or seen.index(2_090) < seen.index(5_000)
    assert fates(bus)["waiting"] == fates(bus)["elsewhere"] == 0


def market(numbers: Iterable[int]) -> EventBatch:
    """Market data by their log sequences."""
    index = np.array(list(numbers))
    rows = blank(len(index), EventType.MARKET_DATA)
    rows["log_sequence"] = index
    rows["timestamp"] = rows["received"] = START_NS + index
    return EventBatch(rows, SymbolTable(["S"]), SourceTable(), session_number=SESSION)


# -- at random --------------------------------------------------------------------------------------------------------

ITEMS = st.lists(
    st.tuples(
        st.sampled_from([Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]),
        st.sampled_from([EventType.SIGNAL, EventType.MARKET_DATA]),
        st.none() | st.integers(1, 12),  # how far before it its cause stands
    ),
    min_size=1,
    max_size=60,
)
FLOWS = st.builds(
    Flow,
    inherit=st.booleans(),
    ageing_s=st.sampled_from([0.0, 1e-5, 0.5]),
    overflow=st.sampled_from(["wait", "drop oldest", "drop newest"]),
    limit_bytes=st.sampled_from([None, 4 * 128]),
)


def batch_of(items: list[tuple[Priority, EventType, int | None]], first: int) -> EventBatch:
    """Rows numbered from ``first`` on."""
    rows = np.zeros(len(items), RECORD)
    for place, (lane, event_type, back) in enumerate(items):
        number = first + place
        row = blank(1, event_type)
        row["log_sequence"], row["priority"], row["flags"] = number, lane, Flags.LAST_PART
        row["timestamp"] = row["received"] = START_NS + number
        if back is not None and number - back >= 1:
            row["cause"] = event_id(SESSION, number - back)
        rows[place : place + 1] = row.view(RECORD)
    return EventBatch(rows, SymbolTable(["S"]), SourceTable(), session_number=SESSION)


@given(items=ITEMS, sizes=st.lists(st.integers(1, 20), min_size=1), budgets=st.lists(st.integers(0, 8)), flow=FLOWS)
def test_nothing_is_handled_before_its_cause_nor_reordered_and_all_lanes_drain(
    items: list[tuple[Priority, EventType, int | None]], sizes: list[int], budgets: list[int], flow: Flow
) -> None:
    clock = VirtualClock(START_NS)
    bus, seen = EventBus(capacity=1_024, clock=clock, flow=flow), list[int]()

    def handle(event_id: int) -> None:
        clock.advance(7_000)
        seen.append(event_id & 0xFFFF)

    bus.subscribe(handle, name="all")
    work = [*budgets, *[0] * len(items)]
    for batch, budget in zip(cut(items, sizes), work, strict=False):
        left = batch
        while len(left):
            left = left[bus.offer(left) :]
            if budget or len(left):
                bus.do_work(max(budget, 1))
            fates(bus)
    for _ in range(10 * len(items) + 10):
        if bus.do_work().idle:
            break
    assert bus.statistics().waiting == 0, f"stuck: {bus.statistics().to_frame()}"

    at = {number: place for place, number in enumerate(seen)}
    assert len(at) == len(seen)
    if flow.overflow == "wait":
        assert sorted(seen) == list(range(1, len(items) + 1))
    by_lane: dict[Any, list[int]] = {}
    for number, (lane, _, back) in enumerate(items, start=1):
        if number in at:
            by_lane.setdefault(lane, []).append(at[number])
            cause = None if back is None else at.get(number - back)
            assert cause is None or cause < at[number], f"{number} was handled before its cause, {number - (back or 0)}"
    assert all(places == sorted(places) for places in by_lane.values())


def cut(items: list[tuple[Priority, EventType, int | None]], sizes: list[int]) -> Iterator[EventBatch]:
    """The items in batches of these sizes, by turns."""
    first, turn = 0, 0
    while first < len(items):
        size = sizes[turn % len(sizes)]
        yield batch_of(items[first : first + size], first + 1)
        first, turn = first + size, turn + 1
