"""What one benchmark found: figures of one contender at one piece of work, as median and range."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


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

    @property
    def best(self) -> float:
        return self.low if self.lower_is_better else self.high

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Goal:
    """What a scoreboard row wants of ours: a ratio to a peer's median, or (without a peer) a bound. Printed only."""

    board: str
    work: str
    at_least: float | None = None
    at_most: float | None = None
    peer: tuple[str, str, str] | None = None
    """The peer's board, work and contender."""
    fastest: bool = False
    """Whether the fastest runs are compared instead of the medians: where ours is beside itself and noise only adds."""

    def verdict(self, measurements: Sequence[Measurement]) -> str:
        """A line that compares the medians of one run."""
        ours = _find(measurements, self.board, self.work, "hftlab")
        if ours is None:
            return f"{self.board} {self.work}: not measured"
        value, against = ours.median, f"median, {ours.unit}"
        if self.peer is not None:
            peer = _find(measurements, *self.peer)
            if peer is None:
                return f"{self.board} {self.work}: {self.peer[2]} could not run here"
            value = ours.best / peer.best if self.fastest else ours.median / peer.median
            against = f"x {self.peer[1 if self.peer[2] == 'hftlab' else 2]}"
            # Medians tell what a user sees, fastest runs what there is beneath the noise of a shared machine.
            against += "" if self.fastest else f", fastest runs {ours.best / peer.best:,.2f} x"
        met = (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)
        bound = f"at least {self.at_least:,g}" if self.at_least is not None else f"at most {self.at_most:,g}"
        return f"{self.board} {self.work}: {value:,.2f} {against} (goal: {bound}) {'met' if met else 'MISSED'}"


def _find(measurements: Sequence[Measurement], board: str, work: str, contender: str) -> Measurement | None:
    for measurement in measurements:
        if (measurement.board, measurement.work, measurement.contender) == (board, work, contender):
            return measurement if measurement.figures else None
    return None


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


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements as aligned text: median, range, and how many times it ours is.

    Boards with a letter (S1a, S1b) are ours beside all peers of the board without: those rows have a ratio to each.
    """
    lines = [f"{'':5} {'work':44} {'contender':34} {'median':>14} {'range':>29} {'ours':>13}  unit"]
    for m in measurements:
        name = f"{m.board:5} {m.work:44} {m.contender:34}"
        if m.skipped:
            lines.append(f"{name} skipped: {m.skipped}")
            continue
        digits = 1 if m.median < 10_000 else 0
        spread = f"{m.low:,.{digits}f} - {m.high:,.{digits}f}"
        ratio = " / ".join(f"{times:,.2f}x" for times in ratios(m, measurements))
        unit = f"{m.unit}{'; ' + m.note if m.note else ''}"
        lines.append(f"{name} {m.median:>14,.{digits}f} {spread:>29} {ratio:>13}  {unit}")
    return "\n".join(lines)


def noise(measurements: Sequence[Measurement]) -> str:
    """How far runs of one work lie apart here: no ratio that is nearer to 1 than that says anything."""
    apart = sorted(m.high / m.low for m in measurements if len(m.figures) > 1 and m.low > 0)
    if not apart:
        return "noise: not known from one run each"
    return f"noise: fastest over slowest run {statistics.median(apart):.2f}x at the median, {apart[-1]:.2f}x at most"


def ratios(peer: Measurement, measurements: Sequence[Measurement]) -> list[float]:
    """Our medians over a peer's: on its own work where we did that one, else on all of its board."""
    ours = [m for m in measurements if m.contender == "hftlab" and m.figures and m.board.rstrip("abc") == peer.board]
    ours = ours or [m for m in measurements if m.contender == "hftlab" and m.figures and m.board == peer.board]
    same = [m for m in ours if m.work == peer.work]
    if peer.contender == "hftlab":
        return []
    return [m.median / peer.median for m in same or ours]
