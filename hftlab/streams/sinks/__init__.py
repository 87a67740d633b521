"""Sinks: they keep what a bus accepted, in a session.

Start at ``sink`` (what users hold); then ``buffer`` (what was accepted and is not acknowledged), ``choosing`` (which
rows are wanted), ``behind`` and ``ahead`` (the two modes), ``statistics`` (what a crash would cost now) and
``registry`` (the sinks of a lab).
"""

from hftlab.streams.sinks.registry import Sinks
from hftlab.streams.sinks.sink import Sink
from hftlab.streams.sinks.statistics import SinkStatistics

__all__ = ["Sink", "SinkStatistics", "Sinks"]
