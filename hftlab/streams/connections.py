"""Connections to the server: redis-py's pool and protocol, hftlab's own retries, deadlines and errors.

redis-py's retry is off everywhere: it repeats a write whose reply was lost. Here, ``call`` repeats only what may be
repeated; appends have their own way (``appending``).

``socket_timeout`` is off as well, and the deadlines are ours (``asyncio.timeout``): with it, redis-py wraps every
write into ``asyncio.wait_for``, which on Python 3.11 loses cancellations, and a blocking read would need another
value than the rest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from hftlab.errors import ServerUnreachable, StreamError
from hftlab.streams.address import Address
from hftlab.streams.backoff import Backoff, BackoffPolicy
from hftlab.streams.counters import Counters
from hftlab.streams.link import Command, Connecting, Link, Reply
from hftlab.streams.refusals import FAILURES, Verdict, judge
from hftlab.streams.scripts import Script
from hftlab.streams.shared import MovingAddress
from hftlab.streams.silence import Silence

# How much a reply may pile up in asyncio's buffer before it stops the socket: a page of frames is about 500 kB, and
# with asyncio's 64 KiB it takes eight times as many turns of the loop.
_READ_BYTES = 1 << 19


class _UnixConnection(UnixDomainSocketConnection):
    """redis-py's own one authenticates twice, and wraps a wrong password so that the socket stays open."""

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_unix_connection(self.path, limit=_READ_BYTES)


_CLASSES = {"redis": Connection, "rediss": SSLConnection, "unix": _UnixConnection}


class Connections:
    """A pool of connections on one event loop. ``call`` is for commands that may be repeated."""

    def __init__(
        self, address: Address, policy: BackoffPolicy, counters: Counters, *, size: int, seed: int | None
    ) -> None:
        self.address = address
        self.policy = policy
        self.counters = counters
        self.silence = Silence()
        self._size = size
        self._random = random.Random(seed)
        self._pool: BlockingConnectionPool | None = None
        # Pools of places where the server was before; their idle connections are to be closed.
        self._left: list[BlockingConnectionPool] = []
        self._moves = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = asyncio.Semaphore(size)
        self._closed = False

    def open(self) -> None:
        """Bind to the running loop; connects to nothing yet. Again after ``close``: begins anew."""
        self._closed = False
        self._ready()

    async def close(self) -> None:
        """Close every connection, borrowed ones too."""
        self._closed = True
        pool, self._pool = self._pool, None
        if self._loop is asyncio.get_running_loop():
            if pool is not None:
                await pool.disconnect()
            await self._leave()

    @property
    def silent_s(self) -> float:
        """For how long the server has owed an answer; 0.0 while nothing is outstanding, or while it may block."""
        return self.silence.silent_s(monotonic())

    @property
    def state(self) -> str:
        """Whether the server answers, in words: see ``Silence.state``."""
        return self.silence.state(monotonic())

    def backoff(self) -> Backoff:
        """The tries of one operation, beginning now."""
        return Backoff(self.policy, self._random, asyncio.get_running_loop().time())

    async def pause(self, backoff: Backoff, verdict: Verdict) -> None:
        """Wait for the next try, or raise what the failure means: at once where trying again can't help.

        Where the server may have moved, it is looked for first (which may start it again: see ``SharedAddress``).
        """
        if verdict.retry and (self.address.in_cluster or isinstance(verdict.error, ServerUnreachable)):
            await self._follow(backoff)
        if self._closed:
            self.silence.ended(backoff)
            raise StreamError(_CLOSED)
        delay_s = backoff.failed(asyncio.get_running_loop().time()) if verdict.retry else None
        if delay_s is None:
            if backoff.attempts > 1:
                verdict.error.add_note(
                    f"tried {backoff.attempts} times within {self.policy.deadline_s:g} s without progress"
                )
            self.silence.given_up(backoff, monotonic(), verdict)
            raise verdict.error
        self.counters.retries += 1
        self.silence.failed(backoff, monotonic(), verdict)
        try:
            await asyncio.sleep(delay_s)
        except BaseException:
            self.silence.ended(backoff)
            raise

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """Borrow a connection. It is closed where its user leaves replies unread, or leaves with an error."""
        self._ready()
        if self.address.in_cluster and isinstance(self.address, MovingAddress) and not self.address.moves:
            # Nobody has asked yet which node it is: the one that the URL names first knows, and is another one mostly.
            await self.address.follow(self.policy.deadline_s / 2)
        async with self._turn():
            # Only now: while it waited for its turn, the server may have moved.
            pool = self._ready()
            await self._leave()
            async with self._borrowed(pool) as link:
                yield link

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until fewer connections are in use than there may be."""
        turns = self._turns
        try:
            async with asyncio.timeout(self.policy.deadline_s):
                await turns.acquire()
        except TimeoutError:
            busy = True
        else:
            busy = False
        if busy:
            raise StreamError(
                f"all {self._size} connections are in use, and none became free within {self.policy.deadline_s:g} s: "
                "tails hold one each; make the manager with connections=… more"
            )
        try:
            yield
        finally:
            turns.release()

    @asynccontextmanager
    async def _borrowed(self, pool: BlockingConnectionPool) -> AsyncIterator[Link]:
        # Half the deadline for one silence, so that a server that hangs is tried at least twice.
        reply_s = self.policy.deadline_s / 2
        debtors = self.silence.debtors
        connecting = Connecting()
        debtors.add(connecting)
        try:
            connection = await _connected(pool, reply_s)
        finally:
            debtors.discard(connecting)
        link = Link(connection, reply_s, self.silence)
        debtors.add(link)
        try:
            yield link
        except ResponseError:
            if link.pending:
                await link.drop()
            raise
        except BaseException:
            await link.drop()
            raise
        else:
            if link.pending:
                await link.drop()
        finally:
            debtors.discard(link)
            if pool is not self._pool:
                await link.drop()
            await pool.release(connection)

    async def _follow(self, backoff: Backoff) -> None:
        if self._closed or not isinstance(self.address, MovingAddress):
            return
        now = asyncio.get_running_loop().time
        before_s = now()
        if await self.address.follow(backoff.remaining_s(before_s)):
            # A server that is started loads its data, for as long as that takes.
            backoff.excuse(now() - before_s)

    async def _leave(self) -> None:
        """Close the idle connections to where the server was; those in use are closed by their users."""
        while self._left:
            await self._left.pop().disconnect(inuse_connections=False)

    async def call(self, *command: Any, timeout_s: float | None = None) -> Reply:
        """The reply to one command that may be repeated. Raises a StreamError after the deadline at the latest."""
        return (await self.call_many((command,), timeout_s=timeout_s))[0]

    async def call_many(self, commands: Sequence[Command], *, timeout_s: float | None = None) -> list[Reply]:
        """The replies to commands that may be repeated, all sent at once; one round trip."""
        if not commands:
            return []
        backoff = self.backoff()
        while True:
            try:
                return await self._attempt(commands, timeout_s)
            except FAILURES as error:
                verdict = judge(error, self.address)
            # Outside of the except block: the error that is raised has no context, and so no frames of redis-py.
            await self.pause(backoff, verdict)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Reply:
        """The reply of a script that may be repeated; loads it where the server does not know it."""
        backoff = self.backoff()
        while True:
            try:
                async with self.link() as link:
                    try:
                        reply = await link.ask("EVALSHA", script.sha, len(keys), *keys, *arguments)
                    except NoScriptError:
                        reply = await link.ask("EVAL", script.text, len(keys), *keys, *arguments)
                if script.writes:
                    self.silence.refusal = ""
                return reply
            except FAILURES as error:
                verdict = judge(error, self.address)
            await self.pause(backoff, verdict)

    async def _attempt(self, commands: Sequence[Command], timeout_s: float | None) -> list[Reply]:
        async with self.link() as link:
            await link.send_all(commands, may_block_s=link.blocks_s(timeout_s))
            return [await link.receive(timeout_s) for _ in commands]

    def _ready(self) -> BlockingConnectionPool:
        if self._closed:
            raise StreamError(_CLOSED)
        loop = asyncio.get_running_loop()
        moves = self.address.moves if isinstance(self.address, MovingAddress) else 0
        if self._pool is not None and self._loop is loop and moves != self._moves:
            self._left.append(self._pool)
            self._pool = None
        if self._pool is None:
            if self._loop is not loop:
                self._loop = loop
                self._turns = asyncio.Semaphore(self._size)
            self._moves = moves
            self._pool = BlockingConnectionPool(
                max_connections=self._size,
                timeout=None,
                connection_class=_CLASSES[self.address.scheme],
                credential_provider=self.address.credentials,
                socket_timeout=None,
                socket_read_size=_READ_BYTES,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                **self.address.connection,
            )
        elif self._loop is not loop:
            raise StreamError(
                "this manager was opened on another event loop, and its connections belong there; call it from that "
                "loop (loop.call_soon_threadsafe), or make a manager here"
            )
        return self._pool


_CLOSED = "the streams are closed; open them again with: await manager.open()"


async def _connected(pool: BlockingConnectionPool, timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            return await pool.get_connection()  # type: ignore[no-untyped-call]
    except BaseException as error:
        # The frames below hold the arguments of AUTH, which a traceback with local variables would show.
        raise error.with_traceback(None) from None
