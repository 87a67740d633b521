"""A notebook in a browser: what a user does with it, and what they see."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from playwright.async_api import ConsoleMessage, Page

READY_MS = 60_000
RUN_MS = 120_000

# What Chromium or JupyterLab says on its own, with or without us: each with the reason why it is nothing.
HARMLESS: dict[str, str] = {}


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    for index, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source.strip())  # type: ignore[no-untyped-call]
        cell["id"] = f"cell-{index}"
        notebook.cells.append(cell)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


class NotebookPage:
    """A page on which a notebook is open. Everything that waits has a deadline."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(text in message.text for text in HARMLESS):
            self.complaints.append(message.text)

    async def open(self, address: str) -> None:
        """Open a notebook and wait for its kernel."""
        await self.page.goto(address, wait_until="domcontentloaded")
        await self.page.wait_for_function(
            "window.jupyterapp?.shell.currentWidget?.context?.isReady"
            " && window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'",
            timeout=READY_MS,
        )
        await self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.info")

    async def run_all(self) -> None:
        """Run all cells and wait for the last one's end."""
        # In braces: else the evaluation would wait for the whole run, which it may not.
        await self.page.evaluate("{ jupyterapp.commands.execute('notebook:run-all-cells'); }")
        await self.wait_for_cells()

    async def wait_for_cells(self, timeout_ms: float = RUN_MS) -> None:
        """Wait until every code cell has been executed."""
        await self.page.wait_for_function(
            "jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code')"
            ".every(w => w.model.executionCount !== null && w.model.executionState !== 'running')",
            timeout=timeout_ms,
        )

    async def errors(self) -> list[str]:
        """The errors that cells ended with."""
        found: list[str] = await self.page.evaluate(
            "jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code')"
            ".flatMap(w => w.model.outputs.toJSON().filter(o => o.output_type === 'error')"
            ".map(o => `${o.ename}: ${o.evalue}`))"
        )
        return found

    async def value(self, expression: str) -> Any:
        """What a Python expression is in the kernel, through JSON."""
        code = f"import json as _json; _value = _json.dumps({expression})"
        content = await self.page.evaluate(
            "async code => { const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;"
            " const reply = await kernel.requestExecute({code, store_history: false, silent: true,"
            " user_expressions: {value: '_value'}}).done; return reply.content; }",
            code,
        )
        if content["status"] != "ok":
            raise AssertionError(f"{expression}: {content['ename']}: {content['evalue']}")
        # The repr of a str that holds JSON.
        return json.loads(ast.literal_eval(content["user_expressions"]["value"]["data"]["text/plain"]))

    async def until(self, expression: str, timeout_s: float = 30) -> None:
        """Ask the kernel until a Python expression holds. Raises AssertionError with its last value."""
        last: Any = None
        try:
            async with asyncio.timeout(timeout_s):
                while not last:
                    last = await self.value(expression)
        except TimeoutError:
            raise AssertionError(f"after {timeout_s:g} s, {expression} is {last!r}") from None

    async def execute(self, code: str) -> dict[str, Any]:
        """Run code beside the cells; returns the reply's content."""
        content: dict[str, Any] = await self.page.evaluate(
            "async code => (await jupyterapp.shell.currentWidget.sessionContext.session.kernel"
            ".requestExecute({code, store_history: false}).done).content",
            code,
        )
        return content

    async def complete(self, code: str) -> list[str]:
        """What the kernel completes code to."""
        matches: list[str] = await self.page.evaluate(
            "async code => (await jupyterapp.shell.currentWidget.sessionContext.session.kernel"
            ".requestComplete({code, cursor_pos: code.length})).content.matches",
            code,
        )
        return matches

    async def run_cell(self, index: int) -> None:
        """Select a cell and run it, as Shift-Enter does; returns when it has ended."""
        await self.page.evaluate(
            "async index => { const panel = jupyterapp.shell.currentWidget; panel.content.deselectAll();"
            " panel.content.activeCellIndex = index; await jupyterapp.commands.execute('notebook:run-cell'); }",
            index,
        )

    async def add_cell(self, source: str) -> int:
        """Put a code cell at the end; returns its index."""
        index: int = await self.page.evaluate(
            "source => { const model = jupyterapp.shell.currentWidget.content.model.sharedModel;"
            " model.insertCell(model.cells.length, {cell_type: 'code', source}); return model.cells.length - 1; }",
            source,
        )
        return index

    async def theme(self, name: str) -> None:
        """Change JupyterLab's theme: ``JupyterLab Light``, ``JupyterLab Dark``."""
        await self.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        dark = "Dark" in name
        await self.page.wait_for_function(
            "dark => document.body.dataset.jpThemeLight === String(!dark)", arg=dark, timeout=READY_MS
        )
