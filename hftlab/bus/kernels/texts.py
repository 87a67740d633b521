"""Texts into rows: literals become stores of constants, a record's text is copied, any other is encoded as it comes.

Each ``write_…`` fills its field to the end, with NULs. A field begins at a multiple of 8 and has whole words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.cpython import unicode
from numba.extending import intrinsic as typed_intrinsic
from numba.extending import overload, register_jitable

from hftlab.errors import ValidationError
from hftlab.ring.atomics import load, store

# numba's own types say that an intrinsic is called with the typing context first, which is not so.
intrinsic: Any = typed_intrinsic
_get_code_point: Any = unicode._get_code_point

_I8, _I64 = ir.IntType(8), ir.IntType(64)
_TOO_LONG = (
    "a text has more bytes of UTF-8 than its field holds: signal_type 24, strategy_id 32, order_id 40, prefix 27"
)

Writer = Callable[[int, int, Any], None]


def literal_of(given: Any) -> str | None:
    """The text itself where it is known when a handler is compiled: a literal, or a parameter's default."""
    if isinstance(given, types.StringLiteral):
        return str(given.literal_value)
    if isinstance(given, types.Omitted):
        given = given.value
    return given if isinstance(given, str) else None


def writer_for(given: Any, field: str, size_bytes: int, capacity_bytes: int) -> Writer:
    """For numba's type of a text, what writes it: ``write(address, size_bytes, text)``.

    ``capacity_bytes`` of the field's ``size_bytes`` may be used. Raises ValidationError, when the handler is compiled,
    for a literal that does not fit, and for what is no text.
    """
    text = literal_of(given)
    if text is not None:
        return _constant_writer(_encoded(text, field, capacity_bytes).ljust(size_bytes, b"\0"))
    if isinstance(given, types.CharSeq) and given.count <= capacity_bytes:
        return _record_text_writer(given)
    if isinstance(given, types.UnicodeType):
        return _limited_writer(capacity_bytes)
    raise ValidationError(
        f"{field} is text of up to {capacity_bytes} bytes: a literal, or a text field of the record; got {given}"
    )


def _encoded(text: str, field: str, capacity_bytes: int) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"{field} is text that UTF-8 can encode; got {text!r}") from None
    if len(encoded) > capacity_bytes or b"\0" in encoded:
        raise ValidationError(
            f"{field} is text of up to {capacity_bytes} bytes of UTF-8 without NUL; got {len(encoded)} bytes: {text!r}"
        )
    return encoded


def write_plain(address: int, size_bytes: int, text: str | bytes, field: str, capacity_bytes: int) -> None:
    """What the writers do, for handlers that run as plain Python."""
    if isinstance(text, bytes):  # a record's text
        text = text.decode()
    if not isinstance(text, str):
        raise ValidationError(f"{field} is text of up to {capacity_bytes} bytes; got {text!r:.100}")
    filled = _encoded(text, field, capacity_bytes).ljust(size_bytes, b"\0")
    for at in range(0, size_bytes, 8):
        store(address + at, int.from_bytes(filled[at : at + 8], "little", signed=True))


def _constant_writer(filled: bytes) -> Writer:
    words = [int.from_bytes(filled[at : at + 8], "little", signed=True) for at in range(0, len(filled), 8)]

    @intrinsic
    def write(typing_context: Any, address: Any, size_bytes: Any, text: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            for index, word in enumerate(words):
                at = builder.add(arguments[0], ir.Constant(_I64, 8 * index))
                builder.store(ir.Constant(_I64, word), builder.inttoptr(at, _I64.as_pointer()), align=8)
            return context.get_dummy_value()

        return types.none(types.int64, size_bytes, text), build

    written: Writer = write
    return written


def _record_text_writer(given: Any) -> Writer:
    count = int(given.count)

    @intrinsic
    def put(typing_context: Any, address: Any, text: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], ir.ArrayType(_I8, count).as_pointer())
            builder.store(arguments[1], pointer, align=1)
            return context.get_dummy_value()

        return types.none(types.int64, text), build

    @register_jitable
    def write(address: int, size_bytes: int, text: Any) -> None:
        for at in range(0, size_bytes, 8):
            store(address + at, 0)
        put(address, text)

    written: Writer = write
    return written


def _code_point(text: str, index: int) -> int:
    """The code point at one index. Compiled ``ord(text[index])`` allocates a text for each character."""
    return ord(text[index])


@overload(_code_point)
def _compiled_code_point(text: Any, index: Any) -> Any:
    def code_point(text: Any, index: Any) -> Any:
        return _get_code_point(text, index)

    return code_point


@register_jitable
def _put_byte(address: int, at: int, byte: int) -> None:
    word = address + (at & ~7)
    store(word, load(word) | (byte << (8 * (at & 7))))


@register_jitable
def write_unicode(address: int, size_bytes: int, text: str, capacity_bytes: int) -> None:
    """Encode a text whose value is known only when the handler runs. About 2 ns a character. Raises ValueError."""
    for at in range(0, size_bytes, 8):
        store(address + at, 0)
    used = 0
    for index in range(len(text)):
        code = int(_code_point(text, index))
        more = 0 if code < 0x80 else 1 if code < 0x800 else 2 if code < 0x10000 else 3
        if used + more >= capacity_bytes:
            raise ValueError(_TOO_LONG)
        if code == 0 or 0xD800 <= code < 0xE000:
            raise ValueError("a text that goes into a row has no NUL, and nothing that UTF-8 can't encode")
        if more == 0:
            _put_byte(address, used, code)
        else:
            # The first byte tells by its leading ones how many follow; each of those carries six bits.
            _put_byte(address, used, ((0xFF00 >> (more + 1)) & 0xFF) | (code >> (6 * more)))
            for left in range(more):
                _put_byte(address, used + 1 + left, 0x80 | ((code >> (6 * (more - 1 - left))) & 0x3F))
        used += 1 + more


def _limited_writer(capacity_bytes: int) -> Writer:
    @register_jitable
    def write(address: int, size_bytes: int, text: str) -> None:
        write_unicode(address, size_bytes, text, capacity_bytes)

    written: Writer = write
    return written
