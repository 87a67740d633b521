from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from tests.browser.server import LabServer

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from playwright.async_api import Locator, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from tests.browser.notebook import NotebookPage, write_notebook

_PRESSES = 4

LAB = """
import hftlab as hl

lab = hl.Lab()
await lab.start()
batch = hl.sim.market(["BTCUSDT", "ETHUSDT"], seconds=60, seed=7)
recorded = await lab.streams.append(batch, session="two-markets")
"""
HANDLER = """
@lab.bus.on("market.*", name="wide")
def wide(symbol, bid, ask):
    if ask - bid > 2.5e-4 * bid:
        return hl.SignalEvent(symbol=symbol, signal_type="WIDE", strength=ask - bid, strategy_id="s1")
"""
PLAYER = """
replay = lab.replay("two-markets", speed=10)
player = hl.widgets.ReplayPlayer(replay)
player
"""
FLAT_OUT = """
import asyncio

other = hl.EventBus(name="other")

@other.on("market.*")
def notional(price, volume):
    price * volume

async def flat_out():
    global runs
    runs = 0
    while True:
        await lab.replay("two-markets", bus=other).run(progress=False)
        runs += 1

load = asyncio.create_task(flat_out())
"""
SLOW_MS = 30_000

# Frames of the screen and changes of the player's clock in three seconds.
COUNTS = """() => new Promise(done => {
    let [frames, updates] = [0, 0];
    const clock = new MutationObserver(() => { updates += 1; });
    const changes = {childList: true, characterData: true, subtree: true};
    clock.observe(document.querySelector('.hl-fraction'), changes);
    const end = performance.now() + 3000;
    const frame = () => {
        frames += 1;
        if (performance.now() < end) return requestAnimationFrame(frame);
        clock.disconnect();
        return done([frames, updates]);
    };
    requestAnimationFrame(frame);
})"""


async def open_player(notebook: NotebookPage, server: LabServer, name: str, *cells: str) -> Locator:
    """Write a notebook that ends with a player, run it, and return the player."""
    write_notebook(server.folder / f"{name}.ipynb", [LAB, HANDLER, *cells, PLAYER])
    await notebook.open(server.page(f"{name}.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    player = notebook.page.locator(".hftlab-replay-player .hl-player")
    await player.wait_for(timeout=60_000)
    await player.scroll_into_view_if_needed()
    return player


async def use_every_control(notebook: NotebookPage, player: Locator) -> None:
    """What a user can press, each with what it has to lead to in the kernel."""
    state = player.locator(".hl-state")
    await expect(state).to_have_text("Ready")

    await player.locator(".hl-step").click()
    await notebook.until("replay.delivered == 1")
    await player.locator(".hl-count").fill("500")
    await player.locator(".hl-step").click()
    await notebook.until("replay.delivered == 501")
    await expect(player.locator(".hl-events tbody tr")).to_have_count(11, timeout=SLOW_MS)
    await expect(player.locator(".hl-counts")).to_contain_text("501", timeout=SLOW_MS)

    await player.locator(".hl-play").click()
    await expect(state).to_have_text("Playing 10×", timeout=SLOW_MS)
    await player.locator(".hl-speed").select_option("0.5")
    await notebook.until("replay.speed == 0.5")
    await expect(state).to_have_text("Playing 0.5×", timeout=SLOW_MS)
    await player.locator(".hl-play").click()
    await expect(state).to_have_text("Paused", timeout=SLOW_MS)
    await notebook.until("replay.state.value == 'paused'")

    await player.locator(".hl-to").fill("14:30:20")
    await player.locator(".hl-to").press("Enter")
    await notebook.until("abs(replay.statistics().progress - 1 / 3) < 0.02")
    await expect(player.locator(".hl-time")).to_contain_text("14:30:20", timeout=SLOW_MS)
    # The slider as a keyboard moves it: from a third of the range on to two thirds.
    await player.locator(".hl-slider").evaluate(
        "slider => { slider.value = 667; for (const name of ['input', 'change'])"
        " slider.dispatchEvent(new Event(name, {bubbles: true})); }"
    )
    await notebook.until("abs(replay.statistics().progress - 2 / 3) < 0.02")

    await player.locator(".hl-restart").click()
    await notebook.until("replay.statistics().progress < 0.01 and replay.delivered == 0")
    await player.locator(".hl-speed").select_option("inf")
    await player.locator(".hl-play").click()
    await notebook.until("replay.state.value == 'done' and replay.delivered == len(batch)")
    await expect(state).to_have_text("Done", timeout=SLOW_MS)

    await player.locator(".hl-symbol").select_option("ETHUSDT")
    await notebook.until("player.path['symbol'] == 'ETHUSDT'")
    await player.locator(".hl-window").select_option("range")
    box = await player.locator(".hl-canvas").bounding_box()
    assert box is not None
    await player.locator(".hl-canvas").click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    await notebook.until("0.3 < replay.statistics().progress < 0.7 and replay.state.value == 'paused'")


async def test_every_control_does_what_it_says(notebook: NotebookPage, lab_server: LabServer) -> None:
    player = await open_player(notebook, lab_server, "controls")
    await use_every_control(notebook, player)

    await player.locator(".hl-to").fill("half past nine")
    await player.locator(".hl-go").click()
    error = player.locator(".hl-error")
    await expect(error).to_contain_text("TimeError", timeout=SLOW_MS)
    await expect(error).to_contain_text("half past nine")
    await expect(player.locator(".hl-to")).to_have_attribute("aria-invalid", "true")
    await player.locator(".hl-dismiss").click()
    await expect(error).to_be_hidden(timeout=SLOW_MS)


async def test_every_control_does_what_it_says_while_another_replay_runs_flat_out(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    player = await open_player(notebook, lab_server, "loaded", FLAT_OUT)
    await notebook.until("runs > 2")
    await use_every_control(notebook, player)
    before = await notebook.value("runs")
    await notebook.until(f"runs > {before}")
    assert not await notebook.value("load.done()")


async def test_the_keyboard_is_enough_and_the_notebook_keeps_its_hands_off(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    player = await open_player(notebook, lab_server, "keys")
    cells = await notebook.page.locator(".jp-Cell").count()
    canvas = player.locator(".hl-canvas")
    await canvas.focus()
    await canvas.press("ArrowRight")
    await canvas.press("ArrowRight")
    await notebook.until("replay.delivered == 2")
    await player.locator(".hl-count").fill("98")
    await canvas.focus()
    await canvas.press("Shift+ArrowRight")
    await notebook.until("replay.delivered == 100")
    await canvas.press("+")
    await notebook.until("replay.speed == 20")
    await canvas.press("Space")
    await notebook.until("replay.state.value == 'running'")
    # Space goes by what the view shows, which hears of it a moment later than the kernel knows it.
    await expect(player.locator(".hl-state")).to_contain_text("Playing", timeout=SLOW_MS)
    await canvas.press("Space")
    await notebook.until("replay.state.value == 'paused'")
    await canvas.press("PageDown")
    await notebook.until("replay.statistics().skipped > 0")
    await canvas.press("Home")
    await notebook.until("replay.delivered == 0 and replay.state.value == 'paused'")
    # Letters are the notebook's commands (b: a cell below, dd: delete) wherever no player listens.
    for key in ("b", "d", "d", "x", "a"):
        await canvas.press(key)
    # Tab goes on through the controls.
    await player.locator(".hl-restart").focus()
    reached = []
    for _ in range(6):
        await notebook.page.keyboard.press("Tab")
        reached.append(await notebook.page.evaluate("document.activeElement.className"))
    assert reached == ["hl-play", "hl-step", "hl-count", "hl-speed", "hl-to", "hl-go"]
    assert await notebook.page.locator(".jp-Cell").count() == cells


async def keep_smoothness(notebook: NotebookPage, file: Path) -> None:
    """Write down how often the screen and the player's clock change in 3 s, and what that costs the kernel."""
    cost = "[__import__('time').monotonic(), *(lambda s: (s.refreshes, s.spent_s))(player._refreshes.statistics())]"
    begin = await notebook.value(cost)
    frames, updates = await notebook.page.evaluate(COUNTS)
    end = await notebook.value(cost)
    elapsed_s = end[0] - begin[0]
    assert updates > 0
    figures = {
        "frames_hz": round(frames / 3, 1),
        "clock_updates_hz": round(updates / 3, 1),
        "refreshes_hz": round((end[1] - begin[1]) / elapsed_s, 1),
        "share_of_the_kernel": round((end[2] - begin[2]) / elapsed_s, 4),
        "rate": (await notebook.value("replay.statistics().rate_hz")),
    }
    file.write_text(json.dumps(figures, indent=1))  # noqa: ASYNC240 - a few bytes


async def interrupt(notebook: NotebookPage, code: str) -> None:
    """Run a cell that never ends and press the Interrupt button until it has ended with an error.

    Once is enough nearly always. But ipykernel 7.4 loses a cell's reply where the signal strikes the code that handles
    its own messages (9 of 120 signals, each in the kernel's code and none in ours), and then a person presses again.
    """
    before = len(await notebook.errors())
    kernel = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    for _ in range(_PRESSES):
        sleeping = await notebook.add_cell(code)
        await notebook.page.evaluate(
            "index => { const panel = jupyterapp.shell.currentWidget; panel.content.activeCellIndex = index;"
            " jupyterapp.commands.execute('notebook:run-cell'); }",
            sleeping,
        )
        await notebook.page.wait_for_function(f"{kernel}.status === 'busy'", timeout=SLOW_MS)
        for _ in range(_PRESSES):
            await notebook.page.evaluate("{ jupyterapp.commands.execute('notebook:interrupt-kernel'); }")
            with contextlib.suppress(PlaywrightTimeout):
                await notebook.page.wait_for_function(f"{kernel}.status === 'idle'", timeout=SLOW_MS / 6)
                break
            # Whoever is idle and has not said so says it after the next message.
            await notebook.page.evaluate(f"{{ {kernel}.requestKernelInfo(); }}")
        errors = await notebook.errors()
        if len(errors) > before:
            assert errors[-1].split(":")[0] in ("CancelledError", "KeyboardInterrupt")
            return
    raise AssertionError(f"{code!r} went on, or told no error, after {_PRESSES} times {_PRESSES} interrupts")


async def test_the_kernel_stays_alive_while_the_player_plays_flat_out(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path
) -> None:
    looped = """
async def again():
    while True:
        replay.play()
        await replay.wait()

loop = asyncio.create_task(again())
"""
    player = await open_player(notebook, lab_server, "alive", "import asyncio")
    await player.locator(".hl-speed").select_option("inf")
    await notebook.until("replay.speed == float('inf')")
    cell = await notebook.add_cell(looped)
    await notebook.run_cell(cell)
    await expect(player.locator(".hl-state")).to_have_text("Playing flat out", timeout=SLOW_MS)

    await keep_smoothness(notebook, screenshots.parent / "browser.json")
    answer = await notebook.add_cell("6 * 7")
    await notebook.run_cell(answer)
    await expect(notebook.page.locator(".jp-OutputArea-output").last).to_contain_text("42", timeout=SLOW_MS)
    assert "print" in await notebook.complete("prin")

    for code in ("await asyncio.sleep(120)", "while True: pass"):
        await interrupt(notebook, code)

    # Background tasks survive an interrupt: stopping is explicit.
    assert await notebook.value("[loop.done(), repr(lab).endswith('started)')]") == [False, True]
    before = await notebook.value("player._refreshes.statistics().refreshes")
    await notebook.until(f"player._refreshes.statistics().refreshes > {before} + 3")
    await player.locator(".hl-play").scroll_into_view_if_needed()
    await notebook.value("loop.cancel()")
    await notebook.execute("replay.pause(); await replay.paused()")
    await expect(player.locator(".hl-state")).not_to_have_text("Playing flat out", timeout=SLOW_MS)
    assert await notebook.value("lab.close() and None") is None


async def test_what_a_handler_raises_is_shown_where_one_looks(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path
) -> None:
    fragile = """
@lab.bus.on(hl.MarketDataEvent, symbol="ETHUSDT", name="fragile")
def fragile(price):
    if price > 0:
        raise ZeroDivisionError("an ordinary bug")
"""
    player = await open_player(notebook, lab_server, "failing", fragile)
    await player.locator(".hl-play").click()
    error = player.locator(".hl-error")
    await expect(error).to_contain_text("an ordinary bug", timeout=SLOW_MS)
    await expect(player.locator(".hl-state")).to_have_text("Playing 10×")
    await error.locator("summary").click()
    await expect(error.locator("pre")).to_contain_text("in fragile")
    await notebook.page.screenshot(path=screenshots / "player-handler-failure.png")
    await player.locator(".hl-play").click()
    await expect(player.locator(".hl-state")).to_have_text("Paused", timeout=SLOW_MS)
    await player.locator(".hl-dismiss").click()
    await expect(error).to_be_hidden(timeout=SLOW_MS)


async def test_running_its_cell_again_closing_it_and_reloading_the_page_leave_one_player_or_none(
    notebook: NotebookPage, lab_server: LabServer
) -> None:
    player = await open_player(notebook, lab_server, "again")
    comms = "len(__import__('comm').get_comm_manager().comms)"
    before = await notebook.value(comms)
    for _ in range(3):
        await notebook.run_cell(2)
    await expect(player).to_have_count(1)
    assert await notebook.value("len(replay._watchers)") == 1
    assert await notebook.value(comms) == before

    await player.locator(".hl-step").click()
    await notebook.until("replay.delivered == 1")
    await notebook.page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    await notebook.open(lab_server.page("again.ipynb"))
    restored = notebook.page.locator(".hftlab-replay-player .hl-player")
    await expect(restored).to_have_count(1, timeout=SLOW_MS)
    await restored.scroll_into_view_if_needed()
    await expect(restored.locator(".hl-counts")).to_contain_text("delivered", timeout=SLOW_MS)
    await restored.locator(".hl-step").click()
    await notebook.until("replay.delivered == 2")
    await expect(restored.locator(".hl-events tbody tr")).to_have_count(2, timeout=SLOW_MS)

    await notebook.execute("player.close()")
    await expect(restored).to_have_count(0, timeout=SLOW_MS)
    assert await notebook.value("[len(replay._watchers), player._refreshes.idle, player._playing.remote.tasks]") == [
        0,
        True,
        0,
    ]
    assert await notebook.value(comms) == before - 2


async def test_a_player_whose_kernel_was_restarted_says_so(notebook: NotebookPage, lab_server: LabServer) -> None:
    player = await open_player(notebook, lab_server, "restarted")
    await player.locator(".hl-step").click()
    await notebook.until("replay.delivered == 1")
    await notebook.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    await expect(player.locator(".hl-state")).to_contain_text("run the cell again", timeout=SLOW_MS)


async def test_text_out_of_a_stream_is_never_markup(notebook: NotebookPage, lab_server: LabServer) -> None:
    hostile = """
evil = "<img src=x onerror='window.broken=1'>"
events = [hl.MarketDataEvent(symbol=evil, kind="TRADE", price=1.0 + i, volume=1, received=1_700_000_000_000_000_000 + i)
          for i in range(5)]
await lab.streams.append(hl.EventBatch.from_events(events), session="<b>bold</b>")
"""
    await open_player(notebook, lab_server, "hostile", hostile)
    cell = await notebook.add_cell('second = hl.widgets.ReplayPlayer(lab.replay("<b>bold</b>"))\nsecond')
    await notebook.run_cell(cell)
    player = notebook.page.locator(".hftlab-replay-player .hl-player").last
    await player.scroll_into_view_if_needed()
    await expect(player.locator(".hl-session")).to_have_text("<b>bold</b>")
    await player.locator(".hl-count").fill("5")
    await player.locator(".hl-step").click()
    await expect(player.locator(".hl-events tbody tr")).to_have_count(5, timeout=SLOW_MS)
    await expect(player.locator(".hl-events tbody td.hl-c2").first).to_contain_text("<img src=x")
    assert await player.locator("img, .hl-session b, .hl-events b").count() == 0
    assert await notebook.page.evaluate("window.broken") is None


@pytest.mark.parametrize("theme", ["Light", "Dark"])
async def test_it_looks_well_in_both_themes(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path, theme: str
) -> None:
    player = await open_player(notebook, lab_server, f"looks-{theme.lower()}")
    page = notebook.page
    await notebook.theme(f"JupyterLab {theme}")
    await page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    await notebook.execute("await replay.run_until('14:30:31')")
    await expect(player.locator(".hl-state")).to_have_text("Paused", timeout=SLOW_MS)
    await player.locator(".hl-play").click()
    await expect(player.locator(".hl-state")).to_have_text("Playing 10×", timeout=SLOW_MS)
    await notebook.until("replay.statistics().progress > 0.6")
    await player.evaluate("player => player.scrollIntoView({block: 'end'})")
    await page.wait_for_timeout(300)
    await page.screenshot(path=screenshots / f"player-{theme.lower()}.png")
    await page.set_viewport_size({"width": 700, "height": 1_000})
    await player.evaluate("player => player.scrollIntoView({block: 'end'})")
    await page.wait_for_timeout(300)
    await page.screenshot(path=screenshots / f"player-{theme.lower()}-narrow.png")
    overflow = await player.evaluate("player => player.scrollWidth - player.clientWidth")
    assert overflow <= 0
