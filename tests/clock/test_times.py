"""A time is read as it was meant, to the nanosecond, or refused with what to write instead."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hftlab.clock import format_time, parse_time
from hftlab.clock.times import DAY_NS
from hftlab.errors import TimeError, ValidationError, shown

MOMENT = 1_723_161_270_123_456_789  # 2024-08-08T23:54:30.123456789Z
SECOND = 1_723_161_270_000_000_000
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
moments = st.integers(0, (1 << 63) - 1)


@given(moments)
@example(0)
@example((1 << 63) - 1)
def test_a_time_that_was_written_is_read_again(moment: int) -> None:
    text = format_time(moment)
    assert parse_time(text) == moment
    assert len(text) == len("2024-08-08T23:54:15.030314667Z")
    assert pd.Timestamp(text).value == moment


@given(moments, st.sampled_from(["ns", "us", "ms", "s"]))
def test_integers_have_the_unit_that_is_written_beside_them(moment: int, unit: str) -> None:
    per = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}[unit]
    assert parse_time((moment // per, unit)) == moment // per * per
    assert parse_time((np.int64(moment // per), unit)) == moment // per * per  # type: ignore[arg-type]
    assert parse_time(moment) == parse_time(np.int64(moment)) == parse_time(np.uint64(moment)) == moment  # type: ignore[arg-type]


@given(
    st.integers(0, (1 << 63) - 1 - DAY_NS),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_pandas_timestamps_of_any_zone_keep_their_nanoseconds(moment: int, zone: str) -> None:
    assert parse_time(pd.Timestamp(moment, tz="UTC").tz_convert(zone)) == moment


@given(
    st.datetimes(
        dt.datetime(1970, 1, 2),  # noqa: DTZ001
        dt.datetime(2262, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([dt.UTC, BERLIN, zoneinfo.ZoneInfo("Asia/Kolkata")]),
    )
)
def test_datetimes_with_a_zone_are_read_to_the_microsecond(value: dt.datetime) -> None:
    expected = (value.astimezone(dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    assert parse_time(value) == expected * 1_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-08-08T23:54:30.123456789Z", MOMENT),
        ("2024-08-08 23:54:30.123456789Z", MOMENT),
        ("2024-08-08 23:54:30.123456789 UTC", MOMENT),
        ("  2024-08-08T23:54:30Z ", SECOND),
        ("2024-08-08T23:54:30,5Z", SECOND + 500_000_000),
        ("2024-08-08T23:54:30.1Z", SECOND + 100_000_000),
        ("2024-08-08T23:54Z", SECOND - 30_000_000_000),
        ("2024-08-09T01:54:30+02:00", SECOND),
        ("2024-08-09T01:54:30+0200", SECOND),
        ("2024-08-08T18:24:30-05:30", SECOND),
        ("2024-08-09 01:54:30 Europe/Berlin", SECOND),
        ("2024-08-08 19:54:30 America/New_York", SECOND),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("2262-04-11T23:47:16.854775807Z", (1 << 63) - 1),
        (dt.datetime(2024, 8, 8, 23, 54, 30, 123456, tzinfo=dt.UTC), MOMENT - 789),
        (dt.datetime(2024, 8, 9, 1, 54, 30, tzinfo=BERLIN), SECOND),
        # The hour that comes twice: a datetime says which one it is.
        (dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN), 1_729_989_000_000_000_000),
        (dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1), 1_729_992_600_000_000_000),
        (pd.Timestamp("2024-08-08T23:54:30.123456789Z"), MOMENT),
        (pd.Timestamp("2024-08-08T23:54:30Z").as_unit("s"), SECOND),
    ],
)
def test_a_time_with_a_zone_is_read_in_every_usual_form(value: Any, expected: int) -> None:
    assert parse_time(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2024-08-08T23:54:30", "no zone; if it is UTC, write 2024-08-08T23:54:30Z"),
        (dt.datetime(2024, 8, 8, 23, 54, 30), r"no zone; if it is UTC, write 2024-08-08T23:54:30Z"),  # noqa: DTZ001
        (pd.Timestamp("2024-08-08T23:54:30"), "no zone; if it is UTC, write 2024-08-08T23:54:30Z"),
        (np.datetime64("2024-08-08T23:54:30"), 'no zone; if it is UTC, write "2024-08-08T23:54:30.000000000Z"'),
        (np.datetime64("NaT"), "no zone"),
        (pd.NaT, "not a time"),
        ("NaT", "no time that can be read"),
        ("now", "no time that can be read"),
        ("today", "no time that can be read"),
        ("", "no time that can be read"),
        ("08/09/2024 12:00Z", "no time that can be read"),
        ("2024-08-08", "no time that can be read"),
        ("2024-08-08Z", "no time that can be read"),
        ("20240808T235430Z", "no time that can be read"),
        ("2024-8-8T23:54:30Z", "no time that can be read"),
        ("2024-08-08T23:54:30.1234567890Z", "no time that can be read"),
        ("2024-08-08T23:54:30Z; drop", "no time that can be read"),
        ("٢٠٢٤-08-08T23:54:30Z", "no time that can be read"),
        ("2024-02-30T00:00:00Z", "is no time: day"),
        ("2024-13-01T00:00:00Z", "is no time: month"),
        ("2024-08-08T24:00:00Z", "is no time: hour"),
        ("2024-08-08T23:59:60Z", "is no time: second"),
        ("2024-08-08T23:54:30+24:00", "offset is"),
        ("2024-08-08T23:54:30+01:60", "offset is"),
        ("2024-08-08T23:54:30 Europe/Nowhere", "is no zone"),
        ("2024-08-08T23:54:30 z", "is no zone"),
        ("2024-10-27 02:30 Europe/Berlin", "comes twice by its zone's clocks; write it with an offset"),
        ("2024-03-31 02:30 Europe/Berlin", "is skipped by its zone's clocks"),
        ("1969-12-31T23:59:59Z", "a time is 0 to"),
        ("1970-01-01T00:00:00+01:00", "a time is 0 to"),
        ("2262-04-11T23:47:16.854775808Z", "a time is 0 to"),
        ("9999-12-31T23:59:59Z", "a time is 0 to"),
        ("0001-01-01T00:00:00+14:00", "a time is 0 to"),
        (-1, "a time is 0 to"),
        (1 << 63, "a time is 0 to"),
        (10**5_000, "a time is 0 to"),
        ((1 << 62, "s"), "a time is 0 to"),
        ((5, "h"), "a unit of time is one of ns, us, ms, s; got 'h'"),
        ((5, ["s"]), "a unit of time"),
        ((5.0, "s"), "pair such as"),
        ((True, "s"), "pair such as"),
        ((5,), "pair such as"),
        ((5, "s", 1), "pair such as"),
        (1.5, "can't be a float"),
        (True, "not a bool"),
        (None, "can't be a NoneType"),
        (dt.date(2024, 8, 8), "can't be a date"),
        (dt.time(12, 0), "can't be a time"),
        (np.float64(1.0), "can't be a float64"),
        ([], "can't be a list"),
    ],
    ids=lambda value: shown(value, 40),
)
def test_a_time_that_could_mean_something_else_is_refused_with_what_to_write(value: Any, message: str) -> None:
    with pytest.raises(TimeError, match=message) as caught:
        parse_time(value)
    assert isinstance(caught.value, ValidationError)
    assert len(str(caught.value)) < 600


@given(st.text(max_size=40))
@example("2024-08-08T23:54:30\n")
@example("0000-00-00T00:00:00Z")
def test_any_text_is_a_time_or_a_time_error(text: str) -> None:
    for written in (text, f"2024-08-08T{text}", f"2024-08-08T23:54:30{text}"):
        try:
            moment = parse_time(written, within=(0, DAY_NS - 1))
        except TimeError:
            continue
        assert 0 <= moment < 1 << 63


DAY = 1_723_075_200_000_000_000  # 2024-08-08T00:00Z
HOUR = 3_600_000_000_000


@pytest.mark.parametrize(
    ("text", "within", "expected"),
    [
        ("23:54:30", (DAY + 23 * HOUR, DAY + 24 * HOUR - 1), SECOND),
        ("23:54:30.123456789", (DAY + 23 * HOUR, DAY + 24 * HOUR - 1), MOMENT),
        ("23:54:30Z", (DAY + 23 * HOUR, DAY + 24 * HOUR - 1), SECOND),
        ("23:54", (DAY, DAY), DAY + 23 * HOUR + 54 * HOUR // 60),
        ("9:05", (DAY, DAY + HOUR), DAY + 9 * HOUR + 5 * HOUR // 60),
        # Within one day a time before or after the session is plain as well.
        ("00:00:00", (DAY + HOUR, DAY + 2 * HOUR), DAY),
        ("23:59:59.999999999", (DAY + HOUR, DAY + 2 * HOUR), DAY + 24 * HOUR - 1),
        # Across midnight it lies on one day or the other.
        ("23:30", (DAY + 23 * HOUR, DAY + 25 * HOUR), DAY + 23 * HOUR + HOUR // 2),
        ("00:30", (DAY + 23 * HOUR, DAY + 25 * HOUR), DAY + 24 * HOUR + HOUR // 2),
    ],
)
def test_a_bare_time_of_day_means_utc_within_the_session(text: str, within: tuple[int, int], expected: int) -> None:
    assert parse_time(text, within=within) == expected


@pytest.mark.parametrize(
    ("text", "within", "message"),
    [
        ("23:54:30", None, "needs a session to lie in"),
        ("24:00", (DAY, DAY), "a time of day is"),
        ("12:60", (DAY, DAY), "a time of day is"),
        ("12:00:60", (DAY, DAY), "a time of day is"),
        ("12:00", (DAY, DAY + 48 * HOUR), r"could mean 2 moments \(2024-08-08T12:00:00.000000000Z, 2024-08-09T12"),
        ("12:00", (DAY, DAY + 240 * HOUR), "could mean 10 moments"),
        (
            "12:00",
            (DAY + 23 * HOUR, DAY + 25 * HOUR),
            "lies on no day of the session: .* from 2024-08-08T23",
        ),
    ],
)
def test_a_time_of_day_that_means_two_moments_or_none_is_refused(text: str, within: Any, message: str) -> None:
    with pytest.raises(TimeError, match=message):
        parse_time(text, within=within)


@given(st.integers(0, 20_000), st.integers(0, 3 * DAY_NS), st.integers(0, DAY_NS - 1))
def test_a_time_of_day_is_the_only_such_moment_of_the_session_or_an_error(
    start_day: int, length: int, of_day: int
) -> None:
    first = start_day * DAY_NS + DAY_NS // 2
    last = first + length
    text = format_time(of_day)[11:-1]
    inside = [
        day * DAY_NS + of_day
        for day in range(first // DAY_NS, last // DAY_NS + 1)
        if first <= day * DAY_NS + of_day <= last
    ]
    if first // DAY_NS == last // DAY_NS:
        inside = [first // DAY_NS * DAY_NS + of_day]
    if len(inside) == 1:
        assert parse_time(text, within=(first, last)) == inside[0]
    else:
        with pytest.raises(TimeError, match="no day" if not inside else f"{len(inside)} moments"):
            parse_time(text, within=(first, last))
