"""A bus's settings of flow control: what they refuse and how, and what changing them on a living bus does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hftlab.bus import EventBus, Flow, Overflow
from hftlab.clock import VirtualClock
from hftlab.errors import BusFull, ValidationError
from hftlab.events import EventType, FillEvent, MarketDataEvent, Priority, SignalEvent
from hftlab.events.records import ROW_BYTES
from hftlab.flow.overload_settings import OverloadSettings
from hftlab.flow.shed_rules import ShedRule
from hftlab.flow.sizing import SizeBounds
from hftlab.flow.watermarks import Watermarks
from tests.bus.samples import START_NS, trades, work_off
from tests.bus.virtual_time import fates, in_virtual_time

CAPACITY = 1_024
RULE = ShedRule(lanes=("LOW",), measure="depth", above=0.5, until=0.1)


def make_bus(**flow: Any) -> EventBus:
    return EventBus(capacity=CAPACITY, clock=VirtualClock(START_NS), flow=Flow(**flow))


def policies(flow: Flow) -> dict[EventType, Overflow]:
    return {event_type: flow.overflow_of(event_type) for event_type in EventType}


# -- what is given ----------------------------------------------------------------------------------------------------


def test_without_a_word_everything_waits_and_nothing_is_shed_or_limited() -> None:
    flow = Flow()
    assert policies(flow) == dict.fromkeys(EventType, Overflow.WAIT)
    assert (flow.shed, flow.breaker, flow.limit_bytes, flow.adapt) == ((), None, None, None)


@pytest.mark.parametrize("overflow", Overflow)
def test_a_policy_goes_by_its_member_its_words_or_its_words_with_underscores(overflow: Overflow) -> None:
    for named in (overflow, overflow.value, overflow.value.replace(" ", "_")):
        assert policies(Flow(overflow=named)) == dict.fromkeys(EventType, overflow)


@pytest.mark.parametrize("key", [MarketDataEvent, EventType.MARKET_DATA, "market"])
def test_a_type_goes_by_its_class_its_member_or_its_topic_and_the_others_wait(key: Any) -> None:
    flow = Flow(overflow={key: "conflate"})
    assert policies(flow) == {**dict.fromkeys(EventType, Overflow.WAIT), EventType.MARKET_DATA: Overflow.CONFLATE}


def test_types_have_policies_of_their_own() -> None:
    flow = Flow(overflow={MarketDataEvent: "drop_oldest", EventType.SIGNAL: Overflow.RAISE, "fill": "drop newest"})
    assert policies(flow) == {
        EventType.MARKET_DATA: Overflow.DROP_OLDEST,
        EventType.SIGNAL: Overflow.RAISE,
        EventType.FILL: Overflow.DROP_NEWEST,
        EventType.ORDER: Overflow.WAIT,
    }


@pytest.mark.parametrize("given", [[RULE], (RULE,), iter((RULE,)), RULE])
def test_rules_are_kept_as_a_tuple_however_they_come(given: Any) -> None:
    assert Flow(shed=given).shed == (RULE,)


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Flow().ageing_s = 1.0  # type: ignore[misc]


# Every message says the rule (which names what to give instead) and the value.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"overflow": "drop"}, "overflow= is one of 'wait', 'drop newest', 'drop oldest', 'conflate', 'raise'", "'drop'"),
    ({"overflow": 7}, "overflow= is one of 'wait', 'drop newest'", "7"),
    ({"overflow": ["wait"]}, "overflow= is one of 'wait', 'drop newest'", "['wait']"),
    ({"overflow": {MarketDataEvent: "never"}}, "overflow= is one of 'wait', 'drop newest'", "'never'"),
    ({"overflow": {"quotes": "wait"}}, "overflow= names types of events, such as hl.MarketDataEvent", "'quotes'"),
    ({"overflow": {int: "wait"}}, "an event type is one of MarketDataEvent, OrderEvent", "<class 'int'>"),
    ({"limit_bytes": 127}, "limit_bytes of market events is an integer from 128 on, the bytes of one event", "127"),
    ({"limit_bytes": 1e6}, "is an integer from 128 on", "1000000.0"),
    ({"limit_bytes": True}, "is an integer from 128 on", "True"),
    ({"limit_bytes": {FillEvent: -1}}, "limit_bytes of fill events is an integer from 128 on", "-1"),
    ({"limit_bytes": {"bytes": 128}}, "limit_bytes= names types of events, such as hl.MarketDataEvent", "'bytes'"),
    ({"ageing_s": -0.1}, "ageing_s is a number of seconds from 0 to below 1,000,000", "-0.1"),
    ({"ageing_s": 1e6}, "ageing_s is a number of seconds from 0 to below 1,000,000", "1000000.0"),
    ({"ageing_s": float("nan")}, "ageing_s is a number of seconds", "nan"),
    ({"ageing_s": "0.5"}, "ageing_s is a number of seconds", "'0.5'"),
    ({"watchdog_s": float("inf")}, "watchdog_s is a number of seconds", "inf"),
    ({"watchdog_s": True}, "watchdog_s is a number of seconds", "True"),
    ({"inherit": "never"}, "inherit is True or False", "'never'"),
    ({"shed": ["LOW"]}, "shed= is a sequence of hl.ShedRule(…)", "'LOW'"),
    ({"shed": 0.5}, "shed= is a sequence of hl.ShedRule(…)", "0.5"),
    ({"breaker": True}, "breaker= is hl.OverloadSettings(…) or None", "True"),
    ({"breaker": OverloadSettings}, "breaker= is hl.OverloadSettings(…) or None", "OverloadSettings"),
    ({"watermarks": (0.8, 0.5)}, "watermarks= is hl.Watermarks(high, low)", "(0.8, 0.5)"),
    ({"watermarks": None}, "watermarks= is hl.Watermarks(high, low)", "None"),
    ({"adapt": 100}, "adapt= is hl.SizeBounds(min_rows, max_rows), or one by type", "100"),
    ({"adapt": {FillEvent: (1, 2)}}, "adapt= is hl.SizeBounds(min_rows, max_rows), or one by type", "(1, 2)"),
    ({"adapt": {"sizes": SizeBounds(1, 2)}}, "adapt= names types of events", "'sizes'"),
]


@pytest.mark.parametrize(("given", "rule", "value"), REFUSED, ids=[str(given)[:40] for given, _, _ in REFUSED])
def test_a_refusal_says_the_rule_and_what_came_instead(given: dict[str, Any], rule: str, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Flow(**given)
    said = str(refused.value)
    assert rule in said
    assert "; got " in said
    assert value in said.rpartition("; got ")[2]


# -- at the bus -------------------------------------------------------------------------------------------------------


def test_the_bus_tells_the_settings_that_hold() -> None:
    bus = make_bus(overflow="conflate")
    assert bus.flow.overflow == "conflate"
    bus.flow = settings = Flow(overflow="raise")
    assert bus.flow is settings


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("drop oldest", "a bus's flow is hl.Flow(…), such as hl.Flow(overflow='conflate'); got 'drop oldest'"),
        (None, "a bus's flow is hl.Flow(…), such as hl.Flow(overflow='conflate'); got None"),
        (Flow(overflow="raise", adapt=SizeBounds(1, 2 * CAPACITY)), "got max_rows=2,048. Give the bus a larger"),
    ],
)
def test_settings_that_do_not_suit_the_bus_change_nothing(given: Any, rule: str) -> None:
    bus = make_bus(overflow="drop newest", watermarks=Watermarks(0.5, 0.25))
    before = bus.flow
    with pytest.raises(ValidationError) as refused:
        bus.flow = given
    assert rule in str(refused.value)
    assert bus.flow is before
    assert bus.credits() == CAPACITY // 2
    assert bus.offer(trades(2_000)) == 2_000
    assert fates(bus)["dropped"] == 2_000 - CAPACITY


def test_other_settings_hold_from_the_next_event_on_and_what_is_queued_stays() -> None:
    bus = make_bus(overflow="drop newest")
    bus.offer(trades(CAPACITY + 10))
    steps: list[tuple[Any, int]] = [("wait", 0), ("drop oldest", 5), ({SignalEvent: "drop oldest"}, 0)]
    for overflow, taken in steps:
        bus.flow = Flow(overflow=overflow)
        assert bus.offer(trades(5)) == taken
    assert fates(bus) == {
        "published": CAPACITY + 15, "handled": 0, "shed": 0, "dropped": 15, "conflated": 0, "dead-lettered": 0,
        "waiting": CAPACITY, "elsewhere": 0,
    }  # fmt: skip


async def test_raising_instead_of_waiting_may_be_switched_on_and_off() -> None:
    bus = make_bus()
    bus.offer(trades(CAPACITY))
    for overflow, said in (("raise", "bus.flow says overflow='raise'"), ("wait", "nothing empties the queues")):
        bus.flow = Flow(overflow=overflow)
        with pytest.raises(BusFull, match=said):
            await bus.publish(MarketDataEvent(symbol="BTC", price=1.0))


def test_fewer_bytes_refuse_what_comes_and_never_what_is_queued() -> None:
    bus = make_bus()
    bus.offer(trades(500))
    bus.flow = Flow(limit_bytes={MarketDataEvent: 100 * ROW_BYTES})
    assert bus.offer(trades(1)) == 0
    assert fates(bus)["waiting"] == 500
    work_off(bus)
    assert bus.offer(trades(500)) == 100
    bus.flow = Flow()
    assert bus.offer(trades(500)) == 500


def test_under_fewer_bytes_each_event_drops_an_older_one_until_handlers_have_brought_the_queue_down() -> None:
    bus = make_bus(overflow="drop oldest")
    bus.offer(trades(500))
    bus.flow = Flow(overflow="drop oldest", limit_bytes=100 * ROW_BYTES)
    assert bus.offer(trades(20)) == 20
    books = fates(bus)
    assert (books["waiting"], books["dropped"]) == (500, 20)
    work_off(bus)
    bus.offer(trades(150))
    books = fates(bus)
    assert (books["waiting"], books["dropped"]) == (100, 70)


def test_settings_differ_from_each_other_as_their_values_do() -> None:
    assert Flow(overflow={MarketDataEvent: "conflate"}) == Flow(overflow={MarketDataEvent: "conflate"})
    assert Flow(ageing_s=1) != Flow(ageing_s=2)


def test_an_event_ages_by_the_settings_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = in_virtual_time(monkeypatch)
    bus = EventBus(capacity=CAPACITY, clock=clock, flow=Flow(ageing_s=0))
    seen: list[Priority] = []

    @bus.on(SignalEvent, mode="event")
    def note(event: SignalEvent) -> None:
        seen.append(event.priority)

    def publish_both() -> None:
        bus.publish_nowait(SignalEvent(symbol="A", signal_type="s", priority=Priority.LOW))
        clock.advance(2_000_000_000)
        bus.publish_nowait(SignalEvent(symbol="A", signal_type="s", priority=Priority.HIGH))

    publish_both()
    work_off(bus)
    bus.flow = Flow(ageing_s=0.5)
    publish_both()
    work_off(bus)
    assert seen == [Priority.HIGH, Priority.LOW, Priority.LOW, Priority.HIGH]
