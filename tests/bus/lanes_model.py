"""The lanes and their overflow policies as plain lists: what ``hftlab.bus`` must take, drop, conflate and handle.

A list a lane, in the order of publication. Handling takes the first rows of the most urgent lane that has some. A row
that finds its type full in its lane is dealt with by its type's policy. One thing is the bus's own choice, and told
to the model: how many rows a chunk in progress shows. Nothing takes those away, and they hold their places until the
last of them was handled, so that rows may have to wait *beside* the ring for a place, in order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

from hftlab.events import EventType, Priority

LEVELS = (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW)
MAPPED = {
    EventType.ORDER: Priority.CRITICAL,
    EventType.FILL: Priority.CRITICAL,
    EventType.MARKET_DATA: Priority.NORMAL,
    EventType.SIGNAL: Priority.NORMAL,
}


class Row(NamedTuple):
    """``state``: what it tells the latest of; None where it is no state."""

    uid: int
    event_type: EventType
    own: Priority
    state: object


class LaneModel:
    """``ring``: the rows to be handled next, of which a chunk shows the first ``shown``. ``beside``: behind those,
    without a place in the ring yet. ``done``: the chunk's rows that were handled, ``gaps``: places behind it whose rows
    were removed; both hold places, by type, until the chunk ends."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ring: list[Row] = []
        self.beside: list[Row] = []
        self.shown = 0
        self.done: Counter[EventType] = Counter()
        self.gaps: Counter[EventType] = Counter()

    def room(self, event_type: EventType) -> int:
        """How many more rows of a type may wait."""
        waiting = sum(row.event_type == event_type for row in self.ring + self.beside)
        return self.capacity - waiting - self.done[event_type]

    def places(self, event_type: EventType) -> int:
        """How many more rows of a type the ring takes now."""
        in_ring = sum(row.event_type == event_type for row in self.ring)
        return self.capacity - in_ring - self.done[event_type] - self.gaps[event_type]

    def fitting(self, policy: str, rows: list[Row]) -> int:
        """How many of these rows of one type, from the first on, can be taken at once, one way or the other."""
        event_type = rows[0].event_type
        room = self.room(event_type)
        if policy.startswith("drop"):
            return len(rows)
        if self.beside:
            return 0
        if policy != "conflate":
            return min(len(rows), room, self.places(event_type))
        if len(rows) <= room:
            return len(rows)
        queued = [row for row in self.ring[self.shown :] if row.event_type == event_type]
        room += len(queued)
        # The more rows come, the more states there are.
        return bisect_right(range(1, len(rows) + 1), room, key=lambda taken: len(latest(queued + rows[:taken])))

    def take(self, policy: str, rows: list[Row]) -> list[Row]:
        """Make room for such rows; returns what gives way, of those that wait and of the new ones."""
        event_type = rows[0].event_type
        short = len(rows) - self.room(event_type)
        if short <= 0:
            return []
        waiting = [row for row in self.ring[self.shown :] + self.beside if row.event_type == event_type]
        if policy == "drop newest":
            gone = rows[-short:]
        elif policy == "drop oldest":
            gone = (waiting + rows)[:short]
        else:
            stays = set(latest(waiting + rows))
            gone = [row for row in waiting + rows if row not in stays]
        self._remove(set(gone))
        return gone

    def _remove(self, gone: set[Row]) -> None:
        types = {row.event_type for row in self.ring[: self.shown]} | set(+self.done)
        for row in self.ring[self.shown :]:
            if row in gone and row.event_type in types:
                self.gaps[row.event_type] += 1
        self.ring = [row for row in self.ring if row not in gone]
        self.beside = [row for row in self.beside if row not in gone]

    def settle(self) -> None:
        """What stands beside the ring takes the places that there are now, up to the first row without one."""
        if not self.beside:
            return
        places = {event_type: self.places(event_type) for event_type in EventType}
        count = 0
        for row in self.beside:
            if not places[row.event_type]:
                break
            places[row.event_type] -= 1
            count += 1
        self.ring += self.beside[:count]
        del self.beside[:count]

    def handle(self, most: int) -> list[Row]:
        """The rows that are handled next."""
        handled = self.ring[:most]
        del self.ring[:most]
        return handled

    def show(self, handled: list[Row], taken: int, done: int) -> None:
        """Know that a chunk has taken so many rows, the last ``done`` that were just handled among them."""
        types = [row.event_type for row in handled]
        if len(handled) < self.shown:  # still the same chunk
            self.done.update(types)
            self.shown -= len(handled)
        else:
            assert done <= len(handled) - self.shown
            self.done = Counter(types[len(types) - done :])
            self.gaps.clear()
            self.shown = taken - done
        assert (self.done.total(), self.shown) == (done, taken - done)
        assert 0 <= self.shown <= len(self.ring)


class LanesModel:
    """All lanes of a bus; ``capacity`` rows of each type in each of them."""

    def __init__(self, capacity: int) -> None:
        self.policies: dict[EventType, str] = {}
        self.mapped = dict(MAPPED)
        self.lanes = {level: LaneModel(capacity) for level in LEVELS}
        self.gave_way: dict[Priority, Counter[str]] = {level: Counter() for level in LEVELS}
        self.published = self.handled = 0

    def lane_of(self, row: Row) -> Priority:
        return row.own or self.mapped[row.event_type]

    def policy(self, level: Priority, event_type: EventType) -> str:
        policy = self.policies.get(event_type, "wait")
        return "wait" if level == Priority.CRITICAL and policy != "raise" else policy

    def offer(self, rows: list[Row]) -> int:
        """Take as many of the first rows as can be taken without waiting; returns how many."""
        self.settle()
        groups: dict[tuple[Priority, EventType], list[int]] = {}
        for place, row in enumerate(rows):
            groups.setdefault((self.lane_of(row), row.event_type), []).append(place)
        taken = len(rows)
        stood_beside = {level for level, lane in self.lanes.items() if lane.beside}
        for (level, event_type), places in groups.items():
            fitting = self.lanes[level].fitting(self.policy(level, event_type), [rows[place] for place in places])
            if fitting < len(places):
                taken = min(taken, places[fitting])
        gone: set[Row] = set()
        for (level, event_type), places in groups.items():
            some = [rows[place] for place in places if place < taken]
            if some:
                policy = self.policy(level, event_type)
                given_up = self.lanes[level].take(policy, some)
                self.gave_way[level][policy] += len(given_up)
                gone.update(given_up)
        for level, lane in self.lanes.items():
            lane.beside += [row for row in rows[:taken] if row not in gone and self.lane_of(row) == level]
            if level not in stood_beside:  # else they have their turn when all of those have had it
                lane.settle()
        self.published += taken
        return taken

    def publish(self, row: Row) -> bool:
        """Take one row, if that can be done without waiting."""
        lane = self.lanes[self.lane_of(row)]
        if lane.beside or not lane.room(row.event_type) or not lane.places(row.event_type):
            return self.offer([row]) == 1
        lane.ring.append(row)
        self.published += 1
        return True

    def work(self, most: int) -> dict[Priority, list[Row]]:
        """Handle up to so many rows; returns them by lane, in the order in which they are handled."""
        self.settle()
        handled: dict[Priority, list[Row]] = {}
        for level, lane in self.lanes.items():
            handled[level] = lane.handle(most)
            most -= len(handled[level])
            self.handled += len(handled[level])
        return handled

    def settle(self) -> None:
        """What stands beside the rings takes the places that there are now."""
        for lane in self.lanes.values():
            lane.settle()

    @property
    def left(self) -> int:
        """How many rows stand beside the rings."""
        return sum(len(lane.beside) for lane in self.lanes.values())


def latest(rows: list[Row]) -> list[Row]:
    """Of each state the last row, and whatever is no state."""
    last = {row.state: row.uid for row in rows}
    return [row for row in rows if row.state is None or last[row.state] == row.uid]
