"""``Readiness``: waiting for a socket that has something to read, by one task at a time, with pauses and an end."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from hftlab.errors import FeedError


class Readiness:
    """Says when to read. ``pause`` and ``resume`` return at once; the socket keeps what comes meanwhile, while it can.

    All on the loop's thread. Cancelling a wait is safe: it has no effect.
    """

    def __init__(self) -> None:
        self.paused = False
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._watched: tuple[asyncio.AbstractEventLoop, int] | None = None

    def pause(self) -> None:
        """Have nothing read from now on."""
        self.paused = True

    def resume(self) -> None:
        """Go on reading."""
        self.paused = False
        self.wake()

    def close(self) -> None:
        """End all waiting, for good; the socket may be closed then."""
        self.closed = True
        self._unwatch()
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def until_resumed(self) -> None:
        """Wait while paused, and until closed at most."""
        while self.paused and not self.closed:
            await self._woken(None)

    async def until_readable(self, sock: socket.socket) -> None:
        """Wait until there is something to read, or somebody calls ``wake``."""
        await self._until(sock, writable=False)

    async def until_writable(self, sock: socket.socket) -> None:
        """Wait until there is room to write, or the connection is made, or somebody calls ``wake``."""
        await self._until(sock, writable=True)

    async def for_a_while(self, seconds: float) -> None:
        """Wait that long, or until somebody calls ``wake``."""
        await self._woken(seconds)

    async def _until(self, sock: socket.socket, *, writable: bool) -> None:
        self._refuse_another()
        loop = asyncio.get_running_loop()
        (loop.add_writer if writable else loop.add_reader)(sock.fileno(), self.wake)
        self._watched = loop, sock.fileno()
        try:
            await self._woken(None)
        finally:
            self._unwatch()

    def _unwatch(self) -> None:
        # Once: after close() the descriptor's number may belong to another socket, with a reader of its own.
        if self._watched is not None:
            loop, descriptor = self._watched
            self._watched = None
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)

    def _refuse_another(self) -> None:
        if self._waiter is not None:
            raise FeedError("somebody waits for this receiver already: one task reads it, and publishes for all others")

    async def _woken(self, seconds: float | None) -> None:
        self._refuse_another()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._waiter
        finally:
            self._waiter = None
