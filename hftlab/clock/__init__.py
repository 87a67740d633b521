"""Clocks, and times as users write them."""

from hftlab.clock.clocks import Clock, SystemClock, VirtualClock
from hftlab.clock.times import format_time, parse_time

__all__ = ["Clock", "SystemClock", "VirtualClock", "format_time", "parse_time"]
