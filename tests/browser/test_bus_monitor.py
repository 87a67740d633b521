from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.server import LabServer

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from playwright.async_api import Locator, expect

from tests.browser.notebook import NotebookPage, write_notebook

LAB = """
import asyncio, time
import hftlab as hl

flow = hl.Flow(overflow={hl.MarketDataEvent: "drop oldest"}, watchdog_s=0.02,
               breaker=hl.OverloadSettings(target_s=0.03, interval_s=0.3, open_s=1.5, step_s=0.5))
lab = hl.Lab(capacity=4_096, flow=flow)
await lab.start()
"""
HANDLERS = """
def hold(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

@lab.bus.on(hl.MarketDataEvent)
def imbalance(price, volume):
    hold(25e-6)

@lab.bus.on(hl.MarketDataEvent, mode="batch")
def notional(batch):
    return None

@lab.bus.on(hl.OrderEvent)
def route(event):
    return hl.SignalEvent(symbol=event.symbol, signal_type="SENT", strength=1.0, strategy_id="s1")

@lab.bus.on(hl.SignalEvent, name="<img src=x onerror=window.hacked=1>")
def audit(event):
    if event.signal_type == "SENT" and next(ids) % 40 == 0:
        raise ValueError("<b>no such venue</b>")
"""
# Quotes beyond what the handlers take, and an order every few milliseconds in between.
BURST = """
import contextlib, itertools
ids = itertools.count(1)
quotes = hl.EventBatch.from_events(
    hl.MarketDataEvent(symbol=f"S{i % 20}", kind=hl.Kind.QUOTE, bid=100.0 + i % 7, ask=101.0 + i % 7)
    for i in range(1_000))

async def burst(seconds, wave_s=60):
    # Too much in the first three quarters of each wave, little in the last.
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while (past := loop.time() - begin) < seconds:
        rows = 500 if past % wave_s < 0.75 * wave_s else 60
        lab.bus.offer(quotes[:rows])
        for event in (
            hl.OrderEvent(symbol="S1", order_id=f"o{next(ids)}", direction=hl.Side.BUY, quantity=1.0,
                          order_type=hl.OrderType.MARKET),
            hl.SignalEvent(symbol="S1", signal_type="RISK", strength=0.5, strategy_id="limits"),
            hl.SignalEvent(symbol="S1", signal_type="MONITOR", strength=0.5, strategy_id="heartbeat"),
        ):
            with contextlib.suppress(hl.errors.HandlerFailed):  # the audit's, of some time ago
                await lab.bus.publish(event)
        await asyncio.sleep(0.005)
"""
MONITOR = """
monitor = hl.widgets.BusMonitor(lab)
monitor
"""
SLOW_MS = 30_000


async def open_monitor(notebook: NotebookPage, server: LabServer, name: str) -> Locator:
    """Write a notebook that ends with a monitor of an idle lab, run it, and return the monitor."""
    write_notebook(server.folder / f"{name}.ipynb", [LAB, HANDLERS, BURST, MONITOR])
    await notebook.open(server.page(f"{name}.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    monitor = notebook.page.locator(".hftlab-bus-monitor .hl-monitor")
    await monitor.wait_for(timeout=60_000)
    await monitor.evaluate("monitor => monitor.scrollIntoView({block: 'end'})")
    return monitor


def lane_of(monitor: Locator, name: str) -> Locator:
    return monitor.locator(f".hl-lane[data-lane={name}]")


async def test_a_burst_is_watched_from_its_beginning_to_its_end(notebook: NotebookPage, lab_server: LabServer) -> None:
    monitor = await open_monitor(notebook, lab_server, "monitored")
    state, overload = monitor.locator(".hl-state"), monitor.locator(".hl-head .hl-badge").first
    normal, critical = lane_of(monitor, "NORMAL"), lane_of(monitor, "CRITICAL")
    await expect(state).to_have_text("Live, idle", timeout=SLOW_MS)
    await expect(overload).to_have_text("Overload: closed", timeout=SLOW_MS)

    await notebook.execute("task = asyncio.get_running_loop().create_task(burst(6))")
    await expect(state).to_have_text("Live, busy", timeout=SLOW_MS)
    await expect(normal.locator(".hl-reason").filter(has_text="drop oldest").first).to_be_visible(timeout=SLOW_MS)
    await expect(overload).to_have_text("Overload: open", timeout=SLOW_MS)
    await expect(overload).to_have_attribute("data-kind", "bad")
    await expect(normal.locator(".hl-reason").filter(has_text="shed: overload")).to_be_visible(timeout=SLOW_MS)
    await expect(overload).to_contain_text("half-open", timeout=SLOW_MS)
    await notebook.until("task.done() and lab.bus.statistics().waiting == 0")
    await expect(state).to_have_text("Live, idle", timeout=SLOW_MS)

    # What is shown in the end is what the bus counted, and all of it adds up.
    told = "lab.bus.statistics()"
    published, handled = await notebook.value(f"[{told}.published, {told}.lanes[0].handled]")
    await expect(monitor.locator(".hl-sum b")).to_have_text(f"{published:,}", timeout=SLOW_MS)
    await expect(monitor.locator(".hl-balance")).to_have_text("✓ balances")
    await expect(critical.locator(".hl-handled")).to_have_text(f"{handled:,} in all")
    await expect(critical.locator(".hl-gave")).to_have_text("nothing gave way")
    for reason, count in (await notebook.value(f"dict({told}.lanes[2].gave_way)")).items():
        await expect(normal.locator(".hl-reason").filter(has_text=reason)).to_contain_text(f"{count:,}")
    assert await notebook.value("task.exception() is None")
    figure = await notebook.value("[len(trace.x) for trace in monitor.figure().data]")
    assert max(figure) > 20


async def test_handlers_are_ordered_marked_and_told_as_text(notebook: NotebookPage, lab_server: LabServer) -> None:
    monitor = await open_monitor(notebook, lab_server, "monitored-handlers")
    rows = monitor.locator(".hl-handlers tbody tr")
    await expect(rows).to_have_count(4, timeout=SLOW_MS)
    await expect(rows.first.locator(".hl-handler")).to_have_text("imbalance:market.*")
    await notebook.execute("await burst(1.5)")
    bad = rows.filter(has_text="onerror")
    await expect(bad.locator(".hl-handler")).to_have_text("<img src=x onerror=window.hacked=1>", timeout=SLOW_MS)
    await expect(bad.locator(".hl-why")).to_contain_text("ValueError: <b>no such venue</b>", timeout=SLOW_MS)
    assert await monitor.locator("img").count() == 0
    assert await notebook.page.evaluate("window.hacked") is None
    failed = await notebook.value("[one.failed for one in lab.bus.subscriptions][-1]")
    await expect(bad.locator("td.hl-h5")).to_have_text(f"{failed:,}", timeout=SLOW_MS)

    await monitor.get_by_role("button", name="Failed", exact=True).click()
    await expect(rows.first).to_contain_text("onerror", timeout=SLOW_MS)
    await monitor.get_by_role("button", name="Failed", exact=True).click()
    await expect(rows.first).to_contain_text("imbalance", timeout=SLOW_MS)


async def test_the_keyboard_reads_the_strips_and_the_notebook_keeps_its_hands_off(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    monitor = await open_monitor(notebook, lab_server, "monitor-keys")
    await notebook.execute("await burst(1)")
    await notebook.until("not monitor.strip['quiet']")
    cells = await notebook.page.locator(".jp-Cell").count()
    strips = monitor.locator("canvas.hl-strip")
    await strips.nth(2).focus()
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowLeft"):
        await notebook.page.keyboard.press(key)
    for place in (0, 2):  # all lanes at once
        await expect(strips.nth(place)).to_have_attribute("aria-valuenow", "288")
    await notebook.page.keyboard.press("Home")
    await expect(strips.nth(2)).to_have_attribute("aria-valuenow", "0")
    # Letters are the notebook's commands (b: a cell below, dd: delete) wherever no widget listens.
    for key in ("b", "d", "d", "x", "a"):
        await notebook.page.keyboard.press(key)
    assert await notebook.page.locator(".jp-Cell").count() == cells
    await notebook.page.keyboard.press("Escape")
    await expect(strips.nth(2)).to_have_attribute("aria-valuetext", "now")
    await notebook.page.keyboard.press("Tab")
    assert await strips.nth(3).evaluate("canvas => canvas === document.activeElement")
    await notebook.page.keyboard.press("Tab")
    in_table = "() => Boolean(document.activeElement.closest('.hl-scroll'))"
    assert await notebook.page.evaluate(in_table)


async def test_an_idle_bus_sends_nothing(notebook: NotebookPage, lab_server: LabServer) -> None:
    monitor = await open_monitor(notebook, lab_server, "monitor-idle")
    await expect(monitor.locator(".hl-state")).to_have_text("Live, idle", timeout=SLOW_MS)
    count = (
        "sent, _send = [], monitor.comm.send\n"
        "monitor.comm.send = lambda *a, **k: (sent.append(k), _send(*a, **k))[1]\n"
        "looks = monitor._refreshes.statistics().refreshes"
    )
    assert (await notebook.execute(count))["status"] == "ok"
    await notebook.until("monitor._refreshes.statistics().refreshes > looks + 4")
    assert await notebook.value("len(sent)") == 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_looks_well_in_both_themes(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path, theme: str
) -> None:
    monitor = await open_monitor(notebook, lab_server, f"monitor-{theme.lower()}")
    page = notebook.page
    await notebook.theme(f"JupyterLab {theme}")
    await page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    await notebook.execute("task = asyncio.get_running_loop().create_task(burst(30, wave_s=8))")
    await notebook.until("lab.bus.statistics().overload == 'open'")
    await notebook.until("lab.bus.statistics().overload == 'half-open'")
    for width, height, name in (
        (1_280, 860, ""),
        (1_700, 860, "-wide"),
        (760, 1_100, "-narrow"),
        (400, 1_300, "-phone"),
    ):
        await page.set_viewport_size({"width": width, "height": height})
        await monitor.evaluate("monitor => monitor.scrollIntoView({block: 'end'})")
        await page.wait_for_timeout(600)
        await page.screenshot(path=screenshots / f"monitor-{theme.lower()}{name}.png")
        assert await monitor.evaluate("monitor => monitor.scrollWidth - monitor.clientWidth") <= 0


async def test_a_monitor_whose_kernel_was_restarted_says_so(notebook: NotebookPage, lab_server: LabServer) -> None:
    monitor = await open_monitor(notebook, lab_server, "monitor-restarted")
    await expect(monitor.locator(".hl-state")).to_have_text("Live, idle", timeout=SLOW_MS)
    await notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    await expect(monitor.locator(".hl-state")).to_contain_text("run the cell again", timeout=SLOW_MS)
