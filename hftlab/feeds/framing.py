"""Where the messages of a byte stream end: lines, prefixes with a length, or a function of yours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from hftlab.errors import FeedError, ValidationError, shown

Frame: TypeAlias = Callable[[bytes], tuple[list[bytes], int]]
"""The whole messages at the beginning of some bytes, and how many bytes they take. Raises where it can't be right."""


class LengthPrefix:
    """Messages behind their length: an unsigned integer of ``width`` bytes (1 to 8), in network order by default.

    ``counts_itself``: whether the length includes its own bytes, which are never in the message. Some 0.3 µs a message.
    """

    def __init__(self, width: int = 4, order: Literal["big", "little"] = "big", *, counts_itself: bool = False) -> None:
        if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= 8:
            raise ValidationError(f"a length has 1 to 8 bytes; got {shown(width)}")
        if order not in ("big", "little"):
            raise ValidationError(f"the order of its bytes is 'big' or 'little'; got {shown(order)}")
        self.width, self.order, self.counts_itself = width, order, counts_itself

    def __call__(self, data: bytes) -> tuple[list[bytes], int]:
        """The whole messages, and the bytes they take. Raises FeedError for a length that can't be."""
        messages: list[bytes] = []
        at, width = 0, self.width
        while at + width <= len(data):
            length = int.from_bytes(data[at : at + width], self.order)
            if self.counts_itself:
                if length < width:
                    if messages:  # those before it are sound: the next call raises
                        break
                    raise FeedError(f"a length of {length} does not cover its own {width} bytes: the stream is damaged")
                length -= width
            begin, end = at + width, at + width + length
            if end > len(data):
                break
            messages.append(data[begin:end])
            at = end
        return messages, at

    def __repr__(self) -> str:
        return f"LengthPrefix({self.width}, {self.order!r}{', counts_itself=True' if self.counts_itself else ''})"


def lines(data: bytes) -> tuple[list[bytes], int]:
    """Lines, without their ends (``\\n`` or ``\\r\\n``); empty ones are left out."""
    end = data.rfind(b"\n") + 1
    return [line.removesuffix(b"\r") for line in data[:end].split(b"\n") if line.strip(b"\r")], end


def as_frame(framing: str | Frame) -> Frame:
    """What ``framing=`` means. Raises ValidationError."""
    if framing == "lines":
        return lines
    if framing == "length-prefix":
        return LengthPrefix()
    if callable(framing):
        return framing
    raise ValidationError(
        "framing is 'lines', 'length-prefix' (4 bytes, network order), hl.feeds.LengthPrefix(…), or a function of "
        f"bytes that returns (messages, bytes taken); got {shown(framing)}"
    )
