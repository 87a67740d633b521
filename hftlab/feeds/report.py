"""What reading a capture found: counts of everything, and where the damage is. Nothing is left out without a count."""

from __future__ import annotations

import html
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from hftlab.events import EventBatch, EventType, Flags, Kind
from hftlab.events.time_checks import TimeFindings

if TYPE_CHECKING:
    import pandas as pd

DAMAGE_LISTED = 100
"""How many damaged lines a report lists; the others are only counted, so that a ruined file can't fill the memory."""

_REASON_CHARS = 200
_HTML_DAMAGE = 10
_KIND_NAMES = tuple(kind.name.lower() for kind in Kind)


class FeedWarning(UserWarning):
    """A capture was read, but not all is well: damaged lines, impossible times, disorder, or not one event."""


class Damage(msgspec.Struct, frozen=True):
    """A line that could not be used: its file, its number (from 1), and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class FeedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. Every line is in exactly one of ``messages``, ``skipped`` and ``damaged_count``.

    ``events`` counts rows by kind (``quote``, ``trade``, ``level``, ``snapshot level``, ``heartbeat`` …), ``messages``
    the lines that they came from by the format's own names, ``skipped`` the lines that the format knows and leaves
    out. ``damaged`` lists the first ``DAMAGE_LISTED`` of ``damaged_count`` unusable lines. ``backwards`` counts rows
    that arrived, by the recorder's clock, before the row above them: files in the wrong order, or a clock that was set.
    ``times`` has the rows with impossible times by reason and by source, and what is known of the recorder's clock;
    those that were rejected are not in ``events``.
    """

    files: tuple[str, ...] = ()
    lines: int = 0
    events: dict[str, int] = {}
    messages: dict[str, int] = {}
    skipped: dict[str, int] = {}
    damaged: tuple[Damage, ...] = ()
    damaged_count: int = 0
    backwards: int = 0
    times: TimeFindings = TimeFindings()

    @property
    def impossible(self) -> dict[str, int]:
        """Rows with impossible times by reason: ``negative``, ``unit``, ``early``, ``beyond``, ``future`` …"""
        return self.times.impossible

    @property
    def troubles(self) -> str:
        """One line about what is wrong, empty where nothing is: damaged lines, impossible times, disorder, no event."""
        parts = []
        if self.damaged_count:
            noun = "line" if self.damaged_count == 1 else "lines"
            parts.append(f"{self.damaged_count:,} damaged {noun} of {self.lines:,}, the first {self.damaged[0]}")
        if self.backwards:
            noun = "row" if self.backwards == 1 else "rows"
            parts.append(f"{self.backwards:,} {noun} arrived before the one above by the recorder's clock")
        if self.times.impossible:
            parts.append(self.times.troubles)
        if self.lines and not self.events:
            listed = ", ".join(f"{count:,} {kind}" for kind, count in self.skipped.items())
            parts.append(f"no event in {self.lines:,} lines{'; skipped: ' if listed else ''}{listed}")
        return "; ".join(parts)

    def to_frame(self) -> pd.DataFrame:
        """All counts as a DataFrame: ``what``, ``kind``, ``count``; a damaged line with its ``file`` and ``line``."""
        import pandas as pd

        table: list[tuple[str, str, int, str | None, int | None]] = []
        for what in ("messages", "skipped", "events"):
            table += [(what, kind, count, None, None) for kind, count in getattr(self, what).items()]
        table += [("damaged", each.reason, 1, each.file, each.line) for each in self.damaged]
        if self.damaged_count > len(self.damaged):
            table.append(("damaged", "not listed", self.damaged_count - len(self.damaged), None, None))
        table.append(("backwards", "rows", self.backwards, None, None))
        table += [(what, kind, count, None, None) for what, kind, count in self.times.table()]
        frame = pd.DataFrame(table, columns=["what", "kind", "count", "file", "line"])
        return frame.astype({"line": "Int64"})

    def __repr__(self) -> str:
        files = os.path.basename(self.files[0]) if len(self.files) == 1 else f"{len(self.files)} files"
        events = ", ".join(f"{count:,} {kind}" for kind, count in self.events.items()) or "no events"
        skipped = f"; {sum(self.skipped.values()):,} skipped" if self.skipped else ""
        damaged = f"; {self.damaged_count:,} damaged" if self.damaged_count else ""
        impossible = sum(self.times.impossible.values())
        times = f"; {impossible:,} impossible times" if impossible else ""
        return f"FeedReport({files}: {self.lines:,} lines: {events}{skipped}{damaged}{times})"

    def _repr_html_(self) -> str:
        counts = "".join(
            f"<tr><td>{what}</td><td>{html.escape(kind)}</td><td>{count:,}</td></tr>"
            for what in ("messages", "skipped", "events")
            for kind, count in getattr(self, what).items()
        )
        listed = "".join(f"<li>{html.escape(str(damage))}</li>" for damage in self.damaged[:_HTML_DAMAGE])
        more = self.damaged_count - min(len(self.damaged), _HTML_DAMAGE)
        listed += f"<li>{more:,} more</li>" if more else ""
        damage = f"<p>{self.damaged_count:,} damaged lines</p><ul>{listed}</ul>" if self.damaged_count else ""
        times = self.times._repr_html_() if self.times.impossible or self.times.recorder else ""
        return f"<div><b>FeedReport</b> {html.escape(repr(self)[10:])}<table>{counts}</table>{damage}{times}</div>"


class Tally:
    """The counters behind a report while the reading goes on. One writer."""

    def __init__(self, files: tuple[str, ...]) -> None:
        self.files = files
        self.lines = 0
        self.messages: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.damaged: list[Damage] = []
        self.damaged_count = 0
        self.backwards = 0
        self._last_received = 0

    def damage(self, file: str, line: int, reason: str) -> None:
        """Count a damaged line, and list it while the list has room."""
        self.damaged_count += 1
        if len(self.damaged) < DAMAGE_LISTED:
            self.damaged.append(Damage(file, line, reason[:_REASON_CHARS]))

    def count_rows(self, batch: EventBatch) -> None:
        """Count a batch's rows by kind, and its steps back in arrival time. Vectorised, a few ns a row."""
        if not len(batch):
            return
        for run in batch.runs():
            self._count_kinds(run)
        received = batch.records["received"]
        self.backwards += int(np.count_nonzero(received[1:] < received[:-1]))
        self.backwards += int(int(received[0]) < self._last_received)
        self._last_received = int(received[-1])

    def _count_kinds(self, run: EventBatch) -> None:
        rows: np.ndarray[Any, Any] = run.records
        flags = rows["flags"]
        beats = int(np.count_nonzero(flags & Flags.HEARTBEAT))
        if beats:
            self.events["heartbeat"] += beats
            rows = rows[(flags & Flags.HEARTBEAT) == 0]
        if run.type is not EventType.MARKET_DATA:
            self.events[EventType(int(run.records["type"][0])).topic] += len(rows)
            return
        snapshot = (rows["flags"] & Flags.SNAPSHOT) != 0
        found = np.bincount(rows["kind"] + len(_KIND_NAMES) * snapshot, minlength=2 * len(_KIND_NAMES))
        for index in np.flatnonzero(found).tolist():
            prefix = "snapshot " if index >= len(_KIND_NAMES) else ""
            self.events[prefix + _KIND_NAMES[index % len(_KIND_NAMES)]] += int(found[index])

    def report(self, times: TimeFindings | None = None) -> FeedReport:
        """A frozen copy of what has been counted so far, with what the checks of times have found."""
        return FeedReport(
            files=self.files,
            lines=self.lines,
            events=dict(self.events),
            messages=dict(self.messages),
            skipped=dict(self.skipped),
            damaged=tuple(self.damaged),
            damaged_count=self.damaged_count,
            backwards=self.backwards,
            times=times or TimeFindings(),
        )
