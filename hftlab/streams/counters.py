"""What a manager has done, as numbers: counted while it works, handed out frozen."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, repr=False)
class StreamStatistics:
    """Counts since the manager was made.

    ``appends`` calls that wrote, ``duplicates`` calls that found everything there, ``resumed`` calls that found a
    part there, ``remade`` publications that found their session gone (deleted, flushed) and began it again;
    ``events_appended``, ``entries_appended`` and ``bytes_appended`` (frames or fields, before the
    protocol); ``answered_twice`` chunks that the server had applied already when they were sent again; ``retries``
    tries after a failure, ``reconnects`` connections that had to be made anew while an append was under way;
    ``entries_read``, ``events_read``, ``bytes_read``; ``damaged`` entries that were skipped on request, and
    ``events_missing`` events that a read of all types should have found (trimmed, or deleted entries); ``silent_s`` for
    how long the server has owed an answer by now.
    """

    appends: int = 0
    duplicates: int = 0
    resumed: int = 0
    remade: int = 0
    events_appended: int = 0
    entries_appended: int = 0
    bytes_appended: int = 0
    answered_twice: int = 0
    retries: int = 0
    reconnects: int = 0
    entries_read: int = 0
    events_read: int = 0
    bytes_read: int = 0
    damaged: int = 0
    events_missing: int = 0
    silent_s: float = 0.0

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name):,}" for name in _SHOWN]
        shown += [
            f"{field.name}={value:,}"
            for field in fields(self)
            if (value := getattr(self, field.name)) and field.name not in _SHOWN
        ]
        return f"StreamStatistics({', '.join(shown)})"

    def _repr_html_(self) -> str:
        cells = {field.name.replace("_", " "): f"{getattr(self, field.name):,}" for field in fields(self)}
        rows = "".join(f"<tr><th style='text-align:left'>{k}</th><td>{v}</td></tr>" for k, v in cells.items())
        return f"<table>{rows}</table>"


_SHOWN = ("events_appended", "events_read")


class Counters:
    """The same numbers while they grow; only the event loop's thread counts."""

    def __init__(self) -> None:
        self.appends = 0
        self.duplicates = 0
        self.resumed = 0
        self.remade = 0
        self.events_appended = 0
        self.entries_appended = 0
        self.bytes_appended = 0
        self.answered_twice = 0
        self.retries = 0
        self.reconnects = 0
        self.entries_read = 0
        self.events_read = 0
        self.bytes_read = 0
        self.damaged = 0
        self.events_missing = 0

    def freeze(self, silent_s: float = 0.0) -> StreamStatistics:
        """The counts now."""
        return StreamStatistics(**vars(self), silent_s=silent_s)
