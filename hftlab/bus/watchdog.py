"""The watchdog: how long handlers hold the loop, who they are, and how often to look.

Nobody can interrupt a synchronous handler, so it is measured: the clock is read every ``stride`` calls, 32 while they
are fast and every one while they are slow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hftlab.bus.subscriptions import Subscription

if TYPE_CHECKING:
    import pandas as pd

MOST_CALLS = 32
"""So many calls may be made until something more urgent goes first, or a slow handler is noticed."""
KEPT = 100
SLOW_NS = 200_000
FAST_NS = 10_000


@dataclass(frozen=True, slots=True)
class HoldUp:
    """The loop was held for ``held_ns`` by ``calls`` calls of ``handlers`` (several where calls between two looks were
    of several), until ``at_ns`` (ns UTC by the bus's clock)."""

    handlers: tuple[str, ...]
    held_ns: int
    calls: int
    at_ns: int

    def __str__(self) -> str:
        return f"{' or '.join(self.handlers)} held the loop for {self.held_ns / 1e6:,.1f} ms in {self.calls} calls"


class HoldUps:
    """The watchdog of one bus, and the latest 100 hold-ups, the oldest first; ``count`` has all that ever were.

    ``limit_ns``: what counts as one. ``stride``: how many calls to make until the next look.
    """

    def __init__(self, now_ns: Callable[[], int] = lambda: 0) -> None:
        self.limit_ns = 50_000_000
        self.stride = MOST_CALLS
        self.count = 0
        self._now_ns = now_ns
        self._kept: deque[HoldUp] = deque(maxlen=KEPT)

    def look(self, elapsed_ns: int, calls: int, owners: Callable[[], Iterable[Subscription]]) -> None:
        """Take how long the latest calls took; ``owners`` says whose they were, and is only asked where it matters."""
        if elapsed_ns >= SLOW_NS:
            self.stride = max(1, self.stride // 4)
        elif elapsed_ns < FAST_NS and calls >= self.stride:  # a few fast calls, such as an order's, say nothing of many
            self.stride = min(MOST_CALLS, 2 * self.stride)
        if elapsed_ns >= self.limit_ns and calls:
            own = tuple(owners())
            for subscription in own:
                subscription.held_ns_max = max(subscription.held_ns_max, elapsed_ns)
            self.count += 1
            names = tuple(sorted({subscription.name for subscription in own}))
            self._kept.append(HoldUp(names, elapsed_ns, calls, self._now_ns()))

    def to_frame(self) -> pd.DataFrame:
        """A row a hold-up: at (UTC), handlers, held_ms, calls."""
        import pandas as pd

        kept = list(self._kept)
        return pd.DataFrame(
            {
                "at": pd.DatetimeIndex(np.array([one.at_ns for one in kept], "M8[ns]"), tz="UTC"),
                "handlers": [" or ".join(one.handlers) for one in kept],
                "held_ms": np.array([one.held_ns for one in kept], np.float64) / 1e6,
                "calls": np.array([one.calls for one in kept], np.int64),
            }
        )

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[HoldUp]:
        return iter(self._kept)

    def __repr__(self) -> str:
        latest = f", the latest: {self._kept[-1]}" if self._kept else ""
        return f"HoldUps({self.count:,} longer than {self.limit_ns / 1e6:g} ms{latest})"
