"""What a processor was asked to be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from hftlab.errors import ValidationError, shown
from hftlab.events.records import EventType
from hftlab.pipeline.passage import Check, Transform
from hftlab.pipeline.retrying import RetryPolicy
from hftlab.sequence import Ordering

F = TypeVar("F", bound=Callable[..., object])
Checks = Check | Sequence[Check] | Mapping[str, Check] | None
Transforms = Transform | Sequence[Transform] | Mapping[str, Transform] | None


class ProcessorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of ``EventProcessor``, checked. Raises ValidationError."""

    group: str
    session: str
    types: frozenset[EventType] = frozenset(EventType)
    start: Any = None
    restart: bool = False
    validate: tuple[tuple[str, Check], ...] = ()
    transform: tuple[tuple[str, Transform], ...] = ()
    ordering: Ordering = Ordering()
    retry: RetryPolicy = RetryPolicy()
    checkpoint_s: float = 0.25
    lease_s: float = 10.0
    name: str | None = None

    def __post_init__(self) -> None:
        for what, value, most in (("checkpoint_s", self.checkpoint_s, 60.0), ("lease_s", self.lease_s, 3_600.0)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.001 <= value <= most:
                raise ValidationError(f"{what} is a number of seconds from 0.001 to {most:g}; got {shown(value)}")
        for what, given, kind in (
            ("ordering", self.ordering, Ordering), ("retry", self.retry, RetryPolicy), ("restart", self.restart, bool),
            ("group", self.group, str), ("session", self.session, str),
        ):  # fmt: skip
            if not isinstance(given, kind):
                raise ValidationError(f"{what} is {_KINDS.get(what, 'text')}; got {shown(given)}")
        if self.name is not None and not isinstance(self.name, str):
            raise ValidationError(f"name is text, by which others know this member; got {shown(self.name)}")
        if self.ordering.merge_s:
            # What the window holds was in order before: read again after a restart, it would pass for duplicates.
            raise ValidationError(
                "a processor keeps the log's order, and can't hold a view merged by timestamp over its restarts; give "
                f"it an ordering of its own without merge_s (got {self.ordering.merge_s:g}): "
                'lab.processor("…", ordering=hl.Ordering())'
            )
        if not self.types:
            raise ValidationError("a processor reads at least one type; leave types away to read all")


_KINDS = {"ordering": "an hl.Ordering", "retry": "an hl.RetryPolicy", "restart": "True or False"}


def named(what: str, functions: Sequence[F] | Mapping[str, F] | F | None) -> tuple[tuple[str, F], ...]:
    """Functions with the names that messages use for them. Raises ValidationError for what can't be called."""
    if functions is None:
        return ()
    if isinstance(functions, Mapping):
        pairs = list(functions.items())
    else:
        if not callable(functions) and not isinstance(functions, Iterable):
            raise ValidationError(f"{what} takes functions: one, several, or a dict by name; got {shown(functions)}")
        several = [functions] if callable(functions) else list(functions)
        pairs = [(str(getattr(one, "__name__", type(one).__name__)), one) for one in several]
    for name, function in pairs:
        if not callable(function):
            raise ValidationError(f"{what} takes functions; got {shown(function)} for {name!r:.100}")
    return tuple(pairs)
