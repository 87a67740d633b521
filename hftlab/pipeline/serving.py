"""``Serving``: a processor as a member of its group: it stands by, lives, follows, and stands by again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from hftlab.clock import Clock, VirtualClock
from hftlab.errors import BusBusy, GroupLost, GroupTaken, ServerRefused, ServerUnreachable, StreamError, UnknownSession
from hftlab.events.group_ports import Checkpoint, GroupConsumer, GroupLog
from hftlab.events.ports import BusRun, RunBus
from hftlab.events.records import event_id
from hftlab.metrics.journeys import Journey
from hftlab.pipeline.letterbox import Letterbox
from hftlab.pipeline.life import End, Life
from hftlab.pipeline.losses import Losses
from hftlab.pipeline.passage import Passage
from hftlab.pipeline.retries import MOST_KEPT, Retries
from hftlab.pipeline.settings import ProcessorSettings
from hftlab.pipeline.statistics import State
from hftlab.pipeline.tally import Tally
from hftlab.sequence.memory import StageMemory
from hftlab.sequence.stage import OrderStage

T = TypeVar("T")

_LOOK_S = 0.5
"""How often a member that stands by looks whether it can be active, at least."""
_RELEASE_S = 2.0
_EVER = 1 << 62
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Serving:
    """Owns the membership, the run on the bus and the lives; ``EventProcessor`` starts and stops it.

    ``changed`` is called whenever something happened that somebody may wait for.
    """

    def __init__(
        self,
        log: GroupLog,
        bus: RunBus,
        settings: ProcessorSettings,
        letterbox: Letterbox,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.state = State.NEW
        self.consumer: GroupConsumer | None = None
        self.active = False
        """Whether it has the group: it lives, or is about to."""
        self.life: Life | None = None
        self.passage: Passage | None = None
        self.stage = OrderStage(settings.ordering, bus.symbols, bus.sources)
        self.journey: Journey | None = None
        self.checkpoint = Checkpoint()
        self.tally = Tally()
        self.losses = Losses()
        self.letterbox = letterbox
        self.retries = Retries(letterbox)
        self.trouble: StreamError | None = None
        self.takeovers = self.cut_off = 0
        self.ended = asyncio.Event()
        self._log, self._bus, self._settings, self._clock, self._changed = log, bus, settings, clock, changed
        self._run: BusRun | None = None
        self._run_clock = VirtualClock()
        self._stopping = asyncio.Event()
        self._stood_at = -1  # where the group stood, as long as nobody else was active since
        self._lost_at: float | None = None

    # -- beginning and ending -----------------------------------------------------------------------------------------

    async def begin(self, *, restart: bool) -> None:
        """Become a member, and the active one if that is possible at once. Raises UnknownSession, BusBusy, …"""
        settings = self._settings
        self.ended, self._stopping = asyncio.Event(), asyncio.Event()
        self.cut_off, self.trouble = 0, None
        self.letterbox.forget()
        self._stood_at, self._lost_at = -1, None
        consumer = await self._member(settings.session, settings.start, restart)
        try:
            checkpoint = await consumer.acquire()
            if checkpoint is not None:
                self.checkpoint = checkpoint
                await self._bus.drain()
                self._begin_run()
        except BaseException:
            await self._leave(consumer)
            raise
        self.consumer = consumer
        self.state = State.STANDING_BY if checkpoint is None else State.CATCHING_UP
        self.active = checkpoint is not None

    def stop(self) -> None:
        """Finish what was taken in, commit, leave."""
        self.state = State.STOPPING
        self._stopping.set()
        if self.life is not None:
            self.life.stop()

    async def serve(self) -> None:
        """Be a member until told to stop. Raises GroupLost where the session is gone, and what can't be mended."""
        goes_on = False
        try:
            while not self._stopping.is_set():
                if not self.active:
                    self.active = await self._stand_by()
                elif self._run is None:
                    self.active = await self._take_bus()
                else:
                    end = await self._live(goes_on)
                    goes_on = end is End.SUCCEEDED
                    if end is End.STOPPED:
                        break
                    self.active = False
                    if end is End.TAKEN:
                        # What it had not committed is the next member's.
                        self.cut_off = 0
                        self._end_run()
        finally:
            self.life, self.active = None, False
            self._end_run()
            if self.consumer is not None:
                await self._leave(self.consumer)
            self.state = State.STOPPED
            self.ended.set()
            self._changed()

    # -- standing by --------------------------------------------------------------------------------------------------

    async def _stand_by(self) -> bool:
        """Try to be the active one; whether it is."""
        assert self.consumer is not None
        try:
            checkpoint = await self._patiently(self.consumer.acquire)
            self._lost_at = None
        except GroupLost as lost:
            await self._wait_for_group(lost)
            return False
        if checkpoint is not None:
            self.checkpoint, self._stood_at = checkpoint, checkpoint.log_sequence
            self.cut_off = 0
            return True
        self._stood_at = -1
        self.state = State.STANDING_BY
        self._changed()
        await self._pause(min(_LOOK_S, self._settings.lease_s / 4))
        return False

    async def _take_bus(self) -> bool:
        """Have a run on the bus; False while somebody else has."""
        assert self.consumer is not None
        try:
            self._begin_run()
            return True
        except BusBusy:  # somebody's run, or published events that wait for the pump
            self.state = State.WAITING
            self._changed()
            # Another member may have a bus that is free.
            await self._patiently(self.consumer.release)
            self._stood_at = -1
            await self._pause(_LOOK_S)
            return False

    def _begin_run(self) -> None:
        self._run_clock = VirtualClock()
        # Order, gaps and duplicates begin anew: what was taken in and not committed comes again.
        self.stage = OrderStage(self._settings.ordering, self._bus.symbols, self._bus.sources)
        self.journey = self._bus.new_journey("processor")
        self._run = self._bus.begin_run(
            f"the processor {self._settings.group} of {self._settings.session}",
            self._run_clock,
            gaps=self.stage.gaps,
            journey=self.journey,
        )
        self._port_before, self._bus.dead_letters.port = self._bus.dead_letters.port, self.letterbox
        self.passage = None

    def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        self._bus.dead_letters.port = self._port_before
        if not run.ended:
            run.end()
        # The letters of what was not committed, if there are any: it comes again, and fails again.
        self.letterbox.forget()
        if self.passage is not None:
            self.tally.keep(self.passage)
            self.passage = None

    # -- living -------------------------------------------------------------------------------------------------------

    async def _live(self, goes_on: bool) -> End:
        """Be the active member of one session's group. ``goes_on``: after its predecessor, with the same stage."""
        run, consumer, checkpoint = self._run, self.consumer, self.checkpoint
        assert run is not None
        assert consumer is not None
        self.takeovers += 1
        if self.passage is None:
            settings = self._settings
            self.passage = Passage(
                run, self._run_clock, self.stage, settings.validate, settings.transform, self.letterbox.add_invalid
            )
        if checkpoint.state and not self.passage.taken:
            self.stage.recall(msgspec.msgpack.decode(checkpoint.state, type=StageMemory))
        self.retries.reset(await self._patiently(lambda: consumer.letters(due_before_ns=_EVER, count=MOST_KEPT)))
        self.letterbox.session_number = consumer.session.number
        life = Life(
            consumer, checkpoint, run, self._run_clock, self.passage, self.letterbox, self.retries, self.losses,
            self.tally, self._clock.now_ns,
            checkpoint_s=self._settings.checkpoint_s, lease_s=self._settings.lease_s, on_change=self._changed,
            journey=self.journey,
        )  # fmt: skip
        self.life, self.state = life, State.CATCHING_UP
        self._changed()
        end = End.TAKEN
        try:
            if self._stopping.is_set():
                life.stop()
            end = await life.live()
        except GroupTaken:
            self._stood_at = -1
        except GroupLost as lost:
            self._stood_at = life.committing.checkpoint.log_sequence
            end = await self._group_lost(lost)
        except KeyboardInterrupt as interrupt:
            self._stood_at = -1
            await self._interrupted(interrupt, life)
        finally:
            self.life = None
            self.checkpoint = life.committing.checkpoint
            self.cut_off = life.uncommitted
            self.tally.add(life.committing)
            self._changed()
        if end is End.SUCCEEDED:
            await self._leave(consumer)
            self.consumer = await self._patiently(lambda: self._member(life.successor, None, False))
        return end

    async def _interrupted(self, interrupt: KeyboardInterrupt, life: Life) -> None:
        """It was raised in whatever ran just now, say in a handler. It is for whoever runs the loop, as asyncio has it,
        and no reason to end. But a call that it cut short may have done half of its work: begin anew at the checkpoint,
        as after a crash."""
        if not life.raised(interrupt):
            asyncio.get_running_loop().call_soon(_raise, interrupt)
        assert self.consumer is not None
        try:
            await self._patiently(self.consumer.release)
        except StreamError as error:  # told to stop meanwhile
            self.trouble = error

    async def _group_lost(self, lost: GroupLost) -> End:
        """The group is gone. Where its session is still there, it is made again where this member stands."""
        assert self.consumer is not None
        session, self.state = self.consumer.session, State.AWAY
        at = event_id(session.number, self._stood_at)
        try:
            fresh = await self._patiently(lambda: self._member(session.name, at, False))
        except UnknownSession:
            raise lost from None
        if fresh.session.number != session.number:
            await self._leave(fresh)
            raise lost
        self.tally.groups_lost += 1
        await self._leave(self.consumer)
        self.consumer = fresh
        return End.TAKEN

    async def _wait_for_group(self, lost: GroupLost) -> None:
        """Whoever was active last knows where the group stood, and makes it again; others give it time to do so."""
        if self._stood_at >= 0:
            await self._group_lost(lost)
            return
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        if now - self._lost_at > self._settings.lease_s:
            raise lost
        await self._pause(min(_LOOK_S, self._settings.lease_s / 4))

    # -- membership ---------------------------------------------------------------------------------------------------

    async def _member(self, session: str, start: Any, restart: bool) -> GroupConsumer:
        settings = self._settings
        return await self._log.member(
            session, settings.group, types=settings.types, start=start, restart=restart, name=settings.name,
            lease_s=settings.lease_s, symbols=self._bus.symbols, sources=self._bus.sources,
        )  # fmt: skip

    async def _leave(self, consumer: GroupConsumer) -> None:
        """Give the lease back, if the server can be told within 2 s; else it runs out."""
        try:
            async with asyncio.timeout(_RELEASE_S):
                await consumer.release()
        except (StreamError, TimeoutError) as error:
            self.trouble = error if isinstance(error, StreamError) else self.trouble
        finally:
            await consumer.close()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the server for as long as it takes, or until told to stop."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                result = await call()
                self.trouble = None
                return result
            except (ServerUnreachable, ServerRefused) as error:
                self.trouble = error
                if self._stopping.is_set():
                    raise
            self._changed()
            await self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _pause(self, seconds: float) -> None:
        """Wait; less if told to stop."""
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _raise(error: BaseException) -> None:
    raise error
