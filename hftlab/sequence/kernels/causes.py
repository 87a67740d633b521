"""Messages that may not go before their cause: the queue behind it, cycles, orphans."""

from __future__ import annotations

from hftlab.sequence import layout as at
from hftlab.sequence.kernels.atomics import (
    add,
    aside_id,
    called,
    count,
    get,
    node_fact,
    put,
    set_node,
    set_source,
    source_fact,
)
from hftlab.sequence.kernels.held import deliver, new_node, set_aside, store_rows


@called
def holder(s: int, event_id: int) -> int:
    """The held message that has the row of this id; -1: nobody holds it."""
    for node in range(get(s, at.NODES_USED)):
        if node_fact(s, node, at.N_LOW_ID) <= event_id <= node_fact(s, node, at.N_HIGH_ID):
            return node
    return -1


@called
def judge_cause(s: int, source: int, cause: int, low: int, high: int, session: int) -> int:
    """Whether a message may be delivered in spite of its cause. ``low … high`` are its own ids."""
    if low <= cause <= high:
        return at.CYCLE
    node = holder(s, cause)
    if node >= 0:
        for _ in range(get(s, at.BLOCKED) + 1):
            if not node_fact(s, node, at.N_QUEUED):
                return at.WAIT
            other = node_fact(s, node, at.N_SOURCE)
            waits_for = node_fact(s, source_fact(s, other, at.QUEUE_HEAD), at.N_CAUSE)
            if other == source or low <= waits_for <= high:
                return at.CYCLE
            node = holder(s, waits_for)
            if node < 0:
                return at.WAIT
        return at.WAIT
    if session > 0 and cause >> at.LOG_BITS == session and cause > get(s, at.HIGHEST_ID):
        return at.WAIT
    for place in range(min(get(s, at.ASIDE_SEEN), at.ASIDE_IDS)):
        if aside_id(s, place, 0) <= cause <= aside_id(s, place, 1) and aside_id(s, place, 0) > 0:
            return at.ORPHAN
    return at.GO


@called
def let_go(
    s: int, source: int, begin: int, end: int, node: int, verdict: int, time_ns: int, low: int, high: int
) -> None:
    """Deliver a message that waits for nothing (any more), by the verdict on its cause."""
    if verdict == at.CYCLE:
        add(s, at.CYCLES, 1)
    elif verdict == at.ORPHAN:
        add(s, at.ORPHANS, 1)
        if get(s, at.SET_ORPHANS_ASIDE):
            set_aside(s, source, begin, end, node, low, high, at.IS_ORPHANED)
            return
    deliver(s, source, begin, end, node, time_ns)


@called
def release(
    s: int, rows: int, source: int, begin: int, end: int, node: int, cause: int, low: int, high: int,
    now_ns: int, session: int,
) -> None:  # fmt: skip
    """A message is next of its source: deliver it, unless it, or one before it, waits for its cause."""
    if source_fact(s, source, at.QUEUE_HEAD) < 0:
        verdict = at.GO if cause == 0 else judge_cause(s, source, cause, low, high, session)
        if verdict != at.WAIT:
            let_go(s, source, begin, end, node, verdict, now_ns, low, high)
            return
    if node < 0:
        node = new_node(s, source)
        store_rows(s, rows, begin, end, node)
        count(s, source, at.BUFFERED, 1)
    else:
        # Out of a window, behind others that wait: it may be what one of them waits for.
        put(s, at.LOOK_AGAIN, 1)
    set_node(s, node, at.N_CAUSE, cause)
    set_node(s, node, at.N_LOW_ID, low)
    set_node(s, node, at.N_HIGH_ID, high)
    set_node(s, node, at.N_QUEUED, 1)
    set_node(s, node, at.N_SINCE, now_ns)
    set_node(s, node, at.N_NEXT, -1)
    tail = source_fact(s, source, at.QUEUE_TAIL)
    if source_fact(s, source, at.QUEUE_HEAD) < 0:
        set_source(s, source, at.QUEUE_HEAD, node)
        add(s, at.BLOCKED, 1)
        put(s, at.LOOK_AGAIN, 1)
    else:
        set_node(s, tail, at.N_NEXT, node)
    set_source(s, source, at.QUEUE_TAIL, node)


@called
def unqueue(s: int, source: int) -> None:
    """Take the first message out of a source's queue."""
    node = source_fact(s, source, at.QUEUE_HEAD)
    following = node_fact(s, node, at.N_NEXT)
    set_source(s, source, at.QUEUE_HEAD, following)
    set_node(s, node, at.N_QUEUED, 0)
    if following < 0:
        set_source(s, source, at.QUEUE_TAIL, -1)
        add(s, at.BLOCKED, -1)


@called
def look_again(s: int, now_ns: int, session: int) -> None:
    """Deliver whatever waits for its cause no longer, source by source, until nothing changes."""
    if not (
        get(s, at.LOOK_AGAIN) or get(s, at.HIGHEST_ID) >= get(s, at.NEXT_CAUSE) or now_ns >= get(s, at.NEXT_CAUSE_DUE)
    ):
        return
    patience_ns = get(s, at.DEADLINE_NS)
    changed = True
    while changed:
        changed = False
        put(s, at.LOOK_AGAIN, 0)
        put(s, at.NEXT_CAUSE, at.FOREVER)
        put(s, at.NEXT_CAUSE_DUE, at.FOREVER)
        for source in range(get(s, at.SOURCES_COUNT)):
            while source_fact(s, source, at.QUEUE_HEAD) >= 0:
                node = source_fact(s, source, at.QUEUE_HEAD)
                cause, low, high = (
                    node_fact(s, node, at.N_CAUSE),
                    node_fact(s, node, at.N_LOW_ID),
                    node_fact(s, node, at.N_HIGH_ID),
                )
                verdict = at.GO if cause == 0 else judge_cause(s, source, cause, low, high, session)
                if verdict == at.WAIT and holder(s, cause) < 0:
                    due = node_fact(s, node, at.N_SINCE) + patience_ns
                    if now_ns >= due:
                        verdict = at.GO
                    else:
                        put(s, at.NEXT_CAUSE, min(get(s, at.NEXT_CAUSE), cause))
                        put(s, at.NEXT_CAUSE_DUE, min(get(s, at.NEXT_CAUSE_DUE), due))
                        put(s, at.NEXT_DUE, min(get(s, at.NEXT_DUE), due))
                if verdict == at.WAIT:
                    break
                unqueue(s, source)
                let_go(s, source, 0, 0, node, verdict, now_ns, low, high)
                changed = True


@called
def release_all(s: int, time_ns: int) -> None:
    """Deliver all that waits for a cause: none will come any more."""
    for source in range(get(s, at.SOURCES_COUNT)):
        while source_fact(s, source, at.QUEUE_HEAD) >= 0:
            node = source_fact(s, source, at.QUEUE_HEAD)
            unqueue(s, source)
            let_go(s, source, 0, 0, node, at.GO, time_ns, 0, 0)
