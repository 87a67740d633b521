"""Judges what a log holds against what was sent and acknowledged, and what was done against what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from hftlab.events import Event, EventBatch
from tests.streams.batches import content, log_sequences


def check_history(
    recovered: EventBatch,
    producers: Sequence[tuple[Sequence[EventBatch], int]],
    *,
    whole: bool = False,
    may_lose: bool = False,
) -> dict[str, int]:
    """Assert acknowledged ⊆ recovered ⊆ sent, each once, in order per producer, with dense log sequences.

    ``producers`` has, for each, the batches that it sent in order, and how many of these were acknowledged. The
    producers' events must differ from one another. Returns the counts; ``whole``: all that was sent must be there;
    ``may_lose``: the end of what was acknowledged need not be, and is counted as ``lost``.
    """
    assert log_sequences(recovered) == list(range(len(recovered)))
    sent: list[list[Event]] = [[event for batch in batches for event in content(batch)] for batches, _ in producers]
    place = {hash(event): (number, index) for number, events in enumerate(sent) for index, event in enumerate(events)}
    assert len(place) == sum(map(len, sent)), "the producers' events must differ"
    seen: list[list[int]] = [[] for _ in producers]
    for event in content(recovered):
        assert hash(event) in place, f"an event was recovered that nobody sent: {event!r:.300}"
        number, index = place[hash(event)]
        assert sent[number][index] == event
        seen[number].append(index)
    lost = 0
    for number, (batches, acknowledged) in enumerate(producers):
        # In order, without repetition and without a hole: exactly a first part of what was sent.
        assert seen[number] == list(range(len(seen[number]))), f"producer {number}: out of order, twice, or with a hole"
        least = sum(map(len, batches if whole else batches[:acknowledged]))
        lost += max(0, least - len(seen[number]))
        assert may_lose or len(seen[number]) >= least, (
            f"producer {number}: {least - len(seen[number])} acknowledged events are lost"
        )
    return {
        "sent": sum(map(len, sent)),
        "acknowledged": sum(sum(map(len, batches[:count])) for batches, count in producers),
        "recovered": len(recovered),
        "lost": lost,
    }


def rows_of(recovered: EventBatch, batches: Sequence[EventBatch]) -> int:
    """How many of the recovered events are of these batches."""
    theirs = {hash(event) for batch in batches for event in content(batch)}
    return sum(hash(event) in theirs for event in content(recovered))


def check_effects(done: Iterable[Hashable], asked: Iterable[Hashable]) -> dict[str, int]:
    """Assert that each effect that was asked for was done once, and none besides. Returns how many there were."""
    times, wanted = Counter(done), set(asked)
    twice = {effect: count for effect, count in times.items() if count > 1}
    assert not twice, f"{len(twice)} effects were done more than once: {dict(list(twice.items())[:5])}"
    missing, strange = wanted - times.keys(), times.keys() - wanted
    assert not missing, f"{len(missing)} effects were never done: {list(missing)[:5]}"
    assert not strange, f"{len(strange)} effects were done that nobody asked for: {list(strange)[:5]}"
    return {"effects": len(times)}
