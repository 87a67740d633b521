"""Checks that the settings of this package share: a number within its range, or an error that gives the rule."""

from __future__ import annotations

from hftlab.errors import ValidationError, shown

LONGEST_S = 1e9
"""Thirty years: more is a mistake of units, and ns of less fit 64 bits."""


def check_count(name: str, value: object, least: int, most: int, unit: str = "") -> int:
    """``value`` as an int of ``least`` to ``most``; a bool is none. Raises ValidationError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValidationError(f"{name} is an integer of {least:,} to {most:,}{unit}; got {shown(value)}")
    return value


def check_fraction(name: str, value: object, *, zero: bool) -> float:
    """``value`` as a float of 0 to 1, with 0 itself only where ``zero``. Raises ValidationError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or not (value or zero):
        least = "of 0 to 1" if zero else "above 0 and up to 1"
        raise ValidationError(f"{name} is a fraction {least} (0.8 is 80 %); got {shown(value)}")
    return float(value)


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """``value`` as a float, a number of seconds above 0, or from 0 up where ``zero``. Raises ValidationError."""
    in_range = not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= LONGEST_S
    if not in_range or not (value or zero):
        raise ValidationError(
            f"{name} is a number of seconds {'of at least' if zero else 'above'} 0; got {shown(value)}"
        )
    assert isinstance(value, int | float)
    return float(value)
