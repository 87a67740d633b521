"""The sliding window: a message is kept until it is due, and before it leaves, all that has a lesser key does.

Read ``slots`` (what is kept) first; ``least`` finds the next to leave, ``lateness`` says how long a hold had sufficed.
Contract: one thread; nothing is allocated, so the caller sees to the room (held rows + rows of the call, in ``slots``,
``store``, ``order`` and ``aside``). No row of the input is written. All is decided row by row, so that where the input
is cut changes nothing.
"""

from __future__ import annotations

from numba import njit

from hftlab.events.records import ROW_BYTES, Flags
from hftlab.ring.atomics import copy_line, load, store
from hftlab.sequence.kernels import slots as at
from hftlab.sequence.kernels.atomics import add, called, get, put, word
from hftlab.sequence.kernels.lateness import overtaken_ns, rise
from hftlab.sequence.kernels.least import append, insert, pop, remove
from hftlab.sequence.kernels.slots import group_fact, less, set_group, set_slot, set_source, slot_fact, source_fact

# numba's cache on disk knows machine code by the content of this file alone, but what it calls is in that code too: the
# first 16 digits of the SHA-256 over slots.py, least.py and lateness.py. A test holds it to the truth. (What else is
# called are loads and stores of words.)
COMPILED_IN = "48ae4e879238849e"

_LAST_PART = int(Flags.LAST_PART)


@njit(cache=True, nogil=True)
def slide(s: int, rows: int, length: int, moments: int, numbers: int, now_ns: int) -> None:
    """Take rows in the order of arrival; what leaves is in ``order``, what came too late in ``aside``.

    ``rows``, ``moments`` and ``numbers`` are addresses. Time is ``now_ns``; where that is negative, a row's moment (a
    word each); without moments (0), its ``received``. ``numbers``: the number of each row's message; 0: its sequence.
    """
    _recycle(s)
    clock = get(s, at.CLOCK)
    for row in range(length):
        moment = now_ns if now_ns >= 0 else load(moments + row * 8) if moments else word(rows, row, 1)
        if moment > clock:
            clock = moment
            put(s, at.CLOCK, clock)
            if clock >= get(s, at.NEXT_DUE):
                _let_go_due(s)
        tail = word(rows, row, 7)
        source = tail & 0xFFFF
        if source_fact(s, source, at.GROUP_OF) < 0:
            _pass(s, row)
            continue
        if get(s, at.HELD_ROWS) >= get(s, at.CAPACITY):
            _make_place(s)
        message = source_fact(s, source, at.OPEN)
        if message >= 0 and not _continues(s, message, rows, row):
            _close(s, message)  # the rest of it never came
            message = -1
        slot = _keep(s, rows + row * ROW_BYTES)
        complete = (tail >> 16) & _LAST_PART != 0
        if message < 0:
            _begin(s, slot, source, rows, row, numbers)
            if complete:
                _arrive(s, slot)
            else:
                set_source(s, source, at.OPEN, slot)
                append(s, at.FIRST_OPEN, slot)
            continue
        set_slot(s, slot_fact(s, message, at.TAIL), at.FOLLOWING, slot)
        set_slot(s, message, at.TAIL, slot)
        set_slot(s, message, at.ROWS, slot_fact(s, message, at.ROWS) + 1)
        if complete:
            _close(s, message)
    add(s, at.RECEIVED_ROWS, length)


@njit(cache=True, nogil=True)
def let_go(s: int, now_ns: int, everything: bool) -> None:
    """Let time pass; ``everything``: all that is held leaves, each group by its keys, and any key may come next."""
    _recycle(s)
    if now_ns > get(s, at.CLOCK):
        put(s, at.CLOCK, now_ns)
    _let_go_due(s)
    if not everything:
        return
    while get(s, at.FIRST_OPEN) >= 0:
        _close(s, get(s, at.FIRST_OPEN))
    while get(s, at.FIRST_HELD) >= 0:
        _let_go(s, get(s, at.FIRST_HELD), get(s, at.CLOCK))
    put(s, at.NEXT_DUE, at.FOREVER)
    for group in range(get(s, at.GROUPS)):
        set_group(s, group, at.LAST_MAJOR, -1)
        set_group(s, group, at.RISES, 0)
    for source in range(get(s, at.SOURCES)):
        set_source(s, source, at.LATEST, at.NEVER)


@njit(cache=True, nogil=True)
def gather_slid(s: int, rows: int, out: int, moments: int) -> int:
    """Write the rows that left to ``out`` and their moments; return a bit for each type among them."""
    types = 0
    order = get(s, at.ORDER_AT)
    for place in range(get(s, at.OUT)):
        row = load(order + (place * at.ORDER_FACTS + at.O_ROW) * 8)
        target = out + place * ROW_BYTES
        copy_line(target, rows + row * ROW_BYTES if row >= 0 else get(s, at.STORE_AT) + ~row * ROW_BYTES)
        store(moments + place * 8, load(order + (place * at.ORDER_FACTS + at.O_MOMENT) * 8))
        types |= 1 << ((load(target + 56) >> 32) & 31)
    return types


# -- coming -----------------------------------------------------------------------------------------------------------


@called
def _recycle(s: int) -> None:
    """Begin a call: what left in the last one has been read, and its slots are free."""
    if get(s, at.RETIRED) >= 0:
        set_slot(s, get(s, at.RETIRED_TAIL), at.FOLLOWING, get(s, at.FREE))
        put(s, at.FREE, get(s, at.RETIRED))
        put(s, at.RETIRED, -1)
    put(s, at.OUT, 0)
    put(s, at.PREFIX, 0)
    put(s, at.ASIDE, 0)


@called
def _keep(s: int, row: int) -> int:
    """Copy a row into a free slot."""
    slot = get(s, at.FREE)
    if slot >= 0:
        put(s, at.FREE, slot_fact(s, slot, at.FOLLOWING))
    else:
        slot = get(s, at.USED)
        put(s, at.USED, slot + 1)
    copy_line(get(s, at.STORE_AT) + slot * ROW_BYTES, row)
    set_slot(s, slot, at.FOLLOWING, -1)
    add(s, at.HELD_ROWS, 1)
    return slot


@called
def _begin(s: int, slot: int, source: int, rows: int, row: int, numbers: int) -> None:
    """A message begins with that row, and has its key."""
    if get(s, at.BY_TIMESTAMP):
        major, minor = 0, max(word(rows, row, 0), source_fact(s, source, at.LATEST))
        set_source(s, source, at.LATEST, minor)
    else:
        major = (word(rows, row, 6) >> 32) & 0xFFFFFFFF
        minor = load(numbers + row * 8) if numbers else word(rows, row, 2)
    set_slot(s, slot, at.MAJOR, major)
    set_slot(s, slot, at.MINOR, minor)
    set_slot(s, slot, at.SOURCE, source)
    set_slot(s, slot, at.TAIL, slot)
    set_slot(s, slot, at.ROWS, 1)


@called
def _continues(s: int, message: int, rows: int, row: int) -> bool:
    """Whether a row is the next part of a message: the same number, and (in one word) the same epoch and part + 1."""
    latest = get(s, at.STORE_AT) + slot_fact(s, message, at.TAIL) * ROW_BYTES
    return bool(word(rows, row, 2) == load(latest + 16) and word(rows, row, 6) == load(latest + 48) + 1)


@called
def _close(s: int, message: int) -> None:
    """A message that came in parts has all that it will have."""
    set_source(s, slot_fact(s, message, at.SOURCE), at.OPEN, -1)
    remove(s, at.FIRST_OPEN, message)
    _arrive(s, message)


@called
def _arrive(s: int, message: int) -> None:
    """Hold a message, unless it is too late for that or has no number."""
    group = source_fact(s, slot_fact(s, message, at.SOURCE), at.GROUP_OF)
    major, minor = slot_fact(s, message, at.MAJOR), slot_fact(s, message, at.MINOR)
    if minor < 0 and get(s, at.BY_TIMESTAMP) == 0:
        _put_out(s, message, get(s, at.CLOCK))
        return
    if less(major, minor, group_fact(s, group, at.LAST_MAJOR), group_fact(s, group, at.LAST_MINOR)):
        _come_late(s, message)
        return
    clock = get(s, at.CLOCK)
    set_slot(s, message, at.ARRIVED_NS, clock)
    set_slot(s, message, at.ARRIVAL, get(s, at.SERIAL))
    add(s, at.SERIAL, 1)
    if get(s, at.FIRST_HELD) < 0:
        put(s, at.NEXT_DUE, clock + get(s, at.HOLD_NS))
    append(s, at.FIRST_HELD, message)
    insert(s, group, message)
    rise(s, group, major, minor, clock)


@called
def _come_late(s: int, message: int) -> None:
    """A greater key has left: set the message aside, or (numbers) pass it on for the sequencer to judge."""
    clock = get(s, at.CLOCK)
    add(s, at.LATE_ROWS, slot_fact(s, message, at.ROWS))
    put(s, at.LATE_BY_NS_MAX, max(get(s, at.LATE_BY_NS_MAX), clock - overtaken_ns(s, message)))
    if get(s, at.BY_TIMESTAMP) == 0:
        _put_out(s, message, clock)
        return
    slot, aside = message, get(s, at.ASIDE)
    while slot >= 0:
        store(get(s, at.ASIDE_AT) + aside * 8, slot)
        aside += 1
        slot = slot_fact(s, slot, at.FOLLOWING)
    put(s, at.ASIDE, aside)
    _retire(s, message)


# -- leaving ----------------------------------------------------------------------------------------------------------


@called
def _let_go_due(s: int) -> None:
    """Let go what is due by now, each at its due time."""
    while get(s, at.FIRST_HELD) >= 0:
        message = get(s, at.FIRST_HELD)
        due = slot_fact(s, message, at.ARRIVED_NS) + get(s, at.HOLD_NS)
        if due > get(s, at.CLOCK):
            put(s, at.NEXT_DUE, due)
            return
        _let_go(s, message, due)
    put(s, at.NEXT_DUE, at.FOREVER)


@called
def _let_go(s: int, message: int, moment: int) -> None:
    """Let go a held message, and before it what is less in its group."""
    group = source_fact(s, slot_fact(s, message, at.SOURCE), at.GROUP_OF)
    set_group(s, group, at.LAST_MAJOR, slot_fact(s, message, at.MAJOR))
    set_group(s, group, at.LAST_MINOR, slot_fact(s, message, at.MINOR))
    least = -1
    while least != message:
        least = pop(s, group)
        remove(s, at.FIRST_HELD, least)
        _put_out(s, least, moment)


@called
def _make_place(s: int) -> None:
    """At capacity, the message that is due first leaves now; where all places are taken by parts, the oldest message
    that is being received in parts leaves as far as it came."""
    before = get(s, at.RELEASED_ROWS)
    if get(s, at.FIRST_HELD) < 0:
        _close(s, get(s, at.FIRST_OPEN))
    if get(s, at.FIRST_HELD) >= 0:
        _let_go(s, get(s, at.FIRST_HELD), get(s, at.CLOCK))
        _let_go_due(s)
    add(s, at.HURRIED_ROWS, get(s, at.RELEASED_ROWS) - before)


@called
def _pass(s: int, row: int) -> None:
    """An input row leaves at once."""
    out = get(s, at.OUT)
    if row == out and get(s, at.PREFIX) == out:
        put(s, at.PREFIX, out + 1)
    _order(s, row, get(s, at.CLOCK))
    add(s, at.RELEASED_ROWS, 1)


@called
def _put_out(s: int, message: int, moment: int) -> None:
    """The rows of a message leave."""
    slot = message
    while slot >= 0:
        _order(s, ~slot, moment)
        slot = slot_fact(s, slot, at.FOLLOWING)
    add(s, at.RELEASED_ROWS, slot_fact(s, message, at.ROWS))
    _retire(s, message)


@called
def _order(s: int, row: int, moment: int) -> None:
    out = get(s, at.OUT)
    place = get(s, at.ORDER_AT) + out * at.ORDER_FACTS * 8
    store(place + at.O_ROW * 8, row)
    store(place + at.O_MOMENT * 8, moment)
    put(s, at.OUT, out + 1)


@called
def _retire(s: int, message: int) -> None:
    """The message's slots are free when this call's output has been read."""
    tail = slot_fact(s, message, at.TAIL)
    if get(s, at.RETIRED) < 0:
        put(s, at.RETIRED_TAIL, tail)
    set_slot(s, tail, at.FOLLOWING, get(s, at.RETIRED))
    put(s, at.RETIRED, message)
    add(s, at.HELD_ROWS, -slot_fact(s, message, at.ROWS))
