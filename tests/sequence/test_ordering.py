"""What a user decides about order is checked where it is written down."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

import hftlab
from hftlab.errors import ValidationError
from hftlab.events import EventType
from hftlab.sequence import Ordering


def made(**settings: Any) -> Ordering:
    """Settings as somebody may write them in a notebook."""
    return Ordering(**settings)


def test_orders_and_fills_are_strict_and_all_else_goes_on_after_a_tenth_of_a_second() -> None:
    ordering = Ordering()
    assert ordering.strict == {EventType.ORDER, EventType.FILL}
    assert (ordering.window, ordering.deadline_s, ordering.deadline_ns) == (1_024, 0.1, 100_000_000)
    assert (ordering.lost_cause, ordering.at_capacity) == ("deliver", "forget")
    assert (ordering.reorder_s, ordering.merge_s) == (0, 0)
    assert hftlab.Ordering is Ordering


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("window", 1, 1 << 20), ("remembered", 1, 1 << 16), ("ids", 1_024, 1 << 30)]
)
def test_counts_lie_within_their_bounds(name: str, lowest: int, highest: int) -> None:
    for good in (lowest, highest):
        assert getattr(made(**{name: good}), name) == good
    for value in (lowest - 1, highest + 1, -1, True, float(lowest), str(lowest), None):
        with pytest.raises(ValidationError, match=rf"{name} is an integer of {lowest:,} to {highest:,}; got"):
            made(**{name: value})


@pytest.mark.parametrize("name", ["remembered", "ids"])
def test_what_is_found_by_a_mask_is_a_power_of_two(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"{name} is a power of two; got 1,025"):
        made(**{name: 1_025})


@pytest.mark.parametrize("name", ["deadline_s", "reorder_s", "merge_s", "ids_s"])
def test_durations_are_seconds_of_at_least_0(name: str) -> None:
    for good in (0, 0.0, 2, 1e-9):
        assert getattr(made(**{"deadline_s": 0, name: good}), name) == good
    for value in (-0.1, math.inf, math.nan, 1e9, True, "1", None):
        with pytest.raises(ValidationError, match=rf"{name} is a number of seconds of at least 0; got"):
            made(**{name: value})


@pytest.mark.parametrize(("name", "choices"), [("lost_cause", "deliver"), ("at_capacity", "forget")])
def test_a_policy_is_one_of_its_words(name: str, choices: str) -> None:
    with pytest.raises(ValidationError, match=rf"{name} is one of .*{choices}.*; got 'drop'"):
        made(**{name: "drop"})


def test_strict_takes_any_collection_of_event_types() -> None:
    every: Any = [EventType.MARKET_DATA, 4]
    ordering = made(strict=every)
    assert ordering.strict == frozenset({EventType.MARKET_DATA, EventType.SIGNAL})
    assert all(isinstance(event_type, EventType) for event_type in ordering.strict)
    assert hash(ordering) == hash(Ordering(strict=frozenset(every)))
    assert Ordering(strict=frozenset()).strict == frozenset()


@pytest.mark.parametrize("strict", [3, None, "order", [9], [EventType.ORDER, "fill"]])
def test_strict_has_event_types_and_nothing_else(strict: Any) -> None:
    with pytest.raises(ValidationError, match="strict is a set of EventTypes; got"):
        made(strict=strict)


def test_an_ordering_is_not_changed_but_replaced_and_checked_again() -> None:
    ordering = Ordering(deadline_s=0.5)
    with pytest.raises(AttributeError):
        ordering.window = 3  # type: ignore[misc]
    assert msgspec.structs.replace(ordering, window=3) == Ordering(window=3, deadline_s=0.5)
    with pytest.raises(ValidationError, match="window is an integer"):
        msgspec.structs.replace(ordering, window=0)
    with pytest.raises(TypeError):
        Ordering(16)  # type: ignore[call-arg]


def test_a_deadline_is_exact_to_the_nanosecond() -> None:
    assert Ordering(deadline_s=0.3).deadline_ns == 300_000_000
    assert Ordering(deadline_s=1e-9).deadline_ns == 1


def test_a_merged_view_waits_at_least_as_long_as_a_gap_may_hold_back() -> None:
    assert Ordering(merge_s=0.1).merge_s == 0.1
    assert Ordering(merge_s=0.01, deadline_s=0.01).merge_s == 0.01
    with pytest.raises(ValidationError, match=r"merge_s is 0, or at least deadline_s.*; got merge_s=0\.05"):
        Ordering(merge_s=0.05)
