"""What is said anew: compiled and as plain Python, against a dict."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.bus.kernels import conflation
from hftlab.bus.kernels.conflation import find_superseded, superseded_rows
from hftlab.events.records import DTYPES, RECORD, EventType, Kind, Rows, blank

BOTH = pytest.mark.parametrize("function", [find_superseded, find_superseded.py_func], ids=["compiled", "python"])
PRICES = [0.0, -0.0, 1.0, 2.0, 0.1 + 0.2, 0.3, float("nan")]

one_row = st.fixed_dictionaries(
    {
        "type": st.sampled_from([EventType.MARKET_DATA] * 6 + list(EventType)),
        "symbol": st.sampled_from([0, 1, 2, (1 << 32) - 1]),
        "source": st.sampled_from([0, 1, (1 << 16) - 1]),
        "kind": st.sampled_from(Kind),
        "side": st.sampled_from([-1, 0, 1]),
        "price": st.sampled_from(PRICES),
    }
)


def rows_of(described: list[dict[str, Any]]) -> Rows:
    rows = np.zeros(len(described), RECORD)
    for place, fields in enumerate(described):
        row = blank(1, EventType.MARKET_DATA)
        for name in ("symbol", "source", "kind", "side", "price"):
            row[name] = fields[name]
        # What must make no difference.
        row["log_sequence"], row["flags"], row["received"], row["volume"] = place, place * 257, ~place, place
        row["epoch"], row["part"], row["priority"] = place * 65_537, place, place % 5
        row["clock"], row["bid"] = place % 4, place
        row["type"] = fields["type"]
        rows[place : place + 1] = row.view(RECORD)
    return rows


def kind_of(fields: dict[str, Any]) -> object:
    """What a row says something about; None for what nothing supersedes."""
    if fields["type"] is not EventType.MARKET_DATA or fields["kind"] is Kind.TRADE:
        return None
    level = (fields["side"], np.float64(fields["price"]).tobytes()) if fields["kind"] is Kind.LEVEL else ()
    return fields["symbol"], fields["source"], fields["kind"], level


def modelled(described: list[dict[str, Any]], first: bool) -> list[bool]:
    seen: dict[object, int] = {}
    superseded = [False] * len(described)
    places = range(len(described)) if first else reversed(range(len(described)))
    for place in places:
        kind = kind_of(described[place])
        if kind is not None and kind in seen:
            superseded[place] = True
        elif kind is not None:
            seen[kind] = place
    return superseded


def find(function: Any, rows: Rows, first: bool) -> npt.NDArray[np.bool_]:
    found = np.ones(len(rows), bool)  # whatever the caller's memory held
    with np.errstate(over="ignore"):  # a hash wraps round; NumPy's scalars say so
        function(rows.view(np.int64), first, found)
    return found


@BOTH
@settings(max_examples=150)
@given(st.lists(one_row, max_size=40), st.booleans())
def test_of_each_kind_the_last_row_or_the_first_stays(
    function: Any, described: list[dict[str, Any]], first: bool
) -> None:
    assert find(function, rows_of(described), first).tolist() == modelled(described, first)


@BOTH
@given(st.lists(one_row, max_size=30), st.integers(0, 30))
def test_how_many_stay_of_a_prefix_is_known_from_the_first_of_each_kind(
    function: Any, described: list[dict[str, Any]], count: int
) -> None:
    """Admission counts with this: of the rows up to any place, as many stay as are the first of their kind."""
    stay = int(np.count_nonzero(~find(function, rows_of(described), True)[:count]))
    prefix = rows_of(described[:count])
    assert stay == int(np.count_nonzero(~find(function, prefix, False)))


@pytest.mark.parametrize("count", [1_000, 4_096])
@pytest.mark.parametrize("kinds", [1, 700, 10_000])
def test_many_rows_of_many_kinds_find_their_places_in_the_table(count: int, kinds: int) -> None:
    numbers = np.random.default_rng(7).integers(0, kinds, count)
    rows = blank(count, EventType.MARKET_DATA)
    rows["kind"], rows["symbol"] = Kind.QUOTE, numbers
    expected = np.ones(count, bool)
    _, last = np.unique(numbers[::-1], return_index=True)
    expected[count - 1 - last] = False
    assert superseded_rows(rows).tolist() == expected.tolist()


def test_levels_whose_prices_differ_in_the_last_bit_are_two() -> None:
    rows = blank(4_000, EventType.MARKET_DATA)
    rows["kind"], rows["side"] = Kind.LEVEL, 1
    rows["price"] = (np.float64(60_000.0).view(np.int64) + np.arange(4_000)).view(np.float64)
    assert not superseded_rows(rows).any()


@pytest.mark.parametrize("writable", [True, False])
def test_rows_that_may_not_be_written_can_be_looked_at(writable: bool) -> None:
    rows = blank(3, EventType.MARKET_DATA)
    rows["kind"] = Kind.QUOTE
    rows.flags.writeable = writable
    assert superseded_rows(rows).tolist() == [True, True, False]
    assert superseded_rows(rows, first=True).tolist() == [False, True, True]


@pytest.mark.parametrize("event_type", [one for one in EventType if one is not EventType.MARKET_DATA])
def test_nothing_but_market_data_is_superseded(event_type: EventType) -> None:
    rows = np.zeros(9, DTYPES[event_type])
    rows["type"] = event_type
    assert not superseded_rows(rows).any()


def test_all_signatures_are_compiled_ahead() -> None:
    assert conflation.warm() == 2
    before = len(find_superseded.signatures)
    test_rows_that_may_not_be_written_can_be_looked_at(True)
    test_rows_that_may_not_be_written_can_be_looked_at(False)
    assert len(find_superseded.signatures) == before
