"""A replay of strict types stops at a full window, says what it waits for, and goes on once that is given up."""

from __future__ import annotations

import pytest

from hftlab.bus import EventBus
from hftlab.errors import WindowFull
from hftlab.events import EventBatch, Kind, MarketDataEvent, OrderEvent, Side, Source
from hftlab.replay import Replay, State
from hftlab.sequence import Gap, GapReason, GapState, Ordering
from tests.replay.memory_log import START_NS, STEP_NS, MemoryLog

ORDERS = Source("me", "orders", rule="plus-one")
TRADES = Source("venue", "trades", rule="plus-one")


def order(number: int, at: int) -> OrderEvent:
    return OrderEvent(
        symbol="A", order_id=str(number), direction=Side.BUY, quantity=1.0, source=ORDERS, sequence=number,
        timestamp=START_NS + at * STEP_NS, received=START_NS + at * STEP_NS,
    )  # fmt: skip


def trade(number: int, at: int) -> MarketDataEvent:
    return MarketDataEvent(
        symbol="A", kind=Kind.TRADE, price=1.0, volume=1.0, source=TRADES, sequence=number,
        timestamp=START_NS + at * STEP_NS, received=START_NS + at * STEP_NS,
    )  # fmt: skip


@pytest.mark.parametrize("cut", [1, 7, 1_000])
async def test_the_gap_that_is_named_is_the_one_of_the_source_that_presses_back(cut: int) -> None:
    # The trades' gap is open before the orders' gap, and is filled after it: only the other one blocks.
    events = [trade(1, 0), trade(3, 1), *[order(number, at) for at, number in enumerate([1, 3, 4, 5, 6], 2)]]
    events += [order(7, 8), trade(2, 9), trade(4, 10)]
    bus = EventBus()
    replay = Replay(
        MemoryLog(EventBatch.from_events(events), cut=cut), bus, "btc", ordering=Ordering(window=4, deadline_s=1.0)
    )
    delivered: list[tuple[Source, int]] = []
    bus.subscribe(lambda event: delivered.append((event.source, event.sequence)), "*", name="keep")
    with pytest.raises(WindowFull, match=r"me/orders waits for number 2 to 2: .* window of 4 messages") as caught:
        await replay.run()
    assert replay.state is State.PAUSED
    gap = caught.value.gap
    assert isinstance(gap, Gap)
    assert (gap.source, gap.first, gap.last, gap.state) == (ORDERS, 2, 2, GapState.OPEN)

    replay.gaps.give_up(gap)
    await replay.run()
    assert [(gap.source, gap.first, gap.state, gap.reason) for gap in replay.gaps] == [
        (TRADES, 2, GapState.FILLED, GapReason.NONE),
        (ORDERS, 2, GapState.LOST, GapReason.DECIDED),
    ]
    assert [number for source, number in delivered if source == ORDERS] == [1, 3, 4, 5, 6, 7]
    assert [number for source, number in delivered if source == TRADES] == [1, 2, 3, 4]
