from __future__ import annotations

import json
from typing import Any

import numpy as np

import hftlab as hl
from hftlab.widgets.bus_history import BusHistory
from hftlab.widgets.bus_readings import ORDERS
from hftlab.widgets.bus_strip import read_strip
from hftlab.widgets.monitoring import Monitoring
from hftlab.widgets.playing import STANDING_S
from tests.widgets.loaded import SECOND, order, quotes, small_bus
from tests.widgets.recorded import START_NS

PARTS = {"status", "lanes", "strip", "books", "handlers", "fault"}


class Watched:
    """A monitor's model with one view, on a clock that is moved by hand."""

    def __init__(self, bus: hl.EventBus | None = None) -> None:
        self.bus = bus or small_bus()
        self.clock = hl.VirtualClock(START_NS)
        self.changes = 0
        self.model = Monitoring(BusHistory(self.bus, clock=self.clock), self.changed)
        self.now = 0.0
        self.everything = self.model.everything()
        self.say("heard", "view")

    def changed(self) -> None:
        self.changes += 1

    def say(self, do: str, value: Any = None) -> None:
        self.model.receive({"do": do, "value": value}, self.now)

    def look(self, after_s: float = 0.1) -> tuple[dict[str, Any], float | None]:
        self.now += after_s
        self.clock.advance(round(after_s * SECOND))
        return self.model.look(self.now)

    def settle(self) -> None:
        """Look until what was is more than a minute ago."""
        for _ in range(70):
            self.look(1.0)
            self.say("heard", "view")


def lane_of(parts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(line for line in parts["lanes"] if line["lane"] == name)


def drain(bus: hl.EventBus) -> None:
    while not bus.do_work().idle:
        pass


def test_a_view_that_is_made_now_gets_everything_as_plain_data() -> None:
    watched = Watched()
    assert set(watched.everything) == PARTS
    plain = {**watched.everything, "strip": {**watched.everything["strip"], "points": ""}}
    assert json.loads(json.dumps(plain)) == plain


def test_without_a_view_nothing_is_looked_at() -> None:
    watched = Watched()
    watched.say("left", "view")
    taken = len(watched.model.history)
    watched.bus.offer(quotes(10))
    assert watched.look() == ({}, None)
    assert len(watched.model.history) == taken


def test_a_bus_that_stands_has_nothing_new_and_is_looked_at_twice_a_second() -> None:
    watched = Watched()
    watched.look()
    watched.look()
    for _ in range(10):
        assert watched.look(0.5) == ({}, STANDING_S)
        watched.say("heard", "view")


def test_a_burst_is_shown_by_the_next_look_and_looked_at_as_often_as_may_be() -> None:
    watched = Watched()
    watched.look()
    watched.look()
    watched.bus.offer(quotes(512))
    watched.bus.publish_nowait(order(1))
    parts, pace_s = watched.look(0.5)
    assert pace_s == 0.0
    assert set(parts) >= {"status", "lanes", "books"}
    assert lane_of(parts, "NORMAL")["waiting"] == "512 of 1,024"
    assert lane_of(parts, "CRITICAL")["waiting"] == "1 of 1,024"
    assert parts["status"]["label"] == "Live, busy"
    assert parts["books"]["published"] == "513"


def test_throughput_and_what_gave_way_are_told_from_one_look_to_the_next() -> None:
    watched = Watched()
    watched.look()
    batch = quotes(512)
    for _ in range(3):
        watched.bus.offer(batch)
    drain(watched.bus)
    parts, _ = watched.look(0.9)
    normal = lane_of(parts, "NORMAL")
    assert normal["rate"] == "1.02 k/s"
    assert normal["reasons"] == [["drop oldest", "512", "512/s"]]
    assert normal["peak_text"] == "peak 0"  # nobody looked while they waited
    assert lane_of(watched.look(2.0)[0], "NORMAL")["rate"] == "0/s"


def test_the_most_that_waited_stays_marked_for_a_minute() -> None:
    watched = Watched()
    watched.bus.offer(quotes(512))
    watched.look()
    drain(watched.bus)
    parts, _ = watched.look()
    assert lane_of(parts, "NORMAL")["peak_text"] == "peak 512"
    assert lane_of(parts, "NORMAL")["waiting"] == "0 of 1,024"
    watched.settle()
    assert lane_of(watched.model.everything(), "NORMAL")["peak_text"] == "peak 0"


def test_after_a_burst_only_the_strip_moves_until_the_minute_is_over() -> None:
    watched = Watched()
    watched.bus.offer(quotes(512))
    watched.look()
    drain(watched.bus)
    for _ in range(4):
        watched.look(0.5)
    parts, pace_s = watched.look(0.5)
    assert set(parts) == {"strip"}
    assert pace_s == STANDING_S
    assert np.nanmax(read_strip(parts["strip"])[0, 2]) == 512
    watched.settle()
    assert watched.look(0.5) == ({}, STANDING_S)


def test_handlers_are_ordered_as_asked_and_back_by_asking_again() -> None:
    watched = Watched()
    for name in ("a", "b"):
        watched.bus.subscribe(lambda price: None, hl.MarketDataEvent, name=name, priority=0)
    watched.bus.subscribe(lambda event: None, hl.OrderEvent, name="c")
    watched.bus.publish_nowait(order(1))
    drain(watched.bus)
    parts, _ = watched.look()
    full = len(ORDERS)
    assert [row[full] for row in parts["handlers"]["rows"]] == ["a", "b", "c"]
    changes = watched.changes
    watched.say("order", "calls")
    assert watched.changes == changes + 1
    parts, _ = watched.look()
    assert [row[full] for row in parts["handlers"]["rows"]] == ["c", "a", "b"]
    watched.say("order", "calls")
    assert [row[full] for row in watched.look()[0]["handlers"]["rows"]] == ["a", "b", "c"]


def test_a_failing_handlers_latest_error_is_told_as_text() -> None:
    watched = Watched()

    def fail(event: hl.OrderEvent) -> None:
        raise ValueError(f"<b>{event.order_id}</b>")

    watched.bus.subscribe(fail, hl.OrderEvent, name="<img src=x>")
    watched.look()
    for number in (1, 2):
        # publish_nowait would raise the handler's failure of the last one.
        watched.bus.offer(hl.EventBatch.from_events([order(number)]))
        drain(watched.bus)
        parts, _ = watched.look()
        (row,) = parts["handlers"]["rows"]
        assert row[0] == row[len(ORDERS)] == "<img src=x>"
        assert row[-2] == "bad"
        assert row[-1].endswith(f"ValueError: <b>o{number}</b>")


def test_a_message_that_makes_no_sense_is_shown_until_it_is_dismissed() -> None:
    watched = Watched()
    watched.look()
    watched.say("order", "<script>")
    parts, _ = watched.look()
    assert parts["fault"]["name"] == "ValidationError"
    watched.say("dismiss")
    assert watched.look()[0]["fault"] == {}


def test_settings_of_the_bus_that_change_are_shown() -> None:
    watched = Watched()
    assert watched.everything["status"]["badges"][0][1] == "No overload breaker"
    watched.bus.flow = hl.Flow(breaker=hl.OverloadSettings(), watermarks=hl.Watermarks(0.6, 0.2))
    parts, _ = watched.look()
    assert parts["status"]["badges"][0][1] == "Overload: closed"
    assert lane_of(parts, "LOW")["marks"] == [0.6, 0.2]


def test_a_look_samples_the_history_that_pictures_are_made_of() -> None:
    watched = Watched()
    for _ in range(5):
        watched.bus.offer(quotes(64))
        watched.look()
    assert watched.model.history.samples().waiting[:, 2].tolist() == [0, 64, 128, 192, 256, 320]
