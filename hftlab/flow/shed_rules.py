"""``ShedRule``: which rows give way and when; and the state of one rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.flow.checking import check_fraction, check_seconds
from hftlab.flow.lanes import check_sheddable

Bools = npt.NDArray[np.bool_]
Measure = Literal["depth", "wait", "memory"]


class Symbols(Protocol):
    """Symbols by id, in a table that only grows; a list will do."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> str: ...


class ShedRule(msgspec.Struct, frozen=True, kw_only=True):
    """Shed matching rows of ``lanes`` from when ``measure`` reaches ``above`` until it is down at ``until``.

    ``measure``: "depth", the part of the lane's capacity that is taken; "wait", the seconds that the lane's oldest
    event has waited; "memory", the pressure level (0 to 1). With several lanes the one with the greatest figure counts,
    and the rule is active for all of them; make a rule a lane to judge each by itself. ``until`` < ``above``.

    Of the rows, those of ``types`` (event classes or EventTypes; none: all), whose symbol matches ``symbols`` (a
    pattern with ``*`` and ``?``; None: all), and that are older than ``older_than_s`` (None: of any age; of what comes
    in). ``name`` is what the counts go by; without one it is made from the rest. Raises ValidationError, also for
    CRITICAL: that is never shed.
    """

    lanes: tuple[str, ...]
    measure: Measure
    above: float
    until: float
    types: tuple[Any, ...] = ()
    symbols: str | None = None
    older_than_s: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        checked: dict[str, object] = {"lanes": check_sheddable(self.lanes, "lanes")}
        if self.measure not in ("depth", "wait", "memory"):
            raise ValidationError(f'measure is "depth", "wait" or "memory"; got {shown(self.measure)}')
        if self.measure == "wait":
            checked["above"] = check_seconds("above", self.above)
            checked["until"] = check_seconds("until", self.until, zero=True)
        else:
            checked["above"] = check_fraction("above", self.above, zero=False)
            checked["until"] = check_fraction("until", self.until, zero=True)
        if self.until >= self.above:
            raise ValidationError(
                f"until is below above, or the rule would go on and off with every batch; got above={self.above:g}, "
                f"until={self.until:g}"
            )
        checked["types"] = _check_types(self.types)
        if self.symbols is not None and (not isinstance(self.symbols, str) or not self.symbols):
            raise ValidationError(f"symbols is a pattern such as 'BTC*', or None for all; got {shown(self.symbols)}")
        if self.older_than_s is not None:
            checked["older_than_s"] = check_seconds("older_than_s", self.older_than_s)
        if not isinstance(self.name, str):
            raise ValidationError(f"name is a text; got {shown(self.name)}")
        for field, value in checked.items():
            msgspec.structs.force_setattr(self, field, value)
        msgspec.structs.force_setattr(self, "name", self.name or self._made_name())

    def _made_name(self) -> str:
        parts = [f"{'+'.join(self.lanes)} by {self.measure}"]
        if self.types:
            parts.append(f"types {'+'.join(str(one) for one in self.types)}")
        if self.symbols is not None:
            parts.append(self.symbols)
        if self.older_than_s is not None:
            parts.append(f"older than {self.older_than_s:g} s")
        return ", ".join(parts)


def _check_types(types: object) -> tuple[int, ...]:
    # Event classes are as good as their types' numbers.
    numbers: tuple[Any, ...] | None = None
    if isinstance(types, tuple | list | set | frozenset):
        numbers = tuple(getattr(one, "event_type", one) for one in types)
    if numbers is None or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers):
        raise ValidationError(f"types is a tuple of event classes or EventTypes, () for all; got {shown(types)}")
    return tuple(int(one) for one in numbers)


@dataclass(frozen=True, slots=True)
class ShedChange:
    """A rule that became active, or ended. ``value`` is the figure that decided; ``reason`` says it in words."""

    rule: str
    active: bool
    at_ns: int
    value: float
    reason: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


class RuleState:
    """One rule: whether it is active, what it did, and which symbols match it."""

    def __init__(self, rule: ShedRule) -> None:
        self.rule = rule
        self.active = False
        self.activations = self.active_ns = self.shed_rows = 0
        self.why = "never active"
        self._updated_ns = self._began_ns = self._shed_before = 0
        self._older_than_ns = None if rule.older_than_s is None else round(rule.older_than_s * 1e9)
        self._matches = None if rule.symbols is None else _pattern(rule.symbols)
        self._symbols: Symbols = ()
        self._wanted: Bools = np.zeros(0, np.bool_)

    def update(
        self, now_ns: int, depth: Mapping[str, float], wait_s: Mapping[str, float], memory: float
    ) -> ShedChange | None:
        """Take the figures of now; return the change, if it is one."""
        if self.active:
            self.active_ns += now_ns - self._updated_ns
        self._updated_ns = now_ns
        rule = self.rule
        if rule.measure == "memory":
            lane, value = "", memory
        else:
            figures = depth if rule.measure == "depth" else wait_s
            value, lane = max((figures[lane], lane) for lane in rule.lanes)
        if self.active if value <= rule.until else not self.active and value >= rule.above:
            return self._change(now_ns, lane, value)
        return None

    def _change(self, now_ns: int, lane: str, value: float) -> ShedChange:
        rule = self.rule
        self.active = not self.active
        if self.active:
            self.activations += 1
            self._began_ns, self._shed_before = now_ns, self.shed_rows
            limit, after = f"sheds from {_figure(rule.measure, rule.above)}", ""
        else:
            lasted_s = (now_ns - self._began_ns) / 1e9
            limit = f"sheds until {_figure(rule.measure, rule.until)}"
            after = f"; {self.shed_rows - self._shed_before:,} rows shed in {lasted_s:,.3f} s"
        said = {"depth": f"{lane} is full to", "wait": f"{lane}'s oldest event has waited", "memory": "memory is at"}
        self.why = f"{said[rule.measure]} {_figure(rule.measure, value)} ({limit}{after})"
        return ShedChange(rule.name, self.active, now_ns, float(value), self.why)

    def matching(self, rows: npt.NDArray[Any], age_ns: int | npt.NDArray[np.int64], symbols: Symbols) -> Bools | None:
        """Which rows this rule takes, as an array of the caller's own; None for none."""
        parts: list[Bools] = []
        if self._older_than_ns is not None:
            if isinstance(age_ns, np.ndarray):
                parts.append(age_ns > self._older_than_ns)
            elif age_ns <= self._older_than_ns:
                return None
        if self.rule.types:
            types = rows["type"]
            parts.append(np.logical_or.reduce([types == one for one in self.rule.types]))
        if self._matches is not None:
            parts.append(self._of_wanted_symbols(rows["symbol"], symbols))
        if not parts:
            return np.ones(len(rows), np.bool_)
        every: Bools = np.logical_and.reduce(parts)
        return every

    def _of_wanted_symbols(self, ids: npt.NDArray[Any], symbols: Symbols) -> Bools:
        if symbols is not self._symbols:
            self._symbols, self._wanted = symbols, np.zeros(0, np.bool_)
        matches = self._matches
        if matches is not None and len(self._wanted) < len(symbols):
            # Tables only grow, so what was matched before stays.
            fresh = [matches.fullmatch(symbols[at]) is not None for at in range(len(self._wanted), len(symbols))]
            self._wanted = np.concatenate([self._wanted, np.array(fresh, np.bool_)])
        try:
            wanted: Bools = self._wanted[ids]
        except IndexError:
            raise ValidationError(
                f"a row's symbol is an id into symbols, of which there are {len(symbols):,}; got {int(ids.max()):,}"
            ) from None
        return wanted


def _pattern(pattern: str) -> re.Pattern[str]:
    """``*`` is any text, ``?`` any one character; nothing else is special (a symbol may hold brackets)."""
    return re.compile("".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern), re.DOTALL)


def _figure(measure: Measure, value: float) -> str:
    return f"{value:,.3f} s" if measure == "wait" else f"{value:.1%}"
