"""From a failed call to a letter, and back to its events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.bus import EventBus
from hftlab.bus.dead_letters import DeadLetter
from hftlab.errors import BreakerOpen, CodecError, SpillFull, ValidationError
from hftlab.events import EventBatch, EventType, SignalEvent
from hftlab.events.group_ports import Letter
from hftlab.events.records import RUN_BIT, Flags, event_id
from hftlab.pipeline.letterbox import INVALID, Letterbox, error_text, events_of, framed
from hftlab.pipeline.retrying import RetryPolicy
from hftlab.pipeline.spill import SpillFile
from tests.pipeline.samples import START_NS, Failed, letter, trades

EMITTED = int(Flags.EMITTED)
NOW = START_NS + 10


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def box(clock: Clock) -> Letterbox:
    return Letterbox(clock, policy=RetryPolicy(attempts=2, backoff_s=1.0))


def only(box: Letterbox) -> Letter:
    (one,) = box.take()
    return one


# -- letters ----------------------------------------------------------------------------------------------------------


def test_a_letter_says_who_failed_on_what_and_why(box: Letterbox) -> None:
    box.put(Failed("totals", trades([70_000, 70_001, 70_005]), KeyError("BTC"), attempts=2))
    one = only(box)
    assert (one.handler, one.error, one.attempts) == ("totals", "KeyError: 'BTC'", 2)
    assert (one.first_ns, one.at_ns, one.due_ns) == (NOW, NOW, NOW + 1_000_000_000)
    assert (one.log_sequence, one.session_number, one.events) == (70_000, 3, 3)
    assert (one.event_type, one.symbol, one.letter_id) == ("market", "BTC", "")
    assert (box.letters, box.events, box.waiting) == (1, 3, 0)


def test_the_events_of_a_letter_are_those_that_failed(box: Letterbox) -> None:
    batch = trades([70_000, 70_001, 70_005])
    box.put(Failed("totals", batch, KeyError()))
    again = events_of(only(box))
    assert again == batch
    assert again.event_ids.tolist() == batch.event_ids.tolist()


def test_an_event_is_a_batch_of_one(box: Letterbox) -> None:
    event = trades([5])[0]
    box.put(Failed("totals", event, KeyError()))
    one = only(box)
    assert (list(events_of(one)), one.log_sequence, one.session_number) == ([event], 5, 3)
    assert events_of(one)[0].event_id == event_id(3, 5)


def test_what_the_bus_hands_over_is_what_is_put(box: Letterbox) -> None:
    def fails(event: object) -> None:
        raise KeyError("BTC")

    bus = EventBus()
    bus.subscribe(fails, "market", name="fails")
    bus.subscribe(fails, "market", mode="batch", name="batches")
    bus.dead_letters.port = box
    bus.offer(trades([0, 1, 2]))
    while not bus.do_work().idle:
        pass
    letters = box.take()
    assert [(one.handler, one.events, one.error) for one in letters] == [
        *[("fails", 1, "KeyError: 'BTC'")] * 3,
        ("batches", 3, "KeyError: 'BTC'"),
    ]
    assert EventBatch.concat(map(events_of, letters[:3])) == events_of(letters[3]) == trades([0, 1, 2])


def test_what_a_breaker_kept_back_was_not_tried(box: Letterbox) -> None:
    box.put(DeadLetter("totals", trades([1]), BreakerOpen("open"), 0, START_NS))
    one = only(box)
    assert (one.attempts, one.due_ns) == (0, NOW + 60_000_000_000)


def test_without_a_policy_nothing_comes_back_by_itself(clock: Clock) -> None:
    box = Letterbox(clock)
    box.put(Failed("totals", trades([1]), KeyError()))
    assert only(box).due_ns == 0


def test_invalid_rows_are_letters_that_no_handler_gets(box: Letterbox) -> None:
    box.add_invalid(trades([1, 2]), "invalid by the check positive")
    one = only(box)
    assert (one.handler, one.error, one.attempts, one.due_ns) == (INVALID, "invalid by the check positive", 0, 0)
    assert (box.invalid, box.events) == (2, 2)
    assert events_of(one) == trades([1, 2])


def test_a_letter_of_bytes_that_are_no_events_says_so(box: Letterbox) -> None:
    box.add(letter(frame=b"junk"))
    with pytest.raises(CodecError, match=r"the letter \(not kept yet\) holds no events: a frame has at least"):
        events_of(only(box))


# -- frames -----------------------------------------------------------------------------------------------------------


def test_rows_that_span_more_than_a_frame_are_several_letters(box: Letterbox) -> None:
    log = [5, 65_540, 65_541, 200_000]
    box.put(Failed("totals", trades(log), KeyError()))
    letters = box.take()
    assert [(one.log_sequence, one.events) for one in letters] == [(5, 2), (65_541, 1), (200_000, 1)]
    assert EventBatch.concat(map(events_of, letters)) == trades(log)


def test_rows_that_were_put_into_another_order_are_several_letters(box: Letterbox) -> None:
    box.put(Failed("totals", trades([5, 7, 6, 8]), KeyError()))
    assert [events_of(one).column("log_sequence") for one in box.take()] == [[5, 7], [6, 8]]


def test_events_of_several_types_are_letters_of_one_type_each(box: Letterbox) -> None:
    signal = SignalEvent(symbol="ETH", signal_type="s", event_id=event_id(3, 2), timestamp=START_NS, received=START_NS)
    box.put(Failed("totals", EventBatch.from_events([*trades([0, 1]), signal]), KeyError()))
    assert [(one.event_type, one.symbol, one.events) for one in box.take()] == [
        ("market", "BTC", 2),
        ("signal", "ETH", 1),
    ]


def test_emitted_events_have_no_place_in_the_log(clock: Clock) -> None:
    box = Letterbox(clock, session_number=8)
    batch = trades([1 << 30, (1 << 30) + 1], session_number=0, flags=[EMITTED, EMITTED])
    box.put(Failed("totals", batch, KeyError()))
    one = only(box)
    assert (one.log_sequence, one.session_number, one.events) == (-1, 8, 2)
    assert events_of(one).column("price") == batch.column("price")
    assert (events_of(one).records["flags"] == EMITTED).all()


def test_emitted_events_among_recorded_ones_stay_among_them(box: Letterbox) -> None:
    box.put(Failed("totals", trades([9, 7, 3, 8, 5], flags=[EMITTED, 0, EMITTED, 0, EMITTED]), KeyError()))
    one = only(box)
    assert (one.log_sequence, events_of(one).column("price")) == (7, [9.0, 7.0, 3.0, 8.0, 5.0])
    assert events_of(one).column("log_sequence") == [7, 7, 7, 8, 8]


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40 - 1), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([1, 1_000, 1 << 30]),
)
def test_any_rows_are_kept_all_of_them_in_order(rows: list[tuple[int, bool]], span: int) -> None:
    log = [number % span for number, _ in rows]
    batch = trades(log, flags=[EMITTED * emitted for _, emitted in rows])
    box = Letterbox(Clock())
    box.put(Failed("totals", batch, KeyError()))
    letters = box.take()
    assert sum(one.events for one in letters) == len(batch)
    again = [events_of(one) for one in letters]
    assert [price for piece in again for price in piece.column("price")] == batch.column("price")
    ids = np.concatenate([piece.event_ids for piece in again])
    recorded = np.array([not emitted for _, emitted in rows])
    assert ids[recorded].tolist() == batch.event_ids[recorded].tolist()
    assert (ids[~recorded] >= RUN_BIT).all()


def test_an_empty_batch_is_no_letter(box: Letterbox) -> None:
    box.put(Failed("totals", EventBatch.empty(), KeyError()))
    assert box.take() == ()
    assert list(framed(EventBatch.empty(EventType.SIGNAL))) == []


# -- the error's text -------------------------------------------------------------------------------------------------


class Unreadable(Exception):
    """Raises when it is asked for its text."""

    def __str__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("no", "ValueError: no"),
        ("at redis://me:hunter2@host:1/0 now", "ValueError: at redis://***@host:1/0 now"),
        ("rediss://:hunter2@host", "ValueError: rediss://***@host"),
        ("password=hunter2, then", "ValueError: password=***, then"),
        ('{"api_key": "hunter2", "a": 1}', 'ValueError: {"api_key": ***, "a": 1}'),
        ("Authorization: Bearer hunter2", "ValueError: Authorization: ***"),
        ("client_secret='hunter 2'", "ValueError: client_secret=***"),
        ("the price is 5: a token of what came", "ValueError: the price is 5: a token of what came"),
        ("\ud800", "ValueError: \\ud800"),
    ],
)
def test_an_errors_text_shows_no_secret(message: str, text: str) -> None:
    assert error_text(ValueError(message)) == text


def test_an_errors_text_is_cut() -> None:
    text = error_text(ValueError("x" * 10_000_000))
    assert (len(text), text[-2:]) == (1_000, "x…")


def test_an_error_that_can_not_be_read_is_still_told() -> None:
    assert error_text(Unreadable()) == "Unreadable: (its message can't be shown: KeyError)"


# -- for a commit -----------------------------------------------------------------------------------------------------


def test_what_is_put_back_goes_first(box: Letterbox) -> None:
    box.add(letter(0))
    taken = box.take()
    box.add(letter(1))
    box.put_back(taken)
    assert box.waiting == 2
    assert box.take() == (letter(0), letter(1))
    assert box.take() == ()
    assert (box.letters, box.events) == (2, 2)


def test_what_is_forgotten_is_taken_by_nobody(box: Letterbox) -> None:
    box.add(letter(0))
    box.forget()
    assert (box.waiting, box.take()) == (0, ())


def test_what_memory_does_not_hold_goes_to_the_disk_in_order(clock: Clock, tmp_path: Path) -> None:
    spill = SpillFile(tmp_path / "spill")
    box = Letterbox(clock, spill=spill, limit_bytes=10_000)
    letters = [letter(number, frame=bytes(3_000)) for number in range(7)]
    for one in letters:
        box.add(one)
    assert spill.read() == letters[:4]
    assert (box.spilled, box.waiting) == (4, 3)
    assert repr(box) == "Letterbox(3 of 7 letters wait for a commit, 4 on the disk)"
    taken = box.take()
    assert taken == tuple(letters[4:])
    box.saved(taken)
    assert spill.read() == letters[:4]
    box.put_back(box.restore())
    taken = box.take()
    assert taken == tuple(letters[:4])
    assert spill.read() == letters[:4], "on the disk until the commit has them"
    box.saved(taken)
    assert (spill.read(), box.drained, spill.path.exists()) == ([], 4, False)


def test_letters_of_a_commit_on_its_way_are_on_the_disk_until_it_is_made(clock: Clock, tmp_path: Path) -> None:
    box = Letterbox(clock, spill=SpillFile(tmp_path / "spill"))
    box.add(letter(0))
    taken = box.take()
    box.spill(taken)
    assert box.restore() == (letter(0),)
    box.saved(taken)
    assert box.restore() == ()


def test_where_there_is_no_disk_memory_holds_twice_as_much_and_then_says_so(clock: Clock) -> None:
    box = Letterbox(clock, limit_bytes=10_000)
    for number in range(15):
        box.add(letter(number, frame=bytes(1_000)))
    assert box.waiting == 15
    with pytest.raises(SpillFull, match=r"more than the 10,000 that memory holds, and there is no spill file"):
        box.add(letter(15, frame=bytes(5_000)))
    assert (box.letters, box.waiting, box.refused) == (16, 15, 1)
    assert isinstance(box.trouble, SpillFull)
    kept = box.take()
    assert kept == tuple(letter(number, frame=bytes(1_000)) for number in range(len(kept)))
    box.add(letter(200))
    assert box.waiting == 1


def test_a_disk_that_takes_letters_again_gets_all_of_them(clock: Clock, tmp_path: Path) -> None:
    spill = SpillFile(tmp_path / "spill", limit_bytes=1)
    box = Letterbox(clock, spill=spill, limit_bytes=4_000_000)
    letters = [letter(number, frame=bytes(1_000_000)) for number in range(6)]
    for one in letters[:5]:
        box.add(one)
    assert isinstance(box.trouble, SpillFull)
    spill.limit_bytes = 1 << 30
    box.add(letters[5])
    assert (spill.read(), box.waiting) == (letters, 0)
    assert repr(box.trouble) == "None"


def test_a_bound_is_a_number_above_0(clock: Clock) -> None:
    with pytest.raises(ValidationError, match="limit_bytes= of a letterbox is a whole number above 0; got 0"):
        Letterbox(clock, limit_bytes=0)


# -- tried again ------------------------------------------------------------------------------------------------------


def test_what_fails_again_goes_on_with_its_count_and_first_failure(box: Letterbox, clock: Clock) -> None:
    box.put(Failed("totals", trades([4, 5, 6]), KeyError("first"), attempts=2))
    first = only(box)
    clock.at += 1_000_000_000
    batch = box.retrying(first)
    assert batch == trades([4, 5, 6])
    box.put(Failed("totals", batch[1], KeyError("again"), attempts=2))
    box.put(Failed("other", batch[1], KeyError("another's"), attempts=1))
    box.retried("totals", batch)
    box.put(Failed("totals", batch[1], KeyError("afresh"), attempts=1))
    again, others, afresh = box.take()
    assert (again.attempts, again.first_ns, again.at_ns) == (4, NOW, NOW + 1_000_000_000)
    assert again.due_ns == again.at_ns + 2_000_000_000, "the second try in vain, whatever its own repetitions"
    assert (others.attempts, others.first_ns) == (1, clock.at)
    assert (afresh.attempts, afresh.first_ns) == (1, clock.at)


def test_it_is_tried_no_more_when_the_policy_says_so(box: Letterbox) -> None:
    box.put(Failed("totals", trades([4]), KeyError()))
    dues = []
    for _ in range(4):
        one = only(box)
        dues.append(one.due_ns - one.at_ns if one.due_ns else 0)
        batch = box.retrying(one)
        box.put(Failed("totals", batch, KeyError()))
        box.retried("totals", batch)
    assert dues == [1_000_000_000, 2_000_000_000, 0, 0]


def test_an_emitted_event_that_is_tried_again_is_not_taken_for_another(box: Letterbox) -> None:
    emitted = trades([0], session_number=0, flags=[EMITTED])
    box.put(Failed("totals", emitted, KeyError()))
    batch = box.retrying(only(box))
    box.put(Failed("totals", emitted, KeyError()))
    box.put(Failed("totals", batch, KeyError()))
    fresh, again = box.take()
    assert (fresh.attempts, again.attempts) == (1, 2)
    assert again.log_sequence == -1


def test_two_emitted_events_that_are_tried_again_keep_their_own_counts(box: Letterbox) -> None:
    for tries in (1, 5):
        box.put(Failed("totals", trades([0], session_number=0, flags=[EMITTED]), KeyError(), attempts=tries))
    batches = [box.retrying(one) for one in box.take()]
    for batch in batches:
        box.put(Failed("totals", batch, KeyError()))
    assert [one.attempts for one in box.take()] == [2, 6]


def test_a_retry_on_a_bus_goes_on_with_its_count(clock: Clock) -> None:
    def fails(event: object) -> None:
        raise KeyError

    box, bus = Letterbox(clock), EventBus()
    bus.subscribe(fails, "market", name="fails")
    bus.dead_letters.port = box
    bus.offer(trades([0, 1]))
    while not bus.do_work().idle:
        pass
    one, _ = box.take()
    batch = box.retrying(one)
    ends: list[BaseException | None] = []

    def done(error: BaseException | None) -> None:
        ends.append(error)
        box.retried("fails", batch)

    bus.redeliver("fails", batch, done)
    while not bus.do_work().idle:
        pass
    assert only(box).attempts == 2
    assert isinstance(ends[0], KeyError)
