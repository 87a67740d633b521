"""Times as they are written become integer ns, exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.feeds.instants import EARLIEST_RECEIVED_NS, MAX_TIME_NS, iso_ns, seconds_ns

EARLIEST, LATEST = datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2262-01-01")


@given(ns=st.integers(EARLIEST_RECEIVED_NS, MAX_TIME_NS), decimals=st.integers(0, 9))
def test_decimal_seconds_are_read_digit_by_digit(ns: int, decimals: int) -> None:
    ns -= ns % 10 ** (9 - decimals)
    text = f"{Decimal(ns) / 10**9:.{decimals}f}"
    assert seconds_ns(text.encode()) == ns


@given(moment=st.floats(1e9, 4e9))
def test_seconds_that_python_printed_are_the_decimals_that_it_printed(moment: float) -> None:
    text = repr(round(moment, 7))
    assert seconds_ns(text.encode()) == int(Decimal(text) * 10**9)


def test_a_float_in_between_would_have_been_wrong() -> None:
    text = "1618677817.061845"
    assert seconds_ns(text.encode()) == 1_618_677_817_061_845_000 != int(float(text) * 1e9)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"1618677817.",
        b".5",
        b"1618677817.0123456789",
        b"-1618677817.5",
        b"+1618677817.5",
        b" 1618677817.5",
        b"1618677817.5\n",
        b"1.618677817e9",
        b"nan",
        b"1618677817,5",
        b"99999999.9",
        b"9223372036.854775808",
        b"16186778170",
        "\uff11618677817".encode(),
        b"\xff",
    ],
)
def test_other_texts_are_no_receive_time(text: bytes) -> None:
    with pytest.raises(ValidationError, match="decimal seconds since 1970 with up to 9 decimals; got "):
        seconds_ns(text)


@given(
    moment=st.datetimes(EARLIEST, LATEST),
    nanosecond=st.integers(0, 999),
    decimals=st.integers(0, 9),
    offset=st.one_of(st.none(), st.integers(-14 * 60, 14 * 60)),
)
def test_iso_times_of_any_zone_and_precision_are_read_exactly(
    moment: datetime, nanosecond: int, decimals: int, offset: int | None
) -> None:
    fraction = f"{moment.microsecond:06d}{nanosecond:03d}"[:decimals]
    zone = timezone(timedelta(minutes=offset or 0))
    whole = moment.replace(microsecond=0, tzinfo=zone)
    end = "Z" if offset is None else whole.strftime("%z")[:3] + ":" + whole.strftime("%z")[3:]
    text = moment.strftime(f"%Y-%m-%dT%H:%M:%S{'.' + fraction if fraction else ''}") + end
    since = whole - datetime(1970, 1, 1, tzinfo=UTC)
    assert iso_ns(text) == since // timedelta(seconds=1) * 10**9 + int(fraction.ljust(9, "0") or 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2021-04-17T16:43:37.075687",
        "2021-04-17",
        "2021-04-17T25:43:37Z",
        "2021-02-30T16:43:37Z",
        "1969-12-31T23:59:59.999Z",
        "2262-12-31T00:00:00Z",
        "2021-04-17T16:43:37.0756871234Z",
        "2021-04-17T16:43:37+99:00",
        "2021-04-17T16:43:37Z ",
        "\uff12021-04-17T16:43:37Z",
    ],
)
def test_other_texts_are_no_time(text: str) -> None:
    with pytest.raises(ValidationError, match=r"a time is ISO 8601 text with a zone|there is no such time as"):
        iso_ns(text)
