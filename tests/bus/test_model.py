"""The bus against the plain loop of ``model.py``: every call, in order, whatever the sizes and slices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus, backlog, dispatch, failures
from hftlab.clock import VirtualClock
from hftlab.events import EventBatch, EventType
from hftlab.events.records import Rows
from tests.bus.handlers import Handlers, batch_of, items_of_rows
from tests.bus.model import Act, Counts, Item, Played, Spec, Where, play
from tests.bus.samples import one_lane

START_NS = 1_700_000_000_000_000_000
MOST_CALLS = 6_000
TYPES = list(EventType)
SYMBOLS = ["AB", "AC", "B"]


@dataclass(frozen=True)
class Slice:
    """One turn: offer so many rows (after taking back what was not begun), then work on so many, for how long."""

    offer: int
    rows: int
    expired: bool
    withdraws: bool = False


@dataclass(frozen=True)
class Sizes:
    """What must make no difference."""

    slices: tuple[Slice, ...]
    chunk_rows: int = 1_024
    long_run: int = 128


# -- strategies -------------------------------------------------------------------------------------------------------


@st.composite
def published(draw: st.DrawFn) -> list[Item]:
    """Runs of types and symbols; arrivals rise and fall back."""
    long = draw(st.booleans())
    runs = draw(
        st.lists(
            st.tuples(st.sampled_from(TYPES), st.sampled_from(SYMBOLS), st.integers(1, 400 if long else 6)),
            min_size=1,
            max_size=8,
        )
    )
    swing = draw(st.sampled_from([0, 1, 5, 90]))
    items: list[Item] = []
    for event_type, symbol, count in runs:
        for _ in range(count):
            at = len(items)
            items.append(Item(at, event_type, symbol, 0, START_NS + at * 10 - at * 37 % (swing + 1) * 10))
    return items


def specs(names: Sequence[str], *, others: st.SearchStrategy[Spec] | None = None) -> st.SearchStrategy[Spec]:
    acts = [act for act in Act if others is not None or act not in (Act.CHANGE, Act.CANCEL)]
    return st.builds(
        Spec,
        name=st.sampled_from(names),
        mode=st.sampled_from(["event", "fields", "batch"]),
        types=st.frozensets(st.sampled_from(TYPES), min_size=1),
        symbol=st.sampled_from([None, None, "AB", "A*", "B", "?*"]).map(lambda text: None if text == "?*" else text),
        where=st.sampled_from([Where.NONE, Where.NONE, Where.NONE, *Where]),
        batch_rows=st.sampled_from([1, 2, 3, 4, 7, 64, 512]),
        waits=st.sampled_from([None, None, None, 0, 1, 3]),
        act=st.sampled_from(acts),
        period=st.sampled_from([1, 2, 3, 7, 19, 50]),
        phase=st.integers(0, 50),
        emits=st.lists(st.sampled_from(TYPES), min_size=1, max_size=3).map(tuple),
        other=st.none() if others is None else others,
    )


several_specs = st.lists(
    specs(["h0", "h1", "h2", "h3", "h4"], others=specs(["h0", "h1", "h2", "x0", "x1"])),
    min_size=1,
    max_size=5,
    unique_by=lambda spec: spec.name,
)
sizes = st.builds(
    Sizes,
    slices=st.lists(
        st.builds(
            Slice,
            offer=st.sampled_from([1, 2, 5, 33, 300, 2_000]),
            rows=st.sampled_from([1, 2, 7, 100, 1 << 62]),
            expired=st.booleans(),
            withdraws=st.sampled_from([False, False, True]),
        ),
        min_size=1,
        max_size=5,
    ).map(tuple),
    chunk_rows=st.sampled_from([1, 3, 50, 1_024]),
    long_run=st.sampled_from([1, 4, 128]),
)

# -- the real bus -----------------------------------------------------------------------------------------------------


async def run(items: Sequence[Item], registered: Sequence[Spec], how: Sizes) -> Played:
    """The same through the bus, in a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "CHUNK_ROWS", how.chunk_rows)
        patch.setattr(backlog, "_LONG_RUN", how.long_run)
        patch.setattr(failures, "KEPT", None)
        bus = EventBus(capacity=1_024)
        handlers = Handlers(bus)
        for spec in registered:
            handlers.subscribe(spec)
        played = Played(handlers.calls)

        def observe(rows: Rows) -> None:
            played.dispatched += items_of_rows(rows, bus.symbols)

        replay = bus.begin_run("a run", VirtualClock(START_NS), observe)
        whole = batch_of(items, bus.symbols)
        offered = turn = 0
        idle = finished = False
        while not (finished and idle):
            how_now = how.slices[turn % len(how.slices)]
            turn += 1
            if how_now.withdraws and turn < 200:
                offered -= replay.withdraw()
            if offered < len(items):
                offered += replay.offer(typed(whole[offered : offered + how_now.offer]))
            elif idle and not finished:
                replay.finish()
                finished = True
            deadline_ns = 0 if how_now.expired else time.perf_counter_ns() + 1_000_000_000
            try:
                work = replay.work(how_now.rows, deadline_ns)
                idle = work.idle
                if work.awaiting:
                    await replay.settle()
            except KeyboardInterrupt:
                idle = False
            counts = bus.statistics()
            assert counts.published == offered
            gone_through = counts.handled + counts.dead_lettered
            assert counts.published == gone_through + counts.waiting + counts.dropped
            assert replay.handled == gone_through
        assert replay.handled == len(items)
        assert replay.end() == 0
        played.failures = [(failure.handler, ids_of(failure.event)) for failure in bus.failures]
        assert bus.failures.count == len(played.failures)
        for spec, subscriptions in handlers.subscriptions.items():
            total = Counts()
            for one in subscriptions:
                total.calls += one.calls
                total.delivered += one.delivered
                total.failed += one.failed
                total.emitted += one.emitted
            if total != Counts():
                played.counts[spec] = total
        return played


def typed(batch: EventBatch) -> EventBatch:
    """Rows that happen to be of one type under its dtype, so that both ways in are taken."""
    counts = batch.counts()
    return batch.only(next(iter(counts))) if len(counts) == 1 else batch


def ids_of(given: object) -> tuple[int, ...]:
    return tuple(given.event_ids.tolist()) if hasattr(given, "event_ids") else (given.event_id,)  # type: ignore[attr-defined]


def compare(found: Played, expected: Played) -> None:
    assert found.calls == expected.calls
    assert found.dispatched == expected.dispatched
    assert Counter(found.failures) == Counter(expected.failures)
    assert found.counts == expected.counts


def expected_of(items: Sequence[Item], registered: Sequence[Spec]) -> Played:
    played = play(items, registered, START_NS, most_calls=MOST_CALLS)
    assume(played is not None)
    assert played is not None
    return played


# -- tests ------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(published(), several_specs, sizes)
def test_every_call_is_the_one_of_the_plain_loop_whatever_the_sizes(
    items: list[Item], registered: list[Spec], how: Sizes
) -> None:
    expected = expected_of(items, registered)
    event(f"{len(expected.calls) // 500 * 500} calls or more")
    compare(asyncio.run(run(items, registered, how)), expected)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(published(), several_specs, sizes)
def test_a_live_bus_makes_the_same_calls_for_events_and_fields(
    items: list[Item], registered: list[Spec], how: Sizes
) -> None:
    """Live, a batch is also delivered when nothing is left, so only the others are the plain loop's."""
    assume(not any(spec.mode == "batch" or (spec.other and spec.other.mode == "batch") for spec in registered))
    expected = expected_of(items, registered)

    async def live() -> Played:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "CHUNK_ROWS", how.chunk_rows)
            bus = EventBus(capacity=1_024, clock=VirtualClock(START_NS), priorities=one_lane())
            handlers = Handlers(bus, in_line=True)
            for spec in registered:
                handlers.subscribe(spec)
            batch = batch_of(items, bus.symbols)
            offered = turn = 0
            idle = False
            while offered < len(items) or not idle:
                one = how.slices[turn % len(how.slices)]
                turn += 1
                offered += bus.offer(typed(batch[offered : offered + one.offer]))
                try:
                    idle = bus.do_work(one.rows, max_ns=0 if one.expired else 1_000_000_000).idle
                    await bus.settle()
                except KeyboardInterrupt:
                    idle = False
            return Played(handlers.calls)

    found = asyncio.run(live())
    assert [call[:2] for call in found.calls] == [call[:2] for call in expected.calls]


def test_events_that_were_emitted_before_an_interrupt_still_go_before_the_batch_that_their_row_fills() -> None:
    only = frozenset({EventType.MARKET_DATA})
    registered = [
        Spec("emits", act=Act.EVENT, types=only, emits=(EventType.ORDER,)),
        Spec("interrupts", act=Act.INTERRUPT, types=only),
        Spec("batches", mode="batch", batch_rows=1, types=only),
        Spec("sees orders", types=frozenset({EventType.ORDER})),
    ]
    items = [Item(number, EventType.MARKET_DATA, "AB", 0, START_NS + number) for number in range(3)]
    expected = play(items, registered, START_NS)
    assert expected is not None
    for withdraws in (False, True):
        how = Sizes((Slice(2, 1 << 62, expired=False, withdraws=withdraws),))
        compare(asyncio.run(run(items, registered, how)), expected)


def test_a_batch_fills_though_rows_were_taken_back_behind_the_one_in_progress() -> None:
    only = frozenset({EventType.FILL})
    registered = [Spec("waits", waits=1, types=only), Spec("batches", mode="batch", batch_rows=512, types=only)]
    # More than the ring holds, or its last rows would get in without the places of those that were taken back.
    items = [Item(number, EventType.FILL, "AB", 0, START_NS + number) for number in range(1_300)]
    expected = play(items, registered, START_NS)
    assert expected is not None
    how = Sizes((Slice(2_000, 1, expired=True), Slice(2_000, 1, expired=True, withdraws=True)))
    compare(asyncio.run(run(items, registered, how)), expected)
