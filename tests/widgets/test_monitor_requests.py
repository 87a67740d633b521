from __future__ import annotations

from typing import Any

import pytest

from hftlab.errors import ValidationError
from hftlab.widgets.bus_readings import ORDERS
from hftlab.widgets.monitor_requests import Look, LookRequest, parse_look


@pytest.mark.parametrize("word", ORDERS)
def test_every_column_can_be_asked_to_order(word: str) -> None:
    assert parse_look({"do": "order", "value": word}) == LookRequest(Look.ORDER, word)


def test_views_come_and_go_and_dismiss() -> None:
    assert parse_look({"do": "heard", "value": "v1"}) == LookRequest(Look.HEARD, "v1")
    assert parse_look({"do": "left", "value": "v1"}) == LookRequest(Look.LEFT, "v1")
    assert parse_look({"do": "dismiss", "value": {"anything": 1}}) == LookRequest(Look.DISMISS)


@pytest.mark.parametrize(
    "content",
    [
        None, [], "order", {}, {"do": None}, {"do": ["order"]}, {"do": "seek", "value": "x"}, {"do": "order"},
        {"do": "order", "value": "__class__"}, {"do": "order", "value": 3}, {"do": "heard", "value": ""},
        {"do": "heard", "value": "x" * 101}, {"do": "left", "value": None},
    ],
)  # fmt: skip
def test_whatever_else_a_page_sends_is_refused(content: Any) -> None:
    with pytest.raises(ValidationError):
        parse_look(content)
