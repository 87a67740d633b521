"""Loops round the ring's kernels, as a user would write them: rows that carry their number, pushed and checked.

The benchmark runs them beside the same loops in ``spsc_ring.cpp``, the tests run them between threads. Not cached on
disk: numba would go on using the kernels as they were when this file was last changed.
"""

from __future__ import annotations

from numba import njit

from hftlab.ring.atomics import load, pause, store
from hftlab.ring.kernels import pop_row, pop_rows, push_row, push_rows

ROW_BYTES = 128


@njit(nogil=True)
def stamp(rows: int, count: int, sequence: int) -> None:
    """Number the rows at ``rows`` in their first word."""
    for row in range(count):
        store(rows + row * ROW_BYTES, sequence + row)


@njit(nogil=True)
def out_of_order(rows: int, count: int, sequence: int) -> int:
    """Count the rows that don't carry the number that they should."""
    wrong = 0
    for row in range(count):
        wrong += load(rows + row * ROW_BYTES) != sequence + row
    return wrong


@njit(nogil=True)
def batches(ring: int, source: int, out: int, batch: int, total: int) -> int:
    """Push and pop ``total`` rows, ``batch`` at a time, on one thread; returns how many were wrong."""
    wrong = 0
    for sequence in range(0, total, batch):
        stamp(source, batch, sequence)
        wrong += push_rows(ring, source, batch) != batch
        wrong += pop_rows(ring, 0, out, batch) != batch
        wrong += out_of_order(out, batch, sequence)
    return wrong


@njit(nogil=True)
def one_by_one(ring: int, source: int, out: int, batch: int, total: int) -> int:
    """Push and pop ``total`` rows singly, over and over those at ``source``, which carry 0 to ``batch`` - 1."""
    wrong = 0
    for sequence in range(total):
        row = sequence & (batch - 1)
        wrong += push_row(ring, source + row * ROW_BYTES) != 1
        wrong += pop_row(ring, 0, out) != 1
        wrong += load(out) != row
    return wrong


@njit(nogil=True)
def produce(ring: int, source: int, batch: int, total: int) -> int:
    """Push ``total`` numbered rows in batches, spinning while the ring is full."""
    for sequence in range(0, total, batch):
        stamp(source, batch, sequence)
        pushed = 0
        while pushed < batch:
            count = push_rows(ring, source + pushed * ROW_BYTES, batch - pushed)
            if count == 0:
                pause()
            pushed += count
    return 0


@njit(nogil=True)
def consume(ring: int, reader: int, out: int, batch: int, total: int) -> int:
    """Pop ``total`` rows in batches as one reader, spinning while there are none; returns how many were wrong."""
    wrong = 0
    sequence = 0
    while sequence < total:
        count = pop_rows(ring, reader, out, batch)
        if count == 0:
            pause()
        wrong += out_of_order(out, count, sequence)
        sequence += count
    return wrong
