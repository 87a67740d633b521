"""What stands in a user's key: the results of the transactions of processors, read back as Python values."""

from __future__ import annotations

from typing import Any

from hftlab.errors import ValidationError
from hftlab.streams.connections import Connections

Text = str | bytes
Value = Text | dict[Text, Text] | list[Text] | set[Text] | dict[Text, float]

_READ: dict[str, tuple[Any, ...]] = {
    "string": ("GET",),
    "hash": ("HGETALL",),
    "list": ("LRANGE", 0, -1),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
}


async def read_value(connections: Connections, key: str) -> Value | None:
    """The value of a key, by the server's whole name for it; two round trips."""
    kind = (await connections.call("TYPE", key)).decode()
    if kind == "none":
        return None
    if kind not in _READ:
        raise ValidationError(f"a key of yours holds text, a hash, a list, a set or a sorted set; {key!r} is a {kind}")
    command, *arguments = _READ[kind]
    reply = await connections.call(command, key, *arguments)
    if kind == "string":
        return None if reply is None else _text(reply)
    # In the server's first protocol, pairs are a flat list.
    texts = [_text(one) for one in reply]
    if kind == "hash":
        return dict(zip(texts[::2], texts[1::2], strict=True))
    if kind == "zset":
        return {member: float(score) for member, score in zip(texts[::2], texts[1::2], strict=True)}
    return set(texts) if kind == "set" else texts


def _text(raw: bytes) -> Text:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
