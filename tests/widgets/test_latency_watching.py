from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hftlab as hl
from hftlab.errors import ValidationError
from hftlab.metrics import Latency, Stage
from hftlab.widgets.latency_pictures import read_picture
from hftlab.widgets.latency_sources import title_of
from hftlab.widgets.latency_watching import PACE_S, TABLE_S, LatencyWatching
from hftlab.widgets.playing import STANDING_S
from tests.widgets.measured import MARKET, filled, journey, note_rows
from tests.widgets.recorded import replay_of, trades

PARTS = {"status", "choice", "picture", "stack", "table", "fault"}


class Watched:
    """A panel's model with one view, on a clock that is moved by hand."""

    def __init__(self, source: Any = None) -> None:
        self.journey = filled()
        self.changes = 0
        self.model = LatencyWatching(Latency(self.journey, name="s") if source is None else source, self.changed)
        self.now = 0.0
        self.everything = self.model.everything()
        self.say("heard", "view")

    def changed(self) -> None:
        self.changes += 1

    def say(self, do: str, value: Any = None) -> None:
        self.model.receive({"do": do, "value": value}, self.now)

    def look(self, after_s: float = PACE_S) -> tuple[dict[str, Any], float | None]:
        self.now += after_s
        return self.model.look(self.now)


def keys_of(parts: dict[str, Any]) -> list[str]:
    return [row[0] for row in parts["table"]["rows"]]


def test_a_view_that_is_made_now_gets_everything_as_plain_data() -> None:
    everything = Watched().everything
    assert set(everything) == PARTS
    plain = {**everything, "picture": {**everything["picture"], "percent": "", "values": ""}}
    assert json.loads(json.dumps(plain)) == plain
    assert everything["choice"]["words"] == "received → handled"
    assert keys_of(everything) == [stage.name for stage in Stage]
    assert everything["status"]["title"] == "Latency: s"


def test_without_a_view_nothing_is_looked_at() -> None:
    watched = Watched()
    watched.say("left", "view")
    watched.journey.note(Stage.HANDLED, MARKET, 5)
    assert watched.look() == ({}, None)


def test_what_stands_has_nothing_new_and_is_looked_at_twice_a_second() -> None:
    watched = Watched()
    for _ in range(5):
        assert watched.look() == ({}, STANDING_S)


def test_what_is_measured_is_shown_by_the_next_look() -> None:
    watched = Watched()
    watched.journey.note(Stage.HANDLED, MARKET, 5_000_000_000)
    parts, pace_s = watched.look()
    assert pace_s == PACE_S
    assert parts["status"]["label"] == "Measuring"
    handled = next(row for row in parts["table"]["rows"] if row[0] == "HANDLED")
    assert handled[2] == "801"
    assert handled[7] == "5 s"
    parts, _ = watched.look()
    assert parts["status"]["label"] == "Standing"
    assert set(parts) == {"status"}


def test_a_stage_that_is_chosen_is_drawn() -> None:
    watched = Watched()
    watched.say("row", "HANDLED")
    parts, _ = watched.look()
    assert parts["choice"]["words"] == "dispatched → handled"
    assert parts["picture"]["counts"] == [800]
    assert parts["table"]["chosen"] == "HANDLED"
    watched.say("stage", "READ")
    assert watched.look()[0]["table"]["chosen"] == "READ"


def test_a_row_of_the_table_before_is_not_taken_for_one_of_the_next() -> None:
    watched = Watched()
    watched.say("by", "symbol")
    watched.say("row", "RECEIVED")  # clicked before the symbols were there
    watched.say("move", 1)
    parts, _ = watched.look()
    assert parts["choice"]["row"] == ""
    watched.say("row", "nobody's")
    assert watched.look()[0] == {}


def test_rows_are_moved_through_from_end_to_end() -> None:
    watched = Watched()
    for by, chosen in ((-10, "RECEIVED"), (1, "APPENDED"), (10**9, "TOTAL"), (-1, "HANDLED")):
        watched.say("move", by)
        assert watched.look()[0]["table"]["chosen"] == chosen
    watched.say("by", "symbol")
    watched.look()
    watched.say("move", 1)
    first = watched.look()[0]["table"]
    assert first["chosen"] == first["rows"][0][0]
    watched.say("move", -1)
    assert watched.look()[0] == {}


@pytest.mark.parametrize(("by", "stage", "rows"), [
    ("type", "TOTAL", ["market"]), ("symbol", "TOTAL", ["BTCUSDT", "ETHUSDT"]),
    ("handler", "HANDLED", ["__main__.spread:market.*", "imbalance"]),
])  # fmt: skip
def test_latencies_are_listed_by_what_is_asked_and_one_of_them_drawn(by: str, stage: str, rows: list[str]) -> None:
    watched = Watched()
    watched.say("by", by)
    parts, _ = watched.look()
    assert sorted(keys_of(parts)) == rows
    assert parts["choice"]["stage"] == stage
    whole = parts["picture"]["counts"] if "picture" in parts else watched.everything["picture"]["counts"]
    watched.say("row", rows[0])
    parts, _ = watched.look()
    count = int(parts["table"]["rows"][keys_of(parts).index(rows[0])][2].replace(",", ""))
    assert watched.model.everything()["picture"]["counts"] == [count]
    assert parts["choice"]["row"] == rows[0]
    watched.say("row", rows[0])  # again: all of them
    assert watched.look()[0]["choice"]["row"] == ""
    assert watched.model.everything()["picture"]["counts"] == whole


def test_a_stage_that_is_not_kept_by_symbol_is_refused_and_the_panel_goes_on() -> None:
    watched = Watched()
    watched.say("by", "symbol")
    watched.say("stage", "READ")
    parts, _ = watched.look()
    assert parts["fault"]["message"] == (
        "of each symbol, this is measured: exchange → received, received → handled; got appended → read"
    )
    watched.say("dismiss")
    assert watched.look()[0]["fault"] == {}


def test_a_table_of_symbols_is_made_anew_once_a_second() -> None:
    watched = Watched()
    watched.say("by", "symbol")
    watched.look()
    tables = 0
    for _ in range(round(3 * TABLE_S / PACE_S)):
        note_rows(watched.journey, [1_000], total_ns=500)
        tables += "table" in watched.look()[0]
    assert tables == 3
    watched.look(TABLE_S)  # and what came since is shown in the end
    shown = watched.model.everything()["table"]["rows"]
    assert sum(int(row[2].replace(",", "")) for row in shown) == 4_000 + round(3 * TABLE_S / PACE_S)


def test_what_is_kept_stays_while_the_run_goes_on() -> None:
    watched = Watched()
    watched.say("keep")
    watched.journey.note(Stage.HANDLED, MARKET, 1_000_000_000, 10_000)
    watched.say("row", "HANDLED")
    parts, _ = watched.look()
    now, kept = parts["choice"]["runs"]
    assert now == "s"
    assert kept.startswith("kept at ")
    assert parts["picture"]["counts"] == [10_800, 800]
    percent, _ = read_picture(parts["picture"])
    assert np.flatnonzero(percent[0]).max() > np.flatnonzero(percent[1]).max()
    assert parts["table"]["heads"][-1] == "p99 vs"
    watched.say("drop")
    parts, _ = watched.look()
    assert parts["choice"]["runs"] == ["s"]
    assert parts["picture"]["counts"] == [10_800]


def test_another_run_that_goes_on_is_followed_too() -> None:
    watched = Watched()
    other = journey("other")
    watched.model.compare(Latency(other), "other")
    assert watched.look()[0]["picture"]["counts"] == [4_000, 0]
    note_rows(other, [5], total_ns=7)
    watched.look(TABLE_S)
    assert watched.model.everything()["picture"]["counts"] == [4_000, 1]


def test_a_row_that_the_other_run_has_not_is_drawn_alone() -> None:
    watched = Watched()
    watched.model.compare(Latency(filled(symbols=("BTCUSDT",))))
    watched.say("by", "symbol")
    watched.look()
    watched.say("row", "ETHUSDT")
    parts, _ = watched.look()
    assert parts["picture"]["counts"][0] > 0
    assert parts["picture"]["counts"][1] == 0


def test_a_run_that_began_anew_is_followed() -> None:
    source = SimpleNamespace(latency=Latency(filled()))
    watched = Watched(source)
    source.latency = Latency(journey())
    parts, _ = watched.look()
    assert parts["picture"]["counts"] == [0]
    assert parts["status"]["label"] == "Nothing measured yet"
    assert parts["table"]["nothing"]


def test_a_run_again_with_as_many_values_is_another_one() -> None:
    source = SimpleNamespace(latency=Latency(filled()))
    watched = Watched(source)
    before = watched.everything["picture"]["percent"]
    source.latency = Latency(filled(scale=2.0))
    parts, _ = watched.look()
    assert parts["picture"]["percent"] != before
    assert {"stack", "table"} <= set(parts)


def test_until_somebody_chooses_what_there_is_is_shown() -> None:
    replayed = journey("replay")
    watched = Watched(Latency(replayed))
    assert watched.everything["choice"]["words"] == "received → handled"
    note_rows(replayed, [5, 6])
    assert watched.look()[0]["choice"]["words"] == "exchange → received"
    replayed.note(Stage.HANDLED, MARKET, 5)
    assert watched.look()[0]["choice"]["words"] == "dispatched → handled"
    watched.say("row", "RECEIVED")
    watched.look()
    replayed.note(Stage.HANDLED, MARKET, 5)
    assert "choice" not in watched.look()[0]


def test_the_wire_is_stacked_when_asked_for_and_back() -> None:
    watched = Watched()
    watched.say("wire")
    assert watched.look()[0]["stack"]["legend"][0] == ["RECEIVED", "exchange → received"]
    watched.say("wire")
    assert watched.look()[0]["stack"]["legend"][0] == ["APPENDED", "received → appended"]


@pytest.mark.parametrize("source", [None, 3, "lab", SimpleNamespace(latency=5)])
def test_what_has_no_latencies_is_refused(source: Any) -> None:
    with pytest.raises(ValidationError, match="takes what has latencies"):
        LatencyWatching(source, lambda: None)
    if source is not None:
        with pytest.raises(ValidationError, match="takes what has latencies"):
            Watched().model.compare(source)


def test_latencies_are_called_by_their_names() -> None:
    assert title_of(Latency(name="btc")) == "btc"
    assert title_of(Latency(journey("replay"))) == "replay"
    assert title_of(Latency()) == "events"


async def test_a_bus_and_a_replay_are_watched_through_their_run() -> None:
    replay, bus = replay_of(trades(20))
    bus.subscribe(lambda event: None, hl.MarketDataEvent, name="h")
    watched, of_bus = Watched(replay), Watched(bus)
    assert of_bus.everything["status"]["title"] == "Latency: bus"
    await replay.run()
    parts, _ = watched.look()
    assert parts["status"]["title"] == "Latency: replay of s"
    assert parts["choice"]["stage"] == "HANDLED"
    assert parts["picture"]["counts"] == [20]
    assert of_bus.look()[0]["status"]["title"].startswith("Latency: ")
    assert of_bus.model.everything()["picture"]["counts"] == [20]
