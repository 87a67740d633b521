"""Where time goes: journeys of events, from the exchange to their handlers."""

from hftlab.metrics.journeys.curve import percentile_curve
from hftlab.metrics.journeys.journey import Journey
from hftlab.metrics.journeys.latency import Latency, LatencyStatistics
from hftlab.metrics.journeys.stages import Stage

__all__ = ["Journey", "Latency", "LatencyStatistics", "Stage", "percentile_curve"]
