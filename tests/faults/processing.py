"""Processors in processes of their own, to be killed and paused: ``python -m tests.faults.processing``.

Importing takes a second, so one process does it once, and forks for each order that comes on its standard input: a line
of JSON, see ``Order``. A fork runs a lab with one processor and the handlers of ``counting``; it says what it does in
lines that begin with its key. A *step* is a named moment of its work: the order may name one at which, when it comes
for the n-th time, the fork kills itself with SIGKILL. The hooks for that are put over hftlab's methods in the fork
alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

import hftlab as hl
from hftlab.compiling import compile_kernels
from hftlab.pipeline import EventProcessor
from hftlab.streams.commit_script import COMMIT
from hftlab.streams.consuming import GroupConsumer
from hftlab.streams.link import Link
from hftlab.streams.membership import Membership
from tests.faults.counting import count_events

CALLS = ("acquire", "read", "commit", "release")
STEPS = (
    *(f"{when} {call}" for call in CALLS for when in ("before", "after")),
    "before claim", "after claim", "commit sent", "commit done",
    *(f"{way} handler{moment}" for way in ("event", "batch", "async")
      for moment in (" begins", ", within its transaction", ", after its transaction")),
)  # fmt: skip
"""All moments at which a processor may be killed."""


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """What a fork is to do: run a processor until it has drained ``events`` (None: until it is told to end)."""

    key: str
    url: str
    directory: str
    events: int | None = None
    group: str = "g"
    session: str = "day"
    kill_at: str = ""
    kill_nth: int = 1
    poison: list[int] = []
    settings: dict[str, float] = {}


class Steps:
    """Counts steps, and kills this process at one of them."""

    def __init__(self, kill_at: str = "", kill_nth: int = 1) -> None:
        self.counts: Counter[str] = Counter()
        self._kill_at, self._kill_nth = kill_at, kill_nth

    def __call__(self, name: str) -> None:
        self.counts[name] += 1
        if name == self._kill_at and self.counts[name] == self._kill_nth:
            os.kill(os.getpid(), signal.SIGKILL)


def hook(step: Callable[[str], None]) -> None:
    """Put a step before and after each call of a member, after each slice of a claim, and around a commit's way."""

    def around(owner: type, method: str, name: str) -> None:
        original = getattr(owner, method)

        async def hooked(self: Any, *arguments: Any, **more: Any) -> Any:
            step(f"before {name}")
            result = await original(self, *arguments, **more)
            step(f"after {name}")
            return result

        setattr(owner, method, hooked)

    for call in CALLS:
        around(GroupConsumer, call, call)
    around(Membership, "_claim", "claim")
    send_all, run = Link.send_all, Membership.run

    async def sent(self: Link, commands: Any, **more: Any) -> None:
        await send_all(self, commands, **more)
        if any(COMMIT.sha in command[:2] or COMMIT.text in command[:2] for command in commands):
            # The bytes are the kernel's by now: the server gets them whatever becomes of this process.
            step("commit sent")

    async def done(self: Membership, script: Any, names: Any, *arguments: Any) -> Any:
        reply = await run(self, script, names, *arguments)
        if script is COMMIT:
            step("commit done")
        return reply

    Link.send_all, Membership.run = sent, done  # type: ignore[method-assign]


async def work(order: Order, say: Callable[..., None]) -> None:
    """A fork's life."""
    step = Steps(order.kill_at, order.kill_nth)
    hook(step)
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    async with hl.Lab(order.url, directory=order.directory, session=order.session) as lab:
        settings: Any = order.settings
        processor = lab.processor(
            order.group, order.session, name=order.key, retry=hl.RetryPolicy(attempts=0), **settings
        )
        count_events(lab.bus, processor, step, poison=frozenset(order.poison))
        await processor.start()
        telling = asyncio.create_task(_tell(processor, say))
        try:
            if order.events is None:
                await ending.wait()
            else:
                while processor.statistics().committed < order.events:
                    await processor.drain()
        finally:
            telling.cancel()
            await asyncio.wait((telling,))
        report = await processor.stop(deadline_s=20.0)
        say("stopped", report.cut_off, report.handled)


async def _tell(processor: EventProcessor, say: Callable[..., None]) -> None:
    """Say each new state."""
    state = ""
    while True:
        if state != (state := processor.state.value):
            say("state", state)
        await asyncio.sleep(0.005)


def main() -> None:
    compile_kernels()
    keys: dict[int, str] = {}
    waiting = b""
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([0], [], [], 0.005)
        while keys:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            print(keys.pop(pid), "ended", os.waitstatus_to_exitcode(status), flush=True)
        if not ready:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            break
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            order = msgspec.json.decode(line, type=Order)
            pid = os.fork()
            if not pid:
                _forked(order)
            keys[pid] = order.key
            print(order.key, "is", pid, flush=True)
    for pid in keys:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    # Taking numba and numpy down in order takes a second.
    os._exit(0)


def _forked(order: Order) -> None:
    """Never returns."""
    os.close(0)

    def say(*words: object) -> None:
        # One write for a line: several processes say something here.
        os.write(1, (" ".join([order.key, *map(str, words)]) + "\n").encode())

    code = 1
    try:
        asyncio.run(work(order, say))
        code = 0
    except BaseException as error:
        say("failed", json.dumps(f"{type(error).__name__}: {error}"[:2_000]))
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
