"""How often a server is asked: polite in the long run, quick at the beginning, and less and less where nobody answers.

Public servers are somebody's gift: hammering them from many machines has taken several down, and the pool's rules ask
for no more than a question a minute. So the interval starts at 64 s and doubles up to 1,024 s while the estimates are
steady (another sample would teach nothing), and halves when they are not. Whatever the settings, a public address is
never asked more often than every 16 s, but for the first burst: eight questions, two seconds apart, so that a notebook
knows the time after seconds. One's own servers, in private networks or on this machine, may be asked 16 times a second.

Pure: times are passed in, in ns of the counter.
"""

from __future__ import annotations

import math

from hftlab.errors import ValidationError, shown

LEAST_POLL_S = 1 / 16
"""The shortest interval for a server of one's own."""
LEAST_PUBLIC_POLL_S = 16.0
"""The shortest interval for a public server."""
MOST_POLL_S = float(1 << 17)
"""A day and a half: the longest that NTP knows."""
BURST_SPACING_S = 2.0
MOST_BURST = 8
"""As many as the clock filter holds; more would teach nothing."""

_REACH_BITS = 8
# A longer interval takes four steady answers in a row, a shorter one two unsteady ones.
_STEADY, _UNSTEADY = 4, -4
# Intervals of several servers, or several machines, drift apart instead of meeting for ever.
_SPREAD = 1 / 64
_SECOND_NS = 1_000_000_000


def check_polling(min_poll_s: float, max_poll_s: float, burst: int) -> None:
    """Raise ValidationError unless intervals and burst are within what a server can be asked."""
    for what, value in (("min_poll_s", min_poll_s), ("max_poll_s", max_poll_s)):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or not LEAST_POLL_S <= value <= MOST_POLL_S:
            raise ValidationError(
                f"{what} is 1/16 s (for servers of your own; public ones are asked every {LEAST_PUBLIC_POLL_S:g} s at "
                f"most) to {MOST_POLL_S:g} s; got {shown(value)}"
            )
    if max_poll_s < min_poll_s:
        raise ValidationError(f"max_poll_s is at least min_poll_s, {min_poll_s:g} s; got {shown(max_poll_s)}")
    if not isinstance(burst, int) or isinstance(burst, bool) or not 0 <= burst <= MOST_BURST:
        raise ValidationError(f"a burst is 0 to {MOST_BURST} questions; got {shown(burst)}")


class Polling:
    """When one server is to be asked next. ``next_ns`` is that time; ``ended`` says why it never will be again.

    ``near``: whether the server is one's own (see the module). After each question exactly one of ``answered``,
    ``missed`` and ``kissed`` is called.
    """

    def __init__(
        self, now_ns: int, *, min_poll_s: float = 64.0, max_poll_s: float = 1_024.0, burst: int = 8, near: bool = False
    ) -> None:
        check_polling(min_poll_s, max_poll_s, burst)
        self._min_s, self._max_s, self._burst = min_poll_s, max_poll_s, burst
        self._floor_s = LEAST_POLL_S
        self.next_ns = now_ns
        self.ended = ""
        self.reach = 0
        """Bit 0: whether the last question was answered; bit 7: the one eight ago."""
        self.asked = 0
        self._asked_ns: int | None = None
        self._rated_s = 0.0
        self._score = 0
        self._poll_s = 0.0
        self._burst_left = burst
        self.locate(near=near)

    @property
    def poll_s(self) -> float:
        """The interval now, without the burst."""
        return self._poll_s

    @property
    def least_s(self) -> float:
        """The shortest interval that may be: the user's, the floor for public servers, what the server asked for."""
        return max(self._min_s, self._floor_s, self._rated_s)

    @property
    def most_s(self) -> float:
        """The longest interval."""
        return max(self._max_s, self.least_s)

    @property
    def in_burst(self) -> bool:
        """Whether questions follow each other quickly now."""
        return self._burst_left > 0

    def locate(self, *, near: bool) -> None:
        """Say whether the server is one's own, once its address is known, or has changed."""
        before_s = self.least_s
        self._floor_s = LEAST_POLL_S if near else LEAST_PUBLIC_POLL_S
        self._poll_s = self.least_s if self._poll_s <= before_s else max(self._poll_s, self.least_s)
        self._spacing_s = self._burst_spacing_s

    def begin_anew(self, now_ns: int) -> None:
        """Ask again at once and in a burst: what was known of the time is void. What the server asked for stays."""
        if not self.ended:
            self._poll_s, self._score, self._spacing_s = self.least_s, 0, self._burst_spacing_s
            if not self._rated_s:
                self._burst_left, self.next_ns = self._burst, now_ns

    def may_ask(self, now_ns: int) -> bool:
        """Whether a question out of turn is polite: at once for one's own server, for a public one as in the module.

        A server that asked for less is left alone for as long as it said.
        """
        if self.ended:
            return False
        apart_s = 0.0
        if self._floor_s > LEAST_POLL_S:
            # Whoever asks out of turn for ever would else hammer it at the burst's spacing for ever.
            apart_s = self._burst_spacing_s if self.in_burst else self._floor_s
        apart_s = max(apart_s, self._rated_s)
        return self._asked_ns is None or now_ns - self._asked_ns >= apart_s * _SECOND_NS

    def ask(self, now_ns: int) -> None:
        """A question is sent now. If nobody ever says what came of it (it was cancelled), the next is due as usual."""
        self._asked_ns = now_ns
        self.asked += 1
        self._burst_left = max(self._burst_left - 1, 0)
        self._schedule(now_ns, 0.0)

    def answered(self, now_ns: int, *, steady: bool, spread: float = 0.0) -> None:
        """A valid answer came. ``steady``: whether the estimates are; ``spread``, 0 to 1: this time's chance."""
        if not self.reach and self.asked > 1 and not self._rated_s:  # it is back: find out quickly where it stands
            self._poll_s, self._score = self.least_s, 0
            self._burst_left = max(self._burst_left, self._burst - 1)
        self._spacing_s = self._burst_spacing_s
        self._note(True)
        if not self._burst_left:
            self._score = max(self._score, 0) + 1 if steady else min(self._score, 0) - 2
            if self._score >= _STEADY:
                self._score, self._poll_s = 0, min(self._poll_s * 2, self.most_s)
            elif self._score <= _UNSTEADY:
                self._score, self._poll_s = 0, max(self._poll_s / 2, self.least_s)
        self._schedule(now_ns, spread)

    def missed(self, now_ns: int, *, spread: float = 0.0) -> None:
        """No answer came, or none that could be used. After eight in a row, the interval doubles each time."""
        self._note(False)
        if not self.reach:
            if self._burst_left:
                self._spacing_s = min(self._spacing_s * 2, self._poll_s)
            elif self.asked >= _REACH_BITS:
                self._poll_s = min(self._poll_s * 2, self.most_s)
        self._schedule(now_ns, spread)

    def kissed(self, now_ns: int, code: str, *, poll_s: int = 0, spread: float = 0.0) -> None:
        """The server sent a kiss-o'-death. DENY and RSTR end it; RATE doubles the interval for good, others are misses.

        ``poll_s`` is how often the server says that it may be asked, 0 where it does not say.
        """
        if code in ("DENY", "RSTR"):
            self._note(False)
            self.ended = code
        elif code == "RATE":
            self._note(True)
            self._burst_left = 0
            # It may name its own interval; what is beyond the user's longest is taken for a slip, or for malice.
            asked_s = max(self._poll_s * 2, min(float(poll_s), self.most_s))
            self._rated_s = self._poll_s = min(asked_s, MOST_POLL_S)
            self._schedule(now_ns, spread)
        else:
            self.missed(now_ns, spread=spread)

    @property
    def _burst_spacing_s(self) -> float:
        return min(BURST_SPACING_S, self.least_s)

    def _note(self, answered: bool) -> None:
        self.reach = (self.reach << 1 | answered) & (1 << _REACH_BITS) - 1

    def _schedule(self, now_ns: int, spread: float) -> None:
        # From when it was asked, not from when the answer came: a timeout is part of the interval.
        since_ns = now_ns if self._asked_ns is None else self._asked_ns
        wait_s = self._spacing_s if self._burst_left else self._poll_s * (1 + _SPREAD * spread)
        self.next_ns = max(since_ns + int(wait_s * _SECOND_NS), now_ns)

    def __repr__(self) -> str:
        told = f"ended by {self.ended}" if self.ended else f"every {self._poll_s:g} s{', burst' * self.in_burst}"
        return f"Polling({told}, reach {self.reach:08b})"
