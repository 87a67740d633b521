"""The ports: what bus, streams, replay and the others know of each other. ``Lab`` introduces who implements them.

Packages that never import one another meet here. Everything is described by what its user needs, and no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from hftlab.events.batch import EventBatch
from hftlab.events.records import EventType
from hftlab.events.tables import SourceTable, SymbolTable


class SessionInfo(msgspec.Struct, frozen=True):
    """What a recorded session holds. Times are ns UTC of arrival; ``number`` is what its event ids begin with.

    ``events`` is how many were appended, which is also the next log sequence; ``counts`` has them by topic word
    (``market``, ``order``, ``fill``, ``signal``). An empty session has ``start_ns == end_ns == 0``.
    """

    name: str
    number: int
    events: int
    start_ns: int
    end_ns: int
    counts: dict[str, int]
    symbols: tuple[str, ...]
    created_ns: int = 0
    stored_bytes: int = 0


class LogRange(msgspec.Struct, frozen=True):
    """Which rows of a session are wanted. None leaves an end open; every range includes its start and not its end.

    ``start_ns`` and ``end_ns`` bound ``received``; ``start_log`` and ``end_log`` bound ``log_sequence``.
    """

    types: frozenset[EventType] = frozenset(EventType)
    start_ns: int | None = None
    end_ns: int | None = None
    start_log: int | None = None
    end_log: int | None = None


class SessionLog(Protocol):
    """What a replay reads from. ``streams.RedisStreamManager`` is one."""

    async def session(self, name: str) -> SessionInfo:
        """What the session of that name holds. Raises UnknownSession."""
        ...

    def read(
        self,
        session: SessionInfo,
        wanted: LogRange,
        *,
        symbols: SymbolTable,
        sources: SourceTable,
        prefetch: int,
    ) -> AsyncIterator[EventBatch]:
        """The wanted rows in the order of their log sequence, all types merged, under the given tables.

        Up to ``prefetch`` requests to the server are on their way while the caller works.
        """
        ...
