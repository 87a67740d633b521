"""What a bus tells about itself: its counts, and how they look in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from hftlab.bus.failures import FailureLog
from hftlab.bus.subscriptions import Subscription


@dataclass(frozen=True)
class BusStatistics:
    """Counts since the bus was made, in events.

    published = handled + waiting + held + redelivered + duplicate + set_aside + dropped, at every moment. ``held``
    waits for missing numbers; ``redelivered`` came twice from the log, ``duplicate`` twice from the venue;
    ``set_aside`` came too late, or in conflict with what came before: see ``bus.gaps``.

    ``dropped``: published, and given up by ``close`` or the end of a run. ``emitted``: dispatched emissions;
    ``emissions_refused``: beyond what one event may lead to. ``failures``: failed calls. ``waits``: publications that
    found no room. ``capacity``: rows, of all queues together. ``run``: the name of the run that is on the bus, or "".
    """

    published: int
    handled: int
    waiting: int
    dropped: int
    emitted: int
    emissions_refused: int
    failures: int
    waits: int
    capacity: int
    subscriptions: int
    run: str
    held: int = 0
    redelivered: int = 0
    duplicate: int = 0
    set_aside: int = 0


def html_of_bus(title: str, subscriptions: Sequence[Subscription], failures: FailureLog) -> str:
    """The handlers as a table, and the latest failure's traceback."""
    head = "".join(f"<th>{name}</th>" for name in ("handler", "mode", "calls", "events", "emitted", "failed"))
    rows = "".join(
        f"<tr><td>{html.escape(one.name)}</td><td>{one.mode}</td><td>{one.calls:,}</td><td>{one.delivered:,}</td>"
        f"<td>{one.emitted:,}</td><td>{one.failed:,}</td></tr>"
        for one in subscriptions
    )
    latest = "".join(f"<pre>{html.escape(failure.traceback)}</pre>" for failure in list(failures)[-1:])
    return f"<div><b>{html.escape(title)}</b><table><tr>{head}</tr>{rows}</table>{latest}</div>"
