"""Reading as a member of a group: everything once, after whatever happened; and only by the one that has the group."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hftlab.errors import GroupLost, GroupTaken, ValidationError
from hftlab.events import EventBatch, EventType
from hftlab.events.group_ports import Commit
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from hftlab.streams.group_pages import _handled
from hftlab.streams.holding import mark_of, name_of
from hftlab.streams.keys import TYPE_ORDER
from hftlab.streams.liveness import is_dead, process_mark
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.fakes import Proxy, proxy_to
from tests.streams.members import active, everything, member_of, pages_of, pending
from tests.streams.servers import managed, until

MARKET = EventType.MARKET_DATA


async def test_a_page_holds_about_the_rows_that_were_asked_for(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=50) as manager:
        await manager.append(trades(2_000), session="day")
        consumer, _ = await active(manager)
        pages = await pages_of(consumer, MARKET, 400)
    # One entry first, then as many as fit by what came.
    assert [page.entries for page in pages[:3]] == [1, 8, 8]
    assert max(sum(map(len, page.batches)) for page in pages) == 400
    assert [page.reached for page in pages[:2]] == [50, 450]
    assert all(page.events == 2_000 and page.redelivered == 0 for page in pages)


async def test_frames_that_grow_are_given_one_at_a_time(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=2_000) as manager:
        for index in range(20):
            await manager.append(trades(2, seed=index), session="day")
        await manager.append(trades(20_000), session="day")
        consumer, _ = await active(manager)
        pages = await pages_of(consumer, MARKET, 100)
    assert sum(sum(map(len, page.batches)) for page in pages) == 20_040
    # Many were fetched at once; no page has more than one that is larger than what was asked for.
    assert max(sum(map(len, page.batches)) for page in pages) == 2_000
    assert [page.reached for page in pages] == sorted(page.reached for page in pages)


async def test_single_entries_come_in_one_batch(streams: RedisStreamManager) -> None:
    batch = mixed(300)
    await streams.append(batch, session="day", format="entries")
    consumer, _ = await active(streams)
    pages = await pages_of(consumer, MARKET, 100)
    assert max(len(page.batches) for page in pages) == 1
    rest = [page for one in TYPE_ORDER[1:] for page in await pages_of(consumer, one, 100)]
    whole = EventBatch.concat(one for page in [*pages, *rest] for one in page.batches)
    assert content(whole.where(whole.records["log_sequence"].argsort())) == content(batch)


async def test_a_stream_is_known_up_to_the_sessions_end_once_less_came_than_was_asked_for(
    streams: RedisStreamManager,
) -> None:
    await streams.append(mixed(100), session="day")
    consumer, _ = await active(streams)
    for one in TYPE_ORDER:
        assert (await pages_of(consumer, one))[-1].reached == 100
    await streams.append(trades(7), session="day")
    # No fills were added, and that is known at once.
    page = await consumer.read(EventType.FILL, 10)
    assert (page.reached, page.events, page.entries) == (107, 107, 0)


async def test_reads_side_by_side_share_their_callers_tables(server: EmbeddedServer) -> None:
    batch = mixed(6_000)
    async with managed(server, frame_rows=3_000) as manager:
        await manager.append(batch, session="day")
        consumer, _ = await active(manager)
        found = await asyncio.gather(*(pages_of(consumer, one, 10_000) for one in TYPE_ORDER))
        whole = EventBatch.concat(one for pages in found for page in pages for one in page.batches)
        first = found[0][0].batches[0]
        assert all(one.symbols is first.symbols for pages in found for page in pages for one in page.batches)
    assert content(whole.where(whole.records["log_sequence"].argsort())) == content(batch)


async def test_only_one_member_has_a_group(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    first, _ = await active(streams, name="first")
    second = await member_of(streams, name="second")
    assert await second.acquire() is None
    assert second.holder is not None
    assert second.holder.name == "first"
    assert second.holder.until_ns - second.holder.since_ns == 10_000_000_000
    with pytest.raises(GroupTaken, match="not the active member"):
        await second.read(MARKET, 10)
    await first.release()
    await first.release()
    checkpoint = await second.acquire()
    assert checkpoint is not None
    assert checkpoint.epoch == 2
    assert await first.acquire() is None


async def test_what_was_read_and_not_committed_comes_again_to_the_next_owner(server: EmbeddedServer) -> None:
    batch = mixed(1_000)
    async with managed(server, frame_rows=100) as manager:
        await manager.append(batch, session="day")
        first, _ = await active(manager)
        await everything(first)
        await first.commit(Commit(1, 250))
        await first.release()
        second, checkpoint = await active(manager)
        assert checkpoint.log_sequence == 250
        pages = [page for one in TYPE_ORDER for page in await pages_of(second, one, 300)]
        assert log_sequences(in_order(pages)) == list(range(250, 1_000))
        assert sum(page.redelivered for page in pages) == 750
        await second.commit(Commit(2, 1_000))
        assert await pending(manager) == 0


def in_order(pages: list) -> EventBatch:  # type: ignore[type-arg]
    whole = EventBatch.concat(batch for page in pages for batch in page.batches)
    return whole.where(whole.records["log_sequence"].argsort())


async def test_new_rows_are_not_counted_as_delivered_again(streams: RedisStreamManager) -> None:
    await streams.append(trades(100), session="day")
    first, _ = await active(streams)
    await everything(first)
    await first.release()
    await streams.append(trades(50, seed=1), session="day")
    second, _ = await active(streams)
    pages = await pages_of(second, MARKET)
    assert sum(page.redelivered for page in pages) == 100
    assert log_sequences(in_order(pages)) == list(range(150))


async def test_held_rows_come_again_and_others_below_the_position_do_not(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=100) as manager:
        await manager.append(mixed(600), session="day")
        first, _ = await active(manager)
        await everything(first)
        held = (7, 130, 131, 299)
        done = await first.commit(Commit(1, 320, held=held))
        # Of the entries before 300, those with a held row stay pending: one of each hundred, two of the second.
        types = {int(row["log_sequence"]): int(row["type"]) for row in (await manager.range("day")).records}
        waiting = {(log // 100, types[log]) for log in held}
        assert done.acknowledged == 3 * 4 - len(waiting)
        await first.release()
        second, checkpoint = await active(manager)
        assert checkpoint.held == held
        assert log_sequences(await everything(second)) == [*held, *range(320, 600)]
        await second.commit(Commit(2, 600))
        assert await pending(manager) == 0


async def test_the_checkpoint_says_how_far_within_an_entry_each_stream_is(streams: RedisStreamManager) -> None:
    batch = mixed(500)
    await streams.append(batch, session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    rows = (await streams.range("day")).records
    of_market = rows["log_sequence"][rows["type"] == MARKET]
    held = (int(of_market[3]),)
    await consumer.commit(Commit(1, 260, held=held))
    await consumer.release()
    _, checkpoint = await active(streams)
    counts = {one.topic: int((rows["type"][:260] == one).sum()) for one in TYPE_ORDER}
    counts["market"] -= 1
    assert {topic: int(at.partition("/")[2]) for topic, at in checkpoint.entries.items()} == counts
    ids = {at.partition("/")[0] for at in checkpoint.entries.values()}
    assert len(ids) == 1
    assert ids.pop().endswith("-0")


async def test_a_member_whose_lease_ran_out_goes_on_until_another_one_takes_over(streams: RedisStreamManager) -> None:
    await streams.append(trades(100), session="day")
    zombie, _ = await active(streams, lease_s=0.01, name="zombie")
    await zombie.read(MARKET, 10)
    second = await member_of(streams, name="second")
    async with asyncio.timeout(20):
        while (checkpoint := await second.acquire()) is None:
            pass
    assert checkpoint.epoch == 2
    for refused in (zombie.read(MARKET, 10), zombie.commit(Commit(1, 50)), zombie.renew()):
        with pytest.raises(GroupTaken, match="who has it: second"):
            await refused
    assert await zombie.acquire() is None
    with pytest.raises(GroupTaken, match="not the active member"):
        await zombie.read(MARKET, 10)
    await zombie.release()
    assert log_sequences(await everything(second)) == list(range(100))
    await second.commit(Commit(1, 100))


async def test_an_active_member_stays_it_by_renewing_or_committing(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    consumer, _ = await active(streams, lease_s=1_000.0)
    other = await member_of(streams)
    await other.acquire()
    first = other.holder
    await consumer.renew()
    await other.acquire()
    second = other.holder
    await consumer.commit(Commit(1, 0))
    await other.acquire()
    third = other.holder
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.since_ns == second.since_ns == third.since_ns
    assert first.until_ns <= second.until_ns <= third.until_ns


async def test_an_active_member_that_acquires_again_is_given_all_that_it_did_not_commit(
    streams: RedisStreamManager,
) -> None:
    await streams.append(trades(100), session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    await consumer.commit(Commit(1, 40))
    again = await consumer.acquire()
    assert again is not None
    assert (again.epoch, again.log_sequence) == (2, 40)
    assert log_sequences(await everything(consumer)) == list(range(40, 100))


_HOLDER = """
import asyncio, os, sys
from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.streams import Address, RedisStreamManager

async def main():
    path, password, namespace = sys.argv[1:]
    async with RedisStreamManager(Address.unix(path, password), namespace=namespace, progress=False) as manager:
        consumer = await manager.member("day", "g", symbols=SymbolTable(), sources=SourceTable(), lease_s=3_000.0)
        assert await consumer.acquire() is not None
        await consumer.read(EventType.MARKET_DATA, 10_000)
        print("reads", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_killed_processs_group_is_taken_over_at_once(streams: RedisStreamManager) -> None:
    await streams.append(trades(200), session="day")
    credentials = streams.address.credentials
    assert credentials is not None
    words = [streams.address.connection["path"], credentials.get_credentials()[-1], streams._keys.namespace]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _HOLDER, *words, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"reads\n"
        standby = await member_of(streams)
        assert await standby.acquire() is None
        process.kill()
        await process.wait()
        assert (await streams.groups.list("day"))[0].state == "dead"
        assert await standby.acquire() is not None
        pages = await pages_of(standby, MARKET)
        assert sum(page.redelivered for page in pages) == 200
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def test_only_what_is_known_of_a_process_proves_it_dead() -> None:
    mark = process_mark()
    boot, namespace, pid, began = mark.split(" ")
    assert not is_dead(mark)
    assert is_dead(f"{boot} {namespace} {pid} {int(began) + 1}")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ended:
        began_then = Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[19]
        theirs = f"{boot} {namespace} {ended.pid} {began_then}"
        assert not is_dead(theirs)
        ended.kill()
        # Killed and not yet waited for, it is a zombie, and as dead.
        while not is_dead(theirs):
            pass
        assert "Z" in Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2]
    assert is_dead(theirs)
    for unknown in ("", "x", f"other {namespace} {ended.pid} 1", f"{boot} pid:[1] {ended.pid} 1", f"{boot} a b c"):
        assert not is_dead(unknown)
    assert (name_of(b"not json"), mark_of(b'{"mark": 3}')) == ("", "")


async def test_what_cannot_be_read_becomes_a_letter_and_the_rest_goes_on(streams: RedisStreamManager) -> None:
    await streams.append(trades(20), session="day")
    stream = streams._keys.session((await streams.session("day")).number).streams[MARKET]
    call = streams._connections.call
    meta = streams._keys.session((await streams.session("day")).number).meta
    # A frame that was damaged, at the next log sequences; and somebody else's entry.
    last_ms = int(await call("HGET", meta, "last_ms"))
    await call("XADD", stream, f"{last_ms}-20", "log_sequence", "20", "frame", b"HFLF broken")
    await call("HINCRBY", meta, "events", 1)
    await streams.append(trades(5, seed=1), session="day")
    await call("XADD", stream, "*", "hello", "world")
    consumer, _ = await active(streams)
    pages = await pages_of(consumer, MARKET)
    assert log_sequences(in_order(pages)) == [*range(20), *range(21, 26)]
    broken, foreign = (letter for page in pages for letter in page.damaged)
    assert (broken.handler, broken.log_sequence, broken.event_type) == ("", 20, "market")
    assert "a frame has at least" in broken.error
    assert stream in broken.error
    assert msgspec.msgpack.decode(broken.frame)[1:] == [b"log_sequence", b"20", b"frame", b"HFLF broken"]
    assert "not written by hftlab's append" in foreign.error
    assert foreign.log_sequence == -1
    await consumer.commit(Commit(1, 26, letters=(broken, foreign)))
    assert await pending(streams) == 0
    kept = await consumer.letters()
    assert [letter.letter_id for letter in kept] == ["1-1", "1-2"]
    assert [msgspec.structs.replace(letter, letter_id="") for letter in kept] == [broken, foreign]


async def test_entries_that_were_deleted_while_pending_are_acknowledged_and_missing(
    streams: RedisStreamManager,
) -> None:
    for index in range(5):
        await streams.append(trades(10, seed=index), session="day")
    first, _ = await active(streams)
    await everything(first)
    await first.release()
    stream = streams._keys.session((await streams.session("day")).number).streams[MARKET]
    entries = await streams._connections.call("XRANGE", stream, "-", "+")
    await streams._connections.call("XDEL", stream, entries[1][0], entries[4][0])
    second, _ = await active(streams)
    # Also one that vanishes between being claimed and being read.
    await streams._connections.call("XDEL", stream, entries[2][0])
    pages = await pages_of(second, MARKET)
    assert log_sequences(in_order(pages)) == [*range(10), *range(30, 40)]
    await second.commit(Commit(1, 50))
    assert await pending(streams) == 0


async def test_a_cancelled_read_loses_nothing(server: EmbeddedServer) -> None:
    async with managed(server, frame_rows=20) as manager:
        await manager.append(trades(3_000), session="day")
        consumer, _ = await active(manager)
        random_ = random.Random(5)
        seen: list[int] = []
        cancelled = 0
        while not seen or seen[-1] < 2_999:
            task = asyncio.ensure_future(consumer.read(MARKET, 40))
            for _ in range(random_.randrange(12)):
                await asyncio.sleep(0)
            if not task.done() and random_.random() < 0.7:
                task.cancel()
            try:
                page = await task
            except asyncio.CancelledError:
                cancelled += 1
                continue
            seen += [log for batch in page.batches for log in log_sequences(batch)]
    assert seen == list(range(3_000))
    assert cancelled > 0


def behind(server: EmbeddedServer, path: str, **settings: object) -> RedisStreamManager:
    assert server.address.credentials is not None
    password = server.address.credentials.get_credentials()[-1]
    return RedisStreamManager(Address.unix(path, password), deadline_s=20.0, progress=False, **settings)  # type: ignore[arg-type]


def losing(proxy: Proxy, seed: int, share: float) -> None:
    chance = random.Random(seed)
    proxy.lose = lambda command: command[0] in (b"EVALSHA", b"EVAL") and chance.random() < share


@pytest.mark.parametrize("seed", range(3))
async def test_lost_replies_to_reads_and_commits_change_nothing(server: EmbeddedServer, seed: int) -> None:
    batch = mixed(2_000, seed=seed)
    async with managed(server, frame_rows=25) as manager:
        await manager.append(batch, session="day")
        async with proxy_to(server.address.connection["path"]) as (proxy, path):
            async with behind(server, path, namespace=manager._keys.namespace, seed=seed) as lossy:
                losing(proxy, seed, 0.15)
                consumer, _ = await active(lossy)
                seen: list[int] = []
                serial, acknowledged = 0, 0
                reached = dict.fromkeys(TYPE_ORDER, 0)
                while min(reached.values()) < 2_000:
                    for one in TYPE_ORDER:
                        page = await consumer.read(one, 100)
                        seen += [log for batch in page.batches for log in log_sequences(batch)]
                        reached[one] = page.reached
                    serial += 1
                    done = await consumer.commit(Commit(serial, min(reached.values())))
                    acknowledged += done.acknowledged
            assert proxy.lost > 0
        assert sorted(seen) == list(range(2_000))
        assert await pending(manager) == 0
        entries = sum(
            await manager._connections.call_many(
                [("XLEN", stream) for stream in manager._keys.session(1).streams.values()]
            )
        )
        assert acknowledged == entries


async def test_a_call_that_arrives_late_takes_nothing_from_the_ones_after_it(streams: RedisStreamManager) -> None:
    for index in range(6):
        await streams.append(trades(10, seed=index), session="day")
    consumer, _ = await active(streams)
    assert (await consumer.read(MARKET, 10)).reached == 10
    stream = consumer._streams[MARKET]
    # The same script once more, as by a connection that hung: its reply goes to nobody.
    await consumer._fetch(stream, 2)
    seen = [log for page in await pages_of(consumer, MARKET) for batch in page.batches for log in log_sequences(batch)]
    assert seen == list(range(10, 60))


async def test_a_wait_ends_when_something_comes_and_can_be_cancelled(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    consumer, _ = await active(streams)
    await consumer.wait(MARKET, 5.0)
    await pages_of(consumer, MARKET)
    waiting = asyncio.ensure_future(consumer.wait(MARKET, 0.9))
    await until_blocked(streams)
    assert consumer.silent_s == 0.0
    await streams.append(trades(5, seed=1), session="day")
    async with asyncio.timeout(20):
        await waiting
    assert sum(map(len, (await consumer.read(MARKET, 10)).batches)) == 5
    cancelled = asyncio.ensure_future(consumer.wait(MARKET, 0.9))
    await until_blocked(streams)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert consumer.silent_s == 0.0
    await consumer.wait(MARKET, 0.01)
    await consumer.wait(MARKET, 0.0)


async def until_blocked(manager: RedisStreamManager) -> None:
    async with asyncio.timeout(20):
        while b"blocked_clients:0" in await manager._connections.call("INFO", "clients"):
            pass


async def test_a_server_that_owes_an_answer_is_silent(server: EmbeddedServer) -> None:
    async with managed(server) as manager:
        await manager.append(trades(10), session="day")
        async with (
            proxy_to(server.address.connection["path"]) as (proxy, path),
            behind(server, path, namespace=manager._keys.namespace) as held_up,
        ):
            consumer, _ = await active(held_up)
            assert consumer.silent_s == 0.0
            go_on = asyncio.Event()

            async def hold(command: list[bytes]) -> None:
                await go_on.wait()

            proxy.hold = hold
            reading = asyncio.ensure_future(consumer.read(MARKET, 10))
            await until(lambda: consumer.silent_s > 0.01)
            go_on.set()
            await reading
            assert consumer.silent_s == 0.0


async def test_flushall_under_a_member_says_that_the_group_is_lost(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    consumer, _ = await active(streams)
    await consumer.read(MARKET, 10)
    keys = await streams._connections.call("KEYS", f"{{{streams._keys.namespace}}}*")
    # What FLUSHALL does, to this test's keys alone.
    await streams._connections.call("UNLINK", *keys)
    with pytest.raises(GroupLost, match="FLUSHALL"):
        await consumer.read(MARKET, 10)
    with pytest.raises(GroupLost):
        await consumer.commit(Commit(1, 10))
    await consumer.release()


async def test_a_backlog_is_what_lies_beyond_the_last_commit(streams: RedisStreamManager) -> None:
    await streams.append(trades(100), session="day")
    consumer, _ = await active(streams)
    assert await consumer.backlog() == 100
    await everything(consumer)
    await consumer.commit(Commit(1, 80))
    assert await consumer.backlog() == 20
    assert "at 80" in repr(consumer)
    assert "active" in repr(consumer)


async def test_a_closed_member_reads_no_more_and_its_lease_runs_on(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    consumer, _ = await active(streams)
    await consumer.close()
    with pytest.raises(GroupTaken):
        await consumer.read(MARKET, 10)
    assert await (await member_of(streams)).acquire() is None


async def test_thousands_of_pending_entries_are_claimed_in_slices(streams: RedisStreamManager) -> None:
    await streams.append(trades(2_500), session="day", format="entries")
    first, _ = await active(streams, lease_s=0.01)
    await everything(first)
    assert await pending(streams) == 2_500
    second = await member_of(streams, types=None, lease_s=0.01)
    async with asyncio.timeout(20):
        while await second.acquire() is None:
            pass
    assert log_sequences(await everything(second)) == list(range(2_500))
    stream = streams._keys.session(second.session.number).streams[MARKET]
    # What another owner left empty is removed.
    assert len(await streams._connections.call("XINFO", "CONSUMERS", stream, "g")) == 1


async def test_handled_rows_are_counted_exactly_beside_held_ones_of_other_types() -> None:
    logs = np.array([3, 5, 9, 12])
    assert _handled(logs, 0, np.array([], np.int64)) == 0
    assert _handled(logs, 10, np.array([], np.int64)) == 3
    assert _handled(logs, 10, np.array([4, 5, 6, 12])) == 2
    assert _handled(logs, 13, np.array([3, 12])) == 2
    assert _handled(np.array([], np.int64), 13, np.array([3, 12])) == 0


async def test_a_position_goes_forward_only(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    consumer, _ = await active(streams)
    await everything(consumer)
    await consumer.commit(Commit(1, 8))
    with pytest.raises(ValidationError, match="never goes back from 8; got 7"):
        await consumer.commit(Commit(2, 7))
