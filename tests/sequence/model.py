"""The words of order as a plain loop: what ``hftlab.sequence`` must do, message by message, with lists and dicts.

Nothing here is fast or clever; the sequencer is right where it does the same. Where the words leave something open,
the model decides, and says so at the place with "Decided:".

What a source knows about its epoch, always (``check`` asserts it)::

    delivered, or lost            every number here is held, or in an open gap      never heard of
    base … n - 1                  n … top                                           top + 1 …
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.sequence.noted import Delivery, Gap, Message, Notice, Piece, Row

LOG_BITS = 40
ROW_BITS = (1 << LOG_BITS) - 1
ASIDE_ROWS = 1_024
OUTCOMES = ("delivered", "duplicate", "late", "conflicting", "orphaned")


class Held(NamedTuple):
    """A message in a window, sorted by its first number."""

    first: int
    last: int
    message: Message


class Waiting(NamedTuple):
    """A message that its source has released, and since when it waits for its turn."""

    message: Message
    since: int


@dataclass(eq=False)
class SourceState:
    """What is known about one source."""

    number: int
    rule: str
    strict: bool
    remembered: deque[tuple[int, Hashable]]
    epoch: int = -1
    base: int = 0
    n: int = 0
    top: int = -1
    ended: int | None = None
    window: list[Held] = field(default_factory=list)
    open: list[Piece] = field(default_factory=list)
    lost: list[Piece] = field(default_factory=list)
    queue: deque[Waiting] = field(default_factory=deque)
    numbered: int = 0
    highest: int = -1
    before: int = 0
    after_gap: bool = False
    counts: Counter[str] = field(default_factory=Counter)


class OrderModel:
    """``accept`` messages, ``advance`` the time, ``finish``; then look at what it wrote down."""

    def __init__(
        self,
        rules: Sequence[str],
        *,
        session: int = 0,
        window: int = 1_024,
        deadline_ns: int = 100_000_000,
        strict: frozenset[int] = frozenset({2, 3}),
        remembered: int = 256,
        lost_cause: str = "deliver",
    ) -> None:
        self.rules, self.session, self.window_messages = rules, session, window
        self.deadline_ns, self.strict_types, self.remembered = deadline_ns, strict, remembered
        self.lost_cause = lost_cause
        self.sources: dict[int, SourceState] = {}
        self.deliveries: list[Delivery] = []
        self.notices: list[Notice] = []
        self.set_aside: list[tuple[int, str]] = []
        self.gaps: list[Gap] = []
        self.cycles = self.orphans = 0
        self.clock = 0
        self.time = 0  # of what happens now: the clock, or the moment at which a deadline passed
        self.read = -1  # the highest log sequence so far
        self.finishing = False
        self._due: dict[Gap, None] = {}  # gaps of best-effort sources with open pieces, in order of opening
        self._in_flight: dict[int, int] = {}  # the source in whose window or queue an event id is
        self._blocked: set[int] = set()

    # -- what can be asked for --------------------------------------------------------------------------------------

    def accept(self, message: Message) -> bool:
        """Take a message; False where a strict source's window is full, and it has to be offered again."""
        self.advance(message.received)
        # Decided: a message is read once it is looked at, unless it is pressed back. So what it releases on its way (by
        # a reset, or a full window), which stands before it in its own source, doesn't wait for it.
        before, self.read = self.read, max(self.read, message.rows[-1])
        accepted = self._classify(message)
        if not accepted:
            self.read = before
        self._look_again()
        return accepted

    def advance(self, now: int) -> None:
        """Let time pass, from deadline to deadline: what is open or waited for too long is given up as of then."""
        # Decided: each deadline passes at its own moment. So it makes no difference how often somebody looks.
        while (due := min(self._gap_due(), self._cause_due())) <= now:
            self.clock = self.time = max(self.clock, int(due))
            if self._gap_due() <= due:
                gap = next(iter(self._due))
                for piece in [piece for piece in gap.pieces if piece.state == "open"]:
                    self._lose(self.sources[gap.source], piece, "deadline")
            self._look_again()
        self.clock = self.time = max(self.clock, now)

    def _gap_due(self) -> float:
        return next(iter(self._due)).opened + self.deadline_ns if self._due else math.inf

    def _cause_due(self) -> float:
        heads = (self.sources[number].queue[0] for number in self._blocked)
        return min(
            (head.since + self.deadline_ns for head in heads if self._is_to_come(head.message)), default=math.inf
        )

    def give_up(self, only: int | None = None) -> None:
        """Somebody decided not to wait for what a source misses, or all do."""
        for number in sorted(self.sources):
            if only in (None, number):
                self._lose_all(self.sources[number], "decided")
        self._look_again()

    def finish(self) -> None:
        """Nothing more will come: what is missing is lost, what waits is delivered."""
        for number in sorted(self.sources):
            self._lose_all(self.sources[number], "end")
        # Decided: causes still come before what they caused; only ids that were never read are waited for no more.
        self.finishing = True
        self._look_again()
        self.finishing = False

    # -- a message --------------------------------------------------------------------------------------------------

    def _classify(self, message: Message) -> bool:
        source = self.sources.get(message.source)
        if source is None:
            strict = message.event_type in self.strict_types
            memory: deque[tuple[int, Hashable]] = deque(maxlen=self.remembered)
            source = SourceState(message.source, self.rules[message.source], strict, memory)
            self.sources[message.source] = source
        if source.rule == "none" or message.sequence == -1:
            self._deliver(source, message)
            return True  # Decided: it declares no end, having no number to declare it at
        first, last = self._covered(source, message)
        if message.epoch > source.epoch:
            self._lose_all(source, "reset")
            source.epoch, source.base, source.n, source.top, source.ended = message.epoch, first, first, first - 1, None
            source.highest, source.before = -1, 0
            source.remembered.clear()
            source.lost.clear()
        elif message.epoch < source.epoch:
            # Decided: not remembered, since its number means something else in this epoch.
            self._put_aside(source, message, "late")
            return True
        if source.ended is not None and last > source.ended:
            self._put_aside(source, message, "conflicting")
            return True
        if source.rule == "shared":
            return self._shared(source, message)
        if first > last:
            self._heartbeat(source, message)
            return True
        return self._dense(source, message, first, last)

    def _covered(self, source: SourceState, message: Message) -> tuple[int, int]:
        last = message.sequence
        if source.rule == "shared":
            return last, last
        if message.heartbeat and message.span == 0:
            return last + 1, last
        return (last - message.span + 1 if source.rule == "range" else last), last

    def _shared(self, source: SourceState, message: Message) -> bool:
        if message.sequence >= source.n:
            source.n = message.sequence + 1
            source.top = max(source.top, message.sequence)
            self._note_number(source, message)
            self._deliver(source, message)
        elif (seen := self._seen(source, message)) is not None:
            self._discard(source, message, seen)
        else:
            self._remember(source, message)
            self._put_aside(source, message, "late")
        return True

    def _heartbeat(self, source: SourceState, message: Message) -> None:
        # Decided: never remembered; it has no number of its own, and the message that has it may still come.
        if message.sequence > source.top:
            self._open(source, message, source.top + 1, message.sequence)
            source.top = message.sequence
        self._deliver(source, message)
        self._note_end(source, message)

    def _dense(self, source: SourceState, message: Message, first: int, last: int) -> bool:
        if last < source.n:
            self._behind(source, message, first, last)
        elif first <= source.n:
            self._fill(source, first, last)
            source.n = last + 1
            source.top = max(source.top, last)
            self._note_number(source, message)
            self._deliver(source, message)
            self._follow(source)
        else:
            return self._ahead(source, message, first, last)
        return True

    def _behind(self, source: SourceState, message: Message, first: int, last: int) -> None:
        seen = self._seen(source, message)
        if seen is not None:
            self._discard(source, message, seen)
        elif first < source.base or any(piece.first <= last and first <= piece.last for piece in source.lost):
            self._remember(source, message)
            self._put_aside(source, message, "late")
        else:
            self._discard(source, message, "duplicate")

    def _ahead(self, source: SourceState, message: Message, first: int, last: int) -> bool:
        overlapped = [held for held in source.window if held.first <= last and first <= held.last]
        if overlapped:
            held = overlapped[0]
            same = (held.first, held.last) == (first, last) and held.message.content == message.content
            self._discard(source, message, "duplicate" if same else "conflicting")
            return True
        if len(source.window) >= self.window_messages:
            if source.strict:
                return False
            self._lose(source, source.open[0], "window")
            return self._dense(source, message, first, last)
        if first > source.top + 1:
            self._open(source, message, source.top + 1, first - 1)
        self._fill(source, first, last)
        source.top = max(source.top, last)
        self._note_number(source, message)
        insort(source.window, Held(first, last, message), key=lambda held: held.first)
        self._in_flight.update(dict.fromkeys(self._ids(message), source.number))
        self._note_received(source)
        return True

    def _follow(self, source: SourceState) -> None:
        while source.window and source.window[0].first <= source.n:
            held = source.window.pop(0)
            if held.last < source.n:
                self._put_aside(source, held.message, "conflicting", taken=True)
            else:
                source.n = held.last + 1
                self._release(source, held.message)

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def _deliver(self, source: SourceState, message: Message) -> None:
        self._note_received(source)
        self._release(source, message)

    def _note_received(self, source: SourceState) -> None:
        source.counts["received"] += 1

    def _note_number(self, source: SourceState, message: Message) -> None:
        # Decided: a gap's ``before`` is the last row of the highest number that was delivered or held in the epoch.
        self._remember(source, message)
        if message.sequence > source.highest:
            source.highest, source.before = message.sequence, self._ids(message)[-1]
        self._note_end(source, message)

    def _note_end(self, source: SourceState, message: Message) -> None:
        if message.end:
            source.ended = message.sequence

    def _put_aside(self, source: SourceState, message: Message, reason: str, *, taken: bool = False) -> None:
        if not taken:
            self._note_received(source)
        source.counts[reason] += 1
        self.set_aside += [(row, reason) for row in message.rows]
        for name in self._ids(message):
            self._in_flight.pop(name, None)

    def _discard(self, source: SourceState, message: Message, seen: str) -> None:
        if seen == "duplicate":
            self._note_received(source)
            source.counts["duplicate"] += 1
        else:
            self._put_aside(source, message, "conflicting")

    def _remember(self, source: SourceState, message: Message) -> None:
        source.remembered.append((message.sequence, message.content))

    def _seen(self, source: SourceState, message: Message) -> str | None:
        # Decided: where one number is remembered with several contents, the latest counts: the one that was delivered.
        for sequence, content in reversed(source.remembered):
            if sequence == message.sequence:
                return "duplicate" if message.content == content else "conflicting"
        return None

    def _ids(self, message: Message) -> list[int]:
        return [self.session << LOG_BITS | row if self.session else 0 for row in message.rows]

    # -- gaps -------------------------------------------------------------------------------------------------------

    def _open(self, source: SourceState, message: Message, first: int, last: int) -> None:
        gap = Gap(source.number, source.epoch, self.time, source.before, self._ids(message)[0])
        piece = Piece(gap, first, last)
        gap.pieces.append(piece)
        source.open.append(piece)
        self.gaps.append(gap)
        if not source.strict:
            self._due[gap] = None
        self._notify("open", "none", piece)

    def _fill(self, source: SourceState, first: int, last: int) -> None:
        """Decided: all open numbers that a message covers are filled, also where they are of several gaps."""
        for piece in [piece for piece in source.open if piece.first <= last and first <= piece.last]:
            filled = Piece(piece.gap, max(first, piece.first), min(last, piece.last), "filled", "none", self.time)
            left = [Piece(piece.gap, piece.first, filled.first - 1)] if piece.first < filled.first else []
            right = [Piece(piece.gap, filled.last + 1, piece.last)] if filled.last < piece.last else []
            _replace(source.open, piece, [*left, *right])
            _replace(piece.gap.pieces, piece, [*left, filled, *right])
            source.counts["filled"] += filled.last - filled.first + 1
            self._notify("filled", "none", filled)
            self._note_closed(piece.gap)

    def _lose(self, source: SourceState, piece: Piece, reason: str) -> None:
        piece.state, piece.reason, piece.closed = "lost", reason, self.time
        source.open.remove(piece)
        source.lost.append(piece)
        source.counts["lost"] += piece.last - piece.first + 1
        source.after_gap = True
        self._notify("lost", reason, piece)
        self._note_closed(piece.gap)
        source.n = piece.last + 1
        self._follow(source)

    def _lose_all(self, source: SourceState, reason: str) -> None:
        while source.open:
            self._lose(source, source.open[0], reason)

    def _note_closed(self, gap: Gap) -> None:
        if all(piece.state != "open" for piece in gap.pieces):
            self._due.pop(gap, None)

    def _notify(self, kind: str, reason: str, piece: Piece) -> None:
        gap = piece.gap
        where, numbers = len(self.deliveries), (piece.first, piece.last)
        times = (gap.opened, 0 if kind == "open" else self.time)
        notice = Notice(where, kind, reason, gap.source, gap.epoch, *numbers, *times, gap.before, gap.after)
        self.notices.append(notice)

    # -- causes -----------------------------------------------------------------------------------------------------

    def _release(self, source: SourceState, message: Message) -> None:
        """The source's order is done with a message. It joins the source's queue, which is empty if nobody waits."""
        source.queue.append(Waiting(message, self.time))
        self._in_flight.update(dict.fromkeys(self._ids(message), source.number))
        if len(source.queue) == 1:  # else somebody before it waits, who is looked at again when all else is done
            self._drain(source)

    def _drain(self, source: SourceState) -> bool:
        moved = False
        while source.queue and (verdict := self._verdict(source, source.queue[0])) != "wait":
            waiting = source.queue.popleft()
            moved = True
            self.cycles += verdict == "cycle"
            self.orphans += verdict == "orphan"
            if verdict == "orphan" and self.lost_cause == "set aside":
                self._put_aside(source, waiting.message, "orphaned", taken=True)
                continue
            for name in self._ids(waiting.message):
                self._in_flight.pop(name, None)
            source.counts["delivered"] += 1
            sequence = waiting.message.sequence
            if source.rule == "none" and source.number != 0:
                # Decided: what is set aside takes no number with it.
                sequence, source.numbered = source.numbered, source.numbered + 1
            for part, row in enumerate(waiting.message.rows):
                self.deliveries.append(Delivery(row, self.time, sequence, source.after_gap and part == 0))
            source.after_gap = False
        if source.queue:
            self._blocked.add(source.number)
        else:
            self._blocked.discard(source.number)
        return moved

    def _verdict(self, source: SourceState, waiting: Waiting) -> str:
        cause = waiting.message.cause
        if cause == 0:
            return "go"
        if cause in self._ids(waiting.message):
            return "cycle"
        if cause in self._in_flight:
            return "cycle" if self._leads_back(source, cause) else "wait"
        if self._is_to_come(waiting.message):
            return "go" if self.finishing or self.clock >= waiting.since + self.deadline_ns else "wait"
        known = self.session and cause >> LOG_BITS == self.session
        if known and any(cause & ROW_BITS == row for row, _ in self.set_aside[-ASIDE_ROWS:]):
            return "orphan"
        return "go"

    def _is_to_come(self, message: Message) -> bool:
        """Whether the cause is an id of this session that is higher than any read so far."""
        return self.session > 0 and message.cause >> LOG_BITS == self.session and message.cause & ROW_BITS > self.read

    def _leads_back(self, source: SourceState, cause: int) -> bool:
        # A window goes on whatever waits in the queues, so a cause in a window ends the chain, even in one's own.
        passed: set[int] = set()
        while cause in self._in_flight and not self._is_held(cause):
            where = self._in_flight[cause]
            if where == source.number:
                return True
            if where in passed:
                return False
            passed.add(where)
            cause = self.sources[where].queue[0].message.cause
        return False

    def _is_held(self, cause: int) -> bool:
        window = self.sources[self._in_flight[cause]].window
        return any(cause in self._ids(held.message) for held in window)

    def _look_again(self) -> None:
        moved = True
        while moved:
            moved = False
            for number in sorted(self._blocked):
                moved |= self._drain(self.sources[number])

    # -- what holds always ------------------------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """The table of gaps: in the order of opening, the pieces of each by their numbers."""
        return [row for gap in self.gaps for row in gap.rows()]

    def counts(self, number: int) -> dict[str, int]:
        """How many messages of a source met which fate, and how many numbers were filled and lost."""
        source = self.sources[number]
        buffered = len(source.window) + len(source.queue)
        names = ("received", *OUTCOMES, "filled", "lost")
        return {name: source.counts[name] for name in names} | {"buffered": buffered}

    def check(self) -> None:
        """Assert what is true between any two calls."""
        for number, source in self.sources.items():
            counts = self.counts(number)
            assert counts["received"] == sum(counts[name] for name in (*OUTCOMES, "buffered"))
            if source.rule in ("plus-one", "range"):
                spans = sorted([(p.first, p.last) for p in source.open] + [(h.first, h.last) for h in source.window])
                assert source.n <= source.top + 1
                known = source.n
                for first, last in spans:
                    assert first == known, (source, spans)
                    known = last + 1
                assert known == source.top + 1
                assert len(source.window) <= self.window_messages
                assert not source.window or source.open[0].first == source.n
        for gap in self.gaps:
            for piece, follower in zip(gap.pieces, gap.pieces[1:], strict=False):
                assert piece.last + 1 == follower.first


def _replace(pieces: list[Piece], old: Piece, new: list[Piece]) -> None:
    at = pieces.index(old)
    pieces[at : at + 1] = new
