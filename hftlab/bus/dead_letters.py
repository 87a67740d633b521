"""Dead letters: the events that a handler failed on, or that its circuit breaker kept from it, with the cause."""

from __future__ import annotations

import html
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hftlab.events.batch import EventBatch
from hftlab.events.ports import DeadLetterPort
from hftlab.events.records import EventType
from hftlab.events.types import Event

if TYPE_CHECKING:
    import pandas as pd

KEPT_EVENTS = 65_536
"""How many events are kept, 8 MB of rows; the oldest letters are forgotten, and counted."""

_HTML_ROWS = 20


@dataclass(frozen=True)
class DeadLetter:
    """What one handler did not get done: an event, or a batch of them (``events``), the error, how often it was tried
    (0: the breaker rejected it), and when that was (ns UTC, by the bus's clock).

    Holds nothing of the bus's memory: it stays what it was.
    """

    handler: str
    event: Event | EventBatch
    error: BaseException
    attempts: int
    at_ns: int

    @property
    def events(self) -> int:
        """How many events."""
        return len(self.event) if isinstance(self.event, EventBatch) else 1

    def __iter__(self) -> Iterator[Event]:
        """The events, one by one, whether it is one or a batch of them."""
        return iter(self.event) if isinstance(self.event, EventBatch) else iter((self.event,))

    def __repr__(self) -> str:
        tried = f"tried {self.attempts:,} x" if self.attempts else "rejected"
        return f"DeadLetter({self.handler}: {self.events:,} events, {tried}: {type(self.error).__name__}: {self.error})"


class DeadLetters:
    """The latest dead letters, the oldest first; ``count`` has all events that ever were, ``forgotten`` those that are
    not kept any more. ``port``: whoever is to keep them for good is handed each letter as it comes (None: nobody).
    """

    def __init__(
        self, now_ns: Callable[[], int], failed: Callable[[str, Exception], None] = lambda name, error: None
    ) -> None:
        self.port: DeadLetterPort | None = None
        self.count = self.forgotten = 0
        self._now_ns, self._failed = now_ns, failed
        self._kept: deque[DeadLetter] = deque()
        self._kept_events = 0

    def add(self, handler: str, event: Event | EventBatch, error: BaseException, attempts: int) -> bool:
        """Keep one; ``event`` must not show the bus's memory. About 1 µs. Whether a port keeps it for good."""
        letter = DeadLetter(handler, event, error, attempts, self._now_ns())
        self.count += letter.events
        self._kept.append(letter)
        self._kept_events += letter.events
        while self._kept_events > KEPT_EVENTS and len(self._kept) > 1:
            gone = self._kept.popleft().events
            self._kept_events -= gone
            self.forgotten += gone
        if self.port is None:
            return False
        try:
            self.port.put(letter)
        except Exception as error:  # somebody else's: the letter is still kept here
            self._failed("the dead-letter port", error)
            return False
        return True

    def take(self) -> list[DeadLetter]:
        """All that are kept, and keep them no longer: to publish their events again, after the handler was mended."""
        taken = list(self._kept)
        self._kept.clear()
        self._kept_events = 0
        return taken

    def to_frame(self) -> pd.DataFrame:
        """A row a letter: at (UTC), handler, type, symbol (of the first event), events, attempts, error."""
        import pandas as pd

        letters = list(self._kept)
        firsts = [_first(letter.event) for letter in letters]
        return pd.DataFrame(
            {
                "at": pd.DatetimeIndex(np.array([letter.at_ns for letter in letters], "M8[ns]"), tz="UTC"),
                "handler": [letter.handler for letter in letters],
                "type": [kind for kind, _ in firsts],
                "symbol": [symbol for _, symbol in firsts],
                "events": np.array([letter.events for letter in letters], np.int64),
                "attempts": np.array([letter.attempts for letter in letters], np.int64),
                "error": [f"{type(letter.error).__name__}: {letter.error}" for letter in letters],
            }
        )

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self._kept)

    def __repr__(self) -> str:
        forgotten = f", {self.forgotten:,} of them forgotten" if self.forgotten else ""
        return f"DeadLetters({self.count:,} events{forgotten})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{html.escape(repr(letter))}</li>" for letter in list(self._kept)[-_HTML_ROWS:])
        return f"<div><b>{html.escape(repr(self))}</b><ul>{rows}</ul></div>"


def _first(event: Event | EventBatch) -> tuple[str, str]:
    if isinstance(event, EventBatch):
        if not len(event):
            return "", ""
        row = event.records[0]
        return EventType(int(row["type"])).topic, event.symbols[int(row["symbol"])]
    return event.event_type.topic, event.symbol
