"""What a player shows for which statistics: pure functions from a replay's numbers and rows to plain texts.

Everything here is JSON that a view puts on the page with ``textContent``; no HTML is made, so text that came out of a
stream stays text. Times are UTC.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from typing import Any

from hftlab.clock import format_time
from hftlab.errors import HandlerFailed
from hftlab.events import Event, EventBatch, FillEvent, Flags, Kind, MarketDataEvent, OrderEvent, Side, SignalEvent
from hftlab.replay import ReplayStatistics

SPEEDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, math.inf)
"""What a player offers; a replay's ``speed`` may be set to any other, which is shown as well."""

COLUMNS = ("received", "event", "symbol", "price", "size", "side", "bid", "ask", "detail")
"""The columns of the latest events. Numbers are in the others' order: price, size, bid and ask."""

_NUMBERS = ("price", "size", "bid", "ask")
_MOST_DECIMALS = 8
_TRACEBACK_CHARACTERS = 20_000
_WORDS = {"ready": "Ready", "running": "Playing", "paused": "Paused", "done": "Done", "closed": "Closed"}


def speed_label(speed: float) -> str:
    """``10×``, ``max`` for infinity, ``step only`` for 0."""
    if math.isinf(speed):
        return "max"
    return f"{speed:,.10g}×" if speed else "step only"


def speed_choices(speed: float) -> list[list[str]]:
    """``[value, label]`` of each choice in order, with the speed that is set among them. Values are for ``float()``."""
    listed = sorted({*SPEEDS, speed})
    return [[repr(value), speed_label(value)] for value in listed]


def status(session: str, shown: ReplayStatistics, failures: int = 0) -> dict[str, Any]:
    """What stands above and below the picture: state, clock, place in the range, speed, counts."""
    begun = shown.end_ns > shown.start_ns > 0
    date, clock, fraction = clock_parts(shown.position_ns) if shown.position_ns else ("", "--:--:--", "")
    return {
        "session": session,
        "state": shown.state,
        "label": state_label(shown.state, shown.speed),
        "date": date,
        "clock": clock,
        "fraction": fraction,
        "position_ms": shown.position_ns / 1e6,
        "start_ms": shown.start_ns / 1e6 if begun else 0.0,
        "end_ms": shown.end_ns / 1e6 if begun else 0.0,
        "place": place(shown.position_ns, shown.start_ns, shown.end_ns) if begun else 0.0,
        "elapsed": span_label(shown.position_ns - shown.start_ns) if begun else "",
        "total": span_label(shown.end_ns - shown.start_ns) if begun else "",
        "speed": repr(shown.speed),
        "speeds": speed_choices(shown.speed),
        "counts": counts(shown, failures),
    }


def state_label(state: str, speed: float) -> str:
    """``Playing 10×``, ``Playing flat out``, ``Waiting for steps``, ``Paused`` …"""
    if state != "running":
        return _WORDS.get(state, state)
    if speed == 0:
        return "Waiting for steps"
    return "Playing flat out" if math.isinf(speed) else f"Playing {speed_label(speed)}"


def clock_parts(moment_ns: int) -> tuple[str, str, str]:
    """Date, time of day to the millisecond, and the rest of the nanoseconds, in groups of three."""
    text = format_time(moment_ns)
    return text[:10], text[11:23], f"{text[23:26]} {text[26:29]}"


def place(position_ns: int, start_ns: int, end_ns: int) -> float:
    """Where a moment lies in a range, by time: 0 … 1."""
    return min(max((position_ns - start_ns) / (end_ns - start_ns), 0.0), 1.0) if end_ns > start_ns else 0.0


def moment_at(fraction: float, start_ns: int, end_ns: int) -> int:
    """The moment at ``fraction`` (0 … 1) of a range, in whole ns: the inverse of ``place``, and always within it.

    Of a range whose end is not included, that is one ns before it at most.
    """
    moment_ns = start_ns + int((end_ns - start_ns) * max(fraction, 0.0))
    return max(min(moment_ns, end_ns - 1), start_ns)


def span_label(span_ns: int) -> str:
    """A duration: ``0.25 s``, ``12.3 s``, ``2:00.0``, ``1:02:03``."""
    seconds = max(span_ns, 0) / 1e9
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{int(minutes)}:{math.floor(rest * 10) / 10:04.1f}"
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{int(rest):02d}"


def counts(shown: ReplayStatistics, failures: int = 0) -> list[list[str]]:
    """``[name, figure, kind]`` of each count worth showing; kind is ``""`` or ``"bad"``. ``failures`` of handlers."""
    listed = [["delivered", f"{shown.delivered:,}", ""]]
    for name in ("emitted", "filtered", "skipped"):
        if getattr(shown, name):
            listed.append([name, f"{getattr(shown, name):,}", ""])
    if shown.state == "running" and shown.rate_hz:
        listed.append(["rate", rate_label(shown.rate_hz), ""])
    if shown.state == "running" and shown.lag_ns >= 1_000_000:
        listed.append(["behind by", span_label(shown.lag_ns), "bad" if shown.lag_ns >= 1_000_000_000 else ""])
    if failures:
        listed.append(["handler failures", f"{failures:,}", "bad"])
    return listed


def rate_label(rate_hz: float) -> str:
    """Events a second, to three digits: ``850/s``, ``12.3 k/s``, ``3.05 M/s``."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, " k"), (math.inf, 1e6, " M")):
        if rate_hz < limit:
            value = rate_hz / divisor
            digits = 0 if value >= 100 or not unit else 1 if value >= 10 else 2
            return f"{value:,.{digits}f}{unit}/s"
    return "∞/s"


# -- the latest events ------------------------------------------------------------------------------------------------


def latest_rows(batch: EventBatch, most: int) -> list[list[str]]:
    """Up to ``most`` rows, newest first, a text for each of ``COLUMNS`` and last ``"emitted"`` or ``""``.

    Numbers of prices share their decimals, so that they stand below each other. About 10 µs a row.
    """
    cells = [_cells(event) for event in reversed(list(batch[max(len(batch) - most, 0) :]))]
    prices = _decimals([cell[name] for cell in cells for name in ("price", "bid", "ask")])
    sizes = _decimals([cell["size"] for cell in cells])
    decimals = {"price": prices, "bid": prices, "ask": prices, "size": sizes}
    return [
        [*(number(cell[name], decimals[name]) if name in _NUMBERS else cell[name] for name in COLUMNS), cell["origin"]]
        for cell in cells
    ]


def _cells(event: Event) -> dict[str, Any]:
    nothing = math.nan
    cell: dict[str, Any] = {
        "received": format_time(event.received)[11:29],
        "event": event.event_type.topic,
        "symbol": getattr(event, "symbol", ""),
        "price": nothing,
        "size": nothing,
        "side": "",
        "bid": nothing,
        "ask": nothing,
        "detail": "",
        "origin": "emitted" if event.flags & Flags.EMITTED else "",
    }
    if isinstance(event, MarketDataEvent):
        cell |= {"event": event.kind.name.lower(), "price": event.price, "size": event.volume}
        cell |= {"bid": event.bid, "ask": event.ask, "side": side_label(event.side, event.kind is Kind.LEVEL)}
        if not math.isnan(event.bid_size) or not math.isnan(event.ask_size):
            cell["detail"] = f"{number(event.bid_size)} × {number(event.ask_size)}"
    elif isinstance(event, OrderEvent):
        cell |= {"price": event.price, "size": event.quantity, "side": side_label(event.direction)}
        cell["detail"] = f"{event.order_type.name.lower()} {event.order_id}"
    elif isinstance(event, FillEvent):
        cell |= {"price": event.executed_price, "size": event.executed_qty, "detail": event.order_id}
    elif isinstance(event, SignalEvent):
        cell["detail"] = f"{event.signal_type} {event.strength:,.6g} {event.strategy_id}"
    return cell


def side_label(side: Side, book: bool = False) -> str:
    """``buy`` and ``sell``, of a book level ``bid`` and ``ask``; nothing where the source told none."""
    if side == Side.NONE:
        return ""
    buys, sells = ("bid", "ask") if book else ("buy", "sell")
    return buys if side == Side.BUY else sells


def number(value: float, decimals: int | None = None) -> str:
    """As short as it is exact, or with ``decimals``; nothing for NaN, which means that nobody sent it."""
    if math.isnan(value):
        return ""
    return f"{value:,}" if decimals is None or abs(value) >= 1e15 else f"{value:,.{decimals}f}"


def _decimals(values: Sequence[float]) -> int:
    most = 0
    for value in values:
        if math.isfinite(value):
            text = f"{value:.{_MOST_DECIMALS}f}".rstrip("0")
            most = max(most, len(text) - text.index(".") - 1)
    return most


# -- errors -----------------------------------------------------------------------------------------------------------


def handler_fault(handler: str, error: BaseException, count: int) -> dict[str, str]:
    """The latest of ``count`` failed calls of handlers, with its traceback, for people."""
    times = f", the latest of {count:,} failures" if count > 1 else ""
    return {
        "name": type(error).__name__,
        "message": f"{error}\nin handler {handler}{times}. Nobody else is held up; mend it and run its cell again",
        "traceback": "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:],
    }


def fault(error: BaseException) -> dict[str, str]:
    """An error for people: its name, what it says, and (where there is code of theirs to look at) the traceback.

    Of a handler's failure, the traceback is that of what the handler raised.
    """
    cause = error.__cause__
    handler = isinstance(error, HandlerFailed) and cause is not None
    text = "".join(traceback.format_exception(cause if isinstance(error, HandlerFailed) and cause else error))
    return {
        "name": type(error).__name__,
        "message": str(error),
        "traceback": text[-_TRACEBACK_CHARACTERS:] if handler or not _is_ours(error) else "",
    }


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("hftlab.")
