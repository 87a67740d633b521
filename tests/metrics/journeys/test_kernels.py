"""The compiled pass does what the plain Python that it is written in does, and both what a model by the row does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.clock.skew import Skew
from hftlab.events.records import RECORD, ROW_BYTES, Flags
from hftlab.metrics import Histogram, Journey, Stage
from hftlab.metrics import kernels as histograms
from hftlab.metrics.journeys import kernels, layout, slots
from tests.metrics.journeys.rows import MARKET, Row, journey, rows_of
from tests.metrics.test_histogram import content

HIGHEST = (1 << 63) - 1
NO_LATENCY = int(Flags.ARRIVAL_TIME | Flags.SOURCE_TIME | Flags.EMITTED)


@contextmanager
def uncompiled() -> Iterator[int]:
    """Every kernel, and what kernels call, is the Python function that it was made from. Yields how many there are."""
    replaced = 0
    with pytest.MonkeyPatch.context() as patch:
        for module in (kernels, histograms):
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
                    replaced += 1
        yield replaced


class Chunk(NamedTuple):
    rows: list[Row]
    positions: list[int] | None
    marks: list[tuple[int, int]]
    queued: list[tuple[int, int]]
    utc_minus_counter_ns: int
    total: bool
    sequenced: bool = False
    handler: str | None = None


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    length = draw(st.integers(0, 10))
    times = st.integers(0, 1 << 40) | st.integers(-(1 << 63), HIGHEST)
    row = st.builds(
        Row, times, times, st.integers(0, 4) | st.sampled_from([(1 << 32) - 1]), st.integers(0, 18) | st.just(65_535),
        st.integers(0, 511),
    )  # fmt: skip
    rows = draw(st.lists(row, min_size=length, max_size=length))
    places = st.lists(st.integers(0, 3 * length), min_size=length, max_size=length, unique=True).map(sorted)
    marked = [0, *sorted(draw(st.lists(st.integers(0, 3 * length + 5), max_size=6)))]
    moments = np.cumsum(draw(st.lists(st.integers(0, 10**10), min_size=len(marked), max_size=len(marked)))).tolist()
    ends = sorted(draw(st.lists(st.integers(0, 3 * length + 5), max_size=4)))
    queued = draw(st.lists(st.integers(0, 1 << 62), min_size=len(ends), max_size=len(ends)))
    return Chunk(
        rows, draw(st.none() | places), list(zip(marked, moments, strict=True)), list(zip(ends, queued, strict=True)),
        draw(st.integers(0, 1 << 61)), draw(st.booleans()), draw(st.booleans()),
        draw(st.sampled_from([None, "spread"])),
    )  # fmt: skip


def column(pairs: list[tuple[int, int]], place: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([pair[place] for pair in pairs], np.int64)


def recorded(given: list[Chunk], **options: Any) -> Journey:
    told = journey(**options)
    for chunk in given:
        positions = None if chunk.positions is None else np.array(chunk.positions, np.int64)
        told.note_chunk(
            rows_of(chunk.rows), MARKET, positions, column(chunk.marks, 0), column(chunk.marks, 1),
            column(chunk.queued, 0), column(chunk.queued, 1), chunk.utc_minus_counter_ns, chunk.total,
            sequenced=chunk.sequenced, handler=chunk.handler,
        )  # fmt: skip
    return told


def words(told: Journey) -> dict[tuple[str, str | None], list[int]]:
    found = {(stage.name, symbol): content(histogram) for stage, _, symbol, histogram in told.stage_histograms()}
    found |= {("handler", handler): content(histogram) for handler, _, histogram in told.handler_histograms()}
    assert all(kind == "market" for _, kind, _, _ in told.stage_histograms())
    return {key: value for key, value in found.items() if any(value[histograms.HEADER_WORDS - 15 : 4])}


class Model:
    """The same by the row, without a thought for time."""

    def __init__(self, most_symbols: int, skew: Skew | None) -> None:
        self.most, self.skew = most_symbols, skew
        self.names: dict[int, str] = {}
        self.values: dict[tuple[str, str | None], list[int]] = {}

    def take(self, chunk: Chunk) -> None:
        for place, row in zip(chunk.positions or range(len(chunk.rows)), chunk.rows, strict=True):
            name = self.name(row.symbol)
            if not row.flags & NO_LATENCY:
                apart = min(max(row.received - row.timestamp, -HIGHEST - 1), HIGHEST)
                self.record("RECEIVED", name, apart - self.error(row.received))
            queued = next((since for until, since in chunk.queued if place < until), None)
            if chunk.sequenced and queued is not None:
                self.record("SEQUENCED", None, queued - row.received)
            mark = next((j for j in range(len(chunk.marks) - 1) if place < chunk.marks[j + 1][0]), None)
            if mark is None:
                continue
            (first, begin), (end, until) = chunk.marks[mark : mark + 2]
            began, ended = (begin + round_up((until - begin) / (end - first), part) for part in
                            (place - first, place - first + 1))  # fmt: skip
            self.record("HANDLED", None, ended - began)
            if chunk.handler is not None:
                self.record("handler", chunk.handler, ended - began)
            if queued is not None:
                self.record("DISPATCHED", None, began + chunk.utc_minus_counter_ns - queued)
            if chunk.total:
                self.record("TOTAL", name, ended + chunk.utc_minus_counter_ns - row.received)

    def error(self, received: int) -> int:
        if self.skew is None:
            return 0
        return int(self.skew.error_ns(np.array([received]))[0])

    def name(self, symbol: int) -> str:
        if symbol not in self.names:
            self.names[symbol] = f"S{symbol}" if len(self.names) < self.most else slots.OTHER_SYMBOLS
        return self.names[symbol]

    def record(self, stage: str, symbol: str | None, value: int) -> None:
        self.values.setdefault((stage, symbol), []).append(min(max(value, -HIGHEST - 1), HIGHEST))

    def words(self) -> dict[tuple[str, str | None], list[int]]:
        found = {}
        for key, values in self.values.items():
            histogram = Histogram()
            histogram.record_many(np.array(values, np.int64))
            found[key] = content(histogram)
        return found


def round_up(each_ns: float, rows: int) -> int:
    return int(rows * each_ns + 0.5)


@settings(max_examples=80, deadline=None)
@given(st.lists(chunks(), max_size=2), st.integers(0, 5))
def test_each_row_is_recorded_as_a_model_by_the_row_does(given: list[Chunk], most_symbols: int) -> None:
    model = Model(most_symbols, None)
    for chunk in given:
        model.take(chunk)
    assert words(recorded(given, most_symbols=most_symbols)) == model.words()


@settings(max_examples=30, deadline=None)
@given(st.lists(chunks(), max_size=2), st.integers(0, 3), st.integers(1, 5))
def test_kernels_do_the_same_compiled_and_as_plain_python(given: list[Chunk], most_symbols: int, sample: int) -> None:
    compiled = recorded(given, most_symbols=most_symbols, sample=sample)
    with uncompiled() as replaced:
        assert replaced > 15
        plain = recorded(given, most_symbols=most_symbols, sample=sample)
    assert words(plain) == words(compiled)
    assert plain._slots.envelopes.tolist() == compiled._slots.envelopes.tolist()
    assert (plain.far_apart, plain.without_envelope) == (compiled.far_apart, compiled.without_envelope)


def test_more_rows_than_wait_together_are_recorded_in_full() -> None:
    rows = [Row(1_000 * place, 1_000 * place + place, place // 100 % 3) for place in range(5 * layout.SCRATCH_ROWS + 7)]
    chunk = Chunk(rows, None, [(0, 0), (600, 10**9), (len(rows), 2 * 10**9)], [(len(rows), 0)], 0, True)
    model = Model(64, None)
    model.take(chunk)
    assert words(recorded([chunk])) == model.words()


def test_the_offsets_are_those_of_the_rows() -> None:
    offsets = {name: RECORD.fields[name][1] for name in RECORD.names}  # type: ignore[index,union-attr]
    assert (offsets["timestamp"], offsets["received"]) == (layout.ROW_TIMESTAMP, layout.ROW_RECEIVED)
    assert (offsets["symbol"], RECORD["symbol"].itemsize) == (layout.ROW_SYMBOL, 4)
    assert (offsets["source"], offsets["flags"]) == (layout.ROW_TAIL, layout.ROW_TAIL + 2)
    assert RECORD["source"].itemsize == RECORD["flags"].itemsize == 2
    assert layout.ROW_BYTES == ROW_BYTES
    assert layout.NO_STAMPS == NO_LATENCY


def test_the_kernels_file_names_the_sources_that_its_cached_machine_code_contains() -> None:
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (layout, histograms))
    found = hashlib.sha256(sources).hexdigest()[:16]
    assert found == kernels.COMPILED_IN, f'write COMPILED_IN = "{found}" into kernels.py, or stale kernels stay cached'


def test_warming_compiles_each_kernel_that_python_calls() -> None:
    assert kernels.warm() == 6


def test_arrivals_are_corrected_as_the_skew_itself_does() -> None:
    skew = Skew(-1_272_530_000, 10**12, 12_345.678, 1.0, 0, 100, 0, 10**12, 1)
    rows = [Row(10**12 + 10**9 * place, 10**12 + 999_999_937 * place, place % 2) for place in range(2_000)]
    chunk = Chunk(rows, None, [(0, 0), (2_000, 0)], [], 0, False)
    model = Model(64, skew)
    model.take(chunk)
    assert words(recorded([chunk], skew=skew)) == model.words()
    assert sum(row.received - row.timestamp < 0 for row in rows) > 1_000


@given(st.lists(st.tuples(st.integers(0, 1 << 48), st.integers(-(10**9), 10**9)), min_size=1, max_size=60))
def test_an_envelope_holds_the_least_of_each_window_however_often_windows_double(given: list[tuple[int, int]]) -> None:
    told = journey()
    told.note_rows(rows_of([Row(received - apart, received) for received, apart in given]), MARKET, None)
    ((source, at_ns, least_ns, events, _),) = told._slots.envelope_points()
    assert (source, events) == (0, len(given))
    shift = int(told._slots.envelopes[0, layout.ENVELOPE_SHIFT])
    first = given[0][0]
    windows: dict[int, int] = {}
    for received, apart in given:
        window = max(received - first, 0) >> shift
        windows[window] = min(windows.get(window, apart), apart)
    assert least_ns.tolist() == [windows[window] for window in sorted(windows)]
    assert set(zip(at_ns.tolist(), least_ns.tolist(), strict=True)) <= set(given)
    assert max(windows) < layout.WINDOWS
    assert (
        shift == layout.FIRST_SHIFT or max(received - first for received, _ in given) >> (shift - 1) >= layout.WINDOWS
    )


def test_the_handlers_stage_is_the_chunks_whole_time() -> None:
    rows = [Row(0, 0)] * 700
    chunk = Chunk(rows, None, [(0, 5), (300, 100_003), (700, 100_800)], [], 0, False)
    (handled,) = (told for stage, _, _, told in recorded([chunk]).stage_histograms() if stage is Stage.HANDLED)
    assert handled.count == 700
    assert handled.mean * 700 == pytest.approx(100_795)
