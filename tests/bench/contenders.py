"""Who takes part in a board, and their runs by turns: the machine's noise then falls on all alike.

This module imports nothing but the standard library: peers use it in environments that have little else.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.bench.measurement import Measurement


class Unavailable(RuntimeError):
    """A contender can't run here; the message says why, and how to get it."""


class Contestant(Protocol):
    """Whatever can be asked for a figure: a contender of this process, or one of a peer's process."""

    @property
    def board(self) -> str: ...

    @property
    def work(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str: ...

    def rate(self) -> float:
        """Do one run and return its events a second. Raises Unavailable."""
        ...


@dataclass(frozen=True)
class Contender:
    """One contender at one piece of work.

    ``prepare()`` makes what a run needs and gives the run; only the run is timed. The run returns how many events
    it handled.
    """

    board: str
    work: str
    name: str
    prepare: Callable[[], Callable[[], int]]
    note: str = ""

    def rate(self) -> float:
        run = self.prepare()
        gc.collect()  # what others left is not this run's to collect
        begin = time.perf_counter()
        handled = run()
        return handled / (time.perf_counter() - begin)


def by_turns(contestants: Sequence[Contestant], runs: int) -> list[Measurement]:
    """One warm-up and ``runs`` runs of each, all in turn: first run of each, second run of each, and so on."""
    figures: list[list[float]] = [[] for _ in contestants]
    reasons = [""] * len(contestants)
    for run in range(runs + 1):
        for place, contestant in enumerate(contestants):
            if reasons[place]:
                continue
            try:
                rate = contestant.rate()
            except Unavailable as error:
                reasons[place] = str(error)
                continue
            if run:
                figures[place].append(rate)
    return [
        Measurement(one.board, one.work, one.name, figures=tuple(rates), note=one.note)
        if not reason
        else Measurement(one.board, one.work, one.name, skipped=reason)
        for one, rates, reason in zip(contestants, figures, reasons, strict=True)
    ]
