"""What a user wrote, read into a Subscription: topics, and what a handler's parameters say about how to call it."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

from hftlab.bus.compiled import compile_handler
from hftlab.bus.subscriptions import (
    DEFAULT_BATCH_ROWS,
    MAX_BATCH_ROWS,
    MAX_QUEUE,
    Handler,
    Mode,
    Subscription,
    Where,
    symbol_matcher,
)
from hftlab.errors import ValidationError, shown
from hftlab.events.batch import as_event_type
from hftlab.events.columns import HANDLER_FIELDS
from hftlab.events.records import EventType
from hftlab.events.types import Event
from hftlab.flow.breaker import CircuitBreaker
from hftlab.flow.breaker_settings import BreakerSettings
from hftlab.flow.breaker_states import BreakerChange
from hftlab.flow.overload_settings import OverloadChange
from hftlab.flow.shed_rules import ShedChange
from hftlab.sequence import Gap

Notice = Gap | BreakerChange | OverloadChange | ShedChange
NOTICES: tuple[type[Notice], ...] = (Gap, BreakerChange, OverloadChange, ShedChange)
"""What a bus tells of itself, in line with the events (gaps) or in the HIGH lane (the others)."""

What = type[Event] | type[Notice] | EventType | str
"""What a handler is for. A notice's class stands alone: its handler is told of such notices."""


def make_subscription(
    handler: Handler,
    *what: What,
    symbol: str | None = None,
    where: Where | None = None,
    mode: Mode | None = None,
    name: str | None = None,
    batch_rows: int = DEFAULT_BATCH_ROWS,
    state: Any = None,
    priority: int = 0,
    attempts: int = 1,
    breaker: BreakerSettings | bool | None = None,
    queue: int | None = None,
    timeout_s: float | None = None,
) -> Subscription:
    """Read what a user asked for into a Subscription; see ``EventBus.on``. Raises ValidationError."""
    if not callable(handler) or isinstance(handler, type):
        raise ValidationError(f"a handler is a function, a method or another object to call; got {handler!r:.100}")
    types, pattern = read_topics(what, symbol)
    is_async = _is_async(handler)
    _check_waiting(queue, timeout_s, is_async)
    notice = next((one for one in NOTICES if one in what), None)
    if notice is not None:
        if where is not None or state is not None or mode not in (None, "event"):
            raise ValidationError(
                f"a handler of {notice.__name__} is called with one: it has no where= and no other mode, nor a state"
            )
        if attempts != 1 or breaker:
            raise ValidationError(
                f"a handler of {notice.__name__} is told of what happened: it has no attempts= and no breaker="
            )
        return _subscription_to(notice, handler, types, name, priority, queue, timeout_s)
    chosen, fields = ("jit", ()) if mode == "jit" else _mode_and_fields(handler, mode, types)
    if isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or not 1 <= batch_rows <= MAX_BATCH_ROWS:
        raise ValidationError(f"batch_rows is 1 to {MAX_BATCH_ROWS:,} rows; got {batch_rows!r:.100}")
    if where is not None and not callable(where):
        raise ValidationError(f"where= is a function from records to a boolean array; got {where!r:.100}")
    _check_name(name)
    if state is not None and mode != "jit":
        raise ValidationError(
            f'state= is for handlers of mode="jit"; others keep what they like; got mode={mode!r:.100}'
        )
    return Subscription(
        name=name or default_name(handler, types, pattern),
        handler=handler,
        mode=chosen,
        types=types,
        pattern=pattern,
        where=where,
        fields=fields,
        batch_rows=batch_rows,
        state=state,
        compiled=compile_handler(handler, types, state) if mode == "jit" else None,
        priority=_check_priority(priority),
        attempts=_check_attempts(attempts, mode),
        breaker=_make_breaker(breaker, name or default_name(handler, types, pattern)),
        is_async=is_async,
        queue=queue,
        timeout_s=timeout_s,
    )


def _subscription_to(
    notice: type[Notice],
    handler: Handler,
    types: frozenset[EventType],
    name: str | None,
    priority: int,
    queue: int | None,
    timeout_s: float | None,
) -> Subscription:
    """A subscription to what the bus tells of itself."""
    parameters = _parameter_names(handler)
    if len(parameters) != 1:
        raise ValidationError(
            f"a handler of {notice.__name__} has one parameter, which it is given; got ({', '.join(parameters)})"
        )
    _check_name(name)
    return Subscription(
        name=name or default_name(handler, types, None).replace(":.*", f":{notice.__name__.lower()}"),
        handler=handler,
        mode="event",
        types=types,
        notice=notice,
        priority=_check_priority(priority),
        is_async=_is_async(handler),
        queue=queue,
        timeout_s=timeout_s,
    )


def _is_async(handler: Handler) -> bool:
    """Whether calling it makes a coroutine, as far as can be seen before it is called."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    called = handler if inspect.isroutine(handler) else getattr(type(handler), "__call__", handler)  # noqa: B004
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)


def _check_waiting(queue: object, timeout_s: object, is_async: bool) -> None:
    if queue is not None and (isinstance(queue, bool) or not isinstance(queue, int) or not 0 <= queue <= MAX_QUEUE):
        raise ValidationError(
            f"queue= is how many events wait for an async handler, up to {MAX_QUEUE:,} (0: it is awaited in line); got "
            f"{shown(queue)}"
        )
    if queue is not None and not is_async:
        raise ValidationError(
            f"a synchronous handler has no queue of its own, for it never waits: write async def, or drop queue={queue}"
        )
    if timeout_s is None:
        return
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
        raise ValidationError(f"timeout_s= is a number of seconds above 0; got {shown(timeout_s)}")
    if not is_async:
        raise ValidationError(
            f"a synchronous handler can't be interrupted, so timeout_s={timeout_s:g} says nothing: write async def, or "
            "look at bus.held_up, which names handlers that hold the loop"
        )


def _check_priority(priority: object) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise ValidationError(
            f"priority= is an integer; handlers of greater ones are called first; got {shown(priority)}"
        )
    return priority


def _check_attempts(attempts: object, mode: str | None) -> int:
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= 1_000:
        raise ValidationError(f"attempts= is how often an event is tried, 1 to 1,000; got {shown(attempts)}")
    if attempts > 1 and mode == "jit":
        raise ValidationError(
            f'a handler of mode="jit" has changed its state when it fails: attempts= is 1; got {attempts}'
        )
    return attempts


def _make_breaker(breaker: object, name: str) -> CircuitBreaker | None:
    if breaker is None or breaker is False:
        return None
    if breaker is True:
        breaker = BreakerSettings()
    if not isinstance(breaker, BreakerSettings):
        raise ValidationError(f"breaker= is True, or hl.BreakerSettings(…); got {shown(breaker)}")
    return CircuitBreaker(breaker, name)


def _check_name(name: object) -> None:
    if name is not None and (not isinstance(name, str) or not name):
        raise ValidationError(f"name= is a text that no other handler of the bus has; got {name!r:.100}")


def read_topics(what: Sequence[What], symbol: str | None) -> tuple[frozenset[EventType], str | None]:
    """The types, and the symbol pattern, that event classes or one topic (``market.BTC*``) and ``symbol=`` name."""
    if symbol is not None and (not isinstance(symbol, str) or not symbol):  # typed or not, a notebook may pass a list
        raise ValidationError(f"symbol= is one symbol or a pattern such as 'BTC*'; got {symbol!r:.100}")
    if len(what) == 1 and isinstance(what[0], str):
        types, pattern = _read_topic(what[0])
        if pattern is not None and symbol is not None:
            raise ValidationError(
                f"the topic {what[0]!r:.100} names its symbols itself: drop symbol={symbol!r:.100}, or what stands "
                "behind the dot"
            )
        pattern = pattern or symbol
    elif any(one in NOTICES for one in what):
        if len(what) > 1 or symbol is not None:
            raise ValidationError(
                "a handler of notices is for one kind of them, and of all sources and symbols: write @bus.on(hl.Gap), "
                "and look at gap.source"
            )
        return frozenset(), None
    else:
        types = frozenset(
            as_event_type(value)  # type: ignore[arg-type]
            for value in what
            if not isinstance(value, type) or not issubclass(value, NOTICES)
        ) or frozenset(EventType)
        pattern = symbol
    return types, None if pattern == "*" else pattern


def _read_topic(topic: str) -> tuple[frozenset[EventType], str | None]:
    word, _, pattern = topic.partition(".")
    matches = symbol_matcher(word)
    types = frozenset(event_type for event_type in EventType if matches(event_type.topic))
    if not types:
        words = ", ".join(event_type.topic for event_type in EventType)
        raise ValidationError(
            f"a topic is TYPE.SYMBOL with wildcards * and ?, its type one of {words}: "
            f'"market.BTC*", "*.ETHUSDT"; got {topic!r:.100}'
        )
    return types, pattern or None


def default_name(handler: Handler, types: frozenset[EventType], pattern: str | None) -> str:
    """Module, qualified name, types and symbol: by it, re-running a cell replaces a handler instead of adding one."""
    function = inspect.unwrap(handler)
    while hasattr(function, "func") and callable(function.func):  # a functools.partial goes by what it wraps
        function = inspect.unwrap(function.func)
    module = getattr(function, "__module__", None) or type(function).__module__
    qualified = getattr(function, "__qualname__", None) or type(function).__qualname__
    words = "+".join(event_type.topic for event_type in sorted(types))
    return f"{module}.{qualified}:{words}.{pattern or '*'}"


def _mode_and_fields(handler: Handler, mode: Mode | None, types: frozenset[EventType]) -> tuple[Mode, tuple[str, ...]]:
    if mode not in (None, "event", "fields", "batch"):
        raise ValidationError(f"mode is 'event', 'fields', 'batch' or 'jit'; got {mode!r:.100}")
    names = _parameter_names(handler)
    # In the order of the records, so that a message lists them as the documentation does.
    shared = [
        name
        for name in HANDLER_FIELDS[min(types)]
        if all(name in HANDLER_FIELDS[event_type] for event_type in types)
    ]  # fmt: skip
    if mode is None:
        # Every parameter is a field of the record: the handler wants just those. One called "event" wants the object.
        mode = "fields" if names and all(name in shared for name in names) else "event"
    if mode == "fields":
        unknown = [name for name in names if name not in shared]
        if unknown or not names:
            raise ValidationError(
                f"a fields handler's parameters are names of fields that all its event types have "
                f"({', '.join(shared)}); got {', '.join(unknown) or 'no parameter'}"
            )
        return mode, tuple(names)
    if len(names) != 1:
        wanted = "one parameter, the event" if mode == "event" else "one parameter, the batch"
        raise ValidationError(
            f"a handler of mode {mode!r} has {wanted}, or parameters that are all names of fields that all its event "
            f"types have ({', '.join(shared)}); got ({', '.join(names)})"
        )
    return mode, ()


def _parameter_names(handler: Handler) -> list[str]:
    """Positional parameters that must be given; those with a default are the handler's own business."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):
        return ["event"]  # a builtin that does not tell: it is given one thing
    bare = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if bare:
        raise ValidationError(
            f"a handler is called with positional arguments; it has keyword-only ones without a default: "
            f"{', '.join(bare)}"
        )
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    if required:
        return required
    if positional:
        return [positional[0].name]
    return ["event"] if any(p.kind is p.VAR_POSITIONAL for p in parameters) else []
