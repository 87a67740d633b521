"""What a clock panel's view may ask for: messages from a browser into checked requests."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hftlab.errors import ValidationError
from hftlab.widgets.clock_series import WINDOWS

_MOST_TEXT = 100


class ClockAsk(enum.StrEnum):
    """What can be asked for. The values are the messages' words."""

    WINDOW = "window"
    HEARD = "heard"
    LEFT = "left"
    DISMISS = "dismiss"


@dataclass(frozen=True)
class ClockRequest:
    """One thing asked for. ``value``: how far back is to be drawn, or a view's id."""

    ask: ClockAsk
    value: str = ""


def parse_clock_ask(content: object) -> ClockRequest:
    """The request in a view's message ``{"do": word, "value": …}``.

    Raises ValidationError: a page can send anything.
    """
    word = content.get("do") if isinstance(content, dict) else None
    value = content.get("value") if isinstance(content, dict) else None
    if not isinstance(word, str) or word not in set(ClockAsk):
        raise ValidationError(f"a view asks for one of {', '.join(ClockAsk)}; got {word!r:.100}")
    ask = ClockAsk(word)
    if ask is ClockAsk.DISMISS:
        return ClockRequest(ask)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_TEXT:
        raise ValidationError(f"{ask} takes text of up to {_MOST_TEXT} characters; got {value!r:.120}")
    if ask is ClockAsk.WINDOW and value not in WINDOWS:
        raise ValidationError(f"what is drawn is one of {', '.join(WINDOWS)}; got {value!r:.100}")
    return ClockRequest(ask, value)
