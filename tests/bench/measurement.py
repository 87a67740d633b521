"""What one benchmark found: figures of one side of one scoreboard row, as median and range."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Measurement:
    """The figures of one contender at one piece of work.

    ``figures`` has one entry a run, in ``unit`` (a rate unless ``lower_is_better``). ``skipped`` names the reason
    where the contender could not run here.
    """

    board: str
    work: str
    contender: str
    unit: str = "events/s"
    figures: tuple[float, ...] = ()
    lower_is_better: bool = False
    note: str = ""
    skipped: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.figures)

    @property
    def low(self) -> float:
        return min(self.figures)

    @property
    def high(self) -> float:
        return max(self.figures)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Goal:
    """A ratio or a bound that a scoreboard row wants: printed beside the figures, never enforced by a test."""

    board: str
    text: str
    holds: Callable[[dict[str, Measurement]], tuple[float, bool]] = field(repr=False)


def rates(work: Callable[[], int], runs: int, warm_ups: int = 1) -> tuple[float, ...]:
    """Run ``work`` (which returns how many events it moved) ``runs`` times; events a second, one figure a run."""
    for _ in range(warm_ups):
        work()
    figures = []
    for _ in range(runs):
        begin = time.perf_counter()
        moved = work()
        figures.append(moved / (time.perf_counter() - begin))
    return tuple(figures)
