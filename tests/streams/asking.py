"""All that labs ask a server for, in one go: for servers that are reached, or that allow, in some way of their own."""

from __future__ import annotations

from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Commit, Effect, Letter
from hftlab.streams import RedisStreamManager
from tests.streams.batches import log_sequences, mixed, trades


async def everything(manager: RedisStreamManager) -> None:
    """All that labs ask a server for. Opens the manager, and leaves it open."""
    await manager.open()
    batch = mixed(300)
    first = await manager.append(batch, session="day")
    await manager.append(batch, session="day")
    await (await manager.writer("day", "w")).append(trades(10))
    await manager.publish(trades(1, seed=1), session="day")
    assert log_sequences(await manager.range("day", start=first.first_event_id + 7)) == list(range(7, 311))
    assert (await manager.get(first.first_event_id)).event_id == first.first_event_id
    tail = manager.tail("day", after=0)
    assert log_sequences(await anext(tail))[0] == 0
    await tail.aclose()  # type: ignore[attr-defined]
    await manager.rename("day", "other")
    assert {"day", "other"} & {info.name for info in await manager.sessions()} == {"other"}
    await _groups(manager, "other")
    await manager.delete("other")


async def _groups(manager: RedisStreamManager, session: str) -> None:
    """What a processor asks for, and what its users write along with its position."""
    symbols, sources = SymbolTable(), SourceTable()
    member = await manager.member(session, "g", symbols=symbols, sources=sources)
    checkpoint = await member.acquire()
    assert checkpoint is not None
    page = await member.read(EventType.MARKET_DATA, 100)
    assert len(page.batches[0])
    effects = (
        Effect("HINCRBYFLOAT", "pnl", (b"BTCUSDT", b"1.5")),
        Effect("XADD", "fills", (b"*", b"side", b"buy")),
    )
    letter = Letter("h", "ValueError: no", 1, 1, 1, log_sequence=0)
    done = await member.commit(
        Commit(checkpoint.serial + 1, 1, state=b"here", transactions=(effects,), letters=(letter,))
    )
    assert done.refused == ()
    await member.renew()
    await member.wait(EventType.SIGNAL, 0.01)
    assert [one.group for one in await manager.groups.list(session)] == ["g"]
    await member.release()
    other = await manager.member(session, "g", symbols=symbols, sources=sources)
    again = await other.acquire()
    assert again is not None
    assert (again.log_sequence, again.state) == (1, b"here")
    await other.release()
    await manager.groups.move(session, "g", "now")
    await manager.trim(session, keep_events=5, force=True)
    await manager.groups.destroy(session, "g")
    await manager.succeed(session, "next")
