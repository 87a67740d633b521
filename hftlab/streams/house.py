"""A folder's server as this process uses it: started here, or by another process and shared.

Every process that opened the folder takes part in the same way. The lock lives exactly as long as the server: the
process that starts it takes the lock, passes it on, and lets go of its own copy. So whoever finds the lock free may
start the server, whatever became of the last one (its owner was killed, or stopped it, or it crashed), and of two who
try at once, one gets it and the other finds a server to join. A server dies with the process that started it, so none
outlives the last; the others notice when they next need it, and start it again on the same data.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import psutil

from hftlab.errors import FolderInUse, ServerUnreachable, StreamError
from hftlab.streams.address import Address
from hftlab.streams.durability import FSYNCS
from hftlab.streams.folder import DataFolder
from hftlab.streams.greeting import Greeting, greet
from hftlab.streams.serving import POLL_S, Plan, Serving
from hftlab.streams.shared import Published, SharedAddress

# How long a server that holds the lock may be silent: it is being started, or about to follow an owner that was
# killed (it flushes its log first).
_PATIENCE_S = 5.0


class House:
    """The one server that this process uses over a folder. Whoever starts or stops goes through the door first."""

    _all: ClassVar[dict[Path, House]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.made_in_pid = os.getpid()
        # Weak: an EmbeddedServer that a cell was run again over is no reason to keep the server.
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.address = SharedAddress(self._follow)
        self._plan: Plan | None = None
        self._own: Serving | None = None
        self._joined: Published | None = None
        self._open = False
        self._busy = False

    @classmethod
    def of(cls, folder: DataFolder) -> House:
        """The house over a folder, the same for all who ask within one process."""
        with cls._guard:
            house = cls._all.get(folder.path)
            # After a fork, the parent's servers are the parent's.
            if house is None or house.made_in_pid != os.getpid():
                house = cls._all[folder.path] = cls(folder)
            return house

    def door(self) -> Door:
        """One at a time goes in, from whatever event loop."""
        return Door(self)

    @property
    def pid(self) -> int | None:
        """The server's process id, whoever started it; None while none runs."""
        if self._own is not None and self._own.pid is not None:
            return self._own.pid
        return self._joined.server_pid if self._joined is not None and _alive(self._joined.server_pid) else None

    @property
    def owned(self) -> bool:
        """Whether this process started the server that runs."""
        return self._own is not None and self._own.pid is not None

    async def enter(self, plan: Plan) -> None:
        """Start the server, or join the one that another process runs; returns when it answers.

        Of several wishes how often the log is synced, the strictest rules.
        """
        before, self._plan = self._plan, _strictest(plan, self._plan if self._open else None)
        self._open = True
        try:
            if not self.owned:
                await self._find(_PATIENCE_S)
            elif before is None or before.appendfsync != self._plan.appendfsync:
                greeting = await greet(self.address, self._plan.appendfsync)
                if greeting is not Greeting.READY:
                    raise ServerUnreachable(
                        f"the embedded server in {self.folder.path} was to sync its log as appendfsync "
                        f"{self._plan.appendfsync!r} says, but {greeting.value}"
                    )
        except BaseException:
            self._open = bool(self.users)
            raise

    async def restart(self, plan: Plan) -> None:
        """End the server and start it again. Raises StreamError where it is another process's."""
        if not self.owned and self._joined is not None and self.pid is not None:
            raise StreamError(
                f"the embedded server in {self.folder.path} was started by the process {self._joined.pid}, which "
                "others use it through; restart it there, or stop it there: whoever needs it next starts it again"
            )
        if self._own is not None:
            await self._own.end_process()
        await self.enter(plan)

    async def close(self) -> None:
        """Leave the server, and end it if this process started it: others that use it start it again."""
        self._open = False
        self._joined = self._plan = None
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    async def _follow(self, patience_s: float) -> bool:
        """See ``SharedAddress.follow``."""
        if self.made_in_pid != os.getpid():
            return False
        async with self.door():
            # Left meanwhile, or it is the server of this process, which is there: then it is for the client to wait.
            if not self._open or self.owned:
                return False
            before = self._last_pid
            try:
                await self._find(min(patience_s, _PATIENCE_S))
            except FolderInUse:
                return False
            return self._last_pid != before

    @property
    def _last_pid(self) -> int | None:
        if self.owned or self._joined is None:
            return self._own.pid if self._own is not None else None
        return self._joined.server_pid

    async def _find(self, patience_s: float) -> None:
        """Start the server where the lock is free, else join the one that holds it."""
        plan = self._plan
        assert plan is not None
        self.folder.prepare()
        silent_until = time.monotonic() + patience_s
        loading_until = time.monotonic() + max(plan.timeout_s, patience_s)
        while True:
            lock = self.folder.try_lock()
            if lock is not None:
                await self._serve(plan, lock)
                return
            published = self.folder.published()
            if published is not None:
                there = Address({"path": published.socket}, published.credentials, "unix://…")
                greeting = await greet(there, plan.appendfsync)
                if greeting is Greeting.READY:
                    self._join(published, plan)
                    return
                if greeting is Greeting.LOADING:
                    silent_until = min(time.monotonic() + patience_s, loading_until)
            if time.monotonic() > silent_until:
                raise self.folder.in_use()
            await asyncio.sleep(POLL_S)

    async def _serve(self, plan: Plan, lock: int) -> None:
        self._joined = None
        try:
            if self._own is not None and not self._own.runtime.is_dir():
                self._own = None
            self.folder.clear_stale_runtime(keep=None if self._own is None else self._own.runtime)
            own = self._own = self._own or Serving(self.folder)
            try:
                await own.start(plan, lock)
            except BaseException:
                self._own = None
                raise
        finally:
            # The server has its own copy, and the lock ends with it.
            os.close(lock)
        self._move(own.socket, own, plan)

    def _join(self, published: Published, plan: Plan) -> None:
        own, self._own = self._own, None
        if own is not None:
            # It ended, and somebody else took over.
            own.forget()
        self._joined = published
        self._move(published.socket, published, plan)

    def _move(self, socket: str, there: Serving | Published, plan: Plan) -> None:
        self.address.move(socket, there.credentials, label=f"embedded server in {plan.shown}")


class Door:
    """An asynchronous lock that serves several event loops: whoever finds it shut looks again a little later."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __aenter__(self) -> None:
        while True:
            if self._enter():
                return
            await asyncio.sleep(POLL_S)

    def _enter(self) -> bool:
        with House._guard:
            free = not self._house._busy
            self._house._busy = True
            return free

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with House._guard:
            self._house._busy = False


def _strictest(plan: Plan, other: Plan | None) -> Plan:
    if other is None:
        return plan
    return plan._replace(appendfsync=min(plan.appendfsync, other.appendfsync, key=FSYNCS.index))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
