"""Impossible timestamps, found at the edge: before anything could trade, far ahead, running back, in another unit.

``check_times`` gives every row of some records a ``TimeReason``, or none; ``time_checks.TimeChecks`` does what a
``TimePolicy`` says with those that have one. Some reasons are certain, whatever the clocks are: a time below zero, in
another unit, before ``earliest``, in the year 2200 or later. The others are doubtful, because a clock may be wrong
instead of the row, and have an action of their own.

**A recorder whose clock is wrong is no reason.** What a row's ``timestamp`` is ahead of its ``received`` is compared
with the level of its source: the most that a believed row was ahead so far, which is the recorder's error less the
least latency. Only a row more than ``ahead_s`` beyond that level is ``AHEAD`` (of its neighbours), and where
``settle_rows`` in succession agree on another level, somebody has set a clock, and the level moves there. A recorder
that is hours behind has a level of hours, and all its rows are believed. See ``time_levels``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.errors import TimeError, ValidationError, shown
from hftlab.events.records import Flags, Rows
from hftlab.events.time_levels import TimeLevels, TimeReason

TimeAction = Literal["reject", "flag", "raise", "keep"]
ACTIONS: tuple[TimeAction, ...] = ("reject", "flag", "raise", "keep")

BEYOND_NS = 7_258_118_400 * 1_000_000_000
"""The year 2200: what claims to be from then or later is no time at all."""

CERTAIN = frozenset({TimeReason.NEGATIVE, TimeReason.UNIT, TimeReason.EARLY, TimeReason.BEYOND})
"""The reasons that no wrong clock explains."""

_UNITS: tuple[tuple[str, int], ...] = (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000))
_DAY_NS = 86_400 * 1_000_000_000
_YEAR_1971_NS = 365 * _DAY_NS
_MOST_S = 100 * 365.25 * 86_400
_ARRIVAL, _SOURCE_TIME, _SNAPSHOT = (
    np.uint16(flag) for flag in (Flags.ARRIVAL_TIME, Flags.SOURCE_TIME, Flags.SNAPSHOT)
)
_SPECIAL = _ARRIVAL | _SOURCE_TIME | _SNAPSHOT

Reasons = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


class TimePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What an impossible timestamp is, and what becomes of its event.

    ``earliest``: nothing was traded before: a day (``"2017-07-14"``, midnight UTC), a datetime with a zone, or ns UTC;
    give it the venue's first day. ``ahead_s``: how far a timestamp may lie after now, and after what its source's level
    says of its arrival. ``backwards_s``: how far below the greatest time of its source. ``settle_rows``: how many rows
    in succession make another level believed (see the module's docstring).

    ``action`` is for what is certain (another unit, below zero, before ``earliest``, from 2200 on), ``doubtful`` for
    the rest: ``"reject"`` drops the row, ``"flag"`` marks it with ``Flags.IMPOSSIBLE_TIME``, ``"raise"`` raises
    ValidationError (which ``feeds.read`` and ``feeds.stream`` raise on as a FeedError that names the format),
    ``"keep"`` leaves it as it is; all but ``"keep"`` count it. Times below zero can't be kept in a row, so that
    ``"flag"`` rejects them. A wrong ``received`` is flagged where others are rejected. Values are never converted: the
    unit is the format's business.

    Raises ValidationError (TimeError for ``earliest``).
    """

    earliest: int | str | datetime = "1980-01-01"
    ahead_s: float = 60.0
    backwards_s: float = 3_600.0
    settle_rows: int = 32
    action: TimeAction = "reject"
    doubtful: TimeAction = "flag"

    def __post_init__(self) -> None:
        self.earliest_ns  # noqa: B018 (raises for what is no moment)
        for what in ("ahead_s", "backwards_s"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MOST_S:
                raise ValidationError(f"{what} is a number of seconds above 0, up to 100 years; got {shown(value)}")
        if isinstance(self.settle_rows, bool) or not isinstance(self.settle_rows, int) or self.settle_rows < 2:
            raise ValidationError(f"settle_rows is an integer of at least 2, such as 32; got {shown(self.settle_rows)}")
        for what in ("action", "doubtful"):
            value = getattr(self, what)
            if value not in ACTIONS:
                raise ValidationError(f"{what} is one of {', '.join(map(repr, ACTIONS))}; got {shown(value)}")

    @property
    def earliest_ns(self) -> int:
        """``earliest`` in ns UTC."""
        return _moment_ns(self.earliest)

    def action_for(self, reason: TimeReason) -> TimeAction:
        """What becomes of a row with that reason."""
        action = self.action if reason in CERTAIN else self.doubtful
        if action == "flag" and reason is TimeReason.NEGATIVE:
            return "reject"
        if action == "reject" and reason is TimeReason.RECORDER:
            return "flag"
        return action


def as_time_policy(times: TimePolicy | TimeAction | None) -> TimePolicy | None:
    """What a ``times=`` option means: None is the default policy, a word that action for everything; "keep" is None."""
    if times is None:
        return TimePolicy()
    if isinstance(times, TimePolicy):
        return None if times.action == times.doubtful == "keep" else times
    if times not in ACTIONS:
        words = ", ".join(map(repr, ACTIONS))
        raise ValidationError(f"times is an hl.TimePolicy(…), or one of {words}; got {shown(times)}")
    return None if times == "keep" else TimePolicy(action=times, doubtful=times)


class TimeVerdict(NamedTuple):
    """``reasons``: uint8 of a ``TimeReason`` for every row (0: none), or None where no row has one.

    ``timed``: rows with both a time of the source and an arrival, none of them impossible; ``ahead``: those of them
    that claim to be from after their arrival, and ``ahead_sum_ns`` by how much, in sum.
    """

    reasons: Reasons | None
    timed: int
    ahead: int
    ahead_sum_ns: float


def check_times(records: Rows, policy: TimePolicy, levels: TimeLevels, *, now_ns: int | None = None) -> TimeVerdict:
    """Find the rows with an impossible ``timestamp`` or ``received``; changes none of them.

    ``records``: rows in the order of their arrival, both times filled in (with ARRIVAL_TIME or SOURCE_TIME where one
    stands for the other). ``levels`` has what is known of their sources from the batches before, and is moved on; the
    verdict is the same however the rows are cut into batches, but that a row which the next of its source shows to be
    apart (``time_levels``) is only found within its batch. ``now_ns``: the time now, by a clock that may be none of
    ``received``'s; one from before ``earliest`` is plainly wrong, and counts as None: unknown. Snapshots are exempt
    from comparisons: they tell what is old. About 10 ns a row in batches of 30,000 (measured beside other work), and
    0.5 µs where a source's rows are suspect; some 15 µs for a single row.
    """
    count = len(records)
    if not count:
        return TimeVerdict(None, 0, 0, 0.0)
    times, received = np.array(records["timestamp"]), np.array(records["received"])
    flags = np.array(records["flags"])
    reasons = _absolute(times, received, flags, policy, now_ns)
    sources = np.array(records["source"])
    special = bool((flags & _SPECIAL).any())
    if reasons is None and not special:
        ahead = times - received
        reasons = levels.judge(sources, times, ahead, None)
    else:
        # int64 holds no difference of two times on both sides of 1970; such rows have a reason already, and are out.
        believed = np.ones(count, bool) if reasons is None else (reasons == 0) | (reasons == TimeReason.RECORDER)
        believed &= (flags & _ARRIVAL) == 0
        compared = believed & ((flags & _SNAPSHOT) == 0)
        ahead = np.where(believed, times - received, 0)
        rows = np.flatnonzero(compared)
        untimed = (flags[rows] & _SOURCE_TIME) != 0
        found = levels.judge(sources[rows], times[rows], ahead[rows], untimed if untimed.any() else None)
        if found is not None:
            reasons = np.zeros(count, np.uint8) if reasons is None else reasons
            reasons[rows[found != 0]] = found[found != 0]
        timed = believed & ((flags & _SOURCE_TIME) == 0)
        ahead = ahead[timed if reasons is None else timed & ((reasons == 0) | (reasons == TimeReason.RECORDER))]
        return _verdict(reasons, ahead)
    return _verdict(reasons, ahead if reasons is None else ahead[reasons == 0])


def _verdict(reasons: Reasons | None, ahead: Ints) -> TimeVerdict:
    if not len(ahead) or int(ahead.max()) <= 0:
        return TimeVerdict(reasons, len(ahead), 0, 0.0)
    positive = ahead[ahead > 0] if int(ahead.min()) <= 0 else ahead
    return TimeVerdict(reasons, len(ahead), len(positive), float(positive.sum(dtype=np.float64)))


def _absolute(
    times: Ints, received: Ints, flags: npt.NDArray[np.uint16], policy: TimePolicy, now_ns: int | None
) -> Reasons | None:
    """What can be said of a row by itself. Four reductions where all is well."""
    earliest = policy.earliest_ns
    latest = BEYOND_NS - 1
    if now_ns is not None and now_ns >= earliest:  # all is in the future of a clock that begins each life in 1970
        latest = min(latest, now_ns + round(policy.ahead_s * 1e9))
    least = min(int(times.min()), int(received.min()))
    if least >= earliest and max(int(times.max()), int(received.max())) <= latest:
        return None
    reasons = np.zeros(len(times), np.uint8)
    # The last one that is said counts: the certain more than the doubtful, a row's own time more than its arrival.
    own = (flags & _ARRIVAL) == 0
    reasons[(received < earliest) | (received > latest)] = TimeReason.RECORDER
    reasons[own & (times > latest)] = TimeReason.FUTURE
    reasons[_wrong_unit_of_arrival(times, received, earliest)] = TimeReason.UNIT
    reasons[received >= BEYOND_NS] = TimeReason.BEYOND
    reasons[received <= 0] = TimeReason.NEGATIVE
    reasons[own & (times < earliest)] = TimeReason.EARLY
    for _, factor in _UNITS:
        reasons[own & (times >= -(-earliest // factor)) & (times < BEYOND_NS // factor)] = TimeReason.UNIT
    reasons[times >= BEYOND_NS] = TimeReason.BEYOND
    reasons[times <= 0] = TimeReason.NEGATIVE
    return reasons


def _wrong_unit_of_arrival(times: Ints, received: Ints, earliest: int) -> npt.NDArray[np.bool_]:
    """Arrivals that another unit brings to within a day of the source's time.

    By itself such a value may be a true reading: a recorder without a battery begins each life in 1970.
    """
    wrong = np.zeros(len(times), bool)
    sound = (times >= earliest) & (times < BEYOND_NS)
    for _, factor in _UNITS:
        near = sound & (received > 0) & (received < BEYOND_NS // factor)
        wrong[near] |= np.abs(received[near] * factor - times[near]) < _DAY_NS
    return wrong


def described(reason: TimeReason, timestamp: int, received: int, policy: TimePolicy) -> str:
    """A sentence about one row: the value, what is wrong with it, and what to do."""
    if reason is TimeReason.UNIT:
        which, value = ("timestamp", timestamp) if timestamp < policy.earliest_ns else ("received", received)
        unit, factor = _unit_of(value, policy.earliest_ns)
        told = f"{which} {value} looks like {unit}: multiply by {factor:,}"
        return f"{told} (it would be {_text(value * factor)})"
    if reason is TimeReason.BEYOND:
        which, value = ("timestamp", timestamp) if timestamp >= BEYOND_NS else ("received", received)
        return f"{which} {value} is {_text(value)}: is it in ns?"
    if reason is TimeReason.NEGATIVE:
        return f"{'timestamp' if timestamp <= 0 else 'received'} {min(timestamp, received)} is not after 1970"
    if reason is TimeReason.RECORDER:
        return f"received {received} is {_text(received)}: the recorder's clock is wrong"
    told = f"timestamp {timestamp} is {_text(timestamp)}, "
    if reason is TimeReason.EARLY:
        return told + f"before {_text(policy.earliest_ns)}"
    if reason is TimeReason.FUTURE:
        return told + "which is yet to come"
    if reason is TimeReason.BACKWARDS:
        return told + f"more than {policy.backwards_s:g} s before the latest of its source"
    return told + f"too far ahead of its arrival at {_text(received)}, or of the rows around it"


def _unit_of(value: int, earliest: int) -> tuple[str, int]:
    """The unit, and its ns, in which a value with reason UNIT is plausible."""
    # An arrival may be up to a day before its row's time, and so before the earliest.
    return next(unit for unit in _UNITS if earliest - _DAY_NS <= value * unit[1] < BEYOND_NS + _DAY_NS)


def _text(time_ns: int) -> str:
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=64)
def _moment_ns(value: int | str | datetime) -> int:
    rule = "earliest is a day such as '2009-01-03' (midnight UTC), a datetime with a zone, or ns UTC, from 1971 on"
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise TimeError(f"{rule}; got {shown(value)}") from None
        # A day is midnight UTC; a time of day has to say where.
        value = moment.replace(tzinfo=UTC) if len(value) == 10 else moment
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TimeError(f"{rule}; got {shown(value)}, which has no zone")
        value = int(value.timestamp()) * 1_000_000_000 + value.microsecond * 1_000
    # In the first months after 1970 a time in ns may as well be one of today in us.
    if isinstance(value, bool) or not isinstance(value, int) or not _YEAR_1971_NS <= value < BEYOND_NS:
        raise TimeError(f"{rule}; got {shown(value)}")
    return value
