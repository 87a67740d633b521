"""Sessions that are sealed: nothing is appended to them any more, and their readers are told who goes on."""

from __future__ import annotations

import pytest

from hftlab.errors import SessionSealed, UnknownSession, ValidationError
from hftlab.events import EventBatch, EventType
from hftlab.streams import RedisStreamManager
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.members import active, everything, pages_of

MARKET = EventType.MARKET_DATA


async def test_a_sealed_session_takes_nothing_more_by_any_way(streams: RedisStreamManager) -> None:
    first = trades(20)
    await streams.append(first, session="day")
    writer = await streams.writer("day", "recorder")
    await writer.append(trades(5, seed=1))
    successor = await streams.succeed("day", "next day")
    assert (successor.name, successor.events) == ("next day", 0)
    for refused in (
        streams.append(trades(3, seed=2), session="day"),
        streams.publish(trades(1, seed=3), session="day"),
        streams.append(trades(3, seed=4), session="day", format="entries"),
        writer.append(trades(1, seed=5)),
    ):
        with pytest.raises(SessionSealed, match="append to its successor"):
            await refused
    assert (await streams.session("day")).events == 25
    # What is there already is a duplicate, as ever.
    assert (await streams.append(first, session="day")).duplicate
    assert content(await streams.range("day"))[:20] == content(first)


async def test_succession_is_told_once_and_for_all(streams: RedisStreamManager) -> None:
    await streams.append(trades(2), session="a")
    await streams.succeed("a", "b")
    assert (await streams.succeed("a", "b")).name == "b"
    with pytest.raises(SessionSealed, match="'b' goes on after it: 'c' can't"):
        await streams.succeed("a", "c")
    assert [info.name for info in await streams.sessions()] == ["a", "b"]
    with pytest.raises(UnknownSession):
        await streams.succeed("nowhere", "b")


async def test_no_session_goes_on_after_itself(streams: RedisStreamManager) -> None:
    for name in "abc":
        await streams.append(EventBatch.empty(), session=name)
    with pytest.raises(ValidationError, match="never after itself"):
        await streams.succeed("a", "a")
    await streams.succeed("a", "b")
    await streams.succeed("b", "c")
    with pytest.raises(ValidationError, match="never after itself"):
        await streams.succeed("c", "a")
    assert (await streams.succeed("c", "d")).name == "d"


async def test_members_learn_of_the_successor_with_the_end_of_the_session(streams: RedisStreamManager) -> None:
    await streams.append(mixed(200), session="day")
    consumer, _ = await active(streams)
    first = await consumer.read(MARKET, 1_000)
    assert first.successor == ""
    await streams.succeed("day", "next")
    await streams.append(mixed(100, seed=1), session="next")
    page = (await pages_of(consumer, EventType.FILL))[-1]
    assert (page.successor, page.reached, page.events) == ("next", 200, 200)
    following, _ = await active(streams, "next")
    assert log_sequences(await everything(following)) == list(range(100))
    assert (await pages_of(following, MARKET))[-1].successor == ""


async def test_a_rename_leaves_a_session_sealed(streams: RedisStreamManager) -> None:
    await streams.append(trades(2), session="day")
    await streams.succeed("day", "next")
    await streams.rename("day", "yesterday")
    with pytest.raises(SessionSealed):
        await streams.append(trades(2, seed=1), session="yesterday")
    # The name is free for another one, which is not sealed.
    await streams.append(trades(2), session="day")
