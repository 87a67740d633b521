"""A gap's life in the table: opened, filled in part or whole, split, and what is known of it later."""

from __future__ import annotations

from hftlab.sequence import layout as at
from hftlab.sequence.kernels.atomics import (
    add,
    called,
    count,
    gap_fact,
    get,
    put,
    set_deadline,
    set_gap,
    set_notice,
    set_source,
    source_fact,
)


@called
def note(s: int, gap: int, first: int, last: int, state: int) -> None:
    """Tell, in line with the deliveries, what happened to ``first … last``."""
    place = get(s, at.NOTICES)
    set_notice(s, place, at.X_POSITION, get(s, at.OUT))
    for fact in range(at.G_AFTER + 1):
        set_notice(s, place, at.X_GAP + fact, gap_fact(s, gap, fact))
    set_notice(s, place, at.X_GAP + at.G_FIRST, first)
    set_notice(s, place, at.X_GAP + at.G_LAST, last)
    set_notice(s, place, at.X_GAP + at.G_STATE, state)
    put(s, at.NOTICES, place + 1)


@called
def new_gap(s: int, like: int, behind: int, first: int, last: int, source: int) -> int:
    """A row for ``first … last`` behind the row ``behind`` of its source's chain; other facts as in ``like``."""
    gap = get(s, at.FREE_GAP)
    if gap >= 0:
        put(s, at.FREE_GAP, gap_fact(s, gap, at.G_NEXT))
        add(s, at.FREE_GAPS, -1)
    else:
        gap = get(s, at.GAPS_USED)
        put(s, at.GAPS_USED, gap + 1)
    if like >= 0:
        for fact in range(at.G_AFTER + 1):
            set_gap(s, gap, fact, gap_fact(s, like, fact))
    set_gap(s, gap, at.G_FIRST, first)
    set_gap(s, gap, at.G_LAST, last)
    following = -1 if behind < 0 else gap_fact(s, behind, at.G_NEXT)
    set_gap(s, gap, at.G_PREV, behind)
    set_gap(s, gap, at.G_NEXT, following)
    if behind >= 0:
        set_gap(s, behind, at.G_NEXT, gap)
    if following >= 0:
        set_gap(s, following, at.G_PREV, gap)
    else:
        set_source(s, source, at.LAST_GAP, gap)
    return gap


@called
def drop_gap(s: int, gap: int) -> None:
    """Take a row out of its source's chain; it is free then."""
    before, behind = gap_fact(s, gap, at.G_PREV), gap_fact(s, gap, at.G_NEXT)
    if before >= 0:
        set_gap(s, before, at.G_NEXT, behind)
    if behind >= 0:
        set_gap(s, behind, at.G_PREV, before)
    else:
        set_source(s, gap_fact(s, gap, at.G_SOURCE), at.LAST_GAP, before)
    set_gap(s, gap, at.G_SERIAL, -1)
    set_gap(s, gap, at.G_NEXT, get(s, at.FREE_GAP))
    put(s, at.FREE_GAP, gap)
    add(s, at.FREE_GAPS, 1)


@called
def open_gap(s: int, source: int, first: int, last: int, now_ns: int, revealed_by: int) -> None:
    """``first … last`` are missing: they lie behind all that is known of the source."""
    gap = new_gap(s, -1, source_fact(s, source, at.LAST_GAP), first, last, source)
    serial = get(s, at.SERIAL)
    put(s, at.SERIAL, serial + 1)
    set_gap(s, gap, at.G_SERIAL, serial)
    set_gap(s, gap, at.G_SOURCE, source)
    set_gap(s, gap, at.G_EPOCH, source_fact(s, source, at.EPOCH))
    set_gap(s, gap, at.G_STATE, at.IS_OPEN)
    set_gap(s, gap, at.G_REASON, 0)
    set_gap(s, gap, at.G_OPENED, now_ns)
    set_gap(s, gap, at.G_CLOSED, 0)
    set_gap(s, gap, at.G_BEFORE, source_fact(s, source, at.TOP_ID))
    set_gap(s, gap, at.G_AFTER, revealed_by)
    if source_fact(s, source, at.OPEN_GAP) < 0:
        set_source(s, source, at.OPEN_GAP, gap)
    note(s, gap, first, last, at.IS_OPEN)
    if source_fact(s, source, at.STRICT):
        return
    due = now_ns + get(s, at.DEADLINE_NS)
    place = (get(s, at.DEADLINE_FIRST) + get(s, at.DEADLINE_COUNT)) & get(s, at.DEADLINES_MASK)
    set_deadline(s, place, at.D_SOURCE, source)
    set_deadline(s, place, at.D_SERIAL, serial)
    set_deadline(s, place, at.D_DUE, due)
    add(s, at.DEADLINE_COUNT, 1)
    put(s, at.NEXT_DUE, min(get(s, at.NEXT_DUE), due))


@called
def is_filled(s: int, gap: int, serial: int) -> bool:
    """Whether a row is a filled piece of that gap."""
    return gap >= 0 and gap_fact(s, gap, at.G_STATE) == at.IS_FILLED and gap_fact(s, gap, at.G_SERIAL) == serial


@called
def fill(s: int, source: int, gap: int, first: int, last: int, now_ns: int) -> None:
    """The numbers ``first … last`` of an open gap have come: it ends, shrinks or splits."""
    begin, end = gap_fact(s, gap, at.G_FIRST), gap_fact(s, gap, at.G_LAST)
    filled = gap
    if first == begin and last == end:
        if source_fact(s, source, at.OPEN_GAP) == gap:
            find_next_open(s, source)
    elif first == begin:
        # The open rest takes a row of its own behind, so that the chain stays in order.
        rest = new_gap(s, gap, gap, last + 1, end, source)
        set_gap(s, gap, at.G_LAST, last)
        if source_fact(s, source, at.OPEN_GAP) == gap:
            set_source(s, source, at.OPEN_GAP, rest)
    else:
        set_gap(s, gap, at.G_LAST, first - 1)
        filled = new_gap(s, gap, gap, first, last, source)
        if last < end:
            new_gap(s, gap, filled, last + 1, end, source)
    set_gap(s, filled, at.G_STATE, at.IS_FILLED)
    set_gap(s, filled, at.G_CLOSED, now_ns)
    count(s, source, at.FILLED_NUMBERS, last - first + 1)
    note(s, filled, first, last, at.IS_FILLED)
    serial = gap_fact(s, filled, at.G_SERIAL)
    before, behind = gap_fact(s, filled, at.G_PREV), gap_fact(s, filled, at.G_NEXT)
    if is_filled(s, before, serial) and gap_fact(s, before, at.G_LAST) + 1 == gap_fact(s, filled, at.G_FIRST):
        set_gap(s, filled, at.G_FIRST, gap_fact(s, before, at.G_FIRST))
        drop_gap(s, before)
    if is_filled(s, behind, serial) and gap_fact(s, filled, at.G_LAST) + 1 == gap_fact(s, behind, at.G_FIRST):
        set_gap(s, filled, at.G_LAST, gap_fact(s, behind, at.G_LAST))
        drop_gap(s, behind)


@called
def find_next_open(s: int, source: int) -> None:
    """The first open gap of a source is open no longer: find the next one."""
    gap = gap_fact(s, source_fact(s, source, at.OPEN_GAP), at.G_NEXT)
    while gap >= 0 and gap_fact(s, gap, at.G_STATE) != at.IS_OPEN:
        gap = gap_fact(s, gap, at.G_NEXT)
    set_source(s, source, at.OPEN_GAP, gap)


@called
def touches_lost(s: int, source: int, first: int, last: int) -> bool:
    """Whether any of these numbers was declared lost in this epoch."""
    gap = source_fact(s, source, at.LAST_GAP)
    epoch = source_fact(s, source, at.EPOCH)
    while gap >= 0 and gap_fact(s, gap, at.G_EPOCH) == epoch and gap_fact(s, gap, at.G_LAST) >= first:
        if gap_fact(s, gap, at.G_STATE) == at.IS_LOST and gap_fact(s, gap, at.G_FIRST) <= last:
            return True
        gap = gap_fact(s, gap, at.G_PREV)
    return False
