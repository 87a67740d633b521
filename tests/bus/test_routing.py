"""Routes against the question asked row by row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hftlab.bus.routing import Routes
from hftlab.bus.subscriptions import Subscription
from hftlab.events import EventType, SymbolTable
from hftlab.events.records import Rows
from tests.bus.samples import trades

SYMBOLS = ["A", "AB", "B", "BC", "C"]
patterns = st.sampled_from([None, "A", "AB", "C", "A*", "*B", "?", "none", "*"])


def subscription(name: str, pattern: str | None, above: int | None) -> Subscription:
    where = None if above is None else lambda records: records["price"] > above
    return Subscription(name, print, "event", frozenset({EventType.MARKET_DATA}), pattern, where)


def refuse_none(one: Subscription, position: int, error: Exception) -> None:
    raise AssertionError(error)


def rows_of(ids: list[int]) -> Rows:
    rows = trades(len(ids)).records
    rows["symbol"] = ids
    return rows


@given(
    st.lists(st.tuples(patterns, st.sampled_from([None, None, 1, 5])), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, len(SYMBOLS) - 1), max_size=12), max_size=4),
)
def test_calls_are_row_by_row_and_in_the_order_of_registration(
    wanted: list[tuple[str | None, int | None]], pieces: list[list[int]]
) -> None:
    subscriptions = [subscription(f"h{number}", *one) for number, one in enumerate(wanted)]
    routes = Routes(subscriptions)
    symbols = SymbolTable()
    for ids in pieces:
        for known in SYMBOLS[: max(ids, default=-1) + 1]:  # the table grows as it goes
            symbols.intern(known)
        rows = rows_of(ids)
        calls = routes.calls(rows, symbols, refuse_none)
        whose = np.zeros(calls.total, np.intp) if calls.whose is None else calls.whose
        local = np.arange(calls.total) if calls.local is None else calls.local
        expected = [
            (row, number)
            for row, symbol in enumerate(ids)
            for number, one in enumerate(subscriptions)
            if one.wants(SYMBOLS[symbol]) and (wanted[number][1] is None or row > (wanted[number][1] or 0))
        ]
        assert list(zip(local.tolist(), whose.tolist(), strict=True)) == expected
        assert calls.total == len(expected)
        for symbol in set(ids):
            assert list(routes.of_symbol(symbol, symbols)) == [
                one for one in subscriptions if one.wants(SYMBOLS[symbol])
            ]


def test_a_failing_predicate_is_reported_with_its_row() -> None:
    def where(records: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        if (records["price"] == 2).any():
            raise ValueError("wanted")
        return np.ones(len(records), bool)

    failing = Subscription("fails", print, "event", frozenset({EventType.MARKET_DATA}), "B", where)
    routes = Routes([subscription("beside", None, None), failing])
    refused: list[tuple[str, int]] = []
    rows = rows_of([0, 1, 1, 0])
    calls = routes.calls(
        rows, SymbolTable(["A", "B"]), lambda one, position, error: refused.append((one.name, position))
    )
    assert refused == [("fails", 2)]
    assert calls.whose is not None
    assert calls.local is not None
    assert list(zip(calls.local.tolist(), calls.whose.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
    ]


def test_one_handler_for_everything_needs_no_table() -> None:
    calls = Routes([subscription("all", None, None)]).calls(rows_of([0, 1, 2]), SymbolTable(SYMBOLS), refuse_none)
    assert calls == (3, None, None)
