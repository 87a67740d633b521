"""Log-linear histograms in plain memory: recording, merging and quantiles, compiled.

A histogram is one block of int64 words: ``HEADER_WORDS`` facts (their places are named below), then the counts of its
buckets. Those are HdrHistogram's: below ``2 ** (bits + 1)`` every integer has its own; above, each power of two is cut
into ``2 ** bits`` equal ones. A bucket is therefore never wider than ``1 / 2 ** bits`` of its values, and its middle
never farther than half of that from any of them. ``TOP`` is the greatest value with a bucket; what is below 0 or above
``TOP`` is counted apart, with its extremes, and never lands in a bucket.

The contract of all kernels: ``block`` is the address of such a block, as ``prepare`` left it or a kernel after it; one
thread writes it. Addresses are not checked: a wrong one ends the process. No kernel allocates, takes a lock or raises.

The loads and stores stand in this file, and not in a module that several packages share, because numba's cache on disk
knows only the file of the kernel itself: what is elsewhere could change and the old machine code would stay.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import lower_builtin, type_callable

Function = TypeVar("Function", bound=Callable[..., Any])
Ints = npt.NDArray[np.int64]

TOP = 1 << 62
"""The greatest value with a bucket: 146 years of nanoseconds."""
HEADER_WORDS = 16
BITS, COUNT, NEGATIVE, OVERFLOW, MINIMUM, MAXIMUM, ASIDE_MINIMUM, ASIDE_MAXIMUM, SUM_LOW, SUM_HIGH = range(10)
"""Words of the header. ``MINIMUM`` and ``MAXIMUM`` are of the values in buckets, the ``ASIDE_`` ones of those that have
none; the sum of the values in buckets is ``SUM_HIGH * 2**32 + SUM_LOW``, exact below 2**95."""
HIGHEST = (1 << 63) - 1
LOWEST = -(1 << 63)
"""What the maxima are before there is a value; the minima are ``HIGHEST``."""
MOST_AT_ONCE = 1 << 30
"""Values, or repetitions of one, that a call may record: the lower halves of more could not be added up."""

_WORD = 8
_HEADER_BYTES = HEADER_WORDS * _WORD
_LOW_HALF = (1 << 32) - 1


def _instruction(emit: Callable[..., Any], returns: Any = types.int64) -> Callable[[Function], Function]:
    """Have compiled callers run what ``emit(builder, *operands)`` builds, and Python callers the function's body.

    By typing and lowering instead of ``@intrinsic``, which can't be called from Python.
    """

    def register(function: Function) -> Function:
        signature = inspect.signature(function)
        operands = (types.int64,) * len(signature.parameters)

        def typer(*arguments: Any) -> Any:
            return returns(*operands) if all(isinstance(a, types.Integer) for a in arguments) else None

        typer.__signature__ = signature  # type: ignore[attr-defined]  # numba binds the call's arguments by it
        type_callable(function)(lambda context: typer)

        def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            result = emit(builder, *arguments)
            return context.get_dummy_value() if signature.return_type == types.none else result

        lower_builtin(function, *operands)(lower)  # type: ignore[no-untyped-call]  # numba has no types
        return function

    return register


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@_instruction(lambda builder, address: builder.load(_pointer(builder, address), align=1))
def load(address: int) -> int:
    """Return the int64 at ``address``; any alignment."""
    return ctypes.c_int64.from_address(int(address)).value


@_instruction(lambda builder, address, value: builder.store(value, _pointer(builder, address), align=1), types.none)
def store(address: int, value: int) -> None:
    """Write ``value`` to the int64 at ``address``; any alignment."""
    ctypes.c_int64.from_address(int(address)).value = value


@_instruction(lambda builder, value: builder.ctlz(value, ir.Constant(ir.IntType(1), 1)))
def leading_zeros(value: int) -> int:
    """Return how many of the 64 bits stand above the highest one that is set. For values above 0."""
    return 64 - int(value).bit_length()


@njit(cache=True, nogil=True)
def bucket_of(value: int, bits: int) -> int:
    """Return the bucket of a value from 0 to ``TOP``."""
    shift = 63 - bits - leading_zeros(value | ((2 << bits) - 1))
    return (shift << bits) + (value >> shift)


@njit(cache=True, nogil=True)
def middle_of(bucket: int, bits: int) -> int:
    """Return the value that stands for all of a bucket's."""
    shift = max((bucket >> bits) - 1, 0)
    return ((bucket - (shift << bits)) << shift) + ((1 << shift) >> 1)


@njit(cache=True, nogil=True)
def prepare(block: int, bits: int) -> None:
    """Make zeroed memory an empty histogram with ``2 ** bits`` buckets to a power of two."""
    store(block + BITS * _WORD, bits)
    store(block + MINIMUM * _WORD, HIGHEST)
    store(block + MAXIMUM * _WORD, LOWEST)
    store(block + ASIDE_MINIMUM * _WORD, HIGHEST)
    store(block + ASIDE_MAXIMUM * _WORD, LOWEST)


@njit(cache=True, nogil=True)
def _add(block: int, fact: int, amount: int) -> None:
    store(block + fact * _WORD, load(block + fact * _WORD) + amount)


@njit(cache=True, nogil=True)
def _stretch(block: int, fact: int, minimum: int, maximum: int) -> None:
    """Let a minimum, and the maximum in the word after it, take in these two."""
    store(block + fact * _WORD, min(load(block + fact * _WORD), minimum))
    store(block + (fact + 1) * _WORD, max(load(block + (fact + 1) * _WORD), maximum))


@njit(cache=True, nogil=True)
def _set_aside(block: int, value: int, times: int) -> None:
    """Count what has no bucket."""
    _add(block, NEGATIVE if value < 0 else OVERFLOW, times)
    _stretch(block, ASIDE_MINIMUM, value, value)


@njit(cache=True, nogil=True)
def _note(block: int, count: int, minimum: int, maximum: int, low: int, high: int) -> None:
    """Add what a loop over ``count`` values found out: extremes, and the sums of their lower and upper halves."""
    _add(block, COUNT, count)
    _stretch(block, MINIMUM, minimum, maximum)
    low += load(block + SUM_LOW * _WORD)
    store(block + SUM_LOW * _WORD, low & _LOW_HALF)
    _add(block, SUM_HIGH, high + (low >> 32))


@njit(cache=True, nogil=True)
def record_strided(block: int, address: int, stride_bytes: int, count: int) -> None:
    """Record ``count`` (at most ``MOST_AT_ONCE``) int64 that stand ``stride_bytes`` apart, from ``address`` on."""
    # Whatever the loop needs is local: for all that the compiler knows, each store may change each word of the block.
    bits = load(block + BITS * _WORD)
    counts = block + _HEADER_BYTES
    minimum, maximum, low, high, aside = HIGHEST, LOWEST, 0, 0, 0
    for _ in range(count):
        value = load(address)
        address += stride_bytes
        if 0 <= value <= TOP:
            place = counts + bucket_of(value, bits) * _WORD
            store(place, load(place) + 1)
            low += value & _LOW_HALF
            high += value >> 32
            minimum, maximum = min(minimum, value), max(maximum, value)
        else:
            _set_aside(block, value, 1)
            aside += 1
    _note(block, count - aside, minimum, maximum, low, high)


@njit(cache=True, nogil=True)
def record_array(block: int, values: Ints) -> None:
    """Record a contiguous array's values: from Python, taking the array is cheaper than taking its address."""
    record_strided(block, np.int64(values.ctypes.data), _WORD, len(values))  # type: ignore[arg-type]  # it is one


@njit(cache=True, nogil=True)
def difference(end: int, begin: int) -> int:
    """Return ``end - begin``, cut to int64.

    Compared first: numba tells LLVM that differences never overflow, so a check of one that did is optimised away, and
    a wrong bucket's address written to.
    """
    if begin >= 0:
        return end - begin if end >= LOWEST + begin else LOWEST
    return end - begin if end <= HIGHEST + begin else HIGHEST


@njit(cache=True, nogil=True)
def record_differences(
    block: int, later: int, later_stride: int, earlier: int, earlier_stride: int, count: int
) -> None:
    """Record ``later - earlier`` of two columns of int64 at these addresses, each with a stride in bytes of its own.

    A stride of 0 is one moment for all: ``now - received``. For ``received - timestamp`` of 128-byte rows both strides
    are 128. A difference that no int64 holds is negative or beyond the top, as it truly is, its extreme cut to int64.
    """
    bits = load(block + BITS * _WORD)
    counts = block + _HEADER_BYTES
    minimum, maximum, low, high, aside = HIGHEST, LOWEST, 0, 0, 0
    for _ in range(count):
        value = difference(load(later), load(earlier))
        later += later_stride
        earlier += earlier_stride
        if 0 <= value <= TOP:
            place = counts + bucket_of(value, bits) * _WORD
            store(place, load(place) + 1)
            low += value & _LOW_HALF
            high += value >> 32
            minimum, maximum = min(minimum, value), max(maximum, value)
        else:
            _set_aside(block, value, 1)
            aside += 1
    _note(block, count - aside, minimum, maximum, low, high)


@njit(cache=True, nogil=True)
def record_repeated(block: int, value: int, times: int) -> None:
    """Record one value ``times`` (0 to ``MOST_AT_ONCE``) over: a run of events that waited equally long."""
    if times <= 0:
        return
    if 0 <= value <= TOP:
        place = block + _HEADER_BYTES + bucket_of(value, load(block + BITS * _WORD)) * _WORD
        store(place, load(place) + times)
        _note(block, times, value, value, (value & _LOW_HALF) * times, (value >> 32) * times)
    else:
        _set_aside(block, value, times)


@njit(cache=True, nogil=True)
def record_runs(block: int, values: int, times: int, count: int) -> None:
    """Record ``count`` values, each as often as the int64 at the same place of ``times`` says; both contiguous."""
    for place in range(count):
        value, left = load(values + place * _WORD), load(times + place * _WORD)
        while left > 0:
            part = min(left, MOST_AT_ONCE)
            record_repeated(block, value, part)
            left -= part


@njit(cache=True, nogil=True)
def merge(block: int, other: int) -> None:
    """Add all that ``other``, of as many bits, has recorded. Reads its buckets from its minimum to its maximum only."""
    if load(other + COUNT * _WORD):
        bits = load(block + BITS * _WORD)
        minimum, maximum = load(other + MINIMUM * _WORD), load(other + MAXIMUM * _WORD)
        for bucket in range(bucket_of(minimum, bits), bucket_of(maximum, bits) + 1):
            _add(block, HEADER_WORDS + bucket, load(other + (HEADER_WORDS + bucket) * _WORD))
        low, high = load(other + SUM_LOW * _WORD), load(other + SUM_HIGH * _WORD)
        _note(block, load(other + COUNT * _WORD), minimum, maximum, low, high)
    _add(block, NEGATIVE, load(other + NEGATIVE * _WORD))
    _add(block, OVERFLOW, load(other + OVERFLOW * _WORD))
    _stretch(block, ASIDE_MINIMUM, load(other + ASIDE_MINIMUM * _WORD), load(other + ASIDE_MAXIMUM * _WORD))


@njit(cache=True, nogil=True)
def find_ranks(block: int, ranks: Ints, out: Ints) -> None:
    """Write to ``out`` the value of each rank (1: the least in a bucket); ranks never fall and are at most ``COUNT``.

    The first and the last are exact; the others the middles of their buckets, within the extremes. There is a value.
    """
    bits, total = load(block + BITS * _WORD), load(block + COUNT * _WORD)
    minimum, maximum = load(block + MINIMUM * _WORD), load(block + MAXIMUM * _WORD)
    bucket, reached = bucket_of(minimum, bits) - 1, 0
    for place in range(len(ranks)):
        rank = ranks[place]
        while reached < rank:
            bucket += 1
            reached += load(block + (HEADER_WORDS + bucket) * _WORD)
        value = min(max(middle_of(bucket, bits), minimum), maximum)
        if rank <= 1:
            value = minimum
        elif rank >= total:
            value = maximum
        out[place] = value


@njit(cache=True, nogil=True)
def count_missing(
    values: Ints, counts: Ints, ranks: Ints, bounds: Ints, below: Ints, interval: int, tree: Ints, out: Ints
) -> None:
    """Write to ``out``, for each bound, how many of what coordinated omission left out are as great: see ``omission``.

    ``ranks``: of the values' remainders; ``below``: how many remainders lie below a bound's; ``tree``: zeros, one more
    than values.
    """
    source, total, intervals = len(values) - 1, 0, 0
    for place in range(len(bounds) - 1, -1, -1):
        while source >= 0 and values[source] >= bounds[place]:
            count = counts[source]
            total += count
            intervals += count * (values[source] // interval)
            node = ranks[source] + 1
            while node < len(tree):
                tree[node] += count
                node += node & -node
            source -= 1
        smaller, node = 0, below[place]
        while node > 0:
            smaller += tree[node]
            node -= node & -node
        out[place] = intervals - total * (bounds[place] // interval) - smaller


_ARRAYS = tuple(types.Array(types.int64, 1, "C", readonly=readonly) for readonly in (False, True))
_INTEGERS: dict[Any, int] = {
    bucket_of: 2, prepare: 2, record_strided: 4, record_differences: 6, record_repeated: 3, record_runs: 4, merge: 2,
}  # fmt: skip


def warm() -> int:
    """Compile every kernel that Python calls into numba's cache on disk, or load what is there; return how many."""
    for kernel, integers in _INTEGERS.items():
        kernel.compile((types.int64,) * integers)
    record, find = cast(Any, record_array), cast(Any, find_ranks)
    for values in _ARRAYS:
        record.compile((types.int64, values))
    find.compile((types.int64, _ARRAYS[0], _ARRAYS[0]))
    cast(Any, count_missing).compile((*(_ARRAYS[0],) * 5, types.int64, *(_ARRAYS[0],) * 2))
    return len(_INTEGERS) + len(_ARRAYS) + 2
