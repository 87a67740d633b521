"""Clocks, what they are worth, and times as users write them.

Start at ``clocks`` (what everything that asks for the time is given) and ``system``: this machine's clock, with its
``discipline`` (how it gets to UTC), ``line`` (what it shows) and ``history``; ``kernels`` reads it in compiled code.
``estimate`` has the values that they hand to each other. ``ntp`` asks servers what UTC is, ``stamps`` what time the
kernel or the card saw a datagram, and ``skew`` how far a recorder's clock was off, from the data alone. ``times`` reads
what users write.
"""

from hftlab.clock.clocks import Clock, VirtualClock
from hftlab.clock.estimate import ClockReading, ClockState, Estimate, Exchange
from hftlab.clock.history import ClockHistory
from hftlab.clock.ntp.statistics import NtpStatistics, ServerState, ServerStatistics
from hftlab.clock.skew import Skew, estimate_skew
from hftlab.clock.system import SystemClock
from hftlab.clock.times import format_time, parse_time

__all__ = [
    "Clock",
    "ClockHistory",
    "ClockReading",
    "ClockState",
    "Estimate",
    "Exchange",
    "NtpStatistics",
    "ServerState",
    "ServerStatistics",
    "Skew",
    "SystemClock",
    "VirtualClock",
    "estimate_skew",
    "format_time",
    "parse_time",
]
