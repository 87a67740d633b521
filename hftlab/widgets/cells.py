"""Which execution of which notebook cell this is: what a cell made last time goes when it is run again.

A widget lives until it is closed: ipywidgets keeps each one, with its comm, for as long as the kernel runs. Running a
cell again shows a new one in the place of the old, which nobody could reach any more.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any, Protocol


class Closable(Protocol):
    """What a cell makes and its next run closes."""

    def close(self) -> None:
        """End it; harmless when repeated."""
        ...


class CellMakes:
    """What each cell made at its latest run. Weak: what is collected elsewhere is gone from here too."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[str, list[weakref.ref[Any]]]] = {}

    def add(self, made: Closable, execution: tuple[str, str] | None) -> None:
        """Note what a cell makes, and close what its runs before made. ``execution``: (cell, run), None outside."""
        if execution is None:
            return
        cell, run = execution
        before, kept = self._made.get(cell, ("", []))
        if before != run:
            for reference in kept:
                old = reference()
                if old is not None:
                    old.close()
            kept = []
        alive = [reference for reference in kept if reference() is not None]
        self._made[cell] = run, [*alive, weakref.ref(made)]


def current_execution() -> tuple[str, str] | None:
    """The id of the cell that runs and of its execution; None where the frontend tells none, or outside of a kernel."""
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython is not None else None
    if kernel is None:
        return None
    parent = kernel.get_parent("shell") or {}
    cell = parent.get("metadata", {}).get("cellId")
    run = parent.get("header", {}).get("msg_id")
    return (str(cell), str(run)) if cell and run else None


MADE = CellMakes()
