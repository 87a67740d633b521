"""A subscription's choice of rows, by symbol and by ``where=``."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.bus.subscriptions import Subscription, check_mask, symbol_matcher
from hftlab.errors import ValidationError
from hftlab.events import EventType, SymbolTable
from hftlab.events.records import Rows
from tests.bus.samples import trades


def subscription(**options: Any) -> Subscription:
    return Subscription("it", print, "event", frozenset({EventType.MARKET_DATA}), **options)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (None, ["", "BTC", "x y"], []),
        ("BTC", ["BTC"], ["BTCUSD", "btc", ""]),
        ("BTC*", ["BTC", "BTCUSD"], ["XBTC", "BT"]),
        ("*USD", ["USD", "BTCUSD"], ["USDT"]),
        ("B?C", ["BTC", "B.C"], ["BC", "BTTC"]),
        ("BTC[PERP]*", ["BTC[PERP]", "BTC[PERP]-Q"], ["BTCP", "BTCPERP"]),
        ("BTC[PERP]", ["BTC[PERP]"], ["BTCP"]),
        ("A.B*", ["A.B"], ["AxB"]),
        ("*\n*", ["a\nb"], ["ab"]),
    ],
)
def test_only_stars_and_question_marks_are_special(pattern: str | None, matching: list[str], others: list[str]) -> None:
    matches = symbol_matcher(pattern)
    assert all(matches(text) for text in matching)
    assert not any(matches(text) for text in others)


def refuse_none(position: int, error: Exception) -> None:
    raise AssertionError((position, error))


def test_all_rows_are_chosen_without_a_copy() -> None:
    rows = trades(10, symbols=("A", "B"))
    assert subscription().select(rows.records, rows.symbols, refuse_none) is None
    assert subscription(pattern="?").select(rows.records, rows.symbols, refuse_none) is None
    everything = subscription(where=lambda records: np.ones(len(records), bool))
    assert everything.select(rows.records, rows.symbols, refuse_none) is None


def test_symbols_that_come_later_are_matched_too() -> None:
    wanting = subscription(pattern="B*")
    symbols = SymbolTable(["A"])
    rows = trades(4, symbols=("A", "B")).records
    assert wanting.select(rows[::2], symbols, refuse_none) == pytest.approx([])
    symbols.intern("B")
    chosen = wanting.select(rows, symbols, refuse_none)
    assert chosen is not None
    assert chosen.tolist() == [1, 3]


def test_where_is_asked_about_rows_of_wanted_symbols_only() -> None:
    asked: list[list[int]] = []

    def where(records: Rows) -> npt.NDArray[np.bool_]:
        asked.append(records["log_sequence"].tolist())
        mask: npt.NDArray[np.bool_] = records["price"] > 4
        return mask

    rows = trades(10, symbols=("A", "B"))
    chosen = subscription(pattern="B", where=where).select(rows.records, rows.symbols, refuse_none)
    assert chosen is not None
    assert chosen.tolist() == [5, 7, 9]
    assert asked == [[1, 3, 5, 7, 9]]
    assert subscription(pattern="C", where=where).select(rows.records, rows.symbols, refuse_none) == pytest.approx([])
    assert len(asked) == 1


@given(st.sets(st.integers(0, 19)), st.integers(1, 20))
def test_which_rows_a_predicate_fails_on_does_not_depend_on_their_neighbours(bad: set[int], cut: int) -> None:
    def where(records: Rows) -> npt.NDArray[np.bool_]:
        if any(number in bad for number in records["log_sequence"].tolist()):
            raise ValueError("wanted")
        mask: npt.NDArray[np.bool_] = records["log_sequence"] % 2 == 0
        return mask

    rows = trades(20)
    wanting = subscription(where=where)
    kept: list[int] = []
    refused: list[int] = []

    def note(begin: int, position: int, error: Exception) -> None:
        refused.append(begin + position)

    for begin in range(0, 20, cut):
        piece = rows.records[begin : begin + cut]
        mask = wanting.judge(piece, partial(note, begin))
        kept += (np.flatnonzero(mask) + begin).tolist()
    assert refused == sorted(bad)
    assert kept == [number for number in range(0, 20, 2) if number not in bad]


@pytest.mark.parametrize(
    "mask", [True, [True] * 3, np.ones(4, bool), np.ones(3, int), np.ones((3, 1), bool), None, np.ma.masked_array([1])]
)
def test_a_mask_is_a_boolean_array_of_one_value_a_row(mask: object) -> None:
    with pytest.raises(ValidationError, match=r"returns a boolean array, one value a row \(3,\); got "):
        check_mask(mask, 3, "it")


def test_what_is_no_mask_refuses_every_row() -> None:
    rows = trades(3)
    errors: list[str] = []
    kept = subscription(where=lambda records: records["price"]).judge(
        rows.records, lambda position, error: errors.append(f"{position} {error}")
    )
    assert not kept.any()
    assert [error.split()[0] for error in errors] == ["0", "1", "2"]
    assert "got float64 of shape (1,)" in errors[0]


def test_its_repr_says_what_it_wants() -> None:
    assert repr(subscription(pattern="BTC*")) == "Subscription(it: market.BTC*; event)"
