"""Rows' latencies into histograms, compiled: one pass over the rows of one type.

Contract: one thread. Addresses are not checked. Nothing is allocated: where a row's symbol has no slot, or its slot no
histogram of this type yet, the pass ends before that row, with all before it recorded, and Python sees to it.

Values are gathered until the symbol changes, at most ``SCRATCH_ROWS``, and recorded together: sums, counts and extremes
then stay in registers over the run. A row takes 9 ns for all four stages and 8 without TOTAL, in runs of one symbol; 16
and 12 where each row is of another than the one before (measured beside other work).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import njit, types

from hftlab.metrics.journeys import layout as at
from hftlab.metrics.kernels import HIGHEST, difference, load, record_repeated, record_strided, store

# numba's cache on disk knows machine code by the content of this file alone, but what it calls is in that code too: the
# first 16 digits of the SHA-256 over layout and metrics' kernels. A test holds it to the truth.
COMPILED_IN = "4b3183a103060442"

Ints = npt.NDArray[np.int64]

_WORD = 8
_SYMBOL_MASK = 0xFFFFFFFF
_SOURCE_MASK = 0xFFFF
_ROW_WORDS = at.ROW_BYTES // _WORD
_STAGE_BYTES = at.SCRATCH_ROWS * _WORD
_SECOND_NS = 1_000_000_000


@njit(cache=True, nogil=True)
def slot_of(state: int, symbol: int) -> int:
    """Return the symbol's slot; the slot of the rest where all are taken; -1 where it is to be given one."""
    mask = load(state + at.KEY_MASK * _WORD)
    keys = load(state + at.KEYS * _WORD)
    place = symbol & mask
    key = load(keys + place * _WORD)
    while key != symbol and key >= 0:
        place = (place + 1) & mask
        key = load(keys + place * _WORD)
    return load(load(state + at.SLOTS * _WORD) + place * _WORD) if key == symbol else load(state + at.REST * _WORD)


@njit(cache=True, nogil=True)
def give_slot(state: int, symbol: int, slot: int) -> None:
    """Enter a symbol that has no slot. The table has room."""
    mask = load(state + at.KEY_MASK * _WORD)
    keys = load(state + at.KEYS * _WORD)
    place = symbol & mask
    while load(keys + place * _WORD) >= 0:
        place = (place + 1) & mask
    store(keys + place * _WORD, symbol)
    store(load(state + at.SLOTS * _WORD) + place * _WORD, slot)


@njit(cache=True, nogil=True)
def envelope_of(state: int, source: int, first_ns: int) -> int:
    """Return the address of a source's envelope, a fresh one where it has none; 0 where all are others'."""
    envelope = load(state + at.ENVELOPES * _WORD)
    for _ in range(at.MOST_SOURCES):
        owner = load(envelope + at.ENVELOPE_SOURCE * _WORD)
        if owner < 0:
            store(envelope + at.ENVELOPE_SOURCE * _WORD, source)
            store(envelope + at.ENVELOPE_ORIGIN * _WORD, first_ns)
            store(envelope + at.ENVELOPE_SHIFT * _WORD, at.FIRST_SHIFT)
            store(envelope + at.ENVELOPE_RESOLUTION * _WORD, _SECOND_NS)
            return envelope
        if owner == source:
            return envelope
        envelope += at.ENVELOPE_WORDS * _WORD
    return 0


@njit(cache=True, nogil=True)
def _double(envelope: int) -> None:
    """Make windows twice as long: of each two, the lower minimum stays."""
    least, moment = envelope + at.ENVELOPE_LEAST * _WORD, envelope + at.ENVELOPE_AT * _WORD
    for window in range(at.WINDOWS // 2):
        one = 2 * window
        if load(least + (one + 1) * _WORD) < load(least + one * _WORD):
            one += 1
        store(least + window * _WORD, load(least + one * _WORD))
        store(moment + window * _WORD, load(moment + one * _WORD))
    for window in range(at.WINDOWS // 2, at.WINDOWS):
        store(least + window * _WORD, HIGHEST)
    store(envelope + at.ENVELOPE_SHIFT * _WORD, load(envelope + at.ENVELOPE_SHIFT * _WORD) + 1)


@njit(cache=True, nogil=True)
def lower(envelope: int, received_ns: int, apart_ns: int) -> int:
    """Keep a difference where it is its window's least, in longer windows if need be; return their ``SHIFT``.

    What came before the first row counts to the first window. Whoever calls counts the rows.
    """
    since = max(difference(received_ns, load(envelope + at.ENVELOPE_ORIGIN * _WORD)), 0)
    shift = load(envelope + at.ENVELOPE_SHIFT * _WORD)
    while since >> shift >= at.WINDOWS:
        _double(envelope)
        shift += 1
    least = envelope + (at.ENVELOPE_LEAST + (since >> shift)) * _WORD
    if apart_ns < load(least):
        store(least, apart_ns)
        store(least + at.WINDOWS * _WORD, received_ns)
        timestamp, resolution = received_ns - apart_ns, load(envelope + at.ENVELOPE_RESOLUTION * _WORD)
        while timestamp % resolution:
            resolution //= 1_000
        store(envelope + at.ENVELOPE_RESOLUTION * _WORD, resolution)
    return shift


@njit(cache=True, nogil=True)
def _record(histogram: int, values: int, count: int, weight: int) -> int:
    """Record what waits of a stage, each value for so many rows; return what waits then: nothing."""
    if count and weight == 1:
        record_strided(histogram, values, _WORD, count)
    elif count:
        for place in range(count):
            record_repeated(histogram, load(values + place * _WORD), weight)
    return 0


@njit(cache=True, nogil=True)
def _record_handled(histogram: int, events: int, together_ns: int, weight: int) -> None:
    """Record rows that shared a stretch evenly: each took as long as the others, or 1 ns longer."""
    if events and histogram:
        each = together_ns // events
        longer = together_ns - each * events
        record_repeated(histogram, each, (events - longer) * weight)
        record_repeated(histogram, each + 1, longer * weight)


@njit(cache=True, nogil=True)
def _count(state: int, fact: int, events: int) -> None:
    if events:
        store(state + fact * _WORD, load(state + fact * _WORD) + events)


@njit(cache=True, nogil=True)
def walk(
    state: int, words: Ints, begin: int, stride: int, histograms: int, dispatched: int, handled: int,
    positions: Ints, marks_rows: Ints, marks_ns: Ints, queued_rows: Ints, queued_ns: Ints, utc_minus_counter_ns: int,
    total: bool, now_ns: int, drift: float, arrivals: bool, sequenced: int, by_handler: int,
    weight: int,
) -> int:  # fmt: skip
    """Record each ``stride``-th row from ``begin`` on; return the row where it ended, or their number at the end.

    ``words`` are the rows, 16 words each. ``histograms``: two addresses a slot, of RECEIVED and TOTAL. A row's place in
    the chunk is in ``positions``, or its own where that is empty. With marks, a row between two of them has its share
    of the time between them, and what lies behind the last was not handled: only RECEIVED is recorded. Without marks,
    all were handled at ``now_ns`` (UTC). RECEIVED is left out without ``arrivals``; SEQUENCED, when a row was queued
    less its arrival, goes into ``sequenced``, and HANDLED also into ``by_handler``, unless these are 0. Each row counts
    ``weight`` times.
    """
    rows: int = np.int64(words.ctypes.data)  # type: ignore[assignment]  # numba would go on with a uint64
    count = len(words) // _ROW_WORDS
    received_at = load(state + at.SCRATCH * _WORD)
    total_at, dispatched_at = received_at + _STAGE_BYTES, received_at + 2 * _STAGE_BYTES
    sequenced_at = received_at + 3 * _STAGE_BYTES
    skewed, offset_ns = load(state + at.SKEWED * _WORD), load(state + at.OFFSET_NS * _WORD)
    reference_ns = load(state + at.REFERENCE_NS * _WORD)
    symbol, received_histogram, total_histogram = -1, 0, 0
    source, envelope, origin_ns, shift, lowered, beyond, implausible = -1, 0, 0, 0, 0, 0, 0
    # The stretch between two marks that the row is in: its rows of the chunk, its begin (UTC), a row's part of it.
    mark, first, reached, began_ns, each_ns = -1, 0, 0, 0, 0.0
    run, run_ends, run_ns = -1, 0, 0
    gathered, receiveds, totals, dispatcheds, sequenceds, handleds, together_ns = 0, 0, 0, 0, 0, 0, 0
    row = begin
    while row < count:
        address = rows + row * at.ROW_BYTES
        found = load(address + at.ROW_SYMBOL) & _SYMBOL_MASK
        if found != symbol or gathered == at.SCRATCH_ROWS:
            receiveds = _record(received_histogram, received_at, receiveds, weight)
            totals = _record(total_histogram, total_at, totals, weight)
            if gathered == at.SCRATCH_ROWS:
                dispatcheds = _record(dispatched, dispatched_at, dispatcheds, weight)
                sequenceds = _record(sequenced, sequenced_at, sequenceds, weight)
                gathered = 0
            if found != symbol:
                slot = slot_of(state, found)
                received_histogram = load(histograms + 2 * slot * _WORD) if slot >= 0 else 0
                if received_histogram == 0:
                    break
                total_histogram = load(histograms + (2 * slot + 1) * _WORD)
                symbol = found
        gathered += 1
        tail, received = load(address + at.ROW_TAIL), load(address + at.ROW_RECEIVED)
        if arrivals and (tail >> 16) & at.NO_STAMPS == 0:
            apart = difference(received, load(address + at.ROW_TIMESTAMP))
            if tail & _SOURCE_MASK != source:
                _count(envelope, at.ENVELOPE_EVENTS, lowered)
                source, lowered = tail & _SOURCE_MASK, 0
                envelope = envelope_of(state, source, received)
                if envelope:
                    origin_ns = load(envelope + at.ENVELOPE_ORIGIN * _WORD)
                    shift = load(envelope + at.ENVELOPE_SHIFT * _WORD)
            if not -at.MOST_APART_NS <= apart <= at.MOST_APART_NS:
                implausible += 1
            elif envelope == 0:
                beyond += 1
            else:
                lowered += 1
                window = difference(received, origin_ns) >> shift
                if not 0 <= window < at.WINDOWS or load(envelope + (at.ENVELOPE_LEAST + window) * _WORD) > apart:
                    shift = lower(envelope, received, apart)
            if skewed:
                apart = difference(apart, offset_ns + int(np.rint(drift * difference(received, reference_ns))))
            store(received_at + receiveds * _WORD, apart)
            receiveds += 1
        ended_ns = now_ns
        place = positions[row] if len(positions) else row
        while run + 1 < len(queued_rows) and place >= run_ends:
            run += 1
            run_ends, run_ns = queued_rows[run], queued_ns[run]
        if sequenced and place < run_ends:
            store(sequenced_at + sequenceds * _WORD, difference(run_ns, received))
            sequenceds += 1
        if len(marks_rows):
            while mark + 1 < len(marks_rows) and place >= reached:
                _record_handled(by_handler, handleds, together_ns, weight)
                _record_handled(handled, handleds, together_ns, weight)
                handleds, together_ns = 0, 0
                mark += 1
                first, began_ns = marks_rows[mark], marks_ns[mark] + utc_minus_counter_ns
                if mark + 1 < len(marks_rows):
                    reached = marks_rows[mark + 1]
                    each_ns = (marks_ns[mark + 1] - marks_ns[mark]) / max(reached - first, 1)
            row += stride
            if mark + 1 == len(marks_rows):
                continue
            # To the nearest: the end of the last row is then the mark itself, and durations add up to the stretch.
            start_ns = began_ns + int((place - first) * each_ns + 0.5)
            ended_ns = began_ns + int((place - first + 1) * each_ns + 0.5)
            handleds += 1
            together_ns += ended_ns - start_ns
            if place < run_ends:
                store(dispatched_at + dispatcheds * _WORD, start_ns - run_ns)
                dispatcheds += 1
        else:
            row += stride
        if total:
            store(total_at + totals * _WORD, difference(ended_ns, received))
            totals += 1
    _record(received_histogram, received_at, receiveds, weight)
    _record(total_histogram, total_at, totals, weight)
    _record(dispatched, dispatched_at, dispatcheds, weight)
    _record(sequenced, sequenced_at, sequenceds, weight)
    _record_handled(by_handler, handleds, together_ns, weight)
    _record_handled(handled, handleds, together_ns, weight)
    _count(envelope, at.ENVELOPE_EVENTS, lowered)
    _count(state, at.BEYOND, beyond)
    _count(state, at.IMPLAUSIBLE, implausible)
    return min(row, count)


def warm() -> int:
    """Compile every kernel that Python calls into numba's cache on disk, or load what is there; return how many."""
    words, frozen = (types.Array(types.int64, 1, "C", readonly=readonly) for readonly in (False, True))
    whole: Any = walk
    for rows in (words, frozen):
        before = (types.int64,) * 5
        after = (types.int64, types.boolean, types.int64, types.float64, types.boolean, *(types.int64,) * 3)
        whole.compile((types.int64, rows, *before, *(words,) * 5, *after))
    for kernel, integers in ((slot_of, 2), (give_slot, 3), (envelope_of, 3), (lower, 3)):
        cast(Any, kernel).compile((types.int64,) * integers)
    return 6
