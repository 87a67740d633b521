"""Entries that are damaged, foreign or hostile: a clear error that names them, or skipped and counted; never more.

Random ones: ``scenarios.hostile_bytes``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hftlab.errors import CodecError, HftlabError, SchemaError
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.frames import encode_frame
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import log_sequences, mixed, trades
from tests.streams.servers import binary_of, managed, running_server

STREAM = EventType.MARKET_DATA
ID = "1723161300000-1000"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> object:
    yield from running_server(binary_of("embedded"), tmp_path_factory.mktemp("host") / ".hftlab")


@pytest.fixture
async def manager(host: EmbeddedServer) -> AsyncIterator[RedisStreamManager]:
    """A session of 1,000 events, then room for a hostile entry at log sequence 1,000, then 100 more."""
    async with managed(host) as manager:
        await manager.append(trades(1_000), session="day")
        yield manager


async def plant(manager: RedisStreamManager, *fields: object, entry_id: str = ID) -> None:
    """Put an entry where the next append would put its own, and make the session longer by 10 events."""
    keys = manager._keys.session(1)
    await manager._connections.call("XADD", keys.streams[STREAM], entry_id, *fields)
    await manager._connections.call("HSET", keys.meta, "events", 1_010, "last_ms", 1_723_161_300_000, "market", 1_010)


async def read(manager: RedisStreamManager, on_damaged: str) -> EventBatch:
    info = await manager.session("day")
    rows = manager.read(
        info,
        LogRange(),
        symbols=SymbolTable(),
        sources=SourceTable(),
        on_damaged=on_damaged,  # type: ignore[arg-type]
    )
    return EventBatch.concat([batch async for batch in rows])


async def check_refused_and_skipped(manager: RedisStreamManager, error: type[HftlabError] = CodecError) -> None:
    with pytest.raises(error, match=rf"stream .*:s:1:market, entry {ID}: "):
        await read(manager, "raise")
    before = manager.statistics().damaged
    assert log_sequences(await read(manager, "skip")) == list(range(1_000))
    assert manager.statistics().damaged == before + 1
    # What comes after it is written and read as if it were not there.
    await manager.append(trades(100, seed=1), session="day")
    assert log_sequences(await read(manager, "skip")) == [*range(1_000), *range(1_010, 1_110)]


FRAME = encode_frame(trades(10))
WHOLE = ("log_sequence", 1_000, "frame", FRAME)
ENTRIES: dict[str, tuple[object, ...]] = {
    "foreign": ("price", "1.5"),
    "foreign pairs": ("a", "b", "c", "d"),
    "no frame": ("log_sequence", 1_000, "frame", b""),
    "other bytes": ("log_sequence", 1_000, "frame", b"x" * 500),
    "cut frame": ("log_sequence", 1_000, "frame", FRAME[:-1]),
    "longer frame": ("log_sequence", 1_000, "frame", FRAME + b"x"),
    "another type's frame": ("log_sequence", 1_000, "frame", encode_frame(mixed(60).only(EventType.ORDER))),
    "wrong log sequence": ("log_sequence", 1_001, "frame", FRAME),
    "log sequence that is no number": ("log_sequence", "-5", "frame", FRAME),
    "huge log sequence": ("log_sequence", 10**30, "frame", FRAME),
    "frame and more": (*WHOLE, "and", "more"),
    "unknown type": ("log_sequence", 1_000, "type", "quote", "symbol", "X"),
    "no type": ("log_sequence", 1_000, "symbol", "X"),
    "another type": ("log_sequence", 1_000, "type", "signal", "symbol", "X", "signal_type", "A"),
    "unknown field": ("log_sequence", 1_000, "type", "market", "symbol", "X", "colour", "red"),
    "number that is none": ("log_sequence", 1_000, "type", "market", "symbol", "X", "price", "cheap"),
    "infinite number": ("log_sequence", 1_000, "type", "market", "symbol", "X", "price", "inf"),
    "huge integer": ("log_sequence", 1_000, "type", "market", "symbol", "X", "sequence", "9" * 900),
    "not utf-8": ("log_sequence", 1_000, "type", "market", "symbol", b"\xff\xfe"),
    "long field": ("log_sequence", 1_000, "type", "market", "symbol", "X" * 100_000),
    "many fields": ("log_sequence", 1_000, *(f"f{index}" for index in range(20_000))),
    "emitted": ("log_sequence", 1_000, "type", "market", "symbol", "X", "flags", "32"),
    "broken rule": ("log_sequence", 1_000, "type", "market", "symbol", "X", "kind", "TRADE"),
}


@pytest.mark.parametrize("name", list(ENTRIES))
async def test_an_entry_that_is_not_ours_or_not_whole_is_named_or_skipped(
    manager: RedisStreamManager, name: str
) -> None:
    await plant(manager, *ENTRIES[name])
    await check_refused_and_skipped(manager)


async def test_a_newer_schema_is_told_apart(manager: RedisStreamManager) -> None:
    await plant(manager, "log_sequence", 1_000, "frame", FRAME[:4] + b"\xff\x00" + FRAME[6:])
    await check_refused_and_skipped(manager, SchemaError)


@pytest.mark.parametrize("bound", [24, 16], ids=["latest", "earliest"])
async def test_a_frame_whose_bounds_of_arrival_were_damaged_is_not_passed_over_as_too_early_or_too_late(
    manager: RedisStreamManager, bound: int
) -> None:
    # An arrival before or after all that there are: by its header alone, a read would have no need of the frame.
    far = (-1).to_bytes(8, "little", signed=True) if bound == 24 else (1 << 62).to_bytes(8, "little")
    at = FRAME.index(trades(10).records["received"][9 if bound == 24 else 0].tobytes())
    await plant(manager, "log_sequence", 1_000, "frame", FRAME[:at] + far + FRAME[at + 8 :])
    await check_refused_and_skipped(manager)


async def test_an_entry_that_repeats_log_sequences_is_refused(manager: RedisStreamManager) -> None:
    await plant(manager, "log_sequence", 500, "frame", FRAME, entry_id="1723161300000-500")
    with pytest.raises(CodecError, match="its log sequence 500 does not follow 999"):
        await read(manager, "raise")
    assert log_sequences(await read(manager, "skip")) == list(range(1_000))


async def test_a_frame_that_repeats_a_log_sequence_is_refused(manager: RedisStreamManager) -> None:
    batch = EventBatch.concat([trades(10)])
    batch.records["log_sequence"] = [0, 1, 1, 3, 4, 5, 6, 7, 8, 9]
    await plant(manager, "log_sequence", 1_000, "frame", encode_frame(batch))
    await check_refused_and_skipped(manager)


async def test_seeking_is_not_led_astray_by_somebody_elses_entries(manager: RedisStreamManager) -> None:
    stream = manager._keys.session(1).streams[STREAM]
    for at in range(1_723_161_256, 1_723_161_300, 7):
        await manager._connections.call("XADD", stream, f"{at}000-3", "theirs", "1")
    await manager.append(trades(3_000, seed=1), session="day")
    info: SessionInfo = await manager.session("day")
    assert info.events == 4_000
    for start in (0, 500, 999, 1_000, 1_500, 3_999):
        rows = manager.read(
            info, LogRange(start_log=start), symbols=SymbolTable(), sources=SourceTable(), on_damaged="skip"
        )
        found = EventBatch.concat([batch async for batch in rows])
        assert log_sequences(found) == list(range(start, 4_000))


async def test_a_single_event_is_found_beside_damaged_entries(manager: RedisStreamManager) -> None:
    await plant(manager, *ENTRIES["foreign"])
    assert (await manager.get(event_id(1, 700))).sequence == 701


async def test_keys_of_another_kind_are_a_clear_error(manager: RedisStreamManager) -> None:
    keys = manager._keys.session(1)
    await manager._connections.call("DEL", keys.streams[STREAM])
    await manager._connections.call("SET", keys.streams[STREAM], "not a stream")
    with pytest.raises(HftlabError, match="WRONGTYPE"):
        await manager.range("day")
    await manager._connections.call("SET", manager._keys.sessions, "not a hash")
    with pytest.raises(HftlabError, match="WRONGTYPE"):
        await manager.sessions()
