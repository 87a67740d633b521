"""Playing, pausing, stepping and seeking: whatever is pressed, every event is delivered once and in order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus
from hftlab.errors import BusBusy, EmptyRange, HandlerFailed, ReplayError, TimeError, ValidationError
from hftlab.events import EventType, MarketDataEvent, SignalEvent
from hftlab.replay import Replay, Selection, State
from tests.replay.memory_log import START_NS, STEP_NS, MemoryLog, trades

COUNT = 10_000


def replay_of(count: int = COUNT, *, cut: int = 1_000, **options: object) -> tuple[Replay, list[int]]:
    """A replay and what its handler sees: the numbers of the trades."""
    bus = EventBus()
    seen: list[int] = []

    @bus.on("market.*")
    def look(price: float) -> SignalEvent | None:
        seen.append(int(price))
        return SignalEvent(symbol="BTCUSDT", signal_type="X") if price % 100 == 0 else None

    return Replay(MemoryLog(trades(count), cut=cut), bus, "btc", slice_ns=20_000, **options), seen  # type: ignore[arg-type]


async def whole(count: int = COUNT) -> str:
    replay, _ = replay_of(count)
    return (await replay.run()).digest


async def turns_until(condition: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def test_playing_in_the_background_delivers_everything_and_ends() -> None:
    replay, seen = replay_of()
    replay.play()
    await replay.wait()
    assert replay.state is State.DONE
    assert seen == list(range(COUNT))
    assert replay.digest == await whole()


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(["play", "step", "until", "turns"]), st.integers(1, 700)), max_size=30))
def test_any_mixture_of_playing_pausing_and_stepping_gives_the_digest_of_a_run(presses: list[tuple[str, int]]) -> None:
    async def main() -> None:
        replay, seen = replay_of(3_000, cut=257)
        for press, number in presses:
            if press == "play":
                replay.play()
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                replay.pause()
                await replay.paused()
            elif press == "step":
                await replay.step(number)
            elif press == "until":
                await replay.run_until(START_NS + STEP_NS * 3 * number)
            else:
                await asyncio.sleep(0)
            if replay.state is State.DONE:
                break
            assert seen == list(range(replay.delivered))
        if replay.state is not State.DONE:
            await replay.run()
        assert seen == list(range(3_000))
        assert replay.digest == await whole(3_000)

    asyncio.run(main())


async def test_a_pause_before_the_first_slice_holds_too() -> None:
    replay, seen = replay_of()
    replay.play()
    replay.pause()
    await replay.paused()
    assert replay.state is State.PAUSED
    assert len(seen) < COUNT


async def test_seeking_backwards_begins_a_fresh_run_there() -> None:
    replay, seen = replay_of()
    await replay.run_until(START_NS + 5_000 * STEP_NS)
    assert seen[-1] == 4_999
    await replay.seek(START_NS + 100 * STEP_NS)
    assert replay.state is State.PAUSED
    assert replay.delivered == 0
    stepped = await replay.step()
    assert stepped[0].price == 100  # type: ignore[attr-defined]
    await replay.run()
    assert seen[5_000:] == list(range(100, COUNT))


async def test_seeking_forwards_skips_and_counts_and_goes_on_with_the_run() -> None:
    replay, seen = replay_of()
    await replay.step(10)
    await replay.seek(START_NS + 9_000 * STEP_NS)
    shown = replay.statistics()
    assert (shown.delivered, shown.skipped) == (10, 8_990)
    await replay.run()
    assert seen == [*range(10), *range(9_000, COUNT)]
    assert replay.delivered == 10 + 1_000


async def test_seeking_to_an_event_id_begins_with_that_event() -> None:
    replay, _ = replay_of()
    stepped = await replay.step(3)
    market = stepped.only(EventType.MARKET_DATA)
    await replay.seek(int(market.event_ids[1]))
    assert (await replay.step())[0].event_id == market.event_ids[1]


async def test_seeking_while_it_plays_goes_on_playing() -> None:
    replay, seen = replay_of()
    replay.play()
    await asyncio.sleep(0)
    await replay.seek(START_NS + 9_990 * STEP_NS)
    await replay.wait()
    assert replay.state is State.DONE
    assert seen[-10:] == list(range(9_990, COUNT))


async def test_a_seek_that_can_not_be_leaves_the_replay_where_it_was() -> None:
    replay, seen = replay_of()
    await replay.step(5)
    for target, error in (("2031-01-01T00:00:00Z", EmptyRange), ("never", TimeError), (START_NS - 1, EmptyRange)):
        with pytest.raises(error):
            await replay.seek(target)
    await replay.step()
    assert seen == list(range(6))


async def test_running_until_a_predicate_stops_right_after_the_event() -> None:
    replay, seen = replay_of()
    await replay.run_until(lambda records: records["price"] >= 1_234)
    assert replay.state is State.PAUSED
    assert seen[-1] == 1_234
    await replay.run_until(START_NS + 2_000 * STEP_NS)
    assert seen[-1] == 1_999
    with pytest.raises(ValidationError, match="run_until's predicate"):
        await replay.run_until(lambda records: records["price"])


async def test_standing_still_only_steps() -> None:
    replay, seen = replay_of(speed=0)
    replay.play()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not seen
    replay.pause()
    await replay.paused()
    await replay.step(2)
    assert seen == [0, 1]
    replay.speed = math.inf
    await replay.run()
    assert seen == list(range(COUNT))


async def test_the_speed_is_changed_while_it_plays() -> None:
    replay, seen = replay_of(2_000)
    replay.play()
    replay.speed = 0
    changes = []
    unsubscribe = replay.on_change(lambda: changes.append(replay.state))
    for _ in range(20):
        await asyncio.sleep(0)
    stood = len(seen)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(seen) == stood < 2_000
    replay.speed = 1e6
    await replay.wait()
    assert seen == list(range(2_000))
    assert changes[-1] is State.DONE
    unsubscribe()


async def test_what_a_handler_raised_is_raised_by_wait_and_shown_by_the_repr() -> None:
    replay, seen = replay_of(100)
    bus = replay._bus
    assert isinstance(bus, EventBus)

    @bus.on(MarketDataEvent, name="fragile")
    def fragile(event: MarketDataEvent) -> None:
        if event.price == 50:
            raise ZeroDivisionError("a <b>bug</b>")

    replay.play()
    await replay.paused()
    assert "ZeroDivisionError" in repr(replay)
    assert "<b>bug" not in replay._repr_html_()
    with pytest.raises(HandlerFailed, match="fragile"):
        await replay.wait()
    assert seen == list(range(100)), "nobody was held up"


async def test_a_playing_replay_is_not_run_twice_and_holds_its_bus() -> None:
    replay, _ = replay_of(speed=1)
    replay.play()
    await asyncio.sleep(0)
    with pytest.raises(ReplayError, match="running already"):
        await replay.run()
    other = Replay(MemoryLog(trades(10)), replay._bus, "btc")
    await turns_until(lambda: replay.state is State.RUNNING)
    with pytest.raises(BusBusy):
        await other.run()
    await replay.close()
    await other.run()
    assert replay.state.value == "closed"


async def test_two_replays_side_by_side_on_buses_of_their_own() -> None:
    (first, seen), (second, also_seen) = replay_of(), replay_of()
    first.play()
    second.play()
    await asyncio.gather(first.wait(), second.wait())
    assert seen == also_seen == list(range(COUNT))
    assert first.digest == second.digest


async def test_cancelling_a_run_pauses_it() -> None:
    replay, seen = replay_of()
    task = asyncio.ensure_future(replay.run())
    await turns_until(lambda: bool(seen))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert replay.state is State.PAUSED
    await replay.run()
    assert seen == list(range(COUNT))
    assert replay.digest == await whole()


async def test_closing_ends_the_reading_and_keeps_what_was_seen() -> None:
    log = MemoryLog(trades(COUNT))
    replay = Replay(log, EventBus(), "btc")
    await replay.step(5)
    digest = replay.digest
    await replay.close()
    await replay.close()
    assert (log.reads, log.closed) == (1, 1)
    assert replay.digest == digest
    assert len(replay.latest(3)) == 3


async def test_the_statistics_tell_where_it_is() -> None:
    replay, _ = replay_of()
    assert replay.statistics().state == "ready"
    await replay.run_until(START_NS + 5_000 * STEP_NS)
    shown = replay.statistics()
    assert (shown.state, shown.delivered, shown.emitted, shown.log_sequence) == ("paused", 5_000, 50, 5_000)
    assert shown.progress == pytest.approx(0.5, abs=0.001)
    assert shown.position_ns == START_NS + 4_999 * STEP_NS
    assert shown.counts == {"market": 5_000, "signal": 50}
    assert replay.trace.points("BTCUSDT")[1][-1] == 4_999
    selected = Replay(MemoryLog(trades(100)), EventBus(), "btc", Selection(where=lambda rows: rows["price"] < 10))
    await selected.run()
    assert selected.statistics().filtered == 90
