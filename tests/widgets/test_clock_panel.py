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
from hftlab.widgets import live as live_module
from hftlab.widgets.cells import CellMakes
from tests.widgets.clocked import PretendedPoller, disciplined, server, tell
from tests.widgets.comms import FakeComm, channel_of
from tests.widgets.recorded import until


async def test_a_panel_opens_with_everything_that_its_view_needs(comms: list[FakeComm]) -> None:
    panel = hl.widgets.ClockPanel(PretendedPoller(disciplined(), server()))
    kind, data, buffers = channel_of(panel, comms).sent[0]
    assert kind == "comm_open"
    state = data["state"]
    assert len(buffers[data["buffer_paths"].index(["chart", "points"])]) == 6 * 2 * 4
    assert state["servers"]["rows"][0][3] == "truechimer"
    assert "hftlab-clock-panel" in state["_dom_classes"]
    assert "class ClockChart" in state["_esm"]


async def test_the_view_needs_nothing_from_the_network_and_makes_no_markup(comms: list[FakeComm]) -> None:
    panel = hl.widgets.ClockPanel(hl.SystemClock())
    state = channel_of(panel, comms).sent[0][1]["state"]
    code = state["_esm"].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    for text in (code, state["_css"]):
        assert "http:" not in text
        assert "https:" not in text
        assert "import" not in text
    assert "innerHTML" not in code
    assert "insertAdjacentHTML" not in code


async def test_a_clock_of_a_lab_that_names_no_server_is_shown_with_what_to_type(comms: list[FakeComm]) -> None:
    lab = hl.Lab(ntp=[])
    panel = hl.widgets.ClockPanel(lab)
    assert panel.clock is lab.system_clock
    assert panel.status["clock"] == "UNSYNCED"
    assert "hl.Lab(ntp=" in panel.status["advice"]
    assert isinstance(panel.figure(), go.Figure)
    assert len(panel.to_frame()) == 0


async def test_what_a_clock_is_told_is_sent_while_a_view_looks(
    comms: list[FakeComm], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = hl.SystemClock()
    panel = hl.widgets.ClockPanel(clock)
    channel = channel_of(panel, comms)
    channel.say("heard", "view")
    await until(lambda: len(panel._watching.audience) == 1)
    tell(clock, 50_000)
    await until(lambda: panel.status["clock"] == "SYNCED")
    assert panel.reading().bound_ns is not None
    assert len(panel.to_frame()) == 1


async def test_without_a_view_nothing_is_sent(comms: list[FakeComm], quick: None) -> None:
    clock = disciplined()
    panel = hl.widgets.ClockPanel(clock)
    channel = channel_of(panel, comms)
    channel.say("heard", "view")
    channel.say("left", "view")
    await until(lambda: len(panel._watching.audience) == 0 and panel._refreshes.idle)
    sent = len(channel.sent)
    tell(clock, 50_000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(channel.sent) == sent


async def test_a_choice_on_another_thread_is_made_on_the_kernels_loop(comms: list[FakeComm], quick: None) -> None:
    panel = hl.widgets.ClockPanel(disciplined())
    channel = channel_of(panel, comms)

    def sub_shell() -> None:
        async def main() -> None:  # a sub-shell has a loop of its own
            channel.say("window", "1 day")
            channel.say("heard", "view")

        asyncio.run(main())

    other = threading.Thread(target=sub_shell)
    other.start()
    await until(lambda: panel.chart["window"] == "1 day")
    other.join()


@pytest.mark.parametrize("content", [None, [], {"do": "format"}, {"do": "window", "value": "x"}, {"do": "heard"}])
async def test_hostile_messages_are_shown_and_harm_nothing(comms: list[FakeComm], quick: None, content: Any) -> None:
    panel = hl.widgets.ClockPanel(disciplined())
    channel = channel_of(panel, comms)
    channel.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    channel.say("heard", "view")
    await until(lambda: panel.fault)
    assert panel.fault["name"] == "ValidationError"


async def test_closing_leaves_no_comm_no_timer_and_the_clock_as_it_is(comms: list[FakeComm]) -> None:
    clock = disciplined()
    instances, tasks = set(registry._instances), asyncio.all_tasks()
    panel = hl.widgets.ClockPanel(clock)
    panel._repr_mimebundle_()
    panel.close()
    panel.close()
    assert set(registry._instances) == instances
    assert all(made._closed for made in comms)
    assert asyncio.all_tasks() == tasks
    assert repr(panel) == "ClockPanel(SYNCED, closed)"
    assert len(clock.history) == 1


async def test_a_closed_panel_is_collected(comms: list[FakeComm]) -> None:
    panel = hl.widgets.ClockPanel(hl.SystemClock())
    reference = weakref.ref(panel)
    panel.close()
    comms.clear()
    del panel
    await asyncio.sleep(0)
    gc.collect()
    assert reference() is None


async def test_running_its_cell_again_closes_the_panel_before(
    comms: list[FakeComm], monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = iter([("cell", "1"), ("cell", "2")])
    monkeypatch.setattr(live_module, "MADE", CellMakes())
    monkeypatch.setattr(live_module, "current_execution", lambda: next(executions))
    clock = hl.SystemClock()
    first = hl.widgets.ClockPanel(clock)
    second = hl.widgets.ClockPanel(clock)
    assert (first._closed, second._closed) == (True, False)


async def test_its_texts_are_stable(comms: list[FakeComm]) -> None:
    panel = hl.widgets.ClockPanel(hl.SystemClock())
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == repr(panel) == "ClockPanel(UNSYNCED)"
    assert data["text/html"] == "<div><b>Clock</b> UNSYNCED: nobody has compared this clock with UTC</div>"


@pytest.mark.parametrize("source", [None, "lab", 3])
async def test_a_panel_of_something_else_is_refused(comms: list[FakeComm], source: Any) -> None:
    with pytest.raises(ValidationError, match="takes a Lab, a SystemClock"):
        hl.widgets.ClockPanel(source)
    assert comms == []


def test_without_a_running_loop_a_panel_says_what_to_do() -> None:
    with pytest.raises(NotStarted, match="figure"):
        hl.widgets.ClockPanel(hl.SystemClock())
