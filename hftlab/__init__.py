"""hftlab: a Jupyter-first research and simulation kernel for high-frequency trading.

The front door: the public names, imported when they are first used, so that ``import hftlab`` costs next to nothing.
The packages, in the order in which an event meets them::

    events      the four types, the 128-byte record, batches, frames
    feeds, sim  captures, tables and a simulated market into batches
    streams     Redis Streams: sessions, appends, reads, the embedded server
    replay      a session back through handlers
    pipeline    a session followed live, once through any crash: checkpoints, transactions, dead letters
    bus         lanes, queues, subscriptions, dispatch
    flow        what gives way under load: rules, breakers, throttles
    memory      how much memory there is left
    ring        the buffers underneath
    clock       what time it is, and how well that is known: NTP, stamps, skew
    metrics     histograms of latencies, events' journeys, and rates
    monitor     what flowed past, counted and pictured
    widgets     all of it live in the notebook
    doctor      what this machine is good for
    lab, cli    all of it together, for notebooks and for the command line
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hftlab import bus, clock, doctor, errors, feeds, flow, memory, metrics, monitor, sequence, sim, widgets
    from hftlab.bus import BusStatistics, EventBus, Flow, Overflow, Priorities
    from hftlab.clock import ClockState, Skew, SystemClock, VirtualClock
    from hftlab.ending import run
    from hftlab.events import (
        ClockSource,
        Event,
        EventBatch,
        EventType,
        FillEvent,
        Flags,
        Kind,
        MarketDataEvent,
        NumberRule,
        OrderEvent,
        OrderType,
        Priority,
        Side,
        SignalEvent,
        Source,
        TimePolicy,
    )
    from hftlab.flow import (
        BreakerChange,
        BreakerSettings,
        OverloadChange,
        OverloadSettings,
        ShedChange,
        ShedRule,
        SizeBounds,
        Throttle,
        Watermarks,
    )
    from hftlab.lab import Lab
    from hftlab.metrics import Histogram
    from hftlab.pipeline import EventProcessor, RetryPolicy
    from hftlab.replay import Replay
    from hftlab.ring import Ring
    from hftlab.sequence import Deduplicator, Gap, GapReason, GapState, GapTable, Ordering, Sequencer
    from hftlab.streams import EmbeddedServer, RedisStreamManager

_HOMES = {
    "hftlab.lab": ("Lab",),
    "hftlab.ending": ("run",),
    "hftlab.events": (
        "Event", "MarketDataEvent", "OrderEvent", "FillEvent", "SignalEvent", "EventBatch", "EventType", "Kind", "Side",
        "OrderType", "Priority", "ClockSource", "Flags", "Source", "NumberRule",
        "TimePolicy",
    ),
    "hftlab.bus": ("BusStatistics", "EventBus", "Flow", "Overflow", "Priorities"),
    "hftlab.flow": (
        "BreakerSettings", "BreakerChange", "OverloadSettings", "OverloadChange", "ShedRule", "ShedChange",
        "SizeBounds", "Throttle", "Watermarks",
    ),
    "hftlab.pipeline": ("EventProcessor", "RetryPolicy"),
    "hftlab.replay": ("Replay",),
    "hftlab.streams": ("RedisStreamManager", "EmbeddedServer"),
    "hftlab.ring": ("Ring",),
    "hftlab.sequence": ("Ordering", "Gap", "GapState", "GapReason", "GapTable", "Sequencer", "Deduplicator"),
    "hftlab.clock": ("SystemClock", "VirtualClock", "ClockState", "Skew"),
    "hftlab.metrics": ("Histogram",),
}  # fmt: skip
_PACKAGES = (
    "bus", "clock", "doctor", "memory", "feeds", "flow", "sequence", "sim", "metrics", "monitor", "widgets", "errors",
)  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "__version__",
    "Lab", "run", "EventBus", "Replay", "EventProcessor", "RetryPolicy", "RedisStreamManager", "EmbeddedServer", "Ring",
    "SystemClock", "VirtualClock", "ClockState", "Skew",
    "Event", "MarketDataEvent", "OrderEvent", "FillEvent", "SignalEvent", "EventBatch", "EventType", "Kind", "Side",
    "OrderType", "Priority", "ClockSource", "Flags", "Source", "NumberRule", "TimePolicy",
    "Ordering", "Gap", "GapState", "GapReason", "GapTable", "Sequencer", "Deduplicator",
    "BusStatistics", "Flow", "Overflow", "Priorities", "BreakerSettings", "BreakerChange", "OverloadSettings",
    "OverloadChange", "ShedRule", "ShedChange", "SizeBounds", "Throttle", "Watermarks", "Histogram",
    "bus", "clock", "doctor", "memory", "feeds", "flow", "sequence", "sim", "metrics", "monitor", "widgets", "errors",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"hftlab.{name}")
    else:
        raise AttributeError(f"hftlab has no {name!r}; it has: {', '.join(__all__)}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
