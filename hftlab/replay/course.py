"""``Course``: one run of a replay, from taking the bus to leaving it. It drives; ``Replay`` decides when."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from hftlab.clock import VirtualClock
from hftlab.events.ports import RunBus, SessionInfo, Work
from hftlab.replay.feeder import PIECE_ROWS, Fed, Feeder, Until
from hftlab.replay.incoming import Incoming, Opening
from hftlab.replay.pace import Pace
from hftlab.replay.selection import Selection
from hftlab.replay.statistics import RateMeter
from hftlab.replay.transcript import Transcript
from hftlab.sequence import Ordering
from hftlab.sequence.stage import OrderStage

if TYPE_CHECKING:
    from hftlab.clock import Skew

SLICE_NS = 400_000
_LONGEST_SLEEP_S = 0.02
_PROGRESS_AFTER_S = 1.0


class _Bar(tqdm):  # type: ignore[type-arg]
    """tqdm's bar without the thread that watches over all bars of a process."""

    monitor_interval = 0


class Halt(enum.Enum):
    """Why a drive came to rest."""

    STOPPED = "somebody asked for it"
    COUNTED = "the number of events was delivered"
    BOUND = "the bound was reached"
    END = "the range is through"


class Course:
    """Feeds a run on the bus from what ``opening`` opens, and works it. ``log_sequence`` is where the run begins."""

    def __init__(
        self,
        bus: RunBus,
        name: str,
        clock: VirtualClock,
        session: SessionInfo,
        opening: Opening,
        selection: Selection,
        pace: Pace,
        give_way: Callable[[], bool],
        *,
        slice_ns: int,
        log_sequence: int,
        ordering: Ordering,
        skew: Skew | None = None,
    ) -> None:
        self.clock = clock
        self.journey = bus.new_journey("replay", skew=skew, virtual=True)
        self.transcript = Transcript(bus.symbols, bus.sources, session.number)
        self.skipped = 0
        self.elapsed_s = 0.0
        self._total = session.events
        self._first_log_sequence = log_sequence
        self._selection, self._pace, self._slice_ns = selection, pace, slice_ns
        self.stage = OrderStage(ordering, bus.symbols, bus.sources)
        self._feeder = self._fed_from(opening, clock)
        self._filtered_before = 0
        self._meter = RateMeter()
        self._lag_ns = 0
        self._changed = False
        self._woken = asyncio.Event()
        self._run = bus.begin_run(name, clock, self.transcript.observe, give_way, self.stage.gaps, self.journey)

    def _fed_from(self, opening: Opening, clock: VirtualClock) -> Feeder:
        return Feeder(Incoming(opening, self._selection, self.stage, self.journey), self._pace, clock)

    # -- driving ------------------------------------------------------------------------------------------------------

    async def drive(
        self,
        events: int,
        stopping: Callable[[], bool],
        *,
        hurry: bool,
        until: Until | None,
        bar: tqdm[Any] | None,
    ) -> Halt:
        """Deliver up to ``events`` recorded events, in a ``hurry`` without waiting; rests between two events."""
        begin_s = time.perf_counter()
        last = self.delivered + events
        try:
            while True:
                halt = await self._turn(last, stopping, hurry, until, bar)
                if halt is not None:
                    return halt
        finally:
            self._rest(hurry)
            self.elapsed_s += time.perf_counter() - begin_s

    async def _turn(
        self, last: int, stopping: Callable[[], bool], hurry: bool, until: Until | None, bar: tqdm[Any] | None
    ) -> Halt | None:
        """One slice of work, then what has to follow it. Returns why to halt, if so."""
        work = self._work(last - self.delivered)
        if bar is not None and work.handled:
            bar.update(self.log_sequence - bar.n)
        if work.awaiting:
            await self._run.settle()
            return None
        await asyncio.sleep(0)
        if work.pending or (not work.idle and self.delivered < last):
            return None if not stopping() or work.pending else Halt.STOPPED
        if self.delivered >= last:
            return Halt.COUNTED if not await self._is_through(until) else await self._finish()
        if stopping():
            return Halt.STOPPED
        return await self._feed(last, hurry, until)

    def _work(self, max_rows: int) -> Work:
        if self._changed:
            # Rows that were queued for another pace are taken back, and queued again when they are due by this one.
            self._changed = False
            self._feeder.take_back(self._run)
        now_ns = time.perf_counter_ns()
        work = self._run.work(max_rows, now_ns + self._slice_ns)
        self._meter.note(now_ns, self.delivered)
        return work

    async def _feed(self, last: int, hurry: bool, until: Until | None) -> Halt | None:
        now_ns = time.perf_counter_ns()
        most = min(last - self.delivered, PIECE_ROWS)
        fed = await self._feeder.feed(self._run, now_ns, most=most, waits=not hurry, until=until)
        if fed.outcome is Fed.END:
            return await self._finish()
        if fed.outcome is Fed.BOUND:
            return Halt.BOUND
        self._lag_ns = max(round(now_ns - fed.due_ns), 0) if fed.outcome is Fed.QUEUED else 0
        if fed.outcome is Fed.EARLY:
            await self._sleep(min((fed.due_ns - time.perf_counter_ns()) / 1e9, _LONGEST_SLEEP_S))
        return None

    async def _is_through(self, until: Until | None) -> bool:
        """Whether the last event was the range's: nobody has to step once more to find that out."""
        fed = await self._feeder.feed(self._run, time.perf_counter_ns(), most=0, waits=False, until=None)
        return fed.outcome is Fed.END

    async def _finish(self) -> Halt:
        """Deliver what batch handlers wait for, and leave the bus."""
        self._run.finish()
        while True:
            work = self._run.work(1 << 62, time.perf_counter_ns() + self._slice_ns)
            if work.awaiting:
                await self._run.settle()
            elif work.idle:
                break
            await asyncio.sleep(0)
        await self.close()
        return Halt.END

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or less if ``wake`` is called."""
        if seconds <= 0:
            return
        self._woken.clear()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    def _rest(self, hurry: bool) -> None:
        """Leave nothing queued, and stop the wall from counting."""
        if not self._run.ended:
            if hurry:
                self._feeder.hurried()
            self._feeder.take_back(self._run)
        self._pace.hold(time.perf_counter_ns())
        self._meter.restart()

    def wake(self) -> None:
        """Look again at once at what was asked."""
        self._woken.set()

    def pace_changed(self) -> None:
        """The pace was changed: what is queued already was meant for another."""
        self._changed = True
        self.wake()

    async def skip_to(self, opening: Opening) -> None:
        """Go on from somewhere further ahead. At rest only."""
        before = self.log_sequence
        await self._feeder.close()
        self._filtered_before += self._feeder.filtered
        held = self.stage.skip()
        self.skipped += len(self._selection.apply(held.batch))
        self._feeder.skip(self._run)
        self._feeder = self._fed_from(opening, self.clock)
        self._pace.jump()
        self._first_log_sequence = before
        first = await self._feeder.first_log_sequence(self._run)
        if first is not None:
            self.skipped += first - before
            self._first_log_sequence = first

    @property
    def ended(self) -> bool:
        """Whether the run has left the bus: at its end, or because somebody else ended it."""
        return self._run.ended

    def end(self) -> None:
        """Leave the bus; what was delivered stays readable."""
        self._run.end()

    async def close(self) -> None:
        """Leave the bus and stop reading. Idempotent."""
        self.end()
        await self._feeder.close()

    def bar(self, name: str, progress: bool | None) -> tqdm[Any]:
        """A progress bar over the session's events; None: shown after a second."""
        return _Bar(
            total=self._total,
            initial=self.log_sequence,
            desc=name,
            unit="event",
            unit_scale=True,
            delay=0.0 if progress else _PROGRESS_AFTER_S,
            disable=progress is False,
            leave=False,
        )

    # -- looked at ----------------------------------------------------------------------------------------------------

    @property
    def delivered(self) -> int:
        """How many recorded events have been handled."""
        return self._run.handled

    @property
    def emitted(self) -> int:
        """How many emitted events have been dispatched."""
        return self._run.emitted

    @property
    def filtered(self) -> int:
        """How many events the filters kept back."""
        return self._filtered_before + self._feeder.filtered

    @property
    def log_sequence(self) -> int:
        """The log sequence after that of the last event that was queued, and so, at rest, delivered."""
        queued = self._feeder.next_log_sequence
        return self._first_log_sequence if queued is None else queued

    @property
    def rate_hz(self) -> float:
        """Events a second lately."""
        return self._meter.rate_hz()

    @property
    def lag_ns(self) -> int:
        """How late the latest rows were queued."""
        return self._lag_ns

    @property
    def counts(self) -> dict[str, int]:
        """Rows delivered and emitted, by the word of their type."""
        return {event_type.topic: count for event_type, count in self.transcript.counts.items() if count}
