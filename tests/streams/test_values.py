"""What transactions wrote, read back."""

from __future__ import annotations

import pytest

from hftlab.errors import ValidationError
from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Commit, Effect
from hftlab.streams import EmbeddedServer
from tests.streams.batches import trades
from tests.streams.servers import managed


async def test_what_a_commit_wrote_is_read_back_as_python_values(server: EmbeddedServer) -> None:
    async with managed(server) as manager:
        await manager.append(trades(1), session="day")
        member = await manager.member(
            "day", "books", types=[EventType.MARKET_DATA], symbols=SymbolTable(), sources=SourceTable()
        )
        await member.acquire()
        effects = (
            Effect("INCRBY", "number", (b"5",)),
            Effect("SET", "raw", (b"\xff\x00",)),
            Effect("HINCRBY", "hash", (b"BTCUSDT", b"7")),
            Effect("HSET", "hash", ("€".encode(), b"x")),
            Effect("RPUSH", "list", (b"b", b"a", b"b")),
            Effect("SADD", "set", (b"a", b"b")),
            Effect("ZADD", "ranks", (b"1.5", b"b")),
        )
        await member.commit(Commit(serial=1, log_sequence=1, transactions=(effects,)))
        found = {name: await manager.value(name) for name in ("number", "raw", "hash", "list", "set", "ranks", "none")}
        assert found == {
            "number": "5",
            "raw": b"\xff\x00",
            "hash": {"BTCUSDT": "7", "€": "x"},
            "list": ["b", "a", "b"],
            "set": {"a", "b"},
            "ranks": {"b": 1.5},
            "none": None,
        }
        await manager._connections.call("XADD", manager.key("stream"), "*", "a", "b")
        with pytest.raises(ValidationError, match="is a stream"):
            await manager.value("stream")
