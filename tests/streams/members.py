"""Members of consumer groups for tests, and what they read."""

from __future__ import annotations

from typing import Any

from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Checkpoint, GroupPage
from hftlab.streams import RedisStreamManager
from hftlab.streams.consuming import GroupConsumer
from hftlab.streams.keys import TYPE_ORDER


async def member_of(manager: RedisStreamManager, session: str = "day", group: str = "g", **asked: Any) -> GroupConsumer:
    """A member under tables of its own."""
    asked.setdefault("symbols", SymbolTable())
    asked.setdefault("sources", SourceTable())
    return await manager.member(session, group, **asked)


async def active(
    manager: RedisStreamManager, session: str = "day", group: str = "g", **asked: Any
) -> tuple[GroupConsumer, Checkpoint]:
    """A member that has the group."""
    consumer = await member_of(manager, session, group, **asked)
    checkpoint = await consumer.acquire()
    assert checkpoint is not None, consumer.holder
    return consumer, checkpoint


async def pages_of(consumer: GroupConsumer, event_type: EventType, rows: int = 1_000) -> list[GroupPage]:
    """All pages of a stream, up to its end."""
    pages: list[GroupPage] = []
    while not pages or pages[-1].reached < pages[-1].events:
        pages.append(await consumer.read(event_type, rows))
    return pages


async def everything(consumer: GroupConsumer, rows: int = 1_000) -> EventBatch:
    """All that a member is given of all its streams, by log sequence."""
    batches = [
        batch
        for event_type in TYPE_ORDER
        if event_type in consumer.types
        for page in await pages_of(consumer, event_type, rows)
        for batch in page.batches
    ]
    whole = EventBatch.concat(batches)
    return whole.where(whole.records["log_sequence"].argsort())


async def pending(manager: RedisStreamManager, session: str = "day") -> int:
    """How many entries are delivered and not acknowledged, over all groups of a session."""
    return sum(info.pending for info in await manager.groups.list(session))
