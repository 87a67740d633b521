from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hftlab.errors import ServerUnreachable, ValidationError
from hftlab.replay import State
from hftlab.sequence import GAP, GapState
from hftlab.widgets.around import MESSAGES
from hftlab.widgets.gap_texts import MOST_AROUND, NO_REPLAY, NOTHING_AFTER, NOTHING_BEFORE, around_rows
from hftlab.widgets.inspecting import PAGE_ROWS, Inspecting
from hftlab.widgets.playing import STANDING_S
from tests.widgets.gapped import ID, GapReplay, Gaps, at_event, gap, gap_replay
from tests.widgets.recorded import START_NS, trades, until


class Bench:
    """An inspector's model of a replay with a lost, an open and a filled gap."""

    def __init__(self, replay: GapReplay | None = None) -> None:
        self.replay = replay or gap_replay(
            gap(0, 105, 110, **at_event(20)),
            gap(1, 7, 7, GapState.OPEN, source=2, **at_event(40)),
            gap(2, 200, 200, GapState.FILLED, **at_event(60)),
        )
        self.changes = 0
        self.model = Inspecting(self.replay, self._changed)
        self.shown: dict[str, Any] = self.model.everything()
        self.model.audience.heard("view", 0.0)

    def _changed(self) -> None:
        self.changes += 1

    def tell(self, do: str, value: Any = None) -> dict[str, Any]:
        """Say what a view would, and see what is new then."""
        self.model.receive({"do": do, "value": value}, 0.0)
        return self.look()

    def look(self) -> dict[str, Any]:
        new, _ = self.model.look(0.0)
        self.shown |= new
        return new

    async def settle(self) -> dict[str, Any]:
        await until(lambda: self.model.tasks == 0)
        return self.look()

    def numbers(self) -> list[str]:
        return [row[3] for row in self.shown["page"]["rows"]]


async def test_everything_is_shown_from_the_beginning_as_data_for_a_page() -> None:
    shown = Bench().shown
    assert set(shown) == {"status", "filters", "page", "timeline", "selected", "around", "counts", "fault"}
    marks = shown["timeline"].pop("marks")
    assert len(marks) == 10 * 3 * 8
    assert json.loads(json.dumps(shown)) == shown
    assert shown["status"]["title"] == "s"
    assert [row[1:] for row in shown["page"]["rows"]] == [
        ["23:54:15.200000", "binance/depth/BTCUSDT", "105…110", "6", "lost", "deadline", "100 ms", ""],
        ["23:54:15.400000", "binance/trade/BTCUSDT", "7", "1", "open", "", "", ""],
        ["23:54:15.600000", "binance/depth/BTCUSDT", "200", "1", "filled", "", "100 ms", ""],
    ]
    assert shown["filters"]["states"] == [["open", "1", True], ["filled", "1", True], ["lost", "1", True]]
    assert [label for _, label in shown["filters"]["sources"]] == [
        "All 2 sources",
        "binance/depth/BTCUSDT (2)",
        "binance/trade/BTCUSDT (1)",
    ]
    assert ["numbers lost", "6", "bad"] in shown["counts"]


async def test_nothing_is_computed_for_nobody() -> None:
    model = Inspecting(gap_replay(gap(0, 1, 2)), lambda: None)
    assert model.look(0.0) == ({}, None)


async def test_only_what_changed_is_shown_again() -> None:
    bench = Bench()
    assert bench.look() == {}
    bench.replay.made.put(*[bench.replay.made.records[i : i + 1] for i in range(2)])
    assert set(bench.look()) == {"status", "filters", "page", "timeline", "selected", "counts"}
    bench.replay.made.version += 1  # messages were received, no gap changed
    assert set(bench.look()) == {"counts"}


async def test_a_filter_leaves_the_counts_of_everything() -> None:
    bench = Bench()
    bench.tell("state", "lost")
    assert bench.numbers() == ["7", "200"]
    assert bench.shown["filters"]["states"] == [["open", "1", True], ["filled", "1", True], ["lost", "1", False]]
    assert (bench.shown["filters"]["listed"], bench.shown["filters"]["known"]) == (2, 3)
    source = bench.shown["filters"]["sources"][2][0]
    new = bench.tell("source", source)
    assert bench.numbers() == ["7"]
    assert "timeline" in new
    assert ["numbers lost", "0", ""] in bench.shown["counts"]  # that source's own
    bench.tell("everything")
    assert len(bench.numbers()) == 3


async def test_the_list_is_ordered_by_any_column_and_back() -> None:
    bench = Bench()
    bench.tell("order", "numbers")
    bench.tell("order", "numbers")
    assert bench.numbers()[0] == "105…110"
    assert bench.shown["filters"]["descending"]


async def test_a_selected_gap_is_told_about_with_the_events_around_it() -> None:
    bench = Bench()
    bench.tell("select", bench.shown["page"]["rows"][0][0])
    selected = bench.shown["selected"]
    assert (selected["numbers"], selected["state"], selected["place"]) == ("105…110", "lost", 0)
    assert "deadline" in selected["why"]
    opened_ns = START_NS + 200_000_000
    assert list(map(int, selected["mark"])) == [opened_ns, opened_ns + 100_000_000, 1, 0, 105, 110, 3, 1, 1, 0]
    assert ["missing", "6 numbers"] in selected["facts"]
    assert ["closed", "2024-08-08 23:54:15.300 000 000"] in selected["facts"]
    assert (selected["before"], selected["after"]) == ("", "")
    assert bench.shown["around"] == {"state": "loading"}
    await bench.settle()
    around = bench.shown["around"]
    assert (around["state"], around["split"], len(around["rows"])) == ("ready", MESSAGES, 2 * MESSAGES)
    prices = [row[4] for row in around["rows"]]
    assert prices == [f"{price:,}" for price in range(11, 31)]  # oldest first


async def test_arrows_move_the_selection_within_the_filter_and_stop_at_its_ends() -> None:
    bench = Bench()
    bench.tell("state", "open")
    found = []
    for by in (1, 1, 1, -1, -5, 1_000_000_000, -1_000_000_000):
        bench.tell("move", by)
        found.append(bench.shown["selected"]["numbers"])
    assert found == ["105…110", "200", "200", "105…110", "105…110", "200", "105…110"]
    bench.tell("select", None)
    assert bench.tell("move", -1)["selected"]["numbers"] == "200"
    await bench.settle()


async def test_moving_in_an_empty_list_does_nothing() -> None:
    bench = Bench(gap_replay())
    bench.tell("move", 1)
    assert bench.shown["selected"] == {}
    assert bench.shown["fault"] == {}


async def test_a_gap_that_the_filter_hides_stays_selected_and_says_where_it_is() -> None:
    bench = Bench()
    bench.tell("move", 1)
    bench.tell("state", "lost")
    assert (bench.shown["selected"]["numbers"], bench.shown["selected"]["place"]) == ("105…110", -1)
    await bench.settle()


async def test_of_several_gaps_selected_in_a_row_the_latests_surroundings_are_shown() -> None:
    bench = Bench()
    for _ in range(3):
        bench.tell("move", 1)
    await bench.settle()
    assert bench.shown["around"]["rows"][0][4] == "51"
    assert len(bench.replay.asked) <= 2


@pytest.mark.parametrize(("side", "delivered"), [("before", 19), ("after", 20)])
async def test_a_jump_goes_to_the_event_on_either_side(side: str, delivered: int) -> None:
    bench = Bench()
    bench.tell("move", 1)
    bench.tell("jump", side)
    await bench.settle()
    batch = await bench.replay.step()
    assert batch.event_ids.tolist() == [ID + delivered]
    assert bench.replay.state is State.PAUSED
    assert bench.shown["fault"] == {}


async def test_a_jump_that_fails_is_shown_until_it_is_dismissed() -> None:
    bench = Bench(gap_replay(gap(0, 105, 110, before=ID + 7_000, after=ID + 7_001)))
    bench.tell("move", 1)
    bench.tell("jump", "before")
    await bench.settle()
    assert (bench.shown["fault"]["name"], bench.shown["fault"]["about"]) == ("EmptyRange", "jump")
    bench.tell("dismiss")
    assert bench.shown["fault"] == {}


async def test_sides_that_nothing_is_known_of_say_why_and_refuse() -> None:
    bench = Bench(gap_replay(gap(0, 1, 4)))
    bench.tell("move", 1)
    assert (bench.shown["selected"]["before"], bench.shown["selected"]["after"]) == (NOTHING_BEFORE, NOTHING_AFTER)
    assert bench.replay.asked == []
    bench.tell("jump", "after")
    assert bench.shown["fault"]["message"] == NOTHING_AFTER
    bench.tell("select", None)
    bench.tell("jump", "after")
    assert "select a gap first" in bench.shown["fault"]["message"]


async def test_surroundings_that_cannot_be_read_say_why_in_their_place() -> None:
    bench = Bench()
    bench.replay.failure = ServerUnreachable("no server answers")
    bench.tell("move", 1)
    await bench.settle()
    assert bench.shown["around"]["state"] == "failed"
    assert bench.shown["around"]["fault"]["name"] == "ServerUnreachable"
    bench.replay.failure = None
    bench.tell("move", 1)
    await bench.settle()
    assert bench.shown["around"]["state"] == "ready"


async def test_messages_of_very_many_rows_are_cut_and_it_says_so() -> None:
    around = around_rows(trades(100), trades(41))
    assert (around["split"], len(around["rows"])) == (MOST_AROUND, 2 * MOST_AROUND)
    assert around["cut"] == [
        "60 earlier rows of these messages not shown",
        "1 later row of these messages not shown",
    ]
    assert around["rows"][0][4] == "61"


async def test_after_a_jump_backwards_the_gaps_stay_and_the_selected_one_stays_selected() -> None:
    bench = Bench()
    await bench.replay.step(70)
    bench.tell("move", 1)
    bench.tell("jump", "before")
    bench.replay.made.put()  # the fresh run has found none yet
    await bench.settle()
    assert [row[8] for row in bench.shown["page"]["rows"]] == ["earlier"] * 3
    assert bench.shown["selected"]["earlier"]
    assert bench.shown["status"]["earlier"] == "3 from an earlier run"
    bench.replay.made.put(gap(0, 105, 110, GapState.OPEN, **at_event(20)))
    bench.look()
    assert [row[8] for row in bench.shown["page"]["rows"]] == ["", "earlier", "earlier"]
    assert (bench.shown["selected"]["state"], bench.shown["selected"]["earlier"]) == ("open", False)
    await bench.settle()


async def test_a_selected_gap_that_splits_leaves_its_first_piece_selected() -> None:
    bench = Bench(gap_replay(gap(0, 1, 9, GapState.OPEN, **at_event(5))))
    bench.tell("move", 1)
    pieces = [(1, 4, GapState.OPEN), (5, 5, GapState.FILLED), (6, 9, GapState.OPEN)]
    bench.replay.made.put(*(gap(0, first, last, state, **at_event(5)) for first, last, state in pieces))
    assert bench.look()["selected"]["numbers"] == "1…4"
    await bench.settle()


def many(count: int) -> np.ndarray:
    records = np.zeros(count, GAP)
    records["serial"] = records["first"] = records["last"] = np.arange(count)
    records["source"] = 1
    records["state"] = GapState.LOST
    records["opened_ns"] = START_NS + np.arange(count) * 1_000
    records["closed_ns"] = records["opened_ns"] + 10
    return records


async def test_of_many_thousand_gaps_a_part_is_sent_and_counts_are_of_all() -> None:
    bench = Bench(gap_replay(many(30_000)))
    assert (bench.shown["page"]["total"], len(bench.shown["page"]["rows"])) == (30_000, PAGE_ROWS)
    assert bench.shown["filters"]["states"][2] == ["lost", "30,000", True]
    assert bench.shown["timeline"]["drawn"] < 1_000
    bench.tell("page", 20_000)
    assert bench.shown["page"]["offset"] == 20_000
    assert bench.numbers()[0] == "20000"
    bench.tell("page", 1_000_000)
    assert bench.numbers()[-1] == "29999"
    bench.tell("select", "1:0:77:77")
    page = bench.shown["page"]
    assert page["offset"] <= bench.shown["selected"]["place"] == 77 < page["offset"] + PAGE_ROWS


async def test_zooming_asks_for_a_part_of_the_time_and_selecting_brings_it_to_the_gap() -> None:
    bench = Bench(gap_replay(many(30_000)))
    bench.tell("zoom", f"{START_NS}:{START_NS + 50_000}")
    timeline = bench.shown["timeline"]
    assert (timeline["drawn"], timeline["gaps"], timeline["zoomed"]) == (51, 51, True)
    bench.tell("select", "1:0:10000:10000")
    timeline = bench.shown["timeline"]
    assert int(timeline["begin_ns"]) < START_NS + 10_000_000 < int(timeline["end_ns"])
    bench.tell("zoom", None)
    assert not bench.shown["timeline"]["zoomed"]


async def test_what_a_view_says_wrongly_is_shown_and_harms_nothing() -> None:
    bench = Bench()
    for content in (None, {"do": "format"}, {"do": "source", "value": "99"}, {"do": "select", "value": "x"}):
        bench.model.receive(content, 0.0)
        assert bench.look()["fault"]["name"] == "ValidationError"
        bench.tell("dismiss")
    assert bench.tell("move", 1)["selected"]
    await bench.settle()


async def test_the_pace_follows_the_replay_and_the_audience() -> None:
    bench = Bench()
    assert bench.model.look(0.0)[1] == STANDING_S
    await bench.replay.run(progress=False)
    assert bench.model.look(0.0)[1] is None
    assert bench.model.look(1_000.0) == ({}, None)


async def test_a_table_without_a_replay_is_looked_at_often_only_while_it_changes() -> None:
    gaps = Gaps(gap(0, 1, 2))
    model = Inspecting(gaps.fresh(), lambda: None)
    model.everything()
    model.audience.heard("view", 0.0)
    assert model.look(0.0)[1] == STANDING_S
    gaps.version += 1
    assert model.look(0.0)[1] == 0.0


@pytest.mark.parametrize("wrap", [lambda table: table, lambda table: SimpleNamespace(gaps=table)])
async def test_a_table_or_what_has_one_is_inspected_without_jumps(wrap: Any) -> None:
    gaps = Gaps(gap(0, 105, 110, before=ID, after=ID + 1))
    model = Inspecting(wrap(gaps.fresh()), lambda: None)
    model.everything()
    model.audience.heard("view", 0.0)
    model.receive({"do": "move", "value": 1}, 0.0)
    shown, _ = model.look(0.0)
    assert shown["selected"]["before"] == shown["selected"]["after"] == NO_REPLAY
    model.receive({"do": "jump", "value": "before"}, 0.0)
    assert model.look(0.0)[0]["fault"]["message"] == NO_REPLAY
    assert model.tasks == 0


@pytest.mark.parametrize("source", [None, "s", [], SimpleNamespace(gaps=[1, 2])])
async def test_anything_else_is_refused(source: Any) -> None:
    with pytest.raises(ValidationError, match="Replay, a Lab, or a GapTable"):
        Inspecting(source, lambda: None)
