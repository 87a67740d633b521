"""The lanes' benchmark runs, on a few orders: whether they wait long is not asked here, but whether all are handled."""

from __future__ import annotations

from tests.bench import preemption


def test_every_order_is_handled_and_every_work_has_its_three_figures() -> None:
    found = preemption.measure(runs=1, orders=5, calls_us=(0, 10))
    works = {one.work.rpartition(", ")[0] for one in found}
    assert len(works) == 6
    assert len(found) == 3 * len(works) + 1  # the first order has one figure, an idle bus a queue beside it
    assert all(0 < one.median < 60e6 for one in found)
    assert {one.contender for one in found} == {"hftlab", "asyncio.Queue"}
