"""Which rules of the regulators a clock keeps, by what is known of its distance to UTC. Pure.

- MiFID II, RTS 25: Delegated Regulation (EU) 2017/574, tables 1 and 2; in the EU taken over by chapter III of
  2025/1155, which also names systematic internalisers. 100 µs with stamps of 1 µs for high-frequency trading, 1 ms for
  other automated trading, 1 s for voice and for requests that a human answers.
- CAT NMS Plan, section 6.8, and FINRA rules 4590 and 6820: 100 µs for exchanges ("participants"), 50 ms for
  members, 1 s for clocks that stamp manual orders only.

Two witnesses are heard. NTP servers give an offset with a bound: what lies within it is known as far as the servers
themselves can be traced to UTC, which no packet tells. The kernel gives ``maxerror``, the claim of the daemon that sets
its clock. Both rules ask for evidence over time as well (RTS 25, article 4): a reading now is none.
"""

from __future__ import annotations

from typing import NamedTuple

from hftlab.doctor.report import Answer, Fitness
from hftlab.doctor.wording import duration

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000


class Rule(NamedTuple):
    """How far a clock may be from UTC, and how coarse its stamps may be."""

    name: str
    limit_ns: int
    granularity_ns: int


RULES = (
    Rule("RTS 25, 100 us: high-frequency trading", 100 * US, US),
    Rule("RTS 25, 1 ms: other automated trading", MS, MS),
    Rule("RTS 25, 1 s: voice, manual quotes", SECOND, SECOND),
    Rule("CAT, 100 us: exchanges", 100 * US, MS),
    Rule("CAT / FINRA 4590, 6820, 50 ms: members", 50 * MS, MS),
)


class Divergence(NamedTuple):
    """What a witness says: the clock is off by ``offset_ns``, give or take ``bound_ns``."""

    offset_ns: int
    bound_ns: int
    witness: str
    """Who says so, as in "3 NTP servers"."""

    @property
    def most_ns(self) -> int:
        """No further than this, if the witness is right."""
        return abs(self.offset_ns) + self.bound_ns

    @property
    def least_ns(self) -> int:
        """At least this, if the witness is right."""
        return max(abs(self.offset_ns) - self.bound_ns, 0)

    def __str__(self) -> str:
        sign = "-" if self.offset_ns < 0 else "+"
        return f"{sign}{duration(abs(self.offset_ns))} ± {duration(self.bound_ns)} by {self.witness}"


NOBODY = "nobody has compared this clock with UTC"


def assess(measured: Divergence | None, claimed: Divergence | None, resolution_ns: int) -> tuple[Fitness, ...]:
    """A row for each rule. ``measured`` is what NTP servers say now, ``claimed`` what the kernel does; None without.

    What is measured goes before what is claimed, save where it decides nothing.
    """
    return tuple(_one(rule, measured, claimed, resolution_ns) for rule in RULES)


def _one(rule: Rule, measured: Divergence | None, claimed: Divergence | None, resolution_ns: int) -> Fitness:
    answer, because = Answer.UNKNOWN, NOBODY
    if resolution_ns > rule.granularity_ns:
        answer = Answer.NO
        because = (
            f"the clock counts in steps of {duration(resolution_ns)}, and {duration(rule.granularity_ns)} is asked"
        )
    else:
        undecided = []
        for one in (measured, claimed):
            if one is None:
                continue
            answer, because = _by(one, rule.limit_ns)
            if answer is not Answer.UNKNOWN:
                break
            undecided.append(because)
        if answer is Answer.UNKNOWN and undecided:
            because = "; ".join(undecided)
        if answer is Answer.UNKNOWN and measured is not None and measured.bound_ns <= rule.limit_ns:
            because += "; hftlab's own clock, disciplined by them, would keep it"
    return Fitness(rule=rule.name, limit_ns=rule.limit_ns, answer=answer, because=because)


def _by(one: Divergence, limit_ns: int) -> tuple[Answer, str]:
    if one.most_ns <= limit_ns:
        return Answer.YES, f"{one}, if that can be traced to UTC"
    if one.least_ns > limit_ns:
        return Answer.NO, str(one)
    return Answer.UNKNOWN, f"{one}: too wide to tell"
