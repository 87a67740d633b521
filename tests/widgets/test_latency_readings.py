from __future__ import annotations

import numpy as np
import pytest

from hftlab.metrics import Histogram, Stage
from hftlab.widgets.latency_readings import (
    MOST_ROWS,
    Chosen,
    Grouping,
    badges,
    change,
    notes,
    stack,
    table,
)

MINUS = "\N{MINUS SIGN}"


def histogram(*values: int, times: int = 1) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value, times)
    return made


def rows_of(shown: dict[str, object], column: int = 1) -> list[str]:
    rows = shown["rows"]
    assert isinstance(rows, list)
    return [row[column] for row in rows]


# -- the top ----------------------------------------------------------------------------------------------------------


def test_the_top_tells_how_many_and_how_they_were_chosen() -> None:
    texts = [text for _, text, _ in badges(histogram(5, times=1_234), Stage.TOTAL, 100)]
    assert texts == ["1,234 latencies", "1 of 100 rows"]


def test_negatives_are_told_with_what_they_mean_and_what_to_type() -> None:
    made = histogram(-5, times=250)
    made.record(5, 750)
    assert badges(made, Stage.RECEIVED, 1)[-1][:2] == ["warn", "250 negative"]
    (note,) = notes({Stage.HANDLED: histogram(5), Stage.RECEIVED: made})
    assert note.startswith("250 of 1,000 (25.0 %) exchange → received are negative")
    assert "venue's clock" in note
    assert "lab.replay(session, skew=skew)" in note


@pytest.mark.parametrize("stage", list(Stage))
def test_each_stage_says_which_clocks_disagree(stage: Stage) -> None:
    (note,) = notes({stage: histogram(-5)})
    assert stage.value in note
    assert ("One clock" in note) == (stage in (Stage.SEQUENCED, Stage.DISPATCHED, Stage.HANDLED))


def test_a_few_negatives_among_many_are_not_told_as_none() -> None:
    made = histogram(5, times=100_000)
    made.record(-5)
    assert "(under 0.1 %)" in notes({Stage.RECEIVED: made})[0]


# -- the table --------------------------------------------------------------------------------------------------------


def test_stages_are_listed_in_their_order_with_their_percentiles() -> None:
    stages = {Stage.RECEIVED.name: histogram(*range(1_000, 2_000)), Stage.HANDLED.name: histogram(5, times=9_000)}
    shown = table(stages, None, Chosen(stage=Stage.HANDLED))
    assert shown["heads"] == ["Stage", "Values", "p50", "p90", "p99", "p99.9", "Longest", "Negative"]
    assert rows_of(shown) == ["exchange → received", "dispatched → handled"]
    assert shown["rows"][1][2:] == ["9,000", "5 ns", "5 ns", "5 ns", "5 ns", "5 ns", ""]
    assert shown["chosen"] == "HANDLED"


def test_symbols_are_listed_by_their_values_and_what_there_is_no_room_for_is_told() -> None:
    symbols = {f"S{i}": histogram(1_000, times=i + 1) for i in range(MOST_ROWS + 5)}
    shown = table(symbols, None, Chosen(Grouping.SYMBOL))
    assert rows_of(shown)[0] == f"S{MOST_ROWS + 4}"
    assert len(shown["rows"]) == MOST_ROWS
    assert shown["more"] == "5 more, of fewer values: see .to_frame(by='symbol')"
    assert rows_of(table(symbols, None, Chosen(Grouping.SYMBOL, row="S0")))[-1] == "S0"


def test_the_chosen_row_stays_when_a_new_run_has_nothing_of_it_yet() -> None:
    shown = table({"BTC": Histogram()}, None, Chosen(Grouping.SYMBOL, row="BTC"))
    assert shown["rows"] == [["BTC", "BTC", "0", "", "", "", "", "", ""]]


def test_handlers_are_called_as_a_notebooks_reader_knows_them() -> None:
    shown = table({"__main__.spread": histogram(5)}, None, Chosen(Grouping.HANDLER, Stage.HANDLED))
    assert shown["rows"][0][:2] == ["__main__.spread", "spread"]


def test_two_runs_are_compared_row_by_row() -> None:
    now, before = {"A": histogram(800), "B": histogram(5)}, {"A": histogram(1_000)}
    shown = table(now, before, Chosen(Grouping.SYMBOL))
    assert shown["heads"][-2:] == ["p50 vs", "p99 vs"]
    assert [row[-2:] for row in shown["rows"]] == [[f"{MINUS}20 %", f"{MINUS}20 %"], ["", ""]]


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [(100, 140, "+40 %"), (100, 82, f"{MINUS}18 %"), (100, 100.2, "="), (100, 320, "3.2 ×"), (1, 12_345, "12,345 ×"),
     (float("nan"), 5, ""), (0, 5, ""), (5, float("nan"), ""), (100, 0, f"{MINUS}100 %")],
)  # fmt: skip
def test_what_became_of_a_value_is_told_in_a_word(before: float, now: float, told: str) -> None:
    assert change(before, now) == told


@pytest.mark.parametrize(
    ("by", "told"), [(Grouping.STAGE, "Nothing"), (Grouping.HANDLER, "handler"), (Grouping.SYMBOL, "No symbol has")]
)
def test_an_empty_table_says_what_would_be_in_it(by: Grouping, told: str) -> None:
    assert told in table({}, None, Chosen(by))["nothing"]


def test_what_is_chosen_has_a_title() -> None:
    assert Chosen(Grouping.SYMBOL, Stage.TOTAL, "BTC").words == "received → handled of BTC"
    assert Chosen(stage=Stage.READ).words == "appended → read"


# -- stages, stacked --------------------------------------------------------------------------------------------------


def staged(**values: int) -> dict[Stage, Histogram]:
    return {Stage[name]: histogram(value) for name, value in values.items()}


def test_stages_are_stacked_in_their_order_by_both_percentiles() -> None:
    shown = stack([("now", staged(RECEIVED=10_000_000, TOTAL=110, HANDLED=80, READ=20))], wire=False)
    assert [bar[0] for bar in shown["bars"]] == ["p50", "p99"]
    _, total, segments, _ = shown["bars"][0]
    assert [segment[0] for segment in segments] == ["READ", "HANDLED"]
    assert [segment[1] for segment in segments] == [0.2, 0.8]
    assert total == "100 ns"
    assert segments[1][3] == "dispatched → handled: 80 ns, 80 %"
    assert [name for name, _ in shown["legend"]] == ["READ", "HANDLED"]
    assert "add up" in shown["note"]
    assert shown["has_wire"]


def test_the_wire_is_stacked_when_asked_for() -> None:
    shown = stack([("now", staged(RECEIVED=300, HANDLED=100))], wire=True)
    assert [segment[:2] for segment in shown["bars"][0][2]] == [["RECEIVED", 0.75], ["HANDLED", 0.25]]


def test_two_runs_share_the_scale_of_a_percentile() -> None:
    shown = stack([("now", staged(READ=50)), ("before", staged(READ=100))], wire=False)
    assert [(bar[0], bar[2][0][1]) for bar in shown["bars"]] == [
        ("p50, now", 0.5), ("p50, before", 1.0), ("p99, now", 0.5), ("p99, before", 1.0),
    ]  # fmt: skip


def test_a_stage_of_negatives_alone_has_no_part_in_the_stack() -> None:
    assert stack([("now", staged(READ=-5))], wire=False)["bars"] == []
    assert stack([("now", {})], wire=False)["nothing"] == "No stage has been measured yet"
    assert "after the arrival" in stack([("now", staged(RECEIVED=5))], wire=False)["nothing"]


def test_values_of_nothing_make_no_division_by_it() -> None:
    shown = stack([("now", staged(READ=0))], wire=False)
    assert shown["bars"][0][1:3] == ["0 ns", [["READ", 0.0, "0 ns", "appended → read: 0 ns"]]]
    assert np.isfinite(shown["bars"][0][2][0][1])
