"""A bus in virtual time: a call takes as long as its handler says, so turns, slices and waits come out the same in
every run, on any machine."""

from __future__ import annotations

import sys
import time

import pytest

from hftlab.bus import EventBus
from hftlab.clock import VirtualClock
from tests.bus.samples import START_NS


class VirtualTime(VirtualClock):
    """A clock that also stands in for the module ``time``, for the functions that the bus asks."""

    def perf_counter_ns(self) -> int:
        return self.now_ns()


def in_virtual_time(monkeypatch: pytest.MonkeyPatch, start_ns: int = START_NS) -> VirtualTime:
    """Have all modules of the bus ask a new clock, until the test ends: for their turns, slices and hold-ups, too.

    Give the same clock to the bus, and have handlers ``advance`` it by what they cost. A bus whose handlers cost
    nothing never comes to the end of a slice.
    """
    clock = VirtualTime(start_ns)
    for name, module in list(sys.modules.items()):
        if name.startswith("hftlab.bus.") and getattr(module, "time", None) is time:
            monkeypatch.setattr(module, "time", clock)
    return clock


def fates(bus: EventBus) -> dict[str, int]:
    """What became of everything that was published so far; fails where the books do not balance."""
    told = bus.statistics()
    found = {
        "handled": told.handled,
        "shed": told.shed,
        "dropped": told.dropped,
        "conflated": told.conflated,
        "dead-lettered": told.dead_lettered,
        "waiting": told.waiting,
        "elsewhere": told.held + told.redelivered + told.duplicate + told.set_aside,
    }
    assert told.published == sum(found.values()), f"{told.published:,} published, but {found}"
    assert all(count >= 0 for count in found.values()), found
    return {"published": told.published, **found}
