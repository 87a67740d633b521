"""Streams: sessions of events in Redis, and a server of one's own to keep them in.

Start at ``manager`` (what users hold), ``keys`` (what is in Redis) and ``scripts`` (how it gets there); then
``appending`` and ``reading`` (the two ways), ``embedded`` (the server).
"""

from hftlab.streams.address import Address
from hftlab.streams.counters import StreamStatistics
from hftlab.streams.durability import Durability
from hftlab.streams.embedded import EmbeddedServer
from hftlab.streams.manager import RedisStreamManager
from hftlab.streams.retention import TrimResult
from hftlab.streams.sinks import Sink, SinkStatistics
from hftlab.streams.writers import AppendResult, Writer

__all__ = [
    "RedisStreamManager",
    "EmbeddedServer",
    "AppendResult",
    "Sink",
    "SinkStatistics",
    "TrimResult",
    "Writer",
    "Durability",
    "StreamStatistics",
    "Address",
]
