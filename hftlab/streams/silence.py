"""Whether the server answers: for how long it has owed a reply, what operations wait for it, whether it refuses writes.

Pure: the time is passed in. A debt begins when a command goes out on a connection that owed nothing, and begins anew
with every reply (a server that answers one of eight calls is not silent); a command that may block owes nothing until
it has to be back. What tries again after a failure is remembered weakly, so it is forgotten wherever it ended.
"""

from __future__ import annotations

import weakref
from typing import Protocol

from hftlab.errors import ServerUnreachable
from hftlab.streams.backoff import Backoff
from hftlab.streams.refusals import Verdict

# A server that owes a reply for less is at work: the slowest ordinary calls (a large page) take some 10 ms.
SILENT_S = 0.5


class Debtor(Protocol):
    """A connection that may owe replies. ``owes_since_s`` is None while it owes none; a time to come while it may
    block."""

    owes_since_s: float | None


class Silence:
    """What is known of a server's answers. ``heard_s`` is when the last one came."""

    def __init__(self) -> None:
        self.heard_s = float("-inf")
        self.debtors: set[Debtor] = set()
        self.refusal = ""
        """Why the server takes no writes at present; empty since one was taken."""
        self._given_up = (float("-inf"), "")
        self._trying: weakref.WeakKeyDictionary[Backoff, tuple[float, float, str]] = weakref.WeakKeyDictionary()

    def silent_s(self, now_s: float) -> float:
        """For how long the server has owed an answer; 0.0 while nothing is outstanding."""
        since = [max(debtor.owes_since_s, self.heard_s) for debtor in self.debtors if debtor.owes_since_s is not None]
        # One that tries again has owed nobody anything since it closed its connection, but is still waiting.
        since += [max(began, self.heard_s) for began, _, _ in self._trying.values()]
        return max(0.0, now_s - min(since, default=now_s))

    def failed(self, operation: Backoff, now_s: float, verdict: Verdict) -> None:
        """Note that an operation's try failed and that it will be made again."""
        if verdict.only_writes:
            self.refusal = verdict.words
            return
        self._trying[operation] = operation.since_s, now_s, verdict.words

    def given_up(self, operation: Backoff, now_s: float, verdict: Verdict) -> None:
        """Note that an operation failed for good."""
        self.ended(operation)
        if verdict.only_writes:
            self.refusal = verdict.words
        elif isinstance(verdict.error, ServerUnreachable):
            self._given_up = now_s, verdict.words

    def ended(self, operation: Backoff) -> None:
        """Note that an operation is not tried any more."""
        self._trying.pop(operation, None)

    def state(self, now_s: float) -> str:
        """``ok``, ``silent for 3.1 s``, ``refusing writes: …``, ``away (trying again for 4 s: …)``, or ``away (…)``
        once that was given up and until an answer comes."""
        # A reply since the failure: the server is there, whatever the operation waits for.
        away = [(began, words) for began, failed, words in self._trying.values() if failed >= self.heard_s]
        if away:
            began, words = min(away)
            return f"away (trying again for {now_s - began:.0f} s: {words})"
        if self._given_up[0] >= self.heard_s and self._given_up[1]:
            return f"away ({self._given_up[1]})"
        if self.refusal:
            return f"refusing writes: {self.refusal}"
        silent_s = self.silent_s(now_s)
        return "ok" if silent_s < SILENT_S else f"silent for {silent_s:.1f} s"
