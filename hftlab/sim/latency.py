"""How long messages travel: a floor, and above it a delay with a long tail, in the order in which they were sent."""

from __future__ import annotations

import msgspec
import numpy as np

from hftlab.sim.draws import Ints, WordStream, bell, power_of_e


class Latency(msgspec.Struct, frozen=True):
    """``floor_ns`` is the least delay; above it comes a delay of median ``jitter_ns``, lognormal of shape ``sigma``.

    Lognormal up to 3.5 standard deviations, where it ends (see ``draws.bell``): with the defaults, at 1.8 ms.
    """

    floor_ns: int = 150_000
    jitter_ns: int = 100_000
    sigma: float = 0.8


def arrivals(words: WordStream, sent_ns: Ints, latency: Latency) -> Ints:
    """When the messages of one connection arrive: none before one that was sent earlier. About 60 ns a message.

    A connection keeps its order, so whatever is sent behind a late message is late with it: delays come in clusters.
    """
    delay = power_of_e(bell(words.take(len(sent_ns))) * latency.sigma) * latency.jitter_ns
    return np.maximum.accumulate(sent_ns + latency.floor_ns + delay.astype(np.int64))
