"""The bus: bounded queues in memory, subscriptions by type, symbol and topic, and the duty cycle between them.

Start at ``bus`` (``EventBus``); ``subscriptions`` says what a handler can ask for, ``dispatch`` in which order things
happen, ``chunk`` how Python handlers are called fast.
"""

from hftlab.bus.bus import EventBus
from hftlab.bus.run import Run
from hftlab.bus.statistics import BusStatistics
from hftlab.bus.subscriptions import Subscription

__all__ = ["BusStatistics", "EventBus", "Run", "Subscription"]
