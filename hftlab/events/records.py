"""The 128-byte record: one row of a NumPy structured array is one event, from the wire to the handler.

Every row is two cache lines. The first is the header that all types share, the second the payload of its type::

    byte  0         8        16       24           32    40     44   48   52    56     58    60   61       62    63
          timestamp received sequence log_sequence cause symbol span part epoch source flags type priority clock (1)
          i8        i8       i8       i8           i8    u4     u4   u4   u4    u2     u2    u1   u1       u1

    byte    64           72             80         81             88  96       104      112  113  114
    market  price        volume         bid                       ask bid_size ask_size kind side (14)
    order   price        quantity       direction  order_type (6) order_id: 40 bytes
    fill    executed_qty executed_price commission                order_id: 40 bytes
    signal  strength     signal_type: 24 bytes                        strategy_id: 32 bytes

Prices and quantities are f8, kind and order_type u1, side and direction i1; text ends with NULs. Bytes in parentheses
belong to no field and are 0 in rows that hftlab made.

What the header's fields mean (units: times are ns since 1970 UTC):

- ``timestamp``: the source's own time; with ``Flags.ARRIVAL_TIME`` the arrival stands in for one that was not sent.
- ``received``: the arrival, by the clock that ``clock`` names.
- ``sequence``: the source's number of the *message* (-1: the source has none). A message that covers a range of
  numbers covers ``sequence - span + 1 … sequence``. The rows of one message share it; ``part`` counts them from 0 and
  the last one has ``Flags.LAST_PART``.
- ``epoch``: counts the source's resets; numbers compare only within one epoch.
- ``log_sequence``: dense within a session, given at append, for all types together: the total order.
- ``cause``: the ``event_id`` of the event that caused this one (0: none).
- ``symbol``, ``source``: ids of the tables that travel with the rows (see ``tables``).

Prices and quantities are float64. Exact are: decimals of up to 15 significant digits (they print as they came), and
integers up to 2**53. NaN means that the source did not send the field; infinities never validate.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown

ROW_BYTES = 128
HEADER_BYTES = 64
NO_SEQUENCE = -1

ORDER_ID_BYTES = 40
SIGNAL_TYPE_BYTES = 24
STRATEGY_ID_BYTES = 32

Rows = npt.NDArray[np.void]


class EventType(enum.IntEnum):
    """The four types of events; the value is the row's ``type`` byte, ``topic`` the first word of its topics."""

    MARKET_DATA = 1
    ORDER = 2
    FILL = 3
    SIGNAL = 4

    @property
    def topic(self) -> str:
        """The word that names this type in topics and streams: ``market``, ``order``, ``fill`` or ``signal``."""
        return _TOPICS[self]


_TOPICS = {
    EventType.MARKET_DATA: "market",
    EventType.ORDER: "order",
    EventType.FILL: "fill",
    EventType.SIGNAL: "signal",
}


class Kind(enum.IntEnum):
    """What a market data event tells."""

    TICK = 0
    """Whatever fields are present, nothing promised."""
    QUOTE = 1
    """Best bid and ask with their sizes; price and volume are NaN."""
    TRADE = 2
    """Price, volume, and the aggressor's side where it is known."""
    LEVEL = 3
    """A level of the book: its side, price, and new total volume (0: the level is gone)."""


class Side(enum.IntEnum):
    """Of a trade's aggressor, a book level, or an order's direction."""

    SELL = -1
    NONE = 0
    BUY = 1
    ASK = SELL
    BID = BUY


class OrderType(enum.IntEnum):
    """How an order wants to be executed."""

    MARKET = 1
    LIMIT = 2
    STOP = 3
    STOP_LIMIT = 4


class Priority(enum.IntEnum):
    """The lane of an event; ``DEFAULT`` leaves it to the bus's policy for the type."""

    DEFAULT = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


class ClockSource(enum.IntEnum):
    """Which clock ``received`` came from, in rising order of trust."""

    UNKNOWN = 0
    APPLICATION = 1
    KERNEL = 2
    HARDWARE = 3


class Flags(enum.IntFlag):
    """Facts about a row, 16 bits."""

    NONE = 0
    LAST_PART = 1
    """The last row of its message."""
    ARRIVAL_TIME = 2
    """The source sent no time: ``timestamp`` is the arrival."""
    SOURCE_TIME = 4
    """Nobody stamped the arrival: ``received`` is the source's time."""
    SNAPSHOT = 8
    """Part of a full picture rather than of a change to it."""
    AHEAD = 16
    """``timestamp`` is later than ``received``: one of the two clocks is wrong."""
    EMITTED = 32
    """Returned by a handler in a run; ``log_sequence`` is its emission number there."""
    HEARTBEAT = 64
    """Carries a sequence number and nothing else. With a span of 0 it covers none: numbers up to its own were given."""
    END_OF_SESSION = 128
    """The source declares that no number after this one will come."""
    AFTER_GAP = 256
    """The first row of its source after numbers that were declared lost; the sequencer sets it."""
    IMPOSSIBLE_TIME = 512
    """One of its times can't be true (see ``timestamps``), and the policy was to keep the event nevertheless."""


_HEADER: dict[str, tuple[str, int]] = {
    "timestamp": ("<i8", 0),
    "received": ("<i8", 8),
    "sequence": ("<i8", 16),
    "log_sequence": ("<i8", 24),
    "cause": ("<i8", 32),
    "symbol": ("<u4", 40),
    "span": ("<u4", 44),
    "part": ("<u4", 48),
    "epoch": ("<u4", 52),
    "source": ("<u2", 56),
    "flags": ("<u2", 58),
    "type": ("u1", 60),
    "priority": ("u1", 61),
    "clock": ("u1", 62),
}

_PAYLOADS: dict[EventType, dict[str, tuple[str, int]]] = {
    EventType.MARKET_DATA: {
        "price": ("<f8", 64),
        "volume": ("<f8", 72),
        "bid": ("<f8", 80),
        "ask": ("<f8", 88),
        "bid_size": ("<f8", 96),
        "ask_size": ("<f8", 104),
        "kind": ("u1", 112),
        "side": ("i1", 113),
    },
    EventType.ORDER: {
        "price": ("<f8", 64),
        "quantity": ("<f8", 72),
        "direction": ("i1", 80),
        "order_type": ("u1", 81),
        "order_id": (f"S{ORDER_ID_BYTES}", 88),
    },
    EventType.FILL: {
        "executed_qty": ("<f8", 64),
        "executed_price": ("<f8", 72),
        "commission": ("<f8", 80),
        "order_id": (f"S{ORDER_ID_BYTES}", 88),
    },
    EventType.SIGNAL: {
        "strength": ("<f8", 64),
        "signal_type": (f"S{SIGNAL_TYPE_BYTES}", 72),
        "strategy_id": (f"S{STRATEGY_ID_BYTES}", 96),
    },
}


def _dtype(fields: dict[str, tuple[str, int]]) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": list(fields),
            "formats": [form for form, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": ROW_BYTES,
        }
    )


RECORD: np.dtype[Any] = _dtype({**_HEADER, "payload": ("V64", HEADER_BYTES)})
"""Rows of any type, side by side: the header by name, the payload as 64 opaque bytes."""

DTYPES: dict[EventType, np.dtype[Any]] = {
    event_type: _dtype({**_HEADER, **payload}) for event_type, payload in _PAYLOADS.items()
}
"""Rows of one type: header and payload by name. All have the same 128 bytes, so a view turns one into another."""

HEADER_FIELDS: tuple[str, ...] = tuple(_HEADER)
PAYLOAD_FIELDS: dict[EventType, tuple[str, ...]] = {t: tuple(p) for t, p in _PAYLOADS.items()}
TEXT_FIELDS: dict[EventType, dict[str, int]] = {
    event_type: {name: int(form[1:]) for name, (form, _) in payload.items() if form.startswith("S")}
    for event_type, payload in _PAYLOADS.items()
}
"""The bounded text fields of each type and how many bytes of UTF-8 each holds."""

# An event_id is a session's number and a log sequence; bit 62 marks ids that belong to a run, not to a session.
_LOG_BITS = 40
RUN_BIT = 1 << 62
MAX_LOG_SEQUENCE = (1 << _LOG_BITS) - 1
MAX_SESSION_NUMBER = (1 << 22) - 1


def event_id(session_number: int, log_sequence: int) -> int:
    """The 64-bit id of a recorded event: 22 bits of session number, 40 of log sequence. Raises ValidationError."""
    if not 0 < session_number <= MAX_SESSION_NUMBER or not 0 <= log_sequence <= MAX_LOG_SEQUENCE:
        raise ValidationError(
            f"an event_id needs a session number of 1 to {MAX_SESSION_NUMBER} and a log sequence of 0 to "
            f"{MAX_LOG_SEQUENCE}; got {shown(session_number)} and {shown(log_sequence)}"
        )
    return session_number << _LOG_BITS | log_sequence


def split_event_id(value: int) -> tuple[int, int]:
    """The (session number, log sequence) of a recorded event's id. Raises ValidationError for any other number."""
    if not isinstance(value, (int, np.integer)) or not 0 < value < RUN_BIT:
        raise ValidationError(
            f"an event_id of a recorded event is a positive integer below 2**62; got {shown(value)}. "
            "Ids at or above it belong to events that a handler emitted and that no session holds"
        )
    return int(value) >> _LOG_BITS, int(value) & MAX_LOG_SEQUENCE


def event_ids(records: Rows, session_number: int) -> npt.NDArray[np.int64]:
    """Every row's ``event_id``: int64 of the same length. 0 where the row is in no session. One vectorised pass."""
    log: npt.NDArray[np.int64] = records["log_sequence"]
    recorded = (session_number << _LOG_BITS) | log if session_number else np.zeros(len(records), np.int64)
    emitted = (records["flags"] & Flags.EMITTED) != 0
    return np.where(emitted, RUN_BIT | log, recorded) if emitted.any() else recorded


def blank(count: int, event_type: EventType) -> Rows:
    """``count`` fresh rows of one type: no number, a span of 1, a single and last part, and no float field sent.

    One allocation, aligned to 64 bytes only where NumPy happens to; rings align their own memory.
    """
    rows = np.zeros(count, DTYPES[event_type])
    rows["type"] = event_type
    rows["sequence"] = NO_SEQUENCE
    rows["span"] = 1
    rows["flags"] = Flags.LAST_PART
    for name in PAYLOAD_FIELDS[event_type]:
        if rows.dtype[name].kind == "f":
            rows[name] = np.nan
    return rows


def of_type(records: Rows, event_type: EventType) -> Rows:
    """The rows of one type under that type's dtype: a view where all rows have it, else a copy of those that do."""
    if records.dtype == DTYPES[event_type]:
        return records
    matching = records["type"] == event_type
    # Picked as opaque bytes: NumPy picks structured rows field by field, 20 times slower (see rowbytes).
    rows = records if matching.all() else records.view(f"V{ROW_BYTES}")[matching]
    return rows.view(DTYPES[event_type])
