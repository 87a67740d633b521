"""Datagrams over loopback: stamped by the kernel, parsed, refused, dropped, and always counted."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import hftlab as hl
from hftlab.clock.stamps import Trust
from hftlab.errors import FeedError, NotStarted, ValidationError
from hftlab.events import ClockSource, EventBatch, EventType, Flags, MarketDataEvent, Source, SymbolTable
from hftlab.events.records import blank
from hftlab.feeds import UdpReceiver
from tests.feeds.sockets import VENUE, packed, parse, parse_rows, until

HOME = ("127.0.0.1", 0)
CLOCK = hl.SystemClock()
linux = pytest.mark.skipif(sys.platform != "linux", reason="kernel stamps and drop counts are Linux's")


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """A socket to send from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[UdpReceiver]:
    """A receiver of trades on loopback, open."""
    async with UdpReceiver(HOME, parse, clock=CLOCK) as made:
        yield made


async def gathered(receiver: UdpReceiver, rows: int) -> EventBatch:
    """The next rows, in as many batches as they come."""
    batches: list[EventBatch] = []
    async with asyncio.timeout(20):
        while sum(map(len, batches)) < rows:
            batch = await receiver.next()
            assert batch is not None
            batches.append(batch)
    return EventBatch.concat(batches)


async def stamped_by_kernel(receiver: UdpReceiver, sender: socket.socket) -> None:
    """Send until the kernel stamps: it switches that on a moment after it was asked."""
    async with asyncio.timeout(20):
        while True:
            sender.sendto(packed(0), receiver.address)
            if (await gathered(receiver, 1)).records["clock"][-1] == ClockSource.KERNEL:
                return


def test_the_numbers_of_the_stamps_trust_are_those_of_the_rows_clock() -> None:
    assert {trust.name: trust.value for trust in Trust} == {clock.name: clock.value for clock in ClockSource}


@linux
async def test_a_row_has_when_the_kernel_got_its_datagram_which_is_before_the_application_looked(
    receiver: UdpReceiver, sender: socket.socket
) -> None:
    await stamped_by_kernel(receiver, sender)
    sent = CLOCK.now_ns()
    sender.sendto(packed(7), receiver.address)
    back = CLOCK.now_ns()
    for _ in range(1_000):  # what the application does before it looks
        gc.get_count()
    looked = CLOCK.now_ns()
    (row,) = (await gathered(receiver, 1)).records
    assert row["clock"] == ClockSource.KERNEL
    # Loopback delivers within sendto, so the truth lies between sent and back. Beyond these, what a busy machine may do
    # between the readings of two clocks.
    assert sent - 100_000_000 < row["received"] < min(looked, back + 100_000_000)
    assert (row["timestamp"], row["flags"]) == (row["received"], Flags.LAST_PART | Flags.ARRIVAL_TIME)
    assert receiver.statistics().stamps.kernel >= 2
    assert receiver.waits.count == receiver.statistics().messages


async def test_without_stamps_the_application_is_the_clock(sender: socket.socket) -> None:
    async with UdpReceiver(HOME, parse, clock=CLOCK, stamps=False) as receiver:
        sender.sendto(packed(1), receiver.address)
        before = CLOCK.now_ns()
        (row,) = (await gathered(receiver, 1)).records
    assert row["clock"] == ClockSource.APPLICATION
    assert row["received"] >= before
    assert receiver.statistics().stamps.application == 1


async def test_datagrams_come_in_their_order_and_arrivals_never_run_back(
    receiver: UdpReceiver, sender: socket.socket
) -> None:
    for number in range(200):
        sender.sendto(packed(number), receiver.address)
    batch = await gathered(receiver, 200)
    assert batch.column("sequence") == list(range(200))
    assert np.all(np.diff(batch.records["received"]) >= 0)
    assert batch.column("symbol") == ["A"] * 200
    assert batch.column("source") == [VENUE] * 200
    counts = receiver.statistics()
    assert (counts.messages, counts.bytes, counts.rows, counts.refused) == (200, 3_200, 200, 0)


async def test_a_batch_has_no_more_than_it_may(sender: socket.socket) -> None:
    async with UdpReceiver(HOME, parse, clock=CLOCK, most_datagrams=7) as receiver:
        for number in range(20):
            sender.sendto(packed(number), receiver.address)
        sizes = []
        async for batch in receiver:
            sizes.append(len(batch))
            if sum(sizes) == 20:
                break
    assert max(sizes) <= 7


# -- parsing --------------------------------------------------------------------------------------------------------


async def test_a_bad_datagram_costs_itself_and_the_last_error_is_kept(
    receiver: UdpReceiver, sender: socket.socket
) -> None:
    for payload in (packed(1), b"short", packed(2), packed(3, float("nan")), packed(4)):
        sender.sendto(payload, receiver.address)
    assert (await gathered(receiver, 3)).column("sequence") == [1, 2, 4]
    counts = receiver.statistics()
    assert (counts.messages, counts.rows, counts.refused) == (5, 3, 2)
    assert "price" in counts.last_error
    assert isinstance(receiver.last_error, ValidationError)
    assert "2 refused" in repr(receiver)


async def test_many_are_parsed_at_once_and_one_by_one_where_that_fails(sender: socket.socket) -> None:
    async with UdpReceiver(HOME, parse_rows, many=True, clock=CLOCK, source=VENUE) as receiver:
        receiver.symbols.intern("A")
        for number in range(50):
            sender.sendto(packed(number), receiver.address)
        batch = await gathered(receiver, 50)
        assert batch.column("sequence") == list(range(50))
        assert batch.column("source") == [VENUE] * 50
        for payload in (packed(1), b"short", packed(2), packed(3, float("nan")), packed(4)):
            sender.sendto(payload, receiver.address)
        assert (await gathered(receiver, 3)).column("sequence") == [1, 2, 4]
        assert receiver.statistics().refused == 2


async def test_a_parse_of_many_says_how_many_rows_each_has(sender: socket.socket) -> None:
    def doubled(payloads: list[bytes]) -> tuple[Any, list[int]]:
        counts = [payload[0] for payload in payloads]
        rows = blank(sum(counts), EventType.MARKET_DATA)
        rows["sequence"] = np.repeat(counts, counts)
        return rows, counts

    async with UdpReceiver(HOME, doubled, many=True, clock=CLOCK, symbols=SymbolTable(["A"])) as receiver:
        for count in (2, 0, 3):
            sender.sendto(bytes([count]), receiver.address)
        batch = await gathered(receiver, 5)
    assert batch.column("sequence") == [2, 2, 3, 3, 3]
    received = batch.records["received"]
    assert received[0] == received[1]
    assert received[2] == received[4]


@pytest.mark.parametrize(
    ("parsed", "symbols", "refused"),
    [
        (lambda payload: None, [], 0),
        (lambda payload: [], [], 0),
        (lambda payload: [parse(payload), parse(payload)], ["A", "A"], 0),
        (lambda payload: (parse(payload) for _ in range(2)), ["A", "A"], 0),
        (lambda payload: EventBatch.from_events([parse(payload)]), ["A"], 0),
        (lambda payload: blank(1, EventType.MARKET_DATA), [], 1),
        (lambda payload: np.zeros(3), [], 1),
        (lambda payload: 5, [], 1),
        (lambda payload: [5], [], 1),
    ],
)
async def test_parse_returns_events_batches_rows_or_nothing(
    sender: socket.socket, parsed: Callable[[bytes], Any], symbols: list[str], refused: int
) -> None:
    def chosen(payload: bytes) -> Any:
        return MarketDataEvent(symbol="END") if payload == b"end" else parsed(payload)

    async with UdpReceiver(HOME, chosen, clock=CLOCK) as receiver:
        sender.sendto(packed(1), receiver.address)
        sender.sendto(b"end", receiver.address)
        assert (await gathered(receiver, len(symbols) + 1)).column("symbol") == [*symbols, "END"]
        assert receiver.statistics().refused == refused


async def test_impossible_times_are_rejected_and_those_ahead_of_their_arrival_flagged(sender: socket.socket) -> None:
    def timed(payload: bytes) -> MarketDataEvent:
        return MarketDataEvent(symbol="A", timestamp=int(payload))

    now = CLOCK.now_ns()
    async with UdpReceiver(HOME, timed, clock=CLOCK) as receiver:
        for time in (now - 5, now // 1_000_000, now + 30_000_000_000):
            sender.sendto(str(time).encode(), receiver.address)
        batch = await gathered(receiver, 2)
        assert batch.column("timestamp") == [now - 5, now + 30_000_000_000]
        assert [bool(flags & Flags.AHEAD) for flags in batch.column("flags")] == [False, True]
        found = receiver.statistics().times
        assert (found.impossible, found.rejected) == ({"unit": 1}, 1)
        assert "looks like ms" in repr(receiver)


async def test_a_policy_that_raises_does_so_once(sender: socket.socket) -> None:
    async with UdpReceiver(
        HOME, lambda payload: MarketDataEvent(symbol="A", timestamp=int(payload)), clock=CLOCK, times="raise"
    ) as receiver:
        sender.sendto(b"1723161255030", receiver.address)
        with pytest.raises(ValidationError, match="looks like ms"):
            await receiver.next()
        sender.sendto(str(CLOCK.now_ns()).encode(), receiver.address)
        assert len(await gathered(receiver, 1)) == 1


# -- pauses, drops, ends --------------------------------------------------------------------------------------------


@linux
async def test_what_the_kernel_drops_while_paused_is_counted(sender: socket.socket) -> None:
    async with UdpReceiver(HOME, parse, clock=CLOCK, buffer_bytes=4_096) as receiver:
        receiver.pause()
        waiting = asyncio.create_task(gathered(receiver, 1))
        for number in range(500):
            sender.sendto(packed(number), receiver.address)
        await asyncio.sleep(0)
        assert receiver.statistics().paused
        assert receiver.statistics().messages == 0
        receiver.resume()
        first = await waiting
        counts = receiver.statistics()
        assert (counts.messages, counts.paused) == (len(first), False)
        assert counts.dropped_by_kernel == 500 - len(first) > 0
        assert f"{counts.dropped_by_kernel:,} dropped by kernel" in repr(receiver)


async def test_a_bus_that_is_full_pauses_the_receiver(sender: socket.socket) -> None:
    bus = hl.EventBus(capacity=1_024)
    bus.on("market.*", name="count")(lambda sequence: None)
    flood = EventBatch.from_events([MarketDataEvent(symbol="A", timestamp=CLOCK.now_ns())] * 1_024)
    async with UdpReceiver(HOME, parse, clock=CLOCK) as receiver:
        bus.attach(receiver)
        bus.offer(flood)
        bus.do_work(1)
        assert receiver.statistics().paused
        reading = asyncio.create_task(gathered(receiver, 1))
        sender.sendto(packed(1), receiver.address)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reading.done()
        await until(lambda: bus.do_work().idle and not receiver.statistics().paused)
        assert (await reading).column("sequence") == [1]
        bus.detach(receiver)
    bus.close()


async def test_a_datagram_that_is_too_long_is_refused_and_counted(sender: socket.socket) -> None:
    async with UdpReceiver(HOME, parse, clock=CLOCK, most_bytes=16) as receiver:
        sender.sendto(packed(1) + b"more", receiver.address)
        sender.sendto(packed(2), receiver.address)
        assert (await gathered(receiver, 1)).column("sequence") == [2]
        assert receiver.statistics().truncated == 1


async def test_it_publishes_until_it_is_closed(sender: socket.socket) -> None:
    bus: list[EventBatch] = []

    async def publish(batch: EventBatch) -> None:
        bus.append(batch)

    receiver = UdpReceiver(HOME, parse, clock=CLOCK)
    running = asyncio.create_task(receiver.run(publish))
    await until(lambda: "open" in repr(receiver) and "not open" not in repr(receiver))
    sender.sendto(packed(1), receiver.address)
    await until(lambda: len(bus) == 1)
    await receiver.close()
    await running
    assert await receiver.next() is None
    await receiver.close()
    with pytest.raises(FeedError, match="was closed: make another one"):
        await receiver.open()


async def test_cancelling_loses_nothing(receiver: UdpReceiver, sender: socket.socket) -> None:
    numbers: list[int] = []
    for number in range(40):
        waiting = asyncio.create_task(receiver.next())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        sender.sendto(packed(number), receiver.address)
        for _ in range(number % 3):
            await asyncio.sleep(0)
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome, EventBatch):
            numbers += outcome.column("sequence")
    while len(numbers) < 40:
        numbers += (await gathered(receiver, 1)).column("sequence")
    assert numbers == list(range(40))


async def test_an_interrupt_in_parse_leaves_the_datagrams_for_the_next_call(sender: socket.socket) -> None:
    interrupts = [KeyboardInterrupt()]

    def interrupted(payload: bytes) -> MarketDataEvent:
        if interrupts and payload == packed(1):
            raise interrupts.pop()
        return parse(payload)

    async with UdpReceiver(HOME, interrupted, clock=CLOCK) as receiver:
        for number in range(3):
            sender.sendto(packed(number), receiver.address)
        step = receiver.next()
        step.send(None)  # to its first turn; by hand, because a task would hand the interrupt to the loop
        with pytest.raises(KeyboardInterrupt):
            step.send(None)
        batch = await gathered(receiver, 3)
        assert batch.column("sequence") == [0, 1, 2]
        assert receiver.statistics().messages == 3


async def test_one_task_reads(receiver: UdpReceiver) -> None:
    first = asyncio.create_task(receiver.next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(FeedError, match="one task reads it"):
        await receiver.next()
    await receiver.close()
    assert await first is None


async def test_closing_leaves_no_reader_on_the_loop(receiver: UdpReceiver) -> None:
    waiting = asyncio.create_task(receiver.next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await receiver.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
        # It has the number of the one that was closed, and a reader which the task that waited must leave alone.
        another.bind(HOME)
        called = asyncio.Event()
        asyncio.get_running_loop().add_reader(another.fileno(), called.set)
        assert await waiting is None
        another.sendto(b"x", another.getsockname())
        async with asyncio.timeout(20):
            await called.wait()
        assert asyncio.get_running_loop().remove_reader(another.fileno())


# -- addresses ------------------------------------------------------------------------------------------------------


async def test_ipv6() -> None:
    try:
        receiver = await UdpReceiver(("::1", 0), parse, clock=CLOCK).open()
    except FeedError as error:
        pytest.skip(f"no IPv6 on this machine's loopback: {error}")
    async with receiver:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.sendto(packed(1), receiver.address)
        assert (await gathered(receiver, 1)).column("sequence") == [1]


async def test_a_group_is_joined_on_loopback() -> None:
    group = "239.255.83.1"
    receiver = UdpReceiver(("0.0.0.0", 0), parse, clock=CLOCK, multicast=group, interface="127.0.0.1")
    async with receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            try:
                sender.sendto(packed(1), (group, receiver.address[1]))
            except OSError as error:
                pytest.skip(f"no multicast on this machine's loopback: {error}")
        assert (await gathered(receiver, 1)).column("sequence") == [1]


async def test_what_cannot_be_listened_at_is_an_error_that_says_why(receiver: UdpReceiver) -> None:
    with pytest.raises(FeedError, match=r"can't listen at .*: .*in use"):
        await UdpReceiver(receiver.address, parse, clock=CLOCK).open()
    with pytest.raises(FeedError, match=r"group 127\.0\.0\.1 on any interface"):
        await UdpReceiver(HOME, parse, clock=CLOCK, multicast="127.0.0.1").open()
    with pytest.raises(FeedError, match=r"group 239\.255\.83\.1 on nowhere"):
        await UdpReceiver(HOME, parse, clock=CLOCK, multicast="239.255.83.1", interface="nowhere").open()


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"address": "127.0.0.1:5000"}, "an address is .host, port."),
        ({"address": ("127.0.0.1", 1 << 16)}, "port of 0 to 65,535"),
        ({"parse": "json"}, "parse is a function"),
        ({"clock": 5}, "a clock has now_ns"),
        ({"source": "venue"}, "source is an hl.Source"),
        ({"most_datagrams": 0}, "most_datagrams is an integer above 0"),
        ({"buffer_bytes": True}, "buffer_bytes is an integer above 0"),
        ({"times": "drop"}, "times is an hl.TimePolicy"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(wrong: dict[str, Any], rule: str) -> None:
    arguments: dict[str, Any] = {"address": HOME, "parse": parse, "clock": CLOCK} | wrong
    with pytest.raises(ValidationError, match=rule):
        UdpReceiver(arguments.pop("address"), arguments.pop("parse"), **arguments)


async def test_a_receiver_says_what_it_is() -> None:
    receiver = UdpReceiver(("127.0.0.1", 5000), parse, clock=CLOCK, source=Source("venue"))
    assert repr(receiver) == "UdpReceiver(127.0.0.1:5000, not open: 0 messages, 0 rows)"
    with pytest.raises(NotStarted, match="is not open: async with receiver"):
        await receiver.next()
    with pytest.raises(NotStarted, match="is not open"):
        _ = receiver.address
    assert "UdpReceiver" in receiver._repr_html_()


async def test_times_that_are_yet_to_come_are_rejected_though_the_source_is_always_that_far_ahead() -> None:
    year_ns = 365 * 86_400_000_000_000
    clock = hl.SystemClock()

    def ahead(payload: bytes) -> hl.MarketDataEvent:
        return hl.MarketDataEvent(symbol="A", price=1.0, timestamp=clock.now_ns() + year_ns)

    async with hl.feeds.UdpReceiver(
        ("127.0.0.1", 0), ahead, clock=clock, times=hl.TimePolicy(doubtful="reject")
    ) as receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(50):
                sender.sendto(b"x", receiver.address)
        reading = asyncio.create_task(receiver.next())
        await until(lambda: receiver.statistics().messages == 50)
        reading.cancel()
        await asyncio.wait([reading])
        assert receiver.statistics().rows == 0
