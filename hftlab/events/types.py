"""The events as objects: validated when made, immutable, equal by value.

They exist for people and for handlers that ask for them. Everywhere else an event is a row (see ``records``).
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import msgspec
from msgspec.structs import astuple, force_setattr

from hftlab.errors import ValidationError, shown
from hftlab.events.quick import QUICK_CHECKS
from hftlab.events.records import (
    MAX_LOG_SEQUENCE,
    NO_SEQUENCE,
    RUN_BIT,
    TEXT_FIELDS,
    ClockSource,
    EventType,
    Flags,
    Kind,
    OrderType,
    Priority,
    Side,
)
from hftlab.events.rules import check_event, check_text
from hftlab.events.tables import UNKNOWN_SOURCE, Source, check_symbol

_NAN = float("nan")
_INT64_MAX = (1 << 63) - 1


class Event(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What every event has; make one of the four concrete types. All fields are keywords.

    ``event_id`` is given when the event is recorded (0 until then; see ``records.event_id``), ``timestamp`` and
    ``received`` in ns since 1970 UTC are stamped by the bus where they are 0. ``topic`` is what it is routed by.
    """

    event_type: ClassVar[EventType]
    _quick: ClassVar[Any] = None

    symbol: str
    timestamp: int = 0
    received: int = 0
    event_id: int = 0
    cause: int = 0
    source: Source = UNKNOWN_SOURCE
    sequence: int = NO_SEQUENCE
    span: int = 1
    part: int = 0
    epoch: int = 0
    flags: Flags = Flags.LAST_PART
    priority: Priority = Priority.DEFAULT
    clock: ClockSource = ClockSource.UNKNOWN

    def __post_init__(self) -> None:
        quick = self._quick
        if quick is None:
            raise ValidationError(
                "Event is abstract; make a MarketDataEvent, an OrderEvent, a FillEvent or a SignalEvent"
            )
        if not quick(astuple(self)):
            self._convert()
            if not quick(astuple(self)):
                self._check()

    def _convert(self) -> None:
        """Turn what a user may write (an int for a float, "BUY", a NumPy scalar) into what the fields hold."""
        for field, convert in _CONVERSIONS[self.event_type].items():
            value = getattr(self, field)
            converted = convert(field, value)
            if converted is not value:
                force_setattr(self, field, converted)

    def _check(self) -> None:
        check_symbol(self.symbol)
        if not isinstance(self.source, Source):
            raise ValidationError(f"source is a Source(venue, channel, scope, rule); got {shown(self.source)}")
        for field, size_bytes in TEXT_FIELDS[self.event_type].items():
            check_text(field, getattr(self, field), size_bytes)
        check_event(self.event_type, partial(getattr, self))
        event_id, emitted = self.event_id, bool(self.flags & Flags.EMITTED)
        of_session = event_id == 0 or MAX_LOG_SEQUENCE < event_id < RUN_BIT
        of_run = RUN_BIT <= event_id <= RUN_BIT | MAX_LOG_SEQUENCE
        if not (of_run if emitted else of_session):
            raise ValidationError(
                "event_id is given by hftlab: 0, or a session's (see records.event_id), or with Flags.EMITTED that of "
                f"a run (2**62 and above); got {event_id} and {self.flags!r}"
            )

    @property
    def topic(self) -> str:
        """What the event is routed by: its type's word and its symbol, as in ``market.BTCUSDT``."""
        return f"{self.event_type.topic}.{self.symbol}"

    def __repr__(self) -> str:
        # What has its default is left out, as in a call. msgspec's own repr would show a NaN that came out of a row.
        defaults = DEFAULTS[self.event_type]
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        told = [f"{name}={value!r}" for name, value in fields if value == value and value != defaults.get(name)]
        return f"{type(self).__name__}({', '.join(told)})"

    def __eq__(self, other: object) -> bool:
        # NaN means "not sent": two events that both lack a field are equal in it.
        if not isinstance(other, Event):
            return NotImplemented
        if self.event_type is not other.event_type:
            return False
        mine, theirs = astuple(self), astuple(other)
        return all(a == b or (a != a and b != b) for a, b in zip(mine, theirs, strict=True))

    def __hash__(self) -> int:
        return hash((self.event_type, self.symbol, self.timestamp, self.received, self.sequence, self.event_id))


class MarketDataEvent(Event, frozen=True, kw_only=True, eq=False):
    """A quote, a trade, a book level, or a tick with whatever was sent. Fields that were not sent are NaN.

    ``kind`` says which; ``side`` is a trade's aggressor or a level's side. Raises ValidationError when made with
    values that break a rule (see ``rules``).
    """

    event_type: ClassVar[EventType] = EventType.MARKET_DATA
    _quick = staticmethod(QUICK_CHECKS[EventType.MARKET_DATA])

    price: float = _NAN
    volume: float = _NAN
    bid: float = _NAN
    ask: float = _NAN
    bid_size: float = _NAN
    ask_size: float = _NAN
    kind: Kind = Kind.TICK
    side: Side = Side.NONE


class OrderEvent(Event, frozen=True, kw_only=True, eq=False):
    """An order: ``direction`` is a Side (or "BUY", "SELL"), ``order_type`` an OrderType (or its name).

    ``order_id`` is up to 40 bytes of UTF-8, ``price`` the limit or stop price (NaN: none).
    """

    event_type: ClassVar[EventType] = EventType.ORDER
    _quick = staticmethod(QUICK_CHECKS[EventType.ORDER])

    order_id: str
    direction: Side
    quantity: float
    order_type: OrderType = OrderType.MARKET
    price: float = _NAN


class FillEvent(Event, frozen=True, kw_only=True, eq=False):
    """An execution of (a part of) the order ``order_id``; ``commission`` is negative for a rebate."""

    event_type: ClassVar[EventType] = EventType.FILL
    _quick = staticmethod(QUICK_CHECKS[EventType.FILL])

    order_id: str
    executed_qty: float
    executed_price: float
    commission: float = 0.0


class SignalEvent(Event, frozen=True, kw_only=True, eq=False):
    """What a strategy concluded: ``signal_type`` up to 24 bytes of UTF-8, ``strategy_id`` up to 32."""

    event_type: ClassVar[EventType] = EventType.SIGNAL
    _quick = staticmethod(QUICK_CHECKS[EventType.SIGNAL])

    signal_type: str
    strength: float = 1.0
    strategy_id: str = ""


EVENT_CLASSES: dict[EventType, type[Event]] = {
    cls.event_type: cls for cls in (MarketDataEvent, OrderEvent, FillEvent, SignalEvent)
}


DEFAULTS: dict[EventType, dict[str, Any]] = {
    event_type: {field.name: field.default for field in msgspec.structs.fields(cls)}
    for event_type, cls in EVENT_CLASSES.items()
}
"""For each type its fields in order, and their defaults: ``msgspec.NODEFAULT`` where a field has to be given."""


def _to_float(field: str, value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes)):
        raise ValidationError(f"{field} is a number; got {shown(value)}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValidationError(f"{field} is a number; got {shown(value)}") from None


def _to_int(field: str, value: Any) -> int:
    if type(value) is int:
        number = value
    elif isinstance(value, bool):
        raise ValidationError(f"{field} is an integer; got {shown(value)}")
    else:
        try:
            number = operator.index(value)
        except TypeError:
            raise ValidationError(f"{field} is an integer; got {shown(value)}") from None
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise ValidationError(f"{field} is an integer of 64 bits; got {shown(number)}")
    return number


def _to_enum(cls: type[enum.IntEnum], field: str, value: Any) -> enum.IntEnum:
    if type(value) is cls:
        return value
    try:
        return cls[value.upper()] if isinstance(value, str) else cls(_to_int(field, value))
    except (KeyError, ValueError):
        names = ", ".join(f"{member.name} ({member.value})" for member in cls)
        raise ValidationError(f"{field} is one of {names}; got {shown(value)}") from None


def _to_flags(field: str, value: Any) -> Flags:
    if type(value) is Flags:
        return value
    number = _to_int(field, value)
    if not 0 <= number < 1 << 16:
        raise ValidationError(f"{field} is 16 bits of Flags; got {shown(number)}")
    return Flags(number)


def _to_text(field: str, value: Any) -> Any:
    """A plain str for one of a subclass, such as NumPy's; what is no text is left for the check to refuse."""
    return str(value) if isinstance(value, str) and type(value) is not str else value


def _conversions(cls: type[Event]) -> dict[str, Callable[[str, Any], Any]]:
    found: dict[str, Any] = {}
    for name, hint in cls.__annotations__.items() | Event.__annotations__.items():
        if hint == "float":
            found[name] = _to_float
        elif hint == "int":
            found[name] = _to_int
        elif hint == "str":
            found[name] = _to_text
        elif hint == "Flags":
            found[name] = _to_flags
        elif hint in _ENUM_HINTS:
            found[name] = partial(_to_enum, _ENUM_HINTS[hint])
    return found


_ENUM_HINTS: dict[str, type[enum.IntEnum]] = {
    cls.__name__: cls for cls in (Kind, Side, OrderType, Priority, ClockSource)
}
_CONVERSIONS = {event_type: _conversions(cls) for event_type, cls in EVENT_CLASSES.items()}


def _row_class(cls: type[Event]) -> Any:
    """A subclass that is made from positional values and not validated: 190 ns an object instead of 6 µs.

    Rows were validated where they came in. msgspec runs whatever ``__post_init__`` is; ``id`` is the cheapest
    callable that takes one argument and does nothing.
    """
    namespace = {
        "__post_init__": id,
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
        "__repr__": Event.__repr__,
        "__eq__": Event.__eq__,
        "__hash__": Event.__hash__,
    }
    fields = [(name, Any) for name in cls.__struct_fields__]
    return msgspec.defstruct(cls.__name__, fields, bases=(cls,), namespace=namespace, frozen=True, eq=False, gc=False)


ROW_CLASSES: dict[EventType, type[Event]] = {t: _row_class(cls) for t, cls in EVENT_CLASSES.items()}
"""For each type the class that ``batch`` makes objects of: an instance of the public class, without its checks."""
