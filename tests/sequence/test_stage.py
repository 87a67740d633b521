"""The stage: deduplicator, windows and sequencer together, as every run and every live bus has one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.events import EventBatch, EventType, Source
from hftlab.events.rowbytes import take_rows
from hftlab.sequence import GapReason, GapState, Ordering
from hftlab.sequence.stage import Ordered, OrderStage, StageStatistics
from tests.sequence.messages import MS, START_NS, Stream, stream_of, streams
from tests.sequence.playing import Player, assert_same, modelled
from tests.sequence.test_sequencer import cuts, orderings

PLAIN, SHARED, ORDERS = 2, 4, 5
ROUNDS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(1, 4)), max_size=8)


class StagePlayer(Player):
    """Plays a stream through a stage, with some of its rows coming again, and notes what came out in the same words."""

    def __init__(self, stream: Stream, ordering: Ordering) -> None:
        super().__init__(stream, ordering)
        self.stage = OrderStage(ordering, self.symbols, self.sources)
        self.sequencer: Any = _AsSequencer(self.stage)
        self.offered = 0

    def offer(self, batch: EventBatch) -> None:
        self.offered += len(batch)
        while len(batch):
            ordered = self.stage.process(batch)
            self.note(ordered)
            batch = batch[ordered.taken :]
            if len(batch):
                self.give_up(None)
        assert accounted(self.stage.statistics(), len(self.outcome.deliveries)) == self.offered

    def play_again(self, again: list[tuple[int, int, int]], cuts: list[int]) -> int:
        """All rows, and after the row at a place the ``count`` rows up to an earlier one again; how many these were."""
        index: list[int] = []
        places = {at: (of, count) for at, of, count in again if self.stream.session}
        redelivered = 0
        for row in range(len(self.batch)):
            index.append(row)
            if row in places:
                of, count = places[row]
                copies = list(range(max(0, min(of, row) - count + 1), min(of, row) + 1))
                index += copies
                redelivered += len(copies)
        rows = take_rows(self.batch.records, np.array(index, np.int64))
        batch = EventBatch(rows, self.symbols, self.sources, session_number=self.stream.session)
        edges = sorted({0, len(batch), *(cut for cut in cuts if cut < len(batch))})
        for begin, end in pairwise(edges):
            self.offer(batch[begin:end])
        self.note(self.stage.finish())
        return redelivered


def steadily(stream: Stream) -> Stream:
    """The stream by a recorder whose clock is never set back: an unchanged batch tells no more than its arrivals."""
    table = stream.table.copy()
    table["received"] = np.maximum.accumulate(table["received"])
    return Stream(table, stream.sources, stream.session)


class _AsSequencer:
    """What a Player asks a sequencer for, from a stage."""

    def __init__(self, stage: OrderStage) -> None:
        self.process, self.advance, self.finish, self.gaps = stage.process, stage.advance, stage.finish, stage.gaps
        self.statistics = lambda: stage.statistics().order


def accounted(told: StageStatistics, delivered: int) -> int:
    """Rows by what became of them, all together."""
    return delivered + told.held_rows + told.dedup.redelivered + told.order.duplicate_rows + told.set_aside_rows


def small(ordering: Ordering) -> Ordering:
    """The same with a small memory for ids: an example takes less time."""
    return Ordering(
        window=ordering.window, deadline_s=ordering.deadline_s, remembered=ordering.remembered,
        lost_cause=ordering.lost_cause, ids=1_024,
    )  # fmt: skip


def made(messages: list[dict[str, Any]], **ordering: Any) -> tuple[OrderStage, EventBatch]:
    stream = stream_of(messages)
    tables = stream.tables()
    return OrderStage(Ordering(**ordering), *tables), stream.batch(tables)


def plain(*numbers: int, source: int = PLAIN, **fields: Any) -> list[dict[str, Any]]:
    return [{"source": source, "sequence": number, "received": at, **fields} for at, number in enumerate(numbers)]


def rows_of(*ordered: Ordered) -> list[int]:
    return [row for each in ordered for row in each.batch.records["log_sequence"].tolist()]


def notices_of(ordered: Ordered) -> list[tuple[int, str, int, int]]:
    fields = ("position", "state", "first", "last")
    return [
        (position, GapState(state).name, first, last)
        for position, state, first, last in zip(*(ordered.notices[name].tolist() for name in fields), strict=True)
    ]


# -- deduplicator and sequencer together ------------------------------------------------------------------------------


@settings(max_examples=80)
@given(streams(), orderings, cuts, ROUNDS)
def test_what_the_log_delivers_again_changes_nothing_and_is_counted_apart(
    stream: Stream, ordering: Ordering, cuts: list[int], again: list[tuple[int, int, int]]
) -> None:
    stream = steadily(stream)
    player = StagePlayer(stream, small(ordering))
    redelivered = player.play_again(again, cuts)
    assert_same(player.read(), modelled(stream, ordering))
    assert player.stage.statistics().dedup.redelivered == redelivered


@settings(max_examples=50)
@given(streams(), orderings, cuts)
def test_batches_of_any_sizes_give_the_same(stream: Stream, ordering: Ordering, cuts: list[int]) -> None:
    whole, parts, rows = (StagePlayer(steadily(stream), small(ordering)) for _ in range(3))
    for player, ends in ((whole, []), (parts, cuts), (rows, list(range(1, 200)))):
        player.play_again([], ends)
    assert_same(parts.read(), whole.read())
    assert_same(rows.read(), whole.read())


def test_redelivered_and_duplicate_rows_are_counted_apart() -> None:
    stage, batch = made(plain(1, 2, 2, 3))
    came = [stage.process(batch), stage.process(batch[1:]), stage.process(batch[3:])]
    assert rows_of(*came) == [0, 1, 3]
    told = stage.statistics()
    assert (told.dedup.redelivered, told.order.duplicate_rows, told.order.duplicate) == (4, 1, 1)
    assert accounted(told, 3) == 8


def test_what_is_in_order_goes_through_as_the_very_batch() -> None:
    stage, batch = made(plain(1, 2, 3))
    ordered = stage.process(batch)
    assert ordered.batch.records is batch.records or ordered.batch is batch
    assert (ordered.taken, ordered.changed, len(ordered.notices)) == (3, False, 0)
    assert ordered.released_ns.tolist() == batch.records["received"].tolist()


def test_an_empty_batch_is_nothing_new() -> None:
    stage, batch = made(plain(1, 2, 3))
    ordered = stage.process(batch[:0])
    assert (len(ordered.batch), ordered.taken, len(ordered.notices)) == (0, 0, 0)
    assert stage.statistics().order.received == 0


def test_rows_under_other_tables_are_translated() -> None:
    stream = stream_of(plain(1, 3, 2))
    _, sources = stream.tables()
    stage = OrderStage(Ordering(), *stream_of([], tuple(reversed(stream.sources))).tables())
    ordered = stage.process(stream.batch())
    assert rows_of(ordered) == [0, 2, 1]
    assert stage.gaps[0].source == sources[PLAIN]
    assert {ordered.batch.sources[number] for number in ordered.batch.records["source"].tolist()} == {sources[PLAIN]}


# -- time -------------------------------------------------------------------------------------------------------------


def test_notices_stand_where_they_happened_among_the_rows() -> None:
    stage, batch = made(plain(1, 3, 2, 4, 9, 10), window=8)
    ordered = stage.process(batch)
    assert rows_of(ordered) == [0, 2, 1, 3]
    assert notices_of(ordered) == [(1, "OPEN", 2, 2), (1, "FILLED", 2, 2), (4, "OPEN", 5, 8)]
    ended = stage.finish()
    assert notices_of(ended) == [(0, "LOST", 5, 8)]
    assert rows_of(ended) == [4, 5]


def test_positions_count_on_through_pieces_of_a_strict_batch() -> None:
    """A strict batch goes in by pieces that are sure to find room: positions are of the whole."""
    numbers = [1, 3, 2, 5, 4, 7, 6, 9, 8, 10]
    stage, batch = made(plain(*numbers, source=ORDERS), window=1)
    ordered = stage.process(batch)
    assert (ordered.taken, rows_of(ordered)) == (10, [0, 2, 1, 4, 3, 6, 5, 8, 7, 9])
    assert notices_of(ordered) == [
        notice for at in (1, 3, 5, 7) for notice in ((at, "OPEN", at + 1, at + 1), (at, "FILLED", at + 1, at + 1))
    ]
    assert ordered.changed


def test_time_is_each_rows_arrival_or_what_is_given() -> None:
    by_rows, batch = made(plain(1, 3))
    by_rows.process(batch)
    assert by_rows.due_ns == START_NS + MS + 100 * MS
    by_clock, _ = made([])
    by_clock.process(batch, now_ns=START_NS + 5_000 * MS)
    assert by_clock.due_ns == START_NS + 5_100 * MS
    assert by_clock.gaps[0].opened_ns == START_NS + 5_000 * MS


def test_nothing_is_given_up_before_the_deadline_and_everything_at_it() -> None:
    stage, batch = made(plain(1, 3))
    stage.process(batch)
    due_ns = stage.due_ns
    assert due_ns is not None
    early = stage.advance(due_ns - 1)
    assert (rows_of(early), len(early.notices)) == ([], 0)
    at = stage.advance(due_ns)
    assert (rows_of(at), notices_of(at)) == ([1], [(0, "LOST", 2, 2)])
    assert at.released_ns.tolist() == [due_ns]
    assert stage.due_ns is None


def test_what_was_decided_is_work_until_it_is_carried_out() -> None:
    stage, batch = made(plain(1, 3, source=ORDERS))
    stage.process(batch)
    assert (stage.wants_work, stage.due_ns) == (False, None)
    stage.gaps.give_up()
    assert stage.wants_work
    assert rows_of(stage.advance(0)) == [1]
    assert not stage.wants_work


# -- strict windows ---------------------------------------------------------------------------------------------------


def test_what_is_not_taken_leaves_no_trace_and_can_be_offered_again() -> None:
    stage, batch = made(plain(1, 3, 4, 5, 6, 2, source=ORDERS), window=2)
    first = stage.process(batch)
    assert (first.taken, rows_of(first)) == (3, [0])
    before, gaps = stage.statistics(), list(stage.gaps)
    for _ in range(3):
        pressed = stage.process(batch[3:5])
        assert (pressed.taken, rows_of(pressed), len(pressed.notices)) == (0, [], 0)
    assert stage.statistics() == before
    assert list(stage.gaps) == gaps
    filled = stage.process(batch[5:])
    assert rows_of(filled) == [5, 1, 2]
    rest = stage.process(batch[3:5])
    assert (rest.taken, rows_of(rest)) == (2, [3, 4])
    told = stage.statistics()
    assert (told.dedup.redelivered, told.order.received, told.order.delivered) == (0, 6, 6)


def test_what_is_pressed_back_comes_in_when_it_was_decided_to_go_on() -> None:
    stage, batch = made(plain(1, 3, 5, 7, source=ORDERS), window=1)
    delivered = []
    rest, decisions = batch, 0
    while len(rest):
        ordered = stage.process(rest)
        delivered += rows_of(ordered)
        rest = rest[ordered.taken :]
        if len(rest):
            decisions += 1
            stage.gaps.give_up()
    delivered += rows_of(stage.finish())
    assert (delivered, decisions) == ([0, 1, 2, 3], 2)
    assert [gap.reason for gap in stage.gaps] == [GapReason.DECIDED, GapReason.DECIDED, GapReason.END]


def test_redelivered_rows_are_dropped_also_where_a_window_is_full() -> None:
    stage, batch = made(plain(1, 3, 4, source=ORDERS), window=1)
    first = stage.process(batch)
    assert first.taken == 2
    again = stage.process(batch)  # the log delivers all of it anew
    assert (again.taken, rows_of(again)) == (2, [])
    assert stage.statistics().dedup.redelivered == 2
    stage.gaps.give_up()
    assert rows_of(stage.process(batch[2:])) == [1, 2]


def test_a_full_strict_window_lets_no_row_of_others_past() -> None:
    """Rows keep their order: what came behind the row that is pressed back waits for it."""
    stage, batch = made([*plain(1, 3, 4, source=ORDERS), *plain(1, 2)], window=1)
    ordered = stage.process(batch)
    assert (ordered.taken, rows_of(ordered)) == (2, [0])
    stage.gaps.give_up()
    assert rows_of(stage.process(batch[2:])) == [1, 2, 3, 4]


@pytest.mark.parametrize("cut", [2, 3, 4, 5])
def test_a_message_in_parts_is_pressed_back_as_long_as_it_is_not_whole(cut: int) -> None:
    messages = [*plain(1, 3, source=ORDERS), {"source": ORDERS, "sequence": 4, "parts": 3}]
    stage, batch = made(messages, window=1)
    delivered, rest = [], [batch[:cut], batch[cut:]]
    for piece in rest:
        while len(piece):
            ordered = stage.process(piece)
            delivered += rows_of(ordered)
            piece = piece[ordered.taken :]
            if len(piece):
                stage.gaps.give_up()
    delivered += rows_of(stage.finish())
    assert delivered == [0, 1, 2, 3, 4]
    assert accounted(stage.statistics(), 5) == 5


def test_a_row_delivered_again_between_the_parts_of_what_is_pressed_back_is_dropped_once() -> None:
    messages = [
        *plain(1, 3, source=ORDERS),
        {"source": PLAIN, "sequence": 1, "parts": 2},
        {"source": ORDERS, "sequence": 4, "parts": 2},
    ]
    stage, batch = made(messages, window=1)
    first = stage.process(batch[:4])
    rows = take_rows(batch.records, np.array([4, 2, 5]))
    rest = EventBatch(rows, batch.symbols, batch.sources, session_number=batch.session_number)
    pressed = stage.process(rest)
    assert pressed.taken == 2
    assert stage.statistics().dedup.redelivered == 1
    stage.gaps.give_up()
    assert rows_of(first, pressed, stage.process(rest[2:]), stage.finish()) == [0, 2, 3, 1, 4, 5]
    assert accounted(stage.statistics(), 6) == 7


# -- the deduplicator's memory ----------------------------------------------------------------------------------------


def test_ids_that_had_to_make_room_are_counted_and_what_comes_again_then_passes() -> None:
    stage, batch = made([{"source": 0, "sequence": -1, "received": 0} for _ in range(4_096)], ids=1_024)
    assert stage.process(batch).taken == 4_096
    assert stage.statistics().dedup.forgotten == 3_072
    assert stage.process(batch[4_000:]).taken == 96
    assert stage.statistics().dedup.redelivered == 96


@pytest.mark.parametrize("source", [PLAIN, ORDERS])
def test_ids_that_may_not_be_forgotten_press_back(source: int) -> None:
    stage, batch = made(plain(*range(1, 2_001), source=source), ids=1_024, at_capacity="press back", ids_s=3_600)
    first = stage.process(batch)
    assert first.taken == len(first.batch) == 1_024
    for _ in range(3):
        pressed = stage.process(batch[1_024:])
        assert (pressed.taken, len(pressed.batch)) == (0, 0)
    told = stage.statistics()
    assert (told.order.received, told.dedup.processed, told.dedup.redelivered) == (1_024, 1_024, 0)
    assert stage.process(batch[:1_024]).taken == 1_024, "what is remembered is still told"
    assert stage.statistics().dedup.redelivered == 1_024
    # An hour later they are old enough.
    later = stage.process(batch[1_024:], now_ns=START_NS + 4_000 * 1_000 * MS)
    assert (later.taken, len(later.batch)) == (976, 976)


# -- windows ----------------------------------------------------------------------------------------------------------


def test_a_shared_counter_that_came_out_of_order_is_late_unless_it_is_reordered() -> None:
    numbers = [10, 30, 20, 40, 60, 50]
    plainly, batch = made(plain(*numbers, source=SHARED))
    assert rows_of(plainly.process(batch), plainly.finish()) == [0, 1, 3, 4]
    assert plainly.statistics().order.late_rows == 2
    held, batch = made(plain(*numbers, source=SHARED), reorder_s=0.002)
    ordered = [held.process(batch), held.finish()]
    assert rows_of(*ordered) == [0, 2, 1, 3, 5, 4]
    told = held.statistics()
    assert (told.order.late_rows, told.held_rows) == (0, 0)
    assert told.reorder is not None
    assert told.reorder.late == 0


def test_a_reordering_stage_has_a_moment_at_which_it_lets_go() -> None:
    stage, batch = made(plain(10, source=SHARED), reorder_s=0.5)
    assert rows_of(stage.process(batch)) == []
    assert stage.statistics().held_rows == 1
    assert stage.due_ns == START_NS + 500 * MS
    assert rows_of(stage.advance(START_NS + 500 * MS - 1)) == []
    let_go = stage.advance(START_NS + 500 * MS)
    assert (rows_of(let_go), let_go.released_ns.tolist()) == ([0], [START_NS + 500 * MS])


def test_reordering_leaves_sources_whose_numbers_prove_their_order_alone() -> None:
    stage, batch = made([*plain(1, 3, 2), *plain(1, 2, source=ORDERS)], reorder_s=0.5)
    assert rows_of(stage.process(batch)) == [0, 2, 1, 3, 4]


def stamped(stage: OrderStage, batch: EventBatch, timestamps: list[int]) -> EventBatch:
    """The batch with these exchange times, in ms."""
    rows = take_rows(batch.records, np.arange(len(batch)))
    rows["timestamp"] = START_NS + np.array(timestamps) * MS
    return EventBatch(rows, batch.symbols, batch.sources, session_number=batch.session_number)


def test_a_merged_view_is_in_the_order_of_time_across_sources() -> None:
    messages = [
        {"source": source, "sequence": number, "received": at}
        for at, (source, number) in enumerate([(PLAIN, 1), (3, 1), (PLAIN, 2), (3, 2)])
    ]
    stage, batch = made(messages, merge_s=0.01, deadline_s=0.01)
    ordered = [stage.process(stamped(stage, batch, [5, 1, 6, 2])), stage.finish()]
    assert rows_of(*ordered) == [1, 3, 0, 2]
    assert stage.statistics().held_rows == 0
    released = np.concatenate([each.released_ns for each in ordered])
    assert np.all(np.diff(released) >= 0)


def test_what_comes_too_late_for_a_merged_view_is_set_aside_and_counted() -> None:
    messages = [{"source": source, "sequence": 1, "received": at} for source, at in ((PLAIN, 0), (3, 100), (1, 200))]
    stage, batch = made(messages, merge_s=0.01, deadline_s=0.01)
    ordered = [stage.process(stamped(stage, batch, [0, 90, 50])), stage.finish()]
    assert rows_of(*ordered) == [0, 1]
    told = stage.statistics()
    assert told.merge is not None
    assert (told.merge.late, told.order.late_rows, told.set_aside_rows) == (1, 0, 1)
    assert stage.gaps.set_aside.to_frame()["reason"].tolist() == ["late"]
    assert accounted(told, 2) == 3


def test_gaps_in_a_merged_view_are_told_when_they_are_known() -> None:
    stage, batch = made(plain(1, 3, 2, 4), merge_s=0.05, deadline_s=0.05)
    ordered = stage.process(batch)
    assert rows_of(ordered) == []
    assert notices_of(ordered) == [(0, "OPEN", 2, 2), (0, "FILLED", 2, 2)]
    assert rows_of(stage.finish()) == [0, 2, 1, 3]


@settings(max_examples=50)
@given(
    streams(),
    orderings,
    cuts,
    st.sampled_from([(0.0, 0.0), (0.02, 0.0), (0.0, 0.2), (0.05, 0.3)]),
    ROUNDS,
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["advance", "give up", "skip"])), max_size=4),
)
def test_the_statistics_add_up_at_every_moment(
    stream: Stream,
    ordering: Ordering,
    cuts: list[int],
    holds: tuple[float, float],
    again: list[tuple[int, int, int]],
    deeds: list[tuple[int, str]],
) -> None:
    tables = stream.tables()
    batch = stream.batch(tables)
    settings = small(ordering)
    stage = OrderStage(
        Ordering(
            window=settings.window, deadline_s=settings.deadline_s, ids=1_024, reorder_s=holds[0], merge_s=holds[1]
        ),
        *tables,
    )
    index = list(range(len(batch)))
    for at, of, count in again:
        index[min(at, len(index)) : 0] = range(max(0, of - count), min(of, len(batch)))
    rows = take_rows(batch.records, np.array([row for row in index if row < len(batch)], np.int64))
    batch = EventBatch(rows, *tables, session_number=stream.session)
    offered = delivered = 0
    latest_ns = 0

    def note(ordered: Ordered) -> None:
        nonlocal delivered, latest_ns
        delivered += len(ordered.batch)
        released = ordered.released_ns
        assert len(released) == len(ordered.batch)
        assert np.all(np.diff(released) >= 0)
        positions = ordered.notices["position"]
        assert np.all(np.diff(positions) >= 0)
        assert not len(positions) or 0 <= positions[0] <= positions[-1] <= len(ordered.batch)
        assert accounted(stage.statistics(), delivered) == offered

    todo = dict(deeds)
    edges = sorted({0, len(batch), *(at for at in todo if at < len(batch)), *(cut for cut in cuts if cut < len(batch))})
    for begin, end in pairwise(edges):
        deed = todo.get(begin)
        if deed == "give up":
            stage.gaps.give_up()
        elif deed == "advance":
            note(stage.advance(START_NS + 1_000 * MS))
        elif deed == "skip":
            note(stage.skip())
        piece = batch[begin:end]
        while len(piece):
            ordered = stage.process(piece)
            offered += ordered.taken
            note(ordered)
            piece = piece[ordered.taken :]
            if len(piece):
                stage.gaps.give_up()
    note(stage.finish())
    assert stage.statistics().held_rows == 0
    counts = stage.gaps.by_source()
    fates = counts[["delivered", "duplicate", "late", "conflicting", "orphaned", "buffered"]].sum(axis=1)
    assert counts["received"].tolist() == fates.tolist()
    assert stage.gaps.counts["open"] == 0


# -- the end, and elsewhere -------------------------------------------------------------------------------------------


def test_at_the_end_what_is_open_is_lost_and_what_is_held_comes_out() -> None:
    stage, batch = made(
        [*plain(1, 3), *plain(1, 3, source=ORDERS), *plain(5, 4, source=SHARED)], reorder_s=9, merge_s=9
    )
    stage.process(batch)
    ended = stage.finish()
    assert sorted(rows_of(ended)) == [0, 1, 2, 3, 4, 5]
    assert {gap.reason for gap in stage.gaps} == {GapReason.END}
    assert stage.statistics().held_rows == 0
    assert rows_of(stage.finish()) == []


def test_after_a_skip_any_number_may_be_next_and_what_was_read_ahead_comes_again() -> None:
    stage, batch = made(plain(1, 2, 5, 6))
    assert rows_of(stage.process(batch)) == [0, 1]
    skipped = stage.skip()
    assert (rows_of(skipped), notices_of(skipped)) == ([2, 3], [(0, "LOST", 3, 4)])
    assert stage.gaps[0].reason is GapReason.SKIPPED
    # Read anew from the third row on: it is neither redelivered, nor a duplicate, nor late.
    again = stage.process(batch[2:])
    assert (rows_of(again), len(again.notices)) == ([2, 3], 0)
    further = stream_of(plain(900, 901)).batch()
    further.records["log_sequence"] += 50
    assert len(stage.process(further).notices) == 1, "from there on a jump is a gap again"


def test_a_skip_forgets_the_time_that_was_read_up_to() -> None:
    stage, batch = made(plain(1, 2, 3, 4, 9))
    stage.process(batch)
    stage.skip()
    came = stage.process(batch[2:])
    assert came.released_ns.tolist() == [START_NS + 2 * MS, START_NS + 3 * MS]
    assert stage.due_ns == START_NS + 104 * MS


def test_a_skip_back_in_the_numbers_begins_anew_too() -> None:
    stage, batch = made(plain(*range(1, 11)))
    stage.process(batch[5:])
    stage.skip()
    assert rows_of(stage.process(batch[:5])) == [0, 1, 2, 3, 4]
    assert stage.statistics().order.late == 0


def test_the_repr_says_what_it_did() -> None:
    stage, batch = made(plain(1, 3))
    stage.process(batch)
    assert repr(stage) == "OrderStage(Sequencer(2 messages, 1 buffered; GapTable(1 open)))"


def test_a_source_of_a_strict_type_stays_strict_whatever_else_it_sends() -> None:
    source = Source("nyx", "mixed", "A", "plus-one")
    messages = plain(1, 3, 4, source=1)
    messages[0]["type"] = int(EventType.ORDER)
    for message in messages[1:]:
        message["type"] = int(EventType.MARKET_DATA)
    stream = stream_of(messages, (source,))
    tables = stream.tables()
    stage = OrderStage(Ordering(window=1), *tables)
    batch = stream.batch(tables)
    assert stage.process(batch[:1]).taken == 1
    ordered = stage.process(batch[1:])
    assert (ordered.taken, rows_of(ordered)) == (1, [])
    stage.advance(START_NS + 1_000 * MS)
    assert stage.gaps.counts == {"open": 1, "filled": 0, "lost": 0}
