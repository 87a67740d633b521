"""``Intake``: messages off a socket, with the moments when they arrived, into batches; and the counts of it all."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.clock import Clock
from hftlab.clock.stamps import Arrival, StampCounts
from hftlab.errors import ValidationError, shown
from hftlab.events import EventBatch, EventType, Flags, Source, SourceTable, SymbolTable
from hftlab.events.records import Rows
from hftlab.events.rules import check_records
from hftlab.events.time_checks import TimeChecks, TimeFindings
from hftlab.events.timestamps import TimeAction, TimePolicy, as_time_policy
from hftlab.feeds.parsing import Content, Parse, ParseMany, Parser, joined

if TYPE_CHECKING:
    from hftlab.metrics import Histogram

_ERROR_CHARS = 200


class Message(NamedTuple):
    """One message, and when it arrived by the counter."""

    payload: bytes
    arrival: Arrival


class ReceiverStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver has received so far. Every message is in ``rows``, or ``refused``, or had nothing to tell.

    ``messages``: datagrams, or a connection's messages; ``refused``: those that ``parse`` raised for, or whose rows
    break a rule, ``last_error`` the last of these in words; rejected rows are in ``times``. ``truncated``: datagrams
    longer than ``most_bytes``, thrown away. ``stamps`` says which clocks their arrivals are from, and what the kernel
    dropped (``dropped_by_kernel``). ``wake_ups``: batches of messages read at once.
    ``buffer_bytes``: what the kernel granted. ``connections``, ``lost`` and ``failed`` (attempts to connect) and
    ``discarded_bytes`` (parts of messages at a connection's end) are TCP's.
    """

    messages: int = 0
    bytes: int = 0
    rows: int = 0
    refused: int = 0
    last_error: str = ""
    truncated: int = 0
    wake_ups: int = 0
    paused: bool = False
    buffer_bytes: int = 0
    stamps: StampCounts = StampCounts()
    times: TimeFindings = TimeFindings()
    connections: int = 0
    lost: int = 0
    failed: int = 0
    discarded_bytes: int = 0

    @property
    def dropped_by_kernel(self) -> int:
        """Datagrams that came while the socket's buffer was full."""
        return self.stamps.dropped

    def in_words(self) -> str:
        """One line: what came, and what is wrong."""
        told = [f"{self.messages:,} messages, {self.rows:,} rows"]
        stamps = self.stamps
        by = {"hardware": stamps.hardware, "kernel": stamps.kernel, "application": stamps.application}
        what = "reads " if self.connections else ""
        told += [f"{count:,} {what}stamped by {who}" for who, count in by.items() if count]
        for what in ("refused", "truncated", "dropped_by_kernel", "lost"):
            if getattr(self, what):
                told.append(f"{getattr(self, what):,} {what.replace('_', ' ')}")
        if self.last_error:
            told.append(f"last error: {self.last_error}")
        if self.times.troubles:
            told.append(self.times.troubles)
        return "; ".join(told) + ("; paused" if self.paused else "")

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{html.escape(f'{value:,}' if isinstance(value, int) else str(value))}</td></tr>"
            for name, value in (
                *((name, getattr(self, name)) for name in self.__struct_fields__ if name not in ("stamps", "times")),
                *((f"stamps: {name}", getattr(self.stamps, name)) for name in self.stamps.__struct_fields__),
            )
            if value not in (0, "", False)
        )
        return f"<div>{html.escape(self.in_words())}<table>{rows}</table></div>"


class Intake:
    """What UDP and TCP share once they have whole messages: parse, stamp, check, count. One thread, nothing awaited."""

    def __init__(
        self,
        parse: Parse | ParseMany,
        *,
        many: bool,
        clock: Clock,
        times: TimePolicy | TimeAction | None,
        source: Source | None,
        symbols: SymbolTable | None,
        sources: SourceTable | None,
    ) -> None:
        from hftlab.metrics import Histogram  # it brings numba, which import hftlab.feeds should not

        if not callable(getattr(clock, "now_ns", None)):
            raise ValidationError(f"a clock has now_ns(), such as hl.SystemClock(); got {shown(clock)}")
        if source is not None and not isinstance(source, Source):
            raise ValidationError(f"source is an hl.Source(venue, channel, scope, rule); got {shown(source)}")
        self.symbols = SymbolTable() if symbols is None else symbols
        self.sources = SourceTable() if sources is None else sources
        self.waits: Histogram = Histogram(name="socket wait")
        self.last_error: Exception | None = None
        self.messages = self.bytes = self.rows = self.refused = self.wake_ups = 0
        self._clock = clock
        self._checks = TimeChecks(as_time_policy(times))
        self._source = 0 if source is None else self.sources.intern(source)
        self._parser = Parser(parse, many, self.symbols, self.sources, self.refuse)
        self._last_received = 0

    def refuse(self, error: Exception) -> None:
        """Count a message that can't be used, and keep why."""
        self.refused += 1
        self.last_error = error

    def take(self, messages: list[Message], now_counter_ns: int) -> EventBatch | None:
        """The rows of one wake-up's messages; None where there are none. Raises only what ``times="raise"`` asks for.

        A wake-up's messages were all read by ``now_counter_ns``. Python is paid for each message (two calls, some
        1 µs, and ``parse``'s own) and for the wake-up (some 60 µs), not for rows.
        """
        arrived = np.array([message.arrival.counter_ns for message in messages], np.int64)
        trusts = np.array([message.arrival.trust for message in messages], np.uint8)
        # The order of the socket is the order of arrival: what a worse stamp (of this wake-up's end) has ahead of a
        # better one after it does not run back.
        received = np.maximum.accumulate(np.maximum(arrived + self._offset_ns(), self._last_received))
        contents = self._parser.contents([message.payload for message in messages])
        parts = [rows for content in contents for rows in self._stamped(content, received, trusts)]
        # Counted when it is done: an interrupt on the way has all of it done again.
        self._last_received = int(received[-1])
        self.waits.record_many(np.maximum(now_counter_ns - arrived, 0))
        self.wake_ups += 1
        self.messages += len(messages)
        self.bytes += sum(len(message.payload) for message in messages)
        if not parts:
            return None
        batch = self._checks.apply(EventBatch(joined(parts), self.symbols, self.sources), now_ns=self._last_received)
        self.rows += len(batch)
        return batch if len(batch) else None

    def statistics(self, stamps: StampCounts, *, error: Exception | None = None, **others: Any) -> ReceiverStatistics:
        """The counts so far, frozen, with those of the socket; ``error``: what is more than a message refused."""
        error = error or self.last_error
        return ReceiverStatistics(
            messages=self.messages,
            bytes=self.bytes,
            rows=self.rows,
            refused=self.refused,
            last_error="" if error is None else f"{type(error).__name__}: {error}"[:_ERROR_CHARS],
            wake_ups=self.wake_ups,
            stamps=stamps,
            times=self._checks.findings(),
            **others,
        )

    def _offset_ns(self) -> int:
        """The clock's time less the counter's, now: of three readings the one that nothing came between."""
        return min(self._reading() for _ in range(3))[1]

    def _reading(self) -> tuple[int, int]:
        before = time.perf_counter_ns()
        now_ns = self._clock.now_ns()
        width_ns = time.perf_counter_ns() - before
        return width_ns, now_ns - before - width_ns // 2

    def _stamped(self, content: Content, received: npt.NDArray[np.int64], trusts: npt.NDArray[np.uint8]) -> list[Rows]:
        """The rows with their arrival, checked against the rules; where one breaks them, its message is refused."""
        rows, places = content
        if not len(rows):
            return []
        rows["received"], rows["clock"] = received[places], trusts[places]
        if self._source:
            rows["source"][rows["source"] == 0] = self._source
        _complete(rows)
        try:
            _check(rows)
        except ValidationError as error:
            if places[0] == places[-1]:
                self.refuse(error)
                return []
            cuts = np.flatnonzero(places[1:] != places[:-1]) + 1
            pieces = zip(np.split(rows, cuts), np.split(places, cuts), strict=True)
            return [part for piece in pieces for part in self._stamped(Content(*piece), received, trusts)]
        return [rows]


def _complete(rows: Rows) -> None:
    untimed = rows["timestamp"] == 0
    if untimed.any():
        rows["timestamp"][untimed] = rows["received"][untimed]
        rows["flags"][untimed] |= np.uint16(Flags.ARRIVAL_TIME)
    ahead = rows["timestamp"] > rows["received"]
    if ahead.any():
        rows["flags"][ahead] |= np.uint16(Flags.AHEAD)


def _check(rows: Rows) -> None:
    for run in EventBatch(rows).runs():
        check_records(EventType(int(run.records["type"][0])), run.records)
