"""The bus, compiled: the look at rows that come in or were emitted, and a user's own handler in a loop over a batch.

``rows`` looks at what was published, ``lanes`` for what names its lane there, ``emitted`` at what a compiled handler
emitted; all are cached on disk. ``jit`` makes the loop round a handler, which is compiled when it is subscribed;
``emit`` is what the handler emits with, ``putting`` and ``texts`` how numbers and texts get into rows, and
``record_views`` what it sees of a row. Each of those runs as plain Python, too.
"""

from __future__ import annotations

from hftlab.bus.kernels import conflation, emitted, lanes, rows
from hftlab.bus.kernels.rows import inspect_rows

__all__ = ["inspect_rows", "warm"]


def warm() -> int:
    """Compile every kernel into numba's cache on disk, or load what is there already; return how many there are."""
    return rows.warm() + emitted.warm() + conflation.warm() + lanes.warm()
