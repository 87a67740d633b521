"""All that a tool could show of an error, an object or a session: for judging whether a secret is in it."""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterator
from typing import Any

from IPython.core import ultratb


def everything_about(error: BaseException, seen: set[int] | None = None) -> Iterator[str]:
    """The error as any tool could show it: with causes, contexts, notes, and every frame's local variables."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return
    seen.add(id(error))
    yield from traceback.TracebackException.from_exception(error, capture_locals=True).format()
    yield repr(error)
    yield repr(vars(error))
    trace = error.__traceback__
    while trace is not None:
        if "hftlab" in trace.tb_frame.f_code.co_filename or "redis" in trace.tb_frame.f_code.co_filename:
            for value in trace.tb_frame.f_locals.values():
                yield from shown(value)
        trace = trace.tb_next
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from everything_about(other, seen)


def shown(value: Any, depth: int = 2) -> Iterator[str]:
    """A value as rich or a debugger shows it: its repr, and its plain attributes."""
    yield repr(value)
    if depth:
        for attribute in vars(value).values() if hasattr(value, "__dict__") else ():
            yield from shown(attribute, depth - 1)


def in_a_notebook(error: BaseException) -> str:
    """The error below a cell, in the mode that shows the most (``%xmode Verbose``)."""
    page = io.StringIO()
    ultratb.VerboseTB(ostream=page).handler((type(error), error, error.__traceback__))  # type: ignore[no-untyped-call]
    return page.getvalue()


def of_object(value: Any) -> Iterator[str]:
    """What a cell shows that ends with this object, and what it has inside."""
    yield from shown(value, depth=1)
    yield str(value)
    for name in ("_repr_html_", "_repr_markdown_"):
        if hasattr(value, name):
            yield str(getattr(value, name)())
