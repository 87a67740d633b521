"""``NtpPoller``: asks servers for the time, and disciplines a clock by what those that agree say.

What it decides is decided elsewhere, without I/O: whether an answer is valid (``wire``), when a server is asked
(``polling``), whom to believe and what UTC is then (``estimator``), how the clock gets there (the clock itself).
"""

from __future__ import annotations

import asyncio
import html
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from hftlab.clock.estimate import Estimate, Exchange
from hftlab.clock.ntp.association import Association
from hftlab.clock.ntp.estimator import Estimator
from hftlab.clock.ntp.polling import Polling, check_polling
from hftlab.clock.ntp.sockets import Answer, parse_server
from hftlab.clock.ntp.statistics import NtpStatistics, ServerState, ServerStatistics
from hftlab.clock.ntp.wire import Reason
from hftlab.clock.system import SLEPT_NS, asleep_ns
from hftlab.errors import BackgroundFailed, ValidationError, shown

MOST_SERVERS = 32

_SECOND_NS = 1_000_000_000
# Whether the machine has slept is looked at this often: until then, old estimates are believed.
_LOOK_S = 5.0
# A notebook that polls every second for a day has nothing to say that needs more than a minute's timeout.
_MOST_TIMEOUT_S = 60.0


class Disciplined(Protocol):
    """A clock that is told where UTC is: ``SystemClock``."""

    def now_ns(self) -> int:
        """The time now, in ns UTC."""
        ...

    def discipline(self, estimate: Estimate, /) -> object:
        """Take an estimate into account."""
        ...


class NtpPoller:
    """Asks ``servers`` for the time, politely, and disciplines ``clock`` by those that agree.

    ::

        poller = NtpPoller(["time.cloudflare.com", "ptbtime1.ptb.de", "ntp.nict.jp", "[2001:db8::1]:123"], clock)
        await poller.poll_once()           # one round
        await poller.run()                 # or for ever, in a background task
        poller.statistics()

    Servers are ``host``, ``host:port``, an address or ``[v6 address]:port``. Three are the fewest that can outvote one
    that is wrong; of one, or of two that agree, nobody could tell. UTC is what more than half of them agree on, not
    counting those that can't be used, or have been silent from the start, three times; a name that stands for an
    address that another one has already is none of them. Each is asked every
    ``min_poll_s`` to ``max_poll_s`` seconds (see ``polling``: at least 16 for public servers, 1/16 for one's own),
    after a burst of ``burst``; an answer is waited for ``timeout_s``. ``on_estimate`` is called with each Estimate,
    after the clock. ``stamps=False`` takes arrivals' times in the application, for comparison.

    All on one loop's thread: a question costs 0.1 ms of it, learning from its answer 1 ms. Raises ValidationError for
    settings that can't be.
    """

    def __init__(
        self,
        servers: Sequence[str] | str,
        clock: Disciplined,
        *,
        min_poll_s: float = 64.0,
        max_poll_s: float = 1_024.0,
        burst: int = 8,
        timeout_s: float = 1.0,
        on_estimate: Callable[[Estimate], object] | None = None,
        stamps: bool = True,
    ) -> None:
        names = [servers] if isinstance(servers, str) else list(servers)
        if not 1 <= len(names) <= MOST_SERVERS or len(set(names)) < len(names):
            raise ValidationError(f"servers are 1 to {MOST_SERVERS} different ones; got {shown(names)}")
        check_polling(min_poll_s, max_poll_s, burst)
        fits = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool) and math.isfinite(timeout_s)
        if not fits or not 0 < timeout_s <= _MOST_TIMEOUT_S:
            raise ValidationError(f"timeout_s is more than 0 and at most {_MOST_TIMEOUT_S:g} s; got {shown(timeout_s)}")
        self.clock = clock
        self.on_estimate = on_estimate
        now_ns = time.perf_counter_ns()
        self._associations: list[Association] = []
        for name in names:
            polling = Polling(now_ns, min_poll_s=min_poll_s, max_poll_s=max_poll_s, burst=burst)
            server, among = parse_server(name), self._associations
            self._associations.append(Association(server, polling, timeout_s=timeout_s, stamps=stamps, among=among))
        self._estimator = Estimator(names)
        self._estimate: Estimate | None = None
        self._estimates = self._undecided = self._restarts = 0
        self._decided = False
        self._running = False
        self._slept_ns = asleep_ns()

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers, as they were given."""
        return tuple(one.name for one in self._associations)

    @property
    def estimate(self) -> Estimate | None:
        """The latest estimate; None before the first, and after the machine has slept."""
        return self._estimate

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The last valid exchange with each server that has answered yet."""
        return tuple(one.exchange for one in self._associations if one.exchange is not None)

    @property
    def running(self) -> bool:
        """Whether ``run`` is under way."""
        return self._running

    async def poll_once(self) -> Estimate | None:
        """Ask all servers at once and discipline the clock. Returns the estimate, None where too few agree.

        Left out are servers that were asked a moment ago (public ones less than 16 s ago, 2 s in their burst), that are
        being asked just now, or that asked us to stay away; their earlier answers count. Takes as long as the slowest
        answer, ``timeout_s`` at most (and a name's lookup before the first). Never raises for what the network does;
        safe to cancel.
        """
        self._look_for_sleep()
        now_ns = time.perf_counter_ns()
        wanted = [one for one in self._associations if not one.busy and one.polling.may_ask(now_ns)]
        answers = await asyncio.gather(*(one.ask() for one in wanted))
        return self._take(list(zip(wanted, answers, strict=True)))

    async def run(self) -> None:
        """Ask every server when it is due, until cancelled; ends by itself only when all have asked us to stay away.

        Never raises for what the network does: that is counted, see ``statistics``. What ``on_estimate`` raises comes
        out. Raises BackgroundFailed where it runs already.
        """
        if self._running:
            raise BackgroundFailed("this poller runs already: cancel that task first, or make another poller")
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._associations:
                    group.create_task(self._keep_asking(one), name=f"NTP: {one.name}")
        except BaseExceptionGroup as failures:
            # A task group's wrapping would hide what on_estimate raised; the first is what ended the others.
            raise failures.exceptions[0] from None
        finally:
            self._running = False

    async def _keep_asking(self, one: Association) -> None:
        polling = one.polling
        while not polling.ended:
            self._look_for_sleep()
            wait_s = (polling.next_ns - time.perf_counter_ns()) / _SECOND_NS
            if wait_s > 0 or one.busy:
                await asyncio.sleep(min(max(wait_s, 0.01), _LOOK_S))
                continue
            self._take([(one, await one.ask())])

    def _take(self, answers: Sequence[tuple[Association, Answer]]) -> Estimate | None:
        """Learn from what came back, tell the clock, and decide when to ask next."""
        asleep = self._look_for_sleep()
        # Between the question and now the counter stood still: their stamps are of two scales. Each answer is held
        # against its own question, as only the first of several under way finds the sleep in the look above.
        answers = [
            (one, answer.voided("the machine slept meanwhile") if asleep - answer.asleep_ns > SLEPT_NS else answer)
            for one, answer in answers
        ]
        heard = False
        for one, answer in answers:
            if isinstance(answer.outcome, Exchange):
                if one.moved:
                    self._estimator.forget(one.name)
                self._estimator.add(answer.outcome)
                heard = True
        estimate = self._estimator.estimate(time.perf_counter_ns())
        steady = self._estimator.stable
        for one, answer in answers:
            one.settle(answer, steady=steady)
        # The first to answer is not believed because the others are slower: it may be the one that is wrong.
        voters = sum(one.may_vote for one in self._associations)
        self._decided = estimate is not None and 2 * len(estimate.servers) > voters
        if estimate is None or not self._decided:
            self._undecided += heard
            return None
        if heard:  # without news, an older estimate would only be repeated
            self._estimate = estimate
            self._estimates += 1
            self.clock.discipline(estimate)
            if self.on_estimate is not None:
                self.on_estimate(estimate)
        return estimate

    def _look_for_sleep(self) -> int:
        """Begin anew where the machine has slept: its counter stood still, and what was known of UTC is void.

        Returns how long it has slept since it was started, in ns.
        """
        before_ns, self._slept_ns = self._slept_ns, asleep_ns()
        if self._slept_ns - before_ns > SLEPT_NS:
            self._restarts += 1
            self._estimate = None
            now_ns = time.perf_counter_ns()
            for one in self._associations:
                self._estimator.forget(one.name)
                one.polling.begin_anew(now_ns)
        return self._slept_ns

    # -- seen -----------------------------------------------------------------------------------------------------

    def statistics(self) -> NtpStatistics:
        """Every server as it stands, and the latest estimate."""
        return NtpStatistics(
            servers=tuple(self._picture(one) for one in self._associations),
            estimate=self._estimate,
            estimates=self._estimates,
            undecided=self._undecided,
            restarts=self._restarts,
        )

    def _picture(self, one: Association) -> ServerStatistics:
        view = self._estimator.server(one.name)
        # Back to back: whatever lay between these two would show as the server's offset.
        shown_ns = self.clock.now_ns() - time.perf_counter_ns()
        return ServerStatistics(
            server=one.name,
            address="" if one.endpoint is None else str(one.endpoint),
            state=_state(one, view.verdict if self._decided else ""),
            stratum=None if one.exchange is None else one.exchange.stratum,
            reach=one.polling.reach,
            offset_ns=None if view.offset_ns is None else view.offset_ns - shown_ns,
            bound_ns=view.bound_ns,
            delay_ns=view.delay_ns,
            jitter_ns=view.jitter_ns,
            poll_s=one.polling.poll_s,
            sent=one.polling.asked,
            answered=one.answered,
            refused={reason.value: count for reason, count in one.refused.items()},
            stamps={trust.name.lower(): count for trust, count in one.stamps.items()},
            last_error="" if one.last_error is None else str(one.last_error),
        )

    def __repr__(self) -> str:
        told = repr(self.statistics()).removeprefix("NtpStatistics(").removesuffix(")")
        return f"NtpPoller({told}{'; running' * self._running})"

    def _repr_html_(self) -> str:
        return f"<div>{html.escape(repr(self))}{self.statistics()._repr_html_()}</div>"


# Reasons that say that the server is there, and answers.
_ITS_OWN_FAULT = frozenset(
    {Reason.UNSYNCHRONISED, Reason.ZERO, Reason.ORDER, Reason.DISTANCE, Reason.DELAY, Reason.DUPLICATE, Reason.KISS}
)


def _state(one: Association, verdict: str) -> ServerState:
    if one.polling.ended:
        return ServerState.KISSED
    if not one.polling.reach and one.polling.asked:
        return ServerState.REFUSED if one.last_outcome in _ITS_OWN_FAULT else ServerState.UNREACHABLE
    return _BY_VERDICT.get(verdict, ServerState.CANDIDATE if one.answered else ServerState.UNHEARD)


_BY_VERDICT = {
    state.value: state
    for state in (ServerState.TRUECHIMER, ServerState.ALONE, ServerState.FALSETICKER, ServerState.STALE)
}
