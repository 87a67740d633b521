"""Copies of rows are exact, and nothing that memory held before gets into frames and digests."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from hftlab.events import EventBatch, EventType, SymbolTable
from hftlab.events.digest import RowDigest
from hftlab.events.frames import decode_frame, encode_frame
from hftlab.events.records import DTYPES, RECORD, Rows, blank
from hftlab.events.rowbytes import clear_padding, concat_rows, copy_rows, take_rows


def dirty(event_type: EventType, count: int = 8) -> Rows:
    """Rows whose unused bytes are 0xEE, as memory that was not cleared would have them."""
    raw = np.full(count * 128, 0xEE, np.uint8).view(DTYPES[event_type])
    clean = blank(count, event_type)
    for name in raw.dtype.names or ():
        raw[name] = clean[name]
    return raw


@pytest.mark.parametrize("event_type", list(EventType))
def test_copies_keep_every_byte(event_type: EventType) -> None:
    rows = dirty(event_type)
    assert copy_rows(rows).tobytes() == rows.tobytes()
    assert take_rows(rows, np.arange(8) >= 4).tobytes() == rows[4:].tobytes()
    assert take_rows(rows, np.array([2, 1])).tobytes() == rows[2:3].tobytes() + rows[1:2].tobytes()
    assert concat_rows([rows[:3], rows[3:]], RECORD).tobytes() == rows.tobytes()


@pytest.mark.parametrize("event_type", list(EventType))
def test_clearing_changes_unused_bytes_only(event_type: EventType) -> None:
    rows = dirty(event_type)
    clear_padding(rows)
    assert rows.tobytes() == blank(8, event_type).tobytes()


def test_clearing_looks_at_each_rows_own_type() -> None:
    parts = [dirty(event_type, 2) for event_type in EventType]
    mixed = concat_rows(parts, RECORD)
    clear_padding(mixed)
    assert mixed.tobytes() == b"".join(blank(2, event_type).tobytes() for event_type in EventType)


def test_unused_bytes_reach_neither_digest_nor_frame() -> None:
    digests, frames = set(), set()
    for rows in (dirty(EventType.MARKET_DATA), blank(8, EventType.MARKET_DATA)):
        batch = EventBatch(rows, SymbolTable(["BTCUSDT"]))
        digest = RowDigest()
        digest.update(batch)
        digests.add(digest.hexdigest())
        frames.add(encode_frame(batch))
    assert len(digests) == len(frames) == 1


def test_threads_encode_and_decode_side_by_side() -> None:
    batches = []
    for seed in range(4):
        rows = blank(1_024, EventType.MARKET_DATA)
        rows["price"] = np.random.default_rng(seed).normal(size=len(rows))
        batches.append(EventBatch(rows, SymbolTable(["BTCUSDT"])))
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(200):
            back = decode_frame(encode_frame(batches[index]))
            if back.records.tobytes() != batches[index].records.tobytes():
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
