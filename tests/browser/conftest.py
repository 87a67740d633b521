"""A real JupyterLab and the system's Chromium, shared by all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.browser.server import LabServer, jupyter_lab
from tests.conftest import PROJECT

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.browser.notebook import NotebookPage

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1_280, 800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One loop for all tests here: a browser belongs to the loop that started it."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("asyncio") is not None:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium; skips where there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        pytest.skip(f"no browser tests: none of {', '.join(CHROMIUMS)} is on the PATH (apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def lab_server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """A JupyterLab server; skipped where no browser could look at it."""
    with jupyter_lab(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    from playwright.async_api import async_playwright

    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=chromium, args=flags)
        try:
            yield started
        finally:
            await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def notebook(browser: Browser, lab_server: LabServer) -> AsyncIterator[NotebookPage]:
    """An empty page, 1,280 pixels wide; its kernels end with the test, and nothing complained on its console."""
    from tests.browser.notebook import NotebookPage

    context = await browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    opened = NotebookPage(await context.new_page())
    try:
        yield opened
        assert opened.complaints == []
    finally:
        await context.close()
        lab_server.end_kernels()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The folder in which screenshots are kept."""
    folder = PROJECT / "artifacts" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
