from __future__ import annotations

from typing import Any

import pytest

from hftlab.errors import ValidationError
from hftlab.widgets.clock_requests import ClockAsk, ClockRequest, parse_clock_ask


@pytest.mark.parametrize(
    ("do", "value", "asked"),
    [
        ("window", "1 hour", ClockRequest(ClockAsk.WINDOW, "1 hour")),
        ("heard", "view", ClockRequest(ClockAsk.HEARD, "view")),
        ("left", "view", ClockRequest(ClockAsk.LEFT, "view")),
        ("dismiss", 5, ClockRequest(ClockAsk.DISMISS)),
    ],
)
def test_what_a_view_asks_for_is_read(do: str, value: Any, asked: ClockRequest) -> None:
    assert parse_clock_ask({"do": do, "value": value}) == asked


@pytest.mark.parametrize(
    "content",
    [None, [], "window", {}, {"do": "format"}, {"do": 3}, {"do": "window"}, {"do": "window", "value": "2 hours"},
     {"do": "window", "value": 600}, {"do": "heard", "value": ""}, {"do": "heard", "value": "x" * 101}],
)  # fmt: skip
def test_what_a_page_can_send_beside_that_is_refused(content: Any) -> None:
    with pytest.raises(ValidationError):
        parse_clock_ask(content)
