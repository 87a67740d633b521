"""``faults``, each alone and exact: what it does to a line of messages, what it leaves alone, and what it refuses."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import hftlab.sim as sim
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags
from hftlab.sim import Fault, Faults
from tests.sim.lines import BARE, LINE, MS, PLUS_ONE, RANGE, SHARED, START_NS, Sent, batch_of, line, numbers, same_bytes

EVERYTHING: dict[str, Any] = {
    "loss": 0.01, "loss_bursts": 0.001, "tail": 2, "duplicates": 0.01, "conflicts": 0.005, "disorder": 0.02,
    "late_bursts": 0.0005, "late_by_s": 0.5, "resets": 0.0005, "clock_steps": 0.0005,
}  # fmt: skip
GOLDEN = "2882d7df282e93d3f5e8e4f2360aa49156551f7a72c0e79dde697366e224c960"


def kinds(faulty: sim.FaultyBatch) -> dict[str, int]:
    return {kind: count for kind, count in faulty.truth.counts.items() if count}


def test_the_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    """If this fails, a new NumPy or a change here broke what ``faults`` promises: recorded demos would all change."""
    faulty = sim.faults(sim.market(["A", "B"], 20, seed=42), seed=7, **EVERYTHING)
    assert all(faulty.truth.counts.values()), "the digest covers every kind of fault"
    assert hashlib.sha256(faulty.records.tobytes() + faulty.truth.records.tobytes()).hexdigest() == GOLDEN


def test_another_seed_breaks_other_messages() -> None:
    one, two = (sim.faults(line(200), seed=seed, loss=0.2).truth.lost for seed in (1, 2))
    assert one != two


def test_one_more_kind_of_fault_leaves_the_others_where_they_were() -> None:
    one = sim.faults(line(2000), seed=1, loss=0.01)
    two = sim.faults(line(2000), seed=1, loss=0.01, duplicates=0.01, conflicts=0.01, disorder=0.01)
    assert one.truth.lost == two.truth.lost


def test_lost_messages_are_missing_and_named() -> None:
    faulty = sim.faults(line(1000), seed=1, loss=0.1)
    missing = sorted({*range(1, 1001)} - {*numbers(faulty)})
    assert 70 < len(missing) < 130
    assert kinds(faulty) == {"loss": len(missing)}
    assert [n for first, last in faulty.truth.lost[LINE, 0] for n in range(first, last + 1)] == missing
    assert faulty.truth.lost_unseen == {}
    assert numbers(faulty) == sorted(numbers(faulty))


def test_the_first_and_the_last_message_of_a_stream_are_never_lost() -> None:
    faulty = sim.faults(line(50), seed=1, loss=1.0)
    assert numbers(faulty) == [1, 50]
    assert faulty.truth.lost == {(LINE, 0): [(2, 49)]}


def test_a_burst_loses_messages_in_a_row() -> None:
    faulty = sim.faults(line(2000), seed=1, loss_bursts=0.005, loss_burst_length=7)
    ranges = faulty.truth.lost[LINE, 0]
    assert Counter(last - first + 1 for first, last in ranges).most_common(1)[0][0] == 7
    assert len(faulty) == 2000 - sum(last - first + 1 for first, last in ranges)
    assert faulty.truth.records["messages"].max() == 7


def test_the_tail_takes_the_last_messages_and_nothing_shows_it() -> None:
    faulty = sim.faults(line(10), seed=1, tail=3)
    assert numbers(faulty) == [1, 2, 3, 4, 5, 6, 7]
    assert (faulty.truth.lost, faulty.truth.lost_unseen) == ({}, {(LINE, 0): [(8, 10)]})
    assert numbers(sim.faults(line(3), seed=1, tail=9)) == [1], "never the first"


def test_a_heartbeat_behind_the_tail_stays() -> None:
    sent = [Sent(PLUS_ONE, 0, n, received=START_NS + n) for n in range(1, 6)]
    beat = Sent(PLUS_ONE, 0, 5, flags=Flags.HEARTBEAT, received=START_NS + 9)
    assert numbers(sim.faults(batch_of([*sent, beat]), seed=1, tail=2)) == [1, 2, 3, 5]


def test_duplicates_arrive_again_with_the_same_content() -> None:
    faulty = sim.faults(line(1000), seed=1, duplicates=0.05, duplicate_delay=3)
    count = faulty.truth.messages_repeated
    assert 30 < count < 70
    assert len(faulty) == 1000 + count
    rows = faulty.records
    seen: dict[int, int] = {}
    delays = Counter()  # type: Counter[int]
    settled = 0
    for number, price in zip(numbers(faulty), rows["price"].tolist(), strict=True):
        assert price == 100.0 + number
        if number in seen:
            delays[settled - seen[number]] += 1
        else:
            settled += 1
            seen[number] = settled
    assert set(delays) == {1, 2, 3}
    assert min(delays.values()) >= count // 6, "even, about"


def test_conflicts_arrive_again_with_another_price() -> None:
    faulty = sim.faults(line(1000), seed=1, conflicts=0.05)
    conflicts = faulty.truth.records["position"]
    assert len(conflicts) == faulty.truth.counts["conflict"] > 30
    prices, expected = faulty.records["price"], 100.0 + faulty.records["sequence"]
    assert set(np.flatnonzero(prices != expected).tolist()) == set(conflicts.tolist())
    np.testing.assert_array_equal(prices[conflicts], 2 * expected[conflicts])


@pytest.mark.parametrize("event_type", EventType)
def test_a_conflict_of_any_type_differs_in_its_first_row_alone(event_type: EventType) -> None:
    sent = [Sent(PLUS_ONE, 0, n, parts=3, event_type=event_type, received=START_NS + n) for n in range(1, 4)]
    batch = batch_of(sent)
    faulty = sim.faults(batch, seed=1, conflicts=1.0)
    assert faulty.truth.counts["conflict"] == 3
    payload = faulty.records.view("V128").view(np.uint8).reshape(-1, 128)[:, 64:].tobytes()
    cells = [payload[at : at + 64] for at in range(0, len(payload), 64)]
    original = {}
    for row, cell in zip(faulty.records[["sequence", "part"]].tolist(), cells, strict=True):
        if row not in original:
            original[row] = cell
        else:
            assert (cell != original[row]) == (row[1] == 0)


@pytest.mark.parametrize(
    ("price", "bid", "changed"),
    [(math.nan, 5.0, ("bid", 10.0)), (0.0, 5.0, ("price", 1.0)), (1e308, 1.0, ("price", 5e307))],
)
def test_a_conflict_changes_the_first_number_that_there_is(
    price: float, bid: float, changed: tuple[str, float]
) -> None:
    batch = line(1)
    batch.records["price"], batch.records["bid"] = price, bid
    field, value = changed
    assert sim.faults(batch, seed=1, conflicts=1.0).records[field][1] == value


def test_a_conflict_without_any_number_has_one() -> None:
    batch = line(1)
    batch.records["price"] = math.nan
    assert sim.faults(batch, seed=1, conflicts=1.0).records["ask"].tolist()[1] == 1.0


def test_disorder_displaces_messages_by_so_many_at_most() -> None:
    faulty = sim.faults(line(3000), seed=1, disorder=0.02, displacement=4)
    arrived = numbers(faulty)
    assert sorted(arrived) == list(range(1, 3001))
    moved = set(faulty.truth.records["first"].tolist())
    settled = [number for number in arrived if number not in moved]
    assert settled == sorted(settled)
    passed = Counter()  # type: Counter[int]
    frame = faulty.truth.to_frame()
    for position, first, detail in zip(frame["position"], frame["first"], frame["detail"], strict=True):
        before = [number for number in arrived[:position] if number not in moved and number > first]
        passed[len(before)] += 1
        assert detail.startswith(f"arrives after {len(before)} later message")
    assert set(passed) == {1, 2, 3, 4}
    assert sum(passed.values()) == faulty.truth.counts["disorder"] > 30


def test_what_is_displaced_arrives_with_the_message_that_it_follows() -> None:
    faulty = sim.faults(line(100), seed=3, disorder=0.1)
    rows = faulty.records
    for position in faulty.truth.records["position"].tolist():
        assert rows["received"][position] == rows["received"][position - 1]
        assert rows["timestamp"][position] == START_NS + rows["sequence"][position] * MS - MS, "the source's time stays"


def test_late_bursts_are_held_back_and_arrive_together() -> None:
    faulty = sim.faults(line(1000), seed=2, late_bursts=0.004, late_burst_length=5, late_by_s=0.05)
    assert faulty.truth.counts["late burst"] >= 5
    for fault in faulty.truth.records:
        at, many = int(fault["position"]), int(fault["messages"])
        assert numbers(faulty)[at : at + many] == list(range(fault["first"], fault["last"] + 1))
        due = START_NS + int(fault["last"]) * MS
        assert set(faulty.records["received"][at : at + many].tolist()) == {due + 50 * MS}
        before = faulty.records["received"][:at]
        assert before.max() <= due + 50 * MS
    assert faulty.truth.lost == {}, "late is not lost"


def test_a_late_burst_never_arrives_in_a_later_epoch_of_its_source() -> None:
    sent = [Sent(PLUS_ONE, n // 10, 1 + n % 10, received=START_NS + n * MS) for n in range(20)]
    faulty = sim.faults(batch_of(sent), seed=1, late_bursts=1.0, late_burst_length=1, late_by_s=0.005)
    late = faulty.truth.records[faulty.truth.records["epoch"] == 0]
    assert late["first"].tolist() == [2, 3, 4, 5], "message 6 would arrive with the next epoch's first"
    assert faulty.truth.records[faulty.truth.records["epoch"] == 1]["first"].tolist() == list(range(2, 10))


def test_a_reset_numbers_all_that_follows_from_1_in_the_next_epoch() -> None:
    faulty = sim.faults(line(1000), seed=1, resets=0.01)
    positions = faulty.truth.records["position"].tolist()
    assert len(positions) == faulty.truth.counts["reset"] >= 2
    cuts = [0, *positions, 1000]
    for epoch, (begin, end) in enumerate(pairwise(cuts)):
        assert set(faulty.records["epoch"][begin:end].tolist()) == {epoch}
        assert numbers(faulty)[begin:end] == list(range(1, end - begin + 1))
    np.testing.assert_array_equal(faulty.records["price"], line(1000).records["price"])


def test_a_reset_of_ranges_goes_on_with_ranges_from_1() -> None:
    sent = [Sent(RANGE, 0, 100 + 3 * n, span=3, received=START_NS + n) for n in range(5)]
    faulty = sim.faults(batch_of(sent), seed=1, resets=1.0)
    assert faulty.records["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert numbers(faulty) == [100, 3, 3, 3, 3]


def test_later_epochs_of_the_batch_go_up_with_a_reset() -> None:
    sent = [Sent(PLUS_ONE, epoch, n, received=START_NS) for epoch in (0, 5) for n in (1, 2)]
    faulty = sim.faults(batch_of(sent), seed=1, resets=1.0)
    found = list(zip(faulty.records["epoch"].tolist(), numbers(faulty), strict=True))
    assert found == [(0, 1), (1, 1), (6, 1), (7, 1)]


@pytest.mark.parametrize("step_s", [-0.5, 2.0])
def test_clock_steps_shift_all_later_arrivals(step_s: float) -> None:
    faulty = sim.faults(line(1000), seed=1, clock_steps=0.01, step_s=step_s)
    shift = np.zeros(1000, np.int64)
    positions = faulty.truth.records["position"]
    shift[positions] = int(step_s * 1e9)
    assert len(positions) == faulty.truth.counts["clock step"] >= 2
    np.testing.assert_array_equal(faulty.records["received"] - line(1000).records["received"], np.cumsum(shift))
    np.testing.assert_array_equal(faulty.records["timestamp"], line(1000).records["timestamp"])
    ahead = (faulty.records["flags"] & Flags.AHEAD) != 0
    np.testing.assert_array_equal(ahead, faulty.records["timestamp"] > faulty.records["received"])


def test_a_timestamp_that_stands_for_the_arrival_goes_along_with_it() -> None:
    batch = line(200)
    batch.records["timestamp"] = batch.records["received"]
    batch.records["flags"] |= np.uint16(Flags.ARRIVAL_TIME)
    faulty = sim.faults(batch, seed=1, disorder=0.1, clock_steps=0.02)
    np.testing.assert_array_equal(faulty.records["timestamp"], faulty.records["received"])


def test_parts_stay_together_and_in_order() -> None:
    faulty = sim.faults(line(300, parts=3), seed=1, loss=0.1, duplicates=0.1, disorder=0.2, late_bursts=0.01)
    assert len(faulty) == 3 * faulty.truth.messages_out
    assert faulty.records["part"].tolist() == [0, 1, 2] * faulty.truth.messages_out
    assert np.all(faulty.records["sequence"].reshape(-1, 3) == faulty.records["sequence"][::3, None])
    assert set(faulty.truth.records["rows"] / faulty.truth.records["messages"]) == {3.0}


def test_a_source_without_numbers_is_numbered_first_so_that_losses_show() -> None:
    sent = [Sent(BARE, 0, -1, received=START_NS + n) for n in range(100)]
    faulty = sim.faults(batch_of(sent), seed=1, loss=0.1)
    assert {each.source.rule for each in faulty} == {"plus-one"}
    (key,) = faulty.truth.lost
    assert key == ("nyx/ticks//plus-one", 0)
    gone = {n for first, last in faulty.truth.lost[key] for n in range(first, last + 1)}
    assert gone == {*range(1, 101)} - {*numbers(faulty)} != set()


def test_a_loss_in_shared_numbers_is_done_and_told_apart_as_unseen() -> None:
    sent = [Sent(SHARED, 0, 5 * n, received=START_NS + n) for n in range(1, 101)]
    faulty = sim.faults(batch_of(sent), seed=1, loss=0.1)
    assert faulty.truth.lost == {}
    (ranges,) = faulty.truth.lost_unseen.values()
    assert {first for first, _ in ranges} == {*range(5, 501, 5)} - {*numbers(faulty)}


def test_messages_that_are_twice_late_or_without_number_are_left_alone() -> None:
    order = [1, 2, 3, 3, 4, 6, -1, 5, 7, 8]
    sent = [Sent(PLUS_ONE, 0, n, received=START_NS + at) for at, n in enumerate(order)]
    assert numbers(sim.faults(batch_of(sent), seed=1, loss=1.0)) == [1, 3, 3, 6, -1, 5, 8]


def test_rows_of_a_session_come_back_as_rows_of_none() -> None:
    batch = line(50)
    batch.records["log_sequence"] = np.arange(50)
    recorded = EventBatch(batch.records, batch.symbols, batch.sources, session_number=3)
    faulty = sim.faults(recorded, seed=1, duplicates=0.1)
    assert (faulty.session_number, set(faulty.records["log_sequence"].tolist())) == (0, {0})
    untouched = sim.faults(recorded, seed=1)
    assert untouched.session_number == 3
    assert same_bytes(untouched, recorded)


def test_an_empty_batch_stays_one() -> None:
    faulty = sim.faults(EventBatch.empty(), seed=1, **EVERYTHING)
    assert (len(faulty), len(faulty.truth), faulty.truth.messages_out) == (0, 0, 0)


def test_rates_are_met() -> None:
    faulty = sim.faults(sim.market(["A", "B"], 60, seed=1), seed=1, loss=0.02, duplicates=0.01, disorder=0.03)
    counts, total = faulty.truth.counts, faulty.truth.messages_in
    for kind, rate in (("loss", 0.02), ("duplicate", 0.01), ("disorder", 0.03)):
        assert counts[kind] / total == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize(("received", "step_s"), [(10, -0.5), ((1 << 63) - 1, 0.5)])
def test_a_clock_step_out_of_time_is_refused(received: int, step_s: float) -> None:
    batch = line(10)
    batch.records["received"] = received
    with pytest.raises(ValidationError, match=r"between 1970 and 2262; 9 clock steps of -?0\.5 s leave that"):
        sim.faults(batch, seed=1, clock_steps=1.0, step_s=step_s)


def test_late_bursts_need_arrivals() -> None:
    batch = line(10)
    batch.records["received"] = 0
    with pytest.raises(ValidationError, match="late bursts need to know when rows arrive"):
        sim.faults(batch, seed=1, late_bursts=0.1)
    batch.records["received"] = (1 << 63) - 1
    with pytest.raises(ValidationError, match="bursts that are 1 s late leave that"):
        sim.faults(batch, seed=1, late_bursts=0.1)


def test_what_is_no_batch_and_no_seed_is_refused() -> None:
    with pytest.raises(ValidationError, match="in an EventBatch; got 5"):
        sim.faults(5, seed=1)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="seed is an integer of at least 0"):
        sim.faults(line(1), seed=-1)


def test_every_argument_is_one_of_faults_and_has_its_default() -> None:
    import inspect

    parameters = dict(inspect.signature(sim.faults).parameters)
    del parameters["batch"], parameters["seed"]
    assert {name: each.default for name, each in parameters.items()} == {
        name: getattr(Faults(), name) for name in Faults.__struct_fields__
    }


def test_the_truth_gives_the_same_faults_again() -> None:
    import msgspec

    one = sim.faults(line(500), seed=9, **EVERYTHING)
    two = sim.faults(line(500), seed=one.truth.seed, **msgspec.structs.asdict(one.truth.asked))
    assert same_bytes(one, two)
    assert Fault.LOSS_BURST.label in one.truth.counts
