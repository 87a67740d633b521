"""Retention: whole entries go, from all streams at one log sequence, never past what a group has not handled."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.errors import HftlabError, UnknownEvent, UnknownSession, UnreadWouldBeLost, ValidationError
from hftlab.events import EventBatch, OrderEvent, SourceTable, SymbolTable
from hftlab.events.group_ports import Commit
from hftlab.events.ports import LogRange
from hftlab.events.records import event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import START_NS, STEP_NS, content, log_sequences, mixed, trades
from tests.streams.members import active, everything
from tests.streams.servers import in_a_loop, managed


async def put_group(manager: RedisStreamManager, number: int, name: str, log: int, held: str = "") -> None:
    """A group as consumers leave it on the server: its position, and what it holds of what lies before that."""
    prefix = manager._keys.session(number).meta.removesuffix(":meta")
    await manager._connections.call("SADD", f"{prefix}:groups", name)
    await manager._connections.call("HSET", f"{prefix}:g:{name}", "log", log, "held", held)


async def follow(tail: AsyncIterator[EventBatch], seen: list[EventBatch], log: int) -> None:
    """Read on until a row at or after that log sequence came."""
    async with asyncio.timeout(20):
        while int(seen[-1].records["log_sequence"][-1]) < log:
            seen.append(await anext(tail))


async def entries_of(manager: RedisStreamManager, number: int) -> int:
    streams = manager._keys.session(number).streams.values()
    return sum(await manager._connections.call_many([("XLEN", stream) for stream in streams]))


async def test_what_is_left_begins_at_the_event_that_was_named(streams: RedisStreamManager) -> None:
    batch = mixed(5_000)
    await streams.append(batch, session="day")
    number = (await streams.session("day")).number
    before = await entries_of(streams, number)
    result = await streams.trim("day", before=event_id(number, 3_300))
    assert (result.trimmed, result.events, result.events_removed, result.lost) == (3_300, 1_700, 3_300, {})
    assert await entries_of(streams, number) == before - result.entries_removed
    back = await streams.range("day")
    assert log_sequences(back) == list(range(3_300, 5_000))
    assert content(back) == content(batch)[3_300:]
    info = await streams.session("day")
    assert (info.trimmed, info.events) == (3_300, 5_000)
    assert "trimmed=3300" in repr(info)
    assert repr(result).startswith("TrimResult('day': 3,300 events removed, 1,700 left, from log sequence 3,300 on")
    assert "3,300 events" in result._repr_html_()


async def test_trimming_before_a_time_keeps_all_that_arrived_then_or_later(streams: RedisStreamManager) -> None:
    await streams.append(trades(3_000), session="day")
    result = await streams.trim("day", before=START_NS + 1_234 * STEP_NS)
    assert result.trimmed == 1_234
    assert (await streams.range("day")).records["received"].min() == START_NS + 1_234 * STEP_NS
    far = await streams.trim("day", before=START_NS + 10**15)
    assert (far.trimmed, far.events) == (3_000, 0)
    assert len(await streams.range("day")) == 0


async def test_a_number_of_events_is_kept_and_appending_goes_on(streams: RedisStreamManager) -> None:
    writer = await streams.writer("day", "recorder")
    await writer.append(mixed(3_000))
    assert (await streams.trim("day", keep_events=0)).trimmed == 3_000
    assert await entries_of(streams, 1) == 0
    result = await writer.append(mixed(500, seed=1))
    assert result.first_event_id == event_id(1, 3_000)
    assert content(await streams.range("day")) == content(mixed(500, seed=1))
    assert (await streams.trim("day", keep_events=10_000)).events_removed == 0
    again = await streams.append(mixed(50, seed=2), session="day")
    assert not again.duplicate


async def test_no_more_goes_than_a_number_of_bytes_asks_for(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=100) as manager:
        await manager.append(mixed(4_000), session="day")
        whole = await manager.session("day")
        wanted = whole.stored_bytes // 3
        result = await manager.trim("day", keep_bytes=wanted)
        info = await manager.session("day")
        assert info.stored_bytes == whole.stored_bytes - result.bytes_removed
        # At most one entry a stream too many, and less than a chunk too few.
        assert wanted - 4_000 < info.stored_bytes <= wanted
        streams = manager._keys.session(1).streams.values()
        found = await manager._connections.call_many([("XRANGE", stream, "-", "+") for stream in streams])
        assert info.stored_bytes == sum(len(text) for entries in found for _, words in entries for text in words[4:])
        assert (await manager.trim("day", keep_bytes=wanted)).events_removed == 0
        assert (await manager.trim("day", keep_bytes=0)).trimmed == 4_000
        assert (await manager.session("day")).stored_bytes == 0


async def test_what_a_group_has_not_handled_stays_unless_forced(streams: RedisStreamManager) -> None:
    await streams.append(mixed(2_000), session="day")
    await put_group(streams, 1, "research", 1_500)
    await put_group(streams, 1, "risk", 1_400, "600 900 1300")
    assert (await streams.trim("day", keep_events=2_000 - 600)).trimmed == 600, "the smallest position"
    for cut, words in ((601, "1 by the group 'risk'"), (1_600, "100 by the group 'research', 203 by the group 'risk'")):
        with pytest.raises(UnreadWouldBeLost, match=words):
            await streams.trim("day", before=event_id(1, cut))
    assert (await streams.session("day")).trimmed == 600
    assert len(await streams.range("day")) == 1_400
    forced = await streams.trim("day", before=event_id(1, 1_600), force=True)
    assert forced.lost == {"research": 100, "risk": 203}
    assert "NOT HANDLED by 100 by the group 'research'" in repr(forced)
    later = await streams.trim("day", keep_events=300, force=True)
    assert later.lost == {"research": 100, "risk": 100}, "what went before is not lost once more"


async def test_the_missing_head_is_counted_and_named(streams: RedisStreamManager) -> None:
    await streams.append(mixed(2_000), session="day")
    old = await streams.session("day")
    await streams.trim("day", keep_events=500)
    assert len(await streams.range("day")) == 500
    assert streams.statistics().events_missing == 1_500
    batches = [b async for b in streams.read(old, LogRange(), symbols=SymbolTable(), sources=SourceTable())]
    assert sum(map(len, batches)) == 500
    assert streams.statistics().events_missing == 3_000, "also for who asked for the session before"
    assert len(await streams.range("day", event_id(1, 1_490), event_id(1, 1_510))) == 10
    assert streams.statistics().events_missing == 3_010
    assert len(await streams.range("day", event_id(1, 10), event_id(1, 30))) == 0
    assert streams.statistics().events_missing == 3_030
    with pytest.raises(UnknownEvent, match="it was trimmed; the first one that is still there is 1500"):
        await streams.get(event_id(1, 1_499))
    assert (await streams.get(event_id(1, 1_500))).event_id == event_id(1, 1_500)


async def test_a_tail_from_the_start_begins_at_what_there_is(streams: RedisStreamManager) -> None:
    await streams.append(mixed(2_000), session="day")
    await streams.trim("day", keep_events=300)
    tail = streams.tail("day", after=0)
    assert log_sequences(await anext(tail))[0] == 1_700
    assert streams.statistics().events_missing == 1_700
    await tail.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("types", [None, OrderEvent])
async def test_a_tail_that_trimming_overtook_says_so_once(
    streams: RedisStreamManager, types: type[OrderEvent] | None
) -> None:
    await streams.append(mixed(100), session="day", format="entries")
    tail = streams.tail("day", types=types, after=event_id(1, 0))
    seen = [await anext(tail)]
    for seed in range(1, 4):
        await streams.append(mixed(100, seed=seed), session="day", format="entries")
    await streams.trim("day", keep_events=50)
    with pytest.warns(RuntimeWarning, match="overtaken by retention") as caught:
        await follow(tail, seen, 340)
    rows = EventBatch.concat(seen).records["log_sequence"]
    missing = streams.statistics().events_missing
    # Of some types, it is only known where the last one was.
    assert missing == 399 - len(np.unique(rows)) if types is None else 250 <= missing <= 270
    await streams.append(mixed(100, seed=9), session="day", format="entries")
    await streams.trim("day", keep_events=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await follow(tail, seen, 470)
    assert len(caught) == 1
    assert streams.statistics().events_missing > missing, "but it goes on counting"
    await tail.aclose()  # type: ignore[attr-defined]


async def test_trims_and_appends_at_once_leave_one_whole_rest(streams: RedisStreamManager) -> None:
    await streams.append(mixed(500), session="day")

    async def trim() -> None:
        for keep in (400, 300, 200):
            await streams.trim("day", keep_events=keep)

    await asyncio.gather(
        *(streams.append(mixed(300, seed=seed), session="day") for seed in range(1, 5)), trim(), trim()
    )
    info = await streams.session("day")
    assert info.events == 1_700
    assert log_sequences(await streams.range("day")) == list(range(info.trimmed, 1_700))


@pytest.mark.parametrize(
    "wrong",
    [{}, {"keep_bytes": 1, "keep_events": 1}, {"keep_events": -1}, {"keep_bytes": 1.5}, {"keep_events": True}],
)
async def test_trim_takes_one_measure(one: RedisStreamManager, wrong: dict[str, object]) -> None:
    await one.append(trades(10), session="day")
    with pytest.raises(ValidationError):
        await one.trim("day", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownSession):
        await one.trim("night", keep_events=0)


async def test_a_full_memory_does_not_keep_from_trimming(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with EmbeddedServer(tmp_path_factory.mktemp("full") / ".hftlab") as server, managed(server) as manager:
        await manager.append(trades(20_000), session="day")
        await manager._connections.call("CONFIG", "SET", "maxmemory", "1mb")
        result = await manager.trim("day", keep_events=1_000)
        assert result.events_removed == 19_000
        assert len(await manager.range("day")) == 1_000


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    frame_rows=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 320), min_size=1, max_size=4),
    positions=st.lists(st.integers(0, 320), max_size=2),
    force=st.booleans(),
)
def test_whatever_is_trimmed_the_rest_is_the_tail_of_what_was_written(
    embedded: EmbeddedServer, sizes: list[int], frame_rows: int, cuts: list[int], positions: list[int], force: bool
) -> None:
    async def check() -> None:
        async with managed(embedded, frame_rows=frame_rows) as manager:
            written: list[object] = []
            for seed, size in enumerate(sizes):
                await manager.append(mixed(size, seed=seed), session="day")
                written += content(mixed(size, seed=seed))
            for index, log in enumerate(positions):
                await put_group(manager, 1, f"g{index}", min(log, len(written)))
            trimmed = 0
            for cut in cuts:
                cut = min(cut, len(written))
                unread = any(max(min(log, len(written)), trimmed) < cut for log in positions)
                if cut > trimmed and unread and not force:
                    with pytest.raises(UnreadWouldBeLost):
                        await manager.trim("day", keep_events=len(written) - cut)
                    continue
                trimmed = max(trimmed, cut)
                result = await manager.trim("day", keep_events=len(written) - cut, force=force)
                assert result.trimmed == trimmed
            back = await manager.range("day")
            assert content(back) == written[trimmed:]
            assert log_sequences(back) == list(range(trimmed, len(written)))

    in_a_loop(check())


async def test_a_trimmed_session_can_not_be_exported(one: RedisStreamManager, tmp_path: object) -> None:
    await one.append(trades(3_000), session="day")
    await one.trim("day", keep_events=100)
    with pytest.raises(HftlabError):
        await one.export_session("day", f"{tmp_path}/day.hftlab")


async def test_a_real_group_holds_trimming_back_and_goes_on_after_it_was_forced(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=50) as manager:
        await manager.append(mixed(1_000), session="day")
        consumer, _ = await active(manager)
        seen = await everything(consumer)
        assert len(seen) == 1_000
        await consumer.commit(Commit(serial=1, log_sequence=400, held=(320,)))
        assert (await manager.trim("day", before=event_id(1, 320))).trimmed == 320
        with pytest.raises(UnreadWouldBeLost, match="2 by the group"):
            await manager.trim("day", before=event_id(1, 401))
        forced = await manager.trim("day", before=event_id(1, 900), force=True)
        assert list(forced.lost.values()) == [501]
        # What is pending was trimmed: the next member is not held up by it.
        await consumer.release()
        again, checkpoint = await active(manager)
        assert checkpoint.log_sequence == 400
        await manager.append(mixed(100, seed=1), session="day")
        logs = log_sequences(await everything(again))
        assert logs[-200:] == list(range(900, 1_100))
        await again.commit(Commit(serial=checkpoint.serial + 1, log_sequence=1_100))
        assert (await manager.trim("day", keep_events=0)).lost == {}
