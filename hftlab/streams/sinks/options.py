"""What a sink is made with, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hftlab.errors import ValidationError, shown
from hftlab.streams.cutting import check_frame_rows
from hftlab.streams.keys import check_name
from hftlab.streams.sinks.choosing import Choice

Mode = Literal["behind", "ahead"]
OnFull = Literal["wait", "drop newest", "raise"]


@dataclass(frozen=True)
class SinkOptions:
    """How a sink keeps; ``Lab.keep`` describes the fields. Raises ValidationError."""

    choice: Choice
    mode: Mode = "behind"
    overflow: OnFull = "wait"
    flush_s: float = 0.02
    frame_rows: int = 1_024
    buffer_rows: int = 1 << 18
    name: str = "sink"

    def __post_init__(self) -> None:
        for field, value, words in (
            ("mode", self.mode, get_args(Mode)),
            ("overflow", self.overflow, get_args(OnFull)),
        ):
            if value not in words:
                raise ValidationError(f"{field}= is one of {', '.join(map(repr, words))}; got {shown(value)}")
        flush_s, rows = self.flush_s, self.buffer_rows
        if isinstance(flush_s, bool) or not isinstance(flush_s, (int, float)) or not 0 <= flush_s <= 3_600:
            raise ValidationError(f"flush_s= is a number of seconds from 0 to 3,600; got {shown(flush_s)}")
        if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= 1 << 32:
            raise ValidationError(f"buffer_rows= is an integer from 1 on, of 128 bytes each; got {shown(rows)}")
        check_frame_rows(self.frame_rows)
        check_name("a sink's name", self.name)
        if self.mode == "ahead" and not self.choice.is_all:
            raise ValidationError("mode='ahead' keeps all that is published through it: leave types= and symbols= out")
