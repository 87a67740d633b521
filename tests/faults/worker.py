"""A process that works a session off, to be told to end: ``python -m tests.faults.worker FOLDER BINARY HANDLER ROWS``.

A lab on ``FOLDER`` with its own server; a processor whose handler (``event``, ``batch``, ``async`` or ``hangs``) notes
each event once in ``seen``, as an effect; and beside it, on the lab's own bus, somebody who publishes into a sink. It
says ``server PID`` when it begins, ``handled N`` now and then, and ``published N`` when it was told to end.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import hftlab as hl
from hftlab.streams import embedded
from tests.streams.batches import mixed, trades

SESSION, GROUP, KEPT = "day", "workers", "kept"
SEEN = "seen"
HANGS_AFTER = 100
LOG_BITS = 40


def log_of(event_id: int) -> int:
    """The log sequence in an event's id."""
    return event_id & ((1 << LOG_BITS) - 1)


def processor_of(
    lab: hl.Lab, handler: str, told: Callable[[int], None] = lambda count: None, *, lease_s: float = 10.0
) -> hl.EventProcessor:
    """The processor, on a bus of its own, whose handler notes what it saw. ``told``: how many events it has had."""
    bus = hl.EventBus()
    processor = lab.processor(GROUP, SESSION, bus=bus, checkpoint_s=0.02, lease_s=lease_s)
    had = 0

    def note(logs: list[int]) -> None:
        nonlocal had
        with processor.transaction() as effects:
            for log in logs:
                effects.hincr(SEEN, str(log))
        had += len(logs)
        told(had)

    async def note_later(event: hl.Event) -> None:
        await asyncio.sleep(0)
        note([log_of(event.event_id)])

    async def hang(event: hl.Event) -> None:
        note([log_of(event.event_id)])
        if had > HANGS_AFTER:
            await asyncio.Event().wait()

    if handler == "batch":
        bus.on(mode="batch")(lambda batch: note(batch.records["log_sequence"].tolist()))
    elif handler == "async":
        bus.on()(note_later)
    elif handler == "hangs":
        bus.on()(hang)
    else:
        bus.on()(lambda event: note([log_of(event.event_id)]))
    return processor


async def main(folder: Path, handler: str, rows: int) -> None:
    """Work until told to end."""
    published, feed = 0, trades(200_000)
    async with hl.Lab(directory=folder) as lab:
        await lab.streams.append(mixed(rows), session=SESSION)
        assert lab._server is not None
        print(f"server {lab._server.pid}", flush=True)
        lab.keep(KEPT)
        said = 0

        def told(count: int) -> None:
            nonlocal said
            if count - said >= 50:
                said = count
                print(f"handled {count}", flush=True)

        processor = processor_of(lab, handler, told)
        await processor.start()
        try:
            while True:
                await lab.bus.publish_batch(feed[published : published + 10])
                published += 10
                await asyncio.sleep(0.002)
        finally:
            print(f"published {published}", flush=True)


if __name__ == "__main__":
    binary = Path(sys.argv[2])
    vars(embedded)["find_binary"] = lambda: binary
    hl.run(main(Path(sys.argv[1]), sys.argv[3], int(sys.argv[4])))
