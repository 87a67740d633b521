"""The sequencer does what the words say: on every stream that Hypothesis draws, in batches of any sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.sequence import Ordering
from tests.sequence.messages import MS, START_NS, Stream, stream_of, streams
from tests.sequence.playing import Deed, Player, assert_same, model_of, modelled, offer, sequenced

orderings = st.builds(
    Ordering,
    window=st.sampled_from([1, 2, 3, 8]),
    deadline_s=st.sampled_from([0.1, 0.05, 0.2]),
    remembered=st.sampled_from([2, 4, 256]),
    lost_cause=st.sampled_from(["deliver", "set aside"]),
)
cuts = st.lists(st.integers(1, 120), max_size=12)
deeds: st.SearchStrategy[dict[int, Deed]] = st.dictionaries(
    st.integers(0, 60),
    st.one_of(
        st.tuples(st.just("advance"), st.integers(0, 3_000).map(lambda ms: START_NS + ms * MS)),
        st.tuples(st.just("give up"), st.integers(0, 6)),
    ),
    max_size=4,
)


@settings(max_examples=300)
@given(streams(), orderings)
def test_order_is_what_the_words_say(stream: Stream, ordering: Ordering) -> None:
    assert_same(sequenced(stream, ordering), modelled(stream, ordering))


@settings(max_examples=200)
@given(streams(), orderings, cuts, deeds)
def test_order_is_what_the_words_say_whatever_is_decided_meanwhile(
    stream: Stream, ordering: Ordering, cuts: list[int], deeds: dict[int, Deed]
) -> None:
    assert_same(sequenced(stream, ordering, cuts, deeds), modelled(stream, ordering, deeds))


@settings(max_examples=200)
@given(streams(), orderings, cuts)
def test_batches_of_any_sizes_give_the_same(stream: Stream, ordering: Ordering, cuts: list[int]) -> None:
    whole = sequenced(stream, ordering)
    assert_same(sequenced(stream, ordering, cuts), whole)
    assert_same(sequenced(stream, ordering, range(1, 200)), whole)


@settings(max_examples=100)
@given(streams(), orderings, st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_it_makes_no_difference_how_often_somebody_lets_time_pass(
    stream: Stream, ordering: Ordering, quarters: list[int]
) -> None:
    clock = np.maximum.accumulate(stream.table["received"]).tolist()
    between: dict[int, Deed] = {
        at: ("advance", clock[at - 1] + (clock[at] - clock[at - 1]) * quarters[at % len(quarters)] // 4)
        for at in range(1, len(clock))
    }
    assert_same(sequenced(stream, ordering, deeds=between), sequenced(stream, ordering))


@settings(max_examples=100)
@given(streams(), orderings)
def test_counts_and_gaps_are_true_after_every_row(stream: Stream, ordering: Ordering) -> None:
    model, player = model_of(stream, ordering), Player(stream, ordering)
    begins = stream.begins.tolist()
    for at, message in enumerate(stream.messages()):
        offer(model, message)
        player.offer(player.batch[begins[at] : begins[at + 1]])
        player.conserve()
        model.check()
        outcome = player.read()
        assert outcome.gaps == model.rows()
        assert outcome.counts == {number: model.counts(number) for number in sorted(model.sources)}


@settings(max_examples=100)
@given(streams(), st.sampled_from([1, 2, 8]))
def test_strict_sources_never_skip_a_number(stream: Stream, window: int) -> None:
    # Nobody gives up, nothing is reset: each strict source delivers n, n + 1, … as far as it has them.
    table = stream.table[(stream.table["source"] >= 5) & (stream.table["epoch"] == 1) & (stream.table["sequence"] >= 0)]
    table = table[table["span"] > 0]
    table["cause"] = 0
    strict = Stream(table, session=stream.session)
    player = Player(strict, Ordering(window=window))
    batch = player.batch
    while len(batch):
        result = player.sequencer.process(batch)
        player.note(result)
        if result.taken < len(batch):
            break
        batch = batch[result.taken :]
    spans = {row: int(span) for row, span in zip(strict.begins.tolist(), table["span"].tolist(), strict=False)}
    upcoming: dict[int, int] = {}
    records = player.batch.records
    for delivery in player.outcome.deliveries:
        if delivery.row not in spans:
            continue
        number, source = delivery.sequence, int(records["source"][delivery.row])
        first = number - spans[delivery.row] + 1
        assert first <= upcoming.get(source, first) <= number
        upcoming[source] = number + 1
    assert not player.sequencer.gaps.counts["lost"]


def test_a_full_strict_window_presses_back_and_goes_on_when_the_number_comes() -> None:
    stream = stream_of([{"source": 5, "sequence": number} for number in (1, 3, 4, 5, 2)])
    player = Player(stream, Ordering(window=2))
    result = player.sequencer.process(player.batch[:4])
    player.note(result)
    assert result.taken == 3
    again = player.sequencer.process(player.batch[3:4])
    assert (again.taken, len(again.batch)) == (0, 0)
    for part in (player.batch[4:], player.batch[3:4]):
        result = player.sequencer.process(part)
        player.note(result)
        assert result.taken == 1
    assert player.outcome.rows == [0, 4, 1, 2, 3]
    assert player.counts()[5]["received"] == 5


def test_a_message_in_parts_is_pressed_back_from_the_part_that_completes_it() -> None:
    stream = stream_of(
        [{"source": 5, "sequence": 1}, {"source": 5, "sequence": 3}, {"source": 5, "sequence": 4, "parts": 3}]
    )
    for cut in (2, 3, 4):
        player = Player(stream, Ordering(window=1))
        player.offer(player.batch[:2])
        if cut > 2:
            assert player.sequencer.process(player.batch[2:cut]).taken == cut - 2
        pressed = player.sequencer.process(player.batch[cut:])
        player.note(pressed)
        assert pressed.taken < len(player.batch) - cut
        player.give_up(5)
        assert player.sequencer.process(player.batch[cut + pressed.taken :]).taken == 5 - cut - pressed.taken
        assert player.counts()[5]["delivered"] == 3
