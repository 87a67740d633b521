"""Clocks, and times as users write them."""

from hftlab.clock.clocks import Clock, SystemClock, VirtualClock
from hftlab.clock.skew import Skew, estimate_skew
from hftlab.clock.times import format_time, parse_time

__all__ = ["Clock", "Skew", "SystemClock", "VirtualClock", "estimate_skew", "format_time", "parse_time"]
