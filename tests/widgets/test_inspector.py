from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import ipywidgets.widgets.widget as registry
import plotly.graph_objects as go
import pytest

import hftlab as hl
from hftlab.errors import NotStarted, ValidationError
from hftlab.replay import State
from hftlab.sequence import GapState
from hftlab.widgets import live as live_module
from hftlab.widgets.cells import CellMakes
from tests.widgets.comms import FakeComm, channel_of
from tests.widgets.gapped import ID, GapReplay, Gaps, at_event, gap, gap_replay
from tests.widgets.recorded import until


def replay_with_gaps() -> GapReplay:
    return gap_replay(gap(0, 105, 110, **at_event(20)), gap(1, 7, 7, GapState.OPEN, source=2, **at_event(40)))


async def test_an_inspector_opens_with_everything_that_its_view_needs(comms: list[FakeComm]) -> None:
    inspector = hl.widgets.GapInspector(replay_with_gaps())
    kind, data, buffers = channel_of(inspector, comms).sent[0]
    assert kind == "comm_open"
    state = data["state"]
    assert len(state["page"]["rows"]) == 2
    assert len(buffers[data["buffer_paths"].index(["timeline", "marks"])]) == 10 * 2 * 8
    assert "hftlab-gap-inspector" in state["_dom_classes"]
    assert "export default { render" in state["_esm"]
    assert "class GapTimeline" in state["_esm"]


async def test_the_view_needs_nothing_from_the_network_and_makes_no_markup(comms: list[FakeComm]) -> None:
    inspector = hl.widgets.GapInspector(replay_with_gaps())
    state = channel_of(inspector, comms).sent[0][1]["state"]
    code = state["_esm"].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    for text in (code, state["_css"]):
        assert "http:" not in text
        assert "https:" not in text
        assert "import" not in text
    assert "innerHTML" not in code
    assert "insertAdjacentHTML" not in code


async def test_gaps_that_are_found_while_a_view_looks_are_sent_in_one_message(comms: list[FakeComm]) -> None:
    replay = replay_with_gaps()
    inspector = hl.widgets.GapInspector(replay)
    channel = channel_of(inspector, comms)
    channel.say("heard", "view")
    await until(lambda: inspector._refreshes.statistics().refreshes)
    before = len(channel.updates)
    replay.made.put(replay.made.records, gap(2, 300, 300, **at_event(60)))
    await until(lambda: len(channel.updates) > before)
    (update,) = channel.updates[before:]
    assert len(update["page"]["rows"]) == 3
    assert set(update) >= {"filters", "page", "timeline", "counts"}


async def test_without_a_view_nothing_is_sent(comms: list[FakeComm], quick: None) -> None:
    replay = replay_with_gaps()
    inspector = hl.widgets.GapInspector(replay)
    channel = channel_of(inspector, comms)
    sent = len(channel.sent)
    await replay.run(progress=False)
    replay.made.put()
    await until(lambda: inspector._refreshes.idle)
    assert len(channel.sent) == sent


async def test_a_click_on_another_thread_selects_and_jumps_on_the_kernels_loop(
    comms: list[FakeComm], quick: None
) -> None:
    replay = replay_with_gaps()
    inspector = hl.widgets.GapInspector(replay)
    channel = channel_of(inspector, comms)

    def sub_shell() -> None:
        async def main() -> None:  # a sub-shell has a loop of its own
            channel.say("heard", "view")
            channel.say("select", inspector.page["rows"][0][0])
            channel.say("jump", "after")

        asyncio.run(main())

    other = threading.Thread(target=sub_shell)
    other.start()
    await until(lambda: replay.state is State.PAUSED)
    other.join()
    await until(lambda: inspector.around.get("state") == "ready")
    assert (await replay.step()).event_ids.tolist() == [ID + 20]
    assert inspector.selected["numbers"] == "105…110"


async def test_a_failed_jump_is_shown(comms: list[FakeComm], quick: None) -> None:
    replay = gap_replay(gap(0, 1, 2, before=ID + 9_000, after=0))
    inspector = hl.widgets.GapInspector(replay)
    channel = channel_of(inspector, comms)
    channel.say("heard", "view")
    channel.say("move", 1)
    channel.say("jump", "before")
    await until(lambda: inspector.fault)
    assert inspector.fault["name"] == "EmptyRange"


@pytest.mark.parametrize("content", [None, [], {"do": "format"}, {"do": "page", "value": "x"}, {"do": "jump"}])
async def test_hostile_messages_are_shown_and_harm_nothing(comms: list[FakeComm], quick: None, content: Any) -> None:
    inspector = hl.widgets.GapInspector(replay_with_gaps())
    channel = channel_of(inspector, comms)
    channel.say("heard", "view")
    channel.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    await until(lambda: inspector.fault)
    assert inspector.fault["name"] == "ValidationError"
    channel.say("move", 1)
    await until(lambda: inspector.selected)


async def test_closing_leaves_no_comm_no_observer_no_task_and_the_replay_as_it_is(comms: list[FakeComm]) -> None:
    replay = replay_with_gaps()
    instances, tasks = set(registry._instances), asyncio.all_tasks()
    inspector = hl.widgets.GapInspector(replay)
    channel = channel_of(inspector, comms)
    inspector._repr_mimebundle_()
    channel.say("move", 1)
    await until(lambda: inspector.selected)
    inspector.close()
    inspector.close()
    assert set(registry._instances) == instances
    assert all(made._closed for made in comms)
    assert replay._watchers == []
    await until(lambda: asyncio.all_tasks() == tasks)
    assert repr(inspector) == "GapInspector(s: closed)"


async def test_a_closed_inspector_is_collected(comms: list[FakeComm]) -> None:
    replay = replay_with_gaps()
    inspector = hl.widgets.GapInspector(replay)
    reference = weakref.ref(inspector)
    inspector.close()
    comms.clear()
    del inspector
    await asyncio.sleep(0)
    gc.collect()
    assert reference() is None


async def test_running_its_cell_again_closes_the_inspector_before(
    comms: list[FakeComm], monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = iter([("cell", "1"), ("cell", "2")])
    monkeypatch.setattr(live_module, "MADE", CellMakes())
    monkeypatch.setattr(live_module, "current_execution", lambda: next(executions))
    replay = replay_with_gaps()
    first, second = hl.widgets.GapInspector(replay), hl.widgets.GapInspector(replay)
    assert (first._closed, second._closed) == (True, False)


async def test_an_error_of_the_inspector_itself_is_shown(comms: list[FakeComm], quick: None) -> None:
    inspector = hl.widgets.GapInspector(replay_with_gaps())
    inspector._inspecting.look = lambda now: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    channel_of(inspector, comms).say("heard", "view")
    await until(lambda: inspector.fault)
    assert inspector.fault["name"] == "ZeroDivisionError"


async def test_its_texts_are_stable_and_escaped(comms: list[FakeComm]) -> None:
    replay = replay_with_gaps()
    replay.session_name = "<b>s</b>"
    inspector = hl.widgets.GapInspector(replay)
    data, _ = inspector._repr_mimebundle_()
    assert data["text/plain"] == repr(inspector) == "GapInspector(<b>s</b>)"
    assert data["text/html"] == "<div><b>Gaps</b> of &lt;b&gt;s&lt;/b&gt;: 1 open, 1 lost</div>"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == inspector.model_id


async def test_the_static_twin_is_the_tables_timeline(comms: list[FakeComm]) -> None:
    figure = hl.widgets.GapInspector(replay_with_gaps()).figure()
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text == "2 gaps, 6 numbers lost"


async def test_a_table_by_itself_is_inspected_too(comms: list[FakeComm]) -> None:
    inspector = hl.widgets.GapInspector(Gaps(gap(0, 1, 2)).fresh())
    assert repr(inspector) == "GapInspector(gaps of a GapTable)"
    assert inspector.status["label"] == ""


@pytest.mark.parametrize("source", ["replay", None])
async def test_an_inspector_of_something_else_is_refused(comms: list[FakeComm], source: Any) -> None:
    with pytest.raises(ValidationError, match="takes a Replay, a Lab, or a GapTable"):
        hl.widgets.GapInspector(source)
    assert comms == []


def test_without_a_running_loop_an_inspector_says_what_to_do() -> None:
    with pytest.raises(NotStarted, match="figure"):
        hl.widgets.GapInspector(Gaps(gap(0, 1, 2)).fresh())
