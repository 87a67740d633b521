"""``Retries``: letters that are tried again, one at a time, by the handler that failed on them and by nobody else.

A letter stays in Redis until the commit after its handler has done it, so a crash in between tries it again, and the
effects of the transaction that went with it happen once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

import msgspec

from hftlab.errors import HftlabError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.group_ports import Letter
from hftlab.events.ports import BusRun
from hftlab.pipeline.letterbox import INVALID, Letterbox, error_text

MOST_KEPT = 10_000
"""How many letters wait here to be tried again; more are ``forgotten`` until the next start, or ``redrive``."""

_AT_ONCE_NS = 1
"""When a redrive is due: before all others."""


class Retries:
    """Knows which letters are due, and has a run redeliver them. ``tried`` and ``mended`` count events."""

    def __init__(self, letterbox: Letterbox) -> None:
        self.tried = self.mended = self.forgotten = 0
        self._letterbox = letterbox
        self._waiting: dict[str, Letter] = {}
        self._due: list[tuple[int, str]] = []  # a heap; of a letter that was moved forwards it has both moments
        self._trying: Letter | None = None
        self._settled: set[str] = set()  # done with by a commit of this life, made or to be made
        self._events = EventBatch.empty()

    def reset(self, kept: Iterable[Letter]) -> None:
        """Begin anew with the letters that the server keeps."""
        if self._trying is not None:
            self._letterbox.retried(self._trying.handler, self._events)
        self._waiting, self._due, self._trying, self._settled = {}, [], None, set()
        self.add(list(kept))

    def add(self, letters: Sequence[Letter]) -> None:
        """Letters were saved: try again those that are to be."""
        for letter in letters:
            if letter.due_ns and letter.handler:
                if len(self._waiting) >= MOST_KEPT:
                    # It is safe on the server, and comes up with the next start, or by redrive.
                    self.forgotten += 1
                    continue
                self._wait_for(letter)

    def _wait_for(self, letter: Letter) -> None:
        self._waiting[letter.letter_id] = letter
        heappush(self._due, (letter.due_ns, letter.letter_id))

    def redrive(self, letters: Iterable[Letter]) -> int:
        """Try these as soon as nothing else is to be done; returns how many events that is. Raises ValidationError."""
        chosen = list(letters)
        for letter in chosen:
            if not letter.letter_id:
                raise ValidationError("only letters that are kept can be tried again: those of processor.letters()")
        count = 0
        for letter in chosen:
            trying = self._trying is not None and self._trying.letter_id == letter.letter_id
            if letter.handler not in ("", INVALID) and not trying and letter.letter_id not in self._settled:
                self._wait_for(msgspec.structs.replace(letter, due_ns=_AT_ONCE_NS))
                count += letter.events
        return count

    @property
    def due_ns(self) -> int | None:
        """When the next one is due, in ns UTC; None without one, and while one is being tried."""
        return self._due[0][0] if self._due and self._trying is None else None

    @property
    def redriving(self) -> bool:
        """Whether a letter is being tried, or waits that ``redrive`` was asked for."""
        return self._trying is not None or bool(self._due and self._due[0][0] <= _AT_ONCE_NS)

    @property
    def under_way(self) -> bool:
        """Whether a letter is being tried now."""
        return self._trying is not None

    def begin(self, run: BusRun, now_ns: int, settle: Callable[[str], None]) -> int:
        """Have the run redeliver the letter that is due, if one is; returns how many events it holds.

        ``settle`` is told of its id when it is done with, or replaced by one that says how often it was tried.
        """
        due = self._next(now_ns)
        if due is None:
            return 0
        self._trying = due

        def done(error: BaseException | None) -> None:
            self._ended(due, error, settle)

        try:
            events = self._letterbox.retrying(due)
            self._events = events
            run.redeliver(due.handler, events if len(events) > 1 else events[0], done)
        except HftlabError as error:
            # No such handler (any more), or bytes that this version can't read: it is kept for a redrive.
            self._trying, self._events = None, EventBatch.empty()
            self._letterbox.add(msgspec.structs.replace(due, letter_id="", error=error_text(error), due_ns=0))
            self._settled.add(due.letter_id)
            settle(due.letter_id)
            return 0
        self.tried += due.events
        return due.events

    def _next(self, now_ns: int) -> Letter | None:
        """Take out the letter that is due, if none is being tried."""
        while self._trying is None and self._due and self._due[0][0] <= now_ns:
            moment_ns, letter_id = heappop(self._due)
            letter = self._waiting.get(letter_id)
            if letter is not None and letter.due_ns == moment_ns:
                return self._waiting.pop(letter_id)
        return None

    def _ended(self, tried: Letter, error: BaseException | None, settle: Callable[[str], None]) -> None:
        """It is done with: what failed of it again has become letters of its own, which know how often it was tried."""
        self._trying = None
        self._letterbox.retried(tried.handler, self._events)
        self._events = EventBatch.empty()
        self._settled.add(tried.letter_id)
        settle(tried.letter_id)
        self.mended += tried.events if error is None else 0
