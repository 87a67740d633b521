"""Small captures made for tests: Binance messages as dictionaries, and files of lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

START_NS = 1_723_161_255_000_000_000
START_MS = 1_723_161_256_000
Message = dict[str, Any]


def quote(u: int, *, bid: Any = "61800.20", bid_size: Any = "2.5", spot: bool = False, **fields: Any) -> Message:
    """A bookTicker of futures, or of spot (which has neither kind nor times)."""
    message = {"u": u, "s": "BTCUSDT", "b": bid, "B": bid_size, "a": "61800.30", "A": "2.51"}
    times = {} if spot else {"e": "bookTicker", "E": START_MS, "T": START_MS - 1}
    return message | times | fields


def trade(t: int, *, spot: bool = False, **fields: Any) -> Message:
    """A trade."""
    message = {"e": "trade", "E": START_MS, "T": START_MS - 3, "s": "BTCUSDT", "t": t, "p": "61800.3", "q": "0.006"}
    return message | {"m": False} | ({"M": True} if spot else {"X": "MARKET"}) | fields


def depth(first: int, last: int, previous: int | None, **fields: Any) -> Message:
    """A depthUpdate: of futures with ``previous`` (pu), of spot without."""
    message = {"e": "depthUpdate", "E": START_MS, "s": "BTCUSDT", "U": first, "u": last}
    message |= {"b": [["58710.20", "0.014"], ["61496.50", "0"]], "a": [["61900.00", "1.5"]]}
    return message | ({} if previous is None else {"pu": previous, "T": START_MS - 2}) | fields


def snapshot(last: int, **fields: Any) -> Message:
    """A REST answer with the book."""
    return {"lastUpdateId": last, "bids": [["61800.20", "2.909"]], "asks": [["61800.30", "1.1"]]} | fields


def wrapped(stream: str, data: Message) -> Message:
    """The message as a combined stream sends it."""
    return {"stream": stream, "data": data}


def write(path: Path, messages: Iterable[Message | str], *, compress: bool = False) -> Path:
    """A capture with a line a message, 1 ms apart; a str is a line as it is."""
    lines = [
        message if isinstance(message, str) else f"{START_NS + index * 1_000_000} {json.dumps(message)}"
        for index, message in enumerate(messages)
    ]
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if compress else text)
    return path
