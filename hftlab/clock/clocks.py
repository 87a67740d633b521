"""Clocks: everything that asks for the time is given one of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hftlab.errors import ValidationError


class Clock(Protocol):
    """Something that tells the time: ns since 1970 UTC, never running backwards."""

    def now_ns(self) -> int:
        """The time now, in ns UTC."""
        ...


class VirtualClock:
    """A replay's time: it stands where its driver put it and never goes back.

    ``follow`` hands the clock a function that knows the time of the event being handled, so that a driver need not
    write to the clock for every event; what it returned last stays when it is taken away.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._source: Callable[[], int] | None = None

    def now_ns(self) -> int:
        """The virtual time, in ns UTC: the latest arrival that has been reached."""
        if self._source is not None:
            self._now_ns = max(self._now_ns, self._source())
        return self._now_ns

    def advance_to(self, moment_ns: int) -> None:
        """Move to ``moment_ns``; a moment in the past leaves the clock where it is."""
        self._now_ns = max(self._now_ns, moment_ns)

    def advance(self, duration_ns: int) -> None:
        """Move on by ``duration_ns``. Raises ValidationError if that is negative."""
        if duration_ns < 0:
            raise ValidationError(f"a clock moves forwards only; got {duration_ns} ns")
        self._now_ns = self.now_ns() + duration_ns

    def follow(self, source: Callable[[], int] | None) -> None:
        """Ask ``source`` for the time from now on (None: stand still where that left it)."""
        self.now_ns()
        self._source = source

    def __repr__(self) -> str:
        return f"VirtualClock({self.now_ns()})"
