"""Bytes that are damaged, foreign or hostile: a clear error that names them, or skipped and counted; never more."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
import warnings
from pathlib import Path

import pytest

from hftlab.errors import CodecError, FeedError
from hftlab.events import EventBatch, EventType
from hftlab.events.frames import decode_frame, encode_frame
from hftlab.feeds import FeedWarning, read
from hftlab.streams import RedisStreamManager
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_of, victim
from tests.feeds import captures, recordings
from tests.streams.batches import content, log_sequences, mixed, trades

ENTRY_ID = "1723161300000-1000"
# Names and values that meet in entries of fields: right ones, and all that looks nearly right.
_NAMES = ["type", "symbol", "price", "received", "source", "flags", "event_id", "cause", "kind", "side", "part", "\x00"]
_VALUES = ["market", "X", "1", "-1", "nan", "1e400", "", "BUY", "a/b/c/d/e", "0x10", "٣", "9" * 30, "\ud7ff", "TRADE"]
# More than a large frame's decoding takes for a moment (65,536 rows of 384 bytes).
_MOST_BYTES = 64 << 20


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, put in or doubled; always different from what it was."""
    raw = bytearray(data)
    while bytes(raw) == data:
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(raw) + 1)
            choice = chance.randrange(5)
            if choice == 0 and at < len(raw):
                raw[at] ^= chance.randint(1, 255)
            elif choice == 1:
                del raw[at : at + chance.randint(1, 64)]
            elif choice == 2:
                raw[at:at] = chance.randbytes(chance.randint(1, 64))
            elif choice == 3:
                raw[at : at + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7))
            else:
                raw = raw[:at]
    return bytes(raw)


@fault("F19", "hostile frames", promise="CodecError, within the memory of a large frame", needs_server=False)
async def hostile_frames(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    frames = [encode_frame(trades(10, seed=seed)), encode_frame(mixed(400, seed=seed).only(EventType.ORDER))]
    tries = at_scale(1_000, scale, 100)
    tracemalloc.start()
    try:
        for _ in range(tries):
            hostile = damaged(chance.choice(frames), chance) if chance.random() < 0.8 else chance.randbytes(200)
            with pytest.raises(CodecError):
                decode_frame(hostile)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most_bytes < _MOST_BYTES
    return {"tried": tries, "refused": tries, "most_MiB": most_bytes / 2**20}


async def plant(manager: RedisStreamManager, *fields: object) -> None:
    """Put an entry where the next append would put its own, and make the session longer by 10 events."""
    keys = manager._keys.session(1)
    stream = keys.streams[EventType.MARKET_DATA]
    await manager._connections.call_many(
        [
            ("DEL", stream),
            ("XADD", stream, ENTRY_ID, *fields),
            ("HSET", keys.meta, "events", 1_010, "last_ms", 1_723_161_300_000, "market", 1_010),
        ]
    )


@fault(
    "F19",
    "hostile entries in a session's stream",
    promise="CodecError that names the entry, or skipped and counted",
)
async def hostile_entries(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    frame = encode_frame(trades(10))
    refused = events = 0
    async with (
        victim(binary, folder) as server,
        manager_of(server) as manager,
        manager_of(server, on_damaged="skip") as skipping,
    ):
        await manager.append(trades(1_000), session="day")
        for attempt in range(at_scale(80, scale, 20)):
            framed = attempt % 2 == 1
            if framed:
                fields: list[object] = ["frame", damaged(frame, chance)]
            else:
                some = range(chance.randint(1, 6))
                fields = [word for _ in some for word in (chance.choice(_NAMES), chance.choice(_VALUES))]
            await plant(manager, "log_sequence", 1_000, *fields)
            error, found = await _read(manager)
            if not error:
                assert not framed, f"a damaged frame was taken for none, or for a sound one: {fields}"
                assert found == [1_000], fields
                events += 1
                continue
            assert ENTRY_ID in error, f"{fields}: {error}"
            before = skipping.statistics().damaged
            assert not len(await skipping.range("day"))
            assert skipping.statistics().damaged == before + 1
            refused += 1
    return {"refused": refused, "skipped": refused, "were_events": events}


async def _read(manager: RedisStreamManager) -> tuple[str, list[int]]:
    """The error of reading the session, or the log sequences that are there."""
    try:
        return "", log_sequences(await manager.range("day"))
    except CodecError as error:
        return str(error), []


@fault("F19", "hostile export files", promise="CodecError before anything is imported")
async def hostile_archives(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    tries = at_scale(80, scale, 15)
    async with victim(binary, folder) as server, manager_of(server) as manager:
        await manager.append(mixed(600, seed=seed), session="day")
        file = await manager.export_session("day", folder / "day.hftlab")
        whole = file.read_bytes()
        for _ in range(tries):
            file.write_bytes(damaged(whole, chance))
            with pytest.raises(CodecError):
                await manager.import_session(file, "copy")
        assert [info.name for info in await manager.sessions()] == ["day"]
        file.write_bytes(whole)
        await manager.import_session(file, "copy")
        assert content(await manager.range("copy")) == content(mixed(600, seed=seed))
    return {"tried": tries, "refused": tries}


@fault(
    "F19",
    "hostile captures",
    promise="FeedError, or each line is counted as read, skipped or damaged; memory bounded",
    needs_server=False,
)
async def hostile_captures(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    sources = _captures()
    counts = {"files": 0, "refused": 0, "lines": 0, "damaged": 0, "events": 0}
    tracemalloc.start()
    try:
        for _ in range(at_scale(150, scale, 24)):
            format, text = chance.choice(sources)
            hostile = text
            for _ in range(chance.randint(1, 4)):
                hostile = damaged(hostile, chance)
            if chance.random() < 0.3:
                packed = gzip.compress(hostile, 1)
                hostile = packed if chance.random() < 0.3 else damaged(packed, chance)
            _read_one(folder / "capture", format, hostile, counts)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most_bytes < _MOST_BYTES
    return counts | {"most_MiB": most_bytes / 2**20}


def _read_one(path: Path, format: str, data: bytes, counts: dict[str, int]) -> None:
    path.write_bytes(data)
    counts["files"] += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FeedWarning)
            batch = read(path, format, progress=False)
    except FeedError:
        counts["refused"] += 1
        return
    report = batch.report
    assert report.lines == sum(report.messages.values()) + sum(report.skipped.values()) + report.damaged_count, report
    assert sum(report.events.values()) == len(batch)
    # Whatever got through can be stored and read again.
    for event_type in batch.counts():
        rows = EventBatch(batch.only(event_type).records[:65_536].copy(), batch.symbols, batch.sources)
        rows.records["log_sequence"] = range(len(rows))
        assert len(decode_frame(encode_frame(rows))) == len(rows)
    counts["lines"] += report.lines
    counts["damaged"] += report.damaged_count
    counts["events"] += len(batch)


def _captures() -> list[tuple[str, bytes]]:
    """Small sound captures of several formats."""
    binance = [
        captures.wrapped("btcusdt@bookTicker", captures.quote(1)),
        captures.wrapped("btcusdt@trade", captures.trade(1)),
        captures.wrapped("btcusdt@depth@0ms", captures.depth(1, 2, 0)),
        *(captures.wrapped("btcusdt@trade", captures.trade(number)) for number in range(2, 9)),
    ]
    coinbase = [
        {
            "type": "match", "product_id": "BTC-USD", "trade_id": number, "sequence": number, "side": "buy",
            "size": "0.5", "price": "31500.1", "time": recordings.ISO, "maker_order_id": "a", "taker_order_id": "b",
        }
        for number in range(1, 8)
    ]  # fmt: skip
    return [
        ("binance", _text(f"{captures.START_NS + index} {json.dumps(each)}" for index, each in enumerate(binance))),
        ("coinbase", _text(recordings.line(each, index * 1_000) for index, each in enumerate(coinbase))),
        ("csv", _text(["timestamp,symbol,price,volume", *(f"{1_723_161_255_000 + i},X,{i}.5,1" for i in range(9))])),
    ]


def _text(lines: object) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()  # type: ignore[attr-defined]
