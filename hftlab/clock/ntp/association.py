"""An association (RFC 5905's word): one server, how it is asked, and all that came of it."""

from __future__ import annotations

import errno
import random
import time
from collections import Counter
from collections.abc import Sequence

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.polling import Polling
from hftlab.clock.ntp.sockets import Answer, Endpoint, Server, ask, resolve
from hftlab.clock.ntp.wire import Reason, Refusal
from hftlab.clock.stamps import Trust
from hftlab.clock.system import asleep_ns

# Questions without any answer until a server that was never heard is not waited for.
_SILENT_AFTER = 3


class Association:
    """One server: where it is, when it is asked next, and counts of everything that came back.

    ``refused`` counts, by reason, answers that were not used and questions that got none; ``stamps`` the valid
    answers, by the clock that their arrival is known by. One thread, one question at a time: see ``busy``.

    ``among`` are all associations of one poller, to which this one may be added later: an address that one of them has
    is never taken by another.
    """

    def __init__(
        self, server: Server, polling: Polling, *, timeout_s: float, stamps: bool, among: Sequence[Association] = ()
    ) -> None:
        self.server, self.polling = server, polling
        self._among = among
        self.busy = False
        self.endpoint: Endpoint | None = None
        self.exchange: Exchange | None = None
        self.last_error: Refusal | None = None
        self.last_outcome: Reason | None = None
        self.answered = 0
        self.refused: Counter[Reason] = Counter()
        self.stamps: Counter[Trust] = Counter()
        self._timeout_s, self._use_stamps = timeout_s, stamps
        self._untried: list[Endpoint] = []
        self._seek = True
        self._answered_at: Endpoint | None = None
        self._previous = 0
        # Only spreads the questions of several servers; no two clients should meet for ever.
        self._chance = random.Random()

    @property
    def name(self) -> str:
        """The server, as the user wrote it."""
        return self.server.name

    @property
    def moved(self) -> bool:
        """Whether the name stands for another server now than at the last answer: what that said is another's word."""
        return self._answered_at not in (None, self.endpoint)

    @property
    def may_vote(self) -> bool:
        """Whether its word counts, or is still to be waited for: not once it is clear that none will come.

        It may be late at first, and single packets are lost: three must be, before silence is an answer.
        """
        if self.polling.ended:
            return False
        if self.polling.reach or self.last_outcome is None:
            return True
        return self.last_outcome is Reason.TIMEOUT and self.polling.asked < _SILENT_AFTER

    async def ask(self) -> Answer:
        """Ask once; ``settle`` must be called with what comes of it.

        Never raises for what the network or the name service does. Safe to cancel.
        """
        self.busy = True
        try:
            self.polling.ask(time.perf_counter_ns())
            try:
                endpoint = await self._find() if self._seek or self.endpoint is None else self.endpoint
            except OSError as error:
                told = f"{self.server.host}: {error.strerror or type(error).__name__}"
                return Answer(Refusal(self.name, Reason.RESOLVE, told, time.perf_counter_ns()))
            asleep = asleep_ns()
            answer = await ask(
                self.name, endpoint, timeout_s=self._timeout_s, previous=self._previous, stamps=self._use_stamps
            )
            return answer._replace(asleep_ns=asleep)
        finally:
            self.busy = False

    async def _find(self) -> Endpoint:
        """Take the next address of the server that is nobody else's; looked up again when all were tried.

        Raises OSError where the name has no address, or none that another association does not have.
        """
        if not self._untried:
            self._untried = await resolve(self.server)
        holder: Association | None = None
        # No await from the look at the others to the taking: of two that look for the same address, one gets it.
        while self._untried:
            endpoint = self._untried.pop(0)
            holder = self._holder(endpoint)
            if holder is None:
                self.endpoint, self._seek = endpoint, False
                self.polling.locate(near=endpoint.is_near)
                return endpoint
        told = "no address" if holder is None else f"the same server as {holder.name}; name another, or leave it out"
        raise OSError(errno.EADDRINUSE, told)

    def _holder(self, endpoint: Endpoint) -> Association | None:
        """Who has that address: one server under two names would have two votes, and be asked twice as often.

        Also one that was told to stay away: that server wants no questions under another name either.
        """
        for one in self._among:
            if one is not self and one.endpoint is not None and one.endpoint.is_same(endpoint):
                return one
        return None

    def settle(self, answer: Answer, *, steady: bool) -> None:
        """Count what came of a question, and decide when the next one is due. ``steady``: whether the estimates are."""
        now_ns, spread = time.perf_counter_ns(), self._chance.random()
        for stray in answer.strays:
            self.refused[stray.reason] += 1
            self.last_error = stray
        outcome = answer.outcome
        if isinstance(outcome, Exchange):
            self.exchange, self._previous, self._answered_at = outcome, answer.transmit, self.endpoint
            self.answered += 1
            self.stamps[answer.trust] += 1
            self.polling.answered(now_ns, steady=steady, spread=spread)
            return
        self.refused[outcome.reason] += 1
        self.last_error, self.last_outcome = outcome, outcome.reason
        if outcome.reason is Reason.KISS:
            self.polling.kissed(now_ns, outcome.kiss, poll_s=outcome.poll_s, spread=spread)
        else:
            self.polling.missed(now_ns, spread=spread)
        if not self.polling.reach:
            self._seek = True  # names outlive addresses: the pool's servers come and go
