"""The formats that ``read`` and ``stream`` know, and how to add one of your own.

A format is a function from a ``Capture`` and keyword options to batches::

    @hl.feeds.formats.register("pipes", "SYMBOL|ns|price|volume, one trade a line")
    def pipes(capture, *, venue="mine"):
        for piece in capture.pieces():
            events = []
            for index, line in enumerate(piece.lines):
                try:
                    symbol, at, price, volume = line.decode().split("|")
                    events.append(hl.MarketDataEvent(symbol=symbol, timestamp=int(at), kind="TRADE",
                                                     price=float(price), volume=float(volume)))
                except ValueError as error:     # a ValidationError is one
                    capture.damage(piece, index, str(error))
            capture.messages("trade", len(events))
            yield hl.EventBatch.from_events(events)

    hl.feeds.read("ticks.txt", format="pipes")

Files, gzip, line numbers, the report, the progress bar and the cutting into batches are ``read``'s work. Registering a
name again replaces its function, so a cell that does it can be rerun.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from hftlab.errors import FeedError
from hftlab.events import EventBatch
from hftlab.feeds.capture import Capture

FormatFunction = Callable[..., Iterator[EventBatch]]
F = TypeVar("F", bound=FormatFunction)


class Format(NamedTuple):
    """A registered format: its name, a line about it, and the function that reads it."""

    name: str
    about: str
    function: FormatFunction

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the keyword options that its function takes."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def batches(self, capture: Capture, options: dict[str, Any]) -> Iterator[EventBatch]:
        """Call the function. Raises FeedError for options that it does not take; lists those that it does."""
        try:
            inspect.signature(self.function).bind(capture, **options)
        except TypeError as error:
            takes = ", ".join(self.options) or "no options"
            raise FeedError(f"format {self.name!r}: {error}; it takes: {takes}") from None
        return self.function(capture, **options)


_FORMATS: dict[str, Format] = {}


def register(name: str, about: str = "") -> Callable[[F], F]:
    """A decorator that makes a function the format of that name; see the module's docstring for what it must do."""

    def keep(function: F) -> F:
        _FORMATS[name] = Format(name, about, function)
        return function

    return keep


def names() -> list[str]:
    """The names of all formats, in alphabetical order."""
    return sorted(_FORMATS)


def find(name: str | None) -> Format:
    """The format of that name. Raises FeedError, which lists them all, where there is none."""
    found = _FORMATS.get(name) if isinstance(name, str) else None
    if found is None:
        listed = "; ".join(f"{each.name!r} ({each.about})" for each in map(_FORMATS.__getitem__, names()))
        said = "no format was given" if name is None else f"there is no format {name!r:.100}"
        raise FeedError(f"{said}: pass format=, one of {listed}, or register one of your own (hftlab.feeds.formats)")
    return found
