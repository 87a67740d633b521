"""What all formats share: files and formats that are not there, formats of one's own, and the report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hftlab import feeds
from hftlab.errors import FeedError, ValidationError
from hftlab.events import EventBatch, Flags, MarketDataEvent, SignalEvent, Source
from hftlab.feeds import formats, report
from tests.feeds.captures import depth, quote, snapshot, trade, write


@pytest.fixture
def pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of one's own, as the docstring of ``formats`` shows it, for one test."""
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))

    @formats.register("pipes", "SYMBOL|ns|price|volume, one trade a line")
    def read_pipes(capture: feeds.Capture, *, venue: str = "mine") -> Iterator[EventBatch]:
        for piece in capture.pieces():
            events = []
            for index, line in enumerate(piece.lines):
                try:
                    symbol, at, price, volume = line.decode().split("|")
                    fields = {"price": float(price), "volume": float(volume), "source": Source(venue)}
                    events.append(MarketDataEvent(symbol=symbol, timestamp=int(at), kind="TRADE", **fields))  # type: ignore[arg-type]
                except ValueError as error:
                    capture.damage(piece, index, str(error))
            capture.messages("trade", len(events))
            yield EventBatch.from_events(events)


@pytest.mark.usefixtures("pipes")
def test_a_format_of_ones_own_is_a_function(tmp_path: Path) -> None:
    path = tmp_path / "ticks.txt"
    path.write_text("A|1|2.5|3\nB|2|3.5\nC|3|nan|1\nB|4|4.5|1\n")
    assert formats.names() == ["binance", "coinbase", "csv", "dydx", "hitbtc", "kraken-futures", "pipes"]
    with pytest.warns(feeds.FeedWarning, match="2 damaged lines of 4, the first .*ticks.txt:2: not enough values"):
        batch = feeds.read(path, format="pipes", times="keep", venue="desk")
    assert batch.column("symbol") == ["A", "B"]
    assert batch.column("source") == [Source("desk")] * 2
    assert batch.column("received") == [1, 4]
    assert batch.column("flags") == [Flags.LAST_PART | Flags.SOURCE_TIME] * 2
    with pytest.raises(FeedError, match="it takes: venue"):
        feeds.read(path, format="pipes", vanue="desk")


def _format(monkeypatch: pytest.MonkeyPatch, *batches: EventBatch) -> None:
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))

    @formats.register("made")
    def read_made(capture: feeds.Capture) -> Iterator[EventBatch]:
        list(capture.pieces())
        yield from batches


def test_rows_that_break_a_rule_do_not_get_past_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = EventBatch.from_events([MarketDataEvent(symbol="A", timestamp=5, volume=1)])
    batch.records["volume"] = -1
    _format(monkeypatch, batch)
    with pytest.raises(FeedError, match="format 'made': row 0: volume is a finite number of at least 0"):
        feeds.read(write(tmp_path / "file", ["x"]), format="made", times="keep")


def test_rows_without_any_time_do_not_get_past_any_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _format(monkeypatch, EventBatch.from_events([MarketDataEvent(symbol="A")]))
    with pytest.raises(FeedError, match="a timestamp or a time of its arrival"):
        feeds.read(write(tmp_path / "file", ["x"]), format="made", times="keep")


def test_a_format_may_give_batches_of_several_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    market = EventBatch.from_events([MarketDataEvent(symbol="A", received=5, volume=1)])
    signal = EventBatch.from_events([SignalEvent(symbol="B", timestamp=6, signal_type="UP")])
    last = EventBatch.from_events([MarketDataEvent(symbol="A", received=7, timestamp=3, volume=1)])
    _format(monkeypatch, market, signal, last)
    batch = feeds.read(write(tmp_path / "file", ["x"]), format="made", times="keep")
    assert batch.column("symbol") == ["A", "B", "A"]
    assert batch.report.events == {"tick": 2, "signal": 1}
    assert batch.column("flags")[0] == Flags.LAST_PART | Flags.ARRIVAL_TIME


@pytest.mark.parametrize("name", [None, "ftx", 7])
def test_an_unknown_format_is_an_error_that_lists_those_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(FeedError, match=r"'binance' \(.*'csv' \(.*'hitbtc' \("):
        feeds.read(write(tmp_path / "file", [quote(1)]), format=name)


def test_a_missing_an_empty_or_no_file_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    good, empty = write(tmp_path / "good", [quote(1)]), tmp_path / "empty.gz"
    empty.write_bytes(b"")
    for paths, message in (
        ([good, tmp_path / "missing.gz"], "there is no file .*missing.gz"),
        ([good, empty], "empty.gz is empty"),
        (tmp_path, "is a folder"),
        ([], "no file was given"),
        ([7], "a path is a str or a pathlib.Path; got 7"),
    ):
        with pytest.raises(FeedError, match=message):
            feeds.stream(paths, format="binance")  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, -1, True, 2.5])
def test_stream_takes_a_number_of_rows_above_zero(tmp_path: Path, rows: int) -> None:
    with pytest.raises(ValidationError, match="rows is how many"):
        feeds.stream(write(tmp_path / "file", [quote(1)]), format="binance", rows=rows)


def test_a_file_of_the_wrong_format_is_an_error_that_asks_for_the_right_one(tmp_path: Path) -> None:
    path = write(tmp_path / "file", ["symbol,price", "A,1"])
    with pytest.raises(
        FeedError, match=r"not one of 2 lines could be read as 'binance': .*file:1: .*binance, coinbase, csv, dydx"
    ):
        feeds.read(path, format="binance")


def test_a_capture_of_left_out_messages_alone_is_an_empty_batch_and_a_warning(tmp_path: Path) -> None:
    with pytest.warns(feeds.FeedWarning, match="no event in 2 lines; skipped: 2 aggTrade"):
        batch = feeds.read(write(tmp_path / "file", [{"e": "aggTrade"}] * 2), format="binance")
    assert (len(batch), batch.report.skipped) == (0, {"aggTrade": 2})


def test_files_in_the_wrong_order_are_told_of(tmp_path: Path) -> None:
    early, late = write(tmp_path / "1", [quote(1)]), write(tmp_path / "2", ["", quote(2)])
    with pytest.warns(feeds.FeedWarning, match="1 row arrived before the one above"):
        batch = feeds.read([late, early], format="binance")
    assert batch.records["sequence"].tolist() == [2, 1]
    assert feeds.read([early, late], format="binance").report.backwards == 0


def test_a_streams_warning_comes_once_and_at_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "file", [quote(1), "damaged", *map(quote, range(2, 30))])
    batches = feeds.stream(path, format="binance", rows=10)
    assert [len(next(batches)) for _ in range(3)] == [10, 10, 9]
    with pytest.warns(feeds.FeedWarning) as warned:
        assert next(batches, None) is None
    assert len(warned) == 1
    assert warned[0].filename == __file__


def test_a_reads_warning_points_at_the_line_that_read(tmp_path: Path) -> None:
    with pytest.warns(feeds.FeedWarning) as warned:
        feeds.read(write(tmp_path / "file", [quote(1), "damaged"]), format="binance")
    assert warned[0].filename == __file__


def test_only_so_much_damage_is_listed_and_all_of_it_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "file", [quote(1), *["damaged"] * 250])
    with pytest.warns(feeds.FeedWarning, match="250 damaged lines of 251"):
        found = feeds.read(path, format="binance").report
    assert (found.damaged_count, len(found.damaged)) == (250, report.DAMAGE_LISTED)
    frame = found.to_frame()
    assert frame.loc[frame["what"] == "damaged", "count"].sum() == 250
    assert frame.loc[frame["what"] == "damaged", "line"].iloc[0] == 2
    assert "240 more" in found._repr_html_()


def test_the_report_is_short_in_text_and_complete_in_a_table(tmp_path: Path) -> None:
    messages = [quote(1), trade(2), depth(3, 4, 2), snapshot(5), {"e": "<b>kline</b>"}, depth(5, 6, 4, a=[], b=[])]
    found = feeds.read(write(tmp_path / "btc.gz", messages, compress=True), format="binance").report
    assert repr(found) == (
        "FeedReport(btc.gz: 6 lines: 1 heartbeat, 1 quote, 1 trade, 3 level, 2 snapshot level; 1 skipped)"
    )
    frame = found.to_frame()
    table = dict(zip(zip(frame["what"], frame["kind"], strict=True), frame["count"], strict=True))
    assert table == {
        ("messages", "bookTicker"): 1,
        ("messages", "trade"): 1,
        ("messages", "depthUpdate"): 2,
        ("messages", "snapshot"): 1,
        ("skipped", "<b>kline</b>"): 1,
        ("events", "heartbeat"): 1,
        ("events", "quote"): 1,
        ("events", "trade"): 1,
        ("events", "level"): 3,
        ("events", "snapshot level"): 2,
        ("backwards", "rows"): 0,
        ("times", "ahead of arrival"): 6,
    }
    assert "<b>kline" not in found._repr_html_()


def test_a_feed_batch_is_an_event_batch_that_shows_its_report(tmp_path: Path) -> None:
    with pytest.warns(feeds.FeedWarning):
        batch = feeds.read(write(tmp_path / "file", [quote(1), "damaged", quote(2)]), format="binance")
    assert repr(batch).startswith("FeedBatch(2 market; BTCUSDT; 1 damaged line of 3, the first ")
    assert "FeedReport" in batch._repr_html_()
    assert type(batch[:1]) is EventBatch
    assert batch[:1] == EventBatch.from_events([batch[0]])
    assert len(feeds.FeedBatch.concat([batch, batch])) == 4


def test_progress_shows_only_when_reading_takes_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "file", [quote(1)])
    feeds.read(path, format="binance")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("hftlab.feeds.progress.SILENT_SECONDS", -1.0)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    feeds.read(path, format="binance")
    assert "reading" in capsys.readouterr().err
    feeds.read(path, format="binance", progress=False)
    assert capsys.readouterr().err == ""


def test_importing_feeds_loads_neither_pandas_nor_tqdm() -> None:
    code = "import sys, hftlab.feeds; print(sorted({'pandas', 'tqdm', 'numba', 'plotly'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
