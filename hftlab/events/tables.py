"""The tables that give a row's ``symbol`` and ``source`` ids their names.

Tables only ever grow, so an id, once given, keeps its meaning, and batches can share a table without copying it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import force_setattr

from hftlab.errors import ValidationError, shown

MAX_SYMBOL_BYTES = 64
MAX_SYMBOLS = 1 << 20
MAX_SOURCES = 1 << 16

T = TypeVar("T", str, "Source")


class NumberRule(enum.StrEnum):
    """How a source numbers its messages: what the number after ``n`` means."""

    NONE = "none"
    """No numbers: the sequencer numbers on arrival."""
    PLUS_ONE = "plus-one"
    """Every message is the one before plus 1: any jump is a loss."""
    RANGE = "range"
    """A message covers the numbers ``sequence - span + 1 … sequence`` and continues the one before it."""
    SHARED = "shared"
    """The counter is shared with symbols or channels that this source does not carry: it only rises."""


class Source(msgspec.Struct, frozen=True, order=True):
    """Where events come from: a venue, one of its channels, and what one numbering there spans.

    ``scope`` is usually a symbol, ``rule`` the name of the rule for its numbers (one of ``NumberRule``, or the name of
    a rule of your own). Two sources that differ in any field are numbered apart.
    """

    venue: str
    channel: str = ""
    scope: str = ""
    rule: str = NumberRule.NONE.value

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > MAX_SYMBOL_BYTES or not value.isprintable():
                raise ValidationError(
                    f"a source's {name} is printable text of up to {MAX_SYMBOL_BYTES} characters; got {shown(value)}"
                )
            if type(value) is not str:  # a NumberRule, or NumPy's text: equal, and told apart by repr and pickle only
                force_setattr(self, name, str(value))
        if not self.venue:
            raise ValidationError("a source needs a venue: the name of the exchange or of your feed")

    def __str__(self) -> str:
        return "/".join(part for part in (self.venue, self.channel, self.scope) if part)

    @property
    def text(self) -> str:
        """The whole source as ``venue/channel/scope/rule``, from which ``of_text`` makes it again.

        Parts at the end that have their defaults are left out; ``%`` and ``/`` within a part are ``%25`` and ``%2F``.
        """
        parts = [part.replace("%", "%25").replace("/", "%2F") for part in msgspec.structs.astuple(self)]
        if self.rule == NumberRule.NONE.value:
            parts.pop()
            while not parts[-1]:
                parts.pop()
        return "/".join(parts)

    @classmethod
    def of_text(cls, text: str) -> Source:
        """The source that ``text`` tells, as ``Source.text`` writes it. Raises ValidationError."""
        parts = [part.replace("%2F", "/").replace("%25", "%") for part in text.split("/", len(cls.__struct_fields__))]
        if len(parts) > len(cls.__struct_fields__):
            raise ValidationError(
                f"a source is venue/channel/scope/rule, '/' within one written %2F; got {shown(text)}"
            )
        return cls(*parts)


def check_symbol(symbol: object) -> str:
    """Return ``symbol``, or raise ValidationError: 1 to 64 bytes of printable UTF-8."""
    # isprintable is false for lone surrogates, so encode can't fail.
    if isinstance(symbol, str) and symbol.isprintable() and 0 < len(symbol.encode()) <= MAX_SYMBOL_BYTES:
        return symbol
    raise ValidationError(f"a symbol is printable text of 1 to {MAX_SYMBOL_BYTES} bytes; got {shown(symbol)}")


class Table(Generic[T]):
    """An append-only list of distinct values whose positions are the ids in a row. ``intern`` gives an id."""

    __slots__ = ("_ids", "_latest", "_limit", "_values")

    def __init__(self, values: Iterable[T] = (), *, limit: int) -> None:
        self._values: list[T] = []
        self._ids: dict[T, int] = {}
        self._limit = limit
        self._latest: tuple[Table[T], int, npt.NDArray[np.uint32] | None] | None = None
        for value in values:
            self.intern(value)

    def intern(self, value: T) -> int:
        """The id of ``value``, given now if it is new. Raises ValidationError for a value that breaks a rule."""
        known = self._ids.get(value)
        if known is not None:
            return known
        self._check(value)
        if len(self._values) >= self._limit:
            raise ValidationError(f"a {type(self).__name__} holds {self._limit} values at most; got one more: {value}")
        self._values.append(value)
        self._ids[value] = len(self._values) - 1
        return len(self._values) - 1

    def _check(self, value: T) -> None:
        raise TypeError(f"{type(self).__name__} does not say what it holds")

    def find(self, value: T) -> int | None:
        """The id of ``value``, or None where the table has none; never adds."""
        return self._ids.get(value)

    @property
    def values(self) -> list[T]:
        """All values, by id. The list itself, not a copy: read it only."""
        return self._values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> T:
        return self._values[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._values)

    def __contains__(self, value: object) -> bool:
        return value in self._ids

    def __repr__(self) -> str:
        shown = ", ".join(str(value) for value in self._values[:3])
        return f"{type(self).__name__}({len(self)}: {shown}{', …' if len(self) > 3 else ''})"

    def translation(self, target: Table[T]) -> npt.NDArray[np.uint32] | None:
        """What turns our ids into ``target``'s: uint32 by id; None if no id changes. Interns new values there."""
        if self is target:
            return None
        # Batch after batch goes from one table to one other, and since neither ever renumbers, an answer stays true
        # until this table grows. Kept, it saves 7 µs a batch of one symbol, and 0.1 ms of a thousand.
        latest = self._latest
        if latest is not None and latest[0] is target and latest[1] == len(self._values):
            return latest[2]
        ids = np.fromiter((target.intern(value) for value in self._values), np.uint32, len(self._values))
        translation = None if np.array_equal(ids, np.arange(len(ids))) else ids
        self._latest = target, len(self._values), translation
        return translation


class SymbolTable(Table[str]):
    """Symbols by id: up to 2**20 texts of 1 to 64 printable bytes."""

    __slots__ = ()

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        super().__init__(symbols, limit=MAX_SYMBOLS)

    def _check(self, value: str) -> None:
        check_symbol(value)


class SourceTable(Table[Source]):
    """Sources by id: up to 2**16. Id 0 is always ``Source("unknown")``, so that a blank row has one."""

    __slots__ = ()

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        super().__init__((UNKNOWN_SOURCE, *sources), limit=MAX_SOURCES)

    def _check(self, value: Source) -> None:
        if not isinstance(value, Source):
            raise ValidationError(f"a source is a Source(venue, channel, scope, rule); got {shown(value)}")


UNKNOWN_SOURCE = Source("unknown")
