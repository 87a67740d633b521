from __future__ import annotations

from typing import Any

import pytest

from hftlab.errors import ValidationError
from hftlab.sequence import GapState
from hftlab.widgets.gap_requests import Ask, Request, parse_request
from hftlab.widgets.known_gaps import GapKey


@pytest.mark.parametrize(
    ("do", "value", "expected"),
    [
        ("select", "1:0:9007199254740993:9007199254740995", GapKey(1, 0, 9007199254740993, 9007199254740995)),
        ("select", None, None),
        ("move", -1e9, -1_000_000_000),
        ("page", 40, 40),
        ("source", "3", 3),
        ("source", "", None),
        ("state", "lost", GapState.LOST),
        ("order", "numbers", "numbers"),
        ("everything", None, None),
        ("zoom", "1723161255000000000:1723161256000000000", (1723161255000000000, 1723161256000000000)),
        ("zoom", None, None),
        ("jump", "after", "after"),
        ("heard", "view", "view"),
        ("dismiss", None, None),
    ],
)
def test_what_a_view_asks_for_is_read(do: str, value: Any, expected: Any) -> None:
    assert parse_request({"do": do, "value": value}) == Request(Ask(do), expected)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"do": "format"},
        {"do": ["select"]},
        {"do": "select", "value": "1:2:3"},
        {"do": "select", "value": "1:2:3:x"},
        {"do": "select", "value": f"1:2:3:{1 << 63}"},
        {"do": "select", "value": {"a": 1}},
        {"do": "select", "value": "1" * 5_000},
        {"do": "move", "value": "1"},
        {"do": "move", "value": True},
        {"do": "move", "value": 1.5},
        {"do": "page", "value": float("inf")},
        {"do": "source", "value": "one"},
        {"do": "state", "value": "OPEN"},
        {"do": "order", "value": "price"},
        {"do": "zoom", "value": "2:1"},
        {"do": "zoom", "value": "0:5"},
        {"do": "jump", "value": "up"},
        {"do": "heard", "value": ""},
        {"do": "left", "value": "x" * 101},
    ],
)
def test_anything_else_is_refused_with_what_was_expected(content: Any) -> None:
    with pytest.raises(ValidationError):
        parse_request(content)
