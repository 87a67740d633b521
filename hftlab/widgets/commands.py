"""What a player's view may ask for: messages from a browser into checked commands, and their order of execution."""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass

from hftlab.errors import ValidationError

MOST_STEPS = 100_000
MOST_WAITING = 16
_MOST_TEXT = 100


class Do(enum.StrEnum):
    """What can be asked for. The values are the messages' words."""

    PLAY = "play"
    PAUSE = "pause"
    STEP = "step"
    SEEK = "seek"
    SEEK_BY = "seek-by"
    RESTART = "restart"
    SPEED = "speed"
    SYMBOL = "symbol"
    HEARD = "heard"
    LEFT = "left"
    DISMISS = "dismiss"


@dataclass(frozen=True)
class Command:
    """One thing asked for. ``value``: step's count, seek's text or fraction of the range, speed, symbol, view's id."""

    do: Do
    value: int | float | str = ""


def parse_command(content: object) -> Command:
    """The command in a view's message ``{"do": word, "value": …}``. Raises ValidationError: a page can send anything.

    ``seek`` takes text, as a user typed it, or a fraction of the range (0 … 1) where the slider stands; ``seek-by`` a
    fraction to move by; ``step`` a count of 1 to 100,000; ``speed`` text for ``float()`` ("inf": flat out).
    """
    if not isinstance(content, dict):
        raise ValidationError(f"a view's message is an object with a `do`; got {content!r:.100}")
    word, value = content.get("do"), content.get("value")
    if not isinstance(word, str) or word not in set(Do):
        raise ValidationError(f"a view asks for one of {', '.join(Do)}; got {word!r:.100}")
    do = Do(word)
    if do is Do.STEP:
        return Command(do, _count(value))
    if do is Do.SPEED:
        return Command(do, _speed(value))
    if do is Do.SEEK and not isinstance(value, str):
        return Command(do, _fraction(value, 0.0))
    if do is Do.SEEK_BY:
        return Command(do, _fraction(value, -1.0))
    if do in (Do.SEEK, Do.SYMBOL, Do.HEARD, Do.LEFT):
        return Command(do, _text(do, value))
    return Command(do)


def add_command(waiting: deque[Command], command: Command) -> None:
    """Queue a command behind those that wait, so that neither a dragged slider nor a held key stacks up work.

    The latest of several seeks, speeds, or plays counts; steps and moves add up; beyond 16, the oldest waiting one
    falls out (each of a kind merges with its like, so only a mix that nobody can press by hand gets there).
    """
    if waiting and waiting[-1].do is command.do:
        before = waiting.pop()
        if command.do is Do.STEP:
            command = Command(Do.STEP, min(int(before.value) + int(command.value), MOST_STEPS))
        elif command.do is Do.SEEK_BY:
            command = Command(Do.SEEK_BY, float(before.value) + float(command.value))
    elif command.do in (Do.SEEK, Do.RESTART):
        # Where the replay goes next makes the moves before it pointless.
        for done in [old for old in waiting if old.do in (Do.SEEK, Do.SEEK_BY, Do.RESTART, Do.STEP)]:
            waiting.remove(done)
    waiting.append(command)
    while len(waiting) > MOST_WAITING:
        waiting.popleft()


def position_in(text: str) -> int | str:
    """What ``Replay.seek`` takes for what a user typed: digits alone are an event id or ns, the rest a time."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() else text


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_STEPS:
        raise ValidationError(f"a step is of 1 to {MOST_STEPS:,} events; got {value!r:.100}")
    return value


def _speed(value: object) -> float:
    try:
        speed = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except ValueError:
        speed = math.nan
    if not speed >= 0:
        raise ValidationError(f"a speed is a number of 0 or more, or inf for flat out; got {value!r:.100}")
    return speed


def _fraction(value: object, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 1:
        raise ValidationError(f"a place is a time, or a fraction of the range from {least:g} to 1; got {value!r:.100}")
    return float(value)


def _text(do: Do, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _MOST_TEXT:
        wanted = 'a time such as "23:54:30" or an event id' if do is Do.SEEK else "text"
        raise ValidationError(f"{do} takes {wanted}, of up to {_MOST_TEXT} characters; got {value!r:.120}")
    return value.strip()
