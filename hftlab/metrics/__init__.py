"""Measuring: histograms of latencies, interval by interval and exported, and rates."""

from hftlab.metrics.hdrlog import LogWriter, read_log, write_log
from hftlab.metrics.histogram import Histogram
from hftlab.metrics.journeys import Journey, Latency, LatencyStatistics, Stage, percentile_curve
from hftlab.metrics.rates import Rate, RateMeter
from hftlab.metrics.recorder import IntervalRecorder
from hftlab.metrics.statistics import HistogramStatistics
from hftlab.metrics.wording import percentile_text, value_text

__all__ = [
    "Histogram",
    "HistogramStatistics",
    "IntervalRecorder",
    "Journey",
    "Latency",
    "LatencyStatistics",
    "LogWriter",
    "Rate",
    "RateMeter",
    "Stage",
    "percentile_curve",
    "percentile_text",
    "read_log",
    "value_text",
    "write_log",
]
