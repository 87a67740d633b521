"""``SessionSummary``: what a stream of batches held, added up batch by batch, in memory that does not grow with it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hftlab.clock import format_time
from hftlab.events.batch import EventBatch
from hftlab.events.records import EventType, Flags, Kind, Rows

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.monitor.figures import Figure

_SECOND_NS = 1_000_000_000

# A latency's bucket is its float64 without the lowest 41 bits: sign, power of two, and 2,048 steps within it.
_DROPPED_BITS = 41
_UNTIMED = Flags.ARRIVAL_TIME | Flags.SOURCE_TIME | Flags.EMITTED


class SessionSummary:
    """Counts, prices by the second and latencies of the events shown to ``observe``. About 60 ns an event, vectorised.

    Register it as a handler, ``lab.bus.subscribe(summary.observe, mode="batch")``, or hand it batches yourself.
    Latency is arrival minus the source's time, kept as it is when negative, of events that have both; quantiles are
    exact to 0.03%.
    """

    def __init__(self) -> None:
        self.events = 0
        self.snapshot_levels = 0
        self.counts: dict[str, int] = {}
        self.symbols: dict[str, int] = {}
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._latencies: dict[int, int] = {}
        self._per_second: dict[int, int] = {}
        self._prices: dict[str, dict[int, float]] = {}

    def observe(self, batch: EventBatch) -> None:
        """Add a batch's events."""
        if not len(batch):
            return
        rows = batch.records
        self.events += len(batch)
        self._add_times(rows)
        self._add_latencies(rows)
        for index, count in enumerate(np.bincount(rows["symbol"]).tolist()):
            if count:
                name = batch.symbols[index]
                self.symbols[name] = self.symbols.get(name, 0) + count
        for event_type, count in batch.counts().items():
            if event_type is EventType.MARKET_DATA:
                self._add_market(batch.only(event_type))
            else:
                self._count(f"{event_type.topic}s", count)

    def _count(self, what: str, count: int) -> None:
        if count:
            self.counts[what] = self.counts.get(what, 0) + count

    def _add_times(self, rows: Rows) -> None:
        received = rows["received"]
        first, last = int(received.min()), int(received.max())
        self.first_ns = first if self.first_ns is None else min(self.first_ns, first)
        self.last_ns = last if self.last_ns is None else max(self.last_ns, last)
        _add(self._per_second, received // _SECOND_NS)

    def _add_latencies(self, rows: Rows) -> None:
        timed = (rows["flags"] & _UNTIMED) == 0
        latency_ns = (rows["received"] - rows["timestamp"])[timed].astype(np.float64)
        _add(self._latencies, latency_ns.view(np.int64) >> _DROPPED_BITS)

    def _add_market(self, batch: EventBatch) -> None:
        rows = batch.records
        kinds = np.bincount(rows["kind"], minlength=len(Kind))
        snapshot = int(np.count_nonzero((rows["kind"] == Kind.LEVEL) & ((rows["flags"] & Flags.SNAPSHOT) != 0)))
        self.snapshot_levels += snapshot
        self._count("quotes", int(kinds[Kind.QUOTE]))
        self._count("trades", int(kinds[Kind.TRADE]))
        self._count("book levels", int(kinds[Kind.LEVEL]) - snapshot)
        self._count("snapshot levels", snapshot)
        self._count("ticks", int(kinds[Kind.TICK]))
        # The mid where there is a quote, else the trade's price; the last of each second stays.
        price = np.where(rows["kind"] == Kind.QUOTE, (rows["bid"] + rows["ask"]) / 2, rows["price"])
        price[rows["kind"] == Kind.LEVEL] = np.nan
        known = np.flatnonzero(~np.isnan(price))
        if not len(known):
            return
        keys = (rows["symbol"][known].astype(np.int64) << 40) | (rows["received"][known] // _SECOND_NS)
        # np.unique finds first places; of the reversed keys these are the last.
        found, reverse = np.unique(keys[::-1], return_index=True)
        last = known[len(known) - 1 - reverse]
        for key, value in zip(found.tolist(), price[last].tolist(), strict=True):
            self._prices.setdefault(batch.symbols[key >> 40], {})[key & ((1 << 40) - 1)] = value

    # -- looked at ------------------------------------------------------------------------------------------------

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last arrival."""
        return 0.0 if self.first_ns is None or self.last_ns is None else (self.last_ns - self.first_ns) / _SECOND_NS

    def latency_ms(self, *quantiles: float) -> list[float]:
        """Quantiles (0 … 1) of arrival minus source time, in ms, to 0.03%; NaN where no event has both times."""
        values_ns, counts = self._latency_buckets()
        if not len(values_ns):
            return [float("nan")] * len(quantiles)
        reached = np.cumsum(counts)
        places = np.searchsorted(reached, np.asarray(quantiles) * (reached[-1] - 1), side="right")
        return [float(value) / 1e6 for value in values_ns[np.minimum(places, len(values_ns) - 1)]]

    def _latency_buckets(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The buckets' middles in ns, rising, and their counts."""
        keys = np.fromiter(self._latencies, np.int64, len(self._latencies))
        counts = np.fromiter(self._latencies.values(), np.int64, len(self._latencies))
        low = (keys << _DROPPED_BITS).view(np.float64)
        high = ((keys + 1) << _DROPPED_BITS).view(np.float64)
        middle = np.where(low == 0, 0.0, (low + high) / 2)
        order = np.argsort(middle)
        return middle[order], counts[order]

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        if self.first_ns is None or self.last_ns is None:
            return ["no events"]
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        names = ", ".join(list(self.symbols)[:8]) + (" …" if len(self.symbols) > 8 else "")
        lines = [
            f"{self.events:,} events of {len(self.symbols)} symbol{'s' * (len(self.symbols) != 1)}: {names}",
            counts,
            f"{format_time(self.first_ns)} to {format_time(self.last_ns)}, {self.duration_s:,.1f} s",
        ]
        least, p50, p99, most = self.latency_ms(0.0, 0.5, 0.99, 1.0)
        if p50 == p50:
            lines.append(
                f"latency (arrival - source time) p50 {p50:,.2f} ms, p99 {p99:,.2f} ms, {least:,.2f} to {most:,.2f} ms"
                + (": negative ones are kept, one of the two clocks is wrong" if least < 0 else "")
            )
        return lines

    def to_frame(self) -> pd.DataFrame:
        """Counts a row: what, and how many."""
        import pandas as pd

        return pd.DataFrame({"events": self.counts}, index=pd.Index(list(self.counts), name="what"))

    def figure(self) -> Figure:
        """A static plotly figure: price by symbol, events a second, latency histogram."""
        from hftlab.monitor.figures import session_figure

        prices = {name: _sorted_items(by_second) for name, by_second in self._prices.items()}
        return session_figure(prices, _sorted_items(self._per_second), self._latency_buckets())

    def __repr__(self) -> str:
        return f"SessionSummary({self.events:,} events, {len(self.symbols)} symbols, {self.duration_s:,.1f} s)"

    def _repr_html_(self) -> str:
        return "<div><b>Session</b><br>" + "<br>".join(html.escape(line) for line in self.lines()) + "</div>"


def _add(counts: dict[int, int], keys: npt.NDArray[Any]) -> None:
    found, numbers = np.unique(keys, return_counts=True)
    for key, number in zip(found.tolist(), numbers.tolist(), strict=True):
        counts[key] = counts.get(key, 0) + number


def _sorted_items(values: dict[int, Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    keys = np.array(sorted(values), np.int64)
    return keys, np.array([values[key] for key in keys.tolist()], np.float64)
