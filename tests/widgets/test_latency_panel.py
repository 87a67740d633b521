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
from hftlab.metrics import Latency, Stage
from hftlab.widgets import live as live_module
from hftlab.widgets.cells import CellMakes
from tests.widgets.comms import FakeComm, channel_of
from tests.widgets.measured import MARKET, filled
from tests.widgets.recorded import until


async def test_a_panel_opens_with_everything_that_its_view_needs(comms: list[FakeComm]) -> None:
    panel = hl.widgets.LatencyPanel(Latency(filled(), name="s"))
    kind, data, buffers = channel_of(panel, comms).sent[0]
    assert kind == "comm_open"
    state = data["state"]
    assert len(buffers[data["buffer_paths"].index(["picture", "percent"])]) == 160 * 4
    assert [row[0] for row in state["table"]["rows"]] == [stage.name for stage in Stage]
    assert "hftlab-latency-panel" in state["_dom_classes"]
    assert "export default { render" in state["_esm"]
    assert "class PercentileChart" in state["_esm"]


async def test_the_view_needs_nothing_from_the_network_and_makes_no_markup(comms: list[FakeComm]) -> None:
    panel = hl.widgets.LatencyPanel(Latency(filled()))
    state = channel_of(panel, comms).sent[0][1]["state"]
    code = state["_esm"].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    for text in (code, state["_css"]):
        assert "http:" not in text
        assert "https:" not in text
        assert "import" not in text
    assert "innerHTML" not in code
    assert "insertAdjacentHTML" not in code


async def test_what_is_measured_while_a_view_looks_is_sent_in_one_message(comms: list[FakeComm], quick: None) -> None:
    journey = filled()
    panel = hl.widgets.LatencyPanel(Latency(journey))
    channel = channel_of(panel, comms)
    channel.say("heard", "view")
    await until(lambda: len(panel._watching.audience) == 1 and panel._refreshes.statistics().refreshes)
    before = len(channel.updates)
    journey.note(Stage.HANDLED, MARKET, 5_000_000, 10_000)
    await until(lambda: len(channel.updates) > before)
    assert set(channel.updates[before]) >= {"status", "stack", "table"}


async def test_without_a_view_nothing_is_sent(comms: list[FakeComm], quick: None) -> None:
    journey = filled()
    panel = hl.widgets.LatencyPanel(Latency(journey))
    channel = channel_of(panel, comms)
    channel.say("heard", "view")
    channel.say("left", "view")
    await until(lambda: len(panel._watching.audience) == 0 and panel._refreshes.idle)
    sent = len(channel.sent)
    journey.note(Stage.HANDLED, MARKET, 5_000)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(channel.sent) == sent


async def test_a_cell_compares_keeps_and_draws(comms: list[FakeComm]) -> None:
    journey = filled()
    panel = hl.widgets.LatencyPanel(Latency(journey, name="after"))
    panel.compare(Latency(filled(seed=2), name="before"))
    before = panel.reference
    assert before is not None
    assert before.name == "before"
    figure = panel.figure()
    assert isinstance(figure, go.Figure)
    assert "before" in figure.to_json()
    panel.keep("the first half")
    journey.note(Stage.HANDLED, MARKET, 5_000)
    kept = panel.reference
    assert kept is not None
    assert kept.stages[Stage.HANDLED].count == 800
    assert panel.latency.stages[Stage.HANDLED].count == 801
    panel.compare(None)
    assert panel.reference is None
    assert list(panel.to_frame()["stage"]) == [stage.value for stage in Stage]
    assert set(panel.to_frame(by="symbol")["symbol"]) == {"BTCUSDT", "ETHUSDT"}
    with pytest.raises(ValidationError, match="a name is a text"):
        panel.keep(5)  # type: ignore[arg-type]


async def test_a_click_on_another_thread_keeps_on_the_kernels_loop(comms: list[FakeComm], quick: None) -> None:
    panel = hl.widgets.LatencyPanel(Latency(filled()))
    channel = channel_of(panel, comms)

    def sub_shell() -> None:
        async def main() -> None:  # a sub-shell has a loop of its own
            channel.say("heard", "view")
            channel.say("keep")

        asyncio.run(main())

    other = threading.Thread(target=sub_shell)
    other.start()
    await until(lambda: len(panel.choice["runs"]) == 2)
    other.join()


@pytest.mark.parametrize("content", [None, [], {"do": "format"}, {"do": "by", "value": "x"}, {"do": "heard"}])
async def test_hostile_messages_are_shown_and_harm_nothing(comms: list[FakeComm], quick: None, content: Any) -> None:
    panel = hl.widgets.LatencyPanel(Latency(filled()))
    channel = channel_of(panel, comms)
    channel.say("heard", "view")
    channel.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    await until(lambda: panel.fault)
    assert panel.fault["name"] == "ValidationError"
    channel.say("by", "type")
    await until(lambda: panel.choice["by"] == "type")


async def test_closing_leaves_no_comm_no_timer_and_what_is_measured_as_it_is(comms: list[FakeComm]) -> None:
    journey = filled()
    instances, tasks = set(registry._instances), asyncio.all_tasks()
    panel = hl.widgets.LatencyPanel(Latency(journey, name="s"))
    panel._repr_mimebundle_()
    panel.close()
    panel.close()
    assert set(registry._instances) == instances
    assert all(made._closed for made in comms)
    assert asyncio.all_tasks() == tasks
    assert repr(panel) == "LatencyPanel(s: closed)"
    assert panel.latency.stages[Stage.HANDLED].count == 800


async def test_a_closed_panel_is_collected(comms: list[FakeComm]) -> None:
    panel = hl.widgets.LatencyPanel(Latency(filled()))
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
    latency = Latency(filled())
    first = hl.widgets.LatencyPanel(latency)
    second = hl.widgets.LatencyPanel(latency)
    assert (first._closed, second._closed) == (True, False)


async def test_an_error_of_what_is_measured_is_shown(
    comms: list[FakeComm], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = hl.widgets.LatencyPanel(Latency(filled()))
    monkeypatch.setattr(Latency, "stages", property(lambda self: 1 / 0))
    channel_of(panel, comms).say("heard", "view")
    await until(lambda: panel.fault)
    assert panel.fault["name"] == "ZeroDivisionError"


async def test_its_texts_are_stable_and_escaped(comms: list[FakeComm]) -> None:
    panel = hl.widgets.LatencyPanel(Latency(name="<b>s</b>"))
    data, _ = panel._repr_mimebundle_()
    assert data["text/plain"] == repr(panel) == "LatencyPanel(<b>s</b>)"
    assert data["text/html"] == "<div>LatencyPanel(&lt;b&gt;s&lt;/b&gt;)</div>"


@pytest.mark.parametrize("source", [None, "lab", 3])
async def test_a_panel_of_something_else_is_refused(comms: list[FakeComm], source: Any) -> None:
    with pytest.raises(ValidationError, match="takes what has latencies"):
        hl.widgets.LatencyPanel(source)
    assert comms == []


def test_without_a_running_loop_a_panel_says_what_to_do() -> None:
    with pytest.raises(NotStarted, match="figure"):
        hl.widgets.LatencyPanel(Latency())
