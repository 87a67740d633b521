"""Which servers to believe: intersection, clustering and combining (RFC 5905, section 11.2; Marzullo 1984).

A server that is honest names an interval that holds UTC. If most are honest, UTC lies where more than half of the
intervals lie over each other: from the lowest such point to the highest. That is the bound that is stated, and it holds
against any minority of liars, whatever they say. Those whose interval stays away from where most of them meet are
falsetickers, and are named. A majority that lies together can't be told from the truth: nobody can.

A single server is believed: nobody contradicts it. Two that contradict each other have no majority: None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEAST_SURVIVORS = 3
"""Clustering ends there: RFC 5905's NMIN."""


class Candidate(NamedTuple):
    """A server's word at one moment: UTC - counter is ``offset_ns``, give or take ``bound_ns``."""

    server: str
    offset_ns: float
    bound_ns: float
    jitter_ns: float = 0.0

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.offset_ns - self.bound_ns

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.offset_ns + self.bound_ns


class Selection(NamedTuple):
    """What most servers agree on. ``survivors`` were combined; all ``truechimers`` are believed."""

    offset_ns: float
    bound_ns: float
    jitter_ns: float
    truechimers: tuple[str, ...]
    falsetickers: tuple[str, ...]
    survivors: tuple[str, ...]


def select(candidates: Sequence[Candidate]) -> Selection | None:
    """The servers to believe and what they say together; None without a majority that agrees. O(n**2) for n servers."""
    met = _intersection(candidates)
    held = majority_interval([(one.low, one.high) for one in candidates])
    if met is None or held is None:
        return None
    true = [one for one in candidates if one.low <= met[1] and one.high >= met[0]]
    false = [one for one in candidates if one.low > met[1] or one.high < met[0]]
    survivors = cluster(true)
    offset, jitter = combine(survivors)
    offset = min(max(offset, held[0]), held[1])
    return Selection(
        offset_ns=offset,
        bound_ns=max(held[1] - offset, offset - held[0]),
        jitter_ns=jitter,
        truechimers=tuple(one.server for one in true),
        falsetickers=tuple(one.server for one in false),
        survivors=tuple(one.server for one in survivors),
    )


def majority_interval(intervals: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """From the lowest to the highest point that more than half of the intervals hold; None without one. O(n log n).

    If more than half of the intervals hold the truth, so does this one.
    """
    return _covered(intervals, len(intervals) // 2 + 1) if intervals else None


def _intersection(candidates: Sequence[Candidate]) -> tuple[float, float] | None:
    """Where as many intervals as possible meet, more than half at least."""
    intervals = [(one.low, one.high) for one in candidates]
    for falsetickers in range((len(candidates) + 1) // 2):
        found = _covered(intervals, len(candidates) - falsetickers)
        if found is not None:
            return found
    return None


def _covered(intervals: Sequence[tuple[float, float]], times: int) -> tuple[float, float] | None:
    """From the lowest to the highest point that ``times`` intervals hold."""
    # At the same point intervals begin before others end: those that touch do meet.
    edges = sorted([(low, 0) for low, _ in intervals] + [(high, 1) for _, high in intervals])
    depth, lowest, highest = 0, math.nan, math.nan
    for at, ends in edges:
        if ends:
            if depth >= times:
                highest = at
            depth -= 1
        else:
            depth += 1
            if depth >= times and math.isnan(lowest):
                lowest = at
    return None if math.isnan(lowest) else (lowest, highest)


def cluster(truechimers: Sequence[Candidate]) -> list[Candidate]:
    """Without those that scatter the others most, as long as that helps (RFC 5905, section 11.2.2).

    A server's select jitter is the root mean square of its offset's differences to the others'. The one with the
    greatest goes, until that is no more than the least jitter of a server by itself, or 3 are left.
    """
    survivors = sorted(truechimers, key=lambda one: one.bound_ns)
    while len(survivors) > LEAST_SURVIVORS:
        jitters = [_select_jitter(one, survivors) for one in survivors]
        worst = max(range(len(survivors)), key=jitters.__getitem__)
        if jitters[worst] <= min(one.jitter_ns for one in survivors):
            break
        del survivors[worst]
    return survivors


def combine(survivors: Sequence[Candidate]) -> tuple[float, float]:
    """The survivors' offset and jitter, each weighing 1 / its root distance (RFC 5905, section 11.2.3)."""
    weights = [1 / max(one.bound_ns, 1.0) for one in survivors]
    total = sum(weights)
    offset = sum(weight * one.offset_ns for weight, one in zip(weights, survivors, strict=True)) / total
    squares = sum(
        weight * (one.jitter_ns**2 + _select_jitter(survivors[0], survivors) ** 2)
        for weight, one in zip(weights, survivors, strict=True)
    )
    return offset, math.sqrt(squares / total)


def _select_jitter(one: Candidate, others: Sequence[Candidate]) -> float:
    squares = sum((one.offset_ns - other.offset_ns) ** 2 for other in others)
    return math.sqrt(squares / max(1, len(others) - 1))
