"""A connection's messages over loopback: framed, stamped, and connected again when it breaks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import hftlab as hl
from hftlab.errors import FeedError, NotStarted, ValidationError
from hftlab.events import ClockSource, EventBatch, Flags
from hftlab.feeds import LengthPrefix, TcpReceiver, tcp
from tests.feeds.sockets import packed, parse, until

CLOCK = hl.SystemClock()
TRADES = LengthPrefix(2)


class Venue:
    """A server on loopback that sends what the test says to whoever connected last."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.heard = b""
        self.accepted = 0
        self.writer: asyncio.StreamWriter | None = None
        self.server: asyncio.Server | None = None
        self.port = 0

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.writer = writer
        try:
            while data := await reader.read(1_024):
                self.heard += data
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def send(self, data: bytes) -> None:
        await until(lambda: self.writer is not None)
        assert self.writer is not None
        self.writer.write(data)
        await self.writer.drain()

    async def hang_up(self) -> None:
        """Break the connection with an ordinary end."""
        await until(lambda: self.writer is not None)
        assert self.writer is not None
        self.writer.close()
        self.writer = None

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        if self.server is not None:
            self.server.close()
            self.server = None


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    made = Venue()
    await made.open()
    yield made
    await made.close()


def framed(*numbers: int) -> bytes:
    return b"".join(len(packed(number)).to_bytes(2, "big") + packed(number) for number in numbers)


def receiver_of(venue: Venue, **options: Any) -> TcpReceiver:
    chosen: dict[str, Any] = {"framing": TRADES, "clock": CLOCK} | options
    return TcpReceiver((venue.host, venue.port), parse, **chosen)


async def gathered(receiver: TcpReceiver, rows: int) -> EventBatch:
    batches: list[EventBatch] = []
    async with asyncio.timeout(20):
        while sum(map(len, batches)) < rows:
            batch = await receiver.next()
            assert batch is not None
            batches.append(batch)
    return EventBatch.concat(batches)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts to connect follow each other at once, but for those of the test of just that."""
    monkeypatch.setattr(tcp, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(tcp, "MOST_RETRY_S", 0.002)


async def test_messages_are_cut_and_parsed_wherever_the_reads_end(venue: Venue) -> None:
    stream = framed(*range(20))
    async with receiver_of(venue) as receiver:
        for begin in range(0, len(stream), 7):
            await venue.send(stream[begin : begin + 7])
            if begin % 3 == 0:
                await asyncio.sleep(0)
        batch = await gathered(receiver, 20)
        assert batch.column("sequence") == list(range(20))
        assert np.all(np.diff(batch.records["received"]) >= 0)
        counts = receiver.statistics()
        assert (counts.messages, counts.bytes, counts.connections, counts.lost) == (20, 320, 1, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="kernel stamps are Linux's")
async def test_all_messages_of_a_read_have_the_kernels_stamp_of_it(venue: Venue) -> None:
    async with receiver_of(venue) as receiver:
        async with asyncio.timeout(20):
            while True:  # the kernel switches its stamps on a moment after it was asked
                await venue.send(framed(0))
                if (await gathered(receiver, 1)).records["clock"][-1] == ClockSource.KERNEL:
                    break
        receiver.pause()
        await venue.send(framed(1, 2, 3))
        sent = CLOCK.now_ns()
        receiver.resume()
        rows = (await gathered(receiver, 3)).records
        assert np.all(rows["clock"] == ClockSource.KERNEL)
        assert rows["received"][0] == rows["received"][2] <= sent + 1_000_000
        assert np.all(rows["flags"] == Flags.LAST_PART | Flags.ARRIVAL_TIME)


async def test_without_stamps_the_application_is_the_clock(venue: Venue) -> None:
    async with receiver_of(venue, stamps=False) as receiver:
        await venue.send(framed(1))
        assert (await gathered(receiver, 1)).column("clock") == [ClockSource.APPLICATION]
        assert "1 reads stamped by application" in repr(receiver)


async def test_a_broken_connection_is_made_again_and_the_half_message_discarded(venue: Venue) -> None:
    async with receiver_of(venue, hello=b"subscribe\n") as receiver:
        await venue.send(framed(1) + framed(2)[:5])
        assert (await gathered(receiver, 1)).column("sequence") == [1]
        reading = asyncio.create_task(gathered(receiver, 1))
        await venue.hang_up()
        await venue.send(framed(3))
        assert (await reading).column("sequence") == [3]
        counts = receiver.statistics()
        assert (counts.connections, counts.lost, counts.discarded_bytes) == (2, 1, 5)
        await until(lambda: venue.heard == b"subscribe\n" * 2)
        assert "1 lost" in repr(receiver)


async def test_what_came_before_the_break_is_handed_out(venue: Venue) -> None:
    async with receiver_of(venue) as receiver:
        receiver.pause()
        await venue.send(framed(1, 2))
        await venue.hang_up()
        receiver.resume()
        assert (await gathered(receiver, 2)).column("sequence") == [1, 2]


async def test_a_server_that_is_away_is_asked_again_until_it_is_back(venue: Venue) -> None:
    async with receiver_of(venue) as receiver:
        await until(lambda: venue.accepted == 1)
        await venue.close()
        reading = asyncio.create_task(gathered(receiver, 1))
        await until(lambda: receiver.statistics().failed >= 3)
        assert "not connected" in repr(receiver)
        assert isinstance(receiver.last_error, ConnectionRefusedError)
        venue.writer = None
        await venue.open()
        await venue.send(framed(9))
        assert (await reading).column("sequence") == [9]
        assert receiver.connected
        assert receiver.last_error is None


async def test_the_first_connect_raises_where_nobody_answers(venue: Venue) -> None:
    await venue.close()
    with pytest.raises(FeedError, match=r"can't connect to 127\.0\.0\.1:\d+: .*refused"):
        await receiver_of(venue).open()


async def test_waits_between_attempts_double_up_to_a_bound(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "FIRST_RETRY_S", 0.1)
    monkeypatch.setattr(tcp, "MOST_RETRY_S", 1.0)
    waits: list[float] = []
    async with receiver_of(venue) as receiver:
        await until(lambda: venue.accepted == 1)
        await venue.close()

        async def noted(seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

        monkeypatch.setattr(receiver._ready, "for_a_while", noted)
        reading = asyncio.create_task(receiver.next())
        await until(lambda: len(waits) >= 8)
        await receiver.close()
        assert await reading is None
    for wait, most in zip(waits, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0), strict=False):
        assert most / 2 <= wait <= most


async def test_an_outage_of_hours_does_not_end_the_attempts(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    async with receiver_of(venue) as receiver:
        await until(lambda: venue.accepted == 1)
        await venue.close()

        async def noted(seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

        monkeypatch.setattr(receiver._ready, "for_a_while", noted)
        receiver._attempts = 100_000
        reading = asyncio.create_task(receiver.next())
        await until(lambda: len(waits) >= 2 or reading.done())
        await receiver.close()
        assert await reading is None
    assert all(tcp.MOST_RETRY_S / 2 <= wait <= tcp.MOST_RETRY_S for wait in waits)


async def test_bytes_that_cannot_be_right_end_the_connection_and_are_counted(venue: Venue) -> None:
    async with receiver_of(venue, framing=LengthPrefix(2, counts_itself=True)) as receiver:
        await venue.send(b"\x00\x01damaged")
        reading = asyncio.create_task(gathered(receiver, 1))
        await until(lambda: venue.accepted == 2)
        await venue.send(b"\x00\x12" + packed(4))
        assert (await reading).column("sequence") == [4]
        assert receiver.statistics().lost == 1


async def test_a_message_without_an_end_does_not_fill_the_memory(venue: Venue) -> None:
    async with receiver_of(venue, framing="lines", most_message_bytes=100) as receiver:
        await venue.send(b"x" * 200)
        reading = asyncio.create_task(receiver.next())
        await until(lambda: venue.accepted == 2)
        assert receiver.statistics().discarded_bytes == 200
        assert "no message's end" in receiver.statistics().last_error
        await receiver.close()
        assert await reading is None


async def test_a_bad_message_costs_itself(venue: Venue) -> None:
    async with receiver_of(venue) as receiver:
        await venue.send(framed(1) + b"\x00\x03bad" + framed(2))
        assert (await gathered(receiver, 2)).column("sequence") == [1, 2]
        assert receiver.statistics().refused == 1


async def test_it_publishes_until_it_is_closed(venue: Venue) -> None:
    published: list[int] = []

    async def publish(batch: EventBatch) -> None:
        published.extend(batch.column("sequence"))

    receiver = receiver_of(venue)
    running = asyncio.create_task(receiver.run(publish))
    await venue.send(framed(1, 2))
    await until(lambda: published == [1, 2])
    await receiver.close()
    await running
    assert [batch async for batch in receiver] == []
    assert repr(receiver).startswith(f"TcpReceiver(127.0.0.1:{venue.port}, closed: 2 messages, 2 rows")


async def test_closing_ends_a_wait_for_the_next_attempt(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "FIRST_RETRY_S", 1_000.0)
    monkeypatch.setattr(tcp, "MOST_RETRY_S", 1_000.0)
    async with receiver_of(venue) as receiver:
        await until(lambda: venue.accepted == 1)
        await venue.close()
        reading = asyncio.create_task(receiver.next())
        await until(lambda: receiver.statistics().failed == 1)
        await receiver.close()
        async with asyncio.timeout(20):
            assert await reading is None


async def test_it_can_only_be_read_while_open(venue: Venue) -> None:
    receiver = receiver_of(venue)
    with pytest.raises(NotStarted, match="is not open"):
        await receiver.next()
    await receiver.close()
    with pytest.raises(FeedError, match="make another one"):
        await receiver.open()


async def test_ipv6() -> None:
    venue = Venue("::1")
    try:
        await venue.open()
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine's loopback: {error}")
    async with receiver_of(venue) as receiver:
        await venue.send(framed(1))
        assert (await gathered(receiver, 1)).column("sequence") == [1]
    await venue.close()


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"framing": "json"}, "framing is 'lines', 'length-prefix'"),
        ({"hello": "login"}, "hello is the bytes"),
        ({"most_message_bytes": 0}, "most_message_bytes is an integer above 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any], rule: str) -> None:
    arguments: dict[str, Any] = {"framing": "lines", "clock": CLOCK} | wrong
    with pytest.raises(ValidationError, match=rule):
        TcpReceiver(("127.0.0.1", 1), parse, **arguments)


async def test_a_server_that_says_something_and_hangs_up_is_asked_ever_less_often(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noted, not waited for; a bound of 2 ms would let the jitter hide the doubling, and a slow machine begin anew.
    monkeypatch.setattr(tcp, "FIRST_RETRY_S", 0.1)
    monkeypatch.setattr(tcp, "MOST_RETRY_S", 10.0)
    waits: list[float] = []
    async with receiver_of(venue) as receiver:

        async def noted(seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

        monkeypatch.setattr(receiver._ready, "for_a_while", noted)
        for number in range(5):
            await until(lambda: venue.writer is not None)
            reading = asyncio.create_task(gathered(receiver, 1))
            await venue.send(framed(number))
            assert (await reading).column("sequence") == [number]
            await venue.hang_up()
            # What tells of the end is the next read.
            following = asyncio.create_task(receiver.next())
            await until(lambda: venue.accepted > number + 1)  # noqa: B023 - awaited here
            following.cancel()
            await asyncio.wait([following])
    assert len(waits) >= 4
    assert waits[-1] > 2 * waits[0]


def test_messages_before_a_length_that_can_not_be_are_handed_out_first() -> None:
    frame = LengthPrefix(4, counts_itself=True)
    sound = (7).to_bytes(4, "big") + b"abc"
    bad = (1).to_bytes(4, "big") + b"x"
    messages, taken = frame(sound * 3 + bad)
    assert (messages, taken) == ([b"abc"] * 3, 3 * len(sound))
    with pytest.raises(FeedError, match="does not cover its own 4 bytes"):
        frame(bad)
