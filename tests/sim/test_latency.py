"""Latency: a floor, a tail, and the order of one connection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.sim.draws import WordStream
from hftlab.sim.latency import Latency, arrivals

MS = 1_000_000


def test_what_is_sent_far_apart_has_the_floor_and_a_lognormal_delay() -> None:
    sent = np.arange(200_000) * 1000 * MS
    delay = arrivals(WordStream(1, (1,)), sent, Latency(floor_ns=3 * MS, jitter_ns=2 * MS, sigma=0.5)) - sent
    assert delay.min() > 3 * MS
    above = np.log((delay - 3 * MS) / (2 * MS))
    assert np.median(above) == pytest.approx(0, abs=0.01)
    assert above.std() == pytest.approx(0.5, rel=0.02)


@given(gaps=st.lists(st.integers(0, 5 * MS), min_size=1, max_size=100), sigma=st.floats(0, 2))
def test_a_message_arrives_with_its_delay_or_right_behind_the_one_before(gaps: list[int], sigma: float) -> None:
    sent = np.cumsum(gaps)
    latency = Latency(floor_ns=MS, jitter_ns=MS, sigma=sigma)
    received = arrivals(WordStream(1, (1,)), sent, latency).tolist()
    far_apart = np.arange(len(sent)) * 10**12
    alone = (arrivals(WordStream(1, (1,)), far_apart, latency) - far_apart).tolist()
    expected, last = [], 0
    for at, delay in zip(sent.tolist(), alone, strict=True):
        last = max(last, at + delay)
        expected.append(last)
    assert received == expected


def test_without_jitter_every_message_takes_the_floor() -> None:
    sent = np.array([0, 5, 5])
    assert arrivals(WordStream(1, (1,)), sent, Latency(7, 0, 0.8)).tolist() == [7, 12, 12]
