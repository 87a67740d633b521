"""``read`` and ``stream``: captures and tables into batches."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hftlab.clock import SystemClock
from hftlab.errors import FeedError, ValidationError
from hftlab.events import EventBatch, EventType, Flags
from hftlab.events.records import RECORD, Rows
from hftlab.events.rowbytes import concat_rows
from hftlab.events.rules import check_records
from hftlab.events.time_checks import TimeChecks
from hftlab.events.timestamps import TimeAction, TimePolicy, as_time_policy
from hftlab.feeds import formats
from hftlab.feeds.batch import FeedBatch
from hftlab.feeds.capture import Capture
from hftlab.feeds.progress import Progress
from hftlab.feeds.report import FeedReport, FeedWarning

Path = str | os.PathLike[str]
STREAM_ROWS = 1 << 16


def read(
    paths: Path | Iterable[Path],
    format: str | None = None,
    *,
    progress: bool = True,
    times: TimePolicy | TimeAction | None = None,
    **options: Any,
) -> FeedBatch:
    """All events of a capture, or of several files as one session in the order given, as one batch with a ``.report``.

    ``format`` names the format ("binance", "coinbase", "dydx", "hitbtc", "kraken-futures", "csv", or one of your own),
    ``options`` are the format's: see ``binance.read_binance``, ``hitbtc.read_hitbtc`` (and its ``merge=True``, for
    files of redundant connections), ``tables.read_csv`` … Files may be gzip, whatever their names. Rows are in the
    order of the lines. Damaged lines are counted, listed in the report and skipped, and one FeedWarning tells of them.

    ``times``: what becomes of events whose times can't be true; by default those in another unit, below zero, before
    1980 or from 2200 on are rejected, those that are doubtful (far ahead, far back) flagged, and all counted. See
    ``hl.TimePolicy``; or "reject", "flag", "raise" or "keep" for all of them.

    Raises FeedError for a missing or empty file, an unknown format or option, a file in which not one line could be
    used, and a time that the policy raises for. Needs memory for all rows, 128 bytes each, twice for a moment;
    ``stream`` does not. Blocks until it is done.
    """
    (batch,) = _open(paths, format, progress, times, options, sys.maxsize)
    _warn(batch.report)
    return batch


def stream(
    paths: Path | Iterable[Path],
    format: str | None = None,
    *,
    rows: int = STREAM_ROWS,
    progress: bool = True,
    times: TimePolicy | TimeAction | None = None,
    **options: Any,
) -> Iterator[FeedBatch]:
    """The same as ``read``, as batches of ``rows`` rows (the last one fewer) under shared tables, in bounded memory.

    Yields at least one batch. A batch's ``.report`` is of what had been read when it was handed out, the last one's of
    everything; the FeedWarning comes after that. A message's rows may lie in two batches. Raises FeedError at once for
    files and formats that are not there, and on the way for what is wrong inside a file.

    When you append them to a session, give each batch a key of its own (``key=f"{name}:{number}"``): two batches of
    equal content would else count as one that was appended twice.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ValidationError(f"rows is how many rows a batch has, an integer above 0; got {rows!r:.100}")
    return _telling(_open(paths, format, progress, times, options, rows))


def _telling(batches: Iterator[FeedBatch]) -> Iterator[FeedBatch]:
    report = FeedReport()
    for batch in batches:
        report = batch.report
        yield batch
    _warn(report)


def _open(
    paths: Path | Iterable[Path],
    format: str | None,
    progress: bool,
    times: TimePolicy | TimeAction | None,
    options: dict[str, Any],
    rows: int,
) -> Iterator[FeedBatch]:
    checks = TimeChecks(as_time_policy(times))
    chosen = formats.find(format)
    files = _files(paths)
    bar = Progress(files, shown=progress)
    capture = Capture(files, bar)
    batches = chosen.batches(capture, options)
    return _bounded(capture, checks, _checked(capture, checks, batches, chosen.name), rows, bar)


def _files(paths: Path | Iterable[Path]) -> tuple[str, ...]:
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not listed:
        raise FeedError("no file was given: pass a path, or a list of paths in the order of their time")
    files = []
    for path in listed:
        try:
            file = os.fspath(path)
        except TypeError:
            raise FeedError(f"a path is a str or a pathlib.Path; got {path!r:.100}") from None
        if not os.path.exists(file):
            raise FeedError(f"there is no file {file} (looked in {os.getcwd()})")
        if os.path.isdir(file):
            raise FeedError(
                f"{file} is a folder: pass its files, sorted by time, as in sorted(Path({file!r}).glob('*'))"
            )
        if os.path.getsize(file) == 0:
            raise FeedError(f"{file} is empty (0 bytes): was the recorder stopped before it wrote?")
        files.append(file)
    return tuple(files)


def _checked(capture: Capture, checks: TimeChecks, batches: Iterator[EventBatch], name: str) -> Iterator[EventBatch]:
    """The batches under the capture's tables: here, once, every row of every format meets the rules."""
    now_ns = SystemClock().now_ns()
    try:
        for batch in batches:
            for run in batch.runs():
                _complete_times(run.records)
            # Before the rules: a time below zero breaks one, and would end the reading instead of costing its row.
            possible = checks.apply(batch.using(capture.symbols, capture.sources), now_ns=now_ns)
            for run in possible.runs():
                check_records(EventType(int(run.records["type"][0])), run.records)
            if len(possible):
                capture.tally.count_rows(possible)
                yield possible
    except ValidationError as error:
        raise FeedError(f"format {name!r}: {error}") from error
    tally = capture.tally
    unread = not tally.events and not checks.findings().rejected and not tally.skipped.keys() - {"blank", "header"}
    if tally.damaged_count and unread:
        raise FeedError(
            f"not one of {tally.lines:,} lines could be read as {name!r}: {tally.damaged[0]}. "
            f"Is it the right format (there are {', '.join(formats.names())}), with the right options?"
        )


def _complete_times(rows: Rows) -> None:
    """Where a format gave only one of the two times, it stands in for the other, as it does in tables."""
    for missing, given, flag in (
        ("received", "timestamp", Flags.SOURCE_TIME),
        ("timestamp", "received", Flags.ARRIVAL_TIME),
    ):
        absent = rows[missing] == 0
        if absent.any():
            rows["flags"][absent] |= flag.value
            rows[missing][absent] = rows[given][absent]
    if (rows["received"] == 0).any():
        row = int(np.argmax(rows["received"] == 0))
        raise ValidationError(f"row {row}: a recorded event has a timestamp or a time of its arrival; got neither")


def _bounded(
    capture: Capture, checks: TimeChecks, batches: Iterator[EventBatch], rows: int, bar: Progress
) -> Iterator[FeedBatch]:
    """Cuts and joins to ``rows`` rows. The last batch is made at the end of the files, so its report has it all."""
    waiting: list[Rows] = []
    count = 0
    try:
        for batch in batches:
            waiting.append(batch.records)
            count += len(batch)
            if count <= rows:
                continue
            joined = _joined(waiting)
            while count > rows:
                yield _with_report(joined[:rows], capture, checks)
                joined, count = joined[rows:], count - rows
            waiting = [joined]
    finally:
        bar.close()
    yield _with_report(_joined(waiting) if waiting else EventBatch.empty().records, capture, checks)


def _joined(parts: list[Rows]) -> Rows:
    dtypes = {part.dtype for part in parts}
    return parts[0] if len(parts) == 1 else concat_rows(parts, RECORD if len(dtypes) > 1 else parts[0].dtype)


def _with_report(records: Rows, capture: Capture, checks: TimeChecks) -> FeedBatch:
    report = capture.tally.report(checks.findings())
    return FeedBatch(records, capture.symbols, capture.sources, report=report)


def _warn(report: FeedReport) -> None:
    if report.troubles:
        warnings.warn(FeedWarning(report.troubles), stacklevel=3)
