"""The parts of a sink without a server: the buffer, the choice, and the work behind it against a writer that fails."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import BackgroundFailed, ServerUnreachable, ValidationError, WriterFenced
from hftlab.events import EventBatch, EventType, MarketDataEvent, SourceTable, SymbolTable
from hftlab.streams.sinks.behind import WriteBehind
from hftlab.streams.sinks.buffer import SLAB_ROWS, Buffer
from hftlab.streams.sinks.choosing import Choice
from hftlab.streams.sinks.options import SinkOptions
from hftlab.streams.sinks.statistics import SinkStatistics
from hftlab.streams.writers import AppendResult
from tests.streams.batches import content, mixed, trades

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 40), st.booleans()),
        st.tuples(st.just("take"), st.integers(1, 60), st.booleans()),
    ),
    max_size=30,
)


def under(batch: EventBatch, symbols: SymbolTable, sources: SourceTable) -> EventBatch:
    return batch.using(symbols, sources)


@given(STEPS, st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_a_buffer_gives_what_was_put_in_its_order_whatever_its_slabs_hold(
    steps: list[tuple[str, int, bool]], limit: int
) -> None:
    buffer = Buffer(limit)
    symbols, sources = SymbolTable(), SourceTable()
    model: list[object] = []
    put = taken = 0
    for seed, (what, count, plain) in enumerate(steps):
        if what == "put":
            batch = under(trades(count, seed=seed) if plain else mixed(count, seed=seed), symbols, sources)
            buffer.put(batch, now_ns=seed * 1_000_000)
            model += content(batch)
            put += count
        else:
            front = buffer.front(count)
            assert bool(len(front)) == bool(model)
            assert content(front) == model[: len(front)]
            buffer.done(len(front))
            del model[: len(front)]
            taken += len(front)
        assert (buffer.rows, buffer.put_rows, buffer.done_rows) == (len(model), put, taken)
        assert (buffer.free, buffer.nbytes) == (max(0, limit - len(model)), 128 * len(model))


def test_a_buffer_s_age_is_that_of_its_oldest_row_and_never_less() -> None:
    buffer = Buffer(1_000)
    assert buffer.age_ns(5_000_000) == 0
    for moment in range(1, 6):
        buffer.put(trades(10), now_ns=moment * 2_000_000)
    assert buffer.age_ns(12_000_000) == 10_000_000
    buffer.done(15)
    assert buffer.age_ns(12_000_000) == 8_000_000
    buffer.done(35)
    assert buffer.age_ns(12_000_000) == 0


def test_a_buffer_uses_its_memory_again() -> None:
    buffer = Buffer(4 * SLAB_ROWS)
    batch = trades(SLAB_ROWS // 2)
    for _ in range(40):
        buffer.put(batch, now_ns=1)
        buffer.done(len(buffer.front(SLAB_ROWS)))
    assert len(buffer._spare) + len(buffer._slabs) <= 2


def test_what_a_buffer_showed_keeps_its_names_while_the_bus_names_more() -> None:
    symbols, sources = SymbolTable(), SourceTable()
    buffer = Buffer(100)
    buffer.put(under(trades(3), symbols, sources), now_ns=0)
    front = buffer.front(3)
    buffer.put(under(trades(3, symbols=("ETHUSDT",)), symbols, sources), now_ns=0)
    assert len(front.symbols) == 1
    assert buffer.front(6).column("symbol") == ["BTCUSDT"] * 3 + ["ETHUSDT"] * 3


def test_a_choice_picks_types_and_symbols_also_of_a_table_that_grows() -> None:
    symbols, sources = SymbolTable(), SourceTable()
    choice = Choice([MarketDataEvent, "signal"], ["BTCUSDT", "NEW"])
    for seed in range(3):
        batch = under(mixed(60, seed=seed), symbols, sources)
        mask = choice.mask(batch)
        wanted = [
            event.event_type in (EventType.MARKET_DATA, EventType.SIGNAL) and event.symbol == "BTCUSDT"
            for event in batch
        ]
        assert mask is not None
        assert mask.tolist() == wanted
    grown = under(trades(4, symbols=("NEW",)), symbols, sources)
    assert choice.mask(grown) is None, "all of them are wanted"
    assert Choice().is_all
    assert Choice().mask(grown) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mode": "aside"}, "mode= is one of 'behind', 'ahead'"),
        ({"overflow": "lose"}, "overflow= is one of 'wait', 'drop newest', 'raise'"),
        ({"flush_s": -1}, "flush_s= is a number of seconds"),
        ({"buffer_rows": 0}, "buffer_rows= is an integer from 1 on"),
        ({"frame_rows": 0}, "frame_rows is an integer"),
        ({"name": ""}, "a sink's name"),
        ({"mode": "ahead", "choice": Choice("order")}, "leave types= and symbols= out"),
    ],
)
def test_a_mistake_in_a_sink_s_options_is_told_where_it_was_made(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SinkOptions(**{"choice": Choice(), **options})  # type: ignore[arg-type]


class FailingWriter:
    """Writes into a list; by chance a call fails, having written nothing, a part, or everything."""

    def __init__(self, seed: int, unstorable: frozenset[int] = frozenset()) -> None:
        self.chance = random.Random(seed)
        self.unstorable = unstorable
        self.written: list[int] = []
        self.failures = 0
        self.fenced = False

    async def append(self, batch: EventBatch) -> AppendResult:
        await asyncio.sleep(0)
        if self.fenced:
            raise WriterFenced("another writer took over")
        rows = batch.records["sequence"].tolist()
        if self.unstorable.intersection(rows):
            raise ValidationError("these rows can't be stored")
        if self.chance.random() < 0.4:
            self.failures += 1
            self.written += rows[: self.chance.randint(0, len(rows))]
            raise ServerUnreachable("no server")
        self.written += rows
        return AppendResult("s", 1, 0, 0, len(rows), 1, 1)

    async def settle(self) -> int:
        await asyncio.sleep(0)
        if self.chance.random() < 0.2:
            raise ServerUnreachable("no server")
        return len(self.written)


def behind_of(writer: FailingWriter, buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> WriteBehind:
    monkeypatch.setattr("hftlab.streams.sinks.behind._AGAIN_S", 0)

    async def claim() -> FailingWriter:
        if writer.chance.random() < 0.5:
            raise ServerUnreachable("no server")
        return writer

    return WriteBehind(claim, buffer, flush_s=0.0, frame_rows=7, now_ns=lambda: 0, on_progress=lambda: None)


@pytest.mark.parametrize("seed", range(8))
async def test_each_row_is_written_once_and_in_order_however_appends_fail(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    unstorable = frozenset(chance.sample(range(1, 300), 3))
    writer, buffer = FailingWriter(seed, unstorable), Buffer(1 << 10)
    behind = behind_of(writer, buffer, monkeypatch)
    task = asyncio.create_task(behind.work())
    batch, done = trades(300), 0
    while done < len(batch):
        step = chance.randint(1, 40)
        behind.put(batch[done : done + step])
        done += step
        if chance.random() < 0.3:
            await behind.flush()
            assert not buffer.rows
        await asyncio.sleep(0)
    await behind.flush()
    assert writer.written == [number for number in range(1, 301) if number not in unstorable]
    assert (behind.kept, behind.unstorable) == (297, 3)
    assert await behind.close(5.0) == 0
    await task
    assert writer.failures > 0


async def test_work_that_lost_its_name_says_so_and_what_waits_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, buffer = FailingWriter(0), Buffer(100)
    writer.fenced = True
    behind = behind_of(writer, buffer, monkeypatch)
    behind.put(trades(10))
    await behind.work()
    assert isinstance(behind.failure, WriterFenced)
    with pytest.raises(BackgroundFailed, match="not all that was accepted is kept: another writer took over"):
        await behind.flush()
    assert await behind.close(5.0) == 10
    assert (behind.kept, buffer.rows) == (0, 0)


async def test_a_close_before_the_work_has_begun_waits_for_no_longer_than_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = Buffer(100)
    behind = behind_of(FailingWriter(0), buffer, monkeypatch)
    behind.put(trades(4))
    assert await behind.close(0.0) == 4
    await behind.work()


def test_statistics_say_in_words_what_a_crash_would_cost() -> None:
    shown = SinkStatistics(
        "day", "behind", "keeping", accepted=1_300, kept=1_000, waiting_rows=300, waiting_bytes=38_400, oldest_s=0.0081
    )
    assert repr(shown) == (
        "SinkStatistics('day', keeping: 1,000 of 1,300 kept; if this process dies now, the last 300 events (8.1 ms) "
        "are lost)"
    )
    assert "<th style='text-align:left'>waiting rows</th><td>300</td>" in shown._repr_html_()
    quiet = SinkStatistics("day", "behind", "keeping", accepted=5, kept=3, dropped=2)
    assert quiet.in_words == "if this process dies now, nothing is lost; 2 dropped"
    assert SinkStatistics("d", "behind", "closed", accepted=5, kept=5).in_words == "5 of 5 accepted events are kept"


def test_a_row_s_place_in_a_batch_does_not_change_what_a_buffer_copies() -> None:
    buffer = Buffer(100)
    batch = trades(20)
    buffer.put(batch[3:9], now_ns=0)
    batch.records["price"] = np.nan
    assert content(buffer.front(6)) == content(trades(20)[3:9])
