"""Impossible times in captures: what reading does with them, and what the report says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hftlab as hl
from hftlab import feeds
from hftlab.errors import FeedError, ValidationError
from hftlab.events import Flags
from tests.feeds.captures import START_MS, trade, write

FUTURES = "binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"
# As the venue sent it: in seconds where the format reads milliseconds, so that ns come out as ms would.
SECONDS = START_MS // 1_000


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Ten trades, of which the fourth has its time in another unit."""
    messages = [trade(t) for t in range(10)]
    messages[3] |= {"E": SECONDS, "T": SECONDS}
    return write(tmp_path / "trades", messages)


def test_a_capture_with_a_time_in_another_unit_is_read_without_it_and_warns(capture: Path) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 row has impossible times .1 unit; 1 rejected., as in timestamp"):
        batch = feeds.read(capture, format="binance")
    found = batch.report
    assert found.impossible == {"unit": 1}
    assert found.times.examples[0].startswith(f"timestamp {SECONDS * 1_000_000} looks like us: multiply by 1,000")
    # The trade's number goes on as a heartbeat.
    assert found.events == {"heartbeat": 1, "trade": 9}
    assert batch.column("sequence") == list(range(10))
    assert repr(found).endswith("1 heartbeat, 9 trade; 1 impossible times)")
    assert "looks like us" in found._repr_html_()
    frame = found.to_frame()
    assert frame.loc[frame["kind"] == "unit", "count"].tolist() == [1]


@pytest.mark.parametrize("times", ["flag", hl.TimePolicy(action="flag")])
def test_what_is_flagged_stays(capture: Path, times: hl.TimePolicy) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 flagged"):
        batch = feeds.read(capture, format="binance", times=times)
    assert batch.report.events == {"trade": 10}
    assert [bool(flags & Flags.IMPOSSIBLE_TIME) for flags in batch.column("flags")] == [row == 3 for row in range(10)]


def test_what_is_kept_is_read_as_it_is(capture: Path) -> None:
    batch = feeds.read(capture, format="binance", times="keep")
    assert batch.column("timestamp")[3] == SECONDS * 1_000_000
    assert not batch.report.troubles


def test_a_policy_may_end_the_reading(capture: Path) -> None:
    with pytest.raises(FeedError, match=r"format 'binance': row 3: timestamp .* looks like us"):
        feeds.read(capture, format="binance", times="raise")
    with pytest.raises(ValidationError, match="'reject', 'flag', 'raise', 'keep'; got 'drop'"):
        feeds.read(capture, format="binance", times="drop")  # type: ignore[arg-type]


def test_a_stream_counts_as_it_goes_on(capture: Path) -> None:
    batches = feeds.stream(capture, format="binance", rows=5)
    with pytest.warns(feeds.FeedWarning):
        reports = [batch.report for batch in batches]
    assert reports[-1].impossible == {"unit": 1}


def test_a_capture_of_nothing_but_impossible_times_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "trades", [trade(1, E=SECONDS, T=SECONDS), "damaged"])
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 2.*1 row has impossible times"):
        batch = feeds.read(path, format="binance")
    assert batch.report.times.rejected == 1


def test_a_real_recorder_that_is_behind_is_told_of_and_loses_nothing(capture_path: Callable[[str], Path]) -> None:
    batch = feeds.read(capture_path(FUTURES), format="binance", times="reject")
    assert len(batch) == 174_981
    assert not batch.report.troubles
    assert batch.report.times.recorder == (
        "the recorder's clock is about 1.27 s behind: 174,981 of 174,981 rows are from after their arrival"
    )
    assert "about 1.27 s behind" in batch.report._repr_html_()
    assert not np.any(batch.records["flags"] & Flags.IMPOSSIBLE_TIME.value)
