"""What a processor was asked to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        if self.ordering.merge_s:
            # What the window holds was in order before: read again after a restart, it would pass for duplicates.
            raise ValidationError(
                "a processor keeps the log's order, and can't hold a view merged by timestamp over its restarts; give "
                f"it an ordering of its own without merge_s (got {self.ordering.merge_s:g}): "
                'lab.processor("…", ordering=hl.Ordering())'
            )
        if not self.types:
            raise ValidationError("a processor reads at least one type; leave types away to read all")


def named(what: str, functions: Sequence[F] | Mapping[str, F] | F | None) -> tuple[tuple[str, F], ...]:
    """Functions with the names that messages use for them. Raises ValidationError for what can't be called."""
    if functions is None:
        return ()
    if isinstance(functions, Mapping):
        pairs = list(functions.items())
    else:
        several = [functions] if callable(functions) else list(functions)
        pairs = [(str(getattr(one, "__name__", type(one).__name__)), one) for one in several]
    for name, function in pairs:
        if not callable(function):
            raise ValidationError(f"{what} takes functions; got {shown(function)} for {name!r:.100}")
    return tuple(pairs)
