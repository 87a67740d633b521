"""Labs with a processor in this process, for what a processor meets while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hftlab as hl
from hftlab.events.records import split_event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.faults.nursery import lab_manager
from tests.faults.victims import victim

FAST: dict[str, Any] = {"checkpoint_s": 0.005}


@asynccontextmanager
async def at_work(
    binary: Path, folder: Path, **settings: Any
) -> AsyncIterator[tuple[EmbeddedServer, RedisStreamManager, hl.Lab]]:
    """A server, a manager for the test's own use, and a lab on that server; its processors end with it."""
    async with (
        victim(binary, folder, "no") as server,
        lab_manager(server, frame_rows=7, **settings) as manager,
        hl.Lab(server.address.reveal(), directory=folder / "lab", session="day") as lab,
    ):
        yield server, manager, lab


def logs_of(lab: hl.Lab, name: str = "log", fails: Callable[[int], bool] = lambda log: False) -> list[tuple[int, int]]:
    """Subscribe a handler that notes (session, log sequence) of each event, but for those that it ``fails`` on."""
    seen: list[tuple[int, int]] = []

    @lab.bus.on(name=name)
    def note(event: hl.Event) -> None:
        at = split_event_id(event.event_id)
        if fails(at[1]):
            raise ValueError(f"can't do {at[1]}")
        seen.append(at)

    return seen


async def eventually(condition: Callable[[], Awaitable[object]], deadline_s: float = 20.0) -> None:
    """Return once the condition holds; fails the test after the deadline."""
    async with asyncio.timeout(deadline_s):
        while not await condition():  # noqa: ASYNC110  # the server is asked, which tells nobody
            await asyncio.sleep(0.002)
