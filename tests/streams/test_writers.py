"""Named writers and published events: fenced, in order, counted."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.errors import UnknownSession, ValidationError, WriterFenced
from hftlab.events import EventBatch, SignalEvent
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.servers import managed, until


def signal(strength: float) -> SignalEvent:
    return SignalEvent(symbol="X", signal_type="A", strength=strength)


async def test_a_writer_appends_batch_after_batch(streams: RedisStreamManager) -> None:
    writer = await streams.writer("day", "recorder")
    first = await writer.append(mixed(1_500))
    second = await writer.append(mixed(700, seed=1))
    assert (first.first_event_id, first.last_event_id) == ((1 << 40), (1 << 40) + 1_499)
    assert (second.first_event_id, second.last_event_id) == ((1 << 40) + 1_500, (1 << 40) + 2_199)
    assert (second.events, second.entries, writer.rows) == (700, 4, 2_200)
    back = await streams.range("day")
    assert content(back) == content(mixed(1_500)) + content(mixed(700, seed=1))
    assert repr(writer) == "Writer('recorder' in 'day': 2,200 rows)"


async def test_a_writer_writes_the_same_batch_as_often_as_it_is_told(one: RedisStreamManager) -> None:
    writer = await one.writer("day", "recorder")
    for _ in range(3):
        assert not (await writer.append(trades(10))).duplicate
    assert (await one.session("day")).events == 30


async def test_whoever_claims_the_name_fences_the_one_before_off(server: EmbeddedServer) -> None:
    async with managed(server) as one, managed(server, namespace=one._keys.namespace) as other:
        old = await one.writer("day", "recorder")
        await old.append(trades(100))
        new = await other.writer("day", "recorder")
        assert new.rows == 100, "the new one learns how far the old one got"
        for _ in range(2):
            with pytest.raises(WriterFenced, match="another writer took over as 'recorder'"):
                await old.append(trades(50, seed=1))
        await new.append(trades(20, seed=2))
        assert (await one.session("day")).events == 120
        back = await one.writer("day", "recorder")
        assert back.rows == 120
        with pytest.raises(WriterFenced):
            await new.append(trades(1))


async def test_writers_of_other_names_and_plain_appends_share_one_order(streams: RedisStreamManager) -> None:
    writers = [await streams.writer("day", f"w{index}") for index in range(3)]
    batches = [[mixed(230, seed=10 * w + b) for b in range(3)] for w in range(3)]

    async def write(index: int) -> None:
        for batch in batches[index]:
            await writers[index].append(batch)

    await asyncio.gather(*(write(index) for index in range(3)), streams.append(trades(900), session="day"))
    back = await streams.range("day")
    assert log_sequences(back) == list(range(9 * 230 + 900))
    place = {hash(event): index for index, event in enumerate(content(back))}
    for w in range(3):
        positions = [place[hash(event)] for batch in batches[w] for event in content(batch)]
        assert positions == sorted(positions)


async def test_appends_that_are_called_at_once_are_done_in_the_order_of_their_calls(one: RedisStreamManager) -> None:
    writer = await one.writer("day", "recorder")
    batches = [trades(300, seed=seed) for seed in range(6)]
    results = await asyncio.gather(*(writer.append(batch) for batch in batches))
    assert [result.first_event_id - (1 << 40) for result in results] == [0, 300, 600, 900, 1_200, 1_500]
    assert content(await one.range("day")) == [event for batch in batches for event in content(batch)]


async def test_a_cancelled_append_leaves_a_first_part_and_the_next_one_follows_it(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=50, in_flight=8) as manager:
        writer = await manager.writer("day", "recorder")
        long, next_one = mixed(6_000), mixed(500, seed=1)
        task = asyncio.create_task(writer.append(long))
        await until(lambda: manager.statistics().events_appended >= 500)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await writer.append(next_one)
        back = await manager.range("day")
        written = len(back) - 500
        assert 500 <= written < 6_000
        assert content(back) == content(long)[:written] + content(next_one)
        assert log_sequences(back) == list(range(len(back)))
        assert result.first_event_id == (1 << 40) + written
        assert writer.rows == len(back)


async def test_a_writer_of_a_deleted_session_says_so(one: RedisStreamManager) -> None:
    writer = await one.writer("day", "recorder")
    await writer.append(trades(1))
    await one.delete("day")
    with pytest.raises(UnknownSession, match="does not exist any more"):
        await writer.append(trades(1))


async def test_an_empty_batch_is_no_work_for_a_writer(one: RedisStreamManager) -> None:
    writer = await one.writer("day", "recorder")
    assert (await writer.append(EventBatch.empty())).events == 0
    assert writer.rows == 0


@pytest.mark.parametrize("wrong", ["", "a\nb", "x" * 201, 7])
async def test_a_writer_needs_a_proper_name(one: RedisStreamManager, wrong: object) -> None:
    with pytest.raises(ValidationError, match="a writer's name"):
        await one.writer("day", wrong)  # type: ignore[arg-type]
    assert await one.sessions() == []


async def test_every_published_event_is_written_equal_ones_too(streams: RedisStreamManager) -> None:
    for _ in range(3):
        await streams.publish(signal(1.0), session="day")
    result = await streams.publish([signal(2.0), signal(3.0)], session="day")
    await streams.publish(trades(5), session="day", format="entries")
    assert (result.events, result.first_event_id) == (2, (1 << 40) + 3)
    back = await streams.range("day")
    assert [event.strength for event in back if isinstance(event, SignalEvent)] == [1.0, 1.0, 1.0, 2.0, 3.0]
    assert all(event.received > 0 for event in back)
    assert log_sequences(back) == list(range(10))


async def test_publishing_leaves_one_record_on_the_server_however_much_is_published(one: RedisStreamManager) -> None:
    await asyncio.gather(*(one.publish(signal(float(index)), session="day") for index in range(20)))
    assert await one._connections.call("HLEN", one._keys.session(1).writers) == 1
    assert (await one.range("day")).records["strength"].tolist() == [float(index) for index in range(20)]


async def test_publishing_into_a_deleted_session_makes_it_again(one: RedisStreamManager) -> None:
    await one.publish(signal(1.0), session="day")
    number = (await one.session("day")).number
    await one._catalogue.delete("day")
    result = await one.publish(signal(2.0), session="day")
    assert result.number > number
    assert len(await one.range("day")) == 1


@pytest.mark.parametrize("wrong", [7, None, ["x"], "event"])
async def test_what_is_no_event_is_not_published(one: RedisStreamManager, wrong: object) -> None:
    with pytest.raises(ValidationError):
        await one.publish(wrong, session="day")  # type: ignore[arg-type]


async def test_a_writer_tells_how_many_of_its_rows_are_there_after_an_append_that_was_cancelled(
    streams: RedisStreamManager,
) -> None:
    writer = await streams.writer("day", "recorder", frame_rows=10)
    assert await writer.settle() == 0
    await writer.append(trades(25))
    assert await writer.settle() == 25
    assert (await streams.session("day")).events == 25
    appending = asyncio.create_task(writer.append(trades(5_000, seed=1)))
    await until(lambda: streams.statistics().entries_appended > 5)
    appending.cancel()
    await asyncio.wait([appending])
    rows = await writer.settle()
    assert rows == (await streams.session("day")).events == len(await streams.range("day"))
    assert 25 < rows <= 5_025
    await writer.append(trades(5_000, seed=1)[rows - 25 :])
    assert content(await streams.range("day")) == content(trades(25)) + content(trades(5_000, seed=1))
