"""``Sink``: keeps what a bus accepted, in a session; made by ``lab.keep``."""

from __future__ import annotations

import asyncio
import html
import time
import warnings
from collections.abc import Callable, Iterable

import numpy as np

from hftlab.errors import BackgroundFailed, ValidationError
from hftlab.events import Event, EventBatch
from hftlab.events.ports import KeptBus
from hftlab.events.records import ROW_BYTES
from hftlab.streams.sinks.ahead import WriteAhead
from hftlab.streams.sinks.behind import Claim, WriteBehind
from hftlab.streams.sinks.buffer import Buffer
from hftlab.streams.sinks.options import SinkOptions
from hftlab.streams.sinks.statistics import SinkStatistics

# Rows that wait for longer than this wait for the server.
_AWAY_NS = 1_000_000_000


class Sink:
    """Keeps events in the session ``session``; a ``Keeper`` of the bus in the mode "behind".

    ``claim`` claims the named writer, ``now_ns`` stamps what brings no time. The sink belongs to one event loop;
    ``work`` runs there in the background.
    """

    def __init__(
        self,
        session: str,
        claim: Claim,
        bus: KeptBus,
        options: SinkOptions,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.session, self.options = session, options
        self.mode, self.overflow, self.choice = options.mode, options.overflow, options.choice
        self._bus = bus
        self._accepted = self._dropped = self._cut_off = self._waits = 0
        self._closed = self._ended = False
        self._presses = False
        self._closing = asyncio.Lock()
        self._buffer = Buffer(options.buffer_rows)
        self._behind = WriteBehind(
            claim, self._buffer, flush_s=options.flush_s, frame_rows=options.frame_rows, now_ns=time.monotonic_ns,
            on_progress=bus.room_made,
        )  # fmt: skip
        self._ahead = WriteAhead(claim, bus, frame_rows=options.frame_rows, now_ns=now_ns)

    def open(self) -> None:
        """Begin to keep. Harmless when repeated."""
        if self.mode == "behind":
            self._bus.keep(self)

    # -- what the bus asks ----------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether publishers have to wait (or are refused) until rows are acknowledged."""
        return self.overflow != "drop newest" and self._behind.failure is None and not self._buffer.free

    @property
    def presses(self) -> bool:
        """Whether sources should wait: from three quarters of the buffer on, until it is half empty."""
        if self.overflow == "drop newest":
            return False
        rows, limit = self._buffer.rows, self._buffer.limit_rows
        self._presses = 2 * rows > limit if self._presses else 4 * rows >= 3 * limit
        return self._presses and self._behind.failure is None

    @property
    def refuses(self) -> bool:
        """Whether a publisher that finds no room gets BusFull."""
        return self.overflow == "raise"

    def room_for(self, batch: EventBatch) -> int:
        """How many of the batch's first rows have room. Raises BackgroundFailed where none will be kept any more."""
        if self.overflow == "drop newest":
            return len(batch)
        if self._behind.failure is not None:
            raise BackgroundFailed(f"{self._failed_words}, so nothing is published either") from self._behind.failure
        free = self._buffer.free
        if len(batch) <= free:
            return len(batch)
        mask = self.choice.mask(batch)
        if mask is None:
            room = free
        else:
            wanted = np.flatnonzero(mask)
            room = len(batch) if len(wanted) <= free else int(wanted[free])
        self._waits += room < len(batch)
        return room

    def accept(self, batch: EventBatch) -> None:
        """Copy what is wanted of a batch that the bus accepted. About 10 ns a row."""
        if not self.choice.is_all:
            mask = self.choice.mask(batch)
            batch = batch if mask is None else batch.where(mask)
        count = len(batch)
        self._accepted += count
        if self._closed or self._behind.failure is not None:
            self._dropped += count
            return
        if self.overflow == "drop newest":
            batch = batch[: self._buffer.free]
            self._dropped += count - len(batch)
        self._behind.put(batch)

    # -- what the user does ---------------------------------------------------------------------------------------

    async def publish(self, events: Event | Iterable[Event] | EventBatch) -> list[int]:
        """Append events to the session, then publish them to the bus with their ids; returns the ids. One round trip
        for up to ``frame_rows`` of them. For ``mode="ahead"`` only.

        Several callers go one after the other, and handlers see the events in the order of the log. Where the append
        raises, nothing of that frame is published; it may be in the log all the same (``statistics().unpublished``),
        as after a crash between the two steps: the log has it, no handler saw it. A processor that reads the log would
        deliver it; handlers of this bus never do. Raises StreamErrors, ValidationError, and what ``publish_batch``
        raises; BusBusy from within a handler, or while a run is on the bus.
        """
        if self.mode != "ahead":
            raise ValidationError(
                f"this sink keeps what the bus accepts (mode={self.mode!r}): await lab.bus.publish(event); "
                "sink.publish is for lab.keep(…, mode='ahead')"
            )
        self._refuse_closed()
        return await self._ahead.publish(events)

    async def flush(self) -> None:
        """Return once everything that was accepted before is acknowledged. Raises BackgroundFailed; safe to cancel.

        Waits while the server is away, for as long as that takes; put ``asyncio.timeout`` round it.
        """
        if self.mode == "ahead":
            await self._ahead.settle()
        else:
            await self._behind.flush()

    async def close(self, deadline_s: float = 5.0) -> SinkStatistics:
        """Keep no more, flush for at most ``deadline_s``; what was cut off is said in a warning, too.

        Idempotent. Safe to cancel: call it again then.
        """
        self._closed = True
        self._bus.forget(self)
        async with self._closing:
            if not self._ended:
                # Where this is cancelled, the next call goes on with it.
                self._cut_off += await self._behind.close(deadline_s)
                self._ended = True
                self._warn(stacklevel=3)
        return self.statistics()

    def give_up(self) -> None:
        """Close a sink whose work has failed: there is nothing to flush or to wait for. Warns like ``close``."""
        self._closed = self._ended = True
        self._bus.forget(self)
        self._cut_off += self._behind.give_up()
        self._warn(stacklevel=4)

    def _warn(self, stacklevel: int) -> None:
        done = self.statistics()
        lost = {"dropped": done.dropped, "not storable": done.unstorable, "cut off": done.cut_off}
        if any(lost.values()):
            said = ", ".join(f"{count:,} {what}" for what, count in lost.items() if count)
            why = f" ({done.trouble})" if done.trouble else ""
            warnings.warn(
                f"the sink of {self.session!r} was closed with events that are not kept: {said}{why}",
                RuntimeWarning, stacklevel=stacklevel,
            )  # fmt: skip

    async def work(self) -> None:
        """The background task of a write-behind sink; ends with ``close``."""
        if self.mode == "behind":
            await self._behind.work()

    # -- looked at ------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    @property
    def failure(self) -> Exception | None:
        """Why nothing can be kept any more; None while all is well."""
        return self._behind.failure

    @property
    def state(self) -> str:
        """In a word or two: see SinkStatistics."""
        if self._closed:
            return "closed"
        if self.failure is not None:
            return "failed"
        if self._buffer.age_ns(time.monotonic_ns()) > _AWAY_NS:
            return "waiting for the server"
        if self._bus.run is not None:
            return "standing by"
        return "keeping" if self._behind.started or self.mode == "ahead" else "starting"

    def statistics(self) -> SinkStatistics:
        """What was accepted and kept, and what would be lost if this process died now. A few µs."""
        behind, ahead, buffer = self._behind, self._ahead, self._buffer
        failure = "" if behind.failure is None else f"{type(behind.failure).__name__}: {behind.failure}"
        waiting = buffer.rows + ahead.waiting
        return SinkStatistics(
            session=self.session,
            mode=self.mode,
            state=self.state,
            accepted=self._accepted + ahead.accepted,
            kept=behind.kept + ahead.kept,
            waiting_rows=waiting,
            waiting_bytes=waiting * ROW_BYTES,
            oldest_s=buffer.age_ns(time.monotonic_ns()) / 1e9,
            dropped=self._dropped,
            unstorable=behind.unstorable,
            cut_off=self._cut_off,
            unpublished=ahead.unpublished,
            waits=self._waits,
            trouble=failure or behind.trouble,
        )

    @property
    def _failed_words(self) -> str:
        return (
            f"the sink of {self.session!r} can't keep events any more ({self.failure}): await sink.close(), and "
            "lab.keep(…) makes a new one"
        )

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ValidationError(
                f"the sink of {self.session!r} was closed; lab.keep({self.session!r}) makes a new one"
            )

    def __repr__(self) -> str:
        done = self.statistics()
        trouble = f"; {done.trouble}" if done.trouble else ""
        return (
            f"Sink({self.session!r}, write-{self.mode} of {self.choice!r}: {done.state}, {done.kept:,} of "
            f"{done.accepted:,} kept; {done.in_words}{trouble})"
        )

    def _repr_html_(self) -> str:
        head = f"<b>Sink</b> of {html.escape(self.session)} (write-{self.mode}, {html.escape(repr(self.choice))})"
        return f"<div>{head}{self.statistics()._repr_html_()}</div>"
