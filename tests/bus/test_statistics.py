"""What a bus tells about itself."""

from __future__ import annotations

import dataclasses

import pytest

from hftlab.bus import EventBus
from hftlab.bus.failures import FailureLog
from hftlab.bus.statistics import html_of_bus
from hftlab.clock import VirtualClock
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
