"""A million messages with everything that goes wrong, against the model."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hftlab.sequence import Ordering
from tests.sequence.messages import SESSION, faulty_stream
from tests.sequence.playing import assert_same, modelled, sequenced

SEED = 20_240_808


def test_a_million_messages_with_every_fault_come_out_as_the_words_say() -> None:
    print(f"seed {SEED}")
    stream = faulty_stream(SEED, 1_000_000)
    ordering = Ordering(window=64, deadline_s=0.05)
    expected = modelled(stream, ordering)

    totals: Counter[str] = Counter()
    for counts in expected.counts.values():
        totals.update(counts)
    reasons = Counter(notice.reason for notice in expected.notices)
    print(dict(totals), dict(reasons), f"{expected.cycles} cycles, {expected.orphans} orphans", sep="\n")
    assert totals["received"] == len(stream.table)
    assert all(totals[fate] > 100 for fate in ("duplicate", "late", "conflicting", "filled", "lost"))
    assert {"deadline", "window", "reset"} <= set(reasons)
    assert stream.session == SESSION

    sizes = np.random.default_rng(SEED).integers(1, 4_096, 2_000)
    assert_same(sequenced(stream, ordering, np.cumsum(sizes).tolist()), expected)
