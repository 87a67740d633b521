"""What becomes of events with impossible times: rejected, flagged, raised or kept, and always counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, Flags, Kind, MarketDataEvent, OrderEvent, OrderType, Side, Source
from hftlab.events.records import EventType
from hftlab.events.rules import check_records
from hftlab.events.time_checks import EXAMPLES_LISTED, TimeChecks
from hftlab.events.timestamps import TimePolicy

NOW = 1_723_161_255_000_000_000
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
MS = NOW // 1_000_000
DESK = Source("desk", "trades")


def trades(timestamps: list[int], **columns: Any) -> EventBatch:
    """A trade for each time, a second apart in arrival."""
    batch = EventBatch.from_events(
        MarketDataEvent(
            symbol="BTC",
            kind=Kind.TRADE,
            price=1.0,
            volume=2.0,
            timestamp=0,
            received=NOW + index * SECOND,
            source=DESK,
        )
        for index in range(len(timestamps))
    )
    batch.records["timestamp"] = timestamps
    for name, values in columns.items():
        batch.records[name] = values
    return batch


def on_time(count: int) -> list[int]:
    return [NOW + index * SECOND for index in range(count)]


def test_a_batch_in_which_all_times_are_possible_comes_back_itself() -> None:
    checks = TimeChecks(TimePolicy())
    batch = trades(on_time(100))
    before = batch.records.tobytes()
    assert checks.apply(batch) is batch
    assert batch.records.tobytes() == before
    assert repr(checks.findings()) == "TimeFindings(all times are possible)"
    assert checks.findings().to_frame().empty


def test_by_default_the_certain_are_rejected_and_the_doubtful_flagged_and_all_are_counted() -> None:
    times = on_time(10)
    times[2], times[4], times[6] = MS, -5, times[6] - 2 * HOUR
    checks = TimeChecks(TimePolicy())
    kept = checks.apply(trades(times))
    assert kept.column("timestamp") == [time for time in times if time not in (MS, -5)]
    assert [bool(flags & Flags.IMPOSSIBLE_TIME) for flags in kept.column("flags")] == [row == 4 for row in range(8)]
    found = checks.findings()
    assert found.impossible == {"negative": 1, "unit": 1, "backwards": 1}
    assert found.sources == {DESK.text: 3}
    assert (found.rejected, found.flagged, found.silenced) == (2, 1, 0)
    assert found.examples[0].startswith(f"timestamp {MS} looks like ms: multiply by 1,000,000")
    assert found.examples[0].endswith(f"({DESK.text}, BTC)")
    assert found.troubles.startswith(
        "3 rows have impossible times (1 negative, 1 unit, 1 backwards; 2 rejected, 1 flagged), as in timestamp"
    )
    frame = found.to_frame()
    assert frame.loc[frame["what"] == "impossible time", "count"].sum() == 3
    assert "looks like ms" in found._repr_html_()


def test_what_is_flagged_is_valid_and_otherwise_as_it_came() -> None:
    times = on_time(6)
    times[3] = MS
    batch = trades(times)
    before = batch.records.copy()
    kept = TimeChecks(TimePolicy(action="flag")).apply(batch)
    check_records(EventType.MARKET_DATA, kept.records)
    before["flags"][3] |= Flags.IMPOSSIBLE_TIME.value
    assert kept == EventBatch(before, batch.symbols, batch.sources)


def test_what_is_kept_is_counted_and_left_alone() -> None:
    times = on_time(6)
    times[3] = MS
    checks = TimeChecks(TimePolicy(action="keep"))
    batch = trades(times)
    before = batch.records.tobytes()
    assert checks.apply(batch).records.tobytes() == before
    assert checks.findings().troubles.startswith("1 row has impossible times (1 unit; kept), as in timestamp")


def test_a_policy_may_raise_with_the_first_row() -> None:
    times = on_time(6)
    times[3], times[4] = MS, MS
    with pytest.raises(ValidationError, match=f"^row 3: timestamp {MS} looks like ms"):
        TimeChecks(TimePolicy(action="raise")).apply(trades(times))


def test_without_a_policy_nothing_is_looked_at() -> None:
    checks = TimeChecks(None)
    batch = trades([MS, -5])
    assert checks.apply(batch) is batch
    assert checks.findings().timed == 0


def test_only_the_first_examples_are_told_in_words() -> None:
    checks = TimeChecks(TimePolicy())
    for _ in range(3):
        assert len(checks.apply(trades([MS] * 8))) == 0
    assert len(checks.findings().examples) == EXAMPLES_LISTED
    assert checks.findings().impossible == {"unit": 24}


def test_a_recorder_that_is_behind_is_told_of_and_loses_nothing() -> None:
    checks = TimeChecks(TimePolicy(action="reject", doubtful="reject"))
    batch = trades([time + 1_270_000_000 for time in on_time(50)])
    assert checks.apply(batch) is batch
    assert checks.findings().recorder == (
        "the recorder's clock is about 1.27 s behind: 50 of 50 rows are from after their arrival"
    )
    assert not checks.findings().troubles


def test_some_rows_from_after_their_arrival_do_not_make_a_clock_wrong() -> None:
    checks = TimeChecks(TimePolicy())
    checks.apply(trades([time + (2_000_000 if row % 4 == 0 else -1_000_000) for row, time in enumerate(on_time(40))]))
    assert checks.findings().recorder == "10 rows are from after their arrival, on average by 2 ms"


def test_a_message_of_which_nothing_is_left_goes_on_as_a_heartbeat_with_its_number() -> None:
    times = [NOW, MS, MS, NOW + SECOND]
    last = int(Flags.LAST_PART)
    batch = trades(times, sequence=[7, 8, 8, 9], part=[0, 0, 1, 0], flags=[last, 0, last, last])
    checks = TimeChecks(TimePolicy())
    kept = checks.apply(batch)
    check_records(EventType.MARKET_DATA, kept.records)
    assert kept.column("sequence") == [7, 8, 9]
    beat = kept[1]
    assert isinstance(beat, MarketDataEvent)
    assert beat.flags == Flags.LAST_PART | Flags.HEARTBEAT | Flags.ARRIVAL_TIME
    assert (beat.timestamp, beat.received, beat.part) == (NOW + 2 * SECOND, NOW + 2 * SECOND, 0)
    assert np.isnan(beat.price)
    assert (beat.source, beat.symbol) == (DESK, "BTC")
    assert (checks.findings().rejected, checks.findings().silenced) == (2, 1)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_message_that_loses_a_row_keeps_its_parts_dense_and_its_end(bad: int) -> None:
    times = on_time(3)
    times[bad] = MS
    last = int(Flags.LAST_PART)
    kept = TimeChecks(TimePolicy()).apply(trades(times, sequence=8, part=[0, 1, 2], flags=[0, 0, last]))
    assert kept.column("part") == [0, 1]
    assert [bool(flags & last) for flags in kept.column("flags")] == [False, True]


def test_a_message_that_is_cut_by_the_end_of_a_batch_goes_on_in_the_next() -> None:
    checks = TimeChecks(TimePolicy())
    first = checks.apply(trades([NOW, MS], sequence=8, part=[0, 1], flags=0))
    assert (first.column("part"), first.column("flags")) == ([0], [Flags.NONE])


def order(timestamp: int) -> EventBatch:
    made = OrderEvent(
        symbol="BTC", order_id="1", direction=Side.BUY, quantity=1.0, order_type=OrderType.MARKET, sequence=3
    )
    batch = EventBatch.from_events([made])
    batch.records["timestamp"], batch.records["received"] = timestamp, NOW
    return batch


def test_numbered_orders_have_no_heartbeat_and_are_dropped() -> None:
    assert len(TimeChecks(TimePolicy()).apply(order(MS))) == 0


def test_rows_of_several_types_are_checked_side_by_side() -> None:
    batch = EventBatch.concat([trades([NOW, MS], sequence=[1, 2]), order(NOW)])
    kept = TimeChecks(TimePolicy()).apply(batch)
    assert [event.event_type for event in kept] == [EventType.MARKET_DATA, EventType.MARKET_DATA, EventType.ORDER]
    assert kept.column("flags")[1] & Flags.HEARTBEAT
