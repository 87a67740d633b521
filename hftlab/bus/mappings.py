"""What a user wrote about lanes, read into mappings and rules; and the mappings that every policy begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from traceback import TracebackException

from hftlab.bus.signatures import What, default_name, read_topics
from hftlab.bus.subscriptions import Where, symbol_matcher
from hftlab.errors import ValidationError, shown
from hftlab.events.records import EventType, Priority
from hftlab.events.types import Event
from hftlab.sequence import Gap

Texts = str | Iterable[str] | None
"""One pattern, or several of which one has to match; None: any text."""

RISK_SIGNALS = (
    "RISK",
    "RISK_*",
    "LIMIT_BREACH",
    "LIMIT_BREACH_*",
    "MARGIN_*",
    "EXPOSURE_*",
    "DRAWDOWN",
    "DRAWDOWN_*",
    "KILL_SWITCH",
)
"""The ``signal_type``s, as patterns, that go to HIGH by default."""

MONITORING_SIGNALS = (
    "MONITOR",
    "MONITOR_*",
    "MONITORING",
    "HEARTBEAT",
    "METRIC",
    "METRIC_*",
    "HEALTH",
    "HEALTH_*",
    "STATUS",
)
"""The ``signal_type``s, as patterns, that go to LOW by default."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """Events of ``types`` go to ``lane`` where all that is told matches; None matches everything.

    ``pattern`` is a symbol pattern, ``strategy`` and ``signal_type`` are patterns of which one has to match, and
    ``when`` is the market condition that has to be set.
    """

    name: str
    types: frozenset[EventType]
    lane: Priority
    pattern: str | None = None
    strategy: tuple[str, ...] | None = None
    signal_type: tuple[str, ...] | None = None
    when: str | None = None


@dataclass(slots=True, eq=False)
class Rule:
    """Rows of ``types`` for which ``where`` holds get at least ``lane``. Counts are of this rule's whole life.

    ``rows`` is how many it was asked about, ``raised`` how many it lifted to a higher lane, ``failures`` the calls that
    raised or returned nonsense, ``failed_rows`` the rows in those: they kept the lane that they had.
    """

    name: str
    types: frozenset[EventType]
    lane: Priority
    where: Where
    pattern: str | None = None
    rows: int = 0
    raised: int = 0
    failures: int = 0
    failed_rows: int = 0

    def same_as(self, other: Rule) -> bool:
        """Whether both ask the same function about the same events for the same lane."""
        mine, theirs = ((one.name, one.types, one.lane, one.pattern) for one in (self, other))
        return mine == theirs and self.where == other.where


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """A rule that raised, or returned nonsense: how often (``calls``), in how many ``rows``, and the latest ``error``.

    ``traceback`` is where, as text. The error itself has none: it would keep every row alive that a frame of it knows.
    """

    rule: str
    calls: int
    rows: int
    error: Exception
    trace: TracebackException = field(repr=False)

    @property
    def traceback(self) -> str:
        """What Python would have printed. About 0.1 ms: it reads the sources."""
        return "".join(self.trace.format())


def read_mapping(
    what: What | Iterable[What] | None,
    symbol: str | None,
    strategy: Texts,
    signal_type: Texts,
    when: str | None,
    lane: Priority | str,
    name: str | None,
) -> Mapping:
    """A Mapping out of the arguments of ``Priorities.map``. Raises ValidationError."""
    types, pattern = _read_what(what, symbol)
    strategies, signal_types = _read_texts("strategy", strategy), _read_texts("signal_type", signal_type)
    if strategies is not None or signal_types is not None:
        if types not in ({EventType.SIGNAL}, set(EventType)):
            words = ", ".join(event_type.topic for event_type in sorted(types))
            raise ValidationError(
                "strategy= and signal_type= are texts of signals alone; orders, fills and market data have no such "
                f"field, so what= is SignalEvent or left out; got {words}. To raise a strategy's orders, give them a "
                "priority= where they are made, or map their symbol"
            )
        types = frozenset({EventType.SIGNAL})
    if when is not None:
        check_condition(when)
    return Mapping(
        name=check_name(name) or _default_name(types, pattern, strategies, signal_types, when),
        types=types,
        lane=read_lane(lane),
        pattern=pattern,
        strategy=strategies,
        signal_type=signal_types,
        when=when,
    )


def read_rule(
    where: Where, lane: Priority | str, what: What | Iterable[What] | None, symbol: str | None, name: str | None
) -> Rule:
    """A Rule out of the arguments of ``Priorities.raise_when``. Raises ValidationError."""
    if not callable(where) or isinstance(where, type):
        raise ValidationError(f"a rule is a function from records to a boolean array; got {shown(where)}")
    types, pattern = _read_what(what, symbol)
    chosen = check_name(name) or default_name(where, types, pattern)
    return Rule(name=chosen, types=types, lane=read_lane(lane), where=where, pattern=pattern)


def read_lane(lane: object) -> Priority:
    """The lane that a Priority, its name in any case, or its number tells; never DEFAULT. Raises ValidationError."""
    found: object = lane
    if isinstance(lane, str):
        found = Priority.__members__.get(lane.upper())
    elif isinstance(lane, int) and not isinstance(lane, bool):
        found = Priority(lane) if lane in set(Priority) else None
    if not isinstance(found, Priority) or found is Priority.DEFAULT:
        names = ", ".join(f"Priority.{member.name}" for member in LANES)
        raise ValidationError(f"lane is one of {names}, or its name; got {shown(lane)}")
    return found


LANES = tuple(member for member in Priority if member is not Priority.DEFAULT)


def check_name(name: str | None) -> str | None:
    """The name that was given, or None; ValidationError for what is no name."""
    if name is not None and (not isinstance(name, str) or not name):
        raise ValidationError(f"name= is a text that no other mapping or rule of the policy has; got {shown(name)}")
    return name


def check_condition(condition: object) -> str:
    """The name of a market condition, or ValidationError."""
    if not isinstance(condition, str) or not condition:
        raise ValidationError(f"a market condition is a text such as 'volatile'; got {shown(condition)}")
    return condition


def check_pattern(symbol: object) -> str:
    """A symbol pattern where None and ``*`` are all symbols: ``*``. Raises ValidationError."""
    if symbol is None:
        return "*"
    if not isinstance(symbol, str) or not symbol:
        raise ValidationError(f"symbol= is one symbol or a pattern such as 'BTC*'; got {shown(symbol)}")
    return symbol


def _read_what(what: What | Iterable[What] | None, symbol: str | None) -> tuple[frozenset[EventType], str | None]:
    values: tuple[What, ...]
    if what is None:
        values = ()
    elif isinstance(what, (str, type, EventType)):
        values = (what,)
    elif isinstance(what, Iterable):
        values = tuple(what)
        if not values:
            raise ValidationError(f"what= names at least one event type, or is left out for all; got {shown(what)}")
    else:
        raise ValidationError(f"what= is event classes, EventTypes or a topic; got {shown(what)}")
    if any(isinstance(value, type) and issubclass(value, Gap) for value in values):
        raise ValidationError(
            "what= is events (MarketDataEvent, OrderEvent, FillEvent, SignalEvent); got Gap, a notice"
        )
    if Event in values:
        return read_topics((), symbol)  # the class of them all
    return read_topics(values, symbol)


def _read_texts(field: str, given: Texts) -> tuple[str, ...] | None:
    if given is None:
        return None
    values = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if not values or not all(isinstance(value, str) for value in values):
        raise ValidationError(
            f"{field}= is a text, a pattern such as 'RISK_*', or several of which one has to match; got {shown(given)}"
        )
    return None if "*" in values else values


def _default_name(
    types: frozenset[EventType],
    pattern: str | None,
    strategies: tuple[str, ...] | None,
    signal_types: tuple[str, ...] | None,
    when: str | None,
) -> str:
    parts = ["+".join(event_type.topic for event_type in sorted(types)) + f".{pattern or '*'}"]
    for word, texts in (("strategy", strategies), ("signal_type", signal_types)):
        if texts is not None:
            parts.append(f"{word}={'|'.join(texts)}")
    if when is not None:
        parts.append(f"when={when}")
    return " ".join(parts)


def text_matcher(patterns: tuple[str, ...] | None) -> Callable[[str], bool]:
    """Whether a text matches one of the patterns (None: all texts do)."""
    if patterns is None:
        return lambda text: True
    matchers = [symbol_matcher(pattern) for pattern in patterns]
    return lambda text: any(matches(text) for matches in matchers)


DEFAULT_MAPPINGS = (
    Mapping("default: orders and fills", frozenset({EventType.ORDER, EventType.FILL}), Priority.CRITICAL),
    Mapping("default: market data", frozenset({EventType.MARKET_DATA}), Priority.NORMAL),
    Mapping("default: signals", frozenset({EventType.SIGNAL}), Priority.NORMAL),
    Mapping("default: risk", frozenset({EventType.SIGNAL}), Priority.HIGH, signal_type=RISK_SIGNALS),
    Mapping("default: monitoring", frozenset({EventType.SIGNAL}), Priority.LOW, signal_type=MONITORING_SIGNALS),
)
"""Where every policy begins; a user's mappings come after them, and so win."""
