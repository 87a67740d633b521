"""``Deduplicator`` against a plain-Python model of its memory, and against what "exact within the window" promises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags
from hftlab.events.records import MAX_LOG_SEQUENCE, MAX_SESSION_NUMBER, blank
from hftlab.ring import atomics
from hftlab.sequence import Deduplicator, DedupStatistics, Ordering
from hftlab.sequence.kernels import dedup as kernel
from tests.sequence.test_kernels import uncompiled

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
BLOCK = kernel.BLOCK_IDS
SESSION = 7


def rows_of(ids: Any, session: int = SESSION, received: Any = START_NS, emitted: Any = None) -> EventBatch:
    """A batch of rows with these log sequences; their ``volume`` says where in the batch they stood."""
    records = blank(len(ids), EventType.MARKET_DATA)
    records["log_sequence"] = ids
    records["received"] = received
    records["volume"] = np.arange(len(ids))
    if emitted is not None:
        records["flags"][np.asarray(emitted, bool)] |= np.uint16(Flags.EMITTED)
    return EventBatch(records, session_number=session)


def ids_of(batch: EventBatch) -> list[int]:
    ids: list[int] = batch.records["log_sequence"].tolist()
    return ids


# -- the model -------------------------------------------------------------------------------------------------------


@dataclass
class Block:
    """Ids that were processed, and when the latest was."""

    number: int
    latest_ns: int
    ids: set[int] = field(default_factory=set)


@dataclass
class Model:
    """The rules, row by row, with sets."""

    ids: int
    ids_ns: int
    presses_back: bool
    clock_ns: int = 0
    sessions: dict[int, dict[int, Block]] = field(default_factory=dict)  # in order of their last new id
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("processed", "redelivered", "unidentified", "beyond", "forgotten", "expired"), 0
        )
    )

    def is_old(self, block: Block) -> bool:
        return self.clock_ns - block.latest_ns > self.ids_ns

    def drop(self, blocks: list[Block]) -> None:
        for block in blocks:
            self.counts["expired" if self.is_old(block) else "forgotten"] += len(block.ids)

    def take(self, session: int, log: int, received_ns: int, emitted: bool) -> str:
        """``passes``, ``dropped`` or ``pressed``."""
        outcome = self.judge(session, log, received_ns, emitted)
        if outcome == "passes":
            self.counts["processed"] += 1
        elif outcome == "dropped":
            self.counts["redelivered"] += 1
        return outcome

    def judge(self, session: int, log: int, received_ns: int, emitted: bool) -> str:
        if session == 0 or emitted or not 0 <= log <= MAX_LOG_SEQUENCE:
            self.counts["unidentified"] += 1
            return "passes"
        self.clock_ns = max(self.clock_ns, received_ns)
        if session not in self.sessions:
            if len(self.sessions) == kernel.SESSIONS:
                oldest = next(iter(self.sessions))
                blocks = list(self.sessions[oldest].values())
                if self.presses_back and any(not self.is_old(block) for block in blocks):
                    return "pressed"
                self.drop(blocks)
                del self.sessions[oldest]
            self.sessions[session] = {}
        places = self.sessions[session]
        number = log // BLOCK
        place = number % (self.ids // BLOCK)
        held = places.get(place)
        if held is not None and held.number > number:
            self.counts["beyond"] += 1
            return "passes"
        if held is not None and (held.number < number or self.is_old(held)):
            if not self.is_old(held) and self.presses_back:
                return "pressed"
            self.drop([held])
            held = None
        if held is None:
            held = places[place] = Block(number, self.clock_ns)
        if log in held.ids:
            return "dropped"
        held.ids.add(log)
        held.latest_ns = self.clock_ns
        self.sessions[session] = self.sessions.pop(session)
        return "passes"

    def statistics(self) -> DedupStatistics:
        old = young = 0
        for places in self.sessions.values():
            for block in places.values():
                if self.is_old(block):
                    old += len(block.ids)
                else:
                    young += len(block.ids)
        counts = self.counts | {"expired": self.counts["expired"] + old}
        return DedupStatistics(**counts, remembered=young, capacity=self.ids)


# -- what happens ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """Rows of one session that came one behind the other."""

    session: int
    ids: list[int]
    steps_ns: list[int]
    emitted: list[bool]
    is_timed: bool
    """Whether the caller says what time it is."""


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    # Stretches of neighbours, odd ones, what is far ahead, and what is no id at all.
    ids: list[int] = []
    for _ in range(draw(st.integers(0, 5))):
        first = draw(
            st.integers(0, 200)
            | st.integers(0, 8 * BLOCK)
            | st.integers(MAX_LOG_SEQUENCE - 200, MAX_LOG_SEQUENCE + 2)
            | st.sampled_from([-1, -(1 << 63), (1 << 63) - 1])
        )
        length = draw(st.integers(1, 200)) if 0 <= first < 1 << 41 else 1
        stretch = list(range(first, first + length))
        order = draw(st.sampled_from(["rising", "falling", "shuffled", "holes", "twice"]))
        if order == "falling":
            stretch.reverse()
        elif order == "shuffled":
            draw(st.randoms(use_true_random=False)).shuffle(stretch)
        elif order == "holes":
            stretch = stretch[::3]
        elif order == "twice":
            stretch = [log for log in stretch for _ in range(2)]
        ids += stretch
    longest = draw(st.sampled_from([0, SECOND // 1_000, SECOND // 20, 2 * SECOND]))
    generator = np.random.default_rng(draw(st.integers(0, 1_000)))
    steps = generator.integers(-longest // 4, longest, len(ids), endpoint=True)
    emitted = generator.random(len(ids)) < draw(st.sampled_from([0, 0, 0.1]))
    return Piece(draw(st.integers(0, 11) | st.just(1)), ids, steps.tolist(), emitted.tolist(), draw(st.booleans()))


Offered = list[tuple[EventBatch, int | None]]
"""Batches, each with the time at which it is offered, if the caller says."""


def offered_of(all_pieces: list[Piece]) -> Offered:
    moment = START_NS
    offered: Offered = []
    for piece in all_pieces:
        received = moment + np.cumsum(np.array(piece.steps_ns, np.int64))
        moment = int(received[-1]) if len(received) else moment
        batch = rows_of(piece.ids, piece.session, received, piece.emitted)
        offered.append((batch, moment if piece.is_timed else None))
    return offered


def cut(offered: Offered, most: int) -> Offered:
    return [(batch[at : at + most], now) for batch, now in offered for at in range(0, len(batch), most)]


Played = tuple[list[tuple[int, int, int]], list[int], DedupStatistics]
"""What came out (session, id, time of arrival); until when rows were pressed back, one by one; the counts."""


def played(dedup: Deduplicator, offered: Offered) -> Played:
    """Everything through a deduplicator; what is pressed back is offered again at the moment that it named."""
    out: list[tuple[int, int, int]] = []
    pressed: list[int] = []

    def take(batch: EventBatch, now: int | None) -> int:
        result = dedup.process(batch, now)
        assert len(result.batch) == result.taken - result.redelivered
        received = result.batch.records["received"].tolist()
        out.extend((batch.session_number, *row) for row in zip(ids_of(result.batch), received, strict=True))
        return result.taken

    for batch, now in offered:
        rest = batch[take(batch, now) :]
        while len(rest):
            due = dedup.due_ns
            assert due is not None
            assert take(rest[:1], due - 1) == 0
            assert take(rest[:1], due) == 1
            pressed.append(due)
            rest = rest[1:]
            rest = rest[take(rest, now) :]
        assert dedup.due_ns is None
    return out, pressed, dedup.statistics()


def modelled(model: Model, offered: Offered) -> Played:
    out: list[tuple[int, int, int]] = []
    pressed: list[int] = []
    for batch, now in offered:
        emitted = ((batch.records["flags"] & Flags.EMITTED) != 0).tolist()
        received = batch.records["received"].tolist()
        for log, received_ns, own in zip(ids_of(batch), received, emitted, strict=True):
            moment = received_ns if now is None else now
            outcome = model.take(batch.session_number, log, moment, own)
            if outcome == "pressed":
                # The first moment at which the row is taken is found by trying.
                ends = {b.latest_ns + model.ids_ns + 1 for places in model.sessions.values() for b in places.values()}
                for moment in sorted(end for end in ends if end > model.clock_ns):
                    outcome = model.take(batch.session_number, log, moment, own)
                    if outcome != "pressed":
                        break
                pressed.append(moment)
            if outcome == "passes":
                out.append((batch.session_number, log, received_ns))
    return out, pressed, model.statistics()


choices = st.tuples(
    st.sampled_from([BLOCK, 4 * BLOCK]),
    st.sampled_from([0.0, 1e-3, 0.5, 3600.0]),
    st.sampled_from(["forget", "press back"]),
)


@settings(max_examples=150)
@given(st.lists(pieces(), max_size=8), choices, st.integers(1, 700))
def test_it_does_as_the_model_says_wherever_batches_are_cut(all_pieces: list[Piece], chosen: Any, most: int) -> None:
    ids, ids_s, at_capacity = chosen
    offered = offered_of(all_pieces)
    expected = modelled(Model(ids, round(ids_s * 1e9), at_capacity == "press back"), offered)
    for cuts in (offered, cut(offered, most)):
        assert played(Deduplicator(ids=ids, ids_s=ids_s, at_capacity=at_capacity), cuts) == expected


@settings(max_examples=40)
@given(st.lists(pieces(), max_size=4), choices)
def test_the_kernels_do_the_same_as_plain_python(all_pieces: list[Piece], chosen: Any) -> None:
    ids, ids_s, at_capacity = chosen
    offered = offered_of(all_pieces)
    compiled = played(Deduplicator(ids=ids, ids_s=ids_s, at_capacity=at_capacity), offered)
    with uncompiled():
        assert not hasattr(kernel.deduplicate, "py_func")
        assert played(Deduplicator(ids=ids, ids_s=ids_s, at_capacity=at_capacity), offered) == compiled


@given(st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.integers(0, SECOND)), max_size=400))
def test_within_the_window_and_capacity_exactly_what_was_processed_is_dropped(arrivals: list[tuple[int, int]]) -> None:
    dedup = Deduplicator(ids=4 * BLOCK, ids_s=10.0)
    processed_ns: dict[int, int] = {}
    now = START_NS
    for log, step_ns in arrivals:
        now += step_ns
        dropped = dedup.process(rows_of([log], received=now)).redelivered == 1
        if log not in processed_ns:
            assert not dropped
        elif now - processed_ns[log] <= 10 * SECOND:
            assert dropped
        if not dropped:
            processed_ns[log] = now


# -- one by one ------------------------------------------------------------------------------------------------------


def test_what_was_not_processed_before_is_the_same_batch_object() -> None:
    dedup = Deduplicator()
    for batch in (rows_of(range(5_000)), rows_of(range(5_000, 5_001)), rows_of([]), rows_of([9, 7], session=0)):
        result = dedup.process(batch)
        assert result.batch is batch
        assert (result.taken, result.redelivered) == (len(batch), 0)


def test_a_frame_that_is_delivered_twice_is_dropped_whole() -> None:
    dedup = Deduplicator()
    dedup.process(rows_of(range(1_024)))
    result = dedup.process(rows_of(range(1_024)))
    assert (len(result.batch), result.taken, result.redelivered) == (0, 1_024, 1_024)
    assert dedup.statistics().redelivered == 1_024


def test_the_rows_that_stay_keep_their_order_their_bytes_and_their_batchs_tables() -> None:
    dedup = Deduplicator()
    dedup.process(rows_of([3, 5, 6]))
    batch = rows_of([9, 6, 1, 5, 0, 1, 3])
    rest = dedup.process(batch).batch
    assert rest == batch.where(np.array([0, 2, 4]))
    assert rest.symbols is batch.symbols
    assert rest.sources is batch.sources
    assert rest.session_number == SESSION
    assert ids_of(batch) == [9, 6, 1, 5, 0, 1, 3], "the rows that came are not touched"


def test_rows_that_lie_apart_in_memory_are_read_where_they_are() -> None:
    batch = rows_of(range(1_000))
    dedup = Deduplicator()
    assert dedup.process(batch[::2]).redelivered == 0
    assert ids_of(dedup.process(batch[::-1]).batch) == list(range(999, 0, -2))


def test_read_only_rows_of_any_type_are_taken() -> None:
    dedup = Deduplicator()
    records = blank(3, EventType.FILL)
    records["log_sequence"] = [0, 1, 0]
    records.flags.writeable = False
    assert dedup.process(EventBatch(records, session_number=1)).redelivered == 1


def test_an_id_is_remembered_to_the_nanosecond_where_it_is_alone_in_its_block() -> None:
    for after_ns, dropped in ((SECOND, 1), (SECOND + 1, 0)):
        dedup = Deduplicator(ids_s=1.0)
        dedup.process(rows_of([5]), START_NS)
        assert dedup.process(rows_of([5]), START_NS + after_ns).redelivered == dropped


def test_an_id_is_remembered_for_as_long_as_its_latest_neighbour_of_the_same_block() -> None:
    dedup = Deduplicator(ids_s=1.0)
    dedup.process(rows_of([5]), START_NS)
    dedup.process(rows_of([6, BLOCK]), START_NS + SECOND)
    assert dedup.process(rows_of([5]), START_NS + 2 * SECOND).redelivered == 1
    assert dedup.process(rows_of([5]), START_NS + 2 * SECOND + 1).redelivered == 0


def test_coming_again_does_not_keep_an_id_alive() -> None:
    dedup = Deduplicator(ids_s=1.0)
    for after_ns, dropped in ((0, 0), (SECOND, 1), (SECOND + 1, 0), (2 * SECOND, 1)):
        assert dedup.process(rows_of([5]), START_NS + after_ns).redelivered == dropped


def test_time_never_falls() -> None:
    dedup = Deduplicator(ids_s=1.0)
    dedup.process(rows_of([0]), START_NS)
    dedup.process(rows_of([BLOCK]), START_NS + 5 * SECOND)
    assert dedup.process(rows_of([0], received=START_NS)).redelivered == 0, "it is 5 s later already"
    assert dedup.process(rows_of([0]), START_NS + 6 * SECOND).redelivered == 1, "and was then, when it came again"


def test_rows_without_an_id_pass_and_are_counted() -> None:
    dedup = Deduplicator()
    for _ in range(2):
        dedup.process(rows_of([1, 2, 3], session=0))
        dedup.process(rows_of([1, 2, 3], emitted=[True, True, True]))
        dedup.process(rows_of([-1, MAX_LOG_SEQUENCE + 1]))
    statistics = dedup.statistics()
    assert (statistics.processed, statistics.unidentified, statistics.redelivered) == (16, 16, 0)


def test_an_emission_number_is_no_log_sequence() -> None:
    dedup = Deduplicator()
    dedup.process(rows_of([1]))
    result = dedup.process(rows_of([1, 1, 2, 2], emitted=[True, False, True, False]))
    assert result.batch.records["volume"].tolist() == [0, 2, 3]


def test_the_same_log_sequence_in_another_session_is_another_event() -> None:
    dedup = Deduplicator()
    for session in range(1, kernel.SESSIONS + 1):
        assert dedup.process(rows_of([1, 2], session)).redelivered == 0
    for session in range(1, kernel.SESSIONS + 1):
        assert dedup.process(rows_of([1, 2], session)).redelivered == 2


def test_one_session_too_many_takes_the_room_of_the_one_whose_last_new_row_is_longest_ago() -> None:
    dedup = Deduplicator()
    for session in range(1, kernel.SESSIONS + 1):
        dedup.process(rows_of(range(session), session))
    dedup.process(rows_of([0], 2)), dedup.process(rows_of([50], 1))
    dedup.process(rows_of([7], MAX_SESSION_NUMBER))
    assert dedup.statistics().forgotten == 2, "the ids of session 2, which came again but had nothing new"
    assert dedup.process(rows_of([50], 1)).redelivered == 1
    assert dedup.process(rows_of([7], MAX_SESSION_NUMBER)).redelivered == 1
    assert dedup.process(rows_of([0], 2)).redelivered == 0


@pytest.mark.parametrize("ids", [[0], [0, 1, 2], [3, 1]])
def test_one_session_too_many_is_pressed_back_until_the_oldest_is_old_enough(ids: list[int]) -> None:
    dedup = Deduplicator(ids_s=1.0, at_capacity="press back")
    for session in range(1, kernel.SESSIONS + 1):
        dedup.process(rows_of(ids, session), START_NS + session)
    late = rows_of([0], 99)
    assert dedup.process(late, START_NS + 1 + SECOND).taken == 0
    assert dedup.due_ns == START_NS + 1 + SECOND + 1
    assert dedup.process(late, dedup.due_ns).batch is late
    assert dedup.due_ns is None


@pytest.mark.parametrize(("after_ns", "forgotten"), [(SECOND, 2), (SECOND + 1, 0)])
def test_of_a_session_that_makes_room_only_what_is_young_counts_as_forgotten(after_ns: int, forgotten: int) -> None:
    dedup = Deduplicator(ids_s=1.0)
    for session in range(1, kernel.SESSIONS + 1):
        dedup.process(rows_of([3, 1], session), START_NS)
    dedup.process(rows_of([0], 99), START_NS + after_ns)
    assert (dedup.statistics().forgotten, dedup.statistics().remembered) == (forgotten, 7 * forgotten + 1)


def test_a_row_that_can_not_be_told_does_not_disturb_its_neighbours() -> None:
    dedup = Deduplicator(ids=BLOCK)
    assert dedup.process(rows_of([BLOCK + 5, 0, BLOCK + 6, 1, BLOCK + 5])).redelivered == 1
    assert dedup.process(rows_of([BLOCK + 6])).redelivered == 1
    assert dedup.statistics().beyond == 2


def test_at_capacity_the_oldest_block_is_forgotten_and_its_ids_are_counted() -> None:
    dedup = Deduplicator(ids=2 * BLOCK)
    dedup.process(rows_of(range(2 * BLOCK)))
    assert dedup.statistics().forgotten == 0
    dedup.process(rows_of([2 * BLOCK]))
    statistics = dedup.statistics()
    assert (statistics.forgotten, statistics.remembered, statistics.capacity) == (BLOCK, BLOCK + 1, 2 * BLOCK)
    assert dedup.process(rows_of(range(BLOCK, 2 * BLOCK))).redelivered == BLOCK
    assert dedup.process(rows_of([0, 1])).redelivered == 0
    assert dedup.statistics().beyond == 2


def test_ids_that_are_old_enough_make_room_without_being_called_forgotten() -> None:
    dedup = Deduplicator(ids=BLOCK, ids_s=1.0, at_capacity="press back")
    dedup.process(rows_of(range(BLOCK)), START_NS)
    assert dedup.process(rows_of([BLOCK]), START_NS + SECOND + 1).taken == 1
    statistics = dedup.statistics()
    assert (statistics.forgotten, statistics.expired, statistics.remembered) == (0, BLOCK, 1)


def test_at_capacity_the_rest_is_pressed_back_until_there_is_room() -> None:
    dedup = Deduplicator(ids=BLOCK, ids_s=1.0, at_capacity="press back")
    dedup.process(rows_of([0]), START_NS)
    batch = rows_of([5, 0, 6, BLOCK, 7])
    result = dedup.process(batch, START_NS + 10)
    assert (ids_of(result.batch), result.taken, result.redelivered) == ([5, 6], 3, 1)
    assert dedup.due_ns == START_NS + 10 + SECOND + 1
    again = dedup.process(batch[3:], dedup.due_ns - 1)
    assert (again.taken, len(again.batch)) == (0, 0)
    rest = dedup.process(batch[3:], dedup.due_ns)
    assert ids_of(rest.batch) == [BLOCK, 7]
    assert dedup.statistics().beyond == 1, "7 is of the block that had to go"
    assert dedup.statistics().forgotten == 0


@pytest.mark.parametrize("at_capacity", ["forget", "press back"])
def test_a_jump_to_the_last_log_sequence_costs_one_block_and_leaves_the_others(at_capacity: Any) -> None:
    dedup = Deduplicator(ids=4 * BLOCK, at_capacity=at_capacity)
    dedup.process(rows_of(range(3 * BLOCK)))
    assert dedup.process(rows_of([MAX_LOG_SEQUENCE])).taken == 1
    assert dedup.process(rows_of(range(3 * BLOCK))).redelivered == 3 * BLOCK
    assert dedup.process(rows_of([MAX_LOG_SEQUENCE])).redelivered == 1
    assert dedup.process(rows_of([3 * BLOCK])).redelivered == 0
    assert dedup.statistics().beyond == 1, "its place is the one that the jump took"


def test_every_row_is_counted_once() -> None:
    generator = np.random.default_rng(5)
    dedup = Deduplicator(ids=4 * BLOCK, ids_s=1.0)
    for step in range(300):
        ids = generator.integers(step * 40, step * 40 + 6 * BLOCK, 200)
        batch = rows_of(ids, int(generator.integers(0, 11)), START_NS + step * SECOND // 5, generator.random(200) < 0.1)
        dedup.process(batch)
    counted = dedup.statistics()
    assert counted.processed + counted.redelivered == 300 * 200
    assert min(counted.unidentified, counted.beyond, counted.forgotten, counted.expired, counted.remembered) > 0
    assert str(counted).startswith(f"{counted.processed:,} rows, ")


def test_it_takes_what_an_ordering_decides() -> None:
    dedup = Deduplicator.of(Ordering(ids=2_048, ids_s=2.5, at_capacity="press back"))
    assert (dedup.ids, dedup.ids_s, dedup.at_capacity) == (2_048, 2.5, "press back")
    assert repr(dedup) == "Deduplicator(0 rows; 2,048 ids, 2.5 s)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deduplicator(ids=1_000),
        lambda: Deduplicator(ids=512),
        lambda: Deduplicator(ids_s=-1),
        lambda: Deduplicator(at_capacity="guess"),  # type: ignore[arg-type]
        lambda: Deduplicator().process(rows_of([1]), -1),
        lambda: Deduplicator().process(rows_of([1]), 1 << 63),
        lambda: Deduplicator().process(rows_of([1]), 1.5),  # type: ignore[arg-type]
    ],
)
def test_what_can_not_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError, match="got"):
        make()


def test_times_at_the_ends_of_the_range_are_times_as_others() -> None:
    dedup = Deduplicator(ids_s=999_999_999)
    last = (1 << 63) - 1
    for received in (-(1 << 63), 0, last, last):
        dedup.process(rows_of([5], received=received))
    statistics = dedup.statistics()
    assert (statistics.redelivered, statistics.expired, statistics.remembered) == (2, 1, 1)


def test_one_kernel_serves_all_batches() -> None:
    dedup = Deduplicator()
    dedup.process(rows_of([1]))
    before = list(kernel.deduplicate.signatures)
    dedup.process(rows_of(range(3_000))[::2], np.int64(START_NS))  # type: ignore[arg-type]
    assert list(kernel.deduplicate.signatures) == before
    assert len(before) == 1


def test_the_kernels_file_names_the_source_that_its_cached_machine_code_contains() -> None:
    found = hashlib.sha256(Path(str(atomics.__file__)).read_bytes()).hexdigest()[:16]
    assert found == kernel.COMPILED_IN, f'write COMPILED_IN = "{found}" into dedup.py, or stale kernels stay cached'


def test_offsets_of_the_control_block_and_of_blocks_do_not_overlap() -> None:
    names = ("CLOCK", "IDS_NS", "BLOCKS", "PRESSES_BACK", "RINGS_AT", "DROPPED_AT", "DROPPED", "IN_THE_WAY")
    offsets = [getattr(kernel, name) for name in (*names, "REMEMBERED", "PROCESSED", "REDELIVERED", "FORGOTTEN")]
    offsets += [kernel.UNIDENTIFIED, kernel.BEYOND, kernel.CONTROLS * 8]
    assert all(after - before >= 8 for before, after in pairwise(offsets))
    assert kernel.BLOCK_BITS // 8 + BLOCK // 64 == kernel.BLOCK_WORDS
