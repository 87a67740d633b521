"""A format's options out of text, for command lines: ``NAME=VALUE``, or ``NAME`` alone for what is on or off."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from hftlab.errors import FeedError, ValidationError
from hftlab.feeds import formats

_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def options_from(format: str | None, texts: Iterable[str]) -> dict[str, Any]:
    """The options that ``read`` and ``stream`` take for this format, as ``texts`` tell them; a later one wins.

    What an option takes is told by its default: true or false (``merge``, ``merge=no``), a number, else text; lists
    (an option annotated as a Sequence) are split at commas. Names that the format does not know stay text: ``read``
    has the error that lists those it does. Raises FeedError for an unknown format, ValidationError for text that is no
    option, or a value that does not fit.
    """
    parameters = inspect.signature(formats.find(format).function).parameters
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.isidentifier():
            raise ValidationError(f"an option is NAME=VALUE, such as merge=true; got {text!r:.100}")
        options[name] = _value(name, value if equals else None, parameters.get(name))
    return options


def mapping_from(texts: Iterable[str], said: str, example: str) -> dict[str, str]:
    """``OURS=THEIRS`` texts as a dictionary. Raises ValidationError, which calls them ``said``, for one without =."""
    pairs = {}
    for text in texts:
        ours, equals, theirs = text.partition("=")
        if not equals:
            raise ValidationError(f"{said} is OURS=THEIRS, such as {example}; got {text!r:.100}")
        pairs[ours] = theirs
    return pairs


def _value(name: str, text: str | None, parameter: inspect.Parameter | None) -> Any:
    default = None if parameter is None else parameter.default
    if isinstance(default, bool):
        switch = True if text is None else _SWITCHES.get(text.lower())
        if switch is None:
            raise ValidationError(f"{name} is true or false; got {text!r:.100}")
        return switch
    if text is None:
        raise ValidationError(f"{name} needs a value: {name}=VALUE")
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            raise ValidationError(f"{name} is a number such as {default}; got {text!r:.100}") from None
    kind = "" if parameter is None else inspect.formatannotation(parameter.annotation).strip("'\"")
    if kind.startswith("Mapping"):
        raise FeedError(f"{name} is more than one value: it has an option of its own, --column, or use it from Python")
    return text.split(",") if kind.startswith("Sequence") else text
