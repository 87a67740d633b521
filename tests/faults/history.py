"""Judges what a log holds against what was sent and acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

from hftlab.events import Event, EventBatch
from tests.streams.batches import content, log_sequences


def check_history(
    recovered: EventBatch, producers: Sequence[tuple[Sequence[EventBatch], int]], *, whole: bool = False
) -> dict[str, int]:
    """Assert acknowledged ⊆ recovered ⊆ sent, each once, in order per producer, with dense log sequences.

    ``producers`` has, for each, the batches that it sent in order, and how many of these were acknowledged. The
    producers' events must differ from one another. Returns the counts; ``whole``: all that was sent must be there.
    """
    assert log_sequences(recovered) == list(range(len(recovered)))
    sent: list[list[Event]] = [[event for batch in batches for event in content(batch)] for batches, _ in producers]
    place = {hash(event): (number, index) for number, events in enumerate(sent) for index, event in enumerate(events)}
    assert len(place) == sum(map(len, sent)), "the producers' events must differ"
    seen: list[list[int]] = [[] for _ in producers]
    for event in content(recovered):
        number, index = place[hash(event)]
        assert sent[number][index] == event
        seen[number].append(index)
    for number, (batches, acknowledged) in enumerate(producers):
        # In order, without repetition and without a hole: exactly a first part of what was sent.
        assert seen[number] == list(range(len(seen[number])))
        least = sum(map(len, batches if whole else batches[:acknowledged]))
        assert len(seen[number]) >= least, (
            f"producer {number}: {least - len(seen[number])} acknowledged events are lost"
        )
    return {
        "sent": sum(map(len, sent)),
        "acknowledged": sum(sum(map(len, batches[:count])) for batches, count in producers),
        "recovered": len(recovered),
    }
