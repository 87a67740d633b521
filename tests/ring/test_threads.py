"""Kernels without the interpreter's lock, one thread a role: every row arrives once, in order and whole."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit

from hftlab.ring import Ring, allocate
from hftlab.ring.atomics import load, pause, store
from hftlab.ring.kernels import (
    claim_address,
    claim_rows,
    peek_address,
    peek_rows,
    pop_row,
    publish_rows,
    push_row,
    release_rows,
)
from tests.bench.ring_loops import ROW_BYTES, consume, produce

BATCH = 64
WORDS = ROW_BYTES // 8


def scratch(rows: int = BATCH) -> Any:
    return allocate(rows * ROW_BYTES)


def run_threads(*functions: Callable[[], int]) -> list[int]:
    """Run each function on a thread of its own and return what they returned; a failure is raised here."""
    results: list[Any] = [None] * len(functions)

    def run(index: int) -> None:
        try:
            results[index] = functions[index]()
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@njit(nogil=True)
def fill(ring: int, total: int, batch: int) -> int:
    """Publish ``total`` rows that were written in place, all sixteen words of each."""
    sequence = 0
    while sequence < total:
        count = claim_rows(ring, min(batch, total - sequence))
        if count == 0:
            pause()
        row = claim_address(ring)
        for number in range(sequence, sequence + count):
            for word in range(WORDS):
                store(row + 8 * word, number * WORDS + word)
            row += ROW_BYTES
        publish_rows(ring, count)
        sequence += count
    return 0


@njit(nogil=True)
def inspect(ring: int, reader: int, total: int, batch: int) -> int:
    """Read ``total`` rows in place, every word of each; returns how many words were wrong."""
    wrong = 0
    sequence = 0
    while sequence < total:
        count = peek_rows(ring, reader, batch)
        if count == 0:
            pause()
        row = peek_address(ring, reader)
        for number in range(sequence, sequence + count):
            for word in range(WORDS):
                wrong += load(row + 8 * word) != number * WORDS + word
            row += ROW_BYTES
        release_rows(ring, reader, count)
        sequence += count
    return wrong


@njit(nogil=True)
def push_singly(ring: int, row: int, total: int) -> int:
    for number in range(total):
        store(row, number)
        while not push_row(ring, row):
            pause()
    return 0


@njit(nogil=True)
def pop_singly(ring: int, out: int, total: int) -> int:
    wrong = 0
    for number in range(total):
        while not pop_row(ring, 0, out):
            pause()
        wrong += load(out) != number
    return wrong


def test_a_hundred_million_rows_pass_between_two_threads_without_a_fault() -> None:
    total = 100_000_000
    ring, source, out = Ring(16_384), scratch(), scratch()
    results = run_threads(
        lambda: produce(ring.address, source.ctypes.data, BATCH, total),
        lambda: consume(ring.address, 0, out.ctypes.data, BATCH, total),
    )
    assert results == [0, 0]
    statistics = ring.statistics()
    assert (statistics.published, statistics.consumed) == (total, (total,))


def test_rows_that_pass_in_place_arrive_with_every_word_as_it_was_written() -> None:
    total = 5_000_000
    ring = Ring(1_024)
    assert run_threads(
        lambda: fill(ring.address, total, BATCH),
        lambda: inspect(ring.address, 0, total, BATCH),
    ) == [0, 0]


def test_rows_pass_one_by_one_through_a_ring_of_two() -> None:
    total = 20_000
    ring, source, out = Ring(2), scratch(1), scratch(1)
    assert run_threads(
        lambda: push_singly(ring.address, source.ctypes.data, total),
        lambda: pop_singly(ring.address, out.ctypes.data, total),
    ) == [0, 0]


def test_every_reader_on_its_own_thread_sees_every_row() -> None:
    total = 1_000_000
    ring = Ring(16_384, readers=2)
    results = run_threads(
        lambda: fill(ring.address, total, BATCH),
        lambda: inspect(ring.address, 0, total, BATCH),
        lambda: inspect(ring.address, 1, total, 300),
    )
    assert results == [0, 0, 0]
    assert ring.statistics().consumed == (total, total)


@pytest.mark.parametrize("python_end", ["producer", "consumer"])
def test_one_end_may_be_a_handle_and_the_other_a_kernel_without_the_lock(python_end: str) -> None:
    total = 100_000
    ring = Ring(4_096, dtype=np.dtype((np.void, ROW_BYTES)))

    def push_by_handle() -> int:
        producer, sequence = ring.producer(), 0
        while sequence < total:
            claim = producer.claim(min(1_000, total - sequence))
            words = claim.view(np.int64).reshape(-1, WORDS)
            words[:] = np.arange(sequence * WORDS, (sequence + len(claim)) * WORDS).reshape(-1, WORDS)
            producer.publish(len(claim))
            sequence += len(claim)
        return 0

    def read_by_handle() -> int:
        consumer, sequence, wrong = ring.consumer(), 0, 0
        while sequence < total:
            block = consumer.peek(1_000)
            wrong += int((block.view(np.int64) != np.arange(sequence * WORDS, (sequence + len(block)) * WORDS)).sum())
            consumer.release(len(block))
            sequence += len(block)
        return wrong

    if python_end == "producer":
        ends = (push_by_handle, lambda: inspect(ring.address, 0, total, BATCH))
    else:
        ends = (lambda: fill(ring.address, total, BATCH), read_by_handle)
    assert run_threads(*ends) == [0, 0]
