from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.browser.server import LabServer
from tests.conftest import PROJECT

pytest.importorskip("playwright", reason="no browser tests: playwright is not installed (pip install -e '.[test]')")

from tests.browser.notebook import NotebookPage


async def test_the_quickstart_runs_whole_in_a_browser(
    notebook: NotebookPage, lab_server: LabServer, screenshots: Path
) -> None:
    shutil.copy(PROJECT / "notebooks" / "01_quickstart.ipynb", lab_server.folder)
    await notebook.open(lab_server.page("01_quickstart.ipynb"))
    await notebook.run_all()
    assert await notebook.errors() == []
    figure = notebook.page.locator(".js-plotly-plot .main-svg").first
    await figure.wait_for(timeout=60_000)
    await figure.scroll_into_view_if_needed()
    await notebook.page.screenshot(path=screenshots / "quickstart.png")
