"""Hypothesis strategies for events: every value that validates, the extremes included."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from hftlab.events import (
    ClockSource,
    Event,
    EventBatch,
    EventType,
    FillEvent,
    Flags,
    Kind,
    MarketDataEvent,
    OrderEvent,
    OrderType,
    Priority,
    Side,
    SignalEvent,
    Source,
)
from hftlab.events.records import MAX_LOG_SEQUENCE, MAX_SESSION_NUMBER, RUN_BIT, event_id

INT64_MAX = (1 << 63) - 1
UINT32_MAX = (1 << 32) - 1
NAN = math.nan


def clipped(text: str, size_bytes: int) -> str:
    """The text's beginning that takes at most ``size_bytes`` of UTF-8."""
    return text.encode()[:size_bytes].decode(errors="ignore")


def bounded(characters: st.SearchStrategy[str], least: int, most: int) -> st.SearchStrategy[str]:
    """Text of ``least`` to ``most`` bytes; texts that fill the room exactly are frequent."""
    free = st.text(characters, min_size=least, max_size=most)
    full = st.text(characters, min_size=1, max_size=4).map(lambda piece: piece * most)
    return st.one_of(free, full).map(lambda text: clipped(text, most)).filter(lambda text: len(text.encode()) >= least)


printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
any_but_nul = st.characters(exclude_categories=["Cs"], exclude_characters="\0")

symbols = st.one_of(st.sampled_from(["BTCUSDT", "ETHUSDT", "a/b", "%2F", "日経225", "🚀"]), bounded(printable, 1, 64))
order_ids = bounded(any_but_nul, 1, 40)
signal_types = bounded(any_but_nul, 1, 24)
strategy_ids = bounded(any_but_nul, 0, 32)
source_parts = st.one_of(st.sampled_from(["", "a", "/", "%", "%2F", "a/b%25"]), st.text(printable, max_size=64))
sources = st.builds(
    Source,
    venue=source_parts.filter(bool),
    channel=source_parts,
    scope=source_parts,
    rule=st.one_of(st.sampled_from(["none", "plus-one", "range", "shared", ""]), source_parts),
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe_numbers = st.one_of(numbers, st.just(NAN))
sizes = st.floats(min_value=0.0, allow_infinity=False).map(lambda size: size + 0.0)
maybe_sizes = st.one_of(sizes, st.just(NAN), st.just(-0.0))
positive = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False)
times = st.one_of(st.integers(0, INT64_MAX), st.sampled_from([0, 1, INT64_MAX]))
counters = st.integers(0, UINT32_MAX)


@st.composite
def headers(draw: st.DrawFn, session: int = 0) -> dict[str, Any]:
    """The fields that all types share, of an event of the session with that number (0: of none)."""
    sequence = draw(st.one_of(st.just(-1), st.integers(-1, INT64_MAX), st.just(INT64_MAX)))
    most = UINT32_MAX if sequence < 0 else min(UINT32_MAX, sequence + 1)
    flags = Flags(draw(st.integers(0, (1 << 16) - 1)))
    log = draw(st.one_of(st.integers(0, MAX_LOG_SEQUENCE), st.just(MAX_LOG_SEQUENCE)))
    recorded = event_id(session, log) if session else 0
    return {
        "symbol": draw(symbols),
        "timestamp": draw(times),
        "received": draw(times),
        "event_id": RUN_BIT | log if flags & Flags.EMITTED else recorded,
        "cause": draw(times),
        "source": draw(sources),
        "sequence": sequence,
        "span": draw(st.integers(1, most)),
        "part": draw(counters),
        "epoch": draw(counters),
        "flags": flags,
        "priority": draw(st.sampled_from(Priority)),
        "clock": draw(st.sampled_from(ClockSource)),
    }


@st.composite
def market_fields(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a market data event, by what its kind demands."""
    kind = draw(st.sampled_from(Kind))
    needed = kind in (Kind.TRADE, Kind.LEVEL)
    sides = [Side.BID, Side.ASK] if kind is Kind.LEVEL else list(Side)
    return {
        "kind": kind,
        "price": draw(numbers if needed else maybe_numbers),
        "volume": draw(st.one_of(sizes, st.just(-0.0)) if needed else maybe_sizes),
        "bid": draw(maybe_numbers),
        "ask": draw(maybe_numbers),
        "bid_size": draw(maybe_sizes),
        "ask_size": draw(maybe_sizes),
        "side": draw(st.sampled_from(sides)),
    }


payloads: dict[EventType, st.SearchStrategy[dict[str, Any]]] = {
    EventType.MARKET_DATA: market_fields(),
    EventType.ORDER: st.fixed_dictionaries(
        {
            "order_id": order_ids,
            "direction": st.sampled_from([Side.BUY, Side.SELL]),
            "quantity": positive,
            "order_type": st.sampled_from(OrderType),
            "price": maybe_numbers,
        }
    ),
    EventType.FILL: st.fixed_dictionaries(
        {"order_id": order_ids, "executed_qty": positive, "executed_price": numbers, "commission": numbers}
    ),
    EventType.SIGNAL: st.fixed_dictionaries(
        {"signal_type": signal_types, "strength": numbers, "strategy_id": strategy_ids}
    ),
}
CLASSES: dict[EventType, type[Event]] = {
    EventType.MARKET_DATA: MarketDataEvent,
    EventType.ORDER: OrderEvent,
    EventType.FILL: FillEvent,
    EventType.SIGNAL: SignalEvent,
}


@st.composite
def events(draw: st.DrawFn, event_type: EventType | None = None, session: int = 0) -> Event:
    """One event, of the given type or of any."""
    chosen = draw(st.sampled_from(EventType)) if event_type is None else event_type
    return CLASSES[chosen](**draw(headers(session)), **draw(payloads[chosen]))


session_numbers = st.one_of(st.just(0), st.sampled_from([1, MAX_SESSION_NUMBER]), st.integers(1, MAX_SESSION_NUMBER))


@st.composite
def event_lists(draw: st.DrawFn, event_type: EventType | None = None, least: int = 0, most: int = 5) -> list[Event]:
    """Events that can be one batch: all of one session or of none."""
    session = draw(session_numbers)
    listed = draw(st.lists(events(event_type, session), min_size=least, max_size=most))
    if session and not any(event.event_id and not event.flags & Flags.EMITTED for event in listed):
        return []
    return listed


@st.composite
def one_type_batches(draw: st.DrawFn, least: int = 1, most: int = 5) -> EventBatch:
    """A batch of one type that can be a frame: its log sequences count from 0 and never fall."""
    event_type = draw(st.sampled_from(EventType))
    batch = EventBatch.from_events(draw(st.lists(events(event_type), min_size=least, max_size=most)))
    steps = draw(st.lists(st.integers(0, 100), min_size=len(batch), max_size=len(batch)))
    log = 0
    for row, step in enumerate(steps):
        log += step
        batch.records["log_sequence"][row] = log
    return batch


def identical(one: Event, other: Event) -> bool:
    """Equal in every field, and to the bit in floats but for a NaN's payload (0.0 is not -0.0)."""
    return one == other and repr_of(one) == repr_of(other)


def repr_of(event: Event) -> list[str]:
    """Every field's repr, which tells -0.0 from 0.0."""
    return [repr(getattr(event, name)) for name in event.__struct_fields__]
