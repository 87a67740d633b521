"""The sinks of a lab: one a session, so that a cell that is run again finds the one that it made."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from hftlab.errors import ValidationError
from hftlab.events.ports import KeptBus
from hftlab.streams.manager import RedisStreamManager
from hftlab.streams.sinks.behind import SinkWriter
from hftlab.streams.sinks.options import SinkOptions
from hftlab.streams.sinks.sink import Sink

Begin = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], None]
"""Begins named work in the background: ``Supervisor.add``."""


class Sinks:
    """Makes the sinks of one bus, and closes them. Iterating gives those that are open."""

    def __init__(self, bus: KeptBus, begin: Begin) -> None:
        self._bus, self._begin = bus, begin
        self._sinks: dict[str, Sink] = {}
        self._made = 0

    def keep(self, streams: RedisStreamManager, session: str | None, options: SinkOptions) -> Sink:
        """The open sink of the session, or a new one. Raises ValidationError where the open one has other options."""
        name = streams.session_name if session is None else session
        found = self._sinks.get(name)
        if found is not None and not found.closed:
            if found.failure is None:
                if found.options != options:
                    raise ValidationError(
                        f"the session {name!r} has a sink with other options ({found!r:.200}): await sink.close() first"
                    )
                return found
            found.give_up()

        async def claim() -> SinkWriter:
            return await streams.writer(name, options.name, frame_rows=options.frame_rows)

        sink = Sink(name, claim, self._bus, options, now_ns=streams.clock.now_ns)
        self._made += 1
        # A number each: the work of one that was just closed may take another turn of the loop to end.
        self._begin(f"sink {self._made} of {name}", sink.work)
        sink.open()
        self._sinks[name] = sink
        return sink

    async def close(self, deadline_s: float) -> None:
        """Close those that are open, one after the other, all within the deadline."""
        end_at_s = time.monotonic() + deadline_s
        for sink in self:
            await sink.close(max(end_at_s - time.monotonic(), 0.0))
        self._sinks.clear()

    def __iter__(self) -> Iterator[Sink]:
        return iter([sink for sink in self._sinks.values() if not sink.closed])
