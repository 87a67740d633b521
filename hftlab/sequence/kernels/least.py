"""Held messages by key, and by when they came.

The message with the least key has to be found among thousands, while each also has a moment at which it must leave,
whatever its key. A heap by key with a queue of moments beside it wants deletion from the middle of one of them. Not
here: a message leaves only behind all that is less, so it is the least when it does, and the queue is a doubly linked
list.
Nor does the heap hold them all. A source's messages come mostly in order, so those whose key is its greatest so far are
chained behind each other, a *run*, and only the first of a run is in the heap; when it leaves, the next one takes its
place. Merging k sources thus costs O(log k) a message, however many are held, and a source in order O(1). Any other
message is in the heap by itself: O(log n). It is a pairing heap (Fredman, Sedgewick, Sleator, Tarjan: The pairing heap,
Algorithmica 1, 1986), whose costs are amortised ones.
"""

from __future__ import annotations

from hftlab.sequence.kernels import slots as at
from hftlab.sequence.kernels.atomics import called, get, put
from hftlab.sequence.kernels.slots import group_fact, set_group, set_slot, set_source, slot_fact, source_fact


@called
def before(s: int, one: int, other: int) -> bool:
    """Whether one held message leaves before another of its group: by key, then by arrival."""
    if slot_fact(s, one, at.MAJOR) != slot_fact(s, other, at.MAJOR):
        return bool(slot_fact(s, one, at.MAJOR) < slot_fact(s, other, at.MAJOR))
    if slot_fact(s, one, at.MINOR) != slot_fact(s, other, at.MINOR):
        return bool(slot_fact(s, one, at.MINOR) < slot_fact(s, other, at.MINOR))
    return bool(slot_fact(s, one, at.ARRIVAL) < slot_fact(s, other, at.ARRIVAL))


@called
def insert(s: int, group: int, message: int) -> None:
    """Put a message behind the run of its source, or into its group's heap."""
    set_slot(s, message, at.CHILD, -1)
    set_slot(s, message, at.SIBLING, -1)
    set_slot(s, message, at.NEXT_IN_RUN, -1)
    source = slot_fact(s, message, at.SOURCE)
    tail = source_fact(s, source, at.RUN_TAIL)
    if tail >= 0 and before(s, tail, message):
        set_slot(s, tail, at.NEXT_IN_RUN, message)
    else:
        set_group(s, group, at.HEAP, meld(s, group_fact(s, group, at.HEAP), message))
        if tail >= 0:
            return
    set_source(s, source, at.RUN_TAIL, message)


@called
def pop(s: int, group: int) -> int:
    """Take the least message out of a group's heap; the next of its run comes in."""
    root = group_fact(s, group, at.HEAP)
    heap, following = meld_all(s, slot_fact(s, root, at.CHILD)), slot_fact(s, root, at.NEXT_IN_RUN)
    if following >= 0:
        heap = meld(s, heap, following)
    elif source_fact(s, slot_fact(s, root, at.SOURCE), at.RUN_TAIL) == root:
        set_source(s, slot_fact(s, root, at.SOURCE), at.RUN_TAIL, -1)
    set_group(s, group, at.HEAP, heap)
    return root


@called
def meld(s: int, one: int, other: int) -> int:
    """Make one heap of two."""
    if one < 0:
        return other
    if before(s, other, one):
        one, other = other, one
    set_slot(s, other, at.SIBLING, slot_fact(s, one, at.CHILD))
    set_slot(s, one, at.CHILD, other)
    return one


@called
def meld_all(s: int, first: int) -> int:
    """Make one heap of a list of them: in pairs from the left, then one by one from the right."""
    pairs = -1
    while first >= 0:
        one, other = first, slot_fact(s, first, at.SIBLING)
        if other >= 0:
            first = slot_fact(s, other, at.SIBLING)
            one = meld(s, one, other)
        else:
            first = -1
        set_slot(s, one, at.SIBLING, pairs)
        pairs = one
    root = -1
    while pairs >= 0:
        following = slot_fact(s, pairs, at.SIBLING)
        set_slot(s, pairs, at.SIBLING, -1)
        root = meld(s, root, pairs)
        pairs = following
    return root


@called
def append(s: int, first: int, message: int) -> None:
    """Put a message at the end of the list that begins at ``first`` (at.FIRST_HELD or at.FIRST_OPEN)."""
    last = get(s, first + 1)
    set_slot(s, message, at.OLDER, last)
    set_slot(s, message, at.NEWER, -1)
    if last < 0:
        put(s, first, message)
    else:
        set_slot(s, last, at.NEWER, message)
    put(s, first + 1, message)


@called
def remove(s: int, first: int, message: int) -> None:
    """Take a message out of its list."""
    older, newer = slot_fact(s, message, at.OLDER), slot_fact(s, message, at.NEWER)
    if older < 0:
        put(s, first, newer)
    else:
        set_slot(s, older, at.NEWER, newer)
    if newer < 0:
        put(s, first + 1, older)
    else:
        set_slot(s, newer, at.OLDER, older)
