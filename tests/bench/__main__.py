"""``python -m tests.bench``: the speed scoreboard, ours beside the peers in one run; prints a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.bench import (
    delivery,
    growth,
    growth_replays,
    histograms,
    kernel,
    order,
    preemption,
    replays,
    rings,
    startup,
    streams,
)
from tests.bench.measurement import Goal, Measurement, noise, table

DELIVERY = {board: partial(delivery.measure, board) for board in ("S1", "S2", "S3")}
BOARDS: dict[str, Callable[..., list[Measurement]]] = {
    **DELIVERY,
    "S4": rings.measure,
    "S5": order.measure,
    "S6": streams.measure,  # and S13
    "S7": replays.measure,
    "S9": histograms.measure,
    "S10": kernel.measure,
    "S11": startup.measure,
    "S12": lambda runs: [*growth.measure(runs), *growth_replays.measure(runs)],
    "lanes": preemption.measure,  # no row of the scoreboard: what an order waits
}

_ENTRIES = ("S7", replays.REPLAY, "redis-py, an entry each")

GOALS = [
    *delivery.GOALS,
    *(Goal("S4", work, at_least=ratio, peer=("S4", work, rings.PEER)) for work, ratio in rings.GOALS.items()),
    *order.GOALS,
    *streams.GOALS,
    Goal("S7", replays.REPLAY, at_least=4e6),
    Goal("S7", replays.REPLAY, at_least=30.0, peer=_ENTRIES),
    Goal("S7", replays.PROCESSOR, at_least=0.5, peer=("S7", replays.REPLAY, "hftlab")),
    *histograms.GOALS,
    *kernel.GOALS,
    Goal("S11", "import", at_most=100.0),
    Goal("S11", "first event handled", at_most=1_500.0),
    *growth.GOALS,
    *growth_replays.GOALS,
]  # fmt: skip


def machine() -> str:
    """What every figure has to be read with."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = named[0] if named else model
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{model}, {os.cpu_count()} cores, load {load}, Python {platform.python_version()}, {platform.system()}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("boards", nargs="*", metavar="BOARD", help=f"of {', '.join(BOARDS)} (all)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--json", type=Path, default=Path("artifacts/bench.json"), help="where the figures go")
    parser.add_argument("--no-environments", action="store_true", help="make none for peers that are not installed")
    parsed = parser.parse_args()
    unknown = set(parsed.boards) - set(BOARDS)
    if unknown or parsed.runs < 1:
        parser.error(f"boards are of {', '.join(BOARDS)}, runs above 0; got {', '.join(unknown) or parsed.runs}")
    where = machine()
    print(where)
    measurements: list[Measurement] = []
    failed: list[str] = []
    for board in parsed.boards or BOARDS:
        print(f"measuring {board} …", file=sys.stderr)
        made = {"make": False} if parsed.no_environments and board in DELIVERY else {}
        try:
            measurements += BOARDS[board](parsed.runs, **made)
        except Exception:  # the figures of the other boards took minutes: they are shown, and the run has failed
            traceback.print_exc()
            failed.append(board)
    print(table(measurements))
    print(noise(measurements))
    boards = {measurement.board for measurement in measurements}
    verdicts = [goal.verdict(measurements) for goal in GOALS if goal.board in boards]
    print("\n".join(verdicts))
    parsed.json.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": where, "measurements": [m.to_dict() for m in measurements], "goals": verdicts}
    parsed.json.write_text(json.dumps(content, indent=1))
    if failed:
        print(f"failed: {', '.join(failed)} (see the tracebacks above)", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
