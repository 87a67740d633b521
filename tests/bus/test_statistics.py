"""What a bus tells about itself."""

from __future__ import annotations

import dataclasses

import pytest

from hftlab.bus import EventBus, Flow
from hftlab.bus.failures import FailureLog
from hftlab.bus.statistics import html_of_bus
from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.flow import ShedRule
from tests.bus.samples import trades, work_off


def test_counts_conserve_and_are_frozen() -> None:
    bus = EventBus(capacity=1_024)
    bus.subscribe(lambda event: None)
    bus.offer(trades(10))
    bus.do_work(4, max_ns=1_000_000_000)
    counts = bus.statistics()
    assert (counts.published, counts.handled, counts.waiting, counts.dropped) == (10, 4, 6, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts.published = 5  # type: ignore[misc]
    work_off(bus)
    assert counts.handled == 4
    assert bus.statistics().handled == 10


def test_the_run_on_the_bus_is_named() -> None:
    bus = EventBus(capacity=1_024)
    assert bus.statistics().run == ""
    bus.begin_run("the replay", VirtualClock())
    assert bus.statistics().run == "the replay"


def test_handlers_are_rows_of_a_table() -> None:
    bus = EventBus(capacity=1_024)
    bus.subscribe(lambda event: None, name="a & b")
    bus.offer(trades(1_000))
    work_off(bus)
    shown = html_of_bus("<title>", bus.subscriptions, FailureLog())
    assert "<b>&lt;title&gt;</b>" in shown
    assert "<td>a &amp; b</td><td>event</td><td>1,000</td><td>1,000</td><td>0</td><td>0</td>" in shown
    assert "<pre>" not in shown


def test_the_books_are_told_in_a_line_and_the_lanes_in_a_table() -> None:
    bus = EventBus(capacity=1_024, flow=Flow(overflow="drop newest"))
    assert repr(bus.statistics()) == "BusStatistics(0 published = 0)"
    bus.subscribe(lambda event: None)
    bus.offer(trades(2_000))
    bus.do_work(24, max_ns=1_000_000_000)
    told = bus.statistics()
    assert repr(told) == "BusStatistics(2,000 published = 24 handled + 1,000 waiting + 976 dropped)"
    assert repr(told) in told._repr_html_()
    assert "<td>976</td>" in told._repr_html_()


def test_one_rule_needs_no_list() -> None:
    rule = ShedRule(lanes=("NORMAL",), measure="depth", above=0.5, until=0.1)
    assert Flow(shed=rule).shed == (rule,)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="ShedRule"):
        Flow(shed=0.5)  # type: ignore[arg-type]
