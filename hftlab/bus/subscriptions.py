"""Subscriptions: which events a handler wants, and how it wants to be given them."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch, as_event_type
from hftlab.events.columns import HANDLER_FIELDS
from hftlab.events.records import EventType, Rows
from hftlab.events.tables import SymbolTable
from hftlab.events.types import Event

Mode = Literal["event", "fields", "batch"]
Where = Callable[[Rows], npt.NDArray[np.bool_]]
Emitted = Event | EventBatch | Iterable[Event] | None
Handler = Callable[..., Any]
"""Called by its mode: ``(event)``, ``(price, volume, …)`` or ``(batch)``; returns Emitted, or a coroutine of it."""

DEFAULT_BATCH_ROWS = 1_024
MAX_BATCH_ROWS = 65_536


@dataclass(eq=False)
class Subscription:
    """One handler's registration; ``EventBus.on`` makes it, ``cancel`` on the bus ends it.

    ``types`` and ``pattern`` (a symbol pattern; None: all) say what is wanted, ``where`` is a vectorised predicate over
    rows of a type. ``fields`` are the parameter names of a ``fields`` handler. The counts are of the whole life of the
    subscription.
    """

    name: str
    handler: Handler
    mode: Mode
    types: frozenset[EventType]
    pattern: str | None = None
    where: Where | None = None
    fields: tuple[str, ...] = ()
    batch_rows: int = DEFAULT_BATCH_ROWS
    calls: int = 0
    delivered: int = 0
    failed: int = 0
    emitted: int = 0
    _matches: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool), repr=False)

    def select(self, rows: Rows, symbols: SymbolTable) -> npt.NDArray[np.intp] | None:
        """Positions of the rows of one type that this handler wants; None means all of them. Vectorised."""
        mask: npt.NDArray[np.bool_] | None = None
        if self.pattern is not None:
            mask = self._wanted_symbols(symbols)[rows["symbol"]]
        if self.where is not None:
            kept = check_mask(self.where(rows), len(rows), self.name)
            mask = kept if mask is None else mask & kept
        if mask is None or bool(mask.all()):
            return None
        return np.flatnonzero(mask)

    def wants(self, symbol: str) -> bool:
        """Whether the symbol is one of those that this handler asked for."""
        return self.pattern is None or fnmatch.fnmatchcase(symbol, self.pattern)

    def _wanted_symbols(self, symbols: SymbolTable) -> npt.NDArray[np.bool_]:
        if len(self._matches) < len(symbols):
            # Tables only grow, so what was matched before stays.
            fresh = [self.wants(symbol) for symbol in symbols.values[len(self._matches) :]]
            self._matches = np.concatenate([self._matches, np.array(fresh, bool)])
        return self._matches

    def __repr__(self) -> str:
        wanted = ", ".join(f"{event_type.topic}.{self.pattern or '*'}" for event_type in sorted(self.types))
        return f"Subscription({self.name}: {wanted}; {self.mode})"


def check_mask(mask: object, count: int, name: str) -> npt.NDArray[np.bool_]:
    """What a ``where`` returned, or ValidationError: it must be a boolean array, one value a row."""
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (count,):
        got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValidationError(
            f"where= of {name} takes records and returns a boolean array, one value a row ({count},); got {got}"
        )
    return mask


def make_subscription(
    handler: Handler,
    *what: type[Event] | EventType | str,
    symbol: str | None = None,
    where: Where | None = None,
    mode: Mode | None = None,
    name: str | None = None,
    batch_rows: int = DEFAULT_BATCH_ROWS,
) -> Subscription:
    """Read what a user asked for into a Subscription; see ``EventBus.on``. Raises ValidationError."""
    if not callable(handler):
        raise ValidationError(f"a handler is a function; got {handler!r:.100}")
    types, pattern = read_topics(what, symbol)
    chosen, fields = _mode_and_fields(handler, mode, types)
    if not 1 <= batch_rows <= MAX_BATCH_ROWS:
        raise ValidationError(f"batch_rows is 1 to {MAX_BATCH_ROWS:,}; got {batch_rows}")
    if where is not None and not callable(where):
        raise ValidationError(f"where= is a function from records to a boolean array; got {where!r:.100}")
    return Subscription(
        name=name or default_name(handler, types, pattern),
        handler=handler,
        mode=chosen,
        types=types,
        pattern=pattern,
        where=where,
        fields=fields,
        batch_rows=batch_rows,
    )


def read_topics(
    what: Sequence[type[Event] | EventType | str], symbol: str | None
) -> tuple[frozenset[EventType], str | None]:
    """The types, and the symbol pattern, that event classes or one topic (``market.BTC*``) and ``symbol=`` name."""
    if len(what) == 1 and isinstance(what[0], str):
        word, dot, pattern = what[0].partition(".")
        if symbol is not None and dot:
            raise ValidationError(f"a topic names its symbol itself: drop symbol={symbol!r} or the part after the dot")
        matching = [event_type for event_type in EventType if fnmatch.fnmatchcase(event_type.topic, word)]
        if not matching:
            words = ", ".join(event_type.topic for event_type in EventType)
            raise ValidationError(
                f"a topic is TYPE.SYMBOL with wildcards * and ?, its type one of {words}: "
                f'"market.BTC*", "*.ETHUSDT"; got {what[0]!r:.100}'
            )
        pattern = pattern or "*"
        if symbol is None:
            return frozenset(matching), None if pattern == "*" else pattern
        types = frozenset(matching)
    else:
        types = frozenset(as_event_type(value) for value in what) or frozenset(EventType)
    if symbol is None:
        return types, None
    if not isinstance(symbol, str) or not symbol:  # typed or not, a notebook may pass a list
        raise ValidationError(f"symbol= is one symbol or a pattern such as 'BTC*'; got {symbol!r:.100}")
    return types, None if symbol == "*" else symbol


def default_name(handler: Handler, types: frozenset[EventType], pattern: str | None) -> str:
    """Module, qualified name, types and symbol: by it, re-running a cell replaces a handler instead of adding one."""
    function = inspect.unwrap(handler)
    module = getattr(function, "__module__", None) or "?"
    qualified = getattr(function, "__qualname__", None) or type(handler).__qualname__
    words = "+".join(event_type.topic for event_type in sorted(types))
    return f"{module}.{qualified}:{words}.{pattern or '*'}"


def _mode_and_fields(handler: Handler, mode: Mode | None, types: frozenset[EventType]) -> tuple[Mode, tuple[str, ...]]:
    if mode not in (None, "event", "fields", "batch"):
        raise ValidationError(f"mode is 'event', 'fields' or 'batch'; got {mode!r}")
    names = _parameter_names(handler)
    shared = frozenset.intersection(*(frozenset(HANDLER_FIELDS[event_type]) for event_type in types))
    if mode is None:
        # Every parameter is a field of the record: the handler wants just those. One called "event" wants the object.
        mode = "fields" if names and all(name in shared for name in names) else "event"
    if mode == "fields":
        unknown = [name for name in names if name not in shared]
        if unknown or not names:
            raise ValidationError(
                f"a fields handler's parameters are names of fields that all its event types have "
                f"({', '.join(sorted(shared))}); got {', '.join(unknown) or 'no parameter'}"
            )
        return mode, tuple(names)
    if len(names) != 1:
        wanted = "one parameter, the event" if mode == "event" else "one parameter, the batch"
        raise ValidationError(
            f"a handler of mode {mode!r} has {wanted}, or parameters that are all names of fields "
            f"({', '.join(sorted(shared))}); got ({', '.join(names)})"
        )
    return mode, ()


def _parameter_names(handler: Handler) -> list[str]:
    """Positional parameters that must be given; those with a default are the handler's own business."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return ["event"]  # a builtin such as list.append: it is given one thing
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise ValidationError(
            "a handler is called with positional arguments; it has a keyword-only one without default"
        )
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    if required:
        return required
    if positional:
        return [positional[0].name]
    return ["event"] if any(p.kind is p.VAR_POSITIONAL for p in parameters) else []
