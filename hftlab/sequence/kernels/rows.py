"""What Python calls: the rows of a batch one message after the other, decisions from outside, and the gathering."""

from __future__ import annotations

from numba import njit

from hftlab.events.records import ROW_BYTES, Flags
from hftlab.ring.atomics import copy_line, load, store
from hftlab.sequence import layout as at
from hftlab.sequence.kernels.atomics import (
    add,
    called,
    count,
    get,
    node_fact,
    ordered,
    put,
    remember_at,
    set_node,
    set_source,
    source_fact,
    stored_row,
    word,
)
from hftlab.sequence.kernels.causes import look_again, release_all
from hftlab.sequence.kernels.content import content_of
from hftlab.sequence.kernels.gaps import drop_gap
from hftlab.sequence.kernels.held import new_node, put_row, recycle, store_rows
from hftlab.sequence.kernels.words import accept, expire, is_pressed_back, lose_all

# numba's cache on disk knows machine code by the content of this file alone, but what it calls is in that code too: the
# first 16 digits of the SHA-256 over layout, then atomics, causes, content, gaps, held and words of this folder, then
# ring's atomics. A test holds it to the truth.
COMPILED_IN = "99a89e0c9ee0e631"

_LOW_32 = 0xFFFFFFFF
_LAST_PART = int(Flags.LAST_PART)
_SPECIAL = int(Flags.HEARTBEAT | Flags.END_OF_SESSION)
_AFTER_GAP = int(Flags.AFTER_GAP)


@njit(cache=True, nogil=True)
def sequence(s: int, rows: int, length: int, moments: int, numbers: int, now_ns: int, session: int) -> int:
    """Take the rows of a batch, in arrival order; return how many were taken (fewer: a strict window is full).

    ``rows``, ``moments`` and ``numbers`` are addresses. Time is ``now_ns``; where that is negative, a row's moment (a
    word each); without moments (0), its ``received``. ``numbers``: the first and the last number of each row's message,
    two words each; 0: by sequence and span. ``session``: the number of the rows' session, 0 without. What comes out is
    in order, notices and aside.
    """
    recycle(s)
    remembered_mask = get(s, at.REMEMBERED) - 1
    begin = 0
    while begin < length:
        if numbers == 0 and moments == 0 and source_fact(s, word(rows, begin, 7) & 0xFFFF, at.PLAIN) == at.DENSE + 1:
            begin = _take_plain(s, rows, begin, length, now_ns, session)
            if begin == length:
                break
        moment = now_ns if now_ns >= 0 else load(moments + begin * 8) if moments else word(rows, begin, 1)
        if moment > get(s, at.CLOCK):
            put(s, at.CLOCK, moment)
        if moment >= get(s, at.NEXT_DUE):
            expire(s, moment, session)
        tail, shape = word(rows, begin, 7), word(rows, begin, 6)
        source = tail & 0xFFFF
        part, epoch = shape & _LOW_32, (shape >> 32) & _LOW_32
        number = word(rows, begin, 2)
        # -- how far the message goes, and its content
        assembly = source_fact(s, source, at.ASSEMBLY)
        if assembly >= 0 and (
            part != node_fact(s, assembly, at.N_PART) + 1 or number != node_fact(s, assembly, at.N_SEQUENCE)
            or epoch != node_fact(s, assembly, at.N_EPOCH)
        ):  # fmt: skip
            # The rest of that message never came.
            set_source(s, source, at.ASSEMBLY, -1)
            _take_assembled(s, rows, assembly, session)
            assembly = -1
        content = content_of(rows, begin, 0 if assembly < 0 else node_fact(s, assembly, at.N_CONTENT))
        cause = word(rows, begin, 4)
        end = begin + 1
        complete = (tail >> 16) & _LAST_PART != 0
        while not complete and end < length:
            following = word(rows, end, 7)
            if (
                following & 0xFFFF != source
                or word(rows, end, 2) != number
                or word(rows, end, 6) != shape + (end - begin)
            ):
                break
            content = content_of(rows, end, content)
            cause = word(rows, end, 4) if cause == 0 else cause
            complete = (following >> 16) & _LAST_PART != 0
            end += 1
        low, high = 0, 0
        read_before = get(s, at.HIGHEST_ID)
        if session > 0:
            base = session << at.LOG_BITS
            low, high = base | word(rows, begin, 3), base | word(rows, end - 1, 3)
            put(s, at.HIGHEST_ID, max(get(s, at.HIGHEST_ID), high))
        if numbers:
            first, last = load(numbers + begin * 16), load(numbers + begin * 16 + 8)
        else:
            last = number
            span = word(rows, begin, 5) >> 32 & _LOW_32
            # A heartbeat without a number tells what was given; a shared counter only ever has the number it says.
            tells = span == 0 and source_fact(s, source, at.RULE) == at.DENSE
            first = number - span + 1 if tells or source_fact(s, source, at.SPANS) else number
        if assembly >= 0 or not complete:
            flags = (tail >> 16) & 0xFFFF
            if complete and is_pressed_back(s, source, number, epoch, first, last, flags, content):
                put(s, at.HIGHEST_ID, read_before)  # pressed back is not read: what it causes waits for it
                return begin
            _assemble(s, rows, source, begin, end, first, last, content, cause, low, high)
            begin = end
            if complete:
                assembly = source_fact(s, source, at.ASSEMBLY)
                set_source(s, source, at.ASSEMBLY, -1)
                _take_assembled(s, rows, assembly, session)
            continue
        # -- what it is
        next_number = source_fact(s, source, at.NEXT_NUMBER)
        plain = source_fact(s, source, at.PLAIN)
        if (
            plain
            and (first == next_number or (first > next_number and plain == at.RISING + 1))
            and epoch == source_fact(s, source, at.EPOCH)
            and first <= last
            and number >= 0
            and cause == 0
            and (tail >> 16) & _SPECIAL == 0
        ):
            set_source(s, source, at.NEXT_NUMBER, last + 1)
            set_source(s, source, at.TOP_ID, high)
            place = source_fact(s, source, at.SEEN)
            remember_at(s, source, place & remembered_mask, number, content)
            set_source(s, source, at.SEEN, place + 1)
            set_source(s, source, at.PASSED, source_fact(s, source, at.PASSED) + 1)
            for row in range(begin, end):
                put_row(s, source, row, get(s, at.CLOCK), at.KEEP)
        elif not accept(
            s, rows, source, begin, end, -1, number, epoch, first, last, tail, content, cause, low, high,
            get(s, at.CLOCK), session,
        ):  # fmt: skip
            put(s, at.HIGHEST_ID, read_before)  # pressed back is not read: what it causes waits for it
            return begin
        if get(s, at.BLOCKED):
            look_again(s, get(s, at.CLOCK), session)
        begin = end
    return length


@called
def _take_plain(s: int, rows: int, begin: int, end: int, now_ns: int, session: int) -> int:
    """Deliver messages of one row each that are the next of their sources; return the first row that is not so.

    Only for plain sources, of which nothing is held, missing, waited for or declared. In a run of one source's messages
    nothing but the number changes from one to the next, so all there is to a row are five comparisons, the hash and
    remembering it. What a plain source's TOP is, its next number says.
    """
    next_due = get(s, at.NEXT_DUE)
    clock = max(get(s, at.CLOCK), now_ns)
    # Whoever waits for a cause is looked at again after each message: where a batch ends must change nothing.
    if clock >= next_due or get(s, at.BLOCKED):
        return begin
    all_sources, all_seen, remembered = get(s, at.SOURCES_AT), get(s, at.SEEN_AT), get(s, at.REMEMBERED)
    base = session << at.LOG_BITS
    started = clock
    address = rows + begin * ROW_BYTES
    row = begin
    high = 0
    while row < end:
        tail, shape = load(address + 56), load(address + 48)
        source = all_sources + (tail & 0xFFFF) * (at.SOURCE_FACTS * 8)
        number = load(source + at.NEXT_NUMBER * 8)
        if (
            load(source + at.PLAIN * 8) != at.DENSE + 1
            or shape != load(source + at.EPOCH * 8) << 32  # and the first part
            or (tail >> 16) & (_LAST_PART | _SPECIAL) != _LAST_PART
        ):
            break
        place = load(source + at.SEEN * 8)
        seen_at = all_seen + (tail & 0xFFFF) * remembered * 16
        first = row
        while row < end:
            moment = clock if now_ns >= 0 else load(address + 8)
            if (
                (load(address + 16) ^ number)
                | (load(address + 56) ^ tail)
                | (load(address + 48) ^ shape)
                | load(address + 32)
                | (load(address + 40) >> 32 ^ 1)
            ) or moment >= next_due:
                break
            clock = max(clock, moment)
            kept = seen_at + (place & (remembered - 1)) * 16
            store(kept, number)
            store(kept + 8, content_of(address, 0, 0))
            place += 1
            number += 1
            row += 1
            address += ROW_BYTES
        if row == first:
            break
        if session > 0:
            top_id = base | load(address - ROW_BYTES + 24)
            high = max(high, top_id)
            store(source + at.TOP_ID * 8, top_id)
        store(source + at.SEEN * 8, place)
        store(source + at.NEXT_NUMBER * 8, number)
        store(source + at.PASSED * 8, load(source + at.PASSED * 8) + row - first)
    taken = row - begin
    if taken == 0:
        return begin
    if high > get(s, at.HIGHEST_ID):
        put(s, at.HIGHEST_ID, high)
    out = get(s, at.OUT)
    if get(s, at.PREFIX) == out and begin == out:
        put(s, at.PREFIX, out + taken)
    else:
        order = get(s, at.ORDER_AT) + out * (at.ORDER_FACTS * 8)
        for index in range(begin, row):
            if now_ns < 0:
                started = max(started, word(rows, index, 1))
            store(order + at.O_ROW * 8, index)
            store(order + at.O_TIME * 8, started)
            store(order + at.O_NUMBER * 8, at.KEEP)
            store(order + at.O_AFTER_LOSS * 8, 0)
            order += at.ORDER_FACTS * 8
    put(s, at.OUT, out + taken)
    put(s, at.CLOCK, clock)
    add(s, at.DELIVERED_ROWS, taken)
    return row


@called
def _assemble(
    s: int, rows: int, source: int, begin: int, end: int, first: int, last: int, content: int, cause: int, low: int,
    high: int,
) -> None:  # fmt: skip
    """Keep the parts of a message whose last part did not come yet."""
    node = source_fact(s, source, at.ASSEMBLY)
    if node < 0:
        node = new_node(s, source)
        set_source(s, source, at.ASSEMBLY, node)
        set_node(s, node, at.N_SEQUENCE, word(rows, begin, 2))
        set_node(s, node, at.N_EPOCH, (word(rows, begin, 6) >> 32) & _LOW_32)
        set_node(s, node, at.N_FIRST, first)
        set_node(s, node, at.N_LAST, last)
        set_node(s, node, at.N_CAUSE, 0)
        set_node(s, node, at.N_LOW_ID, low)
    store_rows(s, rows, begin, end, node)
    set_node(s, node, at.N_PART, word(rows, end - 1, 6) & _LOW_32)
    set_node(s, node, at.N_CONTENT, content)
    set_node(s, node, at.N_HIGH_ID, high)
    if node_fact(s, node, at.N_CAUSE) == 0:
        set_node(s, node, at.N_CAUSE, cause)


@called
def _take_assembled(s: int, rows: int, node: int, session: int) -> None:
    """Accept a message that came in parts."""
    source = node_fact(s, node, at.N_SOURCE)
    tail = load(stored_row(s, node_fact(s, node, at.N_HEAD)) + 56)
    count(s, source, at.BUFFERED, 1)
    low, high = node_fact(s, node, at.N_LOW_ID), node_fact(s, node, at.N_HIGH_ID)
    # Until it is known where it goes nobody holds it, just as if it had come in one batch.
    set_node(s, node, at.N_LOW_ID, 1)
    set_node(s, node, at.N_HIGH_ID, 0)
    accept(
        s, rows, source, 0, 0, node, node_fact(s, node, at.N_SEQUENCE), node_fact(s, node, at.N_EPOCH),
        node_fact(s, node, at.N_FIRST), node_fact(s, node, at.N_LAST), tail, node_fact(s, node, at.N_CONTENT),
        node_fact(s, node, at.N_CAUSE), low, high, get(s, at.CLOCK), session,
    )  # fmt: skip
    if get(s, at.BLOCKED):
        look_again(s, get(s, at.CLOCK), session)


@njit(cache=True)
def decide(s: int, what: int, only: int, now_ns: int, session: int) -> None:
    """Do what no row asks for: EXPIRE deadlines, GIVE_UP what is missing (of source ``only``, -1: all), FINISH or SKIP.

    FINISH gives everything up because the session ended, SKIP because a replay goes on elsewhere: sources begin anew.
    """
    recycle(s)
    put(s, at.CLOCK, max(get(s, at.CLOCK), now_ns))
    clock = get(s, at.CLOCK)
    if what == at.EXPIRE:
        if clock >= get(s, at.NEXT_DUE):
            expire(s, clock, session)
    elif what == at.GIVE_UP:
        for source in range(get(s, at.SOURCES_COUNT)):
            if only < 0 or source == only:
                lose_all(s, source, at.BY_DECISION, clock, session)
    else:
        reason = at.BY_SKIP if what == at.SKIP else at.BY_END
        for source in range(get(s, at.SOURCES_COUNT)):
            assembly = source_fact(s, source, at.ASSEMBLY)
            if assembly >= 0:
                set_source(s, source, at.ASSEMBLY, -1)
                _take_assembled(s, 0, assembly, session)
            lose_all(s, source, reason, clock, session)
        # No id that was not read yet will come. Causes that did come are still delivered before what they caused.
        highest = get(s, at.HIGHEST_ID)
        put(s, at.HIGHEST_ID, at.FOREVER)
        put(s, at.LOOK_AGAIN, 1)
        look_again(s, clock, session)
        put(s, at.HIGHEST_ID, highest)
        release_all(s, clock)
        if what == at.SKIP:
            for source in range(get(s, at.SOURCES_COUNT)):
                set_source(s, source, at.EPOCH, -1)
                set_source(s, source, at.PLAIN, 0)
    if get(s, at.BLOCKED):
        look_again(s, clock, session)


@njit(cache=True, nogil=True)
def gather(s: int, rows: int, out: int) -> int:
    """Write what the last call delivered to ``out``, with numbers and flags; return its type, 0 for several."""
    prefix, length = get(s, at.PREFIX), get(s, at.OUT)
    event_type = -1
    for place in range(length):
        row = place if place < prefix else ordered(s, place, at.O_ROW)
        target = out + place * ROW_BYTES
        copy_line(target, rows + row * ROW_BYTES if row >= 0 else stored_row(s, ~row))
        tail = load(target + 56)
        if place >= prefix:
            if ordered(s, place, at.O_NUMBER) != at.KEEP:
                store(target + 16, ordered(s, place, at.O_NUMBER))
            if ordered(s, place, at.O_AFTER_LOSS):
                store(target + 56, tail | _AFTER_GAP << 16)
        found = (tail >> 32) & 0xFF
        event_type = found if event_type < 0 or event_type == found else 0
    return max(event_type, 0)


@njit(cache=True)
def forget(s: int, which: int, length: int) -> None:
    """Take ``length`` closed gaps out of the table; ``which`` is the address of their rows' numbers."""
    for place in range(length):
        drop_gap(s, load(which + place * 8))
