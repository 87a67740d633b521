"""Captures and tables into batches: ``read`` and ``stream``; ``formats`` has what they know and takes what you add.

Start at ``reading``; then the formats: ``binance``, ``tables`` (CSV), and ``coinbase``, ``dydx``, ``hitbtc`` and
``kraken_futures``, all four files of the cryptofeed recorder (``recorder``: its lines, and several files merged).
``options`` reads a format's options from text, ``fingerprint`` tells readings apart.
``messages`` makes the rows of all venues, ``report`` says what was found, ``files`` reads gzip and numbers the lines.

Live: ``udp`` and ``tcp`` are the receivers; ``intake`` stamps and checks what ``parsing`` makes of their messages.
"""

from hftlab.feeds import binance, coinbase, dydx, formats, hitbtc, kraken_futures, tables
from hftlab.feeds.batch import FeedBatch
from hftlab.feeds.capture import Capture
from hftlab.feeds.fingerprint import fingerprint
from hftlab.feeds.framing import LengthPrefix
from hftlab.feeds.intake import ReceiverStatistics
from hftlab.feeds.options import mapping_from, options_from
from hftlab.feeds.reading import read, stream
from hftlab.feeds.report import Damage, FeedReport, FeedWarning
from hftlab.feeds.tcp import TcpReceiver
from hftlab.feeds.udp import UdpReceiver

__all__ = [
    "read",
    "stream",
    "formats",
    "binance",
    "coinbase",
    "dydx",
    "hitbtc",
    "kraken_futures",
    "tables",
    "options_from",
    "mapping_from",
    "fingerprint",
    "FeedBatch",
    "FeedReport",
    "FeedWarning",
    "Damage",
    "Capture",
    "UdpReceiver",
    "TcpReceiver",
    "LengthPrefix",
    "ReceiverStatistics",
]
