"""``hftlab gaps``: what it says of captures and sessions, and the formats' own options."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from hftlab import cli
from tests.feeds.captures import quote, trade, write

CRYPTOFEED = "cryptofeed-anomalies"


def capture_of(path: Path, numbers: list[int]) -> Path:
    """A capture of trades with these numbers, 1 ms apart."""
    return write(path, [trade(number) for number in numbers], compress=True)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["gaps", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def line_with(text: str, *parts: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if all(part in line for part in parts)]
    return line.split()


def test_a_capture_without_a_line_shows_that_gap_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = capture_of(tmp_path / "broken.gz", [*range(100, 150), *range(153, 400)])
    text = told(capsys, capture, "--format", "binance")
    assert text.startswith("gaps in broken.gz: 1 lost\n")
    gap = line_with(text, "150…152")
    assert gap[0].startswith("binance-")
    assert gap[1:6] == ["0", "150…152", "3", "lost", "deadline"]
    assert gap[6].startswith("2024-08-08T23:54:15.05")
    assert gap[7:] == ["100", "ms"]
    source = line_with(text, " 297 ")
    assert source[1:] == ["297", "297", "0", "0", "0", "0", "3"]


def test_deadline_and_window_decide_what_becomes_of_a_late_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Number 10 comes 200 ms after its place.
    capture = capture_of(tmp_path / "late.gz", [*range(10), *range(11, 211), 10, *range(211, 300)])
    read = (capture, "--format", "binance")
    for options, found in [
        ((), "1 lost"),
        (("--deadline", 0.5), "1 filled"),
        (("--deadline", 0.5, "--window", 50), "1 lost"),
    ]:
        text = told(capsys, *read, *options)
        assert text.startswith(f"gaps in late.gz: {found}\n")
    assert line_with(told(capsys, *read), " 300 ")[1:] == ["300", "299", "0", "1", "0", "0", "1"]
    assert "window" in told(capsys, *read, "--deadline", 0.5, "--window", 50)


def test_reordering_saves_what_comes_late_in_a_shared_counter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [*range(10), *range(20, 220, 3), 15, *range(300, 400)]
    capture = write(tmp_path / "quotes.gz", [quote(number) for number in numbers], compress=True)
    count = str(len(numbers))
    for options, late in [((), 1), (("--reorder", 0.2), 0)]:
        text = told(capsys, capture, "--format", "binance", *options)
        assert text.startswith("gaps in quotes.gz: none\n"), "numbers that are shared jump without a loss"
        assert line_with(text, f" {count} ")[1:5] == [count, str(len(numbers) - late), "0", str(late)]


def test_a_session_shows_the_gaps_of_the_capture_that_it_was_recorded_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, folder = capture_of(tmp_path / "broken.gz", [*range(50), 52, 51, *range(60, 90)]), str(tmp_path / "data")
    assert cli.main(["record", str(capture), "--format", "binance", "--directory", folder]) == 0
    capsys.readouterr()
    of_session = told(capsys, "broken", "--directory", folder)
    assert of_session.startswith("gaps in session broken: 1 filled, 2 lost\n")
    of_capture = told(capsys, capture, "--format", "binance")
    assert of_session.splitlines()[1:] == of_capture.splitlines()[1:]

    (first, *_) = rows_of(told(capsys, "broken", "--csv", "--directory", folder))
    assert (first["first"], first["last"], first["state"]) == ("50", "50", "lost")
    assert int(first["after"]) > int(first["before"]) > 0, "of a session, the events on either side are known"


def test_csv_has_every_gap_and_the_table_says_how_many_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [number for number in range(1, 1_000) if number % 10]
    capture = capture_of(tmp_path / "holes.gz", numbers[numbers.index(31) :])
    read = (capture, "--format", "binance")
    text = told(capsys, *read, "--rows", 3)
    assert "gaps in holes.gz: 96 lost" in text
    assert sum(" lost " in line for line in text.splitlines()) == 3
    assert "… 93 more: 93 lost; --csv has all" in text
    rows = rows_of(told(capsys, *read, "--csv"))
    assert [int(row["first"]) for row in rows] == list(range(40, 1_000, 10))

    file = tmp_path / "gaps.csv"
    text = told(capsys, *read, "--csv", file)
    assert "wrote 96 gaps to" in text
    assert rows_of(file.read_text(encoding="utf-8")) == rows


def test_lost_gaps_are_shown_before_filled_ones_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swapped = [number for start in range(0, 100, 2) for number in (start + 1, start)]
    capture = capture_of(tmp_path / "swapped.gz", [0, *[number + 1 for number in swapped], *range(105, 300)])
    text = told(capsys, capture, "--format", "binance", "--rows", 2)
    assert "gaps in swapped.gz: 50 filled, 1 lost" in text
    assert line_with(text, "101…104")[4] == "lost"
    assert "… 49 more: 49 filled; --csv has all" in text


def test_csv_never_writes_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = capture_of(tmp_path / "a.gz", [1, 2, 3])
    other = capture_of(tmp_path / "b.gz", [4, 5, 6])
    before = other.read_bytes()
    assert cli.main(["gaps", str(capture), "--format", "binance", "--csv", str(other)]) == 1
    assert "exists" in capsys.readouterr().err
    assert other.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        ([__file__], "say its --format"),
        (["one", "two"], "one session at a time"),
        (["missing.gz", "--format", "binance"], "there is no file missing.gz"),
        ([__file__, "--format", "morse"], "morse"),
        ([__file__, "--format", "hitbtc", "--option", "merge=maybe"], "merge is true or false; got 'maybe'"),
        ([__file__, "--format", "hitbtc", "--option", "speed=1"], "it takes: merge, history, venue"),
        ([__file__, "--format", "dydx", "--option", "number"], "number needs a value"),
        ([__file__, "--format", "dydx", "--option", "=3"], "NAME=VALUE"),
        ([__file__, "--format", "csv", "--option", "columns=a"], "--column"),
        (["x", "--window", "0"], "window is an integer of 1"),
        (["x", "--deadline", "-1"], "deadline_s is a number of seconds"),
        (["x", "--rows", "0"], "--rows"),
    ],
)
def test_an_error_is_one_clear_line_and_status_1(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["gaps", *arguments, "--directory", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hftlab gaps: ")
    assert said in error
    assert "Traceback" not in error


def test_csv_to_a_folder_that_is_not_there_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = capture_of(tmp_path / "a.gz", [1, 2, 3])
    assert cli.main(["gaps", str(capture), "--format", "binance", "--csv", str(tmp_path / "no" / "gaps.csv")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_hitbtcs_four_lines_merged_have_each_update_once_and_no_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], capture_path: Callable[[str], Path]
) -> None:
    files = [capture_path(f"{CRYPTOFEED}/HITBTC.ws.{line}.0.gz") for line in (1, 2, 3, 4)]
    text = told(capsys, *files, "--format", "hitbtc", "--option", "merge", "--rows", 50)
    assert text.splitlines()[0].endswith(": none")
    books = [line.split() for line in text.splitlines() if "/orderbook/" in line]
    received, delivered, duplicate = (sum(int(book[at].replace(",", "")) for book in books) for at in (1, 2, 3))
    assert (received, delivered, duplicate) == (2_068, 517, 1_551)

    folder = str(tmp_path / "data")
    record = ["record", *map(str, files), "--format", "hitbtc", "--option", "merge=yes", "--session", "hitbtc"]
    assert cli.main([*record, "--directory", folder]) == 0
    capsys.readouterr()
    of_session = told(capsys, "hitbtc", "--directory", folder, "--rows", 50)
    assert of_session.splitlines()[1:] == text.splitlines()[1:]


def test_dydx_by_its_connections_numbers_is_complete(
    capsys: pytest.CaptureFixture[str], capture_path: Callable[[str], Path]
) -> None:
    read = (capture_path(f"{CRYPTOFEED}/DYDX.ws.1.0.gz"), "--format", "dydx")
    assert ": none\n" in told(capsys, *read), "an offset's jump is no gap"
    assert ": 1 filled\n" in told(capsys, *read, "--option", "number=message_id")


def test_a_line_taken_out_of_a_real_capture_is_the_gap_that_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], capture_path: Callable[[str], Path]
) -> None:
    with gzip.open(capture_path(f"{CRYPTOFEED}/KRAKEN_FUTURES.ws.1.0.gz"), "rb") as opened:
        lines = opened.read().splitlines(keepends=True)
    book = b'"feed":"book","product_id":"PI_ETHUSD"'
    updates = [index for index, line in enumerate(lines) if book in line.replace(b" ", b"")]
    del lines[updates[100]]
    file = tmp_path / "cut.gz"
    file.write_bytes(gzip.compress(b"".join(lines)))
    (gap,) = rows_of(told(capsys, file, "--format", "kraken-futures", "--csv"))
    assert (gap["source"], gap["numbers"], gap["state"]) == ("kraken-futures/book/PI_ETHUSD", "1", "lost")
