"""S1, S2 and S3: delivered events a second, ours beside every peer that can be had, run by run in turn.

``python -m tests.bench S1 S2 S3``. The handler's work is price times volume: one Python call an event (S1), vectorised
(S2), compiled (S3). The sums of S3 are kept, since a compiler drops a product that nobody asks for.
"""

from __future__ import annotations

from tests.bench import bus
from tests.bench.contenders import by_turns
from tests.bench.measurement import Goal, Measurement
from tests.bench.peers.processes import visitors

_READY = "ready objects, price * volume"
_QUEUE = ("S1", _READY, "asyncio.Queue")
_MESSAGES = ("S1", _READY, "nautilus MessageBus")
_BACKTEST = ("S1", _READY, "nautilus BacktestEngine")
_FLOATS = ("S1", "two floats, price * volume", "csp, two curves")
_DEPTH = ("S3", "a depth handler, bid * size summed", "hftbacktest")

GOALS = [
    Goal("S1a", bus.WORKS["S1a"], at_least=1.5, peer=_QUEUE),
    Goal("S1a", bus.WORKS["S1a"], at_least=3.0, peer=_MESSAGES),
    Goal("S1a", bus.WORKS["S1a"], at_least=3.0, peer=_BACKTEST),
    Goal("S1b", bus.WORKS["S1b"], at_least=5.0, peer=_QUEUE),
    Goal("S1b", bus.WORKS["S1b"], at_least=10.0, peer=_MESSAGES),
    Goal("S1b", bus.WORKS["S1b"], at_least=10.0, peer=_BACKTEST),
    Goal("S1b", bus.WORKS["S1b"], at_least=1.4, peer=_FLOATS),
    Goal("S2", bus.WORKS["S2"], at_least=40e6),
    Goal("S3", bus.WORKS["S3"], at_least=40e6),
    Goal("S3", bus.WORKS["S3"], at_least=5.0, peer=_DEPTH),
    *(Goal(board, work, at_least=0.85, peer=(board, work, bus.UNORDERED)) for board, work in bus.WORKS.items()),
    *(Goal(board, work, at_least=0.9, peer=(board, work, bus.UNTIMED)) for board, work in bus.WORKS.items()),
]


def measure(board: str, runs: int, make: bool = True) -> list[Measurement]:
    """All contenders of one of the boards by turns; ``make`` environments for the peers that need one."""
    with visitors(board, make) as (guests, missing):
        ours = [one for one in bus.contenders() if one.board.startswith(board)]
        return [*by_turns([*ours, *guests], runs), *missing]
