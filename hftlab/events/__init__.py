"""Events: the four types, the 128-byte record they are moved as, and the bytes they are stored as.

Start at ``records`` (the row), ``types`` (the objects), ``batch`` (rows with their names); then ``frames`` and
``entries`` (what Redis holds), ``from_table`` and ``to_table`` (pandas), ``merge`` and ``digest`` (a session's order
and its fingerprint), ``ports`` (what the other packages know of each other). ``rules`` says what is valid,
``timestamps`` which times can't be true, ``rowbytes`` how rows are copied: never with ``records.copy()``.
"""

from hftlab.events.batch import EventBatch, as_event_type
from hftlab.events.records import ClockSource, EventType, Flags, Kind, OrderType, Priority, Side
from hftlab.events.tables import NumberRule, Source, SourceTable, SymbolTable
from hftlab.events.timestamps import TimePolicy
from hftlab.events.types import Event, FillEvent, MarketDataEvent, OrderEvent, SignalEvent

__all__ = [
    "Event",
    "MarketDataEvent",
    "OrderEvent",
    "FillEvent",
    "SignalEvent",
    "EventBatch",
    "EventType",
    "Kind",
    "Side",
    "OrderType",
    "Priority",
    "ClockSource",
    "Flags",
    "Source",
    "NumberRule",
    "SymbolTable",
    "SourceTable",
    "TimePolicy",
    "as_event_type",
]
