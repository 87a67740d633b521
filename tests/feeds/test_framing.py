"""Where messages end: whatever the pieces, the same messages come out."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import FeedError, ValidationError
from hftlab.feeds.framing import Frame, LengthPrefix, as_frame

MESSAGES = st.lists(st.binary(max_size=40), max_size=12)


def cut(frame: Frame, stream: bytes, cuts: list[int]) -> tuple[list[bytes], bytes]:
    """The messages of a stream that comes in pieces, and what is left of it."""
    found: list[bytes] = []
    rest = b""
    bounds = [0, *sorted(place % (len(stream) + 1) for place in cuts), len(stream)]
    for begin, end in zip(bounds, bounds[1:], strict=False):  # noqa: RUF007 (begin and end of pieces)
        rest += stream[begin:end]
        messages, taken = frame(rest)
        found += messages
        rest = rest[taken:]
    return found, rest


@given(
    messages=MESSAGES,
    cuts=st.lists(st.integers(0, 500), max_size=6),
    width=st.integers(1, 8),
    order=st.sampled_from(["big", "little"]),
    itself=st.booleans(),
    half=st.integers(0, 7),
)
def test_messages_behind_their_lengths_come_out_however_they_are_cut(
    messages: list[bytes], cuts: list[int], width: int, order: Literal["big", "little"], itself: bool, half: int
) -> None:
    frame = LengthPrefix(width, order, counts_itself=itself)
    lengths = [len(message) + (width if itself else 0) for message in messages]
    parts = [length.to_bytes(width, order) + message for length, message in zip(lengths, messages, strict=True)]
    rest = (50).to_bytes(width, order)[: min(half, width)]
    assert cut(frame, b"".join(parts) + rest, cuts) == (messages, rest)


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"").replace(b"\r", b"")), max_size=12),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_lines_come_out_without_their_ends_however_they_are_cut(
    lines: list[bytes], cuts: list[int], end: bytes
) -> None:
    stream = b"".join(line + end for line in lines) + b"rest"
    assert cut(as_frame("lines"), stream, cuts) == ([line for line in lines if line], b"rest")


def test_a_length_that_does_not_cover_itself_is_damage() -> None:
    with pytest.raises(FeedError, match="a length of 3 does not cover its own 4 bytes"):
        LengthPrefix(counts_itself=True)(b"\0\0\0\3")


def test_a_length_prefix_says_what_it_is() -> None:
    assert repr(LengthPrefix(2, "little", counts_itself=True)) == "LengthPrefix(2, 'little', counts_itself=True)"
    assert repr(as_frame("length-prefix")) == "LengthPrefix(4, 'big')"


@pytest.mark.parametrize("wrong", [{"width": 0}, {"width": 9}, {"width": True}, {"order": "network"}])
def test_lengths_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LengthPrefix(**wrong)
