"""Several ordered streams of batches into one, by log sequence: how the streams of a session become its total order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np

from hftlab.events.batch import EventBatch
from hftlab.events.records import RECORD
from hftlab.events.rowbytes import concat_rows, take_rows


class LogMerge:
    """Merges streams that each rise in ``log_sequence``, without I/O: ``put`` what was read, ``take`` what is due.

    A row is due when no open stream can still bring an earlier one: every open stream has shown a later row.
    """

    def __init__(self, streams: int) -> None:
        self._waiting: list[list[EventBatch]] = [[] for _ in range(streams)]
        self._open = [True] * streams

    def put(self, stream: int, batch: EventBatch) -> None:
        """Add the next batch of one stream; all batches share their tables."""
        if len(batch):
            self._waiting[stream].append(batch)

    def close(self, stream: int) -> None:
        """Say that a stream has ended."""
        self._open[stream] = False

    @property
    def hungry(self) -> list[int]:
        """The open streams that hold up the merge because nothing of theirs is waiting."""
        return [index for index, is_open in enumerate(self._open) if is_open and not self._waiting[index]]

    def take(self) -> EventBatch | None:
        """All rows that are due, in order: zero-copy while just one stream has any. None while a stream is hungry."""
        if self.hungry:
            return None
        filled = [index for index, batches in enumerate(self._waiting) if batches]
        if not filled:
            return None
        if len(filled) == 1:
            return self._waiting[filled[0]].pop(0)
        # Up to the earliest of the last rows that the open streams have shown, all is known.
        bounds = [_last(self._waiting[index][-1]) for index in filled if self._open[index]]
        bound = min(bounds) if bounds else None
        due: list[EventBatch] = []
        for index in filled:
            due += self._split(index, bound)
        if len(due) == 1:
            return due[0]
        merged = concat_rows([batch.records for batch in due], RECORD)
        merged = take_rows(merged, np.argsort(merged["log_sequence"], kind="stable"))
        first = due[0]
        return EventBatch(merged, first.symbols, first.sources, session_number=first.session_number)

    def _split(self, index: int, bound: int | None) -> list[EventBatch]:
        """Remove and return one stream's rows up to ``bound``, inclusive."""
        due: list[EventBatch] = []
        waiting = self._waiting[index]
        while waiting:
            batch = waiting[0]
            if bound is None or _last(batch) <= bound:
                due.append(waiting.pop(0))
                continue
            cut = int(np.searchsorted(batch.records["log_sequence"], bound, side="right"))
            if cut:
                due.append(batch[:cut])
                waiting[0] = batch[cut:]
            break
        return due


def _last(batch: EventBatch) -> int:
    return int(batch.records["log_sequence"][-1])


async def merge(streams: Sequence[AsyncIterator[EventBatch]]) -> AsyncIterator[EventBatch]:
    """Merge async streams of batches by log sequence. Reads a stream only when it holds the others up."""
    merging = LogMerge(len(streams))
    while True:
        for index in merging.hungry:
            batch = await anext(streams[index], None)
            if batch is None:
                merging.close(index)
            else:
                merging.put(index, batch)
        due = merging.take()
        if due is not None:
            yield due
        elif not merging.hungry:
            return
