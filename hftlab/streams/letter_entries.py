"""Dead letters as entries of a stream: named text fields that redis-cli shows, and the events as a frame.

An entry's id is ``<serial of the commit>-<index in it>``, so that a repeated commit could not add a letter twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from hftlab.errors import CodecError, shown
from hftlab.events.group_ports import Letter

_TEXTS = ("handler", "error", "event_type", "symbol")
_NUMBERS = ("attempts", "first_ns", "at_ns", "due_ns", "log_sequence", "session_number", "events")
_MOST_ERROR_BYTES = 8_192


def letter_fields(letter: Letter) -> list[bytes]:
    """The fields and values, in turn, of the entry that keeps a letter. Errors of more than 8 KiB are cut off."""
    fields: list[bytes] = []
    for name in _TEXTS:
        text = getattr(letter, name).encode(errors="backslashreplace")
        fields += (name.encode(), text[:_MOST_ERROR_BYTES] if name == "error" else text)
    for name in _NUMBERS:
        fields += (name.encode(), str(getattr(letter, name)).encode())
    return [*fields, b"frame", letter.frame]


def letter_of_entry(entry_id: bytes, fields: Sequence[bytes]) -> Letter:
    """The letter that an entry keeps. Raises CodecError for one that is none."""
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    try:
        # An error's text may have been cut within a character.
        texts = {name: named[name.encode()].decode(errors="replace") for name in _TEXTS}
        numbers = {name: int(named[name.encode()]) for name in _NUMBERS}
        return Letter(**texts, **numbers, frame=named[b"frame"], letter_id=entry_id.decode())  # type: ignore[arg-type]
    except (KeyError, ValueError) as error:
        raise CodecError(
            f"the entry {entry_id.decode(errors='replace')} among the dead letters is none of hftlab's "
            f"({type(error).__name__}: {shown(error)}); delete it: XDEL"
        ) from None
