"""Monitoring: what flowed past, counted and pictured.

``summary`` adds up a session as it is recorded or replayed; ``figures`` turns arrays into plotly figures.
"""

from hftlab.monitor.summary import SessionSummary

__all__ = ["SessionSummary"]
