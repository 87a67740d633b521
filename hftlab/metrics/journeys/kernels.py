"""Rows' latencies into histograms, compiled: one pass over the rows of one type.

Contract: one thread. Addresses are not checked. Nothing is allocated: where a row's symbol has no slot, or its slot no
histogram of this type yet, the pass ends before that row, with all before it recorded, and Python sees to it.

Values are gathered until the symbol changes, at most ``SCRATCH_ROWS``, and recorded together: sums, counts and extremes
then stay in registers over the run. Rows of one symbol take 7 ns each for all four stages, of symbols in random order
about twice that.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numba import njit, types

from hftlab.metrics.journeys import layout as at
from hftlab.metrics.kernels import HIGHEST, difference, load, record_strided, store

# numba's cache on disk knows machine code by the content of this file alone, but what it calls is in that code too: the
# first 16 digits of the SHA-256 over layout and metrics' kernels. A test holds it to the truth.
COMPILED_IN = "0000000000000000"

Ints = npt.NDArray[np.int64]

_WORD = 8
_SYMBOL_MASK = 0xFFFFFFFF
_STAGE_BYTES = at.SCRATCH_ROWS * _WORD
_SECOND_NS, _MS_NS, _US_NS = 1_000_000_000, 1_000_000, 1_000


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
def lower(envelope: int, received_ns: int, apart_ns: int, events: int) -> None:
    """Count a row's difference, and keep it where it is its window's least. What came before the first is in the first."""
    since = max(difference(received_ns, load(envelope + at.ENVELOPE_ORIGIN * _WORD)), 0)
    store(envelope + at.ENVELOPE_EVENTS * _WORD, load(envelope + at.ENVELOPE_EVENTS * _WORD) + events)
    window = since >> load(envelope + at.ENVELOPE_SHIFT * _WORD)
    while window >= at.WINDOWS:
        _double(envelope)
        window = since >> load(envelope + at.ENVELOPE_SHIFT * _WORD)
    least = envelope + (at.ENVELOPE_LEAST + window) * _WORD
    if apart_ns < load(least):
        store(least, apart_ns)
        store(envelope + (at.ENVELOPE_AT + window) * _WORD, received_ns)
        timestamp, resolution = received_ns - apart_ns, load(envelope + at.ENVELOPE_RESOLUTION * _WORD)
        while timestamp % resolution:
            resolution //= 1_000
        store(envelope + at.ENVELOPE_RESOLUTION * _WORD, resolution)


@njit(cache=True, nogil=True)
def _record_pending(state: int, stage: int, histogram: int, pending: int) -> int:
    """Record what waits of one of the four stages; return what waits then: nothing."""
    if pending:
        record_strided(histogram, load(state + at.SCRATCH * _WORD) + stage * _STAGE_BYTES, _WORD, pending)
    return 0


@njit(cache=True, nogil=True)
def walk(
    state: int, rows: int, count: int, begin: int, stride: int, histograms: int, dispatched: int, handled: int,
    positions: Ints, marks_rows: Ints, marks_ns: Ints, queued_rows: Ints, queued_ns: Ints, utc_minus_counter_ns: int,
    total: bool, now_ns: int, drift: float,
) -> int:  # fmt: skip
    """Record each ``stride``-th of ``count`` rows from ``begin`` on; return the row where it ended, ``count`` or more if
    it went through.

    ``histograms``: two addresses a slot, of RECEIVED and TOTAL. A row's place in the chunk is in ``positions``, or its
    own where that is empty. With marks, a row between two of them has its share of the time between them, and what lies
    behind the last was not handled: no stage but RECEIVED is recorded. Without, all were at ``now_ns`` (UTC).
    """
    scratch = load(state + at.SCRATCH * _WORD)
    received_at, total_at = scratch, scratch + _STAGE_BYTES
    dispatched_at, handled_at = scratch + 2 * _STAGE_BYTES, scratch + 3 * _STAGE_BYTES
    skewed, offset_ns = load(state + at.SKEWED * _WORD), load(state + at.OFFSET_NS * _WORD)
    reference_ns = load(state + at.REFERENCE_NS * _WORD)
    marks, queued = len(marks_rows), len(queued_rows)
    mark, run, reached, step_ns = -1, 0, 0, 0.0
    symbol, source, envelope = -1, -1, 0
    received_histogram, total_histogram = 0, 0
    receiveds, totals, dispatcheds, handleds = 0, 0, 0, 0
    row = begin
    gathered = 0
    while row < count:
        address = rows + row * at.ROW_BYTES
        found = load(address + at.ROW_SYMBOL) & _SYMBOL_MASK
        if found != symbol or gathered == at.SCRATCH_ROWS:
            receiveds = _record_pending(state, 0, received_histogram, receiveds)
            totals = _record_pending(state, 1, total_histogram, totals)
            if gathered == at.SCRATCH_ROWS:
                dispatcheds = _record_pending(state, 2, dispatched, dispatcheds)
                handleds = _record_pending(state, 3, handled, handleds)
                gathered = 0
            if found != symbol:
                slot = slot_of(state, found)
                received_histogram = load(histograms + 2 * slot * _WORD) if slot >= 0 else 0
                if received_histogram == 0:
                    break
                total_histogram = load(histograms + (2 * slot + 1) * _WORD)
                symbol = found
        tail, received = load(address + at.ROW_TAIL), load(address + at.ROW_RECEIVED)
        if (tail >> 16) & at.NO_STAMPS == 0:
            apart = difference(received, load(address + at.ROW_TIMESTAMP))
            if tail & 0xFFFF != source:
                source = tail & 0xFFFF
                envelope = envelope_of(state, source, received)
            if not -at.MOST_APART_NS <= apart <= at.MOST_APART_NS:
                store(state + at.IMPLAUSIBLE * _WORD, load(state + at.IMPLAUSIBLE * _WORD) + 1)
            elif envelope:
                lower(envelope, received, apart, 1)
            else:
                store(state + at.BEYOND * _WORD, load(state + at.BEYOND * _WORD) + 1)
            if skewed:
                apart = difference(apart, offset_ns + int(np.rint(drift * difference(received, reference_ns))))
            store(received_at + receiveds * _WORD, apart)
            receiveds += 1
        ended = now_ns
        known = True
        if marks:
            place = positions[row] if len(positions) else row
            if mark < 0 or place < marks_rows[mark]:
                mark, run, reached = -1, 0, 0
            while mark + 1 < marks and (mark < 0 or place >= reached):
                mark += 1
                if mark + 1 < marks:
                    reached = marks_rows[mark + 1]
                    step_ns = (marks_ns[mark + 1] - marks_ns[mark]) / max(reached - marks_rows[mark], 1)
            known = mark + 1 < marks
            if known:
                # Rounded, not cut: the last row's end is then the mark itself, and a stretch's parts add up to it.
                through = place - marks_rows[mark]
                began = marks_ns[mark] + int(np.rint(through * step_ns))
                ended = marks_ns[mark] + int(np.rint((through + 1) * step_ns))
                store(handled_at + handleds * _WORD, ended - began)
                handleds += 1
                ended += utc_minus_counter_ns
                while run < queued and place >= queued_rows[run]:
                    run += 1
                if run < queued:
                    store(dispatched_at + dispatcheds * _WORD, began + utc_minus_counter_ns - queued_ns[run])
                    dispatcheds += 1
        if total and known:
            store(total_at + totals * _WORD, difference(ended, received))
            totals += 1
        gathered += 1
        row += stride
    _record_pending(state, 0, received_histogram, receiveds)
    _record_pending(state, 1, total_histogram, totals)
    _record_pending(state, 2, dispatched, dispatcheds)
    _record_pending(state, 3, handled, handleds)
    return row


def warm() -> int:
    """Compile every kernel that Python calls into numba's cache on disk, or load what is there; return how many."""
    words = types.Array(types.int64, 1, "C")
    whole: Any = walk
    whole.compile((types.int64,) * 8 + (words,) * 5 + (types.int64, types.boolean, types.int64, types.float64))
    for kernel, integers in ((give_slot, 3), (envelope_of, 3), (lower, 4)):
        cast(Any, kernel).compile((types.int64,) * integers)
    return 4
