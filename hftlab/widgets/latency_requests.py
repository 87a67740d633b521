"""What a latency panel's view may ask for: messages from a browser into checked requests."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hftlab.errors import ValidationError
from hftlab.metrics import Stage
from hftlab.widgets.latency_readings import Grouping

_MOST_TEXT = 1_000
"""A handler's name may be a long one; a page may send anything."""


class Want(enum.StrEnum):
    """What can be asked for. The values are the messages' words."""

    BY = "by"
    STAGE = "stage"
    ROW = "row"
    MOVE = "move"
    WIRE = "wire"
    KEEP = "keep"
    DROP = "drop"
    HEARD = "heard"
    LEFT = "left"
    DISMISS = "dismiss"


@dataclass(frozen=True)
class WantRequest:
    """One thing asked for. ``value``: a Grouping's, a Stage's, or a row's name ("": of no row), or a view's id.

    ``rows``: how many to move by.
    """

    want: Want
    value: str = ""
    rows: int = 0


def parse_want(content: object) -> WantRequest:
    """The request in a view's message ``{"do": word, "value": …}``.

    Raises ValidationError: a page can send anything.
    """
    word = content.get("do") if isinstance(content, dict) else None
    value = content.get("value") if isinstance(content, dict) else None
    if not isinstance(word, str) or word not in set(Want):
        raise ValidationError(f"a view asks for one of {', '.join(Want)}; got {word!r:.100}")
    want = Want(word)
    if want in (Want.WIRE, Want.KEEP, Want.DROP, Want.DISMISS):
        return WantRequest(want)
    if want is Want.MOVE:
        if isinstance(value, bool) or not isinstance(value, int) or not -(10**9) <= value <= 10**9:
            raise ValidationError(f"move takes a number of rows; got {value!r:.100}")
        return WantRequest(want, rows=value)
    least = 0 if want is Want.ROW else 1  # no row: nothing is chosen
    if not isinstance(value, str) or not least <= len(value) <= _MOST_TEXT:
        raise ValidationError(f"{want} takes text of up to {_MOST_TEXT:,} characters; got {value!r:.120}")
    if want is Want.BY and value not in set(Grouping):
        raise ValidationError(f"latencies are listed by one of {', '.join(Grouping)}; got {value!r:.100}")
    if want is Want.STAGE and value not in Stage.__members__:
        raise ValidationError(f"a stage is one of {', '.join(Stage.__members__)}; got {value!r:.100}")
    return WantRequest(want, value)
