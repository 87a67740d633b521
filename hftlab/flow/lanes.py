"""The names of the lanes, and the rule that critical events are never shed."""

from __future__ import annotations

from collections.abc import Iterable

from hftlab.errors import ValidationError, shown

CRITICAL = "CRITICAL"
LANES = (CRITICAL, "HIGH", "NORMAL", "LOW")
"""All lanes, the most urgent first."""
SHEDDABLE = LANES[1:]
"""The lanes whose events may be shed."""


def check_sheddable(lanes: object, what: str) -> tuple[str, ...]:
    """``lanes``, names or one name, as a tuple of names; ``what`` names it in errors. Raises ValidationError."""
    if isinstance(lanes, str):
        lanes = (lanes,)
    if not isinstance(lanes, Iterable):
        raise ValidationError(f'{what} is a tuple of names of lanes such as ("LOW",); got {shown(lanes)}')
    names = tuple(lanes)
    if CRITICAL in names:
        raise ValidationError(
            f"critical events (orders, fills) are never shed: {what} is out of {', '.join(SHEDDABLE)}; "
            f"got {shown(names)}"
        )
    if not names or not all(isinstance(name, str) and name in SHEDDABLE for name in names):
        raise ValidationError(f"{what} is one or more out of {', '.join(SHEDDABLE)}; got {shown(names)}")
    return tuple(dict.fromkeys(names))
