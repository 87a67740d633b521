"""Sinks on real servers: what the bus accepted is kept, once and in order, and the loss that they show is the truth."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus
from hftlab.errors import BackgroundFailed, BusBusy, BusFull, ServerUnreachable, ValidationError, WriterFenced
from hftlab.events import Event, EventBatch, MarketDataEvent, SignalEvent
from hftlab.streams import EmbeddedServer, RedisStreamManager, Sink
from hftlab.streams.sinks import Sinks
from hftlab.streams.sinks.choosing import Choice
from hftlab.streams.sinks.options import SinkOptions
from hftlab.supervise import Supervisor
from tests.bus.samples import trades as priced
from tests.streams.batches import mixed
from tests.streams.servers import BINARIES, binary_of, in_a_loop, managed, until

PROJECT = Path(__file__).resolve().parents[2]


class Stand:
    """A bus with its pump, and sinks: what a lab is to them."""

    def __init__(self, streams: RedisStreamManager) -> None:
        self.bus = EventBus()
        self.streams = streams
        self.supervisor = Supervisor("stand")
        self.sinks = Sinks(self.bus, self.supervisor.add)

    def keep(self, types: Any = None, symbols: Any = None, session: str = "day", **options: Any) -> Sink:
        options.setdefault("flush_s", 0.002)
        return self.sinks.keep(self.streams, session, SinkOptions(Choice(types, symbols), **options))


@asynccontextmanager
async def standing(streams: RedisStreamManager) -> AsyncIterator[Stand]:
    stand = Stand(streams)
    stand.supervisor.start(pump=stand.bus.pump)
    await asyncio.sleep(0)
    try:
        yield stand
    finally:
        await stand.sinks.close(5.0)
        await stand.supervisor.close()


def said(events: Iterable[Event]) -> list[Event]:
    """What events say, but for their numbers: the bus gives those to sources that have none."""
    return [msgspec.structs.replace(event, event_id=0, sequence=0, flags=0) for event in events]


def prices(batch: EventBatch) -> list[float]:
    found: list[float] = batch.records["price"].tolist()
    return found


@given(
    st.lists(st.tuples(st.integers(0, 300), st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.integers(5, 200),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_bus_accepted_is_kept_as_it_was_and_in_that_order(
    server: EmbeddedServer, steps: list[tuple[int, bool, bool]], frame_rows: int
) -> None:
    async def main() -> None:
        sent: list[Event] = []
        async with managed(server) as streams, standing(streams) as stand:
            sink = stand.keep(frame_rows=frame_rows, buffer_rows=256)
            for seed, (count, singly, flush) in enumerate(steps):
                batch = mixed(count % 20 if singly else count, seed=seed)
                if singly:
                    for event in batch:
                        await stand.bus.publish(event)
                else:
                    await stand.bus.publish_batch(batch)
                sent += batch
                if flush:
                    await sink.flush()
                    assert sink.statistics().kept == len(sent)
            done = await sink.close()
            assert (done.accepted, done.kept, done.waiting_rows, done.state) == (len(sent), len(sent), 0, "closed")
            if sent:
                assert said(await streams.range("day")) == said(sent)

    in_a_loop(main())


async def test_only_the_chosen_types_and_symbols_are_kept(one: RedisStreamManager) -> None:
    async with standing(one) as stand:
        sink = stand.keep(types=[MarketDataEvent], symbols="BTCUSDT")
        batch = mixed(500)
        await stand.bus.publish_batch(batch)
        await sink.flush()
        wanted = [event for event in batch if isinstance(event, MarketDataEvent) and event.symbol == "BTCUSDT"]
        assert said(await one.range("day")) == said(wanted)
        assert sink.statistics().accepted == len(wanted)


@pytest.mark.parametrize("binary", BINARIES)
async def test_each_event_is_kept_once_though_the_server_is_killed_again_and_again(binary: str, tmp_path: Path) -> None:
    async with (
        EmbeddedServer(tmp_path / ".hftlab", binary=binary_of(binary), appendfsync="always") as victim,
        managed(victim, deadline_s=0.3, seed=1) as streams,
        standing(streams) as stand,
    ):
        sink = stand.keep(frame_rows=50, buffer_rows=1_000)
        total, step = 6_000, 60

        async def publish() -> None:
            for first in range(0, total, step):
                await stand.bus.publish_batch(priced(step, first=first))

        publishing = asyncio.create_task(publish())
        for kills in range(3):
            goal = 800 + 1_500 * kills
            await until(lambda: sink.statistics().kept >= goal)  # noqa: B023
            pid = victim.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: victim.pid != pid)  # noqa: B023
            await victim.restart()
        await publishing
        await sink.flush()
        assert prices(await streams.range("day")) == list(range(total))
        done = sink.statistics()
        assert (done.accepted, done.kept, done.trouble) == (total, total, "")


async def test_a_full_buffer_makes_publishers_wait_until_the_server_is_back(
    one: RedisStreamManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = server_is_away(one, monkeypatch)
    async with standing(one) as stand:
        sink = stand.keep(buffer_rows=100)
        publishing = asyncio.create_task(stand.bus.publish_batch(priced(1_000)))
        await until(lambda: sink.statistics().waits)
        shown = sink.statistics()
        assert (shown.accepted, shown.kept, shown.waiting_rows, shown.waiting_bytes) == (100, 0, 100, 12_800)
        assert "if this process dies now, the last 100 events" in repr(sink)
        assert not publishing.done()
        await until(lambda: sink.statistics().trouble)
        assert sink.statistics().trouble == "ServerUnreachable: nobody answers"
        back.set()
        assert await publishing == 1_000
        await sink.flush()
        assert prices(await one.range("day")) == list(range(1_000))


async def test_a_full_buffer_drops_the_newest_where_it_is_told_to_and_counts_them(
    one: RedisStreamManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = server_is_away(one, monkeypatch)
    async with standing(one) as stand:
        sink = stand.keep(buffer_rows=100, overflow="drop newest")
        await stand.bus.publish_batch(priced(1_000))
        assert sink.statistics().dropped == 900
        back.set()
        await sink.flush()
        await stand.bus.publish_batch(priced(50, first=5_000))
        with pytest.warns(RuntimeWarning, match="events that are not kept: 900 dropped"):
            done = await sink.close()
        assert (done.accepted, done.kept, done.dropped) == (1_050, 150, 900)
        assert prices(await one.range("day")) == [*range(100), *range(5_000, 5_050)]


async def test_a_full_buffer_is_the_publisher_s_error_where_it_is_told_to(
    one: RedisStreamManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_is_away(one, monkeypatch)
    async with standing(one) as stand:
        sink = stand.keep(buffer_rows=100, overflow="raise")
        with pytest.raises(BusFull, match=r"Sink\('day', write-behind of all events: starting, 0 of 100 kept"):
            await stand.bus.publish_batch(priced(1_000))
        with pytest.warns(RuntimeWarning, match="not kept: 100 cut off"):
            done = await sink.close(0.01)
        assert (done.accepted, done.cut_off, done.waiting_rows) == (100, 100, 0)


def server_is_away(streams: RedisStreamManager, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Nobody answers the sink until the event is set."""
    back = asyncio.Event()
    claim = streams.writer

    async def claimed(*arguments: Any, **options: Any) -> Any:
        if not back.is_set():
            raise ServerUnreachable("nobody answers")
        return await claim(*arguments, **options)

    monkeypatch.setattr(streams, "writer", claimed)
    return back


@pytest.mark.parametrize("lines", [40, 400])
async def test_a_process_that_is_killed_loses_no_more_than_it_said(server: EmbeddedServer, lines: int) -> None:
    assert server.address.credentials is not None
    async with managed(server, namespace="n") as streams:
        before = [info.name for info in await streams.sessions()]
        if "day" in before:
            await streams.delete("day")
        process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [sys.executable, "-m", "tests.streams.sink_participant", server.address.connection["path"]],
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(server.address.credentials.get_credentials()[-1] + "\n")
        process.stdin.flush()

        def read_then_kill() -> list[list[int]]:
            assert process.stdout is not None
            told: list[list[int]] = []
            for line in process.stdout:
                told.append([int(word) for word in line.split()])
                if len(told) >= lines and told[-1][1]:
                    break
            process.kill()
            told += [[int(word) for word in line.split()] for line in process.stdout if line.endswith("\n")]
            process.communicate()
            return told

        told = await asyncio.get_running_loop().run_in_executor(None, read_then_kill)
        recovered = prices(await streams.range("day"))
        accepted, kept, waiting = told[-1]
        assert recovered == list(range(len(recovered))), "a prefix of what was accepted"
        assert accepted == kept + waiting
        assert len(recovered) >= kept
        assert accepted - len(recovered) <= waiting
        await streams.delete("day")


async def test_a_sink_whose_name_was_taken_over_fails_and_its_publishers_are_told(server: EmbeddedServer) -> None:
    async with (
        managed(server) as one,
        managed(server, namespace=one._keys.namespace) as other,
        standing(one) as stand,
    ):
        sink = stand.keep()
        await stand.bus.publish_batch(priced(10))
        await sink.flush()
        await other.writer("day", "sink")
        await stand.bus.publish_batch(priced(5, first=10))
        with pytest.raises(BackgroundFailed, match="not all that was accepted is kept: another writer took over"):
            await sink.flush()
        assert isinstance(sink.failure, WriterFenced)
        assert sink.statistics().state == "failed"
        with pytest.raises(BackgroundFailed, match=r"can't keep events any more .* so nothing is published either"):
            await stand.bus.publish_batch(priced(5, first=15))
        with pytest.warns(RuntimeWarning, match="not kept: 5 cut off"):
            again = stand.keep()
        assert again is not sink
        await stand.bus.publish_batch(priced(5, first=20))
        await again.flush()
        assert prices(await one.range("day")) == [*range(10), *range(20, 25)]


async def test_a_sink_ahead_publishes_only_what_is_kept_with_its_id(streams: RedisStreamManager) -> None:
    async with standing(streams) as stand:
        sink = stand.keep(mode="ahead", frame_rows=16)
        stranger = await streams.writer("day", "stranger")
        seen: list[Event] = []
        stand.bus.subscribe(lambda event: seen.append(event), name="see")

        async def publish(first: int) -> list[int]:
            ids = await sink.publish(MarketDataEvent(symbol="X", price=first))
            await stranger.append(priced(3, first=100_000))
            return ids + await sink.publish(priced(40, first=first + 1))

        ids = await asyncio.gather(*(publish(1_000 * caller) for caller in range(4)))
        await stand.bus.drain()
        kept = [event for event in await streams.range("day") if getattr(event, "price", 0) < 100_000]
        assert sorted(event.event_id for event in seen) == sorted(one for several in ids for one in several)
        assert [event.event_id for event in seen] == [event.event_id for event in kept], "in the order of the log"
        assert sorted(seen, key=lambda event: event.event_id) == kept
        done = sink.statistics()
        assert (done.accepted, done.kept, done.waiting_rows, done.unpublished) == (164, 164, 0, 0)
        await stand.bus.publish(SignalEvent(symbol="X", signal_type="A", strength=1.0))
        assert sink.statistics().accepted == 164, "what is published past it is not kept"


async def test_a_failed_append_ahead_publishes_nothing_and_what_the_log_has_of_it_is_counted(
    one: RedisStreamManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with standing(one) as stand:
        sink = stand.keep(mode="ahead")
        seen: list[float] = []
        stand.bus.subscribe(lambda price: seen.append(price), MarketDataEvent, name="see")
        await sink.publish(priced(2))
        writer = sink._ahead._writer
        assert writer is not None
        append = type(writer).append

        async def lost_reply(self: Any, batch: EventBatch) -> Any:
            await append(self, batch)
            raise ServerUnreachable("the reply was lost")

        async def nothing(self: Any, batch: EventBatch) -> Any:
            raise ServerUnreachable("never sent")

        for failing in (lost_reply, nothing):
            monkeypatch.setattr(type(writer), "append", failing)
            with pytest.raises(ServerUnreachable):
                await sink.publish(priced(3, first=10))
            monkeypatch.setattr(type(writer), "append", append)
            await sink.flush()
        await sink.publish(priced(1, first=20))
        await stand.bus.drain()
        assert seen == [0, 1, 20]
        assert prices(await one.range("day")) == [0, 1, 10, 11, 12, 20]
        done = sink.statistics()
        assert (done.accepted, done.kept, done.dropped, done.unpublished, done.waiting_rows) == (6, 6, 0, 3, 0)


async def test_what_a_sink_ahead_can_t_do_is_refused_before_anything_is_appended(one: RedisStreamManager) -> None:
    async with standing(one) as stand:
        behind = stand.keep(session="behind")
        with pytest.raises(ValidationError, match=r"sink.publish is for lab.keep\(…, mode='ahead'\)"):
            await behind.publish(priced(1))
        sink = stand.keep(mode="ahead")
        told: list[str] = []

        @stand.bus.on(MarketDataEvent)
        async def again(event: MarketDataEvent) -> None:
            try:
                await sink.publish(event)
            except BusBusy as error:
                told.append(str(error))

        await sink.publish(priced(1))
        await stand.bus.drain()
        assert "sink.publish was called from a handler" in told[0]
        bad = priced(2)
        bad.records["received"] = -5
        with pytest.raises(ValidationError, match="received is 0"):
            await sink.publish(bad)
        assert (await one.session("day")).events == 1
        await sink.close()
        with pytest.raises(ValidationError, match="the sink of 'day' was closed"):
            await sink.publish(priced(1))


async def test_a_close_that_was_cancelled_is_finished_by_the_next_one(
    one: RedisStreamManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = server_is_away(one, monkeypatch)
    async with standing(one) as stand:
        sink = stand.keep()
        await stand.bus.publish_batch(priced(10))
        closing = asyncio.create_task(sink.close(60))
        await until(lambda: sink.closed)
        closing.cancel()
        await asyncio.wait([closing])
        back.set()
        done = await sink.close(10)
        assert (done.kept, done.cut_off, done.state) == (10, 0, "closed")
        assert await sink.close() == done
        assert prices(await one.range("day")) == list(range(10))


async def test_an_event_that_can_t_be_stored_holds_up_no_other(one: RedisStreamManager) -> None:
    async with standing(one) as stand:
        sink = stand.keep()
        batch = priced(100)
        batch.records["received"][40] = -5
        await stand.bus.publish_batch(batch)
        await sink.flush()
        assert prices(await one.range("day")) == [price for price in range(100) if price != 40]
        assert sink.statistics().unstorable == 1
        with pytest.warns(RuntimeWarning, match="not kept: 1 not storable"):
            await sink.close()
