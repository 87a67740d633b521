"""Logs are read by HdrHistogram's own Python library, and its logs by us."""

from __future__ import annotations

import base64
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import CodecError, ValidationError
from hftlab.metrics import Histogram, IntervalRecorder, LogWriter, read_log, write_log
from hftlab.metrics.payload import decode, encode
from tests.metrics.test_histogram import content, filled
from tests.metrics.test_kernels import lists

histogram_module = pytest.importorskip(
    "hdrh.histogram", reason="hdrhistogram is not installed: pip install -e '.[test]'"
)
log_module = pytest.importorskip("hdrh.log")

TOP = 1 << 62
BEGIN = 1_723_161_255_123_456_789
REFERENCE = histogram_module.HdrHistogram(1, TOP, 2)


def timed(given: list[int], sub_buckets: int = 128, begin_ns: int = BEGIN, name: str = "") -> Histogram:
    histogram = filled(given, sub_buckets)
    histogram.begin_ns, histogram.end_ns, histogram.name = begin_ns, begin_ns + 1_000_000_001, name
    return histogram


def read_by_hdrhistogram(path: Path) -> list[Any]:
    reader = log_module.HistogramLogReader(str(path), REFERENCE)
    try:
        found = []
        while (histogram := reader.get_next_interval_histogram()) is not None:
            found.append(histogram)
        return found
    finally:
        reader.input_file.close()


def counts_of(histogram: Any) -> dict[int, int]:
    """Counts by a bucket's least value."""
    counts = ((index, histogram.get_count_at_index(index)) for index in range(histogram.counts_len))
    return {histogram.get_value_from_index(index): count for index, count in counts if count}


@settings(max_examples=15, deadline=None)
@given(st.lists(lists, min_size=1, max_size=3))
def test_hdrhistogram_reads_back_the_same_counts(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.hlog"
    written = [timed(part, begin_ns=BEGIN + place) for place, part in enumerate(parts)]
    assert write_log(path, written) == len(parts)
    found = read_by_hdrhistogram(path)
    assert len(found) == len(parts)
    for ours, theirs in zip(written, found, strict=True):
        low, _, counts = ours.buckets()
        assert counts_of(theirs) == dict(zip(low.tolist(), counts.tolist(), strict=True))
        assert theirs.get_total_count() == ours.count


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([2, 16, 64, 128, 512, 1_024]), lists)
def test_a_log_of_ours_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, sub_buckets: int, given: list[int]
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.hlog"
    written = timed(given, sub_buckets, name='a name, with 100% "signs" ü')
    write_log(path, [written])
    (found,) = read_log(path)
    assert content(found) == content(written)
    assert (found.name, found.unit, found.begin_ns, found.end_ns) == (
        written.name, "ns", written.begin_ns, written.end_ns,
    )  # fmt: skip


def test_the_other_library_tells_the_same_percentiles_times_and_tags(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    written = timed(rng.lognormal(12, 2, 5_000).astype(np.int64).tolist(), name="lane CRITICAL")
    write_log(tmp_path / "x.hlog", [written], comment="of a test\nin two lines")
    (found,) = read_by_hdrhistogram(tmp_path / "x.hlog")
    for percent in (1, 50, 90, 99):
        theirs = found.get_value_at_percentile(percent)
        # They tell a bucket's greatest value, we its middle; and of 99.9 % they round the rank.
        assert written.quantile((round(percent * 50) - 0.5) / 5_000) == pytest.approx(theirs, rel=2 * written.precision)
    assert found.get_tag() == "lane%20CRITICAL"
    assert found.get_start_time_stamp() == pytest.approx(BEGIN / 1e6)
    assert found.get_end_time_stamp() == pytest.approx((BEGIN + 1_000_000_001) / 1e6)
    lines = (tmp_path / "x.hlog").read_text().splitlines()
    assert lines[:4] == [
        "# of a test",
        "# in two lines",
        "#[Histogram log format version 1.3]",
        "#[StartTime: 1723161255.123456789 (seconds since epoch), 2024-08-08T23:54:15.123456789Z]",
    ]
    assert '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"' in lines


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("lowest", [1, 1_000])
def test_logs_of_the_other_library_are_read(tmp_path: Path, digits: int, lowest: int) -> None:
    theirs = histogram_module.HdrHistogram(lowest, 3_600_000_000_000, digits)
    given = np.random.default_rng(digits).lognormal(15, 2, 300).astype(np.int64).tolist()
    for value in given:
        theirs.record_value(value, 3)
    theirs.set_start_time_stamp(1_000.0)
    theirs.set_end_time_stamp(3_500.0)
    text = io.StringIO()
    writer = log_module.HistogramLogWriter(text)
    writer.output_log_format_version()
    writer.output_legend()
    writer.output_interval_histogram(theirs)
    (tmp_path / "x.hlog").write_text(f"{text.getvalue()}Tag=x,{text.getvalue().splitlines()[-1]}\n")
    first, second = read_log(tmp_path / "x.hlog")
    assert (first.name, second.name) == ("", "x")
    assert (first.begin_ns, first.end_ns) == (1_000_000_000, 3_500_000_000)
    assert content(first) == content(second)
    assert first.sub_buckets == {1: 16, 2: 128, 3: 1_024, 4: 16_384, 5: 16_384}[digits]
    assert first.count == theirs.get_total_count() == 900
    ours, exact = first.quantiles([0.1, 0.5, 0.99]), np.quantile(given * 3, [0.1, 0.5, 0.99], method="inverted_cdf")
    assert ours == pytest.approx(exact.tolist(), rel=first.precision + 10.0**-digits, abs=lowest)


def test_stamps_long_before_the_start_count_from_it(tmp_path: Path) -> None:
    line = f"0.500,1.000,0,{encode([3], [2], 2, TOP)}\n"
    (tmp_path / "a").write_text(f"#[StartTime: 1723161255.000 (seconds since epoch), Thu Aug 08]\n{line}")
    (tmp_path / "b").write_text(f"#[BaseTime: 100.000 (seconds since epoch)]\n{line}")
    (tmp_path / "c").write_text(line)
    assert [read_log(tmp_path / name)[0].begin_ns for name in "abc"] == [
        1_723_161_255_500_000_000, 100_500_000_000, 500_000_000,
    ]  # fmt: skip


@given(st.dictionaries(st.integers(0, 7_000), st.integers(1, (1 << 63) - 1), max_size=20))
def test_a_payload_comes_back_as_it_was(buckets: dict[int, int]) -> None:
    indices = sorted(buckets)
    payload = decode(encode(indices, [buckets[index] for index in indices], 2, TOP))
    assert (payload.digits, payload.shift) == (2, 0)
    assert dict(zip(payload.indices, payload.counts, strict=True)) == buckets


def wrapped(inner: bytes, cookie: int = 0x1C849314) -> str:
    packed = zlib.compress(inner)
    return base64.b64encode(struct.pack(">II", cookie, len(packed)) + packed).decode()


def header(length: int = 0, *, cookie: int = 0x1C849313, digits: int = 2, lowest: int = 1, ratio: float = 1.0) -> bytes:
    return struct.pack(">IIIIQQd", cookie, length, 0, digits, lowest, TOP, ratio)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("!!!!", "is base64; got '!!!!'"),
        ("AAAA", "begins with 8 bytes; got 3"),
        (wrapped(header(), cookie=0x1C849302), "V2 payloads .* got 0x1c849302"),
        (base64.b64encode(struct.pack(">II", 0x1C849314, 9)).decode(), "says 9 compressed bytes; got 0"),
        (base64.b64encode(struct.pack(">II", 0x1C849314, 3) + b"abc").decode(), "can't be decompressed"),
        (
            base64.b64encode(struct.pack(">II", 0x1C849314, 20) + zlib.compress(header())[:20]).decode(),
            "ends too early",
        ),
        (wrapped(b"short"), "header of 40 bytes; got 5"),
        (wrapped(header(cookie=0x1C849301)), "V2 encoding of integers"),
        (wrapped(header(digits=6)), "1 to 5 digits"),
        (wrapped(header(lowest=0)), "lowest value of at least 1"),
        (wrapped(header(ratio=0.5)), "a ratio of 1"),
        (wrapped(header(lowest=1 << 60)), "do not fit 63 bits"),
        (wrapped(header(5) + b"\x02"), "says 5 bytes of counts; got 1"),
        (wrapped(header(1) + b"\x80"), "end in the middle of a number"),
        (wrapped(header(9) + b"\xff" * 8 + b"\x00"), "buckets; got a count for bucket"),
        (wrapped(bytes(80 << 20)), "more than 67,108,864 bytes"),
    ],
)
def test_a_hostile_payload_is_refused_with_what_is_wrong(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(CodecError, match=told):
        decode(text)
    (tmp_path / "x.hlog").write_text(f"# one\n0.5,1.0,0.0,{text.replace('!', 'AAA')}\n")
    with pytest.raises(CodecError, match="line 2: "):
        read_log(tmp_path / "x.hlog")


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_arbitrary_counts_are_read_or_refused(body: bytes) -> None:
    try:
        payload = decode(wrapped(header(len(body)) + body))
    except CodecError:
        return
    assert all(count > 0 for count in payload.counts)
    assert payload.indices == sorted(set(payload.indices))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("minimum\":5", "minimum\":4"), "not of this histogram"),
        (("maximum\":900", "maximum\":904"), "not of this histogram"),
        (("sum\":905", "sum\":-905"), "not of this histogram"),
        (("negative\":1", "negative\":-1"), "not of this histogram"),
        (("aside_minimum\":-3", "aside_minimum\":null"), "not of this histogram"),
        (("sub_buckets\":128", "sub_buckets\":3"), "power of two"),
        (("\"sum\"", "\"some\""), "unknown field"),
        ((": {", ": ?{"), "malformed"),
        (("0.000900,", "0.000900;"), "a log's line is"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    path = tmp_path / "x.hlog"
    write_log(path, [timed([5, 900, -3])])
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(CodecError, match=rf"x.hlog, line \d: .*{told}"):
        read_log(path)


def test_counts_that_nobody_could_have_made_are_refused(tmp_path: Path) -> None:
    for indices, counts in (([1], [1 << 60]), ([7_000], [1 << 50])):
        (tmp_path / "x.hlog").write_text(f"0.5,1.0,0.0,{encode(indices, counts, 2, TOP)}\n")
        with pytest.raises(CodecError, match="greater than 2"):
            read_log(tmp_path / "x.hlog")


def test_a_writer_flushes_each_interval_and_refuses_what_readers_would_skip(tmp_path: Path) -> None:
    path = tmp_path / "x.hlog"
    recorder = IntervalRecorder(BEGIN, name="x")
    with LogWriter(path) as writer:
        for second in range(1, 4):
            recorder.record(second, 10)
            writer.write(recorder.interval(BEGIN + second * 1_000_000_000))
            assert len(read_log(path)) == second
        with pytest.raises(ValidationError, match="readers skip what begins before"):
            writer.write(timed([1], begin_ns=BEGIN - 1))
        with pytest.raises(ValidationError, match="begin_ns <= end_ns"):
            writer.write(Histogram())
        assert repr(writer) == f"LogWriter({str(path)!r}: 3 histograms)"
    total = Histogram()
    for histogram in read_log(path):
        total.merge(histogram)
    assert content(total) == content(recorder.total())
    assert sum(histogram.get_total_count() for histogram in read_by_hdrhistogram(path)) == 30


def test_a_sum_of_more_than_64_bits_is_kept(tmp_path: Path) -> None:
    written = timed([])
    written.record(TOP, 1 << 31)
    write_log(tmp_path / "x.hlog", [written])
    assert content(read_log(tmp_path / "x.hlog")[0]) == content(written)
    assert written.mean == TOP


def test_an_empty_histogram_is_an_interval_too(tmp_path: Path) -> None:
    write_log(tmp_path / "x.hlog", [timed([])])
    (ours,), (theirs,) = read_log(tmp_path / "x.hlog"), read_by_hdrhistogram(tmp_path / "x.hlog")
    assert ours.count == theirs.get_total_count() == 0
    assert math.isnan(ours.mean)
    assert write_log(tmp_path / "x.hlog", []) == 0
    assert read_log(tmp_path / "x.hlog") == []
