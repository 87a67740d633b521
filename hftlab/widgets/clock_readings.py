"""What a clock panel says of which readings: pure functions from figures to plain texts.

Everything here is JSON that a view puts on the page with ``textContent``; no HTML is made, so that what a server calls
itself stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hftlab.clock import ClockReading, ClockState, ServerStatistics
from hftlab.metrics import value_text

MINUS = "\N{MINUS SIGN}"
ADVICE = 'lab = hl.Lab(ntp=["time.example.org"])'
"""What to type where nobody disciplines the clock."""
MOST_NOTE = 160

_MEANINGS = {
    ClockState.SYNCED: "What is missing from the clock to UTC, and how far that may be off; it is slewed away, never "
    "stepped. The bound holds as far as the servers' own bounds do.",
    ClockState.HOLDOVER: "No server has answered for a while: the clock goes on at the rate that it had, and the bound "
    "grows.",
    ClockState.UNSYNCED: "The time is this machine's word. With NTP servers, it is compared with UTC, and told with a "
    "bound:",
}
_TOO_WIDE = "The bound has grown too wide to be told as UTC; the next estimate mends it."
_ASKING = "The servers that were named have not agreed on an estimate yet."
_KINDS = {
    "truechimer": "good", "falseticker": "bad", "refused": "bad", "kissed": "bad",
    "alone": "warn", "unreachable": "warn", "stale": "warn",
}  # fmt: skip

_BELIEVED = {"truechimer", "alone"}


# -- the reading ------------------------------------------------------------------------------------------------------


def status(reading: ClockReading, servers: Sequence[ServerStatistics], *, asked: bool) -> dict[str, Any]:
    """The top: state, the reading in words, what it means, and what to type. ``asked``: whether servers were named."""
    unknown = reading.bound_ns is None
    meaning = _MEANINGS[reading.state]
    if reading.state is ClockState.UNSYNCED and (asked or not unknown):
        meaning = _ASKING if unknown else _TOO_WIDE
    return {
        "title": "Clock",
        "state": "running" if reading.state is ClockState.SYNCED else "ready",
        "clock": reading.state.value,
        "label": reading.state.value,
        "badges": badges(reading, servers),
        "reading": words(reading, servers),
        "meaning": meaning,
        "advice": "" if asked or not unknown else ADVICE,
    }


def words(reading: ClockReading, servers: Sequence[ServerStatistics] = ()) -> str:
    """``SYNCED: +1.2 µs ± 340 µs, by 3 servers; drift +12.3 ppm``."""
    state = reading.state.value
    if reading.bound_ns is None:
        return f"{state}: nobody has compared this clock with UTC"
    agreeing = sum(server.state.value in _BELIEVED for server in servers)
    by = f", by {agreeing} server{'s' if agreeing != 1 else ''}" if agreeing and state == "SYNCED" else ""
    away = f"{signed(reading.offset_ns)} ± {value_text(reading.bound_ns, 'ns')}"
    return f"{state}: {away}{by}; drift {ppm(reading.drift_ppb)}"


def badges(reading: ClockReading, servers: Sequence[ServerStatistics]) -> list[list[str]]:
    """Kind, text and meaning of each: the slew, and servers that are not to be believed."""
    listed = []
    if reading.bound_ns is not None:
        told = "How much faster than the machine's counter it runs now"
        listed.append(["plain", f"slews {ppm(reading.slew_ppb)}", told])
    for state, kind, meaning in (
        ("falseticker", "bad", "Their intervals do not meet the others': they are not used"),
        ("alone", "warn", "Nobody answers who could contradict it: name three servers or more"),
        ("unreachable", "warn", "None of the last eight questions was answered"),
    ):
        names = [server.server for server in servers if server.state.value == state]
        if names:
            text = f"{len(names)} {state}{'s' if len(names) != 1 and state == 'falseticker' else ''}"
            listed.append([kind, text, f"{', '.join(names)[:MOST_NOTE]}: {meaning}"])
    return listed


def signed(ns: float) -> str:
    """A duration with its sign: ``+1.2 µs``, ``0 ns``."""
    text = value_text(abs(ns), "ns")
    return text if ns == 0 else f"{'+' if ns > 0 else MINUS}{text}"


def ppm(ppb: float) -> str:
    """Parts per million, signed: ``+12.3 ppm``, to a thousandth."""
    value = round(ppb / 1e3, 3)
    return "0 ppm" if value == 0 else f"{'+' if value > 0 else MINUS}{abs(value):,.4g} ppm"


# -- servers ----------------------------------------------------------------------------------------------------------


HEADS = (
    ("Server", "", "As it was named"),
    ("State", "", "Whether its time agrees with the others'"),
    ("Stratum", "n", "Steps from a reference clock"),
    ("Reach", "n", "Of the last eight questions, how many were answered"),
    ("Offset", "n", "What is missing from this clock to its time"),
    ("± Bound", "n", "Half the delay, dispersion, and its own distance to its reference"),
    ("Delay", "n", "The round trip"),
    ("Jitter", "n", "How much its samples scatter"),
    ("Asked each", "n", "The polling interval"),
    ("Answered", "n", "Of the questions that were sent"),
    ("Not used", "n", "Answers that failed a check, and questions without one"),
)
"""The columns: head, kind (n: numbers), and what it means."""


def table(servers: Sequence[ServerStatistics], *, asked: bool) -> dict[str, Any]:
    """The servers: ``rows`` of a kind, a note, and texts by ``HEADS``."""
    return {
        "heads": [list(head) for head in HEADS],
        "rows": [[kind_of(server), note(server), *_cells(server)] for server in servers],
        "more": "" if servers else "No server has been asked yet" if asked else "No NTP server is named",
    }


def kind_of(server: ServerStatistics) -> str:
    """How a server is marked: ``good``, ``warn``, ``bad`` or ``plain``."""
    return _KINDS.get(server.state.value, "plain")


def note(server: ServerStatistics) -> str:
    """Why answers were not used, by reason, and the last error."""
    refused = sorted(server.refused.items(), key=lambda one: -one[1])
    parts = [f"{count:,} {reason}" for reason, count in refused if count]
    told = "not used: " + ", ".join(parts) if parts else ""
    if server.last_error:
        told += f"{'; ' if told else ''}last: {server.last_error}"
    return told if len(told) <= MOST_NOTE else told[: MOST_NOTE - 1] + "…"


def _cells(server: ServerStatistics) -> list[str]:
    return [
        server.server if server.address in ("", server.server) else f"{server.server} ({server.address})",
        server.state.value,
        "" if server.stratum is None else str(server.stratum),
        f"{server.reach.bit_count()} of 8",
        "" if server.offset_ns is None else signed(server.offset_ns),
        _span(server.bound_ns),
        _span(server.delay_ns),
        _span(server.jitter_ns),
        value_text(server.poll_s * 1e9, "ns"),
        f"{server.answered:,} of {server.sent:,}",
        f"{sum(server.refused.values()):,}" if any(server.refused.values()) else "",
    ]


def _span(ns: float | None) -> str:
    return "" if ns is None else value_text(ns, "ns")
