"""What a monitor's view may ask for: messages from a browser into checked requests."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hftlab.errors import ValidationError
from hftlab.widgets.bus_readings import ORDERS

_MOST_TEXT = 100


class Look(enum.StrEnum):
    """What can be asked for. The values are the messages' words."""

    ORDER = "order"
    HEARD = "heard"
    LEFT = "left"
    DISMISS = "dismiss"


@dataclass(frozen=True)
class LookRequest:
    """One thing asked for. ``value``: the column by which handlers are to be ordered, or a view's id."""

    look: Look
    value: str = ""


def parse_look(content: object) -> LookRequest:
    """The request in a view's message ``{"do": word, "value": …}``.

    Raises ValidationError: a page can send anything.
    """
    word = content.get("do") if isinstance(content, dict) else None
    value = content.get("value") if isinstance(content, dict) else None
    if not isinstance(word, str) or word not in set(Look):
        raise ValidationError(f"a view asks for one of {', '.join(Look)}; got {word!r:.100}")
    look = Look(word)
    if look is Look.DISMISS:
        return LookRequest(look)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_TEXT:
        raise ValidationError(f"{look} takes text of up to {_MOST_TEXT} characters; got {value!r:.120}")
    if look is Look.ORDER and value not in ORDERS:
        raise ValidationError(f"handlers are ordered by one of {', '.join(ORDERS)}; got {value!r:.100}")
    return LookRequest(look, value)
