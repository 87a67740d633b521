"""Handlers whose every effect is counted in the server, and the judge of what they left there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from hftlab.bus import EventBus
from hftlab.events import Event, EventBatch
from hftlab.events.records import split_event_id
from hftlab.pipeline import EventProcessor, Transaction
from hftlab.streams import RedisStreamManager

Step = Callable[[str], None]
"""Told of each step of a handler, by its name."""

WAYS = ("event", "batch", "async")
"""How handlers are called; each counts under its own name."""


def count_events(
    bus: EventBus,
    processor: EventProcessor,
    step: Step = lambda name: None,
    poison: frozenset[int] = frozenset(),
) -> None:
    """Subscribe handlers that count what they get, sum up its log sequences, and note each one, in transactions.

    The one for single events fails on those whose log sequences are ``poison``.
    """
    _by_event(bus, processor, step, poison)
    _by_batch(bus, processor, step)
    _by_waiting(bus, processor, step)


def note(transaction: Transaction, way: str, session: int, log: int, symbol: str) -> None:
    """One event's effects."""
    transaction.incr(f"{way}:count").incr(f"{way}:sum", log).hincr(f"{way}:sums", symbol, log)
    transaction.hincr(f"{way}:seen", f"{session}:{log}")


def _by_event(bus: EventBus, processor: EventProcessor, step: Step, poison: frozenset[int]) -> None:
    @bus.on(name="event")
    def by_event(event: Event) -> None:
        step("event handler begins")
        with processor.transaction() as transaction:
            note(transaction, "event", *split_event_id(event.event_id), event.symbol)
            step("event handler, within its transaction")
            if split_event_id(event.event_id)[1] in poison:
                raise ValueError("poison")
        step("event handler, after its transaction")


def _by_batch(bus: EventBus, processor: EventProcessor, step: Step) -> None:
    @bus.on(name="batch", mode="batch", batch_rows=16)
    def by_batch(batch: EventBatch) -> None:
        step("batch handler begins")
        with processor.transaction() as transaction:
            for number, symbol in zip(batch.event_ids.tolist(), batch.records["symbol"].tolist(), strict=True):
                note(transaction, "batch", *split_event_id(number), batch.symbols[symbol])
            step("batch handler, within its transaction")
        step("batch handler, after its transaction")


def _by_waiting(bus: EventBus, processor: EventProcessor, step: Step) -> None:
    @bus.on(name="async")
    async def by_waiting(event: Event) -> None:
        step("async handler begins")
        await asyncio.sleep(0)
        async with processor.transaction() as transaction:
            note(transaction, "async", *split_event_id(event.event_id), event.symbol)
            await asyncio.sleep(0)
            step("async handler, within its transaction")
        step("async handler, after its transaction")


async def check_counts(
    manager: RedisStreamManager,
    *batches: EventBatch,
    ways: Iterable[str] = WAYS,
    group: str = "g",
    session: str | None = "day",
    letters: int = 0,
) -> dict[str, int]:
    """Assert that each event of the recorded batches was counted once, by each way, and that nothing is left over.

    ``session`` (None: not looked at) has its group at its end then, with nothing pending and so many dead letters.
    """
    wanted: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    total = 0
    for batch in batches:
        for number, place in zip(batch.event_ids.tolist(), batch.records["symbol"].tolist(), strict=True):
            event_session, log = split_event_id(number)
            wanted[f"{event_session}:{log}"] += 1
            symbols[batch.symbols[place]] += log
            total += log
    for way in ways:
        seen = await _hash(manager, f"{way}:seen")
        twice = {at: times for at, times in seen.items() if times != 1}
        assert not twice, f"{way}: {len(twice)} events took effect more than once: {list(twice.items())[:5]}"
        missing, strange = wanted.keys() - seen.keys(), seen.keys() - wanted.keys()
        assert not missing, f"{way}: {len(missing)} events never took effect: {sorted(missing)[:5]}"
        assert not strange, f"{way}: effects of {len(strange)} events that are not recorded: {sorted(strange)[:5]}"
        assert int(await _text(manager, f"{way}:count")) == len(wanted), way
        assert int(await _text(manager, f"{way}:sum")) == total, way
        assert await _hash(manager, f"{way}:sums") == dict(symbols), way
    if session is not None:
        (info,) = [info for info in await manager.groups.list(session) if info.group == group]
        assert (info.lag, info.pending, info.letters) == (0, 0, letters), info
    return {"events": len(wanted)}


async def _hash(manager: RedisStreamManager, key: str) -> dict[str, int]:
    found: Any = await manager.value(key)
    return {str(field): int(value) for field, value in (found or {}).items()}


async def _text(manager: RedisStreamManager, key: str) -> str:
    found: Any = await manager.value(key)
    return str(found or 0)
