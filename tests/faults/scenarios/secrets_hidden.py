"""A secret in the URL, through all that goes right and wrong: it shows nowhere."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import string
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from hftlab import Lab
from hftlab.errors import HftlabError
from hftlab.streams import RedisStreamManager
from tests.faults.showing import everything_about, in_a_notebook, of_object
from tests.faults.suite import Counts, fault
from tests.faults.victims import manager_of, pid_of, socket_of, victim
from tests.streams.batches import trades


class Vault:
    """Keeps the scenario's own frames from showing what must not be seen in hftlab's."""

    def __init__(self, chance: random.Random) -> None:
        self.__secret = "".join(chance.choices(string.ascii_letters + string.digits, k=chance.randint(8, 32)))

    def __repr__(self) -> str:
        return "Vault()"

    def url(self, form: str) -> str:
        """A URL with the secret in the place of SECRET."""
        return form.replace("SECRET", self.__secret)

    def shows(self, texts: list[str]) -> list[str]:
        """Those of the texts in which it is, with it taken out."""
        return [text.replace(self.__secret, "SECRET")[:2_000] for text in texts if self.__secret in text]


class _Log(logging.Handler):
    """Everything that anybody logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts += [record.getMessage(), repr(record.args), str(record.exc_text)]


@contextmanager
def logged() -> Iterator[list[str]]:
    """What is logged meanwhile, by whomever and at any level."""
    root, handler = logging.getLogger(), _Log()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.texts
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


_NOWHERE = (
    "redis://:SECRET@127.0.0.1:1",
    "redis://alice:SECRET@127.0.0.1:1/2",
    "rediss://alice:SECRET@127.0.0.1:1",
    "unix:///nowhere?password=SECRET",
    "redis://alice:SECRET@127.0.0.1:port",
    "redis://alice:SECRET/@127.0.0.1:1",
    "http://alice:SECRET@127.0.0.1",
    "redis://127.0.0.1?wrong=SECRET",
)


@fault(
    "F20",
    "a secret in the URL, through what goes right and wrong",
    promise="in no repr, log, traceback, notebook, process list or file",
)
async def secrets_hidden(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    vault = Vault(chance)
    texts: list[str] = []
    errors = 0
    async with victim(binary, folder) as server:
        path = socket_of(server)
        async with manager_of(server) as manager:
            await manager._connections.call(
                "ACL", "SETUSER", "alice", "on", vault.url(">SECRET"), "~*", "&*", "+@all", "-config"
            )
        right = f"unix://{path}?username=alice&password=SECRET"
        wrong = (f"unix://{path}?username=alice&password=SECRETx", f"unix://{path}?username=SECRET&password=x")
        with logged() as log:
            texts += await _at_work(vault, right)
            for form in (*chance.sample(_NOWHERE, 4), *wrong):
                texts += await _failing(vault, lambda form=form: _open(vault, form))  # type: ignore[misc]
                errors += 1
            texts += await _failing(vault, lambda: _under_it(vault, right, pid_of(server)))
            errors += 1
            await asyncio.sleep(0)
            gc.collect()
            texts += log
        process = psutil.Process(pid_of(server))
        texts += [*process.cmdline(), *process.environ().values(), *psutil.Process().cmdline(), *os.environ.values()]
        files = [path for path in (folder / ".hftlab").rglob("*") if path.is_file()]
        texts += [path.read_bytes().decode(errors="replace") for path in files]
    shown = vault.shows(texts)
    assert not shown, f"the secret shows in {len(shown)} places:\n" + "\n---\n".join(shown)
    return {"places": len(texts), "errors": errors, "files": len(files)}


async def _at_work(vault: Vault, form: str) -> list[str]:
    """What shows of a manager and a lab that work."""
    manager = RedisStreamManager(vault.url(form), namespace="n", progress=False)
    async with manager:
        await manager.append(trades(100), session="day")
        texts = [*of_object(manager), *of_object(manager.address), *of_object(manager._connections)]
        texts += [*of_object(await manager.durability()), *of_object(manager.statistics())]
        texts += await _failing(vault, lambda: manager.set_durability(appendfsync="no"))
    lab = Lab(vault.url(form))
    texts += of_object(lab)
    await lab.start()
    texts += of_object(lab)
    await lab.close()
    return texts


async def _open(vault: Vault, form: str) -> None:
    await RedisStreamManager(vault.url(form), deadline_s=0.05).open()


async def _under_it(vault: Vault, form: str, pid: int) -> None:
    """A call that the server can't answer, for it stands still."""
    async with RedisStreamManager(vault.url(form), deadline_s=0.2, progress=False) as manager:
        process = psutil.Process(pid)
        process.suspend()
        try:
            await manager.append(trades(10, seed=1), session="day")
        finally:
            process.resume()


async def _failing(vault: Vault, call: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """All that shows of the error of a call."""
    with pytest.raises(HftlabError) as caught:
        await call()
    return [*everything_about(caught.value), in_a_notebook(caught.value)]
