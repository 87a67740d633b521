from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import hftlab as hl
from hftlab.errors import NotStarted, ValidationError
from hftlab.widgets.bus_history import MOST_REASONS, OTHER_REASONS, BusHistory, bus_of, title_of
from tests.widgets.loaded import SECOND, lane, order, quotes, small_bus, told
from tests.widgets.recorded import START_NS, until


def history_of(bus: hl.EventBus, **options: Any) -> tuple[BusHistory, hl.VirtualClock]:
    clock = hl.VirtualClock(START_NS)
    return BusHistory(bus, clock=clock, **options), clock


def overfill(bus: hl.EventBus, by: int) -> None:
    """Publish more quotes than a small bus holds."""
    batch = quotes(512)
    for rows in (batch, batch, batch[:by]):
        bus.offer(rows)


def test_a_burst_driven_by_hand_is_in_the_samples_by_lane_and_reason() -> None:
    bus = small_bus()
    history, clock = history_of(bus)
    history.record()
    overfill(bus, 36)
    bus.publish_nowait(order(1))
    clock.advance_to(START_NS + SECOND)
    history.record()
    while not bus.do_work().idle:
        pass
    clock.advance_to(START_NS + 2 * SECOND)
    history.record()
    samples = history.samples()
    assert samples.lanes == ("CRITICAL", "HIGH", "NORMAL", "LOW")
    assert ((samples.times_ns - START_NS) // SECOND).tolist() == [0, 1, 2]
    assert samples.waiting.tolist() == [[0, 0, 0, 0], [1, 0, 1_024, 0], [0, 0, 0, 0]]
    assert samples.handled.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1_024, 0]]
    assert samples.gave_way[:, 2].tolist() == [0, 36, 36]
    assert {reason: rows[:, 2].tolist() for reason, rows in samples.reasons.items()} == {"drop oldest": [0, 36, 36]}


def test_the_frame_has_a_row_for_each_lane_of_each_sample() -> None:
    bus = small_bus()
    history, _ = history_of(bus)
    history.record()
    overfill(bus, 6)
    history.record()
    frame = history.to_frame()
    assert frame.columns.tolist() == [
        "time", "lane", "waiting", "capacity", "oldest_ns", "handled", "gave_way", "drop oldest",
    ]  # fmt: skip
    assert len(frame) == 8
    assert frame["time"].iloc[0] == pd.Timestamp(START_NS, tz="UTC")
    normal = frame[frame["lane"] == "NORMAL"]
    assert normal["waiting"].tolist() == [0, 1_024]
    assert normal["drop oldest"].tolist() == normal["gave_way"].tolist() == [0, 6]
    assert frame["capacity"].unique().tolist() == [1_024]


def test_the_latest_samples_are_kept_and_no_more() -> None:
    history, clock = history_of(small_bus(), keeps=5)
    for second in range(12):
        clock.advance_to(START_NS + second * SECOND)
        history.record()
    assert len(history) == len(history.samples()) == 5
    assert ((history.samples().times_ns - START_NS) // SECOND).tolist() == [7, 8, 9, 10, 11]
    # From the last one before the wanted time on: what it says holds at that time.
    since = history.samples(START_NS + 9 * SECOND + 1).times_ns
    assert ((since - START_NS) // SECOND).tolist() == [9, 10, 11]


def test_read_adds_no_sample_before_it_is_due_and_record_always_does() -> None:
    history, clock = history_of(small_bus(), every_s=1.0)
    for tenth in range(21):
        clock.advance_to(START_NS + tenth * SECOND // 10)
        history.read()
    assert ((history.samples().times_ns - START_NS) * 10 // SECOND).tolist() == [0, 8, 16]
    history.record()
    history.record()
    assert len(history) == 5


def test_time_never_runs_backwards_in_the_samples() -> None:
    class SetBack:
        times = iter([START_NS + SECOND, START_NS, START_NS + 2 * SECOND])

        def now_ns(self) -> int:
            return next(self.times)

    history = BusHistory(small_bus(), clock=SetBack())
    for _ in range(3):
        history.record()
    assert ((history.samples().times_ns - START_NS) // SECOND).tolist() == [1, 1, 2]


def test_reasons_beyond_a_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = small_bus()
    history, _ = history_of(bus)
    reasons = {f"shed: rule {i}": i + 1 for i in range(MOST_REASONS + 3)}
    monkeypatch.setattr(bus, "statistics", lambda: told(lane("LOW", gave_way=reasons)))
    history.record()
    samples = history.samples()
    assert len(samples.reasons) == MOST_REASONS + 1
    assert samples.reasons[OTHER_REASONS][0, 3] == sum(range(MOST_REASONS + 1, MOST_REASONS + 4))
    assert sum(rows[0, 3] for rows in samples.reasons.values()) == samples.gave_way[0, 3] == sum(reasons.values())


async def test_a_started_history_samples_while_nobody_looks_until_it_is_stopped() -> None:
    bus = small_bus()
    history = BusHistory(bus, every_s=0.001).start()
    assert history.start() is history
    assert repr(history) == "BusHistory(bus: sampling)"
    bus.offer(quotes(10))
    await until(lambda: len(history) > 5)
    history.stop()
    history.stop()
    assert not history.sampling
    assert history.samples().waiting[-1].tolist() == [0, 0, 10, 0]
    taken = len(history)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(history) == taken
    assert repr(history) == "BusHistory(bus)"


async def test_a_started_history_that_nobody_holds_is_collected() -> None:
    history = BusHistory(small_bus(), every_s=0.001).start()
    reference = weakref.ref(history)
    del history
    gc.collect()
    assert reference() is None


async def test_what_sampling_raises_stops_it_and_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = small_bus()
    history = BusHistory(bus, every_s=0.001).start()
    with monkeypatch.context() as broken:
        broken.setattr(bus, "statistics", lambda: 1 / 0)
        await until(lambda: not history.sampling)
    assert repr(history) == "BusHistory(bus: FAILED, ZeroDivisionError: division by zero)"
    assert history.start().sampling
    assert history.failure is None
    history.stop()


def test_without_a_loop_starting_says_what_to_do_and_recording_works() -> None:
    history = BusHistory(small_bus())
    with pytest.raises(NotStarted, match=r"record\(\)"):
        history.start()
    assert history.record().published == 0
    assert len(history) == 1


def test_the_bus_of_a_lab_is_meant_by_the_lab() -> None:
    class Lab:
        bus = small_bus()

    assert bus_of(Lab()) is Lab.bus
    assert title_of(Lab.bus) == "Bus"
    assert title_of(small_bus(name="paper")) == "Bus paper"


@pytest.mark.parametrize("source", [None, "bus", object()])
def test_something_without_a_bus_is_refused(source: Any) -> None:
    with pytest.raises(ValidationError, match="takes a Lab, or a bus"):
        BusHistory(source)


@pytest.mark.parametrize("options", [{"keeps": 1}, {"keeps": 2.5}, {"keeps": True}, {"every_s": 0}, {"every_s": "1"}])
def test_bounds_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"keeps is|every_s is"):
        BusHistory(small_bus(), **options)


def test_the_figure_has_depth_and_what_gave_way_of_the_lanes_that_had_events() -> None:
    bus = small_bus(name="<b>paper</b>")
    history, clock = history_of(bus)
    history.record()
    overfill(bus, 36)
    bus.publish_nowait(order(1))
    clock.advance_to(START_NS + SECOND // 2)
    history.record()
    figure = history.figure()
    assert isinstance(figure, go.Figure)
    critical, normal, gave_way = figure.data
    assert (critical.name, normal.name) == ("CRITICAL", "NORMAL")
    assert list(normal.x) == [0.0, 0.5]
    assert list(normal.y) == [0, 1_024]
    assert gave_way.name == "NORMAL drop oldest: 36"
    assert list(gave_way.y) == [72.0]
    assert np.allclose(gave_way.width, [0.5])
    assert figure.layout.title.text == "Bus &lt;b&gt;paper&lt;/b&gt;: what waited, and what gave way"
    assert figure.layout.xaxis2.title.text == "seconds since 2024-08-08 23:54:15.000 UTC"


def test_without_events_the_figure_says_so() -> None:
    history, _ = history_of(small_bus())
    assert "no event" in history.figure().layout.annotations[0].text
    history.record()
    figure = history.figure()
    assert figure.data == ()
    assert "no event" in figure.layout.annotations[0].text


def test_where_nothing_gave_way_the_figure_says_so() -> None:
    bus = small_bus()
    history, _ = history_of(bus)
    bus.offer(quotes(10))
    history.record()
    figure = history.figure()
    assert [trace.name for trace in figure.data if trace.name] == ["NORMAL"]
    assert figure.data[-1].yaxis == "y2"  # else plotly draws no axes there, and the note stands in the picture above
    assert figure.layout.annotations[0].text == "nothing gave way"
