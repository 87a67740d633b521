"""Messages are held for a fixed time and leave in the order of their key: against a model that keeps plain lists."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab.sequence.sliding as subject
from hftlab import feeds
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags, Source
from hftlab.events.records import RECORD, blank
from hftlab.events.rowbytes import concat_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence import AsideReason, SetAside, SlidingWindow, rules
from hftlab.sequence.kernels import atomics, lateness, least, sliding, slots
from tests.sequence.sliding_model import Key, Model, Row

KEYS: tuple[Key, ...] = ("timestamp", "sequence")
START_NS = 1_700_000_000_000_000_000
LAST_PART = int(Flags.LAST_PART)
SOURCES = (
    Source("nyx", "trades", "A", "plus-one"),
    Source("nyx", "quotes", "A", "shared"),
    Source("nyx", "quotes", "B", "shared"),
    Source("nyx", "news"),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a stream: places and moments of the rows that left, places of those set aside, and counts."""

    out: list[tuple[int, int]]
    aside: list[int]
    counts: tuple[int, int, int]


def modelled(rows: list[Row], window: dict[str, Any], advances: dict[int, int]) -> Outcome:
    model = Model(**window)
    for row in rows:
        if row.at in advances:
            model.advance(advances[row.at])
        model.take(row)
    model.finish()
    assert [moment for _, moment in model.out] == sorted(moment for _, moment in model.out)
    return Outcome(model.out, model.aside, (model.late, model.late_by_ns_max, model.hurried))


def batch_of(rows: list[Row]) -> EventBatch:
    records = blank(len(rows), EventType.MARKET_DATA)
    for name in ("source", "timestamp", "epoch", "sequence", "part"):
        records[name] = [getattr(row, name) for row in rows]
    records["received"] = [row.moment for row in rows]
    records["flags"] = [LAST_PART if row.last else 0 for row in rows]
    records["log_sequence"] = [row.at for row in rows]
    records["price"] = np.arange(len(rows)) + 0.5
    return EventBatch(records, SymbolTable(["A"]), SourceTable(SOURCES), session_number=7)


def slid(
    rows: list[Row],
    window: dict[str, Any],
    advances: dict[int, int],
    cuts: list[int] | None = None,
    time: str = "received",
) -> Outcome:
    """The stream through a real window, cut into batches."""
    batch = batch_of(rows)
    original = batch.records
    real = SlidingWindow(symbols=batch.symbols, sources=batch.sources, **window)
    moments = np.array([row.moment for row in rows], np.int64)
    parts: list[subject.Slid] = []
    ends = sorted({len(rows), *advances, *(cuts or [])} - {0})
    for begin, end in zip([0, *ends], [*ends, None], strict=True):
        due = real.due_ns
        if begin in advances:
            parts.append(real.advance(advances[begin]))
            assert due is None or advances[begin] < due or len(parts[-1].batch)
        if end is None:
            break
        piece = batch[begin:end]
        if time == "moments":
            parts.append(real.process(piece, moments=np.maximum.accumulate(moments)[begin:end]))
        else:
            parts.append(real.process(piece))
        told = real.statistics()
        aside = told.late if window["key"] == "timestamp" else 0
        assert told.received == end == told.released + told.held + aside
        assert told.held <= window.get("capacity", 1 << 16)
    parts.append(real.finish())
    assert real.statistics().held == 0
    assert real.due_ns is None
    records = concat_rows([part.batch.records for part in parts], RECORD)
    places = records["log_sequence"].tolist()
    assert records.tobytes() == original.view("V128")[places].tobytes()
    assert {part.batch.session_number for part in parts if len(part.batch)} <= {7}
    told = real.statistics()
    assert real.set_aside.count == len(real.set_aside.records)
    assert set(real.set_aside.reasons.tolist()) <= {AsideReason.LATE}
    return Outcome(
        list(zip(places, [moment for part in parts for moment in part.moments.tolist()], strict=True)),
        real.set_aside.records["log_sequence"].tolist(),
        (told.late, told.late_by_ns_max, told.hurried),
    )


STEPS = st.tuples(
    st.sampled_from([1, 2, 3, 4, 0, 2, 3]),  # the source
    st.integers(-12, 12),  # its timestamp, in ns from its moment
    st.sampled_from([1, 1, 2, 0, -1, -3]),  # its number, from the one before of its source
    st.sampled_from([True, True, True, False]),  # whether it is its message's last part
    st.sampled_from([True, True, True, False]),  # whether it goes on with a message
    st.sampled_from([0, 0, 1, 1, 2, 5, 30, -4]),  # ns since the row before
    st.sampled_from([""] * 12 + ["epoch", "unnumbered"]),
)


def walked(steps: list[tuple[Any, ...]]) -> list[Row]:
    rows: list[Row] = []
    latest: dict[int, Row] = {}
    epochs: Counter[int] = Counter()
    now = START_NS
    for at, (source, ahead, step, last, goes_on, passed, special) in enumerate(steps):
        now += passed
        before = latest.get(source)
        if before is not None and not before.last and goes_on:
            row = Row(at, source, now + ahead, before.epoch, before.sequence, before.part + 1, last, now)
        else:
            epochs[source] += special == "epoch"
            number = max(0, (before.sequence if before else 5) + step)
            if source in (0, 4) or special == "unnumbered":
                number = -1
            row = Row(at, source, now + ahead, epochs[source], number, 0, last, now)
        latest[source] = row
        rows.append(row)
    return rows


def streams(longest: int = 120) -> st.SearchStrategy[list[Row]]:
    return st.lists(STEPS, max_size=longest).map(walked)


windows = st.fixed_dictionaries(
    {"hold_ns": st.sampled_from([1, 3, 10, 25, 1_000]), "key": st.sampled_from(KEYS)},
    optional={"capacity": st.sampled_from([1, 2, 3, 7, 20])},
)
deeds = st.dictionaries(st.integers(0, 119), st.integers(0, 400), max_size=3)


def within(rows: list[Row], advances: dict[int, int]) -> dict[int, int]:
    """Advances of ns from the start, at places that there are."""
    return {at: START_NS + ns for at, ns in advances.items() if at < len(rows)}


@contextmanager
def uncompiled() -> Iterator[int]:
    """The kernels, and what they call, are the Python functions that they were made from."""
    replaced = 0
    with pytest.MonkeyPatch.context() as patch:
        for module in (sliding, slots, least, lateness, atomics, subject):
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
                    replaced += 1
        yield replaced


@settings(max_examples=400)
@given(streams(), windows, deeds, st.lists(st.integers(1, 119), max_size=6), st.sampled_from(["received", "moments"]))
def test_what_leaves_and_when_is_as_the_words_say_wherever_batches_are_cut(
    rows: list[Row], window: dict[str, Any], advances: dict[int, int], cuts: list[int], time: str
) -> None:
    advances = within(rows, advances)
    cuts = [cut for cut in cuts if cut < len(rows)]
    assert slid(rows, window, advances, cuts, time) == modelled(rows, window, advances)


@settings(max_examples=60)
@given(streams(), windows)
def test_a_row_at_a_time_and_all_at_once_give_the_same(rows: list[Row], window: dict[str, Any]) -> None:
    assert slid(rows, window, {}, list(range(len(rows)))) == slid(rows, window, {})


@settings(max_examples=80)
@given(streams(), windows, deeds)
def test_kernels_do_the_same_compiled_and_as_plain_python(
    rows: list[Row], window: dict[str, Any], advances: dict[int, int]
) -> None:
    advances = within(rows, advances)
    compiled = slid(rows, window, advances)
    with uncompiled() as replaced:
        assert replaced > 20
        assert slid(rows, window, advances) == compiled


@settings(max_examples=100)
@given(streams(), st.sampled_from([1, 3, 10]), st.sampled_from(KEYS))
def test_a_hold_of_more_than_the_largest_lateness_lets_nothing_be_late(rows: list[Row], hold_ns: int, key: Key) -> None:
    late, late_by_ns, _ = slid(rows, {"hold_ns": hold_ns, "key": key}, {}).counts
    if late:
        assert late_by_ns >= hold_ns
        assert slid(rows, {"hold_ns": late_by_ns + 1, "key": key}, {}).counts == (0, 0, 0)
        assert slid(rows, {"hold_ns": late_by_ns, "key": key}, {}).counts[1] == late_by_ns


# -- told one by one --------------------------------------------------------------------------------------------------


def window_of(hold_ns: int, key: Key, **arguments: Any) -> SlidingWindow:
    return SlidingWindow(hold_ns, key, SymbolTable(["A"]), SourceTable(SOURCES), **arguments)


def rows_of(*rows: tuple[int, int, int, int], last: bool = True) -> EventBatch:
    """Rows out of (source, timestamp, number, moment), the times in ns from the start; each a message."""
    made = [
        Row(at, source, START_NS + ahead, 0, number, 0, last, START_NS + moment)
        for at, (source, ahead, number, moment) in enumerate(rows)
    ]
    return batch_of(made)


def left(slid: subject.Slid, column: str = "sequence") -> list[tuple[int, int]]:
    """What left, and when, in ns from the start."""
    values = slid.batch.records[column].tolist()
    return list(zip(values, (slid.moments - START_NS).tolist(), strict=True))


def test_a_message_pulls_those_with_lesser_keys_out_with_it_when_it_is_due() -> None:
    window = window_of(10, "timestamp")
    assert left(window.process(rows_of((1, 5, 50, 0), (2, 3, 30, 4), (4, 7, 70, 8)))) == []
    assert window.due_ns == START_NS + 10
    assert left(window.advance(START_NS + 9)) == []
    assert left(window.advance(START_NS + 17)) == [(30, 10), (50, 10)]
    assert window.due_ns == START_NS + 18
    assert left(window.finish()) == [(70, 17)]
    assert window.due_ns is None


def test_sources_in_order_are_merged_by_timestamp_though_one_is_slow() -> None:
    fast = [(1, at, at, at) for at in range(0, 1_000, 3)]
    slow = [(2, at, at, at + 40) for at in range(1, 1_000, 5)]
    batch = rows_of(*sorted(fast + slow, key=lambda row: row[3]))
    window = window_of(41, "timestamp")
    slid, rest = window.process(batch), window.finish()
    assert slid.batch.type is EventType.MARKET_DATA
    merged = [number for number, _ in left(slid) + left(rest)]
    assert merged == sorted(merged)
    assert len(merged) == len(batch)
    assert window.statistics().late == 0


def test_what_is_late_for_a_merged_view_is_set_aside_and_says_which_hold_had_been_enough() -> None:
    window = window_of(10, "timestamp")
    slid = window.process(rows_of((1, 100, 1, 0), (2, 90, 2, 25), (2, 95, 3, 26), (4, 101, 4, 27)))
    assert left(slid) == [(1, 10)]
    assert window.set_aside.records["sequence"].tolist() == [2, 3]
    assert window.set_aside.reasons.tolist() == [AsideReason.LATE] * 2
    told = window.statistics()
    assert (told.received, told.released, told.held, told.late, told.late_by_ns_max) == (4, 1, 1, 2, 26)
    assert "2 late by up to 0.000 ms" in repr(window)


def test_a_set_aside_can_be_shared() -> None:
    shared = SetAside(SymbolTable(["A"]), SourceTable(SOURCES))
    window = window_of(10, "timestamp", set_aside=shared)
    window.process(rows_of((1, 100, 1, 0), (2, 90, 2, 25)))
    assert window.set_aside is shared
    assert shared.count == 1


def test_within_a_source_its_own_order_is_kept_whatever_its_timestamps_say() -> None:
    window = window_of(10, "timestamp")
    window.process(rows_of((1, 9, 1, 0), (1, 5, 2, 1), (2, 7, 3, 2), (1, 10, 4, 3)))
    assert left(window.finish()) == [(3, 3), (1, 3), (2, 3), (4, 3)]


def test_by_number_each_source_is_by_itself_and_late_or_without_number_passes_at_once() -> None:
    window = window_of(10, "sequence")
    first = window.process(rows_of((2, 0, 5, 0), (3, 0, 9, 1), (2, 0, 3, 2), (1, 0, 8, 3), (3, 0, -1, 4), (2, 0, 3, 5)))
    assert left(first) == [(8, 3), (-1, 4)]
    assert left(window.process(rows_of((2, 0, 4, 12), (2, 0, 5, 13)))) == [(3, 10), (3, 10), (5, 10), (9, 11), (4, 12)]
    told = window.statistics()
    assert (told.received, told.released, told.held, told.late, told.late_by_ns_max) == (8, 7, 1, 1, 12)
    assert window.set_aside.count == 0


def test_a_message_in_parts_leaves_whole_though_its_parts_came_in_two_batches() -> None:
    parts = [
        Row(0, 2, START_NS, 0, 7, 0, False, START_NS),
        Row(1, 3, START_NS, 0, 1, 0, True, START_NS + 1),
        Row(2, 2, START_NS, 0, 7, 1, False, START_NS + 20),
        Row(3, 2, START_NS, 0, 7, 2, True, START_NS + 22),
    ]
    batch = batch_of(parts)
    window = SlidingWindow(10, "sequence", batch.symbols, batch.sources)
    assert left(window.process(batch[:3])) == [(1, 11)]
    assert window.statistics().held == 2
    assert window.due_ns is None
    assert left(window.process(batch[3:])) == []
    assert left(window.advance(START_NS + 40), "part") == [(0, 32), (1, 32), (2, 32)]


def test_at_capacity_what_is_due_first_leaves_before_its_time_and_is_counted() -> None:
    window = window_of(100, "timestamp", capacity=2)
    assert left(window.process(rows_of((1, 5, 1, 0), (2, 3, 2, 1), (4, 8, 3, 2), (4, 9, 4, 3)))) == [(2, 2), (1, 2)]
    assert left(window.process(rows_of((4, 12, 5, 7)))) == [(3, 7)]
    told = window.statistics()
    assert (told.held, told.hurried, told.late) == (2, 3, 0)


def test_a_message_of_more_rows_than_there_is_room_for_leaves_in_pieces_and_in_order() -> None:
    parts = [Row(at, 2, START_NS, 0, 7, at, at == 9, START_NS) for at in range(10)]
    batch = batch_of(parts)
    window = SlidingWindow(10, "sequence", batch.symbols, batch.sources, capacity=4)
    slid = window.process(batch)
    assert slid.batch.records["part"].tolist() == list(range(8))
    assert window.finish().batch.records["part"].tolist() == [8, 9]
    assert window.statistics().hurried == 8


def test_finishing_lets_any_key_come_next() -> None:
    for key in KEYS:
        window = window_of(10, key)
        window.process(rows_of((2, 100, 100, 0)))
        assert left(window.finish()) == [(100, 0)]
        window.process(rows_of((2, 50, 50, 1), (3, 60, 60, 2), (3, 70, 70, 3), (2, 80, 80, 4)))
        # By timestamp, the 50 is not raised to the 100 from before; by number, each source is by itself.
        assert [number for number, _ in left(window.finish())] == [50, 60, 70, 80]
        assert window.statistics().late == 0


@pytest.mark.parametrize("rows", [0, 1, 5_000])
def test_the_same_batch_comes_back_where_no_source_is_held(rows: int) -> None:
    batch = rows_of(*[(1 + 3 * (at % 2), 0, at, at // 2) for at in range(rows)])
    window = SlidingWindow(10, "sequence", batch.symbols, batch.sources)
    slid = window.process(batch)
    assert slid.batch is batch
    assert slid.moments.tolist() == [START_NS + at // 2 for at in range(rows)]
    assert window.process(batch, now_ns=START_NS + 9_000).moments.tolist() == [START_NS + 9_000] * rows


def test_a_batch_that_is_held_only_at_its_end_comes_out_piece_by_piece() -> None:
    count = 9_000
    batch = rows_of(*[(1 if at < 6_000 else 2, 0, at, at) for at in range(count)])
    window = SlidingWindow(100, "sequence", batch.symbols, batch.sources)
    slid, rest = window.process(batch), window.finish()
    assert (len(slid.batch), len(rest.batch)) == (count - 100, 100)
    both = concat_rows([slid.batch.records, rest.batch.records], RECORD)
    assert both.tobytes() == batch.records.tobytes()
    assert slid.moments[[0, 5_999, 6_000]].tolist() == [START_NS, START_NS + 5_999, START_NS + 6_100]


def test_rows_of_several_types_come_out_under_record_and_one_type_under_its_own() -> None:
    batch = rows_of((2, 0, 1, 0), (2, 0, 2, 1), (2, 0, 3, 2))
    records = batch.records.view(RECORD)
    records["type"][1] = EventType.ORDER
    mixed = EventBatch(records, batch.symbols, batch.sources)
    window = SlidingWindow(10, "sequence", batch.symbols, batch.sources)
    window.process(mixed)
    first = window.advance(START_NS + 10).batch
    assert (first.type, len(first)) == (EventType.MARKET_DATA, 1)
    assert window.finish().batch.type is None


def test_rows_under_other_tables_are_translated() -> None:
    window = window_of(10, "sequence")
    records = rows_of((1, 0, 7, 0)).records
    window.process(EventBatch(records, SymbolTable(["Z"]), SourceTable([Source("eos", "q", "Z", "shared")])))
    batch = window.finish().batch
    assert (batch.symbols, batch.sources) == (window.symbols, window.sources)
    assert batch.column("symbol") == ["Z"]
    assert batch.sources[int(batch.records["source"][0])].venue == "eos"


def test_rows_held_across_sessions_lose_their_session_rather_than_have_a_wrong_one() -> None:
    window = window_of(10, "sequence")
    window.process(rows_of((2, 0, 1, 0)))
    batch = rows_of((2, 0, 2, 5), (2, 0, 3, 20))
    other = EventBatch(batch.records, batch.symbols, batch.sources, session_number=8)
    assert window.process(other).batch.session_number == 0
    assert window.finish().batch.session_number == 0
    window.process(EventBatch(batch.records, batch.symbols, batch.sources, session_number=8))
    assert window.finish().batch.session_number == 8


def test_a_rule_of_ones_own_whose_numbers_only_rise_is_ordered_by_its_numbers() -> None:
    @rules.register("falling", dense=False)
    def falling(records: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        number = 1_000 - records["sequence"].astype(np.int64)
        return number, number

    sources = SourceTable([Source("nyx", "odd", "A", "falling")])
    batch = rows_of((1, 0, 7, 0), (1, 0, 9, 1), (1, 0, 8, 2))
    window = SlidingWindow(10, "sequence", batch.symbols, sources)
    window.process(EventBatch(batch.records, batch.symbols, sources))
    assert [number for number, _ in left(window.finish())] == [9, 8, 7]


@pytest.mark.parametrize("back", [1, 100, 255, 300, 1_000, 5_000, 20_000])
def test_lateness_is_exact_up_to_256_rises_ago_and_beyond_never_told_too_small(back: int) -> None:
    count = 40 * slots.MOST_RISES
    window = window_of(5, "timestamp")
    window.process(rows_of(*[(1, 10 * at, at, 10 * at) for at in range(count)]))
    # The message that overtook it came ``back`` messages from the end.
    now, overtaken = 10 * count, 10 * (count - back)
    window.process(rows_of((2, overtaken - 1, 0, now)))
    told = window.statistics()
    assert told.late == 1
    if back < slots.MOST_RISES // 2:
        assert told.late_by_ns_max == now - overtaken
    assert now - overtaken <= told.late_by_ns_max <= 1.4 * (now - overtaken)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"hold_ns": 0}, "hold_ns is an integer of 1"),
        ({"hold_ns": 1.5}, "got 1.5"),
        ({"hold_ns": True}, "got True"),
        ({"hold_ns": 1, "key": "received"}, "'timestamp' or 'sequence'; got 'received'"),
        ({"hold_ns": 1, "capacity": 0}, "capacity is an integer of 1 to 2"),
    ],
)
def test_arguments_that_break_a_rule_are_refused_with_their_value(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        SlidingWindow(**arguments)


def test_moments_of_another_length_and_rules_that_nobody_registered_are_refused() -> None:
    window = window_of(10, "sequence")
    batch = rows_of((2, 0, 1, 0))
    with pytest.raises(ValidationError, match="got 1 rows and 2 moments"):
        window.process(batch, moments=np.zeros(2, np.int64))
    unknown = SourceTable([*SOURCES, Source("nyx", "odd", "B", "nobody's")])
    with pytest.raises(ValidationError, match="nobody registered"):
        window.process(EventBatch(batch.records, batch.symbols, unknown))
    assert len(window.advance(START_NS).batch) == 0


def test_the_kernels_file_names_the_sources_that_its_cached_machine_code_contains() -> None:
    folder = Path(str(sliding.__file__)).parent
    found = hashlib.sha256(b"".join((folder / name).read_bytes() for name in ("slots.py", "least.py", "lateness.py")))
    told = found.hexdigest()[:16]
    assert told == sliding.COMPILED_IN, f'write COMPILED_IN = "{told}" into sliding.py, or stale kernels stay cached'


# -- the real capture -------------------------------------------------------------------------------------------------


def late_messages(batch: EventBatch) -> int:
    """Messages whose number lies below one that their source had sent before."""
    rows = batch.records[(batch.records["part"] == 0) & (batch.records["sequence"] >= 0)]
    greatest: dict[int, int] = {}
    late = 0
    for source, number in zip(rows["source"].tolist(), rows["sequence"].tolist(), strict=True):
        late += number < greatest.get(source, 0)
        greatest[source] = max(number, greatest.get(source, 0))
    return late


def test_a_hold_of_42_ms_brings_all_604_late_messages_of_dydx_into_order(capture_path: Callable[[str], Path]) -> None:
    batch = feeds.read(capture_path("cryptofeed-anomalies/DYDX.ws.1.0.gz"), format="dydx")
    assert late_messages(batch) == 604

    def through(hold_ns: int) -> tuple[EventBatch, subject.SlidingStatistics]:
        window = SlidingWindow(hold_ns, "sequence", batch.symbols, batch.sources)
        out = EventBatch.concat([window.process(batch).batch, window.finish().batch])
        assert sorted(out.records["log_sequence"].tolist()) == sorted(batch.records["log_sequence"].tolist())
        return out, window.statistics()

    # Even a hold that orders nothing says which one would have: 41.457 ms.
    out, told = through(1)
    assert (late_messages(out), told.late_by_ns_max) == (604, 41_456_900)
    out, told = through(41_456_900)
    assert (late_messages(out), told.late) == (1, 1)
    out, told = through(41_456_901)
    assert (late_messages(out), told.late, told.hurried) == (0, 0, 0)
