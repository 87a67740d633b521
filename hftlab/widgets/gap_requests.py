"""What an inspector's view may ask for: messages from a browser into checked requests."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

from hftlab.errors import ValidationError
from hftlab.sequence import GapState
from hftlab.widgets.gap_choice import ORDERS
from hftlab.widgets.known_gaps import GapKey

_MOST_TEXT = 100
_INT64 = 1 << 63


class Ask(enum.StrEnum):
    """What can be asked for. The values are the messages' words."""

    SELECT = "select"
    MOVE = "move"
    PAGE = "page"
    SOURCE = "source"
    STATE = "state"
    ORDER = "order"
    EVERYTHING = "everything"
    ZOOM = "zoom"
    JUMP = "jump"
    HEARD = "heard"
    LEFT = "left"
    DISMISS = "dismiss"


@dataclass(frozen=True)
class Request:
    """One thing asked for.

    ``value``: select's GapKey (None: nothing), move's and page's whole number, source's id (None: all), state's
    GapState, order's column, zoom's first and last moment in ns (None: the whole), jump's side, or a view's id.
    """

    ask: Ask
    value: Any = None


def parse_request(content: object) -> Request:
    """The request in a view's message ``{"do": word, "value": …}``. Raises ValidationError: a page can send anything.

    Large integers come as text, because a browser's numbers end at 2**53: a gap as ``source:epoch:first:last``, a
    range as ``begin:end``.
    """
    word = content.get("do") if isinstance(content, dict) else None
    value = content.get("value") if isinstance(content, dict) else None
    if not isinstance(word, str) or word not in set(Ask):
        raise ValidationError(f"a view asks for one of {', '.join(Ask)}; got {word!r:.100}")
    ask = Ask(word)
    match ask:
        case Ask.SELECT:
            return Request(ask, GapKey(*_integers(value, 4)) if value else None)
        case Ask.ZOOM:
            return Request(ask, _range(value) if value else None)
        case Ask.MOVE | Ask.PAGE:
            return Request(ask, _whole(ask, value))
        case Ask.SOURCE:
            return Request(ask, _integers(value, 1)[0] if value else None)
        case Ask.STATE:
            return Request(ask, GapState[_one_of(value, [state.name.lower() for state in GapState]).upper()])
        case Ask.ORDER:
            return Request(ask, _one_of(value, ORDERS))
        case Ask.JUMP:
            return Request(ask, _one_of(value, ("before", "after")))
        case Ask.HEARD | Ask.LEFT:
            if not isinstance(value, str) or not 0 < len(value) <= _MOST_TEXT:
                raise ValidationError(f"{ask} takes a view's id, of up to {_MOST_TEXT} characters; got {value!r:.120}")
            return Request(ask, value)
        case _:
            return Request(ask)


def _integers(value: object, count: int) -> list[int]:
    parts = value.split(":") if isinstance(value, str) and len(value) <= _MOST_TEXT else []
    try:
        found = [int(part) for part in parts]
    except ValueError:
        found = []
    if len(found) != count or not all(-_INT64 <= number < _INT64 for number in found):
        raise ValidationError(f"this takes {count} whole numbers of 64 bits with ':' between; got {value!r:.120}")
    return found


def _range(value: object) -> tuple[int, int]:
    begin_ns, end_ns = _integers(value, 2)
    if not 0 < begin_ns < end_ns < _INT64 // 2:
        raise ValidationError(f"a range is two moments in ns since 1970, the first before the last; got {value!r:.120}")
    return begin_ns, end_ns


def _whole(ask: Ask, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value % 1:
        raise ValidationError(f"{ask} takes a whole number; got {value!r:.100}")
    return int(value)


def _one_of(value: object, words: Any) -> str:
    if not isinstance(value, str) or value not in words:
        raise ValidationError(f"one of {', '.join(words)} was expected; got {value!r:.100}")
    return value
