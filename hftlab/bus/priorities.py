"""``Priorities``: the policy that says which lane an event goes to. It may be changed while the bus runs."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from traceback import TracebackException
from typing import TYPE_CHECKING, Any

from hftlab.bus.lane_plan import LanePlan
from hftlab.bus.lane_tables import Lanes, SymbolMasks
from hftlab.bus.mappings import (
    DEFAULT_MAPPINGS,
    Mapping,
    Rule,
    RuleFailure,
    Texts,
    check_condition,
    check_pattern,
    read_mapping,
    read_rule,
)
from hftlab.bus.signatures import What
from hftlab.bus.subscriptions import Where
from hftlab.errors import ValidationError
from hftlab.events.records import Priority, Rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

if TYPE_CHECKING:
    import pandas as pd

OnFailure = Callable[[RuleFailure], object]

_DEFAULTS = frozenset(mapping.name for mapping in DEFAULT_MAPPINGS)
_COUNTS = ("rows", "raised", "failures", "failed_rows")
_HTML_ROWS = 20


class Priorities:
    """Which lane (LOW, NORMAL, HIGH, CRITICAL) an event goes to: by its own word, else by mappings; then by rules.

    1. An event's own ``priority``, where it has one.
    2. Else the *last* mapping that matches it. A policy begins with ``DEFAULT_MAPPINGS``: orders and fills CRITICAL,
       market data and signals NORMAL, signals of ``RISK_SIGNALS`` HIGH, of ``MONITORING_SIGNALS`` LOW. Where none
       matches: NORMAL.
    3. Rules raise it from there, and never lower it.

    Changes hold for the events that are published from then on; each counts ``version`` up (what changes nothing does
    not). Mappings and rules go by name: one of the same name replaces the one that there is, in its place, so running a
    cell again is harmless. One thread.

    ``on_failure`` is called with a ``RuleFailure`` whenever a rule raises or returns nonsense.
    """

    def __init__(self, *, on_failure: OnFailure | None = None) -> None:
        self.on_failure = on_failure
        self._mappings: dict[str, Mapping] = {mapping.name: mapping for mapping in DEFAULT_MAPPINGS}
        self._rules: dict[str, Rule] = {}
        self._conditions: dict[str, tuple[str, ...]] = {}
        self._failures: dict[str, RuleFailure] = {}
        self._untold = 0
        self._version = 0
        self._masks = SymbolMasks()
        self._plan: LanePlan | None = None

    # -- changing -----------------------------------------------------------------------------------------------------

    def map(
        self,
        what: What | Iterable[What] | None = None,
        *,
        symbol: str | None = None,
        strategy: Texts = None,
        signal_type: Texts = None,
        when: str | None = None,
        lane: Priority | str,
        name: str | None = None,
    ) -> str:
        """Send the events that match to ``lane`` (a Priority or its name); returns the mapping's name.

        ``what``: event classes, EventTypes, or a topic (``"market.BTC*"``); ``symbol``: one symbol or a pattern. None:
        all. ``strategy`` and ``signal_type``: patterns, one or several, over the ``strategy_id`` and ``signal_type`` of
        signals. They cover signals alone: no order or fill says whose it is, so give those a ``priority`` where they
        are made. ``when``: the mapping holds only while that market condition is set (``set_condition``).

        The last mapping that matches wins. ``name``: without one, what it matches makes it; the name of a default
        mapping replaces that. Raises ValidationError.
        """
        mapping = read_mapping(what, symbol, strategy, signal_type, when, lane, name)
        if mapping.name in self._rules:
            raise ValidationError(f"a rule has the name {mapping.name!r:.100}: give name= another, or unmap it first")
        if self._mappings.get(mapping.name) != mapping:
            self._mappings[mapping.name] = mapping
            self._change()
        return mapping.name

    def raise_when(
        self,
        where: Where,
        lane: Priority | str,
        *,
        what: What | Iterable[What] | None = None,
        symbol: str | None = None,
        name: str | None = None,
    ) -> str:
        """Give rows for which ``where`` holds at least that lane, also those with a priority of their own.

        ``where`` takes records of one type (a structured array, not to be written to) and returns a boolean array; with
        several types it is asked about each by itself. Returns the rule's name: without ``name=``, the function's, the
        types and the symbol, so two lambdas for the same events need a name each. Raises ValidationError.

        A rule that raises, or returns something else, counts as not matching for the rows that it was asked about in
        that call; ``failures`` keeps its latest error and counts.
        """
        rule = read_rule(where, lane, what, symbol, name)
        if rule.name in self._mappings:
            raise ValidationError(f"a mapping has the name {rule.name!r:.100}: give name= another, or unmap it first")
        known = self._rules.get(rule.name)
        if known is None or not known.same_as(rule):
            self._rules[rule.name] = rule
            self._failures.pop(rule.name, None)
            self._change()
        return rule.name

    def unmap(self, name: str) -> bool:
        """End the mapping or rule of that name; returns whether there was one."""
        found = self._mappings.pop(name, None) or self._rules.pop(name, None)
        self._failures.pop(name, None)
        if found is not None:
            self._change()
        return found is not None

    def set_condition(self, condition: str, *, symbol: str | None = None) -> None:
        """Say that a market condition holds, for a symbol or pattern (None: everywhere). Raises ValidationError."""
        places = self._conditions.get(check_condition(condition), ())
        place = check_pattern(symbol)
        if place not in places:
            self._conditions[condition] = (*places, place)
            self._change()

    def clear_condition(self, condition: str, *, symbol: str | None = None) -> bool:
        """Say that it holds no more: for what was set with that ``symbol``, or (None) at all; whether it was set.

        A part of what was set at once can't be cleared: "BTC*" stays set when "BTCUSDT" is cleared.
        """
        places = self._conditions.get(check_condition(condition), ())
        left = () if symbol is None else tuple(place for place in places if place != check_pattern(symbol))
        if left == places:
            return False
        if left:
            self._conditions[condition] = left
        else:
            del self._conditions[condition]
        self._change()
        return True

    # -- asking -------------------------------------------------------------------------------------------------------

    def lanes(self, rows: Rows, symbols: SymbolTable) -> Priority | Lanes:
        """The one lane of all rows, or else the lane of each: uint8 of ``len(rows)``.

        Rows of one type under its dtype, or of several under RECORD; ids of ``symbols``, sound enums and types (see
        ``inspect_rows``). About 1 µs where they are of one type and nothing but that decides; else some 10 µs and 1 to
        60 ns a row, and the rules' own time. Raises ValidationError for another dtype.
        """
        return (self._plan or self._make_plan()).lanes(rows, symbols)

    def lane_of_event(
        self,
        event: Event,
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        *,
        now_ns: int | None = None,
    ) -> Priority:
        """The lane of one event. 0.2 µs where its type decides, 1 with symbols or texts, 12 and more with a rule.

        Rules see it as a row: under ``symbols`` and ``sources`` (tables of its own by default), and stamped with
        ``now_ns`` where it brings no times. Raises ValidationError for an event that fits no row.
        """
        return (self._plan or self._make_plan()).lane_of_event(event, symbols, sources, now_ns)

    # -- within -------------------------------------------------------------------------------------------------------

    def _note(self, rule: Rule, rows: int, error: Exception) -> None:
        rule.failures += 1
        rule.failed_rows += rows
        failure = RuleFailure(rule.name, rule.failures, rule.failed_rows, error, _cut(error))
        if self._rules.get(rule.name) is rule:  # unless it was ended meanwhile, maybe by itself
            self._failures[rule.name] = failure
        if self.on_failure is not None:
            try:
                self.on_failure(failure)
            except Exception as untold:  # must not cost the event its place either
                self._untold += 1
                if not getattr(error, "__notes__", None):  # the rule may raise the very same object again and again
                    error.add_note(f"on_failure was told, and raised {untold!r:.200}")

    def _change(self) -> None:
        self._version += 1
        self._plan = None

    def _make_plan(self) -> LanePlan:
        mappings, rules = tuple(self._mappings.values()), tuple(self._rules.values())
        self._plan = LanePlan(mappings, rules, self._conditions, self._masks, self._note)
        return self._plan

    # -- told ---------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """How often the policy has changed."""
        return self._version

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all mappings, in the order in which later ones win, and then of the rules."""
        return (*self._mappings, *self._rules)

    @property
    def conditions(self) -> dict[str, tuple[str, ...]]:
        """The market conditions that are set, each with the symbols and patterns for which it is (``*``: all)."""
        return dict(self._conditions)

    @property
    def failures(self) -> dict[str, RuleFailure]:
        """The rules that failed, by name."""
        return dict(self._failures)

    @property
    def untold(self) -> int:
        """How many failures ``on_failure`` itself failed on; ``failures`` has them all the same."""
        return self._untold

    def to_frame(self) -> pd.DataFrame:
        """A row a mapping, in the order in which later ones win, and then a row a rule.

        ``holds``: for which symbols, as the market conditions are. ``rows``, ``raised``, ``failures`` and
        ``failed_rows`` count for rules alone.
        """
        import pandas as pd

        table = [_told(mapping, self._conditions) for mapping in self._mappings.values()]
        table += [_told(rule, self._conditions) for rule in self._rules.values()]
        return pd.DataFrame(table).astype(dict.fromkeys(_COUNTS, "int64"))

    def __repr__(self) -> str:
        own = sum(name not in _DEFAULTS for name in self._mappings)
        defaults = len(self._mappings) - own
        failures = sum(rule.failures for rule in self._rules.values())
        parts = [
            f"{defaults} default mappings and {own} more",
            f"{len(self._rules)} rule{'' if len(self._rules) == 1 else 's'}",
        ]
        parts[1] += f" with {failures:,} failures" if failures else ""
        parts += [f"{name} for {', '.join(places)}" for name, places in self._conditions.items()]
        return f"Priorities({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(index=False, max_rows=_HTML_ROWS) if self.names else ""
        return f"<div><b>{html.escape(repr(self))}</b>{table}</div>"


def _told(one: Mapping | Rule, conditions: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """A row of ``to_frame``."""
    rule = one if isinstance(one, Rule) else None
    mapping = one if isinstance(one, Mapping) else None
    when = mapping.when if mapping else None
    return {
        "name": one.name,
        "kind": "rule" if rule else "default" if one in DEFAULT_MAPPINGS else "mapping",
        "types": ", ".join(event_type.topic for event_type in sorted(one.types)),
        "symbol": one.pattern or "*",
        "signal_type": _texts(mapping.signal_type if mapping else None),
        "strategy": _texts(mapping.strategy if mapping else None),
        "when": when or "",
        "holds": "*" if when is None else ", ".join(conditions.get(when, ())),
        "lane": one.lane.name,
        **{count: getattr(rule, count) if rule else 0 for count in _COUNTS},
    }


def _texts(patterns: tuple[str, ...] | None) -> str:
    return "*" if patterns is None else ", ".join(patterns)


def _cut(error: Exception) -> TracebackException:
    """Take the tracebacks off an error, and off those behind it, and return what they told. About 20 µs.

    A traceback that is kept keeps its frames, all those that had called them, and the rows in their variables.
    """
    trace = TracebackException.from_exception(error, lookup_lines=False)
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return trace
