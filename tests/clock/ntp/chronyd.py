"""A chronyd of one's own on loopback, unprivileged, which serves this machine's CLOCK_REALTIME and leaves it alone.

What it says is known to be right: UTC minus counter is CLOCK_REALTIME minus counter, which anybody here can read.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.sockets import ask_by_name
from hftlab.clock.stamps import read_clocks

_SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # where Debian puts it


def find_chronyd() -> str | None:
    """The program, where this machine has it."""
    return shutil.which("chronyd", path=_SEARCHED)


@asynccontextmanager
async def chronyd(folder: Path) -> AsyncIterator[str]:
    """A running chronyd with its files in ``folder``, as ``host:port``; it ends with this block."""
    program = find_chronyd()
    assert program is not None, "no chronyd on this machine"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "chrony.conf"
    lines = [
        f"port {port}", "cmdport 0", "bindaddress 127.0.0.1", "local stratum 10", "allow 127.0.0.1",
        f"pidfile {folder / 'chronyd.pid'}", f"driftfile {folder / 'drift'}",
    ]  # fmt: skip
    settings.write_text("\n".join(lines) + "\n")
    log = folder / "chronyd.log"
    with log.open("wb") as told:
        # -x: it must never set the clock; -d: it stays in the foreground, so that its pid is ours to end.
        process = await asyncio.create_subprocess_exec(program, "-d", "-x", "-f", settings, stdout=told, stderr=told)
    try:
        server = f"127.0.0.1:{port}"
        async with asyncio.timeout(20):
            while not isinstance((answer := await ask_by_name(server, timeout_s=0.2)).outcome, Exchange):
                said = log.read_text()
                assert process.returncode is None, f"chronyd ended: {said}"
                # A closed port refuses at once; this would otherwise ask as fast as it can.
                await asyncio.sleep(0.02)
        assert answer.outcome.stratum == 10
        yield server
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def truth_ns() -> int:
    """UTC minus counter by the clock that chronyd serves, read to some 100 ns."""
    clocks = read_clocks(9)
    return clocks.realtime_ns - clocks.counter_ns
