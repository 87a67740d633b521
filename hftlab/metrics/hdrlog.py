"""Histogram logs in HdrHistogram's text format: what its tools in a dozen languages read, and what they wrote.

A log is comments (``#``), a legend, and a line an interval: begin and length in seconds, the maximum in ms, and the
counts as a V2 payload. A histogram's name is the line's tag, with what a tag can't hold as ``%20``.

**What survives.** A payload has HdrHistogram's buckets for 1, 2, 3 or 4 significant digits, which are ours at 16, 128,
1,024 and 16,384 sub-buckets: those are written as they are, others into the next finer ones, each bucket whole, so no
precision is lost. (HdrHistogram's own libraries tell a bucket's greatest value where we tell its middle.) What a
payload has no place for stands in a comment before the line: the exact extremes and sum, and the values below 0 and
above 2**62. ``read_log`` gets a log of ours back exactly; of others' logs the extremes and the mean are as precise as
the buckets.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np

from hftlab.clock import format_time
from hftlab.errors import CodecError, ValidationError, shown
from hftlab.metrics import kernels as at
from hftlab.metrics.histogram import Histogram
from hftlab.metrics.payload import HALF_BITS, Payload, decode, encode

_SECOND_NS = 1_000_000_000
_YEAR_NS = 365 * 86_400 * _SECOND_NS
_MS_NS = 1_000_000
_LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
_NUMBER = r"\d{1,12}(?:\.\d{0,12})?"
_TIMES = re.compile(rf"#\[(StartTime|BaseTime): *({_NUMBER}) ")
_LINE = re.compile(rf"(?:Tag=([^,]*),)?({_NUMBER}),({_NUMBER}),(?:[\d.,]*),([A-Za-z0-9+/=]+)")
_OURS = "#[hftlab: "


class _Beside(msgspec.Struct, forbid_unknown_fields=True):
    """What of a histogram the payload has no place for."""

    name: str
    unit: str
    sub_buckets: int
    minimum: int | None
    maximum: int | None
    sum: int
    negative: int
    overflow: int
    aside_minimum: int | None
    aside_maximum: int | None


class LogWriter:
    """Writes interval histograms to a log, one by one, and flushes each: a log that is cut off is whole up to there.

    A context manager, or ``close()`` it. ``start_ns`` (ns UTC; else the first histogram's begin) is the log's start:
    readers skip intervals that begin before it. An existing file is overwritten.
    """

    def __init__(self, path: str | Path, *, start_ns: int | None = None, comment: str = "") -> None:
        """Raises OSError where the file can't be written."""
        self._file = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - close() does
        self._start_ns = start_ns
        self._headed = False
        self.written = 0
        """Histograms written so far."""
        self._file.writelines(f"# {line}\n" for line in comment.splitlines())

    def write(self, histogram: Histogram) -> None:
        """Write one interval. About 0.8 ms. Raises ValidationError, with nothing written, without times to write."""
        begin_ns, end_ns = histogram.begin_ns, histogram.end_ns
        if begin_ns is None or end_ns is None or not 0 <= begin_ns <= end_ns:
            raise ValidationError(
                f"a log's histogram has begin_ns <= end_ns (set them, or take it from IntervalRecorder.interval); got "
                f"{begin_ns} and {end_ns}"
            )
        if self._start_ns is None:
            self._start_ns = begin_ns
        if begin_ns < self._start_ns:
            raise ValidationError(f"readers skip what begins before the log's start, {self._start_ns}; got {begin_ns}")
        if not self._headed:
            self._head(self._start_ns)
        tag = f"Tag={urllib.parse.quote(histogram.name, safe=_SAFE)}," if histogram.name else ""
        most = int(histogram.words[at.MAXIMUM]) if histogram.count else 0
        times = f"{_decimal(begin_ns, _SECOND_NS)},{_decimal(end_ns - begin_ns, _SECOND_NS)},{_decimal(most, _MS_NS)}"
        beside = msgspec.json.encode(_beside(histogram)).decode()
        self._file.write(f"{_OURS}{beside}]\n{tag}{times},{_encoded(histogram)}\n")
        self._file.flush()
        self.written += 1

    def close(self) -> None:
        """Close the file; twice is harmless."""
        self._file.close()

    def _head(self, start_ns: int) -> None:
        self._headed = True
        self._file.write("#[Histogram log format version 1.3]\n")
        # Digits for each nanosecond: rounded to ms, as HdrHistogram does it, a start may lie after the first interval,
        # which readers then skip.
        self._file.write(
            f"#[StartTime: {_decimal(start_ns, _SECOND_NS)} (seconds since epoch), {format_time(start_ns)}]\n"
        )
        self._file.write(f"#[BaseTime: 0.0 (seconds since epoch)]\n{_LEGEND}")

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LogWriter({self._file.name!r}: {self.written:,} histograms)"


def write_log(path: str | Path, histograms: Iterable[Histogram], *, comment: str = "") -> int:
    """Write histograms with ``begin_ns`` and ``end_ns`` as a log, in their order; return how many.

    An existing file is overwritten. Raises ValidationError for a histogram without times, OSError for the file.
    """
    chosen = list(histograms)
    start_ns = min((histogram.begin_ns for histogram in chosen if histogram.begin_ns is not None), default=None)
    with LogWriter(path, start_ns=start_ns, comment=comment) as writer:
        for histogram in chosen:
            writer.write(histogram)
        return writer.written


def read_log(path: str | Path) -> list[Histogram]:
    """The histograms of a log, in its order: names from their tags, times in ns UTC.

    ``sub_buckets`` are those it was written with; of logs that others wrote, what their significant digits come to (5
    digits are read with those of 4). About 3 ms each. Raises CodecError, with the line's number, for a line that is
    none of a log's.
    """
    found: list[Histogram] = []
    with open(path, encoding="utf-8", errors="replace") as lines:
        number = 0
        try:
            for read, histogram in _histograms(lines):
                number = read
                if histogram is not None:
                    found.append(histogram)
        except (CodecError, ValidationError, msgspec.DecodeError) as error:
            raise CodecError(f"{path}, line {number + 1}: {error}") from error
    return found


def _histograms(lines: Iterable[str]) -> Iterator[tuple[int, Histogram | None]]:
    """Each line's number and histogram; None for comments and the legend."""
    start_ns = base_ns = None
    beside: _Beside | None = None
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        yielded: Histogram | None = None
        if line.startswith(_OURS):
            beside = msgspec.json.decode(line[len(_OURS) : -1], type=_Beside)
        elif line.startswith("#"):
            match = _TIMES.match(line)
            if match and match[1] == "StartTime":
                start_ns = _ns(match[2])
            elif match:
                base_ns = _ns(match[2])
        elif line and not line.startswith('"'):
            match = _LINE.fullmatch(line)
            if match is None:
                raise CodecError(f"a log's line is [Tag=NAME,]begin,length,maximum,histogram; got {line[:60]!r}")
            begin_ns = _ns(match[2])
            if start_ns is None:
                start_ns = begin_ns
            if base_ns is None:
                # HdrHistogram's rule: stamps more than a year before the start are counted from the start.
                base_ns = start_ns if begin_ns < start_ns - _YEAR_NS else 0
            yielded = _restored(decode(match[4]), beside, urllib.parse.unquote(match[1] or ""))
            yielded.begin_ns = base_ns + begin_ns
            yielded.end_ns = yielded.begin_ns + _ns(match[3])
            beside = None
        yield number, yielded


def _encoded(histogram: Histogram) -> str:
    digits = next(digits for digits, bits in HALF_BITS.items() if 1 << bits >= histogram.sub_buckets)
    bits = HALF_BITS[digits]
    low, high, counts = histogram.buckets()
    # A bucket's middle, and so the whole bucket, goes where HdrHistogram would count it.
    indices = [at.bucket_of(middle, bits) for middle in (low + (high - low + 1) // 2).tolist()]
    return encode(indices, counts.tolist(), digits, at.TOP)


def _beside(histogram: Histogram) -> _Beside:
    words = histogram.words[: at.HEADER_WORDS].tolist()
    aside, count = histogram.negative + histogram.overflow, histogram.count
    return _Beside(
        name=histogram.name,
        unit=histogram.unit,
        sub_buckets=histogram.sub_buckets,
        minimum=words[at.MINIMUM] if count else None,
        maximum=words[at.MAXIMUM] if count else None,
        sum=(words[at.SUM_HIGH] << 32) + words[at.SUM_LOW],
        negative=histogram.negative,
        overflow=histogram.overflow,
        aside_minimum=words[at.ASIDE_MINIMUM] if aside else None,
        aside_maximum=words[at.ASIDE_MAXIMUM] if aside else None,
    )


def _restored(payload: Payload, beside: _Beside | None, tag: str) -> Histogram:
    spans = [(low, min(high, at.TOP) if low <= at.TOP else high) for low, high in payload.values()]
    if beside is None:
        histogram = Histogram(1 << min(HALF_BITS[payload.digits], 14), "ns", tag)
    else:
        histogram = Histogram(beside.sub_buckets, beside.unit, beside.name)
    # A count of 2**53 takes 8 million steps to record, and the sum has 95 bits.
    if sum(payload.counts) > 1 << 53 or sum(high * n for (_, high), n in zip(spans, payload.counts, strict=True)) >> 95:
        raise CodecError("the counts are greater than 2**53, or their sum than 2**95")
    middles = np.array([low + (high - low + 1) // 2 for low, high in spans], np.int64)
    counts = np.array(payload.counts, np.int64)
    at.record_runs(histogram.address, middles.ctypes.data, counts.ctypes.data, len(counts))
    if beside is not None:
        _set_exactly(histogram, beside)
    return histogram


def _set_exactly(histogram: Histogram, beside: _Beside) -> None:
    """Put the exact figures where the middles' are. Raises CodecError where they can't be of these buckets."""
    low, high, counts = histogram.buckets()
    words: Any = histogram.words
    if histogram.count:
        minimum, maximum, total = beside.minimum, beside.maximum, beside.sum
        least = sum(a * b for a, b in zip(low.tolist(), counts.tolist(), strict=True))
        most = sum(a * b for a, b in zip(high.tolist(), counts.tolist(), strict=True))
        if (
            minimum is None
            or maximum is None
            or not low[0] <= minimum <= high[0]
            or not low[-1] <= maximum <= high[-1]
            or not least <= total <= most
        ):
            raise CodecError(f"the exact figures are not of this histogram: {shown(beside, 300)}")
        words[at.MINIMUM], words[at.MAXIMUM] = minimum, maximum
        words[at.SUM_LOW], words[at.SUM_HIGH] = total & 0xFFFFFFFF, total >> 32
    aside = beside.negative + beside.overflow
    extremes = (beside.aside_minimum, beside.aside_maximum)
    if min(beside.negative, beside.overflow) < 0 or (aside > 0) != (None not in extremes):
        raise CodecError(f"the exact figures are not of this histogram: {shown(beside, 300)}")
    words[at.NEGATIVE], words[at.OVERFLOW] = beside.negative, beside.overflow
    if aside:
        words[at.ASIDE_MINIMUM], words[at.ASIDE_MAXIMUM] = extremes


_SAFE = "".join(chr(code) for code in range(33, 127) if chr(code) not in ",%\"'")


def _decimal(value: int, divisor: int) -> str:
    """``value / divisor`` to the last digit; the divisor is a power of ten."""
    return f"{value // divisor}.{value % divisor:0{len(str(divisor)) - 1}d}"


def _ns(text: str) -> int:
    """Seconds as ns, to the digit."""
    whole, _, part = text.partition(".")
    return int(whole) * _SECOND_NS + int(part[:9].ljust(9, "0"))
