from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import ipywidgets.widgets.widget as registry
import plotly.graph_objects as go
import pytest

import hftlab as hl
from hftlab.errors import NotStarted, ValidationError
from hftlab.replay import State
from hftlab.widgets import live as live_module
from hftlab.widgets.cells import CellMakes
from tests.widgets.comms import FakeComm, channel_of
from tests.widgets.recorded import replay_of, trades, until


async def test_a_player_opens_with_everything_that_its_view_needs(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(100))
    await replay.step(5)
    player = hl.widgets.ReplayPlayer(replay)
    kind, data, buffers = channel_of(player, comms).sent[0]
    assert kind == "comm_open"
    state = data["state"]
    assert state["status"]["label"] == "Paused"
    assert len(state["events"]) == 5
    assert ["path", "points"] in data["buffer_paths"]
    assert len(buffers[data["buffer_paths"].index(["path", "points"])]) == 5 * 2 * 4
    assert "hftlab-replay-player" in state["_dom_classes"]
    assert "export default { render" in state["_esm"]


async def test_the_view_needs_nothing_from_the_network(comms: list[FakeComm]) -> None:
    player = hl.widgets.ReplayPlayer(replay_of(trades(1))[0])
    state = channel_of(player, comms).sent[0][1]["state"]
    code = state["_esm"].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    for text in (code, state["_css"]):
        assert "http:" not in text
        assert "https:" not in text
        assert "import" not in text
    assert "innerHTML" not in code
    assert "insertAdjacentHTML" not in code


async def test_what_changes_while_a_view_looks_is_sent_in_one_message(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(100))
    player = hl.widgets.ReplayPlayer(replay)
    channel = channel_of(player, comms)
    channel.say("heard", "view")
    await until(lambda: player._refreshes.statistics().refreshes)
    before = len(channel.updates)
    await replay.step(3)
    await until(lambda: len(channel.updates) > before)
    await asyncio.sleep(0)
    (update,) = channel.updates[before:]
    assert update["status"]["counts"] == [["delivered", "3", ""]]
    assert len(update["events"]) == 3
    assert set(update) >= {"status", "events", "path"}


async def test_without_a_view_nothing_is_sent(comms: list[FakeComm], quick: None) -> None:
    replay, _ = replay_of(trades(100))
    player = hl.widgets.ReplayPlayer(replay)
    channel = channel_of(player, comms)
    channel.say("heard", "view")
    await until(lambda: len(player._playing.audience) == 1)
    channel.say("left", "view")
    await until(lambda: len(player._playing.audience) == 0)
    sent = len(channel.sent)
    await replay.run(progress=False)
    await until(lambda: player._refreshes.idle)
    assert len(channel.sent) == sent


async def test_a_displayed_player_is_refreshed_before_its_view_has_spoken(comms: list[FakeComm], quick: None) -> None:
    replay, _ = replay_of(trades(100))
    player = hl.widgets.ReplayPlayer(replay)
    player._repr_mimebundle_()
    await replay.run(progress=False)
    await until(
        lambda: any(update.get("status", {}).get("label") == "Done" for update in channel_of(player, comms).updates)
    )
    await until(lambda: player._refreshes.idle)  # a replay that is done has nothing more to show


async def test_commands_from_another_thread_are_carried_out_on_the_kernels_loop(
    comms: list[FakeComm], quick: None
) -> None:
    replay, bus = replay_of(trades(100))
    threads: list[int] = []
    bus.subscribe(lambda price: threads.append(threading.get_ident()), "market.*", name="where")
    player = hl.widgets.ReplayPlayer(replay)
    channel = channel_of(player, comms)

    def sub_shell() -> None:
        async def main() -> None:  # a sub-shell has a loop of its own
            channel.say("heard", "view")
            channel.say("step", 5)

        asyncio.run(main())

    other = threading.Thread(target=sub_shell)
    other.start()
    await until(lambda: len(threads) == 5)
    other.join()
    assert set(threads) == {threading.get_ident()}
    await until(lambda: any(update.get("events") for update in channel.updates))


@pytest.mark.parametrize("content", [None, [], {"do": "format"}, {"do": "step", "value": -1}, {"do": "seek"}])
async def test_hostile_messages_are_shown_and_harm_nothing(comms: list[FakeComm], quick: None, content: Any) -> None:
    replay, _ = replay_of(trades(10))
    player = hl.widgets.ReplayPlayer(replay)
    channel = channel_of(player, comms)
    channel.say("heard", "view")
    channel.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    await until(lambda: player.fault)
    assert player.fault["name"] == "ValidationError"
    channel.say("step", 1)
    await until(lambda: replay.delivered == 1)


async def test_closing_leaves_no_comm_no_observer_no_task_and_the_replay_as_it_is(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(100), speed=0.001)
    instances, tasks = set(registry._instances), asyncio.all_tasks()
    player = hl.widgets.ReplayPlayer(replay)
    channel_of(player, comms).say("play")
    await until(lambda: replay.state is State.RUNNING)
    player._repr_mimebundle_()
    player.close()
    player.close()
    assert set(registry._instances) == instances
    assert all(made._closed for made in comms)
    assert replay._watchers == []
    assert replay.state is State.RUNNING
    await replay.close()
    await until(lambda: asyncio.all_tasks() == tasks)
    assert repr(player) == "ReplayPlayer(s: closed)"


async def test_a_closed_player_is_collected(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(10))
    player = hl.widgets.ReplayPlayer(replay)
    reference = weakref.ref(player)
    player.close()
    comms.clear()
    del player
    await asyncio.sleep(0)
    gc.collect()
    assert reference() is None


async def test_messages_that_were_on_their_way_to_a_closed_player_do_nothing(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(10))
    player = hl.widgets.ReplayPlayer(replay)
    channel_of(player, comms).say("step", 1)
    player.close()
    await asyncio.sleep(0.01)
    assert replay.delivered == 0


async def test_running_its_cell_again_closes_the_player_before(
    comms: list[FakeComm], monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = iter([("cell", "1"), ("cell", "1"), ("cell", "2")])
    monkeypatch.setattr(live_module, "MADE", CellMakes())
    monkeypatch.setattr(live_module, "current_execution", lambda: next(executions))
    replay, _ = replay_of(trades(10))
    first, second = hl.widgets.ReplayPlayer(replay), hl.widgets.ReplayPlayer(replay)
    assert (first._closed, second._closed) == (False, False)
    third = hl.widgets.ReplayPlayer(replay)
    assert (first._closed, second._closed, third._closed) == (True, True, False)
    assert len(replay._watchers) == 1
    assert {made.comm_id for made in comms if not made._closed} == {third.model_id, third.layout.model_id}


async def test_two_players_of_one_replay_show_the_same(comms: list[FakeComm], quick: None) -> None:
    replay, _ = replay_of(trades(10))
    players = [hl.widgets.ReplayPlayer(replay) for _ in range(2)]
    for player in players:
        channel_of(player, comms).say("heard", "view")
    channel_of(players[0], comms).say("step", 4)
    await until(lambda: all(player.status["counts"] == [["delivered", "4", ""]] for player in players))
    players[0].close()
    channel_of(players[1], comms).say("step", 1)
    await until(lambda: players[1].status["counts"] == [["delivered", "5", ""]])


async def test_an_error_of_the_player_itself_is_shown(comms: list[FakeComm], quick: None) -> None:
    replay, _ = replay_of(trades(10))
    player = hl.widgets.ReplayPlayer(replay)
    player._playing.look = lambda now: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    channel_of(player, comms).say("heard", "view")
    await until(lambda: player.fault)
    assert player.fault["name"] == "ZeroDivisionError"
    assert "test_player" in player.fault["traceback"]


async def test_its_texts_are_stable_and_escaped(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(10))
    replay.session_name = "<b>s</b>"
    player = hl.widgets.ReplayPlayer(replay)
    data, _ = player._repr_mimebundle_()
    assert data["text/plain"] == repr(player) == "ReplayPlayer(<b>s</b>)"
    assert data["text/html"] == "<div><b>Replay</b> of &lt;b&gt;s&lt;/b&gt;: ready, 0 events delivered</div>"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == player.model_id


async def test_the_static_twin_shows_the_path_and_the_cursor(comms: list[FakeComm]) -> None:
    replay, _ = replay_of(trades(100, ("BTCUSDT", "ETHUSDT")))
    player = hl.widgets.ReplayPlayer(replay)
    assert isinstance(player.figure(), go.Figure)
    await replay.step(50)
    figure = player.figure()
    assert [trace.name for trace in figure.data] == ["BTCUSDT", "ETHUSDT"]
    assert len(figure.layout.shapes) == 1
    assert figure.layout.title.text == "replay of s"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("replay",), "takes a Replay"), ((None,), "takes a Replay")],
)
async def test_a_player_of_something_else_is_refused(comms: list[FakeComm], arguments: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        hl.widgets.ReplayPlayer(*arguments)
    assert comms == []


@pytest.mark.parametrize("rows", [0, 101, 2.5, True])
async def test_a_table_without_a_size_is_refused(comms: list[FakeComm], rows: Any) -> None:
    with pytest.raises(ValidationError, match="rows is 1 to 100"):
        hl.widgets.ReplayPlayer(replay_of(trades(1))[0], rows=rows)


def test_without_a_running_loop_a_player_says_what_to_do() -> None:
    with pytest.raises(NotStarted, match="figure"):
        hl.widgets.ReplayPlayer(replay_of(trades(1))[0])


def test_what_the_views_are_made_of_lies_beside_the_package() -> None:
    folder = Path(live_module.__file__).parent
    assert {path.name for path in folder.glob("*.js")} | {path.name for path in folder.glob("*.css")} == {
        "canvas.js",
        "chart.js",
        "clock_chart.js",
        "clock_panel.css",
        "clock_panel.js",
        "inspector.css",
        "inspector.js",
        "lane_strip.js",
        "latency_charts.js",
        "latency_panel.css",
        "latency_panel.js",
        "marks.js",
        "monitor.css",
        "monitor.js",
        "page.css",
        "page.js",
        "player.css",
        "player.js",
        "timeline.js",
    }
