"""The command line, called as a person would, on the embedded server and on real files."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hftlab import cli

CAPTURE = "binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"


def small_capture(path: Path, lines: int = 200, *, damaged: bool = False) -> Path:
    """A capture in the Binance recorder's format: trades numbered one by one, a little late each."""
    written = []
    for index in range(lines):
        event_ms = 1_723_161_255_000 + index * 10
        trade = {
            "e": "trade", "E": event_ms, "T": event_ms, "s": "BTCUSDT", "t": 1_000 + index, "p": f"{60_000 + index}.10",
            "q": "0.5", "X": "MARKET", "m": bool(index % 2),
        }  # fmt: skip
        written.append(f"{event_ms * 1_000_000 + 3_000_000} " + json.dumps({"stream": "btcusdt@trade", "data": trade}))
    if damaged:
        written[7] = written[7][:40]
    path.write_bytes(gzip.compress("\n".join(written).encode()))
    return path


def digest_in(text: str) -> str:
    found = re.search(r"digest ([0-9a-f]{32})", text)
    assert found, text
    return found[1]


def test_a_capture_is_recorded_and_replayed_with_the_same_digest_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, folder = small_capture(tmp_path / "small.gz"), str(tmp_path / "data")
    assert cli.main(["record", str(capture), "--format", "binance", "--directory", folder]) == 0
    recorded = capsys.readouterr().out
    assert "recorded session small" in recorded
    assert "200 trades" in recorded
    assert "p50 3.00 ms" in recorded

    digests = []
    for options in ([], ["--prefetch", "1"]):
        assert cli.main(["replay", "--directory", folder, *options]) == 0
        replayed = capsys.readouterr().out
        assert "200 trades" in replayed
        digests.append(digest_in(replayed))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([], "1 impossible times"),
        (["--times", "flag"], "200 trades"),
        (["--times", "keep"], "200 trades"),
    ],
)
def test_recording_says_what_became_of_times_that_cannot_be_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], times: list[str], told: str
) -> None:
    capture = small_capture(tmp_path / "small.gz")
    text = gzip.decompress(capture.read_bytes()).replace(b'"E": 1723161255070, "T": 1723161255070', b'"E": 1, "T": 1')
    capture.write_bytes(gzip.compress(text))
    arguments = ["record", str(capture), "--format", "binance", "--directory", str(tmp_path / "data"), *times]
    if times == ["--times", "keep"]:
        assert cli.main(arguments) == 0
    else:
        with pytest.warns(UserWarning, match="1 row has impossible times"):
            assert cli.main(arguments) == 0
    assert told in capsys.readouterr().out


def test_recording_a_capture_again_writes_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture, folder = small_capture(tmp_path / "small.gz"), str(tmp_path / "data")
    for _ in range(2):
        assert cli.main(["record", str(capture), "--format", "binance", "--directory", folder]) == 0
    assert "0 events written, 200 were there already" in capsys.readouterr().out
    assert cli.main(["replay", "small", "--directory", folder]) == 0
    assert "200 events of 1 symbol" in capsys.readouterr().out


def test_equal_lines_are_not_taken_for_a_retry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "equal.csv"
    table.write_text("symbol,price,volume,timestamp\n" + "A,1.0,2.0,1723161255000000000\n" * 150_000)
    folder = str(tmp_path / "data")
    assert cli.main(["record", str(table), "--format", "csv", "--directory", folder]) == 0
    assert "150,000 events written, 0 were there already" in capsys.readouterr().out
    assert cli.main(["replay", "equal", "--directory", folder]) == 0
    assert "150,000 events of 1 symbol" in capsys.readouterr().out


def test_the_digest_does_not_depend_on_the_frame_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = small_capture(tmp_path / "small.gz", 3_000)
    digests = []
    for frame_rows in ("1024", "333", "4096"):
        folder = str(tmp_path / frame_rows)
        record = ["record", str(capture), "--format", "binance", "--directory", folder, "--frame-rows", frame_rows]
        assert cli.main(record) == 0
        capsys.readouterr()
        assert cli.main(["replay", "small", "--directory", folder]) == 0
        digests.append(digest_in(capsys.readouterr().out))
    assert len(set(digests)) == 1


def test_a_damaged_line_is_told_with_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = small_capture(tmp_path / "small.gz", damaged=True)
    with pytest.warns(UserWarning, match="1 damaged"):
        assert cli.main(["record", str(capture), "--format", "binance", "--directory", str(tmp_path / "data")]) == 0
    told = capsys.readouterr().out
    assert "199 trades" in told
    assert "1 damaged" in told


def test_a_part_of_a_session_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture, folder = small_capture(tmp_path / "small.gz"), str(tmp_path / "data")
    assert cli.main(["record", str(capture), "--format", "binance", "--directory", folder]) == 0
    capsys.readouterr()
    options = ["--start", "23:54:15.5", "--end", "2024-08-08T23:54:16Z", "--type", "market", "--symbol", "BTCUSDT"]
    assert cli.main(["replay", "small", "--directory", folder, *options]) == 0
    assert "50 trades" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay"], "nothing is recorded here yet"),
        (["replay", "nowhere"], "nowhere"),
        (["record", "missing.gz", "--format", "binance"], "there is no file missing.gz"),
        (["record", __file__, "--format", "morse"], "morse"),
        (["record", __file__, "--format", "csv", "--column", "volume"], "OURS=THEIRS"),
        (["demo", "--seconds", "0"], "--seconds"),
    ],
)
def test_an_error_is_one_clear_line_and_status_1(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--directory", str(tmp_path / "data")] if arguments[0] != "demo" else []
    assert cli.main([*arguments, *folder]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.startswith(f"hftlab {arguments[0]}: ")
    assert "Traceback" not in error


def test_the_demo_records_replays_and_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    assert cli.main(["demo", "--seconds", "5", "--html", str(report)]) == 0
    told = capsys.readouterr().out
    assert "the same digest both times" in told
    assert "nothing was written twice" in told
    assert "an event that append() acknowledged survives: kill -9 yes" in told
    page = report.read_text(encoding="utf-8")
    assert digest_in(told) in page
    assert "Plotly.newPlot" in page
    assert not re.search(r"<script[^>]+src=", page), "the report needs no network"


def test_compile_warms_the_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile"]) == 0
    assert "compiled" in capsys.readouterr().out


def test_options_that_are_not_ours_go_to_jupyterlab_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda program, command: commands.append(command))
    cli.main(["lab", "--directory", str(tmp_path / "mine"), "--no-browser", "--port=8899"])
    assert commands[0][1:4] == ["-m", "jupyter", "lab"]
    assert commands[0][-2:] == ["--no-browser", "--port=8899"]
    assert (tmp_path / "mine" / "01_quickstart.ipynb").exists()
    with pytest.raises(SystemExit):
        cli.main(["compile", "--port=8899"])
    assert "unrecognized arguments: --port=8899" in capsys.readouterr().err


def test_the_notebooks_are_found() -> None:
    assert (cli.notebooks_folder() / "01_quickstart.ipynb").exists()


def test_the_binance_capture_is_reported_as_its_provenance_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], capture_path: Callable[[str], Path]
) -> None:
    folder = str(tmp_path / "data")
    assert cli.main(["record", str(capture_path(CAPTURE)), "--format", "binance", "--directory", folder]) == 0
    recorded = capsys.readouterr().out
    assert cli.main(["replay", "--directory", folder]) == 0
    replayed = capsys.readouterr().out
    for told in (recorded, replayed):
        assert "22,435 quotes, 4,315 trades, 146,231 book levels, 2,000 snapshot levels" in told
        assert "latency (arrival - source time) p50 -1,2" in told
    digest_in(replayed)
