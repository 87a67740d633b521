"""Retention overtakes a processor: what it did not read is named, and what is left is handled once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hftlab as hl
from hftlab.errors import UnreadWouldBeLost
from hftlab.events import EventType
from hftlab.sequence import Gap, GapReason
from tests.faults.counting import check_counts, count_events
from tests.faults.processors import FAST, at_work
from tests.faults.suite import Counts, fault
from tests.streams.batches import log_sequences, mixed


def _lost(processor: hl.EventProcessor) -> list[int]:
    """The log sequences that are told to be lost."""
    frame = processor.losses.to_frame()
    spans = zip(frame["first"], frame["last"], strict=True)
    return [log for first, last in spans for log in range(int(first), int(last) + 1)]


@fault(
    "F9",
    "trim(force=True), or XTRIM by hand, before a processor that is behind",
    promise="refused without force; every event that is gone is in losses and told to handlers; the rest, each once",
)
async def trimmed_ahead(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    async with at_work(binary, folder) as (_, manager, lab):
        first, second = (
            mixed(chance.randint(20, 200), seed=2 * seed),
            mixed(chance.randint(100, 300), seed=2 * seed + 1),
        )
        await manager.append(first, session="day")
        processor = lab.processor("g", "day", **FAST)
        count_events(lab.bus, processor)
        told: list[Gap] = []
        lab.bus.on(Gap, name="gaps")(told.append)
        await processor.start()
        await processor.drain()
        await processor.stop()
        await manager.append(second, session="day")
        whole = await manager.range("day")
        total = len(whole)
        by_hand = seed % 2 == 1
        if by_hand:
            streams = manager._keys.session(1).streams
            stream = streams[chance.choice([EventType.MARKET_DATA, EventType.MARKET_DATA, EventType.FILL])]
            await manager._connections.call("XTRIM", stream, "MAXLEN", chance.randint(0, 12))
        else:
            cut = chance.randint(len(first) + 1, total)
            with pytest.raises(UnreadWouldBeLost):
                await manager.trim("day", before=int(whole.event_ids[cut - 1]))
            result = await manager.trim("day", keep_events=total - cut, force=True)
            assert result.lost == {"g": cut - len(first)}
        left = await manager.range("day")
        hidden = set(range(len(first), total)) - set(log_sequences(left))
        await processor.start()
        await processor.drain()
        await processor.stop()
        gone = _lost(processor)
        # An entry that may reach over where retention went stays as a whole, and so is handled as a whole.
        assert set(gone) <= hidden
        assert processor.losses.events == processor.statistics().lost == len(gone)
        assert not by_hand or set(gone) == hidden
        assert [log for gap in told for log in range(gap.first, gap.last + 1)] == gone
        assert all(gap.reason is GapReason.GONE for gap in told)
        rest = whole.where(~np.isin(whole.records["log_sequence"], gone))
        found = await check_counts(manager, rest)
    return found | {"lost": len(gone), "by_hand": int(by_hand)}


@fault(
    "F9",
    "trim(force=True) before a processor of some types only",
    promise="refused without force; told between which rows something may be gone; what is left, each once",
)
async def trimmed_ahead_of_some_types(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    async with at_work(binary, folder) as (_, manager, lab):
        first, second = (
            mixed(chance.randint(20, 200), seed=2 * seed),
            mixed(chance.randint(100, 300), seed=2 * seed + 1),
        )
        await manager.append(first, session="day")
        wanted = (hl.OrderEvent, hl.FillEvent)
        processor = lab.processor("g", "day", types=wanted, **FAST)
        count_events(lab.bus, processor)
        await processor.start()
        await processor.drain()
        await processor.stop()
        done = await manager.range("day", types=wanted)
        await manager.append(second, session="day")
        total = len(first) + len(second)
        cut = chance.randint(len(first) + 1, total)
        whole = await manager.range("day", types=wanted)
        with pytest.raises(UnreadWouldBeLost):
            await manager.trim("day", keep_events=total - cut)
        await manager.trim("day", keep_events=total - cut, force=True)
        left = await manager.range("day", types=wanted)
        gone = sorted(set(log_sequences(whole)) - set(log_sequences(left)) - set(log_sequences(done)))
        await processor.start()
        await processor.drain()
        await processor.stop()
        # Which of the log sequences were of these types is not known any more: all that may have been are told.
        assert set(gone) <= set(_lost(processor)) <= set(range(len(first), cut)), (cut, processor.losses)
        assert _lost(processor)
        # An entry that may reach over where retention went stays as a whole, and so is handled as a whole.
        noted: Any = await manager.value("event:seen")
        seen = {int(field.partition(":")[2]) for field in noted}
        assert seen >= set(log_sequences(done)) | set(log_sequences(left))
        found = await check_counts(manager, whole.where(np.isin(whole.records["log_sequence"], sorted(seen))))
    return found | {"lost": len(gone), "told": processor.losses.events}
