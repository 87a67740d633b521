"""Monitoring: what flowed past, counted and pictured.

``summary`` adds up a session as it is recorded or replayed; ``figures`` turns arrays into plotly figures,
``page`` the whole into a file.
"""

from hftlab.monitor.page import page
from hftlab.monitor.summary import SessionSummary

__all__ = ["SessionSummary", "page"]
