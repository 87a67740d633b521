from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from hftlab.events import MarketDataEvent
from hftlab.replay import State
from hftlab.widgets.audience import SILENT_S, TRICKLE_S
from hftlab.widgets.path import decode_path
from hftlab.widgets.playing import STANDING_S, Playing
from hftlab.widgets.shown import COLUMNS
from tests.widgets.recorded import replay_of, trades, until


class Bench:
    def __init__(self, speed: float = math.inf, symbols: tuple[str, ...] = ("BTCUSDT",)) -> None:
        self.replay, self.bus = replay_of(trades(100, symbols), speed)
        self.changes = 0
        self.playing = Playing(self.replay, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def tell(self, do: str, value: Any = None) -> None:
        self.playing.receive({"do": do, "value": value}, 0.0)
        await until(lambda: self.playing.remote.tasks == 0)

    def parts(self) -> dict[str, Any]:
        return self.playing.everything()


async def test_nothing_is_computed_for_nobody() -> None:
    bench = Bench()
    assert bench.playing.look(0.0) == ({}, None)


async def test_a_new_view_is_shown_everything_and_an_old_one_only_what_is_new() -> None:
    bench = Bench()
    await bench.tell("heard", "a")
    assert bench.changes == 1
    parts, pace_s = bench.playing.look(0.0)
    assert set(parts) == {"status", "events", "path", "fault"}
    assert pace_s == STANDING_S
    assert bench.playing.look(0.0) == ({}, STANDING_S)
    await bench.replay.step()  # from a cell
    parts, _ = bench.playing.look(0.0)
    assert parts["status"]["counts"] == [["delivered", "1", ""]]


async def test_the_pace_follows_the_state_and_the_audience() -> None:
    bench = Bench(speed=0.001)
    await bench.tell("heard", "a")
    bench.replay.play()
    await until(lambda: bench.replay.state is State.RUNNING)
    assert bench.playing.look(1.0)[1] == 0.0
    assert bench.playing.look(20.0)[1] == TRICKLE_S
    bench.replay.speed = math.inf
    await bench.replay.wait()
    parts, pace_s = bench.playing.look(1.0)
    assert parts["status"]["label"] == "Done"
    assert pace_s is None
    assert bench.playing.look(SILENT_S + 1) == ({}, None)


async def test_the_parts_are_data_for_a_page() -> None:
    bench = Bench()
    await bench.replay.step(30)
    parts = bench.parts()
    path = parts["path"]
    points = path.pop("points")
    assert json.loads(json.dumps(parts)) == parts
    _, prices = decode_path({**path, "points": points})
    assert prices.tolist() == pytest.approx(np.arange(1.0, 31.0).tolist())
    assert [row[COLUMNS.index("price")] for row in parts["events"]] == [str(price) for price in range(30, 19, -1)]
    assert parts["status"]["clock"] == "23:54:15.290"


async def test_the_price_of_the_chosen_symbol_is_drawn() -> None:
    bench = Bench(symbols=("BTCUSDT", "ETHUSDT"))
    await bench.replay.step(10)
    assert bench.parts()["path"]["symbol"] == "BTCUSDT"
    await bench.tell("symbol", "ETHUSDT")
    path = bench.parts()["path"]
    assert (path["symbol"], path["symbols"]) == ("ETHUSDT", ["BTCUSDT", "ETHUSDT"])
    assert decode_path(path)[1].tolist() == [2.0, 4.0, 6.0, 8.0, 10.0]


async def test_a_message_that_makes_no_sense_is_shown_and_raises_nothing() -> None:
    bench = Bench()
    for content in (None, {"do": ["x"]}, {"do": "step", "value": "many"}):
        bench.playing.receive(content, 0.0)
    fault = bench.parts()["fault"]
    assert fault["name"] == "ValidationError"
    assert fault["about"] == "step"
    await bench.tell("dismiss")
    assert bench.parts()["fault"] == {}


async def test_a_bad_place_is_shown_beside_the_field_it_was_typed_into() -> None:
    bench = Bench()
    await bench.tell("seek", "25:00:00")
    fault = bench.parts()["fault"]
    assert (fault["name"], fault["about"], fault["traceback"]) == ("TimeError", "seek", "")
    assert "25:00:00" in fault["message"]


async def test_a_handlers_failure_is_shown_while_the_replay_goes_on() -> None:
    bench = Bench(speed=0.001)

    @bench.bus.on(MarketDataEvent)
    def fragile(price: float) -> None:
        raise ZeroDivisionError("an ordinary bug")

    bench.replay.play()
    await until(lambda: bench.replay.failures.count)
    fault, status = bench.parts()["fault"], bench.parts()["status"]
    assert status["state"] == "running"
    assert (fault["name"], fault["about"]) == ("ZeroDivisionError", "handler")
    assert "in handler" in fault["message"]
    assert "in fragile" in fault["traceback"]
    assert ["handler failures", "1", "bad"] in status["counts"]
    await bench.tell("dismiss")
    assert bench.parts()["fault"] == {}
    assert not any(name == "handler failures" for name, _, _ in bench.parts()["status"]["counts"])
    bench.replay.pause()
    await bench.replay.paused()


async def test_failures_before_the_player_was_made_are_not_its_news() -> None:
    bench = Bench()

    @bench.bus.on(MarketDataEvent, name="fragile")
    def fragile(price: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(Exception, match="fragile"):
        await bench.replay.step()
    assert Playing(bench.replay, lambda: None).everything()["fault"] == {}


async def test_what_ended_a_run_that_a_cell_began_is_shown_and_left_for_the_cell_to_raise() -> None:
    replay, _ = replay_of(trades(5))
    replay.session_name = "nowhere"
    playing = Playing(replay, lambda: None)
    replay.play()
    await replay.paused()
    fault = playing.everything()["fault"]
    assert (fault["name"], fault["about"]) == ("UnknownSession", "replay")
    assert "nowhere" in fault["message"]
    playing.receive({"do": "dismiss"}, 0.0)
    assert playing.everything()["fault"] == {}
    with pytest.raises(LookupError, match="nowhere"):
        await replay.wait()
