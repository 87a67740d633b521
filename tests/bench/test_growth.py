"""The benchmark of growth runs, on a few events: whether its curves are flat is not asked here."""

import pytest

from hftlab.bus import EventBus
from tests.bench import growth, growth_replays
from tests.bench.bus import BATCH_ROWS, through_bus


@pytest.mark.parametrize("work", growth.WORKS)
@pytest.mark.parametrize("each", [False, True])
def test_every_event_is_handled_once_whoever_its_symbol_belongs_to(work: str, each: bool) -> None:
    buses: list[EventBus] = []
    names = tuple(f"S{number:04}" for number in range(100))

    def subscribe(bus: EventBus) -> None:
        buses.append(bus)
        growth.WORKS[work](bus, names if each else ())

    assert through_bus(subscribe, 2 * BATCH_ROWS, symbols=names)() == 2 * BATCH_ROWS
    subscriptions = buses[0].subscriptions
    assert len(subscriptions) == (100 if each else 1)
    assert sum(one.delivered for one in subscriptions) == 2 * BATCH_ROWS
    assert all(one.delivered for one in subscriptions)


def test_every_cell_has_a_figure_a_run() -> None:
    found = growth.measure(runs=2, events=(BATCH_ROWS, 2 * BATCH_ROWS, 4 * BATCH_ROWS), fixed=BATCH_ROWS)
    assert [len(one.figures) for one in found] == 2 * [*[2] * 9, 1]


def test_replays_of_sessions_of_all_sizes_have_a_figure_a_run() -> None:
    found = growth_replays.measure(runs=1, sizes=(1_000, 2_000))
    assert [len(one.figures) for one in found] == [1, 1, 1]
    labels = [growth_replays.label(size) for size in growth_replays.EVENTS]
    assert {goal.peer[1] for goal in growth_replays.GOALS if goal.peer} <= set(labels)


def test_every_goal_names_figures_that_are_measured() -> None:
    measured = {cell.work for work in growth.WORKS for cell in growth.cells(work)}
    measured |= {growth.left_behind(work, growth.EVENTS[-1]) for work in growth.WORKS}
    assert len(growth.GOALS) == 2 * 5
    for goal in growth.GOALS:
        assert goal.work in measured
        assert goal.peer is None or goal.peer[1] in measured
