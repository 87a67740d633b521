"""``python -m tests.bench.peers.worker MODULE DISTRIBUTION SCALE``: a peer's process, which runs what it is asked to.

It writes a line of JSON that says what it can run, then one for every line it reads: ``{"rate": 0}`` runs the first
contender and answers its events a second, ``{"calls": 0}`` runs it and answers how often Python functions called
``notional…`` or ``on_…`` were called: whether the handler really runs, which no timed run counts.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

HANDLERS = ("notional", "on_trade_tick", "on_quote_tick")


def main() -> None:
    # Engines log to standard output, some below Python: what they write there goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    module, distribution, scale = sys.argv[1], sys.argv[2], float(sys.argv[3])
    contenders = importlib.import_module(f"tests.bench.peers.{module}").contenders(scale)
    listed = [{"board": one.board, "work": one.work, "name": one.name, "note": one.note} for one in contenders]
    print(json.dumps({"version": importlib.metadata.version(distribution), "contenders": listed}), file=answers)
    for line in sys.stdin:
        ((question, place),) = json.loads(line).items()
        print(json.dumps({"answer": _answer(question, contenders, place)}), file=answers)


def _answer(question: str, contenders: list[Any], place: int) -> Any:
    try:
        contender = contenders[place]
        return contender.rate() if question == "rate" else calls_of(contender.prepare())
    except Exception as error:  # the parent shows it in the table, and goes on with the others
        return f"{type(error).__name__}: {error}"


def calls_of(run: Callable[[], int]) -> list[int]:
    """How many calls of handlers one run makes, and how many events it says it handled."""
    calls = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_name.startswith(HANDLERS)

    sys.setprofile(profile)
    try:
        handled = run()
    finally:
        sys.setprofile(None)
    return [calls, handled]


if __name__ == "__main__":
    main()
