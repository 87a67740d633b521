"""Commits: position, effects, letters and acknowledgements in one step, once, and all or nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import CodecError, GroupTaken, ServerRefused, ValidationError
from hftlab.events import EventType
from hftlab.events.group_ports import Commit, Effect, Letter
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.consuming import GroupConsumer
from hftlab.streams.effects import MAX_ARGUMENTS, checked
from hftlab.streams.keys import Keys
from hftlab.streams.letter_entries import letter_fields, letter_of_entry
from tests.streams.batches import mixed, trades
from tests.streams.members import active, everything, member_of, pending
from tests.streams.servers import BINARIES, binary_of, managed

LETTER = Letter("mean", "ValueError: no", 3, 10, 20, 30, 7, 1, 2, "market", "BTCUSDT", b"\x00frame")


def effect(command: str, key: str, *arguments: object) -> Effect:
    return Effect(command, key, tuple(str(one).encode() for one in arguments))


async def held_by(manager: RedisStreamManager, key: str) -> Any:
    """What a user's key holds, as Python has it."""
    name, call = manager._keys.user(key), manager._connections.call
    kind = (await call("TYPE", name)).decode()
    if kind == "hash":
        flat = await call("HGETALL", name)
        return dict(zip(flat[::2], flat[1::2], strict=True))
    commands = {
        "string": ("GET", name),
        "list": ("LRANGE", name, 0, -1),
        "set": ("SMEMBERS", name),
        "zset": ("ZRANGE", name, 0, -1, "WITHSCORES"),
        "stream": ("XRANGE", name, "-", "+"),
    }
    return None if kind == "none" else await call(*commands[kind])


async def consumer_of(manager: RedisStreamManager, rows: int = 100) -> GroupConsumer:
    await manager.append(trades(rows), session="day")
    consumer, _ = await active(manager)
    await everything(consumer)
    return consumer


async def test_every_command_that_may_be_does_what_it_does(streams: RedisStreamManager) -> None:
    consumer = await consumer_of(streams)
    every = (
        effect("SET", "text", "a"),
        effect("append", "text", "b"),
        effect("INCRBY", "count", 5),
        effect("DECRBY", "count", 2),
        effect("INCRBYFLOAT", "float", "1.5"),
        effect("INCRBYFLOAT", "float", "-0.25"),
        effect("HSET", "hash", "a", 1, "b", "x"),
        effect("HINCRBY", "hash", "a", 2),
        effect("HINCRBYFLOAT", "hash", "c", "0.5"),
        effect("HDEL", "hash", "b", "no"),
        effect("SADD", "set", "a", "b"),
        effect("SREM", "set", "b", "c"),
        effect("SREM", "no set", "b"),
        effect("ZADD", "zset", 1, "a", "2.5", "b"),
        effect("ZINCRBY", "zset", 1, "a"),
        effect("RPUSH", "list", "b", "c"),
        effect("LPUSH", "list", "a"),
        effect("XADD", "stream", "*", "field", "value"),
        effect("SET", "gone", "x"),
        effect("DEL", "gone"),
        effect("SETBIT", "bits", 7, 1),
        effect("PFADD", "sketch", "a", "b"),
        effect("PFADD", "sketch", "c"),
    )
    assert (await consumer.commit(Commit(1, 100, transactions=(every,)))).refused == ()
    found = {key: await held_by(streams, key) for key in {one.key for one in every} - {"sketch", "stream"}}
    assert found == {
        "text": b"ab",
        "count": b"3",
        "float": b"1.25",
        "hash": {b"a": b"3", b"c": b"0.5"},
        "set": [b"a"],
        "no set": None,
        "zset": [b"a", b"2", b"b", b"2.5"],
        "list": [b"a", b"b", b"c"],
        "gone": None,
        "bits": b"\x01",
    }
    assert [fields for _, fields in await held_by(streams, "stream")] == [[b"field", b"value"]]
    assert await streams._connections.call("PFCOUNT", streams._keys.user("sketch")) == 3


@pytest.mark.parametrize(
    ("before", "refused", "why"),
    [
        ([effect("SET", "k", "x")], effect("INCRBY", "k", 1), "holds no integer"),
        ([effect("SET", "k", "07")], effect("INCRBY", "k", 1), "holds no integer"),
        ([effect("SET", "k", " 7")], effect("INCRBYFLOAT", "k", 1), "holds no finite number"),
        ([effect("SET", "k", "inf")], effect("INCRBYFLOAT", "k", 1), "holds no finite number"),
        ([effect("SET", "k", "9223372036854775807")], effect("INCRBY", "k", 1), "would overflow"),
        ([effect("SET", "k", "-9223372036854775807")], effect("DECRBY", "k", 5), "would overflow"),
        ([effect("INCRBYFLOAT", "k", "1.5")], effect("INCRBY", "k", 1), "holds"),
        ([effect("SET", "k", "x")], effect("HSET", "k", "a", 1), "holds a string, and this needs a hash"),
        ([effect("SADD", "k", "x")], effect("ZADD", "k", 1, "a"), "holds a set, and this needs a zset"),
        ([effect("RPUSH", "k", "x")], effect("SADD", "k", "a"), "holds a list, and this needs a set"),
        ([effect("HSET", "k", "f", "x")], effect("HINCRBY", "k", "f", 1), "holds no integer"),
        ([effect("HSET", "k", "f", "1.5")], effect("HINCRBY", "k", "f", 1), "holds no integer"),
        ([effect("HSET", "k", "f", "x")], effect("HINCRBYFLOAT", "k", "f", 1), "holds no finite number"),
        ([effect("SET", "k", "x")], effect("PFADD", "k", "a"), "holds no HyperLogLog"),
        ([effect("PFADD", "k", "x")], effect("SADD", "k", "a"), "holds a string, and this needs a set"),
        ([effect("XADD", "k", "*", "a", "b")], effect("APPEND", "k", "a"), "holds a stream, and this needs a string"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["in one commit", "one after the other"])
async def test_what_a_key_holds_decides_and_a_refused_transaction_leaves_no_trace(
    one: RedisStreamManager, before: list[Effect], refused: Effect, why: str, together: bool
) -> None:
    consumer = await consumer_of(one)
    bad = (effect("INCRBY", "beside", 1), refused, effect("INCRBY", "beside", 1))
    good = (effect("INCRBY", "good", 1),)
    if together:
        done = await consumer.commit(Commit(1, 50, transactions=(tuple(before), bad, good)))
        assert [index for index, _ in done.refused] == [1]
    else:
        await consumer.commit(Commit(1, 40, transactions=(tuple(before),)))
        was = await held_by(one, "k")
        done = await consumer.commit(Commit(2, 50, transactions=(bad, good)))
        assert [index for index, _ in done.refused] == [0]
        assert await held_by(one, "k") == was
    assert why in done.refused[0][1]
    assert done.refused[0][1].startswith(f"{refused.command} k: ")
    assert (await held_by(one, "beside"), await held_by(one, "good")) == (None, b"1")
    assert await consumer.backlog() == 50


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (effect("FLUSHALL", "k"), "a command is one of SET, INCRBY"),
        (effect("EVAL", "k", "x"), "a command is one of"),
        (effect("SET", "k"), "its arguments are value"),
        (effect("SET", "k", "v", "EX", 3), "its arguments are value"),
        (effect("INCRBY", "k", "1.5"), "an integer"),
        (effect("INCRBY", "k", "+1"), "an integer"),
        (effect("INCRBYFLOAT", "k", "nan"), "a finite number"),
        (effect("HSET", "k", "a"), "field value"),
        (effect("HINCRBY", "k", "a"), "field increment"),
        (effect("ZADD", "k", "NX", 1, "a"), "score member"),
        (effect("ZADD", "k", "inf", "a"), "finite"),
        (effect("XADD", "k", "1-1", "a", "b"), "only the server's own ids"),
        (effect("SETBIT", "k", 1 << 32, 1), "offset bit"),
        (effect("SETBIT", "k", 1, 2), "offset bit"),
        (effect("DEL", "k", "other"), "its arguments are none"),
        (effect("SADD", "k", *range(MAX_ARGUMENTS + 1)), "make several effects of it"),
        (effect("SET", "", "x"), "a key is printable text"),
        (Effect("SET", "k", ("x",)), "arguments are bytes"),  # type: ignore[arg-type]
    ],
)
def test_effects_that_can_never_be_done_are_not_even_sent(wrong: Effect, why: str) -> None:
    found = checked(((effect("SET", "a", 1), wrong), (effect("SET", "b", 2),)), Keys("n"))
    assert [index for index, _ in found.refused] == [0]
    assert why in found.refused[0][1]
    assert found.keys == ["{n}:u:b"]
    assert found.arguments == [1, 1, 1, "SET", 1, 1, b"2"]


async def test_refusals_here_and_there_are_told_by_the_index_of_their_transaction(one: RedisStreamManager) -> None:
    consumer = await consumer_of(one)
    transactions = (
        (effect("SET", "text", 'é"\\\n'),),
        (effect("HSET", "text", "a", 1),),
        (effect("KEYS", "x"),),
        (effect("SADD", 'a "key"', "x"),),
        (effect("INCRBY", 'a "key"', 1),),
    )
    done = await consumer.commit(Commit(1, 10, transactions=transactions))
    assert [index for index, _ in done.refused] == [1, 2, 4]
    assert done.refused[2][1] == 'INCRBY a "key": holds a set, and this needs a string'
    assert await consumer.commit(Commit(1, 10, transactions=transactions)) == done
    assert await held_by(one, "text") == 'é"\\\n'.encode()


async def test_a_repeated_commit_changes_nothing_and_gets_the_first_ones_result(streams: RedisStreamManager) -> None:
    consumer = await consumer_of(streams)
    commit = Commit(1, 100, (), b"state", ((effect("INCRBY", "n", 1),),), (LETTER,))
    first = await consumer.commit(commit)
    assert (first.acknowledged, first.refused) == (1, ())
    assert await consumer.commit(commit) == first
    assert await held_by(streams, "n") == b"1"
    assert len(await consumer.letters()) == 1
    for serial, last in ((0, 1), (3, 1)):
        with pytest.raises(ValidationError, match=f"which is {last}; got {serial}"):
            await consumer.commit(Commit(serial, 100))


async def test_a_commit_whose_reply_was_lost_does_not_acknowledge_more_when_it_is_repeated(
    streams: RedisStreamManager,
) -> None:
    await streams.append(trades(10), session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    membership = consumer._membership
    run = membership.run

    async def losing(script: Any, names: Any, *arguments: Any) -> Any:
        await run(script, names, *arguments)
        raise ServerRefused("the reply was lost")

    membership.run = losing  # type: ignore[method-assign]
    with pytest.raises(ServerRefused):
        await consumer.commit(Commit(1, 10))
    membership.run = run  # type: ignore[method-assign]
    # Somebody else's entry stands at no log sequence, so any position covers it; it was given after that commit.
    stream = streams._keys.session(consumer.session.number).streams[EventType.MARKET_DATA]
    await streams._connections.call("XADD", stream, "*", "a", "b")
    page = await consumer.read(EventType.MARKET_DATA, 10)
    assert len(page.damaged) == 1
    assert (await consumer.commit(Commit(1, 10))).acknowledged == 1
    assert await pending(streams) == 1
    assert (await consumer.commit(Commit(2, 10, letters=page.damaged))).acknowledged == 1
    assert await pending(streams) == 0


async def test_letters_are_kept_settled_and_found_when_they_are_due(streams: RedisStreamManager) -> None:
    consumer = await consumer_of(streams)
    letters = tuple(msgspec.structs.replace(LETTER, due_ns=due) for due in (0, 50, 10, 0, 30))
    await consumer.commit(Commit(1, 10, letters=letters))
    kept = await consumer.letters()
    assert [letter.letter_id for letter in kept] == [f"1-{index}" for index in range(1, 6)]
    assert [msgspec.structs.replace(letter, letter_id="") for letter in kept] == list(letters)
    due = await consumer.letters(due_before_ns=30)
    assert [letter.letter_id for letter in due] == ["1-3", "1-5"]
    assert len(await consumer.letters(count=2)) == 2
    await consumer.commit(Commit(2, 10, letters=(LETTER,), settled=("1-3", "1-5", "1-99")))
    assert [letter.letter_id for letter in await consumer.letters()] == ["1-1", "1-2", "1-4", "2-1"]


async def test_many_letters_and_many_acknowledgements_fit_one_commit(streams: RedisStreamManager) -> None:
    await streams.append(trades(2_500), session="day", format="entries")
    consumer, _ = await active(streams)
    await everything(consumer)
    letters = tuple(msgspec.structs.replace(LETTER, attempts=index) for index in range(1_500))
    assert (await consumer.commit(Commit(1, 2_500, letters=letters))).acknowledged == 2_500
    assert [letter.attempts for letter in await consumer.letters(count=5_000)] == list(range(1_500))
    settled = tuple(f"1-{index}" for index in range(1, 1_501))
    await consumer.commit(Commit(2, 2_500, settled=settled))
    assert await consumer.letters() == []


def test_a_letter_is_the_same_again_as_an_entry_whatever_it_says() -> None:
    entry = letter_fields(LETTER)
    assert letter_of_entry(b"4-2", entry) == msgspec.structs.replace(LETTER, letter_id="4-2")
    odd = msgspec.structs.replace(LETTER, error="\ud800" + "é" * 9_000, symbol="SOL-Ünï")
    back = letter_of_entry(b"1-1", letter_fields(odd))
    assert back.symbol == odd.symbol
    assert back.error.startswith("\\ud800é")
    assert len(back.error.encode()) <= 8_194
    with pytest.raises(CodecError, match="none of hftlab's"):
        letter_of_entry(b"1-1", [b"hello", b"world"])


async def test_a_zombies_commit_does_nothing_at_all(streams: RedisStreamManager) -> None:
    zombie = await consumer_of(streams)
    await zombie.release()
    other = await member_of(streams)
    await other.acquire()
    zombie._membership.token = "made-up.1"
    with pytest.raises(GroupTaken):
        await zombie.commit(Commit(1, 100, transactions=((effect("INCRBY", "n", 1),),), letters=(LETTER,)))
    assert await held_by(streams, "n") is None
    assert await other.letters() == []
    assert await other.backlog() == 100


@pytest.fixture(params=BINARIES)
async def full(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that a test may fill up."""
    async with EmbeddedServer(tmp_path / ".hftlab", binary=binary_of(request.param)) as server:
        yield server


async def test_a_server_without_memory_refuses_a_commit_before_anything_is_written(full: EmbeddedServer) -> None:
    async with managed(full, namespace="n") as manager:
        await manager.append(mixed(100), session="day")
        consumer, _ = await active(manager)
        async with managed(full, namespace="n", deadline_s=0.3) as hurried:
            short = await member_of(hurried)
            short._membership.token, short._membership.consumer = consumer._membership.token, "c"
            await manager._connections.call("CONFIG", "SET", "maxmemory", 1)
            # Reading goes on.
            await everything(consumer)
            short._streams = consumer._streams
            commit = Commit(1, 100, transactions=((effect("INCRBY", "n", 1),),), letters=(LETTER,))
            with pytest.raises(ServerRefused, match="memory is full"):
                await short.commit(commit)
            assert await held_by(manager, "n") is None
            assert (await consumer.backlog(), await consumer.letters(), await pending(manager)) == (100, [], 4)
            await manager._connections.call("CONFIG", "SET", "maxmemory", 0)
            assert (await short.commit(commit)).acknowledged == 4
        assert await held_by(manager, "n") == b"1"


_KEYS = st.sampled_from("ab")
_NUMBERS = st.sampled_from(["0", "1", "-3", "2.5", "9100000000000000000", "-9100000000000000000", "1e3", "x"])
_FIELDS = st.sampled_from("fg")
_EFFECTS = st.one_of(
    st.builds(effect, st.sampled_from(["SET", "INCRBY", "DECRBY", "INCRBYFLOAT", "APPEND"]), _KEYS, _NUMBERS),
    st.builds(effect, st.sampled_from(["HINCRBY", "HINCRBYFLOAT", "HSET"]), _KEYS, _FIELDS, _NUMBERS),
    st.builds(effect, st.sampled_from(["HDEL", "SADD", "SREM", "RPUSH", "PFADD"]), _KEYS, _FIELDS),
    st.builds(effect, st.just("DEL"), _KEYS),
    st.builds(effect, st.just("SETBIT"), _KEYS, st.integers(0, 20), st.integers(0, 1)),
    st.builds(effect, st.just("ZINCRBY"), _KEYS, _NUMBERS, _FIELDS),
)


@pytest.fixture(scope="module")
def commits() -> st.SearchStrategy[list[tuple[tuple[Effect, ...], ...]]]:
    return st.lists(st.lists(st.lists(_EFFECTS, min_size=1, max_size=4).map(tuple), max_size=4).map(tuple), max_size=3)


async def test_what_passes_the_checks_never_fails_and_the_rest_leaves_no_trace(
    server: EmbeddedServer, commits: st.SearchStrategy[list[tuple[tuple[Effect, ...], ...]]]
) -> None:
    """Each commit beside the same accepted transactions done one command at a time."""
    async with managed(server) as manager:
        await manager.append(trades(1), session="day")
        consumer, _ = await active(manager)
        serial, plain = 0, manager._keys.user("plain-")
        examples: list[list[tuple[tuple[Effect, ...], ...]]] = []

        @settings(max_examples=150, deadline=None, database=None, derandomize=True)
        @given(commits)
        def collect(example: list[tuple[tuple[Effect, ...], ...]]) -> None:
            examples.append(example)

        collect()
        accepted = refused = 0
        for example in examples:
            call = manager._connections.call
            await call("DEL", *(manager._keys.user(key) for key in "ab"), plain + "a", plain + "b")
            for transactions in example:
                serial += 1
                done = await consumer.commit(Commit(serial, 0, transactions=transactions))
                left_out = {index for index, _ in done.refused}
                assert len(left_out) == len(done.refused)
                refused += len(left_out)
                for index, transaction in enumerate(transactions):
                    if index not in left_out:
                        accepted += 1
                        for one in transaction:
                            # Raises where the server refuses: then the check was wrong.
                            await call(one.command, plain + one.key, *one.arguments)
                for key in "ab":
                    assert await manager._connections.call("DUMP", manager._keys.user(key)) == await call(
                        "DUMP", plain + key
                    )
        assert accepted > 100
        assert refused > 100
