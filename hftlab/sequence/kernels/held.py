"""Held messages and their rows, and the three ways out: delivered, set aside, dropped as a duplicate."""

from __future__ import annotations

from hftlab.events.records import ROW_BYTES
from hftlab.ring.atomics import copy_line
from hftlab.sequence import layout as at
from hftlab.sequence.kernels.atomics import (
    add,
    called,
    count,
    get,
    link,
    node_fact,
    put,
    set_aside_id,
    set_link,
    set_node,
    set_ordered,
    set_row_aside,
    set_source,
    source_fact,
    stored_row,
)


@called
def recycle(s: int) -> None:
    """Begin a call: what the last one delivered from the store has been read, and its places are free."""
    slot = get(s, at.RETIRED_ROW)
    while slot >= 0:
        following = link(s, slot)
        set_link(s, slot, get(s, at.FREE_ROW))
        put(s, at.FREE_ROW, slot)
        add(s, at.FREE_ROWS, 1)
        slot = following
    put(s, at.RETIRED_ROW, -1)
    put(s, at.OUT, 0)
    put(s, at.PREFIX, 0)
    put(s, at.NOTICES, 0)
    put(s, at.ASIDE, 0)


@called
def new_node(s: int, source: int) -> int:
    """A fresh node without rows."""
    node = get(s, at.FREE_NODE)
    if node >= 0:
        put(s, at.FREE_NODE, node_fact(s, node, at.N_NEXT))
        add(s, at.FREE_NODES, -1)
    else:
        node = get(s, at.NODES_USED)
        put(s, at.NODES_USED, node + 1)
    set_node(s, node, at.N_HEAD, -1)
    set_node(s, node, at.N_SOURCE, source)
    set_node(s, node, at.N_CONTENT, 0)
    set_node(s, node, at.N_QUEUED, 0)
    return node


@called
def free_node(s: int, node: int) -> None:
    """Give a node back; whoever waits for its message may go on."""
    set_node(s, node, at.N_LOW_ID, -1)
    set_node(s, node, at.N_HIGH_ID, -1)
    set_node(s, node, at.N_QUEUED, 0)
    set_node(s, node, at.N_NEXT, get(s, at.FREE_NODE))
    put(s, at.FREE_NODE, node)
    add(s, at.FREE_NODES, 1)
    put(s, at.LOOK_AGAIN, 1)


@called
def store_rows(s: int, rows: int, begin: int, end: int, node: int) -> None:
    """Copy input rows to the end of a node's list."""
    for row in range(begin, end):
        slot = get(s, at.FREE_ROW)
        if slot >= 0:
            put(s, at.FREE_ROW, link(s, slot))
            add(s, at.FREE_ROWS, -1)
        else:
            slot = get(s, at.ROWS_USED)
            put(s, at.ROWS_USED, slot + 1)
        copy_line(stored_row(s, slot), rows + row * ROW_BYTES)
        set_link(s, slot, -1)
        if node_fact(s, node, at.N_HEAD) < 0:
            set_node(s, node, at.N_HEAD, slot)
        else:
            set_link(s, node_fact(s, node, at.N_TAIL), slot)
        set_node(s, node, at.N_TAIL, slot)
    add(s, at.HELD_ROWS, end - begin)


@called
def retire(s: int, slot: int) -> int:
    """Take a row out of the store when this call's output has been read; return the one behind it in its list."""
    following = link(s, slot)
    set_link(s, slot, get(s, at.RETIRED_ROW))
    put(s, at.RETIRED_ROW, slot)
    add(s, at.HELD_ROWS, -1)
    return following


@called
def put_row(s: int, source: int, row: int, time_ns: int, number: int) -> None:
    """Deliver one row: an input row, or ``~slot``."""
    out = get(s, at.OUT)
    after_loss = source_fact(s, source, at.AFTER_LOSS)
    if row == out and get(s, at.PREFIX) == out and number == at.KEEP and after_loss == 0:
        put(s, at.PREFIX, out + 1)
    else:
        set_ordered(s, out, at.O_ROW, row)
        set_ordered(s, out, at.O_TIME, time_ns)
        set_ordered(s, out, at.O_NUMBER, number)
        set_ordered(s, out, at.O_AFTER_LOSS, after_loss)
        set_source(s, source, at.AFTER_LOSS, 0)
    put(s, at.OUT, out + 1)
    add(s, at.DELIVERED_ROWS, 1)


@called
def deliver(s: int, source: int, begin: int, end: int, node: int, time_ns: int) -> None:
    """Deliver a message: input rows, or those of a node, which is free then."""
    number = at.KEEP
    if source_fact(s, source, at.RULE) == at.UNNUMBERED:
        number = source_fact(s, source, at.GIVEN)
        set_source(s, source, at.GIVEN, number + 1)
    count(s, source, at.DELIVERED, 1)
    if node < 0:
        for row in range(begin, end):
            put_row(s, source, row, time_ns, number)
        return
    slot = node_fact(s, node, at.N_HEAD)
    while slot >= 0:
        put_row(s, source, ~slot, time_ns, number)
        slot = retire(s, slot)
    count(s, source, at.BUFFERED, -1)
    free_node(s, node)


@called
def set_aside(s: int, source: int, begin: int, end: int, node: int, low: int, high: int, reason: int) -> None:
    """Give a message up for good; a node is free then."""
    if reason == at.IS_LATE:
        counted, counted_rows = at.LATE, at.LATE_ROWS
    elif reason == at.IS_CONFLICT:
        counted, counted_rows = at.CONFLICTING, at.CONFLICT_ROWS
    else:
        counted, counted_rows = at.ORPHANED, at.ORPHANED_ROWS
    count(s, source, counted, 1)
    place = get(s, at.ASIDE_SEEN) % at.ASIDE_IDS
    set_aside_id(s, place, 0, low)
    set_aside_id(s, place, 1, high)
    add(s, at.ASIDE_SEEN, 1)
    aside = get(s, at.ASIDE)
    if node < 0:
        for row in range(begin, end):
            set_row_aside(s, aside, at.A_ROW, row)
            set_row_aside(s, aside, at.A_REASON, reason)
            aside += 1
    else:
        slot = node_fact(s, node, at.N_HEAD)
        while slot >= 0:
            set_row_aside(s, aside, at.A_ROW, ~slot)
            set_row_aside(s, aside, at.A_REASON, reason)
            aside += 1
            slot = retire(s, slot)
        count(s, source, at.BUFFERED, -1)
        free_node(s, node)
    add(s, counted_rows, aside - get(s, at.ASIDE))
    put(s, at.ASIDE, aside)


@called
def drop_duplicate(s: int, source: int, begin: int, end: int, node: int) -> None:
    """Forget a message that came before; a node is free then."""
    count(s, source, at.DUPLICATE, 1)
    add(s, at.DUPLICATE_ROWS, end - begin)
    if node >= 0:
        slot = node_fact(s, node, at.N_HEAD)
        while slot >= 0:
            slot = retire(s, slot)
            add(s, at.DUPLICATE_ROWS, 1)
        count(s, source, at.BUFFERED, -1)
        free_node(s, node)
