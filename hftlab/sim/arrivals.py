"""When events happen: a self-exciting point process, in which every event triggers others soon after it.

Order flow comes in bursts that a Poisson process does not have. The standard model is Hawkes's (A. G. Hawkes, "Spectra
of some self-exciting and mutually exciting point processes", Biometrika 58, 1971): intensity(t) = mu + sum over past
events of n / d * exp(-(t - t_i) / d). Simulating it event by event (Ogata's thinning, 1981) is a Python loop. Its
representation as a cluster process (Hawkes and Oakes, J. Appl. Prob. 11, 1974) is not: immigrants arrive as a Poisson
process of rate mu, each event of a generation has Poisson(n) children at exponential delays of mean d, and a whole
generation is a handful of array operations. The mean rate is mu / (1 - n); counts over times long against d have a
variance of 1 / (1 - n)**2 times their mean.
"""

from __future__ import annotations

import math

import numpy as np

from hftlab.sim.draws import Ints, WordStream, exponential, poisson

_SECOND_NS = 1_000_000_000
_BURN_IN_DELAYS = 20
"""The process starts this many delays (over 1 - n) before time 0, so that it is stationary when it is first seen."""


def burst_arrivals(words: WordStream, rate_hz: float, branching: float, burst_ns: int, horizon_ns: int) -> Ints:
    """Times of events in ns from 0 to below ``horizon_ns``, int64, rising (equal times can occur).

    ``rate_hz`` is the mean rate, ``branching`` (n, 0 to below 1) how many events one event triggers on average, and
    ``burst_ns`` (d) how long after it on average. 0 gives a Poisson process. About 60 ns an event.
    """
    burn_in_ns = int(_BURN_IN_DELAYS * burst_ns / (1.0 - branching))
    immigrants_hz = rate_hz * (1.0 - branching)
    generation = _poisson_times(words, immigrants_hz, horizon_ns + burn_in_ns) - burn_in_ns
    generations = [generation]
    while branching > 0 and len(generation):
        children = poisson(words.take(len(generation)), branching)
        parents = np.repeat(generation, children)
        delays = (exponential(words.take(len(parents))) * burst_ns).astype(np.int64)
        generation = parents + delays
        # What happens after the end can only trigger what is later still.
        generation = generation[generation < horizon_ns]
        generations.append(generation)
    times = np.concatenate(generations)
    times = times[times >= 0]
    times.sort()
    return times


def _poisson_times(words: WordStream, rate_hz: float, horizon_ns: int) -> Ints:
    """A Poisson process on 0 to below ``horizon_ns``: running sums of exponential gaps, in whole ns."""
    gap_ns = _SECOND_NS / rate_hz
    expected = horizon_ns / gap_ns
    block = int(expected + 5.0 * math.sqrt(expected)) + 16
    parts: list[Ints] = []
    last = 0
    while last < horizon_ns:
        gaps = (exponential(words.take(block)) * gap_ns).astype(np.int64)
        times = np.cumsum(gaps) + last
        last = int(times[-1])
        parts.append(times)
        block = 16 + block // 16
    times = np.concatenate(parts)
    return times[times < horizon_ns]
