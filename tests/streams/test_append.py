"""Appending: durable, in one total order, and once, however often it is repeated."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from hftlab.clock import VirtualClock
from hftlab.errors import AppendConflict, ServerRefused, ValidationError
from hftlab.events import EventBatch, Flags, SignalEvent
from hftlab.events.ports import LogRange
from hftlab.events.records import split_event_id
from hftlab.streams import AppendResult, EmbeddedServer, RedisStreamManager
from hftlab.streams.scripts import APPEND
from tests.streams.batches import START_NS, content, log_sequences, mixed, trades
from tests.streams.servers import managed, until


async def test_what_was_appended_comes_back_in_order_with_dense_log_sequences(streams: RedisStreamManager) -> None:
    batch = mixed(3_000)
    result = await streams.append(batch, session="day")
    back = await streams.range("day")
    assert content(back) == content(batch)
    assert log_sequences(back) == list(range(3_000))
    assert (result.session, result.events, result.duplicate) == ("day", 3_000, False)
    assert back.event_ids[0] == result.first_event_id
    assert back.event_ids[-1] == result.last_event_id


async def test_a_session_knows_what_it_holds(streams: RedisStreamManager) -> None:
    batch = mixed(2_500)
    result = await streams.append(batch, session="day")
    info = await streams.session("day")
    assert info.events == 2_500
    assert info.counts == {event_type.topic: count for event_type, count in batch.counts().items()}
    assert (info.start_ns, info.end_ns) == (START_NS, int(batch.records["received"].max()))
    assert info.symbols == ("BTCUSDT", "ETHUSDT", "SOL-Ünï")
    assert info.stored_bytes == result.stored_bytes > 0
    assert info.number == result.number == split_event_id(result.first_event_id)[0]


async def test_appending_the_same_batch_again_returns_the_first_result_and_writes_nothing(
    streams: RedisStreamManager,
) -> None:
    batch = mixed(2_000)
    first = await streams.append(batch, session="day")
    before = await streams.session("day")
    again = await streams.append(EventBatch.concat([batch[:700], batch[700:]]), session="day")
    assert again.duplicate
    assert again == AppendResult(**{**first.__dict__, "duplicate": True})
    assert await streams.session("day") == before
    assert streams.statistics().duplicates == 1


async def test_the_same_content_under_another_key_or_in_another_session_is_written(one: RedisStreamManager) -> None:
    batch = trades(10)
    results = [
        await one.append(batch, session="a"),
        await one.append(batch, session="a", key="second time"),
        await one.append(batch, session="b"),
    ]
    assert not any(result.duplicate for result in results)
    assert (await one.session("a")).events == 20
    assert (await one.append(batch, session="a", key="second time")).duplicate


async def test_a_key_that_was_used_for_other_content_is_refused(one: RedisStreamManager) -> None:
    await one.append(trades(10), session="a", key="k")
    with pytest.raises(AppendConflict, match=r"'k'.*other content"):
        await one.append(trades(10, seed=1), session="a", key="k")
    assert (await one.session("a")).events == 10


@pytest.mark.parametrize("frame_rows", [1, 7, 1_024, 65_536])
async def test_the_frame_size_changes_nothing_that_is_read(embedded: EmbeddedServer, frame_rows: int) -> None:
    batch = mixed(500)
    async with managed(embedded, frame_rows=frame_rows) as manager:
        await manager.append(batch, session="day")
        back = await manager.range("day")
        assert (content(back), log_sequences(back)) == (content(batch), list(range(500)))


async def test_an_interrupted_append_goes_on_where_it_stopped_even_with_another_frame_size(
    server: EmbeddedServer,
) -> None:
    batch = mixed(6_000)
    async with managed(server, frame_rows=100, in_flight=2) as first:
        namespace = first._keys.namespace
        task = asyncio.create_task(first.append(batch, session="day"))
        await until(lambda: first.statistics().events_appended >= 1_000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        written = (await first.session("day")).events
        assert 1_000 <= written < 6_000
        async with managed(server, namespace=namespace, frame_rows=64) as second:
            result = await second.append(batch, session="day")
            assert not result.duplicate
            assert second.statistics().resumed == 1
            assert second.statistics().events_appended == 6_000 - written
            back = await second.range("day")
            assert (content(back), log_sequences(back)) == (content(batch), list(range(6_000)))
            assert [back.event_ids[0], back.event_ids[-1]] == [result.first_event_id, result.last_event_id]


async def test_two_processes_may_append_the_same_batch_at_once(server: EmbeddedServer) -> None:
    batch = mixed(4_000)
    async with (
        managed(server, frame_rows=100) as one,
        managed(server, namespace=one._keys.namespace, frame_rows=70) as other,
    ):
        results = await asyncio.gather(one.append(batch, session="day"), other.append(batch, session="day"))
        # Both may have drawn a number for the session that neither found; one of the two numbers is the session's.
        number = (await one.session("day")).number
        assert {result.first_event_id for result in results} == {number << 40}
        back = await one.range("day")
        assert (content(back), log_sequences(back)) == (content(batch), list(range(4_000)))


async def test_single_entries_and_frames_are_read_alike_and_mixed(streams: RedisStreamManager) -> None:
    batch = mixed(900)
    await streams.append(batch[:300], session="day")
    result = await streams.append(batch[300:600], session="day", format="entries")
    await streams.append(batch[600:], session="day")
    assert result.entries == 300
    back = await streams.range("day")
    assert (content(back), log_sequences(back)) == (content(batch), list(range(900)))


async def test_an_entry_can_be_read_with_redis_cli(streams: RedisStreamManager) -> None:
    await streams.append(trades(2), session="day", format="entries")
    keys = streams._keys.session((await streams.session("day")).number)
    (first_id, first), (second_id, _) = await streams._connections.call("XRANGE", f"{keys.meta[:-5]}:market", "-", "+")
    fields = dict(zip(first[::2], first[1::2], strict=True))
    assert first_id == b"1723161255000-0"
    assert second_id == b"1723161255000-1"
    assert fields[b"log_sequence"] == b"0"
    assert (fields[b"type"], fields[b"symbol"], fields[b"kind"]) == (b"market", b"BTCUSDT", b"TRADE")


async def test_entry_ids_never_run_back_though_arrivals_do(streams: RedisStreamManager) -> None:
    late = trades(10, start_ns=START_NS + 10**9)
    early = trades(10, seed=1)
    await streams.append(late, session="day")
    await streams.append(early, session="day")
    back = await streams.range("day")
    assert content(back) == content(EventBatch.concat([late, early]))
    keys = streams._keys.session(1)
    held = await streams._connections.call("HMGET", keys.meta, "last_ms", "backward_ms")
    assert int(held[0]) == (START_NS + 10**9 + 9 * 250_000) // 10**6
    assert int(held[1]) == int(held[0]) - START_NS // 10**6
    info = await streams.session("day")
    assert (info.start_ns, info.end_ns) == (START_NS, START_NS + 10**9 + 9 * 250_000)


async def test_rows_without_arrival_are_stamped_by_the_managers_clock(embedded: EmbeddedServer) -> None:
    async with managed(embedded, clock=VirtualClock(START_NS)) as manager:
        await manager.append(EventBatch.from_events([SignalEvent(symbol="X", signal_type="A")]), session="day")
        (event,) = await manager.range("day")
        assert (event.received, event.timestamp) == (START_NS, START_NS)
        assert event.flags & Flags.ARRIVAL_TIME
        again = await manager.append(EventBatch.from_events([SignalEvent(symbol="X", signal_type="A")]), session="day")
        assert again.duplicate, "the content is known by what it was before it was stamped"


async def test_rows_of_another_session_get_new_log_sequences_and_keep_their_causes(one: RedisStreamManager) -> None:
    await one.append(trades(5), session="a")
    read = await one.range("a")
    read.records["cause"][1:] = read.event_ids[:-1]
    await one.append(trades(3, seed=9), session="b")
    await one.append(read, session="b")
    back = (await one.range("b"))[3:]
    assert log_sequences(back) == [3, 4, 5, 6, 7]
    assert back.records["cause"].tolist() == read.records["cause"].tolist()
    assert set(back.event_ids >> 40) == {2}


async def test_an_empty_batch_makes_the_session_and_nothing_else(one: RedisStreamManager) -> None:
    result = await one.append(EventBatch.empty(), session="empty")
    assert (result.events, result.first_event_id, result.duplicate) == (0, 0, False)
    info = await one.session("empty")
    assert (info.events, info.start_ns, info.end_ns) == (0, 0, 0)
    assert len(await one.range("empty")) == 0


async def test_appends_that_name_no_session_share_one(one: RedisStreamManager, embedded: EmbeddedServer) -> None:
    first = await one.append(trades(3))
    second = await one.append(trades(3, seed=1))
    assert first.session == second.session == one.session_name
    async with managed(embedded, session="mine") as named:
        assert (await named.append(trades(3))).session == "mine"


async def test_a_batch_that_can_not_be_stored_writes_nothing_at_all(one: RedisStreamManager) -> None:
    batch = trades(5_000)
    batch.records["kind"][4_999] = 77
    with pytest.raises(ValidationError):
        await one.append(batch, session="day")
    assert await one.sessions() == []


@pytest.mark.parametrize("wrong", [[1, 2], None, "batch", np.zeros(3)])
async def test_what_is_no_batch_is_refused(one: RedisStreamManager, wrong: object) -> None:
    with pytest.raises(ValidationError, match="append takes an EventBatch"):
        await one.append(wrong, session="day")  # type: ignore[arg-type]


async def test_a_format_that_does_not_exist_is_refused(one: RedisStreamManager) -> None:
    with pytest.raises(ValidationError, match="frames, entries"):
        await one.append(trades(1), session="day", format="json")  # type: ignore[arg-type]


async def test_somebody_elses_later_entry_does_not_keep_ours_out(streams: RedisStreamManager) -> None:
    await streams.append(mixed(100), session="day")
    keys = streams._keys.session(1)
    for stream in keys.streams.values():
        await streams._connections.call("XADD", stream, "2000000000000-7", "theirs", "1")
    more = mixed(100, seed=1)
    await streams.append(more, session="day")
    info = await streams.session("day")
    assert info.events == 200
    batches = [
        b async for b in streams.read(info, LogRange(), symbols=more.symbols, sources=more.sources, on_damaged="skip")
    ]
    assert log_sequences(EventBatch.concat(batches)) == list(range(200))
    assert streams.statistics().damaged == 4


async def test_an_append_that_can_not_be_stored_whole_leaves_nothing_of_it(one: RedisStreamManager) -> None:
    await one.append(trades(10), session="day")
    keys = one._keys.session(1)
    streams = list(keys.streams.values())
    # The last of the four streams takes nothing: what the first three took must go again.
    await one._connections.call("SET", streams[3], "not a stream")
    with pytest.raises(ServerRefused, match="WRONGTYPE"):
        await one.append(mixed(200), session="day")
    assert (await one.session("day")).events == 10
    lengths = await one._connections.call_many([("XLEN", stream) for stream in streams[:3]])
    assert lengths == [1, 0, 0]
    await one._connections.call("DEL", streams[3])
    await one.append(mixed(200), session="day")
    assert log_sequences(await one.range("day")) == list(range(210))


async def test_scripts_that_the_server_forgot_are_loaded_again(embedded: EmbeddedServer) -> None:
    async with managed(embedded) as manager:
        writer = await manager.writer("day", "recorder")
        await manager._connections.call("SCRIPT", "FLUSH")
        assert await manager._connections.call("SCRIPT", "EXISTS", APPEND.sha) == [0]
        await writer.append(trades(3_000))
        await manager._connections.call("SCRIPT", "FLUSH")
        await manager.append(trades(3_000, seed=1), session="day")
        assert log_sequences(await manager.range("day")) == list(range(6_000))


async def test_a_long_append_shows_its_progress(
    embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hftlab.streams.progress._PATIENCE_S", 0.0)
    async with managed(embedded, progress=True, frame_rows=10) as manager:
        await manager.append(trades(1_000), session="day")
    assert "append to day" in capsys.readouterr().err


async def test_a_short_append_prints_nothing(embedded: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    async with managed(embedded, progress=True) as manager:
        await manager.append(trades(3_000), session="day")
    assert capsys.readouterr() == ("", "")


async def test_results_are_short_and_stable_for_notebooks(one: RedisStreamManager) -> None:
    result = await one.append(trades(2_000), session="<day>")
    assert repr(result) == "AppendResult('<day>': 2,000 events in 2 entries)"
    again = await one.append(trades(2_000), session="<day>")
    assert repr(again) == "AppendResult('<day>': 2,000 events in 2 entries, there already)"
    assert "&lt;day&gt;" in result._repr_html_()
    assert "nothing was written" in again._repr_html_()
