"""The table of gaps as its users read it, decide by it, and look at it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hftlab.errors import ValidationError
from hftlab.events import Flags, Source
from hftlab.events.records import event_id
from hftlab.sequence import GAP, AsideReason, Gap, GapReason, GapState, GapTable, Ordering, gap_of, sequencer
from hftlab.sequence.gaps import COUNTED, window_full
from tests.sequence.messages import MS, SESSION, SOURCES, START_NS, Stream, stream_of
from tests.sequence.playing import Player

TRADES, BOOK, QUOTES, ORDERS = SOURCES[1], SOURCES[2], SOURCES[3], SOURCES[4]
PLAIN = 2  # the id of TRADES


def player_of(messages: list[dict[str, Any]], **ordering: Any) -> Player:
    """Everything taken, nothing finished."""
    player = Player(stream_of(messages), Ordering(**ordering))
    player.offer(player.batch)
    return player


def plain(*numbers: int, **fields: Any) -> list[dict[str, Any]]:
    """Messages of the trades, 1 ms apart."""
    return [{"source": PLAIN, "sequence": number, "received": at, **fields} for at, number in enumerate(numbers)]


def told(table: GapTable) -> list[tuple[int, int, str, str]]:
    return [(gap.first, gap.last, gap.state.name, gap.reason.name) for gap in table]


def test_a_gap_is_open_then_filled_in_pieces_then_lost() -> None:
    player = player_of(plain(1, 8))
    gaps = player.sequencer.gaps
    assert told(gaps) == [(2, 7, "OPEN", "NONE")]
    player.sequencer.process(stream_of(plain(4)).batch((player.symbols, player.sources)))
    assert told(gaps) == [(2, 3, "OPEN", "NONE"), (4, 4, "FILLED", "NONE"), (5, 7, "OPEN", "NONE")]
    player.sequencer.process(stream_of(plain(5)).batch((player.symbols, player.sources)))
    assert told(gaps) == [(2, 3, "OPEN", "NONE"), (4, 5, "FILLED", "NONE"), (6, 7, "OPEN", "NONE")]
    player.sequencer.advance(START_NS + 101 * MS)
    assert told(gaps) == [(2, 3, "LOST", "DEADLINE"), (4, 5, "FILLED", "NONE"), (6, 7, "LOST", "DEADLINE")]
    assert gaps.counts == {"open": 0, "filled": 1, "lost": 2}
    assert sum(gap.numbers for gap in gaps) == 6


def test_every_reason_is_told() -> None:
    def reasons(player: Player) -> list[str]:
        return [gap.reason.name for gap in player.sequencer.gaps]

    deadline = player_of(plain(1, 3))
    deadline.sequencer.advance(START_NS + 200 * MS)
    window = player_of(plain(1, 3, 5), window=1)
    reset = player_of([*plain(1, 3), {"source": PLAIN, "sequence": 1, "epoch": 1, "received": 2}])
    end = player_of(plain(1, 3))
    end.sequencer.finish()
    decided = player_of(plain(1, 3))
    decided.sequencer.gaps.give_up()
    decided.sequencer.advance(START_NS)
    skipped = player_of(plain(1, 3))
    skipped.sequencer.skip()
    assert [reasons(player)[0] for player in (deadline, window, reset, end, decided, skipped)] == [
        "DEADLINE", "WINDOW", "RESET", "END", "DECIDED", "SKIPPED",
    ]  # fmt: skip


def test_a_gap_says_when_it_was_found_and_between_which_rows() -> None:
    player = player_of(plain(1, 2, 5))
    (gap,) = player.sequencer.gaps
    assert (gap.source, gap.epoch, gap.numbers) == (TRADES, 0, 2)
    assert (gap.opened_ns, gap.closed_ns, gap.duration_ns) == (START_NS + 2 * MS, 0, 0)
    assert (gap.before, gap.after) == (event_id(SESSION, 1), event_id(SESSION, 2))
    player.sequencer.advance(START_NS + 500 * MS)
    (gap,) = player.sequencer.gaps
    assert gap.closed_ns == START_NS + 102 * MS
    assert gap.duration_ns == 100 * MS
    assert player.sequencer.gaps[0] == player.sequencer.gaps[-1] == gap


def test_a_gap_in_words_has_its_source_numbers_state_and_reason() -> None:
    gap = Gap(TRADES, 0, 4, 4, GapState.OPEN)
    assert str(gap) == "nyx/trades/A 4 open"
    lost = Gap(TRADES, 0, 4, 9, GapState.LOST, GapReason.DEADLINE, 1, 2)
    assert str(lost) == "nyx/trades/A 4…9 lost, deadline"


def test_the_records_are_a_copy_and_make_the_same_gaps() -> None:
    player = player_of(plain(1, 3, 6))
    gaps = player.sequencer.gaps
    records = gaps.records
    assert records.dtype == GAP
    assert records["serial"].tolist() == [0, 1]
    assert [gap_of(record, gaps.sources) for record in records.tolist()] == list(gaps)
    records["first"] = 99
    assert [gap.first for gap in gaps] == [2, 4]


def test_an_index_beyond_the_table_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        player_of(plain(1)).sequencer.gaps[0]


# -- frames -----------------------------------------------------------------------------------------------------------


def test_the_frame_has_a_row_a_gap_with_utc_times() -> None:
    player = player_of(plain(1, 3) + [{"source": 5, "sequence": number, "received": 1} for number in (1, 5)])
    player.sequencer.advance(START_NS + 150 * MS)
    frame = player.sequencer.gaps.to_frame()
    assert list(frame.columns) == [
        "source", "epoch", "first", "last", "numbers", "state", "reason", "opened", "closed", "duration_ms", "before",
        "after",
    ]  # fmt: skip
    assert frame["source"].tolist() == ["nyx/trades/A", "nyx/orders/A"]
    assert frame[["first", "last", "numbers"]].to_numpy().tolist() == [[2, 2, 1], [2, 4, 3]]
    assert frame[["state", "reason"]].to_numpy().tolist() == [["lost", "deadline"], ["open", ""]]
    assert frame["opened"].tolist() == [pd.Timestamp(START_NS + MS, tz="UTC")] * 2
    assert frame["closed"][0] == pd.Timestamp(START_NS + 101 * MS, tz="UTC")
    assert frame["closed"][1] is pd.NaT
    assert frame["duration_ms"][0] == 100
    assert np.isnan(frame["duration_ms"][1])
    assert frame["after"].tolist() == [gap.after for gap in player.sequencer.gaps]


def test_the_frame_of_no_gaps_has_the_same_columns_and_types() -> None:
    full = player_of(plain(1, 3)).sequencer.gaps.to_frame()
    none = player_of(plain(1, 2)).sequencer.gaps.to_frame()
    assert (len(none), list(none.columns)) == (0, list(full.columns))
    assert none["opened"].dtype == full["opened"].dtype
    assert none["closed"].dtype == full["closed"].dtype


def fates() -> Player:
    """A message of every fate."""
    messages = plain(1, 2, 2, 5, 3)
    messages.append({"source": PLAIN, "sequence": 2, "content": 1, "received": 6})  # another content
    messages.append({"source": PLAIN, "sequence": 9, "received": 7})
    messages.append({"source": PLAIN, "sequence": 10, "received": 200})  # by now 4 and 6 … 8 are lost
    messages.append({"source": PLAIN, "sequence": 4, "received": 201})
    messages.append({"source": PLAIN, "sequence": 12, "received": 202})
    messages += [{"source": 4, "sequence": number, "received": 203} for number in (5, 9)]
    return player_of(messages)


def test_the_counts_by_source_add_up_and_name_every_fate() -> None:
    frame = fates().sequencer.gaps.by_source()
    assert tuple(frame.columns) == COUNTED
    assert frame.index.name == "source"
    assert frame.loc["nyx/trades/A"].to_dict() == {
        "received": 10, "delivered": 6, "duplicate": 1, "late": 1, "conflicting": 1, "orphaned": 0, "buffered": 1,
        "filled": 1, "lost": 4,
    }  # fmt: skip
    assert frame.loc["nyx/quotes/A"].to_dict() == dict.fromkeys(COUNTED, 0) | {"received": 2, "delivered": 2}
    assert len(frame) == 2  # who never sent anything is not listed


# -- deciding ---------------------------------------------------------------------------------------------------------


def strict_and_not() -> Player:
    messages = [
        {"source": source, "sequence": number, "received": at}
        for at, (source, number) in enumerate([(5, 1), (6, 1), (PLAIN, 1), (5, 3), (6, 3), (PLAIN, 3)])
    ]
    return player_of(messages)


@pytest.mark.parametrize("name", ["source", "gap"])
def test_one_source_is_given_up_and_the_others_go_on_waiting(name: str) -> None:
    player = strict_and_not()
    gaps = player.sequencer.gaps
    gaps.give_up(ORDERS if name == "source" else next(gap for gap in gaps if gap.source == ORDERS))
    assert player.sequencer.wants_work
    assert gaps.counts["lost"] == 0, "it takes effect with the next work"
    released = player.sequencer.advance(START_NS + 6 * MS)
    assert released.batch.records["log_sequence"].tolist() == [3]
    assert [(gap.source, gap.state.name) for gap in gaps] == [
        (ORDERS, "LOST"), (SOURCES[5], "OPEN"), (TRADES, "OPEN"),
    ]  # fmt: skip
    assert not player.sequencer.wants_work


def test_all_are_given_up_at_once() -> None:
    player = strict_and_not()
    player.sequencer.gaps.give_up()
    released = player.sequencer.advance(START_NS + 6 * MS)
    assert sorted(released.batch.records["log_sequence"].tolist()) == [3, 4, 5]
    assert {gap.reason for gap in player.sequencer.gaps} == {GapReason.DECIDED}


def test_a_source_that_was_never_seen_cant_be_given_up() -> None:
    player = strict_and_not()
    with pytest.raises(
        ValidationError, match=r"no events of .*elsewhere.* were seen; give_up\(\) without it means all"
    ):
        player.sequencer.gaps.give_up(Source("elsewhere", "trades", "A", "plus-one"))
    assert not player.sequencer.wants_work


def test_a_full_window_names_the_gap_that_its_source_waits_for_and_says_what_to_do() -> None:
    player = strict_and_not()
    gaps = player.sequencer.gaps
    for gap in gaps:
        error = window_full(gaps, Ordering(window=1_024), gap.source, 7)
        assert (error.gap, error.taken) == (gap, 7)
    told = str(window_full(gaps, Ordering(window=1_024), gaps[0].source, 0))
    assert told.startswith("nyx/orders/A waits for number 2 to 2: its events are of a strict type")
    assert "window of 1,024 messages is full" in told
    assert ".gaps.give_up()" in told


# -- polled, bounded --------------------------------------------------------------------------------------------------


def test_the_version_changes_whenever_the_table_does() -> None:
    player = Player(stream_of(plain(1, 2, 5, 3, 4, 8)), Ordering())
    gaps = player.sequencer.gaps
    seen = [(gaps.version, told(gaps), gaps.by_source().to_dict())]
    for at in range(len(player.batch)):
        player.sequencer.process(player.batch[at : at + 1])
        seen.append((gaps.version, told(gaps), gaps.by_source().to_dict()))
    player.sequencer.advance(START_NS + 300 * MS)
    seen.append((gaps.version, told(gaps), gaps.by_source().to_dict()))
    for before, after in itertools.pairwise(seen):
        assert before[0] <= after[0]
        if before[1] != after[1]:
            assert before[0] < after[0]
    unchanged = gaps.version
    player.sequencer.advance(START_NS + 301 * MS)
    told(gaps), gaps.counts, gaps.to_frame(), repr(gaps)
    assert gaps.version == unchanged, "nothing happened: nobody needs to draw it again"


def lossy(count: int) -> Stream:
    """Every other number is missing."""
    return stream_of([{"source": PLAIN, "sequence": 2 * at, "received": at} for at in range(count)])


def test_a_full_table_forgets_its_oldest_closed_gaps_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "KEPT_GAPS", 64)
    stream = lossy(1_000)
    player = Player(stream, Ordering(window=4))
    gaps = player.sequencer.gaps
    for begin in range(0, 1_000, 10):
        player.note(player.sequencer.process(player.batch[begin : begin + 10]))
        assert len(gaps) <= 64 + 10
    assert gaps.forgotten > 0
    assert gaps.forgotten + len(gaps) == 999 == player.sequencer.statistics().gaps
    assert player.sequencer.statistics().forgotten_gaps == gaps.forgotten
    # The latest are there, the open ones among them, and no count was lost.
    assert [gap.first for gap in gaps] == [2 * at + 1 for at in range(gaps.forgotten, 999)]
    assert gaps.counts["open"] == 4
    assert gaps.by_source()["lost"].tolist() == [995]
    # Forgetting changes nothing of what comes out.
    unbounded = Player(stream, Ordering(window=4))
    monkeypatch.undo()
    unbounded.note(unbounded.sequencer.process(unbounded.batch))
    assert unbounded.outcome.deliveries == player.outcome.deliveries
    assert unbounded.outcome.notices == player.outcome.notices


def test_open_gaps_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "KEPT_GAPS", 16)
    orders = [{"source": 5, "sequence": 2 * at, "received": at} for at in range(100)]
    player = Player(stream_of(orders), Ordering())
    for at in range(100):
        player.sequencer.process(player.batch[at : at + 1])
    gaps = player.sequencer.gaps
    assert (gaps.counts["open"], gaps.forgotten) == (99, 0)
    gaps.give_up()
    assert len(player.sequencer.advance(START_NS + 101 * MS).batch) == 99
    player.sequencer.advance(START_NS + 102 * MS)
    assert gaps.forgotten + len(gaps) == 99


# -- looked at --------------------------------------------------------------------------------------------------------


def test_the_repr_counts_gaps_by_state_and_what_was_set_aside() -> None:
    assert repr(player_of(plain(1, 2)).sequencer.gaps) == "GapTable(no gaps)"
    assert repr(player_of(plain(1, 3)).sequencer.gaps) == "GapTable(1 open)"
    assert repr(fates().sequencer.gaps) == "GapTable(1 open, 1 filled, 2 lost; set aside: 2 rows)"


def test_the_html_shows_ten_gaps_and_where_to_find_the_rest() -> None:
    html = player_of(plain(1, 3)).sequencer.gaps._repr_html_()
    assert "<td>nyx/trades/A</td><td>0</td><td>2</td><td>2</td><td>1</td><td>open</td><td></td>" in html
    assert "more: .to_frame()" not in html
    many = player_of(plain(*range(1, 31, 2)))
    html = many.sequencer.gaps._repr_html_()
    assert html.count("<tr>") == 1 + 10
    assert "… 4 more: .to_frame()" in html
    assert "<table>" not in player_of(plain(1)).sequencer.gaps._repr_html_()


def test_the_html_escapes_what_a_source_is_called() -> None:
    named = (Source("<b>x</b>", "trades", "A", "plus-one"),)
    stream = stream_of([{"source": 1, "sequence": number} for number in (1, 3)], named)
    player = Player(stream, Ordering())
    player.offer(player.batch)
    html = player.sequencer.gaps._repr_html_()
    assert "<b>x</b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in html


def test_the_figure_is_a_timeline_with_every_source_that_has_gaps() -> None:
    figure = fates().sequencer.gaps.figure()
    assert "nyx/trades/A" in str(figure.to_dict())
    assert "nyx/quotes/A" not in str(figure.to_dict())


# -- set aside --------------------------------------------------------------------------------------------------------


def test_late_and_conflicting_rows_are_readable_with_their_reason() -> None:
    aside = fates().sequencer.gaps.set_aside
    assert (aside.count, len(aside)) == (2, 2)
    assert aside.records["log_sequence"].tolist() == [5, 8]
    assert aside.reasons.tolist() == [AsideReason.CONFLICT, AsideReason.LATE]
    frame = aside.to_frame()
    assert frame.columns[0] == "reason"
    assert frame["reason"].tolist() == ["conflict", "late"]
    assert frame["sequence"].tolist() == [2, 4]
    assert aside.batch.event_ids.tolist() == [event_id(SESSION, 5), event_id(SESSION, 8)]
    assert repr(aside) == "SetAside(2 rows; the latest 2: 1 late, 1 conflict)"
    assert "<table" in aside._repr_html_()


def test_what_was_never_set_aside_is_an_empty_table() -> None:
    aside = player_of(plain(1, 2)).sequencer.gaps.set_aside
    assert (aside.count, len(aside), len(aside.records), len(aside.to_frame())) == (0, 0, 0, 0)
    assert repr(aside) == "SetAside(0 rows)"
    assert "<table" not in aside._repr_html_()


def test_an_event_whose_cause_was_set_aside_is_set_aside_too_where_that_was_asked_for() -> None:
    messages = plain(5, 4)  # 4 comes before the first number ever seen: late
    messages.append({"source": 3, "sequence": 1, "received": 3, "cause": event_id(SESSION, 1)})
    kept = player_of(messages, lost_cause="set aside").sequencer.gaps
    assert kept.set_aside.to_frame()["reason"].tolist() == ["late", "orphaned"]
    assert kept.by_source()["orphaned"].to_dict() == {"nyx/trades/A": 0, "nyx/book/A": 1}
    delivered = player_of(messages).sequencer.gaps
    assert delivered.set_aside.count == 1


def test_the_latest_1024_rows_are_kept_and_all_are_counted() -> None:
    late = [{"source": PLAIN, "sequence": 4_999 - at, "received": 1} for at in range(3_000)]
    player = player_of([*plain(5_000), *late])
    aside = player.sequencer.gaps.set_aside
    assert (aside.count, len(aside)) == (3_000, 1_024)
    assert aside.records["log_sequence"].tolist() == list(range(3_001 - 1_024, 3_001))
    assert len(aside.to_frame()) == 1_024


def test_the_row_after_a_lost_gap_carries_the_mark() -> None:
    player = player_of(plain(1, 3, 4), window=1)
    records = player.sequencer.finish().batch.records
    assert ((records["flags"] & Flags.AFTER_GAP) != 0).sum() + sum(d.after_gap for d in player.outcome.deliveries) == 1
