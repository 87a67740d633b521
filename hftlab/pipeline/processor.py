"""``EventProcessor``: from Redis Streams to handlers, each event once, through any crash."""

from __future__ import annotations

import asyncio
import html
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hftlab.clock import Clock, SystemClock
from hftlab.errors import GroupLost, NotStarted, ServerRefused, ServerUnreachable, ValidationError, shown
from hftlab.events.group_ports import Checkpoint, Effect, GroupConsumer, GroupLog, Holder, Letter
from hftlab.events.ports import RunBus
from hftlab.metrics.journeys import Latency
from hftlab.pipeline.dead_letters import DeadLetterList
from hftlab.pipeline.letterbox import Letterbox
from hftlab.pipeline.life import Life
from hftlab.pipeline.losses import Losses
from hftlab.pipeline.refusals import MOST_KEPT as MOST_REFUSED
from hftlab.pipeline.refusals import RefusedList
from hftlab.pipeline.retries import MOST_KEPT
from hftlab.pipeline.serving import Serving
from hftlab.pipeline.settings import ProcessorSettings
from hftlab.pipeline.spill import SpillFile
from hftlab.pipeline.statistics import ProcessorStatistics, State, StopReport, describe, picture
from hftlab.pipeline.transactions import Transaction
from hftlab.sequence import GapTable
from hftlab.supervise import Supervisor, within

STOP_S = 10.0


class EventProcessor:
    """Reads a session as the member of a consumer group, and takes each event through the bus's handlers once.

    Made by ``Lab.processor``. ``await start()``, and it follows the session from where the group stands: first what is
    recorded, then what is appended, without a seam; and into the session's successor. In between it commits: its
    position, the effects of your transactions, the dead letters and the acknowledgements, in one atomic step. When it
    crashes, another process, or a restart, goes on there: what was handled since the last commit is handled again, and
    its effects happen once.

    Of a group's processors one is active at a time; the others stand by, and take over when its lease runs out, or at
    once when it stops, or died on the same machine. To work in parallel, give each shard of your symbols a session (or
    a lab) of its own: order holds within a session.

    It is a run on the bus: handlers see the events in the log's total order and by its clock, whatever their priority;
    async handlers are awaited in line; nothing is shed. When handlers are slow, less is read, and the lag grows.
    """

    def __init__(
        self,
        log: GroupLog,
        bus: RunBus,
        settings: ProcessorSettings,
        *,
        spill: Path | None = None,
        clock: Clock | None = None,
        key: Callable[[str], str] = str,
    ) -> None:
        self.settings = settings
        self._log, self._bus, self._key = log, bus, key
        self._clock: Clock = clock or SystemClock()
        self._changed = asyncio.Event()
        letterbox = Letterbox(
            self._clock.now_ns, policy=settings.retry, spill=None if spill is None else SpillFile(spill)
        )
        self._serving = Serving(log, bus, settings, letterbox, self._clock, self._tell)
        self._supervisor = Supervisor(f"the processor {settings.group}")
        self._restart = settings.restart

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Become a member of the group, and go on from its checkpoint in the background. Harmless while it runs.

        Raises UnknownSession, BusBusy while another run is on the bus, StreamErrors; and BackgroundFailed, once, for
        what ended it before.
        """
        self._supervisor.raise_failure()
        if self.running:
            return self
        self._bus.refuse_handlers("start a processor")
        await self._supervisor.close()
        await self._serving.begin(restart=self._restart)
        self._restart = False
        self._supervisor.start(serve=self._serving.serve)
        return self

    async def stop(self, *, deadline_s: float | None = None) -> StopReport:
        """Read no more, finish what was taken in, commit it, and let the next member be active at once.

        What is not finished within ``deadline_s`` (10 s, or what is left of that where the process was told to end) is
        cut off: the report names it, and a RuntimeWarning; it is delivered again to whoever goes on. Cancelling cuts it
        off at once. Harmless when repeated. Raises BackgroundFailed, once, for what ended it before.
        """
        self._bus.refuse_handlers("stop a processor")
        try:
            if self.running:
                self._serving.stop()
                async with asyncio.timeout(within(deadline_s, STOP_S)):
                    await self._serving.ended.wait()
        except TimeoutError:
            pass
        finally:
            await self._supervisor.close()
            report = StopReport.of(self._serving)
            if report.cut_off:
                warnings.warn(str(report), RuntimeWarning, stacklevel=2)
        self._supervisor.raise_failure()
        return report

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor failed."""
        return self._supervisor.running and not self._serving.ended.is_set()

    # -- working with it ----------------------------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        """Commands on keys of yours that happen with the next checkpoint, once: ``async with … as tx: tx.incr("n")``.

        For handlers; a handler that is not async writes ``with``. The block's end raises NotStarted where this
        processor is not the active one, since nothing would save it.
        """
        return Transaction(self._add_effects)

    def key(self, key: str) -> str:
        """The whole name of a key of yours in Redis, for any client; ``lab.streams.value(key)`` reads it."""
        return self._key(key)

    async def checkpoint(self) -> Checkpoint:
        """Commit what was handled, and return what is saved. Raises NotStarted where it is not active."""
        self._bus.refuse_handlers("checkpoint")
        life = await self._soon_active()
        cuts = self._serving.tally.cuts
        life.want_commit()
        while self._serving.life is life:
            committing = life.committing
            if not committing.busy and (self._serving.tally.cuts > cuts or not life.dirty):
                return committing.checkpoint
            await self._change()
        self._supervisor.raise_failure()
        return self._serving.checkpoint

    async def drain(self) -> None:
        """Wait until all that the session holds now is handled, with the letters of ``redrive``, and that is committed.

        Where the session is known to have a successor, that one's events are waited for, too. Standing by, this waits
        until the active member has done so. Events that are held, because numbers before them are missing, are not
        waited for. Raises NotStarted, and BackgroundFailed.
        """
        self._bus.refuse_handlers("drain")
        # First of all: of what ended it, its session's end may be a part.
        self._supervisor.raise_failure()
        info = await self._log.session(self.settings.session)
        while True:
            if not self.running:
                # What ended its task is told a turn of the loop after the end.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            self._supervisor.raise_failure()
            if not self.running:
                raise NotStarted("the processor does not run: await processor.start() first")
            life, consumer = self._serving.life, self._serving.consumer
            if life is not None:
                committing = life.committing
                done = committing.checkpoint.log_sequence >= info.events
                done = done and not self._serving.retries.redriving and not committing.settling
                if life.consumer.session.number != info.number:
                    # A session that has a successor goes on in it.
                    info = await self._log.session(life.consumer.session.name)
                    continue
                if done and not committing.busy and not life.successor and not life.unread and not info.successor:
                    return
                if info.successor and not life.successor:
                    life.readers.nudge(life.consumer.types)  # they don't know of it yet
                life.want_commit()
            elif consumer is not None and not self._serving.active and await self._backlog(consumer) == 0:
                return
            await self._change()

    async def letters(self, count: int = MOST_KEPT) -> DeadLetterList:
        """The first ``count`` dead letters that the group keeps, the oldest first, those included that will be tried
        again; a round trip for 256. Raises NotStarted, StreamErrors."""
        consumer = self._serving.consumer
        if consumer is None or not self.running:
            raise NotStarted("the processor does not run: await processor.start() first")
        return DeadLetterList(await consumer.letters(count=count))

    async def redrive(self, letters: Letter | str | Sequence[Letter | str] | None = None) -> int:
        """Try letters again now, by the handlers that failed on them (None: all); returns how many events those are.

        ``letters`` are some of ``letters()``, or their ids. Those that are not kept any more, and those of rows that no
        handler was given (a check refused them), are passed over.

        For after a handler was mended. A letter is gone when its handler has done it; else it is kept with the new
        error. ``await processor.drain()`` waits for it. Raises NotStarted where this processor is not active.
        """
        life = await self._soon_active()
        # Only those that are still kept: a cell that is run again must not try again what was done by then.
        kept = list(await self.letters())
        if self._serving.life is not life:
            return await self.redrive(letters)
        wanted = [letters] if isinstance(letters, Letter | str) else kept if letters is None else list(letters)
        for one in wanted:
            if not isinstance(one, Letter | str) or (isinstance(one, Letter) and not one.letter_id):
                raise ValidationError(
                    f"redrive takes letters that are kept, of processor.letters(), or their ids; got {shown(one)}"
                )
        ids = {one if isinstance(one, str) else one.letter_id for one in wanted}
        count = self._serving.retries.redrive([letter for letter in kept if letter.letter_id in ids])
        life.wake()
        return count

    # -- looked at ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where it is in its life, or what is wrong."""
        return self.statistics().state

    @property
    def holder(self) -> Holder | None:
        """The group's active member, as far as this one knows."""
        consumer = self._serving.consumer
        return None if consumer is None else consumer.holder

    @property
    def gaps(self) -> GapTable:
        """The gaps in the sources' numbers: ``.to_frame()``, ``.give_up()`` …"""
        return self._serving.stage.gaps

    @property
    def latency(self) -> Latency:
        """Where the time of its events goes since it last became the active member, stage by stage: ``.figure()``,
        ``.to_frame()``. From append to read by the server's clock, else by this machine's."""
        journey = self._serving.journey
        return Latency(*(() if journey is None else (journey,)), name=f"processor {self.settings.group}")

    @property
    def losses(self) -> Losses:
        """Events that were gone from the log when their turn came: trimmed, or deleted. ``.to_frame()``."""
        return self._serving.losses

    @property
    def refused_effects(self) -> RefusedList:
        """The latest 100 transactions that the server would not do, and its words: ``.to_frame()``."""
        life = self._serving.life
        refused = [*self._serving.tally.refused, *(() if life is None else life.committing.refused)]
        return RefusedList(refused[-MOST_REFUSED:])

    def statistics(self) -> ProcessorStatistics:
        """Counts since it was made; about 0.1 ms."""
        return picture(self.settings, self._serving, self._supervisor.failure)

    def __repr__(self) -> str:
        return describe(self.statistics())

    def _repr_html_(self) -> str:
        shown = self.statistics()
        return f"<div><b>{html.escape(describe(shown))}</b>{shown._repr_html_()}</div>"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _active(self) -> Life:
        self._supervisor.raise_failure()
        life = self._serving.life
        if life is None:
            holder = self.holder
            who = f"{holder.name} is" if self.running and holder is not None else "it does not run"
            raise NotStarted(f"this processor is not the active member of its group: {who}")
        return life

    async def _backlog(self, consumer: GroupConsumer) -> int | None:
        """How many rows lie beyond the group's position; None where the server can't say now."""
        try:
            return await consumer.backlog()
        except (ServerUnreachable, ServerRefused, GroupLost):
            return None  # it is tried again; what can't be mended ends the processor, and is raised

    async def _soon_active(self) -> Life:
        """The active member's life, which one that has just got the group is about to begin."""
        while self.running and self._serving.active and self._serving.life is None:
            await self._change()
        return self._active()

    def _add_effects(self, effects: tuple[Effect, ...]) -> None:
        self._active().committing.add(effects)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _change(self) -> None:
        """Wait until something happened, at most for half a second."""
        try:
            async with asyncio.timeout(0.5):
                await self._changed.wait()
        except TimeoutError:
            pass
