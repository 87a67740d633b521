"""A peer's process as its parent sees it: contestants that are asked for one run at a time."""

from __future__ import annotations

import json
import select
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tests.bench.contenders import Contestant, Unavailable
from tests.bench.measurement import Measurement
from tests.bench.peers.environments import PEERS, Peer, interpreter

ROOT = Path(__file__).parents[3]
ANSWER_S = 120.0
"""The longest wait for an answer: imports and a first compilation take some 10 s."""


@dataclass(frozen=True)
class Visitor:
    """One contender of a peer's process."""

    process: PeerProcess
    place: int
    board: str
    work: str
    name: str
    note: str

    def rate(self) -> float:
        return float(self.process.ask("rate", self.place))

    def calls(self) -> tuple[int, int]:
        """How many calls of the handler one run makes, and how many events it says it handled."""
        called, handled = self.process.ask("calls", self.place)
        return called, handled


class PeerProcess:
    """A peer's process: asleep unless asked. Ends with the ``with`` block. Raises Unavailable wherever it can't run."""

    def __init__(self, peer: Peer, scale: float = 1.0, make: bool = True) -> None:
        self._peer = peer
        python = interpreter(peer, make)
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._child = subprocess.Popen(
            [python, "-m", "tests.bench.peers.worker", peer.module, peer.distribution, str(scale)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()

    def visitors(self) -> list[Visitor]:
        """What it can run. To be called once, first."""
        greeting = self._read()
        version = f"{self._peer.distribution} {greeting['version']}"
        return [
            Visitor(self, place, one["board"], one["work"], one["name"], f"{version}, {one['note']}".rstrip(", "))
            for place, one in enumerate(greeting["contenders"])
        ]

    def ask(self, question: str, place: int) -> Any:
        """Have it run a contender; raises Unavailable with what went wrong there."""
        assert self._child.stdin is not None
        try:
            print(json.dumps({question: place}), file=self._child.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None
        answer = self._read()["answer"]
        if isinstance(answer, str):
            raise Unavailable(answer)
        return answer

    def _read(self) -> Any:
        output = self._child.stdout
        assert output is not None
        if not select.select([output], [], [], ANSWER_S)[0]:
            self._child.kill()
            raise Unavailable(f"{self._peer.distribution} did not answer within {ANSWER_S:.0f} s")
        line = output.readline()  # one line an answer: nothing else waits in the reader's buffer
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> Unavailable:
        code = self._child.wait()
        self._errors.seek(0)
        last = ([line for line in self._errors.read().splitlines() if line.strip()] or ["no output"])[-1]
        return Unavailable(f"{self._peer.distribution}'s process ended with {code}: {last[:200]}")


@contextmanager
def visitors(board: str, make: bool = True) -> Iterator[tuple[list[Contestant], list[Measurement]]]:
    """All peers' contenders on a board, and a skipped measurement for each peer that can't run here."""
    with ExitStack() as stack:
        found: list[Contestant] = []
        missing: list[Measurement] = []
        for peer in PEERS:
            if board not in peer.boards:
                continue
            try:
                process = stack.enter_context(PeerProcess(peer, make=make))
                found += [one for one in process.visitors() if one.board == board]
            except Unavailable as error:
                missing.append(Measurement(board, "", peer.distribution, skipped=str(error)))
        yield found, missing
