"""``DeadLetterList``: the dead letters of a group as a user looks at them: a sequence, a table, the events in them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.group_ports import Letter
from hftlab.pipeline.letterbox import events_of

if TYPE_CHECKING:
    import pandas as pd

_HTML_ROWS = 20


class DeadLetterList(Sequence[Letter]):
    """Dead letters, the oldest first, as they were when they were asked for. A slice is one, too.

    ``letters[0]`` is a Letter: ``handler``, ``error``, ``attempts``, ``events`` …; ``to_frame()`` shows them all.
    """

    def __init__(self, letters: Iterable[Letter] = ()) -> None:
        self._letters = tuple(letters)

    def only(self, *, handler: str) -> DeadLetterList:
        """Those of one handler, by its name (""; of entries that could not be read). Raises ValidationError for a name
        that is no text."""
        if not isinstance(handler, str):
            raise ValidationError(f"handler= is the name of a subscription; got {shown(handler)}")
        return DeadLetterList(letter for letter in self._letters if letter.handler == handler)

    @property
    def handlers(self) -> dict[str, int]:
        """How many letters each handler has, by name, in the order in which they first failed."""
        counts: dict[str, int] = {}
        for letter in self._letters:
            counts[letter.handler] = counts.get(letter.handler, 0) + 1
        return counts

    def events(self) -> EventBatch:
        """The events of all letters as one batch, in their order; a frame decoded for each letter, 50 µs.

        Letters of entries that could not be read hold none. Raises CodecError for a damaged letter, and ValidationError
        for letters of several sessions: take a part of them (``letters[:10]``, ``only``) then.
        """
        return EventBatch.concat(events_of(letter) for letter in self._letters if letter.handler)

    def to_frame(self) -> pd.DataFrame:
        """A row a letter: letter_id, at (the last failure, UTC), first, due (NaT: not by itself), handler, type, symbol
        (of its first event), session (its number), log_sequence, events, attempts, error."""
        import pandas as pd

        letters = self._letters

        def moments(name: str) -> pd.DatetimeIndex:
            values = np.array([getattr(letter, name) for letter in letters], np.int64).astype("M8[ns]")
            values[values == np.datetime64(0, "ns")] = np.datetime64("NaT")
            return pd.DatetimeIndex(values, tz="UTC")

        def numbers(name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            return np.array([getattr(letter, name) for letter in letters], np.int64)

        log = pd.array(numbers("log_sequence"), dtype="Int64")
        log[np.flatnonzero(numbers("log_sequence") < 0)] = pd.NA
        return pd.DataFrame(
            {
                "letter_id": [letter.letter_id for letter in letters],
                "at": moments("at_ns"),
                "first": moments("first_ns"),
                "due": moments("due_ns"),
                "handler": [letter.handler for letter in letters],
                "type": [letter.event_type for letter in letters],
                "symbol": [letter.symbol for letter in letters],
                "session": numbers("session_number"),
                "log_sequence": log,
                "events": numbers("events"),
                "attempts": numbers("attempts"),
                "error": [letter.error for letter in letters],
            }
        )

    def __len__(self) -> int:
        return len(self._letters)

    @overload
    def __getitem__(self, index: int) -> Letter: ...
    @overload
    def __getitem__(self, index: slice) -> DeadLetterList: ...
    def __getitem__(self, index: int | slice) -> Letter | DeadLetterList:
        return DeadLetterList(self._letters[index]) if isinstance(index, slice) else self._letters[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeadLetterList) and self._letters == other._letters

    def __hash__(self) -> int:
        return hash(self._letters)

    def __repr__(self) -> str:
        if not self._letters:
            return "DeadLetterList(none)"
        events = sum(letter.events for letter in self._letters)
        handlers = ", ".join(f"{name or 'not readable'} {count:,}" for name, count in list(self.handlers.items())[:3])
        more = f", and {len(self.handlers) - 3:,} more" if len(self.handlers) > 3 else ""
        return f"DeadLetterList({len(self):,} letters, {events:,} events: {handlers}{more})"

    def _repr_html_(self) -> str:
        head = f"<b>{html.escape(repr(self))}</b>"
        if not self._letters:
            return f"<div>{head}</div>"
        rows = self[:_HTML_ROWS].to_frame().drop(columns=["first", "session"])
        # The letters' texts are strangers': to_html escapes them.
        table = rows.to_html(index=False, na_rep="")
        left = len(self) - _HTML_ROWS
        return f"<div>{head}{table}{f'<p>and {left:,} more</p>' if left > 0 else ''}</div>"
