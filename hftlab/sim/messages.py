"""A batch's rows as messages: what a source sent at once under one number, what is lost, repeated and moved whole."""

from __future__ import annotations

import msgspec
import numpy as np

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, Flags, NumberRule, Source, SourceTable
from hftlab.events.records import NO_SEQUENCE, Rows
from hftlab.events.rowbytes import copy_rows
from hftlab.sim.draws import Bools, Ints

_MAX_EPOCH = (1 << 32) - 1
_NO_NUMBERS = Flags.HEARTBEAT | Flags.END_OF_SESSION
"""Rows that only tell where a source's numbers are."""


class Messages(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Messages by source, then epoch, then arrival: one *stream* (a source and an epoch) after the other.

    ``rows`` are row positions in that order; message ``i`` is ``rows[begin[i] : begin[i] + count[i]]``. All other
    columns have one int64 (``beats``: bool) a message.
    """

    rows: Ints
    begin: Ints
    count: Ints
    source: Ints
    epoch: Ints
    sequence: Ints
    span: Ints
    beats: Bools
    """Heartbeats and declared ends: they carry a number and nothing else."""

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def first_row(self) -> Ints:
        """Where each message's first row is."""
        rows: Ints = self.rows[self.begin]
        return rows

    @property
    def last_row(self) -> Ints:
        """Where each message's last row is."""
        rows: Ints = self.rows[self.begin + self.count - 1]
        return rows

    @property
    def opens(self) -> Bools:
        """Whether each message is the first of its stream."""
        first = np.ones(len(self.begin), np.bool_)
        first[1:] = (self.source[1:] != self.source[:-1]) | (self.epoch[1:] != self.epoch[:-1])
        return first

    def rows_of(self, which: Ints) -> Ints:
        """The rows of these messages, message after message."""
        count = self.count[which]
        ends = np.cumsum(count)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
        rows: Ints = self.rows[np.repeat(self.begin[which], count) + within]
        return rows


def messages_of(records: Rows) -> Messages:
    """The messages of these rows. A message ends where its source's next row has another number, or no later part.

    So a message that the rows have twice is two of them, and rows of other sources may lie between its own. About 0.2
    µs a row.
    """
    stream = records["source"].astype(np.int64) << 32 | records["epoch"]
    rows = np.argsort(stream, kind="stable").astype(np.int64)
    stream = stream[rows]
    sequence, part = records["sequence"][rows], records["part"][rows]
    starts = np.ones(len(rows), np.bool_)
    starts[1:] = (stream[1:] != stream[:-1]) | (sequence[1:] != sequence[:-1]) | (part[1:] <= part[:-1])
    begin = np.flatnonzero(starts).astype(np.int64)
    flags = records["flags"][rows]
    return Messages(
        rows=rows,
        begin=begin,
        count=np.diff(begin, append=len(rows)),
        source=stream[begin] >> 32,
        epoch=stream[begin] & _MAX_EPOCH,
        sequence=sequence[begin],
        span=records["span"][rows[begin]].astype(np.int64),
        beats=(np.bitwise_or.reduceat(flags, begin) & int(_NO_NUMBERS)) != 0 if len(begin) else np.zeros(0, np.bool_),
    )


def numbered(batch: EventBatch) -> EventBatch:
    """The batch with a number for every message of the sources that send none: from 1, in order, for each source.

    What ``faults`` does first, as without numbers nothing shows that a message is missing. Such a source gets the rule
    PLUS_ONE, in a new table, and numbers from 1 in each of its epochs; sources with numbers stay as they are. The same
    batch, not a copy, where every source has numbers.

    Raises ValidationError where a source, with that rule, would be another one that the batch has. About 0.2 µs a row.
    """
    source = batch.records["source"]
    used = np.bincount(source, minlength=len(batch.sources)) > 0
    has_numbers = np.bincount(source[batch.records["sequence"] >= 0], minlength=len(used)) > 0
    bare = used & ~has_numbers
    if not bare.any():
        return batch
    sources = SourceTable(batch.sources.values[1:])
    new_id = np.arange(len(used), dtype=np.uint16)
    for index in np.flatnonzero(bare).tolist():
        old = sources[index]
        new_id[index] = sources.intern(Source(old.venue, old.channel, old.scope, NumberRule.PLUS_ONE.value))
        if new_id[index] != index and new_id[index] < len(used) and used[new_id[index]]:
            raise ValidationError(
                f"{old.text!r} has no numbers and would be numbered as {sources[int(new_id[index])].text!r}, which the "
                "batch has too: rename one of the two sources, or leave one out"
            )
    records = copy_rows(batch.records)
    messages = messages_of(records)
    opens = np.flatnonzero(messages.opens)
    ordinal = np.arange(1, len(messages) + 1) - np.repeat(opens, np.diff(opens, append=len(messages)))
    given = np.repeat(bare[messages.source], messages.count)
    rows = messages.rows[given]
    records["sequence"][rows] = np.repeat(ordinal, messages.count)[given]
    records["span"][rows] = 1
    records["source"] = new_id[source]
    return EventBatch(records, batch.symbols, sources, session_number=batch.session_number)


def start_epochs(records: Rows, messages: Messages, where: Bools) -> Messages:
    """Begin a new epoch at these messages (none of which is the first of its stream), in ``records`` and the result.

    All that follows of the source is one epoch further on; the rest of the old epoch is numbered from 1.
    """
    sources = np.ones(len(messages), np.bool_)
    sources[1:] = messages.source[1:] != messages.source[:-1]
    begun = np.cumsum(where)
    first = np.flatnonzero(sources)
    before: Ints = np.repeat(begun[first] - where[first], np.diff(first, append=len(messages)))
    epoch = messages.epoch + begun - before
    if int(epoch.max()) > _MAX_EPOCH:
        raise ValidationError(f"an epoch is at most {_MAX_EPOCH}; with these resets one would be {int(epoch.max())}")
    # A section is what is numbered anew as one: it begins with its stream, or with a reset.
    section = np.flatnonzero(messages.opens | where)
    has_number = messages.sequence != NO_SEQUENCE
    below = np.where(has_number, messages.sequence - messages.span, np.iinfo(np.int64).max)
    shift = np.where(where[section], np.minimum.reduceat(below, section), 0)
    shift = np.where(has_number, np.repeat(shift, np.diff(section, append=len(messages))), 0)
    sequence = messages.sequence - shift
    records["epoch"][messages.rows] = np.repeat(epoch, messages.count)
    records["sequence"][messages.rows] = np.repeat(sequence, messages.count)
    return msgspec.structs.replace(messages, epoch=epoch, sequence=sequence)


def in_place(messages: Messages) -> Bools:
    """Whether each message has a number, is no heartbeat, and lies in its stream where its number says.

    That is: behind all that arrived before, ahead of all that arrives later, sharing its numbers with nothing. So it is
    false for messages that come twice, that are late, or that a late one should have preceded. A Python call a stream
    that isn't in order.
    """
    counts: Bools = (messages.sequence != NO_SEQUENCE) & ~messages.beats
    index = np.flatnonzero(counts)
    stream = np.cumsum(messages.opens)[index]
    high = messages.sequence[index]
    low = high - messages.span[index]
    same = stream[1:] == stream[:-1]
    crossed = same & (low[1:] < high[:-1])
    if not crossed.any():
        return counts
    cuts = [0, *(np.flatnonzero(~same) + 1).tolist(), len(index)]
    which = np.searchsorted(cuts, np.flatnonzero(crossed), side="right") - 1
    for begin, end in (cuts[k : k + 2] for k in np.unique(which).tolist()):
        lows, highs = low[begin:end], high[begin:end]
        ordered = np.ones(end - begin, np.bool_)
        ordered[1:] &= np.maximum.accumulate(highs)[:-1] <= lows[1:]
        ordered[:-1] &= np.minimum.accumulate(lows[::-1])[::-1][1:] >= highs[:-1]
        counts[index[begin:end]] = ordered
    return counts
