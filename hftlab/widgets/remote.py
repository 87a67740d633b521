"""``Remote``: carries out a player's commands on its replay, one after another, and keeps what went wrong."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hftlab.replay import Replay
from hftlab.widgets.commands import Command, Do, add_command, position_in
from hftlab.widgets.shown import moment_at, place


class Remote:
    """The only one of a player's parts that acts on the replay. All calls on the loop's thread.

    A task carries out what waits, and ends; ``pause`` is done at once and drops what waits. A command that raises
    stops nothing: the error is kept in ``error``, with the command in ``failed``, until the next command begins or the
    user dismisses it. ``changed`` is called after everything that a player should show.
    """

    def __init__(self, replay: Replay, changed: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self.failed: Do | None = None
        self._replay, self._changed = replay, changed
        self._waiting: deque[Command] = deque()
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> int:
        """How many tasks it has at the moment: 0 when nothing is being done and nothing plays."""
        return sum(task is not None for task in (self._task, self._watch))

    def submit(self, command: Command) -> None:
        """Do it now, or as soon as what was asked for before is done."""
        if command.do is Do.PAUSE:
            # At once: it may be a long step that is to be paused.
            self._waiting.clear()
            try:
                self._replay.pause()
            except Exception as error:
                self.report(error, Do.PAUSE)
            return
        add_command(self._waiting, command)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(), name="hftlab: player's commands")

    def report(self, error: BaseException, failed: Do | None = None) -> None:
        """Keep an error to be shown."""
        self.error, self.failed = error, failed
        self._changed()

    def dismiss(self) -> None:
        """Forget the error: the user has read it."""
        self.error = self.failed = None
        self._changed()

    def abandon(self) -> None:
        """Drop what waits and end what is being done; the replay itself stays as it is. Idempotent."""
        self._waiting.clear()
        for task in (self._task, self._watch):
            if task is not None:
                task.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                command = self._waiting.popleft()
                self.error = self.failed = None
                try:
                    await self._carry_out(command)
                except Exception as error:
                    self.error, self.failed = error, command.do
                self._changed()
        finally:
            self._task = None

    async def _carry_out(self, command: Command) -> None:
        replay, value = self._replay, command.value
        match command.do:
            case Do.PLAY:
                replay.play()
                self._start_watch()
            case Do.STEP:
                await replay.step(int(value))
            case Do.SPEED:
                replay.speed = float(value)
            case Do.RESTART:
                await self._seek_to(0.0)
            case Do.SEEK if isinstance(value, str):
                await replay.seek(position_in(value))
            case Do.SEEK:
                await self._seek_to(float(value))
            case Do.SEEK_BY:
                now = replay.statistics()
                await self._seek_to(place(now.position_ns, now.start_ns, now.end_ns) + float(value))

    async def _seek_to(self, fraction: float) -> None:
        shown = self._replay.statistics()
        if shown.end_ns <= shown.start_ns:
            if fraction <= 0:
                return  # not begun yet: it stands at the start
            # What the range is, is known when the run has begun.
            await self._replay.__aenter__()
            shown = self._replay.statistics()
        await self._replay.seek(moment_at(fraction, shown.start_ns, shown.end_ns))

    # A run in the background raises to nobody: somebody has to wait for it.
    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._watch_run(), name="hftlab: player's run")

    async def _watch_run(self) -> None:
        try:
            await self._replay.wait()
        except Exception as error:
            self.error, self.failed = error, None
        finally:
            self._watch = None
            self._changed()
