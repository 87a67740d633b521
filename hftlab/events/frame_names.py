"""The names of a frame's symbols and sources: two lists as msgpack, bounded by the rows that can use them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated

import msgspec

from hftlab.errors import CodecError, ValidationError
from hftlab.events.tables import Source, check_symbol

MAX_NAMES_BYTES = 1 << 24

_MAX_NAMES = 1 << 16
# A row uses one symbol of 2 + 64 bytes and one source of 1 + 4 * (3 + 4 * 64).
_BYTES_A_ROW = 1_103
_BYTES_OF_NONE = 16
_CACHED_BYTES = 4_096

_Text = Annotated[str, msgspec.Meta(max_length=64)]
_Symbols = Annotated[list[_Text], msgspec.Meta(max_length=_MAX_NAMES)]
_Sources = Annotated[list[tuple[_Text, _Text, _Text, _Text]], msgspec.Meta(max_length=_MAX_NAMES)]
_decoder = msgspec.msgpack.Decoder(tuple[_Symbols, _Sources])


def most_names_bytes(rows: int) -> int:
    """How many bytes the names of a frame of so many rows may take."""
    return min(MAX_NAMES_BYTES, _BYTES_OF_NONE + rows * _BYTES_A_ROW)


def encode_names(symbols: Sequence[str], sources: Sequence[Source]) -> bytes:
    """The names as bytes. Raises ValidationError where they take more than 16 MiB."""
    names = msgspec.msgpack.encode((symbols, [msgspec.structs.astuple(source) for source in sources]))
    if len(names) > MAX_NAMES_BYTES:
        raise ValidationError(
            f"the names of a frame's symbols and sources take up to {MAX_NAMES_BYTES:,} bytes; got {len(names):,}: "
            "make several frames of these rows"
        )
    return names


def decode_names(names: memoryview, rows: int) -> tuple[list[str], list[Source]]:
    """The symbols and sources of a frame of so many rows; read these lists only. Raises CodecError.

    Frames of one session repeat their names, so small ones are remembered: 0.5 instead of 6 µs a frame.
    """
    found = _decoded(bytes(names)) if len(names) <= _CACHED_BYTES else _decoded.__wrapped__(names)
    symbols, sources = found
    if len(symbols) > rows or len(sources) > rows:
        raise CodecError(
            f"a frame of {rows} rows names at most as many symbols, and as many sources; "
            f"got {len(symbols)} and {len(sources)}"
        )
    return found


@functools.lru_cache(maxsize=64)
def _decoded(names: bytes) -> tuple[list[str], list[Source]]:
    try:
        symbols, sources = _decoder.decode(names)
        return [check_symbol(name) for name in symbols], [Source(*parts) for parts in sources]
    except (msgspec.DecodeError, UnicodeDecodeError, ValidationError) as error:
        raise CodecError(f"a frame's names can't be read: {error}") from None
