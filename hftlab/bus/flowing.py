"""``Flow``: what a bus does when more comes in than its handlers take, as the user's settings."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hftlab.errors import ValidationError, shown
from hftlab.events.batch import as_event_type
from hftlab.events.records import ROW_BYTES, EventType
from hftlab.events.types import Event
from hftlab.flow.overload_settings import OverloadSettings
from hftlab.flow.shed_rules import ShedRule
from hftlab.flow.sizing import SizeBounds
from hftlab.flow.watermarks import Watermarks

Types = type[Event] | EventType | str
"""What names a type of events: its class, its EventType, or its topic word."""


class Overflow(enum.StrEnum):
    """What happens to an event that finds its queue full."""

    WAIT = "wait"
    """Its publisher waits for room (``publish_nowait`` raises, ``offer`` takes fewer)."""
    DROP_NEWEST = "drop newest"
    """It is dropped."""
    DROP_OLDEST = "drop oldest"
    """The oldest of its type and lane that no handler was given yet is dropped for it."""
    CONFLATE = "conflate"
    """Of quotes, ticks and book levels only the latest of each symbol and source (and side and price) stays queued, at
    its own place. What is no such state (trades, orders, …) waits for room, like what finds none then."""
    RAISE = "raise"
    """Its publisher gets BusFull at once."""


@dataclass(frozen=True)
class Flow:
    """Flow control of a bus: ``hl.Lab(flow=hl.Flow(…))``, or ``bus.flow = hl.Flow(…)`` at any time. The default waits.

    ``overflow``: an Overflow (or its name), for all types or by type. It holds in every lane but CRITICAL, where events
    always wait (or raise). ``limit_bytes``: how many bytes the queued events of a type may take, in all lanes together
    (128 an event). ``adapt``: bounds between which the queues' capacity follows memory pressure and drain rate, for all
    types or by type; None: it stays. ``watermarks`` pause and resume the sources that were attached. ``shed`` are
    rules, ``breaker`` is the overload breaker (None: none): never for CRITICAL. ``ageing_s``: an event rises by one
    lane for each such time that it waited (0: never). ``inherit``: what an urgent event waits for takes its priority.
    ``watchdog_s``: handlers that hold the loop for longer are named. Raises ValidationError.
    """

    overflow: Overflow | str | Mapping[Types, Overflow | str] = Overflow.WAIT
    limit_bytes: int | Mapping[Types, int] | None = None
    adapt: SizeBounds | Mapping[Types, SizeBounds] | None = None
    watermarks: Watermarks = field(default_factory=Watermarks)
    shed: tuple[ShedRule, ...] = ()
    breaker: OverloadSettings | None = None
    ageing_s: float = 0.5
    inherit: bool = True
    watchdog_s: float = 0.05

    def __post_init__(self) -> None:
        self.overflow_of(EventType.MARKET_DATA)  # a mistake is raised here, where it was made
        for event_type, limit in by_type(self.limit_bytes, "limit_bytes").items():
            if isinstance(limit, bool) or not isinstance(limit, int) or limit < ROW_BYTES:
                raise ValidationError(
                    f"limit_bytes of {event_type.topic} events is an integer from {ROW_BYTES} on, the bytes of one "
                    f"event; got {shown(limit)}"
                )
        for name, value in (("ageing_s", self.ageing_s), ("watchdog_s", self.watchdog_s)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
                raise ValidationError(f"{name} is a number of seconds from 0 to below 1,000,000; got {shown(value)}")
        if not isinstance(self.inherit, bool):
            raise ValidationError(f"inherit is True or False; got {shown(self.inherit)}")
        rules: Any = self.shed
        if isinstance(rules, ShedRule) or not isinstance(rules, Iterable):
            rules = (rules,)  # a single rule will do; whatever else it is, _check_kinds says so
        object.__setattr__(self, "shed", tuple(rules))
        self._check_kinds()

    def _check_kinds(self) -> None:
        wrong = [rule for rule in self.shed if not isinstance(rule, ShedRule)]
        if wrong:
            raise ValidationError(f"shed= is a sequence of hl.ShedRule(…); got {shown(wrong[0])}")
        if self.breaker is not None and not isinstance(self.breaker, OverloadSettings):
            raise ValidationError(f"breaker= is hl.OverloadSettings(…) or None; got {shown(self.breaker)}")
        if not isinstance(self.watermarks, Watermarks):
            raise ValidationError(f"watermarks= is hl.Watermarks(high, low); got {shown(self.watermarks)}")
        for bounds in by_type(self.adapt, "adapt").values():
            if not isinstance(bounds, SizeBounds):
                raise ValidationError(
                    f"adapt= is hl.SizeBounds(min_rows, max_rows), or one by type; got {shown(bounds)}"
                )

    def overflow_of(self, event_type: EventType) -> Overflow:
        """What happens to events of a type that find their queue full."""
        policies = {one: _as_overflow(value) for one, value in by_type(self.overflow, "overflow").items()}
        return policies.get(event_type, Overflow.WAIT)


def by_type(value: Any, name: str) -> dict[EventType, Any]:
    """What was given for all types, or by type, as a dict of those that have one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        return dict.fromkeys(EventType, value)
    found: dict[EventType, Any] = {}
    for key, one in value.items():
        try:
            found[as_event_type(key)] = one
        except ValidationError as error:
            raise ValidationError(f"{name}= names types of events, such as hl.MarketDataEvent: {error}") from None
    return found


def _as_overflow(value: Overflow | str) -> Overflow:
    try:
        return Overflow(value.replace("_", " ") if isinstance(value, str) else value)
    except (ValueError, TypeError):
        names: Iterable[str] = (f"'{one.value}'" for one in Overflow)
        raise ValidationError(f"overflow= is one of {', '.join(names)}; got {shown(value)}") from None
