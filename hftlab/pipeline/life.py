"""``Life``: the time for which a processor is the active member of its group in one session.

The bus is driven in slices. Whenever it has handled all that it was given, and it is time for it, a *cut* is made:
batch handlers get what they have waited for, and what is then true is committed in one step (see ``committing``): the
position, what is held before it, the users' effects, the dead letters. Handling goes on while that is on its way.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from hftlab.errors import BackgroundFailed, GroupLost, GroupTaken, StreamError
from hftlab.events.batch import EventBatch
from hftlab.events.group_ports import Checkpoint, GroupConsumer, GroupPage, Letter
from hftlab.events.ports import BusRun, DrivenClock
from hftlab.events.records import EventType
from hftlab.metrics.journeys import Journey, Stage
from hftlab.pipeline.committing import Committing
from hftlab.pipeline.letterbox import Letterbox
from hftlab.pipeline.losses import Losses
from hftlab.pipeline.merging import StreamMerge
from hftlab.pipeline.outgoing import Outgoing
from hftlab.pipeline.passage import Passage, Told
from hftlab.pipeline.reading import Readers
from hftlab.pipeline.retries import Retries
from hftlab.pipeline.tally import Tally

SLICE_NS = 400_000
MOST_UNCOMMITTED = 1 << 20
"""How many rows are handled beyond the last commit, at most, while the server does not take the next one."""

MOST_EFFECTS = 10_000
"""How many commands wait for a commit before one is made."""


RETRIED_WITHIN_NS = 10_000_000_000
"""How far ahead a letter may be due for a session to be followed into its successor only after it was tried again."""


class End(enum.Enum):
    """Why a life ended."""

    STOPPED = "it was told to stop"
    SUCCEEDED = "the session has a successor, and all of it is handled"
    TAKEN = "another member of the group took over"


class Life:
    """Reads, handles and commits until it is told to stop, or has to. Made with the lease and a run on the bus.

    ``checkpoint_s`` is how long what was handled waits for its commit.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        checkpoint: Checkpoint,
        run: BusRun,
        clock: DrivenClock,
        passage: Passage,
        letterbox: Letterbox,
        retries: Retries,
        losses: Losses,
        tally: Tally,
        now_ns: Callable[[], int],
        *,
        checkpoint_s: float,
        lease_s: float,
        on_change: Callable[[], None],
        journey: Journey | None = None,
    ) -> None:
        self.consumer = consumer
        self.events = consumer.session.events
        self.successor = ""
        self.unread = set(consumer.types)
        """The streams of which nothing is known so far."""
        self._from = checkpoint.log_sequence
        self.merge = StreamMerge(consumer.types, checkpoint.log_sequence, checkpoint.held)
        self.readers = Readers(consumer, self.merge, self._page, self.wake)
        self._outgoing = Outgoing(letterbox)
        self.committing = Committing(
            consumer, checkpoint, now_ns, on_saved=self._saved, on_trouble=self._outgoing.trouble, wake=self.wake
        )  # fmt: skip
        self._run, self._clock, self._passage = run, clock, passage
        self._letterbox, self._retries, self._losses, self._tally = letterbox, retries, losses, tally
        self._now_ns, self._checkpoint_s, self._lease_s = now_ns, checkpoint_s, lease_s
        self._on_change = on_change
        self._journey = journey
        self._read: dict[EventType, deque[list[int]]] = {one: deque() for one in consumer.types}  # rows, and since when
        self._counted = (run.handled, run.emitted)
        self._woken = asyncio.Event()
        self._stopping = self._wanted = self._ending = self._to_acknowledge = False
        self._flushed = True
        self._cut_at = time.monotonic()
        self._moved_at = self._behind_since = time.monotonic()
        self._lease_failure: StreamError | None = None
        self._broken: BaseException | None = None

    # -- from outside -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look again at once at what there is to do."""
        self._woken.set()
        self._on_change()

    def stop(self) -> None:
        """Take nothing more in, finish what was, commit, and end."""
        self._stopping = True
        self.wake()

    def want_commit(self) -> None:
        """Commit at the next cut, however recent the last one is."""
        self._wanted = True
        self.wake()

    @property
    def caught_up(self) -> bool:
        """Whether all that the session is known to have was taken in."""
        return self.merge.empty and self.merge.position >= self.events and self._passage.pressed is None

    @property
    def behind_s(self) -> float:
        """For how long something of what the session is known to have was not taken in."""
        return 0.0 if self.caught_up else time.monotonic() - self._behind_since

    @property
    def position(self) -> int:
        """Every row before it was taken in, but for those that are held."""
        position, pressed = self.merge.position, self._passage.pressed
        if pressed is None:
            return position
        # Below where this life began there are only held rows, and a group's position never goes back.
        logs = pressed.records["log_sequence"]
        return int(next(iter(logs[np.searchsorted(logs, self._from) :]), position))

    @property
    def held(self) -> list[int]:
        """The rows before the position that are not handled: held by the stage, pressed, or yet to be read again."""
        held = [self._passage.stage.held_log_sequences, self.merge.expected]
        if (pressed := self._passage.pressed) is not None:
            logs = pressed.records["log_sequence"]
            held.append(logs[: np.searchsorted(logs, self._from)])
        found: list[int] = np.unique(np.concatenate(held)).tolist() if any(map(len, held)) else []
        return found

    @property
    def uncommitted(self) -> int:
        """How many log sequences were taken in since the last commit."""
        return max(self.position - self.committing.checkpoint.log_sequence, 0)

    @property
    def trouble(self) -> StreamError | None:
        """What keeps the server from being read, or from saving."""
        return self.committing.trouble or self.readers.trouble

    # -- living -------------------------------------------------------------------------------------------------------

    async def live(self) -> End:
        """Go on until there is a reason to end. Raises GroupLost, GroupTaken; cancelling leaves what is not committed.

        Nothing is released here, and the run is left on the bus: their owner does both.
        """
        tasks = [*self.readers.begin(), asyncio.create_task(self._stay(), name="processor: lease")]
        for task in tasks:
            task.add_done_callback(self._task_ended)
        try:
            return await self._drive()
        finally:
            self._ending = True
            self._count()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.committing.close()

    def raised(self, error: BaseException) -> bool:
        """Whether a task of its own was ended by it: then the loop has raised it."""
        return error is self._broken

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None
        if not task.cancelled():
            error = task.exception()
        else:
            # What somebody else cancelled is as dead as if it had raised, and nobody would notice.
            words = f"somebody cancelled a task of a processor ({task.get_name()}): start the processor again"
            error = None if self._ending else BackgroundFailed(words)
        if error is not None:
            self._broken = error
            self.wake()

    async def _drive(self) -> End:
        while True:
            self._raise_failure()
            work = self._run.work(1 << 62, time.perf_counter_ns() + SLICE_NS)
            if work.awaiting:
                await self._run.settle()
                continue
            await asyncio.sleep(0)
            if not work.idle or work.pending:
                continue
            # All that the bus was given is handled.
            self._count()
            if self._passage.offer():
                self._flushed = False
                continue
            if self._ended and self._passage.stage.statistics().held_rows:
                # What is open at the end of a session is lost, and lets go what it held.
                self._passage.finish()
                continue
            if self._wants_cut():
                if not self._flushed:
                    self._flushed = True
                    self._run.flush()
                    continue
                self._cut()
            if (end := self._end()) is not None:
                return end
            if self._retry() or self._take():
                continue
            await self._rest()

    def _take(self) -> bool:
        """Take in what is due; whether there was anything."""
        if self._stopping or self.uncommitted >= MOST_UNCOMMITTED or self.committing.waiting_effects >= MOST_EFFECTS:
            return False
        if self._passage.pressed is not None:
            return self._passage.press() or self._passage.waiting
        batch, holes = self.merge.take()
        now_ns = self._now_ns()
        told = [(hole.first, Told(*self._losses.add(self.consumer.session, hole, now_ns))) for hole in holes]
        if batch is None:
            for _, one in told:
                self._passage.tell(*one)
            return bool(holes)
        self.readers.taken()
        self._moved_at = time.monotonic()
        self._passage.take(batch, told)
        if self._journey is not None:
            self._note_sequenced(batch)
        return True

    def _note_sequenced(self, batch: EventBatch) -> None:
        """Note how long rows have waited since they were read: for rows before them, and in the stage.

        A row that the sequencer holds back counts as if it had been let go at once.
        """
        assert self._journey is not None
        now_ns = self._now_ns()
        for event_type, rows in batch.counts().items():
            self._journey.note_runs(Stage.SEQUENCED, event_type, now_ns, _taken(self._read[event_type], rows))

    def _retry(self) -> bool:
        """Try again what is due for it; whether there was anything."""
        if self._stopping:
            return False
        tried = self._retries.begin(self._run, self._now_ns(), self.committing.settle)
        self._tally.retries += tried
        return tried > 0

    # -- cuts ---------------------------------------------------------------------------------------------------------

    def _wants_cut(self) -> bool:
        if self.committing.busy or self._retries.under_way:
            return False
        if self.committing.waiting_effects >= MOST_EFFECTS:
            return True
        recent = time.monotonic() - self._cut_at < self._checkpoint_s
        if recent and not self._wanted and not self._stopping and not self._ended:
            return False
        return self.dirty

    @property
    def dirty(self) -> bool:
        """Whether something was handled that is not committed."""
        return self._to_acknowledge or self.committing.dirty(self.position, self.held, self._letterbox.waiting)

    def _cut(self) -> None:
        stage = self._passage.stage
        self._cut_at, self._wanted, self._to_acknowledge = time.monotonic(), False, False
        self._tally.cuts += 1
        memory = msgspec.msgpack.encode(stage.memory())
        self.committing.begin(self.position, self.held, memory, self._outgoing.take())

    @property
    def _ended(self) -> bool:
        return bool(self.successor) and self.caught_up

    def _end(self) -> End | None:
        """Why to end now: all is committed that will be."""
        if not (self._stopping or self._ended) or self.committing.busy or self._retries.under_way or self.dirty:
            return None
        if self._stopping:
            return End.STOPPED
        # Letters stay with the group of their session: those that are due soon are tried before it is left.
        due_ns = self._retries.due_ns
        return None if due_ns is not None and due_ns < self._now_ns() + RETRIED_WITHIN_NS else End.SUCCEEDED

    # -- resting ------------------------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Nothing can be done now: batch handlers get what they wait for, and then time has to pass."""
        if not self._flushed:
            self._flushed = True
            self._run.flush()
            return
        if not self.merge.empty and not self._stopping:
            self.readers.nudge(self.merge.behind)
        timeout_s = self._until_next()
        self._woken.clear()
        if self._failed or timeout_s <= 0.0:
            await asyncio.sleep(0)
        else:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(timeout_s, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()
        self._let_time_pass()

    def _until_next(self) -> float:
        """How long nothing can happen by time alone."""
        due_s = 1.0
        now = time.monotonic()
        if not self.committing.busy and self.dirty:
            due_s = min(due_s, self._cut_at + self._checkpoint_s - now)
        if self._passage.stage.due_ns is not None and self._time_passes:
            due_s = min(due_s, self._moved_at + self._passage.stage.ordering.deadline_s - now)
        if (retry_ns := self._retries.due_ns) is not None and not self._stopping:
            due_s = min(due_s, (retry_ns - self._now_ns()) / 1e9)
        return max(due_s, 0.0)

    @property
    def _time_passes(self) -> bool:
        """Whether nothing came, rather than that something is there which can't be taken in yet."""
        return not self._stopping and (self.merge.empty or self._passage.pressed is not None)

    def _let_time_pass(self) -> None:
        """A gap whose deadline passes while nothing comes is lost; by how long nothing came, not by whose clock."""
        stage = self._passage.stage
        if not self._time_passes:
            return
        silent_s = time.monotonic() - self._moved_at
        if stage.wants_work or (stage.due_ns is not None and silent_s >= stage.ordering.deadline_s):
            self._passage.advance(max(stage.due_ns or 0, stage.clock_ns))

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _page(self, event_type: EventType, page: GroupPage) -> None:
        rows = sum(map(len, page.batches))
        tally = self._tally
        self.unread.discard(event_type)
        tally.read += rows
        tally.entries += page.entries
        tally.redelivered += page.redelivered
        tally.by_type[event_type] = tally.by_type.get(event_type, 0) + rows
        if rows and self._journey is not None:
            now_ns = self._now_ns()
            self._read[event_type].append([rows, now_ns])
            runs = [(count, appended_ns) for count, appended_ns in page.appended if appended_ns]
            self._journey.note_runs(Stage.READ, event_type, now_ns, runs)
        if self.caught_up:
            self._behind_since = time.monotonic()
        # Of entries that were handled before, and are here once more, nothing but the acknowledgement is left.
        self._to_acknowledge |= page.entries > 0 and not rows
        self.events = max(self.events, page.events)
        self.successor = page.successor or self.successor
        for letter in page.damaged:
            tally.damaged += 1
            self._letterbox.add(letter)
        self.wake()

    async def _stay(self) -> None:
        """Keep the lease while there is nothing to commit, or a commit takes long."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.consumer.renew()
            except (GroupTaken, GroupLost) as error:
                self._lease_failure = error
                self.wake()
                return
            except StreamError:
                continue  # the readers and the commits tell of it

    def _saved(self, kept: Sequence[Letter]) -> None:
        self._outgoing.saved()
        self._retries.add(kept)

    @property
    def _failed(self) -> BaseException | None:
        return (
            self._broken
            or self.committing.broken
            or self.readers.failure
            or self.committing.failure
            or self._lease_failure
        )

    def _raise_failure(self) -> None:
        failure = self._failed
        if failure is not None:
            raise failure

    def _count(self) -> None:
        handled, emitted = self._run.handled, self._run.emitted
        self._tally.handled += handled - self._counted[0]
        self._tally.emitted += emitted - self._counted[1]
        self._counted = handled, emitted


def _taken(read: deque[list[int]], rows: int) -> list[tuple[int, int]]:
    """So many rows off the front: how many were read when."""
    runs = []
    while rows and read:
        count = min(read[0][0], rows)
        runs.append((count, read[0][1]))
        rows -= count
        read[0][0] -= count
        if not read[0][0]:
            read.popleft()
    return runs
