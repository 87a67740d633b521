"""What a sliding window keeps: tables of int64 that are linked by row numbers, and their facts by name.

::

    slots    a row a held row; the first row of a message carries the message's facts. ``store`` has its 16 words
    sources  a row a source (by its id): its group, its run, and its message that is still being received in parts
    groups   a row a group: its heap, the key that it let go last, and its *rises*: when the greatest key rose

    order    out: a row a row that left: an input row or ``~slot``, and the moment
    aside    out: the slots of rows that came too late for a merged view

-1 ends a list and stands for "none". A group is all sources together, or one by itself.
"""

from __future__ import annotations

from hftlab.ring.atomics import load, store
from hftlab.sequence.kernels.atomics import called, get

# -- control: single numbers -----------------------------------------------------------------------------------------
CLOCK, NEXT_DUE, SERIAL = 0, 1, 2
OUT, PREFIX, ASIDE = 3, 4, 5  # rows that left in this call; of these, the input's own first rows; rows set aside
FREE, USED = 6, 7  # free slots: those that were given back (a list), and all from USED on
RETIRED, RETIRED_TAIL = 8, 9  # slots that left in this call: free when the caller has read them
FIRST_HELD, LAST_HELD = 10, 11  # the messages that are held, in order of arrival: of due time
FIRST_OPEN, LAST_OPEN = 12, 13  # the messages that are being received in parts, in order of their first part
HELD_ROWS, RECEIVED_ROWS, RELEASED_ROWS, LATE_ROWS, HURRIED_ROWS, LATE_BY_NS_MAX = 14, 15, 16, 17, 18, 19
HOLD_NS, CAPACITY, BY_TIMESTAMP = 20, 21, 22
SLOTS_AT, STORE_AT, SOURCES_AT, GROUPS_AT, ORDER_AT, ASIDE_AT = 23, 24, 25, 26, 27, 28
SOURCES, GROUPS = 29, 30  # how many there are
CONTROLS = 31

# -- slots -----------------------------------------------------------------------------------------------------------
FOLLOWING = 0  # the next row of the message, or the next free or retired slot
TAIL, ROWS, SOURCE = 1, 2, 3
MAJOR, MINOR, ARRIVAL = 4, 5, 6  # the key; ARRIVAL counts the messages
ARRIVED_NS = 7
OLDER, NEWER = 8, 9
CHILD, SIBLING = 10, 11  # in the heap
NEXT_IN_RUN = 12
SLOT_FACTS = 13

# -- sources ---------------------------------------------------------------------------------------------------------
GROUP_OF = 0  # -1: its messages are not held
OPEN = 1
LATEST = 2  # the key of its latest message, in a merged view
RUN_TAIL = 3  # the last message of its run, while that is held
SOURCE_FACTS = 4

# -- groups ----------------------------------------------------------------------------------------------------------
HEAP = 0
LAST_MAJOR, LAST_MINOR = 1, 2
RISES, RISEN = 3, 4  # the rises kept, and all that there ever were
FIRST_RISE = 5  # from here on, the rises
MOST_RISES, EXACT_RISES = 512, 256
# Of a rise, or of several in a row that were merged: the last one's key, and the first one's moment and number.
R_MAJOR, R_MINOR, R_ARRIVED_NS, R_NUMBER, RISE_FACTS = 0, 1, 2, 3, 4
GROUP_FACTS = FIRST_RISE + RISE_FACTS * MOST_RISES

O_ROW, O_MOMENT, ORDER_FACTS = 0, 1, 2

FOREVER = (1 << 63) - 1
NEVER = -(1 << 63)


@called
def slot_fact(s: int, slot: int, fact: int) -> int:
    """A fact about a held row, or about the message that begins with it."""
    return load(get(s, SLOTS_AT) + (slot * SLOT_FACTS + fact) * 8)


@called
def set_slot(s: int, slot: int, fact: int, value: int) -> None:
    """Set a fact about a held row."""
    store(get(s, SLOTS_AT) + (slot * SLOT_FACTS + fact) * 8, value)


@called
def source_fact(s: int, source: int, fact: int) -> int:
    """A fact about a source."""
    return load(get(s, SOURCES_AT) + (source * SOURCE_FACTS + fact) * 8)


@called
def set_source(s: int, source: int, fact: int, value: int) -> None:
    """Set a fact about a source."""
    store(get(s, SOURCES_AT) + (source * SOURCE_FACTS + fact) * 8, value)


@called
def group_fact(s: int, group: int, fact: int) -> int:
    """A fact about a group."""
    return load(get(s, GROUPS_AT) + (group * GROUP_FACTS + fact) * 8)


@called
def set_group(s: int, group: int, fact: int, value: int) -> None:
    """Set a fact about a group."""
    store(get(s, GROUPS_AT) + (group * GROUP_FACTS + fact) * 8, value)


@called
def less(major: int, minor: int, other_major: int, other_minor: int) -> bool:
    """Whether a key is less than another."""
    return bool(major < other_major or (major == other_major and minor < other_minor))


@called
def rise_fact(s: int, group: int, rise: int, fact: int) -> int:
    """A fact about a rise of a group's greatest key."""
    return group_fact(s, group, FIRST_RISE + rise * RISE_FACTS + fact)


@called
def set_rise(s: int, group: int, rise: int, fact: int, value: int) -> None:
    """Set a fact about a rise."""
    set_group(s, group, FIRST_RISE + rise * RISE_FACTS + fact, value)
