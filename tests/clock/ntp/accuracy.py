"""``python -m tests.clock.ntp.accuracy --exchanges 2000``: the estimator's error against a chronyd on loopback.

Server and client go by the same CLOCK_REALTIME, so the truth is known to the ns that reading two clocks takes. This is
the estimator's own error, with kernel stamps and without; it is not accuracy to UTC, which a loopback knows nothing of.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.estimator import Estimator
from hftlab.clock.ntp.sockets import ask, parse_server, resolve
from hftlab.clock.stamps import Trust
from tests.clock.ntp.chronyd import chronyd, truth_ns

BEST_OF = 8
_READ_NS = 1_000


@dataclass(frozen=True)
class Accuracy:
    """Errors in ns: of single exchanges, and of the estimate after every eight of them; how many beyond the bound."""

    stamps: str
    singles_ns: list[int]
    errors_ns: list[int]
    bounds_ns: list[int]
    beyond: int

    def __str__(self) -> str:
        return (
            f"{self.stamps:11} stamps: one exchange {_quantiles(self.singles_ns)}; best of {BEST_OF} "
            f"{_quantiles(self.errors_ns)}; bound p50 {np.median(self.bounds_ns):,.0f} ns, beyond it {self.beyond}"
        )


def _quantiles(errors_ns: list[int]) -> str:
    p50, p99, most = np.quantile(np.abs(errors_ns), [0.5, 0.99, 1.0], method="inverted_cdf")
    return f"bias {np.median(errors_ns):+,.0f}, |error| p50 {p50:,.0f}, p99 {p99:,.0f}, most {most:,.0f} ns"


async def measured(server: str, *, exchanges: int, stamps: bool, spacing_s: float = 0.0) -> Accuracy:
    """Ask ``exchanges`` times; after every eight, compare a new estimator's estimate of these with the truth.

    ``spacing_s`` lies between two of them: after 2 ms of rest the processor's caches are cold, and the question's way
    through the kernel takes 2 µs longer than the answer's, which shows as 1 µs of bias.
    """
    (endpoint,) = await resolve(parse_server(server))
    singles, errors, bounds, beyond = [], [], [], 0
    by: dict[Trust, int] = {}
    for _ in range(exchanges // BEST_OF):
        estimator = Estimator([server])
        for _ in range(BEST_OF):
            answer = await ask(server, endpoint, stamps=stamps)
            assert isinstance(answer.outcome, Exchange), answer.outcome
            by[answer.trust] = by.get(answer.trust, 0) + 1
            singles.append(answer.outcome.offset_ns - truth_ns())
            estimator.add(answer.outcome)
            await asyncio.sleep(spacing_s)
        estimate = estimator.estimate(time.perf_counter_ns())
        assert estimate is not None
        errors.append(estimate.offset_ns - truth_ns())
        bounds.append(estimate.bound_ns)
        beyond += abs(errors[-1]) > estimate.bound_ns + _READ_NS
    return Accuracy("/".join(one.name.lower() for one in by), singles, errors, bounds, beyond)


async def main() -> None:
    """Print both lines, and how busy the machine was."""
    parser = argparse.ArgumentParser(prog="python -m tests.clock.ntp.accuracy", description=__doc__)
    parser.add_argument("--exchanges", type=int, default=2_000, help="how many, of each kind (2000)")
    parser.add_argument("--spacing", type=float, default=0.0, help="seconds between two (0)")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hftlab-ntp-") as folder:
        async with chronyd(Path(folder)) as server:
            for stamps in (True, False):
                found = await measured(server, exchanges=parsed.exchanges, stamps=stamps, spacing_s=parsed.spacing)
                print(found, flush=True)
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"load {load} on {os.cpu_count()} cores")


if __name__ == "__main__":
    asyncio.run(main())
