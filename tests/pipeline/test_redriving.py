"""A mended handler gets its letters again; what a processor's letters keep is raised nowhere else."""

from __future__ import annotations

from pathlib import Path

import hftlab as hl


async def append_prices(lab: hl.Lab, prices: list[float]) -> None:
    second = 1_704_205_800_000_000_000
    events = [
        hl.MarketDataEvent(symbol="A", kind=hl.Kind.TRADE, price=price, volume=1.0, timestamp=second + at)
        for at, price in enumerate(prices)
    ]
    await lab.streams.append(hl.EventBatch.from_events(events), session="day")


async def test_drain_waits_for_letters_that_are_redriven_and_then_they_are_gone(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path) as lab:
        await append_prices(lab, [1.0, 2.0, 0.0, 4.0, 0.0])
        done: list[float] = []

        def invert(price: float) -> None:
            done.append(1.0 / price)

        lab.bus.subscribe(invert, hl.MarketDataEvent, name="invert")
        processor = lab.processor("g", session="day", retry=hl.RetryPolicy(attempts=0))
        await processor.start()
        await processor.drain()
        letters = await processor.letters()
        assert [letter.log_sequence for letter in letters] == [2, 4]

        # Not mended: each is kept anew, and nothing is tried again by itself.
        assert await processor.redrive() == 2
        await processor.drain()
        letters = await processor.letters()
        assert [(letter.log_sequence, letter.attempts) for letter in letters] == [(2, 2), (4, 2)]

        def mended(price: float) -> None:
            done.append(price)

        lab.bus.subscribe(mended, hl.MarketDataEvent, name="invert")
        assert await processor.redrive(letters[0]) == 1
        await processor.drain()
        assert [letter.log_sequence for letter in await processor.letters()] == [4]
        assert await processor.redrive() == 1
        await processor.drain()
        assert not await processor.letters()
        assert done == [1.0, 0.5, 0.25, 0.0, 0.0]
        await processor.stop()


async def test_a_failure_whose_letter_the_group_keeps_is_not_raised_by_later_calls(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path) as lab:
        await append_prices(lab, [0.0])

        def invert(price: float) -> float:
            return 1.0 / price

        lab.bus.subscribe(invert, hl.MarketDataEvent, name="invert")
        async with lab.processor("g", session="day", retry=hl.RetryPolicy(attempts=0)) as processor:
            await processor.drain()
            assert len(await processor.letters()) == 1
        assert len(lab.bus.failures) == 1
        # This raises what no call has raised; so does the lab's end.
        await lab.sessions()
        async with lab.processor("other", session="day", retry=hl.RetryPolicy(attempts=0)) as other:
            await other.drain()
