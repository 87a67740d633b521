"""What a message is (duplicate, conflict, late, early, next, of a new epoch), and what follows from it."""

from __future__ import annotations

from hftlab.events.records import Flags
from hftlab.sequence import layout as at
from hftlab.sequence.kernels.atomics import (
    add,
    called,
    count,
    deadline_fact,
    gap_fact,
    get,
    node_fact,
    put,
    remember_at,
    seen,
    set_gap,
    set_node,
    set_source,
    source_fact,
)
from hftlab.sequence.kernels.causes import look_again, release
from hftlab.sequence.kernels.gaps import fill, find_next_open, note, open_gap, touches_lost
from hftlab.sequence.kernels.held import drop_duplicate, new_node, set_aside, store_rows

_END = int(Flags.END_OF_SESSION)


@called
def follow(s: int, source: int, now_ns: int, session: int) -> None:
    """Deliver the held messages whose turn has come."""
    while True:
        node = source_fact(s, source, at.WINDOW_HEAD)
        if node < 0 or node_fact(s, node, at.N_FIRST) > source_fact(s, source, at.NEXT_NUMBER):
            return
        following = node_fact(s, node, at.N_NEXT)
        set_source(s, source, at.WINDOW_HEAD, following)
        if following < 0:
            set_source(s, source, at.WINDOW_TAIL, -1)
        else:
            set_node(s, following, at.N_PREV, -1)
        set_source(s, source, at.WINDOW_COUNT, source_fact(s, source, at.WINDOW_COUNT) - 1)
        add(s, at.STRICT_HELD, -source_fact(s, source, at.STRICT))
        cause = node_fact(s, node, at.N_CAUSE)
        low, high = node_fact(s, node, at.N_LOW_ID), node_fact(s, node, at.N_HIGH_ID)
        if node_fact(s, node, at.N_LAST) < source_fact(s, source, at.NEXT_NUMBER):
            set_aside(s, source, 0, 0, node, low, high, at.IS_CONFLICT)
            continue
        set_source(s, source, at.NEXT_NUMBER, node_fact(s, node, at.N_LAST) + 1)
        release(s, 0, source, 0, 0, node, cause, low, high, now_ns, session)


@called
def lose(s: int, source: int, reason: int, now_ns: int, session: int) -> None:
    """Declare a source's first open gap lost, and deliver what it held back."""
    gap = source_fact(s, source, at.OPEN_GAP)
    first, last = gap_fact(s, gap, at.G_FIRST), gap_fact(s, gap, at.G_LAST)
    set_gap(s, gap, at.G_STATE, at.IS_LOST)
    set_gap(s, gap, at.G_REASON, reason)
    set_gap(s, gap, at.G_CLOSED, now_ns)
    count(s, source, at.LOST_NUMBERS, last - first + 1)
    set_source(s, source, at.NEXT_NUMBER, last + 1)
    set_source(s, source, at.AFTER_LOSS, 1)
    find_next_open(s, source)
    note(s, gap, first, last, at.IS_LOST)
    follow(s, source, now_ns, session)


@called
def lose_all(s: int, source: int, reason: int, now_ns: int, session: int) -> None:
    """Declare all open gaps of a source lost."""
    while source_fact(s, source, at.OPEN_GAP) >= 0:
        lose(s, source, reason, now_ns, session)


@called
def expire(s: int, now_ns: int, session: int) -> None:
    """Declare lost what is past its deadline, and end waits for causes that never came, each at its own moment."""
    while True:
        gap_due = first_deadline(s)
        cause_due = get(s, at.NEXT_CAUSE_DUE)
        due = min(gap_due, cause_due)
        if due > now_ns or due == at.FOREVER:
            put(s, at.NEXT_DUE, due)
            return
        put(s, at.CLOCK, max(get(s, at.CLOCK), due))
        if gap_due == due:
            place = get(s, at.DEADLINE_FIRST)
            source, serial = deadline_fact(s, place, at.D_SOURCE), deadline_fact(s, place, at.D_SERIAL)
            gap = source_fact(s, source, at.OPEN_GAP)
            while gap >= 0 and gap_fact(s, gap, at.G_SERIAL) == serial:
                lose(s, source, at.BY_DEADLINE, due, session)
                gap = source_fact(s, source, at.OPEN_GAP)
        if get(s, at.BLOCKED):
            look_again(s, due, session)
        elif cause_due == due:
            put(s, at.NEXT_CAUSE_DUE, at.FOREVER)


@called
def first_deadline(s: int) -> int:
    """The earliest deadline of an open gap; those of gaps that are closed by now are passed over."""
    while get(s, at.DEADLINE_COUNT):
        place = get(s, at.DEADLINE_FIRST)
        gap = source_fact(s, deadline_fact(s, place, at.D_SOURCE), at.OPEN_GAP)
        # A source's gaps open in the order of their numbers: its first open one is of this serial, or a later one.
        if gap >= 0 and gap_fact(s, gap, at.G_SERIAL) == deadline_fact(s, place, at.D_SERIAL):
            return deadline_fact(s, place, at.D_DUE)
        put(s, at.DEADLINE_FIRST, (place + 1) & get(s, at.DEADLINES_MASK))
        add(s, at.DEADLINE_COUNT, -1)
    return at.FOREVER


@called
def remember(s: int, source: int, sequence: int, content: int) -> None:
    """Keep the content of a message, in the place of the oldest one kept."""
    count_seen = source_fact(s, source, at.SEEN)
    remember_at(s, source, count_seen & (get(s, at.REMEMBERED) - 1), sequence, content)
    set_source(s, source, at.SEEN, count_seen + 1)


@called
def recall(s: int, source: int, sequence: int, content: int) -> int:
    """1: that number came with this content; -1: with another; 0: it did not come, or too long ago to tell."""
    count_seen, size = source_fact(s, source, at.SEEN), get(s, at.REMEMBERED)
    for back in range(1, min(count_seen, size) + 1):
        place = (count_seen - back) & (size - 1)
        if seen(s, source, place, 0) == sequence:
            return 1 if seen(s, source, place, 1) == content else -1
    return 0


@called
def begin_epoch(s: int, source: int, epoch: int, first: int, event_type: int) -> None:
    """Whatever comes first is the first number of an epoch."""
    if source_fact(s, source, at.EPOCH) < 0:
        strict = (get(s, at.STRICT_TYPES) >> event_type) & 1
        add(s, at.STRICT_SOURCES, strict - source_fact(s, source, at.STRICT))
        set_source(s, source, at.STRICT, strict)
    set_source(s, source, at.EPOCH, epoch)
    set_source(s, source, at.FIRST_NUMBER, first)
    set_source(s, source, at.NEXT_NUMBER, first)
    set_source(s, source, at.TOP, first - 1)
    set_source(s, source, at.ACCEPTED_TOP, -1)
    set_source(s, source, at.TOP_ID, 0)
    set_source(s, source, at.ENDED_AT, -1)
    set_source(s, source, at.SEEN, 0)


@called
def accepted(s: int, source: int, sequence: int, last: int, content: int, flags: int, high: int) -> None:
    """Take note of a message that is delivered, or held."""
    set_source(s, source, at.TOP, max(source_fact(s, source, at.TOP), last))
    # Not TOP, which a heartbeat raises. Numbers that came in order, past this function, are below all that come now.
    if last > source_fact(s, source, at.ACCEPTED_TOP):
        set_source(s, source, at.ACCEPTED_TOP, last)
        set_source(s, source, at.TOP_ID, high)
    if flags & _END:
        set_source(s, source, at.ENDED_AT, last)
    remember(s, source, sequence, content)


@called
def hold(
    s: int, rows: int, source: int, begin: int, end: int, node: int, first: int, last: int, content: int,
    cause: int, low: int, high: int, now_ns: int, before: int,
) -> None:  # fmt: skip
    """Keep an early message in the window, behind the held message ``before``; open or split a gap."""
    top = source_fact(s, source, at.TOP)
    if first > top:
        if first > top + 1:
            open_gap(s, source, top + 1, first - 1, now_ns, low)
    else:
        # It may lie in two gaps: one that a heartbeat revealed, and the next, have nothing held between them.
        while True:
            gap = source_fact(s, source, at.OPEN_GAP)
            while gap >= 0 and (gap_fact(s, gap, at.G_STATE) != at.IS_OPEN or gap_fact(s, gap, at.G_LAST) < first):
                gap = gap_fact(s, gap, at.G_NEXT)
            if gap < 0 or gap_fact(s, gap, at.G_FIRST) > last:
                break
            begins = max(first, gap_fact(s, gap, at.G_FIRST))
            fill(s, source, gap, begins, min(last, gap_fact(s, gap, at.G_LAST)), now_ns)
    if node < 0:
        node = new_node(s, source)
        store_rows(s, rows, begin, end, node)
        count(s, source, at.BUFFERED, 1)
    set_node(s, node, at.N_FIRST, first)
    set_node(s, node, at.N_LAST, last)
    set_node(s, node, at.N_CONTENT, content)
    set_node(s, node, at.N_CAUSE, cause)
    set_node(s, node, at.N_LOW_ID, low)
    set_node(s, node, at.N_HIGH_ID, high)
    behind = source_fact(s, source, at.WINDOW_HEAD) if before < 0 else node_fact(s, before, at.N_NEXT)
    set_node(s, node, at.N_PREV, before)
    set_node(s, node, at.N_NEXT, behind)
    if before < 0:
        set_source(s, source, at.WINDOW_HEAD, node)
    else:
        set_node(s, before, at.N_NEXT, node)
    if behind < 0:
        set_source(s, source, at.WINDOW_TAIL, node)
    else:
        set_node(s, behind, at.N_PREV, node)
    set_source(s, source, at.WINDOW_COUNT, source_fact(s, source, at.WINDOW_COUNT) + 1)
    add(s, at.STRICT_HELD, source_fact(s, source, at.STRICT))


@called
def find_before(s: int, source: int, last: int) -> int:
    """The last held message that begins at ``last`` or before; -1: there is none."""
    before = source_fact(s, source, at.WINDOW_TAIL)
    while before >= 0 and node_fact(s, before, at.N_FIRST) > last:
        before = node_fact(s, before, at.N_PREV)
    return before


@called
def classify(
    s: int, source: int, sequence: int, epoch: int, first: int, last: int, flags: int, content: int, before: int
) -> int:  # fmt: skip
    """What a numbered message is, as things stand; changes nothing. ``before`` is what ``find_before`` found."""
    if epoch < source_fact(s, source, at.EPOCH):
        return at.STALE
    if 0 <= source_fact(s, source, at.ENDED_AT) < last:
        return at.CONFLICTS
    rule = source_fact(s, source, at.RULE)
    if rule == at.DENSE and first > last:
        return at.TELLS
    if last < source_fact(s, source, at.NEXT_NUMBER):
        known = recall(s, source, sequence, content)
        if known != 0:
            return at.REPEATS if known > 0 else at.CONFLICTS
        was_missed = rule == at.RISING or first < source_fact(s, source, at.FIRST_NUMBER)
        if was_missed or touches_lost(s, source, first, last):
            return at.COMES_LATE
        return at.REPEATS
    if rule == at.RISING or first <= source_fact(s, source, at.NEXT_NUMBER):
        return at.IS_NEXT
    if before >= 0 and node_fact(s, before, at.N_LAST) >= first:
        same = node_fact(s, before, at.N_FIRST) == first and node_fact(s, before, at.N_LAST) == last
        return at.REPEATS if same and node_fact(s, before, at.N_CONTENT) == content else at.CONFLICTS
    return at.IS_EARLY if source_fact(s, source, at.WINDOW_COUNT) < get(s, at.WINDOW) else at.HAS_NO_ROOM


@called
def is_pressed_back(
    s: int, source: int, sequence: int, epoch: int, first: int, last: int, flags: int, content: int
) -> bool:  # fmt: skip
    """Whether a message would find a strict window full; changes nothing."""
    if not source_fact(s, source, at.STRICT) or sequence < 0 or epoch != source_fact(s, source, at.EPOCH):
        return False
    before = find_before(s, source, last)
    return classify(s, source, sequence, epoch, first, last, flags, content, before) == at.HAS_NO_ROOM


@called
def accept(
    s: int, rows: int, source: int, begin: int, end: int, node: int, sequence: int, epoch: int, first: int, last: int,
    tail: int, content: int, cause: int, low: int, high: int, now_ns: int, session: int,
) -> bool:  # fmt: skip
    """Find out what a message is, and do what follows from it. False: a full strict window does not take it now.

    The message is input rows ``begin … end - 1``, or a node's. ``first … last`` are the numbers that it covers.
    """
    flags = (tail >> 16) & 0xFFFF
    if source_fact(s, source, at.PLAIN):
        set_source(s, source, at.TOP, source_fact(s, source, at.NEXT_NUMBER) - 1)
    word, before = at.HAS_NO_NUMBER, -1
    if sequence >= 0 and source_fact(s, source, at.RULE) <= at.RISING:
        if epoch > source_fact(s, source, at.EPOCH):
            lose_all(s, source, at.BY_RESET, now_ns, session)
            begin_epoch(s, source, epoch, first, (tail >> 32) & 0xFF)
        word = at.HAS_NO_ROOM
        while word == at.HAS_NO_ROOM:
            before = find_before(s, source, last)
            word = classify(s, source, sequence, epoch, first, last, flags, content, before)
            if word == at.HAS_NO_ROOM:
                if not source_fact(s, source, at.STRICT):
                    lose(s, source, at.BY_WINDOW, now_ns, session)
                elif node < 0:
                    return False
                else:
                    # Its parts are taken already: it is the one message beyond the window.
                    word = at.IS_EARLY
    count(s, source, at.RECEIVED, 1)
    if word == at.REPEATS:
        drop_duplicate(s, source, begin, end, node)
    elif word == at.CONFLICTS or word == at.COMES_LATE or word == at.STALE:
        if word == at.COMES_LATE:
            remember(s, source, sequence, content)
        reason = at.IS_CONFLICT if word == at.CONFLICTS else at.IS_LATE
        set_aside(s, source, begin, end, node, low, high, reason)
    elif word == at.IS_EARLY:
        hold(s, rows, source, begin, end, node, first, last, content, cause, low, high, now_ns, before)
        accepted(s, source, sequence, last, content, flags, high)
    else:
        if word == at.IS_NEXT:
            fill_up_to(s, source, last, now_ns)
            accepted(s, source, sequence, last, content, flags, high)
        elif word == at.TELLS:
            tell(s, source, last, flags, now_ns, low)
        release(s, rows, source, begin, end, node, cause, low, high, now_ns, session)
        if word == at.IS_NEXT:
            follow(s, source, now_ns, session)
    note_plain(s, source)
    return True


@called
def fill_up_to(s: int, source: int, last: int, now_ns: int) -> None:
    """The next message has come: it goes up to ``last``."""
    gap = source_fact(s, source, at.OPEN_GAP)
    while gap >= 0 and gap_fact(s, gap, at.G_FIRST) <= last:
        fill(s, source, gap, gap_fact(s, gap, at.G_FIRST), min(last, gap_fact(s, gap, at.G_LAST)), now_ns)
        gap = source_fact(s, source, at.OPEN_GAP)
    set_source(s, source, at.NEXT_NUMBER, last + 1)


@called
def tell(s: int, source: int, last: int, flags: int, now_ns: int, revealed_by: int) -> None:
    """A heartbeat that covers no number says that there are numbers up to ``last``."""
    top = source_fact(s, source, at.TOP)
    if last > top:
        open_gap(s, source, top + 1, last, now_ns, revealed_by)
        set_source(s, source, at.TOP, last)
    if flags & _END:
        set_source(s, source, at.ENDED_AT, last)


@called
def note_plain(s: int, source: int) -> None:
    """Whether the next number is all there is to look at, from now on."""
    plain = (
        source_fact(s, source, at.EPOCH) >= 0
        and source_fact(s, source, at.WINDOW_HEAD) < 0
        and source_fact(s, source, at.OPEN_GAP) < 0
        and source_fact(s, source, at.QUEUE_HEAD) < 0
        and source_fact(s, source, at.AFTER_LOSS) == 0
        and source_fact(s, source, at.ENDED_AT) < 0
    )
    set_source(s, source, at.PLAIN, source_fact(s, source, at.RULE) + 1 if plain else 0)
