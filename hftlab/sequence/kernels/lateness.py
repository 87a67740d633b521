"""How late a message is: how long before it the first message with a greater key had arrived.

A message is late for a window if that one has left by then, so a hold of more than the largest lateness would have let
none be late. Known for this are a group's rises: the moments at which its greatest key rose.
"""

from __future__ import annotations

from hftlab.ring.atomics import copy
from hftlab.sequence.kernels import slots as at
from hftlab.sequence.kernels.atomics import called, get
from hftlab.sequence.kernels.slots import group_fact, less, set_group, slot_fact, source_fact


@called
def rise(s: int, group: int, major: int, minor: int, arrived_ns: int) -> None:
    """Note when a group's greatest key rose."""
    count = group_fact(s, group, at.RISES)
    latest = at.FIRST_RISE + (count - 1) * at.RISE_FACTS
    if count:
        if not less(group_fact(s, group, latest), group_fact(s, group, latest + 1), major, minor):
            return
        if group_fact(s, group, latest + 2) == arrived_ns:
            count -= 1
    if count == at.MOST_RISES:
        count = thin(s, group)
    place = at.FIRST_RISE + count * at.RISE_FACTS
    set_group(s, group, place, major)
    set_group(s, group, place + 1, minor)
    set_group(s, group, place + 2, arrived_ns)
    set_group(s, group, at.RISES, count + 1)


@called
def thin(s: int, group: int) -> int:
    """Merge the older half of the rises in pairs, so that all of a session's time is covered, ever more coarsely.

    A pair keeps the greater key and the earlier moment: a message that is later than the newest 256 rises may be told
    to be later than it is, never less late.
    """
    merged = at.MOST_RISES // 4
    for pair in range(merged):
        earlier = at.FIRST_RISE + 2 * pair * at.RISE_FACTS
        place = at.FIRST_RISE + pair * at.RISE_FACTS
        set_group(s, group, place + 2, group_fact(s, group, earlier + 2))
        set_group(s, group, place, group_fact(s, group, earlier + at.RISE_FACTS))
        set_group(s, group, place + 1, group_fact(s, group, earlier + at.RISE_FACTS + 1))
    # The newer half follows, in two steps, because ``copy`` is for blocks that don't overlap.
    quarter_bytes = merged * at.RISE_FACTS * 8
    begin = get(s, at.GROUPS_AT) + (group * at.GROUP_FACTS + at.FIRST_RISE) * 8
    copy(begin + quarter_bytes, begin + 2 * quarter_bytes, quarter_bytes)
    copy(begin + 2 * quarter_bytes, begin + 3 * quarter_bytes, quarter_bytes)
    return 3 * merged


@called
def overtaken_ns(s: int, message: int) -> int:
    """When the first message with a greater key arrived, of those before a message that came late."""
    group = source_fact(s, slot_fact(s, message, at.SOURCE), at.GROUP_OF)
    major, minor = slot_fact(s, message, at.MAJOR), slot_fact(s, message, at.MINOR)
    low, high = 0, group_fact(s, group, at.RISES) - 1
    while low < high:
        middle = (low + high) // 2
        place = at.FIRST_RISE + middle * at.RISE_FACTS
        if less(major, minor, group_fact(s, group, place), group_fact(s, group, place + 1)):
            high = middle
        else:
            low = middle + 1
    return group_fact(s, group, at.FIRST_RISE + low * at.RISE_FACTS + 2)
