from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.server import LabServer

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from playwright.async_api import Locator, expect

from tests.browser.notebook import NotebookPage, write_notebook

# A clock that is told of UTC by hand, and servers that nobody asks.
CLOCK = """
import math, random, time
import hftlab as hl
from hftlab.clock import Estimate, NtpStatistics, ServerState, ServerStatistics

clock = hl.SystemClock(holdover_after_s=3.0)

def tell(offset_ns, bound_ns=340_000, drift_ppb=-12_300.0):
    counter_ns = time.perf_counter_ns()
    clock.discipline(Estimate(counter_ns, clock.now_ns() - counter_ns + offset_ns, bound_ns, drift_ppb=drift_ppb,
                              servers=("a", "b", "c")))

def server(name, state=ServerState.TRUECHIMER, **values):
    good = dict(address="192.0.2.1:123", stratum=2, reach=255, offset_ns=1_500, bound_ns=900_000, delay_ns=1_600_000,
                jitter_ns=12_000, poll_s=64.0, sent=40, answered=40, refused={}, stamps={}, last_error="")
    return ServerStatistics(server=name, state=state, **{**good, **values})

class Poller:
    clock = clock
    shown = (server("time.example.org"), server("ntp3.example.net", offset_ns=90_000),
             server("ntp2.example.net:1123", address="[2001:db8::1]:1123", offset_ns=-240_000))

    @property
    def servers(self):
        return tuple(one.server for one in self.shown)

    def statistics(self):
        return NtpStatistics(servers=self.shown, estimate=None, estimates=0, undecided=0, restarts=0)

poller = Poller()
LIAR = server("<img src=x onerror=window.hacked=1> by a name that no column of any table has ever had any room for",
              ServerState.FALSETICKER, offset_ns=1_004_000_000, refused={"origin": 12, "timeout": 3},
              last_error="the answer's origin timestamp is not ours: spoofed, or late")
GONE = server("gone.example.org", ServerState.UNREACHABLE, reach=0, answered=0, refused={"timeout": 40}, offset_ns=None,
              bound_ns=None, delay_ns=None, jitter_ns=None, stratum=None, last_error="no answer within 1 s")
"""
PANEL = """
panel = hl.widgets.ClockPanel(poller)
panel
"""
OF_A_LAB = """
import hftlab as hl
lab = hl.Lab(ntp=[])
panel = hl.widgets.ClockPanel(lab)
panel
"""
SLOW_MS = 30_000


async def open_panel(notebook: NotebookPage, server: LabServer, name: str, *cells: str) -> Locator:
    """Write a notebook that ends with a panel, run it, and return the panel."""
    write_notebook(server.folder / f"{name}.ipynb", cells or [CLOCK, PANEL])
    await notebook.open(server.page(f"{name}.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    panel = notebook.page.locator(".hftlab-clock-panel .hl-clock-panel")
    await panel.wait_for(timeout=60_000)
    await panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
    return panel


async def test_a_clock_is_watched_from_its_first_estimate_into_holdover(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    panel = await open_panel(notebook, lab_server, "clock")
    state, reading = panel.locator(".hl-state"), panel.locator(".hl-reading")
    await expect(state).to_have_text("UNSYNCED", timeout=SLOW_MS)
    await expect(panel.locator(".hl-meaning")).to_contain_text("have not agreed", timeout=SLOW_MS)
    await notebook.execute("tell(50_000)")
    await expect(state).to_have_text("SYNCED", timeout=SLOW_MS)
    await expect(reading).to_contain_text("by 3 servers; drift \N{MINUS SIGN}12.3 ppm", timeout=SLOW_MS)
    await expect(state).to_have_text("HOLDOVER", timeout=SLOW_MS)
    await expect(panel).to_have_attribute("data-clock", "HOLDOVER")
    await notebook.execute("tell(10_000)")
    await expect(state).to_have_text("SYNCED", timeout=SLOW_MS)
    assert await notebook.value("len(panel.figure().data)") > 3
    assert await notebook.value("panel.to_frame()['state'].tolist()[-1]") == "SYNCED"


async def test_servers_are_told_apart_and_their_words_stay_text(notebook: NotebookPage, lab_server: LabServer) -> None:
    panel = await open_panel(notebook, lab_server, "clock-servers")
    await notebook.execute("tell(50_000)")
    rows = panel.locator("tbody tr")
    await expect(rows).to_have_count(3, timeout=SLOW_MS)
    await notebook.execute("Poller.shown = (*Poller.shown, LIAR, GONE)")
    await expect(rows).to_have_count(5, timeout=SLOW_MS)
    liar = rows.nth(3)
    await expect(liar).to_have_attribute("data-kind", "bad")
    await expect(liar.locator(".hl-badge")).to_have_text("falseticker")
    await expect(liar.locator(".hl-why")).to_contain_text("not used: 12 origin, 3 timeout; last: the answer's")
    await expect(panel.locator(".hl-head .hl-badge").nth(1)).to_have_text("1 falseticker", timeout=SLOW_MS)
    assert await panel.locator("img").count() == 0
    assert await notebook.page.evaluate("window.hacked") is None


async def test_a_labs_clock_that_nobody_compares_says_what_to_type(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path
) -> None:
    panel = await open_panel(notebook, lab_server, "clock-alone", OF_A_LAB)
    await expect(panel.locator(".hl-advice")).to_have_text('lab = hl.Lab(ntp=["time.example.org"])', timeout=SLOW_MS)
    for part in (".hl-scroll", "canvas", ".hl-legend"):
        await expect(panel.locator(part)).to_be_hidden()
    await notebook.page.wait_for_timeout(300)
    await notebook.page.screenshot(path=screenshots / "clock-alone.png")
    count = (
        "sent, _send = [], panel.comm.send\n"
        "panel.comm.send = lambda *a, **k: (sent.append(k), _send(*a, **k))[1]\n"
        "looks = panel._refreshes.statistics().refreshes"
    )
    assert (await notebook.execute(count))["status"] == "ok"
    await notebook.until("panel._refreshes.statistics().refreshes > looks + 2")
    assert await notebook.value("len(sent)") == 0


async def test_the_keyboard_reads_the_picture_and_the_notebook_keeps_its_hands_off(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    panel = await open_panel(notebook, lab_server, "clock-keys")
    await notebook.execute("tell(50_000)")
    await expect(panel.locator("canvas")).to_be_visible(timeout=SLOW_MS)
    await notebook.until("len(panel.chart['points']) >= 6 * 4 * 4")
    cells = await notebook.page.locator(".jp-Cell").count()
    canvas, press = panel.locator("canvas"), notebook.page.keyboard.press
    await canvas.focus()
    await press("Home")
    await expect(canvas).to_have_attribute("aria-valuenow", "0")
    for _ in range(2):
        await press("ArrowRight")
    assert "SYNCED" in str(await canvas.get_attribute("aria-valuetext"))
    await press("Escape")
    await expect(canvas).to_have_attribute("aria-valuetext", "now")
    # Letters are the notebook's commands (b: a cell below, dd: delete) wherever no widget listens.
    for key in ("b", "d", "d", "x", "a"):
        await press(key)
    assert await notebook.page.locator(".jp-Cell").count() == cells
    await panel.locator("select").select_option("1 day")
    await notebook.until("panel.chart['window'] == '1 day'")


# An hour of estimates: a start without any, a stretch of holdover, and a falseticker.
PAST = """
import msgspec
from hftlab.clock import ClockReading, ClockState

draws, offset, bound, base_ns = random.Random(3), 900_000.0, 400_000.0, clock.now_ns() - 3_000 * 10**9
for i in range(300):
    held = 150 <= i < 200
    offset = 0.9 * offset + draws.gauss(0, 12_000)
    bound = bound + 150_000 if held else 340_000 + 60_000 * draws.random()
    state = ClockState.UNSYNCED if i < 4 else ClockState.HOLDOVER if held else ClockState.SYNCED
    bound_ns = 1_000_000_000 if i < 4 else int(bound)
    slew_ppb = -12_300 + max(-500_000.0, min(500_000.0, 0.4 * offset))
    drift_ppb = -12_300 + draws.gauss(0, 150)
    past = ClockReading(base_ns + i * 10**10, int(offset), bound_ns, state, drift_ppb, slew_ppb)
    clock.history.add(past, Estimate(0, 0, 1))
tell(12_000)
Poller.shown = (*Poller.shown, LIAR, GONE)
"""


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_looks_well_in_both_themes(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path, theme: str
) -> None:
    panel = await open_panel(notebook, lab_server, f"clock-{theme.lower()}")
    page = notebook.page
    await notebook.theme(f"JupyterLab {theme}")
    await page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    assert (await notebook.execute(PAST))["status"] == "ok"
    await panel.locator("select").select_option("1 hour")
    await expect(panel.locator("tbody tr")).to_have_count(5, timeout=SLOW_MS)
    await notebook.until("panel.chart['window'] == '1 hour' and len(panel.chart['points']) > 6 * 4 * 300")
    for width, height, name in (
        (1_280, 860, ""),
        (1_700, 860, "-wide"),
        (760, 1_000, "-narrow"),
        (400, 1_100, "-phone"),
    ):
        await page.set_viewport_size({"width": width, "height": height})
        await panel.locator("canvas").focus()
        for key in ("Home", *["Shift+ArrowRight"] * 17):
            await page.keyboard.press(key)
        await panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
        await page.wait_for_timeout(600)
        await page.screenshot(path=screenshots / f"clock-{theme.lower()}{name}.png")
        assert await panel.evaluate("panel => panel.scrollWidth - panel.clientWidth") <= 0


async def test_a_panel_whose_kernel_was_restarted_says_so(notebook: NotebookPage, lab_server: LabServer) -> None:
    panel = await open_panel(notebook, lab_server, "clock-restarted")
    await expect(panel.locator(".hl-state")).to_have_text("UNSYNCED", timeout=SLOW_MS)
    await notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    await expect(panel.locator(".hl-state")).to_contain_text("run the cell again", timeout=SLOW_MS)
