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
    totals = check_faulty_stream(SEED, 1_000_000)
    print(dict(totals))
    assert all(totals[fate] > 100 for fate in ("duplicate", "late", "conflicting", "filled", "lost"))
    assert all(totals[reason] for reason in ("notice deadline", "notice window", "notice reset"))


def check_faulty_stream(seed: int, count: int) -> Counter[str]:
    """Play a faulty stream through the model and, in batches of random sizes, through the sequencer, and compare.

    Returns the counts of what became of the messages, and of the notices by their reasons.
    """
    stream = faulty_stream(seed, count)
    ordering = Ordering(window=64, deadline_s=0.05)
    expected = modelled(stream, ordering)

    totals: Counter[str] = Counter()
    for counts in expected.counts.values():
        totals.update(counts)
    totals.update(f"notice {notice.reason}" for notice in expected.notices)
    totals.update(cycles=expected.cycles, orphans=expected.orphans)
    assert totals["received"] == len(stream.table)
    assert stream.session == SESSION

    sizes = np.random.default_rng(seed).integers(1, 4_096, 2_000)
    assert_same(sequenced(stream, ordering, np.cumsum(sizes).tolist()), expected)
    return totals
