"""Admission: rows into their lanes' queues, and what gives way where there is no room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hftlab.bus.flowing import Flow, Overflow, by_type
from hftlab.bus.kernels.conflation import superseded_rows
from hftlab.events.batch import EventBatch, as_event_type
from hftlab.events.records import RECORD, ROW_BYTES, RUN_BIT, EventType, Priority, Rows, blank, of_type, split_event_id
from hftlab.events.rowbytes import concat_rows, copy_rows, take_rows
from hftlab.events.tables import SymbolTable
from hftlab.events.types import Event
from hftlab.flow.watermarks import WaterStatistics

if TYPE_CHECKING:
    from hftlab.bus.lanes import Lane, Lanes

LaneIds = Priority | npt.NDArray[np.uint8]

_LOSSLESS = (Overflow.WAIT, Overflow.RAISE)


class GivenWay:
    """Rows that were published and gave way, by type and reason; ``rows`` counts them all."""

    def __init__(self) -> None:
        self.counts: dict[tuple[Priority, EventType, str], int] = {}
        self.rows = 0

    def add(self, lane: Priority, event_type: EventType, reason: str, rows: int) -> None:
        """Count rows; 0 is none."""
        if rows:
            key = (lane, event_type, reason)
            self.counts[key] = self.counts.get(key, 0) + rows
            self.rows += rows

    def total(self, *reasons: str, lane: Priority | None = None) -> int:
        """How many rows gave way for any of these reasons (none named: any)."""
        return sum(
            rows
            for (level, _, reason), rows in self.counts.items()
            if (not reasons or reason in reasons) and lane in (None, level)
        )

    def of_lane(self, lane: Priority) -> dict[str, int]:
        """How many rows of a lane gave way, by reason."""
        found: dict[str, int] = {}
        for (level, _, reason), rows in self.counts.items():
            if level is lane:
                found[reason] = found.get(reason, 0) + rows
        return found

    @property
    def shed(self) -> int:
        """How many rows were shed, by rules or the overload breaker."""
        return sum(rows for (_, _, reason), rows in self.counts.items() if reason.startswith("shed"))


class Admission:
    """Lets rows into the lanes by ``flow``. ``given_way`` counts those that were not, or no longer, queued.

    Rows that are to be queued and find no place in the ring, which also holds what chunks and batches still show, wait
    ``left`` over, in order, until ``flush`` finds some. They count against the limits as if they were queued.
    """

    def __init__(self, lanes: Lanes, symbols: SymbolTable, flow: Flow) -> None:
        self._lanes, self._symbols = lanes, symbols
        self.given_way = GivenWay()
        self.now_ns = 0  # when what is queued now came
        self.left: dict[Priority, deque[EventBatch | object]] = {level: deque() for level in lanes.by_level}
        self.left_rows = 0  # how many rows are left over, and by type
        self._left_rows = {level: dict.fromkeys(EventType, 0) for level in lanes.by_level}
        self.change(flow)

    def change(self, flow: Flow) -> None:
        """Go by other settings from now on."""
        self.flow = flow
        self._overflow = {event_type: flow.overflow_of(event_type) for event_type in EventType}
        self.gives_way = any(overflow not in _LOSSLESS for overflow in self._overflow.values())
        self.limits = {event_type: queue.capacity for event_type, queue in self._lanes.recorded.backlog.queues.items()}
        limits: dict[EventType, int] = by_type(flow.limit_bytes, "limit_bytes")
        self._most = {event_type: limit // ROW_BYTES for event_type, limit in limits.items()}

    def water_of(self, lane: Lane) -> WaterStatistics:
        """A lane's pressure episodes."""
        return self._lanes.control.water[lane.level].statistics()

    def credits(self, event: Event | type[Event] | EventType) -> int:
        """How many more events of a type its lane takes before it reaches its high-water mark."""
        if isinstance(event, Event):
            event_type, level = event.event_type, self._lanes.priorities.lane_of_event(event)
        else:
            event_type = as_event_type(event)
            found = self._lanes.priorities.lanes(blank(1, event_type), SymbolTable(["any"]))
            level = found if isinstance(found, Priority) else Priority(int(found[0]))
        lane = self._lanes[level]
        waiting = self._waiting(lane, event_type)
        return self._lanes.control.water[level].credits(waiting, self.limit(lane, event_type))

    def waits_for(self, lane: Lane) -> Lane | None:
        """The lane that must go on before this one can."""
        return self._lanes.waits_for(lane)

    # -- room -----------------------------------------------------------------------------------------------------

    def overflow_of(self, level: Priority, event_type: EventType) -> Overflow:
        """What happens in a lane: CRITICAL loses nothing."""
        overflow = self._overflow[event_type]
        return Overflow.WAIT if level is Priority.CRITICAL and overflow not in _LOSSLESS else overflow

    def queued(self, event_type: EventType) -> int:
        """Rows of a type that wait, in all lanes."""
        return sum(self._waiting(lane, event_type) for lane in self._lanes)

    def _waiting(self, lane: Lane, event_type: EventType) -> int:
        return lane.backlog.queues[event_type].waiting + self._left_rows[lane.level][event_type]

    def depth(self, lane: Lane) -> tuple[int, int]:
        """The rows of its fullest type that wait in a lane, and that type's limit there."""
        rows, limit = 0, self.limit(lane, EventType.MARKET_DATA)
        for event_type in EventType:
            waiting = self._waiting(lane, event_type)
            if waiting:
                own = self.limit(lane, event_type)
                if waiting * limit > rows * own:
                    rows, limit = waiting, own
        return rows, limit

    def limit(self, lane: Lane, event_type: EventType) -> int:
        """How many rows of a type a lane may hold now: the bytes of a type are for all lanes together."""
        limit = self.limits[event_type]
        if event_type in self._most:
            others = self.queued(event_type) - self._waiting(lane, event_type)
            limit = min(limit, max(self._most[event_type] - others, 1))
        return limit

    def _room(self, lane: Lane, event_type: EventType) -> int:
        """Rows of a type that a lane may take now, by the limits."""
        room = self.limits[event_type] - self._waiting(lane, event_type)
        if event_type in self._most:
            room = min(room, self._most[event_type] - self.queued(event_type))
        return max(0, room)

    def _fits(self, lane: Lane, event_type: EventType, rows: Rows) -> int:
        """How many of these rows of one type, from the first on, a lane takes one way or the other."""
        overflow = self.overflow_of(lane.level, event_type)
        if overflow is Overflow.DROP_NEWEST or overflow is Overflow.DROP_OLDEST:
            return len(rows)
        if self.left[lane.level]:
            return 0
        room = self._room(lane, event_type)
        if overflow is not Overflow.CONFLATE:
            return min(len(rows), lane.backlog.queues[event_type].free, room)
        if len(rows) <= room:
            return len(rows)
        queued, _ = lane.backlog.removable(event_type)
        both = concat_rows([queued, rows], rows.dtype)
        # What stays queued grows with each row that is the first of its kind.
        stay = np.cumsum(~superseded_rows(both, first=True))[len(queued) :]
        return int(np.searchsorted(stay, room + len(queued), side="right"))

    def room_for(self, records: Rows, levels: LaneIds) -> int:
        """How many of these rows, from the first on, can be taken without waiting; what must give way for that does."""
        if isinstance(levels, Priority) and records.dtype != RECORD:
            if not len(records):
                return 0
            return self._fits(self._lanes[levels], EventType(int(records["type"][0])), records)
        fits = len(records)
        waiting: dict[EventType, list[npt.NDArray[np.intp]]] = {}
        for level, event_type, places in self._groups(records, levels):
            room = self._fits(self._lanes[level], event_type, _rows_at(records, places, event_type))
            if room < len(places):
                fits = min(fits, int(places[room]))
            if event_type in self._most and self.overflow_of(level, event_type) in _LOSSLESS:
                waiting.setdefault(event_type, []).append(places)
        for event_type, several in waiting.items():  # the lanes share a type's bytes
            together = np.sort(np.concatenate(several))
            room = max(0, self._most[event_type] - self.queued(event_type))
            if room < len(together):
                fits = min(fits, int(together[room]))
        return fits

    @property
    def free(self) -> int:
        """How many rows could be taken, at most: without bound where some type gives way."""
        if self.gives_way:
            return 1 << 62
        return sum(lane.backlog.free for lane in self._lanes)

    def is_plain(self, lane: Lane, event_type: EventType) -> bool:
        """Whether one more row of a type just has room: nothing gives way, nothing waits before it."""
        control = self._lanes.control
        if self.left[lane.level] or (control.sheds and lane.level is not Priority.CRITICAL):
            return False
        return event_type not in self._most and lane.backlog.queues[event_type].waiting < self.limits[event_type]

    def _groups(self, records: Rows, levels: LaneIds) -> Iterator[tuple[Priority, EventType, npt.NDArray[np.intp]]]:
        """The places of the rows of each lane and type."""
        keys = records["type"].astype(np.uint16)
        keys += np.uint16(int(levels) << 8) if isinstance(levels, Priority) else levels.astype(np.uint16) << 8
        for key in np.unique(keys).tolist():
            yield Priority(key >> 8), EventType(key & 0xFF), np.flatnonzero(keys == key)

    # -- in -------------------------------------------------------------------------------------------------------

    def queue(self, batch: EventBatch, levels: LaneIds | None = None) -> None:
        """Queue rows, in order within each lane; what finds no room gives way, or is left over."""
        records = batch.records
        if not len(records):
            return
        if levels is None:
            levels = self._lanes.priorities.lanes(records, self._symbols)
        if isinstance(levels, Priority):
            self._queue_in(self._lanes[levels], batch)
            return
        for begin, end in pairwise(_cuts(batch, levels)):
            part, own = batch[begin:end], levels[begin:end]
            for level in np.unique(own).tolist():
                self._queue_in(self._lanes[Priority(level)], part.where(np.flatnonzero(own == level)))

    def _queue_in(self, lane: Lane, batch: EventBatch) -> None:
        control = self._lanes.control
        if control.sheds and lane.level is not Priority.CRITICAL:
            batch = control.admitted(lane, batch, self.now_ns, self.given_way)
        if self.gives_way and lane.level is not Priority.CRITICAL:
            batch = self._make_room(lane, batch)
        self._push(lane, batch)
        self._lanes.preempt_for(lane)

    def _make_room(self, lane: Lane, batch: EventBatch) -> EventBatch:
        """The batch without what gives way in it, when what is queued has given way to it."""
        records = batch.records
        for level, event_type, places in self._groups(records, lane.level):
            overflow = self.overflow_of(level, event_type)
            short = len(places) - self._room(lane, event_type)
            if short <= 0 or overflow in _LOSSLESS:
                continue
            gone = self._give_way(lane, event_type, _rows_at(records, places, event_type), short, overflow)
            if len(gone):
                kept = np.ones(len(records), bool)
                kept[places[gone]] = False
                # The places of the other types shift: look again.
                return self._make_room(lane, batch.where(np.flatnonzero(kept)))
        return batch

    def _give_way(
        self, lane: Lane, event_type: EventType, rows: Rows, short: int, overflow: Overflow
    ) -> npt.NDArray[np.intp]:
        """Make room in a lane for rows of one type; returns the places of those of them that are not to be queued."""
        gone = np.zeros(0, np.intp)
        removed = 0
        if overflow is Overflow.DROP_NEWEST:
            gone = np.arange(len(rows) - min(short, len(rows)), len(rows))
        elif overflow is Overflow.DROP_OLDEST:
            removed = lane.backlog.remove_first(event_type, short)
            removed += self._drop_left(lane.level, event_type, short - removed)
            gone = np.arange(min(short - removed, len(rows)))
        else:
            queued, places = lane.backlog.removable(event_type)
            superseded = superseded_rows(concat_rows([queued, rows], rows.dtype), first=False)
            old = places[superseded[: len(queued)]]
            if len(old):
                lane.backlog.remove(event_type, old)
            removed, gone = len(old), np.flatnonzero(superseded[len(queued) :])
        self.given_way.add(lane.level, event_type, overflow.value, removed + len(gone))
        return gone

    def _push(self, lane: Lane, batch: EventBatch) -> None:
        left = self.left[lane.level]
        lane.backlog.now_ns = self.now_ns
        taken = 0
        if not left:
            taken = lane.backlog.push(_contiguous(batch.records), batch.session_number) if len(batch) else 0
        if taken:
            self._wait_for_causes(lane, batch.records[:taken])
        if taken < len(batch):
            left.append(batch[taken:])
            self._count_left(lane.level, batch[taken:], 1)

    def _drop_left(self, level: Priority, event_type: EventType, most: int) -> int:
        """Drop the oldest rows of a type that are left over in a lane; returns how many there were."""
        dropped = 0
        left, backlog = self.left[level], self._lanes[level].backlog
        begin = backlog.waiting
        for place, one in enumerate(left):
            if dropped < most and isinstance(one, EventBatch):
                gone = np.flatnonzero(one.records["type"] == event_type)[: most - dropped]
                left[place] = kept = one.where(np.delete(np.arange(len(one)), gone))
                dropped += len(gone)
                backlog.skip(begin + gone)
                begin += len(kept)
        self._left_rows[level][event_type] -= dropped
        self.left_rows -= dropped
        return dropped

    def _wait_for_causes(self, lane: Lane, rows: Rows) -> None:
        """Hold rows that were just queued behind their causes, where these wait in other lanes."""
        others = [other for other in self._lanes if other is not lane and other.backlog.waiting]
        if not others:
            return
        causes = rows["cause"]
        # What was emitted was dispatched long since.
        places = np.flatnonzero((causes != 0) & (causes & RUN_BIT == 0))
        if not len(places):
            return
        first = lane.backlog.waiting - len(rows)
        wanted = [split_event_id(cause) for cause in causes[places].tolist()]
        numbers = np.array([number for _, number in wanted], np.int64)
        known = [(other, other.backlog.find(numbers)) for other in others]
        for place, cause in zip(places.tolist(), wanted, strict=True):
            for other, waiting in known:
                found = waiting.get(cause)
                if found is None and self.left[other.level]:
                    found = self._find_left(other, int(causes[place]))
                if found is not None:
                    lane.backlog.hold(first + place, other.backlog, other.backlog.watch(found + 1))
                    break

    def _find_left(self, lane: Lane, given: int) -> int | None:
        """The place, counted on from the rows that wait, at which a row that is left over will wait."""
        begin = lane.backlog.waiting
        for one in self.left[lane.level]:
            if isinstance(one, EventBatch):
                found = np.flatnonzero(one.event_ids == given)
                if len(found):
                    return begin + int(found[0])
                begin += len(one)
        return None

    def _count_left(self, level: Priority, batch: EventBatch, sign: int) -> None:
        for event_type, count in enumerate(np.bincount(batch.records["type"], minlength=len(EventType) + 1).tolist()):
            if count:
                self._left_rows[level][EventType(event_type)] += sign * count
                self.left_rows += sign * count

    def tell(self, level: Priority, notice: object) -> None:
        """Queue a notice behind what waits in a lane."""
        if self.left[level]:
            self.left[level].append(notice)
        else:
            self._lanes[level].backlog.tell(notice)
        self._lanes.preempt_for(self._lanes[level])

    def flush(self) -> None:
        """Queue what is left over, as far as there is room now."""
        if not any(self.left.values()):  # not the rows: a notice may be left alone
            return
        for level, left in self.left.items():
            backlog = self._lanes[level].backlog
            backlog.now_ns = self.now_ns
            while left:
                first = left.popleft()
                if not isinstance(first, EventBatch):
                    backlog.tell(first)
                    continue
                # A batch may have lost all its rows meanwhile.
                taken = backlog.push(_contiguous(first.records), first.session_number) if len(first) else 0
                self._count_left(level, first[:taken], -1)
                self._wait_for_causes(self._lanes[level], first.records[:taken])
                if taken < len(first):
                    left.appendleft(first[taken:])
                    break

    def clear(self) -> int:
        """Forget what is left over; returns how many rows."""
        rows, self.left_rows = self.left_rows, 0
        for left in self.left.values():
            left.clear()
        self._left_rows = {level: dict.fromkeys(EventType, 0) for level in self.left}
        return rows


def _cuts(batch: EventBatch, levels: npt.NDArray[np.uint8]) -> list[int]:
    """Where a batch is cut, so that a row whose cause it brings into another lane comes when that is found there."""
    causes = batch.records["cause"]
    effects = np.flatnonzero(causes).tolist() if batch.session_number else []
    cuts = [0]
    if effects:
        places = dict(zip(batch.event_ids.tolist(), range(len(batch)), strict=True))
        for effect in effects:
            cause = places.get(int(causes[effect]), -1)
            if cuts[-1] <= cause < effect and levels[cause] != levels[effect]:
                cuts.append(effect)
    return [*cuts, len(batch)]


def _rows_at(records: Rows, places: npt.NDArray[np.intp], event_type: EventType) -> Rows:
    rows = records if len(places) == len(records) else take_rows(records, places)
    return of_type(rows, event_type) if rows.dtype == RECORD else rows


def _contiguous(records: Rows) -> Rows:
    return records if records.flags.c_contiguous else copy_rows(records)
