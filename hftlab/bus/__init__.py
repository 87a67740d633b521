"""The bus: lanes of bounded queues in memory, subscriptions by type, symbol and topic, and the duty cycle between them.

Start at ``bus`` (``EventBus``); ``subscriptions`` says what a handler can ask for, ``lanes`` which event is urgent,
``admission`` and ``control`` what gives way under load, ``dispatch`` in which order things happen within a lane,
``chunk`` how Python handlers are called fast.
"""

from hftlab.bus.bus import EventBus
from hftlab.bus.flowing import Flow, Overflow
from hftlab.bus.priorities import Priorities
from hftlab.bus.run import Run
from hftlab.bus.statistics import BusStatistics, HandlerStatistics, LaneStatistics
from hftlab.bus.subscriptions import Subscription

__all__ = [
    "BusStatistics",
    "EventBus",
    "Flow",
    "HandlerStatistics",
    "LaneStatistics",
    "Overflow",
    "Priorities",
    "Run",
    "Subscription",
]
