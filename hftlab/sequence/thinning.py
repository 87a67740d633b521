"""Which of very many gaps a picture draws: the longest of each source, state and stretch, with how many it hides.

A picture a thousand pixels wide can't show 100,000 gaps. Merging neighbours would draw losses where there are none, so
one gap stands for its neighbours instead, and says for how many.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_MOST_STRETCHES = 1_024


def latest_ns(records: npt.NDArray[np.void]) -> int:
    """The latest moment that gaps (dtype ``GAP``) tell of, in ns UTC; 0 without any."""
    if not len(records):
        return 0
    return int(max(records["opened_ns"].max(), records["closed_ns"].max()))


def ends_of(records: npt.NDArray[np.void], until_ns: int = 0) -> Ints:
    """When each gap ends, in ns UTC: where it is still open, at ``until_ns`` or the latest known moment."""
    end_ns = max(until_ns, latest_ns(records))
    return np.where(records["closed_ns"] > 0, records["closed_ns"], end_ns).astype(np.int64)


def thinned(records: npt.NDArray[np.void], ends_ns: Ints, most: int, begin_ns: int = 0) -> tuple[Ints, Ints, int]:
    """At most ``most`` gaps to draw, as rising indices, how many gaps each stands for, and the stretch's length in ns.

    All of them, each for itself and with a stretch of 0, where there are no more than ``most``. Else the time from
    ``begin_ns`` (0: the first opening) on is cut into equal stretches, as many as may be, and the longest gap of each
    source, state and stretch is kept. Where even one stretch has too many (more sources than ``most``), the sources
    and states with most gaps are: the counts then don't add up to all. About 0.3 µs a gap.
    """
    count = len(records)
    if count <= most:
        return np.arange(count), np.ones(count, np.int64), 0
    opened = np.maximum(records["opened_ns"].astype(np.int64), begin_ns)
    begin_ns = int(opened.min())
    span_ns = int(opened.max()) - begin_ns + 1
    kinds = (records["source"].astype(np.int64) << 8) | records["state"].astype(np.int64)
    _, kinds = np.unique(kinds, return_inverse=True)
    stretches = _MOST_STRETCHES
    while True:
        stretch_ns = -(-span_ns // stretches)
        groups = kinds * (stretches + 1) + (opened - begin_ns) // stretch_ns
        # The last of each group, when sorted by length within it, is its longest.
        order = np.lexsort((ends_ns - records["opened_ns"], groups))
        last = np.flatnonzero(np.diff(groups[order], append=-1))
        if len(last) <= most or stretches == 1:
            break
        stretches = stretches * 3 // 4
    chosen, stands_for = order[last], np.diff(last, prepend=-1)
    if len(chosen) > most:
        busiest = np.argsort(-stands_for, kind="stable")[:most]
        chosen, stands_for = chosen[busiest], stands_for[busiest]
    by_place = np.argsort(chosen, kind="stable")
    return chosen[by_place].astype(np.int64), stands_for[by_place].astype(np.int64), int(stretch_ns)
