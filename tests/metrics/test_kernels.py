"""The kernels do the same compiled and as the plain Python that they are written in, and what they say they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.metrics import kernels
from hftlab.metrics.histogram import bucket_count

Ints = npt.NDArray[np.int64]

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
anything = st.integers(LOWEST, HIGHEST)
# Of all magnitudes alike, and the ends of everything.
sizes = st.integers(0, 62).flatmap(lambda bits: st.integers(0, 1 << bits))
values = sizes | anything | st.sampled_from([LOWEST, -1, 0, 127, 128, 255, 256, kernels.TOP, kernels.TOP + 1, HIGHEST])
lists = st.lists(values, max_size=40)
resolutions = st.sampled_from([1, 4, 7, 10])


@contextmanager
def uncompiled() -> Iterator[int]:
    """Every kernel, and what kernels call, is the Python function that it was made from. Yields how many there are."""
    replaced = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in list(vars(kernels).items()):
            if hasattr(value, "py_func"):
                patch.setattr(kernels, name, value.py_func)
                replaced += 1
        yield replaced


def block(bits: int) -> Ints:
    words = np.zeros(kernels.HEADER_WORDS + bucket_count(bits), np.int64)
    kernels.prepare(words.ctypes.data, bits)
    return words


def worked(bits: int, given: list[int], runs: list[tuple[int, int]], columns: list[tuple[int, int]]) -> list[int]:
    """Every kernel once, on blocks of its own; all that they left there."""
    blocks = [block(bits) for _ in range(5)]
    addresses = [words.ctypes.data for words in blocks]
    array = np.array(given, np.int64)
    kernels.record_array(addresses[0], array)
    spread = np.zeros((len(array), 3), np.int64)
    spread[:, 1] = array
    kernels.record_strided(addresses[1], spread.ctypes.data + 8, 24, len(array))
    assert blocks[0].tolist() == blocks[1].tolist()
    pairs = np.array(columns, np.int64).reshape(-1, 2)
    kernels.record_differences(addresses[2], pairs.ctypes.data, 16, pairs.ctypes.data + 8, 16, len(pairs))
    repeated = np.array([value for value, _ in runs], np.int64), np.array([times for _, times in runs], np.int64)
    kernels.record_runs(addresses[3], repeated[0].ctypes.data, repeated[1].ctypes.data, len(runs))
    for address in addresses[:4]:
        kernels.merge(addresses[4], address)
    total = int(blocks[4][kernels.COUNT])
    ranks = np.unique(np.linspace(1, total, 7).astype(np.int64)) if total else np.zeros(0, np.int64)
    found = np.zeros(len(ranks), np.int64)
    if total:
        kernels.find_ranks(addresses[4], ranks, found)
    return [word for words in blocks for word in words.tolist()] + found.tolist()


@settings(max_examples=60)
@given(resolutions, lists, st.lists(st.tuples(values, st.integers(-1, 1 << 31)), max_size=5), st.data())
def test_kernels_do_the_same_compiled_and_as_plain_python(
    bits: int, given: list[int], runs: list[tuple[int, int]], data: st.DataObject
) -> None:
    columns = data.draw(st.lists(st.tuples(values, values), max_size=20))
    compiled = worked(bits, given, runs, columns)
    with uncompiled() as replaced:
        assert replaced > 10
        assert worked(bits, given, runs, columns) == compiled


@given(resolutions, st.integers(0, kernels.TOP))
def test_a_buckets_middle_is_within_the_stated_precision_of_each_of_its_values(bits: int, value: int) -> None:
    bucket = kernels.bucket_of(value, bits)
    assert 0 <= bucket < bucket_count(bits)
    middle = kernels.middle_of(bucket, bits)
    assert kernels.bucket_of(min(middle, kernels.TOP), bits) == bucket
    assert abs(middle - value) * 2 * (1 << bits) <= value


@given(resolutions, st.integers(0, kernels.TOP - 1))
def test_buckets_rise_with_the_values_and_none_is_left_out(bits: int, value: int) -> None:
    assert kernels.bucket_of(value + 1, bits) - kernels.bucket_of(value, bits) in (0, 1)


@pytest.mark.parametrize("bits", [1, 7, 14])
def test_the_first_and_the_last_bucket_are_the_blocks_ends(bits: int) -> None:
    assert kernels.bucket_of(0, bits) == 0
    assert kernels.bucket_of(kernels.TOP, bits) == bucket_count(bits) - 1


@given(st.lists(st.tuples(anything, anything), min_size=1, max_size=20))
def test_differences_are_those_of_unbounded_integers(columns: list[tuple[int, int]]) -> None:
    words = block(7)
    pairs = np.array(columns, np.int64)
    kernels.record_differences(words.ctypes.data, pairs.ctypes.data, 16, pairs.ctypes.data + 8, 16, len(pairs))
    true = [later - earlier for later, earlier in columns]
    assert words[kernels.NEGATIVE] == sum(value < 0 for value in true)
    assert words[kernels.OVERFLOW] == sum(value > kernels.TOP for value in true)
    aside = [value for value in true if not 0 <= value <= kernels.TOP]
    if aside:
        assert words[kernels.ASIDE_MINIMUM] == min(max(min(aside), LOWEST), HIGHEST)
        assert words[kernels.ASIDE_MAXIMUM] == min(max(max(aside), LOWEST), HIGHEST)


def test_one_moment_less_a_column_takes_a_stride_of_nothing() -> None:
    words, other = block(7), block(7)
    now, received = np.array([1_000], np.int64), np.array([1_000, 999, 400, 1_001], np.int64)
    kernels.record_differences(words.ctypes.data, now.ctypes.data, 0, received.ctypes.data, 8, 4)
    kernels.record_array(other.ctypes.data, 1_000 - received)
    assert words.tolist() == other.tolist()


@pytest.mark.parametrize("record", [kernels.record_array, kernels.record_array.py_func])
def test_the_sum_is_exact_beyond_64_bits(record: Callable[[int, Ints], None]) -> None:
    words = block(7)
    record(words.ctypes.data, np.full(100, kernels.TOP - 3, np.int64))
    assert (int(words[kernels.SUM_HIGH]) << 32) + int(words[kernels.SUM_LOW]) == 100 * (kernels.TOP - 3)


def test_warming_compiles_each_kernel_that_python_calls() -> None:
    assert kernels.warm() == 11
