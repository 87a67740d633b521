"""The clock filter: of a server's last answers the one that says most about UTC now (RFC 5905, section 10).

Every answer is an interval that holds UTC - counter, if its server is honest: its offset, give or take half its delay
(all of which an asymmetric path may turn into error), the precision of the clocks, and the server's own distance to its
reference. As time passes it is brought forward by the drift, and widened by how far that may be off. The answer with
the narrowest interval now is the best. (RFC 5905 sorts by delay plus dispersion; half the delay plus dispersion is what
the error can really be.)

**An answer whose interval does not meet the best one's can't be true together with it.** A single one of these is left
out (popcorn spike suppression, here without a threshold to tune): four in a row that agree with each other are a step,
of the server or of the counter, and all that was known before is forgotten.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from hftlab.clock.estimate import Exchange

STAGES = 8
"""How many answers are kept: RFC 5905's NSTAGE."""
STEP_SAMPLES = 4
"""So many in a row that contradict the past, and agree with each other, are a step."""
MAX_DRIFT_PPB = 500_000.0
"""How fast UTC may run away from the counter while nothing is known: RFC 5905's MAXFREQ, and the kernel's limit.

RFC 5905's PHI (15 ppm) is for clocks whose frequency is already disciplined; the counter's is not.
"""


class Rate(NamedTuple):
    """How fast UTC gains on the counter, ns a second, and how far that may be off."""

    drift_ppb: float = 0.0
    bound_ppb: float = MAX_DRIFT_PPB


class Placed(NamedTuple):
    """An answer brought to a moment: UTC - counter is ``offset_ns``, give or take ``bound_ns``."""

    exchange: Exchange
    offset_ns: float
    bound_ns: float

    def meets(self, other: Placed) -> bool:
        """Whether both can be true."""
        return abs(self.offset_ns - other.offset_ns) <= self.bound_ns + other.bound_ns


def distance_ns(exchange: Exchange) -> float:
    """How far the offset may be off when it was measured: half the delay, the precision, and the root distance."""
    return path_ns(exchange) + exchange.root_delay_ns / 2 + exchange.root_dispersion_ns


def path_ns(exchange: Exchange) -> float:
    """What of that is not the server's own: half the delay, and the precision (1 ns more: offsets are rounded)."""
    return exchange.delay_ns / 2 + exchange.precision_ns + 1


def place(exchange: Exchange, now_ns: int, rate: Rate, origin_ns: int) -> Placed:
    """The answer at ``now_ns``. Offsets are less ``origin_ns``: ns since 1970 have more digits than a float64."""
    age_s = (now_ns - exchange.at_ns) / 1e9
    offset = (exchange.offset_ns - origin_ns) + rate.drift_ppb * age_s
    return Placed(exchange, offset, distance_ns(exchange) + rate.bound_ppb * abs(age_s))


class ClockFilter:
    """One server's last 8 answers. Answers come in the order of their arrival; older ones are refused."""

    def __init__(self) -> None:
        self._samples: deque[Exchange] = deque(maxlen=STAGES)
        self._suspects: list[Exchange] = []
        self._used_ns: int | None = None
        self.resets = 0
        self.outliers = 0
        """Answers left out: they contradicted those before, and those after."""
        self.late = 0
        """Answers left out: they had arrived before the latest one."""

    @property
    def newest(self) -> Exchange | None:
        """The latest answer that is not suspected."""
        return self._samples[-1] if self._samples else None

    @property
    def suspects(self) -> int:
        """How many of the latest answers contradict what is known, and wait for others to agree with them."""
        return len(self._suspects)

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, exchange: Exchange, rate: Rate) -> list[Exchange]:
        """Take an answer in; ``rate`` is what is known of the drift. Returns those that are believed from now on.

        That is the answer itself, or nothing (suspected, or late), or, after a step (``resets`` has grown, and the
        older answers are forgotten), the last four together.
        """
        latest = max((sample.at_ns for sample in (*self._samples, *self._suspects)), default=None)
        if latest is not None and exchange.at_ns <= latest:
            self.late += 1
            return []
        new = place(exchange, exchange.at_ns, rate, exchange.offset_ns)
        best = self.best(exchange.at_ns, rate, exchange.offset_ns)
        if best is None or best.meets(new):
            self.outliers += len(self._suspects)
            self._suspects.clear()
            self._samples.append(exchange)
            return [exchange]
        # At any rate that a counter may have: the drift that is known may be what changed.
        widest = Rate()
        placed = [place(one, exchange.at_ns, widest, exchange.offset_ns) for one in self._suspects]
        if not all(one.meets(new) for one in placed):
            self.outliers += len(self._suspects)
            self._suspects.clear()
        self._suspects.append(exchange)
        if len(self._suspects) < STEP_SAMPLES:
            return []
        believed = list(self._suspects)
        self.resets += 1
        self.clear()
        self._samples.extend(believed)
        return believed

    def clear(self) -> None:
        """Forget all answers; the counts stay."""
        self._samples.clear()
        self._suspects.clear()
        self._used_ns = None

    def best(self, now_ns: int, rate: Rate, origin_ns: int, *, use: bool = False) -> Placed | None:
        """The answer whose interval is narrowest at ``now_ns``; None without any.

        ``use``: it goes into an estimate, and no answer older than it is used after this. (RFC 5905 uses none twice,
        lest its loop should correct twice. Here offsets are against the counter, which no correction moves, so that the
        best one may serve until there is a better one.)
        """
        placed = [
            place(sample, now_ns, rate, origin_ns)
            for sample in self._samples
            if self._used_ns is None or sample.at_ns >= self._used_ns
        ]
        if not placed:
            return None
        best = min(placed, key=lambda one: (one.bound_ns, -one.exchange.at_ns))
        if use:
            self._used_ns = best.exchange.at_ns
        return best

    def jitter_ns(self, now_ns: int, rate: Rate) -> float:
        """How much the answers scatter: the root mean square of their differences to the best; 0 for a single one.

        The precision of the clocks at least, as nothing is finer than that.
        """
        if not self._samples:
            return 0.0
        origin = self._samples[-1].offset_ns
        placed = sorted((place(one, now_ns, rate, origin) for one in self._samples), key=lambda one: one.bound_ns)
        best = placed[0]
        squares = [(one.offset_ns - best.offset_ns) ** 2 for one in placed[1:]]
        spread = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
        return max(spread, float(best.exchange.precision_ns))

    def dispersion_ns(self, now_ns: int, rate: Rate) -> float:
        """How much age and precision blur the answers, the best weighing most: 1/2, 1/4, 1/8 … (RFC 5905, section 10).

        Of the answers that there are; the weights of those still missing fall to the last one.
        """
        placed = sorted((place(one, now_ns, rate, 0) for one in self._samples), key=lambda one: one.bound_ns)
        total, weight = 0.0, 1.0
        for rank, one in enumerate(placed):
            weight /= 2 if rank < len(placed) - 1 else 1
            age_s = abs(now_ns - one.exchange.at_ns) / 1e9
            total += weight * (one.exchange.precision_ns + rate.bound_ppb * age_s)
        return total

    def steady(self, rate: Rate) -> bool:
        """Whether the latest answer is where those before led one to expect it (4 jitters: RFC 5905's PGATE)."""
        if len(self._samples) < STEP_SAMPLES or self._suspects:
            return False
        latest, earlier = self._samples[-1], list(self._samples)[:-1]
        placed = [place(one, latest.at_ns, rate, latest.offset_ns) for one in earlier]
        best = min(placed, key=lambda one: one.bound_ns)
        square = sum((one.offset_ns - best.offset_ns) ** 2 for one in placed) / max(1, len(placed) - 1)
        return abs(best.offset_ns) <= 4 * max(math.sqrt(square), latest.precision_ns)
