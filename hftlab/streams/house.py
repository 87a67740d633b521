"""A folder's server within this process: the process, its lock, its socket, and who uses it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NamedTuple

import psutil

from hftlab.errors import FolderDamaged, ServerUnreachable, StreamError
from hftlab.streams.address import Address
from hftlab.streams.folder import SOCKET_NAME, DataFolder, make_runtime, remove_runtime
from hftlab.streams.launch import ServerProcess, launch, quoted

_POLL_S = 0.004
# How long an owner that was killed may take to leave: its server flushes its log, and frees the folder.
_LEAVING_S = 5.0
_STOP_S = 10.0
_DAMAGE = re.compile(
    r"bad file format|append only file|\baof\b|\brdb\b|corrupt|checksum|\bcrc|unrecoverable|manifest", re.IGNORECASE
)


class Plan(NamedTuple):
    """How a server is to be started; ``shown`` stands for the folder in reprs."""

    binary: Path
    appendfsync: str
    shown: str
    timeout_s: float


class House:
    """The one server that this process runs over a folder. Whoever starts or stops goes through the door first."""

    _all: ClassVar[dict[Path, House]] = {}
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.owner_pid = os.getpid()
        # Weak: an EmbeddedServer that a cell was run again over is no reason to keep the server.
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.address = Address.unix("", label="embedded server")
        self._process: ServerProcess | None = None
        self._lock: int | None = None
        self._runtime: Path | None = None
        self._tidy: weakref.finalize[..., House] | None = None
        self._password = ""
        self._busy = False

    @classmethod
    def of(cls, folder: DataFolder) -> House:
        """The house over a folder, the same for all who ask within one process."""
        with cls._guard:
            house = cls._all.get(folder.path)
            # After a fork, the parent's servers are the parent's.
            if house is None or house.owner_pid != os.getpid():
                house = cls._all[folder.path] = cls(folder)
            return house

    def door(self) -> Door:
        """One at a time goes in, from whatever event loop."""
        return Door(self)

    @property
    def pid(self) -> int | None:
        """The server's process id, None while none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def start(self, plan: Plan) -> None:
        """Start the server and return when it answers; where it does not, leave nothing behind and raise why."""
        self.folder.prepare()
        if self._lock is None:
            self._lock = await self._locked()
            self.folder.clear_stale_runtime()
        if self._runtime is None or not self._runtime.is_dir():
            self._runtime = make_runtime()
            self._tidy = weakref.finalize(self, _remove_own_runtime, self._runtime, self.owner_pid)
            self._password = secrets.token_urlsafe(24)
        socket = self._runtime / SOCKET_NAME
        self.address = Address.unix(str(socket), self._password, label=f"embedded server in {plan.shown}")
        logged = self.folder.log.stat().st_size if self.folder.log.exists() else 0
        try:
            self._process = launch(plan.binary, lambda: self._configuration(socket, plan.appendfsync), (self._lock,))
            self.folder.sign(self._lock, pid=self.owner_pid, server_pid=self._process.pid, socket=str(socket))
            await self._answering(self._process, socket, plan.timeout_s, logged)
        except BaseException:
            await self.close()
            raise

    async def end_process(self) -> None:
        """SIGTERM, and SIGKILL after the deadline; returns when the process is gone."""
        process, self._process = self._process, None
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
            if self._tidy is not None:
                self._tidy()
            self._lock = self._runtime = self._tidy = None

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

    def _configuration(self, socket: Path, appendfsync: str) -> bytes:
        lines = (
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
        )
        return "\n".join((*lines, "")).encode()

    async def _answering(self, process: ServerProcess, socket: Path, timeout_s: float, logged: int) -> None:
        """Return once the server answers; raise what kept it from that."""
        deadline = time.monotonic() + timeout_s
        while process.poll() is None:
            if await self._pings(socket):
                return
            if time.monotonic() > deadline:
                raise ServerUnreachable(
                    f"the embedded server in {self.folder.path} did not answer within {timeout_s:g} s. Its log says:\n"
                    f"{self._said(logged)}"
                )
            await asyncio.sleep(_POLL_S)
        raise self._ended(logged)

    async def _pings(self, socket: Path) -> bool:
        """Whether the server takes the password and answers PING, which it does not while it is loading."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket))
        except OSError:
            return False
        try:
            async with asyncio.timeout(1.0):
                writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
                return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

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


class Door:
    """An asynchronous lock that serves several event loops: whoever finds it shut looks again a little later."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __aenter__(self) -> None:
        while True:
            if self._enter():
                return
            await asyncio.sleep(_POLL_S)

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


def _remove_own_runtime(folder: Path, owner_pid: int) -> None:
    # Runs at the end of the process too, and a forked child that ends must not take its parent's socket away.
    if os.getpid() == owner_pid:
        remove_runtime(folder)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
