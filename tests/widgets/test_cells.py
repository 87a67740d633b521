from __future__ import annotations

import gc

from hftlab.widgets.cells import CellMakes, current_execution


class Made:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_running_a_cell_again_closes_what_it_made_before() -> None:
    makes, first, second = CellMakes(), Made(), Made()
    makes.add(first, ("cell-1", "run-1"))
    makes.add(second, ("cell-1", "run-2"))
    assert (first.closed, second.closed) == (1, 0)


def test_what_one_run_makes_together_stays_together() -> None:
    makes, first, second, third = CellMakes(), Made(), Made(), Made()
    makes.add(first, ("cell-1", "run-1"))
    makes.add(second, ("cell-1", "run-1"))
    assert (first.closed, second.closed) == (0, 0)
    makes.add(third, ("cell-1", "run-2"))
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)


def test_other_cells_and_scripts_close_nothing() -> None:
    makes, first, second, third = CellMakes(), Made(), Made(), Made()
    makes.add(first, ("cell-1", "run-1"))
    makes.add(second, ("cell-2", "run-2"))
    makes.add(third, None)
    makes.add(Made(), None)
    assert (first.closed, second.closed, third.closed) == (0, 0, 0)


def test_what_was_collected_meanwhile_is_not_held() -> None:
    makes, kept = CellMakes(), Made()
    makes.add(Made(), ("cell-1", "run-1"))
    gc.collect()
    makes.add(kept, ("cell-1", "run-1"))
    assert [len(references) for _, references in makes._made.values()] == [1]


def test_outside_of_a_kernel_there_is_no_cell() -> None:
    assert current_execution() is None
