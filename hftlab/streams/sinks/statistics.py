"""What a sink has done, and what a crash would cost now: frozen, in words and as a table."""

from __future__ import annotations

import html
from dataclasses import dataclass, fields


@dataclass(frozen=True, repr=False)
class SinkStatistics:
    """Counts of rows since the sink was made; ``accepted == kept + waiting_rows + dropped + unstorable + cut_off``.

    ``accepted``: what the bus accepted of the wanted types and symbols, or what was published through the sink.
    ``kept``: acknowledged by the server. ``waiting_rows`` and ``waiting_bytes`` are not: they are what is lost if
    this process dies now, and ``oldest_s`` is how old the oldest of them is. ``dropped``: found no room
    (``overflow="drop newest"``), or came when the sink had failed. ``unstorable``: rows that no reader could take.
    ``cut_off``: given up when the sink was closed; some may be kept all the same. ``unpublished``: kept, and not
    published to the bus, because the append raised halfway or the bus refused them (``mode="ahead"``). ``waits``:
    how often a publisher was told to wait. ``state``: starting, keeping, standing by (a run is on the bus), waiting
    for the server, failed, closed. ``trouble``: the latest failure, empty while there is none.
    """

    session: str
    mode: str
    state: str
    accepted: int = 0
    kept: int = 0
    waiting_rows: int = 0
    waiting_bytes: int = 0
    oldest_s: float = 0.0
    dropped: int = 0
    unstorable: int = 0
    cut_off: int = 0
    unpublished: int = 0
    waits: int = 0
    trouble: str = ""

    @property
    def in_words(self) -> str:
        """What a crash of this process would cost now, and what was lost."""
        if self.state == "closed":
            said = f"{self.kept:,} of {self.accepted:,} accepted events are kept"
        elif self.waiting_rows:
            said = (
                f"if this process dies now, the last {self.waiting_rows:,} events ({self.oldest_s * 1e3:,.1f} ms) are "
                "lost"
            )
        else:
            said = "if this process dies now, nothing is lost"
        losses = {
            "dropped": self.dropped, "unstorable": self.unstorable, "cut off": self.cut_off,
            "kept and not published": self.unpublished,
        }  # fmt: skip
        return "; ".join([said, *(f"{count:,} {what}" for what, count in losses.items() if count)])

    def __repr__(self) -> str:
        return (
            f"SinkStatistics({self.session!r}, {self.state}: {self.kept:,} of {self.accepted:,} kept; {self.in_words})"
        )

    def _repr_html_(self) -> str:
        cells = {
            field.name.replace("_", " "): f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
            if isinstance(value, int) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) != ""
        }  # fmt: skip
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(value)}</td></tr>"
            for name, value in cells.items()
        )
        return f"<table><caption style='text-align:left'>{html.escape(self.in_words)}</caption>{rows}</table>"
