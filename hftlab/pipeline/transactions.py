"""``Transaction``: what a handler changes in Redis, once, whatever crashes: it takes effect with the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events.group_ports import Effect

MAX_KEY_BYTES = 512
Value = str | bytes | int | float


class Transaction:
    """Collects commands on keys of yours; made by ``EventProcessor.transaction``, used in ``with`` or ``async with``.

    At the end of the block the commands become part of the processor's next checkpoint: they, the position and the
    acknowledgements happen in one step on the server, or not at all, so what is counted from events is counted once,
    through any crash. A block that raises leaves no trace. Nothing is waited for in it, and nothing can be read: what
    was written is there after the next checkpoint (``await processor.checkpoint()`` outside of handlers).

    Make it the last thing that a handler does: where the handler fails after the block, the event counts as failed (and
    may be tried again), while the block's commands stand. A key is your word, kept as ``{namespace}:u:<key>``;
    ``lab.streams.value(word)`` reads it, and ``processor.key(word)`` is the whole one, for any client.
    """

    def __init__(self, add: Callable[[tuple[Effect, ...]], None]) -> None:
        self._add = add
        self._effects: list[Effect] = []
        self._state = "new"

    # -- commands -----------------------------------------------------------------------------------------------------

    def set(self, key: str, value: Value) -> Self:
        """SET: the key's value is this text, bytes or number."""
        return self.command("SET", key, value)

    def delete(self, key: str) -> Self:
        """DEL."""
        return self.command("DEL", key)

    def incr(self, key: str, by: int = 1) -> Self:
        """INCRBY: add a whole number."""
        return self.command("INCRBY", key, by)

    def incr_float(self, key: str, by: float) -> Self:
        """INCRBYFLOAT: add a number. Sums of floats depend on their order; money is better counted in whole ticks."""
        return self.command("INCRBYFLOAT", key, by)

    def hset(self, key: str, field: str, value: Value) -> Self:
        """HSET: a field of a hash."""
        return self.command("HSET", key, field, value)

    def hincr(self, key: str, field: str, by: int = 1) -> Self:
        """HINCRBY: add a whole number to a field of a hash."""
        return self.command("HINCRBY", key, field, by)

    def hincr_float(self, key: str, field: str, by: float) -> Self:
        """HINCRBYFLOAT: add a number to a field of a hash."""
        return self.command("HINCRBYFLOAT", key, field, by)

    def sadd(self, key: str, *members: Value) -> Self:
        """SADD: members of a set."""
        return self.command("SADD", key, *members)

    def zadd(self, key: str, score: float, member: Value) -> Self:
        """ZADD: a member of a sorted set."""
        return self.command("ZADD", key, score, member)

    def rpush(self, key: str, *values: Value) -> Self:
        """RPUSH: values at the end of a list."""
        return self.command("RPUSH", key, *values)

    def command(self, name: str, key: str, *arguments: Value) -> Self:
        """Any command that writes one key and is checked by the checkpoint; see ``streams.group_scripts``.

        Raises ValidationError for a key or value that is none.
        """
        if self._state != "open":
            raise ValidationError(
                "commands stand within the transaction's block: async with processor.transaction() as tx: tx.incr(…)"
            )
        if not isinstance(key, str) or not 0 < len(key.encode(errors="replace")) <= MAX_KEY_BYTES:
            raise ValidationError(f"a key is text of 1 to {MAX_KEY_BYTES} bytes; got {shown(key)}")
        self._effects.append(Effect(name.upper(), key, tuple(_raw(one) for one in arguments)))
        return self

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._state != "new":
            raise ValidationError("a transaction is used once: make another one with processor.transaction()")
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "done"
        if kind is None and self._effects:
            self._add(tuple(self._effects))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"Transaction({len(self._effects)} commands, {self._state})"


def _raw(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return b"%d" % int(value)
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return repr(float(value)).encode()
    raise ValidationError(f"a value is text, bytes, an integer or a finite float; got {shown(value)}")
