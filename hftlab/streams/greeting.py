"""A word with a server before it is used: does it answer, and does it sync its log often enough?"""

from __future__ import annotations

import asyncio
import enum

from hftlab.streams.address import Address
from hftlab.streams.durability import FSYNCS, Fsync

_DEADLINE_S = 1.0


class Greeting(enum.Enum):
    """What a server made of a greeting."""

    READY = "it answers"
    LOADING = "it is loading its data"
    SILENT = "it does not answer"
    REFUSED = "it wants another password"


async def greet(address: Address, appendfsync: Fsync | None = None) -> Greeting:
    """Sign in to the server at a Unix socket; READY when it has answered, which it does not while it is loading.

    ``appendfsync``: how often its log is to reach the disk at least; where it does so less often, it is told to.
    Takes a second at most; raises nothing.
    """
    try:
        async with asyncio.timeout(_DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(address.connection["path"])
            try:
                return await _Talk(reader, writer).greet(address, appendfsync)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return Greeting.SILENT


class _Talk:
    """The few commands and replies that this takes; the client's pool is for afterwards."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self, address: Address, appendfsync: Fsync | None) -> Greeting:
        if address.credentials is not None:
            # Not a local variable: a traceback could show those.
            self._writer.write(f"AUTH {address.credentials.get_credentials()[-1]}\r\n".encode())
            if not await self._says(b"+OK"):
                return Greeting.REFUSED
        self._writer.write(b"PING\r\n")
        answer = await self._reader.readline()
        if answer.startswith(b"-LOADING"):
            return Greeting.LOADING
        if not answer.startswith(b"+PONG"):
            return Greeting.SILENT
        if appendfsync is None or await self._synced(appendfsync):
            return Greeting.READY
        return Greeting.SILENT

    async def _synced(self, wanted: Fsync) -> bool:
        self._writer.write(b"CONFIG GET appendfsync\r\n")
        lines = [(await self._reader.readline()).strip().decode() for _ in range(5)]
        held = lines[-1]
        if held in FSYNCS and FSYNCS.index(held) <= FSYNCS.index(wanted):
            return True
        self._writer.write(f"CONFIG SET appendfsync {wanted}\r\n".encode())
        return await self._says(b"+OK")

    async def _says(self, expected: bytes) -> bool:
        return (await self._reader.readline()).startswith(expected)
