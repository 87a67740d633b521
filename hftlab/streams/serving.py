"""One server process that this process started over a folder, with its socket and its password."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
import weakref
from pathlib import Path
from typing import NamedTuple

from hftlab.errors import FolderDamaged, ServerUnreachable, StreamError
from hftlab.streams.address import Address, Credentials
from hftlab.streams.durability import Fsync
from hftlab.streams.folder import SOCKET_NAME, DataFolder, make_runtime, remove_runtime, write_key
from hftlab.streams.greeting import Greeting, greet
from hftlab.streams.launch import ServerProcess, launch, quoted

POLL_S = 0.004
_STOP_S = 10.0
_DAMAGE = re.compile(
    r"bad file format|append only file|\baof\b|\brdb\b|corrupt|checksum|\bcrc|unrecoverable|manifest", re.IGNORECASE
)


class Plan(NamedTuple):
    """How a server is to be started; ``shown`` stands for the folder in reprs."""

    binary: Path
    appendfsync: Fsync
    shown: str
    timeout_s: float


class Serving:
    """A server process of ours, or none at the moment. Restarts keep the socket's path and the password."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.runtime = make_runtime()
        self._tidy = weakref.finalize(self, _remove_own_runtime, self.runtime, os.getpid())
        self._process: ServerProcess | None = None
        self.credentials = Credentials(None, secrets.token_urlsafe(24))
        write_key(self.runtime, self.credentials)

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return str(self.runtime / SOCKET_NAME)

    @property
    def pid(self) -> int | None:
        """The server's process id, None while none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def start(self, plan: Plan, lock: int) -> None:
        """Start the server and return when it answers; where it does not, leave nothing behind and raise why.

        ``lock`` is a descriptor that holds the folder's lock: the server keeps a copy of it as long as it lives.
        """
        logged = self.folder.log.stat().st_size if self.folder.log.exists() else 0
        try:
            # Said before it is there too: whoever starts after a crash in between clears the socket's folder away.
            self.folder.sign(lock, pid=os.getpid(), server_pid=None, socket=self.socket)
            self._process = launch(plan.binary, lambda: self._configuration(plan.appendfsync), (lock,))
            self.folder.sign(lock, pid=os.getpid(), server_pid=self._process.pid, socket=self.socket)
            await self._answering(self._process, plan.timeout_s, logged)
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
                await asyncio.sleep(POLL_S)
        except BaseException:
            # Interrupted while waiting: nothing of it is to stay.
            process.kill()
            raise

    async def close(self) -> None:
        """End the process and remove its socket's folder."""
        try:
            await self.end_process()
        finally:
            self._tidy()

    def forget(self) -> None:
        """Remove the socket's folder of a process that has ended by itself."""
        self._tidy()

    def _configuration(self, appendfsync: str) -> bytes:
        lines = (
            "port 0",
            f"unixsocket {quoted(self.socket)}",
            "unixsocketperm 700",
            f"requirepass {self.credentials.get_credentials()[-1]}",
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

    async def _answering(self, process: ServerProcess, timeout_s: float, logged: int) -> None:
        """Return once the server answers; raise what kept it from that."""
        deadline = time.monotonic() + timeout_s
        address = Address({"path": self.socket}, self.credentials, "unix://…")
        while process.poll() is None:
            if await greet(address) is Greeting.READY:
                return
            if time.monotonic() > deadline:
                raise ServerUnreachable(
                    f"the embedded server in {self.folder.path} did not answer within {timeout_s:g} s. Its log says:\n"
                    f"{self._said(logged)}"
                )
            await asyncio.sleep(POLL_S)
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
        return "\n".join(self.credentials.scrub(text).splitlines()[-12:])


def _remove_own_runtime(folder: Path, owner_pid: int) -> None:
    # Runs at the end of the process too, and a forked child that ends must not take its parent's socket away.
    if os.getpid() == owner_pid:
        remove_runtime(folder)
