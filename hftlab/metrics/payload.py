"""HdrHistogram's V2 payload: the counts of a histogram as compressed text, in its index layout.

The layout is ours (``kernels``) with 16, 128, 1,024, 16,384 or 131,072 sub-buckets for 1 to 5 significant digits, and
values that may be shifted right by the digits that the lowest discernible value leaves out. Counts stand as zigzag
LEB128 of at most 9 bytes, a run of n empty buckets as -n; before them a header of 40 bytes, big-endian; all of it
through zlib, after a header of 8 bytes, in base64. (Source: HdrHistogram's AbstractHistogram and ZigZagEncoding.)
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hftlab.errors import CodecError

HALF_BITS = {1: 4, 2: 7, 3: 10, 4: 14, 5: 17}
"""log2 of the sub-buckets to a power of two, by significant digits."""

_COMPRESSED = 0x1C849304
_ENCODED = 0x1C849303
_WORD_SIZE = 0x10  # what V2 writes where V0 and V1 had the counters' size: LEB128
_OUTER = struct.Struct(">II")
_INNER = struct.Struct(">IIIIQQd")
_MOST_BYTES = 64 << 20  # 5 digits, every bucket counted: 9 bytes each of 6 million


@dataclass(frozen=True, slots=True)
class Payload:
    """Filled buckets, rising: their indices and counts, and the layout that the indices are of."""

    digits: int
    shift: int
    indices: list[int]
    counts: list[int]

    def values(self) -> list[tuple[int, int]]:
        """The least and the greatest value of each filled bucket."""
        bits = HALF_BITS[self.digits]
        spans = []
        for index in self.indices:
            power = max((index >> bits) - 1, 0)
            low = (index - (power << bits)) << (power + self.shift)
            spans.append((low, low + (1 << (power + self.shift)) - 1))
        return spans


def encode(indices: Sequence[int], counts: Sequence[int], digits: int, highest: int) -> str:
    """Rising indices with their counts (above 0) as a payload that readers give room for values up to ``highest``."""
    body = bytearray()
    following = 0
    for index, count in zip(indices, counts, strict=True):
        empty = index - following
        if empty:
            # HdrHistogram writes a single 0 as itself, and reads -1 as the same.
            _put(body, -empty if empty > 1 else 0)
        _put(body, count)
        following = index + 1
    inner = _INNER.pack(_ENCODED | _WORD_SIZE, len(body), 0, digits, 1, highest, 1.0)
    compressed = zlib.compress(inner + bytes(body))
    return base64.b64encode(_OUTER.pack(_COMPRESSED | _WORD_SIZE, len(compressed)) + compressed).decode("ascii")


def decode(text: str) -> Payload:
    """Read a payload. Raises CodecError for what is none, is truncated, or is of another version.

    Checks every bound before it is used; takes memory for what is filled, and at most 64 MiB to unpack.
    """
    inner = _unpacked(text)
    if len(inner) < _INNER.size:
        raise CodecError(f"a histogram's payload has a header of {_INNER.size} bytes; got {len(inner)}")
    cookie, length, offset, digits, lowest, _, ratio = _INNER.unpack_from(inner)
    if cookie & ~0xF0 != _ENCODED:
        raise CodecError(f"only HdrHistogram's V2 encoding of integers can be read (0x1c8493?3); got 0x{cookie:08x}")
    if digits not in HALF_BITS or not 1 <= lowest < 1 << 62 or offset or ratio != 1.0:
        raise CodecError(
            f"a histogram has 1 to 5 digits, a lowest value of at least 1, no offset and a ratio of 1; got {digits}, "
            f"{lowest}, {offset} and {ratio}"
        )
    body = inner[_INNER.size : _INNER.size + length]
    if len(body) != length:
        raise CodecError(f"the payload says {length} bytes of counts; got {len(body)}")
    shift = lowest.bit_length() - 1
    if shift + HALF_BITS[digits] > 61:
        raise CodecError(f"values of {digits} digits from {lowest} on do not fit 63 bits")
    indices: list[int] = []
    counts: list[int] = []
    index, buckets = 0, (64 - shift - HALF_BITS[digits]) << HALF_BITS[digits]  # for all values below 2**63
    for number in _numbers(body):
        if number > 0:
            indices.append(index)
            counts.append(number)
        index += -number if number < 0 else 1
        if index > buckets:
            raise CodecError(
                f"a histogram of {digits} digits has {buckets:,} buckets; got a count for bucket {index:,}"
            )
    return Payload(digits, shift, indices, counts)


def _unpacked(text: str) -> bytes:
    try:
        outer = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CodecError(f"a histogram's payload is base64; got {text[:40]!r}: {error}") from None
    if len(outer) < _OUTER.size:
        raise CodecError(f"a histogram's payload begins with {_OUTER.size} bytes; got {len(outer)}")
    cookie, length = _OUTER.unpack_from(outer)
    if cookie & ~0xF0 != _COMPRESSED:
        raise CodecError(f"only HdrHistogram's compressed V2 payloads can be read (0x1c8493?4); got 0x{cookie:08x}")
    if length != len(outer) - _OUTER.size:
        raise CodecError(f"the payload says {length} compressed bytes; got {len(outer) - _OUTER.size}")
    unpacking = zlib.decompressobj()
    try:
        inner = unpacking.decompress(outer[_OUTER.size :], _MOST_BYTES)
    except zlib.error as error:
        raise CodecError(f"the payload can't be decompressed: {error}") from None
    if not unpacking.eof:
        raise CodecError(f"the payload ends too early, or is of more than {_MOST_BYTES:,} bytes")
    return inner


def _put(body: bytearray, number: int) -> None:
    left = (number << 1) if number >= 0 else (-number << 1) - 1
    for _ in range(8):
        if left < 0x80:
            body.append(left)
            return
        body.append(left & 0x7F | 0x80)
        left >>= 7
    body.append(left)  # the ninth byte has eight bits


def _numbers(body: bytes) -> Iterator[int]:
    place = 0
    while place < len(body):
        number = taken = 0
        while True:
            if place == len(body):
                raise CodecError("the counts end in the middle of a number")
            byte = body[place]
            place += 1
            if taken == 8:
                number |= byte << 56
                break
            number |= (byte & 0x7F) << (7 * taken)
            taken += 1
            if byte < 0x80:
                break
        yield number >> 1 if not number & 1 else -(number >> 1) - 1
