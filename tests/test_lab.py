"""The lab: started and closed across cells, its parts introduced to each other, sessions recorded and replayed."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

import numpy as np
import pytest

import hftlab as hl
from hftlab.errors import (
    BackgroundFailed,
    EmptyRange,
    HandlerFailed,
    NotStarted,
    ServerUnreachable,
    UnknownSession,
    ValidationError,
)

START_NS = 1_723_161_270_000_000_000  # 2024-08-08T23:54:30Z


def trades(count: int, symbol: str = "BTCUSDT") -> hl.EventBatch:
    return hl.EventBatch.from_events(
        hl.MarketDataEvent(
            symbol=symbol, kind=hl.Kind.TRADE, price=100 + index, volume=1, received=START_NS + index * 1_000_000_000
        )
        for index in range(count)
    )


async def test_a_session_is_recorded_listed_and_replayed(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(trades(100), session="btc")
        sessions = await lab.sessions()
        shown = {name: str(value) for name, value in sessions.loc["btc"].items()}
        assert (shown["events"], shown["market"], shown["order"], shown["symbols"]) == ("100", "100", "0", "BTCUSDT")
        assert shown["start"] == "2024-08-08 23:54:30+00:00"
        seen: list[float] = []
        times: list[int] = []

        @lab.bus.on("market.BTC*")
        def look(price: float) -> None:
            seen.append(price)
            times.append(lab.clock.now_ns())

        replay = await lab.replay("btc", start="23:55:00", end="23:55:10").run()
        assert seen == [130.0 + index for index in range(10)]
        assert times == [START_NS + (30 + index) * 1_000_000_000 for index in range(10)], (
            "handlers see the replay's time"
        )
        assert replay.delivered == 10


async def test_a_step_returns_the_events_that_it_delivered_and_the_digest_follows(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(trades(50), session="btc")
        replay = lab.replay("btc")
        before = set()
        for step in range(5):
            stepped = await replay.step(3)
            assert stepped.column("price") == [100.0 + 3 * step + index for index in range(3)]
            before.add(replay.digest)
        assert len(before) == 5
        assert replay.delivered == 15


async def test_what_handlers_emit_is_replayed_the_same_in_steps_and_in_a_run(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(trades(50), session="btc")

        @lab.bus.on(hl.MarketDataEvent)
        def rising(event: hl.MarketDataEvent) -> hl.SignalEvent | None:
            if event.price % 5:
                return None
            return hl.SignalEvent(symbol=event.symbol, signal_type="UP", strength=event.price, strategy_id="s1")

        signals: list[hl.SignalEvent] = []
        lab.bus.subscribe(signals.append, hl.SignalEvent)
        stepped = lab.replay("btc")
        first = await stepped.step()
        assert [event.event_type for event in first] == [hl.EventType.MARKET_DATA, hl.EventType.SIGNAL]
        assert first[1].cause == first[0].event_id
        while stepped.delivered < 50:
            await stepped.step(7)
        ran = await lab.replay("btc").run()
        assert ran.digest == stepped.digest
        assert len(signals) == 2 * 10
        assert signals[0].timestamp == START_NS, "an emitted event is stamped with the replay's time"


async def test_the_same_session_has_the_same_digest_in_any_frames_on_any_server(tmp_path: Path) -> None:
    digests = set()
    for frame_rows in (1_024, 100, 7):
        async with hl.Lab(directory=tmp_path / str(frame_rows), frame_rows=frame_rows) as lab:
            await lab.streams.append(hl.sim.market(["A", "B"], seconds=2, seed=5), session="sim")
            for prefetch in (1, 8):
                digests.add((await lab.replay("sim", prefetch=prefetch).run()).digest)
    assert len(digests) == 1


async def test_running_the_cells_again_is_harmless(tmp_path: Path) -> None:
    lab = hl.Lab(directory=tmp_path / "data")
    counts = []
    for _ in range(2):
        await lab.start()
        result = await lab.streams.append(trades(10), session="btc")
        counts.append((result.events, result.duplicate))

        @lab.bus.on(hl.MarketDataEvent, name="look")
        def look(event: hl.MarketDataEvent) -> None:
            pass

        replay = lab.replay("btc")
        await replay.step(3)  # and left there: the next replay takes the bus over
    assert counts == [(10, False), (10, True)]
    assert len(lab.bus.subscriptions) == 1
    await lab.close()
    await lab.close()


async def test_a_second_lab_on_the_folder_in_this_process_shares_the_server(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as first:
        await first.streams.append(trades(3), session="btc")
        async with hl.Lab(directory=tmp_path / "data") as second:
            assert list((await second.sessions()).index) == ["btc"]
        assert list((await first.sessions()).index) == ["btc"], "the first one's server outlives the second"


async def test_a_closed_lab_starts_again_on_its_data(tmp_path: Path) -> None:
    lab = hl.Lab(directory=tmp_path / "data")
    await lab.start()
    await lab.streams.append(trades(3), session="btc")
    await lab.close()
    with pytest.raises(NotStarted, match=r"await lab.start\(\)"):
        _ = lab.streams
    await lab.start()
    assert (await lab.replay("btc").run()).delivered == 3
    await lab.close()


async def test_live_events_are_handled_by_the_pump_and_kept_only_when_appended(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data", session="mine") as lab:
        seen: list[hl.Event] = []
        lab.bus.subscribe(seen.append, hl.OrderEvent)
        order = hl.OrderEvent(symbol="BTCUSDT", order_id="1", direction=hl.Side.BUY, quantity=2)
        await lab.bus.publish(order)
        await lab.bus.drain()
        assert [event.order_id for event in seen if isinstance(event, hl.OrderEvent)] == ["1"]
        assert seen[0].received > 0, "the bus stamps what brings no time"
        assert not len(await lab.sessions())
        await lab.streams.append(hl.EventBatch.from_events([order]))
        assert list((await lab.sessions()).index) == ["mine"]


async def test_a_failing_handler_is_raised_at_the_end_with_its_event_and_holds_nobody_up(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(trades(10), session="btc")
        others = []
        lab.bus.subscribe(lambda price: others.append(price), "market.*", name="other")

        @lab.bus.on(hl.MarketDataEvent)
        def fragile(event: hl.MarketDataEvent) -> None:
            if event.price == 104:
                raise ZeroDivisionError("a bug")

        replay = lab.replay("btc")
        with pytest.raises(HandlerFailed, match=r"fragile.* raised ZeroDivisionError") as caught:
            await replay.run()
        assert isinstance(caught.value.event, hl.MarketDataEvent)
        assert caught.value.event.price == 104
        assert len(others) == replay.delivered == 10
        assert "ZeroDivisionError" in lab.bus._repr_html_()


async def test_closing_handles_what_is_queued_and_raises_what_nobody_has_raised_yet(tmp_path: Path) -> None:
    handled: list[float] = []
    lab = await hl.Lab(directory=tmp_path / "data").start()

    @lab.bus.on("market.*")
    def fragile(price: float) -> None:
        handled.append(price)
        if price == 103:
            raise ZeroDivisionError("a bug")

    await lab.bus.publish_batch(trades(478))
    with pytest.raises(HandlerFailed, match="ZeroDivisionError"):
        await lab.close()
    assert len(handled) == 478
    assert "fragile" in repr(lab)
    await lab.close()


async def test_closing_a_lab_gives_up_calls_that_do_not_end_and_says_so(tmp_path: Path) -> None:
    lab = await hl.Lab(directory=tmp_path / "data").start()
    cleaned: list[str] = []

    @lab.bus.on("market.*")
    async def stuck(price: float) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    await lab.bus.publish_batch(trades(5))
    with pytest.warns(RuntimeWarning, match=r"0 events unhandled after 0.05 s, and 5 in calls of async handlers"):
        await lab.close(drain_s=0.05)
    assert cleaned == ["up"]
    assert lab.bus.subscriptions[0].missed == 5
    await lab.start()
    await lab.close()


async def test_what_went_wrong_first_is_what_leaving_a_lab_raises(tmp_path: Path) -> None:
    async def body() -> None:
        async with hl.Lab(directory=tmp_path / "data") as lab:
            lab.bus.subscribe(lambda price: 1 / 0, "market.*", name="fragile")
            await lab.bus.publish_batch(trades(1))
            raise OSError("the first thing that went wrong")

    with pytest.raises(OSError, match="the first thing"):
        await body()


async def test_a_replay_that_gave_its_bus_away_says_so_instead_of_beginning_again(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(trades(10), session="btc")
        first, second = lab.replay("btc"), lab.replay("btc")
        await first.step(3)
        await second.step(1)
        with pytest.raises(hl.errors.ReplayError, match="gave its bus to a later one"):
            await first.step()
        assert (await first.run()).delivered == 10


async def test_what_can_not_be_replayed_is_said_with_what_would_do(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(trades(10), session="btc")
        with pytest.raises(UnknownSession, match="btc"):
            await lab.replay("eth").run()
        with pytest.raises(EmptyRange, match="2024-08-08T23:54:30"):
            await lab.replay("btc", start="23:58:00").run()
        with pytest.raises(EmptyRange, match="swap them"):
            await lab.replay("btc", start="23:54:35", end="23:54:31").run()
        with pytest.raises(ValidationError, match="it has: BTCUSDT"):
            await lab.replay("btc", symbols=["ETHUSDT"]).run()
        with pytest.raises(EmptyRange, match="where= left none"):
            await lab.replay("btc", where=lambda records: np.zeros(len(records), bool)).run()
        with pytest.raises(ValidationError, match="restrict the replay with types"):
            await lab.replay("btc", where=lambda records: records["strength"] > 0).run()
        with pytest.raises(hl.errors.TimeError, match="has no zone"):
            await lab.replay("btc", start="2024-08-08 23:54:31").run()
        with pytest.raises(hl.errors.ReplayError, match="speed is 0"):
            await lab.replay("btc", speed=0).run()
        assert (await lab.replay("btc", start=(START_NS // 10**9 + 8, "s")).run()).delivered == 2


async def test_a_replay_begins_at_an_event_id(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data") as lab:
        result = await lab.streams.append(trades(10), session="btc")
        assert (await lab.replay("btc", start=result.first_event_id + 7).run()).delivered == 3
        assert (await lab.replay("btc", end=result.first_event_id + 7).run()).delivered == 7
        other = await lab.streams.append(trades(3, "ETHUSDT"), session="eth")
        with pytest.raises(ValidationError, match="an id of session number 2"):
            await lab.replay("btc", start=other.first_event_id).run()
        with pytest.raises(EmptyRange, match="has 10 events"):
            await lab.replay("btc", start=result.first_event_id + 999).run()
        with pytest.raises(ValidationError, match="too small for either"):
            await lab.replay("btc", start=12).run()


async def test_what_is_published_is_kept_and_what_is_replayed_is_not_kept_again(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data", session="live") as lab:
        sink = lab.keep()
        await lab.bus.publish_batch(trades(30))
        await sink.flush()
        assert sink.statistics().in_words == "if this process dies now, nothing is lost"
        assert lab.keep() is sink, "the cell was run again"
        with pytest.raises(ValidationError, match="the session 'live' has a sink with other options"):
            lab.keep(mode="ahead")
        states = set()
        lab.bus.subscribe(lambda event: states.add(sink.state), hl.MarketDataEvent, name="look")
        await lab.replay("live").run()
        assert states == {"standing by"}
        assert sink.statistics().accepted == 30
        assert "<b>Sink</b> of live (write-behind, all events)" in lab._repr_html_()
        await sink.close()
        again = lab.keep("other", types=hl.OrderEvent)
        await lab.bus.publish_batch(trades(5))
        assert again is not sink
        assert again.statistics().accepted == 0
        assert (await lab.streams.session("live")).events == 30
    assert again.closed


async def test_closing_a_lab_keeps_what_waited_for_a_missing_number(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path / "data", session="live") as lab:
        sink = lab.keep(flush_s=60)
        source = hl.Source("sim", "trade", rule="plus-one")
        for number in (1, 2, 4):
            await lab.bus.publish(hl.MarketDataEvent(symbol="X", price=number, source=source, sequence=number))
        assert sink.statistics().accepted == 2
    assert (sink.statistics().accepted, sink.statistics().kept) == (3, 3)
    async with hl.Lab(directory=tmp_path / "data") as lab:
        assert (await lab.streams.range("live")).records["price"].tolist() == [1, 2, 4]


async def test_a_lab_that_was_not_started_keeps_nothing() -> None:
    with pytest.raises(NotStarted, match="start"):
        hl.Lab().keep()


async def test_an_unreachable_server_is_told_without_its_password(tmp_path: Path) -> None:
    lab = hl.Lab("redis://user:s3cret-word@127.0.0.1:1/0", tmp_path / "data")
    lab_repr = repr(lab)
    with pytest.raises(ServerUnreachable) as caught:
        async with asyncio.timeout(30):
            await lab.start()
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "s3cret-word" not in shown + lab_repr + lab._repr_html_()
    assert "start" in str(caught.value)


async def test_a_background_task_that_died_is_shown_and_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = hl.Lab(directory=tmp_path / "data")

    async def broken() -> None:
        raise OSError("out of luck")

    monkeypatch.setattr(lab.bus, "pump", broken)
    await lab.start()
    try:
        for _ in range(3):
            await asyncio.sleep(0)
        assert "FAILED" in repr(lab)
        with pytest.raises(BackgroundFailed, match="out of luck"):
            _ = lab.streams
    finally:
        await lab.close()


def test_run_tells_a_notebook_what_to_write_instead() -> None:
    async def inner() -> int:
        return 1

    async def outer() -> None:
        with pytest.raises(NotStarted, match="await main"):
            hl.run(inner())

    hl.run(outer())
    assert hl.run(inner()) == 1
