"""Control: what a bus looks at every few milliseconds, and what it does about it.

Depths, waits and memory go into the state machines of ``hftlab.flow``; what those say is done here: rows are shed,
capacities changed, sources paused and resumed, and whoever subscribed to the changes is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hftlab.bus.flowing import Flow, by_type
from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.ports import PausableSource
from hftlab.events.records import EventType, Priority
from hftlab.events.rowbytes import take_rows
from hftlab.events.tables import SymbolTable
from hftlab.flow.overload import OverloadBreaker
from hftlab.flow.shedding import Shedder
from hftlab.flow.sizing import AdaptiveSize, SizeBounds
from hftlab.flow.watermarks import Water, WaterLevel
from hftlab.memory import MemoryPressure, read_pressure

if TYPE_CHECKING:
    from hftlab.bus.admission import Admission, GivenWay
    from hftlab.bus.lanes import Lane, Lanes

LOOK_NS = 2_000_000
IDLE_LOOK_NS = 50_000_000
MEMORY_NS = 250_000_000
"""How often memory pressure is read: it takes 100 µs, and PSI's own averages are of 10 s."""


class Control:
    """The control loop of one bus. ``sheds``: whether anything is to be asked about rows that come in now."""

    def __init__(
        self,
        lanes: Lanes,
        symbols: SymbolTable,
        tell: Callable[[object], None],
        failed: Callable[[str, Exception], None],
        pressure: Callable[[], MemoryPressure] = read_pressure,
    ) -> None:
        self._lanes, self._symbols, self._tell = lanes, symbols, tell
        self._read_pressure, self._failed = pressure, failed
        self.water = {lane.level: WaterLevel() for lane in lanes}
        self.shedder = Shedder()
        self.breaker: OverloadBreaker | None = None
        self.sources: list[PausableSource] = []
        # Whether somebody beside the lanes' queues wants the sources to wait.
        self.is_pressed: Callable[[], bool] = lambda: False
        self.paused = False
        self.memory: MemoryPressure | None = None
        self._memory_at_ns = self._looked_at_ns = -(1 << 62)
        self.sheds = False
        self.change(Flow(), {})

    def change(self, flow: Flow, capacity: dict[EventType, int]) -> None:
        """Go by other settings from now on; what was counted under the old ones stays counted in the lanes.

        Raises ValidationError for bounds above a queue's capacity.
        """
        sizes = {}
        given: dict[EventType, SizeBounds] = by_type(flow.adapt, "adapt")
        for event_type, bounds in given.items():
            if bounds.max_rows > capacity[event_type]:
                raise ValidationError(
                    f"adapt= stays within the queues' capacity, {capacity[event_type]:,} rows of {event_type.topic} "
                    f"events; got max_rows={bounds.max_rows:,}. Give the bus a larger capacity="
                )
            sizes[event_type] = AdaptiveSize(bounds)
        self.flow = flow
        # What stays as it is goes on in its state: an overload does not end with a change of something else.
        if self.shedder.rules != flow.shed:
            self.shedder = Shedder(flow.shed)
        if flow.breaker is None:
            self.breaker = None
        elif self.breaker is None or self.breaker.settings != flow.breaker:
            self.breaker = OverloadBreaker(flow.breaker, on_change=self._tell)
        self.sizes = sizes
        for water in self.water.values():
            if water.marks != flow.watermarks:
                water.marks, water.paused = flow.watermarks, False  # the next look decides by the new ones
        self._by_age = any(rule.older_than_s for rule in flow.shed)
        self._needs_memory = bool(sizes) or any(rule.measure == "memory" for rule in flow.shed)
        self._update_sheds()

    def _update_sheds(self) -> None:
        self.sheds = self.shedder.is_active or (self.breaker is not None and not self.breaker.is_closed)

    @property
    def due_ns(self) -> int | None:
        """When to look again although nothing happens: sources that wait have to be told; None: no need."""
        if self.paused:
            return self._looked_at_ns + LOOK_NS
        return self._looked_at_ns + IDLE_LOOK_NS if self.sheds else None

    def look(self, now_ns: int, admission: Admission) -> None:
        """Look at everything, if it is time to; 10 µs every 2 ms."""
        # A clock that was set back must not stop the looking.
        if 0 <= now_ns - self._looked_at_ns < LOOK_NS:
            return
        self._looked_at_ns = now_ns
        if self._needs_memory and not 0 <= now_ns - self._memory_at_ns < MEMORY_NS:
            self._memory_at_ns = now_ns
            self.memory = self._read_pressure()
        pressure = 0.0 if self.memory is None else self.memory.level
        depths = {lane.level: admission.depth(lane) for lane in self._lanes}
        waits_ns = {lane.level: lane.waited_ns(now_ns) for lane in self._lanes}
        self._look_at_sizes(now_ns, pressure, admission)
        self._look_at_water(now_ns, depths)
        if self.breaker is not None:
            waits = [waits_ns[level] for level in Priority if level.name in self.breaker.settings.lanes]
            self.breaker.observe(max(waits), now_ns)
        if self.flow.shed:
            depth = {level.name: min(rows / limit, 1.0) for level, (rows, limit) in depths.items()}
            wait_s = {level.name: wait_ns / 1e9 for level, wait_ns in waits_ns.items()}
            for change in self.shedder.update(now_ns, depth, wait_s, pressure):
                self._tell(change)
        self._update_sheds()
        if self._by_age and any(rule.older_than_s is not None for rule in self.shedder.active):
            self._shed_queued(now_ns, admission)

    def _look_at_sizes(self, now_ns: int, pressure: float, admission: Admission) -> None:
        for event_type, size in self.sizes.items():
            drained = sum(lane.backlog.queues[event_type].drained for lane in self._lanes)
            admission.limits[event_type] = size.update(now_ns, pressure, drained, admission.queued(event_type))

    def _look_at_water(self, now_ns: int, depths: dict[Priority, tuple[int, int]]) -> None:
        for level, (rows, limit) in depths.items():
            self.water[level].update(rows, limit, now_ns)
        paused = any(water.paused for water in self.water.values()) or self.is_pressed()
        if paused is not self.paused:
            self.paused = paused
            self.signal(Water.PAUSE if paused else Water.RESUME)

    def signal(self, water: Water) -> None:
        """Tell the sources."""
        for source in tuple(self.sources):
            self.tell(source, water)

    def tell(self, source: PausableSource, water: Water) -> None:
        """Tell one source; what it raises is kept among the bus's failures."""
        try:
            if water is Water.PAUSE:
                source.pause()
            else:
                source.resume()
        except Exception as error:
            self._failed(f"the source {source!r:.100}", error)

    # -- shedding -------------------------------------------------------------------------------------------------

    def admitted(self, lane: Lane, batch: EventBatch, now_ns: int, given_way: GivenWay) -> EventBatch:
        """The rows that come into a lane without those that are shed."""
        kept = np.ones(len(batch), bool)
        for value in np.unique(batch.records["type"]).tolist():
            event_type = EventType(value)
            places = np.flatnonzero(batch.records["type"] == event_type)
            rows = batch.records if len(places) == len(batch) else take_rows(batch.records, places)
            taken, counts = self.shedder.mask(lane.level.name, rows, 0, self._symbols.values)
            if taken is not None:
                kept[places[taken]] = False
                places = places[~taken]
            for rule, count in counts.items():
                given_way.add(lane.level, event_type, f"shed: {rule}", count)
            if self.breaker is not None and not self.breaker.is_closed and len(places):
                let_in = self.breaker.admit(lane.level.name, len(places), now_ns)
                mask = np.arange(len(places)) < let_in if isinstance(let_in, int) else let_in
                kept[places[~mask]] = False
                given_way.add(lane.level, event_type, "shed: overload", int(np.count_nonzero(~mask)))
        return batch if kept.all() else batch.where(np.flatnonzero(kept))

    def _shed_queued(self, now_ns: int, admission: Admission) -> None:
        """Shed what has grown too old in its queue."""
        youngest_s = min(rule.older_than_s for rule in self.shedder.active if rule.older_than_s is not None)
        for lane in self._lanes:
            # Rows lie in the order in which they came: nothing behind the first young one is looked at.
            old = lane.backlog.waits.until(now_ns - round(youngest_s * 1e9))
            if lane.level is Priority.CRITICAL or not old:
                continue
            for event_type, queue in lane.backlog.queues.items():
                if not queue.waiting:
                    continue
                rows, places = lane.backlog.removable(event_type, old)
                if not len(rows):
                    continue
                ages_ns = np.maximum(now_ns - lane.backlog.waits.at(places), 0)
                taken, counts = self.shedder.mask(lane.level.name, rows, ages_ns, self._symbols.values, queued=True)
                if taken is not None:
                    lane.backlog.remove(event_type, places[taken])
                    for rule, count in counts.items():
                        admission.given_way.add(lane.level, event_type, f"shed: {rule}", count)
