from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.server import LabServer

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from playwright.async_api import Locator, expect

from tests.browser.notebook import NotebookPage, write_notebook

LAB = """
import numpy as np
import hftlab as hl

lab = hl.Lab()
await lab.start()
whole = hl.sim.market(["BTCUSDT", "ETHUSDT"], seconds=60, seed=7, rate_hz=100)
"""
# Some rows never come (lost at the deadline), and some come a few events late (filled).
BROKEN = """
order = np.arange(len(whole))
for at in range(500, len(whole) - 500, 1_500):
    order[at : at + 4] = order[[at + 1, at + 2, at + 3, at]]
kept = np.ones(len(whole), bool)
for at in range(1_000, len(whole) - 500, 700):
    kept[at : at + 1 + at // 700 % 3] = False
rows = whole.records[order][kept[order]]
rows["received"] = np.maximum.accumulate(rows["received"])
broken = hl.EventBatch(rows, whole.symbols, whole.sources)
await lab.streams.append(broken, session=name)
"""
# Every fourth row never comes.
SHATTERED = """
rows = whole.records[np.arange(len(whole)) % 4 > 0]
await lab.streams.append(hl.EventBatch(rows, whole.symbols, whole.sources), session=name)
"""
INSPECTOR = """
replay = lab.replay(name)
await replay.run(progress=False)
inspector = hl.widgets.GapInspector(replay)
inspector
"""
SLOW_MS = 30_000


async def open_inspector(notebook: NotebookPage, server: LabServer, name: str, session: str = BROKEN) -> Locator:
    """Write a notebook that ends with an inspector of a broken session, run it, and return the inspector."""
    # All notebooks of a folder share its server: each has a session of its own.
    write_notebook(server.folder / f"{name}.ipynb", [LAB, f"name = {name!r}", session, INSPECTOR])
    await notebook.open(server.page(f"{name}.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    inspector = notebook.page.locator(".hftlab-gap-inspector .hl-inspector")
    await inspector.wait_for(timeout=60_000)
    await inspector.evaluate("inspector => inspector.scrollIntoView({block: 'end'})")
    return inspector


def rows_of(inspector: Locator) -> Locator:
    return inspector.locator("tr[data-key]")


async def expect_counts(notebook: NotebookPage, inspector: Locator) -> None:
    """The chips count every gap of the table, whatever is filtered."""
    counts = await notebook.value("replay.gaps.counts")
    for state, count in counts.items():
        await expect(inspector.locator(f".hl-chip[data-gap={state}] b")).to_have_text(f"{count:,}", timeout=SLOW_MS)


async def test_gaps_are_filtered_selected_looked_into_and_jumped_to(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    inspector = await open_inspector(notebook, lab_server, "inspected")
    rows = rows_of(inspector)
    counts = await notebook.value("replay.gaps.counts")
    assert counts["lost"] > 5
    assert counts["filled"] > 2
    await expect_counts(notebook, inspector)
    await expect(rows).to_have_count(sum(counts.values()))

    await inspector.locator(".hl-chip[data-gap=filled]").click()
    await expect(rows).to_have_count(counts["lost"], timeout=SLOW_MS)
    await expect_counts(notebook, inspector)
    source = await notebook.value("str(next(gap.source for gap in replay.gaps if gap.state.name == 'LOST'))")
    of_source = f"[gap for gap in replay.gaps if gap.state.name == 'LOST' and str(gap.source) == '{source}']"
    choice = inspector.locator(".hl-source option", has_text=source)
    await inspector.locator(".hl-source").select_option(value=await choice.get_attribute("value"))
    await expect(rows).to_have_count(await notebook.value(f"len({of_source})"), timeout=SLOW_MS)

    await rows.nth(1).click()
    chosen = f"{of_source}[1]"
    first, last = await notebook.value(f"[{chosen}.first, {chosen}.last]")
    await expect(inspector.locator(".hl-what")).to_contain_text(f"{first}", timeout=SLOW_MS)
    await expect(rows.nth(1)).to_have_attribute("aria-selected", "true")
    events = inspector.locator(".hl-events tbody tr")
    await expect(events).to_have_count(21, timeout=SLOW_MS)
    missing = await events.evaluate_all("lines => lines.findIndex(line => line.className === 'hl-missing')")
    assert missing == 10
    beside = [await events.nth(at).locator(".hl-first").inner_text() for at in (missing - 1, missing + 1)]
    assert beside == [str(first - 1), str(last + 1)]

    sides = await notebook.value(f"[{chosen}.before, {chosen}.after]")
    assert 0 < sides[0] < sides[1]
    await inspector.get_by_role("button", name="Jump after").click()
    await notebook.until("replay.state.value == 'paused' and replay.delivered == 0")
    await expect(inspector.locator(".hl-state")).to_have_text("Paused", timeout=SLOW_MS)
    # The fresh run has found none yet: what was shown stays, marked.
    await expect(rows.nth(1)).to_contain_text("earlier", timeout=SLOW_MS)
    await expect(inspector.locator(".hl-what")).to_contain_text(f"{first}")
    await notebook.execute("stepped = await replay.step()")
    assert await notebook.value("stepped.event_ids.tolist()") == [sides[1]]

    await inspector.get_by_role("button", name="Jump before").click()
    await notebook.until("replay.state.value == 'paused' and replay.delivered == 0")
    await notebook.execute("stepped = await replay.step(); await replay.run_until(stepped[0].received + 1_000_000_000)")
    assert await notebook.value("stepped.event_ids.tolist()") == [sides[0]]
    await expect(rows.nth(1)).not_to_contain_text("earlier", timeout=SLOW_MS)
    await expect(rows.nth(0)).to_contain_text("earlier")

    await inspector.locator(".hl-everything").click()
    await expect(inspector.locator(".hl-listed")).to_be_empty(timeout=SLOW_MS)
    await notebook.execute("await replay.seek(whole.records['received'][0].item()); await replay.run(progress=False)")
    await expect(inspector.locator("tr[data-run=earlier]")).to_have_count(0, timeout=SLOW_MS)
    await expect_counts(notebook, inspector)


async def point_at_a_gap(notebook: NotebookPage, inspector: Locator) -> None:
    """Move the mouse along the timeline's first lane until it is over a gap."""
    canvas = inspector.locator("canvas")
    box = await canvas.bounding_box()
    assert box is not None
    for at in range(int(box["width"]) // 3, int(box["width"]), 4):
        for level in (6, 15, 24):
            await notebook.page.mouse.move(box["x"] + at, box["y"] + level)
            if await canvas.evaluate("canvas => canvas.style.cursor") == "pointer":
                return
    raise AssertionError("no gap on the timeline")


async def test_the_timeline_selects_zooms_and_filters(notebook: NotebookPage, lab_server: LabServer) -> None:
    inspector = await open_inspector(notebook, lab_server, "timeline")
    canvas = inspector.locator("canvas")
    await point_at_a_gap(notebook, inspector)
    await notebook.page.mouse.down()
    await notebook.page.mouse.up()
    await expect(inspector.locator(".hl-what")).to_be_visible(timeout=SLOW_MS)
    await notebook.until("bool(inspector.selected)")
    assert await inspector.locator("tr[aria-selected=true]").count() == 1

    box = await canvas.bounding_box()
    assert box is not None
    await notebook.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 15)
    await notebook.page.mouse.down()
    await notebook.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 15, steps=4)
    await notebook.page.mouse.up()
    await notebook.until("inspector.timeline['zoomed']")
    await expect(inspector.get_by_role("button", name="Whole")).to_be_enabled(timeout=SLOW_MS)
    await canvas.dblclick(position={"x": box["width"] * 0.7, "y": 15})
    await notebook.until("not inspector.timeline['zoomed']")

    await canvas.click(position={"x": 12, "y": 15})  # a lane's name
    await notebook.until("inspector.filters['source'] != ''")
    assert len(await notebook.value("inspector.timeline['lanes']")) == 1


async def test_the_keyboard_is_enough_and_the_notebook_keeps_its_hands_off(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    inspector = await open_inspector(notebook, lab_server, "inspector-keys")
    cells = await notebook.page.locator(".jp-Cell").count()
    what = inspector.locator(".hl-what")
    canvas = inspector.locator("canvas")
    await canvas.focus()
    await canvas.press("ArrowDown")
    await notebook.until("inspector.selected.get('place') == 0")
    await canvas.press("ArrowDown")
    await canvas.press("ArrowRight")
    await notebook.until("inspector.selected.get('place') == 2")
    await canvas.press("ArrowUp")
    await notebook.until("inspector.selected.get('place') == 1")
    await expect(what).to_contain_text(await notebook.value("inspector.selected['numbers']"), timeout=SLOW_MS)
    chosen = "next(gap for gap in gaps if str(gap.first) == inspector.selected['numbers'].split('…')[0])"
    await notebook.execute("gaps = list(replay.gaps)")
    for press, side in (("Enter", "before"), ("Shift+Enter", "after")):
        wanted = await notebook.value(f"{chosen}.{side}")
        await canvas.press(press)
        at = wanted & ((1 << 40) - 1)
        await notebook.until(f"replay.state.value == 'paused' and replay.statistics().log_sequence == {at}")
        await notebook.execute("stepped = await replay.step()")
        assert await notebook.value("stepped.event_ids.tolist()") == [wanted]
    await canvas.press("+")
    await notebook.until("inspector.timeline['zoomed']")
    await canvas.press("0")
    await notebook.until("not inspector.timeline['zoomed']")
    await canvas.press("End")
    await notebook.until("inspector.selected.get('place') == inspector.page['total'] - 1")
    await expect(inspector.locator("tr[aria-selected=true]")).to_be_in_viewport(timeout=SLOW_MS)
    # Letters are the notebook's commands (b: a cell below, dd: delete) wherever no widget listens.
    for key in ("b", "d", "d", "x", "a"):
        await canvas.press(key)
    assert await notebook.page.locator(".jp-Cell").count() == cells
    await canvas.press("Escape")
    await expect(what).to_be_hidden(timeout=SLOW_MS)


async def test_thousands_of_gaps_are_scrolled_through_with_a_few_rows_at_a_time(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    inspector = await open_inspector(notebook, lab_server, "shattered", SHATTERED)
    await expect_counts(notebook, inspector)
    total = await notebook.value("len(replay.gaps)")
    assert total > 1_000
    assert await rows_of(inspector).count() <= 200
    scroll = inspector.locator(".hl-scroll")
    await scroll.evaluate("scroll => { scroll.scrollTop = scroll.scrollHeight / 2; }")
    await notebook.until(f"inspector.page['offset'] > {total // 3}")
    in_sight = (
        "() => { const box = document.querySelector('.hl-scroll').getBoundingClientRect();"
        " return document.elementFromPoint(box.x + 60, box.y + 120)?.closest('tr')?.dataset.key; }"
    )
    await notebook.page.wait_for_function(in_sight, timeout=SLOW_MS)
    key = await notebook.page.evaluate(in_sight)
    await scroll.click(position={"x": 60, "y": 120})
    await notebook.until(f"inspector.selected.get('key') == '{key}'")
    assert await notebook.value("inspector.selected['place']") > total // 3
    assert await rows_of(inspector).count() <= 200
    await expect(inspector.locator(".hl-note").first).to_contain_text("drag to zoom in", timeout=SLOW_MS)


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_looks_well_in_both_themes(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path, theme: str
) -> None:
    inspector = await open_inspector(notebook, lab_server, f"inspector-{theme.lower()}")
    page = notebook.page
    await notebook.theme(f"JupyterLab {theme}")
    await page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    await rows_of(inspector).nth(5).click()
    await inspector.get_by_role("button", name="Jump before").click()
    await notebook.until("replay.state.value == 'paused' and replay.delivered == 0")
    await expect(inspector.locator(".hl-events tbody tr")).to_have_count(21, timeout=SLOW_MS)
    await expect(inspector.locator(".hl-earlier-runs")).not_to_be_empty(timeout=SLOW_MS)
    for width, height, name in ((1_280, 800, ""), (1_700, 800, "-wide"), (700, 1_000, "-narrow")):
        await page.set_viewport_size({"width": width, "height": height})
        await inspector.evaluate("inspector => inspector.scrollIntoView({block: 'end'})")
        await page.wait_for_timeout(300)
        await page.screenshot(path=screenshots / f"inspector-{theme.lower()}{name}.png")
        assert await inspector.evaluate("inspector => inspector.scrollWidth - inspector.clientWidth") <= 0


async def test_an_inspector_whose_kernel_was_restarted_says_so(notebook: NotebookPage, lab_server: LabServer) -> None:
    inspector = await open_inspector(notebook, lab_server, "inspector-restarted")
    await rows_of(inspector).nth(1).click()
    await notebook.until("bool(inspector.selected)")
    await notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    await expect(inspector.locator(".hl-state")).to_contain_text("run the cell again", timeout=SLOW_MS)
