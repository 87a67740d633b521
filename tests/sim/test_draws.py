"""Random numbers: the distributions that they claim to have, and bits that no machine or NumPy may change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.sim.draws import Floats, Words, WordStream, bell, chance, exponential, poisson, power_of_e

TOP = (1 << 64) - 1


def words(*values: int) -> Words:
    return np.array(values, np.uint64)


def many(count: int = 400_000, key: int = 1) -> Words:
    return WordStream(7, (key,)).take(count)


def test_the_raw_words_are_those_of_pcg64_for_all_time() -> None:
    assert WordStream(0, (65, 0)).take(3).tolist() == [
        13020226148750056723,
        16527363493056179945,
        6357308371488785213,
    ]


def test_streams_of_other_seeds_and_keys_share_nothing() -> None:
    streams = [WordStream(seed, key).take(1000) for seed, key in ((0, (1,)), (0, (2,)), (1, (1,)), (0, (1, 0)))]
    assert len(np.unique(np.concatenate(streams))) == 4000


def test_a_stream_does_not_depend_on_how_it_is_taken() -> None:
    stream = WordStream(3, (1, 2))
    parts = np.concatenate([stream.take(count) for count in (1, 10, 0, 89)])
    np.testing.assert_array_equal(parts, WordStream(3, (1, 2)).take(100))


@given(word=st.integers(0, TOP), probability=st.floats(0, 1))
def test_chance_compares_the_word_as_a_fraction_with_the_probability(word: int, probability: float) -> None:
    expected = word < min(int(probability * 2**64), TOP)
    assert bool(chance(words(word), probability)[0]) is expected


@given(word=st.integers(0, TOP))
def test_exponential_is_minus_the_logarithm(word: int) -> None:
    uniform = ((word >> 11) + 1) / 2**53
    assert exponential(words(word))[0] == pytest.approx(-math.log(uniform), abs=1e-6)
    assert exponential(words(word))[0] >= 0


@given(exponent=st.floats(-700, 700))
def test_power_of_e_is_the_exponential_function(exponent: float) -> None:
    assert power_of_e(np.array([exponent]))[0] == pytest.approx(math.exp(exponent), rel=1e-6)


@given(word=st.integers(0, TOP), mean=st.sampled_from([0.0, 0.1, 0.6, 0.95, 5.0]))
def test_poisson_is_where_the_word_lies_in_the_distribution_function(word: int, mean: float) -> None:
    count = int(poisson(words(word), mean)[0])
    terms = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(count + 1)]
    fraction = word / 2**64
    assert sum(terms[:-1]) - 1e-12 <= fraction <= sum(terms) + 1e-12


def test_bell_lies_within_its_bounds() -> None:
    extremes = bell(words(0, TOP))
    assert extremes[0] == -extremes[1]
    assert extremes[1] == pytest.approx(math.sqrt(12), rel=1e-4)


@pytest.mark.parametrize(
    ("drawn", "mean", "variance"),
    [
        (exponential(many()), 1.0, 1.0),
        (bell(many()), 0.0, 1.0),
        (poisson(many(), 0.6).astype(np.float64), 0.6, 0.6),
        (chance(many(), 0.3).astype(np.float64), 0.3, 0.21),
    ],
    ids=["exponential", "bell", "poisson", "chance"],
)
def test_many_draws_have_the_mean_and_variance_of_their_distribution(
    drawn: Floats, mean: float, variance: float
) -> None:
    assert drawn.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / len(drawn)))
    assert drawn.var() == pytest.approx(variance, rel=0.02)


def test_exponential_draws_have_the_exponential_tail() -> None:
    drawn = exponential(many())
    for level in (1.0, 3.0, 6.0):
        assert np.mean(drawn > level) == pytest.approx(math.exp(-level), rel=0.1)
