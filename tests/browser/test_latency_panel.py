from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.server import LabServer

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from playwright.async_api import Locator, expect

from tests.browser.notebook import NotebookPage, write_notebook

BUS = """
import asyncio, itertools, time
import hftlab as hl

bus = hl.EventBus()

def hold(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass

@bus.on(hl.MarketDataEvent, name="imbalance")
def imbalance(price, volume):
    hold(5e-6)

@bus.on(hl.OrderEvent, name="<img src=x onerror=window.hacked=1> " + "with a name that no table has room for " * 3)
def route(event):
    hold(40e-6)

SYMBOLS = ("BTCUSDT", "ETHUSDT", "A" * 40)

def quotes(count, ago_ns):
    now_ns = time.time_ns()
    return hl.EventBatch.from_events(
        hl.MarketDataEvent(symbol=SYMBOLS[i % 3], kind=hl.Kind.QUOTE, bid=100.0 + i, ask=101.0 + i, received=now_ns,
                           timestamp=now_ns - ago_ns * (1 + i % 50))
        for i in range(count))

numbers = itertools.count(1)

def drive(turns, ago_ns=100_000):
    for turn in range(turns):
        bus.offer(quotes(200, ago_ns))
        now_ns = time.time_ns()
        bus.publish_nowait(hl.OrderEvent(
            symbol="BTCUSDT", order_id=f"o{next(numbers)}", direction=hl.Side.BUY, quantity=1.0,
            order_type=hl.OrderType.MARKET, received=now_ns, timestamp=now_ns - 50_000))
        while not bus.do_work().idle:
            pass
"""
PANEL = """
panel = hl.widgets.LatencyPanel(bus)
panel
"""
SLOW_MS = 30_000


async def open_panel(notebook: NotebookPage, server: LabServer, name: str) -> Locator:
    """Write a notebook that ends with a panel of a bus on which nothing was, run it, and return the panel."""
    write_notebook(server.folder / f"{name}.ipynb", [BUS, PANEL])
    await notebook.open(server.page(f"{name}.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    panel = notebook.page.locator(".hftlab-latency-panel .hl-latency")
    await panel.wait_for(timeout=60_000)
    await panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
    return panel


def row_of(panel: Locator, key: str) -> Locator:
    return panel.locator(f"tbody tr[data-key='{key}']")


async def test_what_is_measured_is_watched_and_agrees_with_the_engine(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    panel = await open_panel(notebook, lab_server, "latency")
    await expect(panel.locator(".hl-state")).to_have_text("Nothing measured yet", timeout=SLOW_MS)
    await notebook.execute("drive(5)")
    await expect(row_of(panel, "RECEIVED").locator("td").nth(1)).to_have_text("1,005", timeout=SLOW_MS)
    await expect(panel.locator(".hl-state")).to_have_text("Standing", timeout=SLOW_MS)
    for stage in ("RECEIVED", "DISPATCHED", "HANDLED"):
        p50 = await notebook.value(f"panel.table['rows'][[r[0] for r in panel.table['rows']].index('{stage}')][3]")
        await expect(row_of(panel, stage).locator("td").nth(2)).to_have_text(p50)
    stacked = await panel.locator(".hl-bar-line").first.locator(".hl-segment").count()
    assert stacked == len(await notebook.value("panel.stack['legend']")) > 1

    await row_of(panel, "RECEIVED").click()
    await expect(panel.locator(".hl-words")).to_have_text("exchange → received", timeout=SLOW_MS)
    await expect(row_of(panel, "RECEIVED")).to_have_attribute("aria-selected", "true")
    await notebook.execute("drive(2, -1_270_000_000)")  # a recorder that is behind
    await expect(panel.locator(".hl-notes")).to_contain_text("skew = replay.latency.skew", timeout=SLOW_MS)
    await expect(row_of(panel, "RECEIVED").locator("td").nth(7)).to_have_text("400")


async def test_symbols_and_handlers_are_chosen_and_their_names_stay_text(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    panel = await open_panel(notebook, lab_server, "latency-rows")
    await notebook.execute("drive(5)")
    await panel.get_by_role("button", name="Handlers").click()
    slow = panel.locator("tbody tr").filter(has_text="onerror")
    await expect(slow).to_have_count(1, timeout=SLOW_MS)
    await slow.click()
    await expect(panel.locator(".hl-words")).to_contain_text("dispatched → handled of <img", timeout=SLOW_MS)
    assert await panel.locator("img").count() == 0
    assert await notebook.page.evaluate("window.hacked") is None
    await panel.locator(".hl-row").click()
    await expect(panel.locator(".hl-words")).to_have_text("dispatched → handled", timeout=SLOW_MS)
    await expect(panel.locator(".hl-row")).to_be_hidden()

    await panel.get_by_role("button", name="Symbols").click()
    await expect(panel.locator("tbody tr")).to_have_count(3, timeout=SLOW_MS)
    await expect(panel.locator(".hl-stage option")).to_have_count(2)


async def test_a_run_is_kept_and_the_next_one_compared_with_it(notebook: NotebookPage, lab_server: LabServer) -> None:
    panel = await open_panel(notebook, lab_server, "latency-kept")
    await notebook.execute("drive(5)")
    await expect(row_of(panel, "HANDLED")).to_be_visible(timeout=SLOW_MS)
    await expect(panel.locator(".hl-drop")).to_be_hidden()
    await panel.get_by_role("button", name="Keep").click()
    await expect(panel.locator(".hl-drop")).to_contain_text("Compared with kept at", timeout=SLOW_MS)
    await expect(panel.locator(".hl-run")).to_have_count(2)
    await expect(panel.locator(".hl-bar-line")).to_have_count(4)
    await notebook.execute("drive(20, 10_000_000)")
    await row_of(panel, "RECEIVED").click()
    await expect(row_of(panel, "RECEIVED").locator("td").last).to_contain_text("×", timeout=SLOW_MS)
    assert len(await notebook.value("list(map(str, panel.figure().data))")) > 2
    await panel.locator(".hl-drop").click()
    await expect(panel.locator(".hl-bar-line")).to_have_count(2, timeout=SLOW_MS)


async def test_the_keyboard_reads_the_pictures_and_the_notebook_keeps_its_hands_off(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    panel = await open_panel(notebook, lab_server, "latency-keys")
    await notebook.execute("drive(5)")
    await expect(row_of(panel, "HANDLED")).to_be_visible(timeout=SLOW_MS)
    cells = await notebook.page.locator(".jp-Cell").count()
    press = notebook.page.keyboard.press
    percentiles, distribution = panel.locator(".hl-percentiles"), panel.locator(".hl-distribution")
    await percentiles.focus()
    await press("Home")
    await expect(percentiles).to_have_attribute("aria-valuetext", await read_first(notebook), timeout=SLOW_MS)
    for _ in range(4):
        await press("Shift+ArrowRight")
    await expect(percentiles).to_have_attribute("aria-valuenow", "40")
    assert str(await percentiles.get_attribute("aria-valuetext")).startswith("90 %, ")
    await distribution.focus()
    await press("End")
    await expect(distribution).to_have_attribute("aria-valuenow", "159")
    await press("Escape")
    await expect(distribution).to_have_attribute("aria-valuetext", "nothing is read")

    await panel.locator(".hl-scroll").focus()
    await press("Home")
    await expect(panel.locator("tbody tr").first).to_have_attribute("aria-selected", "true", timeout=SLOW_MS)
    await press("ArrowDown")
    await expect(panel.locator("tbody tr").nth(1)).to_have_attribute("aria-selected", "true", timeout=SLOW_MS)
    await press("g")
    await expect(panel.get_by_role("button", name="Types")).to_have_attribute("aria-pressed", "true", timeout=SLOW_MS)
    await press("k")
    await expect(panel.locator(".hl-drop")).to_be_visible(timeout=SLOW_MS)
    # Letters are the notebook's commands (b: a cell below, dd: delete) wherever no widget listens.
    for key in ("b", "d", "d", "x", "a"):
        await press(key)
    assert await notebook.page.locator(".jp-Cell").count() == cells


async def read_first(notebook: NotebookPage) -> str:
    """What the percentiles' picture reads at 0 %: the least of all values, as the engine has it."""
    least = await notebook.value(
        "(lambda h: int(h.buckets()[0][0] + (h.buckets()[1][0] - h.buckets()[0][0] + 1) // 2))"
        "(bus.latency.stages[__import__('hftlab').metrics.Stage[panel.choice['stage']]])"
    )
    return str(await notebook.page.evaluate(f"'0 %, ' + ({DURATION})({least})"))


DURATION = """ns => {
  const [, by, unit] = [[1e3, 1, "ns"], [1e6, 1e3, "µs"], [1e9, 1e6, "ms"]].find(([most]) => ns < most * 0.9995);
  return `${Number((Math.fround(ns) / by).toPrecision(3))} ${unit}`;
}"""


async def test_a_panel_of_what_stands_sends_nothing(notebook: NotebookPage, lab_server: LabServer) -> None:
    panel = await open_panel(notebook, lab_server, "latency-idle")
    await notebook.execute("drive(2)")
    await expect(panel.locator(".hl-state")).to_have_text("Standing", timeout=SLOW_MS)
    count = (
        "sent, _send = [], panel.comm.send\n"
        "panel.comm.send = lambda *a, **k: (sent.append(k), _send(*a, **k))[1]\n"
        "looks = panel._refreshes.statistics().refreshes"
    )
    assert (await notebook.execute(count))["status"] == "ok"
    await notebook.until("panel._refreshes.statistics().refreshes > looks + 4")
    assert await notebook.value("len(sent)") == 0


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_looks_well_in_both_themes(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path, theme: str
) -> None:
    panel = await open_panel(notebook, lab_server, f"latency-{theme.lower()}")
    page = notebook.page
    await notebook.theme(f"JupyterLab {theme}")
    await page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    await expect(panel.locator(".hl-note").last).to_contain_text("Nothing has been recorded yet", timeout=SLOW_MS)
    await page.locator("#jupyterlab-splash").wait_for(state="hidden")  # of the change of the theme
    await page.screenshot(path=screenshots / f"latency-{theme.lower()}-empty.png")
    await notebook.execute("drive(20)")
    await notebook.execute("panel.keep(); drive(30, -300_000); drive(30, 400_000)")
    await panel.get_by_role("button", name="Handlers").click()
    await expect(panel.locator("tbody tr")).to_have_count(2, timeout=SLOW_MS)
    for by, width, height, name in (
        ("Stages", 1_280, 900, ""),
        ("Symbols", 1_700, 900, "-wide"),
        ("Handlers", 760, 1_150, "-narrow"),
        ("Stages", 400, 1_400, "-phone"),
    ):
        await page.set_viewport_size({"width": width, "height": height})
        await panel.get_by_role("button", name=by).click()
        await expect(panel.locator("thead th").first).to_have_text(by.removesuffix("s"), timeout=SLOW_MS)
        await panel.locator("tbody tr").first.click()
        await expect(panel.locator("tbody tr").first).to_have_attribute("aria-selected", "true", timeout=SLOW_MS)
        await panel.locator(".hl-percentiles").focus()
        for key in ("Home", *["Shift+ArrowRight"] * 8):
            await page.keyboard.press(key)
        await panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
        await page.wait_for_timeout(600)
        await page.screenshot(path=screenshots / f"latency-{theme.lower()}{name}.png")
        assert await panel.evaluate("panel => panel.scrollWidth - panel.clientWidth") <= 0


async def test_a_panel_whose_kernel_was_restarted_says_so(notebook: NotebookPage, lab_server: LabServer) -> None:
    panel = await open_panel(notebook, lab_server, "latency-restarted")
    await expect(panel.locator(".hl-state")).to_have_text("Nothing measured yet", timeout=SLOW_MS)
    await notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    await expect(panel.locator(".hl-state")).to_contain_text("run the cell again", timeout=SLOW_MS)
