"""Which lane an event goes to: rows at once against a model that takes them singly, and what a user sees."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.bus import lane_plan, lane_tables
from hftlab.bus.mappings import DEFAULT_MAPPINGS, MONITORING_SIGNALS, RISK_SIGNALS, RuleFailure
from hftlab.bus.priorities import Priorities
from hftlab.errors import ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    MarketDataEvent,
    OrderEvent,
    Priority,
    SignalEvent,
    SymbolTable,
)
from hftlab.events.records import DTYPES, RECORD, Rows, of_type
from hftlab.events.rowbytes import concat_rows
from hftlab.sequence import Gap

LOW, NORMAL, HIGH, CRITICAL = Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL
SYMBOLS = ("BTCUSDT", "BTCEUR", "ETH", "[X]")
PATTERNS = (None, "*", "BTC*", "B?CEUR", "ETH", "[X]", "NEW")
SIGNAL_TYPES = ("RISK", "RISK_A", "RISKY", "METRIC_é", "HEARTBEAT", "ALPHA", "MARGIN_CALL")
STRATEGIES = ("", "mm1", "mm2", "arb")
CONDITIONS = ("volatile", "closing")
POISON = 13
"""A row with this sequence makes a rule fail."""


def matches(pattern: str | None, text: str) -> bool:
    return pattern is None or fnmatchcase(text, pattern.replace("[", "[[]"))


@dataclass(frozen=True)
class Told:
    """One event, as the model sees it."""

    event_type: EventType
    symbol: str
    signal_type: str
    strategy: str
    own: Priority
    sequence: int

    def event(self) -> Event:
        shared: dict[str, Any] = {"symbol": self.symbol, "priority": self.own, "sequence": self.sequence}
        if self.event_type is EventType.MARKET_DATA:
            return MarketDataEvent(price=1.0, **shared)
        if self.event_type is EventType.ORDER:
            return OrderEvent(order_id="o", direction="BUY", quantity=1, **shared)  # type: ignore[arg-type]
        if self.event_type is EventType.FILL:
            return FillEvent(order_id="o", executed_qty=1, executed_price=1, **shared)
        return SignalEvent(signal_type=self.signal_type, strategy_id=self.strategy, **shared)


@dataclass
class Model:
    """The policy as plain lists, asked about one event after the other."""

    mappings: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: set[tuple[str, str]] = field(default_factory=set)

    def mapped(self, told: Told) -> Priority:
        lane = {EventType.ORDER: CRITICAL, EventType.FILL: CRITICAL}.get(told.event_type, NORMAL)
        if told.event_type is EventType.SIGNAL:
            lane = HIGH if any(matches(pattern, told.signal_type) for pattern in RISK_SIGNALS) else lane
            lane = LOW if any(matches(pattern, told.signal_type) for pattern in MONITORING_SIGNALS) else lane
        for mapping in self.mappings.values():
            fits = told.event_type in mapping["what"] and matches(mapping["symbol"], told.symbol)
            for name, value in (("signal_type", told.signal_type), ("strategy", told.strategy)):
                wanted = mapping[name]
                fits = fits and (
                    wanted is None
                    or (told.event_type is EventType.SIGNAL and any(matches(pattern, value) for pattern in wanted))
                )
            when = mapping["when"]
            fits = fits and (when is None or any(n == when and matches(p, told.symbol) for n, p in self.conditions))
            lane = mapping["lane"] if fits else lane
        return lane

    def lanes(self, events: Sequence[Told]) -> list[Priority]:
        lanes = [told.own or self.mapped(told) for told in events]
        for event_type in EventType:
            for rule in self.rules.values():
                asked = [
                    at
                    for at, told in enumerate(events)
                    if event_type is told.event_type in rule["what"] and matches(rule["symbol"], told.symbol)
                ]
                if any(events[at].sequence == POISON for at in asked):
                    continue
                for at in asked:
                    if events[at].sequence > rule["above"]:
                        lanes[at] = max(lanes[at], rule["lane"])
        return lanes


def rule_above(number: int) -> Callable[[Rows], npt.NDArray[np.bool_]]:
    def above(records: Rows) -> npt.NDArray[np.bool_]:
        assert (records["type"] == records["type"][0]).all()
        assert records.dtype == DTYPES[EventType(int(records["type"][0]))]
        if (records["sequence"] == POISON).any():
            raise RuntimeError("poisoned")
        found: npt.NDArray[np.bool_] = records["sequence"] > number
        return found

    return above


lanes_drawn = st.sampled_from([LOW, NORMAL, HIGH, CRITICAL])
types_drawn = st.sets(st.sampled_from(EventType), min_size=1)
told_drawn = st.builds(
    Told,
    st.sampled_from(EventType),
    st.sampled_from(SYMBOLS),
    st.sampled_from(SIGNAL_TYPES),
    st.sampled_from(STRATEGIES),
    st.sampled_from([Priority.DEFAULT] * 6 + list(Priority)),
    st.integers(0, 14),
)
texts_drawn = {
    "signal_type": st.none() | st.lists(st.sampled_from(["RISK*", "ALPHA", "METRIC_?", "*A*"]), min_size=1, max_size=2),
    "strategy": st.none() | st.lists(st.sampled_from(["mm*", "arb", "?*", "mm2"]), min_size=1, max_size=2),
}
names_drawn = st.sampled_from("abc")


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Any]:
    kind = draw(st.sampled_from(["map", "map", "map", "rule", "unmap", "set", "clear"]))
    if kind == "map":
        texts = {name: draw(strategy) for name, strategy in texts_drawn.items()}
        told = any(wanted is not None for wanted in texts.values())
        what = {EventType.SIGNAL} if told else draw(types_drawn)
        when = draw(st.sampled_from([None, None, *CONDITIONS]))
        mapping = {"what": what, "symbol": draw(st.sampled_from(PATTERNS)), "when": when, "lane": draw(lanes_drawn)}
        return kind, (draw(names_drawn), mapping | texts)
    if kind == "rule":
        above, symbol = draw(st.integers(0, 14)), draw(st.sampled_from(PATTERNS))
        rule = {"what": draw(types_drawn), "symbol": symbol, "lane": draw(lanes_drawn), "above": above}
        return kind, (draw(names_drawn) + "!", rule)
    if kind == "unmap":
        return kind, draw(names_drawn) + draw(st.sampled_from(["", "!"]))
    return kind, (draw(st.sampled_from(CONDITIONS)), draw(st.sampled_from(PATTERNS)))


def change(policy: Priorities, model: Model, kind: str, what: Any) -> None:
    """The same change to both."""
    if kind == "map":
        name, mapping = what
        assert policy.map(**mapping, name=name) == name
        model.mappings[name] = mapping
    elif kind == "rule":
        name, rule = what
        arguments = {key: value for key, value in rule.items() if key != "above"}
        policy.raise_when(rule_above(rule["above"]), **arguments, name=name)
        model.rules[name] = rule
    elif kind == "unmap":
        was = what in model.mappings or what in model.rules
        assert policy.unmap(what) == was
        model.mappings.pop(what, None)
        model.rules.pop(what, None)
    elif kind == "set":
        policy.set_condition(what[0], symbol=what[1])
        model.conditions.add((what[0], what[1] or "*"))
    else:
        policy.clear_condition(what[0], symbol=what[1])
        gone = (what[0], what[1] or "*")
        model.conditions = {one for one in model.conditions if one[0] != what[0] or (what[1] and one != gone)}


def listed(found: Any, count: int) -> list[Priority]:
    """What ``lanes`` said, a lane a row; it must say one lane as one."""
    if isinstance(found, Priority):
        return [found] * count
    assert found.dtype == np.uint8
    assert found.shape == (count,)
    assert len(set(found.tolist())) > 1
    return [Priority(lane) for lane in found.tolist()]


def check(policy: Priorities, model: Model, events: list[Told], symbols: SymbolTable) -> None:
    batch = EventBatch.from_events([told.event() for told in events]).using(symbols, EventBatch.empty().sources)
    mixed = batch.records.view(RECORD)
    assert listed(policy.lanes(mixed, symbols), len(events)) == model.lanes(events)
    for event_type in EventType:
        some = [told for told in events if told.event_type is event_type]
        rows = of_type(mixed, event_type)
        if some:
            assert listed(policy.lanes(rows, symbols), len(some)) == model.lanes(some)
        else:
            assert isinstance(policy.lanes(rows, symbols), Priority)
    for told in events:
        assert [policy.lane_of_event(told.event())] == model.lanes([told])
        assert [policy.lane_of_event(told.event(), symbols, batch.sources, now_ns=5)] == model.lanes([told])


@settings(max_examples=150)
@given(st.lists(changes(), max_size=8), st.lists(told_drawn, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_rows_and_events_get_the_lanes_that_a_model_gives_them_whatever_changes_meanwhile(
    drawn: list[tuple[str, Any]], events: list[Told], random: Any
) -> None:
    policy, model = Priorities(), Model()
    symbols = SymbolTable()  # grows as the batches come in
    check(policy, model, events[:1], symbols)
    for kind, what in drawn:
        before = policy.version
        change(policy, model, kind, what)
        assert policy.version >= before
        check(policy, model, random.choices(events, k=random.randint(1, 6)), symbols)
    check(policy, model, events, symbols)
    assert policy.conditions == {
        name: tuple(place for place in policy.conditions[name]) for name in {name for name, _ in model.conditions}
    }
    assert {(name, place) for name, places in policy.conditions.items() for place in places} == model.conditions


def signals(*texts: tuple[str, str]) -> EventBatch:
    return EventBatch.from_events(
        SignalEvent(symbol="BTC", signal_type=signal_type, strategy_id=strategy) for signal_type, strategy in texts
    )


def told_lanes(policy: Priorities, batch: EventBatch) -> list[Priority]:
    return listed(policy.lanes(batch.records, batch.symbols), len(batch))


def orders(*quantities: float, symbol: str = "BTC") -> EventBatch:
    return EventBatch.from_events(
        OrderEvent(symbol=symbol, order_id="o", direction="BUY", quantity=quantity)  # type: ignore[arg-type]
        for quantity in quantities
    )


def prices(*values: float, symbol: str = "BTC") -> EventBatch:
    return EventBatch.from_events(MarketDataEvent(symbol=symbol, price=value) for value in values)


# -- what holds without a word ----------------------------------------------------------------------------------------


def test_orders_and_fills_are_critical_and_market_data_normal_by_default() -> None:
    policy = Priorities()
    fills = EventBatch.from_events([FillEvent(symbol="BTC", order_id="o", executed_qty=1, executed_price=1)])
    for batch, lane in ((orders(1, 2), CRITICAL), (fills, CRITICAL), (prices(1, 2), NORMAL)):
        assert policy.lanes(batch.records, batch.symbols) is lane
        assert policy.lane_of_event(batch[0]) is lane


@pytest.mark.parametrize(
    ("signal_type", "lane"),
    [
        ("RISK", HIGH),
        ("RISK_VAR", HIGH),
        ("LIMIT_BREACH", HIGH),
        ("MARGIN_CALL", HIGH),
        ("KILL_SWITCH", HIGH),
        ("MONITOR", LOW),
        ("MONITORING", LOW),
        ("HEARTBEAT", LOW),
        ("METRIC_DEPTH", LOW),
        ("RISKY", NORMAL),
        ("risk", NORMAL),
        ("MOMENTUM", NORMAL),
    ],
)
def test_signals_go_by_their_type_by_default(signal_type: str, lane: Priority) -> None:
    batch = signals((signal_type, "s"))
    assert Priorities().lanes(batch.records, batch.symbols) is lane
    assert Priorities().lane_of_event(batch[0]) is lane


def test_a_priority_of_its_own_wins_over_every_mapping() -> None:
    policy = Priorities()
    policy.map(MarketDataEvent, lane="high")
    batch = prices(1, 2)
    batch.records["priority"][1] = LOW
    assert told_lanes(policy, batch) == [HIGH, LOW]
    assert policy.lane_of_event(batch[1]) is LOW


def test_no_rows_have_one_lane() -> None:
    for dtype in (*DTYPES.values(), RECORD):
        assert isinstance(Priorities().lanes(np.zeros(0, dtype), SymbolTable()), Priority)


def test_rows_that_are_not_contiguous_are_read_right() -> None:
    policy = Priorities()
    policy.map(symbol="ETH", lane=HIGH)
    symbols = SymbolTable(["BTC", "ETH"])
    rows = concat_rows([prices(*range(6)).records], DTYPES[EventType.MARKET_DATA])
    rows["symbol"] = [0, 1, 1, 0, 1, 1]
    assert listed(policy.lanes(rows[::3], symbols), 2) == [NORMAL, NORMAL]
    assert listed(policy.lanes(rows[::-1], symbols), 6) == [HIGH, HIGH, NORMAL, HIGH, HIGH, NORMAL]
    rows["priority"][3] = CRITICAL
    assert listed(policy.lanes(rows[::3], symbols), 2) == [NORMAL, CRITICAL]


# -- mappings ---------------------------------------------------------------------------------------------------------


def test_the_last_mapping_that_matches_wins_and_one_run_again_keeps_its_place() -> None:
    policy = Priorities()
    policy.map("market.BTC*", lane=HIGH)
    policy.map(MarketDataEvent, symbol="BTCEUR", lane=LOW)
    version = policy.version
    batch = prices(1, symbol="BTCEUR")
    assert told_lanes(policy, batch) == [LOW]
    assert policy.map("market.BTC*", lane="HIGH") == "market.BTC*"
    assert policy.version == version, "the same mapping again changes nothing"
    policy.map("market.BTC*", lane="CRITICAL")
    assert policy.version == version + 1
    assert told_lanes(policy, batch) == [LOW]
    assert told_lanes(policy, prices(1, symbol="BTCUSDT")) == [CRITICAL]
    assert policy.names[len(DEFAULT_MAPPINGS) :] == ("market.BTC*", "market.BTCEUR")
    assert policy.unmap("market.BTCEUR")
    assert not policy.unmap("market.BTCEUR")
    assert told_lanes(policy, batch) == [CRITICAL]


def test_a_default_mapping_is_replaced_or_ended_by_its_name() -> None:
    policy = Priorities()
    policy.map(signal_type="ALARM", lane=HIGH, name="default: risk")
    assert told_lanes(policy, signals(("ALARM", ""), ("RISK", ""), ("STATUS", ""))) == [HIGH, NORMAL, LOW]
    policy.unmap("default: orders and fills")
    assert told_lanes(policy, orders(1)) == [NORMAL]


def test_a_strategy_s_signals_can_be_mapped_and_its_orders_can_not() -> None:
    policy = Priorities()
    assert policy.map(strategy="mm*", lane=HIGH) == "signal.* strategy=mm*"
    assert policy.map(strategy=["arb", "mm9"], signal_type="EXIT", lane=CRITICAL).endswith(
        "strategy=arb|mm9 signal_type=EXIT"
    )
    found = told_lanes(policy, signals(("EXIT", "mm1"), ("EXIT", "mm9"), ("ENTER", "arb"), ("HEARTBEAT", "mm2")))
    assert found == [HIGH, CRITICAL, NORMAL, HIGH]
    with pytest.raises(ValidationError, match=r"texts of signals alone.*got order.*give them a priority"):
        policy.map(OrderEvent, strategy="mm1", lane=HIGH)


def test_a_mapping_for_a_condition_holds_only_while_and_where_it_is_set() -> None:
    policy = Priorities()
    name = policy.map(MarketDataEvent, when="volatile", lane=HIGH)
    assert name == "market.* when=volatile"
    bitcoin, ether = prices(1, symbol="BTCUSDT"), prices(1, symbol="ETH")

    def lanes() -> tuple[list[Priority], list[Priority]]:
        return told_lanes(policy, bitcoin), told_lanes(policy, ether)

    assert lanes() == ([NORMAL], [NORMAL])
    policy.set_condition("volatile", symbol="BTC*")
    version = policy.version
    policy.set_condition("volatile", symbol="BTC*")
    assert policy.version == version
    assert policy.conditions == {"volatile": ("BTC*",)}
    assert lanes() == ([HIGH], [NORMAL])
    policy.set_condition("volatile")
    assert lanes() == ([HIGH], [HIGH])
    assert policy.clear_condition("volatile", symbol="*")
    assert lanes() == ([HIGH], [NORMAL])
    assert policy.clear_condition("volatile")
    assert not policy.clear_condition("volatile")
    assert not policy.clear_condition("closing", symbol="ETH")
    assert lanes() == ([NORMAL], [NORMAL])
    assert policy.conditions == {}


def test_a_symbol_that_comes_later_is_matched_too_and_so_is_one_of_another_table() -> None:
    policy = Priorities()
    policy.map(symbol="BTC*", lane=HIGH)
    policy.map(symbol="NEW", lane=LOW)
    symbols = SymbolTable()
    for name, lane in (("ETH", NORMAL), ("BTCUSDT", HIGH), ("NEW", LOW), ("BTCEUR", HIGH)):
        batch = prices(1, 2, symbol=name).using(symbols, EventBatch.empty().sources)
        assert policy.lanes(batch.records, symbols) is lane
        other = prices(1, symbol=name)
        assert policy.lanes(other.records, other.symbols) is lane


def test_texts_beyond_what_is_remembered_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lane_plan, lane_tables):
        monkeypatch.setattr(module, "MAX_TEXTS", 3)
    policy = Priorities()
    policy.map(strategy="*2", symbol="B*", lane=CRITICAL)
    model = Model(mappings={"a": {"what": {EventType.SIGNAL}, "symbol": "B*", "strategy": ["*2"], "signal_type": None,
                                  "when": None, "lane": CRITICAL}})  # fmt: skip
    symbols = SymbolTable()
    told = [
        Told(EventType.SIGNAL, symbol, signal_type, strategy, Priority.DEFAULT, 0)
        for symbol in ("BTC", "ETH")
        for signal_type in ("RISK", "HEARTBEAT", "ALPHA")
        for strategy in ("mm1", "mm2")
    ]
    for first in range(0, len(told), 2):
        check(policy, model, told[first:] + told[:first], symbols)
        check(policy, model, told[first : first + 2], symbols)


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_rule_raises_and_never_lowers() -> None:
    policy = Priorities()
    name = policy.raise_when(lambda records: records["price"] > 2, "high", what="market", name="dear")
    batch = prices(1, 2, 3, 4)
    batch.records["priority"][3] = CRITICAL
    batch.records["priority"][2] = LOW
    assert told_lanes(policy, batch) == [NORMAL, NORMAL, HIGH, CRITICAL]
    assert told_lanes(policy, orders(1)) == [CRITICAL]
    told = policy.to_frame().set_index("name").loc[name]
    assert (told["kind"], told["rows"], told["raised"], told["failures"]) == ("rule", 4, 1, 0)
    assert policy.unmap("dear")
    assert told_lanes(policy, batch) == [NORMAL, NORMAL, LOW, CRITICAL]


def test_a_rule_for_a_symbol_raises_the_right_rows_among_those_of_other_types() -> None:
    policy = Priorities()
    policy.raise_when(lambda records: records["price"] > 1, HIGH, what="market.BTC")
    events = [*orders(1), *prices(5, symbol="ETH"), *orders(2), *prices(5), *prices(0), *prices(7)]
    batch = EventBatch.from_events(events)
    assert told_lanes(policy, batch) == [CRITICAL, NORMAL, CRITICAL, HIGH, NORMAL, HIGH]


def test_events_of_one_symbol_and_different_types_are_told_apart() -> None:
    policy = Priorities()
    policy.map("market.BTC", lane=HIGH)
    policy.map("order.BTC", lane=LOW)
    assert [policy.lane_of_event(event) for event in (*prices(1), *orders(1), *prices(2))] == [HIGH, LOW, HIGH]


def test_a_rule_run_again_replaces_itself_and_the_same_one_keeps_its_counts() -> None:
    policy = Priorities()
    where = rule_above(-10)
    name = policy.raise_when(where, HIGH)
    told_lanes(policy, prices(1))
    version = policy.version
    assert policy.raise_when(where, HIGH) == name
    assert policy.version == version
    assert policy.raise_when(rule_above(0), HIGH) == name
    assert policy.version == version + 1
    assert len(policy.names) == len(DEFAULT_MAPPINGS) + 1
    assert policy.to_frame()["rows"].sum() == 0


def raises(records: Rows) -> Any:
    missing: Any = records["no such field"]
    return missing


def writes(records: Rows) -> Any:
    records["price"] = 0.0


FAILING: dict[str, tuple[Callable[[Rows], Any], str]] = {
    "it raises": (raises, "no field of name"),
    "None": (lambda records: None, "returns a boolean array.*got NoneType"),
    "numbers": (lambda records: records["price"], "got float64 of shape"),
    "too few": (lambda records: np.ones(1, bool), r"one value a row \(3,\); got bool of shape \(1,\)"),
    "it writes": (writes, "read-only"),
}


@pytest.mark.parametrize("failing", FAILING)
def test_a_rule_that_fails_counts_as_not_matching_and_is_told(failing: str) -> None:
    where, message = FAILING[failing]
    told: list[RuleFailure] = []
    policy = Priorities(on_failure=told.append)
    policy.raise_when(where, CRITICAL, name="bad")
    policy.raise_when(lambda records: records["price"] > 2, HIGH, what="market", name="good")
    batch = prices(1, 2, 3)
    assert told_lanes(policy, batch) == [NORMAL, NORMAL, HIGH]
    assert batch.records["price"].tolist() == [1, 2, 3]
    assert told_lanes(policy, batch) == [NORMAL, NORMAL, HIGH]
    failure = policy.failures["bad"]
    assert (failure.rule, failure.calls, failure.rows) == ("bad", 2, 6)
    assert policy.failures.keys() == {"bad"}
    with pytest.raises(Exception, match=message):
        raise failure.error
    assert [(one.calls, one.rows) for one in told] == [(1, 3), (2, 6)]
    assert told[-1] is failure
    assert "2 failures" in repr(policy)
    policy.unmap("bad")
    assert policy.failures == {}


def test_a_rule_that_fails_on_one_event_does_not_hold_it_up() -> None:
    policy = Priorities()
    policy.raise_when(raises, CRITICAL, name="bad")
    assert policy.lane_of_event(prices(1)[0]) is NORMAL
    assert policy.failures["bad"].rows == 1


def test_a_callback_that_fails_itself_is_counted() -> None:
    def broken(failure: RuleFailure) -> None:
        raise OSError("nobody there")

    policy = Priorities(on_failure=broken)
    policy.raise_when(raises, CRITICAL, name="bad")
    assert told_lanes(policy, prices(1)) == [NORMAL]
    assert policy.untold == 1
    assert "nobody there" in policy.failures["bad"].error.__notes__[0]


def test_a_failure_that_is_kept_keeps_no_rows_alive() -> None:
    policy = Priorities()

    def deep(records: Rows) -> Any:
        try:
            return raises(records)
        except ValueError as error:
            raise RuntimeError("worse") from error

    policy.raise_when(deep, CRITICAL)
    batch = prices(1)
    rows = weakref.ref(batch.records)
    told_lanes(policy, batch)
    del batch
    gc.collect()
    assert rows() is None
    (failure,) = policy.failures.values()
    assert "in raises" in failure.traceback
    assert "direct cause" in failure.traceback
    assert failure.traceback.endswith("RuntimeError: worse\n")


def test_a_rule_may_change_the_policy_that_asks_it() -> None:
    policy = Priorities()

    def once(records: Rows) -> npt.NDArray[np.bool_]:
        policy.unmap("once")
        return np.ones(len(records), bool)

    policy.raise_when(once, HIGH, name="once")
    assert told_lanes(policy, prices(1)) == [HIGH]
    assert told_lanes(policy, prices(1)) == [NORMAL]


# -- what a user sees -------------------------------------------------------------------------------------------------


def test_a_policy_tells_itself() -> None:
    policy = Priorities()
    assert repr(policy) == "Priorities(5 default mappings and 0 more; 0 rules)"
    policy.map(SignalEvent, strategy="<b>", when="volatile", lane=HIGH)
    policy.set_condition("volatile", symbol="BTC*")
    policy.raise_when(rule_above(3), HIGH, name="big")
    assert repr(policy) == "Priorities(5 default mappings and 1 more; 1 rule; volatile for BTC*)"
    assert "&lt;b&gt;" in policy._repr_html_()
    assert "<b>" not in policy._repr_html_().split("</b>", 1)[1]
    frame = policy.to_frame()
    assert frame["kind"].tolist() == ["default"] * 5 + ["mapping", "rule"]
    assert frame["lane"].tolist() == ["CRITICAL", "NORMAL", "NORMAL", "HIGH", "LOW", "HIGH", "HIGH"]
    assert [frame[name][5] for name in ("types", "strategy", "when", "holds")] == ["signal", "<b>", "volatile", "BTC*"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lane": "DEFAULT"}, "lane is one of Priority.LOW.*got 'DEFAULT'"),
        ({"lane": "URGENT"}, "got 'URGENT'"),
        ({"lane": 0}, "got 0"),
        ({"lane": 7}, "got 7"),
        ({"lane": True}, "got True"),
        ({"lane": None}, "got None"),
        ({"what": "trades", "lane": HIGH}, "a topic is TYPE.SYMBOL.*got 'trades'"),
        ({"what": 7, "lane": HIGH}, "event classes, EventTypes or a topic; got 7"),
        ({"what": [], "lane": HIGH}, "at least one event type"),
        ({"what": Gap, "lane": HIGH}, "got Gap, a notice"),
        ({"what": "market.BTC", "symbol": "ETH", "lane": HIGH}, "drop symbol='ETH'"),
        ({"symbol": ["BTC"], "lane": HIGH}, r"one symbol or a pattern.*got \['BTC'\]"),
        ({"strategy": [], "lane": HIGH}, r"strategy= is a text.*got \[\]"),
        ({"signal_type": 3, "lane": HIGH}, "signal_type= is a text.*got 3"),
        ({"when": 3, "lane": HIGH}, "a market condition is a text.*got 3"),
        ({"lane": HIGH, "name": ""}, "name= is a text.*got ''"),
        ({"lane": HIGH, "name": "rule"}, "a rule has the name 'rule'"),
    ],
)
def test_what_can_not_be_read_is_refused_and_changes_nothing(arguments: dict[str, Any], message: str) -> None:
    policy = Priorities()
    policy.raise_when(rule_above(3), HIGH, name="rule")
    version = policy.version
    with pytest.raises(ValidationError, match=message):
        policy.map(**arguments)
    assert policy.version == version


def test_what_is_no_rule_or_condition_is_refused() -> None:
    policy = Priorities()
    with pytest.raises(ValidationError, match=r"a rule is a function from records.*got 'price > 2'"):
        policy.raise_when("price > 2", HIGH)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="a mapping has the name 'default: risk'"):
        policy.raise_when(rule_above(3), HIGH, name="default: risk")
    with pytest.raises(ValidationError, match=r"a market condition is a text.*got ''"):
        policy.set_condition("")
    with pytest.raises(ValidationError, match="got 3"):
        policy.set_condition("volatile", symbol=3)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="one of hftlab's dtypes"):
        policy.lanes(np.zeros(1, "V128"), SymbolTable())


def test_the_class_of_all_events_and_a_wild_topic_mean_all_types() -> None:
    policy = Priorities()
    policy.map(Event, lane=LOW)
    assert told_lanes(policy, orders(1)) == [LOW]
    policy.map("*.BTC", lane=HIGH)
    assert told_lanes(policy, orders(1)) == [HIGH]
    policy.map([OrderEvent, "fill", EventType.MARKET_DATA], lane=NORMAL)
    assert told_lanes(policy, orders(1)) == [NORMAL]
