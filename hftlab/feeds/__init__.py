"""Captures and tables into batches: ``read`` and ``stream``; ``formats`` has what they know and takes what you add.

Start at ``reading``; then ``binance`` and ``tables`` (the two built-in formats), ``report`` (what was found) and
``files`` (gzip, lines and their numbers).
"""

from hftlab.feeds import binance, formats, tables
from hftlab.feeds.batch import FeedBatch
from hftlab.feeds.capture import Capture
from hftlab.feeds.reading import read, stream
from hftlab.feeds.report import Damage, FeedReport, FeedWarning

__all__ = [
    "read",
    "stream",
    "formats",
    "binance",
    "tables",
    "FeedBatch",
    "FeedReport",
    "FeedWarning",
    "Damage",
    "Capture",
]
