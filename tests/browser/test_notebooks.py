from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.browser.server import LabServer
from tests.conftest import PROJECT

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from tests.browser.notebook import NotebookPage


@pytest.mark.parametrize(
    "name", ["01_quickstart", "02_order_and_gaps", "03_under_load", "04_nothing_lost", "05_time_and_latency"]
)
async def test_a_notebook_of_the_course_runs_whole_in_a_browser(
    name: str, notebook: NotebookPage, lab_server: LabServer, screenshots: Path
) -> None:
    shutil.copy(PROJECT / "notebooks" / f"{name}.ipynb", lab_server.folder)
    await notebook.open(lab_server.page(f"{name}.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    figure = notebook.page.locator(".js-plotly-plot .main-svg").first
    await figure.wait_for(timeout=60_000)
    await figure.scroll_into_view_if_needed()
    await notebook.page.screenshot(path=screenshots / f"{name}.png")
