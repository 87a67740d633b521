from __future__ import annotations

from typing import Any

import pytest

from hftlab.errors import ValidationError
from hftlab.widgets.latency_requests import Want, WantRequest, parse_want


@pytest.mark.parametrize(
    ("do", "value", "request_"),
    [
        ("by", "symbol", WantRequest(Want.BY, "symbol")),
        ("stage", "TOTAL", WantRequest(Want.STAGE, "TOTAL")),
        ("row", "BTCUSDT", WantRequest(Want.ROW, "BTCUSDT")),
        ("row", "", WantRequest(Want.ROW, "")),
        ("move", -1, WantRequest(Want.MOVE, rows=-1)),
        ("keep", "whatever", WantRequest(Want.KEEP)),
        ("heard", "view", WantRequest(Want.HEARD, "view")),
    ],
)
def test_what_a_view_asks_for_is_read(do: str, value: Any, request_: WantRequest) -> None:
    assert parse_want({"do": do, "value": value}) == request_


@pytest.mark.parametrize(
    "content",
    [None, [], "keep", {}, {"do": 3}, {"do": "format"}, {"do": "by", "value": "price"}, {"do": "by"}, {"do": "stage"},
     {"do": "stage", "value": "exchange → received"}, {"do": "move", "value": "1"}, {"do": "move", "value": True},
     {"do": "move", "value": 1e9}, {"do": "move", "value": 10**10}, {"do": "row"}, {"do": "row", "value": "x" * 1_001},
     {"do": "heard", "value": ""}, {"do": ["by"], "value": "type"}],
)  # fmt: skip
def test_what_a_page_can_send_beside_that_is_refused(content: Any) -> None:
    with pytest.raises(ValidationError):
        parse_want(content)
