"""Files as the cryptofeed recorder writes them, made for tests, and rows told in a form that tests can state."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from hftlab.events import EventBatch, Flags, Kind, MarketDataEvent, Side
from hftlab.feeds import FeedReport

START_S = 1_626_318_404
START_NS = START_S * 1_000_000_000
ISO = "2021-07-15T03:06:43.500Z"
ISO_NS = START_NS - 500_000_000
Message = dict[str, Any]

HANDSHAKE = "wss://api.example.com/ws <-> 1626318403.723458"
SENT = 'wss://api.example.com/ws <- 1626318404.235296: {"method":"subscribe -> a <-> b","id":1}'
FETCHED = 'https://api.example.com/book -> 1626318404.3: {"bids":[]}'

price = st.integers(0, 10**9).map(lambda ticks: f"{ticks // 100}.{ticks % 100:02d}")
size = st.one_of(st.just("0"), st.integers(0, 10**6).map(lambda lots: f"{lots / 1000:.3f}"))
symbol = st.sampled_from(["ETH-USD", "BTC-USD"])
number = st.integers(0, 1 << 50)
iso = st.datetimes().map(lambda moment: moment.replace(year=2021).isoformat(timespec="microseconds") + "Z")


def line(message: Message, at_us: int) -> str:
    """A received message, so many µs after the start, as Python prints the float: without zeros at its end."""
    decimals = f"{at_us % 1_000_000:06d}".rstrip("0") or "0"
    return f"{START_S + at_us // 1_000_000}.{decimals}: {json.dumps(message)}"


def write(path: Path, messages: Iterable[Message | str], *, compress: bool = False) -> Path:
    """A file with a line a message, 1 ms apart; a str is a line as it is."""
    lines = [each if isinstance(each, str) else line(each, index * 1_000) for index, each in enumerate(messages)]
    text = "".join(each + "\n" for each in lines).encode()
    path.write_bytes(gzip.compress(text) if compress else text)
    return path


Row = tuple[Any, ...]


def told(batch: EventBatch) -> list[Row]:
    """Every row as (symbol, source, sequence, timestamp, kind, side, numbers that were sent, flags in question)."""
    rows = []
    for event in batch.events():
        assert isinstance(event, MarketDataEvent)
        fields = (event.price, event.volume, event.bid, event.bid_size, event.ask, event.ask_size)
        numbers = tuple(value for value in fields if not math.isnan(value))
        flags = Flags(event.flags) & (Flags.SNAPSHOT | Flags.HEARTBEAT | Flags.LAST_PART)
        head = (event.symbol, event.source.text, event.sequence, event.timestamp, event.received)
        rows.append((*head, event.kind, event.side, numbers, event.part, flags))
    return rows


Content = tuple[Kind, Side, tuple[float, ...]]


def expect(
    name: str, source: str, sequence: int, timestamp: int, received: int, contents: list[Content], flags: int = 0
) -> list[Row]:
    """What ``told`` tells of one message: one row for each of its contents, a heartbeat where it has none."""
    if not contents:
        if sequence < 0:
            return []
        contents, flags = [(Kind.TICK, Side.NONE, ())], flags | Flags.HEARTBEAT
    rows: list[Row] = []
    for part, content in enumerate(contents):
        last = Flags.LAST_PART if part == len(contents) - 1 else 0
        rows.append((name, source, sequence, timestamp, received, *content, part, Flags(flags | last)))
    return rows


def levels(bids: Iterable[Iterable[Any]], asks: Iterable[Iterable[Any]]) -> list[Content]:
    """The contents of a book: bids, then asks."""
    both = [(Side.BID, *level) for level in bids] + [(Side.ASK, *level) for level in asks]
    return [(Kind.LEVEL, side, (float(at), float(total))) for side, at, total in both]


def check_report(report: FeedReport, lines: int) -> None:
    """Every line is in exactly one of the report's three counts."""
    assert report.lines == lines
    assert report.lines == sum(report.messages.values()) + sum(report.skipped.values()) + report.damaged_count


def received_ns(index: int) -> int:
    """When the message on the line of that index (from 0) was received, as ``write`` has it."""
    return START_NS + index * 1_000_000


def iso_to_ns(text: str) -> int:
    """A time as ``iso`` makes it, in ns, by Python's own datetime."""
    since = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * 1_000
