"""``hftlab groups`` and ``hftlab letters``: where a session's consumer groups stand, and what their handlers failed on.

Both only look: they join no group, and what they print changes nothing.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hftlab.errors import ValidationError
from hftlab.pipeline.dead_letters import DeadLetterList

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.lab import Lab

_ERROR_WIDTH = 60
_MOMENT = "%Y-%m-%d %H:%M:%S"


async def groups_text(lab: Lab, parsed: argparse.Namespace) -> str:
    """A line a group: its position, how many events lie behind it, who is active, its dead letters."""
    frame = await lab.streams.groups.to_frame(parsed.session)
    if parsed.csv:
        return frame.to_csv(index=False)
    shown = frame[["group", "log_sequence", "lag", "state", "holder", "letters", "types", "saved"]].copy()
    shown["saved"] = shown["saved"].dt.strftime(_MOMENT)
    head = f"groups of {parsed.session}: {len(frame) or 'none; lab.processor(…) makes one'}"
    return "\n".join([head, *_table(shown), ""])


async def letters_text(lab: Lab, parsed: argparse.Namespace) -> str:
    """A line a dead letter, the oldest first. Raises UnknownSession, UnknownGroup, and ValidationError for --rows."""
    if parsed.rows < 1:
        raise ValidationError(f"--rows is at least 1; got {parsed.rows}")
    letters = DeadLetterList(await lab.streams.groups.letters(parsed.session, parsed.group))
    frame = letters.to_frame()
    if parsed.csv:
        return frame.to_csv(index=False)
    events = sum(letter.events for letter in letters)
    counts = f"{len(letters):,}, of {events:,} event{'s' * (events != 1)}" if letters else "none"
    lines = [f"dead letters of {parsed.group} in {parsed.session}: {counts}"]
    shown = frame.head(parsed.rows)[["at", "handler", "type", "symbol", "log_sequence", "events", "attempts", "error"]]
    lines += _table(shown.assign(at=shown["at"].dt.strftime(_MOMENT), error=shown["error"].map(_one_line)))
    if len(frame) > parsed.rows:
        lines.append(f"  and {len(frame) - parsed.rows:,} more; --csv has all")
    lines += [f"  {handler or '(could not be read)'}: {count:,}" for handler, count in letters.handlers.items()]
    if letters:
        lines.append("when the handler is mended: await processor.redrive()")
    return "\n".join([*lines, ""])


def _table(frame: pd.DataFrame) -> list[str]:
    return [f"  {line}" for line in frame.to_string(index=False, na_rep="").splitlines()] if len(frame) else []


def _one_line(error: str) -> str:
    """An error's first line, without what a terminal would obey."""
    text = "".join(c if c.isprintable() else "?" for c in error.partition("\n")[0])
    return text if len(text) <= _ERROR_WIDTH else text[: _ERROR_WIDTH - 1] + "…"
