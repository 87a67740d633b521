"""Which messages each fault happens to. No message has two, so that what a sequencer must say of each is one thing.

Every kind of fault draws from random words of its own, one a message, so asking for one more kind leaves the others
where they were, but for where they would meet. There the first of these wins: tail loss, bursts of loss, late bursts,
single losses, disorder, conflicts, duplicates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.events import EventType
from hftlab.events.records import Rows
from hftlab.sim.arguments import SECOND_NS
from hftlab.sim.draws import Bools, Ints, Words, WordStream, chance
from hftlab.sim.messages import Messages, in_place, start_epochs
from hftlab.sim.rates import Faults
from hftlab.sim.truth import Fault

_KEY = b"\0faults"  # no symbol begins with a NUL, so that no market of the same seed draws these words
_HOW_FAR = 64  # added to a fault's number: the words that say how far, not whether


class Plan(NamedTuple):
    """Faults by column, int64: each happens to the messages ``lead`` to ``lead + many - 1``; ``amount`` as in TRUTH."""

    kind: Ints
    lead: Ints
    many: Ints
    amount: Ints

    def runs(self) -> Ints:
        """All messages of all faults."""
        ends = np.cumsum(self.many)
        runs: Ints = np.repeat(self.lead - ends + self.many, self.many) + np.arange(ends[-1] if len(ends) else 0)
        return runs

    def pick(self, which: Bools | Ints) -> Plan:
        """Some of the faults."""
        return Plan(*(column[which] for column in self))

    def of(self, *kinds: Fault) -> Plan:
        """The faults of these kinds."""
        return self.pick(np.isin(self.kind, kinds))


class Draws:
    """The random words of one seed, by fault: one for each of ``count`` messages."""

    def __init__(self, seed: int, count: int) -> None:
        self._seed = seed
        self._count = count

    def happens(self, kind: Fault, rate: float) -> Bools:
        """Where the fault happens."""
        return chance(self._words(int(kind)), rate) if rate else np.zeros(self._count, np.bool_)

    def how_far(self, kind: Fault, most: int) -> Ints:
        """1 to ``most``, evenly: exact in integers, and off by 2**-32 * most at worst."""
        words = self._words(_HOW_FAR + kind) >> np.uint64(32)
        return ((words * np.uint64(most)) >> np.uint64(32)).astype(np.int64) + 1

    def _words(self, purpose: int) -> Words:
        return WordStream(self._seed, (*_KEY, purpose)).take(self._count)


def reset_some(records: Rows, messages: Messages, asked: Faults, draws: Draws) -> tuple[Messages, Plan]:
    """Begin new epochs, in ``records`` too: the source does that, before anything happens on the way."""
    where = draws.happens(Fault.RESET, asked.resets) & in_place(messages) & ~messages.opens
    if where.any():
        messages = start_epochs(records, messages, where)
    return messages, _plan(Fault.RESET, np.flatnonzero(where))


def plan_faults(records: Rows, messages: Messages, asked: Faults, draws: Draws) -> Plan:
    """All that happens to messages on their way."""
    free = in_place(messages)
    tail = _tail(messages, free, asked.tail)
    free &= ~tail
    protected = _ends(messages, free)
    plans = [_consecutive(Fault.TAIL_LOSS, tail, messages)]

    def settle(plan: Plan) -> None:
        plans.append(plan)
        free[plan.runs()] = False

    def single(kind: Fault, rate: float, allowed: Bools, most: int = 0) -> None:
        where = np.flatnonzero(draws.happens(kind, rate) & free & allowed)
        settle(_plan(kind, where, draws.how_far(kind, most)[where] if most else 0))

    for kind, rate, length, wait_s in (
        (Fault.LOSS_BURST, asked.loss_bursts, asked.loss_burst_length, 0.0),
        (Fault.LATE_BURST, asked.late_bursts, asked.late_burst_length, asked.late_by_s),
    ):
        plan = _runs(kind, draws.happens(kind, rate), free & ~protected, messages, length, int(wait_s * SECOND_NS))
        settle(plan if kind is Fault.LOSS_BURST else _in_their_epoch(plan, records, messages))
    single(Fault.LOSS, asked.loss, ~protected)
    single(Fault.DISORDER, asked.disorder, ~protected, asked.displacement)
    can_differ = np.isin(records["type"][messages.first_row], list(EventType))
    single(Fault.CONFLICT, asked.conflicts, can_differ, asked.duplicate_delay)
    single(Fault.DUPLICATE, asked.duplicates, np.ones(len(free), np.bool_), asked.duplicate_delay)
    return Plan(*(np.concatenate(columns) for columns in zip(*plans, strict=True)))


def burst_arrivals(plan: Plan, records: Rows, messages: Messages) -> tuple[Ints, Ints]:
    """After which rows late bursts arrive, and when: whole messages are never cut in two."""
    received = records["received"]
    end = plan.lead + plan.many - 1
    at = received[messages.last_row[end]] + plan.amount
    after = np.searchsorted(np.maximum.accumulate(received), at, side="right") - 1
    last_row = np.empty(len(records), np.int64)
    last_row[messages.rows] = np.repeat(messages.last_row, messages.count)
    after = last_row[after]
    return after, np.maximum(at, received[after])


def _in_their_epoch(plan: Plan, records: Rows, messages: Messages) -> Plan:
    """The bursts that arrive before their source's next epoch begins: behind it, they'd be of an epoch that is over."""
    if not len(plan.lead):
        return plan
    opens = messages.opens
    stream = np.cumsum(opens) - 1
    first_row = messages.first_row[opens]
    next_epoch = np.full(len(first_row), len(records))
    source = messages.source[opens]
    same = source[1:] == source[:-1]
    next_epoch[:-1][same] = first_row[1:][same]
    after, _ = burst_arrivals(plan, records, messages)
    return plan.pick(after < next_epoch[stream[plan.lead]])


def _tail(messages: Messages, ordered: Bools, count: int) -> Bools:
    """The last messages of every source: in its last epoch, and never the first there."""
    if not count or not len(messages):
        return np.zeros(len(messages), np.bool_)
    opens = messages.opens
    begins, stream = np.flatnonzero(opens), np.cumsum(opens) - 1
    candidate = ordered & ~opens
    so_far = np.cumsum(candidate)
    rank: Ints = so_far - np.repeat(so_far[begins], np.diff(begins, append=len(messages)))  # from 1: the opener is none
    total = np.bincount(stream, candidate).astype(np.int64)
    is_last = np.zeros(len(total), np.bool_)
    is_last[stream[np.append(messages.source[1:] != messages.source[:-1], True)]] = True
    tail: Bools = candidate & is_last[stream] & (rank > total[stream] - count)
    return tail


def _ends(messages: Messages, stays: Bools) -> Bools:
    """Messages that stay in their places, so that what is missing between them shows: each stream's first and last.

    Nobody can know that there was anything before the first number ever seen, or behind the last.
    """
    count = len(messages)
    protected = messages.opens
    if count:
        begins = np.flatnonzero(protected)
        first = np.minimum.reduceat(np.where(stays, np.arange(count), count), begins)
        last = np.maximum.reduceat(np.where(stays, np.arange(count), -1), begins)
        protected[first[first < count]] = True
        protected[last[last >= 0]] = True
    return protected


def _runs(kind: Fault, starts: Bools, free: Bools, messages: Messages, length: int, amount: int) -> Plan:
    """Runs of up to ``length`` messages of one stream, shorter where something that isn't free lies behind them."""
    # No run crosses into the next stream: the first message of a stream is never free.
    blocked = np.append(np.flatnonzero(~free), len(messages))
    wanted = np.flatnonzero(starts & free)
    ends = np.minimum(wanted + length, blocked[np.searchsorted(blocked, wanted)])
    lead, many, busy_until = [], [], -1
    for start, end in zip(wanted.tolist(), ends.tolist(), strict=True):
        if start >= busy_until:
            lead.append(start)
            many.append(end - start)
            busy_until = end
    return _plan(kind, np.array(lead, np.int64), amount, np.array(many, np.int64))


def _consecutive(kind: Fault, where: Bools, messages: Messages) -> Plan:
    """The messages that a mask picks, as runs within their streams."""
    index = np.flatnonzero(where)
    stream = np.cumsum(messages.opens)[index]
    begins = np.flatnonzero(np.diff(index, prepend=-2) + np.diff(stream, prepend=0) * len(where) != 1)
    return _plan(kind, index[begins], 0, np.diff(begins, append=len(index)))


def _plan(kind: Fault, lead: Ints, amount: Ints | int = 0, many: Ints | int = 1) -> Plan:
    columns = (np.broadcast_to(np.asarray(each, np.int64), lead.shape) for each in (kind, lead, many, amount))
    return Plan(*columns)
