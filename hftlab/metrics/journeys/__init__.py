"""Where time goes: journeys of events, from the exchange to their handlers."""

from hftlab.metrics.journeys.journey import Journey
from hftlab.metrics.journeys.stages import Stage

__all__ = ["Journey", "Stage"]
