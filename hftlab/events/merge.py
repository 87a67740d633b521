"""Several ordered streams of batches into one, by log sequence: how the streams of a session become its total order."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import numpy as np

from hftlab.errors import ValidationError
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
        self._reached = [-1] * streams

    def put(self, stream: int, batch: EventBatch) -> None:
        """Add the next batch of one stream; all batches share their tables. Raises ValidationError if it goes back."""
        if not len(batch):
            return
        first = int(batch.records["log_sequence"][0])
        if not self._open[stream] or first <= self._reached[stream]:
            reached = self._reached[stream] if self._open[stream] else "its end"
            raise ValidationError(f"stream {stream} goes on after log sequence {reached}; got a batch from {first}")
        self._reached[stream] = _last(batch)
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
        first = due[0]
        dtypes = {batch.records.dtype for batch in due}
        merged = concat_rows([batch.records for batch in due], dtypes.pop() if len(dtypes) == 1 else RECORD)
        merged = take_rows(merged, np.argsort(merged["log_sequence"], kind="stable"))
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
    """Merge async streams of batches by log sequence. Reads a stream only when it holds the others up.

    Closing the merge, or an error in a stream, closes the streams that can be closed (async generators).
    """
    merging = LogMerge(len(streams))
    try:
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
    finally:
        for stream in streams:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
