"""Each word of order alone, as an example to read. The model plays every example too, and must agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.events import EventType, Flags, Source
from hftlab.events.records import event_id
from hftlab.sequence import Ordering
from tests.sequence.messages import FOREIGN, MS, SESSION, START_NS, stream_of
from tests.sequence.playing import Outcome, Player, assert_same, modelled, sequenced

TICKS, TRADES, BOOK, QUOTES, ORDERS, EXECUTIONS = range(1, 7)
HEARTBEAT, END = int(Flags.HEARTBEAT), int(Flags.END_OF_SESSION)


def play(*messages: dict[str, Any], session: int = SESSION, **settings: Any) -> Outcome:
    """Both outcomes of a stream, which are one. A message's row is its position, as long as all have one part."""
    stream = stream_of(list(messages), session=session)
    outcome = sequenced(stream, Ordering(**settings))
    assert_same(outcome, modelled(stream, Ordering(**settings)))
    return outcome


def trade(sequence: int, **more: Any) -> dict[str, Any]:
    return {"source": TRADES, "sequence": sequence, **more}


def order(sequence: int, **more: Any) -> dict[str, Any]:
    return {"source": ORDERS, "sequence": sequence, **more}


def book(first: int, last: int, **more: Any) -> dict[str, Any]:
    return {"source": BOOK, "sequence": last, "span": last - first + 1, **more}


def quote(sequence: int, **more: Any) -> dict[str, Any]:
    return {"source": QUOTES, "sequence": sequence, **more}


def caused_by(row: int) -> int:
    return event_id(SESSION, row)


def pieces(outcome: Outcome) -> list[tuple[int, int, str]]:
    return [(gap.first, gap.last, gap.state) for gap in outcome.gaps]


# -- numbers --------------------------------------------------------------------------------------------------------


def test_what_comes_in_order_goes_out_as_it_came() -> None:
    outcome = play(trade(7), trade(8), trade(9))
    assert outcome.rows == [0, 1, 2]
    assert not outcome.gaps


def test_what_comes_too_early_waits_for_what_is_missing() -> None:
    outcome = play(trade(1), trade(3, received=1), trade(2, received=2))
    assert outcome.rows == [0, 2, 1]
    assert [delivery.released - START_NS for delivery in outcome.deliveries] == [0, 2 * MS, 2 * MS]


def test_a_copy_is_a_duplicate_whether_the_first_was_delivered_or_is_held() -> None:
    outcome = play(trade(1), trade(1), trade(3), trade(3), trade(2))
    assert outcome.rows == [0, 4, 2]
    assert outcome.counts[TRADES]["duplicate"] == 2
    assert not outcome.set_aside


def test_another_content_under_the_same_number_is_a_conflict() -> None:
    outcome = play(trade(1), trade(1, content=5), trade(3), trade(3, content=5), trade(2))
    assert outcome.rows == [0, 4, 2]
    assert outcome.set_aside == [(1, "conflicting"), (3, "conflicting")]


def test_a_copy_of_what_is_no_longer_remembered_is_presumed_a_duplicate() -> None:
    outcome = play(*map(trade, range(6)), trade(0, content=9), remembered=4)
    assert outcome.counts[TRADES]["duplicate"] == 1


def test_what_comes_after_it_was_declared_lost_is_late_and_its_copy_a_duplicate() -> None:
    outcome = play(trade(1), trade(3), trade(4, received=101), trade(2, received=102), trade(2, received=103))
    assert outcome.rows == [0, 1, 2]
    assert outcome.set_aside == [(3, "late")]
    assert outcome.counts[TRADES]["duplicate"] == 1


def test_what_comes_before_the_first_number_seen_is_late() -> None:
    outcome = play(trade(10), trade(9))
    assert outcome.set_aside == [(1, "late")]
    assert not outcome.gaps


# -- gaps -----------------------------------------------------------------------------------------------------------


def test_a_gap_opens_is_filled_in_its_middle_splits_and_ends_as_one_row() -> None:
    outcome = play(trade(1), trade(6, received=1), trade(3, received=2), trade(2, received=3), trade(5), trade(4))
    assert outcome.rows == [0, 3, 2, 5, 4, 1]
    assert outcome.kinds == [("open", 2, 5), ("filled", 3, 3), ("filled", 2, 2), ("filled", 5, 5), ("filled", 4, 4)]
    assert pieces(outcome) == [(2, 5, "filled")]
    assert outcome.gaps[0].opened == START_NS + MS
    assert outcome.gaps[0].closed == START_NS + 3 * MS
    assert (outcome.gaps[0].before, outcome.gaps[0].after) == (caused_by(0), caused_by(1))


def test_a_gap_filled_in_part_and_lost_in_part_has_a_row_for_each_piece() -> None:
    outcome = play(trade(1), trade(6), trade(3), trade(4), trade(7, received=101))
    assert pieces(outcome) == [(2, 2, "lost"), (3, 4, "filled"), (5, 5, "lost")]
    assert [gap.reason for gap in outcome.gaps] == ["deadline", "none", "deadline"]


def test_a_gap_is_lost_at_its_deadline_and_what_it_held_back_is_released_as_of_then() -> None:
    outcome = play(trade(1), trade(3, received=10), quote(1, received=500))
    assert outcome.rows == [0, 1, 2]
    assert outcome.deliveries[1].released == START_NS + 110 * MS
    assert outcome.gaps[0].closed == START_NS + 110 * MS
    assert outcome.notices[1].closed == START_NS + 110 * MS
    assert outcome.notices[1].position == 1


def test_a_deadline_is_reached_at_the_very_nanosecond_not_before() -> None:
    before = play(trade(1), trade(3), trade(2, received=100 - 1e-6))
    at = play(trade(1), trade(3), trade(2, received=100))
    assert (before.rows, at.rows) == ([0, 2, 1], [0, 1])


def test_deadlines_of_several_sources_pass_in_the_order_in_which_the_gaps_opened() -> None:
    outcome = play(
        trade(1), book(1, 1), book(3, 3, received=1), trade(3, received=2), trade(9, received=3), quote(1, received=400)
    )
    assert [(notice.source, notice.first) for notice in outcome.notices if notice.kind == "lost"] == [
        (BOOK, 2),
        (TRADES, 2),
        (TRADES, 4),
    ]
    assert outcome.rows == [0, 1, 2, 3, 4, 5]


def test_a_clock_that_is_set_back_makes_no_time_run_backwards() -> None:
    outcome = play(trade(1), trade(2, received=50), trade(3, received=20))
    assert [delivery.released - START_NS for delivery in outcome.deliveries] == [0, 50 * MS, 50 * MS]


def test_a_full_window_of_a_best_effort_source_gives_the_first_gap_up() -> None:
    outcome = play(trade(1), trade(3), trade(5), trade(7), window=2)
    assert outcome.rows == [0, 1, 2, 3]
    assert [(gap.first, gap.reason) for gap in outcome.gaps] == [(2, "window"), (4, "end"), (6, "end")]


def test_what_would_fill_the_gap_that_a_full_window_gives_up_is_late() -> None:
    outcome = play(trade(1), trade(9), trade(5), window=1)
    assert outcome.set_aside == [(2, "late")]
    assert outcome.rows == [0, 1]


def test_the_first_row_after_a_loss_says_so_and_no_other() -> None:
    outcome = play(trade(1), trade(3, parts=2), trade(2), trade(4))
    assert not any(delivery.after_gap for delivery in outcome.deliveries)
    outcome = play(trade(1), trade(3, parts=2), trade(4), trade(5, received=200))
    assert [delivery.after_gap for delivery in outcome.deliveries] == [False, True, False, False, False]


def test_strict_sources_wait_for_ever_and_best_effort_sources_do_not() -> None:
    outcome = play(trade(1), order(1), trade(3), order(3), trade(4, received=9_000), order(2, received=9_999))
    assert outcome.rows == [0, 1, 2, 4, 5, 3]
    assert pieces(outcome) == [(2, 2, "lost"), (2, 2, "filled")]


def test_the_first_message_of_a_source_decides_whether_it_is_strict() -> None:
    market = int(EventType.MARKET_DATA)
    outcome = play(order(1, type=market), order(3), order(4, received=200))
    assert outcome.gaps[0].reason == "deadline"


def test_giving_up_releases_what_a_strict_source_holds() -> None:
    stream = stream_of([order(1), order(3), order(5)])
    player = Player(stream, Ordering())
    player.offer(player.batch)
    assert player.outcome.rows == [0]
    player.give_up(ORDERS)
    assert player.outcome.rows == [0, 1, 2]
    assert {gap.reason for gap in player.read().gaps} == {"decided"}


# -- ranges, shared counters, no numbers ----------------------------------------------------------------------------


def test_a_message_that_covers_a_range_continues_where_the_one_before_ended() -> None:
    outcome = play(book(1, 5), book(6, 9), book(13, 14), book(10, 12))
    assert outcome.rows == [0, 1, 3, 2]
    assert pieces(outcome) == [(10, 12, "filled")]


def test_a_range_that_reaches_back_fills_and_delivers() -> None:
    outcome = play(book(1, 5), book(9, 9), book(4, 8))
    assert outcome.rows == [0, 2, 1]
    assert outcome.kinds == [("open", 6, 8), ("filled", 6, 8)]


def test_a_range_that_overlaps_a_held_one_in_part_is_a_conflict() -> None:
    outcome = play(book(1, 1), book(5, 7), book(4, 6), book(7, 9), book(2, 4))
    assert outcome.rows == [0, 4, 1]
    assert outcome.set_aside == [(2, "conflicting"), (3, "conflicting")]


def test_a_held_range_that_another_swallowed_is_a_conflict_when_its_turn_comes() -> None:
    outcome = play(book(1, 1), book(4, 4), book(7, 7), book(2, 6))
    assert outcome.rows == [0, 3, 2]
    assert outcome.set_aside == [(1, "conflicting")]
    assert pieces(outcome) == [(2, 3, "filled"), (5, 6, "filled")]


def test_a_range_that_lies_in_two_gaps_fills_both() -> None:
    outcome = play(book(1, 1), book(3, 3, span=0, flags=HEARTBEAT), book(6, 6), book(3, 5), book(2, 2))
    assert outcome.rows == [0, 1, 4, 3, 2]
    assert pieces(outcome) == [(2, 3, "filled"), (4, 5, "filled")]


def test_a_shared_counter_jumps_without_a_gap() -> None:
    outcome = play(quote(10), quote(500), quote(30), quote(30), quote(500, content=1))
    assert outcome.rows == [0, 1]
    assert not outcome.gaps
    assert outcome.set_aside == [(2, "late"), (4, "conflicting")]
    assert outcome.counts[QUOTES]["duplicate"] == 1


def test_sources_without_numbers_are_numbered_as_they_arrive() -> None:
    outcome = play(*({"source": TICKS, "sequence": -1, "parts": parts} for parts in (1, 2, 1)))
    assert [delivery.sequence for delivery in outcome.deliveries] == [0, 1, 1, 2]


def test_the_unknown_source_is_neither_numbered_nor_ordered() -> None:
    outcome = play({"source": 0, "sequence": -1}, {"source": 0, "sequence": -1})
    assert [delivery.sequence for delivery in outcome.deliveries] == [-1, -1]


def test_a_message_without_a_number_goes_through_a_numbered_source_at_once() -> None:
    outcome = play(trade(1), trade(3), trade(-1), trade(2))
    assert outcome.rows == [0, 2, 3, 1]


# -- resets, ends, heartbeats ---------------------------------------------------------------------------------------


def test_a_new_epoch_loses_what_is_open_and_starts_wherever_it_starts() -> None:
    outcome = play(trade(1), trade(3), trade(1, epoch=1), trade(2, epoch=1))
    assert outcome.rows == [0, 1, 2, 3]
    assert [(gap.first, gap.reason) for gap in outcome.gaps] == [(2, "reset")]
    assert [delivery.after_gap for delivery in outcome.deliveries] == [False, True, False, False]


def test_what_belongs_to_an_earlier_epoch_is_late() -> None:
    outcome = play(trade(1, epoch=2), trade(2, epoch=1), trade(2, epoch=2))
    assert outcome.set_aside == [(1, "late")]
    assert outcome.rows == [0, 2]


def test_nothing_comes_after_the_declared_end_but_what_was_missing_before_it() -> None:
    outcome = play(trade(1), trade(3, flags=END), trade(4), trade(2), trade(9, epoch=1))
    assert outcome.rows == [0, 3, 1, 4]
    assert outcome.set_aside == [(2, "conflicting")]


def test_a_heartbeat_reveals_that_the_tail_is_lost() -> None:
    outcome = play(trade(1), trade(3, span=0, flags=HEARTBEAT), trade(2), trade(3))
    assert outcome.rows == [0, 1, 2, 3]
    assert outcome.kinds == [("open", 2, 3), ("filled", 2, 2), ("filled", 3, 3)]
    lost = play(trade(1), trade(3, span=0, flags=HEARTBEAT), quote(1, received=200), trade(2, received=201))
    assert pieces(lost) == [(2, 3, "lost")]
    assert lost.set_aside == [(3, "late")]


def test_a_heartbeat_that_tells_nothing_new_opens_nothing() -> None:
    outcome = play(*(trade(number, span=0, flags=HEARTBEAT) for number in (5, 5, 3)), trade(6))
    assert outcome.rows == [0, 1, 2, 3]
    assert not outcome.gaps


def test_what_is_missing_at_the_end_of_the_session_is_lost_then() -> None:
    outcome = play(order(1), order(3), trade(1), trade(3))
    assert [(gap.source, gap.reason) for gap in outcome.gaps] == [(ORDERS, "end"), (TRADES, "end")]
    assert outcome.rows == [0, 2, 3, 1]  # source by source


# -- causes ---------------------------------------------------------------------------------------------------------


def test_an_effect_waits_for_a_cause_that_is_held_and_holds_back_what_follows_it() -> None:
    outcome = play(trade(1), trade(3), order(1, cause=caused_by(1)), order(2), trade(2))
    assert outcome.rows == [0, 4, 1, 2, 3]


def test_an_effect_that_was_read_before_its_cause_waits_for_it() -> None:
    outcome = play(order(1, cause=caused_by(2)), order(2), trade(1))
    assert outcome.rows == [2, 0, 1]


def test_an_effect_waits_no_longer_than_the_deadline_for_what_never_came() -> None:
    outcome = play(order(1, cause=caused_by(1_000)), trade(1, received=99), trade(2, received=100))
    assert outcome.rows == [1, 0, 2]


@pytest.mark.parametrize("cause", [FOREIGN, 1, event_id(SESSION, 0)])
def test_a_cause_that_is_not_on_its_way_is_not_waited_for(cause: int) -> None:
    assert play(trade(1), order(1, cause=cause)).rows == [0, 1]


def test_what_was_never_recorded_has_no_ids_to_wait_for() -> None:
    outcome = play(trade(1), trade(3), order(1, cause=caused_by(1)), session=0)
    assert outcome.rows == [0, 2, 1]


def test_events_that_cause_each_other_or_themselves_are_counted_and_delivered() -> None:
    outcome = play(trade(1, cause=caused_by(0)))
    assert (outcome.rows, outcome.cycles) == ([0], 1)
    outcome = play(trade(1, cause=caused_by(1)), order(1, cause=caused_by(0)), trade(2))
    assert (outcome.rows, outcome.cycles) == ([1, 0, 2], 1)
    outcome = play(trade(1), trade(3, cause=caused_by(2)), trade(4), trade(2))
    assert (outcome.rows, outcome.cycles) == ([0, 3, 1, 2], 1)


@pytest.mark.parametrize(("lost_cause", "rows"), [("deliver", [0, 2, 3]), ("set aside", [0])])
def test_the_effect_of_what_was_set_aside_is_an_orphan(lost_cause: str, rows: list[int]) -> None:
    outcome = play(
        trade(5), trade(4), order(1, cause=caused_by(1)), quote(1, cause=caused_by(2)), lost_cause=lost_cause
    )
    assert outcome.rows == rows
    assert outcome.orphans == (1 if lost_cause == "deliver" else 2)


def test_an_effect_is_released_as_soon_as_its_cause_stands_behind_it_in_its_own_queue() -> None:
    outcome = play(
        trade(1), trade(2, cause=caused_by(3)), trade(3), trade(5), trade(4, received=4), quote(1, received=9)
    )
    assert outcome.rows == [0, 1, 2, 4, 3, 5]
    assert outcome.deliveries[1].released == START_NS + 4 * MS
    assert outcome.cycles == 1


def test_an_effect_follows_its_cause_at_once_also_where_the_cause_comes_in_a_run_of_its_source() -> None:
    outcome = play(trade(1), order(1, cause=caused_by(3)), trade(2), trade(3), trade(4), trade(5))
    assert outcome.rows == [0, 2, 3, 1, 4, 5]


def test_what_is_pressed_back_was_not_read_and_is_waited_for() -> None:
    outcome = play(order(1), order(3), trade(1, cause=caused_by(3)), order(4), window=1)
    assert outcome.rows == [0, 1, 3, 2]


def test_effects_wait_for_their_causes_at_the_end_too_but_not_for_what_was_never_read() -> None:
    outcome = play(trade(1, cause=caused_by(1)), order(1, cause=caused_by(1_000)))
    assert outcome.rows == [1, 0]


@pytest.mark.parametrize(("parts", "flags"), [(2, 0), (2, HEARTBEAT)])
def test_a_gap_names_the_last_row_before_it_and_the_first_row_behind_it(parts: int, flags: int) -> None:
    revealing = trade(3, parts=parts, flags=flags, span=0 if flags else 1)
    outcome = play(trade(1, parts=2), revealing)
    assert (outcome.gaps[0].before, outcome.gaps[0].after) == (caused_by(1), caused_by(2))


# -- parts, size ----------------------------------------------------------------------------------------------------


def test_the_parts_of_a_message_stay_together_and_count_as_one() -> None:
    outcome = play(trade(1, parts=2), trade(3, parts=3), trade(2, parts=2), trade(2, parts=2))
    assert outcome.rows == [0, 1, 5, 6, 2, 3, 4]
    assert outcome.counts[TRADES]["delivered"] == 3
    assert outcome.counts[TRADES]["duplicate"] == 1


def test_a_copy_with_fewer_parts_is_a_conflict() -> None:
    outcome = play(trade(1, parts=3), trade(1, parts=2))
    assert outcome.counts[TRADES]["conflicting"] == 1
    assert outcome.set_aside == [(3, "conflicting"), (4, "conflicting")]


def test_thousands_of_sources_are_each_in_an_order_of_their_own() -> None:
    random = np.random.default_rng(5)
    names = tuple(Source("nyx", f"feed{number}", "", "plus-one") for number in range(5_000))
    messages = []
    for number in (1, 3, 2, 3):
        for source in random.permutation(len(names)).tolist():
            kind = EventType.ORDER if source % 2 else EventType.MARKET_DATA
            messages.append({"source": source + 1, "sequence": number, "type": int(kind)})
    stream = stream_of(messages, names)
    outcome = sequenced(stream, Ordering(), [7_777, 7_778, 12_000])
    assert_same(outcome, modelled(stream, Ordering()))
    assert len(outcome.deliveries) == 15_000
    assert len(outcome.gaps) == 5_000
