"""S10: a notebook kernel whose bus runs flat out, asked to execute, to complete and to interrupt, as a person would.

A real kernel, spoken to as JupyterLab does, without a browser. The engine publishes without end to a field handler (as
in S1), a batch or a compiled one, or replays a recorded session again and again (which also waits for its server, and
shares the interpreter with the threads that unpack frames). Its duty is the share of time that its callbacks hold the
kernel's loop.
"""

from __future__ import annotations

import ast
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.bench.measurement import Goal, Measurement

GOALS = [
    Goal("S10", "execute a cell", at_most=16.0),
    Goal("S10", "complete a name", at_most=30.0),
    Goal("S10", "interrupt a cell", at_most=60.0),
    Goal("S10", "duty of the engine", at_least=90.0),
    Goal("S10", "share of a player that is seen", at_most=5.0),
]

REQUESTS = 20
INTERRUPTS = 10
WARM_UPS = 3
PAUSE_S = 0.05
"""Between two requests: a person's are further apart."""

ENGINE = """
import asyncio, contextvars, time
import hftlab as hl

of_engine = contextvars.ContextVar("of_engine", default=False)
engine = contextvars.copy_context()
engine.run(of_engine.set, True)
spent_ns = handled = 0
samples = []
run_handle = asyncio.Handle._run

def timed(handle):
    # Every callback of the loop that was made in the engine's context: its tasks, its reader's, its sockets'.
    global spent_ns
    if handle._context is None or not handle._context.get(of_engine):
        return run_handle(handle)
    begin = time.perf_counter_ns()
    try:
        return run_handle(handle)
    finally:
        spent_ns += time.perf_counter_ns() - begin

async def sample():
    while True:
        samples.append((time.perf_counter(), spent_ns, handled))
        await asyncio.sleep(0.5)

async def prepare():
    await lab.start()
    await lab.streams.append(batch, session="bench")

async def publish():
    global handled
    pieces = [batch[begin : begin + 1_024] for begin in range(0, 102_400, 1_024)]
    while True:
        for piece in pieces:
            handled += await lab.bus.publish_batch(piece)
        batch.records["epoch"] += 1  # its numbers begin anew: else all would be duplicates

async def replay_again():
    global handled
    before = 0
    while True:
        before = handled
        replaying = asyncio.create_task(replay.run(progress=False))
        while not replaying.done():
            await asyncio.wait([replaying], timeout=0.05)
            handled = before + replay.delivered
        await replaying

lab = hl.Lab(directory={folder!r})
batch = hl.sim.market(["BTCUSDT", "ETHUSDT"], seconds=1_200, seed=1)

{handler}

await asyncio.create_task(prepare(), context=engine)
replay = lab.replay("bench")
asyncio.Handle._run = timed
asyncio.create_task(sample())
"""
FIELDS = """
@lab.bus.on("market.*")
def notional(price, volume):
    price * volume
"""
BATCHES = """
@lab.bus.on(hl.MarketDataEvent, mode="batch")
def notional(batch):
    batch.records["price"] * batch.records["volume"]
"""
COMPILED = """
import numpy as np

@lab.bus.on(hl.MarketDataEvent, mode="jit", state=np.zeros(1))
def notional(record, state):
    state[0] += record.price * record.volume
"""
PUBLISHING = "task = asyncio.create_task(publish(), context=engine)"
REPLAYING = "task = asyncio.create_task(replay_again(), context=engine)"
PLAYER = """
from hftlab.widgets.refresh import shared_loop
player = hl.widgets.ReplayPlayer(replay)
"""

_ASKED_AGAIN = 3


class Kernel:
    """A kernel process and a client of it; every request is answered before the next is sent."""

    def __init__(self, folder: str) -> None:
        self.manager = KernelManager()
        # No configuration of the user's, nor of the machine's.
        environment = {**os.environ, "IPYTHONDIR": str(Path(folder) / "ipython"), "JUPYTER_CONFIG_DIR": folder}
        self.manager.start_kernel(env=environment, cwd=folder)
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def execute(self, code: str, timeout_s: float = 60) -> None:
        """Run a cell. Raises RuntimeError with its traceback."""
        reply = self.client.execute_interactive(code, timeout=timeout_s, output_hook=lambda message: None)["content"]
        if reply["status"] != "ok":
            raise RuntimeError("\n".join(reply.get("traceback", [str(reply)])))

    def value(self, expression: str) -> Any:
        """What an expression is in the kernel, through its repr."""
        for _ in range(_ASKED_AGAIN):
            request = self.client.execute("", silent=True, user_expressions={"value": expression})
            reply = self._reply(request)
            if "user_expressions" in reply:
                break
        # An interrupt that struck ipykernel's own code just before costs the next request its answer.
        content = reply["user_expressions"]["value"]
        if content["status"] != "ok":
            raise RuntimeError("\n".join(content["traceback"]))
        return ast.literal_eval(content["data"]["text/plain"])

    def time_execute(self) -> float:
        """Seconds from the request to the reply of a cell that adds two numbers."""
        begin = time.perf_counter()
        self._reply(self.client.execute("1 + 1"))
        return time.perf_counter() - begin

    def time_complete(self) -> float:
        """Seconds to the reply of a completion."""
        begin = time.perf_counter()
        matches = self._reply(self.client.complete("prin", 4))["matches"]
        elapsed = time.perf_counter() - begin
        assert "print" in matches
        return elapsed

    def time_interrupt(self) -> float:
        """Seconds from the signal to the reply of a cell that sleeps."""
        request = self.client.execute("import asyncio\nprint('sleeps', flush=True)\nawait asyncio.sleep(60)")
        while True:
            message = self.client.get_iopub_msg(timeout=30)
            if message["parent_header"].get("msg_id") == request and message["msg_type"] == "stream":
                break
        begin = time.perf_counter()
        assert self.manager.provisioner is not None
        os.kill(self.manager.provisioner.pid, signal.SIGINT)  # type: ignore[attr-defined]
        status = self._reply(request)["status"]
        elapsed = time.perf_counter() - begin
        assert status == "error", status
        return elapsed

    def _reply(self, request: str) -> dict[str, Any]:
        while True:
            message = self.client.get_shell_msg(timeout=60)
            if message["parent_header"].get("msg_id") == request:
                content: dict[str, Any] = message["content"]
                return content

    def look(self, model_id: str) -> None:
        """Tell a widget that a view of it is on a screen, as the view does."""
        content = {"comm_id": model_id, "data": {"method": "custom", "content": {"do": "heard", "value": "bench"}}}
        message = self.client.session.msg("comm_msg", content)
        self.client.shell_channel.send(message)


@contextmanager
def kernel(*cells: str) -> Iterator[Kernel]:
    """A kernel in a folder of its own that has run the cells; gone with the block, and its server with it."""
    with tempfile.TemporaryDirectory(prefix="hftlab-bench-") as folder:
        started = Kernel(folder)
        try:
            for cell in cells:
                started.execute(cell.replace("{folder!r}", repr(str(Path(folder) / "data"))))
            yield started
        finally:
            started.close()


def measure(runs: int) -> list[Measurement]:
    """Milliseconds (medians of 20 requests), duty and the player's cost: publishing, replaying, and with no engine."""
    with kernel() as bare:
        found = [
            _latency(bare, "execute a cell", Kernel.time_execute, "no engine", runs),
            _latency(bare, "complete a name", Kernel.time_complete, "no engine", runs),
        ]
    asleep = "a sleeping loop looks for the Interrupt button only when something wakes it"
    found.append(Measurement("S10", "interrupt a cell", "no engine", skipped=asleep))
    loads = (
        (PUBLISHING, FIELDS, "hftlab"),
        (PUBLISHING, BATCHES, "hftlab, batch handler"),
        (PUBLISHING, COMPILED, "hftlab, jit handler"),
        (REPLAYING, FIELDS, "hftlab, replaying"),
    )
    for load, handler, contender in loads:
        with kernel(ENGINE.replace("{handler}", handler), load) as loaded:
            found += [
                _latency(loaded, "execute a cell", Kernel.time_execute, contender, runs),
                _latency(loaded, "complete a name", Kernel.time_complete, contender, runs),
                _latency(loaded, "interrupt a cell", Kernel.time_interrupt, contender, runs),
            ]
            assert not loaded.value("task.done()"), "the engine died of an interrupt"
            found += _duty(loaded, "", contender, runs)
            if load is REPLAYING:
                found += _player(loaded, contender, runs)
    return found


def _latency(asked: Kernel, work: str, request: Callable[[Kernel], float], contender: str, runs: int) -> Measurement:
    requests = INTERRUPTS if request is Kernel.time_interrupt else REQUESTS
    for _ in range(WARM_UPS):
        request(asked)
    medians = []
    for _ in range(runs):
        seconds = []
        for _ in range(requests):
            time.sleep(PAUSE_S)
            seconds.append(request(asked))
        medians.append(1e3 * statistics.median(seconds))
    return Measurement("S10", work, contender, "ms", tuple(medians), lower_is_better=True)


def _duty(
    loaded: Kernel, beside: str, contender: str, runs: int, look: Callable[[], None] = lambda: None
) -> list[Measurement]:
    """Percent of the time that the engine held the loop, and events/s, in windows of half a second and more."""
    begin = loaded.value("len(samples)")
    for _ in range(runs + 1):
        look()
        time.sleep(0.6)
    samples = loaded.value(f"samples[{begin}:]")
    duties, rates = [], []
    for (begin_s, begin_ns, before), (end_s, end_ns, after) in pairwise(samples):
        duties.append((end_ns - begin_ns) / 1e7 / (end_s - begin_s))
        rates.append((after - before) / (end_s - begin_s))
    return [
        Measurement("S10", f"duty of the engine{beside}", contender, "%", tuple(duties)),
        Measurement("S10", f"events handled{beside}", contender, "events/s", tuple(rates)),
    ]


def _player(loaded: Kernel, contender: str, runs: int) -> list[Measurement]:
    """What a player on a screen costs: its own account, and the duty and the throughput that are left."""
    loaded.execute(PLAYER)
    model_id = loaded.value("player.model_id")

    def look() -> None:
        loaded.look(model_id)

    look()
    account = "(lambda s: (time.perf_counter(), s.refreshes, s.spent_s, s.longest_s))(shared_loop().statistics())"
    deadline = time.monotonic() + 30
    while loaded.value(account)[1] < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    before = loaded.value(account)
    left = _duty(loaded, ", a player beside", contender, runs, look)
    after = loaded.value(account)
    elapsed = after[0] - before[0]
    note = f"{(after[1] - before[1]) / elapsed:.1f} refreshes/s, the longest {1e3 * after[3]:.1f} ms"
    share = (100 * (after[2] - before[2]) / elapsed,)
    return [
        Measurement("S10", "share of a player that is seen", "hftlab", "%", share, lower_is_better=True, note=note),
        *left,
    ]
