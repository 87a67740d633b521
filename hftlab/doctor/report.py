"""``Report``: what was found, check by check, and what the clock is good for; as text, table, HTML and JSON."""

from __future__ import annotations

import enum
import html
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    import pandas as pd

Figure: TypeAlias = int | float | str | bool | None

NARROWEST, WIDEST = 80, 120
_NAME_WIDTH = 19


class Verdict(enum.Enum):
    """What is to be thought of what was measured."""

    GOOD = "good"
    """Nothing stands in the way."""
    FAIR = "fair"
    """It works; figures will be worse than they could be."""
    POOR = "poor"
    """It spoils measurements, or loses data."""
    UNKNOWN = "unknown"
    """It could not be seen here; ``why`` says what hindered."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    ``value`` is what was found, in words, ``good_for`` what that suffices for, ``why`` the reason, ``next`` what to
    type or install. ``figures`` are the same for machines, their units at the end of their names. ``failed``: the
    check itself broke, so that nothing was found out.
    """

    area: str
    name: str
    value: str
    verdict: Verdict
    why: str = ""
    good_for: str = ""
    next: str = ""
    figures: Mapping[str, Figure] = {}
    failed: bool = False


class Answer(enum.Enum):
    """Whether a clock keeps a rule."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "can't be known"


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this machine's clock keeps ``rule``: no further than ``limit_ns`` from UTC; and because of what."""

    rule: str
    limit_ns: int
    answer: Answer
    because: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All checks in the order in which they were made, the rules of the regulators, and how long it took."""

    checks: tuple[Check, ...]
    fitness: tuple[Fitness, ...]
    elapsed_s: float

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that broke: an error of the doctor's, not of the machine's."""
        return tuple(check for check in self.checks if check.failed)

    def to_frame(self) -> pd.DataFrame:
        """A row a check, indexed by area and name: value, verdict, good_for, why, next, all texts."""
        import pandas as pd

        columns = ("value", "verdict", "good_for", "why", "next")
        rows = [[_cell(getattr(check, column)) for column in columns] for check in self.checks]
        keys = [(check.area, check.name) for check in self.checks]
        return pd.DataFrame(rows, columns=list(columns), index=pd.MultiIndex.from_tuples(keys, names=["area", "name"]))

    def to_json(self) -> str:
        """All of it for machines, two spaces to a level."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def text(self, width: int = 100) -> str:
        """All of it for a terminal, in lines of at most ``width`` characters (80 to 120 are used).

        What is good takes one line where it fits; what is not says why, and what to do.
        """
        width = min(max(width, NARROWEST), WIDEST)
        lines: list[str] = []
        area = ""
        for check in self.checks:
            if check.area != area:
                lines += [""] * bool(lines) + [check.area]
                area = check.area
            lines += _check_lines(check, width)
        lines += ["", "good for (this machine's clock, CLOCK_REALTIME)"]
        because = ""
        for one in self.fitness:
            told = "as above" if one.because == because else one.because
            lines += _hung(f"  {one.answer.value:<15}{one.rule:<40}", told, width, " " * 17)
            because = one.because
        lines += ["", self._summary()]
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _summary(self) -> str:
        return f"{self._counted()}; {self.elapsed_s:.1f} s"

    def _counted(self) -> str:
        told = [
            f"{count} {verdict.value}"
            for verdict in Verdict
            if (count := sum(check.verdict is verdict for check in self.checks))
        ]
        broken = f", {len(self.failed)} of them because the check itself failed" if self.failed else ""
        return f"{len(self.checks)} checks: {', '.join(told)}{broken}"

    def __repr__(self) -> str:
        return f"Report({self._counted()})"

    def _repr_html_(self) -> str:
        columns = ("area", "name", "verdict", "value", "good_for", "why", "next")
        checks = _table(columns, [[_cell(getattr(check, column)) for column in columns] for check in self.checks])
        rules = [[one.rule, one.answer.value, one.because] for one in self.fitness]
        fitness = _table(("rule", "kept", "because"), rules)
        return f"<div><b>{html.escape(repr(self))}</b>{checks}<b>This machine's clock</b>{fitness}</div>"


def _cell(value: object) -> str:
    return value.value if isinstance(value, Verdict) else str(value)


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    # Named by hand: in a notebook, numbers and words alike would be set flush right.
    head = "".join(f'<th style="text-align:left">{name.replace("_", " ")}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(text)}</td>' for text in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _check_lines(check: Check, width: int) -> Iterator[str]:
    indent = " " * (11 + _NAME_WIDTH)
    yield from _hung(f"  {check.verdict.value:<8} {check.name:<{_NAME_WIDTH}}", check.value, width, indent)
    if check.good_for:
        yield from _hung(f"{indent}for: ", check.good_for, width, indent + "  ")
    if check.why and check.verdict is not Verdict.GOOD:
        yield from _hung(indent, check.why, width, indent)
    if check.next:
        yield from _hung(f"{indent}-> ", check.next, width, indent + "   ")


def _hung(first: str, text: str, width: int, indent: str) -> list[str]:
    # Commands are to be copied: what would be cut at a hyphen or a slash is left whole.
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    ) or [first]
