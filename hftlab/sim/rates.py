"""``Faults``: which faults are asked for, how often, and how bad; checked."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from hftlab.errors import ValidationError
from hftlab.sim.arguments import check_within

MAX_MESSAGES = 1_000_000
MAX_SECONDS = 1e6

_RATES = ("loss", "loss_bursts", "duplicates", "conflicts", "disorder", "late_bursts", "resets", "clock_steps")
_LENGTHS = ("loss_burst_length", "duplicate_delay", "displacement", "late_burst_length")


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What ``faults`` is asked for, under the names of its arguments (see there); the default is no fault at all.

    ``faults(batch, seed=1, **msgspec.structs.asdict(asked))`` asks for the same again. Raises ValidationError for a
    rate that is not 0 to 1, a length that is not an integer of 1 to 1,000,000, and seconds out of bounds.
    """

    loss: float = 0.0
    loss_bursts: float = 0.0
    loss_burst_length: int = 10
    tail: int = 0
    duplicates: float = 0.0
    conflicts: float = 0.0
    duplicate_delay: int = 8
    disorder: float = 0.0
    displacement: int = 8
    late_bursts: float = 0.0
    late_burst_length: int = 10
    late_by_s: float = 1.0
    resets: float = 0.0
    clock_steps: float = 0.0
    step_s: float = -0.5

    def __post_init__(self) -> None:
        for name in _RATES:
            check_rate(name, getattr(self, name))
        for name in (*_LENGTHS, "tail"):
            least = 0 if name == "tail" else 1
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, np.integer))
                or not least <= value <= MAX_MESSAGES
            ):
                raise ValidationError(
                    f"{name} is a number of messages, an integer of {least} to {MAX_MESSAGES:,}; got {value!r:.100}"
                )
        check_within("late_by_s", self.late_by_s, 1e-9, MAX_SECONDS)
        check_within("step_s", self.step_s, -MAX_SECONDS, MAX_SECONDS)

    @property
    def nothing(self) -> bool:
        """True where no fault can come of this."""
        return not self.tail and not any(getattr(self, name) for name in _RATES)


def check_rate(name: str, value: float) -> None:
    """Raise ValidationError for what is no share of messages."""
    try:
        check_within(name, value, 0.0, 1.0)
    except ValidationError:
        number = isinstance(value, (int, float)) and math.isfinite(value)
        hint = f": for {value:g} percent, {value / 100:g}" if number and 1 < value <= 100 else ""
        raise ValidationError(
            f"{name} is the share of messages that it happens to, a number of 0 to 1; got {value!r:.100}{hint}"
        ) from None


def check_length(name: str, value: int, least: int) -> None:
    """Raise ValidationError for what is no number of messages."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not least <= value <= MAX_MESSAGES:
        raise ValidationError(
            f"{name} is a number of messages, an integer of {least} to {MAX_MESSAGES:,}; got {value!r:.100}"
        )
