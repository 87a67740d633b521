"""What makes a row valid: one set of rules, applied to a single event and, vectorised, to millions of rows.

A rule is written with comparisons and ``|`` only, so that the same function takes a Python number and a NumPy column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events.records import (
    ROW_BYTES,
    TEXT_FIELDS,
    EventType,
    Flags,
    Kind,
    OrderType,
    Priority,
    Rows,
    Side,
)

Get = Callable[[str], Any]
"""Field name to its value: ``functools.partial(getattr, event)`` or ``records.__getitem__``."""

MAX_TIME_NS = (1 << 63) - 1
_U32 = (1 << 32) - 1


class Rule(NamedTuple):
    """``holds(get)`` is true where the rule is kept; ``text`` says it to a person, ``field`` is what to show."""

    field: str
    text: str
    holds: Callable[[Get], Any]


def _number(field: str) -> Rule:
    return Rule(field, "is a finite number", lambda get: abs(get(field)) < math.inf)


def _optional_number(field: str) -> Rule:
    def holds(get: Get) -> Any:
        value = get(field)
        return (abs(value) < math.inf) | (value != value)

    return Rule(field, "is a finite number, or NaN where the source sent none", holds)


def _optional_size(field: str) -> Rule:
    def holds(get: Get) -> Any:
        value = get(field)
        return ((value >= 0) & (value < math.inf)) | (value != value)

    return Rule(field, "is a finite number of at least 0, or NaN where the source sent none", holds)


def _within(field: str, low: int, high: int, meaning: str = "") -> Rule:
    text = f"is an integer of {low} to {high}{meaning}"
    return Rule(field, text, lambda get: (get(field) >= low) & (get(field) <= high))


def _needs(field: str, kinds: tuple[Kind, ...]) -> Rule:
    def holds(get: Get) -> Any:
        free: Any = True
        for kind in kinds:
            free = free & (get("kind") != kind)
        return free | (abs(get(field)) < math.inf)

    names = " and ".join(kind.name for kind in kinds)
    return Rule(field, f"is a finite number in a market data event of kind {names}", holds)


_HEADER_RULES = (
    _within("timestamp", 0, MAX_TIME_NS, ": ns since 1970 UTC, 0 where it is yet to be stamped"),
    _within("received", 0, MAX_TIME_NS, ": ns since 1970 UTC, 0 where it is yet to be stamped"),
    _within("cause", 0, MAX_TIME_NS, ": an event_id, 0 where there is none"),
    _within("sequence", -1, MAX_TIME_NS, ", -1 where the source has no numbers"),
    _within("span", 0, _U32, ": how many numbers the message covers"),
    Rule(
        "span",
        "is at least 1, but 0 in a heartbeat that covers no number (Flags.HEARTBEAT)",
        lambda get: (get("span") != 0) | ((get("flags") & Flags.HEARTBEAT.value) != 0),
    ),
    Rule(
        "span",
        "covers no number below 0: it is at most sequence + 1",
        # Not span <= sequence + 1, which overflows a column at the greatest sequence.
        lambda get: (get("sequence") < 0) | (get("sequence") - get("span") >= -1),
    ),
    _within("part", 0, _U32),
    _within("epoch", 0, _U32),
    _within("flags", 0, (1 << 16) - 1),
    _within("priority", int(Priority.DEFAULT), int(Priority.CRITICAL)),
    _within("clock", 0, 3),
)

RULES: dict[EventType, tuple[Rule, ...]] = {
    EventType.MARKET_DATA: (
        *_HEADER_RULES,
        _within("kind", 0, len(Kind) - 1),
        _within("side", -1, 1),
        _optional_number("price"),
        _optional_size("volume"),
        _optional_number("bid"),
        _optional_number("ask"),
        _optional_size("bid_size"),
        _optional_size("ask_size"),
        _needs("price", (Kind.TRADE, Kind.LEVEL)),
        _needs("volume", (Kind.TRADE, Kind.LEVEL)),
        Rule(
            "side",
            "is BID (1) or ASK (-1) in a market data event of kind LEVEL",
            lambda get: (get("kind") != Kind.LEVEL) | (get("side") != 0),
        ),
    ),
    EventType.ORDER: (
        *_HEADER_RULES,
        Rule("direction", "is Side.BUY (1) or Side.SELL (-1)", lambda get: abs(get("direction")) == 1),
        Rule(
            "quantity", "is a finite number above 0", lambda get: (get("quantity") > 0) & (get("quantity") < math.inf)
        ),
        _within("order_type", int(OrderType.MARKET), int(OrderType.STOP_LIMIT), ": an OrderType"),
        _optional_number("price"),
    ),
    EventType.FILL: (
        *_HEADER_RULES,
        Rule(
            "executed_qty",
            "is a finite number above 0",
            lambda get: (get("executed_qty") > 0) & (get("executed_qty") < math.inf),
        ),
        _number("executed_price"),
        _number("commission"),
    ),
    EventType.SIGNAL: (*_HEADER_RULES, _number("strength")),
}

# Fields that may be empty text; all others need at least one byte.
_MAY_BE_EMPTY = frozenset({"strategy_id"})

ENUMS: dict[str, type[Side] | type[Kind] | type[OrderType] | type[Priority]] = {
    "kind": Kind,
    "side": Side,
    "direction": Side,
    "order_type": OrderType,
    "priority": Priority,
}


def check_text(field: str, value: object, size_bytes: int) -> str:
    """Return ``value``, or raise ValidationError: bounded UTF-8 without NUL, not empty unless the field may be."""
    if not isinstance(value, str):
        raise ValidationError(f"{field} is text; got {shown(value)}")
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        raise ValidationError(f"{field} is text that UTF-8 can encode; got {shown(value)}") from None
    least = 0 if field in _MAY_BE_EMPTY else 1
    if not least <= length <= size_bytes or "\0" in value:
        raise ValidationError(
            f"{field} is text of {least} to {size_bytes} bytes of UTF-8 without NUL; got {length} bytes: {shown(value)}"
        )
    return value


def check_event(event_type: EventType, get: Get) -> None:
    """Raise ValidationError for the first rule that one event breaks. A few microseconds."""
    for rule in RULES[event_type]:
        if not rule.holds(get):
            raise ValidationError(f"{rule.field} {rule.text}; got {shown(get(rule.field))}")


def check_records(event_type: EventType, records: Rows) -> None:
    """Raise ValidationError for the first rule that rows of one type break, and the first row that does.

    Vectorised: about 60 ns a row.
    """
    for rule in RULES[event_type]:
        holds = np.broadcast_to(np.asarray(rule.holds(records.__getitem__)), len(records))
        if not holds.all():
            row = int(np.argmin(holds))
            raise ValidationError(f"row {row}: {rule.field} {rule.text}; got {records[rule.field][row]}")
    check_record_texts(event_type, records)


def check_record_texts(event_type: EventType, records: Rows, *, first: int = 0) -> None:
    """Raise ValidationError where an inline text of these rows is not what ``check_text`` accepts. About 50 ns a row.

    A Python call for each row with text beyond ASCII. ``first`` is the number that an error gives to the first row.
    """
    row_bytes = np.ascontiguousarray(records.view(f"V{ROW_BYTES}")).view(np.uint8).reshape(-1, ROW_BYTES)
    for field, size_bytes in TEXT_FIELDS[event_type].items():
        offset = records.dtype.fields[field][1]  # type: ignore[index]
        text = row_bytes[:, offset : offset + size_bytes]
        nul = text == 0
        # A NUL ends the text, so none may come before a byte that is not one. NumPy strips those at the end only.
        broken = nul[:, :-1] > nul[:, 1:]
        if field not in _MAY_BE_EMPTY:
            broken[:, 0] |= nul[:, 0]
        broken |= text[:, 1:] > 127
        broken[:, 0] |= text[:, 0] > 127
        if not broken.any():
            continue
        for row in np.flatnonzero(broken.any(axis=1)).tolist():
            try:
                check_text(field, records[field][row].decode(), size_bytes)
            except (UnicodeDecodeError, ValidationError) as error:
                raise ValidationError(f"row {first + row}: {field} breaks a rule: {error}") from None
