from __future__ import annotations

import pytest

from hftlab.sequence.wording import duration_text, numbers_text

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "0 ns"),
        (850, "850 ns"),
        (999_600, "999 µs"),
        (1_250_000, "1.25 ms"),
        (3_200_000_000, "3.2 s"),
        (125 * SECOND, "2 min 05 s"),
        (11_400 * SECOND, "3 h 10 min"),
    ],
)
def test_durations_are_short_and_have_a_unit(span_ns: int, text: str) -> None:
    assert duration_text(span_ns) == text


def test_one_number_is_no_range() -> None:
    assert [numbers_text(7, 7), numbers_text(7, 9)] == ["7", "7…9"]
