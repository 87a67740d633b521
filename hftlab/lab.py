"""``Lab``: the parts put together, for a notebook or a script."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import html
import math
import os
import re
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from hftlab.bus import EventBus, Flow, Priorities
from hftlab.bus.bus import DEFAULT_CAPACITY
from hftlab.clock import Clock, SystemClock
from hftlab.clock.ntp import NtpPoller
from hftlab.compiling import compile_kernels
from hftlab.ending import close_with_process
from hftlab.errors import HandlerFailed, NotStarted, ValidationError, shown
from hftlab.events.frames import DEFAULT_ROWS
from hftlab.events.records import EventType
from hftlab.events.types import Event
from hftlab.metrics.journeys import Latency
from hftlab.pipeline import EventProcessor, ProcessorSettings, RetryPolicy
from hftlab.pipeline.settings import named
from hftlab.pipeline.statistics import State
from hftlab.replay import Replay, Selection
from hftlab.replay.replay import DEFAULT_PREFETCH
from hftlab.sequence import GapTable, Ordering
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.ranges import wanted_types
from hftlab.streams.sinks import Sink, Sinks
from hftlab.streams.sinks.choosing import Choice
from hftlab.streams.sinks.options import Mode, OnFull, SinkOptions
from hftlab.streams.urls import read_address
from hftlab.supervise import Supervisor, within

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.clock import Skew
    from hftlab.clock.times import Time
    from hftlab.doctor import Report
    from hftlab.pipeline.settings import Checks, Transforms
    from hftlab.replay.selection import Where
    from hftlab.streams.ranges import Types

CLOSE_S = 5.0
"""How long a lab that is closed goes on with what is in flight, unless it is told otherwise."""

_FLUSH_S = 0.5


class Lab:
    """A server with recorded sessions, a bus, and the background work between them.

    ``url`` is a Redis or Valkey server of yours (``redis://``, ``rediss://`` for TLS or ``unix://``, and for a Redis
    Cluster ``redis+cluster://host:port,host2:port2/`` or ``rediss+cluster://…``; the environment variable HFTLAB_URL
    where it is None). Without either, ``start`` starts an embedded server whose data lie in ``directory``,
    or shares the one that another notebook runs there, and takes it over when that one ends.
    ``session`` names what is recorded without another name; by default, the UTC time of the start. ``frame_rows`` is
    how many rows one entry of a stream holds, ``capacity`` how many a lane of the bus queues of each type. ``ordering``
    says how long to wait for missing numbers, and which types never skip one; ``priorities`` which lane an event goes
    to, and ``flow`` what gives way when more comes in than the handlers take.

    ``ntp`` names the servers that this machine's time is compared with, in the background, and slewed to (the
    environment variable HFTLAB_NTP, with commas between, where it is None; nobody is asked without either): see
    ``system_clock`` and ``ntp``. ``journeys``: of so many events the way of one is timed (0: of none), see ``latency``.

    ``await lab.start()`` and ``await lab.close()`` may stand in different cells and be run again; in a script, write
    ``async with hl.Lab() as lab``.
    """

    def __init__(
        self,
        url: str | None = None,
        directory: str | os.PathLike[str] = ".hftlab",
        *,
        session: str | None = None,
        frame_rows: int = DEFAULT_ROWS,
        capacity: int | dict[EventType, int] = DEFAULT_CAPACITY,
        ordering: Ordering | None = None,
        priorities: Priorities | None = None,
        flow: Flow | None = None,
        ntp: Sequence[str] | str | None = None,
        journeys: int = 1,
    ) -> None:
        url = url or os.environ.get("HFTLAB_URL") or ""
        address = read_address(url) if url else None
        # No frame of ours keeps the URL: a traceback with local variables would show its password.
        url = ""
        if isinstance(address, ValidationError):
            raise address
        self.directory = Path(directory)
        self.ordering = ordering or Ordering()
        self.system_clock = SystemClock()
        servers = _ntp_servers(ntp)
        self.ntp = NtpPoller(servers, self.system_clock) if servers else None
        self.bus = EventBus(
            capacity=capacity,
            clock=self.system_clock,
            ordering=self.ordering,
            priorities=priorities,
            flow=flow,
            journeys=journeys,
        )
        self._journeys = journeys
        self._address = address
        self._session = session
        self._frame_rows = frame_rows
        self._server: EmbeddedServer | None = None
        self._streams: RedisStreamManager | None = None
        self._supervisor = Supervisor("lab")
        self._sinks = Sinks(self.bus, self._supervisor.add)
        self._processors: dict[tuple[str, str], EventProcessor] = {}
        self._starting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Start the server (or reach yours) and the bus's pump, on this loop. Idempotent.

        Raises ServerUnreachable, AuthenticationFailed, FolderInUse or FolderDamaged; nothing is left running then.
        """
        async with self._starting:
            self._supervisor.raise_failure()
            if self._supervisor.running:
                return self
            session = self._session or f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S}"
            address = self._address
            # Loading the kernels takes 0.2 s (compiling them, once on a machine, 10 s): beside the server's start.
            kernels = asyncio.get_running_loop().run_in_executor(None, compile_kernels)
            try:
                if address is None:
                    self._server = EmbeddedServer(self.directory)
                    await self._server.start()
                    address = self._server.address
                streams = RedisStreamManager(
                    address,
                    session=session,
                    frame_rows=self._frame_rows,
                    clock=self.system_clock,
                    journeys=self._journeys,
                )
                self._streams = streams
                await streams.open()
                await kernels
            except BaseException:
                await self._stop_streams()
                raise
            self._supervisor.start(pump=self.bus.pump)
            if self.ntp is not None:
                self._supervisor.add("ntp", self.ntp.run)
            self._loop = asyncio.get_running_loop()
            close_with_process(self)
            # The pump's first turn: from then on whoever publishes can wait for room.
            await asyncio.sleep(0)
            return self

    async def close(self, *, drain_s: float | None = None) -> None:
        """Handle what is queued, commit it and flush each sink (for at most ``drain_s``, 5 s), stop the pump, and leave
        the server, which ends with its last user. Idempotent; ``start`` works again. What sinks could not keep, and
        processors not finish, they warn of.

        Raises HandlerFailed, or BackgroundFailed, when all is closed, for a failure that no call has raised yet. Events
        that could not be handled in time are counted in a warning, and wait on the bus; but calls of async handlers
        that wait are given up, for they can't go on without this loop (``missed`` of their subscriptions). Cancelling
        cuts short what is in flight, and closes all the same.
        """
        async with self._starting:
            self._closing = True
            try:
                await self._close(within(drain_s, CLOSE_S))
            finally:
                self._closing = False
                self._loop = None

    async def _close(self, drain_s: float) -> None:
        end_at_s = time.monotonic() + drain_s
        cut_off: asyncio.CancelledError | None = None
        failures: list[BaseException] = []
        expired = False
        try:
            failures = await self._stop_processors(drain_s)
            expired = not await self._drain_bus(end_at_s - time.monotonic(), failures)
        except asyncio.CancelledError as error:
            cut_off, expired = error, True
        try:
            # Not before: what waited for missing numbers was accepted just now, and is to be kept. Whoever used up all
            # the time leaves the sinks a moment: a server that answers takes what they hold in that.
            flush_s = 0.0 if cut_off else max(end_at_s - time.monotonic(), min(drain_s, _FLUSH_S))
            await self._sinks.close(flush_s)
        finally:
            try:
                await self._supervisor.close()
            finally:
                shown = self.bus.statistics()
                given_up = self.bus.give_up_calls()
                await self._stop_streams()
        unhandled = shown.waiting + shown.held
        if (expired and unhandled) or given_up:
            message = f"the lab was closed with {unhandled:,} events unhandled after {drain_s:g} s"
            if given_up:
                message += f", and {given_up:,} in calls of async handlers that had not ended"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        if cut_off is not None:
            raise cut_off
        for failure in failures:
            raise failure
        self.bus.raise_failures()

    async def _stop_processors(self, drain_s: float) -> list[BaseException]:
        """Stop them all at once; returns what they raised."""
        processors, self._processors = list(self._processors.values()), {}
        # One that failed is stopped too: nobody may have seen that yet.
        known = [processor for processor in processors if processor.running or processor.state is State.FAILED]
        stopping = (processor.stop(deadline_s=drain_s) for processor in known)
        ends = await asyncio.gather(*stopping, return_exceptions=True)
        return [end for end in ends if isinstance(end, BaseException)]

    async def _drain_bus(self, drain_s: float, failures: list[BaseException]) -> bool:
        """Have handled what was published; whether there was time enough for it."""
        if self._supervisor.running and self._supervisor.failure is None and self.bus.run is None:
            # No more will come: what waits for missing numbers goes on without them.
            self.bus.end_session()
            try:
                async with asyncio.timeout(max(drain_s, 0.0)):
                    await self.bus.drain()
            except TimeoutError:
                return False
            except HandlerFailed as error:
                failures.append(error)
        return True

    async def _stop_streams(self) -> None:
        streams, self._streams = self._streams, None
        server, self._server = self._server, None
        try:
            if streams is not None:
                await streams.close()
        finally:
            if server is not None:
                await server.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except HandlerFailed:
            # What went wrong first is what the user has to see.
            if error is None:
                raise

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it was started on; None where it is closed."""
        return self._loop

    @property
    def closing(self) -> bool:
        """Whether somebody is closing it now."""
        return self._closing

    # -- parts ----------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> RedisStreamManager:
        """The recorded sessions. Raises NotStarted before ``start``, BackgroundFailed if the lab's own work died."""
        self._supervisor.raise_failure()
        if self._streams is None:
            raise NotStarted("this lab has no server yet: await lab.start() first")
        return self._streams

    @property
    def clock(self) -> Clock:
        """What a handler asks for the time: the running replay's clock, else this machine's."""
        return self.bus.clock

    @property
    def gaps(self) -> GapTable:
        """The gaps of the run that is, or was last, on the bus; after that, of what is published: ``.to_frame()`` …"""
        return self.bus.gaps

    @property
    def latency(self) -> Latency:
        """Where time goes, stage by stage, of the run that is, or was last, on the bus; after that, of what is
        published; and of what is appended: ``.figure()``, ``.to_frame()`` …"""
        shown = self.bus.latency
        appends = () if self._streams is None else self._streams.latency.journeys
        return Latency(*shown.journeys, *appends, name=shown.name)

    async def sessions(self) -> pd.DataFrame:
        """What is recorded, a row a session: start and end (arrival, UTC), events, counts by type, symbols, bytes, and
        ``trimmed``: the first log sequence that is still there; ``successor``: the session that goes on after it."""
        import pandas as pd

        self.bus.raise_failures()
        listed = await self.streams.sessions()
        bounds = {"start": [info.start_ns for info in listed], "end": [info.end_ns for info in listed]}
        data = {
            # An empty session has neither: pandas' missing time is the least of all int64.
            **{
                name: pd.DatetimeIndex(
                    np.array([ns or np.iinfo(np.int64).min for ns in column], "datetime64[ns]"), tz="UTC"
                )
                for name, column in bounds.items()
            },
            "events": [info.events for info in listed],
            **{t.topic: [info.counts.get(t.topic, 0) for info in listed] for t in EventType},
            "symbols": [", ".join(info.symbols[:10]) + (" …" if len(info.symbols) > 10 else "") for info in listed],
            "stored_bytes": [info.stored_bytes for info in listed],
            "trimmed": [info.trimmed for info in listed],
            "successor": [info.successor for info in listed],
        }
        return pd.DataFrame(data, index=pd.Index([info.name for info in listed], name="session"))

    async def doctor(self) -> Report:
        """What this machine's clock, stamps, memory and server are good for, and why: ``.to_frame()``, ``.text()``.

        Asks this lab's NTP servers and its server; 1 to 4 s.
        """
        from hftlab.doctor import examine

        return await examine(self)

    def replay(
        self,
        session: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        types: Sequence[type[Event] | EventType | str] | type[Event] | EventType | str | None = None,
        symbols: Sequence[str] | str | None = None,
        where: Where | None = None,
        speed: float = math.inf,
        max_gap_s: float | None = None,
        prefetch: int = DEFAULT_PREFETCH,
        bus: EventBus | None = None,
        ordering: Ordering | None = None,
        skew: Skew | None = None,
    ) -> Replay:
        """A replay of a recorded session, or of the part that the filters leave, on this lab's bus (or another).

        ``start`` (included) and ``end`` (not included) are times of arrival, bare times of day (UTC, within the
        session) or event ids. ``types`` are event classes, ``where`` takes records, a structured array of one type,
        and returns a boolean array. ``speed`` is 1 for real time by arrivals, ``math.inf`` flat out, 0 for stepping
        only; silences longer than ``max_gap_s`` are shortened to it. ``ordering`` replaces the lab's. ``skew``: how far
        the recorder's clock was off, such as an earlier replay's ``latency.skew``: it is taken off arrivals where their
        latency is shown, and nowhere else. Nothing is read before ``run``, ``play`` or ``step``, which raise for what
        does not fit.
        """
        selection = Selection(start=start, end=end, types=types, symbols=symbols, where=where)
        return Replay(
            self.streams,
            bus or self.bus,
            session,
            selection,
            speed=speed,
            max_gap_s=max_gap_s,
            prefetch=prefetch,
            ordering=ordering or self.ordering,
            skew=skew,
        )

    def keep(
        self,
        session: str | None = None,
        *,
        types: Types | None = None,
        symbols: Sequence[str] | str | None = None,
        mode: Mode = "behind",
        overflow: OnFull = "wait",
        flush_s: float = 0.02,
        frame_rows: int = 1_024,
        buffer_rows: int = 1 << 18,
        name: str = "sink",
    ) -> Sink:
        """Keep in a session (this lab's own) what the bus accepts: in sequence, each event once.

        ``mode="behind"``: in the background, frame by frame (``frame_rows``), and no event waits for longer than
        ``flush_s`` to be sent. The sink says what a crash would lose now. It holds up to ``buffer_rows`` events of 128
        bytes; where they are not acknowledged in time, ``overflow`` has publishers and sources "wait", drops and counts
        what finds no room ("drop newest"), or raises BusFull ("raise"). ``types`` and ``symbols`` choose.
        ``mode="ahead"``: ``await sink.publish(event)`` appends first and publishes then, so that handlers see nothing
        that is not kept. What handlers emit is not kept, and nothing of a run (a replay's events are kept already).

        Running the cell again returns the same sink. ``name`` is its writer's: another process that keeps into the same
        session under the same name takes over, and this sink fails. Raises NotStarted, ValidationError.
        """
        options = SinkOptions(Choice(types, symbols), mode, overflow, flush_s, frame_rows, buffer_rows, name)
        return self._sinks.keep(self.streams, session, options)

    def processor(
        self,
        group: str,
        session: str | None = None,
        *,
        types: Types | None = None,
        start: Time | None = None,
        restart: bool = False,
        validate: Checks = None,
        transform: Transforms = None,
        ordering: Ordering | None = None,
        retry: RetryPolicy | None = None,
        checkpoint_s: float = 0.25,
        lease_s: float = 10.0,
        name: str | None = None,
        bus: EventBus | None = None,
    ) -> EventProcessor:
        """A processor that takes a session (this lab's own) through the bus's handlers, once, through any crash.

        ``group`` is whose position it goes on from: one that is new begins at ``start``, which is ``"start"`` (None),
        ``"now"``, a time, or an event id; with ``restart``, one that exists is moved there by the next ``start()``.
        ``types`` are event classes. ``validate`` are functions from records (a structured array of one type) to a
        boolean array, False for a dead letter; ``transform`` are functions from an EventBatch to another one, or None
        for nothing; both may be one, several, or a dict by name. ``retry`` says when failed calls are made again,
        ``checkpoint_s`` how long what is handled waits for its commit, ``lease_s`` how long a member that died without
        a word keeps the group. ``ordering`` replaces the lab's, ``bus`` the lab's bus.

        Running the cell again returns the processor that runs. Nothing is read before ``await processor.start()``.
        """
        streams = self.streams
        if bus is not None and not isinstance(bus, EventBus):
            raise ValidationError(f"bus is an hl.EventBus, or None for the lab's own; got {shown(bus)}")
        chosen = streams.session_name if session is None else session
        known = self._processors.get((group, chosen))
        if known is not None and known.running:
            return known
        settings = ProcessorSettings(
            group=group,
            session=chosen,
            types=wanted_types(types),
            start=start,
            restart=restart,
            validate=named("validate", validate),
            transform=named("transform", transform),
            ordering=ordering or self.ordering,
            retry=retry or RetryPolicy(),
            checkpoint_s=checkpoint_s,
            lease_s=lease_s,
            name=name,
        )
        # Readable, and another one for each pair of names.
        digest = hashlib.sha256(f"{chosen}\0{group}".encode()).hexdigest()[:12]
        readable = re.sub("[^A-Za-z0-9_.-]", "_", f"{chosen}-{group}")[:80]
        spill = self.directory / "letters" / f"{readable}-{digest}.spill"
        processor = EventProcessor(
            streams, bus or self.bus, settings, spill=spill, key=streams.key, clock=self.system_clock
        )
        self._processors[group, chosen] = processor
        return processor

    # -- looked at ------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        where = str(self.directory if self._address is None else self._address)
        failure = self._supervisor.failure
        if failure is not None:
            return f"Lab({where}: FAILED, {type(failure).__name__}: {failure}; await lab.close(), then start it again)"
        failed = sorted({subscription.name for subscription in self.bus.subscriptions if subscription.failed})
        if failed:
            return f"Lab({where}: {self._state}; failed handlers: {', '.join(failed)}; see lab.bus)"
        return f"Lab({where}: {self._state})"

    @property
    def _state(self) -> str:
        if not self._supervisor.running:
            return "not started"
        server = "ok" if self._streams is None else self._streams.state
        return "started" if server == "ok" else f"started; its server is {server}"

    def _repr_html_(self) -> str:
        parts = [
            part._repr_html_()
            for part in (self._streams, self.bus, *self._sinks, *self._processors.values())
            if part is not None
        ]
        return f"<div><b>{html.escape(repr(self))}</b>{''.join(parts)}</div>"


def _ntp_servers(ntp: Sequence[str] | str | None) -> tuple[str, ...]:
    named = os.environ.get("HFTLAB_NTP", "") if ntp is None else ntp
    listed = named.split(",") if isinstance(named, str) else list(named) if isinstance(named, Iterable) else [named]
    if not all(isinstance(one, str) for one in listed):
        raise ValidationError(f"ntp names servers, such as ['time.example.org']; got {shown(ntp)}")
    return tuple(one.strip() for one in listed if one.strip())
