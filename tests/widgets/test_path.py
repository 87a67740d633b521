from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.widgets.path import chosen_symbol, decode_path, encode_path

START_NS = 1_723_161_255_030_314_667


@given(
    st.lists(st.tuples(st.integers(0, 3_600 * 10**9), st.floats(50_000, 70_000)), min_size=1, max_size=200).map(sorted),
)
def test_a_path_is_exact_to_less_than_a_pixel(points: list[tuple[int, float]]) -> None:
    times_ns = np.array([START_NS + at for at, _ in points])
    prices = np.array([price for _, price in points])
    decoded_ms, decoded = decode_path(encode_path(times_ns, prices))
    pixel_ms = max((times_ns[-1] - times_ns[0]) / 1e6 / 4_000, 1e-3)
    pixel = max(np.ptp(prices) / 4_000, 1e-6)
    assert np.abs(decoded_ms - times_ns / 1e6).max() <= pixel_ms
    assert np.abs(decoded - prices).max() <= pixel


def test_points_without_a_price_are_left_out() -> None:
    encoded = encode_path(np.array([START_NS, START_NS + 10**9, START_NS + 2 * 10**9]), np.array([np.nan, 5.0, np.nan]))
    times_ms, prices = decode_path(encoded)
    assert times_ms.tolist() == pytest.approx([(START_NS + 10**9) / 1e6])
    assert prices.tolist() == [5.0]


@pytest.mark.parametrize("prices", [[], [np.nan, np.nan]])
def test_no_price_makes_no_point(prices: list[float]) -> None:
    encoded = encode_path(np.arange(len(prices), dtype=np.int64), np.array(prices))
    assert (encoded["points"], encoded["last"]) == (b"", "")


def test_the_bytes_are_float32_times_before_prices() -> None:
    encoded = encode_path(np.array([START_NS, START_NS + 500_000_000]), np.array([100.0, 100.5]))
    assert np.frombuffer(encoded["points"], "<f4").tolist() == [0.0, 0.5, 0.0, 0.5]
    assert encoded["base_price"] == 100.0


def test_the_latest_price_is_told_exactly_and_without_the_noise_of_a_mid() -> None:
    mid = (61_708.2 + 61_708.3) / 2
    assert encode_path(np.array([START_NS]), np.array([mid]))["last"] == "61,708.25"
    assert encode_path(np.array([START_NS]), np.array([0.1 + 0.2]))["last"] == "0.3"


def test_the_wanted_symbol_is_drawn_once_it_was_seen() -> None:
    assert chosen_symbol(["A", "B"], "B") == "B"
    assert chosen_symbol(["A", "B"], "") == "A"
    assert chosen_symbol(["A"], "B") == "A"
    assert chosen_symbol([], "B") == ""
