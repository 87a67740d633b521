"""Replays: a recorded session through the handlers of a bus: whole, paced, or event by event.

Start at ``replay`` (``Replay``, what users hold); ``course`` is one run of it, ``feeder`` brings the rows that are due,
``pace`` says when that is, ``selection`` which rows are wanted, ``transcript`` and ``trace`` what was delivered.
"""

from hftlab.replay.pace import Pace
from hftlab.replay.replay import Replay
from hftlab.replay.selection import Selection
from hftlab.replay.statistics import ReplayStatistics, State
from hftlab.replay.trace import PriceTrace

__all__ = ["Pace", "PriceTrace", "Replay", "ReplayStatistics", "Selection", "State"]
