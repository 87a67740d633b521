"""Impossible timestamps: what is certain, what is doubtful, and that the arrays say what the rule says row by row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import TimeError, ValidationError
from hftlab.events.records import EventType, Flags, Rows, blank
from hftlab.events.time_checks import levels_for
from hftlab.events.time_levels import STRETCH_ROWS, TimeReason
from hftlab.events.timestamps import TimePolicy, as_time_policy, check_times, described

NOW = 1_723_161_255_000_000_000
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
POLICY = TimePolicy(settle_rows=4)


def rows(timestamps: list[int], received: list[int] | None = None, **columns: Any) -> Rows:
    made = blank(len(timestamps), EventType.MARKET_DATA)
    made["timestamp"] = timestamps
    made["received"] = [time + SECOND // 100 for time in timestamps] if received is None else received
    made["source"] = 1
    for name, values in columns.items():
        made[name] = values
    return made


def reasons(records: Rows, policy: TimePolicy = POLICY, now_ns: int | None = NOW + 24 * HOUR) -> list[int]:
    found = check_times(records, policy, levels_for(policy), now_ns=now_ns).reasons
    return [0] * len(records) if found is None else found.tolist()


def usual(count: int, step_ns: int = SECOND) -> list[int]:
    return [NOW + index * step_ns for index in range(count)]


# -- what is certain ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "unit", "by"), [(10**9, "s", "1,000,000,000"), (10**6, "ms", "1,000,000"), (1_000, "us", "1,000")]
)
def test_a_time_in_another_unit_is_told_with_what_to_multiply_it_by(factor: int, unit: str, by: str) -> None:
    times = usual(8)
    times[3] //= factor
    assert reasons(rows(times, received=usual(8))) == [0, 0, 0, TimeReason.UNIT, 0, 0, 0, 0]
    told = described(TimeReason.UNIT, times[3], NOW, POLICY)
    assert told.startswith(f"timestamp {times[3]} looks like {unit}: multiply by {by} (it would be 2024-08-08T23:54:1")


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (-1, TimeReason.NEGATIVE),
        (0, TimeReason.NEGATIVE),
        (5, TimeReason.EARLY),
        (315_532_799 * SECOND, TimeReason.EARLY),
        (7_258_118_400 * SECOND, TimeReason.BEYOND),
        ((1 << 63) - 1, TimeReason.BEYOND),
        (NOW + 25 * HOUR, TimeReason.FUTURE),
    ],
)
def test_a_time_outside_of_history_has_its_reason(time: int, reason: TimeReason) -> None:
    times = usual(8)
    times[5] = time
    found = reasons(rows(times, received=usual(8)))
    assert found == [0] * 5 + [reason] + [0] * 2
    assert str(time) in described(reason, time, NOW, POLICY)


def test_nothing_is_before_the_venues_first_day() -> None:
    policy = TimePolicy(earliest="2024-08-09")
    midnight = int(datetime(2024, 8, 9, tzinfo=UTC).timestamp()) * SECOND
    assert reasons(rows([midnight - 1, midnight, midnight + 1]), policy) == [TimeReason.EARLY, 0, 0]


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (-5, TimeReason.NEGATIVE),
        (NOW // 10**6, TimeReason.UNIT),
        (NOW + 30 * HOUR, TimeReason.RECORDER),
        (7_258_118_400 * SECOND, TimeReason.BEYOND),
    ],
)
def test_an_arrival_may_be_what_is_impossible(received: int, reason: TimeReason) -> None:
    arrivals = usual(8)
    arrivals[2] = received
    assert reasons(rows(usual(8), received=arrivals)) == [0, 0, reason, 0, 0, 0, 0, 0]
    assert described(reason, NOW, received, POLICY).startswith(f"received {received} ")


# -- a clock that is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind_ns", [1_270_000_000, 3 * HOUR, NOW - 25 * 60 * SECOND, -5 * HOUR])
def test_a_recorder_whose_clock_is_wrong_has_no_event_rejected(behind_ns: int) -> None:
    times = usual(50)
    verdict = check_times(
        rows(times, received=[time - behind_ns for time in times]), POLICY, levels_for(POLICY), now_ns=NOW + 24 * HOUR
    )
    found = set() if verdict.reasons is None else set(verdict.reasons.tolist())
    assert {POLICY.action_for(TimeReason(reason)) for reason in found - {0}} <= {"flag"}
    assert found <= {0, TimeReason.RECORDER}
    assert verdict.timed == 50
    assert (verdict.ahead, verdict.ahead_sum_ns) == ((50, pytest.approx(50 * behind_ns)) if behind_ns > 0 else (0, 0.0))


def test_a_clock_from_before_the_earliest_says_nothing_of_what_is_yet_to_come() -> None:
    assert reasons(rows(usual(4)), now_ns=5 * HOUR) == [0] * 4


def test_a_recorder_without_a_battery_is_not_taken_for_one_that_writes_milliseconds() -> None:
    uptime_ns = 25 * 60 * SECOND  # as ms it would be in 2017
    times = usual(20)
    found = reasons(rows(times, received=[uptime_ns + index * SECOND for index in range(20)]))
    assert found == [TimeReason.RECORDER] * 20


def test_a_row_far_from_its_neighbours_is_ahead_however_wrong_the_recorder_is() -> None:
    times = usual(20)
    received = [time - 3 * HOUR for time in times]
    times[7] += 120 * SECOND
    assert [row for row, reason in enumerate(reasons(rows(times, received))) if reason == TimeReason.AHEAD] == [7]


def test_a_clock_that_is_set_is_believed_after_a_few_rows() -> None:
    times = usual(20)
    received = [time + (0 if row < 10 else -HOUR) for row, time in enumerate(times)]
    assert reasons(rows(times, received)) == [0] * 10 + [TimeReason.AHEAD] * 3 + [0] * 7
    back = [time + (0 if row < 10 else HOUR) for row, time in enumerate(times)]
    later = [*times, times[-1] + HOUR]
    assert reasons(rows(later, [*back, back[-1]])) == [0] * 20 + [TimeReason.AHEAD]


def test_messages_that_are_late_are_no_fault() -> None:
    times = usual(20)
    received = [time + (0 if row % 5 else 900 * SECOND) for row, time in enumerate(times)]
    assert reasons(rows(times, received)) == [0] * 20


# -- running back ---------------------------------------------------------------------------------------------------


def test_a_row_that_runs_back_further_than_the_limit_is_told_and_the_next_is_not() -> None:
    times = usual(10)
    times[4] -= 2 * HOUR
    times[6] -= HOUR // 2
    assert reasons(rows(times, received=usual(10))) == [0] * 4 + [TimeReason.BACKWARDS] + [0] * 5


def test_one_leap_ahead_does_not_make_all_that_follows_run_back() -> None:
    times = usual(10)
    times[4] += 20 * HOUR
    flags = Flags.LAST_PART | Flags.SOURCE_TIME
    found = reasons(rows(times, received=times, flags=flags))
    assert found == [0] * 4 + [TimeReason.AHEAD] + [0] * 5
    times[0] += 20 * HOUR
    times[4] = usual(10)[4]
    assert reasons(rows(times, received=times, flags=flags)) == [TimeReason.AHEAD] + [0] * 9


def test_a_source_that_stays_back_is_believed_after_a_few_rows() -> None:
    times = [*usual(5), *(time - 5 * HOUR for time in usual(10))]
    flags = Flags.LAST_PART | Flags.SOURCE_TIME
    assert reasons(rows(times, received=times, flags=flags)) == [0] * 5 + [TimeReason.BACKWARDS] * 3 + [0] * 7


def test_sources_are_compared_with_themselves_alone() -> None:
    times = [NOW, NOW - 12 * HOUR, NOW + 1, NOW - 12 * HOUR + 1] * 3
    received = [NOW, NOW, NOW + 1, NOW + 1] * 3
    assert reasons(rows(times, received, source=[1, 2, 1, 2] * 3)) == [0] * 12


def test_snapshots_tell_what_is_old_and_are_not_compared() -> None:
    times = usual(6)
    times[3] -= 12 * HOUR
    flags = [int(Flags.LAST_PART)] * 6
    flags[3] |= Flags.SNAPSHOT
    assert reasons(rows(times, received=usual(6), flags=flags)) == [0] * 6


def test_rows_that_have_one_time_only_say_nothing_about_the_recorder() -> None:
    arrival = rows(usual(5), received=usual(5), flags=Flags.LAST_PART | Flags.ARRIVAL_TIME)
    assert check_times(arrival, POLICY, levels_for(POLICY)).timed == 0
    assert reasons(rows([5], [5], flags=Flags.ARRIVAL_TIME)) == [TimeReason.RECORDER]


# -- the rule row by row --------------------------------------------------------------------------------------------


class Model:
    """The rule of ``time_levels``, written for one source and one row at a time, with lists of what was believed."""

    def __init__(self, ahead_ns: int, backwards_ns: int, settle: int) -> None:
        self.ahead_ns, self.backwards_ns, self.settle = ahead_ns, backwards_ns, settle
        self.level: int | None = None
        self.sure = False
        self.high: int | None = None
        self.above: list[int] = []
        self.below: list[int] = []
        self.back: list[int] = []
        self.leap: tuple[int, int] | None = None

    def row(self, index: int, time: int, ahead: int | None, out: dict[int, TimeReason]) -> None:
        if ahead is not None and not self._level(ahead):
            out[index] = TimeReason.AHEAD
            return
        if self.leap is not None:
            leapt, at = self.leap
            if time >= leapt - self.backwards_ns:
                self.high = leapt if self.high is None else max(self.high, leapt)
            else:
                out[at] = TimeReason.AHEAD
            self.leap = None
        if self.high is None or time > self.high + self.backwards_ns:
            self.leap, self.back = (time, index), []
        elif time >= self.high - self.backwards_ns:
            self.high, self.back = max(self.high, time), []
        else:
            self.back.append(time)
            if len(self.back) < self.settle:
                out[index] = TimeReason.BACKWARDS
            else:
                self.high, self.back = max(self.back), []

    def _level(self, ahead: int) -> bool:
        if self.level is None:
            self.level = ahead
            return True
        if ahead > self.level + self.ahead_ns and not self.sure:
            self.level, self.below = ahead, []
            return True
        if ahead > self.level + self.ahead_ns:
            self.below = []
            if self.above and abs(self.above[-1] - ahead) > self.ahead_ns:
                self.above = []
            self.above.append(ahead)
            if len(self.above) < self.settle:
                return False
            self.level, self.above = max(self.above), []
            return True
        self.above = []
        if ahead < self.level - self.ahead_ns:
            self.below.append(ahead)
            if len(self.below) == self.settle:
                self.level, self.below, self.sure = max(self.below), [], True
        else:
            self.level, self.below, self.sure = max(self.level, ahead), [], True
        return True


class Stretch(NamedTuple):
    """Rows of some sources that are alike: this far off the passing time, this far ahead of their arrival, in tenths
    of a second and give or take ``spread``; every so many of them have no arrival."""

    rows: int
    sources: int
    off: int
    ahead: int
    spread: int
    alone: int


# About limits of 3 s and 5 s, so that stretches lie within them of each other, beyond them, and exactly on them.
STRETCH = st.builds(
    Stretch,
    rows=st.sampled_from([1, 2, 5, 6, 8, 30, STRETCH_ROWS + 50]),
    sources=st.integers(1, 3),
    off=st.sampled_from([0, 0, 10, -10, 30, -30, 49, 50, 51, -49, -50, -51, 80, -80]),
    ahead=st.sampled_from([0, 0, 10, -10, 20, -20, 29, 30, 31, -29, -30, -31, 50, -50]),
    spread=st.sampled_from([0, 0, 1, 10, 20]),
    alone=st.sampled_from([0, 0, 0, 1, 2, 5]),
)


def made_of(stretches: list[Stretch], step: int, seed: int) -> Rows:
    """All stretches one after the other, ``step`` tenths of a second a row."""
    chance = np.random.default_rng(seed)
    times: list[int] = []
    received: list[int] = []
    sources: list[int] = []
    flags: list[int] = []
    for stretch in stretches:
        for row in range(stretch.rows):
            off, ahead = chance.integers(-stretch.spread, stretch.spread + 1, 2).tolist()
            time = NOW + (len(times) * step + stretch.off + off) * SECOND // 10
            alone = stretch.alone > 0 and row % stretch.alone == 0
            times.append(time)
            received.append(time if alone else time - (stretch.ahead + ahead) * SECOND // 10)
            sources.append(int(chance.integers(stretch.sources)))
            flags.append(int(Flags.SOURCE_TIME) if alone else 0)
    return rows(times, received, source=sources, flags=flags)


@settings(max_examples=250)
@given(
    stretches=st.lists(STRETCH, min_size=3, max_size=10),
    step=st.sampled_from([0, 0, 1, 2]),
    batch_rows=st.sampled_from([1, 5, 5, 6, 8, 40, 5_000]),
    settle=st.integers(2, 5),
    seed=st.integers(0, 1_000_000),
)
def test_arrays_say_what_the_rule_says_row_by_row(
    stretches: list[Stretch], step: int, batch_rows: int, settle: int, seed: int
) -> None:
    policy = TimePolicy(ahead_s=3, backwards_s=5, settle_rows=settle)
    records = made_of(stretches, step, seed)
    ahead = (records["timestamp"] - records["received"]).tolist()
    alone = (records["flags"] & Flags.SOURCE_TIME.value != 0).tolist()
    times, sources = records["timestamp"].tolist(), records["source"].tolist()

    models = [Model(3 * SECOND, 5 * SECOND, settle) for _ in range(3)]
    levels = levels_for(policy)
    for begin in range(0, len(records), batch_rows):
        batch = records[begin : begin + batch_rows]
        expected: dict[int, TimeReason] = {}
        for index in range(begin, begin + len(batch)):
            models[sources[index]].row(index, times[index], None if alone[index] else ahead[index], expected)
        found = check_times(batch, policy, levels).reasons
        told = {} if found is None else {begin + int(row): TimeReason(int(found[row])) for row in np.flatnonzero(found)}
        # What leapt in an earlier batch has been handed on.
        assert told == {row: reason for row, reason in expected.items() if row >= begin}


# -- policies -------------------------------------------------------------------------------------------------------


def test_a_policy_takes_days_datetimes_and_nanoseconds() -> None:
    day = datetime(2017, 7, 14, tzinfo=UTC)
    nanoseconds = int(day.timestamp()) * SECOND
    for earliest in ("2017-07-14", "2017-07-14T00:00:00Z", day, nanoseconds):
        assert TimePolicy(earliest=earliest).earliest_ns == nanoseconds


@pytest.mark.parametrize(
    "earliest",
    [
        *("yesterday", "2017-07-14T12:00:00", "1970-06-01", "2300-01-01", 5, True, 1.5),
        datetime(2017, 7, 14),  # noqa: DTZ001 (no zone is what is tested)
    ],
)
def test_an_earliest_that_is_no_moment_is_refused_with_what_to_write(earliest: Any) -> None:
    with pytest.raises(TimeError, match="a day such as '2009-01-03'"):
        TimePolicy(earliest=earliest)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ahead_s": 0},
        {"ahead_s": float("nan")},
        {"backwards_s": -1},
        {"backwards_s": True},
        {"settle_rows": 1},
        {"action": "drop"},
        {"doubtful": None},
    ],
)
def test_a_policy_with_values_that_make_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TimePolicy(**wrong)


def test_a_word_is_a_policy_for_everything() -> None:
    assert as_time_policy(None) == TimePolicy()
    assert as_time_policy("keep") is None
    assert as_time_policy(TimePolicy(action="keep", doubtful="keep")) is None
    assert as_time_policy("flag") == TimePolicy(action="flag", doubtful="flag")
    with pytest.raises(ValidationError, match=r"times is an hl\.TimePolicy"):
        as_time_policy("drop")  # type: ignore[arg-type]


def test_what_a_row_cannot_hold_is_rejected_and_what_the_recorder_did_is_flagged() -> None:
    assert TimePolicy(action="flag").action_for(TimeReason.NEGATIVE) == "reject"
    assert TimePolicy(doubtful="reject").action_for(TimeReason.RECORDER) == "flag"
    assert TimePolicy(doubtful="reject").action_for(TimeReason.AHEAD) == "reject"
    assert TimePolicy().action_for(TimeReason.BACKWARDS) == "flag"
