"""Real handlers, and real rows, for the specs and items of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.bus import EventBus, Subscription
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    MarketDataEvent,
    OrderEvent,
    Side,
    SignalEvent,
    SourceTable,
    SymbolTable,
)
from hftlab.events.records import MAX_LOG_SEQUENCE, RECORD, Flags, Rows, blank
from tests.bus.model import SESSION, Act, Call, Item, Spec, Where

RUN_FLAG = Flags.EMITTED.value


class Handlers:
    """Registers specs on a bus and notes every call. ``in_line``: async ones have no queue of their own."""

    def __init__(self, bus: EventBus, *, in_line: bool = False) -> None:
        self.bus = bus
        self.in_line = in_line
        self.calls: list[Call] = []
        self.subscriptions: dict[Spec, list[Subscription]] = {}

    def subscribe(self, spec: Spec) -> None:
        handler: Any
        if spec.mode == "fields":
            handler = self._fields_handler(spec)
        elif spec.mode == "batch":
            handler = self._handler(spec, _items_of_batch)
        else:
            handler = self._handler(spec, lambda event: [_item_of_event(event)])
        subscription = self.bus.subscribe(
            handler,
            *sorted(spec.types),
            symbol=spec.symbol,
            where=_where(spec.where),
            mode=spec.mode,
            name=spec.name,
            batch_rows=spec.batch_rows,
            # The model awaits in line, and in a run so does the bus, whatever was asked for.
            queue=0 if spec.waits is not None and self.in_line else None,
        )
        self.subscriptions.setdefault(spec, []).append(subscription)

    def _fields_handler(self, spec: Spec) -> Callable[..., Any]:
        sync = self._handler(spec, lambda given: given)

        def handler(event_id: int, symbol: str, epoch: int, received: int, cause: int) -> Any:
            return sync([_item(event_id, EventType.MARKET_DATA, symbol, epoch, received, cause)])

        async def async_handler(event_id: int, symbol: str, epoch: int, received: int, cause: int) -> Any:
            return await handler(event_id, symbol, epoch, received, cause)

        return handler if spec.waits is None else async_handler

    def _handler(self, spec: Spec, items_of: Callable[[Any], list[Item]]) -> Callable[..., Any]:
        def act(given: list[Item]) -> Any:
            return self._act(spec, given) if spec.acts(given) else None

        def note(given: list[Item]) -> None:
            self.calls.append(Call(spec.name, tuple(item.event_id for item in given), self.bus.clock.now_ns()))

        if spec.waits is None:

            def handler(given: Any) -> Any:
                items = items_of(given)
                note(items)
                return act(items)

            return handler
        turns = spec.waits

        async def async_handler(given: Any) -> Any:
            items = items_of(given)
            note(items)
            for _ in range(turns):
                await asyncio.sleep(0)
            # What it was given is still what it was: nobody wrote over a batch's rows meanwhile.
            assert items_of(given) == items
            return act(items)

        return async_handler

    def _act(self, spec: Spec, given: list[Item]) -> Any:
        last = given[-1]
        if spec.act is Act.RAISE:
            raise ValueError("wanted")
        if spec.act is Act.STOP:
            raise StopIteration
        if spec.act is Act.INTERRUPT:
            raise KeyboardInterrupt
        if spec.act is Act.GARBAGE:
            return 42
        if spec.act is Act.CANCEL and spec.other is not None:
            self.bus.cancel(spec.other.name)
        if spec.act is Act.CHANGE and spec.other is not None:
            self.subscribe(spec.other)
        events = [make_event(event_type, last.symbol, last.depth + 1) for event_type in spec.emitted_types()]
        if spec.act is Act.BATCH:
            return EventBatch.from_events(events)
        if spec.act is Act.BROKEN:
            return _broken(events)
        if spec.act is Act.LIST:
            return events
        return events[0] if events else None


def _broken(events: list[Event]) -> Iterator[Event]:
    yield from events
    raise ValueError("wanted")


def _where(where: Where) -> Callable[[Rows], Any] | None:
    def odd(records: Rows) -> npt.NDArray[np.bool_]:
        mask: npt.NDArray[np.bool_] = records["log_sequence"] % 2 == 1
        return mask

    def fails(records: Rows) -> npt.NDArray[np.bool_]:
        if (records["log_sequence"] % 5 == 2).any():
            raise ValueError("wanted")
        return np.ones(len(records), bool)

    def garbage(records: Rows) -> list[bool]:
        return [True] * len(records)

    return {Where.NONE: None, Where.ODD: odd, Where.FAILS: fails, Where.GARBAGE: garbage}[where]


def _item(event_id: int, event_type: EventType, symbol: str, depth: int, received: int, cause: int) -> Item:
    item = Item(event_id & MAX_LOG_SEQUENCE, event_type, symbol, depth, received, cause)
    assert item.event_id == event_id
    return item


def _item_of_event(event: Event) -> Item:
    return _item(event.event_id, event.event_type, event.symbol, event.epoch, event.received, event.cause)


def _items_of_batch(batch: EventBatch) -> list[Item]:
    names = [batch.symbols[index] for index in batch.records["symbol"].tolist()]
    columns = (batch.records[name].tolist() for name in ("type", "epoch", "received", "cause"))
    return [
        _item(event_id, EventType(kind), symbol, depth, received, cause)
        for event_id, symbol, kind, depth, received, cause in zip(
            batch.event_ids.tolist(), names, *columns, strict=True
        )
    ]


def items_of_rows(rows: Rows, symbols: SymbolTable) -> list[Item]:
    """What an observer is shown."""
    return _items_of_batch(EventBatch(rows, symbols, SourceTable(), session_number=SESSION))


def make_event(event_type: EventType, symbol: str, depth: int = 0, **fields: Any) -> Event:
    """An event of one type that validates, whose ``epoch`` is its depth."""
    if event_type is EventType.MARKET_DATA:
        return MarketDataEvent(symbol=symbol, epoch=depth, price=1.5, volume=2.0, **fields)
    if event_type is EventType.ORDER:
        return OrderEvent(symbol=symbol, epoch=depth, order_id="o", direction=Side.BUY, quantity=1.0, **fields)
    if event_type is EventType.FILL:
        return FillEvent(symbol=symbol, epoch=depth, order_id="o", executed_qty=1.0, executed_price=2.0, **fields)
    return SignalEvent(symbol=symbol, epoch=depth, signal_type="s", **fields)


def batch_of(items: Sequence[Item], symbols: SymbolTable) -> EventBatch:
    """Recorded rows for published items, under RECORD."""
    rows = np.zeros(len(items), RECORD)
    for event_type in EventType:
        where = np.array([index for index, item in enumerate(items) if item.event_type is event_type], np.intp)
        typed = blank(len(where), event_type)
        if event_type is EventType.ORDER:
            typed["direction"], typed["order_type"] = 1, 1
        for name, value in (("log_sequence", "number"), ("received", "received")):
            typed[name] = [getattr(items[index], value) for index in where]
        typed["timestamp"] = typed["received"]
        typed["symbol"] = [symbols.intern(items[index].symbol) for index in where]
        rows[where] = typed.view(RECORD)
    return EventBatch(rows, symbols, SourceTable(), session_number=SESSION)
