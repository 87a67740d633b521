"""Consumer groups: where they begin, who may have them, how they are listed, moved and destroyed."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.clock import parse_time
from hftlab.errors import GroupLost, GroupTaken, ServerRefused, UnknownGroup, UnknownSession, ValidationError
from hftlab.events import EventType
from hftlab.events.group_ports import Commit, Letter
from hftlab.events.records import event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.groups import before
from tests.streams.batches import START_NS, STEP_NS, content, log_sequences, mixed, trades
from tests.streams.members import active, everything, member_of, pages_of
from tests.streams.servers import managed

MARKET = EventType.MARKET_DATA


async def test_a_new_group_begins_at_the_start_of_all_streams(streams: RedisStreamManager) -> None:
    batch = mixed(500)
    await streams.append(batch, session="day")
    consumer, checkpoint = await active(streams)
    assert (checkpoint.log_sequence, checkpoint.held, checkpoint.serial, checkpoint.epoch) == (0, (), 0, 1)
    seen = await everything(consumer)
    assert content(seen) == content(batch)
    assert log_sequences(seen) == list(range(500))


async def test_a_group_that_begins_now_sees_only_what_comes_next(streams: RedisStreamManager) -> None:
    await streams.append(mixed(300), session="day")
    consumer, checkpoint = await active(streams, start="now")
    assert checkpoint.log_sequence == 300
    assert [page.entries for page in await pages_of(consumer, MARKET)] == [0]
    await streams.append(mixed(50, seed=1), session="day")
    assert log_sequences(await everything(consumer)) == list(range(300, 350))


@pytest.mark.parametrize("first", [0, 1, 99, 100, 257, 499])
async def test_a_group_begins_at_an_event_or_at_its_time(server: EmbeddedServer, first: int) -> None:
    async with managed(server, frame_rows=100) as manager:
        await manager.append(mixed(500), session="day")
        number = (await manager.session("day")).number
        places = {"event": event_id(number, first), "time": START_NS + first * STEP_NS}
        if first == 257:
            places["between two"] = START_NS + (first - 1) * STEP_NS + 1
        for group, start in places.items():
            consumer, checkpoint = await active(manager, group=group, start=start)
            assert checkpoint.log_sequence == first
            assert log_sequences(await everything(consumer)) == list(range(first, 500))
            # What lies wholly before was not even delivered.
            assert min(id_log for id_log in await delivered_logs(manager, group)) >= first - 100


async def delivered_logs(manager: RedisStreamManager, group: str) -> list[int]:
    number = (await manager.session("day")).number
    found: list[int] = []
    for stream in manager._keys.session(number).streams.values():
        entries = await manager._connections.call("XPENDING", stream, group, "-", "+", 10_000)
        found += [int(entry[0].partition(b"-")[2]) for entry in entries]
    return found


async def test_a_time_after_the_last_event_begins_at_the_end(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    later = parse_time("2024-08-10T00:00:00Z")
    _, checkpoint = await active(streams, start=later)
    assert checkpoint.log_sequence == 10


async def test_the_entry_before_a_group_begins_is_the_one_just_before() -> None:
    assert before("5-3") == "5-2"
    assert before("5-0") == f"4-{2**64 - 1}"
    assert before("0-0") == "0-0"


async def test_a_group_reads_only_the_streams_of_its_types(streams: RedisStreamManager) -> None:
    batch = mixed(400)
    await streams.append(batch, session="day")
    consumer, _ = await active(streams, types=["fill", "signal"])
    seen = await everything(consumer)
    expected = [event for event in batch if event.event_type in (EventType.FILL, EventType.SIGNAL)]
    assert [event.timestamp for event in seen] == [event.timestamp for event in expected]
    with pytest.raises(ValidationError, match="reads fill, signal"):
        await consumer.read(MARKET, 10)


async def test_another_member_must_want_the_groups_types(streams: RedisStreamManager) -> None:
    await streams.append(trades(3), session="day")
    await member_of(streams, types=["market"])
    with pytest.raises(ValidationError, match="reads market, and was asked to read fill: take another group name"):
        await member_of(streams, types=["fill"])
    with pytest.raises(ValidationError, match="one type of event at least"):
        await member_of(streams, group="none", types=[])


async def test_a_member_of_a_session_that_is_not_there_says_so(streams: RedisStreamManager) -> None:
    with pytest.raises(UnknownSession):
        await member_of(streams, "nowhere")
    with pytest.raises(UnknownSession):
        await streams.groups.list("nowhere")


@pytest.mark.parametrize("wrong", ["", " g", "a:letters", "x" * 201])
async def test_a_groups_name_is_checked(one: RedisStreamManager, wrong: str) -> None:
    await one.append(trades(1), session="day")
    with pytest.raises(ValidationError, match="group"):
        await member_of(one, group=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 4_000, True, "10", float("nan")])
async def test_a_lease_is_a_number_of_seconds(one: RedisStreamManager, wrong: object) -> None:
    await one.append(trades(1), session="day")
    with pytest.raises(ValidationError, match="lease_s is"):
        await member_of(one, lease_s=wrong)


async def test_a_group_that_is_not_hftlabs_is_left_alone(streams: RedisStreamManager) -> None:
    await streams.append(trades(3), session="day")
    stream = streams._keys.session((await streams.session("day")).number).streams[MARKET]
    await streams._connections.call("XGROUP", "CREATE", stream, "theirs", "0")
    with pytest.raises(ServerRefused, match="hftlab has not made"):
        await member_of(streams, group="theirs")
    assert await streams.groups.list("day") == []


async def test_groups_are_listed_with_where_they_stand(streams: RedisStreamManager) -> None:
    await streams.append(mixed(200), session="day")
    await streams.groups.create("day", "b", types="market", start="now")
    consumer, _ = await active(streams, group="a", name="worker")
    await everything(consumer)
    letter = Letter("h", "boom", 1, 1, 1)
    await consumer.commit(Commit(1, 150, letters=(letter, letter)))
    first, second = await streams.groups.list("day")
    assert (first.group, first.log_sequence, first.lag, first.letters) == ("a", 150, 50, 2)
    assert (first.holder, first.state, first.session) == ("worker", "held", "day")
    assert first.pending == 4
    assert first.saved_ns > 0
    assert (second.group, second.types, second.log_sequence, second.lag) == ("b", ("market",), 200, 0)
    assert (second.holder, second.state, second.pending) == ("", "free", 0)
    frame = await streams.groups.to_frame("day")
    assert frame["group"].tolist() == ["a", "b"]
    assert frame["types"].tolist() == ["fill market order signal", "market"]
    assert str(frame["saved"].dtype).endswith("UTC]")
    assert len(await streams.groups.to_frame("day")) == 2


async def test_a_session_without_groups_has_an_empty_frame(one: RedisStreamManager) -> None:
    await one.append(trades(1), session="day")
    assert await one.groups.list("day") == []
    assert len(await one.groups.to_frame("day")) == 0


async def test_a_lease_that_ran_out_shows_as_expired(one: RedisStreamManager) -> None:
    await one.append(trades(1), session="day")
    await active(one, lease_s=0.01)
    async with asyncio.timeout(10):
        while (await one.groups.list("day"))[0].state != "expired":
            pass


async def test_a_moved_group_begins_again_and_keeps_its_letters_and_its_count(streams: RedisStreamManager) -> None:
    await streams.append(trades(300), session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    await consumer.commit(Commit(1, 300, state=b"old", letters=(Letter("h", "e", 1, 1, 1),)))
    with pytest.raises(GroupTaken, match="stop that one first"):
        await streams.groups.move("day", "g", "start")
    await consumer.release()
    moved = await streams.groups.move("day", "g", event_id((await streams.session("day")).number, 120))
    assert (moved.log_sequence, moved.pending, moved.letters) == (120, 0, 1)
    consumer, checkpoint = await active(streams)
    assert (checkpoint.log_sequence, checkpoint.state, checkpoint.serial, checkpoint.epoch) == (120, b"", 1, 2)
    assert checkpoint.entries == {}
    assert log_sequences(await everything(consumer)) == list(range(120, 300))
    await consumer.commit(Commit(2, 300, letters=(Letter("h", "e", 1, 1, 1),)))
    assert [letter.letter_id for letter in await consumer.letters()] == ["1-1", "2-1"]


async def test_restart_moves_a_group_that_nobody_has(streams: RedisStreamManager) -> None:
    await streams.append(trades(100), session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    await consumer.commit(Commit(1, 100))
    with pytest.raises(GroupTaken):
        await member_of(streams, restart=True)
    await consumer.release()
    again, checkpoint = await active(streams, restart=True)
    assert checkpoint.log_sequence == 0
    assert log_sequences(await everything(again)) == list(range(100))
    # Without restart, start is where a group begins that is not there yet.
    await again.release()
    _, checkpoint = await active(streams, start="now")
    assert checkpoint.log_sequence == 0


async def test_a_destroyed_group_leaves_nothing_and_its_member_is_told(streams: RedisStreamManager) -> None:
    await streams.append(mixed(50), session="day")
    keys = streams._keys.session((await streams.session("day")).number)
    before_it = set(await streams._connections.call("KEYS", "*"))
    consumer, _ = await active(streams)
    await consumer.commit(Commit(1, 0, letters=(Letter("h", "e", 1, 1, 1),)))
    await streams.groups.destroy("day", "g")
    assert await streams.groups.list("day") == []
    # The empty streams stay, which the group has made.
    assert set(await streams._connections.call("KEYS", "*")) - before_it <= {
        key.encode() for key in keys.streams.values()
    }
    for stream in keys.streams.values():
        assert await streams._connections.call("XINFO", "GROUPS", stream) == []
    with pytest.raises(GroupLost, match="make the member again"):
        await consumer.read(MARKET, 10)
    with pytest.raises(GroupLost):
        await consumer.commit(Commit(2, 10))
    with pytest.raises(GroupLost):
        await consumer.renew()
    with pytest.raises(GroupLost):
        await consumer.backlog()
    with pytest.raises(GroupLost):
        await consumer.acquire()


async def test_an_unknown_group_is_named_with_those_that_are_there(one: RedisStreamManager) -> None:
    await one.append(trades(1), session="day")
    with pytest.raises(UnknownGroup, match="it has none"):
        await one.groups.destroy("day", "books")
    await one.groups.create("day", "book")
    with pytest.raises(UnknownGroup, match="did you mean 'book'"):
        await one.groups.destroy("day", "books")
    with pytest.raises(UnknownGroup, match="there are: "):
        await one.groups.move("day", "xyz", "now")


async def test_deleting_a_session_takes_its_groups_along(streams: RedisStreamManager) -> None:
    await streams.append(mixed(50), session="day")
    consumer, _ = await active(streams)
    await active(streams, group="other")
    await everything(consumer)
    await consumer.commit(Commit(1, 10, letters=(Letter("h", "e", 1, 1, 1),)))
    await streams.delete("day")
    left = await streams._connections.call("KEYS", f"{{{streams._keys.namespace}}}*")
    assert left == [streams._keys.numbers.encode()]
    with pytest.raises(GroupLost, match="its session"):
        await consumer.read(MARKET, 10)


async def test_a_group_whose_place_in_a_stream_is_gone_is_lost(streams: RedisStreamManager) -> None:
    await streams.append(trades(5), session="day")
    consumer, _ = await active(streams, types="market")
    stream = streams._keys.session((await streams.session("day")).number).streams[MARKET]
    await streams._connections.call("XGROUP", "DESTROY", stream, "g")
    with pytest.raises(GroupLost, match="its place in one of the streams"):
        await consumer.read(MARKET, 10)
    with pytest.raises(GroupLost):
        await consumer.acquire()


async def test_members_read_with_names_that_other_members_have_too(one: RedisStreamManager) -> None:
    await one.append(trades(5), session="day")
    first, _ = await active(one, name="same", group="a")
    second, _ = await active(one, name="same", group="b")
    assert log_sequences(await everything(first)) == log_sequences(await everything(second))
