"""``Skew``: how far a recorder's clock was off its venue's, and what can't be known about it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.clock.skew.envelope import Envelope
from hftlab.clock.times import format_time

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.clock.skew.figures import Figure

Ints: TypeAlias = npt.NDArray[np.int64]


class Skew(msgspec.Struct, frozen=True):
    """A recorder's clock against its venue's, as one line over time: ``offset_ns`` at ``reference_ns``, and a drift.

    ``offset_ns``: recorder minus venue, negative where the recorder is behind, as ``received - timestamp`` of the
    fastest messages has it, less ``least_latency_ns`` (what they took at least, by the caller's word; 0 else).
    ``drift_ppb``: how many ns the recorder gains on the venue in a second, within ``drift_bound_ppb`` as long as the
    fastest messages take equally long throughout; None where the span is too short to tell. ``uncertainty_ns``: how
    well the data tell where the line lies: the stamps' resolution and how thinly the fastest messages are sown.
    ``events`` were looked at, over ``span_ns``; ``below`` of them lie under the line: their stamps are impossible (of
    an envelope: that many windows). ``resolution_ns``: how finely stamps are written.

    **What can't be known**: a clock's error and a latency that never changes look the same. The clock's true error
    is lower than ``offset_ns`` by as much as the fastest message took longer than ``least_latency_ns``; nothing in
    the data says how long that was. ``statement`` puts it into a sentence.
    """

    offset_ns: int
    reference_ns: int
    drift_ppb: float | None
    drift_bound_ppb: float
    uncertainty_ns: int
    events: int
    below: int
    span_ns: int
    resolution_ns: int
    least_latency_ns: int = 0
    envelope: Envelope = Envelope(np.empty(0, np.int64), np.empty(0, np.int64))

    def error_ns(self, received: npt.ArrayLike) -> Ints:
        """What to take off each of these receive times (int64 ns UTC): int64[n] ns, rounded. 10 ns a time."""
        since = np.asarray(received, dtype=np.int64) - np.int64(self.reference_ns)
        if not self.drift_ppb:
            return np.full(since.shape, self.offset_ns, dtype=np.int64)
        # Of the product alone a float64 is made: of a time in ns it would lose 100 ns.
        error_ns: Ints = np.rint(since * (self.drift_ppb * 1e-9)).astype(np.int64) + self.offset_ns
        return error_ns

    def correct(self, received: npt.ArrayLike) -> Ints:
        """These receive times (int64 ns UTC) by the venue's clock: int64[n] ns UTC. 10 ns a time."""
        corrected: Ints = np.asarray(received, dtype=np.int64) - self.error_ns(received)
        return corrected

    @property
    def statement(self) -> str:
        """What is known and what is not, in one sentence."""
        off, known = abs(self.offset_ns), f"± {_duration(self.uncertainty_ns, 3)}"
        fastest = "the fastest message took" + (
            f" beyond {_duration(self.least_latency_ns)}" if self.least_latency_ns else ""
        )
        same = "which the data can't tell from a clock's error"
        if self.offset_ns < 0:
            text = f"the recorder's clock is behind the venue's by {_duration(off)} {known} and as long as {fastest}"
            return f"{text}, {same}; {self._drift()}"
        text = f"the recorder's clock is ahead of the venue's by {_duration(off)} {known} less what {fastest}"
        return f"{text}, {same} (so it may be right, or behind); {self._drift()}"

    def to_frame(self) -> pd.DataFrame:
        """The envelope, a row a window: ``least_ns``, the line there (``error_ns``), and ``corrected_ns``, by UTC."""
        import pandas as pd

        at_ns, least_ns = self.envelope.at_ns, self.envelope.least_ns
        error_ns = self.error_ns(at_ns)
        index = pd.DatetimeIndex(pd.to_datetime(at_ns, utc=True), name="received")
        return pd.DataFrame({"least_ns": least_ns, "error_ns": error_ns, "corrected_ns": least_ns - error_ns}, index)

    def figure(self) -> Figure:
        """A static plotly figure: the envelope and the line under it, and the envelope once corrected."""
        from hftlab.clock.skew.figures import skew_figure

        return skew_figure(self)

    def __repr__(self) -> str:
        drift = "drift unknown"
        if self.drift_ppb is not None:
            drift = f"drift {self.drift_ppb / 1e3:+.3g} ± {self.drift_bound_ppb / 1e3:.3g} ppm"
        told = f"{self.offset_ns / 1e6:+,.3f} ± {self.uncertainty_ns / 1e6:.3g} ms less the least latency; {drift}"
        below = f", {self.below:,} below" if self.below else ""
        return f"Skew({told}; {self.events:,} events{below})"

    def _repr_html_(self) -> str:
        rows = {
            "recorder minus venue": f"{self.offset_ns:+,} ns at {format_time(self.reference_ns)}",
            "uncertainty": f"± {self.uncertainty_ns:,} ns",
            "drift": self._drift(),
            "events": f"{self.events:,} in {_duration(self.span_ns)}, {self.below:,} below the line",
            "resolution": _duration(self.resolution_ns),
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(text)}</td></tr>"
            for name, text in rows.items()
        )
        return f"<div><b>Skew</b>: {html.escape(self.statement)}<table>{cells}</table></div>"

    def _drift(self) -> str:
        if self.drift_ppb is None:
            return f"its drift can't be told from {_duration(self.span_ns)}"
        way = "gains" if self.drift_ppb >= 0 else "loses"
        return f"it {way} {abs(self.drift_ppb) / 1e3:.3g} ± {self.drift_bound_ppb / 1e3:.3g} ppm"


def _duration(span_ns: int, digits: int = 6) -> str:
    """To six digits: of a skew of 1.27253 s the last one matters."""
    for most, divisor, unit in ((1_000, 1, "ns"), (10**6, 10**3, "µs"), (10**9, 10**6, "ms")):
        if abs(span_ns) < most:
            return f"{span_ns / divisor:.{digits}g} {unit}"
    return f"{span_ns / 1e9:,.{digits}g} s"
