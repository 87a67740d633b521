"""The order in which messages arrive once some are lost, come twice, or come late; and what arrivals say of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hftlab.events import EventType, Flags
from hftlab.events.records import DTYPES, Rows
from hftlab.events.rowbytes import take_rows
from hftlab.sim.draws import Bools, Ints
from hftlab.sim.messages import Messages
from hftlab.sim.plan import Plan, burst_arrivals
from hftlab.sim.truth import LOSSES, REPEATS, Fault

_CONFLICTING: dict[EventType, tuple[str, ...]] = {
    EventType.MARKET_DATA: ("price", "bid", "ask"),
    EventType.ORDER: ("price", "quantity"),
    EventType.FILL: ("executed_price",),
    EventType.SIGNAL: ("strength",),
}
"""What a conflict changes: the first of these that the row has."""

_HUGE = 1e300  # twice that is no finite number for long: halved instead


class Arranged(NamedTuple):
    """The faulty rows; ``key`` says after which original row each lies, never falling; ``position`` is by fault."""

    records: Rows
    key: Ints
    position: Ints
    amount: Ints
    """As planned, but for messages that ran out of later ones to let pass."""


def arrange(records: Rows, messages: Messages, plan: Plan) -> Arranged:
    """Carry out a plan. Rows that nothing happens to keep their order, their arrival, and all their bytes."""
    kept_message = np.ones(len(messages), np.bool_)
    kept_message[plan.of(*LOSSES, Fault.DISORDER, Fault.LATE_BURST).runs()] = False
    kept_row = np.empty(len(records), np.bool_)
    kept_row[messages.rows] = np.repeat(kept_message, messages.count)
    kept = np.flatnonzero(kept_row)

    fault = np.flatnonzero(np.isin(plan.kind, (Fault.DISORDER, Fault.LATE_BURST, *REPEATS)))
    moving = plan.pick(fault)
    after, received, amount = _arrivals(records, messages, moving, kept_message)
    order = np.lexsort((moving.lead, received, after))
    fault, moving, after, received = fault[order], moving.pick(order), after[order], received[order]
    moved = messages.rows_of(moving.runs())
    many_rows = _rows_a_fault(messages, moving)

    # Stable, so whatever arrives after a row that is kept lies behind it, and the rows of a message stay together.
    rows, key = np.concatenate([kept, moved]), np.concatenate([kept, np.repeat(after, many_rows)])
    place = np.argsort(key, kind="stable")
    where = np.empty(len(place), np.int64)
    where[place] = np.arange(len(place))
    arranged, key = take_rows(records, rows[place]), key[place]
    stamp(arranged, where[len(kept) :], np.repeat(received, many_rows))

    position = np.full(len(plan.kind), -1)
    position[fault] = where[len(kept) + np.cumsum(many_rows) - many_rows]
    stays = np.flatnonzero(plan.kind == Fault.RESET)
    position[stays] = where[np.searchsorted(kept, messages.first_row[plan.lead[stays]])]
    amounts = plan.amount.copy()
    amounts[fault] = amount[order]
    contradict(arranged, position[plan.kind == Fault.CONFLICT])
    return Arranged(arranged, key, position, amounts)


def stamp(records: Rows, where: Ints | Bools, received: Ints) -> None:
    """Give rows another arrival: a timestamp that stands for the arrival goes along, and AHEAD says what is true."""
    records["received"][where] = received
    flags = records["flags"][where]
    arrival = (flags & Flags.ARRIVAL_TIME) != 0
    timestamp = np.where(arrival, received, records["timestamp"][where])
    records["timestamp"][where] = timestamp
    plain = flags & np.uint16(0xFFFF ^ Flags.AHEAD)
    records["flags"][where] = np.where(timestamp > received, plain | np.uint16(Flags.AHEAD), plain)


def contradict(records: Rows, where: Ints) -> None:
    """Double the first number of these rows that their type is about; where there is none, or it is 0, it becomes 1."""
    types = records["type"][where]
    for event_type, fields in _CONFLICTING.items():
        rows = where[types == event_type]
        typed = records.view(DTYPES[event_type])
        for field in fields:
            values = typed[field][rows]
            there = ~np.isnan(values)
            if field == fields[-1]:
                there[:] = True
            value = values[there]
            other = value * np.where(np.abs(value) > _HUGE, 0.5, 2.0)
            typed[field][rows[there]] = np.where((value == 0) | np.isnan(value), 1.0, other)
            rows = rows[~there]


def _arrivals(records: Rows, messages: Messages, moving: Plan, kept: Bools) -> tuple[Ints, Ints, Ints]:
    """After which row each of these faults' messages arrive, when, and what came of its amount.

    A message that lets n others pass arrives right after the n-th of those that come in order, behind it in its
    stream; so it has passed them even where others, that are late too, lie between.
    """
    after, received, amount = np.empty_like(moving.lead), np.empty_like(moving.lead), moving.amount.copy()
    late = moving.kind == Fault.LATE_BURST
    if late.any():
        after[late], received[late] = burst_arrivals(moving.pick(late), records, messages)
    steps = ~late
    if steps.any():
        opens = messages.opens
        before: Ints = np.cumsum(kept) - kept  # how many in order come before each message, in all streams so far
        ends = np.append(np.flatnonzero(opens)[1:], len(messages)) - 1
        last = (before + kept)[ends][(np.cumsum(opens) - 1)[moving.lead[steps]]] - 1
        # What is lost, or moves itself, isn't counted; what comes twice is, as the one that the others pass.
        own = (before + kept)[moving.lead[steps]] - 1
        target = np.minimum(own + moving.amount[steps], last)
        after[steps] = messages.last_row[np.flatnonzero(kept)[target]]
        received[steps] = records["received"][after[steps]]
        amount[steps] = target - own
    return after, received, amount


def _rows_a_fault(messages: Messages, plan: Plan) -> Ints:
    upto = np.append(0, np.cumsum(messages.count))
    count: Ints = upto[plan.lead + plan.many] - upto[plan.lead]
    return count
