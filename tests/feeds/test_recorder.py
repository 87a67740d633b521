"""The cryptofeed recorder's lines, and files of redundant connections merged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab import feeds
from hftlab.errors import FeedError
from hftlab.events import Flags
from hftlab.feeds import files
from hftlab.feeds.capture import Capture
from hftlab.feeds.progress import Progress
from hftlab.feeds.recorder import lines
from tests.feeds.recordings import (
    FETCHED,
    HANDSHAKE,
    ISO,
    ISO_NS,
    SENT,
    START_NS,
    START_S,
    Message,
    check_report,
    line,
    write,
)


def update(sequence: int, **fields: Any) -> Message:
    """An update of HitBTC, which stands here for the four formats."""
    params = {"ask": [{"price": "2.5", "size": "1"}], "bid": [], "sequence": sequence, "timestamp": ISO} | fields
    return {"jsonrpc": "2.0", "method": "updateOrderbook", "params": {"symbol": "ETHBTC"} | params}


def test_the_recorders_own_lines_are_skipped_by_what_they_tell(tmp_path: Path) -> None:
    path = write(tmp_path / "file", [HANDSHAKE, SENT, SENT, FETCHED, "", " \r", update(1)])
    report = feeds.read(path, format="hitbtc").report
    assert report.skipped == {"handshake": 1, "sent": 2, "fetched": 1, "blank": 2}
    assert report.messages == {"updateOrderbook": 1}
    check_report(report, 7)


def test_a_receive_time_is_read_to_the_last_digit(tmp_path: Path) -> None:
    text = json.dumps(update(1))
    path = write(tmp_path / "file", [f"1618677816.8434298: {text}", f"1618677817: {text}", f"1618677817.06: {text}"])
    assert feeds.read(path, format="hitbtc").column("received") == [
        1_618_677_816_843_429_800,
        1_618_677_817_000_000_000,
        1_618_677_817_060_000_000,
    ]


def test_a_time_later_than_the_arrival_is_kept_and_flagged(tmp_path: Path) -> None:
    path = write(tmp_path / "file", [line(update(1), 0), line(update(2, timestamp="2021-07-15T03:06:44.001Z"), 999)])
    batch = feeds.read(path, format="hitbtc")
    assert [bool(flags & Flags.AHEAD) for flags in batch.column("flags")] == [False, True]
    assert batch.column("timestamp") == [ISO_NS, START_NS + 1_000_000]


GOOD = json.dumps(update(1))
DAMAGED = {
    "no receive time": GOOD,
    "a receive time in ns": f"{START_NS}: {GOOD}",
    "a receive time in ms": f"{START_S}000: {GOOD}",
    "a space for the colon": f"{START_S}.5 {GOOD}",
    "no JSON": f"{START_S}.5: hello",
    "nothing after the time": f"{START_S}.5: ",
    "cut": f"{START_S}.5: {GOOD[:60]}",
    "a list": f"{START_S}.5: [1]",
    "two messages on a line": f"{START_S}.5: {GOOD}{GOOD}",
    "nested without end": f"{START_S}.5: " + "[" * 100_000,
    "binary": "\x00\x01\x02",
    "an address and nothing else": "wss://api.example.com/ws",
    "an address and no arrow of the recorder's": "wss://api.example.com/ws => 1626318403.723458",
    "an arrow and no address": "<-> 1626318403.723458",
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("merge", [False, True])
def test_a_damaged_line_is_counted_with_its_number_and_skipped(tmp_path: Path, text: str, merge: bool) -> None:
    path = write(tmp_path / "file", [update(1), text, update(2)])
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 3, the first .*file:2: "):
        batch = feeds.read(path, format="hitbtc", merge=merge)
    assert batch.records["sequence"].tolist() == [1, 2]
    check_report(batch.report, 3)


def test_damage_in_merged_files_is_told_by_its_own_file_and_line(tmp_path: Path) -> None:
    first = write(tmp_path / "first", [line(update(1), 10), line(update(2), 30), "damaged"])
    second = write(tmp_path / "second", [HANDSHAKE, line(update(1), 20), line({"method": "ticker"}, 40)])
    with pytest.warns(feeds.FeedWarning, match="2 damaged lines of 6"):
        report = feeds.read([first, second], format="hitbtc", merge=True).report
    assert sorted((Path(damage.file).name, damage.line) for damage in report.damaged) == [("first", 3), ("second", 3)]
    check_report(report, 6)


def test_files_are_read_one_after_another_unless_they_are_merged(tmp_path: Path) -> None:
    first = write(tmp_path / "first", [line(update(1), 10), line(update(2), 30)])
    second = write(tmp_path / "second", [line(update(1), 20), line(update(2), 30), line(update(3), 40)])
    with pytest.warns(feeds.FeedWarning, match="1 row arrived before the one above"):
        one_by_one = feeds.read([first, second], format="hitbtc")
    assert one_by_one.records["sequence"].tolist() == [1, 2, 1, 2, 3]
    merged = feeds.read([first, second], format="hitbtc", merge=True)
    assert merged.records["sequence"].tolist() == [1, 1, 2, 2, 3]
    assert merged.report.backwards == 0


@pytest.mark.parametrize("name", ["coinbase", "dydx", "hitbtc", "kraken-futures"])
def test_all_formats_of_the_recorder_merge_and_take_no_unknown_option(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "file", [HANDSHAKE])
    with pytest.warns(feeds.FeedWarning, match="no event in 2 lines; skipped: 2 handshake"):
        feeds.read([path, path], format=name, merge=True)
    with pytest.raises(FeedError, match=r"it takes: merge, .*venue"):
        feeds.read(path, format=name, merged=True)


recordings = st.lists(st.lists(st.integers(0, 50), max_size=20), min_size=1, max_size=4)


@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
@given(arrivals=recordings, piece_bytes=st.integers(30, 400), rows=st.integers(1, 20))
def test_merged_lines_are_in_the_order_of_arrival_then_of_files_then_of_lines(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[list[int]], piece_bytes: int, rows: int
) -> None:
    """Against a sort of all lines at once; a recorder's clock runs forwards."""
    folder = tmp_path_factory.mktemp("merge")
    paths, keyed = [], []
    for file, times in enumerate(arrivals):
        messages = [(at, file, index) for index, at in enumerate(sorted(times))]
        texts = [line(update(100 * of + index), at) for at, of, index in messages]
        paths.append(write(folder / str(file), [HANDSHAKE, *texts], compress=file % 2 == 0))
        keyed += messages
    expected = [100 * file + index for _, file, index in sorted(keyed)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hftlab.feeds.files.PIECE_BYTES", piece_bytes)
        batches = list(feeds.stream(paths, format="hitbtc", merge=True, rows=rows))
        whole = feeds.read(paths, format="hitbtc", merge=True)
    assert [number for batch in batches for number in batch.records["sequence"].tolist()] == expected
    assert [len(batch) for batch in batches[:-1]] == [rows] * (len(batches) - 1)
    assert whole.records.tobytes() == feeds.FeedBatch.concat(batches).records.tobytes()
    assert whole.report == batches[-1].report
    check_report(whole.report, sum(map(len, arrivals)) + len(arrivals))


@given(arrivals=recordings)
@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
def test_merging_loses_no_line_where_a_clock_ran_backwards(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("clock")
    paths = [
        write(folder / str(file), [HANDSHAKE, *(line(update(100 * file + i), at) for i, at in enumerate(times))])
        for file, times in enumerate(arrivals)
    ]
    numbers = feeds.read(paths, format="hitbtc", merge=True).records["sequence"].tolist()
    assert Counter(numbers) == Counter(100 * file + i for file, times in enumerate(arrivals) for i in range(len(times)))
    for file in range(len(arrivals)):
        own = [number for number in numbers if number // 100 == file]
        assert own == sorted(own)


def test_merging_reads_each_file_a_piece_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 1_000)
    paths = [write(tmp_path / str(file), [update(i) for i in range(1_000)]) for file in range(3)]
    names = tuple(map(str, paths))
    capture = Capture(names, Progress(names, shown=False))
    merged: Iterator[Any] = lines(capture, merge=True)
    for taken in range(1, 3_000):
        next(merged)
        # A line has 180 bytes, so a piece has at most 7 of them: no more is read ahead of what was taken, by any file.
        assert taken <= capture.tally.lines <= taken + 3 * 7
    assert np.all(np.array([len(list(merged)), capture.tally.lines]) == [1, 3_000])


def test_stream_cuts_a_recording_into_batches_in_bounded_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 1_000)
    path = write(tmp_path / "file", [update(i) for i in range(500)])
    batches = feeds.stream(path, format="hitbtc", rows=10)
    first = next(batches)
    assert first.records["sequence"].tolist() == list(range(10))
    assert first.report.lines < 40
    assert sum(len(batch) for batch in batches) == 490
