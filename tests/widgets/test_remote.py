from __future__ import annotations

import asyncio
import math

import pytest

from hftlab.bus import EventBus
from hftlab.errors import HandlerFailed, TimeError, ValidationError
from hftlab.events import MarketDataEvent
from hftlab.replay import Replay, State
from hftlab.widgets.commands import Command, Do
from hftlab.widgets.remote import Remote
from tests.widgets.recorded import START_NS, replay_of, trades, until


class Bench:
    def __init__(self, count: int = 100, speed: float = math.inf) -> None:
        self.replay, self.bus = replay_of(trades(count), speed)
        self.changes = 0
        self.remote = Remote(self.replay, self._changed)
        self.seen: list[float] = []
        self.bus.subscribe(lambda price: self.seen.append(price), MarketDataEvent, name="seen")

    def _changed(self) -> None:
        self.changes += 1

    async def do(self, do: Do, value: float | str = "") -> None:
        self.remote.submit(Command(do, value))
        await self.done()

    async def done(self) -> None:
        await until(lambda: self.remote.tasks == 0)


async def test_steps_deliver_as_many_events_as_asked() -> None:
    bench = Bench()
    await bench.do(Do.STEP, 3)
    await bench.do(Do.STEP, 1)
    assert bench.seen == [1.0, 2.0, 3.0, 4.0]
    assert bench.replay.state is State.PAUSED


async def test_presses_while_a_step_is_under_way_are_all_carried_out() -> None:
    bench = Bench()
    for _ in range(10):
        bench.remote.submit(Command(Do.STEP, 1))
    await bench.done()
    assert len(bench.seen) == 10


async def test_play_goes_to_the_end_and_leaves_no_task() -> None:
    bench = Bench()
    await bench.do(Do.PLAY)
    assert bench.replay.state is State.DONE
    assert len(bench.seen) == 100
    assert bench.changes >= 2


async def test_pause_stops_what_plays_at_once_and_drops_what_waits() -> None:
    bench = Bench(speed=0.001)
    await_running = bench.remote
    await_running.submit(Command(Do.PLAY))
    await until(lambda: bench.replay.state is State.RUNNING)
    bench.remote.submit(Command(Do.STEP, 50))
    bench.remote.submit(Command(Do.PAUSE))
    await bench.done()
    assert bench.replay.state is State.PAUSED
    assert len(bench.seen) < 50


async def test_a_speed_is_set_while_it_plays() -> None:
    bench = Bench(speed=0.001)
    bench.remote.submit(Command(Do.PLAY))
    await until(lambda: bench.replay.state is State.RUNNING)
    await bench.do(Do.SPEED, math.inf)
    assert bench.replay.state is State.DONE


async def test_a_typed_time_is_a_seek_within_the_session() -> None:
    bench = Bench()
    await bench.do(Do.SEEK, "23:54:15.5")
    await bench.do(Do.STEP, 1)
    assert bench.seen == [51.0]


async def test_a_typed_event_id_is_a_seek_too() -> None:
    bench = Bench()
    await bench.do(Do.SEEK, str((1 << 40) | 7))
    await bench.do(Do.STEP, 1)
    assert bench.seen == [8.0]


@pytest.mark.parametrize(("fraction", "price"), [(0.0, 1.0), (0.5, 51.0), (1.0, 100.0)])
async def test_the_slider_seeks_by_time_also_before_the_first_run(fraction: float, price: float) -> None:
    bench = Bench()
    await bench.do(Do.SEEK, fraction)
    assert bench.remote.error is None
    await bench.do(Do.STEP, 1)
    assert bench.seen == [price]


async def test_moves_go_back_and_forth_from_where_it_stands() -> None:
    bench = Bench()
    await bench.do(Do.STEP, 50)
    await bench.do(Do.SEEK_BY, 0.2)
    await bench.do(Do.STEP, 1)
    assert bench.seen[-1] == pytest.approx(70, abs=1)
    await bench.do(Do.SEEK_BY, -0.5)
    await bench.do(Do.STEP, 1)
    assert bench.seen[-1] == pytest.approx(20, abs=1)


async def test_a_move_beyond_the_start_goes_to_the_start() -> None:
    bench = Bench()
    await bench.do(Do.STEP, 10)
    await bench.do(Do.SEEK_BY, -1.0)
    assert bench.remote.error is None
    await bench.do(Do.STEP, 1)
    assert bench.seen[-1] == 1.0


async def test_restart_begins_again_and_before_the_first_run_it_is_nothing() -> None:
    bench = Bench()
    await bench.do(Do.RESTART)
    assert bench.replay.state is State.READY
    await bench.do(Do.STEP, 5)
    await bench.do(Do.RESTART)
    await bench.do(Do.STEP, 1)
    assert bench.seen == [1.0, 2.0, 3.0, 4.0, 5.0, 1.0]


async def test_a_bad_time_is_kept_to_be_shown_and_stops_nothing() -> None:
    bench = Bench()
    await bench.do(Do.SEEK, "half past nine")
    error, failed = bench.remote.error, bench.remote.failed
    assert isinstance(error, TimeError)
    assert failed is Do.SEEK
    await bench.do(Do.STEP, 1)
    assert bench.remote.error is None
    assert bench.seen == [1.0]


async def test_a_speed_that_cannot_be_is_kept_to_be_shown() -> None:
    bench = Bench()
    await bench.do(Do.SPEED, -1.0)
    assert isinstance(bench.remote.error, ValidationError)


async def test_what_a_handler_raises_in_the_background_is_kept_when_the_run_ends() -> None:
    bench = Bench()

    @bench.bus.on(MarketDataEvent)
    def fragile(price: float) -> None:
        if price == 50:
            raise ZeroDivisionError("an ordinary bug")

    await bench.do(Do.PLAY)
    error = bench.remote.error
    assert isinstance(error, HandlerFailed)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert len(bench.seen) == 100
    bench.remote.dismiss()
    assert bench.remote.error is None


async def test_an_unknown_session_is_kept_to_be_shown() -> None:
    bench = Bench()
    other = Replay(bench.replay._log, EventBus(), "no such session")
    remote = Remote(other, lambda: None)
    remote.submit(Command(Do.PLAY))
    await until(lambda: remote.tasks == 0)
    assert "no such session" in str(remote.error)


async def test_abandoning_ends_its_tasks_and_leaves_the_replay_as_it_is() -> None:
    bench = Bench(speed=0.001)
    bench.remote.submit(Command(Do.PLAY))
    await until(lambda: bench.replay.state is State.RUNNING and bench.remote.tasks == 1)
    bench.remote.abandon()
    bench.remote.abandon()
    await bench.done()
    assert bench.replay.state is State.RUNNING
    assert bench.remote.error is None
    await bench.replay.close()


async def test_a_seek_while_it_plays_goes_on_playing_there_at_once() -> None:
    bench = Bench(count=10_000, speed=0.1)  # a thousand seconds: nobody waits for what is skipped
    bench.remote.submit(Command(Do.PLAY))
    await until(lambda: bench.seen)
    bench.remote.submit(Command(Do.SEEK, 0.5))
    await until(lambda: bench.seen[-1] > 4_900)
    assert bench.replay.state is State.RUNNING
    bench.remote.submit(Command(Do.PAUSE))
    await bench.done()


async def test_a_seek_while_it_stands_moves_its_clock_at_once() -> None:
    bench = Bench()
    await bench.do(Do.STEP, 1)
    await bench.do(Do.SEEK, "23:54:15.505")
    assert bench.replay.position_ns == START_NS + 505_000_000
    await bench.do(Do.SEEK, "23:54:15.2")
    assert bench.replay.position_ns == START_NS + 200_000_000


async def test_no_task_is_left_behind_by_any_command() -> None:
    before = asyncio.all_tasks()
    bench = Bench()
    for do, value in ((Do.STEP, 1), (Do.SEEK, 0.3), (Do.PLAY, ""), (Do.RESTART, ""), (Do.SPEED, 2.0), (Do.SEEK, "x")):
        await bench.do(do, value)
    await bench.replay.close()
    await until(lambda: asyncio.all_tasks() == before)
