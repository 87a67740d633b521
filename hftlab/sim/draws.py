"""Random numbers that are the same bits on every machine and with every NumPy.

What NumPy promises for good is the raw 64-bit stream of PCG64 and the states that SeedSequence gives it (NEP 19); how
``Generator`` turns them into distributions may change from version to version, and ``np.log`` and ``np.exp`` differ in
their last bits between processors and libraries. So everything here is made from raw words with integer arithmetic and
with those float64 operations that IEEE 754 defines to the last bit (sums, products, quotients, comparisons, powers of
two), each a NumPy call of its own, so that no compiler fuses two. Logarithms and powers are read from tables whose
entries Python's decimal module computes, correctly rounded, and between entries by straight lines (off by 10**-6).

Checked with NumPy 2.0.2 and 2.4.6, with and without AVX2, AVX-512 and FMA: the digests in the tests are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LN2 = 0.6931471805599453
_CELLS = 1024
_TOP_BITS = 53
_WORD_LIMIT = 1 << 64
_HALF_WORD = 0xFFFF
_BELL_MEAN = 2 * _HALF_WORD
_BELL_SCALE = (
    2.6428997918226276e-05  # sqrt(3) / 65536: four 16-bit numbers have a standard deviation of 65536 / sqrt(3)
)


class WordStream:
    """A stream of raw 64-bit words. ``seed`` and ``key`` name it: other keys give independent streams."""

    def __init__(self, seed: int, key: Iterable[int]) -> None:
        self._generator = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=tuple(key)))

    def take(self, count: int) -> Words:
        """The next ``count`` words, uint64. About 3 ns a word."""
        words: Words = self._generator.random_raw(count)
        return words


def chance(words: Words, probability: float) -> Bools:
    """True with this probability, exactly to 2**-64."""
    threshold = min(int(probability * _WORD_LIMIT), _WORD_LIMIT - 1)
    return words < np.uint64(threshold)


def exponential(words: Words) -> Floats:
    """Exponentially distributed with mean 1: -ln U, where U = m * 2**-k gives k * ln 2 - ln m, by the table."""
    uniform = ((words >> np.uint64(64 - _TOP_BITS)) + np.uint64(1)).astype(np.float64)  # 1 to 2**53, exact
    mantissa, exponent = np.frexp(uniform)
    drawn: Floats = (_TOP_BITS - exponent) * LN2 + _read(_minus_log(), (mantissa - 0.5) * 2.0)
    return drawn


def bell(words: Words) -> Floats:
    """About normal with mean 0 and variance 1: the sum of four 16-bit numbers, so never beyond 3.5."""
    total = np.zeros(len(words), np.int64)
    for shift in (0, 16, 32, 48):
        total += ((words >> np.uint64(shift)) & np.uint64(_HALF_WORD)).astype(np.int64)
    return (total - _BELL_MEAN).astype(np.float64) * _BELL_SCALE


def power_of_e(exponent: Floats) -> Floats:
    """e**exponent, for exponents of up to ±700."""
    binary = exponent * (1.0 / LN2)
    whole = np.floor(binary)
    power: Floats = np.ldexp(_read(_power_of_two(), binary - whole), whole.astype(np.int32))
    return power


def poisson(words: Words, mean: float) -> Ints:
    """Poisson counts for a small mean (below 10), by looking each word up in the distribution function."""
    return np.searchsorted(_poisson_limits(mean), words, side="right").astype(np.int64)


def _read(table: Floats, position: Floats) -> Floats:
    """The table's straight-line value at positions 0 to 1."""
    scaled = position * _CELLS
    cell = np.minimum(scaled.astype(np.int64), _CELLS - 1)
    low = table[cell]
    step = table[cell + 1] - low
    value: Floats = low + step * (scaled - cell)
    return value


@cache
def _minus_log() -> Floats:
    """-ln m for m from 1/2 to 1."""
    with localcontext() as context:
        context.prec = 25
        entries = [-(Decimal(_CELLS + cell) / (2 * _CELLS)).ln() for cell in range(_CELLS + 1)]
    return np.array([float(entry) for entry in entries])


@cache
def _power_of_two() -> Floats:
    """2**x for x from 0 to 1."""
    with localcontext() as context:
        context.prec = 25
        log_of_two = Decimal(2).ln()
        entries = [(log_of_two * cell / _CELLS).exp() for cell in range(_CELLS + 1)]
    return np.array([float(entry) for entry in entries])


@cache
def _poisson_limits(mean: float) -> Words:
    """P(count <= 0), P(count <= 1), … in units of 2**-64, until nothing is left of the distribution."""
    limits: list[int] = []
    with localcontext() as context:
        context.prec = 40
        exact = Decimal(mean)
        term = (-exact).exp()
        total = term
        while (limit := math.floor(total * _WORD_LIMIT)) < _WORD_LIMIT - 1 and len(limits) < 200:
            limits.append(limit)
            term = term * exact / len(limits)
            total += term
    return np.array(limits, np.uint64)
