"""Rows brought into the bus's own terms."""

from __future__ import annotations

import numpy as np
import pytest

from hftlab.bus.admission import Admission
from hftlab.bus.failures import FailureLog
from hftlab.bus.flowing import Flow
from hftlab.bus.intake import PIECE_ROWS, Intake
from hftlab.bus.journeys import Recorder
from hftlab.bus.lanes import Lanes
from hftlab.bus.priorities import Priorities
from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, RECORD
from hftlab.sequence import Ordering
from hftlab.sequence.stage import OrderStage
from tests.bus.samples import START_NS, trades


@pytest.fixture
def intake() -> Intake:
    symbols, sources = SymbolTable(["ETH"]), SourceTable()
    clock = VirtualClock(START_NS)
    recorder = Recorder(clock, None)
    lanes = Lanes(dict.fromkeys(EventType, 1 << 14), FailureLog(), symbols, sources, clock, Priorities(), recorder)
    stage = OrderStage(Ordering(), symbols, sources)
    return Intake(lanes, Admission(lanes, symbols, Flow()), symbols, sources, clock, stage)


def test_a_sound_batch_is_not_copied(intake: Intake) -> None:
    batch = trades(10)
    assert intake.checked(batch) is batch


def test_a_batch_without_times_is_copied_and_stamped(intake: Intake) -> None:
    batch = trades(10)
    batch.records["received"][3] = 0
    batch.records["timestamp"][[3, 5]] = 0
    stamped = intake.checked(batch)
    assert stamped.records["received"].tolist() == [START_NS + (0 if n == 3 else n) for n in range(10)]
    assert stamped.records["timestamp"].tolist() == stamped.records["received"].tolist()
    assert batch.records["received"][3] == 0


def test_ids_are_translated_piece_by_piece(intake: Intake) -> None:
    batch = trades(2 * PIECE_ROWS + 5, symbols=("A", "ETH", "B"))
    assert intake.push(batch) == len(batch)
    found = [name for part in _taken(intake) for name in part]
    assert found == batch.column("symbol")
    assert intake.published == len(batch)


def _taken(intake: Intake) -> list[list[str]]:
    backlog = intake._lanes.recorded.backlog
    names = []
    while backlog.waiting:
        parts, total = backlog.next_parts(1_024)
        names.append([intake._symbols[index] for index in parts[0].rows["symbol"].tolist()])
        backlog.dispatched(parts, total)
    return names


def test_what_has_no_room_is_left(intake: Intake) -> None:
    assert intake.push(trades((1 << 14) + 10)) == 1 << 14
    assert intake.push(trades(1)) == 0


@pytest.mark.parametrize("mixed", [False, True])
def test_a_refusal_names_the_row_and_what_it_holds(intake: Intake, mixed: bool) -> None:
    batch = trades(10)
    batch.records["priority"][7] = 77
    if mixed:
        batch = EventBatch(batch.records.view(RECORD), batch.symbols)
    with pytest.raises(
        ValidationError, match=r"row 7 of the batch can't be published.*1 symbols and 1 sources.*priority 77"
    ):
        intake.checked(batch)


def test_a_type_of_its_own_is_no_type(intake: Intake) -> None:
    rows = np.zeros(3, DTYPES[EventType.MARKET_DATA])
    with pytest.raises(ValidationError, match="row 0 of the batch"):
        intake.checked(EventBatch(rows, SymbolTable(["BTC"])))
