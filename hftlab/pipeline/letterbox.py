"""``Letterbox``: what handlers did not get done, as letters, from the moment that it failed until a commit has them.

::

    bus ──put──► letters in memory ──take──► commit ──► server
                    │ too many, or no server      ▲
                    └──► spill file ──restore─────┘

Nothing here waits: letters come in the middle of the bus's work. What is in memory is safe as long as the position of
its events is not committed without it; what is beyond the bound of memory is on the disk when ``put`` returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hftlab.errors import CodecError, SpillFull, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.frames import MAX_ROWS, decode_frame, encode_frame
from hftlab.events.group_ports import Letter
from hftlab.events.records import MAX_LOG_SEQUENCE, Flags
from hftlab.events.rowbytes import copy_rows
from hftlab.events.types import Event
from hftlab.pipeline.retrying import RetryPolicy
from hftlab.pipeline.spill import SpillFile

LIMIT_BYTES = 16 << 20
MOST_ERROR_CHARACTERS = 1_000
INVALID = "(invalid)"
"""The handler of letters of rows that no handler was given: a check, or a transform, refused them."""

_LETTER_BYTES = 256
"""What a letter takes beside its frame and texts, about."""

_READ_CHARACTERS = 4 * MOST_ERROR_CHARACTERS
# What stands between a URL's scheme and its host, and values that are called secrets.
_CREDENTIALS = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@]*@")
_NAMED = re.compile(
    r"""(?ix) \b ( [\w-]* (?: password | passwd | passphrase | secret | token | api[_-]?key | authorization ) [\w-]* )
        ( ["']? \s* [:=] \s* ) (?: (?: bearer | basic ) \s+ )? (?: "[^"]*" | '[^']*' | [^\s,;&)}\]]+ )"""
)


class FailedEvents(Protocol):
    """What a bus hands over. ``bus.DeadLetter`` is one: ``attempts`` of 0 were rejected by a circuit breaker."""

    @property
    def handler(self) -> str:
        """The handler's name."""

    @property
    def event(self) -> Event | EventBatch:
        """What it did not get done."""

    @property
    def error(self) -> BaseException:
        """Why."""

    @property
    def attempts(self) -> int:
        """How often it was tried."""


class _Before(NamedTuple):
    """What is known of an event that is being tried again."""

    attempts: int
    first_ns: int


class Letterbox:
    """A dead-letter port for one processor. One thread.

    ``now_ns`` says when (a run's own clock says when the events came), ``policy`` when a letter is tried again (None:
    never by itself). Beyond ``limit_bytes`` letters go to the ``spill`` file; where there is none, or it takes no more,
    memory may hold twice as much. ``session_number`` is that of events that name none.

    ``letters`` and ``events`` count all that ever came, ``invalid`` the events among them that no handler was given;
    ``spilled`` letters went to the disk, ``drained`` ones have left it; ``refused`` could be kept nowhere, and were
    raised. ``trouble`` is what kept the disk from taking letters the last time.
    """

    def __init__(
        self,
        now_ns: Callable[[], int],
        *,
        policy: RetryPolicy | None = None,
        spill: SpillFile | None = None,
        session_number: int = 0,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        if isinstance(limit_bytes, bool) or not isinstance(limit_bytes, int) or limit_bytes < 1:
            raise ValidationError(f"limit_bytes= of a letterbox is a whole number above 0; got {limit_bytes!r}")
        self.policy, self.session_number = policy, session_number
        self.letters = self.events = self.invalid = 0
        self.spilled = self.drained = self.refused = self.set_aside = 0
        self.trouble: Exception | None = None
        self._spill, self._now_ns, self._limit_bytes = spill, now_ns, limit_bytes
        self._kept: list[Letter] = []
        self._kept_bytes = 0
        self._spill_at_bytes = limit_bytes  # rises while the disk does not take them: each try costs a pass over all
        self._emitted_number = MAX_LOG_SEQUENCE
        self._retried: dict[tuple[str, int], _Before] = {}

    # -- coming in ----------------------------------------------------------------------------------------------------

    def put(self, failed: FailedEvents) -> None:
        """Keep what a handler failed on, as one letter, or several where its rows do not fit one frame. About 0.15 ms.

        Raises OSError and SpillFull where neither memory nor disk take it; it is counted as ``refused`` then.
        """
        batch = EventBatch.from_events([failed.event]) if isinstance(failed.event, Event) else failed.event
        error, now_ns = error_text(failed.error), self._now_ns()
        before = self._before(failed.handler, batch)
        tried, first_ns = before.attempts + failed.attempts, before.first_ns or now_ns
        # A call with its own immediate repetitions is one try to the policy.
        rounds = -(-tried // failed.attempts) if failed.attempts else 0
        self._keep(
            [self._letter(one, failed.handler, error, tried, rounds, first_ns, now_ns) for one in framed(batch)]
        )  # fmt: skip

    def add_invalid(self, batch: EventBatch, reason: str) -> None:
        """Keep rows that a check, or a transform, refused: they are never tried again by themselves. Raises as ``put``
        does."""
        now_ns, error = self._now_ns(), _cut(_without_secrets(reason[:_READ_CHARACTERS]))
        self.invalid += len(batch)
        self._keep([self._letter(piece, INVALID, error, 0, -1, now_ns, now_ns) for piece in framed(batch)])

    def add(self, letter: Letter) -> None:
        """Keep a letter that somebody else made. Raises as ``put`` does."""
        self._keep([letter])

    def _letter(
        self, piece: EventBatch, handler: str, error: str, attempts: int, rounds: int, first_ns: int, now_ns: int
    ) -> Letter:
        rows = piece.records
        recorded = not (rows["flags"] & Flags.EMITTED.value).all()
        base = int(rows["log_sequence"][0])
        relative = copy_rows(rows)
        relative["log_sequence"] -= base
        frame = encode_frame(
            EventBatch(relative, piece.symbols, piece.sources, session_number=piece.session_number)
        )  # fmt: skip
        assert piece.type is not None
        return Letter(
            handler=handler,
            error=error,
            attempts=attempts,
            first_ns=first_ns,
            at_ns=now_ns,
            due_ns=self.policy.due_ns(rounds, now_ns) if self.policy is not None and rounds >= 0 else 0,
            log_sequence=base if recorded else -1,
            session_number=piece.session_number or self.session_number,
            events=len(rows),
            event_type=piece.type.topic,
            symbol=piece.symbols[int(rows["symbol"][0])],
            frame=frame,
        )

    def _keep(self, letters: Sequence[Letter]) -> None:
        self.letters += len(letters)
        self.events += sum(letter.events for letter in letters)
        size_bytes = sum(map(_size_bytes, letters))
        self._kept += letters
        self._kept_bytes += size_bytes
        if self._kept_bytes <= self._spill_at_bytes or len(self._kept) == len(letters):
            return
        try:
            # All at once: one wait for the disk for 16 MB of letters, and they stay in order.
            self.spill(self._kept)
        except (OSError, SpillFull) as error:
            self.trouble = error
            self._spill_at_bytes = self._kept_bytes + self._limit_bytes // 16
            self._spill_at_bytes = min(self._spill_at_bytes, 2 * self._limit_bytes)
            if self._kept_bytes > 2 * self._limit_bytes:
                del self._kept[-len(letters) :]
                self._kept_bytes -= size_bytes
                self.refused += len(letters)
                raise
        else:
            self.take()

    # -- going out ----------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many letters the next commit has to have."""
        return len(self._kept)

    def take(self) -> tuple[Letter, ...]:
        """All letters in memory, for a commit: all of them, or its position would say that their events are done."""
        taken = tuple(self._kept)
        self.forget()
        return taken

    def forget(self) -> None:
        """Let go of the letters in memory: their events come again, to whoever goes on from the last commit."""
        self._kept, self._kept_bytes = [], 0
        self._spill_at_bytes = self._limit_bytes

    def begin_anew(self) -> None:
        """Go on from a checkpoint: no letter that is here, in memory or on the disk, belongs to a commit that was made.

        Their events come again, and what fails again becomes a letter again. The file is kept beside, for people.
        """
        self.forget()
        if self._spill is not None:
            self.set_aside += self._spill.set_aside()
            self.drained = self.spilled

    def put_back(self, letters: Iterable[Letter]) -> None:
        """Letters of a commit that was not made: they go first with the next one."""
        self._kept[:0] = letters
        self._kept_bytes = sum(map(_size_bytes, self._kept))

    # -- on the disk --------------------------------------------------------------------------------------------------

    def spill(self, letters: Iterable[Letter]) -> None:
        """Have letters on the disk, too, while a commit that has them is on its way. Raises OSError, SpillFull.

        Does nothing where there is no spill file.
        """
        written = list(letters)
        if self._spill is not None:
            self._spill.write(written)
            self.spilled += len(written)
            self.trouble = None
        elif self._kept_bytes > self._limit_bytes:
            raise SpillFull(
                f"{self._kept_bytes:,} bytes of dead letters wait for the server, more than the {self._limit_bytes:,} "
                "that memory holds, and there is no spill file; have the server take writes again"
            )

    def restore(self) -> tuple[Letter, ...]:
        """The letters on the disk: ``put_back`` has them in the next commit, and ``saved`` takes them off the disk."""
        return () if self._spill is None else tuple(self._spill.read())

    def saved(self, letters: Sequence[Letter]) -> None:
        """A commit has these letters: the disk need not keep them. About 2 µs where it has none. Raises OSError."""
        if letters and self._spill is not None and self._spill.size_bytes:
            self.drained += self._spill.drained(letters)

    # -- tried again --------------------------------------------------------------------------------------------------

    def retrying(self, letter: Letter) -> EventBatch:
        """A letter's events, to be tried again: what fails of them goes on with its count and first failure.

        Give the same batch to ``retried`` when that has ended, or it is remembered for good. Raises CodecError.
        """
        batch = events_of(letter)
        emitted = (batch.records["flags"] & Flags.EMITTED.value) != 0
        if emitted.any():
            # No emission of the run that is on the bus may be taken for one of these: they count from the other end.
            count = int(np.count_nonzero(emitted))
            batch.records["log_sequence"][emitted] = np.arange(self._emitted_number - count, self._emitted_number)
            self._emitted_number -= count
        self._retried |= dict.fromkeys(_keys(letter.handler, batch), _Before(letter.attempts, letter.first_ns))
        return batch

    def retried(self, handler: str, batch: EventBatch) -> None:
        """The try of a letter's events has ended, well or not."""
        for key in _keys(handler, batch):
            self._retried.pop(key, None)

    def _before(self, handler: str, batch: EventBatch) -> _Before:
        if not self._retried:
            return _NEVER
        found = [self._retried[key] for key in _keys(handler, batch) if key in self._retried]
        return _Before(max(one.attempts for one in found), min(one.first_ns for one in found)) if found else _NEVER

    def __repr__(self) -> str:
        more = f", {self.spilled - self.drained:,} on the disk" if self.spilled > self.drained else ""
        return f"Letterbox({self.waiting:,} of {self.letters:,} letters wait for a commit{more})"


_NEVER = _Before(0, 0)


def events_of(letter: Letter) -> EventBatch:
    """The events of a letter, with the ids that they had (those of emitted events are their run's, and not kept).

    Raises CodecError for a letter that holds none: an entry of the log that could not be read.
    """
    try:
        return decode_frame(
            letter.frame, base=max(letter.log_sequence, 0), session_number=max(letter.session_number, 0)
        )  # fmt: skip
    except (CodecError, ValidationError) as error:
        raise CodecError(f"the letter {letter.letter_id or '(not kept yet)'} holds no events: {error}") from error


def framed(batch: EventBatch) -> Iterator[EventBatch]:
    """A batch in pieces that fit a frame each: of one type, with log sequences that never fall. Nearly always just one.

    Emitted events get the number of the recorded one before them: theirs means something in their run only.
    """
    for run in batch.runs():
        rows = run.records
        log = rows["log_sequence"]
        emitted = (rows["flags"] & Flags.EMITTED.value) != 0
        if emitted.any() or (len(log) and int(log.min()) < 0):
            rows = copy_rows(rows)
            log = rows["log_sequence"]
            _place(log, emitted)
        cuts = np.flatnonzero(np.diff(log) < 0) + 1
        for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True):
            for first, last in _spans(log, begin, end):
                yield EventBatch(rows[first:last], run.symbols, run.sources, session_number=run.session_number)


def _place(log: npt.NDArray[np.int64], emitted: npt.NDArray[np.bool_]) -> None:
    """Give emitted events, in place, the number of the recorded one before them, or of the first one."""
    recorded = np.flatnonzero(~emitted)
    if len(recorded):
        before = np.searchsorted(recorded, np.flatnonzero(emitted)) - 1
        log[emitted] = log[recorded[np.maximum(before, 0)]]
    else:
        log[:] = np.arange(len(log)) % MAX_ROWS
    log[log < 0] = 0


def _spans(log: npt.NDArray[np.int64], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Where rows whose numbers rise have to be cut so that no piece spans more numbers than a frame can hold."""
    while begin < end:
        last = begin + int(np.searchsorted(log[begin:end], int(log[begin]) + MAX_ROWS))
        last = min(last, begin + MAX_ROWS)
        yield begin, last
        begin = last


def error_text(error: BaseException) -> str:
    """``Type: message`` on up to 1,000 characters, with ``***`` for what looks like a secret. Never raises."""
    try:
        message = str(error)
    except Exception as unreadable:  # a stranger's __str__ may do anything
        message = f"(its message can't be shown: {type(unreadable).__name__})"
    return _cut(_without_secrets(f"{type(error).__name__}: {message[:_READ_CHARACTERS]}"))


def _without_secrets(text: str) -> str:
    return _NAMED.sub(r"\1\2***", _CREDENTIALS.sub(r"\1***@", text))


def _cut(text: str) -> str:
    # What no encoding can write, no server can keep.
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MOST_ERROR_CHARACTERS else text[: MOST_ERROR_CHARACTERS - 1] + "…"


def _keys(handler: str, batch: EventBatch) -> list[tuple[str, int]]:
    """What the events of a letter are known by while they are tried again; those without an id are not."""
    return [(handler, number) for number in batch.event_ids.tolist() if number]


def _size_bytes(letter: Letter) -> int:
    return len(letter.frame) + len(letter.error) + len(letter.handler) + _LETTER_BYTES


__all__ = ["INVALID", "LIMIT_BYTES", "FailedEvents", "Letterbox", "error_text", "events_of", "framed"]
