"""``GapTable``: every gap of a run, from the message that revealed it to the one that filled it, or to its loss.

A table has one row a *piece*: a range of numbers of one source and epoch in one state. A gap that is filled in its
middle splits; neighbouring filled pieces of one gap are one row again. So every number that was ever missing is in
exactly one row.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.clock import format_time
from hftlab.errors import ValidationError, WindowFull
from hftlab.events.tables import Source, SourceTable
from hftlab.sequence.aside import SetAside
from hftlab.sequence.ordering import Ordering

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.sequence.figures import Figure

_HTML_ROWS = 10


class GapState(enum.IntEnum):
    """Where a gap is in its life."""

    OPEN = 1
    """Numbers are missing; what follows them is held."""
    FILLED = 2
    """They came after all, and everything was delivered in order."""
    LOST = 3
    """They were given up, for a reason; if they come now, they are late."""


class GapReason(enum.IntEnum):
    """Why a gap was given up."""

    NONE = 0
    """It was not."""
    DEADLINE = 1
    """It stayed open longer than ``Ordering.deadline_s``."""
    WINDOW = 2
    """As many messages of its source were held as ``Ordering.window`` allows."""
    RESET = 3
    """The source began a new epoch."""
    END = 4
    """The session, or the run, ended."""
    DECIDED = 5
    """``give_up`` said so."""
    SKIPPED = 6
    """A replay was moved forwards over it."""
    GONE = 7
    """The log does not have it any more: it was trimmed before it was read, or somebody deleted it."""


class Gap(msgspec.Struct, frozen=True):
    """The missing numbers ``first … last`` of a source and epoch. Times are ns UTC.

    ``closed_ns`` is 0 while it is open.
    ``before`` and ``after`` are event ids: of the source's last row before the gap, and of the row that revealed it
    (0 where there is none, or nothing was recorded).
    """

    source: Source
    epoch: int
    first: int
    last: int
    state: GapState
    reason: GapReason = GapReason.NONE
    opened_ns: int = 0
    closed_ns: int = 0
    before: int = 0
    after: int = 0

    @property
    def numbers(self) -> int:
        """How many numbers are missing."""
        return self.last - self.first + 1

    @property
    def duration_ns(self) -> int:
        """How long it was open, in ns; 0 while it is."""
        return self.closed_ns - self.opened_ns if self.closed_ns else 0

    def __str__(self) -> str:
        numbers = f"{self.first}" if self.first == self.last else f"{self.first}…{self.last}"
        why = f", {self.reason.name.lower()}" if self.reason else ""
        return f"{self.source} {numbers} {self.state.name.lower()}{why}"


GAP = np.dtype(
    [
        ("serial", "<i8"),
        ("source", "<i8"),
        ("epoch", "<i8"),
        ("first", "<i8"),
        ("last", "<i8"),
        ("state", "<i8"),
        ("reason", "<i8"),
        ("opened_ns", "<i8"),
        ("closed_ns", "<i8"),
        ("before", "<i8"),
        ("after", "<i8"),
    ]
)
"""A gap in ``GapTable.records``: ``source`` is an id of the table's sources, ``serial`` counts gaps as they opened."""


def gap_of(values: Sequence[int], sources: SourceTable) -> Gap:
    """The values of one row of ``GapTable.records`` as a Gap."""
    _, source, epoch, first, last, state, reason, opened_ns, closed_ns, before, after = values
    return Gap(
        sources[source], epoch, first, last, GapState(state), GapReason(reason), opened_ns, closed_ns, before, after
    )


def window_full(gaps: GapTable, ordering: Ordering, source: Source, taken: int) -> WindowFull:
    """What to raise when this strict source's window is full: what it waits for, and what to do about it.

    Without an open gap of that source it is the deduplicator that presses back.
    """
    gap = next((gap for gap in gaps if gap.state is GapState.OPEN and gap.source == source), None)
    if gap is None:
        message = (
            f"the ids of {ordering.ids:,} events are remembered, as many as there is room for, and those in the way "
            f"are not older than {ordering.ids_s:g} s: wait, or make room, or let the oldest be forgotten: "
            "Ordering(ids=…, ids_s=…, at_capacity=…)"
        )
        return WindowFull(message, taken=taken)
    message = (
        f"{gap.source} waits for number {gap.first:,} to {gap.last:,}: its events are of a strict type, and its window "
        f"of {ordering.window:,} messages is full. Give the numbers up with .gaps.give_up() and go on, or make the "
        "window larger, or the type best-effort: Ordering(window=…, strict=…)"
    )
    return WindowFull(message, taken=taken, gap=gap)


class GapTable:
    """The gaps of one run, as they are now; a gap and its pieces are kept in the order in which they opened.

    Reading it costs about 50 ns a gap. ``version`` changes whenever something was received, held or given up, so that
    whoever shows the table may poll it. ``set_aside`` has the late and the conflicting rows.
    """

    def __init__(
        self,
        sources: SourceTable,
        read: Callable[[], npt.NDArray[np.void]],
        counts: Callable[[], npt.NDArray[np.int64]],
        version: Callable[[], int],
        give_up: Callable[[int | None], None],
        set_aside: SetAside,
        forgotten: Callable[[], int] = lambda: 0,
    ) -> None:
        self.set_aside = set_aside
        self._sources = sources
        self._read, self._counts, self._version, self._give_up = read, counts, version, give_up
        self._forgotten = forgotten
        self.on_decided: Callable[[], None] = lambda: None

    @property
    def version(self) -> int:
        """A number that changes whenever the table may have."""
        return self._version()

    @property
    def records(self) -> npt.NDArray[np.void]:
        """All gaps as a structured array of dtype ``GAP``, in the order in which they opened: a copy."""
        return self._read()

    @property
    def sources(self) -> SourceTable:
        """The sources that ``records`` names by id."""
        return self._sources

    @property
    def counts(self) -> dict[str, int]:
        """How many gaps are ``open``, ``filled`` and ``lost``."""
        states = np.bincount(self._read()["state"], minlength=len(GapState) + 1)
        return {state.name.lower(): int(states[state]) for state in GapState}

    @property
    def forgotten(self) -> int:
        """How many closed gaps are no longer in the table, because it was full."""
        return self._forgotten()

    def __len__(self) -> int:
        return len(self._read())

    def __iter__(self) -> Iterator[Gap]:
        return (gap_of(record, self._sources) for record in self._read().tolist())

    def __getitem__(self, index: int) -> Gap:
        return gap_of(self._read()[index].tolist(), self._sources)

    # -- deciding -------------------------------------------------------------------------------------------------

    def give_up(self, gap: Gap | Source | None = None) -> None:
        """Declare open gaps lost: all of a gap's source (or all of all), so that what they hold back goes on.

        It takes effect with the next work of the bus. For strict types, which wait until somebody decides. Raises
        ValidationError for a source that has no gaps.
        """
        if gap is None:
            self._give_up(None)
            self.on_decided()
            return
        source = gap.source if isinstance(gap, Gap) else gap
        if not isinstance(source, Source):
            raise ValidationError(
                f"give_up takes a Gap of this table, or a Source, or nothing for all; got {gap!r:.200}"
            )
        number = self._sources.find(source)
        if number is None:
            raise ValidationError(f"no events of {source!r:.200} were seen; give_up() without it means all sources")
        self._give_up(number)
        self.on_decided()

    # -- looked at ------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """A row a gap: source, epoch, first, last, numbers, state, reason, opened, closed (UTC), duration_ms, ids."""
        import pandas as pd

        records = self._read()
        closed = np.where(records["closed_ns"] > 0, records["closed_ns"], np.iinfo(np.int64).min)
        lasted = np.where(records["closed_ns"] > 0, (records["closed_ns"] - records["opened_ns"]) / 1e6, np.nan)
        names = {number: str(self._sources[number]) for number in np.unique(records["source"]).tolist()}
        return pd.DataFrame(
            {
                "source": [names[number] for number in records["source"].tolist()],
                "epoch": records["epoch"],
                "first": records["first"],
                "last": records["last"],
                "numbers": records["last"] - records["first"] + 1,
                "state": [GapState(state).name.lower() for state in records["state"].tolist()],
                "reason": [GapReason(reason).name.lower() if reason else "" for reason in records["reason"].tolist()],
                "opened": pd.DatetimeIndex(records["opened_ns"].view("M8[ns]"), tz="UTC"),
                "closed": pd.DatetimeIndex(closed.view("M8[ns]"), tz="UTC"),
                "duration_ms": lasted,
                "before": records["before"],
                "after": records["after"],
            }
        )

    def by_source(self) -> pd.DataFrame:
        """A row a source: messages received, delivered, duplicate, late, conflicting, buffered; numbers filled, lost.

        received = delivered + duplicate + late + conflicting + orphaned + buffered, at every moment.
        """
        import pandas as pd

        counts = self._counts()
        seen = np.flatnonzero(counts[:, 0])
        index = pd.Index([str(self._sources[number]) for number in seen.tolist()], name="source")
        return pd.DataFrame({name: counts[seen, at] for at, name in enumerate(COUNTED)}, index=index)

    def figure(self) -> Figure:
        """A timeline by source; open, filled and lost gaps differ in shape, line and colour. Static, for any viewer."""
        from hftlab.sequence.figures import gap_timeline

        return gap_timeline(self._read(), self._sources)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {state}" for state, count in self.counts.items() if count)
        aside = f"; set aside: {self.set_aside.count:,} rows" if self.set_aside.count else ""
        return f"GapTable({counts or 'no gaps'}{aside})"

    def _repr_html_(self) -> str:
        import html

        records = self._read()
        shown = "".join(
            f"<tr><td>{html.escape(str(gap.source))}</td><td>{gap.epoch}</td><td>{gap.first}</td><td>{gap.last}</td>"
            f"<td>{gap.numbers:,}</td><td>{gap.state.name.lower()}</td>"
            f"<td>{gap.reason.name.lower() if gap.reason else ''}</td><td>{format_time(gap.opened_ns)}</td>"
            f"<td>{format_time(gap.closed_ns) if gap.closed_ns else ''}</td></tr>"
            for gap in (gap_of(record, self._sources) for record in records[:_HTML_ROWS].tolist())
        )
        more = f"<div>… {len(records) - _HTML_ROWS:,} more: .to_frame()</div>" if len(records) > _HTML_ROWS else ""
        head = "".join(
            f"<th>{name}</th>"
            for name in ("source", "epoch", "first", "last", "numbers", "state", "reason", "opened", "closed")
        )
        table = f"<table><tr>{head}</tr>{shown}</table>" if len(records) else ""
        return f"<div><b>{html.escape(repr(self))}</b>{table}{more}</div>"


COUNTED = ("received", "delivered", "duplicate", "late", "conflicting", "orphaned", "buffered", "filled", "lost")
"""The columns of ``by_source``: messages, but for the last two, which are numbers."""
