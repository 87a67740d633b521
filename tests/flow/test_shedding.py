"""Rules go on and off with hysteresis, take the rows they name, and count each once: against a model row by row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.flow.lanes import LANES
from hftlab.flow.shed_rules import ShedRule
from hftlab.flow.shedding import Shedder

ROW = np.dtype([("price", "<f8"), ("symbol", "<u4"), ("type", "u1")])
SYMBOLS = ["BTCUSDT", "BTC-PERP", "ETHUSDT", "X", "A[1]", "A1", ""]
IDLE = dict.fromkeys(LANES, 0.0)

Rows = npt.NDArray[Any]


def rows_of(*pairs: tuple[int, int]) -> Rows:
    """Rows of (type, symbol id)."""
    rows = np.zeros(len(pairs), ROW)
    if pairs:
        rows["type"], rows["symbol"] = zip(*pairs, strict=True)
    return rows


def rule(**changed: Any) -> ShedRule:
    usual: dict[str, Any] = {"lanes": ("LOW",), "measure": "depth", "above": 0.8, "until": 0.5}
    return ShedRule(**usual | changed)


def set_off(*rules: ShedRule) -> Shedder:
    """A shedder whose rules are all active."""
    shedder = Shedder(rules)
    changes = shedder.update(0, dict.fromkeys(LANES, 1.0), dict.fromkeys(LANES, 1e6), 1.0)
    assert len(changes) == len(rules)
    return shedder


FIGURE = st.sampled_from([0.0, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0])
LEVELS = st.sampled_from([(0.8, 0.5), (0.9, 0.2), (0.6, 0.0), (1.0, 0.9)])
SHEDDABLE = ["HIGH", "NORMAL", "LOW"]
RULES = st.builds(
    lambda levels, **rest: dict(above=levels[0], until=levels[1], **rest),
    levels=LEVELS,
    lanes=st.lists(st.sampled_from(SHEDDABLE), min_size=1, max_size=3, unique=True).map(tuple),
    measure=st.sampled_from(["depth", "wait", "memory"]),
    types=st.sampled_from([(), (1,), (2, 4)]),
    symbols=st.sampled_from([None, "*", "BTC*", "???", "A[1]", "*1*", "X"]),
    older_than_s=st.sampled_from([None, 1e-9, 2e-9]),
)
MASKED = st.tuples(
    st.sampled_from(LANES),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, len(SYMBOLS) - 1), st.integers(0, 4)), max_size=6),
)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 100),
        st.tuples(FIGURE, FIGURE, FIGURE),
        st.tuples(FIGURE, FIGURE, FIGURE),
        FIGURE,
        st.lists(MASKED, max_size=2),
        st.booleans(),
    ),
    max_size=12,
)


class Model:
    """One rule, in plain words."""

    def __init__(self, made: dict[str, Any]) -> None:
        self.made = made
        self.on, self.times, self.shed, self.active_ns = False, 0, 0, 0

    def update(self, passed: int, figures: dict[str, dict[str, float]], memory: float) -> bool | None:
        self.active_ns += passed * self.on
        if self.made["measure"] == "memory":
            value = memory
        else:
            value = max(figures[self.made["measure"]][lane] for lane in self.made["lanes"])
        if self.on != (value > self.made["until"] if self.on else value >= self.made["above"]):
            self.on = not self.on
            self.times += self.on
            return self.on
        return None

    def wants(self, lane: str, event_type: int, symbol: str, age: int) -> bool:
        older, pattern = self.made["older_than_s"], self.made["symbols"]
        return (
            self.on
            and lane in self.made["lanes"]
            and (not self.made["types"] or event_type in self.made["types"])
            and (pattern is None or fnmatchcase(symbol, pattern.replace("[", "[[]")))
            and (older is None or age > round(older * 1e9))
        )


@given(st.lists(RULES, max_size=4), STEPS)
def test_activations_rows_and_counts_are_those_of_the_model(made: list[dict[str, Any]], steps: list[Any]) -> None:
    names = [f"rule {at}" for at in range(len(made))]
    shedder = Shedder([ShedRule(name=name, **one) for name, one in zip(names, made, strict=True)])
    models = [Model(one) for one in made]
    by_lane: Counter[str] = Counter()
    symbols = SYMBOLS[:1]
    now = 0
    for passed, depth, wait, memory, masked, one_age in steps:
        now += passed
        figures = {
            name: dict(zip(SHEDDABLE, values, strict=True)) for name, values in (("depth", depth), ("wait", wait))
        }
        expected = [(name, model.update(passed, figures, memory)) for name, model in zip(names, models, strict=True)]
        changes = shedder.update(now, figures["depth"], figures["wait"], memory)
        assert [(one.rule, one.active) for one in changes] == [one for one in expected if one[1] is not None]
        assert all(one.at_ns == now and one.reason for one in changes)
        assert shedder.is_active is any(model.on for model in models)
        assert [one.name for one in shedder.active] == [n for n, model in zip(names, models, strict=True) if model.on]
        for lane, triples in masked:
            symbols += SYMBOLS[len(symbols) : max((symbol + 1 for _, symbol, _ in triples), default=0)]
            ages = np.array([age for _, _, age in triples], np.int64)
            if one_age:
                ages[:] = 2
            mask, counts = shedder.mask(
                lane, rows_of(*((a, b) for a, b, _ in triples)), 2 if one_age else ages, symbols
            )
            whose = [
                next((at for at, model in enumerate(models) if model.wants(lane, a, SYMBOLS[b], age)), None)
                for (a, b, _), age in zip(triples, ages.tolist(), strict=True)
            ]
            assert (mask is None) == all(at is None for at in whose)
            if mask is not None:
                assert mask.dtype == bool
                assert mask.tolist() == [at is not None for at in whose]
                assert lane != "CRITICAL"
            assert counts == Counter(names[at] for at in whose if at is not None)
            by_lane[lane] += sum(counts.values())
            for at in whose:
                if at is not None:
                    models[at].shed += 1
    told = shedder.statistics()
    assert [(one.active, one.activations, one.active_ns, one.shed_rows) for one in told.rules] == [
        (model.on, model.times, model.active_ns, model.shed) for model in models
    ]
    assert told.shed_rows == sum(told.by_lane.values()) == sum(by_lane.values())
    assert +Counter(told.by_lane) == +by_lane


@pytest.mark.parametrize("lanes", [("CRITICAL",), ("LOW", "CRITICAL")])
def test_a_rule_for_critical_events_is_refused_with_the_reason(lanes: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match=r"critical events \(orders, fills\) are never shed: .*HIGH, NORMAL, LOW"):
        rule(lanes=lanes)


def test_no_row_of_the_critical_lane_is_ever_masked() -> None:
    shedder = set_off(rule(lanes=("LOW", "NORMAL", "HIGH")))
    assert shedder.mask("CRITICAL", rows_of((1, 0)), 10**18, SYMBOLS) == (None, {})
    assert shedder.mask("HIGH", rows_of((1, 0)), 0, SYMBOLS)[1] == {"LOW+NORMAL+HIGH by depth": 1}


def test_a_rule_stays_on_between_its_levels_and_off_too() -> None:
    shedder = Shedder([rule()])
    seen = []
    for at, depth in enumerate([0.79, 0.8, 0.6, 0.51, 0.5, 0.6, 0.79, 1.0]):
        shedder.update(at, IDLE | {"LOW": depth}, IDLE, 0.0)
        seen.append(shedder.is_active)
    assert seen == [False, True, True, True, False, False, False, True]


def test_a_rule_for_several_lanes_follows_the_greatest_figure_among_them() -> None:
    shedder = Shedder([rule(lanes=("LOW", "NORMAL"), measure="wait", above=2.0, until=1.0)])
    (began,) = shedder.update(0, IDLE, IDLE | {"NORMAL": 2.5, "HIGH": 9.0}, 0.0)
    assert began.reason == "NORMAL's oldest event has waited 2.500 s (sheds from 2.000 s)"
    assert not shedder.update(1, IDLE, IDLE | {"LOW": 1.5}, 0.0)
    shedder.mask("LOW", rows_of((1, 0), (1, 1)), 0, SYMBOLS)
    (ended,) = shedder.update(3_000_000_000, IDLE, IDLE | {"HIGH": 9.0}, 0.0)
    assert ended.reason.endswith("has waited 0.000 s (sheds until 1.000 s; 2 rows shed in 3.000 s)")


def test_what_a_change_says_names_the_figure() -> None:
    shedder = Shedder([rule(name="monitoring"), rule(name="quotes", measure="memory", lanes=("NORMAL",))])
    changes = shedder.update(5, IDLE | {"LOW": 0.83}, IDLE, 0.93)
    assert [str(one) for one in changes] == [
        "monitoring: LOW is full to 83.0% (sheds from 80.0%)",
        "quotes: memory is at 93.0% (sheds from 80.0%)",
    ]
    assert [(one.at_ns, one.value) for one in changes] == [(5, 0.83), (5, 0.93)]


def test_a_row_counts_for_the_first_rule_that_takes_it() -> None:
    shedder = set_off(rule(symbols="BTC*", name="btc"), rule(types=(1,), name="market"))
    mask, counts = shedder.mask("LOW", rows_of((1, 0), (1, 2), (2, 1), (2, 2)), 0, SYMBOLS)
    assert mask is not None
    assert mask.tolist() == [True, True, True, False]
    assert counts == {"btc": 2, "market": 1}


def test_a_pattern_has_two_special_characters_and_no_more() -> None:
    shedder = set_off(rule(symbols="A[1]"))
    mask, _ = shedder.mask("LOW", rows_of(*((1, at) for at in range(len(SYMBOLS)))), 0, SYMBOLS)
    assert mask is not None
    assert [SYMBOLS[at] for at in np.flatnonzero(mask)] == ["A[1]"]


def test_matches_are_kept_while_a_table_grows_and_made_anew_for_another_table() -> None:
    class Counting(list[str]):
        looked_up = 0

        def __getitem__(self, at: Any) -> Any:
            self.looked_up += 1
            return super().__getitem__(at)

    shedder = set_off(rule(symbols="BTC*", name="btc"))
    table = Counting(["BTC1", "ETH"])
    for _ in range(5):
        assert shedder.mask("LOW", rows_of((1, 0), (1, 1)), 0, table)[1] == {"btc": 1}
    table.append("BTC2")
    assert shedder.mask("LOW", rows_of((1, 0), (1, 2)), 0, table)[1] == {"btc": 2}
    assert table.looked_up == 3
    assert shedder.mask("LOW", rows_of((1, 0), (1, 1)), 0, ["ETH", "BTC"])[1] == {"btc": 1}
    mask, _ = shedder.mask("LOW", rows_of((1, 0), (1, 1)), 0, ["ETH", "BTC"])
    assert mask is not None
    assert mask.tolist() == [False, True]


def test_only_rows_older_than_the_rule_s_age_are_taken() -> None:
    shedder = set_off(rule(older_than_s=0.5, name="old"))
    rows = rows_of((1, 0), (1, 0))
    assert shedder.mask("LOW", rows, 500_000_000, SYMBOLS) == (None, {})
    assert shedder.mask("LOW", rows, 500_000_001, SYMBOLS)[1] == {"old": 2}
    assert shedder.mask("LOW", rows, np.array([0, 10**9]), SYMBOLS)[1] == {"old": 1}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda s: s.mask("low", rows_of((1, 0)), 0, SYMBOLS),
            "a lane is one of CRITICAL, HIGH, NORMAL, LOW; got 'low'",
        ),
        (lambda s: s.mask("LOW", rows_of((1, 0), (1, 7)), 0, SYMBOLS), "of which there are 7; got 7"),
        (
            lambda s: s.mask("LOW", rows_of((1, 0)), np.zeros(2, np.int64), SYMBOLS),
            r"got 1 rows and ages of shape \(2,\)",
        ),
        (lambda s: s.update(9, {"HIGH": 1.0}, IDLE, 0.0), r"the lanes \['LOW'\]; got only \['HIGH'\]"),
    ],
)
def test_what_cannot_be_judged_is_refused_and_counts_nothing(ask: Callable[[Shedder], Any], message: str) -> None:
    shedder = set_off(rule(name="all"), rule(symbols="E*", name="some"))
    before = shedder.statistics()
    with pytest.raises(ValidationError, match=message):
        ask(shedder)
    assert shedder.statistics() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lanes": ()}, "lanes is one or more out of HIGH, NORMAL, LOW"),
        ({"lanes": ("low",)}, "lanes is one or more out of"),
        ({"lanes": 1}, "lanes is a tuple of names of lanes"),
        ({"lanes": ([],)}, "lanes is one or more out of"),
        ({"measure": "length"}, "measure is"),
        ({"above": 1.5}, "above is a fraction above 0 and up to 1"),
        ({"above": 0, "until": 0}, "above is a fraction above 0"),
        ({"until": 0.8}, "until is below above"),
        ({"until": -0.1}, "until is a fraction of 0 to 1"),
        ({"above": math.nan}, "above is a fraction"),
        ({"measure": "wait", "above": math.inf}, "above is a number of seconds above 0"),
        ({"measure": "wait", "above": 1, "until": -1}, "until is a number of seconds of at least 0"),
        ({"types": 1}, "types is a tuple of event classes"),
        ({"types": ("market",)}, "types is a tuple"),
        ({"types": (True,)}, "types is a tuple"),
        ({"types": (0, -1)}, "types is a tuple"),
        ({"symbols": ""}, "symbols is a pattern"),
        ({"older_than_s": 0}, "older_than_s is a number of seconds above 0"),
        ({"name": 7}, "name is a text"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_what_it_should_be(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rule(**changed)


def test_rules_need_names_of_their_own() -> None:
    with pytest.raises(ValidationError, match=r"give them different ones with name=; got \['LOW by depth'\] twice"):
        Shedder([rule(), rule(above=0.9)])
    with pytest.raises(ValidationError, match="rules are ShedRules"):
        Shedder(["LOW"])  # type: ignore[list-item]


def test_a_rule_without_a_name_is_called_what_it_does() -> None:
    made = rule(lanes=["LOW", "NORMAL", "LOW"], types=[1, 2], symbols="BTC*", older_than_s=2, measure="wait")
    assert made.name == "LOW+NORMAL by wait, types 1+2, BTC*, older than 2 s"
    assert (made.lanes, made.types) == (("LOW", "NORMAL"), (1, 2))
    assert rule(name="mine").name == "mine"


def test_without_rules_nothing_is_shed() -> None:
    shedder = Shedder()
    assert shedder.update(0, {}, {}, 1.0) == []
    assert shedder.mask("LOW", rows_of((1, 0)), 0, SYMBOLS) == (None, {})
    assert len(shedder.to_frame()) == 0


def test_the_table_and_the_line_tell_what_was_shed() -> None:
    shedder = set_off(rule(name="monitoring"), rule(symbols="ETH*", lanes=("NORMAL",), name="eth"))
    shedder.mask("NORMAL", rows_of((1, 2), (1, 0)), 0, SYMBOLS)
    frame = shedder.to_frame()
    assert frame.index.tolist() == ["monitoring", "eth"]
    told = frame[["lanes", "symbols", "active", "activations", "shed_rows"]]
    assert told.to_numpy().tolist() == [["LOW", "*", True, 1, 0], ["NORMAL", "ETH*", True, 1, 1]]
    assert repr(shedder) == "Shedder(2 rules, active: monitoring, eth; 1 rows shed)"
    assert [one.name for one in shedder.rules] == ["monitoring", "eth"]
