"""Reading: by time, log sequence, event id and entry id; the same rows however they were cut and fetched."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.errors import CodecError, SchemaError, TimeError, UnknownEvent, UnknownSession, ValidationError
from hftlab.events import EventBatch, EventType, MarketDataEvent, OrderEvent, Source, SourceTable, SymbolTable
from hftlab.events.digest import RowDigest
from hftlab.events.frames import encode_frame
from hftlab.events.ports import LogRange, SessionInfo, SessionLog
from hftlab.events.records import blank, event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.reading import pages_of
from hftlab.streams.stored import Entry
from tests.streams.batches import START_NS, STEP_NS, content, log_sequences, mixed, trades
from tests.streams.servers import in_a_loop, managed


async def collect(
    manager: RedisStreamManager,
    session: SessionInfo,
    wanted: LogRange | None = None,
    *,
    prefetch: int = 4,
    symbols: SymbolTable | None = None,
    sources: SourceTable | None = None,
) -> EventBatch:
    symbols, sources = symbols or SymbolTable(), sources or SourceTable()
    batches = [
        batch
        async for batch in manager.read(
            session, wanted or LogRange(), symbols=symbols, sources=sources, prefetch=prefetch
        )
    ]
    assert all(len(batch) for batch in batches)
    assert all(batch.symbols is symbols and batch.sources is sources for batch in batches)
    assert all(batch.session_number == session.number for batch in batches)
    return EventBatch.concat(batches)


async def test_the_manager_is_the_log_that_a_replay_reads_from(one: RedisStreamManager) -> None:
    log: SessionLog = one
    await one.append(trades(3), session="day")
    info = await log.session("day")
    rows = log.read(info, LogRange(), symbols=SymbolTable(), sources=SourceTable(), prefetch=1)
    assert [len(batch) async for batch in rows] == [3]


async def test_the_depth_of_prefetching_changes_nothing(streams: RedisStreamManager) -> None:
    batch = mixed(5_000)
    await streams.append(batch, session="day")
    info = await streams.session("day")
    for prefetch in (1, 2, 50):
        back = await collect(streams, info, prefetch=prefetch)
        assert log_sequences(back) == list(range(5_000))
    assert content(back) == content(batch)


async def test_a_range_of_time_includes_its_start_and_not_its_end(streams: RedisStreamManager) -> None:
    batch = mixed(4_000)
    await streams.append(batch, session="day")
    info = await streams.session("day")
    for first, last in ((0, 4_000), (1_000, 1_001), (1_023, 2_049), (3_999, 4_000), (500, 500)):
        wanted = LogRange(start_ns=START_NS + first * STEP_NS, end_ns=START_NS + last * STEP_NS)
        assert log_sequences(await collect(streams, info, wanted)) == list(range(first, last))
        inside = LogRange(start_ns=START_NS + first * STEP_NS - 1, end_ns=START_NS + last * STEP_NS + 1)
        upper = min(last + 1, 4_000)
        assert log_sequences(await collect(streams, info, inside)) == list(range(first, upper))


async def test_a_range_of_log_sequences_starts_and_ends_within_frames(streams: RedisStreamManager) -> None:
    await streams.append(mixed(4_000), session="day")
    info = await streams.session("day")
    for first, last in ((0, 1), (1_023, 1_025), (1_500, 3_999), (3_999, 9_999), (5_000, 6_000), (7, 7)):
        found = log_sequences(await collect(streams, info, LogRange(start_log=first, end_log=last)))
        assert found == list(range(min(first, 4_000), min(last, 4_000)))


async def test_types_are_chosen_without_reading_the_others(streams: RedisStreamManager) -> None:
    batch = mixed(3_000)
    await streams.append(batch, session="day")
    info = await streams.session("day")
    before = streams.statistics().events_read
    wanted = frozenset({EventType.ORDER, EventType.FILL})
    back = await collect(streams, info, LogRange(types=wanted))
    chosen = np.flatnonzero(np.isin(batch.records["type"], [int(one) for one in wanted]))
    assert log_sequences(back) == chosen.tolist()
    assert streams.statistics().events_read - before == len(chosen)
    assert log_sequences(await collect(streams, info, LogRange(types=frozenset()))) == []


async def test_late_arrivals_are_found_by_their_own_time(streams: RedisStreamManager) -> None:
    await streams.append(trades(2_000, start_ns=START_NS + 60 * 10**9), session="day")
    await streams.append(trades(50, seed=1, start_ns=START_NS), session="day")
    info = await streams.session("day")
    early = await collect(streams, info, LogRange(start_ns=START_NS, end_ns=START_NS + 10**9))
    assert log_sequences(early) == list(range(2_000, 2_050))
    assert len(await collect(streams, info, LogRange(start_ns=START_NS + 60 * 10**9))) == 2_000


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    moments=st.lists(st.integers(0, 400), min_size=1, max_size=120),
    frame_rows=st.integers(1, 40),
    low=st.integers(-10, 410),
    span=st.integers(0, 420),
)
def test_time_ranges_agree_with_a_filter_over_all_rows(
    embedded: EmbeddedServer, moments: list[int], frame_rows: int, low: int, span: int
) -> None:
    """Arrivals jump back and forth by milliseconds, which moves frames far from the times in their ids."""

    async def check() -> None:
        batch = trades(len(moments))
        batch.records["received"] = START_NS + np.array(moments) * 500_000
        async with managed(embedded, frame_rows=frame_rows) as manager:
            await manager.append(batch, session="s", key="k")
            start, end = START_NS + low * 500_000, START_NS + (low + span) * 500_000
            back = await collect(manager, await manager.session("s"), LogRange(start_ns=start, end_ns=end))
            expected = [index for index, moment in enumerate(moments) if low <= moment < low + span]
            assert log_sequences(back) == expected
            await manager.delete("s")

    in_a_loop(check())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    gaps_ms=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    frame_rows=st.integers(1, 30),
    first=st.integers(0, 500),
    count=st.integers(0, 500),
)
def test_log_ranges_agree_with_a_slice_wherever_entries_stand(
    embedded: EmbeddedServer, sizes: list[int], gaps_ms: list[int], frame_rows: int, first: int, count: int
) -> None:
    async def check() -> None:
        async with managed(embedded, frame_rows=frame_rows) as manager:
            at = START_NS
            for index, size in enumerate(sizes):
                batch = mixed(size, seed=index, start_ns=at)
                await manager.append(batch, session="s", format="entries" if index % 3 == 2 else "frames")
                at += gaps_ms[index] * 1_000_000
            found = await collect(manager, await manager.session("s"), LogRange(start_log=first, end_log=first + count))
            assert log_sequences(found) == list(range(sum(sizes)))[first : first + count]
            await manager.delete("s")

    in_a_loop(check())


async def test_rows_come_under_the_callers_tables_whatever_is_in_them(streams: RedisStreamManager) -> None:
    batch = mixed(1_000)
    await streams.append(batch, session="day")
    symbols = SymbolTable(["XRPUSDT", "ETHUSDT"])
    sources = SourceTable([Source("elsewhere")])
    back = await collect(streams, await streams.session("day"), symbols=symbols, sources=sources)
    assert content(back) == content(batch)
    assert symbols.values[:2] == ["XRPUSDT", "ETHUSDT"]


async def test_what_is_appended_later_is_no_part_of_a_session_asked_for_earlier(streams: RedisStreamManager) -> None:
    await streams.append(mixed(500), session="day")
    info = await streams.session("day")
    await streams.append(mixed(700, seed=1), session="day")
    assert log_sequences(await collect(streams, info)) == list(range(500))


async def test_reading_beside_a_writer_shows_no_hole(streams: RedisStreamManager) -> None:
    writing = asyncio.create_task(streams.append(mixed(8_000), session="day", key="all"))
    while not writing.done():
        await asyncio.sleep(0)
        sessions = await streams.sessions()
        if sessions and sessions[0].events:
            assert log_sequences(await collect(streams, sessions[0])) == list(range(sessions[0].events))
    await writing


async def test_ranges_take_times_event_ids_and_entry_ids(streams: RedisStreamManager) -> None:
    await streams.append(mixed(4_000), session="day")
    number = (await streams.session("day")).number

    async def logs(start: object = None, end: object = None) -> list[int]:
        return log_sequences(await streams.range("day", start, end))  # type: ignore[arg-type]

    assert await logs() == list(range(4_000))
    assert await logs(event_id(number, 10), event_id(number, 20)) == list(range(10, 20))
    assert await logs("23:54:15.5") == list(range(2_000, 4_000))
    assert await logs("2024-08-08T23:54:15.1Z", START_NS + 200_000_000) == list(range(400, 800))
    entries = await streams._connections.call("XRANGE", streams._keys.session(number).meta[:-5] + ":market", "-", "+")
    second = entries[1][0].decode()
    assert await logs(second) == list(range(1_024, 4_000))
    assert await logs(None, second) == list(range(1_024))
    assert await logs(end="0-0") == []
    assert await logs("99999999999999-0") == []


async def test_ranges_of_types_hold_those_only(one: RedisStreamManager) -> None:
    batch = mixed(1_000)
    await one.append(batch, session="day")
    assert set((await one.range("day", types=OrderEvent)).counts()) == {EventType.ORDER}
    assert set((await one.range("day", types=[MarketDataEvent, "fill"])).counts()) == {
        EventType.MARKET_DATA,
        EventType.FILL,
    }


async def test_an_empty_or_inverted_range_is_an_empty_batch(one: RedisStreamManager) -> None:
    await one.append(trades(100), session="day")
    for start, end in (("23:54:16", "23:54:15"), ("23:58", "23:59"), (START_NS, START_NS)):
        found = await one.range("day", start, end)
        assert len(found) == 0


async def test_times_that_mean_nothing_here_are_explained(one: RedisStreamManager) -> None:
    await one.append(trades(100), session="day")
    with pytest.raises(TimeError, match="has no zone"):
        await one.range("day", "2024-08-08T23:54:15")
    with pytest.raises(TimeError, match="no time that can be read"):
        await one.range("day", "half past")


async def test_an_event_is_found_by_its_id(streams: RedisStreamManager) -> None:
    batch = mixed(2_500)
    await streams.append(batch, session="day")
    number = (await streams.session("day")).number
    for log in (0, 1_023, 1_024, 2_499):
        event = await streams.get(event_id(number, log))
        assert event.event_id == event_id(number, log)
        assert content(EventBatch.from_events([event])) == content(batch[log : log + 1])


async def test_an_event_that_is_not_there_is_an_error_that_says_why(one: RedisStreamManager) -> None:
    await one.append(trades(10), session="day")
    with pytest.raises(UnknownEvent, match="it ends at 9"):
        await one.get(event_id(1, 10))
    with pytest.raises(UnknownSession, match="number 9"):
        await one.get(event_id(9, 10))
    with pytest.raises(ValidationError):
        await one.get(0)


async def test_a_session_that_was_deleted_is_not_read_as_empty(one: RedisStreamManager) -> None:
    await one.append(trades(10), session="day")
    info = await one.session("day")
    await one.delete("day")
    with pytest.raises(UnknownSession, match="does not exist any more"):
        await collect(one, info)


async def test_entries_that_vanished_are_counted(one: RedisStreamManager) -> None:
    await one.append(trades(5_000), session="day")
    info = await one.session("day")
    stream = next(iter(one._keys.session(info.number).streams.values()))
    entries = await one._connections.call("XRANGE", stream, "-", "+")
    await one._connections.call("XDEL", stream, entries[1][0], entries[4][0])
    back = await collect(one, info)
    assert len(back) == 5_000 - 1_024 - (5_000 - 4 * 1_024)
    assert one.statistics().events_missing == 5_000 - len(back)


async def test_a_reader_may_stop_in_the_middle(one: RedisStreamManager) -> None:
    await one.append(trades(60_000), session="day")
    info = await one.session("day")
    for _ in range(3):
        async for batch in one.read(info, LogRange(), symbols=SymbolTable(), sources=SourceTable(), prefetch=2):
            assert len(batch)
            break
    assert len(await collect(one, info)) == 60_000


async def test_the_digest_of_a_session_does_not_depend_on_how_it_was_cut(embedded: EmbeddedServer) -> None:
    digests = set()
    for frame_rows, prefetch in ((1, 1), (100, 3), (65_536, 8)):
        async with managed(embedded, frame_rows=frame_rows) as manager:
            await manager.append(mixed(1_500), session="day")
            digest = RowDigest()
            info = await manager.session("day")
            async for batch in manager.read(
                info, LogRange(), symbols=SymbolTable(), sources=SourceTable(), prefetch=prefetch
            ):
                digest.update(batch)
            digests.add(digest.hexdigest())
    assert len(digests) == 1


async def test_a_frame_of_a_newer_schema_names_stream_and_entry(one: RedisStreamManager) -> None:
    await one.append(trades(10), session="day")
    stream = one._keys.session(1).streams[EventType.MARKET_DATA]
    ((entry_id, fields),) = await one._connections.call("XRANGE", stream, "-", "+")
    newer = fields[5][:4] + (99).to_bytes(2, "little") + fields[5][6:]
    await one._connections.call("DEL", stream)
    await one._connections.call("XADD", stream, entry_id, *fields[:5], newer)
    with pytest.raises(SchemaError, match=r"s:1:market, entry 1723161255002-0: .*schema 99"):
        await one.range("day")
    assert issubclass(SchemaError, CodecError)


def test_what_is_decoded_at_once_is_bounded_whatever_a_page_holds() -> None:
    frame = encode_frame(EventBatch(blank(65_536, EventType.MARKET_DATA), SymbolTable(["X"])))
    big: Entry = (b"1-1", [b"log_sequence", b"1", b"frame", frame])
    small: Entry = (b"1-1", [b"log_sequence", b"1", b"type", b"market"])
    assert [len(page) for page in pages_of([big, big, small, small, big])] == [1, 1, 2, 1]
    assert [len(page) for page in pages_of([small] * 100)] == [100]


async def test_entries_without_the_time_of_their_append_are_read_as_ever(one: RedisStreamManager) -> None:
    written = trades(30)
    await one.append(written, session="day")
    await one.publish(next(written.events()), session="day")
    stream = one._keys.session(1).streams[EventType.MARKET_DATA]
    before = await one.range("day")
    entries = await one._connections.call("XRANGE", stream, "-", "+")
    assert all(fields[2] == b"appended" and fields[3].isdigit() for _, fields in entries)
    await one._connections.call("DEL", stream)
    for entry_id, fields in entries:
        await one._connections.call("XADD", stream, entry_id, *fields[:2], *fields[4:])
    assert (await one.range("day")).records.tobytes() == before.records.tobytes()
