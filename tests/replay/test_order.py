"""A replay delivers in its sources' order, the same however it is driven, and tells its gaps in line."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hftlab as hl
from hftlab import sim
from hftlab.bus import EventBus
from hftlab.errors import WindowFull
from hftlab.events import Event, EventBatch, SignalEvent, Source
from hftlab.events.records import Rows
from hftlab.events.rowbytes import concat_rows, copy_rows
from hftlab.replay import Replay, Selection, State
from hftlab.sequence import Gap, GapReason, GapState, Ordering
from hftlab.sequence.stage import OrderStage
from hftlab.sim.truth import FaultyBatch
from tests.replay.memory_log import MemoryLog
from tests.sequence.messages import MS, SOURCES, START_NS, stream_of, streams
from tests.sequence.playing import modelled
from tests.sequence.test_stage import steadily

PLAIN, ORDERS = 2, 5
SEEDS = [1, 2, 3]


def faulty(seed: int, count: int = 1_500, **rates: Any) -> FaultyBatch:
    """Trades of two sources, 1 ms apart, over a bad line."""
    print(f"seed {seed}")
    messages = [
        {"source": PLAIN + at % 2, "sequence": 1 + at // 2, "content": at % 100, "received": at} for at in range(count)
    ]
    return sim.faults(stream_of(messages, session=0).batch(), seed=seed, **rates)


def bad_line(seed: int) -> FaultyBatch:
    return faulty(
        seed, loss=0.02, loss_bursts=0.002, loss_burst_length=4, duplicates=0.03, conflicts=0.01, disorder=0.05,
        late_bursts=0.002, late_by_s=0.3, resets=0.001,
    )  # fmt: skip


class Listener:
    """A replay, and everything that its handlers were given, with the time that they saw."""

    def __init__(self, log: MemoryLog, *, waits: bool = False, **options: Any) -> None:
        self.bus = EventBus()
        self.calls: list[Any] = []
        self.bus.subscribe(self._event, name="events")
        self.bus.subscribe(self._waiting_gap if waits else self._gap, hl.Gap, name="gaps")
        self.replay = Replay(log, self.bus, "btc", **options)

    def _event(self, event: Event) -> None:
        self.calls.append((event.event_type.topic, event.event_id & 0xFFFFFFFFFF, self.bus.clock.now_ns() - START_NS))

    def _gap(self, gap: Gap) -> SignalEvent | None:
        self.calls.append((gap.state.name, gap.first, gap.last, self.bus.clock.now_ns() - START_NS))
        return SignalEvent(symbol="A", signal_type=gap.state.name) if gap.state is GapState.LOST else None

    async def _waiting_gap(self, gap: Gap) -> SignalEvent | None:
        await asyncio.sleep(0)
        return self._gap(gap)

    @property
    def rows(self) -> list[int]:
        """The log sequences of the recorded events that were delivered."""
        return [call[1] for call in self.calls if call[0] in ("market", "order", "fill")]

    def check_counts(self, read: int) -> None:
        s = self.replay.statistics()
        fates = (s.delivered, s.filtered, s.held, s.redelivered, s.duplicate, s.late, s.conflicting, s.orphaned)
        assert sum(fates) == read


async def ran(log: MemoryLog, **options: Any) -> Listener:
    listener = Listener(log, **options)
    await listener.replay.run()
    return listener


def staged(batch: EventBatch, ordering: Ordering | None = None) -> tuple[OrderStage, Rows]:
    """The batch straight through a stage: numbered as the log numbers it."""
    rows = copy_rows(batch.records)
    rows["log_sequence"] = np.arange(len(rows))
    recorded = EventBatch(rows, batch.symbols, batch.sources, session_number=3)
    stage = OrderStage(ordering or Ordering(), batch.symbols, batch.sources)
    parts = [stage.process(recorded).batch.records, stage.finish().batch.records]
    return stage, concat_rows([part for part in parts if len(part)], rows.dtype)


def numbers(*sequences: int, source: int = PLAIN, step_ms: float = 1, **fields: Any) -> EventBatch:
    messages = [{"source": source, "sequence": n, "received": at * step_ms, **fields} for at, n in enumerate(sequences)]
    return stream_of(messages, session=0).batch()


# -- what is delivered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_replay_delivers_what_the_sequencer_lets_through_in_its_order(seed: int) -> None:
    batch = bad_line(seed)
    stage, rows = staged(batch)
    listener = await ran(MemoryLog(batch, cut=77))
    assert listener.rows == rows["log_sequence"].tolist()
    assert [str(gap) for gap in listener.replay.gaps] == [str(gap) for gap in stage.gaps]
    assert listener.replay.gaps.by_source().equals(stage.gaps.by_source())
    listener.check_counts(len(batch))
    assert listener.replay.statistics().lost == stage.statistics().order.lost


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(streams(40), st.sampled_from([1, 3, 1_000]))
def test_a_replay_delivers_what_the_words_say(stream: Any, cut: int) -> None:
    stream = steadily(stream)
    table = stream.table[stream.table["source"] < ORDERS]  # nobody is there to give a strict source up
    table["cause"] = 0
    expected = modelled(type(stream)(table, stream.sources, 3), Ordering())
    batch = type(stream)(table, stream.sources, 3).batch()
    listener = asyncio.run(ran(MemoryLog(batch, cut=cut))) if expected.rows else None
    if listener is not None:
        assert listener.rows == expected.rows
        told = [(call[0].lower(), call[1], call[2]) for call in listener.calls if call[0] in GapState.__members__]
        assert told == expected.kinds
        times = {call[1]: call[2] + START_NS for call in listener.calls if call[0] in ("market", "order")}
        assert times == {delivery.row: delivery.released for delivery in expected.deliveries}


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_numbers_lost_are_exactly_those_that_were_taken_away(seed: int) -> None:
    batch = faulty(seed, loss=0.02, loss_bursts=0.002, disorder=0.05, duplicates=0.02)
    listener = await ran(MemoryLog(batch, cut=100))
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for gap in listener.replay.gaps:
        if gap.state is GapState.LOST:
            found.setdefault((gap.source.text, gap.epoch), []).append((gap.first, gap.last))
    assert {key: merged(sorted(ranges)) for key, ranges in found.items()} == batch.truth.lost
    assert batch.truth.lost


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, last in ranges:
        if out and out[-1][1] + 1 == first:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


# -- always the same --------------------------------------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(SEEDS),
    st.sampled_from([1, 7, 100, 5_000]),
    st.sampled_from([1, 20_000, 10**9]),
    st.booleans(),
    st.lists(st.integers(1, 90), max_size=5),
)
def test_digest_and_calls_are_the_same_whatever_the_cuts_slices_steps_and_pauses(
    seed: int, cut: int, slice_ns: int, waits: bool, steps: list[int]
) -> None:
    batch = bad_line(seed)[:600]
    expected = asyncio.run(ran(MemoryLog(batch)))

    async def main() -> Listener:
        listener = Listener(MemoryLog(batch, cut=cut), waits=waits, slice_ns=slice_ns)
        for count in steps:
            await listener.replay.step(count)
            listener.replay.play()
            await asyncio.sleep(0)
            listener.replay.pause()
            await listener.replay.paused()
        if listener.replay.state is not State.DONE:
            await listener.replay.run()
        return listener

    ours = asyncio.run(main())
    assert ours.calls == expected.calls
    assert ours.replay.digest == expected.replay.digest


@pytest.mark.parametrize("seed", SEEDS)
async def test_filters_never_make_gaps(seed: int) -> None:
    batch = bad_line(seed)
    whole = await ran(MemoryLog(batch))
    for selection in (
        Selection(symbols=["A"]),
        Selection(types=["market"], where=lambda rows: rows["sequence"] % 3 == 0),
    ):
        listener = await ran(MemoryLog(batch, cut=50), selection=selection)
        assert [str(gap) for gap in listener.replay.gaps] == [str(gap) for gap in whole.replay.gaps]
        assert listener.replay.statistics().filtered > 0
        assert 0 < len(listener.rows) < len(whole.rows)
        assert set(listener.rows) < set(whole.rows)
        listener.check_counts(len(batch))


# -- time -------------------------------------------------------------------------------------------------------------


async def test_what_a_deadline_releases_is_handled_at_the_deadline() -> None:
    # 2 never comes. 3 is there after 1 ms, 4 after 500 ms: by then 3 was released at 101 ms.
    batch = EventBatch.concat([numbers(1, 3)])
    rows = concat_rows([batch.records, numbers(1, 3, 4, step_ms=250).records[2:]], batch.records.dtype)
    listener = await ran(MemoryLog(EventBatch(rows, batch.symbols, batch.sources)))
    assert listener.calls == [
        ("market", 0, 0), ("OPEN", 2, 2, MS), ("LOST", 2, 2, 101 * MS), ("signal", 0, 101 * MS),
        ("market", 1, 101 * MS), ("market", 2, 500 * MS),
    ]  # fmt: skip


@pytest.mark.parametrize("waits", [False, True])
async def test_handlers_of_gaps_are_called_in_line_and_what_they_emit_comes_next(waits: bool) -> None:
    listener = await ran(MemoryLog(numbers(1, 4, 2, 3, 6, 7)), waits=waits)
    assert listener.calls == [
        ("market", 0, 0), ("OPEN", 2, 3, MS), ("FILLED", 2, 2, 2 * MS), ("market", 2, 2 * MS),
        ("FILLED", 3, 3, 3 * MS), ("market", 3, 3 * MS), ("market", 1, 3 * MS), ("OPEN", 5, 5, 4 * MS),
        ("LOST", 5, 5, 5 * MS), ("signal", 0, 5 * MS), ("market", 4, 5 * MS), ("market", 5, 5 * MS),
    ]  # fmt: skip
    assert listener.replay.statistics().emitted == 1


# -- strict -----------------------------------------------------------------------------------------------------------


async def test_a_full_strict_window_stops_the_run_until_somebody_decides() -> None:
    batch = numbers(1, 3, 4, 5, 7, source=ORDERS)
    listener = Listener(MemoryLog(batch, cut=2), ordering=Ordering(window=2))
    for _ in range(2):
        with pytest.raises(WindowFull, match=r"waits for number 2 to 2.*give_up\(\)"):
            await listener.replay.run()
        assert listener.replay.state is State.PAUSED
    assert listener.rows == [0]
    assert listener.replay.statistics().held == 2
    listener.replay.gaps.give_up()
    await listener.replay.run()
    assert listener.rows == [0, 1, 2, 3, 4]
    assert listener.replay.state is State.DONE
    assert [gap.reason for gap in listener.replay.gaps] == [GapReason.DECIDED, GapReason.END]
    listener.check_counts(5)


# -- seeking ----------------------------------------------------------------------------------------------------------


async def test_a_seek_forwards_skips_open_gaps_and_calls_nothing_missing_that_was_skipped() -> None:
    # One source misses 2 from the third row on; the other one goes on.
    messages = [{"source": 3, "sequence": at, "received": at} for at in range(1, 61)]
    messages[0] |= {"source": PLAIN, "sequence": 1}
    messages[2] |= {"source": PLAIN, "sequence": 3}
    messages[50] |= {"source": PLAIN, "sequence": 70}
    del messages[20:30]
    for at, message in enumerate(messages):
        message["received"] = at
    for at, message in enumerate(message for message in messages if message["source"] == 3):
        message["sequence"] = at + 1
    batch = stream_of(messages, session=0).batch()
    listener = Listener(MemoryLog(batch, cut=5), ordering=Ordering(deadline_s=10))
    await listener.replay.step(10)
    (gap,) = listener.replay.gaps
    assert (gap.first, gap.last, gap.state) == (2, 2, GapState.OPEN)
    await listener.replay.seek(hl_id(30))
    (gap,) = listener.replay.gaps
    assert (gap.state, gap.reason) == (GapState.LOST, GapReason.SKIPPED)
    await listener.replay.run()
    assert listener.rows == [0, 1, *range(3, 11), *range(30, 50)]
    assert listener.replay.gaps.counts == {"open": 0, "filled": 0, "lost": 1}
    assert [call[:3] for call in listener.calls if call[0] in GapState.__members__] == [("OPEN", 2, 2), ("LOST", 2, 2)]
    s = listener.replay.statistics()
    assert (s.duplicate, s.late, s.redelivered, s.held) == (0, 0, 0, 0)


def hl_id(log_sequence: int) -> int:
    return 3 << 40 | log_sequence


async def test_a_seek_forwards_gives_the_same_digest_however_far_was_read_ahead() -> None:
    messages = [{"source": 3, "sequence": at + 1, "received": at} for at in range(60)]
    messages[2] |= {"source": PLAIN, "sequence": 1}
    messages[6] |= {"source": PLAIN, "sequence": 3}  # reached
    messages[15] |= {"source": PLAIN, "sequence": 7}  # not reached
    for number, message in enumerate(message for message in messages if message["source"] == 3):
        message["sequence"] = number + 1
    batch = stream_of(messages, session=0).batch()
    found = []
    for cut in (1, 3, 8, 20, 1_000):
        listener = Listener(MemoryLog(batch, cut=cut), ordering=Ordering(deadline_s=10))
        await listener.replay.step(8)
        await listener.replay.seek(hl_id(30))
        await listener.replay.run()
        found.append((listener.calls, listener.replay.digest))
    assert found[1:] == found[:-1]


async def test_rows_that_were_read_ahead_of_a_seek_come_again() -> None:
    listener = Listener(MemoryLog(numbers(*range(1, 60)), cut=1_000))
    await listener.replay.step(3)  # all 59 were read
    await listener.replay.seek(hl_id(20))
    await listener.replay.run()
    assert listener.rows == [0, 1, 2, *range(20, 59)]
    assert listener.replay.gaps.counts == {"open": 0, "filled": 0, "lost": 0}


async def test_a_seek_backwards_begins_fresh() -> None:
    batch = bad_line(1)[:500]
    expected = await ran(MemoryLog(batch))
    listener = Listener(MemoryLog(batch, cut=60))
    await listener.replay.step(300)
    listener.calls.clear()
    await listener.replay.seek(hl_id(0))
    assert len(listener.replay.gaps) == 0
    await listener.replay.run()
    assert listener.calls == expected.calls
    assert listener.replay.digest == expected.replay.digest


# -- looking ----------------------------------------------------------------------------------------------------------


async def test_the_recorded_rows_on_either_side_of_a_gap_can_be_read() -> None:
    mixed = stream_of(
        [
            {"source": PLAIN + at % 2, "sequence": n, "received": at}
            for at, n in enumerate([1, 1, 2, 2, 3, 3, 7, 4, 8, 5, 9, 6])
        ],
        session=0,
    ).batch()
    listener = await ran(MemoryLog(mixed), selection=Selection(where=lambda rows: rows["sequence"] < 3))
    (gap,) = [gap for gap in listener.replay.gaps if gap.source == SOURCES[1]]
    before, after = await listener.replay.around(gap, messages=2)
    assert before.records["sequence"].tolist() == [2, 3]
    assert after.records["sequence"].tolist() == [7, 8]
    assert {before.sources[number] for number in before.records["source"].tolist()} == {SOURCES[1]}
    all_before, all_after = await listener.replay.around(gap)
    assert (len(all_before), len(all_after)) == (3, 3)
    assert listener.replay.state is State.DONE


async def test_a_gap_that_knows_no_rows_has_nothing_around_it() -> None:
    listener = await ran(MemoryLog(numbers(1, 2, 3)))
    unknown = Gap(Source("nyx", "trades", "A", "plus-one"), 0, 5, 5, GapState.LOST)
    before, after = await listener.replay.around(unknown)
    assert (len(before), len(after)) == (0, 0)


async def test_before_it_runs_a_replay_has_an_empty_table_of_gaps() -> None:
    replay = Replay(MemoryLog(numbers(1, 3)), EventBus(), "btc", speed=math.inf)
    assert len(replay.gaps) == 0
    assert replay.gaps.to_frame().empty
