"""Names get ids that they keep, and a source is told by text as well as it is by parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import NumberRule, Source, SourceTable, SymbolTable
from hftlab.events.tables import UNKNOWN_SOURCE, Table, check_symbol
from tests.events.strategies import sources, symbols


@given(st.lists(symbols, max_size=20))
def test_ids_count_up_from_0_and_stay(names: list[str]) -> None:
    table = SymbolTable()
    model: dict[str, int] = {}
    for name in names:
        assert table.find(name) == model.get(name)
        assert (name in table) == (name in model)
        assert table.intern(name) == model.setdefault(name, len(model))
    assert list(table) == table.values == list(model)
    assert len(table) == len(model)
    assert [table[index] for index in range(len(table))] == list(model)


@given(st.lists(sources, max_size=10))
def test_a_blank_rows_source_always_has_a_name(listed: list[Source]) -> None:
    table = SourceTable(listed)
    assert table[0] == UNKNOWN_SOURCE
    assert list(table) == list(dict.fromkeys([UNKNOWN_SOURCE, *listed]))


@given(
    st.lists(symbols, unique=True, max_size=10),
    st.lists(symbols, unique=True, max_size=10),
    st.lists(symbols, max_size=5),
)
def test_a_translation_leads_to_the_same_name_also_after_either_table_grew(
    mine: list[str], theirs: list[str], later: list[str]
) -> None:
    table, target = SymbolTable(mine), SymbolTable(theirs)
    for name in ["", *later]:
        if name:
            table.intern(name)
            target.intern(name[::-1] or name)
        ids = table.translation(target)
        found = np.arange(len(table)) if ids is None else ids
        assert [target[int(index)] for index in found] == list(table)
    assert table.translation(table) is None


def test_a_table_is_full_at_its_limit_and_says_so() -> None:
    class Small(Table[str]):
        def _check(self, value: str) -> None:
            check_symbol(value)

    table = Small("abc", limit=3)
    assert table.intern("a") == 0
    with pytest.raises(ValidationError, match="Small holds 3 values at most; got one more: d"):
        table.intern("d")
    assert len(table) == 3


def test_a_source_table_takes_sources_only() -> None:
    with pytest.raises(ValidationError, match="Source"):
        SourceTable(["binance"])  # type: ignore[list-item]
    with pytest.raises(ValidationError, match="symbol is printable"):
        SymbolTable([""])


def test_a_repr_shows_the_first_names() -> None:
    assert repr(SymbolTable("abcd")) == "SymbolTable(4: a, b, c, …)"
    assert repr(SourceTable([Source("x", scope="y")])) == "SourceTable(2: unknown, x/y)"


@given(sources)
def test_a_source_comes_back_from_its_text(source: Source) -> None:
    assert Source.of_text(source.text) == source
    assert source.text.count("/") <= 3


@given(st.lists(sources, max_size=10, unique=True))
def test_different_sources_have_different_texts(listed: list[Source]) -> None:
    assert len({source.text for source in listed}) == len(listed)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Source("unknown"), "unknown"),
        (Source("binance", "trade", "BTCUSDT", NumberRule.PLUS_ONE.value), "binance/trade/BTCUSDT/plus-one"),
        (Source("binance", "trade"), "binance/trade"),
        (Source("binance", "", "BTC"), "binance//BTC"),
        (Source("a/b", "50%"), "a%2Fb/50%25"),
        (Source("a", rule=""), "a///"),
    ],
)
def test_a_sources_text_leaves_out_what_it_need_not_say(source: Source, text: str) -> None:
    assert source.text == text
    assert Source.of_text(text) == source


def test_a_rule_may_be_given_by_its_member() -> None:
    source = Source("a", rule=NumberRule.RANGE)
    assert type(source.rule) is str
    assert source == Source("a", rule="range")


@pytest.mark.parametrize("text", ["", "/a", "a/b/c/d/e", "a/b/c/d/", "a\n", "x" * 65])
def test_a_text_that_tells_no_source_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="source"):
        Source.of_text(text)


@pytest.mark.parametrize("fields", [{"venue": ""}, {"venue": "a", "scope": 5}, {"venue": "a", "channel": "\0"}])
def test_a_source_with_a_part_that_can_not_be_shown_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="source"):
        Source(**fields)  # type: ignore[arg-type]
