"""``CircuitBreaker``: keeps calls from a handler that fails, or is too slow, and tries it again after a while.

The words are resilience4j's. CLOSED: every call is made and its outcome goes into a sliding window; when that holds
enough calls and too many of them failed or were slow, the breaker is OPEN and nothing is called. The first call after
the wait makes it HALF_OPEN: some calls are tried, and when all their outcomes are known it is CLOSED, with an empty
window, or OPEN again. Two more states are only entered by hand: FORCED_OPEN (nothing is called) and DISABLED
(everything is called, nothing recorded).

Pure: the time is passed in. And what is permitted depends on the calls, their times and their outcomes alone, never on
how they were cut into batches or runs, so that two replays agree. That takes two things. ``permit`` answers only as far
as can be known: where a call's success could open the breaker (the least number of calls is reached, or, in a window of
seconds, a new second begins, in which old successes leave), what lies behind is not decided yet. And a failure or a
slow call can change what was answered, so ``record`` and ``record_failure`` say whether it still stands::

    while at < len(times):
        rejected, permitted = breaker.permit(times[at:])
        …       # account for the rejected, call the permitted in order, record; where a record returns False, ask again
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from hftlab.flow.breaker_settings import BreakerSettings
from hftlab.flow.breaker_states import BreakerChange, BreakerState, BreakerStatistics
from hftlab.flow.windows import CountWindow, OutcomeWindow


class CircuitBreaker:
    """One handler's breaker. ``on_change`` is called with a BreakerChange, after the change; it must not raise.

    Times are ns and do not fall from one call of a method to the next. One thread. 1 µs to ask, 1.6 µs to record a
    run, however long (measured beside other work).
    """

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        name: str = "",
        on_change: Callable[[BreakerChange], object] | None = None,
    ) -> None:
        self.settings = settings or BreakerSettings()
        self.name = name
        self.on_change = on_change
        self._state = BreakerState.CLOSED
        self._window = self.settings.window()
        self._judged_from = self.settings.judged_from_calls
        self._generation = 0
        self._answered = 0  # the generation in which ``permit`` answered last
        self._handed_out = 0  # permits of this HALF_OPEN, without those given back
        self._since_ns = self._retry_at_ns = self._latest_ns = 0
        self._deadline_ns: int | None = None
        self._not_permitted = self._opened = self._late = 0

    @property
    def state(self) -> BreakerState:
        """The state now. OPEN also when the wait is over, until the next call is asked for."""
        return self._state

    @property
    def is_closed(self) -> bool:
        """Whether the state is CLOSED. ``permit`` may still have to be asked: see ``permits_all``."""
        return self._state is BreakerState.CLOSED

    @property
    def permits_all(self) -> bool:
        """Whether calls need not be asked for, however many, until one fails or is slow.

        True when DISABLED, and in the ordinary case of CLOSED; never in CLOSED with a window of seconds, where runs end
        with the second.
        """
        if self._state is BreakerState.CLOSED:
            return isinstance(self._window, CountWindow) and self._successes_until_open() is None
        return self._state is BreakerState.DISABLED

    @property
    def generation(self) -> int:
        """Counts changes of state: note it when permitted, so that an outcome that comes much later is recognised."""
        return self._generation

    # -- calls ----------------------------------------------------------------------------------------------------

    def permit(self, times_ns: npt.NDArray[np.int64]) -> tuple[int, int]:
        """Ask for the next calls, in order: (rejected, permitted).

        ``times_ns``: int64, non-decreasing, when each is to be called. The first ``rejected`` are not permitted, and
        counted as such; the next ``permitted`` may be called; both are 0 only for no times at all. What lies behind is
        decided when you ask again, after those were recorded or given back. O(log n).
        """
        count, at, permitted = len(times_ns), 0, 0
        while at < count and not permitted:
            self._move_to(int(times_ns[at]))
            state = self._state
            if state is BreakerState.CLOSED:
                permitted = self._permitted_when_closed(times_ns[at:])
            elif state is BreakerState.DISABLED:
                permitted = count - at
            elif state is BreakerState.FORCED_OPEN:
                at = count
            elif state is BreakerState.OPEN:
                at += int(np.searchsorted(times_ns[at:], self._retry_at_ns))
            else:
                end = count
                if self._deadline_ns is not None:
                    end = at + int(np.searchsorted(times_ns[at:], self._deadline_ns))
                room = self.settings.permitted_number_of_calls_in_half_open_state - self._handed_out
                permitted = min(room, end - at)
                self._handed_out += permitted
                if not room:
                    at = end
        self._not_permitted += at
        self._answered = self._generation
        return at, permitted

    def lasts_for(self, times_ns: npt.NDArray[np.int64]) -> int:
        """How many of the next calls, from the first on, come before time alone changes the state; changes nothing.

        Whoever plans calls ahead, and may have to plan again from before them, asks ``permit`` about these alone, and
        about the next one when it really is next: a state that was left can't be asked any more.
        """
        if self._state is BreakerState.OPEN:
            return int(np.searchsorted(times_ns, self._retry_at_ns))
        if self._state is BreakerState.HALF_OPEN and self._deadline_ns is not None:
            return int(np.searchsorted(times_ns, self._deadline_ns))
        return len(times_ns)

    def record(self, successes: int, now_ns: int, slow: int = 0, *, generation: int | None = None) -> bool:
        """Record the outcome of the next ``successes`` calls, of which the last ``slow`` were slow. O(1) + O(slow).

        Outcomes come in the order of their calls; those at ``now_ns`` with a window of seconds, so that a run should be
        of calls that ``permit`` answered at once. ``generation`` (see there): what was permitted in another one is
        late. Returns whether what was permitted and not called yet still may be; if not, ask again.
        """
        self._record(successes - slow, now_ns, False, False, generation)
        if slow:
            self._record(slow, now_ns, False, True, generation)
        return self._stands()

    def record_failure(self, now_ns: int, slow: bool = False, *, generation: int | None = None) -> bool:
        """Record that the next call failed. Returns whether what was permitted still stands; see ``record``."""
        self._record(1, now_ns, True, slow, generation)
        return self._stands()

    def release(self, permits: int, *, generation: int | None = None) -> None:
        """Give back permits: those calls were cancelled, or ended in a way that says nothing about the handler.

        In HALF_OPEN others get them; in all other states nobody counts permits.
        """
        if self._state is BreakerState.HALF_OPEN and generation in (None, self._generation):
            self._handed_out = max(self._window.calls, self._handed_out - permits)

    # -- by hand --------------------------------------------------------------------------------------------------
    # Without a time, the latest that an outcome or a change had. Done while permitted calls are being made, it holds
    # from the next question, or the next outcome that is recorded.

    def close(self, now_ns: int | None = None) -> None:
        """Make it CLOSED, with an empty window; nothing if it is."""
        self._by_hand(BreakerState.CLOSED, now_ns, "closed by hand")

    def reset(self, now_ns: int | None = None) -> None:
        """Make it CLOSED and empty the window. The counts since the beginning are kept."""
        if self._state is BreakerState.CLOSED:
            self._empty_window(self.settings.window(), self.settings.judged_from_calls)
        self._by_hand(BreakerState.CLOSED, now_ns, "reset by hand")

    def restart(self) -> None:
        """Begin anew, for calls of other times, which may lie before those so far: CLOSED, with an empty window.

        What was forced open or disabled stays so. The counts since the beginning are kept, and nobody is told.
        """
        if self._state not in (BreakerState.FORCED_OPEN, BreakerState.DISABLED):
            self._state = BreakerState.CLOSED
            self._empty_window(self.settings.window(), self.settings.judged_from_calls)
        self._generation += 1
        self._since_ns = self._retry_at_ns = self._latest_ns = 0
        self._deadline_ns = None

    def force_open(self, now_ns: int | None = None) -> None:
        """Reject all calls from now on, until ``close``, ``reset`` or ``disable``."""
        self._by_hand(BreakerState.FORCED_OPEN, now_ns, "forced open by hand")

    def disable(self, now_ns: int | None = None) -> None:
        """Permit all calls from now on, and record nothing, until ``close``, ``reset`` or ``force_open``."""
        self._by_hand(BreakerState.DISABLED, now_ns, "disabled by hand")

    # -- seen -----------------------------------------------------------------------------------------------------

    def statistics(self) -> BreakerStatistics:
        """The state and the counts, as of the latest time that the breaker was told."""
        window = self._window
        judged = window.calls >= self._judged_from
        return BreakerStatistics(
            state=self._state,
            failure_rate=100 * window.failed / window.calls if judged else None,
            slow_call_rate=100 * window.slow / window.calls if judged else None,
            calls=window.calls,
            failed=window.failed,
            slow=window.slow,
            not_permitted=self._not_permitted,
            opened=self._opened,
            late=self._late,
            since_ns=self._since_ns,
            retry_at_ns=self._retry_at_ns if self._state is BreakerState.OPEN else None,
        )

    def __repr__(self) -> str:
        window = self._window
        name = f"{self.name!r}: " if self.name else ""
        told = f"{name}{self._state.value}, {window.failed:,} of {window.calls:,} calls failed"
        rejected = f", {self._not_permitted:,} not permitted" if self._not_permitted else ""
        return f"CircuitBreaker({told}{rejected})"

    def _repr_html_(self) -> str:
        told = self.statistics()
        rows = "".join(
            f"<tr><td>{field.name}</td><td>{html.escape(_cell(getattr(told, field.name)))}</td></tr>"
            for field in fields(told)
            if not field.name.endswith("_ns")
        )
        return f"<div><b>{html.escape(repr(self))}</b><table>{rows}</table></div>"

    # -- deciding -------------------------------------------------------------------------------------------------

    def _move_to(self, call_ns: int) -> None:
        """Be in the state that a call at ``call_ns`` meets."""
        self._end_half_open_if_due(call_ns)
        if self._state is BreakerState.OPEN and call_ns >= self._retry_at_ns:
            waited = f"the wait of {self.settings.wait_duration_in_open_state_s:g} s is over"
            self._change(BreakerState.HALF_OPEN, call_ns, waited)

    def _permitted_when_closed(self, times_ns: npt.NDArray[np.int64]) -> int:
        permitted = self._window.run_length(times_ns)
        until_open = self._successes_until_open()
        return permitted if until_open is None else min(permitted, until_open)

    def _successes_until_open(self) -> int | None:
        """After how many calls more that succeed, and are not slow, the breaker opens; None: it doesn't.

        Only the first time that there are enough calls can do it: every further success lowers both rates.
        """
        window = self._window
        if not window.failed and not window.slow:
            return None
        more = max(1, self._judged_from - window.calls)
        return more if self._exceeds(window.calls + more) else None

    def _exceeds(self, calls: int) -> bool:
        # The quotient is rounded once, so a rate that is written as the threshold is equals it.
        return (
            100 * self._window.failed / calls >= self.settings.failure_rate_threshold
            or 100 * self._window.slow / calls >= self.settings.slow_call_rate_threshold
        )

    def _record(self, calls: int, now_ns: int, failed: bool, slow: bool, generation: int | None) -> None:
        """Record a run; as many at a time as can't change the state but with the last of them."""
        self._latest_ns = max(self._latest_ns, now_ns)
        while calls > 0:
            self._end_half_open_if_due(now_ns)
            if self._state is BreakerState.DISABLED:
                return
            if generation not in (None, self._generation):
                self._late += calls
                return
            if self._state is BreakerState.CLOSED:
                run = self._record_when_closed(calls, now_ns, failed, slow)
            elif self._state is BreakerState.HALF_OPEN and self._handed_out > self._window.calls:
                run = min(calls, self._handed_out - self._window.calls)
                self._window.add(run, now_ns, failed=failed, slow=slow)
                if self._window.calls == self._judged_from:
                    self._change(BreakerState.OPEN if self._exceeds(self._judged_from) else BreakerState.CLOSED, now_ns)
            else:
                self._late += calls
                return
            calls -= run

    def _record_when_closed(self, calls: int, now_ns: int, failed: bool, slow: bool) -> int:
        window = self._window
        window.move_to(now_ns)
        run = 1
        if not failed and not slow:
            until_open = self._successes_until_open()
            run = calls if until_open is None else min(calls, until_open)
        window.add(run, now_ns, failed=failed, slow=slow)
        if window.calls >= self._judged_from and self._exceeds(window.calls):
            self._change(BreakerState.OPEN, now_ns)
        return run

    def _stands(self) -> bool:
        if self._answered != self._generation:
            return False
        return self._state is not BreakerState.CLOSED or self._successes_until_open() is None

    def _end_half_open_if_due(self, now_ns: int) -> None:
        # As of the deadline, not of whoever noticed: when calls are tried again must not depend on who asks when.
        if self._state is BreakerState.HALF_OPEN and self._deadline_ns is not None and now_ns >= self._deadline_ns:
            waited = f"{self.settings.max_wait_duration_in_half_open_state_s:g} s passed with "
            known = f"{self._window.calls} of {self._judged_from} outcomes known"
            self._change(BreakerState.OPEN, self._deadline_ns, waited + known)

    # -- changing -------------------------------------------------------------------------------------------------

    def _by_hand(self, state: BreakerState, now_ns: int | None, reason: str) -> None:
        if state is not self._state:
            self._change(state, self._latest_ns if now_ns is None else now_ns, reason)

    def _empty_window(self, window: OutcomeWindow, judged_from: int) -> None:
        self._window, self._judged_from = window, judged_from

    def _change(self, after: BreakerState, at_ns: int, reason: str = "") -> None:
        before, settings = self._state, self.settings
        reason = reason or self._judgement()
        self._state = after
        self._generation += 1
        self._since_ns = at_ns
        self._latest_ns = max(self._latest_ns, at_ns)
        self._deadline_ns = None
        if after is BreakerState.OPEN:  # which keeps its window, to show why
            self._opened += 1
            self._retry_at_ns = at_ns + settings.wait_ns
        elif after is BreakerState.HALF_OPEN:
            permits = settings.permitted_number_of_calls_in_half_open_state
            self._empty_window(CountWindow(permits), permits)
            self._handed_out = 0
            if settings.half_open_wait_ns is not None:
                self._deadline_ns = at_ns + settings.half_open_wait_ns
        else:
            self._empty_window(settings.window(), settings.judged_from_calls)
        if self.on_change is not None:
            self.on_change(BreakerChange(self.name, before, after, at_ns, reason))

    def _judgement(self) -> str:
        window, settings = self._window, self.settings
        slow_rate = 100 * window.slow / window.calls
        told = f"{window.failed:,} of {window.calls:,} calls failed ({100 * window.failed / window.calls:.3g}%"
        told += f", threshold {settings.failure_rate_threshold:g}%)"
        if window.slow:
            told += f", {window.slow:,} were slow ({slow_rate:.3g}%, threshold {settings.slow_call_rate_threshold:g}%)"
        return told


def _cell(value: object) -> str:
    if isinstance(value, BreakerState):
        return value.value
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)
