"""Replays: a recorded session through the handlers of a bus, whole or event by event.

Start at ``replay`` (``Replay``); ``selection`` says what range and filters can be asked for, ``transcript`` keeps the
digest.
"""

from hftlab.replay.replay import Replay, ReplayStatistics, State
from hftlab.replay.selection import Selection

__all__ = ["Replay", "ReplayStatistics", "Selection", "State"]
