"""Users' effects on their way into a commit: which commands there may be, and with which arguments.

All that can be said without looking at the server is said here; ``commit_script`` looks at what the keys hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hftlab.errors import ValidationError, shown
from hftlab.events.group_ports import Effect
from hftlab.streams.keys import Keys, check_name

MAX_ARGUMENTS = 1_000
MAX_EFFECT_BYTES = 1 << 26

# What Redis reads as an integer, and no more: its own parser takes no sign +, no blank and no leading zero.
_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MOST_INTEGER = 9_200_000_000_000_000_000
_MOST_BITS = 1 << 32


class Checked(NamedTuple):
    """Transactions as the script's arguments, the users' keys that these count from 1, and what was refused here."""

    arguments: list[Any]
    keys: list[str]
    refused: list[tuple[int, str]]


def checked(transactions: Sequence[Sequence[Effect]], keys: Keys) -> Checked:
    """The transactions that may be sent. Those with a fault are left out as a whole, and told why."""
    numbers: dict[str, int] = {}
    refused: list[tuple[int, str]] = []
    arguments: list[Any] = []
    count = 0
    for index, transaction in enumerate(transactions):
        fault = next(filter(None, map(_fault, transaction)), None)
        if fault is not None:
            refused.append((index, fault))
            continue
        count += 1
        arguments += (index, len(transaction))
        for command, key, values in transaction:
            number = numbers.setdefault(keys.user(key), len(numbers) + 1)
            arguments += (command.upper(), number, len(values), *values)
    return Checked([count, *arguments], list(numbers), refused)


def _fault(effect: Effect) -> str | None:
    command, key, values = effect
    try:
        check_name("a key", key)
        check = _COMMANDS.get(command.upper()) if isinstance(command, str) else None
        if check is None:
            raise ValidationError(f"a command is one of {', '.join(_COMMANDS)}; got {shown(command)}")
        if not all(isinstance(value, bytes) for value in values):
            raise ValidationError(f"arguments are bytes; got {shown(values)}")
        if len(values) > MAX_ARGUMENTS or sum(map(len, values)) > MAX_EFFECT_BYTES:
            raise ValidationError(
                f"an effect has up to {MAX_ARGUMENTS:,} arguments and {MAX_EFFECT_BYTES:,} bytes; got {len(values):,} "
                "arguments: make several effects of it"
            )
        check(values)
    except ValidationError as error:
        return f"{command} {key}: {error}"[:1_000]
    return None


Check = Callable[[Sequence[bytes]], None]


def _counted(number: int, what: str) -> Check:
    def check(values: Sequence[bytes]) -> None:
        _need(len(values) == number, what, values)

    return check


def _some(what: str) -> Check:
    def check(values: Sequence[bytes]) -> None:
        _need(len(values) > 0, what, values)

    return check


def _pairs(values: Sequence[bytes]) -> None:
    _need(len(values) > 0 and len(values) % 2 == 0, "field value [field value …]", values)


def _integer_at(place: int, what: str) -> Check:
    def check(values: Sequence[bytes]) -> None:
        _need(len(values) == place + 1 and _is_integer(values[place]), what, values)

    return check


def _decimal_at(place: int, what: str) -> Check:
    def check(values: Sequence[bytes]) -> None:
        _need(len(values) == place + 1 and _is_decimal(values[place]), what, values)

    return check


def _scored(values: Sequence[bytes]) -> None:
    sound = len(values) > 0 and len(values) % 2 == 0 and all(map(_is_decimal, values[::2]))
    _need(sound, "score member [score member …], finite numbers", values)


def _one_scored(values: Sequence[bytes]) -> None:
    _need(len(values) == 2 and _is_decimal(values[0]), "increment member, a finite number", values)


def _entry(values: Sequence[bytes]) -> None:
    sound = len(values) >= 3 and len(values) % 2 == 1 and values[0] == b"*"
    _need(sound, "* field value [field value …]: only the server's own ids can't collide", values)


def _bit(values: Sequence[bytes]) -> None:
    sound = len(values) == 2 and values[0].isdigit() and len(values[0]) <= 10 and int(values[0]) < _MOST_BITS
    sound = sound and _is_integer(values[0]) and values[1] in (b"0", b"1")
    _need(sound, "offset bit: 0 to 2**32 - 1, and 0 or 1", values)


def _is_integer(text: bytes) -> bool:
    return bool(_INTEGER.fullmatch(text)) and abs(int(text)) <= _MOST_INTEGER


def _is_decimal(text: bytes) -> bool:
    return len(text) <= 300 and bool(_DECIMAL.fullmatch(text)) and abs(float(text)) < 1e308


def _need(sound: bool, what: str, values: Sequence[bytes]) -> None:
    if not sound:
        raise ValidationError(f"its arguments are {what}; got {shown(tuple(values))}")


_COMMANDS: dict[str, Check] = {
    "SET": _counted(1, "value"),
    "INCRBY": _integer_at(0, "increment, an integer"),
    "DECRBY": _integer_at(0, "decrement, an integer"),
    "INCRBYFLOAT": _decimal_at(0, "increment, a finite number"),
    "HSET": _pairs,
    "HINCRBY": _integer_at(1, "field increment, an integer"),
    "HINCRBYFLOAT": _decimal_at(1, "field increment, a finite number"),
    "HDEL": _some("field [field …]"),
    "SADD": _some("member [member …]"),
    "SREM": _some("member [member …]"),
    "ZADD": _scored,
    "ZINCRBY": _one_scored,
    "RPUSH": _some("element [element …]"),
    "LPUSH": _some("element [element …]"),
    "XADD": _entry,
    "DEL": _counted(0, "none"),
    "APPEND": _counted(1, "text"),
    "SETBIT": _bit,
    "PFADD": _some("element [element …]"),
}
"""The commands that an effect may be, and what their arguments must be."""
