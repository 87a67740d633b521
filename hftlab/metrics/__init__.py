"""Measuring: histograms of latencies, interval by interval and exported, and rates."""

from hftlab.metrics.hdrlog import LogWriter, read_log, write_log
from hftlab.metrics.histogram import Histogram
from hftlab.metrics.rates import Rate, RateMeter
from hftlab.metrics.recorder import IntervalRecorder
from hftlab.metrics.statistics import HistogramStatistics

__all__ = [
    "Histogram",
    "HistogramStatistics",
    "IntervalRecorder",
    "LogWriter",
    "Rate",
    "RateMeter",
    "read_log",
    "write_log",
]
