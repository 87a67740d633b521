"""How late a message is: how long before it the first message with a greater key had arrived.

A message is late for a window if that one has left by then, so a hold of more than the largest lateness would have let
none be late. Known for this are a group's rises: the moments at which its greatest key rose. There is no end to them,
so old ones are merged, the more the older they are: the newest 256 are exact, and of what is a rises old at most a / 4
are one. A merged rise has its last one's key and its first one's moment: a message that is so late may be told to be
even later, never less late.
"""

from __future__ import annotations

from hftlab.sequence.kernels import slots as at
from hftlab.sequence.kernels.atomics import called
from hftlab.sequence.kernels.slots import group_fact, less, rise_fact, set_group, set_rise, slot_fact, source_fact

_OLDEST = 1 << 32
"""What is older is one: 8 merged rises each time that the age doubles, from 256 to this, are 192 at most."""


@called
def rise(s: int, group: int, major: int, minor: int, arrived_ns: int) -> None:
    """Note when a group's greatest key rose."""
    place = group_fact(s, group, at.RISES)
    if place:
        latest = place - 1
        if not less(rise_fact(s, group, latest, at.R_MAJOR), rise_fact(s, group, latest, at.R_MINOR), major, minor):
            return
        if rise_fact(s, group, latest, at.R_ARRIVED_NS) == arrived_ns:
            set_rise(s, group, latest, at.R_MAJOR, major)
            set_rise(s, group, latest, at.R_MINOR, minor)
            return
    if place == at.MOST_RISES:
        place = _thin(s, group)
    number = group_fact(s, group, at.RISEN)
    set_rise(s, group, place, at.R_MAJOR, major)
    set_rise(s, group, place, at.R_MINOR, minor)
    set_rise(s, group, place, at.R_ARRIVED_NS, arrived_ns)
    set_rise(s, group, place, at.R_NUMBER, number)
    set_group(s, group, at.RISEN, number + 1)
    set_group(s, group, at.RISES, place + 1)


@called
def _thin(s: int, group: int) -> int:
    """Merge old rises with their neighbours; return how many are left."""
    risen = group_fact(s, group, at.RISEN)
    kept = 0
    for place in range(1, at.MOST_RISES):
        old = place < at.MOST_RISES - at.EXACT_RISES
        last = rise_fact(s, group, place + 1, at.R_NUMBER) - 1 if old else 0
        age = risen - last
        if old and (age > _OLDEST or last - rise_fact(s, group, kept, at.R_NUMBER) < age // 4):
            set_rise(s, group, kept, at.R_MAJOR, rise_fact(s, group, place, at.R_MAJOR))
            set_rise(s, group, kept, at.R_MINOR, rise_fact(s, group, place, at.R_MINOR))
        else:
            kept += 1
            for fact in range(at.RISE_FACTS):
                set_rise(s, group, kept, fact, rise_fact(s, group, place, fact))
    return kept + 1


@called
def overtaken_ns(s: int, message: int) -> int:
    """When the first message with a greater key arrived, of those before a message that came late."""
    group = source_fact(s, slot_fact(s, message, at.SOURCE), at.GROUP_OF)
    major, minor = slot_fact(s, message, at.MAJOR), slot_fact(s, message, at.MINOR)
    low, high = 0, group_fact(s, group, at.RISES) - 1
    while low < high:
        middle = (low + high) // 2
        if less(major, minor, rise_fact(s, group, middle, at.R_MAJOR), rise_fact(s, group, middle, at.R_MINOR)):
            high = middle
        else:
            low = middle + 1
    return rise_fact(s, group, low, at.R_ARRIVED_NS)
