from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.clock.skew import estimate_skew
from hftlab.errors import ValidationError
from hftlab.events.records import Flags
from hftlab.metrics import Histogram, Journey, Latency, Stage
from hftlab.metrics.journeys import layout
from hftlab.metrics.journeys.journey import OTHER_HANDLERS
from hftlab.metrics.journeys.slots import OTHER_SYMBOLS
from tests.metrics.journeys.rows import BEGIN_NS, MARKET, ORDER, Row, journey, rows_of, steady
from tests.metrics.test_histogram import content

EMPTY = np.zeros(0, np.int64)


def counts(told: Journey) -> dict[tuple[str, str | None], int]:
    return {
        (stage.name, symbol): histogram.recorded
        for stage, _, symbol, histogram in told.stage_histograms()
        if histogram.recorded
    }


def test_rows_without_both_stamps_have_no_way_from_the_exchange() -> None:
    told = journey()
    flags = [Flags.NONE, Flags.ARRIVAL_TIME, Flags.SOURCE_TIME, Flags.EMITTED, Flags.AHEAD | Flags.SNAPSHOT]
    told.note_rows(rows_of([Row(5, 7, flags=int(flag)) for flag in flags]), MARKET, 100)
    assert counts(told) == {("RECEIVED", "S0"): 2, ("TOTAL", "S0"): 5}


def test_without_a_moment_only_what_is_in_the_rows_is_recorded() -> None:
    told = journey()
    told.note_rows(steady(10), MARKET, None)
    assert counts(told) == {("RECEIVED", f"S{symbol}"): count for symbol, count in enumerate((4, 3, 3))}


def test_what_is_noted_for_a_batch_counts_for_each_of_its_events() -> None:
    told = journey()
    told.note(Stage.READ, MARKET, 1_500, 8)
    told.note_runs(Stage.READ, MARKET, 10_000, [(3, 9_000), (0, 5), (2, 10_001)])
    told.note_since(Stage.APPENDED, MARKET, np.array([5, 10], np.int64), 12)
    told.note_handler("spread", ORDER, 77, 4)
    found = {stage: histogram for stage, _, _, histogram in told.stage_histograms()}
    assert (found[Stage.READ].count, found[Stage.READ].negative) == (11, 2)
    assert (found[Stage.APPENDED].minimum, found[Stage.APPENDED].maximum) == (2, 7)
    ((handler, kind, histogram),) = told.handler_histograms()
    assert (handler, kind, histogram.count, histogram.quantile(0.5)) == ("spread", "order", 4, 77)


def test_the_first_symbols_have_histograms_of_their_own_and_all_others_one() -> None:
    told = journey(most_symbols=3)
    for _ in range(2):
        told.note_rows(steady(1_000, symbols=10), MARKET, None)
    assert counts(told) == {("RECEIVED", f"S{s}"): 200 for s in range(3)} | {("RECEIVED", OTHER_SYMBOLS): 1_400}
    rows = steady(1_000, symbols=2)
    rows["symbol"] += 7
    told.note_rows(rows, ORDER, None)
    assert Latency(told).histogram("received", symbol=OTHER_SYMBOLS, type="order").count == 1_000


def test_a_million_symbols_take_no_more_memory_than_the_slots() -> None:
    told = journey(most_symbols=4)
    rows = steady(50_000)
    rows["symbol"] = np.arange(50_000) * 85_899  # up to the greatest that an id can be
    told.note_rows(rows, MARKET, 0)
    assert len(list(told.stage_histograms())) == 2 * 5
    assert sum(counts(told).values()) == 100_000


def test_no_symbol_has_its_own_where_none_is_wanted() -> None:
    told = journey(most_symbols=0)
    told.note_rows(steady(10), MARKET, None)
    assert counts(told) == {("RECEIVED", OTHER_SYMBOLS): 10}


def test_handlers_beyond_the_most_share_a_histogram() -> None:
    told = journey(most_handlers=2)
    for handler in ("a", "b", "c", "d", "a"):
        told.note_handler(handler, MARKET, 10)
        told.note_handler(handler, ORDER, 10)
    found = {(handler, kind): histogram.count for handler, kind, histogram in told.handler_histograms()}
    each = {"a": 2, "b": 1, OTHER_HANDLERS: 2}
    assert found == {(handler, kind): count for handler, count in each.items() for kind in ("market", "order")}


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_a_sample_is_each_kth_row_wherever_batches_begin(size: int) -> None:
    told = journey(sample=10, seed=5)
    rows = steady(30_000, symbols=1)
    for begin in range(0, len(rows), size):
        told.note_rows(rows[begin : begin + size], MARKET, None)
    assert sum(counts(told).values()) == pytest.approx(3_000, rel=0.1)
    told.note(Stage.READ, MARKET, 5, 700)
    assert counts(told)[("READ", None)] == 700


def test_the_same_seed_draws_the_same_sample() -> None:
    runs = [journey(sample=7, seed=seed) for seed in (1, 1, 2)]
    for told in runs:
        for begin in range(0, 900, 9):
            told.note_rows(steady(900)[begin : begin + 9], MARKET, None)
    one, same, other = (content(Latency(told).histogram("received")) for told in runs)
    assert one == same != other
    runs[0].clear()
    for begin in range(0, 900, 9):
        runs[0].note_rows(steady(900)[begin : begin + 9], MARKET, None)
    assert content(Latency(runs[0]).histogram("received")) == one


def test_what_is_cleared_is_gone_and_symbols_are_named_anew() -> None:
    names = {0: "BTC"}
    told = Journey("bus", type_names={}, symbol_name=lambda s: names[s], source_name=str, most_symbols=1)
    told.note_rows(steady(5, symbols=1), MARKET, 10)
    told.note_handler("h", MARKET, 1)
    told.clear()
    assert (counts(told), list(told.handler_histograms()), told.skews) == ({}, [], {})
    names[0] = "ETH"
    told.note_rows(steady(5, symbols=1), MARKET, None)
    assert counts(told) == {("RECEIVED", "ETH"): 5}
    assert next(told.stage_histograms())[1] == "type 1"


def test_a_copy_is_what_was_and_goes_its_own_way() -> None:
    told = journey(most_symbols=2)
    told.note_rows(steady(500, symbols=4), MARKET, BEGIN_NS + 10**10)
    told.note_handler("h", MARKET, 1)
    told.note(Stage.READ, MARKET, 5, 2)
    before = counts(told)
    twin = told.copy()
    told.note_rows(steady(500, symbols=5), MARKET, None)
    assert counts(twin) == before
    twin.note_rows(steady(500, symbols=5), MARKET, None)
    twin.note_handler("h", MARKET, 1)
    assert counts(twin) == counts(told)
    assert [h.count for *_, h in told.handler_histograms()] == [1]
    assert repr(twin) == repr(told)
    assert twin._slots.envelopes.tolist() == told._slots.envelopes.tolist()


def test_each_sources_skew_is_found_from_its_rows_alone() -> None:
    told = journey()
    rows = steady(20_000, step_ns=10_000_000, apart_ns=0)
    rows["source"] = np.arange(20_000) % 2
    behind = rows["source"] == 1
    rows["received"][behind] -= 1_270_000_000
    told.note_rows(rows, MARKET, None)
    skews = told.skews
    assert set(skews) == {"venue 0", "venue 1"}
    for name, mine in (("venue 0", ~behind), ("venue 1", behind)):
        exact = estimate_skew(rows["timestamp"][mine], rows["received"][mine])
        assert skews[name].offset_ns == pytest.approx(exact.offset_ns, abs=2_000_000)
        assert skews[name].events == 10_000
    # 1.27 s behind, and 0 to 1 ms on the way.
    assert skews["venue 1"].offset_ns == pytest.approx(-1_270_000_000, abs=1_000_000)


def test_a_skew_corrects_the_arrivals_and_the_raw_stamps_still_tell_it() -> None:
    rows = steady(20_000, apart_ns=-1_270_000_000)
    raw = journey()
    raw.note_rows(rows, MARKET, None)
    assert Latency(raw).histogram("received").negative == 20_000
    corrected = journey(skew=raw.skews["venue 0"])
    corrected.note_rows(rows, MARKET, None)
    told = Latency(corrected).histogram("received")
    assert told.negative <= 20
    assert told.quantile(0.5) == pytest.approx(500_000, rel=0.1)
    assert corrected.skews["venue 0"].offset_ns == raw.skews["venue 0"].offset_ns


def test_the_stamps_resolution_is_seen() -> None:
    for resolution in (1, 1_000, 1_000_000):
        told = journey()
        rows = steady(5_000, apart_ns=-50_000_000)
        rows["timestamp"] = (rows["timestamp"] - BEGIN_NS % 1_000 + 123_456_789) // resolution * resolution
        told.note_rows(rows, MARKET, None)
        assert told.skews["venue 0"].resolution_ns == resolution


def test_sources_beyond_the_envelopes_and_impossible_stamps_are_counted() -> None:
    told = journey()
    most = layout.MOST_SOURCES
    rows = [Row(BEGIN_NS, BEGIN_NS + 5, source=source) for source in range(most + 3)]
    rows += [Row(0, BEGIN_NS), Row(BEGIN_NS, 0), Row(BEGIN_NS, BEGIN_NS + layout.MOST_APART_NS)]
    told.note_rows(rows_of(rows), MARKET, None)
    assert (told.without_envelope, told.far_apart) == (3, 2)
    assert counts(told) == {("RECEIVED", "S0"): len(rows)}


def test_rows_of_any_type_and_read_only_ones_are_taken_and_others_refused() -> None:
    told = journey()
    rows = steady(4)
    rows.flags.writeable = False
    told.note_rows(rows, MARKET, None)
    told.note_rows(rows[:0], MARKET, None)
    told.note_chunk(rows, MARKET, np.arange(4), np.array([0, 4]), np.array([0, 8]),
                    EMPTY, EMPTY, 0, True)  # fmt: skip
    assert counts(told)[("HANDLED", None)] == 4
    for wrong in (rows[::2], rows.view(np.int64), rows.reshape(2, 2)):
        with pytest.raises(ValidationError, match="rows are a contiguous array of 128-byte records"):
            told.note_rows(wrong, MARKET, None)


@pytest.mark.parametrize(
    ("positions", "marks", "moments", "ends", "queued", "message"),
    [
        (None, [], [], [], [], "marks, one at least"),
        (None, [0, 4], [0], [], [], "2 and 1 marks"),
        (None, [0, 4], [0, 9], [4], [], "1 and 0 runs"),
        ([0, 1], [0, 4], [0, 9], [], [], "each row has a position; got 2 of 4 rows"),
    ],
)
def test_a_chunks_arrays_fit_together(
    positions: list[int] | None, marks: list[int], moments: list[int], ends: list[int], queued: list[int], message: str
) -> None:
    told = journey()
    rows, (m, at_ns, e, since_ns) = steady(4), (np.array(given, np.int64) for given in (marks, moments, ends, queued))
    places = None if positions is None else np.array(positions)
    with pytest.raises(ValidationError, match=message):
        told.note_chunk(rows, MARKET, places, m, at_ns, e, since_ns, 0, True)
    with pytest.raises(ValidationError, match="arrays of int64"):
        told.note_chunk(rows, MARKET, None, [0, 4], at_ns, e, since_ns, 0, True)  # type: ignore[arg-type]
    assert counts(told) == {}


@pytest.mark.parametrize(
    "options",
    [{"sample": 0}, {"sample": 1.5}, {"most_symbols": -1}, {"most_symbols": 5_000}, {"most_handlers": True},
     {"sub_buckets": 100}],
)  # fmt: skip
def test_options_beyond_their_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="; got "):
        journey(**options)


def test_the_representation_counts_what_is_recorded() -> None:
    told = journey(sample=4)
    assert repr(told) == "Journey('replay': nothing recorded, 1 row in 4)"
    told.note(Stage.READ, MARKET, 5, 1_200)
    told.note(Stage.TOTAL, MARKET, 5)
    assert repr(told) == "Journey('replay': read 1,200, total 1, 1 row in 4)"
    assert counts(told) == {("READ", None): 1_200, ("TOTAL", OTHER_SYMBOLS): 1}


def test_a_histogram_that_is_asked_for_is_no_live_one() -> None:
    told = journey()
    told.note(Stage.READ, MARKET, 5)
    asked = Latency(told).histogram("read")
    told.note(Stage.READ, MARKET, 5)
    assert isinstance(asked, Histogram)
    assert asked.count == 1
