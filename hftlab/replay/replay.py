"""``Replay``: a recorded session through the handlers of a bus, whole or step by step, always the same."""

from __future__ import annotations

import asyncio
import enum
import html
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

from tqdm.auto import tqdm

from hftlab.clock import VirtualClock, format_time
from hftlab.errors import EmptyRange, ReplayError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.ports import BusRun, LogRange, RunBus, SessionInfo, SessionLog, Work
from hftlab.events.records import MAX_LOG_SEQUENCE
from hftlab.replay.selection import Selection
from hftlab.replay.transcript import Transcript

SLICE_NS = 400_000
DEFAULT_PREFETCH = 4
_PROGRESS_AFTER_S = 1.0


class State(enum.Enum):
    """Where a replay is in its life."""

    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CLOSED = "closed"


@dataclass(frozen=True)
class ReplayStatistics:
    """Counts of the current run. ``delivered``: recorded events; ``emitted``: what handlers added; times in ns UTC."""

    state: str
    delivered: int
    emitted: int
    filtered: int
    position_ns: int
    log_sequence: int
    elapsed_s: float
    counts: dict[str, int]


class Replay:
    """One session, or a part of it, replayed on a bus that it has to itself for that time.

    ``run`` goes to the end, ``step(n)`` handles the next ``n`` events; they can follow each other. Handlers see
    the virtual ``clock``; ``digest`` is of all that was delivered and emitted so far. The same session, selection
    and handlers give the same digest, whatever the frame size, ``slice_ns``, ``prefetch`` or machine. After the end,
    ``run`` starts afresh. Make one with ``lab.replay``.
    """

    def __init__(
        self,
        log: SessionLog,
        bus: RunBus,
        session: str,
        selection: Selection | None = None,
        *,
        prefetch: int = DEFAULT_PREFETCH,
        slice_ns: int = SLICE_NS,
    ) -> None:
        if not 1 <= prefetch <= 64:
            raise ValidationError(f"prefetch is how many reads are under way at once, 1 to 64; got {prefetch}")
        if slice_ns < 1:
            raise ValidationError(f"slice_ns is above 0; got {slice_ns}")
        self.session_name = session
        self.selection = selection or Selection()
        self.clock = VirtualClock()
        self.state = State.READY
        self._log, self._bus = log, bus
        self._prefetch, self._slice_ns = prefetch, slice_ns
        self._info: SessionInfo | None = None
        self._wanted = LogRange()
        self._run: BusRun | None = None
        self._source: AsyncIterator[EventBatch] | None = None
        self._pending: EventBatch | None = None
        self._transcript: Transcript | None = None
        self._delivered = self._emitted = self._filtered = self._log_sequence = 0
        self._elapsed_s = 0.0

    # -- controlling ----------------------------------------------------------------------------------------------

    async def run(self, *, progress: bool | None = None) -> Self:
        """Deliver everything up to the end of the range; from the start again if the last run is through.

        Raises EmptyRange where nothing matches, HandlerFailed at the end if a handler failed meanwhile. Interrupting
        or cancelling it pauses: ``run`` and ``step`` go on from there. ``progress`` shows a bar (None: after a second).
        """
        if self.state in (State.DONE, State.CLOSED):
            self._forget()
        await self._begin()
        total = (self._wanted.end_log or 0) - (self._wanted.start_log or 0)
        delay = 0.0 if progress else _PROGRESS_AFTER_S
        bar: tqdm[Any] = tqdm(
            total=total,
            desc=self.session_name,
            unit="event",
            unit_scale=True,
            delay=delay,
            disable=progress is False,
            leave=False,
        )
        with bar:
            await self._drive(1 << 62, bar)
        if self.state is State.DONE and not self._delivered:
            raise EmptyRange(self._nothing_left())
        self._bus.raise_failures()
        return self

    async def step(self, events: int = 1) -> EventBatch:
        """Deliver the next ``events`` recorded events, with all that they lead to, and return these rows as a batch.

        A batch handler waits for the end of its batch. Returns fewer rows, or none, at the end. Raises HandlerFailed.
        """
        if isinstance(events, bool) or not isinstance(events, int) or events < 1:
            raise ValidationError(f"step(n) takes a number of events of at least 1; got {events!r}")
        await self._begin()
        if self.state is State.DONE:
            return EventBatch.empty()
        assert self._transcript is not None
        self._transcript.keep()
        try:
            await self._drive(events, None)
        finally:
            taken = self._transcript.take()
        self._bus.raise_failures()
        return taken

    async def close(self) -> None:
        """Leave the bus and stop reading. Idempotent; what was delivered, and its digest, stay readable."""
        self._leave()
        if self._source is not None:
            source, self._source = self._source, None
            await _close(source)
        if self.state is not State.DONE:
            self.state = State.CLOSED

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- driving --------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Read what the session holds and take the bus, unless a run is under way."""
        if self.state is State.RUNNING:
            raise ReplayError("this replay is running already; await its end, or make another with a bus of its own")
        if self._run is not None or self.state is State.DONE:
            return
        if self.state is State.CLOSED:
            self._forget()
        self._info = await self._log.session(self.session_name)
        self._wanted = self.selection.log_range(self._info)
        await self._bus.drain()
        begins = self._wanted.start_ns
        self.clock = VirtualClock(self._info.start_ns if begins is None else begins)
        transcript = Transcript(self._bus.symbols, self._bus.sources, self._info.number)
        self._run = self._bus.begin_run(
            f"replay of {self.session_name}", self.clock, transcript.observe, self._give_way
        )
        self._transcript = transcript
        self._source = self._log.read(
            self._info,
            self._wanted,
            symbols=self._bus.symbols,
            sources=self._bus.sources,
            prefetch=self._prefetch,
        )
        self.state = State.PAUSED

    def _give_way(self) -> bool:
        """Another run wants the bus: a paused replay ends for it, so that re-running a cell is harmless."""
        if self.state is State.RUNNING:
            return False
        self._leave()
        self.state = State.CLOSED
        return True

    def _leave(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.end()

    def _forget(self) -> None:
        """Back to the start: the next run is a fresh one."""
        self._leave()
        self._source = self._pending = self._transcript = None
        self._delivered = self._emitted = self._filtered = self._log_sequence = 0
        self._elapsed_s = 0.0
        self.state = State.READY

    async def _drive(self, events: int, bar: tqdm[Any] | None) -> None:
        if self.state is State.DONE:
            return
        run = self._run
        assert run is not None
        self.state = State.RUNNING
        begin = time.perf_counter()
        last = self._delivered + events
        try:
            more, work = True, Work(0, 0, False, False)
            while more and self._delivered < last:
                work = run.work(last - self._delivered, time.perf_counter_ns() + self._slice_ns)
                self._delivered += work.handled
                self._emitted += work.emitted
                if bar is not None and work.handled:
                    bar.update(self._log_sequence - (self._wanted.start_log or 0) - bar.n)
                if work.awaiting:
                    await run.settle()
                elif work.idle:
                    more = await self._feed(run)
                await asyncio.sleep(0)
            # A step that took the last event ends the replay: nobody has to step once more to find that out.
            if not more or (work.idle and not await self._feed(run)):
                await self._finish(run)
        finally:
            self._elapsed_s += time.perf_counter() - begin
            if self.state is State.RUNNING:
                self.state = State.PAUSED

    async def _feed(self, run: BusRun) -> bool:
        """Queue the next rows; False when there are none."""
        assert self._source is not None
        while True:
            if self._pending is None:
                batch = await anext(self._source, None)
                if batch is None:
                    return False
                self._pending = self.selection.apply(batch)
                self._filtered += len(batch) - len(self._pending)
            taken = run.offer(self._pending)
            if taken:
                self._log_sequence = int(self._pending.records["log_sequence"][taken - 1]) + 1
            rest = self._pending[taken:]
            self._pending = rest if len(rest) else None
            if taken or self._pending is not None:
                return True

    async def _finish(self, run: BusRun) -> None:
        """Deliver what batch handlers wait for, and leave the bus."""
        run.finish()
        while True:
            work = run.work(1 << 62, time.perf_counter_ns() + self._slice_ns)
            self._delivered += work.handled
            self._emitted += work.emitted
            if work.awaiting:
                await run.settle()
            elif work.idle:
                break
            await asyncio.sleep(0)
        self._leave()
        self.state = State.DONE

    # -- looked at ------------------------------------------------------------------------------------------------

    @property
    def session(self) -> SessionInfo | None:
        """What the session held when the run began (None before)."""
        return self._info

    @property
    def delivered(self) -> int:
        """How many recorded events have been delivered in this run."""
        return self._delivered

    @property
    def position_ns(self) -> int:
        """The virtual time that the run has reached, in ns UTC."""
        return self.clock.now_ns()

    @property
    def digest(self) -> str:
        """XXH3-128 of all rows delivered and emitted so far, with names for ids: 32 hexadecimal digits."""
        if self._transcript is None:
            raise ReplayError("nothing has been delivered yet: await replay.run(), or replay.step()")
        return self._transcript.digest

    def statistics(self) -> ReplayStatistics:
        """Counts of the current run; cheap."""
        counts = self._transcript.counts if self._transcript is not None else {}
        return ReplayStatistics(
            state=self.state.value,
            delivered=self._delivered,
            emitted=self._emitted,
            filtered=self._filtered,
            position_ns=self.position_ns,
            log_sequence=min(self._log_sequence, MAX_LOG_SEQUENCE),
            elapsed_s=self._elapsed_s,
            counts={event_type.topic: count for event_type, count in counts.items() if count},
        )

    def _nothing_left(self) -> str:
        filters = [f"{name}=" for name in ("symbols", "where") if getattr(self.selection, name) is not None]
        return (
            f"{' and '.join(filters) or 'the range'} left none of the {self._filtered:,} events that session "
            f"{self.session_name!r} has in this range: widen it"
        )

    def __repr__(self) -> str:
        at = f", at {format_time(self.position_ns)}" if self._delivered else ""
        return f"Replay({self.session_name}: {self.state.value}, {self._delivered:,} events{at})"

    def _repr_html_(self) -> str:
        shown = self.statistics()
        rate = f"{shown.delivered / shown.elapsed_s:,.0f} events/s" if shown.elapsed_s > 0 else ""
        cells = {
            "state": shown.state,
            "events": f"{shown.delivered:,}" + (f" of {self._info.events:,} in the session" if self._info else ""),
            "emitted": f"{shown.emitted:,}",
            "at": format_time(shown.position_ns) if shown.delivered else "",
            "rate": rate,
            "digest": self.digest if self._transcript is not None else "",
        }
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in cells.items())
        return f"<div><b>Replay</b> of {html.escape(self.session_name)}<table>{rows}</table></div>"


async def _close(source: AsyncIterator[EventBatch]) -> None:
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
