"""A run's own rules; what it does on a bus is in ``test_bus``."""

from __future__ import annotations

import pytest

from hftlab.bus.run import Controls, Run
from hftlab.clock import VirtualClock
from hftlab.errors import BusError
from hftlab.events.ports import Work
from tests.bus.samples import trades


class FakeBus:
    """Counts what a run asks for."""

    def __init__(self) -> None:
        self.handled = 100
        self.asked: list[str] = []

    def note(self, what: str) -> int:
        self.asked.append(what)
        return len(self.asked)

    async def settle(self) -> None:
        self.note("settle")

    def work(self, rows: int, deadline_ns: int) -> Work:
        self.handled += rows
        return Work(rows, 0, True, False)

    def run(self) -> Run:
        controls = Controls(
            offer=lambda batch: self.note(f"offer {len(batch)}"),
            work=self.work,
            settle=self.settle,
            withdraw=lambda: self.note("withdraw"),
            tell=lambda notice: self.asked.append(f"tell {notice}"),
            redeliver=lambda handler, event, done: self.asked.append(f"redeliver {handler} {event}"),
            flush=lambda: self.asked.append("flush"),
            finish=lambda: self.asked.append("finish"),
            end=self.end,
            counts=lambda: (self.handled, 2 * self.handled),
        )
        self.it = Run("it", VirtualClock(), controls, lambda: True)
        return self.it

    def end(self) -> int:
        self.it.left()
        return self.note("end")


async def test_it_passes_on_what_its_holder_asks() -> None:
    bus = FakeBus()
    run = bus.run()
    run.offer(trades(3))
    run.redeliver("totals", trades(1))
    run.flush()
    run.finish()
    run.withdraw()
    await run.settle()
    assert bus.asked == ["offer 3", f"redeliver totals {trades(1)}", "flush", "finish", "withdraw", "settle"]


def test_it_counts_from_its_beginning_to_its_end() -> None:
    bus = FakeBus()
    run = bus.run()
    run.work(5, 0)
    assert (run.handled, run.emitted) == (5, 10)
    run.end()
    bus.handled += 50
    assert (run.handled, run.emitted) == (5, 10)


def test_it_ends_once() -> None:
    bus = FakeBus()
    run = bus.run()
    assert [run.ended, run.end(), run.end(), run.ended] == [False, 1, 0, True]
    assert bus.asked == ["end"]
    with pytest.raises(BusError, match="it has left the bus: it was ended, or the bus was closed"):
        run.work(1, 0)
