"""A process with a ``Lab`` on a folder that others share; see ``participant``."""

from __future__ import annotations

import asyncio
import sys

import hftlab as hl
from tests.streams.participant import lines, say


async def main(folder: str, _: str) -> None:
    async with hl.Lab(directory=folder) as lab:
        assert lab._server is not None
        say("server", lab._server.pid)
        async for _line in await lines():
            await lab.sessions()
            say("server", lab._server.pid)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
