"""Load shedding by the user's rules: what gives way, from which figure on, and until when.

A rule has two levels, as a thermostat has: at one alone it would go on and off with every batch, and which rows are
missing would be a matter of luck. Everything shed is counted by rule and by lane. Critical events are never shed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.flow.lanes import LANES
from hftlab.flow.shed_rules import RuleState, ShedChange, ShedRule, Symbols

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RuleStatistics:
    """One rule: how often it became active, for how long in all (up to the last ``update``), what it shed, and why."""

    name: str
    active: bool
    activations: int
    active_ns: int
    shed_rows: int
    why: str


@dataclass(frozen=True, slots=True)
class ShedStatistics:
    """``shed_rows`` in all, ``by_lane`` and by rule: the sums are the same."""

    shed_rows: int
    by_lane: Mapping[str, int]
    rules: tuple[RuleStatistics, ...]


class Shedder:
    """Rules and their state. ``update`` decides which are active, ``mask`` which rows they take; neither does I/O.

    A row that several active rules would shed counts for the first of them, in the order given. Time never runs
    backwards: an earlier ``now_ns`` counts as the latest one seen.
    """

    def __init__(self, rules: Sequence[ShedRule] = ()) -> None:
        for rule in rules:
            if not isinstance(rule, ShedRule):
                raise ValidationError(f"rules are ShedRules; got {shown(rule)}")
        twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
        if twice:
            raise ValidationError(f"rules are counted by name: give them different ones with name=; got {twice} twice")
        self._states = [RuleState(rule) for rule in rules]
        self._lanes_by_measure = {
            measure: {lane for rule in rules if rule.measure == measure for lane in rule.lanes}
            for measure in ("depth", "wait")
        }
        self._active_by_lane: dict[str, list[RuleState]] = {}
        self._by_lane: Counter[str] = Counter()
        self._now_ns = 0
        self.is_active = False
        """Whether any rule is active; while not, ``mask`` needs no call."""

    @property
    def rules(self) -> tuple[ShedRule, ...]:
        """The rules, in the order in which they count rows."""
        return tuple(state.rule for state in self._states)

    @property
    def active(self) -> tuple[ShedRule, ...]:
        """The rules that are active now."""
        return tuple(state.rule for state in self._states if state.active)

    def update(
        self, now_ns: int, depth: Mapping[str, float], wait_s: Mapping[str, float], memory: float
    ) -> list[ShedChange]:
        """Take the figures of now; return which rules became active and which ended. About 1 µs a rule.

        ``depth``: by lane, the part of its capacity that is taken; ``wait_s``: by lane, how long its oldest event has
        waited; ``memory``: the pressure level. Raises ValidationError where a rule's lane is missing.
        """
        # First of all, so that what can't be judged leaves every rule as it was.
        for measure, figures in (("depth", depth), ("wait", wait_s)):
            if not self._lanes_by_measure[measure] <= figures.keys():
                raise ValidationError(
                    f"the rules by {measure} need it of the lanes {sorted(self._lanes_by_measure[measure])}; got only "
                    f"{sorted(figures)}"
                )
        self._now_ns = max(now_ns, self._now_ns)
        changes = []
        for state in self._states:
            change = state.update(self._now_ns, depth, wait_s, memory)
            if change is not None:
                changes.append(change)
        if changes:
            self._active_by_lane = {
                lane: [state for state in self._states if state.active and lane in state.rule.lanes] for lane in LANES
            }
            self.is_active = any(self._active_by_lane.values())
        return changes

    def mask(
        self,
        lane: str,
        rows: npt.NDArray[Any],
        age_ns: int | npt.NDArray[np.int64],
        symbols: Symbols,
        *,
        queued: bool = False,
    ) -> tuple[Bools | None, dict[str, int]]:
        """Which of these rows of a lane to shed, and how many by rule; None and {} for none. They count as shed.

        Of rows that are ``queued`` already, rules without ``older_than_s`` take none: they are for what comes in.

        ``rows``: a structured array with the integer fields ``type`` and ``symbol``, ids into ``symbols``, a table that
        only grows (matches are kept for as long as it is the same object). ``age_ns``: of all rows, or int64, of each.
        Never any row of CRITICAL. Raises ValidationError for an unknown lane, an id without a symbol, and ages of
        another length. About 0.2 µs without an active rule; for 1,024 rows 3 to 11 µs a rule.
        """
        states = self._active_by_lane.get(lane)
        if not states:
            if lane not in LANES:
                raise ValidationError(f"a lane is one of {', '.join(LANES)}; got {shown(lane)}")
            return None, {}
        if isinstance(age_ns, np.ndarray) and age_ns.shape != rows.shape:
            raise ValidationError(f"a row has an age each; got {len(rows)} rows and ages of shape {age_ns.shape}")
        taken: Bools | None = None
        counts: dict[str, int] = {}
        for state in states:
            if queued and state.rule.older_than_s is None:
                continue
            matching = state.matching(rows, age_ns, symbols)
            if matching is None:
                continue
            if taken is not None:
                matching &= ~taken
            count = int(np.count_nonzero(matching))
            if count:
                counts[state.rule.name] = count
                taken = matching if taken is None else taken | matching
        # Only now: rows that can't be judged raise above, and then nothing was shed.
        for state in states:
            state.shed_rows += counts.get(state.rule.name, 0)
        if counts:
            self._by_lane[lane] += sum(counts.values())
        return taken, counts

    def statistics(self) -> ShedStatistics:
        """What was shed so far."""
        rules = tuple(
            RuleStatistics(one.rule.name, one.active, one.activations, one.active_ns, one.shed_rows, one.why)
            for one in self._states
        )
        return ShedStatistics(sum(one.shed_rows for one in rules), dict(self._by_lane), rules)

    def to_frame(self) -> pd.DataFrame:
        """A row a rule, by name: what it says, whether it is active, how often and how long it was, rows shed, why."""
        import pandas as pd

        rows = [
            {
                "lanes": ", ".join(one.rule.lanes),
                "types": ", ".join(map(str, one.rule.types)),
                "symbols": one.rule.symbols or "*",
                "older_than_s": one.rule.older_than_s or 0.0,
                "measure": one.rule.measure,
                "above": one.rule.above,
                "until": one.rule.until,
                "active": one.active,
                "activations": one.activations,
                "active_s": one.active_ns / 1e9,
                "shed_rows": one.shed_rows,
                "why": one.why,
            }
            for one in self._states
        ]
        return pd.DataFrame(rows, index=pd.Index([one.rule.name for one in self._states], name="rule"))

    def __repr__(self) -> str:
        active = ", ".join(rule.name for rule in self.active) or "none"
        rows = self.statistics().shed_rows
        return f"Shedder({len(self._states)} rules, active: {active}; {rows:,} rows shed)"
