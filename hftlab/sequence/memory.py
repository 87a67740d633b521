"""What a stage has to know again when another process goes on in its place: the next numbers, and what it holds."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.events.records import RECORD
from hftlab.events.tables import Source
from hftlab.sequence import layout as at
from hftlab.sequence.tables import Tables


class SourceMemory(msgspec.Struct, frozen=True, array_like=True):
    """Where a source stands: its epoch, that epoch's first number, the number that is next, and the last one (-1: not
    known).

    ``given``: how many numbers messages without one were given. ``strict``: whether its numbers are never skipped.
    What was declared lost, and the content of earlier messages, is not remembered: what comes below ``next_number``
    later is a duplicate or late, which can't be told any more, and in neither case delivered.
    """

    source: Source
    epoch: int
    first_number: int
    next_number: int
    ended_at: int
    given: int
    strict: bool


class StageMemory(msgspec.Struct, frozen=True, array_like=True):
    """Where a stage stands: its sources, the highest event id that it has read, and its time in ns UTC."""

    sources: tuple[SourceMemory, ...] = ()
    highest_id: int = 0
    clock_ns: int = 0


def remembered(tables: Tables) -> StageMemory:
    """Where each source stands that has been heard of. About 1 µs a source."""
    rows = tables.state.sources
    queued = np.flatnonzero(rows[:, at.QUEUE_HEAD] >= 0)
    if len(queued):
        # What waits for its cause was its source's next, and will be again when it is put in again.
        rows = rows.copy()
        rows[queued, at.NEXT_NUMBER] = tables.state.nodes[rows[queued, at.QUEUE_HEAD], at.N_FIRST]
    heard = np.flatnonzero((rows[:, at.EPOCH] >= 0) | (rows[:, at.GIVEN] > 0))
    facts = [at.EPOCH, at.FIRST_NUMBER, at.NEXT_NUMBER, at.ENDED_AT, at.GIVEN, at.STRICT]
    sources = tuple(
        SourceMemory(tables.source(number), epoch, first, following, ended_at, given, bool(strict))
        for number, (epoch, first, following, ended_at, given, strict) in zip(
            heard.tolist(), rows[heard][:, facts].tolist(), strict=True
        )
    )
    return StageMemory(sources, tables.facts[at.HIGHEST_ID], tables.facts[at.CLOCK])


def recall(tables: Tables, memory: StageMemory) -> None:
    """Have the sources stand where they stood. For tables that have heard of none of them."""
    numbers = [tables.number_of(one.source) for one in memory.sources]
    tables.learn_sources()
    control = tables.state.control
    control[[at.HIGHEST_ID, at.CLOCK]] = memory.highest_id, memory.clock_ns
    for number, one in zip(numbers, memory.sources, strict=True):
        row = tables.state.sources[number]
        row[at.GIVEN] = one.given
        if one.epoch < 0:
            continue
        row[[at.EPOCH, at.FIRST_NUMBER, at.NEXT_NUMBER]] = one.epoch, one.first_number, one.next_number
        row[[at.TOP, at.ACCEPTED_TOP]] = one.next_number - 1
        control[at.STRICT_SOURCES] += int(one.strict) - row[at.STRICT]
        row[at.STRICT] = one.strict
        row[at.ENDED_AT] = one.ended_at
        row[at.PLAIN] = row[at.RULE] + 1 if row[at.RULE] <= at.RISING and one.ended_at < 0 else 0


def held_log_sequences(
    store: npt.NDArray[np.int64], used: int, following: npt.NDArray[np.int64], free: Sequence[int]
) -> npt.NDArray[np.int64]:
    """The log sequences of the rows in a store: all that were ever used, but those in the lists that begin at ``free``.

    A step in Python for each free slot: of what is rarely held, rarely asked.
    """
    taken = np.ones(used, bool)
    for slot in free:
        while slot >= 0:
            taken[slot] = False
            slot = int(following[slot])
    rows = store[:used][taken]
    held: npt.NDArray[np.int64] = np.ascontiguousarray(rows).view(RECORD).reshape(-1)["log_sequence"].astype(np.int64)
    return held
