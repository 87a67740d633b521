"""A process that publishes without end and tells, again and again, what its death would cost: to be killed.

``python -m tests.streams.sink_participant SOCKET`` reads the password from its standard input, and prints lines of
``accepted kept waiting``. Its events are trades whose prices count from 0 on.
"""

from __future__ import annotations

import asyncio
import sys

from hftlab.bus import EventBus
from hftlab.streams import Address, RedisStreamManager
from hftlab.streams.sinks import Sinks
from hftlab.streams.sinks.choosing import Choice
from hftlab.streams.sinks.options import SinkOptions
from hftlab.supervise import Supervisor
from tests.bus.samples import trades


async def main(path: str) -> None:
    """Publish until killed."""
    address = Address.unix(path, sys.stdin.readline().strip())
    bus, supervisor = EventBus(), Supervisor("participant")
    async with RedisStreamManager(address, namespace="n", progress=False) as manager:
        supervisor.start(pump=bus.pump)
        sink = Sinks(bus, supervisor.add).keep(manager, "day", SinkOptions(Choice(), flush_s=0.005, frame_rows=64))
        published = 0
        while True:
            await bus.publish_batch(trades(37, first=published))
            published += 37
            shown = sink.statistics()
            print(shown.accepted, shown.kept, shown.waiting_rows, flush=True)
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
