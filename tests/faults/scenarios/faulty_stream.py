"""A stream that is dropped, doubled, reordered and reset on its way to the sequencer, against the model."""

from __future__ import annotations

from pathlib import Path

from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale
from tests.sequence.test_faulty_million import check_faulty_stream


@fault(
    "F12",
    "100,000 messages dropped, doubled, reordered, reset",
    promise="equals the model, counts conserve",
    needs_server=False,
)
async def faulty_stream(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    totals = check_faulty_stream(seed, at_scale(100_000, scale, 5_000))
    names = ("received", "delivered", "duplicate", "late", "conflicting", "filled", "lost")
    return {name: totals[name] for name in names}
