"""Scripts that are told to end and kernels that are shut down, while a processor and a sink work: F17."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import psutil
from jupyter_core.utils import ensure_event_loop

import hftlab as hl
from hftlab.pipeline.statistics import State
from hftlab.streams import EmbeddedServer
from tests.bench.kernel import Kernel
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale
from tests.faults.worker import GROUP, HANGS_AFTER, KEPT, SEEN, SESSION, processor_of
from tests.streams.servers import until

PROJECT = Path(__file__).resolve().parents[3]
ROWS, KERNEL_ROWS = 6_000, 20_000


def alive(pid: int) -> bool:
    """Whether a process is there, and not merely waiting for whoever started it to notice its end."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def finished(folder: Path, binary: Path, rows: int) -> dict[str, int]:
    """Go on where the last one ended, to the end: nobody stands by, each effect is there once. Returns counts."""
    async with EmbeddedServer(folder, binary=binary), hl.Lab(directory=folder) as lab:
        (group,) = [info for info in await lab.streams.groups.list(SESSION) if info.group == GROUP]
        processor = processor_of(lab, "event")
        await processor.start()
        assert processor.state is not State.STANDING_BY, f"it waits for a lease that nobody has: {processor!r}"
        await processor.drain()
        found = await lab.streams._connections.call("HGETALL", processor.key(SEEN))
        times = Counter(int(count) for count in found[1::2])
        assert times == {1: rows}, f"events by how often they had their effect: {dict(times)}"
        kept = {info.name: info.events for info in await lab.streams.sessions()}.get(KEPT, 0)
        return {"released": int(not group.holder), "kept": kept, "after": processor.statistics().handled}


# -- scripts ----------------------------------------------------------------------------------------------------------


class Worker:
    """The test's end of a ``worker``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.server = self.published = 0

    @classmethod
    async def start(cls, folder: Path, binary: Path, handler: str, stop_s: float) -> Worker:
        """Start one."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.worker", str(folder), str(binary), handler, str(ROWS),
            cwd=PROJECT, env={**os.environ, "HFTLAB_STOP_S": str(stop_s)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return cls(process)

    async def hear(self, wanted: str, least: int = 0) -> None:
        """Return when it has said that ``wanted`` is at least so many, or has ended."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            word, _, count = line.decode().partition(" ")
            self.server = int(count) if word == "server" else self.server
            self.published = int(count) if word == "published" else self.published
            if word == wanted and int(count) >= least:
                return

    async def end(self) -> tuple[int, str]:
        """Its exit code, and what it said of errors and warnings."""
        assert self.process.stderr is not None
        await self.hear("nothing")
        errors = await self.process.stderr.read()
        return await self.process.wait(), errors.decode()


@fault(
    "F17",
    "SIGTERM or Ctrl-C for a script with a processor and a sink",
    promise="what is in flight is finished and committed by the deadline, or named; nobody waits for its lease; exact",
)
async def script_told_to_end(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    for turn in range(at_scale(2, scale)):
        data = folder / f"{turn}"
        number = chance.choice((signal.SIGTERM, signal.SIGINT))
        # ``hangs`` is either cut off at the deadline, or by a second signal long before that.
        handler = chance.choice(("event", "batch", "async")) if turn == 0 else "hangs"
        twice = handler == "hangs" and chance.random() < 0.5
        worker = await Worker.start(data, binary, handler, 60.0 if twice else 0.3 if handler == "hangs" else 30.0)
        await worker.hear("handled", HANGS_AFTER if handler == "hangs" else chance.randint(50, ROWS // 2))
        worker.process.send_signal(number)
        if twice:
            await worker.hear("published")
            worker.process.send_signal(number)
        code, said = await worker.end()
        in_order = 128 + signal.SIGTERM if number == signal.SIGTERM else -signal.SIGINT
        assert code == (-number if twice else in_order), f"{number!r}, {code}: {said}"
        assert ("stopped at its deadline" in said) == (handler == "hangs" and not twice), said
        assert "never retrieved" not in said, said
        assert "was destroyed" not in said, said
        await until(lambda worker=worker: not alive(worker.server))  # type: ignore[misc]
        found = await finished(data, binary, ROWS)
        assert found["released"] == int(not twice)
        assert found["kept"] == worker.published or twice
        counts.update(found, ended=1, cut_off=int(handler == "hangs"))
    return counts


# -- kernels ----------------------------------------------------------------------------------------------------------

CELL = """
import sys
sys.path.insert(0, {project!r})
from pathlib import Path
import hftlab as hl
from hftlab.streams import embedded
from tests.faults import worker
from tests.streams.batches import mixed, trades

embedded.find_binary = lambda: Path({binary!r})
lab = hl.Lab(directory={folder!r})
await lab.start()
await lab.streams.append(mixed({rows}), session=worker.SESSION)
had = [0]
processor = worker.processor_of(lab, {handler!r}, had.append)
sink = lab.keep(worker.KEPT)
await lab.bus.publish_batch(trades(1_000))
await processor.start()
"""


def _in_kernel(folder: Path, binary: Path, chance: random.Random) -> tuple[int, bool, int]:
    """Work in a kernel, interrupt that, and end the kernel. Returns the server's pid, whether it was killed, and how
    many interrupts there were."""
    with tempfile.TemporaryDirectory(prefix="hftlab-kernel-") as own:
        kernel = Kernel(own)
        try:
            handler = chance.choice(("event", "batch", "async"))
            cell = CELL.format(
                project=str(PROJECT), binary=str(binary), folder=str(folder), rows=KERNEL_ROWS, handler=handler
            )
            kernel.execute(cell)
            server, pid = kernel.value("lab._server.pid"), kernel.value("__import__('os').getpid()")
            interrupts = chance.randint(1, 3)
            for _ in range(interrupts):
                kernel.time_interrupt()
                # A cell that fails has those after it aborted that the kernel has by then: wait for an answer.
                kernel.value("had[0]")
            assert kernel.value("(lab._supervisor.failure, processor.running)") == (None, True)
            killed = chance.random() < 0.5
            end = chance.choice((kernel.manager.shutdown_kernel, kernel.manager.restart_kernel))
            end(now=killed)
            assert not alive(pid)
            return server, killed, interrupts
        finally:
            kernel.close()
            # jupyter_client made one for this thread.
            ensure_event_loop().close()


@fault(
    "F17",
    "interrupt, restart or shut down a kernel with a processor",
    promise="an interrupt ends no background work; the next start goes on at once, exact; no server is left behind",
)
async def kernel_ended(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    data = folder / "data"
    server, killed, interrupts = await asyncio.to_thread(_in_kernel, data, binary, random.Random(seed))
    await until(lambda: not alive(server))
    found = await finished(data, binary, KERNEL_ROWS)
    if not killed:
        assert found["kept"] == 1_000
    return {**found, "interrupts": interrupts, "killed": int(killed)}
