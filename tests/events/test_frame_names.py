"""A frame's names come back as they were, within the bytes that its rows can use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import CodecError, ValidationError
from hftlab.events import Source, frame_names
from hftlab.events.frame_names import MAX_NAMES_BYTES, decode_names, encode_names, most_names_bytes
from tests.events.strategies import sources, symbols


@given(st.lists(symbols, max_size=9), st.lists(sources, max_size=9))
def test_names_come_back_as_they_were(some: list[str], others: list[Source]) -> None:
    rows = max(len(some), len(others))
    names = encode_names(some, others)
    for _ in range(2):
        assert decode_names(memoryview(names), rows) == (some, others)
    assert len(names) <= most_names_bytes(max(rows, 1))
    if rows:
        with pytest.raises(CodecError, match=f"of {rows - 1} rows names at most as many"):
            decode_names(memoryview(names), rows - 1)


def test_the_longest_names_fit_the_rows_that_use_them() -> None:
    longest = chr(0x1F680) * 16, Source(*[chr(0x1F680) * 64] * 4)
    for rows in (1, 7, 1_000):
        names = encode_names([longest[0]] * rows, [longest[1]] * rows)
        assert most_names_bytes(rows) - 16 < len(names) <= most_names_bytes(rows)
    assert most_names_bytes(1 << 16) == MAX_NAMES_BYTES


def test_names_beyond_what_fits_one_word_of_cache_are_read_as_well() -> None:
    many = [f"SYMBOL{index}" for index in range(2_000)]
    assert decode_names(memoryview(encode_names(many, [])), 2_000) == (many, [])


def test_names_that_take_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_names, "MAX_NAMES_BYTES", 20)
    with pytest.raises(ValidationError, match="make several frames"):
        encode_names(["A"], [Source("a venue", "a channel")])
