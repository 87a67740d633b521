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
from tests.widgets.comms import FakeComm, channel_of
from tests.widgets.loaded import order, quotes, small_bus
from tests.widgets.recorded import until


async def test_a_monitor_opens_with_everything_that_its_view_needs(comms: list[FakeComm]) -> None:
    monitor = hl.widgets.BusMonitor(small_bus())
    kind, data, buffers = channel_of(monitor, comms).sent[0]
    assert kind == "comm_open"
    state = data["state"]
    assert [line["lane"] for line in state["lanes"]] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]
    assert len(buffers[data["buffer_paths"].index(["strip", "points"])]) == 2 * 4 * 300 * 4
    assert state["books"]["off"] == ""
    assert "hftlab-bus-monitor" in state["_dom_classes"]
    assert "export default { render" in state["_esm"]
    assert "class LaneStrip" in state["_esm"]


async def test_the_view_needs_nothing_from_the_network_and_makes_no_markup(comms: list[FakeComm]) -> None:
    monitor = hl.widgets.BusMonitor(small_bus())
    state = channel_of(monitor, comms).sent[0][1]["state"]
    code = state["_esm"].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    for text in (code, state["_css"]):
        assert "http:" not in text
        assert "https:" not in text
        assert "import" not in text
    assert "innerHTML" not in code
    assert "insertAdjacentHTML" not in code


async def test_a_burst_while_a_view_looks_is_sent_in_one_message(comms: list[FakeComm]) -> None:
    bus = small_bus()
    monitor = hl.widgets.BusMonitor(bus)
    channel = channel_of(monitor, comms)
    channel.say("heard", "view")
    await until(lambda: monitor._refreshes.statistics().refreshes)
    before = len(channel.updates)
    bus.offer(quotes(512))
    bus.publish_nowait(order(1))
    await until(lambda: len(channel.updates) > before)
    update = channel.updates[before]
    assert set(update) >= {"status", "lanes", "books"}
    assert update["lanes"][2]["waiting"] == "512 of 1,024"
    assert update["lanes"][0]["waiting"] == "1 of 1,024"


async def test_without_a_view_nothing_is_sent_nor_sampled(comms: list[FakeComm], quick: None) -> None:
    bus = small_bus()
    monitor = hl.widgets.BusMonitor(bus)
    channel = channel_of(monitor, comms)
    channel.say("heard", "view")
    await until(lambda: len(monitor._monitoring.audience) == 1)
    channel.say("left", "view")
    await until(lambda: len(monitor._monitoring.audience) == 0 and monitor._refreshes.idle)
    sent, taken = len(channel.sent), len(monitor.history)
    bus.offer(quotes(512))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(channel.sent) == sent
    assert len(monitor.history) == taken


async def test_while_a_bus_stands_a_view_is_sent_nothing(comms: list[FakeComm], quick: None) -> None:
    monitor = hl.widgets.BusMonitor(small_bus())
    channel = channel_of(monitor, comms)
    channel.say("heard", "view")
    await until(lambda: channel.updates)  # rates are known now
    sent = len(channel.sent)
    looked = monitor._refreshes.statistics().refreshes
    await until(lambda: monitor._refreshes.statistics().refreshes > looked + 2)
    assert len(channel.sent) == sent


async def test_a_burst_that_nobody_saw_is_in_the_figure_of_a_started_monitor(comms: list[FakeComm]) -> None:
    bus = small_bus()
    monitor = hl.widgets.BusMonitor(bus).start()
    assert monitor.history.sampling
    for _ in range(3):
        bus.offer(quotes(512))
    taken = len(monitor.history)
    await until(lambda: len(monitor.history) > taken)
    while not bus.do_work().idle:
        pass
    monitor.record()
    figure = monitor.figure()
    assert isinstance(figure, go.Figure)
    assert max(figure.data[0].y) == 1_024
    assert figure.data[1].name == "NORMAL drop oldest: 512"
    frame = monitor.to_frame()
    assert frame["waiting"].max() == 1_024
    assert frame["drop oldest"].max() == 512
    monitor.stop()
    assert not monitor.history.sampling


async def test_a_cell_that_drives_the_bus_itself_records_what_it_wants_to_see(comms: list[FakeComm]) -> None:
    bus = small_bus()
    monitor = hl.widgets.BusMonitor(bus)
    bus.offer(quotes(512))
    assert monitor.record().waiting == 512
    while not bus.do_work().idle:
        pass
    monitor.record()
    assert monitor.history.samples().waiting[:, 2].tolist() == [0, 512, 0]


async def test_a_history_that_was_taken_before_is_shown(comms: list[FakeComm]) -> None:
    bus = small_bus()
    history = hl.widgets.BusHistory(bus)
    bus.offer(quotes(512))
    history.record()
    monitor = hl.widgets.BusMonitor(history)
    assert monitor.history is history
    assert monitor.lanes[2]["peak_text"] == "peak 512"


async def test_a_click_on_another_thread_orders_on_the_kernels_loop(comms: list[FakeComm], quick: None) -> None:
    bus = small_bus()
    bus.subscribe(lambda price: None, hl.MarketDataEvent, name="a")
    monitor = hl.widgets.BusMonitor(bus)
    channel = channel_of(monitor, comms)

    def sub_shell() -> None:
        async def main() -> None:  # a sub-shell has a loop of its own
            channel.say("heard", "view")
            channel.say("order", "rate")

        asyncio.run(main())

    other = threading.Thread(target=sub_shell)
    other.start()
    await until(lambda: monitor.handlers["order"] == "rate")
    other.join()


@pytest.mark.parametrize("content", [None, [], {"do": "format"}, {"do": "order", "value": "x"}, {"do": "heard"}])
async def test_hostile_messages_are_shown_and_harm_nothing(comms: list[FakeComm], quick: None, content: Any) -> None:
    monitor = hl.widgets.BusMonitor(small_bus())
    channel = channel_of(monitor, comms)
    channel.say("heard", "view")
    channel.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    await until(lambda: monitor.fault)
    assert monitor.fault["name"] == "ValidationError"
    channel.say("order", "calls")
    await until(lambda: monitor.handlers["order"] == "calls")


async def test_closing_leaves_no_comm_no_timer_and_the_bus_and_the_samples_as_they_are(comms: list[FakeComm]) -> None:
    bus = small_bus()
    bus.offer(quotes(10))
    instances, tasks = set(registry._instances), asyncio.all_tasks()
    monitor = hl.widgets.BusMonitor(bus).start()
    monitor._repr_mimebundle_()
    monitor.close()
    monitor.close()
    assert set(registry._instances) == instances
    assert all(made._closed for made in comms)
    assert asyncio.all_tasks() == tasks
    assert not monitor.history.sampling
    assert bus.statistics().waiting == 10
    assert len(monitor.to_frame()) >= 4
    assert repr(monitor) == "BusMonitor(bus: closed)"


async def test_a_closed_monitor_is_collected(comms: list[FakeComm]) -> None:
    monitor = hl.widgets.BusMonitor(small_bus()).start()
    reference = weakref.ref(monitor)
    monitor.close()
    comms.clear()
    del monitor
    await asyncio.sleep(0)
    gc.collect()
    assert reference() is None


async def test_running_its_cell_again_closes_the_monitor_before(
    comms: list[FakeComm], monkeypatch: pytest.MonkeyPatch
) -> None:
    executions = iter([("cell", "1"), ("cell", "2")])
    monkeypatch.setattr(live_module, "MADE", CellMakes())
    monkeypatch.setattr(live_module, "current_execution", lambda: next(executions))
    bus = small_bus()
    first = hl.widgets.BusMonitor(bus).start()
    second = hl.widgets.BusMonitor(bus)
    assert (first._closed, second._closed) == (True, False)
    assert not first.history.sampling


async def test_an_error_of_the_bus_is_shown(
    comms: list[FakeComm], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = small_bus()
    monitor = hl.widgets.BusMonitor(bus)
    monkeypatch.setattr(bus, "statistics", lambda: 1 / 0)
    channel_of(monitor, comms).say("heard", "view")
    await until(lambda: monitor.fault)
    assert monitor.fault["name"] == "ZeroDivisionError"


async def test_its_texts_are_stable_and_escaped(comms: list[FakeComm]) -> None:
    monitor = hl.widgets.BusMonitor(small_bus(name="<b>paper</b>"))
    data, _ = monitor._repr_mimebundle_()
    assert data["text/plain"] == repr(monitor) == "BusMonitor(<b>paper</b>)"
    assert data["text/html"] == "<div>BusMonitor(&lt;b&gt;paper&lt;/b&gt;)</div>"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == monitor.model_id


@pytest.mark.parametrize("source", [None, "lab", 3])
async def test_a_monitor_of_something_else_is_refused(comms: list[FakeComm], source: Any) -> None:
    with pytest.raises(ValidationError, match="takes a Lab, or a bus"):
        hl.widgets.BusMonitor(source)
    assert comms == []


def test_without_a_running_loop_a_monitor_says_what_to_do() -> None:
    with pytest.raises(NotStarted, match="figure"):
        hl.widgets.BusMonitor(small_bus())
